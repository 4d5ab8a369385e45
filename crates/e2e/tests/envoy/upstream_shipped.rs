//! The gate of the cluster in `envoy.yaml`, as `make run` starts it.

use serde_json::json;

use crate::gateways::KNOWN;
use crate::keys::{Minter, options, records};
use crate::support::{Envoy, Request, config, each_envoy};

/// The upstream listens on a Unix socket here, whose connection has no address of its own.
#[test]
fn the_shipped_file_has_a_gate() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let options = options("shipped", &main, json!({})).on(binary).edit(|config| {
            let mut shipped = config::shipped();
            let vm = config::wasm(config)["vm_config"].clone();
            let name = "typed_extension_protocol_options";
            let clusters = "/static_resources/clusters";
            let mut gate = config::named(&mut shipped, clusters, "echo")[name].take();
            let filters = "/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/http_filters/0";
            let gate_vm = &mut gate.pointer_mut(filters).unwrap()["typed_config"]["config"];
            gate_vm["vm_config"] = vm;
            config::named(config, clusters, "echo")[name] = gate;
        });
        let envoy = Envoy::start(options);
        let request = Request::new("GET", "/v1/models").bearer(&main.key("k1", json!({})));
        assert_eq!(envoy.send(&request).status, 200);
        let answer = envoy.send(&request.header("host", KNOWN));
        assert_eq!((answer.status, answer.text().contains("upstream_plaintext")), (502, true));
        let verdicts: Vec<_> =
            records(&envoy, 2).into_iter().map(|r| r.tls_verdict.unwrap()).collect();
        assert_eq!(verdicts, ["unlisted", "upstream_plaintext"]);
    });
}
