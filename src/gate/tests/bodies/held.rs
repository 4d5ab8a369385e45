//! What is held, and what is decided by it.

use crate::decision::{Decision, DenyReason};

use super::super::*;
use super::worker::*;

#[test]
fn a_body_decides_wherever_it_is_cut() {
    let worker = Worker::new(CONFIG);
    for (body, reason) in [(GOOD, None), (OTHER, Some(DenyReason::Model))] {
        for cut in 0..=body.len() {
            let mut sent = worker.send(&[]);
            let (first, rest) = body.split_at(cut);
            let action = sent.body(&[first, rest]);
            assert_eq!(action == Action::Continue, reason.is_none(), "{body} {cut}");
            assert_eq!(sent.reason(), reason);
            assert_eq!(sent.sent_body(), if reason.is_none() { body } else { "" });
            let seal = sent.host.memory.filter_state.borrow().contains_key("vkey.decision");
            assert_eq!(seal, reason.is_none());
            sent.respond(500, "application/json", &["{}"]);
            let line = sent.end();
            assert_eq!(text(&line, "model"), if reason.is_none() { "small-1" } else { "large-1" });
        }
        let mut sent = worker.send(&[]);
        let bytes: Vec<&str> = body.split("").filter(|part| !part.is_empty()).collect();
        assert_eq!(sent.body(&bytes) == Action::Continue, reason.is_none(), "{body}");
        assert_eq!(sent.end().get("bytes_in").unwrap().to_string(), body.len().to_string());
    }
}

/// An unknown key, one that has expired or may not use the path, must not make a proxy hold a body.
#[test]
fn what_the_headers_refuse_is_not_held() {
    let limited = CONFIG.replace(r#""only": {"#, r#""only": {"paths": ["/v1/chat/**"], "#);
    let worker = Worker::new(&limited);
    for (headers, reason) in [
        ([("x-api-key", ""), ("a", "b")], DenyReason::KeyMissing),
        ([("x-api-key", "vk1.x"), ("a", "b")], DenyReason::KeyMalformed),
        ([(":path", "/v1/completions"), ("a", "b")], DenyReason::Path),
        ([(":path", "/v1/../chat/completions"), ("a", "b")], DenyReason::PathAmbiguous),
        ([("x-vkey-key", "root"), ("a", "b")], DenyReason::HeaderMismatch),
    ] {
        let sent = worker.send(&headers);
        assert_eq!((sent.headers, sent.reason()), (Action::Pause, Some(reason)), "{headers:?}");
    }
    assert_eq!(worker.send(&[]).reason(), None);
}

#[test]
fn a_body_that_cannot_be_read_is_refused_as_soon_as_that_is_known() {
    let worker = Worker::new(CONFIG);
    for (headers, says) in [
        (("content-type", "text/plain"), "application/json"),
        (("content-type", ""), "application/json"),
        (("content-encoding", "gzip"), "content-encoding"),
    ] {
        let sent = worker.send(&[headers]);
        assert_eq!(sent.reason(), Some(DenyReason::BodyUnreadable), "{headers:?}");
        let (status, body) = sent.reply();
        assert!(status == 400 && body.contains(says), "{headers:?}: {body}");
    }
    for (parts, says) in [
        (["{\"model\": \"small-1\",}", "\"never read\""], "RFC 8259"),
        (["\u{feff}{}", ""], "UTF-8"),
        (["{\"model\": \"small-1\", \"model\"", ": \"large-1\"}"], "twice"),
        (["{\"Model\": \"large-1\"", "}"], "case only"),
        (["{\"model\": \"small-1\"} ", "{}"], "goes on"),
        (["{\"model\": \"small-1\"", ""], "too early"),
        (["", ""], "empty"),
    ] {
        let mut sent = worker.send(&[]);
        sent.body(&parts);
        assert_eq!(sent.reason(), Some(DenyReason::BodyUnreadable), "{parts:?}");
        let (status, body) = sent.reply();
        assert!(status == 400 && body.contains(says), "{parts:?}: {body}");
        assert_eq!((sent.sent_body(), sent.host.memory.replies.get()), (String::new(), 1));
        assert_eq!(text(&sent.end(), "reason"), "body_unreadable");
    }
    // The first of these bodies was refused before its second part came.
    let mut sent = worker.send(&[]);
    sent.host.memory.request_body.push("{,");
    sent.host.memory.request_body.push("\"more\"");
    assert_eq!(sent.arrive(true), Some(Action::Pause));
    assert_eq!(sent.reason(), Some(DenyReason::BodyUnreadable));
    // What comes of a refused body is held.
    assert_eq!(sent.arrive(true), Some(Action::Pause));
    assert_eq!((worker.used(), sent.host.memory.replies.get()), (0, 1));
}

#[test]
fn a_body_that_is_too_large_is_refused_at_once() {
    let worker = Worker::new(CONFIG);
    let announced = worker.send(&[("content-length", "100001")]);
    assert_eq!(announced.reply().0, 413);
    let mut sent = worker.send(&[("content-length", "100000")]);
    let long = format!("{{\"model\": \"small-1\", \"user\": \"{}", "x".repeat(99_000));
    sent.host.memory.request_body.push(long);
    sent.host.memory.request_body.push("x".repeat(1000));
    sent.host.memory.request_body.push("\"}");
    assert_eq!((sent.arrive(true), sent.reason()), (Some(Action::Pause), None));
    assert_eq!(sent.arrive(true), Some(Action::Pause));
    assert_eq!(sent.reason(), Some(DenyReason::BodyTooLarge));
    assert_eq!((sent.reply().0, text(&sent.end(), "reason")), (413, "body_too_large"));
}

/// Only the bytes that are new are read, in parts.
#[test]
fn every_byte_is_read_once() {
    let worker = Worker::new(MODELS);
    let mut sent = worker.send(&[]);
    sent.host.take_calls();
    let start = "{\"model\": \"small-1\", \"max_tokens\": 1, \"user\": \"";
    let long = "x".repeat(90_000 - start.len());
    for part in [start, &long, "\"}"] {
        sent.host.memory.request_body.push(part);
    }
    while sent.arrive(true).is_some() {}
    let calls = sent.host.take_calls();
    assert_eq!(calls.iter().filter(|call| **call == "body").count(), 4, "{calls:?}");
    assert!(matches!(sent.exchange, Exchange::Forwarded(..)));
}

#[test]
fn a_host_that_contradicts_itself_gets_nothing() {
    let worker = Worker::new(CONFIG);
    for announced in [[9, 8], [9, 99]] {
        let mut sent = worker.send(&[]);
        sent.host.memory.request_body.push(GOOD.split_at(9).0);
        sent.host.memory.request_body.arrive();
        for bytes in announced {
            let gate = &worker.gate;
            let action = gate.on_request_body(&sent.host, &mut sent.exchange, bytes, false);
            assert_eq!(action, Action::Pause);
        }
        assert_eq!(sent.reason(), Some(DenyReason::NotReady), "{announced:?}");
    }
}

#[test]
fn trailers_end_a_body_and_are_cleaned() {
    let worker = Worker::new(CONFIG);
    for (body, passes) in [(GOOD, true), (OTHER, false), ("{", false)] {
        let mut sent = worker.send(&[]);
        let trailers = vec![(b"x-vkey-sub".to_vec(), b"root".to_vec()), (b"a".into(), b"b".into())];
        sent.host.memory.trailers.replace(Some(trailers));
        sent.host.memory.request_body.push(body);
        assert_eq!(sent.arrive(false), Some(Action::Pause));
        let action = worker.gate.on_request_trailers(&sent.host, &mut sent.exchange);
        assert_eq!(action == Action::Continue, passes, "{body}");
        let trailers = sent.host.memory.trailers.borrow().clone().unwrap();
        assert!(!passes || trailers == [(b"a".to_vec(), b"b".to_vec())]);
    }
    let mut sent = worker.send(&[]);
    sent.host.memory.request_body.push(GOOD);
    sent.arrive(false);
    assert_eq!(worker.gate.on_request_trailers(&sent.host, &mut sent.exchange), Action::Pause);
    assert_eq!(sent.reason(), Some(DenyReason::NotReady), "trailers that are not shown");
}

#[test]
fn a_request_without_a_body_is_decided_at_once() {
    let worker = Worker::new(CONFIG);
    let host = worker.host(&[]);
    let mut exchange = Exchange::default();
    let opening = Opening { context: 7, is_whole: true };
    assert_eq!(worker.gate.on_request_headers(&host, &mut exchange, opening), Action::Pause);
    let decision = exchange.decided().unwrap().decision();
    assert_eq!(decision, Decision::Deny(DenyReason::BodyUnreadable));
}

/// The client left, or the proxy refused the body: there is one line, and one count.
#[test]
fn a_request_whose_body_never_ends_is_recorded() {
    for (status, reason) in
        [(None, "body_unreadable"), (Some(408), "body_unreadable"), (Some(413), "body_too_large")]
    {
        let worker = Worker::new(CONFIG);
        let mut sent = worker.send(&[]);
        sent.host.memory.request_body.push(GOOD.split_at(9).0);
        sent.arrive(false);
        if let Some(status) = status {
            sent.respond_headers(status, "text/plain");
            sent.respond_body(&["no"]);
        }
        assert!(!worker.cell());
        let line = sent.end();
        assert_eq!((text(&line, "reason"), text(&line, "jti")), (reason, "k"));
        assert!(worker.cell());
        assert_eq!(sent.host.memory.replies.get(), 0);
    }
}

#[test]
fn a_key_that_ends_while_its_body_comes_is_refused() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send(&[]);
    sent.host.memory.now_ns.set(Some(1_900_000_000 * 1_000_000_000));
    sent.body(&[GOOD]);
    assert_eq!(sent.reply().0, 401);
    assert_eq!(sent.sent_body(), "");
    let line = sent.end();
    assert!(text(&line, "ts").starts_with("1970-"), "the time when the request came: {line}");
}
