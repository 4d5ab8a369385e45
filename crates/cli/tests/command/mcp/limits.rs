//! Limits of keys, and of time.
#![allow(clippy::disallowed_methods, reason = "a deadline on a real process needs a real clock")]

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::Gate;

use super::session::{DEADLINE, Session, await_gone};

#[test]
fn a_limit_holds_for_messages_and_says_when_to_come_back() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {"rate": {"requests": 2, "per": "1h"}}},
        "tenants": {"acme": {}},
    }));
    let mut session = Session::start(&gate, &gate.mint(&["--ring", "main"]), &[]);
    for id in 1..=2 {
        session.request(id, "echo", &json!({}));
        assert_eq!(session.answer()["id"], id);
    }
    session.request(3, "echo", &json!({}));
    let error = session.refused(3, 429)["error"].clone();
    assert_eq!(error["data"], json!({"reason": "rate"}));
    assert!(error["message"].as_str().is_some_and(|m| m.contains("free again in ")), "{error}");
    let left = session.finish();
    assert_eq!(left.ended(0).audit().len(), 3);
}

#[test]
fn a_request_that_the_server_leaves_in_silence_is_answered() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--timeout", "1s"]);
    session.await_server();
    session.request(1, "hold", &json!({"late": true}));
    session.refused(1, 504);
    // A late response is dropped, and the id is not free.
    session.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/release\"}\n");
    session.request(2, "echo", &json!({}));
    assert_eq!(session.answer()["id"], 2);
    let left = session.finish();
    let audit = left.ended(0).audit();
    assert_eq!(audit.iter().filter(|line| line["status"] == 504).count(), 1, "{audit:?}");
    let record = String::from_utf8(left.record).expect("text");
    let cancelled = record.lines().nth(2).expect("a third line");
    assert!(cancelled.contains("notifications/cancelled") && cancelled.contains("\"requestId\":1"));
    assert!(left.out.is_empty());
}

#[test]
fn a_server_that_reads_nothing_is_ended() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--timeout", "1s"]);
    session.await_server();
    session.request(1, "family", &json!({}));
    let pids = session.answer()["result"].clone();
    session.request(2, "deaf", &json!({}));
    session.request(3, "echo", &json!({"x": "x".repeat(1 << 20)}));
    let answers = [session.answer(), session.answer()];
    let mut ids = answers.map(|answer| {
        assert!(answer["error"].is_object(), "{answer}");
        answer["id"].as_u64().expect("a number")
    });
    ids.sort_unstable();
    assert_eq!(ids, [2, 3]);
    session.wait().ended(3).says("has read nothing for 1s");
    for pid in pids.as_array().expect("a list") {
        await_gone(pid.as_u64().expect("a number"));
    }
}

/// What the server reports about a request with that token, or of nothing.
pub(super) fn beat(session: &mut Session, token: Option<&str>) {
    let message = match token {
        Some(token) => json!({"jsonrpc": "2.0", "method": "notifications/progress",
                              "params": {"progressToken": token, "progress": 1}}),
        None => json!({"jsonrpc": "2.0", "method": "notifications/message",
                       "params": {"level": "info", "data": "x"}}),
    };
    let beat =
        json!({"jsonrpc": "2.0", "method": "notifications/beat", "params": {"message": message}});
    session.send(format!("{beat}\n"));
}

/// The next answer, after whatever the server says of its own accord.
pub(super) fn next_answer(session: &mut Session) -> Value {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let answer = session.answer();
        if answer.get("method").is_none() {
            return answer;
        }
    }
    panic!("no answer in time");
}

#[track_caller]
fn assert_timed_out(answer: &Value, id: u64, code: &str) {
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(504)), "{answer}");
    assert_eq!(answer["error"]["data"]["code"], code, "{answer}");
}

#[test]
fn progress_of_a_request_extends_that_request_alone() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--timeout", "2s"]);
    session.await_server();
    beat(&mut session, None);
    beat(&mut session, Some("mine"));
    session.request(1, "hold", &json!({"_meta": {"progressToken": "mine"}}));
    for id in 2..=3 {
        session.request(id, "hold", &json!({"_meta": {"progressToken": id}}));
        assert_timed_out(&next_answer(&mut session), id, "timeout");
    }
    // It is open for twice as long as the server may be silent.
    session.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/release\"}\n");
    let answer = next_answer(&mut session);
    assert!(answer["id"] == 1 && answer["result"].is_object(), "{answer}");
    session.finish().ended(0);
}

#[test]
fn nothing_extends_the_time_that_a_request_has_at_most() {
    let gate = Gate::new();
    let options = ["--timeout", "1h", "--max-time", "1s"];
    let mut session = Session::start(&gate, &gate.mint(&[]), &options);
    session.await_server();
    beat(&mut session, Some("mine"));
    session.request(1, "hold", &json!({"_meta": {"progressToken": "mine"}}));
    assert_timed_out(&next_answer(&mut session), 1, "max_time");
    let left = session.finish();
    assert_eq!(left.ended(0).audit().iter().filter(|line| line["status"] == 504).count(), 1);
    let record = String::from_utf8(left.record).expect("text");
    assert!(record.contains("notifications/cancelled"), "{record}");
}

/// A server that talks and reads nothing is ended too.
#[test]
fn a_server_that_only_talks_is_ended() {
    let gate = Gate::new();
    let options = ["--timeout", "1h", "--max-time", "1s"];
    let mut session = Session::start(&gate, &gate.mint(&[]), &options);
    session.await_server();
    beat(&mut session, None);
    session.request(1, "deaf", &json!({}));
    session.request(2, "echo", &json!({"x": "x".repeat(1 << 20)}));
    session.wait().ended(3).says("has read nothing for 1s");
}
