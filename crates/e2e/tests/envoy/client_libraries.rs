//! What client libraries of other authors make of refusals: those of OpenAI and Anthropic, and gRPC.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vkey::audit::AuditRecord;
use vkey::decision::{Decision, DenyReason};

use crate::keys::{Minter, attenuate, now_secs, options, records};
use crate::support::{Envoy, artefact, each_envoy, root};

/// The libraries that ask for completions.
const CLIENTS: [&str; 2] = ["openai", "anthropic"];

/// What came of the cases: see the script.
fn ask(cases: &[Value]) -> Vec<Value> {
    let mut client = Command::new(artefact("VKEY_TEST_CLIENTS"))
        .arg("-B")
        .arg(root().join("crates/e2e/tests/clients/ask.py"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the clients start");
    let input = json!(cases).to_string();
    client.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = client.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).expect("what came of the cases")
}

/// The decisions on the requests of one case, which has a path of its own.
fn decisions(records: &[AuditRecord<'_>], path: &str) -> Vec<Option<Decision>> {
    let of_case = |record: &&AuditRecord<'_>| record.path.as_deref().unwrap().starts_with(path);
    records.iter().filter(of_case).map(|record| record.decision).collect()
}

fn plugin() -> Value {
    json!({
        "tiers": {
            "default": {},
            "monthly": {"rate": {"requests": 1, "per": "30d"}},
            "total": {"quotas": [{"requests": 0, "per": "total"}]},
            "ten-seconds": {"rate": {"requests": 1, "per": "10s"}},
        },
    })
}

/// One request is enough to be told that waiting does not help. The library of Anthropic sleeps for as long as
/// `Retry-After` says, and both try again whatever is answered with 502.
#[test]
fn clients_do_not_wait_for_what_waiting_does_not_cure() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let envoy = Envoy::start(options("clients", &main, plugin()).on(binary));
        let good = main.key("good", json!({}));
        let brief = json!({"tier": "total", "exp": now_secs() + 50});
        let cases = [
            ("key", "vk1.none".to_owned(), 401, DenyReason::KeyMalformed),
            ("path", attenuate(&good, &json!({"paths": []})), 403, DenyReason::Path),
            ("month", String::new(), 429, DenyReason::Rate),
            ("total", main.key("total", json!({"tier": "total"})), 429, DenyReason::Quota),
            ("brief", main.key("brief", brief), 429, DenyReason::Quota),
            ("identity", good.clone(), 400, DenyReason::HeaderMismatch),
            ("upstream", good, 502, DenyReason::UpstreamPlaintext),
        ];
        let mut asked = Vec::new();
        for client in CLIENTS {
            for (name, key, _, reason) in &cases {
                let url = format!("http://{}/{client}/{name}", envoy.gate());
                let mut case = json!({"client": client, "url": url, "key": key, "calls": 1});
                match reason {
                    DenyReason::Rate => {
                        case["calls"] = json!(2);
                        case["key"] = json!(main.key(client, json!({"tier": "monthly"})));
                    }
                    DenyReason::HeaderMismatch => case["headers"] = json!({"x-vkey-role": "admin"}),
                    DenyReason::UpstreamPlaintext => case["host"] = json!("api.openai.com"),
                    _ => {}
                }
                asked.push(case);
            }
        }
        let answers = ask(&asked);
        let records = records(&envoy, asked.len() + CLIENTS.len());
        for (client, answers) in CLIENTS.iter().zip(answers.chunks(cases.len())) {
            for ((name, _, status, reason), answer) in cases.iter().zip(answers) {
                // The month has one request for each client.
                let before = usize::from(*reason == DenyReason::Rate);
                let calls = [&[200][..before], &[*status]].concat();
                assert_eq!(*answer, json!({"calls": calls, "waits": []}), "{client} {name}");
                let refused = Some(Decision::Deny(*reason));
                let seen = decisions(&records, &format!("/{client}/{name}/"));
                let expected = [&[Some(Decision::Allow)][..before], &[refused]].concat();
                assert_eq!(seen, expected, "{client} {name}");
            }
        }
    });
}

/// A wait of seconds is told to the millisecond, and one more request is enough.
#[test]
fn clients_wait_for_what_waiting_cures() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("clients-wait", &main, plugin()));
    let cases = CLIENTS.map(|client| {
        let key = main.key(client, json!({"tier": "ten-seconds"}));
        let url = format!("http://{}/{client}", envoy.gate());
        json!({"client": client, "url": url, "key": key, "calls": 2})
    });
    let answers = ask(&cases);
    let records = records(&envoy, 6);
    for (client, answer) in CLIENTS.iter().zip(&answers) {
        assert_eq!(answer["calls"], json!([200, 200]), "{client}");
        let [wait] = answer["waits"].as_array().unwrap().as_slice() else { panic!("{answer}") };
        let wait = wait.as_f64().unwrap();
        assert!(0.0 < wait && wait <= 10.0, "{wait}");
        let limited = Some(Decision::Deny(DenyReason::Rate));
        let seen = decisions(&records, &format!("/{client}/"));
        assert_eq!(seen, [Some(Decision::Allow), limited, Some(Decision::Allow)], "{client}");
    }
}

#[test]
fn grpc_callers_are_told_what_happened() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let envoy = Envoy::start(options("grpc", &main, plugin()).on(binary));
        let good = main.key("good", json!({}));
        let total = main.key("total", json!({"tier": "total"}));
        let narrowed = attenuate(&good, &json!({"paths": []}));
        let cases = [
            (total, "/a.B/Limited", "", "RESOURCE_EXHAUSTED", "quota"),
            (good.clone(), "/a.B/Identity", "", "INVALID_ARGUMENT", "header_mismatch"),
            ("vk1.none".to_owned(), "/a.B/Key", "", "UNAUTHENTICATED", "invalid_token"),
            (narrowed, "/a.B/Path", "", "PERMISSION_DENIED", "path"),
            (good, "/a.B/Upstream", "api.openai.com", "UNAVAILABLE", "upstream_plaintext"),
        ];
        let asked = cases.each_ref().map(|(key, method, host, _, _)| {
            let host = if host.is_empty() { "gw.example" } else { host };
            let url = envoy.gate().to_string();
            let claims = *method == "/a.B/Identity";
            let headers = if claims { json!({"x-vkey-role": "admin"}) } else { json!({}) };
            json!({
                "client": "grpc", "url": url, "key": key, "method": method, "host": host,
                "headers": headers, "calls": 1,
            })
        });
        let answers = ask(&asked);
        for ((_, method, _, status, code), answer) in cases.iter().zip(&answers) {
            let told = &answer["calls"][0];
            assert_eq!(told["code"], *status, "{told}");
            // Envoy puts the body there.
            let body: Value = serde_json::from_str(told["details"].as_str().unwrap()).unwrap();
            assert_eq!(body["error"]["code"], *code, "{told}");
            assert_eq!(told["metadata"]["x-should-retry"], "false", "{told}");
            let waits = told["metadata"]["retry-after"].is_string();
            assert_eq!(waits, *status == "RESOURCE_EXHAUSTED", "{method} {told}");
        }
        assert_eq!(records(&envoy, cases.len()).len(), cases.len());
    });
}
