//! Limits of keys, and of time.

use serde_json::json;

use crate::harness::Gate;

use super::session::Session;

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
    let data = session.refused(3, 429)["error"]["data"].clone();
    assert_eq!((&data["status"], &data["code"]), (&json!(429), &json!("rate")));
    assert!(data["retry_after"].as_u64().is_some_and(|secs| (1..=3600).contains(&secs)), "{data}");
    let left = session.finish();
    assert_eq!(left.ended(0).audit().len(), 3);
}

#[test]
fn a_request_that_the_server_leaves_in_silence_is_answered() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--timeout", "1s"]);
    session.await_server();
    session.request(1, "hold", &json!("late"));
    session.refused(1, 504);
    // A late answer is dropped, and the id is not free.
    session.send("{\"jsonrpc\":\"2.0\",\"method\":\"release\"}\n");
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
        super::session::await_gone(pid.as_u64().expect("a number"));
    }
}
