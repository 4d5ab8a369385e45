//! MCP responses with lists, whole and damaged, in any pieces. `serde_json` is the judge of what is left.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use vkey::body::json::Limits;
use vkey::body::mcp::ObjectKind;
use vkey::body::mcp::lists::{Asked, Cause, Edit, Filter, Handling, Head};

use super::documents::pieces;
use super::streams::{expected_events, stream};
use super::*;

/// The lists of a result, and the member that names their items.
const LISTS: [(&str, &str, ObjectKind); 4] = [
    ("tools", "name", ObjectKind::Tool),
    ("prompts", "name", ObjectKind::Prompt),
    ("resources", "uri", ObjectKind::Resource),
    ("resourceTemplates", "uriTemplate", ObjectKind::Resource),
];

const NAMES: [&str; 5] = ["a", "b", "file:///a", "é", ""];

/// Which of the names are allowed, for each kind.
type Allowed = [[bool; NAMES.len()]; 3];

fn is_allowed(allowed: &Allowed, kind: ObjectKind, name: &str) -> bool {
    let kind = match kind {
        ObjectKind::Tool => 0,
        ObjectKind::Prompt => 1,
        _ => 2,
    };
    NAMES.iter().zip(allowed[kind]).any(|(known, allowed)| allowed && *known == name)
}

/// An item as it is written; `@` is the member with its name.
fn item() -> impl Strategy<Value = String> {
    let name = select(
        &[
            "\"a\"",
            "\"b\"",
            "\"\\u0061\"",
            "\"file:\\/\\/\\/a\"",
            "\"\u{e9}\"",
            "\"\"",
            "\"c\"",
            "7",
        ][..],
    );
    let shape = select(
        &[
            "{@}",
            "{ @ , \"x\" : {\"name\":\"a\",\"uri\":\"a\"} }",
            "{\"inputSchema\":{\"properties\":{\"name\":{}},\"y\":[[],{}]},\n@}",
            "{\"description\":\"]},{\",@}",
            "{\"x\":@TEXT}",
            "{}",
            "[{@}]",
            "null",
            "\"a\"",
            "-1e3",
        ][..],
    );
    (shape, name).prop_map(|(shape, name)| {
        shape.replace("@TEXT", name).replace('@', &format!("\"@\" : {name}"))
    })
}

/// A response to a request for a list, as it is written.
fn response() -> impl Strategy<Value = String> {
    let blank = || select(&["", " ", "\n", "\t \n"][..]);
    let list = (select(&[0, 0, 1, 2, 3][..]), vec((item(), blank()), 0..8), blank());
    let list = list.prop_map(|(list, items, blank)| {
        let (list, name, _) = LISTS[list];
        let items = items.iter().map(|(item, blank)| item.replace('@', name) + blank);
        (
            list,
            format!(
                "{blank}\"{list}\": [{blank}{}]",
                items.collect::<Vec<_>>().join(&format!(",{blank}"))
            ),
        )
    });
    let other = select(
        &[
            "\"nextCursor\":\"p2\"",
            "\"_meta\":{\"tools\":[{\"name\":\"a\"}]}",
            "\"cacheScope\" : \"public\"",
            "\"cacheScope\":\"private\"",
            "\"cacheScope\":[1]",
            "\"ttlMs\":0",
        ][..],
    );
    let other = other.prop_map(|member| (member.split('"').nth(1).unwrap(), member.to_owned()));
    let members = vec(prop_oneof![2 => list, 1 => other], 0..5);
    (members, blank()).prop_map(|(members, blank)| {
        let mut names = Vec::new();
        let mut texts = Vec::new();
        for (name, text) in members {
            if !names.contains(&name) {
                names.push(name);
                texts.push(text);
            }
        }
        let members = texts.join(&format!("{blank},"));
        format!(
            "{blank}{{\"jsonrpc\":\"2.0\",\"id\":1,{blank}\"result\":{{{members}{blank}}}}}{blank}"
        )
    })
}

/// What is left of a message.
fn expected(message: &str, allowed: &Allowed, is_modern: bool) -> Value {
    let mut message: Value = serde_json::from_str(message).unwrap();
    let Some(result) = message.get_mut("result").and_then(Value::as_object_mut) else {
        return message;
    };
    let mut is_list = false;
    for (list, name, kind) in LISTS {
        if let Some(items) = result.get_mut(list).and_then(Value::as_array_mut) {
            is_list = true;
            let stays = |item: &Value| {
                item[name].as_str().is_some_and(|name| is_allowed(allowed, kind, name))
            };
            items.retain(stays);
        }
    }
    if is_list && is_modern {
        result.insert("cacheScope".to_owned(), json!("private"));
    }
    message
}

/// What a client gets, and why no more.
fn filtered(
    (asked, is_modern, content_type): (Asked, bool, &str),
    allowed: &Allowed,
    max_bytes: usize,
    pieces: &[&[u8]],
) -> (Vec<u8>, Option<Cause>) {
    let mut head = Head::new(200);
    head.add(b"content-type", content_type.as_bytes());
    let mut filter = Filter::new(asked, is_modern, &head, max_bytes, Limits::default());
    let allows = |kind: ObjectKind, name: &str| is_allowed(allowed, kind, name);
    let mut passed = Vec::new();
    for piece in pieces {
        match filter.feed(piece, &allows) {
            Ok(part) => passed.extend_from_slice(&part),
            Err(blocked) => {
                passed.extend(blocked.before);
                return (passed, Some(blocked.cause));
            }
        }
    }
    match filter.finish(&allows) {
        Ok(finished) if filter.handling() == Handling::Hold => {
            (Edit::apply(&finished.edits, &pieces.concat()), None)
        }
        Ok(finished) => {
            passed.extend(finished.rest);
            (passed, None)
        }
        Err(blocked) => {
            passed.extend(blocked.before);
            (passed, Some(blocked.cause))
        }
    }
}

fn is_json(data: &str) -> bool {
    data.trim_start().starts_with('{')
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const MAX_BYTES: usize = 100_000;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn exactly_the_allowed_items_are_left(
        response in response(),
        allowed in any::<Allowed>(),
        is_modern in any::<bool>(),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let expected = expected(&response, &allowed, is_modern);
        for content_type in [JSON, EVENTS] {
            let how = (Asked::List, is_modern, content_type);
            let whole = filtered(how, &allowed, MAX_BYTES, &[response.as_bytes()]);
            prop_assert_eq!(whole.1, None);
            let left: Value = serde_json::from_slice(&whole.0).unwrap();
            prop_assert_eq!(&left, &expected, "{}", response);
            // What need not change stays byte for byte.
            if serde_json::from_str::<Value>(&response).unwrap() == expected {
                prop_assert_eq!(&whole.0, response.as_bytes());
            }
            let pieces = pieces(response.as_bytes(), &cuts);
            prop_assert_eq!(filtered(how, &allowed, MAX_BYTES, &pieces), whole);
        }
    }

    #[test]
    fn exactly_the_allowed_items_of_each_event_are_left(
        responses in vec((response(), select(&["", "id: 7\n", ": a\n\n", "event: b\ndata: {\"a\":1}\n\n", "data\n"][..])), 1..4),
        end in select(&["\n", "\r\n", "\r"][..]),
        allowed in any::<Allowed>(),
        is_modern in any::<bool>(),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let events = responses.iter().map(|(response, before)| {
            let data = response.replace('\n', "\ndata: ");
            format!("{before}data: {data}\nretry: 1\n\n")
        });
        let stream = events.collect::<String>();
        for asked in [Asked::List, Asked::Stream, Asked::Other] {
            let how = (asked, is_modern, EVENTS);
            let bytes = stream.replace('\n', end).into_bytes();
            let (passed, blocked) = filtered(how, &allowed, MAX_BYTES, &[&bytes]);
            prop_assert_eq!(blocked, None);
            let found = expected_events(std::str::from_utf8(&passed).unwrap());
            let before = expected_events(&stream);
            prop_assert_eq!(found.len(), before.len());
            for ((name, data, _), (expected_name, expected_data, _)) in found.iter().zip(&before) {
                prop_assert_eq!(name, expected_name);
                if is_json(data) {
                    let left: Value = serde_json::from_str(data).unwrap();
                    prop_assert_eq!(left, expected(expected_data, &allowed, is_modern));
                } else {
                    prop_assert_eq!(data, expected_data);
                }
            }
            let others = |text: &str| {
                let text = text.replace(end, "\n");
                let is_other = |line: &&str| !line.starts_with("data");
                text.lines().filter(is_other).map(str::to_owned).collect::<Vec<_>>()
            };
            prop_assert_eq!(others(std::str::from_utf8(&passed).unwrap()), others(&stream.replace('\n', end)));
            prop_assert_eq!(filtered(how, &allowed, MAX_BYTES, &pieces(&bytes, &cuts)), (passed, None));
        }
    }

    #[test]
    fn a_stream_without_lists_passes_byte_for_byte(
        stream in stream(),
        max_bytes in 0..100_usize,
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let bytes = stream.as_bytes();
        for asked in [Asked::Stream, Asked::Other] {
            let how = (asked, true, EVENTS);
            let filtered = |max_bytes, pieces: &[&[u8]]| filtered(how, &[[false; 5]; 3], max_bytes, pieces);
            let whole = filtered(MAX_BYTES, &[bytes]);
            prop_assert!(bytes.starts_with(&whole.0));
            prop_assert!(whole.0 == bytes || whole.1.is_some());
            prop_assert_eq!(&filtered(MAX_BYTES, &pieces(bytes, &cuts)), &whole);
            let (passed, blocked) = filtered(max_bytes, &pieces(bytes, &cuts));
            prop_assert!(bytes.starts_with(&passed));
            prop_assert!(passed == bytes || blocked.is_some());
        }
    }

    /// Whatever passes has no item that is not allowed.
    #[test]
    fn a_damaged_response_shows_nothing(
        response in response(),
        damage in vec((any::<Index>(), select(&b"{}[],:\"\\ \n\xEF0tN"[..]), any::<bool>()), 1..4),
        allowed in any::<Allowed>(),
        max_bytes in prop_oneof![Just(MAX_BYTES), 0..300_usize],
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let mut bytes = response.into_bytes();
        for (at, byte, replaces) in damage {
            let at = at.index(bytes.len());
            let end = at + usize::from(replaces);
            bytes.splice(at..end, [byte]);
        }
        for (content_type, start) in [(JSON, ""), (EVENTS, ""), (EVENTS, "data: ")] {
            let bytes = [start.as_bytes(), &bytes].concat();
            let how = (Asked::List, true, content_type);
            let (passed, blocked) = filtered(how, &allowed, max_bytes, &pieces(&bytes, &cuts));
            let whole = filtered(how, &allowed, max_bytes, &[&bytes]);
            prop_assert_eq!(whole.1.is_some(), blocked.is_some());
            if blocked.is_none() {
                prop_assert_eq!(&whole.0, &passed);
            }
            let text = String::from_utf8_lossy(&passed).into_owned();
            let data = expected_events(&text).into_iter().map(|(_, data, _)| data);
            let shown = data.chain([text.clone()]).filter_map(|data| serde_json::from_str::<Value>(&data).ok());
            for message in shown.filter(|message| message.get("result").is_some()) {
                let text = message.to_string();
                prop_assert_eq!(expected(&text, &allowed, true), message);
            }
        }
    }

    #[test]
    fn no_bytes_make_a_filter_panic(
        bytes in prop_oneof![anything(), stream().prop_map(String::into_bytes)],
        max_bytes in 0..200_usize,
        cuts in vec(any::<Index>(), 0..20),
    ) {
        for asked in [Asked::List, Asked::Discover, Asked::Stream, Asked::Other] {
            for content_type in [JSON, EVENTS, "text/plain"] {
                let how = (asked, true, content_type);
                _ = filtered(how, &[[true; 5]; 3], max_bytes, &pieces(&bytes, &cuts));
            }
        }
    }
}
