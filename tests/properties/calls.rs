//! Calls of tools from their JSON text to the decision, and another evaluator of conditions.

use vkey::access::restriction::ArgumentNeeds;
use vkey::body::Declared;
use vkey::body::json::{Limits, Unreadable};
use vkey::body::mcp::{MessageReader, Wanted};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const POINTERS: [&str; 6] = ["/a", "/b", "/a/b", "/items/*", "/items/*/name", "/items/*/*"];

const GLOBS: [&str; 5] = ["*", "a*", "*b*", "1", "/srv/*"];

const TEXTS: [&str; 7] = ["ab", "1", "", "/srv/a", "/srv/../a", "b\n", "é"];

fn integer() -> BoxedStrategy<i64> {
    prop_oneof![4 => -2..12_i64, 1 => (1_i64 << 53) - 1..(1_i64 << 53) + 3].boxed()
}

fn scalar() -> BoxedStrategy<Value> {
    prop_oneof![
        3 => integer().prop_map(Value::from),
        3 => select(&TEXTS[..]).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
    .boxed()
}

fn condition() -> BoxedStrategy<Value> {
    let test = prop_oneof![
        1 => scalar().prop_map(|value| json!({"equals": value})),
        2 => vec(scalar(), 1..8).prop_map(|values| json!({"in": values})),
        2 => select(&GLOBS[..]).prop_map(|glob| json!({"glob": glob})),
        1 => integer().prop_map(|min| json!({"min": min})),
        2 => integer().prop_map(|max| json!({"max": max})),
        2 => Just(json!({"absent": true})),
    ];
    (select(&POINTERS[..]), test)
        .prop_map(|(at, mut test)| {
            test["at"] = json!(at);
            test
        })
        .boxed()
}

fn entry() -> BoxedStrategy<Value> {
    let names = sometimes(vec(select(&["a", "b", "items"][..]), 2..5));
    (select(&["x", "*"][..]), of(vec(condition(), 1..3)), names)
        .prop_map(|(name, args, only_args)| {
            present([("name", json!(name)), ("args", json!(args)), ("only_args", json!(only_args))])
        })
        .boxed()
}

/// Arguments that have what the pointers lead to in about half of the cases.
fn arguments() -> BoxedStrategy<Value> {
    let leaf = || prop_oneof![6 => scalar(), 1 => Just(json!({})), 1 => Just(json!([]))].boxed();
    let object = || {
        (of(leaf()), of(leaf())).prop_map(|(b, name)| members([("b", b), ("name", name)])).boxed()
    };
    let item =
        || prop_oneof![2 => leaf(), 3 => object(), 1 => vec(leaf(), 0..3).prop_map(Value::from)];
    let items =
        prop_oneof![1 => leaf(), 1 => object(), 5 => vec(item(), 0..4).prop_map(Value::from)];
    let any = || prop_oneof![3 => leaf(), 2 => object()];
    (of(any()), of(any()), of(items), sometimes(any()))
        .prop_map(|(a, b, items, other)| {
            members([("a", a), ("b", b), ("items", items), ("other", other)])
        })
        .boxed()
}

/// An object with the members that are there, also with those that are `null`.
fn members<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let present = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect())
}

fn restriction_of(tools: &[Value]) -> String {
    json!({"mcp": {"tools": tools}}).to_string()
}

fn call(arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{arguments}}}}}"#
    )
}

fn decide(restriction: &str, body: &[u8]) -> Result<bool, Unreadable> {
    let restriction = Restriction::parse(restriction.as_bytes()).unwrap();
    let mut needs = ArgumentNeeds::default();
    restriction.add_needs(&mut needs);
    let wanted = Wanted::new(&needs.pointers, needs.names).unwrap();
    let declared = Declared::read([(&b"content-type"[..], &b"application/json"[..])]);
    let mut reader = MessageReader::new(wanted, declared, Limits::default())?;
    reader.feed(body)?;
    let message = reader.finish()?;
    let call = McpCall {
        method: &message.method,
        server: None,
        object: message.object.as_ref().map(|(kind, names)| (*kind, &**names)),
        arguments: Some(&message.arguments),
    };
    let access = Access { now_secs: NOW, mcp: Mcp::Call(call), ..Access::default() };
    Ok(restriction.prohibits(&access).is_none())
}

/// Whether a message calls a tool as an entry allows, or does something else that names nothing.
fn is_met(tools: &[Value], message: &Value) -> bool {
    let params = &message["params"];
    if message["method"] != "tools/call" {
        return !matches!(message["method"].as_str(), Some("prompts/get" | "resources/read"));
    }
    let Some(tool) = params["name"].as_str() else { return false };
    let members = match &params["arguments"] {
        Value::Object(members) => members.clone(),
        Value::Null => Map::new(),
        _ => return false,
    };
    tools.iter().any(|entry| {
        let list = |name: &str| entry[name].as_array().cloned().unwrap_or_default();
        let is_listed = |name: &String| list("only_args").contains(&json!(name));
        let are_listed = entry.get("only_args").is_none() || members.keys().all(is_listed);
        let arguments = Value::Object(members.clone());
        matches(entry["name"].as_str().unwrap(), tool)
            && are_listed
            && list("args").iter().all(|condition| {
                let at = condition["at"].as_str().unwrap();
                let steps: Vec<&str> = at.split('/').skip(1).collect();
                values(&arguments, &steps).into_iter().all(|value| passes(condition, value))
            })
    })
}

/// What is at a pointer: nothing, a value, or an error for what has another type than the pointer needs.
fn values<'a>(value: &'a Value, steps: &[&str]) -> Vec<Result<Option<&'a Value>, ()>> {
    match (steps, value) {
        ([], value) => vec![Ok(Some(value))],
        (_, Value::Null) => vec![Ok(None)],
        (["*", ..], Value::Array(items)) if items.is_empty() => vec![Ok(None)],
        (["*", rest @ ..], Value::Array(items)) => {
            items.iter().flat_map(|item| values(item, rest)).collect()
        }
        (["*", ..], _) => vec![Err(())],
        ([name, rest @ ..], Value::Object(members)) => {
            members.get(*name).map_or_else(|| vec![Ok(None)], |member| values(member, rest))
        }
        _ => vec![Err(())],
    }
}

fn passes(condition: &Value, value: Result<Option<&Value>, ()>) -> bool {
    let Ok(value) = value else { return false };
    condition.as_object().unwrap().iter().all(|(test, operand)| match (test.as_str(), value) {
        ("at", _) => true,
        ("absent", value) => value.is_none(),
        (_, None) => false,
        ("equals", Some(value)) => is_equal(operand, value),
        ("in", Some(value)) => operand.as_array().unwrap().iter().any(|one| is_equal(one, value)),
        ("glob", Some(value)) => {
            let glob = operand.as_str().unwrap();
            let leads_up = |text: &str| text.split('/').any(|segment| segment == "..");
            let is_match = |text| matches(glob, text) && !(glob.contains('/') && leads_up(text));
            value.as_str().is_some_and(is_match)
        }
        ("min", Some(value)) => value.is_number() && order(value, operand).is_ge(),
        _ => value.is_some_and(|value| value.is_number() && order(value, operand).is_le()),
    })
}

fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(_), Value::Number(_)) => order(one, other).is_eq(),
        _ => one == other,
    }
}

/// The order of numbers. Those that are not whole are small here.
fn order(one: &Value, other: &Value) -> std::cmp::Ordering {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => one.as_f64().unwrap().total_cmp(&other.as_f64().unwrap()),
    }
}

fn matches(glob: &str, text: &str) -> bool {
    match glob.split_once('*') {
        None => glob == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let starts = (0..=rest.len()).filter(|start| rest.is_char_boundary(*start));
            starts.into_iter().any(|start| matches(after, &rest[start..]))
        }),
    }
}

/// The same value in other spellings: `seed` chooses them.
fn respelled(value: &Value, seed: &mut u64) -> String {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let choice = *seed >> 60;
    let space = ["", " ", "\n\t", "\r"][usize::try_from(choice % 4).unwrap()];
    let text = |text: &str| match choice {
        0..8 => json!(text).to_string(),
        _ => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            format!("\"{}\"", units.collect::<String>())
        }
    };
    let joined = |items: Vec<String>| items.join(&format!("{space},{space}"));
    match value {
        Value::String(value) => text(value),
        Value::Number(number) => match choice {
            0..4 => number.to_string(),
            _ if number.as_i64() == Some(0) => "-0.0E7".to_owned(),
            4..7 => format!("{number}.00"),
            7..10 => format!("{number}0e-1"),
            10..13 => format!("{number}E+0"),
            _ => format!("{number}000.0E-0003"),
        },
        Value::Array(items) => {
            format!("[{space}{}]", joined(items.iter().map(|item| respelled(item, seed)).collect()))
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            let len = members.len().max(1);
            members.rotate_left(usize::try_from(choice).unwrap() % len);
            if choice.is_multiple_of(2) {
                members.reverse();
            }
            let member = |(name, value): (&String, &Value)| {
                format!("{}{space}:{}", text(name), respelled(value, seed))
            };
            format!("{{{}{space}}}", joined(members.into_iter().map(member).collect()))
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_condition_only_narrows_a_call(
        tool in entry(),
        others in vec(entry(), 0..2),
        more in condition(),
        caveat in entry(),
        arguments in arguments(),
    ) {
        let body = call(&arguments.to_string());
        let allows = |tools: &[Value]| decide(&restriction_of(tools), body.as_bytes()) == Ok(true);
        let mut narrowed = tool.clone();
        let mut args = tool["args"].as_array().cloned().unwrap_or_default();
        args.push(more);
        narrowed["args"] = json!(args);
        let with = |tool: &Value| allows(&[&[tool.clone()][..], &others].concat());
        prop_assert!(!with(&narrowed) || with(&tool));
        // Two restrictions of one key are read together.
        let both = json!({"mcp": {"tools": [tool]}, "any_of": [{"mcp": {"tools": [caveat]}}]});
        let both = decide(&both.to_string(), body.as_bytes()) == Ok(true);
        prop_assert_eq!(both, allows(&[tool]) && allows(&[caveat]));
    }

    #[test]
    fn how_a_call_is_spelled_makes_no_difference(
        tools in vec(entry(), 1..3),
        arguments in arguments(),
        seed in any::<u64>(),
    ) {
        let restriction = restriction_of(&tools);
        let plain = call(&arguments.to_string());
        let message: Value = serde_json::from_str(&plain).unwrap();
        let mut seed = seed;
        // The id is no number of which any spelling will do.
        let other = respelled(&message["params"], &mut seed);
        let other = format!(r#"{{"params" :{other}, "m\u0065thod":"tools\/call","id":1,"jsonrpc":"2.0"}}"#);
        let expected = decide(&restriction, plain.as_bytes());
        prop_assert!(expected.is_ok());
        prop_assert_eq!(decide(&restriction, other.as_bytes()), expected, "{}", other);
    }

    #[test]
    fn another_evaluator_allows_the_same_calls(tools in vec(entry(), 1..3), arguments in arguments()) {
        let body = call(&arguments.to_string());
        let message = serde_json::from_str(&body).unwrap();
        let allowed = decide(&restriction_of(&tools), body.as_bytes());
        prop_assert_eq!(allowed, Ok(is_met(&tools, &message)), "{} {}", restriction_of(&tools), body);
    }

    /// Whatever is changed in a body: if it is allowed, it is what another reader takes it for.
    #[test]
    fn what_is_allowed_is_what_another_reader_runs(
        tools in vec(entry(), 1..3),
        first in arguments(),
        second in arguments(),
        changes in vec((any::<Index>(), select(&b"aAbx\"\\,:{}[]01eE.- "[..])), 0..3),
        at in any::<Index>(),
    ) {
        // Members of both, so that some come twice.
        let (first, second) = (first.to_string(), second.to_string());
        let inner = |text: &str| text[1..text.len() - 1].to_owned();
        let both = [inner(&first), inner(&second)];
        let arguments = match at.index(3) {
            0 => first,
            _ => format!("{{{}}}", both.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join(",")),
        };
        let mut body = call(&arguments).into_bytes();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if decide(&restriction_of(&tools), &body) == Ok(true) {
            let message = match serde_json::from_slice(&body) {
                Ok(message) => message,
                // What serde_json refuses and the reader does not, where nothing depends on it: halves of surrogate pairs,
                // and numbers that no double can hold.
                Err(error) => {
                    let error = error.to_string();
                    let left = ["surrogate", "unexpected end of hex escape", "number out of range"];
                    prop_assert!(left.iter().any(|what| error.contains(what)), "{}", error);
                    return Ok(());
                }
            };
            prop_assert!(is_met(&tools, &message), "{} {}", restriction_of(&tools), body.escape_ascii());
        }
    }
}
