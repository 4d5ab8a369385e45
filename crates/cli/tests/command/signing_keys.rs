//! Rings that have single signing keys in place of their secret.

use serde_json::json;

use crate::harness::{Done, Gate, NOW, Vkey, one_line};

/// The kid of [`NOW`] and the next one, and a time in the next epoch.
const KID: &str = "main-2959";
const NEXT: &str = "main-2960";
const LATER: &str = "1790500000";

fn derive(gate: &Gate, kid: &str) -> String {
    let args = ["secret", "derive", "--kid", kid, "--secret-env", "MAIN"];
    one_line(&Vkey::new(&args).env("MAIN", &gate.secret).ok())
}

fn rotation() -> serde_json::Value {
    json!({"interval": "168h", "max_age": "30d", "keep_expired": true})
}

/// A gate that has the secret.
fn root() -> Gate {
    let ring = json!({"name": "main", "secret": "${MAIN}", "rotation": rotation()});
    Gate::with(&json!({ "keyring": [ring] }))
}

/// A machine that has the signing key of [`KID`] in `MAIN`, and nothing in `NEXT`.
fn derived(from: &Gate) -> Gate {
    let keys = json!({KID: "${MAIN}", NEXT: "${NEXT}"});
    let ring = json!({"name": "main", "keys": keys, "rotation": rotation()});
    let mut gate = Gate::with(&json!({ "keyring": [ring] }));
    gate.secret = derive(from, KID);
    gate
}

fn mint(gate: &Gate, args: &[&str]) -> Vkey {
    let fixed = ["mint", "--tenant", "acme", "--lifetime", "1h", "--jti", "k_1"];
    gate.vkey(&[&fixed, args].concat())
}

#[test]
fn a_signing_key_mints_and_verifies_the_keys_of_its_epoch() {
    let root = root();
    let derived = derived(&root);
    let key = one_line(&mint(&derived, &["--now", NOW]).ok());
    assert_eq!(key, one_line(&mint(&root, &["--now", NOW]).ok()));
    root.allows(&key, &[]);
    derived.allows(&key, &[]);
    // Nothing of another epoch, older or newer.
    for (now, kid) in [("1789300000", "main-2958"), ("1791200000", "main-2961")] {
        let other = one_line(&mint(&root, &["--now", now]).ok());
        assert!(other.starts_with(&format!("vk1.{kid}.")), "{other}");
        root.allows(&other, &["--now", now]);
        derived.denies(&other, &["--now", now], "key_unknown");
    }
}

#[test]
fn a_signing_key_that_is_needed_is_named() {
    let root = root();
    let derived = derived(&root);
    let without = mint(&derived, &["--now", "1791200000"]);
    let done = without.refused(1, "the configuration has no signing key main-2961, which a key of");
    assert!(done.err.contains("`vkey secret derive --kid main-2961`"), "{}", done.err);
    let missing = mint(&derived, &["--now", LATER]);
    missing.refused(3, "signing key main-2960: environment variable NEXT is not set or empty");
    let next = derive(&root, NEXT);
    one_line(&mint(&derived, &["--now", LATER]).env("NEXT", &next).ok());
    // The key of the other epoch, by mistake.
    let key = one_line(&mint(&root, &["--now", NOW]).ok());
    let args = ["explain", "--method", "GET", "--path", "/v1", "--now", NOW];
    let done = derived.vkey(&args).env("MAIN", &next).stdin(&key).run();
    assert!(done.code == 1 && done.out.contains("key_signature"), "{}", done.out);
}

#[test]
fn check_and_run_know_signing_keys() {
    let root = root();
    let derived = derived(&root);
    let check = || derived.vkey(&["config", "check", "--env"]);
    let done = check().run();
    let says = "signing key main-2960: environment variable NEXT is not set";
    assert!(done.code == 1 && done.err.contains(says), "{}", done.err);
    assert!(done.out.contains("readiness    main: ready\n"), "{}", done.out);
    assert!(done.out.contains(", with the signing keys main-2959, main-2960 alone\n"));
    assert!(check().env("NEXT", &derive(&root, NEXT)).ok().out.ends_with("main: ready\nok\n"));
    let done = check().env("NEXT", "xK7#mQ2$vL9@pR4!nW6%tY1^z8").run();
    assert!(
        done.err.contains("NEXT: a signing key is base64: and exactly 32 bytes"),
        "{}",
        done.err
    );
    let key = one_line(&mint(&root, &["--now", NOW]).ok());
    let line = json!({"method": "GET", "path": "/v1", "headers": [["x-api-key", key]]});
    let done = derived.vkey(&["run", "--now", NOW]).stdin(format!("{line}\n")).ok();
    assert!(done.out.contains(r#""decision":"allow""#), "{}{}", done.out, done.err);
}

#[test]
fn derive_takes_the_secret_from_where_it_is() {
    let gate = root();
    let expected = derive(&gate, KID);
    assert_eq!(expected.len(), "base64:".len() + 44);
    let file = gate.file("secret", format!("{}\n", gate.secret));
    let derive = |args: &[&str]| Vkey::new(&[&["secret", "derive"], args].concat());
    let read = |done: Done| assert_eq!(one_line(&done), expected);
    read(derive(&["--kid", KID, "--secret-file", &file]).ok());
    read(derive(&["--kid", KID]).stdin(&gate.secret).ok());
    derive(&["--kid", KID, "--secret-env", "NONE"]).refused(3, "--secret-env is not set");
    derive(&["--kid", KID]).stdin("Company-Production-Secret-2026").refused(1, "can be guessed");
    derive(&["--kid", KID, "--secret-file", &file, "--secret-env", "A"])
        .refused(2, "cannot be used");
    derive(&["--secret-file", &file]).refused(2, "--kid");
    for wrong in ["main", "main-00", "Main-1", "main-4294967296"] {
        derive(&["--kid", wrong]).refused(2, "the name of a ring, - and an epoch");
    }
}
