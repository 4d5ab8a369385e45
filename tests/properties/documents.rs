//! JSON documents, whole and damaged, in any pieces, read by the scanner of bodies and by serde_json.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use serde::de::IgnoredAny;
use vkey::body::json::{Limits, Names, Reader, Scanner, Span, Spot, Unreadable};

use super::*;

/// Receives every value.
#[derive(Clone, Debug, Default, PartialEq)]
struct Everything {
    values: Vec<(Seen, Span)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    /// Its first 512 bytes, and whether it is flawed.
    Text(Vec<u8>, bool),
    Open(bool),
    Close(bool),
}

const INNER: Spot = Spot(2);

/// All that follows from reading a document: the values, the tokens, and the error.
type Outcome = (Everything, u64, Result<(), Unreadable>);

impl Reader for Everything {
    fn names(&self, _: Spot) -> &'static Names {
        const ANY: Names = Names::new(&[("model", Spot(3)), ("maxTokens", Spot(4))], INNER);
        &ANY
    }

    fn items(&self, _: Spot) -> Spot {
        INNER
    }

    fn value(
        &mut self,
        _: Spot,
        value: vkey::body::json::Value<'_>,
        span: Span,
    ) -> Result<(), Unreadable> {
        use vkey::body::json::Value as Found;
        let seen = match value {
            Found::Null => Seen::Null,
            Found::Bool(value) => Seen::Bool(value),
            // A number that no double can hold is left to the reader of the number.
            Found::Number(text) => serde_json::from_slice(text).map_or(Seen::Null, Seen::Number),
            Found::Text(text) => Seen::Text(text.bytes.to_vec(), text.is_flawed),
            Found::OpenObject => Seen::Open(true),
            Found::CloseObject => Seen::Close(true),
            Found::OpenArray => Seen::Open(false),
            Found::CloseArray => Seen::Close(false),
        };
        self.values.push((seen, span));
        Ok(())
    }
}

/// Nothing but what serde_json limits too.
const WIDE: Limits = Limits { max_depth: 127, max_open_keys: u32::MAX };

fn read(scanner: &mut Scanner, pieces: &[&[u8]]) -> Outcome {
    let mut seen = Everything::default();
    let fed = pieces.iter().try_for_each(|piece| scanner.feed(piece, &mut seen));
    let result = fed.and_then(|()| scanner.finish(&mut seen));
    (seen, scanner.text_tokens(), result)
}

fn read_whole(document: &[u8]) -> Outcome {
    read(&mut Scanner::new(WIDE), &[document])
}

/// White space between tokens.
fn space() -> impl Strategy<Value = &'static str> + Clone {
    select(&["", "", "", " ", "\n    ", "\t\r\n"][..])
}

/// A string, as it is written.
fn string() -> impl Strategy<Value = String> + Clone {
    let usual =
        select(&["a", "b ", "model", "The quick brown fox. ", "\u{e9}", "\u{4e2d}\u{6587}"][..]);
    let unusual = select(
        &[
            "\\n", "\\\"", "\\\\", "\\/", "\\b\\f\\r\\t", "\\u0041", "\\u00e9", "\\u00E9",
            "\\uffff", "\\ud83d\\ude00", "\u{1f600}", "\u{7f}", "\u{2028}", "\u{feff}",
            "\u{10ffff}", "{[,:]}", "'",
        ][..],
    );
    let flawed = select(&["\\u0000", "\\ud83d", "\\ude00", "\\ud83d\\ud83d\\ude00", "\\ufffd"][..]);
    let piece = prop_oneof![60 => usual, 20 => unusual, 1 => flawed];
    vec(piece, 0..8).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// The name of a member, as it is written. Few objects have one twice.
fn name() -> impl Strategy<Value = String> + Clone {
    let decisive =
        select(&["model", "maxTokens", "mod\\u0065l", "Model", "max_tokens", "modelx"][..]);
    prop_oneof![
        8 => any::<u16>().prop_map(|number| format!("\"m{number}\"")),
        4 => string(),
        1 => decisive.prop_map(|name| format!("\"{name}\"")),
    ]
}

fn atom() -> impl Strategy<Value = String> + Clone {
    let fixed =
        &["null", "true", "false", "0", "-0", "1.5e+3", "1E5", "0.25", "18446744073709551616"][..];
    prop_oneof![
        select(fixed).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        (-1e9..1e9_f64).prop_map(|number| number.to_string()),
    ]
}

/// Something with white space around it.
fn spaced(text: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = String> + Clone {
    (space(), text, space()).prop_map(|(before, text, after)| format!("{before}{text}{after}"))
}

/// A document of which most are valid, and few have what is refused beyond RFC 8259.
fn document() -> impl Strategy<Value = String> {
    let leaf = spaced(prop_oneof![atom(), string()]);
    leaf.prop_recursive(5, 60, 8, |inner| {
        let items = vec(inner.clone(), 0..8).prop_map(|items| format!("[{}]", items.join(",")));
        let member = (spaced(name()), inner).prop_map(|(name, value)| format!("{name}:{value}"));
        let members = vec(member, 0..8).prop_map(|members| format!("{{{}}}", members.join(",")));
        spaced(prop_oneof![items, members])
    })
}

/// A document with some bytes changed, inserted or removed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let bytes = &b"\"\\{}[]:,0919eE+-.ntu \n\0\x1f\x7f\x80\xbf\xc3\xe2\xed\xf0\xff"[..];
    let change = (any::<Index>(), select(bytes), 0..4_u8);
    (document(), vec(change, 0..4)).prop_map(|(document, changes)| {
        let mut bytes = document.into_bytes();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at % 3 == 0 => bytes.truncate(at),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

/// The pieces of something.
pub(crate) fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts = Vec::from_iter(cuts.iter().map(|cut| cut.index(bytes.len() + 1)));
    cuts.sort_unstable();
    let mut from = 0;
    let mut pieces =
        Vec::from_iter(cuts.into_iter().map(|cut| &bytes[std::mem::replace(&mut from, cut)..cut]));
    pieces.push(&bytes[from..]);
    pieces
}

/// What is to be seen of a value, in order.
fn expected(json: &Json, seen: &mut Vec<Seen>) {
    match json {
        Json::Null => seen.push(Seen::Null),
        Json::Bool(value) => seen.push(Seen::Bool(*value)),
        Json::Number(number) => seen.push(Seen::Number(number.clone())),
        Json::String(text) => {
            let bytes = text.as_bytes();
            seen.push(Seen::Text(bytes[..bytes.len().min(512)].to_vec(), text.contains('\0')));
        }
        Json::Array(items) => {
            seen.push(Seen::Open(false));
            items.iter().for_each(|item| expected(item, seen));
            seen.push(Seen::Close(false));
        }
        Json::Object(members) => {
            seen.push(Seen::Open(true));
            members.iter().for_each(|(_, value)| expected(value, seen));
            seen.push(Seen::Close(true));
        }
    }
}

/// Whether an object of a value has a member that a reader which folds names could take for a known one.
fn has_similar(json: &Json) -> bool {
    let fold = |name: &str| {
        let chars = name.chars().filter(|char| !matches!(char, '\0' | '\u{fffd}'));
        let folded = chars.map(|char| match char {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            char => char.to_ascii_lowercase(),
        });
        folded.collect::<String>()
    };
    let is_similar = |name: &str| {
        let is_known = |known: &&str| *known != name && fold(known) == fold(name);
        ["model", "maxTokens"].iter().any(is_known)
    };
    match json {
        Json::Array(items) => items.iter().any(has_similar),
        Json::Object(members) => {
            members.iter().any(|(name, value)| is_similar(name) || has_similar(value))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(config())]

    /// All that is JSON in UTF-8, and other documents in one way however they are cut.
    #[test]
    fn a_tolerant_scanner_reads_what_serde_json_reads(
        document in damaged(),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let is_json = str::from_utf8(&document)
            .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        let mut scanner = Scanner::tolerant(WIDE);
        let whole = read(&mut scanner, &[&document]);
        prop_assert!(whole.2.is_ok() || !is_json, "{} {:?}", String::from_utf8_lossy(&document), whole.2);
        for pieces in [pieces(&document, &cuts), document.chunks(1).collect()] {
            scanner.reset();
            prop_assert_eq!(&read(&mut scanner, &pieces), &whole);
        }
    }

    #[test]
    fn values_and_their_places_are_those_of_serde_json(document in damaged()) {
        let (seen, _, result) = read_whole(&document);
        let text = String::from_utf8_lossy(&document);
        let Ok(json) = Json::parse(&document) else {
            // What serde_json refuses and the scanner leaves to its reader: halves of surrogate pairs, and
            // numbers that no double can hold.
            let error = Json::parse(&document).unwrap_err().to_string();
            let left = ["surrogate", "unexpected end of hex escape", "number out of range"];
            prop_assert!(result.is_err() || left.iter().any(|what| error.contains(what)), "{} {}", text, error);
            return Ok(());
        };
        if has_similar(&json) {
            prop_assert_eq!(result, Err(Unreadable::SimilarMember), "{}", text);
            return Ok(());
        }
        prop_assert_eq!(result, Ok(()), "{}", text);
        let mut values = Vec::new();
        expected(&json, &mut values);
        let found = Vec::from_iter(seen.values.iter().map(|(value, _)| value.clone()));
        prop_assert_eq!(found, values, "{}", text);
        for (value, span) in &seen.values {
            let range = usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap();
            let own = Json::parse(&document[range.clone()]);
            prop_assert_eq!(own.is_err(), matches!(value, Seen::Open(_)), "{} {:?}", text, range);
            let own = own.unwrap_or(Json::Null);
            let mut values = Vec::new();
            expected(&own, &mut values);
            let last = values.last().unwrap();
            prop_assert!(matches!(value, Seen::Open(_)) || last == value, "{} {:?}", text, range);
        }
    }

    #[test]
    fn how_a_document_is_cut_makes_no_difference(document in damaged(), cuts in vec(any::<Index>(), 0..20)) {
        let whole = read_whole(&document);
        let mut scanner = Scanner::new(WIDE);
        prop_assert_eq!(&read(&mut scanner, &pieces(&document, &cuts)), &whole);
        scanner.reset();
        prop_assert_eq!(&read(&mut scanner, &Vec::from_iter(document.chunks(1))), &whole);
        // Every cut of a short one.
        for at in 0..if document.len() > 200 { 0 } else { document.len() } {
            let (first, second) = document.split_at(at);
            scanner.reset();
            prop_assert_eq!(&read(&mut scanner, &[first, second]), &whole, "cut at {}", at);
        }
    }

    /// However many members there are, and wherever they are.
    #[test]
    fn a_member_that_is_there_twice_is_found(
        len in 1..200_usize,
        first in any::<Index>(),
        second in any::<Index>(),
        inner in document(),
    ) {
        let mut members = Vec::from_iter((0..len).map(|n| format!("\"{n:x}\":{n}")));
        members.insert(first.index(len), format!("\"inner\":{inner}"));
        let is_readable = read_whole(inner.as_bytes()).2.is_ok();
        let result = |members: &[String]| read_whole(format!("{{{}}}", members.join(",")).as_bytes()).2;
        prop_assert_eq!(result(&members).is_ok(), is_readable);
        if is_readable {
            let twice = members[second.index(len)].replace(':', " : ");
            members.insert(first.index(len), twice);
            prop_assert_eq!(result(&members), Err(Unreadable::DuplicateMember));
        }
    }
}
