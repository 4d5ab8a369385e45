//! Narrowing keys, and what the gate makes of them.

use serde_json::{Value, json};

use crate::harness::{Gate, NOW, Vkey, attenuate, one_line};

#[test]
fn a_caveat_narrows_and_nothing_else() {
    let gate = Gate::new();
    let key = gate.mint(&["--only", r#"{"hosts":["gw"]}"#]);
    let narrowed = attenuate(&key, r#"{ "methods": ["GET"] }"#);
    let twice = attenuate(&narrowed, r#"{"paths":["/v1/models"]}"#);
    gate.allows(&key, &["--host", "gw", "--method", "POST"]);
    gate.allows(&narrowed, &["--host", "gw"]);
    gate.denies(&narrowed, &["--host", "gw:443"], "host");
    gate.denies(&key, &[], "host");
    gate.denies(&narrowed, &["--host", "gw", "--method", "POST"], "method");
    gate.denies(&twice, &["--host", "gw", "--path", "/v1/chat"], "path");
    let (_, report) = gate.explain(&twice, &["--host", "x", "--method", "POST", "--path", "/"]);
    let stages = report["stages"].as_array().unwrap().iter();
    let stages: Vec<_> = stages.map(|s| format!("{}: {}", s["stage"], s["verdict"])).collect();
    assert_eq!(
        stages.join(", ").replace('"', ""),
        "key: ok, validity: ok, membership: ok, address: ok, tier: path, tenant: ok, only: host, \
         caveat 1: method, caveat 2: path"
    );
    let shown = Vkey::new(&["inspect"]).stdin(&twice).ok().out;
    assert!(
        shown.contains("caveat 1\n{\n  \"methods\"") && shown.contains("caveat 2\n{\n  \"paths\"")
    );
}

#[test]
fn attenuate_rejects_invalid_caveats() {
    let key = Gate::new().mint(&[]);
    let refused = |caveat: &str, says: &str| {
        Vkey::new(&["attenuate", "--now", NOW, "--caveat", caveat]).stdin(&key).refused(1, says);
    };
    refused(r#"{"methods":["GET"],"rats":1}"#, "--caveat 1: rats: unknown member");
    refused(r#"{"any_of":[{"paths":["/"]},{"sources":["x"]}]}"#, "any_of[1].sources[0]: expected");
    refused("[]", "--caveat 1: expected an object");
    refused("", "--caveat 1: not valid JSON");
    let dollars = "--caveat 1: quotas[0].cost_usd: expected an amount as text";
    refused(r#"{"quotas":[{"cost_usd":1.5,"per":"day"}]}"#, dollars);
    let full = (0..16).fold(key.clone(), |key, _| attenuate(&key, "{}"));
    Vkey::new(&["attenuate", "--caveat", "{}"]).stdin(full).refused(1, "cannot be narrowed");
    Vkey::new(&["attenuate"]).stdin(&key).refused(2, "--caveat");
}

#[test]
fn attenuate_sets_no_more_limits_than_a_gate_counts() {
    let gate = Gate::new();
    let quotas = |pers: &[&str]| {
        let quotas = pers.iter().map(|per| json!({"requests": 9, "per": per}));
        json!({"quotas": quotas.collect::<Vec<_>>()}).to_string()
    };
    let six = quotas(&["minute", "hour", "day", "week", "month", "total"]);
    // The first one sets six, and those after it twelve.
    let many = (0..3).fold(gate.mint(&[]), |key, _| attenuate(&key, &six));
    let most = attenuate(&many, &quotas(&["minute", "hour", "day", "week"]));
    gate.allows(&most, &[]);
    attenuate(&most, r#"{"methods":["GET"]}"#);
    let says = "would set more than 16 limits: every gate would refuse the key";
    Vkey::new(&["attenuate", "--caveat", &quotas(&["day"])]).stdin(&most).refused(1, says);
    let caveats = [["--caveat", &six]; 4].concat();
    let mint = [&["mint", "--tenant", "acme", "--lifetime", "1h"], &caveats[..]].concat();
    gate.vkey(&mint).refused(1, says);
}

#[test]
fn explain_judges_times_and_signatures() {
    let gate = Gate::new();
    let key = gate.mint(&["--not-before", "2026-09-21T14:20:00Z"]);
    gate.denies(&key, &[], "key_not_yet_valid");
    gate.allows(&key, &["--now", "2026-09-21T14:20:00Z"]);
    gate.denies(&key, &["--now", "2026-09-21T15:13:20Z"], "key_expired");
    gate.denies(&key, &["--now", "2027-09-21T15:13:20Z"], "key_retired");
    gate.denies(&Gate::new().mint(&[]), &[], "key_signature");
    gate.denies(&key.replace("vk1.main", "vk1.mine"), &[], "key_unknown");
    gate.denies("garbage", &[], "key_malformed");
    let report = gate.explain(&key.replace("vk1.main", "vk1.next"), &[]).1;
    assert_eq!(report["key"], Value::Null);
}

#[test]
fn explain_judges_every_part_of_an_access() {
    let gate = Gate::new();
    let only = |restriction: &str| gate.mint(&["--only", restriction]);
    let sources = only(r#"{"sources":["10.0.0.0/8"]}"#);
    gate.allows(&sources, &["--source", "10.1.2.3"]);
    gate.denies(&sources, &["--source", "11.1.2.3"], "source");
    gate.denies(&sources, &[], "source");
    let cert = "AB".repeat(32);
    let bound = only(&format!(r#"{{"client_cert":["{cert}"]}}"#));
    gate.allows(&bound, &["--client-cert", &cert.to_lowercase()]);
    gate.denies(&bound, &["--client-cert", &"00".repeat(32)], "client_cert");
    let key = gate.mint(&[]);
    gate.denies(&key, &["--path", "/v1/a%2fb"], "path_ambiguous");
    gate.denies(&key, &["--method", "CONNECT"], "method");
    gate.denies(&gate.mint(&["--tier", "gold", "--force"]), &[], "tier_unknown");
    assert_eq!(gate.allows(&key, &["--path", "/.vkey/usage"])["usage"], json!(true));
}

/// The gate reads MCP calls only on paths of MCP servers, so elsewhere it refuses what it would allow there.
#[test]
fn explain_refuses_what_only_an_mcp_call_would_allow_and_says_so() {
    let gate = Gate::new();
    let tools = gate.mint(&["--only", r#"{"mcp":{"servers":["docs"],"tools":["read_*"]}}"#]);
    let call = |name: &'static str| {
        let mcp = ["--path", "/mcp", "--method", "POST", "--mcp-method", "tools/call"];
        [&mcp[..], &["--mcp-server", "docs", "--mcp-name", name]].concat()
    };
    let says = "mcp in the configuration does not name the path";
    for (name, is_noted) in [("read_page", true), ("delete_page", false)] {
        gate.denies(&tools, &call(name), "mcp_call");
        let notes = gate.explain(&tools, &call(name)).1["notes"].to_string();
        assert_eq!(notes.contains(says), is_noted, "{name}: {notes}");
    }
    let entry = r#"{"name":"read_*","args":[{"at":"/page","max":9}]}"#;
    let entry = gate.mint(&["--only", &format!(r#"{{"mcp":{{"tools":[{entry}]}}}}"#)]);
    let notes = gate.explain(&entry, &call("read_page")).1["notes"].to_string();
    assert!(notes.contains(says) && notes.contains("the arguments of the call would decide"));
    let notes = gate.explain(&entry, &call("delete_page")).1["notes"].to_string();
    assert!(!notes.contains(says), "{notes}");
    let args = [&["explain", "--now", NOW][..], &call("read_page")].concat();
    let people = gate.vkey(&args).stdin(&tools).run().out;
    let end = "the request if it did\ndecision    deny mcp_call\n";
    assert!(people.contains(&format!("\nnote        {says}")) && people.ends_with(end), "{people}");
}

/// What the policy and the configuration decide about an upstream, whatever its connection.
#[test]
fn explain_refuses_upstreams_that_no_connection_proves() {
    let config = |host: &str, forward: Value| {
        let keyring = json!([{"name": "main", "secret": "${MAIN}"}]);
        Gate::with(&json!({"keyring": keyring, "host": host, "forward": forward}))
    };
    let gate = config("envoy", json!({}));
    let key = gate.mint(&[]);
    for host in ["", "user@api.openai.com", "010.0.0.1"] {
        gate.denies(&key, &["--host", host], "upstream_name");
    }
    gate.allows(&key, &["--host", "api.openai.com"]);
    gate.allows(&key, &[]);
    let nginx = config("nginx", json!({}));
    let key = nginx.mint(&[]);
    nginx.denies(&key, &["--host", "api.openai.com"], "upstream_unproven");
    nginx.allows(&key, &["--host", "other.example"]);
    let named = config("nginx", json!({"credentials": [{"name": "corp", "hosts": ["a.example"]}]}));
    let key = named.mint(&[]);
    named.denies(&key, &["--host", "a.example"], "upstream_unproven");
    named.allows(&key, &["--host", "b.example"]);
}

#[test]
fn explain_names_the_ring_that_is_not_ready() {
    let gate = Gate::with(&json!({"keyring": [
        {"name": "main", "secret": "${MAIN}"},
        {"name": "old", "secret": "${OLD}"},
    ]}));
    gate.allows(&gate.mint(&[]), &[]);
    let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW, "--ring", "old"];
    let key = one_line(&gate.vkey(&mint).env("OLD", &gate.secret).ok());
    gate.denies(&key, &[], "not_ready");
    let args = ["explain", "--method", "GET", "--path", "/v1", "--now", NOW];
    let done = gate.vkey(&args).stdin(&key).run();
    let says = "vkey: ring old: environment variable OLD is not set or empty\n";
    assert_eq!((done.code, done.err.as_str()), (1, says), "{}", done.out);
    gate.vkey(&mint).refused(3, "ring old: environment variable OLD is not set");
    let none = gate.vkey(&args).env("MAIN", "").stdin(&key);
    none.refused(3, "ring main: environment variable MAIN is not set");
}

#[test]
fn the_shadow_mode_lets_through_and_says_so() {
    let gate = Gate::with(&json!({
        "mode": "shadow", "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {"only": {"methods": []}}},
    }));
    let (code, report) = gate.explain(&gate.mint(&[]), &[]);
    assert_eq!(
        (code, &report["decision"], &report["reason"]),
        (0, &json!("shadow"), &json!("method"))
    );
    gate.denies("garbage", &[], "key_malformed");
}

/// The body is read for the audit alone, or its restrictions are only recorded.
#[test]
fn a_body_that_cannot_be_read_refuses_only_where_something_that_is_enforced_depends_on_it() {
    let only = json!({"default": {"only": {"models": ["small*"]}}});
    for (mode, tiers, decision) in [
        ("enforce", json!({}), "allow"),
        ("enforce", only.clone(), "deny"),
        ("shadow", only, "shadow"),
    ] {
        let gate = Gate::with(&json!({
            "mode": mode, "keyring": [{"name": "main", "secret": "${MAIN}"}], "tiers": tiers,
            "llm": {"audit_tokens": true},
        }));
        let asked = ["--method", "POST", "--path", "/v1/chat/completions", "--model", "small"];
        let asked = [&asked[..], &["--header", "content-encoding: gzip"]].concat();
        let (code, report) = gate.explain(&gate.mint(&[]), &asked);
        assert_eq!((code == 0, &report["decision"]), (decision != "deny", &json!(decision)));
        let reason = if decision == "allow" { Value::Null } else { json!("body_unreadable") };
        assert_eq!(report["reason"], reason, "{report}");
        assert_eq!(report.to_string().contains("not counted"), decision == "allow", "{report}");
    }
}

#[test]
fn explain_lists_the_limits_that_a_request_is_charged_to() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {
            "rate": {"requests": 5, "per": "90s", "burst": 7},
            "quotas": [{"requests": 9, "per": "month"}],
        }},
        "tenants": {"acme": {"quotas": [{"requests": 20, "per": "total"}]}},
    }));
    let key = gate.mint(&["--only", r#"{"rate":{"requests":1,"per":"1s"}}"#]);
    let key = attenuate(&key, r#"{"quotas":[{"requests":1,"per":"day"}]}"#);
    let limits = &gate.allows(&key, &[])["limits"];
    let limits: Vec<_> = limits.as_array().unwrap().iter().collect();
    let expected = [
        json!({"name": "tier_rate", "requests": 5, "per_secs": 90, "burst": 7}),
        json!({"name": "tier_requests_month", "limit": 9, "per": "month"}),
        json!({"name": "only_rate", "requests": 1, "per_secs": 1, "burst": 1}),
        json!({"name": "caveat_1_requests_day", "limit": 1, "per": "day"}),
        json!({"name": "tenant_requests_total", "limit": 20, "per": "total"}),
    ];
    assert_eq!(limits, expected.iter().collect::<Vec<_>>());
    let args = ["explain", "--method", "GET", "--path", "/v1/models", "--now", NOW];
    let people = gate.vkey(&args).stdin(&key).ok().out;
    for line in [
        "limit       tier_rate: 5 requests in 1m 30s, 7 at once\n",
        "limit       tier_requests_month: 9 requests a month\n",
        "limit       only_rate: 1 request in 1s, 1 at once\n",
        "limit       caveat_1_requests_day: 1 request a day\n",
        "limit       tenant_requests_total: 20 requests in all\n",
        "note        nothing is counted here: only the gate knows what is left of these limits\n",
    ] {
        assert!(people.contains(line), "{line}: {people}");
    }
    let refused = gate.explain(&key, &["--path", "/a%2fb"]).1;
    assert_eq!(refused["limits"], json!([]));
    let key = attenuate(
        &key,
        r#"{"quotas":[{"tokens":7,"per":"day"},{"cost_usd":"1.5","per":"month"}]}"#,
    );
    let limits = gate.allows(&key, &[])["limits"].clone();
    let tokens = json!({"name": "caveat_2_tokens_day", "limit": 7, "per": "day"});
    let cost = json!({"name": "caveat_2_cost_month", "limit": 1_500_000, "per": "month"});
    assert_eq!([&limits[4], &limits[5]], [&tokens, &cost]);
    let people = gate.vkey(&args).stdin(&key).ok().out;
    assert!(people.contains("limit       caveat_2_tokens_day: 7 tokens a day\n"), "{people}");
    assert!(
        people.contains("limit       caveat_2_cost_month: 1500000 micro-USD a month\n"),
        "{people}"
    );
}

#[test]
fn without_shared_data_requests_with_limits_are_denied() {
    let of_tenant = |gate: &Gate| {
        let args = ["mint", "--tenant", "limited", "--lifetime", "1h", "--now", NOW];
        one_line(&gate.vkey(&args).ok())
    };
    let config = |host: &str, mode: &str| {
        Gate::with(&json!({
            "host": host, "mode": mode, "keyring": [{"name": "main", "secret": "${MAIN}"}],
            "tenants": {"limited": {"rate": {"requests": 1, "per": "1s"}}},
        }))
    };
    for mode in ["enforce", "shadow"] {
        let gate = config("bare", mode);
        let limited = gate.mint(&["--only", r#"{"quotas":[{"requests":1,"per":"day"}]}"#]);
        gate.allows(&gate.mint(&[]), &[]);
        gate.denies(&limited, &[], "not_ready");
        gate.denies(&of_tenant(&gate), &[], "not_ready");
        gate.denies(&limited, &["--path", "/a%2fb"], "path_ambiguous");
        gate.denies(&gate.mint(&[]), &["--path", "/.vkey/usage"], "not_ready");
    }
    let gate = config("auto", "enforce");
    gate.allows(&of_tenant(&gate), &[]);
}

#[test]
fn a_request_that_needs_no_key_is_public() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "public": [{"methods": ["GET"], "paths": ["/healthz"]}],
    }));
    let key = gate.mint(&["--only", r#"{"paths":["/v1/**"]}"#]);
    let explain = |args: &[&str]| {
        let (done, report) = gate.explain(&key, args);
        (done, report["decision"].clone(), report["notes"].to_string())
    };
    let (code, decision, notes) = explain(&["--path", "/healthz"]);
    assert_eq!((code, decision), (0, json!("public")));
    assert!(notes.contains("the configuration makes this request public"), "{notes}");
    let (code, decision, notes) = explain(&["--path", "/.vkey/ready"]);
    assert_eq!((code, decision), (0, json!("public")));
    assert!(notes.contains("whether it is ready"), "{notes}");
    gate.denies(&key, &["--path", "/healthz", "--method", "POST"], "path");
}
