//! Whatever is wrong with the module or its configuration, nothing gets through.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use vkey::audit::Line;
use vkey::decision::{Decision, DenyReason};

use crate::keys::{Minter, VARIABLE, audit_lines, options};
use crate::support::{Connection, Envoy, Options, Request, artefact, config, each_envoy};

/// Workers, so that a fault on one of them would show.
const WORKERS: u32 = 4;

/// Enough connections that every worker gets some.
const CONNECTIONS: usize = 64;

/// The statuses that a good key gets on many connections.
fn statuses(envoy: &Envoy, key: &str) -> Vec<u16> {
    let request = Request::new("GET", "/v1/models").bearer(key);
    let mut connections: Vec<_> =
        (0..CONNECTIONS).map(|_| Connection::open(envoy.gate())).collect();
    connections.iter_mut().map(|connection| connection.send(&request).status).collect()
}

#[track_caller]
fn assert_all(statuses: &[u16], wanted: u16) {
    assert!(statuses.iter().all(|status| *status == wanted), "{statuses:?}");
}

#[track_caller]
fn assert_refused(plugin: &str, why: &str) {
    let main = Minter::new("main", None);
    let refused = Envoy::refuse(Options::new("refuse").plugin(plugin).env(VARIABLE, &main.secret));
    assert!(!refused.status.success());
    assert!(refused.log.contains(why), "{why} in {}", refused.log);
}

#[test]
fn a_configuration_that_is_none_is_not_loaded() {
    assert_refused("{", "not valid JSON");
    assert_refused("{}", "keyring: missing");
    let literal = r#"{"keyring": [{"name": "main", "secret": "Sample-Secret-1-never-deploy"}]}"#;
    assert_refused(literal, "keyring[0].secret: a secret does not belong in a configuration");
    let future = r#"{"keyring": [{"name": "main", "secret": "${A}"}], "mcps": {}}"#;
    assert_refused(future, "mcps: unknown member");
    let bound = r#"{"keyring": [{"name": "main", "secret": "${A}"}], "llm": {"default_reserve_tokens": 0}}"#;
    assert_refused(bound, "llm.default_reserve_tokens: expected");
}

/// The messages that `vkey config check` takes are those that Envoy hands over as text.
#[test]
fn a_struct_reaches_the_module_in_binary_and_is_not_loaded() {
    let main = Minter::new("main", None);
    let plugin = json!({"keyring": [{"name": "main", "secret": format!("${{{VARIABLE}}}")}]});
    let bytes = STANDARD.encode(plugin.to_string());
    each_envoy(|binary| {
        let of = |kind: &str, value: &Value| {
            let kind = format!("type.googleapis.com/google.protobuf.{kind}");
            let message = json!({"@type": kind, "value": value});
            let options = Options::new("message").on(binary).env(VARIABLE, &main.secret);
            options.edit(|proxy| config::wasm(proxy)["configuration"] = message)
        };
        let refused = Envoy::refuse(of("Struct", &plugin));
        assert!(refused.log.contains("not valid JSON"), "{}", refused.log);
        let envoy = Envoy::start(of("BytesValue", &json!(bytes)));
        assert_all(&statuses(&envoy, &main.key("k1", json!({}))), 200);
    });
}

#[test]
fn a_literal_secret_is_not_even_logged() {
    let literal = r#"{"keyring": [{"name": "main", "secret": "Sample-Secret-1-never-deploy"}]}"#;
    let refused = Envoy::refuse(Options::new("literal").plugin(literal));
    let ours: Vec<_> = refused.log.lines().filter(|line| line.contains("wasm log")).collect();
    assert!(!ours.is_empty(), "{}", refused.log);
    assert!(!ours.concat().contains("never-deploy"), "{}", refused.log);
}

#[track_caller]
fn assert_not_ready(label: &str, options: Options, why: &str) {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options.concurrency(WORKERS));
    assert_all(&statuses(&envoy, &main.key("k1", json!({}))), 503);
    let usage = Request::new("GET", "/.vkey/usage").bearer(&main.key("k1", json!({})));
    let answer = envoy.send(&usage);
    assert_eq!(answer.status, 503, "{label}");
    assert_eq!(answer.json()["error"]["code"], "not_ready");
    let log = envoy.proxy_log();
    assert!(log.contains(why), "{why} in {log}");
}

#[test]
fn a_missing_secret_denies_everything() {
    let main = Minter::new("main", None);
    assert_not_ready(
        "unset",
        options("unset", &main, json!({})).env(VARIABLE, ""),
        "is not set or empty",
    );
    let keyring = json!([{"name": "main", "secret": "${ELSEWHERE}"}]);
    assert_not_ready(
        "unset",
        options("unset", &main, json!({"keyring": keyring})),
        "ELSEWHERE is not set",
    );
}

#[test]
fn a_weak_or_published_secret_denies_everything() {
    let plugin = format!(r#"{{"keyring": [{{"name": "main", "secret": "${{{VARIABLE}}}"}}]}}"#);
    for (secret, why) in [
        ("tooshort", "too short"),
        ("alllowercaseletters", "at least three of"),
        ("base64:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "published sample"),
    ] {
        let options = Options::new("weak").plugin(&plugin).env(VARIABLE, secret);
        assert_not_ready(why, options, why);
    }
}

#[test]
fn no_configuration_denies_everything() {
    let main = Minter::new("main", None);
    let options = options("none", &main, json!({})).edit(|config| {
        config::wasm(config).as_object_mut().unwrap().remove("configuration");
    });
    assert_not_ready("none", options, "no configuration");
}

#[test]
fn what_is_not_ready_is_audited() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("audited", &main, json!({})).env(VARIABLE, ""));
    assert_eq!(envoy.send(&Request::new("GET", "/v1/models")).status, 503);
    let [Line { record, outcome }] = <[_; 1]>::try_from(audit_lines(&envoy, 1)).unwrap();
    let record = record.unwrap();
    assert_eq!(record.decision, Some(Decision::Deny(DenyReason::NotReady)));
    assert_eq!((outcome.status, record.path.as_deref()), (Some(503), Some("/v1/models")));
}

/// Envoy lets requests pass unfiltered when a module fails on its workers only. The seal does not.
fn assert_sealed(fault: &str) {
    let main = Minter::new("main", None);
    let faulty = |label: &str| {
        options(label, &main, json!({}))
            .module(artefact("VKEY_TEST_WASM_FAULTS"))
            .env("VKEY_FAULT", fault)
            .concurrency(WORKERS)
    };
    let key = main.key("k1", json!({}));
    let sealed = Envoy::start(faulty("sealed"));
    assert_all(&statuses(&sealed, &key), 403);
    // Without the seal the same request gets through: the test would notice an invalid fault.
    let unsealed = Envoy::start(faulty("unsealed").edit(|config| {
        config::http_filters(config).retain(|filter| filter["name"] != "envoy.filters.http.rbac");
    }));
    assert_all(&statuses(&unsealed, "no key at all"), 200);
}

#[test]
fn a_module_that_refuses_on_the_workers_is_sealed() {
    assert_sealed("configure_false");
}

#[test]
fn a_module_that_traps_on_the_workers_is_sealed() {
    assert_sealed("configure_trap");
}

/// Envoy asks for the body of a request while its headers are held, and would let both go on. Without
/// an answer of the module's the request ends by Envoy's own time limit; the seal is out of the way.
#[test]
fn a_request_that_cannot_be_answered_is_held() {
    let main = Minter::new("main", None);
    let options = options("held", &main, json!({}))
        .module(artefact("VKEY_TEST_WASM_FAULTS"))
        .env("VKEY_FAULT", "reply_fails")
        .edit(|config| {
            config::connection_manager(config, "gate")["stream_idle_timeout"] = json!("0.5s");
            let sealed = |filter: &Value| filter["name"] != "envoy.filters.http.rbac";
            config::http_filters(config).retain(sealed);
        });
    let envoy = Envoy::start(options);
    let usage = Request::new("GET", "/.vkey/usage").bearer(&main.key("k1", json!({})));
    for request in [
        Request::new("GET", "/v1/models"),
        Request::new("POST", "/v1/chat").body("hello"),
        usage.body("hello"),
    ] {
        let answer = envoy.send(&request);
        assert!(matches!(answer.status, 408 | 504), "{answer:?}");
    }
}

#[test]
fn the_module_with_no_fault_opens() {
    let main = Minter::new("main", None);
    let options = options("faultless", &main, json!({})).module(artefact("VKEY_TEST_WASM_FAULTS"));
    let envoy = Envoy::start(options.concurrency(WORKERS));
    assert_all(&statuses(&envoy, &main.key("k1", json!({}))), 200);
}
