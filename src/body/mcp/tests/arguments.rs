//! What is found in the arguments of a call.

use super::*;
use crate::body::json::MAX_TEXT_BYTES;

fn pointers(texts: &[&str]) -> Vec<Pointer> {
    texts.iter().map(|text| Pointer::parse(text).unwrap()).collect()
}

fn call(arguments: &str) -> String {
    request("tools/call", &format!(r#""name":"t","arguments":{arguments}"#))
}

/// What is wanted of the arguments of a call of a tool.
fn arguments(texts: &[&str], arguments: &str) -> Result<Arguments, Unreadable> {
    let wanted = Wanted::new(&pointers(texts), false).unwrap();
    read_for(wanted, &call(arguments)).map(|message| message.arguments)
}

/// What is found at one pointer.
fn found(text: &str, json: &str) -> Result<Vec<Found>, Unreadable> {
    let pointer = Pointer::parse(text).unwrap();
    arguments(&[text], json).map(|arguments| arguments.at(&pointer).unwrap().to_vec())
}

fn names(json: &str) -> Result<Vec<Box<str>>, Unreadable> {
    let wanted = Wanted::new(&[], true).unwrap();
    read_for(wanted, &call(json))
        .map(|message| message.arguments.names().unwrap_or_default().to_vec())
}

fn number(text: &str) -> Found {
    Found::Number(text.into())
}

fn text(text: &str) -> Found {
    Found::Text(Some(text.into()))
}

#[test]
fn each_type_of_value_is_found() {
    for (value, expected) in [
        ("null", Found::Null),
        ("true", Found::Bool(true)),
        ("false", Found::Bool(false)),
        ("-1.50E+2", number("-1.50E+2")),
        (r#""a\u00e9\n""#, text("aé\n")),
        ("{}", Found::Container),
        ("[1]", Found::Container),
    ] {
        let json = format!(r#"{{"b":{{"a":0}},"a":{value},"c":1}}"#);
        assert_eq!(found("/a", &json), Ok(vec![expected]), "{value}");
    }
    assert_eq!(found("/a/b", r#"{"b":1,"a":{"b":2}}"#), Ok(vec![number("2")]));
    assert_eq!(found("/a~1b/~0", r#"{"a/b":{"~":2}}"#), Ok(vec![number("2")]));
    assert_eq!(found("/", r#"{"":2}"#), Ok(vec![number("2")]));
}

#[test]
fn what_is_absent_is_missing() {
    for (pointer, json) in [
        ("/a", "{}"),
        ("/a", "null"),
        ("/a", r#"{"b":1}"#),
        ("/a/b", "null"),
        ("/a/b", "{}"),
        ("/a/b", r#"{"a":{}}"#),
        ("/a/b", r#"{"a":{"c":{"b":1}}}"#),
        ("/a/b", r#"{"a":null}"#),
        ("/a/*", "{}"),
        ("/a/*", r#"{"a":[]}"#),
        ("/a/*", r#"{"a":null}"#),
        ("/a/*/b", r#"{"a":[]}"#),
        ("/a/*/*", r#"{"a":[[]]}"#),
    ] {
        assert_eq!(found(pointer, json), Ok(vec![Found::Missing]), "{pointer} {json}");
    }
    let wanted = Wanted::new(&pointers(&["/a/b", "/a", "/c/*/d"]), true).unwrap();
    let without = read_for(wanted, &request("tools/call", r#""name":"t""#)).unwrap().arguments;
    for pointer in pointers(&["/a/b", "/a", "/c/*/d"]) {
        assert_eq!(without.at(&pointer), Some(&[Found::Missing][..]));
    }
    assert_eq!(without.at(&Pointer::parse("/c").unwrap()), None);
    assert_eq!(without.names(), Some(&[][..]));
}

/// Servers may read JSON in a string, or take an object for an array of one.
#[test]
fn what_is_not_of_the_needed_type_is_not_missing() {
    for (pointer, json) in [
        ("/a/b", r#"{"a":"{\"b\":1}"}"#),
        ("/a/b", r#"{"a":""}"#),
        ("/a/b", r#"{"a":0}"#),
        ("/a/b", r#"{"a":false}"#),
        ("/a/b", r#"{"a":[]}"#),
        ("/a/b", r#"{"a":[{"b":1}]}"#),
        ("/a/b/c/*", r#"{"a":[{"b":1}]}"#),
        ("/a/0", r#"{"a":[1]}"#),
        ("/a/*", r#"{"a":{}}"#),
        ("/a/*", r#"{"a":{"*":1}}"#),
        ("/a/*", r#"{"a":1}"#),
        ("/*", r#"{"*":[1]}"#),
    ] {
        assert_eq!(found(pointer, json), Ok(vec![Found::Container]), "{pointer} {json}");
    }
}

#[test]
fn a_star_finds_something_for_each_element() {
    use Found::{Container, Missing, Null};
    for (pointer, json, expected) in [
        (
            "/a/*",
            r#"{"a":[1,null,"x",{},[2]]}"#,
            vec![number("1"), Null, text("x"), Container, Container],
        ),
        (
            "/a/*/b",
            r#"{"a":[{"b":1},{},{"b":null},3,[{"b":4}],{"c":{"b":5}},{"b":6}]}"#,
            vec![number("1"), Missing, Null, Container, Container, Missing, number("6")],
        ),
        (
            "/a/*/*",
            r#"{"a":[[1,2],[],3,[[4]]]}"#,
            vec![number("1"), number("2"), Missing, Container, Container],
        ),
        ("/a/*/b/*", r#"{"a":[{"b":[1]},{"b":[]},{}]}"#, vec![number("1"), Missing, Missing]),
        (
            "/a/*/b/c",
            r#"{"a":[{"b":{"c":1}},{"b":{}},{"b":2}]}"#,
            vec![number("1"), Missing, Container],
        ),
    ] {
        assert_eq!(found(pointer, json), Ok(expected), "{pointer} {json}");
    }
}

#[test]
fn pointers_with_the_same_beginning_do_not_disturb_each_other() {
    let texts = ["/a/b", "/a", "/a/*", "/a/*/b", "/a/b/c", "/d", "/a"];
    let found = |json: &str| {
        let arguments = arguments(&texts, json).unwrap();
        let at = |text: &&str| arguments.at(&Pointer::parse(text).unwrap()).unwrap().to_vec();
        texts.iter().map(at).collect::<Vec<_>>()
    };
    let container = vec![Found::Container];
    let one = vec![number("1")];
    assert_eq!(
        found(r#"{"d":1,"a":{"b":{"c":1}}}"#),
        [&container, &container, &container, &container, &one, &one, &container].map(Clone::clone)
    );
    let missing = vec![Found::Missing];
    assert_eq!(
        found(r#"{"a":[{"b":1}]}"#),
        [&container, &container, &container, &one, &container, &missing, &container]
            .map(Clone::clone)
    );
}

#[test]
fn a_text_that_is_too_long_or_flawed_equals_nothing() {
    let long = |len: usize| found("/a", &format!(r#"{{"a":"{}"}}"#, "x".repeat(len)));
    assert_eq!(long(MAX_TEXT_BYTES), Ok(vec![text(&"x".repeat(MAX_TEXT_BYTES))]));
    assert_eq!(long(MAX_TEXT_BYTES + 1), Ok(vec![Found::Text(None)]));
    assert_eq!(found("/a", r#"{"a":"x\u0000"}"#), Ok(vec![Found::Text(None)]));
    assert_eq!(found("/a", r#"{"a":"\udc00"}"#), Ok(vec![Found::Text(None)]));
}

#[test]
fn the_arguments_are_an_object() {
    for json in ["[]", "1", r#""x""#, "true", r#"[{"a":1}]"#] {
        assert_eq!(found("/a", json), Err(Unreadable::WrongType), "{json}");
        assert_eq!(arguments(&[], json).err(), Some(Unreadable::WrongType), "{json}");
    }
}

#[test]
fn arguments_may_come_before_the_tool_and_the_method() {
    let wanted = || Wanted::new(&pointers(&["/a"]), false).unwrap();
    let body = |method: &str, json: &str| {
        format!(
            r#"{{"params":{{"arguments":{json},"name":"t"}},"method":"{method}","id":1,"jsonrpc":"2.0"}}"#
        )
    };
    let pointer = Pointer::parse("/a").unwrap();
    let message = read_for(wanted(), &body("tools/call", r#"{"a":1}"#)).unwrap();
    assert_eq!(message.arguments.at(&pointer), Some(&[number("1")][..]));
    // Those of another method are its own affair.
    for json in [r#"{"a":1}"#, r#"{"A":1}"#, "[]"] {
        let message = read_for(wanted(), &body("prompts/get", json)).unwrap();
        assert_eq!(message.arguments, Arguments::default());
    }
    let refused = read_for(wanted(), &body("tools/call", r#"{"A":1}"#)).err();
    assert_eq!(refused, Some(Unreadable::SimilarMember));
}

#[test]
fn a_name_that_another_reader_takes_for_a_wanted_one_is_refused() {
    for (wanted, json) in [
        ("/name", r#"{"Name":1}"#),
        ("/Name", r#"{"name":1}"#),
        ("/name", r#"{"name":1,"NAME":2}"#),
        ("/task", r#"{"ta\u017f\u212a":1}"#),
        ("/ta\u{17f}\u{212a}", r#"{"TASK":1}"#),
        ("/name", r#"{"na\u0000me":1}"#),
        ("/name", r#"{"name\ud800":1}"#),
        ("/n\u{fffd}", r#"{"n\ud800":1}"#),
        ("/größe", r#"{"GRÖßE":1}"#),
        ("/имя", r#"{"ИМЯ":1}"#),
        ("/\u{b5}m", r#"{"\u03bcm":1}"#),
        ("/a/name", r#"{"a":{"Name":1}}"#),
        ("/a/*/name", r#"{"a":[{"name":1},{"Name":1}]}"#),
        ("/name", r#"{"__proto__":{"name":1}}"#),
        ("/a/*/name", r#"{"a":[{"__pr\u006fto__":{"name":1}}]}"#),
    ] {
        assert_eq!(found(wanted, json), Err(Unreadable::SimilarMember), "{wanted} {json}");
    }
    for (wanted, json) in [
        ("/name", r#"{"name":1,"namE2":2}"#),
        ("/a/name", r#"{"a":{"name":1,"b":{"Name":2}},"Name":3}"#),
        ("/天気", r#"{"場所":2,"天気":1}"#),
        ("/имя", r#"{"имя":1,"возраст":2}"#),
    ] {
        assert_eq!(found(wanted, json), Ok(vec![number("1")]), "{wanted} {json}");
    }
    // Each is spelled as it is wanted.
    let both = arguments(&["/name", "/Name"], r#"{"name":1,"Name":2}"#).unwrap();
    assert_eq!(both.at(&Pointer::parse("/Name").unwrap()), Some(&[number("2")][..]));
    let twice = found("/name", r#"{"name":1,"n\u0061me":1}"#);
    assert_eq!(twice, Err(Unreadable::DuplicateMember));
    let long = format!(r#"{{"{}":1}}"#, "K".repeat(MAX_TEXT_BYTES + 1));
    assert_eq!(found("/a", &long), Err(Unreadable::TooLong));
    assert_eq!(found("/b/a", &format!(r#"{{"b":{long}}}"#)), Err(Unreadable::TooLong));
    assert!(found("/b/a", &format!(r#"{{"c":{long}}}"#)).is_ok());
}

#[test]
fn the_names_of_arguments_are_kept_up_to_a_bound() {
    let nested = names(r#"{"a":{"c":1},"b\u0061":[{"d":2}]}"#).unwrap();
    assert_eq!(nested, [Box::from("a"), Box::from("ba")]);
    assert_eq!(names("{}"), Ok(vec![]));
    assert_eq!(names(r#"{"a\u0000":1}"#), Err(Unreadable::FlawedText));
    let long = |len: usize| names(&format!(r#"{{"{}":1}}"#, "n".repeat(len)));
    assert!(long(MAX_TEXT_BYTES).is_ok());
    assert_eq!(long(MAX_TEXT_BYTES + 1), Err(Unreadable::TooLong));
    let many = |count: usize| {
        let members: Vec<String> = (0..count).map(|n| format!(r#""{n}":0"#)).collect();
        names(&format!("{{{}}}", members.join(",")))
    };
    assert_eq!(many(MAX_NAMES).unwrap().len(), MAX_NAMES);
    assert_eq!(many(MAX_NAMES + 1), Err(Unreadable::TooManyArguments));
    // Nobody asked for them.
    let quiet = arguments(&["/a"], r#"{"a":1,"b":2}"#).unwrap();
    assert_eq!(quiet.names(), None);
}

#[test]
fn the_values_that_are_found_are_bounded() {
    let list = |count: usize, element: &str| {
        let list = vec![element; count].join(",");
        format!(r#"{{"a":[{list}]}}"#)
    };
    let count = |json: &str| arguments(&["/a/*", "/a/*/b"], json);
    let half = MAX_FOUND / 2;
    let star = Pointer::parse("/a/*/b").unwrap();
    for element in ["1", r#"{"b":1}"#, "[]"] {
        let most = count(&list(half, element)).unwrap();
        assert_eq!(most.at(&star).map(<[Found]>::len), Some(half));
        let more = count(&list(half + 1, element)).err();
        assert_eq!(more, Some(Unreadable::TooManyArguments), "{element}");
    }
}

#[test]
fn the_memory_for_what_is_found_is_bounded() {
    let text = "x".repeat(MAX_TEXT_BYTES);
    let list = |count: usize| found("/a/*", &format!(r#"{{"a":{:?}}}"#, vec![&text; count]));
    let most = MAX_FOUND_BYTES / MAX_TEXT_BYTES;
    assert_eq!(list(most).map(|found| found.len()), Ok(most));
    assert_eq!(list(most + 1), Err(Unreadable::TooManyArguments));
    // Names take from the same.
    let name = "n".repeat(MAX_TEXT_BYTES);
    let json = format!(r#"{{"{name}":1,"a":{:?}}}"#, vec![&text; most]);
    let wanted = Wanted::new(&pointers(&["/b"]), true).unwrap();
    assert!(read_for(wanted, &call(&json)).is_ok());
    let wanted = Wanted::new(&pointers(&["/a/*"]), true).unwrap();
    assert_eq!(read_for(wanted, &call(&json)).err(), Some(Unreadable::TooManyArguments));
}

#[test]
fn pointers_lead_through_a_bounded_number_of_places() {
    let texts: Vec<String> = (0..=MAX_PLACES).map(|n| format!("/{n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let most = Wanted::new(&pointers(&texts[..MAX_PLACES]), false).unwrap();
    assert!(Wanted::new(&pointers(&texts), false).is_none());
    // The last place has a spot of its own.
    let last = format!(r#"{{"{}":1,"{}":2}}"#, MAX_PLACES - 1, MAX_PLACES);
    let arguments = read_for(most, &call(&last)).unwrap().arguments;
    let found = pointers(&texts[..MAX_PLACES]);
    let found = found.iter().filter(|pointer| arguments.at(pointer) == Some(&[number("1")]));
    assert_eq!(found.map(Pointer::as_str).collect::<Vec<_>>(), [texts[MAX_PLACES - 1]]);
    // Pointers share the places that they have in common.
    let shared: Vec<String> = (0..MAX_PLACES - 2).map(|n| format!("/a/b/{n}")).collect();
    let shared: Vec<&str> = shared.iter().map(String::as_str).collect();
    assert!(Wanted::new(&pointers(&shared), false).is_some());
}
