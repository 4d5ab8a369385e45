//! Checking configurations.

use std::fs;

use crate::harness::{Gate, Vkey, secret};

#[test]
fn config_check_sums_up() {
    let gate = Gate::new();
    let done = gate.vkey(&["config", "check"]).ok();
    for part in
        ["main: active, a new", "old: retiring", "\"default\"", "\"acme\"", "MAIN, PROVIDER"]
    {
        assert!(done.out.contains(part), "{part}: {}", done.out);
    }
    let text = fs::read(gate.dir.file("config.json")).expect("readable");
    assert_eq!(Vkey::new(&["config", "check", "-"]).stdin(text).ok().out, done.out);
    gate.vkey(&["config", "check", "--env"]).refused(1, "PROVIDER is not set");
    gate.vkey(&["config", "check", "--env"]).env("PROVIDER", "x").ok();
    let weak = gate.vkey(&["config", "check", "--env"]).env("MAIN", "short");
    weak.refused(1, "MAIN: the secret is too short");
    Vkey::new(&["config", "check"]).refused(2, "FILE");
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
    refused("", "not valid JSON");
    refused("{\"keyring\":\"\u{0}", "not valid JSON");
}
