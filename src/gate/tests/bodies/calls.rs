//! What the host is asked for. A call that hands over bytes costs as much as the module's decision.

use super::worker::*;
use crate::exchange::Exchange;
use crate::host::Property;

/// A key may call one tool.
const CONFIG: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}],
    "mcp": {"routes": [{"path": "/mcp", "server": "main"}]},
    "tiers": {"default": {"only": {"mcp": {"tools": ["a"]}}}}}"#;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;

/// A request whose body has not come, of a worker whose host has shown a body before.
fn sent(worker: &Worker) -> Sent<'_> {
    let send = || {
        let host = worker.host(&[(":path", "/mcp")]);
        host.memory.show(Property::SourceAddress.path(), "192.0.2.7:4711");
        worker.send_to(host)
    };
    send().body(&[CALL]);
    send()
}

/// The calls since the last time that hand over bytes, without those about counts.
fn reads(sent: &Sent<'_>) -> Vec<&'static str> {
    let reads = ["request_headers", "property", "body", "response_header"];
    sent.host.take_calls().into_iter().filter(|call| reads.contains(call)).collect()
}

#[test]
fn the_headers_are_read_again_with_the_body_and_the_address_is_not() {
    let worker = Worker::new(CONFIG);
    let mut sent = sent(&worker);
    assert_eq!(reads(&sent), ["request_headers", "property"]);
    sent.body(&[CALL]);
    assert!(matches!(sent.exchange, Exchange::Forwarded(..)));
    assert_eq!(reads(&sent), ["body", "request_headers"]);
    assert_eq!(text(&sent.end(), "src"), "192.0.2.7");
}

/// A filter before the gate may change headers while the body comes.
#[test]
fn what_the_headers_say_when_the_body_has_come_is_recorded() {
    for authority in ["upstream.example", "other.example"] {
        let worker = Worker::new(CONFIG);
        let mut sent = sent(&worker);
        let headers = &sent.host.memory.headers;
        for (name, value) in headers.borrow_mut().iter_mut().flatten() {
            if name == b":authority" {
                *value = authority.into();
            }
        }
        sent.body(&[CALL]);
        let line = sent.end();
        assert_eq!(
            (text(&line, "authority"), text(&line, "mcp")),
            (authority, "tools/call a main -")
        );
    }
}

#[test]
fn of_the_head_of_a_response_no_more_is_read_than_decides() {
    for (content_type, count) in
        [("text/plain", 1), ("", 1), ("application/json", 2), ("text/event-stream", 2)]
    {
        let worker = Worker::new(CONFIG);
        let mut sent = sent(&worker);
        sent.body(&[CALL]);
        reads(&sent);
        sent.respond_headers(200, content_type);
        let reads = reads(&sent).into_iter().filter(|call| *call == "response_header");
        assert_eq!(reads.count(), count, "{content_type}");
    }
}
