//! The command, asking the admin interface of a running Envoy.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::keys::{Minter, options};
use crate::support::{Envoy, Request};

/// Runs `vkey tls` on an admin interface.
fn tls(command: &str, envoy: &Envoy) -> (Option<i32>, String) {
    let url = format!("http://{}", envoy.admin());
    let run = Command::new(env!("CARGO_BIN_EXE_vkey"))
        .args(["tls", command, &url, "--json"])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("the command starts");
    assert!(run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
    (run.status.code(), String::from_utf8(run.stdout).expect("text"))
}

/// A cluster that says only by the name of its endpoint whom it is for.
fn cluster(name: &str, more: Value) -> Value {
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 1}});
    let endpoint = json!({"address": address, "hostname": "api.openai.com"});
    let endpoints = json!([{"lb_endpoints": [{"endpoint": endpoint}]}]);
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    });
    for (member, value) in more.as_object().expect("an object") {
        cluster[member] = value.clone();
    }
    cluster
}

#[test]
fn lint_finds_in_a_running_envoy_what_its_clusters_lack() {
    let envoy =
        Envoy::start(options("lint", &Minter::new("main", None), json!({})).edit(|config| {
            let context = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
            let context = json!({"@type": format!("type.googleapis.com/{context}"),
                             "auto_host_sni": true, "allow_renegotiation": true});
            let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
            let clusters = &mut config["static_resources"]["clusters"];
            let clusters = clusters.as_array_mut().expect("a list");
            clusters.push(cluster("plain", json!({})));
            clusters.push(cluster("trusting", json!({"transport_socket": socket})));
        }));
    let (code, report) = tls("lint", &envoy);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((code, &report["clusters"], &report["judged"]), (Some(1), &json!(3), &json!(2)));
    let of = |cluster: &str| {
        let findings = report["findings"].as_array().expect("a list").iter();
        let own = findings.filter(|finding| finding["cluster"] == cluster);
        own.map(|finding| finding["rule"].as_str().expect("an id")).collect::<Vec<_>>()
    };
    assert_eq!(of("plain"), ["stamp_missing", "gate_missing", "plaintext"]);
    let trusting = ["stamp_missing", "gate_missing", "ca_missing", "allow_renegotiation"];
    assert_eq!(of("trusting"), trusting);
    let (code, status) = tls("status", &envoy);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((code, &status["upstreams"]), (Some(0), &json!([])));
    // The names of metrics are whole in the form that `status` asks for, with labels taken out too.
    let labelled = "/stats?format=json&filter=vkey_requests_total";
    envoy.send(&Request::new("GET", "/v1/models"));
    envoy.wait_for_access_log(1);
    let stats = envoy.admin_get(labelled).json();
    let name = "wasmcustom.vkey_requests_total.decision.deny.reason.key_missing.tenant.none";
    assert_eq!(stats["stats"][0]["name"], name);
}
