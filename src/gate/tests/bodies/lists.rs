//! Lists of MCP servers whose responses end by trailers.

use super::worker::Worker;
use crate::host::Action;

/// A key may call one tool.
const CONFIG: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}],
    "mcp": {"routes": [{"path": "/mcp", "server": "main"}]},
    "tiers": {"default": {"only": {"mcp": {"tools": ["a"]}}}}}"#;

const ASKED: &str = r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}"#;

/// A key may use one server.
#[test]
fn a_list_is_judged_as_one_of_its_server() {
    let worker = Worker::new(&CONFIG.replace(r#""tools""#, r#""servers": ["main"], "tools""#));
    let mut sent = worker.send(&[(":path", "/mcp")]);
    sent.body(&[ASKED]);
    let passed = sent.respond(200, "application/json", &[&PARTS.concat()]);
    assert!(passed.contains(r#""tools":[{"name":"a"}]"#), "{passed}");
}

/// A response of two tools, in these parts, that trailers end: the actions, and what went on.
fn respond(content_type: &str, parts: &[&str], can_set_body: bool) -> (Vec<Action>, String) {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send(&[(":path", "/mcp")]);
    sent.body(&[ASKED]);
    sent.host.fails_to_set_body = !can_set_body;
    sent.respond_headers(200, content_type);
    let response = &sent.host.memory.response_body;
    parts.iter().for_each(|part| response.push(*part));
    let mut actions = Vec::new();
    while let Some(arrived) = response.arrive() {
        let bytes = u64::try_from(arrived.bytes).unwrap();
        let gate = &worker.gate;
        actions.push(gate.on_response_body(&sent.host, &mut sent.exchange, bytes, false));
        if actions.last() == Some(&Action::Continue) {
            response.pass();
        }
    }
    actions.push(worker.gate.on_response_trailers(&sent.host, &mut sent.exchange));
    // Envoy lets go on what it holds.
    if actions.last() == Some(&Action::Continue) {
        response.pass();
    }
    (actions, String::from_utf8(response.passed()).unwrap())
}

const PARTS: [&str; 3] =
    [" ", r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"},"#, r#"{"name":"b"}]}}"#];

/// Servers declare JSON as a stream, too.
#[test]
fn trailers_end_a_list_that_is_held() {
    for content_type in ["application/json", "text/event-stream"] {
        let (actions, passed) = respond(content_type, &PARTS, true);
        let expected = r#" {"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"}]}}"#;
        assert_eq!(passed, expected, "{content_type}");
        use Action::{Continue, Pause};
        assert_eq!(actions, [Pause, Pause, Pause, Continue], "{content_type}");
    }
}

/// A host that calls back from inside a host call finds the engine in use.
#[test]
fn nothing_passes_that_nobody_can_judge() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send(&[(":path", "/mcp")]);
    sent.body(&[ASKED]);
    let in_use = worker.gate.engine.as_ref().unwrap().borrow_mut();
    sent.respond_headers(200, "application/json");
    let response = &sent.host.memory.response_body;
    response.push(PARTS.concat());
    let bytes = u64::try_from(response.arrive().unwrap().bytes).unwrap();
    worker.gate.on_response_body(&sent.host, &mut sent.exchange, bytes, true);
    response.pass();
    let passed = String::from_utf8(response.passed()).unwrap();
    assert!(passed.contains(r#""code":502"#) && !passed.contains("tools"), "{passed}");
    drop(in_use);
}

/// What begins with white space may be a stream. It goes on as soon as it is known to be one.
#[test]
fn a_stream_that_begins_with_white_space_is_not_held() {
    let events = ["\n", "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n"];
    let (actions, passed) = respond("text/event-stream", &events, true);
    assert_eq!(passed, events.concat());
    assert_eq!(actions, [Action::Pause, Action::Continue, Action::Continue]);
}

#[test]
fn trailers_let_nothing_go_that_the_host_cannot_replace() {
    let twice = [PARTS[0], PARTS[1], r#"{"name":"b","name":"a"}]}}"#];
    for content_type in ["application/json", "text/event-stream"] {
        for parts in [PARTS, twice] {
            let (actions, passed) = respond(content_type, &parts, false);
            assert_eq!(passed, "", "{content_type} {parts:?}");
            assert_eq!(actions.last(), Some(&Action::Pause), "{content_type} {parts:?}");
        }
    }
}

/// The official server in TypeScript sends the response to the wrong one of two requests with one id.
#[test]
fn no_list_passes_in_the_response_to_a_call() {
    let worker = Worker::new(CONFIG);
    for parts in [&[PARTS.concat()][..], &PARTS.map(str::to_owned)] {
        let mut sent = worker.send(&[(":path", "/mcp")]);
        sent.body(&[r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#]);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let passed = sent.respond(200, "application/json", &parts);
        let is_torn = parts.len() > 1;
        assert_eq!(passed.contains(r#""id":1,"error":{"code":502"#), !is_torn, "{passed}");
        assert!(!passed.contains("tools") && (!is_torn || passed == " "), "{passed}");
        assert!(!sent.host.memory.response_headers.borrow().contains_key("content-length"));
    }
}
