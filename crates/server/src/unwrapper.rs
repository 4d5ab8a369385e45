//! Finds audit lines in what proxies and container runtimes wrap around them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Deserializer, Value};

/// What an audit line begins with.
const OPEN: &str = r#"{"vkey":""#;

/// The name of its first member.
const NAME: &str = "vkey";

/// How many times a line may be wrapped in JSON: by the proxy's own log, and by the runtime of the container.
const MAX_WRAPPINGS: usize = 3;

/// The most bytes of a line that comes in parts.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// Finds audit lines in one log, which may be:
///
/// - an access log of a proxy, or its own log with whatever prefix and suffix, as text or as JSON;
/// - a log of Kubernetes (the CRI format: time, stream, `F` or `P`, text) or of Docker (`json-file`) with any of these
///   in it. Both cut long lines into parts, which are put together again.
#[derive(Debug, Default)]
pub struct Unwrapper {
    /// The beginnings of lines that are not complete, by stream.
    pending: BTreeMap<String, String>,
}

/// What a line of a log is.
enum Piece<'a> {
    /// A whole line.
    Whole(Cow<'a, str>),
    /// A part of a line on a stream, and whether it is the last.
    Part { stream: String, text: String, is_last: bool },
}

impl Unwrapper {
    /// An unwrapper in the state that [`Unwrapper::pending`] tells. A text that it did not write is the empty state.
    pub fn resume(pending: &str) -> Self {
        Self { pending: serde_json::from_str(pending).unwrap_or_default() }
    }

    /// The beginnings of lines that are not complete, as JSON; empty if there are none.
    pub fn pending(&self) -> String {
        if self.pending.values().all(String::is_empty) {
            return String::new();
        }
        serde_json::to_string(&self.pending).unwrap_or_default()
    }

    /// The audit line that a line of the log contains or completes; `None` if there is none. What begins like an audit
    /// line and is not valid JSON is returned as it is.
    pub fn unwrap<'a>(&mut self, line: &'a str) -> Option<Cow<'a, str>> {
        match piece(line) {
            Piece::Whole(text) => match text {
                Cow::Borrowed(text) => find(text, MAX_WRAPPINGS),
                Cow::Owned(text) => {
                    find(&text, MAX_WRAPPINGS).map(|found| found.into_owned().into())
                }
            },
            Piece::Part { stream, text, is_last } => {
                let pending = self.pending.entry(stream).or_default();
                if pending.len().saturating_add(text.len()) <= MAX_PENDING_BYTES {
                    pending.push_str(&text);
                }
                let whole = is_last.then(|| std::mem::take(pending))?;
                find(&whole, MAX_WRAPPINGS).map(|found| found.into_owned().into())
            }
        }
    }
}

fn piece(line: &str) -> Piece<'_> {
    cri(line).or_else(|| docker(line)).unwrap_or(Piece::Whole(Cow::Borrowed(line)))
}

/// `2026-01-31T12:00:00.000000000Z stdout F text`.
fn cri(line: &str) -> Option<Piece<'_>> {
    let mut fields = line.splitn(4, ' ');
    let (_time, stream, tag, text) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if !is_stream(stream) {
        return None;
    }
    // A tag may be followed by others, after colons.
    let is_last = match tag.split(':').next()? {
        "F" => true,
        "P" => false,
        _ => return None,
    };
    Some(Piece::Part { stream: stream.to_owned(), text: text.to_owned(), is_last })
}

/// `{"log":"text\n","stream":"stdout","time":"…"}`. A part lacks the line end.
fn docker(line: &str) -> Option<Piece<'_>> {
    if !line.trim_start().starts_with(r#"{"log":"#) {
        return None;
    }
    let Value::Object(mut members) = serde_json::from_str(line).ok()? else { return None };
    let Some(Value::String(mut text)) = members.remove("log") else { return None };
    let Some(Value::String(stream)) = members.remove("stream") else { return None };
    if !is_stream(&stream) {
        return None;
    }
    let is_last = remove_line_end(&mut text);
    Some(Piece::Part { stream, text, is_last })
}

/// Whether a name is that of one of the two streams of a container: no other is remembered.
fn is_stream(name: &str) -> bool {
    matches!(name, "stdout" | "stderr")
}

/// Removes the line end. Returns whether there was one.
fn remove_line_end(text: &mut String) -> bool {
    let is_ended = text.ends_with('\n');
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    is_ended
}

/// The audit line in a text, without what stands before and after it. What is like one, but not as a gate writes it, is
/// returned too, because a JSON parser reads it as one. So is a text with several, which no gate writes.
fn find(text: &str, wrappings: usize) -> Option<Cow<'_, str>> {
    if let Some((before, after)) = text.split_once(OPEN) {
        let line = text.get(before.len()..)?;
        return Some(Cow::Borrowed(if after.contains(OPEN) { line } else { one_value(line) }));
    }
    // The name may be escaped.
    if wrappings == 0 || !(text.contains(NAME) || text.contains("\\u")) {
        return None;
    }
    let from_start = text.get(text.find('{')?..)?;
    let mut values = Deserializer::from_str(from_start).into_iter::<Value>();
    let value = values.next()?.ok()?;
    match value.get(NAME) {
        Some(_) => from_start.get(..values.byte_offset()).map(Cow::Borrowed),
        None => in_strings(&value, wrappings - 1).map(Cow::Owned),
    }
}

/// The first audit line in the strings of a value.
fn in_strings(value: &Value, wrappings: usize) -> Option<String> {
    match value {
        Value::String(text) => find(text, wrappings).map(Cow::into_owned),
        Value::Object(members) => members.values().find_map(|value| in_strings(value, wrappings)),
        Value::Array(items) => items.iter().find_map(|value| in_strings(value, wrappings)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// The first JSON value of a text; all of the text if there is none.
fn one_value(text: &str) -> &str {
    let mut values = Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => text.get(..values.byte_offset()).unwrap_or(text),
        Some(Err(_)) | None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"vkey":"2","path":"/v1/{\"vkey\":\"2\"}","mac":"x"}"#;

    fn quoted(text: &str) -> String {
        serde_json::to_string(text).unwrap()
    }

    fn unwrapped(log: &[String]) -> Vec<String> {
        let mut unwrapper = Unwrapper::default();
        log.iter().filter_map(|line| Some(unwrapper.unwrap(line)?.into_owned())).collect()
    }

    #[test]
    fn an_audit_line_is_found_in_all_that_is_wrapped_around_it() {
        let envoy = format!(
            "[2026-11-30 04:10:54.123][17][warning][wasm] [wasm.cc:1] wasm log vkey: {LINE}"
        );
        let envoy_json =
            format!(r#"{{"level":"warning","msg":{}}}"#, quoted(&format!("wasm log: {LINE}")));
        let nginx = format!(
            "2026/11/30 04:10:54 [info] 7#0: *1 {LINE} while logging request, client: 127.0.0.1"
        );
        for text in [LINE, &envoy, &envoy_json, &nginx] {
            let cri = format!("2026-11-30T04:10:54.123456789Z stdout F {text}");
            let docker = format!(
                r#"{{"log":{},"stream":"stderr","time":"2026-11-30T04:10:54.123456789Z"}}"#,
                quoted(&format!("{text}\n"))
            );
            for line in [text, &cri, &docker] {
                assert_eq!(unwrapped(&[line.to_owned()]), [LINE], "{line}");
            }
        }
    }

    /// A JSON parser reads these as audit lines, so they are verified too.
    #[test]
    fn what_is_like_an_audit_line_is_found_in_other_spellings_too() {
        for like in [
            r#"{ "vkey":"2"}"#,
            r#"{"vkey" :"2"}"#,
            r#"{"\u0076key":"2"}"#,
            r#"{"ts":"x","vkey":"2"}"#,
        ] {
            let twice = quoted(&format!(r#"{{"msg":{}}}"#, quoted(like)));
            let wrapped = format!(r#"{{"log":{twice},"a":1}}"#);
            for line in [like.to_owned(), format!("t stdout F {like}"), wrapped] {
                assert_eq!(unwrapped(std::slice::from_ref(&line)), [like], "{line}");
            }
        }
        let two = format!("{LINE}{LINE}");
        assert_eq!(unwrapped(std::slice::from_ref(&two)), [two], "neither is dropped");
    }

    #[test]
    fn only_the_two_streams_of_a_container_are_remembered() {
        let mut unwrapper = Unwrapper::default();
        for number in 0..1000 {
            unwrapper.unwrap(&format!(r#"{{"log":"x","stream":"s{number}"}}"#));
        }
        assert!(unwrapper.pending.is_empty());
    }

    #[test]
    fn parts_are_put_together_by_stream() {
        let (begin, end) = LINE.split_at(20);
        let cri = [
            format!("t stdout P {begin}"),
            format!("t stderr F {LINE}"),
            format!("t stdout F {end}"),
        ];
        assert_eq!(unwrapped(&cri), [LINE, LINE]);
        let part = |text: &str, stream: &str| {
            format!(r#"{{"log":{},"stream":"{stream}","time":"t"}}"#, quoted(text))
        };
        let docker = [
            part(begin, "stdout"),
            part(&format!("{LINE}\n"), "stderr"),
            part(&format!("{end}\n"), "stdout"),
        ];
        assert_eq!(unwrapped(&docker), [LINE, LINE]);
    }

    #[test]
    fn what_is_no_audit_line_is_nothing_and_a_damaged_one_is_shown() {
        for line in
            ["", "GET /v1 200", r#"{"log":"x\n","stream":"stdout"}"#, r#"{"key":"vkey"}"#, "{"]
        {
            assert_eq!(unwrapped(&[line.to_owned()]), [""; 0], "{line}");
        }
        let damaged = LINE.strip_suffix('}').unwrap();
        assert_eq!(unwrapped(&[damaged.to_owned()]), [damaged]);
    }

    #[test]
    fn a_line_that_never_ends_takes_a_bounded_memory() {
        let mut unwrapper = Unwrapper::default();
        for _ in 0..100 {
            let part = format!("t stdout P {}", "x".repeat(100_000));
            assert_eq!(unwrapper.unwrap(&part), None);
        }
        assert!(unwrapper.pending["stdout"].len() <= MAX_PENDING_BYTES);
    }
}
