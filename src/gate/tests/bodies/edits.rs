//! What is changed about requests and responses.

use crate::json::Json;

use super::super::*;
use super::worker::*;

const INCLUDED: &str = "{\"stream_options\":{\"include_usage\":true},\"model\": \"small-1\", \
    \"max_tokens\": 38, \"stream\": true, \"messages\": []}";
const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\
    \"total_tokens\":7}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn a_stream_reports_its_usage_and_the_client_does_not_see_it() {
    for cut in 0..=USAGE.len() {
        let worker = Worker::new(CONFIG);
        let length = STREAM.len().to_string();
        let headers = [
            ("content-length", &*length),
            ("accept-encoding", "gzip"),
            ("te", "trailers"),
            ("range", "bytes=9-"),
            ("x-goog-fieldmask", "choices"),
        ];
        let mut sent = worker.send(&headers);
        sent.body(&[STREAM]);
        assert_eq!(sent.sent_body(), INCLUDED);
        let expected = Some(INCLUDED.len().to_string());
        assert_eq!(sent.header("content-length"), expected);
        assert_eq!(sent.header("accept-encoding").as_deref(), Some("identity"));
        for name in ["te", "range", "x-goog-fieldmask"] {
            assert_eq!(sent.header(name), None, "{name}");
        }
        let (first, rest) = USAGE.split_at(cut);
        let shown = sent.respond(200, "text/event-stream", &[EVENT, first, rest, DONE]);
        assert_eq!(shown, [EVENT, DONE].concat(), "{cut}");
        assert!(!sent.host.memory.response_headers.borrow().contains_key("content-length"));
        assert_eq!(tokens(&sent.end()), ("7".into(), "usage".into()));
    }
}

const DIGESTS: [(&str, &str); 4] = [
    ("content-digest", "sha-256=:AAAA:"),
    ("repr-digest", "sha-256=:AAAA:"),
    ("digest", "SHA-256=AAAA"),
    ("content-md5", "AAAA"),
];

/// A digest of what was changed is wrong; one of what was not stays.
#[test]
fn digests_of_bodies_that_change_are_removed() {
    let included = INCLUDED.replace("max_tokens\": 38", "max_tokens\": 39");
    for (body, changes) in [(STREAM, true), (&*included, false)] {
        let worker = Worker::new(CONFIG);
        let mut sent = worker.send(&DIGESTS);
        sent.body(&[body]);
        assert_eq!(sent.sent_body() != body, changes);
        for (name, _) in DIGESTS {
            assert_eq!(sent.header(name).is_none(), changes, "{name}");
        }
        let tagged = [DIGESTS.as_slice(), &[("etag", "\"1\"")]].concat();
        for (name, value) in &tagged {
            let mut headers = sent.host.memory.response_headers.borrow_mut();
            headers.insert((*name).into(), (*value).into());
        }
        sent.respond(200, "text/event-stream", &[EVENT, USAGE, DONE]);
        for (name, _) in tagged {
            let stays = sent.host.memory.response_headers.borrow().contains_key(name);
            assert_eq!(stays, !changes, "{name}");
        }
    }
}

#[test]
fn a_part_of_a_stream_is_written_only_if_it_changes() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.ask(STREAM);
    sent.host.take_calls();
    sent.respond(200, "text/event-stream", &[EVENT, EVENT, USAGE, DONE]);
    let writes = sent.host.take_calls().into_iter().filter(|call| *call == "set_body");
    assert_eq!(writes.count(), 1);
}

#[test]
fn a_client_that_asks_for_usage_gets_it() {
    let worker = Worker::new(CONFIG);
    let body = INCLUDED.replace("max_tokens\": 38", "max_tokens\": 39");
    let mut sent = worker.ask(&body);
    assert_eq!(sent.sent_body(), body);
    let shown = sent.respond(200, "text/event-stream", &[EVENT, USAGE, DONE]);
    assert_eq!(shown, [EVENT, USAGE, DONE].concat());
    assert!(sent.host.memory.response_headers.borrow().contains_key("content-length"));
    assert_eq!(worker.used(), 7);
    // In OpenRouter's way.
    let mut sent = worker.ask(&STREAM.replace('{', r#"{"usage": {"include": true}, "#));
    assert!(sent.sent_body().contains("include_usage"));
    let shown = sent.respond(200, "text/event-stream", &[EVENT, USAGE, DONE]);
    assert_eq!((shown, worker.used()), ([EVENT, USAGE, DONE].concat(), 14));
}

#[test]
fn a_route_may_forbid_the_injection() {
    let routes = r#""llm": {"routes": [{"paths": ["/v1/**"], "inject_usage": false}], "#;
    let forbidden = Worker::new(&CONFIG.replace(r#""llm": {"#, routes));
    assert_eq!(forbidden.ask(STREAM).sent_body(), STREAM);
    let worker = Worker::new(CONFIG);
    let mut mistral = worker.send(&[(":authority", "api.mistral.ai")]);
    mistral.body(&[STREAM]);
    assert_eq!(mistral.sent_body(), STREAM);
}

/// Models alone do not need the response.
#[test]
fn a_request_whose_tokens_nobody_counts_is_not_edited() {
    let worker = Worker::new(MODELS);
    let mut sent = worker.send(&[("accept-encoding", "gzip"), ("content-length", "70")]);
    sent.body(&[STREAM]);
    assert_eq!((sent.sent_body(), sent.headers), (STREAM.to_owned(), Action::Pause));
    assert_eq!(sent.header("accept-encoding").as_deref(), Some("gzip"));
    let shown = sent.respond(200, "text/event-stream", &[EVENT, USAGE]);
    assert_eq!(shown, [EVENT, USAGE].concat());
    let line = sent.end();
    assert_eq!((text(&line, "model"), line.get("tokens")), ("small-1", Some(&Json::Null)));
}

#[test]
fn refusals_are_in_the_dialect_of_the_request() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send(&[(":path", "/v1/messages")]);
    sent.body(&[r#"{"model": "large", "max_tokens": 1}"#]);
    let (status, body) = sent.reply();
    assert!(status == 403 && body.starts_with(r#"{"type":"error""#), "{body}");
    let unknown = worker.send(&[(":path", "/v1/messages"), ("x-api-key", "")]);
    assert!(unknown.reply().1.starts_with(r#"{"type":"error""#));
    let unreadable = worker.send(&[(":path", "/v1/messages"), ("content-type", "")]);
    assert!(unreadable.reply().1.starts_with(r#"{"type":"error""#));
}
