//! Messages of MCP, and the arguments of calls.

use vkey::body::Declared;
use vkey::body::json::{Limits, Unreadable};
use vkey::body::mcp::{
    Arguments, Found, Message, MessageKind, MessageReader, Pointer, Segment, Wanted,
};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// Names of members, of messages and of arguments.
const NAMES: [&str; 18] = [
    "jsonrpc",
    "id",
    "method",
    "params",
    "result",
    "error",
    "name",
    "uri",
    "ref",
    "type",
    "_meta",
    "notifications",
    "resourceSubscriptions",
    "arguments",
    "a",
    "b",
    "A",
    "",
];

/// Names of arguments of which no two differ in case only.
const ARGUMENTS: [&str; 5] = ["a", "b", "c", "d~/", ""];

/// Texts that decide something somewhere, and others.
const TEXTS: [&str; 9] = [
    "2.0",
    "tools/call",
    "notifications/x",
    "resources/read",
    "completion/complete",
    "subscriptions/listen",
    "ref/prompt",
    "é\"",
    "",
];

fn text() -> impl Strategy<Value = String> {
    select(&TEXTS[..]).prop_map(str::to_owned)
}

/// Values of any shape whose objects have these names.
fn value(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => text().prop_map(Value::from),
        1 => (-5..5_i64).prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(4, 30, 4, move |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::from), object(names, inner)]
    })
}

fn object(
    names: &'static [&'static str],
    value: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Value> {
    let members = vec((select(names), value), 0..5);
    members.prop_map(|members| {
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    })
}

/// Messages of which some are readable.
fn message() -> impl Strategy<Value = Value> {
    let message = (value(&NAMES), text(), of(value(&NAMES)), object(&NAMES, value(&NAMES)));
    message.prop_map(|(id, method, result, params)| {
        let mut message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        if let Some(result) = result {
            message["result"] = result;
        }
        message
    })
}

/// Pointers into arguments.
fn pointers() -> impl Strategy<Value = Vec<Pointer>> {
    let step = prop_oneof![
        4 => select(&ARGUMENTS[..]).prop_map(|name| name.replace('~', "~0").replace('/', "~1")),
        1 => Just("*".to_owned()),
    ];
    let pointer = vec(step, 1..4).prop_map(|steps| {
        let text: String = steps.iter().flat_map(|step| ["/", step]).collect();
        Pointer::parse(&text).unwrap()
    });
    vec(pointer, 0..6)
}

fn read(wanted: &Wanted, pieces: &[&[u8]]) -> Result<Message, Unreadable> {
    let declared = Declared::read([(&b"content-type"[..], &b"application/json"[..])]);
    let mut reader = MessageReader::new(wanted.clone(), declared, Limits::default())?;
    pieces.iter().try_for_each(|piece| reader.feed(piece))?;
    reader.finish()
}

fn call(arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"arguments":{arguments},"name":"t"}}}}"#
    )
}

fn arguments(wanted: &Wanted, json: &str) -> Arguments {
    read(wanted, &[call(json).as_bytes()]).unwrap().arguments
}

/// What a pointer finds, found in another way.
fn expected(value: &Value, steps: &[Segment]) -> Vec<Found> {
    match (steps, value) {
        ([], value) => vec![found(value)],
        ([Segment::Member(name), rest @ ..], Value::Object(members)) => {
            match members.get(&**name) {
                Some(member) => expected(member, rest),
                None => vec![Found::Missing],
            }
        }
        ([Segment::Elements, rest @ ..], Value::Array(elements)) if !elements.is_empty() => {
            elements.iter().flat_map(|element| expected(element, rest)).collect()
        }
        ([Segment::Member(_), ..], Value::Null)
        | ([Segment::Elements, ..], Value::Null | Value::Array(_)) => {
            vec![Found::Missing]
        }
        _ => vec![Found::Container],
    }
}

fn found(value: &Value) -> Found {
    match value {
        Value::Null => Found::Null,
        Value::Bool(value) => Found::Bool(*value),
        Value::Number(number) => Found::Number(number.to_string().into()),
        Value::String(text) => Found::Text(Some(text.as_str().into())),
        Value::Array(_) | Value::Object(_) => Found::Container,
    }
}

/// The same JSON, spelled otherwise: the members of objects in reverse, every character escaped, white space.
fn respelled(value: &Value) -> String {
    let text = |text: &str| -> String {
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
        format!("\"{}\"", units.collect::<String>())
    };
    match value {
        Value::String(value) => text(value),
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(respelled).collect();
            format!("[ {} ]", elements.join("\t,\n"))
        }
        Value::Object(members) => {
            let members = members.iter().rev();
            let members =
                members.map(|(name, value)| format!("{} : {}", text(name), respelled(value)));
            format!("{{\r{} }}", members.collect::<Vec<_>>().join(" , "))
        }
        other => other.to_string(),
    }
}

fn sorted_names(arguments: &Arguments) -> Vec<&str> {
    let mut names: Vec<&str> =
        arguments.names().unwrap_or_default().iter().map(|name| &**name).collect();
    names.sort_unstable();
    names
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn how_a_message_is_cut_makes_no_difference(
        body in prop_oneof![
            4 => message().prop_map(|json| json.to_string().into_bytes()),
            4 => value(&NAMES).prop_map(|json| call(&json.to_string()).into_bytes()),
            1 => anything(),
        ],
        pointers in pointers(),
        needs_names in any::<bool>(),
        change in of((any::<Index>(), any::<u8>())),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let wanted = Wanted::new(&pointers, needs_names).unwrap();
        let mut body = body;
        if let Some((at, byte)) = change.filter(|_| !body.is_empty()) {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        ends.sort_unstable();
        let starts = std::iter::once(&0).chain(&ends);
        let last = [body.len()];
        let pieces = starts.zip(ends.iter().chain(&last)).map(|(start, end)| &body[*start..*end]);
        let whole = read(&wanted, &[&body]);
        prop_assert_eq!(&read(&wanted, &pieces.collect::<Vec<_>>()), &whole);
        prop_assert_eq!(&read(&wanted, &body.chunks(1).collect::<Vec<_>>()), &whole);
    }

    #[test]
    fn a_pointer_finds_what_another_reader_finds(
        json in object(&ARGUMENTS, value(&ARGUMENTS)),
        pointers in pointers(),
    ) {
        let wanted = Wanted::new(&pointers, true).unwrap();
        let arguments = arguments(&wanted, &json.to_string());
        for pointer in &pointers {
            let found = arguments.at(pointer).unwrap();
            prop_assert_eq!(found, &expected(&json, pointer.segments())[..], "{}", pointer.as_str());
            if !pointer.segments().contains(&Segment::Elements) && !json.to_string().contains('[') {
                match json.pointer(pointer.as_str()) {
                    Some(value) => prop_assert_eq!(found, &[self::found(value)][..]),
                    None => prop_assert!(matches!(found, [Found::Missing | Found::Container])),
                }
            }
        }
        let names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        prop_assert_eq!(sorted_names(&arguments), names);
    }

    #[test]
    fn how_arguments_are_spelled_makes_no_difference(
        json in object(&ARGUMENTS, value(&ARGUMENTS)),
        pointers in pointers(),
    ) {
        let wanted = Wanted::new(&pointers, true).unwrap();
        let plain = arguments(&wanted, &json.to_string());
        let other = arguments(&wanted, &respelled(&json));
        for pointer in &pointers {
            prop_assert_eq!(plain.at(pointer), other.at(pointer));
        }
        prop_assert_eq!(sorted_names(&plain), sorted_names(&other));
    }

    /// Not rounded, not shortened: whoever compares numbers must see what the server sees.
    #[test]
    fn a_number_is_found_as_it_is_written(number in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,3})?") {
        let pointer = Pointer::parse("/a/*").unwrap();
        let wanted = Wanted::new(std::slice::from_ref(&pointer), false).unwrap();
        let arguments = arguments(&wanted, &format!(r#"{{"a":[{number}, {number}]}}"#));
        let found = Found::Number(number.into());
        prop_assert_eq!(arguments.at(&pointer), Some(&[found.clone(), found][..]));
    }

    /// What a key asks for decides nothing about the rest of a message.
    #[test]
    fn what_is_wanted_changes_only_the_arguments(message in message(), pointers in pointers()) {
        let body = message.to_string();
        let plain = read(&Wanted::default(), &[body.as_bytes()]);
        let wanted = Wanted::new(&pointers, true).unwrap();
        if let Ok(mut other) = read(&wanted, &[body.as_bytes()]) {
            other.arguments = Arguments::default();
            let mut plain = plain.unwrap();
            plain.arguments = Arguments::default();
            prop_assert_eq!(other, plain);
        } else if let Ok(plain) = plain {
            // Only in arguments that differ from a pointer in case.
            prop_assert_eq!(&*plain.method, "tools/call");
        }
    }

    #[test]
    fn a_readable_message_is_what_it_says(message in message()) {
        let body = message.to_string();
        if let Ok(read) = read(&Wanted::default(), &[body.as_bytes()]) {
            let has_outcome = message.get("result").is_some() || message.get("error").is_some();
            prop_assert!(!has_outcome && read.kind == MessageKind::Request);
            prop_assert_eq!(&*read.method, message["method"].as_str().unwrap());
            let id: Value = serde_json::from_slice(read.id.as_deref().unwrap()).unwrap();
            prop_assert_eq!(&id, &message["id"]);
            let params = &message["params"];
            let names: Vec<&str> = match &*read.method {
                "tools/call" => vec![params["name"].as_str().unwrap()],
                "resources/read" => vec![params["uri"].as_str().unwrap()],
                "completion/complete" => vec![params["ref"]["name"].as_str().unwrap()],
                "subscriptions/listen" => {
                    let list = params["notifications"]["resourceSubscriptions"].as_array();
                    list.into_iter().flatten().map(|uri| uri.as_str().unwrap()).collect()
                }
                _ => vec![],
            };
            let found = read.object.map(|(_, names)| names).unwrap_or_default();
            prop_assert_eq!(found.iter().map(|name| &**name).collect::<Vec<_>>(), names);
        }
    }
}
