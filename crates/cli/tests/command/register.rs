//! The register of minted keys.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Done, Gate, NOW, Vkey, one_line, text};

/// Half an hour and two hours after [`NOW`].
const SOON: &str = "1790001800";
const LATER: &str = "1790007200";

fn mint(gate: &Gate, register: &str, args: &[&str]) -> Vkey {
    let fixed = ["mint", "--lifetime", "1h", "--now", NOW, "--register", register];
    let tenant = if args.contains(&"--tenant") { &[][..] } else { &["--tenant", "acme"] };
    gate.vkey(&[&fixed, tenant, args].concat())
}

fn keys(register: &str, args: &[&str]) -> Vkey {
    let now = if args.contains(&"--now") { &[][..] } else { &["--now", SOON] };
    Vkey::new(&[&["keys", register], now, args].concat())
}

/// The ids that are listed, with their states.
fn listed(done: &Done) -> Vec<(String, String)> {
    let lines = done.out.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let word = |line: &Value, name: &str| line[name].as_str().expect("a text").to_owned();
    lines.map(|line| (word(&line, "jti"), word(&line, "state"))).collect()
}

fn states(done: &Done) -> String {
    let listed = listed(done).into_iter().map(|(jti, state)| format!("{jti} {state}"));
    Vec::from_iter(listed).join(", ")
}

#[test]
fn a_register_says_whose_keys_there_are_and_holds_none() {
    let gate = Gate::new();
    let register = text(gate.dir.file("register"));
    let args =
        ["--jti", "k_1", "--sub", "b\u{f6}b", "--tier", "gold", "--meta", r#"{"a":1}"#, "--force"];
    let key = one_line(&mint(&gate, &register, &args).ok());
    let plain = one_line(&mint(&gate, &register, &["--jti", "k_2", "--ring", "next"]).ok());
    let written = fs::read_to_string(&register).expect("a file");
    let expected = "\
{\"jti\":\"k_1\",\"tenant\":\"acme\",\"sub\":\"b\\u00f6b\",\"tier\":\"gold\",\"iat\":1790000000,\"exp\":1790003600,\"kid\":\"main-2959\"}
{\"jti\":\"k_2\",\"tenant\":\"acme\",\"sub\":null,\"tier\":\"default\",\"iat\":1790000000,\"exp\":1790003600,\"kid\":\"next-0\"}
";
    assert_eq!(written, expected);
    for part in key.split('.').chain(plain.split('.')).filter(|part| part.len() > 12) {
        assert!(!written.contains(part));
    }
    let mode = fs::metadata(&register).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let done = keys(&register, &[]).ok();
    let table = "\
tenant  key  sub         tier     kid        minted                expires               state
acme    k_1  \"b\\u00f6b\"  gold     main-2959  2026-09-21T14:13:20Z  2026-09-21T15:13:20Z  valid
acme    k_2  -           default  next-0     2026-09-21T14:13:20Z  2026-09-21T15:13:20Z  valid

To revoke a key, add {\"tenant\":\"TENANT\",\"jti\":\"KEY\"} with its tenant and its key to revoked.keys in the configuration of the gate, raise revoked.version, and deploy it.
";
    assert_eq!(done.out, table);
    let piped = Vkey::new(&["keys", "-", "--now", SOON]).stdin(&written).ok();
    assert_eq!(piped.out, table);
}

#[test]
fn keys_are_filtered_and_marked() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}", "rotation": {"interval": "168h", "max_age": "168h"}},
                    {"name": "old", "secret": "${MAIN}"}],
    }));
    let register = text(gate.dir.file("register"));
    for (jti, args) in [
        ("k_bob", &["--sub", "bob"][..]),
        ("k_eve", &["--sub", "eve", "--tenant", "globex"]),
        ("k_long", &["--lifetime", "30d", "--sub", "bob"]),
        ("k_old", &["--ring", "old", "--lifetime", "30d"]),
    ] {
        let lifetime = args.contains(&"--lifetime");
        let fixed = ["mint", "--now", NOW, "--register", &register, "--jti", jti];
        let rest = if lifetime { &[][..] } else { &["--lifetime", "1h"] };
        let tenant = if args.contains(&"--tenant") { &[][..] } else { &["--tenant", "acme"] };
        gate.vkey(&[&fixed, rest, tenant, args].concat()).ok();
    }
    let list = |args: &[&str]| states(&keys(&register, &[args, &["--json"]].concat()).ok());
    assert_eq!(list(&[]), "k_bob valid, k_eve valid, k_long valid, k_old valid");
    assert_eq!(list(&["--sub", "bob"]), "k_bob valid, k_long valid");
    assert_eq!(list(&["--tenant", "globex"]), "k_eve valid");
    assert_eq!(list(&["--tenant", "globex", "--sub", "bob"]), "");
    assert_eq!(list(&["--now", LATER]), "k_long valid, k_old valid");
    let all = "k_bob expired, k_eve expired, k_long valid, k_old valid";
    assert_eq!(list(&["--now", LATER, "--all"]), all);
    // The last second at which a key is valid, and the first at which it is not.
    assert_eq!(list(&["--now", "1790003599", "--sub", "eve"]), "k_eve valid");
    assert_eq!(list(&["--now", "1790003600", "--sub", "eve"]), "");
    let config = gate.file(
        "revoked.json",
        json!({
            "keyring": [{"name": "main", "secret": "${A}", "rotation": {"interval": "168h", "max_age": "168h"}},
                        {"name": "old", "secret": "${A}", "state": "revoked"}],
            "revoked": {"version": 2, "keys": [{"tenant": "acme", "jti": "k_bob"}],
                        "tenants": {"globex": {"issued_before": 1_790_000_001}}},
        })
        .to_string(),
    );
    let under = |args: &[&str]| list(&[args, &["--config", &config]].concat());
    assert_eq!(under(&[]), "k_bob revoked, k_eve revoked, k_long valid, k_old revoked");
    // A week later the signing key of main has aged out, though the key has not expired.
    assert_eq!(under(&["--now", "1790208000"]), "k_old revoked");
    let aged = "k_bob expired, k_eve expired, k_long retired, k_old revoked";
    assert_eq!(under(&["--now", "1790208000", "--all"]), aged);
    let none = keys(&register, &["--config", &config, "--sub", "eve"]).ok();
    assert!(none.out.contains("revoked\n") && none.out.ends_with("no key is valid\n"));
    // A sub that nobody has is not one whose keys are over.
    let eve = keys(&register, &["--sub", "eve", "--now", LATER]).ok();
    assert_eq!(eve.out, "no key is valid any more; --all lists them\n");
    for (options, says) in [
        (&["--sub", "nobody"][..], "no entry for sub nobody"),
        (&["--tenant", "none"], "no entry for tenant none"),
        (
            &["--sub", "b\u{f6}b", "--tenant", "acme"],
            "no entry for sub \"b\\u00f6b\" and tenant acme",
        ),
    ] {
        let done = keys(&register, options).ok();
        assert_eq!((done.out, done.err), (format!("{says}\n"), String::new()));
        let done = keys(&register, &[options, &["--json"]].concat()).ok();
        assert_eq!((done.out, done.err), (String::new(), format!("vkey: {says}\n")));
    }
    let empty = keys(&gate.file("empty", ""), &[]).ok();
    assert_eq!(empty.out, "the register has no entry\n");
    keys(&register, &["--tenant", "a b"]).refused(2, "--tenant");
    keys("none", &[]).refused(3, "the file named by FILE cannot be read");
}

#[test]
fn a_bad_line_is_named_and_hides_no_other() {
    let gate = Gate::new();
    let register = text(gate.dir.file("register"));
    mint(&gate, &register, &["--jti", "k_1"]).ok();
    let good = fs::read_to_string(&register).expect("a file");
    // A line that was cut, as by a full disk; the next one begins after it.
    fs::write(&register, [&good, "\n", &good[..20]].concat()).expect("ours");
    mint(&gate, &register, &["--jti", "k_2"]).ok();
    let bad = "vk1.main-0.eyJqdGkiOiJrIn0.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
    let appended = [fs::read_to_string(&register).expect("a file").as_str(), bad].concat();
    fs::write(&register, appended).expect("ours");
    mint(&gate, &register, &["--jti", "k_3"]).ok();
    let done = keys(&register, &["--json"]).run();
    assert_eq!((done.code, &*states(&done)), (1, "k_1 valid, k_2 valid, k_3 valid"));
    let lines = Vec::from_iter(done.err.lines());
    assert_eq!(lines.len(), 2, "{}", done.err);
    assert!(lines[0].starts_with("vkey: line 3 of the register is not a key: "), "{}", done.err);
    assert!(lines[1].starts_with("vkey: line 5 of the register is not a key: "), "{}", done.err);
    assert!(!done.err.contains("AAAA"), "{}", done.err);
}

#[test]
fn without_its_line_no_key_is_printed() {
    let gate = Gate::new();
    let refused = |register: &str, says: &str| {
        let out = text(gate.dir.file("out"));
        mint(&gate, register, &[]).refused(3, says);
        mint(&gate, register, &["--out", &out]).refused(3, says);
        assert!(fs::symlink_metadata(&out).is_err());
    };
    let at = |name: &str| text(gate.dir.file(name));
    refused(&at("none/register"), "the file named by --register cannot be written");
    let target = gate.file("target", "kept\n");
    symlink(&target, at("link")).expect("a link");
    refused(&at("link"), "the file named by --register is a link");
    assert_eq!(fs::read_to_string(&target).expect("a file"), "kept\n");
    refused("/dev/null", "the file named by --register is a link, a directory or a device");
    // No room: the write is refused, and nothing is printed.
    let fails = "ulimit -f 0; trap '' XFSZ; exec \"$@\"";
    let vkey = mint(&gate, &at("full"), &[]);
    let mut command = Command::new("sh");
    command.args(["-c", fails, "sh", env!("CARGO_BIN_EXE_vkey")]).args(&vkey.args);
    let output = command.env("MAIN", &gate.secret).output().expect("sh");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b""[..]));
}

#[test]
fn lines_of_several_minters_do_not_mix() {
    let gate = Gate::new();
    let register = text(gate.dir.file("register"));
    let sub = "s".repeat(128);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..4 {
                    mint(&gate, &register, &["--sub", &sub]).ok();
                }
            });
        }
    });
    assert_eq!(listed(&keys(&register, &["--json"]).ok()).len(), 32);
}

#[test]
fn a_key_that_the_configuration_does_not_know_is_not_valid() {
    let gate = Gate::with(&json!({"keyring": [{"name": "main", "secret": "${MAIN}"}]}));
    let register = text(gate.dir.file("register"));
    mint(&gate, &register, &["--jti", "k_1"]).ok();
    let later = fs::read_to_string(&register).expect("a file").replace("main-0", "main-2961");
    let under = |register: &str, ring: Value, more: Value| {
        let mut config = json!({ "keyring": [ring] });
        config.as_object_mut().expect("ours").extend(more.as_object().expect("ours").clone());
        let config = gate.file("other.json", config.to_string());
        states(&keys(register, &["--config", &config, "--json"]).ok())
    };
    let main = |more: Value| {
        let mut ring = json!({"name": "main", "secret": "${A}"});
        ring.as_object_mut().expect("ours").extend(more.as_object().expect("ours").clone());
        ring
    };
    let none = json!({});
    assert_eq!(under(&register, main(none.clone()), none.clone()), "k_1 valid");
    assert_eq!(under(&register, main(json!({"tenants": ["acme"]})), none.clone()), "k_1 valid");
    let rotation = json!({"rotation": {"interval": "168h", "max_age": "168h"}});
    let single = json!({"name": "main", "keys": {"main-2959": "${A}"},
                        "rotation": {"interval": "168h", "max_age": "168h"}});
    let deny = json!({"unlisted_tenants": "deny", "tenants": {"globex": {}}});
    for (ring, more) in [
        (json!({"name": "gone", "secret": "${A}"}), none.clone()),
        (main(json!({"tenants": ["globex"]})), none.clone()),
        (main(none.clone()), deny),
    ] {
        assert_eq!(under(&register, ring.clone(), more), "k_1 unknown", "{ring}");
    }
    let future = gate.file("future", &later);
    assert_eq!(under(&future, main(rotation.clone()), none.clone()), "k_1 unknown");
    let now = gate.file("now", later.replace("main-2961", "main-2959"));
    assert_eq!(under(&now, main(rotation), none.clone()), "k_1 valid");
    assert_eq!(under(&now, single.clone(), none.clone()), "k_1 valid");
    let other = single.to_string().replace("2959", "2958");
    let other = serde_json::from_str(&other).expect("JSON");
    assert_eq!(under(&now, other, none.clone()), "k_1 unknown");
    let config = text(gate.dir.file("other.json"));
    let people = keys(&now, &["--config", &config]).ok().out;
    assert!(people.ends_with("unknown\nno key is valid\n"), "{people}");
}

#[test]
fn a_key_does_not_replace_its_register() {
    let gate = Gate::new();
    let register = text(gate.dir.file("register"));
    let folder = std::path::Path::new(&register).parent().expect("a folder");
    let beside = text(folder.join(".").join("register"));
    let says = "--register and --out name the same file";
    mint(&gate, &register, &["--out", &beside, "--force"]).refused(2, says);
    assert!(!std::path::Path::new(&register).exists());
    mint(&gate, &register, &["--jti", "k_1"]).ok();
    let before = fs::read(&register).expect("a file");
    let link = text(gate.dir.file("link"));
    fs::hard_link(&register, &link).expect("ours");
    for out in [&register, &beside, &link] {
        mint(&gate, &register, &["--out", out, "--force"]).refused(2, says);
    }
    assert_eq!(fs::read(&register).expect("a file"), before);
}
