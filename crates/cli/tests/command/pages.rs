//! What the pages show is what the command does.
#![allow(clippy::disallowed_methods, reason = "the programs of the pages read the real clock")]

use std::fs;
use std::path::{Path, PathBuf};
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

/// A copy of the example of MCP.
fn example(dir: &Path) -> PathBuf {
    let folder = dir.join("mcp");
    fs::create_dir(&folder).expect("ours");
    for entry in fs::read_dir(root().join("examples/mcp")).expect("a directory") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("writable");
    }
    folder
}

#[test]
fn the_page_of_mcp_on_stdio_leads_to_a_refused_call() {
    let dir = Gate::new().dir;
    let folder = example(dir.path());
    let page = page("mcp-stdio.md");
    let first = section(&page, "## In five minutes");
    let config = fs::read_to_string(folder.join("config.json")).expect("text");
    assert!(first.contains(&format!("```json\n{config}```")));
    let mut all = steps(first);
    assert_eq!(all.remove(0).command, "cd examples/mcp");
    assert!(all.len() > 6, "{all:?}");
    // The next section goes on in the same directory.
    let of_rate = steps(section(&page, "## Limit a key to N calls a minute"));
    assert_eq!(of_rate.len(), 4);
    all.extend(of_rate);
    run(&all, &folder, &[("PATH", &search_path())]);
}

#[test]
fn the_page_of_mcp_mints_keys_for_tools() {
    let gate = Gate::new();
    let page = page("mcp.md");
    fs::write(gate.dir.file("config.json"), blocks(&page, "json")[0]).expect("writable");
    let all = steps(&page);
    assert_eq!(all.len(), 11, "{all:?}");
    run(&all, gate.dir.path(), &[("PATH", &search_path()), ("VKEY_MAIN_SECRET", &gate.secret)]);
}

/// What the page of MCP shows for a colleague: the entry and the rule of sudo start what the commands have made.
#[test]
fn the_page_of_mcp_on_stdio_hands_over_a_narrowed_key() {
    let dir = Gate::new().dir;
    let folder = example(dir.path());
    let page = page("mcp-stdio.md");
    let (_, section) = page.split_once("### A narrowed key for a colleague\n").expect("a heading");
    let (section, _) = section.split_once("\n## ").expect("a section");
    run(&steps(section), &folder, &[("PATH", &search_path())]);
    let entry: Value = serde_json::from_str(blocks(section, "json")[0]).expect("JSON");
    let args = entry["mcpServers"]["files"]["args"].as_array().expect("a list").iter();
    let args = Vec::from_iter(args.map(|word| word.as_str().expect("a text")));
    let sudo = ["-n", "-u", "vkey"];
    assert_eq!(args[..3], sudo);
    let rule = format!("bob ALL=(vkey) NOPASSWD: {}\n", args[3..].join(" "));
    assert!(section.contains(&rule), "{rule}");
    let here = |word: &&str| word.replace("/srv/vkey", &text(folder.clone()));
    let args = Vec::from_iter(args[4..].iter().map(here));
    let vkey = Vkey::new(&Vec::from_iter(args.iter().map(String::as_str)));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let done = vkey.env("PATH", &search_path()).stdin(call).ok();
    assert!(done.out.contains("\"tools\""), "{}", done.out);
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
    for secret in [secret(), "Chosen-by-4-people-in-5-minutes!".to_owned()] {
        let token = issued(&issuer(), &secret);
        assert_eq!(decision(&config, &secret, &token, now_secs()), "allow");
        assert_eq!(decision(&rotating, &secret, &token, now_secs()), "key_retired");
        let token = issued(&with_epoch, &secret);
        assert_eq!(decision(&rotating, &secret, &token, now_secs()), "allow");
        for (from, to) in [
            ("\"typ\": \"JWT\"", "\"cty\": \"JWT\""),
            ("\"sub\": \"ci\"", "\"iss\": \"ci\""),
            ("\"HS256\"", "\"RS256\""),
        ] {
            let other = issuer().replace(from, to);
            let token = issued(&other, &secret);
            assert_eq!(decision(&config, &secret, &token, now_secs()), "key_malformed", "{to}");
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
