//! MCP responses with lists, whole, in single bytes and cut at random.

use std::cell::RefCell;

use serde_json::json;
use vkey::body::json::Limits;
use vkey::body::mcp::ObjectKind;
use vkey::body::mcp::lists::{Asked, Edit, Filter, Handling, Head};
use vkey::glob::Globs;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::responses::each_way;
use super::*;

const MAX_BYTES: usize = 1_000_000;

fn filter(case: &Value) -> Filter {
    let mut head = Head::new(u16::try_from(case["status"].as_u64().unwrap()).unwrap());
    for (name, value) in case["headers"].as_object().unwrap() {
        head.add(name.as_bytes(), value.as_str().unwrap().as_bytes());
    }
    let asked = match case["request"].as_str().unwrap() {
        "GET" => Asked::Stream,
        method => Asked::by(method),
    };
    Filter::new(asked, case["era"] == "modern", &head, MAX_BYTES, Limits::default())
}

/// The globs for a kind. A kind without any is not filtered in its case.
fn globs(case: &Value, kind: ObjectKind) -> Globs {
    let member = match kind {
        ObjectKind::Tool => "tools",
        ObjectKind::Resource => "resources",
        ObjectKind::Prompt => "prompts",
        ObjectKind::Task => panic!("no list has tasks"),
    };
    match case["allow"][member].as_array() {
        Some(globs) => Globs::names(&Vec::from_iter(globs.iter().map(|g| g.as_str().unwrap()))),
        None => Globs::names(&["*"]),
    }
}

/// What a client gets, the names that were removed, and how many items; `None` if the response is blocked.
fn filtered(case: &Value, pieces: &[&[u8]]) -> Option<(Vec<u8>, Vec<String>, u32)> {
    let removed = RefCell::new(Vec::new());
    let allows = |kind: ObjectKind, name: &str| {
        let is_allowed = globs(case, kind).matches(name);
        if !is_allowed {
            removed.borrow_mut().push(name.to_owned());
        }
        is_allowed
    };
    let mut filter = filter(case);
    let mut passed = Vec::new();
    for piece in pieces {
        passed.extend_from_slice(&filter.feed(piece, &allows).ok()?);
    }
    let finished = filter.finish(&allows).ok()?;
    if filter.handling() == Handling::Hold {
        assert!(passed.is_empty() && finished.rest.is_empty());
        passed = Edit::apply(&finished.edits, &pieces.concat());
    } else {
        assert_eq!(finished.edits, []);
        passed.extend(finished.rest);
    }
    Some((passed, removed.take(), filter.removed()))
}

/// The events of a stream, as the file has them. Comments are no part of them.
fn events(stream: &[u8]) -> Value {
    let text = std::str::from_utf8(stream).unwrap().replace("\r\n", "\n");
    let events = text.split("\n\n").map(|event| {
        let mut read = json!({});
        for line in event.lines().filter(|line| !line.starts_with(':')) {
            let (name, value) = line.split_once(':').unwrap();
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "data" if value.is_empty() => read["text"] = json!(""),
                "data" => {
                    assert!(read.get("json").is_none(), "data in two lines: {event}");
                    read["json"] = json(value);
                }
                _ => read[name] = json!(value),
            }
        }
        read
    });
    events.filter(|event| *event != json!({})).collect()
}

fn check(case: &Value, pieces: &[&[u8]]) {
    let (name, expected) = (&case["name"], &case["expect"]);
    let Some((passed, removed, count)) = filtered(case, pieces) else {
        assert_eq!(*expected, json!({"error": "blocked"}), "{name}");
        return;
    };
    assert!(expected.get("error").is_none(), "{name} is not blocked");
    if expected.get("events").is_some() {
        assert_eq!(events(&passed), expected["events"], "{name}");
    } else {
        assert_eq!(serde_json::from_slice::<Value>(&passed).unwrap(), expected["json"], "{name}");
    }
    // What has no name is `null` in the file.
    let gone = expected["removed"].as_array().unwrap();
    let named = Vec::from_iter(gone.iter().filter_map(Value::as_str));
    assert_eq!(removed, named, "{name}");
    assert_eq!(usize::try_from(count).unwrap(), gone.len(), "{name}");
}

#[test]
fn lists_have_only_what_is_allowed() {
    let file = vectors!("mcp/lists.json");
    for case in cases(&file["cases"], 26) {
        each_way(case, |pieces| check(case, pieces));
    }
}
