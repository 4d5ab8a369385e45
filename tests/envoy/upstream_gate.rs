//! The gate of a cluster: nothing leaves before the connection has shown what the policy asks for.

use std::path::Path;

use serde_json::json;
use vkey::audit::Record;
use vkey::decision::Decision;

use crate::keys::{Minter, options, records};
use crate::support::tls::{Authority, Cluster, Serve, Upstream};
use crate::support::{Envoy, Request, config, each_envoy};

/// A known host of the shipped policy.
const KNOWN: &str = "api.openai.com";

/// An Envoy whose requests go to a cluster with a gate, and a request for a host.
fn gated(binary: &Path, label: &str, host: &str, cluster: Cluster) -> (Envoy, Request) {
    let main = Minter::new("main", None);
    let options = options(label, &main, json!({})).on(binary);
    let envoy = Envoy::start(options.edit(|config| cluster.gate().install(config)));
    let request = Request::new("POST", "/v1/chat").header("host", host).body("{}");
    (envoy, request.bearer(&main.key("k1", json!({}))))
}

/// Sends a request that is refused with that reason, of which the upstream sees nothing.
fn refuses(envoy: &Envoy, request: &Request, upstream: &Upstream, reason: &str) {
    let answer = envoy.send(request);
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].clone()),
        (502, json!(reason)),
        "{}",
        envoy.proxy_log()
    );
    let record = records(envoy, 1).pop().unwrap();
    assert_eq!(record.decision.and_then(Decision::reason).unwrap().code(), reason);
    assert_eq!(record.tls_verdict.as_deref(), Some(reason));
    assert_eq!(upstream.final_counts().bytes, 0);
}

/// As `make run` starts it.
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

#[test]
fn a_known_host_is_never_plaintext() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream);
        let (envoy, request) = gated(binary, "plaintext", KNOWN, cluster);
        refuses(&envoy, &request, &upstream, "upstream_plaintext");
    });
}

#[test]
fn a_good_upstream_passes() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = Cluster::tls("api", &upstream, &authority).sni(KNOWN).san(KNOWN);
        let (envoy, request) = gated(binary, "good", KNOWN, cluster);
        for _ in 0..3 {
            let answer = envoy.send(&request);
            assert_eq!(answer.status, 200, "{answer:?}\n{}", envoy.proxy_log());
        }
        println!("{}", envoy.admin_get("/stats?filter=vkey_").text());
        let records: Vec<Record<'_>> = records(&envoy, 3);
        assert!(records.iter().all(|record| record.tls_verdict.as_deref() == Some("verified")));
        assert_eq!(upstream.counts().accepted, 1);
    });
}
