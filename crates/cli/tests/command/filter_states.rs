//! Rings whose secrets are in filter states, which no command can read.

use serde_json::{Value, json};

use super::harness::{Gate, Vkey, one_line};

const MISSING: &str =
    "the secret is in the filter state vkey.secret.main, which only a proxy has; name a";

fn config() -> Value {
    let ring = |name: &str| json!({"name": name, "secret": {"filter_state": format!("vkey.secret.{name}")}});
    json!({"keyring": [ring("main"), ring("next")]})
}

#[test]
fn the_secrets_of_rings_are_files() {
    let gate = Gate::new();
    let config = gate.file("two.json", config().to_string());
    let secret = |name: &str| gate.file(name, one_line(&Vkey::new(&["secret", "new"]).ok()));
    let (main, next) = (secret("main"), secret("next"));
    let mint = |args: &[&str]| {
        let fixed = ["mint", "--config", &config, "--tenant", "acme", "--lifetime", "1h"];
        Vkey::new(&[&fixed, args].concat())
    };
    let key = one_line(&mint(&["--ring", "next", "--secret-file", &next]).ok());
    let explain = |args: &[&str]| {
        let fixed = ["explain", "--config", &config, "--method", "GET", "--path", "/"];
        Vkey::new(&[&fixed, args].concat()).stdin(key.clone())
    };
    let of = |ring: &str, path: &str| format!("{ring}={path}");
    let (of_main, of_next) = (of("main", &main), of("next", &next));
    let both = ["--ring-secret-file", &of_main, "--ring-secret-file", &of_next];
    assert!(explain(&both).ok().out.ends_with("allow\n"));
    let (of_main, of_next) = (of("main", &next), of("next", &main));
    let swapped = ["--ring-secret-file", &of_main, "--ring-secret-file", &of_next];
    assert!(explain(&swapped).run().out.contains("key_signature"));
    // One file is for all rings, unless one is named.
    mint(&["--secret-file", &next]).refused(1, "--secret-file holds one secret");
    let other = of("other", &main);
    explain(&["--ring-secret-file", &other]).refused(1, "expected one of main, next");
    explain(&["--ring-secret-file", "main"])
        .refused(2, "expected the name of a ring, = and a path");
    explain(&["--ring-secret-file", &of_main, "--secret-file", &main]).refused(2, "--secret-file");
}

#[test]
fn without_files_each_command_says_what_to_do() {
    let gate = Gate::new();
    let config = gate.file("two.json", config().to_string());
    let mint = ["mint", "--config", &config, "--tenant", "acme", "--lifetime", "1h"];
    Vkey::new(&mint).refused(3, MISSING);
    Vkey::new(&["run", "--config", &config]).refused(3, MISSING);
    let done = Vkey::new(&["config", "check", "--env", &config]).ok();
    assert!(done.out.contains("note         ring main: the secret is in the filter state"));
}
