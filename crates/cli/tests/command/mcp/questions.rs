//! What the client answers when the server asks.

use serde_json::{Value, json};

use crate::harness::Gate;

use super::session::Session;
use super::statuses;

/// A gate that lets this many messages through.
fn with_requests(requests: u64) -> (Gate, String) {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {"rate": {"requests": requests, "per": "1h"}}},
        "tenants": {"acme": {}},
    }));
    let key = gate.mint(&["--ring", "main"]);
    (gate, key)
}

#[track_caller]
fn asked(session: &mut Session) -> Value {
    let question = session.answer();
    assert_eq!(question["method"], "roots/list", "{question}");
    question["id"].clone()
}

fn reply(session: &mut Session, id: &Value, result: &Value) {
    let line = json!({"jsonrpc": "2.0", "id": id, "result": result});
    session.send(format!("{line}\n"));
}

#[test]
fn an_answer_in_a_call_is_a_part_of_the_call() {
    let (gate, key) = with_requests(1);
    let mut session = Session::start(&gate, &key, &[]);
    session.request(1, "ask", &json!({"id": "q"}));
    let question = asked(&mut session);
    reply(&mut session, &question, &json!({"roots": []}));
    let answer = session.answer();
    let expected = json!({"jsonrpc": "2.0", "id": "q", "result": {"roots": []}});
    assert_eq!((&answer["id"], &answer["result"]), (&json!(1), &expected));
    let left = session.finish();
    let audit = left.ended(0).audit();
    assert_eq!(statuses(&audit), [("allow".to_owned(), 200)], "{audit:?}");
}

#[test]
fn a_question_is_answered_once_and_only_what_was_asked_is_free() {
    let (gate, key) = with_requests(2);
    let mut session = Session::start(&gate, &key, &[]);
    // Something is open all the time.
    session.request(0, "hold", &json!({}));
    session.request(1, "ask", &json!({"id": "q"}));
    let question = asked(&mut session);
    reply(&mut session, &json!("other"), &json!({}));
    reply(&mut session, &question, &json!({}));
    assert_eq!(session.answer()["id"], 1);
    reply(&mut session, &question, &json!({}));
    let left = session.finish();
    let record = String::from_utf8(left.record.clone()).expect("text");
    assert_eq!(record.lines().count(), 3, "{record}");
    // The first one is open at the end.
    let audit = left.ended(1).audit();
    let denied = audit.iter().filter(|line| line["decision"] == "deny" && line["reason"] == "rate");
    assert_eq!((audit.len(), denied.count()), (4, 2), "{audit:?}");
}

/// MCP's own libraries take the one for the other.
#[test]
fn an_answer_may_have_the_id_as_a_text_or_as_a_number() {
    let (gate, key) = with_requests(3);
    let mut session = Session::start(&gate, &key, &["--timeout", "1h"]);
    for (id, answered) in [(json!(1), "\"1\""), (json!("2"), "2")] {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{answered},\"result\":{{}}}}\n");
        session.request(id, "say", &json!({"texts": [line]}));
        assert_eq!(session.line(), line.as_bytes());
    }
    session.request(3, "ask", &json!({"id": 9}));
    assert_eq!(asked(&mut session), 9);
    reply(&mut session, &json!("9"), &json!({}));
    let audit = session.finish().ended(1).audit();
    // The server is one that takes no text for a number.
    let expected = [200, 200, 502].map(|status| ("allow".to_owned(), status));
    assert_eq!(statuses(&audit), expected, "{audit:?}");
}

#[test]
fn the_server_learns_of_a_refused_response() {
    let (gate, key) = with_requests(1);
    let mut session = Session::start(&gate, &key, &[]);
    session.request(1, "ask_later", &json!({"id": 7}));
    assert_eq!(session.answer()["id"], 1);
    let question = asked(&mut session);
    reply(&mut session, &question, &json!({"roots": []}));
    let left = session.finish();
    let record = String::from_utf8(left.record.clone()).expect("text");
    let told: Value = serde_json::from_str(record.lines().nth(1).expect("a line")).expect("JSON");
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!(7), &json!(429)), "{told}");
    assert_eq!(told["error"]["data"]["code"], "rate");
    assert!(left.out.is_empty(), "the client waits for nothing");
    let expected = [("allow".to_owned(), 200), ("deny".to_owned(), 429)];
    assert_eq!(statuses(&left.ended(0).audit()), expected);
}

/// The call would wait for its response until it times out.
#[test]
fn the_server_learns_of_an_unreadable_response() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--max-bytes", "1000"]);
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(1000));
    for (id, result) in [(1, "{\"x\":NaN}"), (2, long.as_str())] {
        session.request(id, "ask", &json!({"id": "q"}));
        let question = asked(&mut session);
        session.send(format!("{{\"jsonrpc\":\"2.0\",\"id\":{question},\"result\":{result}}}\n"));
        let answers = [session.answer(), session.answer()];
        let told = answers.iter().find(|answer| answer["id"] == id).expect("the call's");
        assert_eq!(told["result"]["error"]["code"], 400, "{told}");
        assert_eq!(told["result"]["error"]["data"]["code"], "answer_unreadable");
        // Its author is told too.
        assert!(answers.iter().any(|answer| answer["id"].is_null()), "{answers:?}");
    }
    session.finish().ended(0);
}
