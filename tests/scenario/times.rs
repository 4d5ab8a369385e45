//! Removes values that depend on the time of a response, for machines whose clock cannot be pinned.

use vkey::json::Json;

/// A header value without the seconds until a reset.
pub(super) fn untimed_header(name: &str, value: &str) -> String {
    match name {
        "retry-after" => "seconds".to_owned(),
        "ratelimit" => untimed_text(value, ";t="),
        _ => value.to_owned(),
    }
}

/// A document without the seconds until a reset: `reset_secs` of usage, and those in messages.
pub(super) fn untimed(json: &Json) -> Json {
    match json {
        Json::Object(members) => {
            let untimed = |(name, value): &(String, Json)| match &**name {
                "reset_secs" if *value != Json::Null => (name.clone(), "seconds".into()),
                _ => (name.clone(), untimed(value)),
            };
            Json::Object(members.iter().map(untimed).collect())
        }
        Json::Array(items) => Json::Array(items.iter().map(untimed).collect()),
        Json::String(text) => Json::String(untimed_text(text, " in ")),
        other => other.clone(),
    }
}

/// Removes the digits after each `mark`.
fn untimed_text(text: &str, mark: &str) -> String {
    let mut parts = text.split(mark);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + mark + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

#[test]
fn only_seconds_until_a_reset_are_removed() {
    let usage = |reset: &str, used: u64| {
        let text = format!(r#"{{"limits": [{{"used": {used}, "reset_secs": {reset}}}]}}"#);
        untimed(&Json::parse(text.as_bytes()).unwrap())
    };
    assert_eq!(usage("1", 2), usage("30", 2));
    assert_ne!(usage("1", 2), usage("1", 3));
    assert_ne!(usage("1", 2), usage("null", 2));
    let message = |text: &str| untimed(&text.into());
    assert_eq!(message("of 3, free again in 10 s"), message("of 3, free again in 9 s"));
    assert_ne!(message("of 3, free again in 10 s"), message("of 4, free again in 10 s"));
    let fields = |text| untimed_header("ratelimit", text);
    assert_eq!(fields(r#""a";r=3;t=10, "b";r=1;t=5"#), fields(r#""a";r=3;t=9, "b";r=1;t=6"#));
    assert_ne!(fields(r#""a";r=3;t=10"#), fields(r#""a";r=2;t=10"#));
    assert_ne!(fields(r#""a";r=3;t=10"#), fields(r#""a";r=3"#));
    assert_ne!(untimed_header("ratelimit-policy", "10"), untimed_header("ratelimit-policy", "9"));
}
