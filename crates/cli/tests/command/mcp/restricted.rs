//! Keys with an `mcp` restriction: their calls are judged, and lists show only what they may use.

use serde_json::{Value, json};

use crate::harness::Gate;

use super::session::{Left, Session};

/// A restriction that every method of a tool named `a_…` meets, and calls of `read` of one path.
const ONLY: &str = r#"{"mcp": {"tools": ["a_*", {"name": "read", "args": [{"at": "/path", "equals": "/ok"}]}],
    "resources": ["db://open/*"], "prompts": []}}"#;

fn start(gate: &Gate, options: &[&str]) -> Session {
    Session::start(gate, &gate.mint(&["--only", ONLY]), options)
}

fn call(name: &str, arguments: &Value) -> Value {
    json!({"name": name, "arguments": arguments})
}

fn lines_at_server(left: &Left) -> usize {
    left.record.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn a_call_that_the_key_may_not_make_never_reaches_the_server() {
    let gate = Gate::new();
    let mut session = start(&gate, &[]);
    for (id, name, arguments, is_allowed) in [
        (1, "a_tool", json!({}), true),
        (2, "b_tool", json!({}), false),
        (3, "read", json!({"path": "/ok"}), true),
        (4, "read", json!({"path": "/etc/passwd"}), false),
        (5, "a_tool", json!({"x": 1}), true),
    ] {
        session.request(id, "tools/call", &call(name, &arguments));
        if is_allowed {
            assert_eq!(session.answer()["result"]["name"], name);
        } else {
            assert_eq!(session.refused(id, 403)["error"]["data"], json!({"reason": "mcp_call"}));
        }
    }
    session.request(6, "resources/read", &json!({"uri": "db://closed/x"}));
    session.refused(6, 403);
    session.request(7, "prompts/get", &json!({"name": "p"}));
    session.refused(7, 403);
    let left = session.finish();
    assert_eq!(lines_at_server(&left), 3);
    let audit = left.ended(0).audit();
    let mcp = audit.iter().map(|line| [&line["decision"], &line["reason"], &line["mcp"]]);
    let denied = ["deny", "mcp_call"];
    let expected = [
        ["allow", "", "tools/call a_tool stdio -"],
        [denied[0], denied[1], "tools/call b_tool stdio -"],
        ["allow", "", "tools/call read stdio -"],
        [denied[0], denied[1], "tools/call read stdio -"],
        ["allow", "", "tools/call a_tool stdio -"],
        [denied[0], denied[1], "resources/read db://closed/x stdio -"],
        [denied[0], denied[1], "prompts/get p stdio -"],
    ];
    let shown = mcp.map(|line| line.map(|value| value.as_str().unwrap_or_default().to_owned()));
    assert_eq!(shown.collect::<Vec<_>>(), expected.map(|line| line.map(str::to_owned)));
}

/// The error has the bytes of the id.
#[test]
fn a_refusal_has_the_id_as_it_was_sent() {
    let gate = Gate::new();
    let mut session = start(&gate, &[]);
    for id in ["\"\\u0061\\/b\"", "-0", "18446744073709551615", "\"7\""] {
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"b"}}}}"#
        );
        session.send(format!("{line}\n"));
        let answer = String::from_utf8(session.line()).expect("text");
        assert!(
            answer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"#)),
            "{answer}"
        );
    }
    session.finish().ended(0);
}

/// What a server answers to a request for a list of tools.
fn said(id: &str, tools: &[&str], more: &str) -> String {
    let tools = tools.iter().map(|name| format!(r#"{{"name":"{name}"}}"#)).collect::<Vec<_>>();
    let tools = tools.join(",");
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"tools\":[{tools}]{more}}}}}\n")
}

#[test]
fn a_list_shows_what_the_key_may_call() {
    let gate = Gate::new();
    let mut session = start(&gate, &[]);
    let ask = |session: &mut Session, id: u64, texts: &[String]| {
        session.request(id, "tools/list", &json!({"texts": texts}));
        String::from_utf8(session.line()).expect("text")
    };
    let more = r#","nextCursor":"c""#;
    let all = said("1", &["a_one", "b_one", "read", "a_two"], more);
    assert_eq!(ask(&mut session, 1, &[all]), said("1", &["a_one", "read", "a_two"], more));
    // One with nothing to hide passes byte for byte.
    let all = said(" 2 ", &["a_one", "read"], "");
    assert_eq!(ask(&mut session, 2, std::slice::from_ref(&all)), all);
    // Their readers take the id for that of the request.
    let all = said("\"3\"", &["b_one"], "");
    assert_eq!(ask(&mut session, 3, &[all]), said("\"3\"", &[], ""));
    // An answer of nobody's request is judged by nothing.
    let stray = said("\"04\"", &["b_one"], "");
    assert_eq!(ask(&mut session, 4, &[stray, said("4", &["b_one"], "")]), said("4", &[], ""));
    let left = session.finish();
    assert!(left.out.is_empty());
    let audit = left.ended(0).audit();
    assert_eq!(audit[0]["bytes_out"], said("1", &["a_one", "read", "a_two"], more).len() - 1);
}

#[test]
fn a_list_that_cannot_be_judged_is_withheld_and_the_session_lives_on() {
    let gate = Gate::new();
    let mut session = start(&gate, &[]);
    let twice = r#","tools":[]"#;
    for (id, text) in [
        (1, said("1", &["b_one"], twice)),
        (2, "{\"result\":{\"tools\":[{\"name\":\"b\",\"name\":\"a_\"}]},\"jsonrpc\":\"2.0\",\"id\":2}\n".to_owned()),
        (3, said("3", &[&"x".repeat(1_100_000)], "")),
    ] {
        session.request(id, "tools/list", &json!({"texts": [text]}));
        let error = session.refused(id, 502);
        assert_eq!(error["error"]["data"]["reason"], "body_unreadable", "{error}");
    }
    session.request(4, "tools/call", &call("a_tool", &json!({})));
    assert_eq!(session.answer()["result"]["name"], "a_tool");
    session.finish().ended(0).says("a list is withheld");
}

/// A server may mix up ids, or know a list by another method.
#[test]
fn a_list_that_was_not_asked_for_is_withheld() {
    let gate = Gate::new();
    let mut session = start(&gate, &[]);
    for (id, method) in [(1, "tools/call"), (2, "tools/search")] {
        let list = said(&id.to_string(), &["a_one", "b_one"], "");
        session.request(id, method, &json!({"name": "a_tool", "texts": [list]}));
        let error = session.refused(id, 502);
        assert_eq!(error["error"]["data"]["reason"], "body_unreadable", "{error}");
    }
    // In another spelling of the method there is nothing to judge.
    for (id, method) in [(3, "tools/list "), (4, "tool\u{17f}/call")] {
        session.request(id, method, &json!({"name": "b_tool"}));
        session.refused(id, 403);
    }
    let left = session.finish();
    left.ended(0).says("a list is withheld: the request does not ask for one");
    assert_eq!(lines_at_server(&left), 2);
}

/// The policy of upstream TLS is about connections, and there is none.
#[test]
fn a_response_has_no_connection_to_be_judged_by() {
    let gate = Gate::new();
    let mut session = start(&gate, &["--authority", "api.openai.com"]);
    session.request(1, "tools/list", &json!({"texts": [said("1", &["a_one", "b_one"], "")]}));
    assert_eq!(session.answer()["result"]["tools"], json!([{"name": "a_one"}]));
    session.finish().ended(0);
}

/// A key without such a restriction sees what the server says, even what no list is.
#[test]
fn lists_pass_unread_for_a_key_without_restrictions() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    let text = said("1", &["b_one"], r#","tools":[]"#);
    session.request(1, "tools/list", &json!({"texts": [text]}));
    assert_eq!(String::from_utf8(session.line()).expect("text"), text);
    session.finish().ended(0);
}

fn modern(id: u64, method: &str, mut params: Value, revision: &str) -> String {
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": revision});
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string() + "\n"
}

/// Over HTTP, headers repeat what such a message says.
#[test]
fn messages_of_the_revision_without_sessions_are_judged_too() {
    let gate = Gate::new();
    let mut session = start(&gate, &[]);
    let revision = "2026-07-28";
    for (id, name, is_allowed) in [(1, "a_é \n", true), (2, "b_tool", false), (3, " a_", false)] {
        session.send(modern(id, "tools/call", call(name, &json!({})), revision));
        if is_allowed {
            assert_eq!(session.answer()["result"]["name"], name);
        } else {
            session.refused(id, 403);
        }
    }
    session.send(modern(4, "resources/read", json!({"uri": "db://open/x"}), revision));
    assert_eq!(session.answer()["id"], 4);
    session.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{}}\n");
    // A client that the server does not understand begins a session in the way of old.
    session.request(5, "initialize", &json!({"protocolVersion": "2025-06-18"}));
    assert_eq!(session.answer()["id"], 5);
    session.request(6, "tools/call", &call("a_tool", &json!({})));
    assert_eq!(session.answer()["id"], 6);
    let left = session.finish();
    let mcp: Vec<Value> = left.ended(0).audit().iter().map(|line| line["mcp"].clone()).collect();
    let expected = json!([
        "tools/call a_é%20%0A stdio 2026-07-28",
        "tools/call b_tool stdio 2026-07-28",
        "tools/call %20a_ stdio 2026-07-28",
        "resources/read db://open/x stdio 2026-07-28",
        "notifications/cancelled - stdio 2026-07-28",
        "initialize - stdio 2025-06-18",
        "tools/call a_tool stdio 2025-06-18",
    ]);
    assert_eq!(json!(mcp), expected);
}

#[test]
fn the_name_of_a_server_is_that_of_the_route() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "mcp": {"routes": [{"path": "/mcp/{server}"}]},
    }));
    let key = gate.mint(&["--ring", "main", "--only", r#"{"mcp": {"servers": ["notes"]}}"#]);
    let mut session = Session::start(&gate, &key, &["--path", "/mcp/notes"]);
    session.request(1, "tools/call", &call("search", &json!({})));
    assert_eq!(session.answer()["result"]["name"], "search");
    let left = session.finish();
    assert_eq!(left.ended(0).audit()[0]["mcp"], "tools/call search notes -");
    for (path, says) in [
        ("/mcp/other", "the key is refused: mcp_call: "),
        ("/mcp", "its restrictions do not allow this server"),
        ("/a*", "cannot be that of an MCP server"),
    ] {
        let key = if path == "/a*" { gate.mint(&["--ring", "main"]) } else { key.clone() };
        let done = super::command(&gate, &key, &["--path", path]).run();
        assert!(done.code != 0 && done.err.contains(says), "{path}: {}", done.err);
    }
}
