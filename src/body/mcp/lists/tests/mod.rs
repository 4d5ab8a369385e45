//! What is removed from lists, and what is blocked.

mod heads;
mod streams;

use super::*;
use crate::body::json::{Limits, Unreadable};
use crate::body::mcp::ObjectKind;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

fn head(status: u16, fields: &[(&str, &str)]) -> Head {
    let mut head = Head::new(status);
    fields.iter().for_each(|(name, value)| head.add(name.as_bytes(), value.as_bytes()));
    head
}

fn filter(asked: Asked, content_type: &str, max_bytes: usize) -> Filter {
    let head = head(200, &[("content-type", content_type)]);
    Filter::new(asked, true, &head, max_bytes, Limits::default())
}

/// Names that begin with `x` are not allowed.
fn allows(_: ObjectKind, name: &str) -> bool {
    !name.starts_with('x')
}

/// What a client gets, or what is blocked.
fn pass(mut filter: Filter, pieces: &[&[u8]]) -> Result<String, Blocked> {
    let mut passed = Vec::new();
    for piece in pieces {
        match filter.feed(piece, &allows) {
            Ok(part) => passed.extend_from_slice(&part),
            Err(blocked) => {
                let again = Blocked { before: Vec::new(), ..blocked.clone() };
                assert_eq!(filter.feed(b"x", &allows), Err(again.clone()));
                assert_eq!(filter.finish(&allows), Err(again));
                passed.extend_from_slice(&blocked.before);
                return Err(Blocked { before: passed, ..blocked });
            }
        }
    }
    let finished = match filter.finish(&allows) {
        Ok(finished) => finished,
        Err(blocked) => {
            passed.extend_from_slice(&blocked.before);
            return Err(Blocked { before: passed, ..blocked });
        }
    };
    if filter.handling() == Handling::Hold {
        assert_eq!((passed.as_slice(), finished.rest.as_slice()), (&b""[..], &b""[..]));
        passed = Edit::apply(&finished.edits, &pieces.concat());
    }
    passed.extend(finished.rest);
    Ok(String::from_utf8(passed).unwrap())
}

/// The same, for each way to cut the body once, and in single bytes.
fn pass_bounded(
    asked: Asked,
    content_type: &str,
    max_bytes: usize,
    body: &str,
) -> Result<String, Blocked> {
    let new = || filter(asked, content_type, max_bytes);
    let whole = pass(new(), &[body.as_bytes()]);
    assert_eq!(pass(new(), &Vec::from_iter(body.as_bytes().chunks(1))), whole, "{body:?}");
    for at in 0..body.len().min(400) {
        let (first, second) = body.as_bytes().split_at(at);
        assert_eq!(pass(new(), &[first, second]), whole, "{body:?} cut at {at}");
    }
    whole
}

fn pass_all(asked: Asked, content_type: &str, body: &str) -> Result<String, Blocked> {
    pass_bounded(asked, content_type, 1000, body)
}

#[track_caller]
fn assert_json(body: &str, expected: &str) {
    assert_eq!(pass_all(Asked::List, JSON, body).as_deref(), Ok(expected));
    // The same body with a wrong label, and as an event.
    assert_eq!(pass_all(Asked::List, EVENTS, body).as_deref(), Ok(expected));
    let event = |json: &str| format!("data: {json}\n\n");
    assert_eq!(pass_all(Asked::Stream, EVENTS, &event(body)), Ok(event(expected)));
}

fn cause(result: Result<String, Blocked>) -> Cause {
    result.unwrap_err().cause
}

#[test]
fn only_the_bytes_of_removed_items_go() {
    let list = |items: &str| {
        let list = r#"{"id":1, "result" : {"cacheScope":"private","tools": [LIST] , "a":[1 ,2]}}"#;
        list.replace("LIST", items)
    };
    let (a, b, x) = (r#"{"name":"a"}"#, r#"{ "name" : "b" }"#, r#"{"name":"x","y":[1,{}]}"#);
    for (items, left) in [
        (String::new(), String::new()),
        (" ".to_owned(), " ".to_owned()),
        (format!(" {a} , {b}"), format!(" {a} , {b}")),
        (format!(" {x} "), " ".to_owned()),
        (format!("{x},{x} , {x}"), String::new()),
        (format!(" {x} , {a} , {b} "), format!("{a} , {b} ")),
        (format!("{a} , {x} , {b}"), format!("{a} , {b}")),
        (format!("{a} , {b} , {x} "), format!("{a} , {b} ")),
        (format!("{x},{x},{a},{x},{x},{b},{x},{x}"), format!("{a},{b}")),
        (format!("7,{a},null,[{a}],\"a\",{{}},{b},1"), format!("{a},{b}")),
    ] {
        assert_json(&list(&items), &list(&left));
    }
}

#[test]
fn every_list_of_a_result_is_filtered() {
    let body = r#"{"result":{"tools":[{"name":"x"}],"prompts":[{"name":"a"},{"name":"x"}],"resources":[{"name":"a","uri":"x"}],"resourceTemplates":[{"name":"x","uriTemplate":"a"}],"cacheScope":"private"}}"#;
    let left = r#"{"result":{"tools":[],"prompts":[{"name":"a"}],"resources":[],"resourceTemplates":[{"name":"x","uriTemplate":"a"}],"cacheScope":"private"}}"#;
    assert_json(body, left);
    let mut filter = filter(Asked::List, JSON, 1000);
    filter.feed(body.as_bytes(), &allows).unwrap();
    assert_eq!(filter.finish(&allows).unwrap().edits.len(), 3);
    assert_eq!(filter.removed(), 3);
}

#[test]
fn an_item_without_a_readable_name_goes() {
    let long = "a".repeat(513);
    let names = ["\"a\\u0000\"", "\"\\ud800\"", &format!("\"{long}\""), "{\"name\":\"a\"}", "true"];
    for name in names {
        let list =
            |items: &str| format!(r#"{{"result":{{"tools":[{items}],"cacheScope":"private"}}}}"#);
        assert_json(&list(&format!(r#"{{"name":{name}}}"#)), &list(""));
    }
}

#[test]
fn no_cache_may_share_a_list() {
    let scope = r#","cacheScope":"private""#;
    for (result, left) in [
        (r#""tools":[]"#, format!(r#""tools":[]{scope}"#)),
        (r#""tools":[{"name":"x"}] "#, format!(r#""tools":[] {scope}"#)),
        (r#""tools":[],"cacheScope":"Private""#, format!(r#""tools":[]{scope}"#)),
        (r#""cacheScope":{"a":1},"tools":[]"#, r#""cacheScope":"private","tools":[]"#.to_owned()),
        (
            r#""cacheScope":null,"tools":[{"name":"x"}]"#,
            r#""cacheScope":"private","tools":[]"#.to_owned(),
        ),
    ] {
        let body = |result: &str| format!(r#"{{"result":{{{result}}}}}"#);
        assert_json(&body(result), &body(&left));
    }
    let discovery = r#"{"result":{"supportedVersions":["a"],"capabilities":{"tools":{}}}}"#;
    assert_eq!(pass_all(Asked::List, JSON, discovery).as_deref(), Ok(discovery));
    let labelled = discovery.replace("{}}}}", &format!("{{}}}}{scope}}}}}"));
    for (content_type, start, end) in [(JSON, "", ""), (EVENTS, "data: ", "\n\n")] {
        let event = |json: &str| format!("{start}{json}{end}");
        let passed = pass_all(Asked::Discover, content_type, &event(discovery));
        assert_eq!(passed, Ok(event(&labelled)));
        let asks = event(r#"{"result":{"resultType":"input_required","inputRequests":{}}}"#);
        assert_eq!(pass_all(Asked::Discover, content_type, &asks), Ok(asks));
    }
    let legacy = r#"{"result":{"tools":[],"cacheScope":"public"}}"#;
    let head = head(200, &[("content-type", JSON)]);
    let filter = Filter::new(Asked::List, false, &head, 1000, Limits::default());
    assert_eq!(pass(filter, &[legacy.as_bytes()]).as_deref(), Ok(legacy));
}

#[test]
fn what_readers_understand_in_different_ways_is_blocked() {
    for (message, expected) in [
        (r#"{"id":1,"result":{"tools":[]},"result":{}}"#, Unreadable::DuplicateMember),
        (r#"{"id":1,"result":{"tools":[],"tools":[{"name":"x"}]}}"#, Unreadable::DuplicateMember),
        (r#"{"id":1,"result":{"tools":[{"a":{"b":1,"b":1}}]}}"#, Unreadable::DuplicateMember),
        (r#"{"id":1,"Result":{"tools":[{"name":"x"}]}}"#, Unreadable::SimilarMember),
        (r#"{"id":1,"result":{"Tools":[{"name":"x"}]}}"#, Unreadable::SimilarMember),
        (r#"{"id":1,"result":{"tool\u017f":[{"name":"x"}]}}"#, Unreadable::SimilarMember),
        (r#"{"id":1,"result":{"tools":[{"name":"a","NAME":"x"}]}}"#, Unreadable::SimilarMember),
        (r#"{"id":1,"result":{"tools":[NaN]}}"#, Unreadable::NotJson),
        (r#"{"id":1,"result":{"tools":[]}}{}"#, Unreadable::TrailingBytes),
        (r#"{"id":1,"result":{"tools":[{"name":"x"}]"#, Unreadable::Incomplete),
        (r#"{"id":1,"result":[{"tools":[{"name":"x"}]}]}"#, Unreadable::WrongType),
        (r#"[{"id":1,"result":{"tools":[{"name":"x"}]}}]"#, Unreadable::WrongType),
        ("\u{feff}{\"id\":1,\"result\":{\"tools\":[{\"name\":\"x\"}]}}", Unreadable::NotUtf8),
    ] {
        let expected = Cause::Unreadable(expected);
        assert_eq!(cause(pass_all(Asked::List, JSON, message)), expected, "{message}");
        assert_eq!(cause(pass_all(Asked::List, EVENTS, message)), expected, "{message}");
        for asked in [Asked::Other, Asked::Stream] {
            let stream = format!(": a\ndata: 1\n\nid: 7\ndata: {message}\n\ndata: 2\n\n");
            let blocked = pass_all(asked, EVENTS, &stream).unwrap_err();
            assert_eq!(blocked.cause, expected, "{message}");
            assert_eq!(blocked.before, b": a\ndata: 1\n\nid: 7\n", "{message}");
            assert!(!blocked.is_torn);
        }
    }
    let object = r#"{"result":{"tools":{"0":{"name":"x"}}}}"#;
    let wrong = Cause::Unreadable(Unreadable::WrongType);
    assert_eq!(cause(pass_all(Asked::List, JSON, object)), wrong);
    let event = format!("data: {object}\n\n");
    assert_eq!(pass_all(Asked::Other, EVENTS, &event), Ok(event));
}

#[test]
fn the_id_of_what_is_blocked_is_known() {
    let id = |message: &str| {
        let event = format!("data: {message}\n\n");
        let id = pass_all(Asked::Stream, EVENTS, &event).unwrap_err().id;
        assert_eq!(pass_all(Asked::List, JSON, message).unwrap_err().id, id);
        id.map(|id| String::from_utf8(id.into()).unwrap())
    };
    let with = |id: &str| format!(r#"{{"id": {id} ,"result":[]}}"#);
    for known in ["9007199254740993", "\"a b\"", "\"\u{e9}\"", &format!("\"{}\"", "i".repeat(512))]
    {
        assert_eq!(id(&with(known)).as_deref(), Some(known));
    }
    for unknown in ["null", "{}", "\"\\n\"", &format!("\"{}\"", "i".repeat(513))] {
        assert_eq!(id(&with(unknown)), None, "{unknown}");
    }
    assert_eq!(id(r#"{"result":[],"id":1}"#), None);
    // The id of an earlier event is not that of a later one.
    let stream = "data: {\"id\":1}\n\ndata: {\"result\":[]}\n\n";
    assert_eq!(pass_all(Asked::Stream, EVENTS, stream).unwrap_err().id, None);
}
