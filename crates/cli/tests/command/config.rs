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
fn config_check_counts_what_is_revoked() {
    let check = |revoked: &str| {
        let ring = r#"{"name": "main", "secret": "${A}"}"#;
        let config = format!(r#"{{"keyring": [{ring}]{revoked}}}"#);
        Vkey::new(&["config", "check", "-"]).stdin(config).ok().out
    };
    let keys = r#", "revoked": {"keys": ["a", {"tenant": "acme", "jti": "b"}]"#;
    let tenants = r#""tenants": {"acme": {"issued_before": 1790000000}}"#;
    for (revoked, line) in [
        (
            format!(r#"{keys}, {tenants}, "version": 7}}"#),
            "revoked      version 7: 2 keys, 1 tenant\n",
        ),
        (format!("{keys}}}"), "revoked      no version: 2 keys, 0 tenants\n"),
        (
            r#", "revoked": {"version": 1}"#.to_owned(),
            "revoked      version 1: 0 keys, 0 tenants\n",
        ),
    ] {
        let out = check(&revoked);
        assert!(out.contains(line), "{out}");
    }
    for none in ["", r#", "revoked": {}"#] {
        assert!(!check(none).contains("revoked      "), "{none}");
    }
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
        "limits":{"headers":"refused"},"mode":"shadow""#;
    let out = check(&[tiers, tenants, watched].concat());
    let lines = "\
tenants      \"acme\", \"b\" (others are allowed)
limits       tier \"default\": 100 requests in 1s, 200 at once; 100000 requests a day; 1 request an hour
limits       tenant \"acme\": 9 requests in all
headers      about limits: only with refusals
usage        tiers that see others: \"operator\"
failures     5 in 5m from one source are reported, blocked for 30s
anomalies    medium
mode         shadow
key sources  ";
    assert!(out.contains(lines), "{out}");
    let plain = check("");
    for label in ["limits", "headers", "usage  ", "failures", "anomalies", "mode", "host"] {
        assert!(!plain.contains(&format!("\n{label}")), "{label}: {plain}");
    }
    let never = check(r#","limits":{"headers":"never"}"#);
    assert!(never.contains("\nheaders      about limits: never\n"), "{never}");
    assert!(check(r#","auth_failures":{}"#).contains(" are reported, not blocked\n"));
    let bare = r#","host":"bare""#;
    assert!(!check(bare).contains("\nhost "));
    let out = check(&[bare, tenants].concat());
    assert!(out.contains("\nhost         bare: what has limits is refused\n"), "{out}");
}

/// What it says is what the gate does, or what nobody means.
#[test]
fn config_check_reviews_settings_about_ai_requests() {
    let notes = |members: &str| {
        let ring = r#""keyring": [{"name": "main", "secret": "${A}"}]"#;
        let done = Vkey::new(&["config", "check", "-"]).stdin(format!("{{{ring}, {members}}}"));
        let out = done.ok().out;
        let notes = out.lines().filter_map(|line| line.strip_prefix("note         "));
        (notes.map(str::to_owned).collect::<Vec<_>>(), out.clone())
    };
    let price = r#"{"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}"#;
    let prices =
        format!(r#""llm": {{"audit_tokens": true, "prices": {{"a*": {price}, "b": {price}}}}}"#);
    let tokens = r#""tiers": {"default": {"quotas": [{"tokens": 1024, "per": "day"}]}}"#;
    let cost = r#""tenants": {"acme": {"quotas": [{"cost_usd": "0.5", "per": "day"}]}}"#;
    let (none, out) = notes(&format!("{prices}, {tokens}, {cost}"));
    assert_eq!(none, [""; 0]);
    assert!(
        out.contains("\nprices       2\ntokens       those of all keys are counted\n"),
        "{out}"
    );
    assert!(out.contains("\nlimits       tier \"default\": 1024 tokens a day\n"), "{out}");
    assert!(out.contains("\nlimits       tenant \"acme\": 500000 micro-USD a day\n"), "{out}");
    for (members, says) in [
        (cost.to_owned(), "there is a quota of cost_usd and no price, so that every request"),
        (format!(r#"{tokens}, "llm": {{"paths": []}}"#), "llm.paths is empty: requests in formats"),
        (
            format!(r#"{tokens}, "host": "nginx""#),
            "bodies decide about requests (tier \"default\"), and nginx does not hold them",
        ),
        (
            r#""llm": {"unmetered": ["/v1/files/**", "/v1/models/*"]}"#.to_owned(),
            "llm.unmetered exempts /v1/models/m:generateContent, whose requests use tokens",
        ),
        (
            tokens.replace("1024", "1023"),
            "tier \"default\": 1023 tokens a day are less than a request without a bound",
        ),
        (
            r#""mcp": {"paths": ["/mcp"]}, "tenants": {"acme": {"only": {"models": ["a"], "mcp": {"tools": ["b"]}}}}"#
                .to_owned(),
            "tenant \"acme\": models and mcp in one restriction never hold together",
        ),
    ] {
        let (found, out) = notes(&members);
        assert!(found.len() == 1 && found[0].starts_with(says), "{out}");
        assert!(out.ends_with("\nok\n"), "{out}");
    }
    let other =
        r#""llm": {"paths": [], "routes": [{"paths": ["/ai/**"]}], "default_reserve_tokens": 9}"#;
    assert_eq!(notes(&format!("{other}, {tokens}")).0, [""; 0]);
}

#[test]
fn config_check_knows_the_gate_of_a_cluster() {
    let check = |config: &str| Vkey::new(&["config", "check", "-"]).stdin(config);
    let plain = check(r#"{"role":"upstream_tls"}"#).ok().out;
    assert_eq!(plain, "role         upstream_tls: an upstream gate\ndeadline     10s\nok\n");
    let held = |name: &str, variable: &str| json!({"name": name, "hosts": ["api.openai.com"], "header": "x-key", "value": format!("${{{variable}}}")});
    let credentials =
        json!({"role": "upstream_tls", "credentials": [held("b", "B"), held("a", "A")]});
    assert!(check(&credentials.to_string()).ok().out.ends_with("\nenvironment  A, B\nok\n"));
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

const PLAINTEXT: &str =
    r#""plaintext":{"reason":"sidecar","owner":"platform","until":"9000-01-01"}"#;

/// A credential of an upstream gate for some hosts.
fn held(name: &str, hosts: &str, more: &str) -> String {
    format!(r#"{{"name":"{name}","hosts":[{hosts}],"header":"x-key","value":"${{KEY}}"{more}}}"#)
}

#[test]
fn config_check_says_which_credentials_do_not_go_out() {
    let gate = Gate::new();
    let policy = gate.file(
        "policy.json",
        r#"{"version":1,"default":{"min_version":"TLSv1.2","unlisted":"observe"},
            "known_hosts":["api.openai.com"],"upstreams":[{"host":"dev.example",
            "insecure_skip_verify":{"reason":"r","owner":"o","until":"9000-01-01"}}]}"#,
    );
    let check = |credential: &str| {
        let config = format!(r#"{{"role":"upstream_tls","credentials":[{credential}]}}"#);
        Vkey::new(&["config", "check", "-", "--policy", &policy]).stdin(config)
    };
    let more = format!(",{PLAINTEXT}");
    for (hosts, more, says) in [
        (r#""api.openai.com""#, "", None),
        (
            r#""127.0.0.1""#,
            "",
            Some("no rule of the policy is for 127.0.0.1, so without TLS every"),
        ),
        (
            r#""*.svc""#,
            "",
            Some("no rule of the policy is for *.svc, so without TLS every request"),
        ),
        (r#""127.0.0.1","*.svc""#, &*more, None),
    ] {
        let out = check(&held("corp", hosts, more)).ok().out;
        assert!(out.ends_with("\nok\n"), "{out}");
        let note = out.lines().find(|line| line.starts_with("note         credential corp: "));
        assert_eq!(note.is_some(), says.is_some(), "{hosts}: {out}");
        assert!(says.is_none_or(|says| out.contains(says)), "{hosts}: {out}");
    }
    for (hosts, says) in [
        (r#""dev.example""#, "the policy skips dev.example until 9000-01-02T00:00:00Z"),
        (r#""010.0.0.1""#, "010.0.0.1 can be read in more than one way"),
    ] {
        let done = check(&held("corp", hosts, "")).run();
        assert_eq!(done.code, 1, "{}", done.out);
        assert!(done.out.contains(says), "{}", done.out);
        let never = "not ok: a provider credential can never go out";
        assert!(done.err.contains(never) && !done.out.contains("\nok\n"), "{}", done.err);
    }
    let ended = held("corp", r#""127.0.0.1""#, &more.replace("9000", "2020"));
    assert!(check(&ended).ok().out.contains("its plaintext ended at 2020-01-02T00:00:00Z"));
    for host in ["api.openai.com", "API.openai.com", "eu.api.openai.com", "*.openai.com", "*.com"] {
        let known = "credentials[0].plaintext: api.openai.com is a known host";
        check(&held("corp", &format!("{host:?}"), &more)).refused(1, known);
    }
}

#[test]
fn config_check_compares_what_is_granted_with_what_is_held() {
    let gate = Gate::new();
    let file = |name: &str, credentials: &str| {
        let text = format!(r#"{{"role":"upstream_tls","credentials":[{credentials}]}}"#);
        gate.file(name, text)
    };
    let [openai, corp] = [("openai", r#""api.openai.com""#), ("corp", r#""*.corp.example""#)]
        .map(|(name, hosts)| file(name, &held(name, hosts, "")));
    let check = |grants: &str, gates: &[&str]| {
        let ring = r#"{"name":"main","secret":"${A}"}"#;
        let config = format!(r#"{{"keyring":[{ring}],"forward":{{"credentials":[{grants}]}}}}"#);
        let gates = gates.iter().flat_map(|gate| ["--upstream-gate", gate]);
        let args = ["config", "check", "-"].into_iter().chain(gates).collect::<Vec<_>>();
        Vkey::new(&args).stdin(config).run()
    };
    let both = r#"{"name":"openai"},{"name":"corp","hosts":["a.corp.example"]}"#;
    let done = check(both, &[&openai, &corp]);
    assert!(done.code == 0 && done.out.ends_with("ok\n"), "{}", done.out);
    // Nothing is known of gates that are not given.
    assert!(!check(both, &[]).out.contains("note "));
    for (grants, gates, says) in [
        (both, vec![&*openai], "credential corp: no upstream gate holds it"),
        (
            r#"{"name":"openai"}"#,
            vec![&openai, &corp],
            "credential corp: forward.credentials of the",
        ),
        (
            r#"{"name":"corp","hosts":["other.example"]}"#,
            vec![&corp],
            "credential corp: forward.credentials names it for other hosts than",
        ),
    ] {
        let done = check(grants, &gates);
        assert!(done.code == 1 && done.out.contains(says), "{says}: {}", done.out);
    }
    let done = check(both, &["-"]);
    assert!(done.code == 2 && done.err.contains("standard input"), "{}", done.err);
    let front = crate::harness::text(gate.dir.file("config.json"));
    let done = check(both, &[&front]);
    assert!(done.code == 1 && done.err.contains("expected one with {\"role\""), "{}", done.err);
}

#[test]
fn explain_says_what_keeps_a_credential_from_its_host() {
    let keyring = json!([{"name": "main", "secret": "${MAIN}"}]);
    let named = Gate::with(&json!({
        "keyring": keyring, "forward": {"credentials": [{"name": "corp"}]},
    }));
    let text = format!(
        r#"{{"role":"upstream_tls","credentials":[{}]}}"#,
        held("corp", r#""127.0.0.1""#, "")
    );
    let upstream = named.file("gate.json", &text);
    let excepted = text.replace("\"header\"", &format!("{PLAINTEXT},\"header\""));
    let excepted = named.file("excepted.json", excepted);
    let key = named.mint(&[]);
    let notes = |gate: &Gate, key: &str, args: &[&str]| gate.allows(key, args)["notes"].to_string();
    let says =
        "credential corp: no rule of the policy is for 127.0.0.1, so without TLS every request";
    let at = |host: &'static str| ["--host", host, "--upstream-gate", &upstream];
    assert!(notes(&named, &key, &at("127.0.0.1")).contains(says));
    assert!(notes(&named, &key, &at("127.0.0.1:8080")).contains(says));
    assert_eq!(notes(&named, &key, &at("other.example")), "[]");
    assert_eq!(notes(&named, &key, &["--upstream-gate", &upstream]), "[]");
    assert_eq!(notes(&named, &key, &["--host", "127.0.0.1", "--upstream-gate", &excepted]), "[]");

    let in_front = |more: &str| {
        let held = held("x", r#""127.0.0.1""#, more).replace(r#""name":"x","#, "");
        let held: serde_json::Value = serde_json::from_str(&held).expect("JSON");
        Gate::with(&json!({
            "keyring": keyring, "forward": {"credentials_in_front": true, "credentials": [held]},
        }))
    };
    let gate = in_front("");
    let says = "refused (upstream_unproven) unless the cluster carries the stamp";
    assert!(notes(&gate, &gate.mint(&[]), &["--host", "127.0.0.1"]).contains(says));
    let gate = in_front(&format!(",{PLAINTEXT}"));
    let says = "its plaintext for 127.0.0.1 holds only in clusters with an upstream gate";
    assert!(notes(&gate, &gate.mint(&[]), &["--host", "127.0.0.1"]).contains(says));
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
    refused(&ring("${A}").replace("]}", r#"],"limitz":{}}"#), "limitz: unknown member");
    let headers = "limits.headers: expected one of always, refused, never";
    refused(&ring("${A}").replace("]}", r#"],"limits":{"headers":"on"}}"#), headers);
    refused(&ring("${A}").replace("]}", r#"],"mode":"open"}"#), "mode: expected one of");
    let tier = |tier: &str| ring("${A}").replace("]}", &format!(r#"],"tiers":{{"t":{tier}}}}}"#));
    let beside = "tiers.t.only.quotas: unknown member; rate and quotas stand beside only";
    refused(&tier(r#"{"only":{"quotas":[]}}"#), beside);
    refused("", "not valid JSON");
    refused("{\"keyring\":\"\u{0}", "not valid JSON");
}
