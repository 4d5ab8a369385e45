//! Standard error that nobody reads, or not at once.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::process::ChildStderr;

use serde_json::json;

use crate::harness::{Gate, text};

use super::limits::{beat, next_answer};
use super::session::{Session, audit_lines, command, make_pipe};

/// More than any pipe holds.
const MANY: u64 = 10_000;

/// A session whose standard error nobody reads yet.
fn unread(gate: &Gate, options: &[&str]) -> (Session, ChildStderr) {
    let mut session = Session::unread(gate, &command(gate, &gate.mint(&[]), options));
    session.pump();
    let stderr = session.child.stderr.take().expect("a pipe");
    (session, stderr)
}

fn read(mut stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    stderr.read_to_end(&mut bytes).expect("it can be read");
    String::from_utf8(bytes).expect("text")
}

#[test]
fn a_session_ends_when_nobody_reads_its_audit_lines() {
    let gate = Gate::new();
    let (mut session, stderr) = unread(&gate, &["--timeout", "3s"]);
    session.await_server();
    // The server reports progress as long as somebody reads.
    beat(&mut session, Some("mine"));
    session.request(0, "hold", &json!({"_meta": {"progressToken": "mine"}}));
    let mut answered = 0;
    let error = loop {
        answered += 1;
        assert!(answered < MANY, "nothing waits for whoever should read");
        session.request(answered, "echo", &json!({}));
        let answer = next_answer(&mut session);
        if answer.get("error").is_some() {
            break answer;
        }
        assert_eq!(answer["id"], answered);
    };
    // The one that has waited, and the one that the server still has.
    let other = next_answer(&mut session);
    let mut ids = [&error, &other].map(|answer| {
        assert_eq!(answer["error"]["code"], 503, "{answer}");
        assert_eq!(answer["error"]["data"]["code"], "gate_failed", "{answer}");
        answer["id"].as_u64().expect("a number")
    });
    ids.sort_unstable();
    assert_eq!(ids, [0, answered]);
    // Standard input is still open.
    session.wait().ended(3);
    // Every response has an audit line.
    assert!(audit_lines(&whole_lines(&read(stderr))).len() as u64 >= answered - 1);
}

/// What holds for standard error holds for a pipe that has a name.
#[test]
fn a_session_ends_when_nobody_reads_the_pipe_that_its_audit_lines_go_to() {
    let gate = Gate::new();
    let pipe = text(gate.dir.file("pipe"));
    make_pipe(&pipe);
    // For both ends, so that nobody waits for the other one.
    let end = OpenOptions::new().read(true).write(true).open(&pipe).expect("ours");
    let options = ["--audit", &pipe, "--timeout", "3s"];
    let mut session = Session::start(&gate, &gate.mint(&[]), &options);
    session.await_server();
    let error = (1..MANY).find_map(|id| {
        session.request(id, "echo", &json!({}));
        Some(session.answer()).filter(|answer| answer.get("error").is_some())
    });
    let error = error.expect("it waits for whoever should read");
    assert_eq!(error["error"]["data"]["code"], "gate_failed", "{error}");
    session.wait().ended(3).says("nobody has read the audit lines for 3s");
    drop(end);
}

/// The last line may be cut where the pipe was full.
fn whole_lines(text: &str) -> String {
    text.rsplit_once('\n').map_or_else(String::new, |(whole, _)| whole.to_owned())
}

#[test]
fn nothing_is_forwarded_after_standard_error_lost_its_reader() {
    let gate = Gate::new();
    let (mut session, stderr) = unread(&gate, &[]);
    drop(stderr);
    session.request(1, "echo", &json!({}));
    session.refused(1, 503);
    session.wait().ended(3);
}

#[test]
fn last_audit_lines_that_nobody_reads_are_missed() {
    let gate = Gate::new();
    let (mut session, stderr) = unread(&gate, &["--timeout", "1h", "--grace", "200ms"]);
    // Each has its line when the session ends.
    for id in 0..1000 {
        session.request(id, "hold", &json!({}));
    }
    session.request(1000, "echo", &json!({}));
    assert_eq!(session.answer()["id"], 1000);
    session.close();
    session.wait().ended(3);
    drop(stderr);
}

#[test]
fn the_servers_standard_error_blocks_nothing() {
    let gate = Gate::new();
    let audit = text(gate.dir.file("audit"));
    let (mut session, stderr) = unread(&gate, &["--audit", &audit, "--timeout", "60s"]);
    let line = "x".repeat(99);
    session.request(1, "shout", &json!({"text": line, "times": MANY}));
    assert_eq!(session.answer()["id"], 1, "the server waits for whoever should read");
    session.request(2, "shout", &json!({"text": "done", "times": 1}));
    assert_eq!(session.answer()["id"], 2);
    let reader = std::thread::spawn(move || read(stderr));
    session.finish().ended(0);
    let text = reader.join().expect("text");
    let (_, said) = text.split_once("vkey: nobody read standard error: ").expect(&text);
    let dropped: u64 = said.split(' ').next().expect("a word").parse().expect(said);
    let passed = text.lines().filter(|text| *text == line || *text == "done").count() as u64;
    assert!(dropped > 0, "{said}");
    assert_eq!(dropped + passed, MANY + 1);
}

#[test]
fn all_that_the_server_writes_there_is_passed_on_in_whole_lines() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--log-level", "error"]);
    for id in 1..=20 {
        session.request(id, "shout", &json!({"text": "y".repeat(500), "times": 3}));
        assert_eq!(session.answer()["id"], id);
    }
    let left = session.finish();
    assert_eq!(left.ended(0).audit().len(), 20);
    assert_eq!(left.err.lines().filter(|line| *line == "y".repeat(500)).count(), 60);
    assert_eq!(left.err.lines().count(), 80);
}
