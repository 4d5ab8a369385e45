//! Bodies that cannot be read, where nothing that is enforced depends on them.

use crate::decision::{Decision, DenyReason};

use super::super::*;
use super::worker::*;

const AUDITED: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}],
    "body": {"max_bytes": 100000}, "llm": {"audit_tokens": true}}"#;

/// A header of a request, the parts of its body, and why that cannot be read.
type Case = ([(&'static str, &'static str); 1], Vec<String>, DenyReason);

fn cases() -> Vec<Case> {
    let unreadable = DenyReason::BodyUnreadable;
    let too_large = DenyReason::BodyTooLarge;
    let long = || "x".repeat(60_000);
    vec![
        ([("content-type", "multipart/form-data; boundary=b")], vec!["--b".into()], unreadable),
        ([("content-encoding", "zstd")], vec![GOOD.into(), GOOD.into()], unreadable),
        ([("content-length", "9000000")], vec![GOOD.into()], too_large),
        ([("a", "b")], vec![GOOD.replace("38", "-1")], unreadable),
        ([("a", "b")], vec!["{,".into(), "\"more\"".into(), "}".into()], unreadable),
        ([("a", "b")], vec![format!("{{\"a\": \"{}", long()), long(), "\"}".into()], too_large),
    ]
}

/// Passes a request of one of the cases as far as the upstream, and its response back.
fn passes(worker: &Worker, case: &Case, decision: Decision) {
    let (headers, parts, _) = case;
    let mut sent = worker.send(&[headers[0], ("accept-encoding", "gzip")]);
    for part in parts {
        sent.host.memory.request_body.push(part.as_bytes());
    }
    if sent.headers == Action::Continue {
        sent.host.memory.request_body.pass();
    }
    while sent.arrive(true).is_some() {}
    assert_eq!(sent.exchange.decided().unwrap().decision(), decision, "{case:?}");
    assert!(sent.exchange.is_forwarded() && sent.sent_body() == parts.concat(), "{case:?}");
    assert_eq!(sent.host.memory.replies.get(), 0);
    assert!(sent.host.memory.filter_state.borrow().contains_key("vkey.decision"));
    assert_eq!(sent.header("accept-encoding").as_deref(), Some("gzip"));
    assert_eq!(sent.respond(200, "application/json", &[USED_7]), USED_7);
    let line = sent.end();
    assert_eq!(tokens(&line), ("0".into(), "none".into()), "{case:?}");
    let bytes_in = line.get("bytes_in").unwrap().to_string();
    assert_eq!(bytes_in, parts.concat().len().to_string(), "{case:?}");
}

#[test]
fn a_body_that_only_the_audit_would_read_passes_uncounted() {
    let worker = Worker::new(AUDITED);
    for case in cases() {
        passes(&worker, &case, Decision::Allow);
    }
}

#[test]
fn a_path_that_only_the_audit_would_read_may_name_a_model_in_any_way() {
    let limited = CONFIG.replace(r#""only": {"models": ["small*"]}, "#, "");
    for (config, reason) in [(AUDITED, None), (&*limited, Some(DenyReason::PathAmbiguous))] {
        let worker = Worker::new(config);
        let sent = worker.send(&[(":path", "/v1/chat/completions?model=%zz")]);
        assert_eq!(sent.reason(), reason);
        assert_eq!(sent.exchange.is_forwarded(), reason.is_none());
    }
}

#[test]
fn in_shadow_mode_a_body_that_cannot_be_read_passes_uncounted_and_is_recorded() {
    let worker = Worker::new(&CONFIG.replacen('{', r#"{"mode": "shadow", "#, 1));
    for case in cases() {
        passes(&worker, &case, Decision::Shadow(case.2));
    }
    assert_eq!(worker.used(), 0);
}

/// Nothing is sent that the gate does not know whole.
#[test]
fn a_host_that_contradicts_itself_is_sent_nothing_in_any_mode() {
    for config in [AUDITED, &CONFIG.replacen('{', r#"{"mode": "shadow", "#, 1)] {
        let worker = Worker::new(config);
        let mut sent = worker.send(&[]);
        let gate = &worker.gate;
        let action = gate.on_request_body(&sent.host, &mut sent.exchange, 9, false);
        assert_eq!((action, sent.reason()), (Action::Pause, Some(DenyReason::NotReady)));
    }
}

/// What the second look finds holds: it is not only the body that may have changed.
#[test]
fn a_key_that_has_expired_meanwhile_is_refused_in_shadow_mode_too() {
    let worker = Worker::new(&CONFIG.replacen('{', r#"{"mode": "shadow", "#, 1));
    let mut sent = worker.send(&[]);
    sent.host.memory.now_ns.set(Some(1_900_000_000 * 1_000_000_000));
    sent.body(&["{,"]);
    assert_eq!((sent.reply().0, sent.sent_body()), (401, String::new()));
}

/// A host that does not show the body: the request goes on from the tick.
#[test]
fn a_body_that_the_host_keeps_back_is_let_go_on() {
    for (config, decision) in [
        (AUDITED.to_owned(), Decision::Allow),
        (
            CONFIG.replacen('{', r#"{"mode": "shadow", "#, 1),
            Decision::Shadow(DenyReason::BodyUnreadable),
        ),
    ] {
        for fails in [false, true] {
            let worker = Worker::new(&config);
            let mut host = worker.host(&[]);
            host.fails_to_resume = fails;
            host.memory.show(Property::RequestTotalSize.path(), 500_u64.to_le_bytes());
            let mut sent = worker.send_to(host);
            assert!(matches!(sent.exchange, Exchange::Held(_)));
            sent.host.memory.show(Property::RequestTotalSize.path(), 501_u64.to_le_bytes());
            while worker.gate.on_tick(&sent.host, &mut sent.exchange) == Action::Pause {}
            assert_eq!(sent.host.memory.resumed.get(), !fails);
            if fails {
                assert_eq!(sent.reply().0, 503);
            } else {
                assert_eq!(sent.exchange.decided().unwrap().decision(), decision);
                assert!(sent.exchange.is_forwarded());
            }
            // The next one is not held.
            let sent = worker.send(&[]);
            assert!(sent.exchange.is_forwarded() && sent.headers == Action::Continue);
        }
    }
}
