//! `vkey mcp`, between a client and a scripted server.

mod calls;
mod ends;
mod key;
mod limits;
mod questions;
mod restricted;
mod rotation;
mod session;
mod setup;
mod standard_error;
mod unreadable;

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Gate, NOW, Vkey, attenuate, text};
use session::{Session, audit_lines, command, command_for};

const TEN_MB: usize = 10_000_000;
/// The module reads no longer message by default.
const EIGHT_MB: usize = 8_000_000;

fn statuses(audit: &[Value]) -> Vec<(String, u64)> {
    let of = |line: &Value| {
        let decision = line["decision"].as_str().expect("a word").to_owned();
        (decision, line["status"].as_u64().unwrap_or(0))
    };
    audit.iter().map(of).collect()
}

fn all(decision: &str, of: &[u64]) -> Vec<(String, u64)> {
    of.iter().map(|status| (decision.to_owned(), *status)).collect()
}

#[test]
fn messages_pass_byte_for_byte_both_ways() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    let mut sent = Vec::new();
    let first = "{ \"jsonrpc\":\"2.0\" ,\t\"id\":\"\\u0061\\/é\",\"method\":\"initialize\",\"params\":{} }\r\n";
    let big = format!(
        "{{\"method\":\"echo\",\"id\":2,\"jsonrpc\":\"2.0\",\"params\":{{\"x\":\"{}\"}}}}\n",
        "é".repeat(EIGHT_MB / 2)
    );
    for (line, id) in [(first, json!("a/é")), (&big, json!(2))] {
        session.send(line);
        sent.extend_from_slice(line.as_bytes());
        let answer = session.answer();
        assert!(answer["id"] == id && answer["result"].is_object());
    }
    let says = [
        " {\"id\" : 3.0,\"result\":{\"u\":\"\\u00e9\u{2028}é\",\"a\":1,\"a\":2},\"jsonrpc\":\"2.0\"}\r\n",
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{}}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"ping\"}\n",
    ];
    let line = json!({"jsonrpc": "2.0", "id": 3, "method": "say", "params": {"texts": says}});
    let line = format!("  {line}\n");
    session.send(&line);
    // But for what some servers take for the end of a line.
    sent.extend_from_slice(line.replace('\u{2028}', r"\u2028").as_bytes());
    for said in says {
        assert_eq!(String::from_utf8(session.line()).expect("text"), said);
    }
    // What the client answers goes to the server too, and so does a last line without its end.
    let last = r#"{"jsonrpc":"2.0","id":3,"result":{}}"#;
    session.send(last);
    sent.extend_from_slice(last.as_bytes());
    sent.push(b'\n');
    let left = session.finish();
    assert!(left.out.is_empty() && left.record == sent, "{}", left.err);
    let audit = left.ended(0).audit();
    assert_eq!(statuses(&audit), all("allow", &[200, 200, 200, 202]));
    for (member, value) in
        [("method", "POST"), ("path", "/mcp"), ("authority", "localhost"), ("src", "127.0.0.1")]
    {
        assert_eq!(audit[0][member], value);
    }
    assert!(audit[1]["bytes_in"].as_u64() > Some(8_000_000), "{}", audit[1]);
    assert!(audit[1]["bytes_out"].as_u64() > Some(8_000_000), "{}", audit[1]);
}

#[test]
fn a_large_answer_passes() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    session.request(1, "fill", &json!({"bytes": TEN_MB}));
    assert_eq!(session.answer()["result"].as_str().expect("text").len(), TEN_MB);
    session.finish().ended(0);
}

#[test]
fn a_refused_request_is_answered_with_its_id() {
    let gate = Gate::new();
    let spent = attenuate(&gate.mint(&[]), r#"{"quotas":[{"requests":1,"per":"total"}]}"#);
    let mut session = Session::start(&gate, &spent, &[]);
    session.request(0, "echo", &json!({}));
    session.answer();
    for id in ["7", "-1", "\"a\\\"b\\n\\u00e9\"", "18446744073709551615"] {
        session.send(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"echo\"}}\n"));
        let id: Value = serde_json::from_str(id).expect("JSON");
        let error = session.refused(id, 429)["error"].clone();
        let message = error["message"].as_str().expect("a text");
        assert!(message.starts_with("the narrowed key has no room"), "{message}");
        assert_eq!(error["data"]["reason"], "child_quota");
    }
    // Nobody waits for a response to these.
    session.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
    session.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n");
    let left = session.finish();
    assert!(left.out.is_empty(), "{}", left.err);
    assert_eq!(left.record.split(|byte| *byte == b'\n').count(), 2, "one line");
    assert_eq!(statuses(&left.ended(0).audit())[1..], all("deny", &[200, 200, 200, 200, 429, 429]));
}

#[test]
fn the_response_to_a_cancelled_request_is_dropped() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    session.request(1, "hold", &json!({"n": 1}));
    session.send(
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}\n",
    );
    session.request(1, "hold", &json!({"n": 2}));
    session.refused(1, -32600);
    session.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/release\"}\n");
    session.request(2, "echo", &json!({"n": 3}));
    assert_eq!(session.answer(), json!({"jsonrpc": "2.0", "id": 2, "result": {"n": 3}}));
    let statuses: Vec<Value> =
        session.finish().ended(0).audit().iter().map(|line| line["status"].clone()).collect();
    assert_eq!(json!(statuses), json!([202, null, 400, 202, 200]));
}

#[test]
fn answers_come_in_any_order_and_ids_are_used_once() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    session.request(1, "hold", &json!({"is": "one"}));
    session.request("1", "hold", &json!({"is": "text"}));
    session.request(1, "hold", &json!({"is": "again"}));
    session.refused(1, -32600);
    session.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/release\"}\n");
    for (id, result) in [(json!("1"), "text"), (json!(1), "one")] {
        let answer = session.answer();
        assert_eq!((&answer["id"], &answer["result"]), (&id, &json!({"is": result})));
    }
    session.request(1, "echo", &json!({"is": "anew"}));
    assert_eq!(session.answer()["result"]["is"], "anew");
    // Nobody waits for what was cancelled, and it counts as ended.
    session.request(2, "hold", &json!({}));
    let cancel =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    session.send(format!("{cancel}\n"));
    let left = session.finish();
    assert_eq!(left.ended(0).audit().len(), 7);
}

#[test]
fn standard_output_is_the_protocols_alone() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--max-bytes", "2000"]);
    let answer = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n";
    let texts = ["listening on \u{1b}[1mstdio\n", "\n", "[]\n", answer];
    session.request(1, "say", &json!({"texts": texts}));
    assert_eq!(session.line(), answer.as_bytes());
    session.request(2, "fill", &json!({"bytes": 3000}));
    session.refused(2, 502);
    let left = session.finish();
    assert!(left.out.is_empty());
    left.ended(0).says("listening on").says("longer than 2000 bytes");
    assert!(!left.err.contains('\u{1b}'));
}

/// A client that ignores case would take it for a response that the gate has not seen.
#[test]
fn an_ambiguous_answer_never_reaches_the_client() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    let answers = [
        "{\"jsonrpc\":\"2.0\",\"ID\":1,\"result\":\"a\"}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"a\",\"Result\":\"b\"}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":9,\"\\u0069d\":3,\"result\":\"a\"}\n",
        "{\"jsonrpc\":\"2.0\",\"Method\":\"ping\"}\n",
    ];
    for id in 1..=2 {
        session.request(id, "hold", &json!({}));
    }
    session.request(3, "say", &json!({"texts": answers}));
    for id in 1..=3 {
        let error = session.refused(id, 502);
        assert_eq!(error["error"]["data"]["code"], "answer_ambiguous", "{error}");
    }
    let left = session.finish();
    assert!(left.out.is_empty());
    left.ended(0).says("twice or in another case, or both a method and a result; dropped");
    assert_eq!(statuses(&left.audit()), all("allow", &[502; 3]));
}

#[test]
fn audit_lines_go_to_a_file() {
    let gate = Gate::new();
    let audit = gate.file("audit", "{\"vkey\":\"2\",\"decision\":\"older\"}\n");
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--audit", &audit]);
    session.request(1, "echo", &json!({}));
    session.answer();
    let left = session.finish();
    assert_eq!(left.ended(0).audit().len(), 0);
    let lines = audit_lines(&fs::read_to_string(&audit).expect("a file"));
    let expected = [all("older", &[0]), all("allow", &[200])].concat();
    assert_eq!(statuses(&lines), expected);
}

#[test]
fn audit_lines_are_not_written_through_a_link() {
    let gate = Gate::new();
    let key = gate.mint(&[]);
    let target = gate.file("target", "kept\n");
    let at = |name: &str| text(gate.dir.file(name));
    std::os::unix::fs::symlink(&target, at("link")).expect("a link");
    std::os::unix::fs::symlink(at("nothing"), at("dangling")).expect("a link");
    fs::hard_link(&target, at("hard")).expect("a link");
    for name in ["link", "dangling", "hard", "target"] {
        command(&gate, &key, &["--audit", &at(name)]).refused(3, "--audit is a link");
    }
    assert_eq!(fs::read_to_string(&target).expect("a file"), "kept\n");
    assert!(!gate.dir.file("nothing").exists());
    fs::remove_file(at("hard")).expect("ours");
    command(&gate, &key, &["--audit", &target]).ok();
}

#[test]
fn the_server_sees_no_secrets_of_the_gate() {
    let gate = Gate::new();
    let key = gate.mint(&[]);
    let mut session = Session::start(&gate, &key, &[]);
    session.request(1, "environment", &json!({}));
    let answer = session.answer();
    assert_eq!(answer["result"]["OWN"], "mine");
    let text = answer.to_string();
    assert!(!text.contains("MAIN") && !text.contains("KEY"), "{text}");
    assert!(!text.contains(&key) && !text.contains(&gate.secret));
    session.finish().ended(0);
}

#[test]
fn a_server_that_cannot_be_started_is_an_error() {
    let gate = Gate::new();
    let key = gate.mint(&[]);
    let missing = text(gate.dir.file("missing"));
    let config = text(gate.dir.file("config.json"));
    command_for(&gate, &key, &[], &[&missing]).refused(3, "cannot start the server's command");
    command_for(&gate, &key, &[], &[]).refused(2, "required");
    let dashes = "Write -- before the server's command";
    let options = ["mcp", "--config", &config, "--key-env", "KEY"];
    let bare = |words: &[&str]| Vkey::new(&[&options, words].concat()).run();
    for words in [&["npx", "-y", "server"][..], &["python3", "server.py"], &["./Server1"]] {
        let done = bare(words);
        assert!(done.code == 2 && done.err.contains(dashes), "{}", done.err);
    }
    assert!(!bare(&["--pth", "/mcp", "--", "cat"]).err.contains(dashes));
    let other = Vkey::new(&["inspect", "npx"]).refused(2, "unexpected argument");
    assert!(!other.err.contains(dashes));
    command(&gate, &key, &["--audit", "/"]).refused(3, "cannot write the file named by --audit");
    command(&gate, &key, &["--timeout", "0s"]).refused(2, "--timeout");
    command(&gate, &key, &["--path", "mcp"]).refused(2, "--path");
    let unset = ["mcp", "--config", &config, "--key-env", "UNSET", "--now", NOW, "--", "cat"];
    Vkey::new(&unset).env("MAIN", &gate.secret).refused(3, "--key-env is not set");
    let without = ["mcp", "--config", &config, "--", "cat"];
    Vkey::new(&without).refused(2, "standard input is where the messages come from");
    let stdin = ["mcp", "--config", "-", "--key-env", "KEY", "--", "cat"];
    Vkey::new(&stdin).refused(2, "standard input is where the messages come from");
    let stdin = ["mcp", "--config", &config, "--key-file", "-", "--", "cat"];
    Vkey::new(&stdin).refused(2, "standard input is where the messages come from");
}
