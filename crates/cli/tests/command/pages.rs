//! What the pages show is what the command does.
#![allow(clippy::disallowed_methods, reason = "the programs of the pages read the real clock")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Gate, Vkey, root, secret, text};
use crate::page::{blocks, run, section, steps};

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).expect("a page")
}

/// The variable `PATH`, with the command in front.
fn search_path() -> String {
    let command = Path::new(env!("CARGO_BIN_EXE_vkey")).parent().expect("a directory");
    format!("{}:{}", command.display(), std::env::var("PATH").expect("text"))
}

#[test]
fn the_page_of_mcp_leads_to_a_refused_call() {
    let dir = Gate::new().dir;
    let folder = dir.file("mcp");
    fs::create_dir(&folder).expect("ours");
    for entry in fs::read_dir(root().join("examples/mcp")).expect("a directory") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("writable");
    }
    let page = page("mcp.md");
    let section = section(&page, "## In five minutes");
    let config = fs::read_to_string(folder.join("config.json")).expect("text");
    assert!(section.contains(&format!("```json\n{config}```")));
    let mut steps = steps(section);
    assert_eq!(steps.remove(0).command, "cd examples/mcp");
    assert!(steps.len() > 6, "{steps:?}");
    run(&steps, &folder, &[("PATH", &search_path())]);
}

/// The program on the page of keys, as it stands there.
fn issuer() -> String {
    let page = page("keys.md");
    let blocks = blocks(section(&page, "## Keys from another issuer"), "python");
    assert_eq!(blocks.len(), 1);
    blocks[0].to_owned()
}

/// A token of a program.
fn issued(program: &str, secret: &str) -> String {
    let mut python = Command::new("python3");
    python.args(["-c", program]).env("VKEY_MAIN_SECRET", secret);
    let output = python.output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

#[test]
fn a_token_of_the_issuer_on_the_page_is_accepted() {
    let dir = Gate::new().dir;
    fs::write(dir.file("issue.py"), issuer()).expect("ours");
    let page = page("keys.md");
    let steps = steps(section(&page, "## Keys from another issuer"));
    assert_eq!(steps.len(), 4);
    run(&steps, dir.path(), &[("PATH", &search_path())]);
}

/// Whether a gate allows a token at a time, or why not.
fn decision(config: &Value, secret: &str, token: &str, at: u64) -> String {
    let gate = Gate::with(config);
    let config = text(gate.dir.file("config.json"));
    let fixed = ["explain", "--json", "--config", &config, "--method", "GET", "--path", "/"];
    let at = at.to_string();
    let vkey = Vkey::new(&[&fixed[..], &["--now", &at]].concat()).env("VKEY_MAIN_SECRET", secret);
    let report: Value = serde_json::from_str(&vkey.stdin(token).run().out).expect("JSON");
    report["reason"].as_str().or(report["decision"].as_str()).expect("text").to_owned()
}

#[test]
fn text_secrets_and_rotating_rings_have_the_issuer_on_the_page_too() {
    let config = json!({"keyring": [{"name": "main", "secret": "${VKEY_MAIN_SECRET}"}]});
    let rotating = json!({"keyring": [{"name": "main", "secret": "${VKEY_MAIN_SECRET}",
                                       "rotation": {"interval": "168h", "max_age": "30d"}}]});
    let with_epoch = {
        let program = issuer();
        let (before, comment) = program.split_once("\"main-0\"  # with rotation: ").expect("a kid");
        let (epoch, after) = comment.split_once(" for 168h").expect("an epoch");
        [before, epoch, after].concat()
    };
    let now = now_secs();
    for secret in [secret(), "Chosen-by-4-people-in-5-minutes!".to_owned()] {
        let token = issued(&issuer(), &secret);
        assert_eq!(decision(&config, &secret, &token, now), "allow");
        assert_eq!(decision(&rotating, &secret, &token, now), "key_retired");
        let token = issued(&with_epoch, &secret);
        assert_eq!(decision(&rotating, &secret, &token, now), "allow");
        for (from, to) in [
            ("\"typ\": \"JWT\"", "\"cty\": \"JWT\""),
            ("\"sub\": \"ci\"", "\"iss\": \"ci\""),
            ("\"HS256\"", "\"RS256\""),
        ] {
            let other = issuer().replace(from, to);
            let token = issued(&other, &secret);
            assert_eq!(decision(&config, &secret, &token, now), "key_malformed", "{to}");
        }
    }
}

#[test]
fn what_no_gate_accepts_in_a_token_is_named() {
    let gate = Gate::with(&json!({"keyring": [{"name": "main", "secret": "${VKEY_MAIN_SECRET}"}]}));
    let (config, secret) = (text(gate.dir.file("config.json")), secret());
    let explain = ["explain", "--config", &config, "--method", "GET", "--path", "/"];
    let run = |args: &[&str], token: &str| {
        Vkey::new(args).env("VKEY_MAIN_SECRET", &secret).stdin(token).run()
    };
    let narrow = ["attenuate", "--caveat", "{}"];
    for (from, to, says) in [
        ("\"typ\": \"JWT\"", "\"typ\": \"at+jwt\"", "header of the JWT: typ: expected JWT"),
        ("\"typ\": \"JWT\"", "\"cty\": \"JWT\"", "header of the JWT: cty: unknown member"),
        ("\"HS256\"", "\"RS256\"", "header of the JWT: alg: expected HS256"),
        ("\"sub\": \"ci\"", "\"iss\": \"ci\"", "claims: iss: unknown member"),
    ] {
        let token = issued(&issuer().replace(from, to), &secret);
        let denied = run(&explain, &token);
        let line = format!("key         key_malformed: no gate accepts the {says}");
        assert!(denied.code == 1 && denied.out.contains(&line), "{}", denied.out);
        let shown = run(&["inspect"], &token);
        assert!(shown.code == 1 && shown.err.contains(says), "{}", shown.err);
        if says.starts_with("header") {
            assert!(run(&narrow, &token).err.contains(says));
        }
    }
    let denied = run(&explain, "no key at all");
    assert!(denied.out.contains("key_malformed: the credential is not a virtual key\n"));
    let refused = run(&narrow, &issued(&issuer(), &secret));
    let says =
        "vkey: the key cannot be narrowed: a JWT carries no caveats; mint a vk1 key instead\n";
    assert_eq!((refused.code, refused.err.as_str()), (1, says));
}

#[test]
fn the_audience_on_the_page_is_that_of_a_gate() {
    let gate = json!({"keyring": [{"name": "main", "secret": "${VKEY_MAIN_SECRET}"}], "audience": "my-gate"});
    let secret = secret();
    let with_audience = issuer().replace("# claims[\"aud\"]", "claims[\"aud\"]");
    assert_ne!(with_audience, issuer());
    for (program, expected) in [(with_audience, "allow"), (issuer(), "key_audience")] {
        assert_eq!(decision(&gate, &secret, &issued(&program, &secret), now_secs()), expected);
    }
}

/// What the page of security says of the signing key of an epoch: it mints for its own `kid`, until it retires or
/// its ring is revoked.
#[test]
fn a_leaked_signing_key_mints_for_its_epoch_only() {
    const WEEK: u64 = 604_800;
    let ring = |more: &Value| {
        let mut ring = json!({"name": "main", "secret": "${VKEY_MAIN_SECRET}",
                              "rotation": {"interval": "168h", "max_age": "30d", "keep_expired": true}});
        let more = more.as_object().expect("an object");
        more.iter().for_each(|(name, value)| ring[name] = value.clone());
        json!({"keyring": [ring], "revoked": {"version": 1, "keys": ["k_portal_1"],
                                              "tenants": {"other": {"issued_before": now_secs()}}}})
    };
    let (secret, epoch) = (secret(), now_secs() / WEEK);
    // The thief knows one signing key, and invents id, tenant and times.
    let forge = |kid: u64| {
        let program =
            issuer().replace("now + 3600", "now + 10**8").replace("k_portal_1", "k_invented");
        let program = program
            .replace("\"acme\"", "\"other\"")
            .replace("\"main-0\"", &format!("\"main-{epoch}\""));
        issued(&program.replace("\"kid\": kid", &format!("\"kid\": \"main-{kid}\"")), &secret)
    };
    let open = ring(&json!({}));
    let own = forge(epoch);
    let last = epoch * WEEK + 30 * 86_400;
    assert_eq!(decision(&open, &secret, &own, now_secs() + 1), "allow");
    assert_eq!(decision(&open, &secret, &own, last - 1), "allow");
    assert_eq!(decision(&open, &secret, &own, last), "key_retired");
    assert_eq!(decision(&open, &secret, &forge(epoch - 1), now_secs()), "key_signature");
    assert_eq!(
        decision(&ring(&json!({"state": "revoked"})), &secret, &own, now_secs() + 1),
        "key_revoked"
    );
    let bound = ring(&json!({"tenants": ["acme"]}));
    assert_ne!(decision(&bound, &secret, &own, now_secs() + 1), "allow");
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
