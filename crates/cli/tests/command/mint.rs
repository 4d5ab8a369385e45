//! Keys that are minted, and keys that are not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Gate, NOW, Vkey, attenuate, one_line};

#[test]
fn caveats_that_never_hold_together_are_refused() {
    let gate = Gate::new();
    let mint = |caveats: [&str; 2]| {
        let fixed = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];
        let caveats = ["--caveat", caveats[0], "--caveat", caveats[1]];
        gate.vkey(&[&fixed[..], &caveats].concat())
    };
    let early = r#"{"exp":1790000100}"#;
    let says = "the caveats of --caveat never hold at the same time";
    mint([early, r#"{"nbf":1790000100}"#]).refused(1, says);
    mint([early, r#"{"nbf":1790000099}"#]).ok();
}

#[test]
fn mint_inspect_and_explain_agree() {
    let gate = Gate::new();
    let key =
        gate.mint(&["--sub", "de\u{9b}mo", "--aud", "a", "--aud", "b", "--meta", r#"{"n":1}"#]);
    let shown = Vkey::new(&["inspect"]).stdin(&key).ok().out;
    assert!(shown.starts_with("NOT VERIFIED") && shown.is_ascii(), "{shown}");
    assert!(shown.contains("issued      2026-09-21T14:13:20Z\nexpires     2026-09-21T15:13:20Z"));
    let claims: Value = serde_json::from_str(&shown[shown.find('{').unwrap()..]).expect("claims");
    assert_eq!(claims["aud"], json!(["a", "b"]));
    assert_eq!(claims["meta"], json!({"n": 1}));
    let report = gate.allows(&key, &[]);
    for member in ["jti", "tenant", "sub"] {
        assert_eq!(report["key"][member], claims[member]);
    }
    assert!(shown.contains(&format!("kid         {}", report["key"]["kid"].as_str().unwrap())));
    let args = ["explain", "--method", "GET", "--path", "/v1/models", "--now", NOW];
    let people = gate.vkey(&args).stdin(&key).ok().out;
    assert!(
        people.contains("tier        ok") && people.ends_with("decision    allow\n"),
        "{people}"
    );
}

#[test]
fn a_ring_by_name_mints_the_same_key() {
    let gate = Gate::new();
    let file = gate.file("secret", format!("{}\r\n", gate.secret));
    let fixed = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW, "--jti", "k_1"];
    let by_name = |args: &[&str]| Vkey::new(&[&fixed, args].concat()).env("SECRET", &gate.secret);
    let rotating =
        by_name(&["--ring", "main", "--secret-env", "SECRET", "--interval", "168h"]).ok();
    assert_eq!(one_line(&rotating), gate.mint(&["--jti", "k_1"]));
    assert!(rotating.err.contains("k_1") && rotating.err.contains("max_age"), "{}", rotating.err);
    let fixed_ring = gate.mint(&["--jti", "k_1", "--ring", "next"]);
    let from_file = by_name(&["--ring", "next", "--secret-file", &file]).ok();
    assert_eq!(one_line(&from_file), fixed_ring);
    let from_stdin = by_name(&["--ring", "next", "--secret-file", "-"]).stdin(&gate.secret).ok();
    assert_eq!(one_line(&from_stdin), fixed_ring);
    // Ids are random where none is given.
    assert_ne!(gate.mint(&[]), gate.mint(&[]));
}

#[test]
fn mint_refuses_keys_that_the_gate_will_not_take_unless_forced() {
    let gate = Gate::with(&json!({
        "audience": "gw", "unlisted_tenants": "deny", "revoked": {"keys": ["k_bad"]},
        "keyring": [{"name": "main", "secret": "${MAIN}",
                     "rotation": {"interval": "168h", "max_age": "30d"}}],
    }));
    let args = ["mint", "--tenant", "x", "--tier", "gold", "--jti", "k_bad", "--lifetime", "60d"];
    let reasons = ["no such tier", "list the tenant", "audience", "revokes such a key"];
    let forced = gate.vkey(&[&args[..], &["--force"]].concat()).ok();
    for reason in reasons {
        gate.vkey(&args).refused(1, reason);
        let warning = forced.err.lines().find(|line| line.contains(reason)).expect(reason);
        assert!(warning.starts_with("vkey: warning: "), "{warning}");
    }
    assert!(forced.err.contains("before it expires"), "{}", forced.err);
    assert!(one_line(&forced).starts_with("vk1.main-"));
    // Each alone.
    for (option, value, reason) in [
        ("--tier", "gold", "no such tier"),
        ("--tenant", "y", "list the tenant"),
        ("--aud", "other", "audience"),
        ("--jti", "k_bad", "revokes"),
    ] {
        let gate = Gate::with(&json!({
            "audience": "gw", "unlisted_tenants": "deny", "tenants": {"x": {}},
            "revoked": {"keys": ["k_bad"]}, "keyring": [{"name": "main", "secret": "${MAIN}"}],
        }));
        let mut args = vec!["mint", "--lifetime", "1h", option, value];
        for (other, good) in [("--tenant", "x"), ("--aud", "gw")] {
            args.extend([other, good].into_iter().filter(|_| other != option));
        }
        let done = gate.vkey(&args).refused(1, reason);
        assert!(done.err.ends_with("--force prints it all the same\n"), "{}", done.err);
        assert_eq!(done.err.matches("; ").count(), 2, "one reason: {}", done.err);
    }
}

/// The shadow mode lets through what is forbidden, so the key is good for something.
#[test]
fn mint_only_warns_where_the_gate_only_records() {
    let gate = Gate::with(&json!({
        "mode": "shadow", "unlisted_tenants": "deny", "audience": "gw",
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
    }));
    let args = ["mint", "--tenant", "x", "--tier", "gold", "--lifetime", "1h", "--now", NOW];
    let done = gate.vkey(&[&args[..], &["--aud", "gw"]].concat()).ok();
    for reason in ["warning: the configuration has no such tier", "does not list the tenant"] {
        assert!(done.err.contains(reason), "{}", done.err);
    }
    gate.vkey(&args).refused(1, "--aud does not include");
    let key = one_line(&done);
    let report = gate.explain(&key, &[]).1;
    assert_eq!(
        (&report["decision"], &report["reason"]),
        (&json!("shadow"), &json!("tier_unknown"))
    );
}

#[test]
fn mint_warns_of_restrictions_that_a_gate_without_mcp_never_finds_to_hold() {
    let gate = Gate::new();
    let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];
    let all =
        "the configuration has no mcp, so restrictions of mcp never hold: every request is refused";
    let some = "restrictions of mcp never hold, alternatives of any_of among them";
    for (restriction, says) in [
        (r#"{"models":["gpt-4o"]}"#, None),
        (r#"{"mcp":{"tools":["read_*"]}}"#, Some(all)),
        (r#"{"any_of":[{"mcp":{}},{"mcp":{"tools":["b"]}}]}"#, Some(all)),
        (r#"{"any_of":[{"models":["a"]},{"mcp":{"tools":["b"]}}]}"#, Some(some)),
        (r#"{"any_of":[{"models":["a"]},{"paths":["/v1/models"]}]}"#, None),
        (r#"{"paths":["/v1/models"]}"#, None),
        (r#"{"any_of":[{"paths":["/v1/models"]}]}"#, None),
    ] {
        for (option, named) in [("--only", "--only"), ("--caveat", "--caveat 1")] {
            let done = gate.vkey(&[&mint[..], &[option, restriction]].concat()).ok();
            let warning = done.err.lines().find(|line| line.starts_with("vkey: warning: "));
            assert_eq!(warning.is_some(), says.is_some(), "{restriction}: {}", done.err);
            if let (Some(warning), Some(says)) = (warning, says) {
                assert!(warning.contains(says), "{restriction}: {warning}");
                assert!(warning.contains("mcp.routes"), "{restriction}: {warning}");
                assert!(warning.starts_with(&format!("vkey: warning: {named}: ")), "{warning}");
            }
            // It is as the warning says.
            let decision = &gate.explain(&one_line(&done), &[]).1["decision"];
            assert_eq!(*decision == json!("deny"), says == Some(all), "{restriction}");
        }
    }
}

/// With `mcp`, the restrictions can hold. Without a configuration nothing is known of the gate.
#[test]
fn restrictions_of_mcp_are_no_warning_where_they_can_hold() {
    let gate = gate_with_mcp();
    let tools = ["--only", r#"{"mcp":{"tools":["read_*"]}}"#];
    let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];
    let done = gate.vkey(&[&mint[..], &tools].concat()).ok();
    assert!(!done.err.contains("warning"), "{}", done.err);
    let ring = ["--ring", "main", "--secret-env", "SECRET"];
    let by_name = Vkey::new(&[&mint[..], &ring, &tools].concat()).env("SECRET", &gate.secret).ok();
    assert!(!by_name.err.contains("warning"), "{}", by_name.err);
    let narrow = ["attenuate", "--now", NOW, "--caveat", tools[1]];
    let done = Vkey::new(&narrow).stdin(gate.mint(&[])).ok();
    assert!(!done.err.contains("warning"), "{}", done.err);
}

fn gate_with_mcp() -> Gate {
    Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "mcp": {"routes": [{"path": "/mcp", "server": "main"}]},
    }))
}

/// What `inspect` shows of a key: the `only` of its claims, and its caveats.
fn restrictions(key: &str) -> (Value, Vec<Value>) {
    let parts: Vec<&str> = key.trim().split('.').collect();
    let decode = |part: &&str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
    };
    let [_, _, claims, caveats @ .., _] = &*parts else { panic!("{key}") };
    (decode(claims)["only"].clone(), caveats.iter().map(decode).collect())
}

#[test]
fn lists_of_models_and_of_tools_write_the_restriction_that_is_meant() {
    let gate = gate_with_mcp();
    let key = gate.mint(&[]);
    let models = ["--models", "gpt-4o*", "--models", "claude-*"];
    let tools = ["--tools", "search_*", "--tools", r#"{"name":"sql","only_args":["q"]}"#];
    let of_models = json!({"models": ["gpt-4o*", "claude-*"]});
    let of_tools = json!({"mcp": {"tools": ["search_*", {"name": "sql", "only_args": ["q"]}]}});
    let both = json!({"any_of": [of_models, of_tools]});
    for (args, expected) in
        [(models.to_vec(), of_models), (tools.to_vec(), of_tools), ([models, tools].concat(), both)]
    {
        let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];
        let minted = gate.vkey(&[&mint[..], &args].concat()).ok();
        assert!(!minted.err.contains("warning"), "{}", minted.err);
        assert_eq!(restrictions(&minted.out), (expected.clone(), vec![]));
        let narrow = ["attenuate", "--now", NOW];
        let narrowed = Vkey::new(&[&narrow[..], &args].concat()).stdin(&key).ok();
        assert!(!narrowed.err.contains("warning"), "{}", narrowed.err);
        assert_eq!(restrictions(&narrowed.out), (Value::Null, vec![expected.clone()]));
        // Other caveats narrow further.
        let caveat = ["--caveat", r#"{"methods":["POST"]}"#];
        let narrowed = Vkey::new(&[&narrow[..], &args, &caveat].concat()).stdin(&key).ok();
        let caveats = vec![json!({"methods": ["POST"]}), expected];
        assert_eq!(restrictions(&narrowed.out), (Value::Null, caveats));
    }
}

#[test]
fn a_key_for_chat_and_tools_is_for_each_of_them_alone() {
    let gate = gate_with_mcp();
    let key = gate.mint(&["--models", "gpt-4o*", "--tools", "search_*"]);
    let chat = |model| ["--method", "POST", "--path", "/v1/chat/completions", "--model", model];
    let call = |tool| {
        let call = ["--method", "POST", "--path", "/mcp", "--mcp-method", "tools/call"];
        [&call[..], &["--mcp-name", tool]].concat()
    };
    gate.allows(&key, &chat("gpt-4o-mini"));
    gate.denies(&key, &chat("o3"), "model");
    gate.allows(&key, &call("search_web"));
    gate.denies(&key, &call("delete"), "mcp_call");
    let reason = |args: &[&str]| gate.explain(&key, args).1["decision"].clone();
    // Neither chat nor a call, and a call where the gate reads none.
    assert_eq!(reason(&["--method", "POST", "--path", "/files"]), "deny");
    assert_eq!(reason(&["--method", "POST", "--path", "/mcp2"]), "deny");
    let open = gate.mint(&["--tools", "search_*"]);
    gate.denies(&open, &chat("gpt-4o-mini"), "mcp_call");
}

#[test]
fn lists_of_models_and_of_tools_without_sense_are_rejected() {
    let gate = gate_with_mcp();
    let key = gate.mint(&[]);
    let check = |args: &[&str], code: i32, says: &str| {
        let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];
        gate.vkey(&[&mint[..], args].concat()).refused(code, says);
        if args[0] != "--only" {
            Vkey::new(&[&["attenuate", "--now", NOW][..], args].concat())
                .stdin(&key)
                .refused(code, says);
        }
    };
    for option in ["--models", "--tools"] {
        check(&[option, ""], 2, "expected a glob over names");
        for list in ["a,b", "a b", "a\n"] {
            check(&[option, list], 2, "repeat the option for another");
        }
        check(&["--only", "{}", option, "a"], 2, "cannot be used with");
    }
    for (tool, says) in [
        ("{", "--tools 2: "),
        (r#"{"name":"a","name":"a"}"#, "--tools 2: "),
        (r#"{"tool":"a"}"#, "--tools 2: mcp.tools[0]"),
        (r#"{"args":[{"at":"/a","max":1}]}"#, "--tools 2: mcp.tools[0]"),
        (
            r#"{"name":"a","args":[{"at":"/a","min":2,"max":1}]}"#,
            "--tools 2: mcp.tools[0]: expected",
        ),
        (r#"{"name":"a"} x"#, "--tools 2: "),
    ] {
        check(&["--tools", "a", "--tools", tool], 1, says);
    }
    // A model has no conditions, and neither has a list.
    for json in [r#"["a"]"#, "[", r#""a""#] {
        check(&["--models", json], 2, "not JSON");
        check(&["--tools", json], 2, "not JSON");
    }
    check(&["--models", r#"{"name":"a"}"#], 2, "not JSON");
    for args in [&["attenuate"][..], &["attenuate", "--now", NOW, "--keep-escaped-slashes"]] {
        let done = Vkey::new(args).stdin(&key).refused(2, "--caveat");
        assert!(done.err.contains("--models") && done.err.contains("--tools"), "{}", done.err);
    }
}

/// A restriction for requests of one kind ends what a key may do with the other.
#[test]
fn a_narrowed_key_that_loses_its_calls_or_its_models_is_a_warning() {
    let gate = gate_with_mcp();
    let both = gate.mint(&["--models", "gpt-4o*", "--tools", "search_*"]);
    let (models, tools) = (gate.mint(&["--models", "a*"]), gate.mint(&["--tools", "a*"]));
    let calls = "allows AI requests only, so the key can make no MCP call any more";
    let of_models = "allows MCP calls only, so the key can use no model any more";
    let nothing = "restricts nothing";
    let warnings = [calls, of_models, nothing];
    for (key, args, says) in [
        (&both, &["--models", "gpt-4o"][..], Some(calls)),
        (&both, &["--tools", "search_web"], Some(of_models)),
        (&both, &["--models", "gpt-4o", "--tools", "*"], None),
        (&both, &["--caveat", r#"{"models":["gpt-4o"]}"#], Some(calls)),
        (&both, &["--caveat", r#"{"any_of":[{"mcp":{}}]}"#], Some(of_models)),
        (&both, &["--caveat", r#"{"methods":["POST"]}"#], None),
        (&both, &["--caveat", "{}"], Some(nothing)),
        (&models, &["--models", "ab"], None),
        (&models, &["--tools", "ab"], Some(of_models)),
        (&tools, &["--tools", "ab"], None),
        (&tools, &["--models", "ab"], Some(calls)),
        (&attenuate(&both, r#"{"models":["*"]}"#), &["--models", "gpt-4o"], None),
        (&gate.mint(&[]), &["--models", "gpt-4o"], None),
    ] {
        let narrowed =
            Vkey::new(&[&["attenuate", "--now", NOW][..], args].concat()).stdin(key).ok();
        for warning in warnings {
            let is_said = narrowed.err.contains(warning);
            assert_eq!(is_said, says == Some(warning), "{args:?}: {}", narrowed.err);
        }
    }
    // What is said is so, and what is said to help does.
    let call = ["--method", "POST", "--path", "/mcp", "--mcp-method", "tools/call"];
    let call = [&call[..], &["--mcp-name", "search_web"]].concat();
    let narrow = |args: &[&str]| {
        let done = Vkey::new(&[&["attenuate", "--now", NOW][..], args].concat()).stdin(&both);
        one_line(&done.ok())
    };
    gate.denies(&narrow(&["--models", "gpt-4o"]), &call, "model");
    gate.allows(&narrow(&["--models", "gpt-4o", "--tools", "*"]), &call);
    let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];
    let caveat = ["--models", "a", "--tools", "b", "--caveat", r#"{"models":["a"]}"#];
    let minted = gate.vkey(&[&mint[..], &caveat].concat()).ok();
    assert!(minted.err.contains(&format!("warning: --caveat 1 {calls}")), "{}", minted.err);
}

#[test]
fn mint_and_attenuate_warn_of_models_and_mcp_in_one_restriction() {
    let gate = Gate::new();
    let key = gate.mint(&[]);
    for (restriction, warns) in [
        (r#"{"models":["a"],"mcp":{"tools":["b"]}}"#, true),
        (r#"{"models":["a"],"any_of":[{"mcp":{"tools":["b"]}}]}"#, true),
        (r#"{"any_of":[{"models":["a"]},{"mcp":{"tools":["b"]}}]}"#, false),
    ] {
        let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW, "--only"];
        let minted = gate.vkey(&[&mint[..], &[restriction]].concat()).ok();
        let narrow = ["attenuate", "--now", NOW, "--caveat", restriction];
        let narrowed = Vkey::new(&narrow).stdin(&key).ok();
        for err in [minted.err, narrowed.err] {
            let says = "models and mcp in one restriction never hold together";
            assert_eq!(err.contains(says) && err.contains("use any_of: ["), warns, "{err}");
        }
    }
}

/// The configuration of the gate has no prices.
#[test]
fn mint_warns_of_a_cost_that_nothing_has_a_price_for() {
    let gate = Gate::new();
    let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];
    let key = gate.mint(&[]);
    for (unit, warns) in [(r#""tokens":1"#, false), (r#""cost_usd":"1.50""#, true)] {
        let quotas = format!(r#"{{"quotas":[{{{unit},"per":"day"}}]}}"#);
        for (option, named) in [("--only", "--only"), ("--caveat", "--caveat 1")] {
            let minted = gate.vkey(&[&mint[..], &[option, &quotas]].concat()).ok();
            let warning = format!("vkey: warning: {named}: the configuration has no prices");
            assert_eq!(minted.err.contains(&warning), warns, "{}", minted.err);
            gate.allows(&one_line(&minted), &[]);
        }
        // Whoever narrows a key does not know the gate.
        let narrow = ["attenuate", "--now", NOW, "--caveat", &quotas];
        let narrowed = Vkey::new(&narrow).stdin(&key).ok();
        assert!(!narrowed.err.contains("warning"), "{}", narrowed.err);
        gate.allows(&one_line(&narrowed), &[]);
    }
}

#[test]
fn attenuate_refuses_an_expired_key_unless_forced() {
    let key = Gate::new().mint(&[]);
    let caveat = ["attenuate", "--caveat", r#"{"methods":["GET"]}"#];
    let narrow = |args: &[&str]| Vkey::new(&[&caveat, args].concat()).stdin(&key);
    narrow(&["--now", "1790003599"]).ok();
    narrow(&["--now", "1790003600"]).refused(1, "the key has expired; mint another");
    let forced = narrow(&["--now", "1790003600", "--force"]).ok();
    assert_eq!(forced.err, "vkey: warning: the key has expired; mint another\n");
    // A caveat that ends before now is as dead, although the key was valid then.
    let past = ["--caveat", r#"{"exp":1790000010}"#, "--now", "1790000010"];
    narrow(&past).refused(1, "--caveat 2 never allows a request while the key is valid");
}

#[test]
fn mint_rejects_what_no_gate_would_accept() {
    let gate = Gate::new();
    let check = |args: &[&str], code: i32, says: &str| {
        let fixed = ["mint", "--lifetime", "1h"];
        gate.vkey(&[&fixed, args].concat()).refused(code, says);
    };
    check(&["--tenant", "a b"], 1, "tenant: expected");
    check(&["--tenant", "a", "--jti", ""], 1, "jti: expected");
    check(&["--tenant", "a", "--sub", ""], 1, "sub: expected");
    check(&["--tenant", "a", "--only", r#"{"method":["GET"]}"#], 1, "--only: method: unknown");
    check(
        &["--tenant", "a", "--caveat", "{}", "--caveat", r#"{"nbf":"x"}"#],
        1,
        "--caveat 2: nbf:",
    );
    let tokens = r#"{"quotas":[{"tokens":1,"per":"day"},{"tokens":2,"per":"day"}]}"#;
    let twice = "quotas: two quotas of one unit and period; keep one";
    check(&["--tenant", "a", "--only", tokens], 1, &format!("--only: {twice}"));
    check(&["--tenant", "a", "--caveat", tokens], 1, &format!("--caveat 1: {twice}"));
    check(&["--tenant", "a", "--meta", "[]"], 1, "meta: expected an object");
    check(&["--tenant", "a", "--meta", "{"], 1, "--meta: not valid JSON");
    check(&["--tenant", "a", "--not-before", "9999-01-01T00:00:00Z"], 1, "--not-before");
    check(&["--tenant", "a", "--ring", "old"], 1, "active: main, next");
    check(&["--tenant", "a", "--ring", "Main"], 2, "--ring");
    check(&["--tenant", "a", "--interval", "1h"], 2, "--interval");
    check(&["--tenant", "a", "--now", "yesterday"], 2, "--now");
    check(&["--tenant", "a", "--secret-env", "MAIN"], 2, "--secret-env");
    let long = format!(r#"{{"models":["{}"]}}"#, "m".repeat(4000));
    check(&["--tenant", "a", "--only", &long], 1, "longer than 4096");
    check(&["--tenant", "a", "--caveat", &long], 1, "longer than 4096");
    check(&[], 2, "--tenant");
    gate.vkey(&["mint", "--tenant", "a"]).refused(2, "--lifetime");
    gate.vkey(&["mint", "--tenant", "a", "--lifetime", "0s"]).refused(2, "--lifetime");
    gate.vkey(&["mint", "--tenant", "a", "--lifetime", "3000000d"]).refused(1, "--lifetime");
    Vkey::new(&["mint", "--tenant", "a", "--lifetime", "1h"]).refused(2, "--config");
}

#[test]
fn times_that_never_overlap_the_life_of_a_key_are_refused_unless_forced() {
    let gate = Gate::new();
    let mint = |option: &str, restriction: &str, more: &[&str]| {
        let args = ["mint", "--tenant", "a", "--lifetime", "1h", "--now", NOW, option, restriction];
        gate.vkey(&[&args, more].concat())
    };
    let key = gate.mint(&[]);
    let narrow = |caveat: &str, more: &[&str]| {
        let first = ["--caveat", r#"{"methods":["GET"]}"#];
        let args = [&["attenuate", "--now", NOW][..], &first, &["--caveat", caveat]].concat();
        Vkey::new(&[&args[..], more].concat()).stdin(&key)
    };
    let says = "never allows a request while the key is valid: every request is refused";
    for dead in [
        r#"{"exp":1789999999}"#,
        r#"{"exp":1790000000}"#,
        r#"{"nbf":1790003600}"#,
        r#"{"any_of":[{"exp":1000},{"nbf":1900000000}]}"#,
        r#"{"nbf":1790000060,"any_of":[{"exp":1790000060}]}"#,
    ] {
        mint("--only", dead, &[]).refused(1, &format!("--only {says}"));
        mint("--caveat", dead, &[]).refused(1, &format!("--caveat 1 {says}"));
        narrow(dead, &[]).refused(1, &format!("--caveat 2 {says}"));
        let forced = [mint("--only", dead, &["--force"]), narrow(dead, &["--force"])];
        for forced in forced.map(Vkey::ok) {
            assert!(forced.err.contains(says) && forced.err.contains("vkey: warning: --"));
            one_line(&forced);
        }
    }
    for alive in [
        r#"{"exp":1790000001}"#,
        r#"{"nbf":1790003599}"#,
        r#"{"any_of":[{"exp":1000},{}]}"#,
        r#"{"any_of":[]}"#,
        r#"{"nbf":1790000060,"any_of":[{"exp":1790000061}]}"#,
    ] {
        let minted = mint("--caveat", alive, &[]).ok().err;
        assert!(!minted.contains("warning:"), "{alive}: {minted}");
        assert_eq!(narrow(alive, &[]).ok().err, "", "{alive}");
    }
}

#[test]
fn mint_keeps_to_the_tenants_of_a_ring() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "acme", "secret": "${MAIN}", "tenants": ["acme", "initech"]},
                    {"name": "main", "secret": "${MAIN}"}],
    }));
    let mint =
        |args: &[&str]| gate.vkey(&[&["mint", "--lifetime", "1h", "--now", NOW], args].concat());
    let ring = |tenant: &str| {
        one_line(&mint(&["--tenant", tenant]).ok()).split('.').nth(1).map(str::to_owned)
    };
    assert_eq!(ring("initech").as_deref(), Some("acme-0"));
    // The first one that signs for it.
    assert_eq!(ring("globex").as_deref(), Some("main-0"));
    mint(&["--tenant", "globex", "--ring", "acme"])
        .refused(1, "ring acme does not sign for this tenant: every gate would refuse the key");
    let forced = mint(&["--tenant", "globex", "--ring", "acme", "--force"]).ok();
    assert!(forced.err.contains("warning: ring acme does not sign for this tenant"));
    gate.denies(&one_line(&forced), &[], "key_unknown");

    // The secret alone is enough to mint such a key; every gate refuses it.
    let by_secret =
        ["mint", "--ring", "acme", "--secret-env", "MAIN", "--lifetime", "1h", "--now", NOW];
    let forged = |tenant| {
        let args = [&by_secret, &["--tenant", tenant][..]].concat();
        one_line(&Vkey::new(&args).env("MAIN", &gate.secret).ok())
    };
    gate.allows(&forged("acme"), &[]);
    gate.denies(&forged("globex"), &[], "key_unknown");
}
