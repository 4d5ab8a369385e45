//! Messages of MCP, and what is read from them and from the headers.

use serde_json::json;
use vkey::body::Declared;
use vkey::body::json::{Limits, Unreadable};
use vkey::body::mcp::{
    Era, Fault, Message, MessageKind, MessageReader, Mirrors, ObjectKind, Purpose, Wanted,
};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::pieces::pieces;
use super::requests::{body, headers};
use super::*;

/// Cases in which the conformance suite of MCP says something else.
const OTHER_ERRORS: [(&str, &str); 1] = [("modern/no _meta", "invalid_params")];

fn facts(case: &Value, pieces: &[&[u8]]) -> Result<Value, Fault> {
    let headers = headers(case);
    let headers = || headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let mirrors = Mirrors::read(headers());
    let kind = match Purpose::of(case["http"].as_str().unwrap(), || mirrors.clone())? {
        Purpose::Message => {
            let message = read(Declared::read(headers()), pieces).map_err(Fault::Unreadable)?;
            let era = mirrors.check(&message)?;
            return Ok(shown(&message, era));
        }
        Purpose::Stream => "stream",
        Purpose::Close => "close",
    };
    Ok(json!({"kind": kind, "era": "legacy"}))
}

fn read(declared: Declared, pieces: &[&[u8]]) -> Result<Message, Unreadable> {
    let mut reader = MessageReader::new(Wanted::default(), declared, Limits::default())?;
    pieces.iter().try_for_each(|piece| reader.feed(piece))?;
    reader.finish()
}

/// The facts as a vector has them.
fn shown(message: &Message, era: Era) -> Value {
    let kind = match message.kind {
        MessageKind::Request => "request",
        MessageKind::Notification => "notification",
        MessageKind::Response => "response",
    };
    let era = match era {
        Era::Legacy => "legacy",
        Era::Modern => "modern",
    };
    let mut shown = json!({"kind": kind, "era": era});
    if !message.method.is_empty() {
        shown["method"] = json!(message.method);
    }
    if let Some(id) = &message.id {
        shown["id"] = json!(str::from_utf8(id).unwrap());
    }
    if let Some((kind, names)) = &message.object {
        let kind = match kind {
            ObjectKind::Tool => "tool",
            ObjectKind::Resource => "resource",
            ObjectKind::Prompt => "prompt",
            ObjectKind::Task => "task",
        };
        shown["type"] = json!(kind);
        shown["names"] = json!(names);
    }
    shown
}

fn code(fault: Fault) -> &'static str {
    match fault {
        Fault::Unreadable(_) => "body_unreadable",
        Fault::HeaderMismatch => "header_mismatch",
        Fault::InvalidParams => "invalid_params",
        Fault::MethodNotFound => "method_not_found",
        Fault::HttpMethod => "method",
    }
}

#[test]
fn facts_of_messages() {
    let file = vectors!("mcp/requests.json");
    let all = cases(&file["cases"], 102);
    for case in all {
        let name = case["name"].as_str().unwrap();
        let other = OTHER_ERRORS.iter().find(|(other, _)| *other == name);
        let expected =
            other.map_or_else(|| case["expect"].clone(), |(_, error)| json!({"error": error}));
        let body = body(case);
        for (way, pieces) in pieces(&body).iter().enumerate() {
            let read = facts(case, pieces);
            let read = read.unwrap_or_else(|fault| json!({"error": code(fault)}));
            assert_eq!(read, expected, "{name}, cut in way {way}");
        }
    }
    let named = |name: &str| all.iter().any(|case| case["name"] == name);
    assert!(OTHER_ERRORS.iter().all(|(name, _)| named(name)));
}
