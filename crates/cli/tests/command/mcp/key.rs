//! The key of a session: it is evaluated before the server starts, and for each message.
#![allow(clippy::disallowed_methods, reason = "a key that expires needs a real clock")]

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Gate, NOW, Vkey, attenuate, one_line, text};

use super::session::{Session, audit_lines, command, command_for, wait_until};

/// A gate for which every key is wrong that has none of its rings, audience, tier and tenant.
fn strict() -> Gate {
    Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "audience": "gate",
        "tiers": {"default": {"only": {"paths": ["/mcp"]}}, "none": {"rate": {"requests": 1, "per": "1s"}}},
        "tenants": {"acme": {}},
        "revoked": {"version": 1, "keys": ["k_leaked"]},
    }))
}

/// Mints by options, which may name another tenant, lifetime or time.
fn mint(gate: &Gate, args: &[&str]) -> String {
    let mut all = [&["mint", "--force"], args].concat();
    for (option, default) in [
        ("--ring", "main"),
        ("--aud", "gate"),
        ("--tenant", "acme"),
        ("--lifetime", "1h"),
        ("--now", NOW),
    ] {
        if !args.contains(&option) {
            all.extend([option, default]);
        }
    }
    one_line(&gate.vkey(&all).ok())
}

/// What happens to a server that is to be started with a key: it has read nothing, one line says why, and the request
/// that was judged has its audit line.
#[track_caller]
fn refuses(gate: &Gate, key: &str, options: &[&str], says: &[&str]) {
    let (marker, audit) = (text(gate.dir.file("started")), text(gate.dir.file("audit")));
    _ = fs::remove_file(&audit);
    let server = ["sh", "-c", "echo > \"$0\"; cat", &marker];
    let options = [&["--audit", &audit], options].concat();
    let done = command_for(gate, key, &options, &server).refused(1, "vkey: the key is refused: ");
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    for part in says {
        assert!(done.err.contains(part), "{} lacks {part}", done.err);
    }
    assert!(fs::metadata(&marker).is_err(), "the server was started: {}", done.err);
    let lines = audit_lines(&fs::read_to_string(&audit).expect("an audit file"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    let reason = done.err.split(": ").nth(2).expect("a reason");
    assert_eq!((&lines[0]["decision"], &lines[0]["reason"]), (&json!("deny"), &json!(reason)));
    // Of a request whose key or path is refused, the body is not read.
    assert!(lines[0]["mcp"].is_null() || lines[0]["mcp"] == "ping - stdio -", "{lines:?}");
    assert_eq!(lines[0]["method"], "POST");
}

#[test]
fn a_key_that_would_be_refused_starts_no_server() {
    let gate = strict();
    let good = mint(&gate, &[]);
    let of_other_secret = {
        let other = strict();
        mint(&other, &[])
    };
    let narrowed = |caveat: &str| attenuate(&good, caveat);
    let cases: [(String, &[&str], &[&str]); 14] = [
        ("no key at all".to_owned(), &[], &["key_malformed: ", "--key-file"]),
        (mint(&gate, &["--now", "1789990000"]), &[], &["key_expired: ", "mint another one"]),
        (mint(&gate, &["--now", "1790009999"]), &[], &["key_not_yet_valid: ", "clock"]),
        (good.replace("vk1.main-", "vk1.none-"), &[], &["key_unknown: ", "ring"]),
        (of_other_secret, &[], &["key_signature: ", "--secret-file"]),
        (mint(&gate, &["--aud", "another"]), &[], &["key_audience: ", "--aud"]),
        (mint(&gate, &["--jti", "k_leaked"]), &[], &["key_revoked: ", "`revoked`"]),
        (mint(&gate, &["--tier", "absent"]), &[], &["tier_unknown: ", "tier"]),
        (
            good.clone(),
            &["--path", "/v1/messages"],
            &["path: ", "tier default does not allow the path of --path (/v1/messages)"],
        ),
        (
            good.clone(),
            &["--path", "/a%2fb"],
            &["path_ambiguous: ", "name another path than /a%2fb with --path"],
        ),
        (narrowed(r#"{"methods":["GET"]}"#), &[], &["method: ", "POST"]),
        (narrowed(r#"{"sources":["10.0.0.0/8"]}"#), &[], &["source: ", "--source"]),
        (narrowed(r#"{"hosts":["gate.example"]}"#), &[], &["host: ", "--authority"]),
        (
            narrowed(r#"{"quotas":[{"requests":0,"per":"day"}]}"#),
            &[],
            &["child_quota: ", "raise it"],
        ),
    ];
    for (key, options, says) in cases {
        refuses(&gate, &key, options, says);
    }
    // What the module sees is what the options say.
    let elsewhere = narrowed(r#"{"sources":["10.0.0.0/8"],"hosts":["gate.example"]}"#);
    command(&gate, &elsewhere, &["--source", "10.1.2.3", "--authority", "gate.example"]).ok();
}

#[test]
fn a_refused_path_is_named_with_the_rule_that_refuses_it() {
    let paths = |path: &str| json!({"only": {"paths": [path]}});
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {}, "narrow": paths("/narrow")},
        "tenants": {"acme": {}, "globex": paths("/globex")},
    }));
    let only = [r#"{"paths":["/own"]}"#, r#"{"methods":["POST"]}"#];
    let narrowed = attenuate(&attenuate(&mint(&gate, &[]), only[1]), only[0]);
    for (key, rule) in [
        (mint(&gate, &["--tier", "narrow"]), "tier narrow does not allow"),
        (mint(&gate, &["--tenant", "globex"]), "tenant globex does not allow"),
        (mint(&gate, &["--only", only[0]]), "only of its claims does not allow"),
        (narrowed, "caveat 2 does not allow"),
    ] {
        refuses(&gate, &key, &["--path", "/mcp/a"], &[rule, "the path of --path (/mcp/a): "]);
    }
}

#[test]
fn without_a_file_the_audit_line_of_a_refused_key_goes_to_standard_error() {
    let gate = strict();
    let done = command(&gate, "no key at all", &[]).run();
    assert!(done.code == 1 && done.err.contains("\nvkey: the key is refused: "), "{}", done.err);
    let lines = audit_lines(&done.err);
    assert_eq!((lines.len(), &lines[0]["reason"]), (1, &json!("key_malformed")), "{}", done.err);
}

/// The only request of its quota is left for the client.
#[test]
fn the_first_evaluation_counts_nothing() {
    let gate = strict();
    let key = attenuate(&mint(&gate, &[]), r#"{"quotas":[{"requests":1,"per":"total"}]}"#);
    let mut session = Session::start(&gate, &key, &[]);
    session.request(1, "echo", &json!({}));
    assert_eq!(session.answer()["result"], json!({}));
    session.request(2, "echo", &json!({}));
    session.refused(2, 429);
    assert_eq!(session.finish().ended(0).audit().len(), 2);
}

#[test]
fn a_key_that_nothing_forwards_is_allowed_in_shadow_mode() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {"only": {"paths": ["/mcp"]}}},
        "mode": "shadow",
    }));
    let mut session = Session::start(&gate, &mint(&gate, &[]), &["--path", "/other"]);
    session.request(1, "echo", &json!({}));
    assert_eq!(session.answer()["result"], json!({}));
    session.finish().ended(0);
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A session that starts with a key that expires in it.
fn start_with_mortal_key(gate: &Gate) -> (Session, String) {
    let config = text(gate.dir.file("config.json"));
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/mcp/server.py");
    let record = text(gate.dir.file("record"));
    let path = std::env::var_os("PATH").expect("a path").into_string().expect("text");
    // A machine that takes longer to start gets a longer lifetime.
    for lifetime in ["4s", "60s"] {
        let key = mint(gate, &["--now", &now_secs().to_string(), "--lifetime", lifetime]);
        let args =
            ["mcp", "--config", &config, "--key-env", "KEY", "--", "python3", server, &record];
        let vkey = Vkey::new(&args).env("MAIN", &gate.secret).env("KEY", &key).env("PATH", &path);
        let mut session = Session::spawn(gate, &vkey);
        session.pump();
        session.request(0, "echo", &json!({}));
        if let Some(answer) = session.answer_if_any()
            && answer["result"].is_object()
        {
            return (session, key);
        }
    }
    panic!("the session starts too slowly");
}

#[test]
fn the_operator_learns_once_why_a_key_is_refused() {
    let gate = strict();
    let (mut session, key) = start_with_mortal_key(&gate);
    let expires = wait_until_refused(&mut session);
    for id in expires + 1..expires + 4 {
        session.request(id, "tools/call", &json!({"name": "search"}));
        let refused = session.refused(id, 401);
        let said = refused.to_string();
        assert!(said.contains("invalid_token") && !said.contains("expired"), "{said}");
    }
    let left = session.finish();
    let notes = left.err.lines().filter(|line| line.starts_with("vkey: the key is refused: "));
    let notes = Vec::from_iter(notes);
    let expected = "vkey: the key is refused: key_expired: the key has expired; mint another one";
    assert_eq!(notes, [expected], "{}", left.err);
    assert!(!left.err.contains(&key), "{}", left.err);
    let audit = left.ended(0).audit();
    assert_eq!(audit.last().expect("a line")["mcp"], Value::Null, "the body is not read");
}

/// Sends requests until one is refused, and returns its id.
fn wait_until_refused(session: &mut Session) -> u64 {
    let session = std::cell::RefCell::new(session);
    let id = std::cell::Cell::new(0);
    wait_until("the key is refused", || {
        let mut session = session.borrow_mut();
        id.set(id.get() + 1);
        session.request(id.get(), "echo", &json!({}));
        let answer: Value = session.answer();
        answer["error"]["code"] == 401
    });
    id.get()
}

/// The module says why, and nothing else does.
#[test]
fn a_host_on_which_the_module_is_not_ready_starts_no_server() {
    let ring = json!([{"name": "main", "secret": "${MAIN}"}]);
    let (auto, bare) = (json!({"keyring": ring}), json!({"keyring": ring, "host": "bare"}));
    let gate = Gate::with(&auto);
    let key = gate.mint(&["--ring", "main"]);
    let audit = text(gate.dir.file("audit"));
    let options = ["--host", "bare", "--audit", &audit];
    command(&gate, &key, &options).refused(1, "\"host\": \"bare\"");
    let lines = audit_lines(&fs::read_to_string(&audit).expect("an audit file"));
    assert_eq!((lines.len(), &lines[0]["reason"]), (1, &json!("not_ready")));
    let gate = Gate::with(&bare);
    let key = gate.mint(&["--ring", "main"]);
    command(&gate, &key, &["--host", "bare"]).ok();
    let limited = attenuate(&key, r#"{"rate":{"requests":9,"per":"1s"}}"#);
    refuses(&gate, &limited, &["--host", "bare"], &["not_ready: ", "--host bare"]);
}
