//! `vkey explain` by its arguments and `vkey run` by a line say the same of a request. The library's own
//! tests hold both against each other in many more cases, without processes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use vkey::key::token::Unverified;

use crate::harness::{Gate, NOW, attenuate};

/// The certificate that a key is bound to.
const CERT: &str = "abababababababababababababababababababababababababababababababab";

/// The credential of a provider, which explain can do without.
const PROVIDER: (&str, &str) = ("PROVIDER", "a-credential-0-of-a-provider");

/// A key of the table, what is asked for, and what becomes of it.
type Case = (&'static str, Value, &'static str);

#[test]
fn the_commands_agree() {
    let gate = Gate::new();
    let keys = keys(&gate);
    let cases = [about_keys(), about_times(), about_clients(), about_targets()].concat();
    let lines = cases.iter().map(|(key, request, _)| format!("{}\n", line(&keys[key], request)));
    let lines: String = lines.collect();
    let run = ["run", "--now", NOW, "--log-level", "critical"];
    let done = gate.vkey(&run).env(PROVIDER.0, PROVIDER.1).stdin(lines).ok();
    let results: Vec<Value> =
        done.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(results.len(), cases.len(), "{}", done.err);
    for ((key, request, expected), result) in cases.iter().zip(&results) {
        let args = arguments(request);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (code, report) = gate.explain(&keys[key], &args);
        let answered = result["reply"] != Value::Null && result["decision"] == "allow";
        let context = format!("{key} key, {request}: {report} {result}");
        assert_eq!(words(&report, report["usage"] == true), *expected, "{context}");
        assert_eq!(words(result, answered), *expected, "{context}");
        assert_eq!(code, i32::from(report["decision"] == "deny"), "{context}");
    }
}

#[test]
fn run_refuses_a_time_that_hosts_cannot_tell() {
    let gate = Gate::new();
    let key = gate.mint(&[]);
    let last = "2554-07-21T23:34:33Z";
    let request = |now: &str| format!("{}\n", line(&key, &json!({"path": "/v1/x", "now": now})));
    let lines = [request(last), request("2554-07-21T23:34:34Z"), request("9999-12-31T23:59:59Z")];
    let done = gate.vkey(&["run"]).env(PROVIDER.0, PROVIDER.1).stdin(lines.concat()).run();
    let results: Vec<Value> =
        done.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(done.code, 1, "{}", done.err);
    assert_eq!(results[0]["reason"], "key_retired");
    for result in &results[1..] {
        assert_eq!(result["error"], format!("now: expected a time up to {last}"));
    }
}

/// The keys of the table, each by its name.
fn keys(gate: &Gate) -> BTreeMap<&'static str, String> {
    let only = |restriction: &Value| gate.mint(&["--only", &restriction.to_string()]);
    let good = gate.mint(&[]);
    let unknown = br#"{"colours":["red"]}"#;
    let unread = Unverified::parse(good.as_bytes()).unwrap().attenuate(unknown).unwrap();
    BTreeMap::from([
        ("another gate's", Gate::new().mint(&[])),
        ("bound", only(&json!({"client_cert": [CERT]}))),
        ("call's", only(&json!({"mcp": {"tools": ["read_*"]}}))),
        ("garbled", good.replace("vk1.", "vk2.")),
        ("gold", gate.mint(&["--tier", "gold", "--force"])),
        ("indented", format!(" \t{good} ")),
        ("later", gate.mint(&["--not-before", "2026-09-21T14:20:00Z"])),
        ("local", only(&json!({"sources": ["10.0.0.0/8", "2001:db8::/32"]}))),
        ("model's", only(&json!({"models": ["*"]}))),
        ("named", only(&json!({"hosts": ["gw", "*.gw"]}))),
        ("narrowed", attenuate(&good, r#"{"methods":["GET"],"paths":["/v1/m*"]}"#)),
        ("no ring's", good.replace("vk1.main", "vk1.mine")),
        ("thrifty", attenuate(&good, r#"{"quotas":[{"tokens":1,"per":"day"}]}"#)),
        ("unread", unread),
        ("good", good),
    ])
}

fn about_keys() -> Vec<Case> {
    let path = || json!({"path": "/v1/models"});
    vec![
        ("good", path(), "allow"),
        ("indented", path(), "allow"),
        ("garbled", path(), "deny key_malformed"),
        ("another gate's", path(), "deny key_signature"),
        ("no ring's", path(), "deny key_unknown"),
        ("gold", path(), "deny tier_unknown"),
        ("unread", path(), "deny caveat_unsupported"),
        ("model's", path(), "allow"),
        ("model's", json!({"path": "/v1/files"}), "deny model"),
        ("thrifty", path(), "allow"),
        ("call's", path(), "deny mcp_call"),
    ]
}

fn about_times() -> Vec<Case> {
    let at = |now: &str| json!({"path": "/v1/models", "now": now});
    vec![
        ("later", at("2026-09-21T14:19:59Z"), "deny key_not_yet_valid"),
        ("later", at("2026-09-21T14:20:00Z"), "allow"),
        ("good", at("1790003599"), "allow"),
        ("good", at("1790003600"), "deny key_expired"),
        ("good", at("2027-09-21T15:13:20Z"), "deny key_retired"),
    ]
}

fn about_clients() -> Vec<Case> {
    let from = |source: &str| json!({"path": "/v1/models", "source": source});
    let with = |cert: &str| json!({"path": "/v1/models", "client_cert": cert});
    vec![
        ("local", from("10.1.2.3"), "allow"),
        ("local", from("10.1.2.3:4000"), "allow"),
        ("local", from("::ffff:10.1.2.3"), "allow"),
        ("local", from("[2001:db8::1]:443"), "allow"),
        ("local", from("11.1.2.3"), "deny source"),
        ("local", json!({"path": "/v1/models"}), "deny source"),
        ("bound", with(CERT), "allow"),
        ("bound", with(&CERT.to_uppercase()), "allow"),
        ("bound", with(&"cd".repeat(32)), "deny client_cert"),
        ("bound", json!({"path": "/v1/models"}), "deny client_cert"),
    ]
}

fn about_targets() -> Vec<Case> {
    let to = |method: &str, path: &str| json!({"method": method, "path": path});
    let at = |authority: &str| json!({"path": "/v1/models", "authority": authority});
    let held = "vk1.main-1.eyJqdGkiOiJrXzEiLCJ0ZW5hbnQiOiJhY21lIn0";
    vec![
        ("named", at("gw"), "allow"),
        ("named", at("a.gw"), "allow"),
        ("named", at("GW"), "deny host"),
        ("named", at("gw:8443"), "deny host"),
        ("named", at("a.gw."), "deny host"),
        ("named", at("gw.example"), "deny host"),
        ("good", at("GW.Example.:8443"), "allow"),
        ("good", at("api.example:8443"), "deny host"),
        ("good", at("user@api.openai.com"), "deny upstream_name"),
        ("good", at("010.0.0.1"), "deny upstream_name"),
        ("model's", json!({"path": "/v1/files", "authority": "010.0.0.1"}), "deny model"),
        ("good", to("POST", "/v1/chat/completions?a=b"), "allow"),
        ("good", to("DELETE", "/v1/models"), "deny method"),
        ("good", to("get", "/v1/models"), "deny method"),
        ("good", to("CONNECT", "/v1/models"), "deny method"),
        ("good", to("GET", "/admin"), "deny path"),
        ("good", to("GET", "/v1/../admin"), "deny path_ambiguous"),
        ("good", to("GET", "/v1/a%2fb"), "deny path_ambiguous"),
        ("good", to("GET", &format!("/v1/models?key={held}")), "deny key_in_url"),
        ("narrowed", to("GET", "/v1/models/"), "allow"),
        ("narrowed", to("GET", "/v1/./models"), "deny path_ambiguous"),
        ("narrowed", to("GET", "/v1/%6dodels"), "deny path_ambiguous"),
        ("narrowed", to("POST", "/v1/models"), "deny method"),
        ("narrowed", to("GET", "/v1/chat"), "deny path"),
        ("good", to("GET", "/.vkey/usage"), "allow with counts"),
        ("good", to("GET", "/.vkey/usage/"), "allow with counts"),
        ("good", to("GET", "/.vkey/usage?tenant=acme"), "deny path"),
        ("good", to("POST", "/.vkey/usage"), "deny path"),
    ]
}

/// The line of `vkey run` that describes a request.
fn line(key: &str, request: &Value) -> Value {
    let mut line = request.clone();
    line["key"] = json!(key);
    line
}

/// The arguments of explain that do.
fn arguments(request: &Value) -> Vec<String> {
    let option = |name: &str| match name {
        "authority" => "--host".to_owned(),
        name => format!("--{}", name.replace('_', "-")),
    };
    let members = request.as_object().expect("an object").iter();
    members.flat_map(|(name, value)| [option(name), value.as_str().expect("text").into()]).collect()
}

fn words(answer: &Value, with_counts: bool) -> String {
    let reason = answer["reason"].as_str().map(|reason| format!(" {reason}"));
    let counts = if with_counts { " with counts" } else { "" };
    let decision = answer["decision"].as_str().unwrap_or("no decision");
    format!("{decision}{}{counts}", reason.unwrap_or_default())
}
