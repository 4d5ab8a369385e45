//! Checking configurations.

use std::fs;

use serde_json::json;

use crate::harness::{Gate, Vkey, secret};

#[test]
fn config_check_sums_up() {
    let gate = Gate::new();
    let done = gate.vkey(&["config", "check"]).ok();
    let rotation = "main: active, a new signing key every 7d, each accepted for 30d\n";
    for part in [rotation, "old: retiring", "\"default\"", "\"acme\"", "MAIN, PROVIDER"] {
        assert!(done.out.contains(part), "{part}: {}", done.out);
    }
    let text = fs::read(gate.dir.file("config.json")).expect("readable");
    assert_eq!(Vkey::new(&["config", "check", "-"]).stdin(text).ok().out, done.out);
    gate.vkey(&["config", "check", "--env"]).refused(1, "PROVIDER is not set");
    gate.vkey(&["config", "check", "--env"]).env("PROVIDER", "x").ok();
    Vkey::new(&["config", "check"]).refused(2, "FILE");
}

#[test]
fn config_check_says_which_rings_are_ready() {
    let gate = Gate::with(&json!({"keyring": [
        {"name": "main", "secret": "${MAIN}"},
        {"name": "old", "secret": "${OLD}", "state": "retiring"},
        {"name": "next", "secret": "${NEXT}"},
    ]}));
    let check = || gate.vkey(&["config", "check", "--env"]).env("NEXT", "short");
    let done = check().run();
    let readiness = "\nreadiness    main: ready\nreadiness    old: not ready, its keys are refused\n\
        readiness    next: not ready, its keys are refused\n";
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(done.out.ends_with(readiness), "{}", done.out);
    for problem in
        ["ring old: environment variable OLD is not set", "NEXT: the secret is too short"]
    {
        assert!(done.err.contains(problem), "{problem}: {}", done.err);
    }
    let done = check().env("OLD", &gate.secret).env("NEXT", &gate.secret).ok();
    assert!(done.out.ends_with("readiness    next: ready\nok\n"), "{}", done.out);
}

#[test]
fn config_check_names_the_tenants_of_rings() {
    let check = |tenants: &str| {
        let ring = format!(r#"{{"name":"main","secret":"${{A}}","tenants":{tenants}}}"#);
        Vkey::new(&["config", "check", "-"]).stdin(format!(r#"{{"keyring":[{ring}]}}"#))
    };
    let out = check(r#"["acme","b"]"#).ok().out;
    assert!(
        out.contains("ring         main: active, does not rotate, for \"acme\", \"b\"\n"),
        "{out}"
    );
    check("[]").refused(1, "keyring[0].tenants: expected at least one tenant");
    check(r#"["a b"]"#).refused(1, "keyring[0].tenants[0]: expected");
    check(r#""acme""#).refused(1, "keyring[0].tenants: expected a list");
}

#[test]
fn config_check_summarizes_limits_and_monitoring() {
    let check = |config: &str| {
        let keyring = r#"{"keyring":[{"name":"main","secret":"${A}"}]"#;
        let config = format!("{keyring}{config}}}");
        Vkey::new(&["config", "check", "-"]).stdin(config).ok().out
    };
    let tiers = r#","tiers":{
        "default":{"rate":{"requests":100,"per":"1s","burst":200},
                   "quotas":[{"requests":100000,"per":"day"},{"requests":1,"per":"hour"}]},
        "operator":{"usage_of_others":true}}"#;
    let tenants = r#","tenants":{"acme":{"quotas":[{"requests":9,"per":"total"}]},"b":{}}"#;
    let watched = r#","auth_failures":{"block_for":"30s"},"anomaly":{"sensitivity":"medium"},
        "mode":"shadow""#;
    let out = check(&[tiers, tenants, watched].concat());
    let lines = "\
tenants      \"acme\", \"b\" (others are allowed)
limits       tier \"default\": 100 requests in 1s, 200 at once; 100000 requests a day; 1 request an hour
limits       tenant \"acme\": 9 requests in all
usage        tiers that see others: \"operator\"
failures     5 in 5m from one source are reported, blocked for 30s
anomalies    medium
mode         shadow
key sources  ";
    assert!(out.contains(lines), "{out}");
    let plain = check("");
    for label in ["limits", "usage  ", "failures", "anomalies", "mode", "host"] {
        assert!(!plain.contains(&format!("\n{label}")), "{label}: {plain}");
    }
    assert!(check(r#","auth_failures":{}"#).contains(" are reported, not blocked\n"));
    let bare = r#","host":"bare""#;
    assert!(!check(bare).contains("\nhost "));
    let out = check(&[bare, tenants].concat());
    assert!(out.contains("\nhost         bare: what has limits is refused\n"), "{out}");
}

#[test]
fn config_check_knows_the_gate_of_a_cluster() {
    let check = |config: &str| Vkey::new(&["config", "check", "-"]).stdin(config);
    let plain = check(r#"{"role":"upstream_tls"}"#).ok().out;
    assert_eq!(plain, "role         upstream_tls: an upstream gate\ndeadline     10s\nok\n");
    let added = r#""upstream_tls":{"require_stamp":true,"tighten":[{"host":"*.corp.example"}]}"#;
    let line = "\nupstream     every cluster needs the stamp; tightened for *.corp.example\n";
    let role = check(&format!(r#"{{"role":"upstream_tls",{added},"deadline":"2m"}}"#)).ok().out;
    assert!(role.contains(line) && role.contains("\ndeadline     2m\n"), "{role}");
    let keyring = r#""keyring":[{"name":"main","secret":"${A}"}]"#;
    assert!(check(&format!("{{{keyring},{added}}}")).ok().out.contains(line));
    assert!(!check(&format!("{{{keyring}}}")).ok().out.contains("\nupstream"));
    check(r#"{"role":"gate"}"#).refused(1, "role: expected one of upstream_tls");
    check(&format!(r#"{{"role":"upstream_tls",{keyring}}}"#)).refused(1, "keyring: unknown member");
}

#[test]
fn config_check_names_the_member() {
    let literal = secret();
    let refused = |config: &str, says: &str| {
        Vkey::new(&["config", "check", "-"]).stdin(config).refused(1, says)
    };
    let ring = |secret: &str| format!(r#"{{"keyring":[{{"name":"main","secret":"{secret}"}}]}}"#);
    let done = refused(&ring(&literal), "keyring[0].secret: a secret does not belong");
    assert!(!done.err.contains(&literal["base64:".len()..]));
    refused("{}", "keyring: missing");
    refused(&ring("${A}").replace("]}", r#"],"limits":{}}"#), "limits: unknown member");
    refused(&ring("${A}").replace("]}", r#"],"mode":"open"}"#), "mode: expected one of");
    let tier = |tier: &str| ring("${A}").replace("]}", &format!(r#"],"tiers":{{"t":{tier}}}}}"#));
    let quotas = r#"{"quotas":[{"requests":1,"per":"day"},{"cost_usd":"1","per":"day"}]}"#;
    let unread = "tokens and cost_usd need bodies, which are not read yet; remove it";
    refused(&tier(quotas), &format!("tiers.t.quotas[1]: {unread}"));
    let beside = "tiers.t.only.quotas: unknown member; rate and quotas stand beside only";
    refused(&tier(r#"{"only":{"quotas":[]}}"#), beside);
    refused("", "not valid JSON");
    refused("{\"keyring\":\"\u{0}", "not valid JSON");
}
