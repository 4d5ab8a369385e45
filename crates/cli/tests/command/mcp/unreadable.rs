//! Lines that cannot be read, or only in part.

use serde_json::{Value, json};

use crate::harness::Gate;

use super::session::Session;
use super::{all, statuses};

#[test]
fn invalid_messages_never_reach_the_server() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--max-bytes", "1000"]);
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"echo"}"#;
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":{"a":[{"b":1,"\u0062":2}]}}"#;
    let smuggled =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":\r{request}\r}}");
    let long = format!("{request}{}", " ".repeat(1000));
    let lookalike = r#"{"jsonrpc":"2.0","id":1,"method":"echo","\u004dethod":"environment"}"#;
    let half = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\ud800"}}"#;
    let deep = format!(
        r#"{{"id":1,"jsonrpc":"2.0","method":"echo","params":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    // The id that a line certainly has is that of its error.
    let (none, one) = (Value::Null, json!(1));
    let lines: [(&[u8], &Value, i64, u64); 14] = [
        (b"hello", &none, -32700, 400),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1", &none, -32700, 400),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xc3\"}", &one, -32700, 400),
        (b"[]", &none, -32600, 400),
        (b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}]", &none, -32600, 400),
        (b"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"echo\"}", &none, -32600, 400),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":1,\"method\":\"echo\"}", &none, -32600, 400),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":1,\"result\":2}", &none, -32600, 400),
        (deep.as_bytes(), &one, -32600, 400),
        (half.as_bytes(), &one, -32600, 400),
        (twice.as_bytes(), &one, -32600, 400),
        (lookalike.as_bytes(), &one, -32600, 400),
        (smuggled.as_bytes(), &one, -32600, 400),
        (long.as_bytes(), &one, -32600, 413),
    ];
    for (line, id, code, _) in lines {
        session.send(b"\n \r\n");
        session.send(line);
        session.send(b"\n");
        let error = session.refused(id.clone(), code);
        let names_limit = error["error"]["message"].as_str().is_some_and(|m| m.contains("1000"));
        assert_eq!(names_limit, line == long.as_bytes(), "{error}");
    }
    session.request(1, "echo", &json!({}));
    assert_eq!(session.answer()["id"], 1);
    // The last line is cut in the middle of a character.
    session.send(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"\xe2\x82");
    session.close();
    session.refused(Value::Null, -32700);
    let left = session.wait();
    let mut expected = all("deny", &lines.map(|(_, _, _, status)| status));
    expected.extend([("allow".to_owned(), 200), ("deny".to_owned(), 400)]);
    let audit = left.ended(0).audit();
    assert_eq!(statuses(&audit), expected);
    for line in audit.iter().filter(|line| line["decision"] == "deny") {
        let is_long = line["status"] == 413;
        let reason = if is_long { "body_too_large" } else { "body_unreadable" };
        assert_eq!(line["reason"], reason, "{line}");
        // The key is still known.
        assert!(line["tenant"] == "acme" && line["jti"].is_string(), "{line}");
    }
    assert_eq!(left.record.iter().filter(|byte| **byte == b'\n').count(), 1);
}

#[test]
fn a_message_that_the_module_does_not_read_for_its_length_has_the_reason() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    session.request(1, "echo", &json!({"x": "x".repeat(9_000_000)}));
    let error = session.refused(1, 413);
    assert_eq!(error["error"]["data"], json!({"reason": "body_too_large"}), "{error}");
    let audit = session.finish().ended(0).audit();
    assert_eq!(audit[0]["reason"], "body_too_large");
}

/// An error with the id of an open request would be taken for its response.
#[test]
fn an_error_never_bears_the_id_of_an_open_request() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    session.request(1, "hold", &json!({"one": 1}));
    session.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"x\":NaN}}\n");
    session.refused(Value::Null, -32700);
    session.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/release\"}\n");
    assert_eq!(session.answer(), json!({"jsonrpc": "2.0", "id": 1, "result": {"one": 1}}));
    session.finish().ended(0);
}

#[test]
fn a_refusal_by_the_command_is_audited_as_a_denial() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    session.request(1, "hold", &json!({}));
    session.request(1, "hold", &json!({}));
    session.refused(1, -32600);
    for id in 2..=1024 {
        session.request(id, "hold", &json!({}));
    }
    session.request(1025, "hold", &json!({}));
    let error = session.refused(1025, 503);
    assert_eq!(error["error"]["data"]["code"], "too_many_requests");
    let audit = session.finish().ended(1).audit();
    let denied: Vec<_> = audit.iter().filter(|line| line["decision"] == "deny").collect();
    let reasons: Vec<_> = denied.iter().map(|line| (&line["status"], &line["reason"])).collect();
    let expected = [(json!(400), json!("body_unreadable")), (json!(503), json!("not_ready"))];
    assert_eq!(reasons, expected.each_ref().map(|(status, reason)| (status, reason)));
}

#[test]
fn half_a_surrogate_pair_passes_where_nothing_depends_on_it() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    let line = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\
                \"params\":{\"arguments\":{\"x\":\"\\ud800\",\"\\udfff\":1}}}\n";
    session.send(line);
    let answer = String::from_utf8_lossy(&session.line()).into_owned();
    assert!(answer.contains("\"id\": 1") && answer.contains("\\ud800"), "{answer}");
    let left = session.finish();
    assert!(left.record == line.as_bytes());
    assert_eq!(statuses(&left.ended(0).audit()), all("allow", &[200]));
}

/// Some servers end a line there, and would see a message within the message.
#[test]
fn line_ends_of_others_reach_the_server_as_escapes() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    let line = |end: [&str; 3]| {
        let [next, line, paragraph] = end;
        let inner = r#"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"echo\"}"#;
        let text = format!("{next}{line}{inner}{paragraph}é");
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{{\"x\":\"{text}\"}}}}\n"
        )
    };
    session.send(line(["\u{85}", "\u{2028}", "\u{2029}"]));
    let text = session.answer()["result"]["x"].as_str().expect("a text").to_owned();
    assert!(text.starts_with("\u{85}\u{2028}{") && text.ends_with("}\u{2029}é"), "{text:?}");
    let left = session.finish();
    assert!(left.record == line([r"\u0085", r"\u2028", r"\u2029"]).as_bytes());
    assert_eq!(statuses(&left.ended(0).audit()), all("allow", &[200]));
}

#[test]
fn a_byte_order_mark_before_either_direction_is_skipped() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    let answer = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n";
    let params = json!({"texts": [format!("\u{feff}{answer}")]});
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "say", "params": params});
    session.send(format!("\u{feff}{request}\n"));
    assert_eq!(session.line(), answer.as_bytes());
    let left = session.finish();
    assert!(left.record == format!("{request}\n").as_bytes(), "the server reads no mark either");
    assert_eq!(statuses(&left.ended(0).audit()), all("allow", &[200]));
}

#[test]
fn a_request_whose_answer_cannot_be_read_is_answered_at_once() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    // As Python writes what is no number, and with no end.
    let answers = ["{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"x\":NaN,\"y\":-Infinity]}}\n"];
    session.request(2, "say", &json!({"texts": answers}));
    let answers = ["{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"x\":NaN,\"y\":-Infinity}}\n"];
    session.request(1, "say", &json!({"texts": answers}));
    let error = session.refused(2, 502);
    assert_eq!(error["error"]["data"]["code"], "answer_unreadable", "{error}");
    let left = session.finish();
    left.ended(1).says("to its standard output that is not a message; dropped");
    assert_eq!(statuses(&left.audit()), all("allow", &[502, 502]));
}

#[test]
fn a_question_of_the_server_that_cannot_be_read_is_answered_at_once() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--max-bytes", "1000"]);
    let questions = [
        "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\",\"params\":{\"x\":NaN}}\n",
        "{\"jsonrpc\":\"2.0\",\"method\":\"roots/list\",\"params\":{\"x\":\"",
        "\"},\"id\":\"q\"}\n",
    ];
    session.request(1, "ask_badly", &json!({"texts": questions, "bytes": 1000}));
    assert_eq!(session.answer()["id"], 1);
    let left = session.finish();
    let record = String::from_utf8(left.record.clone()).expect("text");
    let told: Vec<Value> =
        record.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<_> = told.iter().filter(|message| message["id"] == "q").collect();
    assert_eq!(told.len(), 2, "{record}");
    assert!(told.iter().all(|message| message["error"]["code"] == -32600), "{told:?}");
    assert!(left.out.is_empty(), "nobody else waits for it");
    left.ended(0);
}
