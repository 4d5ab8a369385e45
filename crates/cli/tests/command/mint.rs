//! Keys that are minted, and keys that are not.

use serde_json::{Value, json};

use crate::harness::{Gate, NOW, Vkey, one_line};

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
fn mint_says_when_a_gate_will_not_take_the_key() {
    let gate = Gate::with(&json!({
        "audience": "gw", "unlisted_tenants": "deny", "revoked": {"keys": ["k_bad"]},
        "keyring": [{"name": "main", "secret": "${MAIN}",
                     "rotation": {"interval": "168h", "max_age": "30d"}}],
    }));
    let args = ["mint", "--tenant", "x", "--tier", "gold", "--jti", "k_bad", "--lifetime", "60d"];
    let done = gate.vkey(&args).ok();
    for note in ["no such tier", "list the tenant", "audience", "revokes", "before it expires"] {
        assert!(done.err.contains(note), "{note}: {}", done.err);
    }
    assert!(one_line(&done).starts_with("vk1.main-"));
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
    let tokens = r#"{"quotas":[{"requests":1,"per":"day"},{"tokens":1,"per":"day"}]}"#;
    let unread = "quotas of tokens and cost_usd need bodies, which no gate reads yet: every gate \
                  would refuse the key";
    check(&["--tenant", "a", "--only", tokens], 1, &format!("--only: {unread}"));
    check(&["--tenant", "a", "--caveat", tokens], 1, &format!("--caveat 1: {unread}"));
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
fn mint_warns_of_times_that_never_overlap_the_life_of_a_key() {
    let gate = Gate::new();
    let mint = |option: &str, restriction: &str| {
        let args = ["mint", "--tenant", "a", "--lifetime", "1h", "--now", NOW, option, restriction];
        gate.vkey(&args).ok().err
    };
    let key = gate.mint(&[]);
    let narrow = |caveat: &str| {
        Vkey::new(&["attenuate", "--caveat", "{}", "--caveat", caveat]).stdin(&key).ok().err
    };
    let says = "never allows a request while the key is valid: every request is refused";
    for dead in [
        r#"{"exp":1789999999}"#,
        r#"{"exp":1790000000}"#,
        r#"{"nbf":1790003600}"#,
        r#"{"any_of":[{"exp":1000},{"nbf":1900000000}]}"#,
        r#"{"nbf":1790000060,"any_of":[{"exp":1790000060}]}"#,
    ] {
        assert!(mint("--only", dead).contains(&format!("note: --only {says}")), "{dead}");
        let of_caveat = mint("--caveat", dead);
        assert!(of_caveat.contains(&format!("note: --caveat 1 {says}")), "{dead}: {of_caveat}");
        let by_holder = narrow(dead);
        assert!(by_holder.contains(&format!("note: --caveat 2 {says}")), "{dead}: {by_holder}");
    }
    for alive in [
        r#"{"exp":1790000001}"#,
        r#"{"nbf":1790003599}"#,
        r#"{"any_of":[{"exp":1000},{}]}"#,
        r#"{"any_of":[]}"#,
        r#"{"nbf":1790000060,"any_of":[{"exp":1790000061}]}"#,
    ] {
        let minted = mint("--caveat", alive);
        assert!(!minted.contains("note:"), "{alive}: {minted}");
        assert_eq!(narrow(alive), "", "{alive}");
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
