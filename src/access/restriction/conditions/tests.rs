//! Tests of conditions.

use std::slice::from_ref;

use super::*;
use crate::json::Integers;

fn read(entry: &str) -> Result<ToolEntry, String> {
    let json = Json::parse(entry.as_bytes()).unwrap();
    ToolEntry::read(&json.root(Integers::Digits)).map_err(|invalid| invalid.to_string())
}

#[track_caller]
fn entry(args: &str) -> ToolEntry {
    read(&format!(r#"{{"name": "t", "args": {args}}}"#)).unwrap()
}

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).unwrap()
}

fn number(text: &str) -> Found {
    Found::Number(text.into())
}

fn text(text: &str) -> Found {
    Found::Text(Some(text.into()))
}

/// Whether a condition on `/a` accepts that.
#[track_caller]
fn accepts(tests: &str, found: &[Found]) -> bool {
    let entry = entry(&format!(r#"[{{"at": "/a", {tests}}}]"#));
    entry.accepts(&Arguments::new(vec![(pointer("/a"), found.to_vec())], None))
}

/// One of every type.
fn all() -> Vec<Found> {
    vec![
        Found::Missing,
        Found::Null,
        Found::Bool(true),
        Found::Bool(false),
        number("1"),
        number("0"),
        text("1"),
        text(""),
        text("true"),
        text("null"),
        Found::Text(None),
        Found::Container,
    ]
}

#[test]
fn a_value_equals_only_one_of_its_type() {
    for (scalar, equal) in [
        ("null", Found::Null),
        ("true", Found::Bool(true)),
        ("false", Found::Bool(false)),
        ("1", number("1")),
        ("0", number("0")),
        (r#""1""#, text("1")),
        (r#""""#, text("")),
        (r#""true""#, text("true")),
        (r#""null""#, text("null")),
    ] {
        for found in all() {
            let is_equal = found == equal;
            assert_eq!(
                accepts(&format!(r#""equals": {scalar}"#), from_ref(&found)),
                is_equal,
                "{scalar} {found:?}"
            );
            let list = format!(r#""in": ["other", {scalar}]"#);
            assert_eq!(accepts(&list, from_ref(&found)), is_equal, "{scalar} {found:?}");
        }
    }
    assert!(!all().iter().any(|found| accepts(r#""in": []"#, from_ref(found))));
}

#[test]
fn numbers_are_equal_however_they_are_spelt() {
    for spelling in ["100", "1e2", "100.0", "10.00E1"] {
        assert!(accepts(r#""equals": 100"#, &[number(spelling)]), "{spelling}");
        assert!(accepts(r#""in": [1e2]"#, &[number(spelling)]), "{spelling}");
    }
    assert!(accepts(r#""equals": 0"#, &[number("-0")]));
    assert!(!accepts(r#""equals": 9007199254740993"#, &[number("9007199254740992")]));
    assert!(accepts(r#""equals": 9007199254740993"#, &[number("9007199254740993")]));
}

#[test]
fn a_glob_is_about_strings() {
    for found in all() {
        let is_text = matches!(found, Found::Text(Some(_)));
        assert_eq!(accepts(r#""glob": "*""#, from_ref(&found)), is_text, "{found:?}");
    }
    assert!(accepts(r#""glob": "/srv/*.txt""#, &[text("/srv/a/b.txt")]));
    assert!(!accepts(r#""glob": "/srv/*""#, &[text("/etc/srv/")]));
    assert!(!accepts(r#""glob": "a""#, &[text("A")]));
}

#[test]
fn bounds_are_about_numbers_and_include_themselves() {
    for found in all() {
        let is_number = matches!(found, Found::Number(_));
        assert_eq!(accepts(r#""min": -5"#, from_ref(&found)), is_number, "{found:?}");
        assert_eq!(accepts(r#""max": 5"#, from_ref(&found)), is_number, "{found:?}");
    }
    for (value, holds) in [
        ("0.99", false),
        ("1", true),
        ("2.5", true),
        ("25e-1", true),
        ("2.51", false),
        ("-1", false),
        ("1e99", false),
    ] {
        assert_eq!(accepts(r#""min": 1, "max": 2.5"#, &[number(value)]), holds, "{value}");
    }
    assert!(!accepts(r#""min": 1"#, &[number("1e99999999999999999999")]));
}

#[test]
fn only_absent_holds_of_what_is_missing() {
    for found in all() {
        assert_eq!(accepts(r#""absent": true"#, from_ref(&found)), found == Found::Missing);
    }
}

#[test]
fn every_value_at_a_pointer_must_pass_and_there_is_at_least_one() {
    assert!(accepts(r#""max": 3"#, &[number("1"), number("3")]));
    assert!(!accepts(r#""max": 3"#, &[number("1"), number("4")]));
    assert!(!accepts(r#""max": 3"#, &[number("1"), Found::Missing]));
    assert!(accepts(r#""absent": true"#, &[Found::Missing, Found::Missing]));
    assert!(!accepts(r#""absent": true"#, &[Found::Missing, Found::Null]));
    for tests in [r#""max": 3"#, r#""absent": true"#] {
        assert!(!accepts(tests, &[]), "{tests}");
    }
}

#[test]
fn nothing_holds_of_what_was_not_looked_for() {
    let other = Arguments::new(vec![(pointer("/b"), vec![Found::Missing])], None);
    assert!(!entry(r#"[{"at": "/a", "absent": true}]"#).accepts(&other));
    assert!(entry(r#"[{"at": "/b", "absent": true}]"#).accepts(&other));
}

#[test]
fn all_conditions_of_an_entry_hold() {
    let arguments = |a: &str, b: &str| {
        Arguments::new(vec![(pointer("/a"), vec![number(a)]), (pointer("/b"), vec![text(b)])], None)
    };
    let entry = entry(
        r#"[{"at": "/a", "min": 1, "max": 2}, {"at": "/b", "glob": "x*"}, {"at": "/a", "in": [2]}]"#,
    );
    assert!(entry.accepts(&arguments("2", "xy")));
    for (a, b) in [("1", "xy"), ("2", "y"), ("3", "xy")] {
        assert!(!entry.accepts(&arguments(a, b)), "{a} {b}");
    }
}

#[test]
fn an_entry_without_conditions_accepts_any_arguments() {
    for members in [r#""name": "t""#, r#""name": "t", "args": []"#] {
        let entry = read(&format!("{{{members}}}")).unwrap();
        assert!(entry.accepts(&Arguments::default()), "{members}");
        assert!(entry.accepts(&Arguments::new(vec![], Some(vec!["a".into()]))), "{members}");
    }
}

#[test]
fn arguments_have_only_listed_names() {
    let only = |list: &str, names: &[&str]| {
        let names = names.iter().map(|name| (*name).into()).collect();
        let entry = read(&format!(r#"{{"name": "t", "only_args": {list}}}"#)).unwrap();
        // Without names, nothing is known of them.
        assert!(!entry.accepts(&Arguments::default()), "{list}");
        entry.accepts(&Arguments::new(vec![], Some(names)))
    };
    assert!(only(r#"["a", "b"]"#, &[]) && only(r#"["a", "b"]"#, &["b"]) && only("[]", &[]));
    for (list, names) in [
        (r#"["a", "b"]"#, &["a", "c"][..]),
        ("[]", &["a"]),
        (r#"["a"]"#, &["A"]),
        (r#"["*"]"#, &["a"]),
    ] {
        assert!(!only(list, names), "{list} {names:?}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for (wrong, start) in [
        (r#"{"args": []}"#, "name: missing"),
        (r#"{"name": 1}"#, "name: expected a string"),
        (r#"{"name": "t", "arg": []}"#, "arg: unknown"),
        (r#"{"name": "t", "args": {}}"#, "args: expected a list"),
        (r#"{"name": "t", "only_args": "a"}"#, "only_args: expected a list"),
        (r#"{"name": "t", "only_args": [1]}"#, "only_args[0]: expected a string"),
        (r#"{"name": "t", "args": [{"equals": 1}]}"#, "args[0].at: missing"),
        (r#"{"name": "t", "args": [{"at": "/a"}]}"#, "args[0]: expected a condition"),
        (
            r#"{"name": "t", "args": [{"at": "a", "equals": 1}]}"#,
            "args[0].at: expected a JSON pointer",
        ),
        (
            r#"{"name": "t", "args": [{"at": "", "equals": 1}]}"#,
            "args[0].at: expected a JSON pointer",
        ),
        (
            r#"{"name": "t", "args": [{"at": "/a", "equals": []}]}"#,
            "args[0].equals: expected a string, a number",
        ),
        (r#"{"name": "t", "args": [{"at": "/a", "in": 1}]}"#, "args[0].in: expected a list"),
        (
            r#"{"name": "t", "args": [{"at": "/a", "in": [{}]}]}"#,
            "args[0].in[0]: expected a string, a number",
        ),
        (
            r#"{"name": "t", "args": [{"at": "/a", "glob": ["a"]}]}"#,
            "args[0].glob: expected a string",
        ),
        (r#"{"name": "t", "args": [{"at": "/a", "min": "1"}]}"#, "args[0].min: expected a number"),
        (
            r#"{"name": "t", "args": [{"at": "/a", "max": 1e300}]}"#,
            "args[0].max: expected a whole number",
        ),
        (
            r#"{"name": "t", "args": [{"at": "/a", "equals": 1e300}]}"#,
            "args[0].equals: expected a whole number",
        ),
        (
            r#"{"name": "t", "args": [{"at": "/a", "absent": false}]}"#,
            "args[0].absent: expected true",
        ),
        (r#"{"name": "t", "args": [{"at": "/a", "absent": 1}]}"#, "args[0].absent: expected true"),
        (r#"{"name": "t", "args": [{"at": "/a", "regex": "."}]}"#, "args[0].regex: unknown"),
        ("1", "expected an object"),
    ] {
        let refused = read(wrong).unwrap_err();
        assert!(refused.starts_with(start), "{wrong}: {refused}");
    }
}

#[test]
fn conditions_that_nothing_meets_are_mistakes() {
    let is_mistake = |members: &str| {
        let entry = read(&format!(r#"{{"name": "t", {members}}}"#)).unwrap();
        entry.mistake().is_some()
    };
    for tests in [
        r#""min": 2, "max": 1"#,
        r#""in": []"#,
        r#""equals": 1, "in": [2, "1"]"#,
        r#""equals": "a", "glob": "b*""#,
        r#""in": [1, 2], "min": 3"#,
        r#""glob": "*", "max": 1"#,
        r#""absent": true, "equals": null"#,
        r#""absent": true, "glob": "*""#,
        r#""absent": true, "max": 1"#,
    ] {
        assert!(is_mistake(&format!(r#""args": [{{"at": "/a", {tests}}}]"#)), "{tests}");
    }
    for tests in [
        r#""min": 1, "max": 1"#,
        r#""equals": null"#,
        r#""equals": 1, "in": [2, 1.0], "min": 1"#,
        r#""in": ["a", "ba"], "glob": "b*""#,
        r#""glob": "a""#,
        r#""absent": true"#,
        r#""max": -1"#,
    ] {
        assert!(!is_mistake(&format!(r#""args": [{{"at": "/a", {tests}}}]"#)), "{tests}");
    }
    assert!(is_mistake(r#""args": [{"at": "/a/b", "max": 1}], "only_args": ["b"]"#));
    assert!(!is_mistake(r#""args": [{"at": "/a/b", "max": 1}], "only_args": ["b", "a"]"#));
    assert!(!is_mistake(r#""args": [{"at": "/a", "absent": true}], "only_args": ["b"]"#));
    assert!(!is_mistake(r#""only_args": []"#));
}
