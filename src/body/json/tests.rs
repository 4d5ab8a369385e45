use super::*;

/// Records what it is told of members `a` (and `A2`), of `in` and of all elements below.
#[derive(Default)]
struct Recorder {
    seen: Vec<String>,
}

const A: Spot = Spot(2);
const IN: Spot = Spot(3);
const ITEM: Spot = Spot(4);
const OTHER: Spot = Spot(5);

static ROOT_NAMES: Names =
    Names::new(&[("a", A), ("aTwo", A), ("in", IN), ("task", OTHER)], Spot::IGNORED);
static OTHER_NAMES: Names = Names::new(&[], OTHER);

impl Reader for Recorder {
    fn names(&self, at: Spot) -> &'static Names {
        if at == Spot::ROOT { &ROOT_NAMES } else { &OTHER_NAMES }
    }

    fn items(&self, _: Spot) -> Spot {
        ITEM
    }

    fn value(&mut self, at: Spot, value: Value<'_>, span: Span) -> Result<(), Unreadable> {
        let value = match value {
            Value::Number(text) => String::from_utf8(text.to_vec()).unwrap(),
            Value::Text(text) => format!("{:?}", String::from_utf8_lossy(text.bytes)),
            other => format!("{other:?}"),
        };
        self.seen.push(format!("{} {value} {}..{}", at.0, span.start, span.end));
        Ok(())
    }
}

/// What is reported of a document, for each way to cut it once, and in pieces of one byte.
fn scan(document: &[u8]) -> Result<Vec<String>, Unreadable> {
    let whole = scan_pieces(&[document]);
    let bytes: Vec<&[u8]> = document.chunks(1).collect();
    assert_eq!(scan_pieces(&bytes), whole, "{}", String::from_utf8_lossy(document));
    for at in 1..document.len().min(200) {
        let (first, second) = document.split_at(at);
        assert_eq!(scan_pieces(&[first, second]), whole, "cut at {at}");
    }
    whole
}

fn scan_pieces(pieces: &[&[u8]]) -> Result<Vec<String>, Unreadable> {
    let mut scanner = Scanner::new(Limits::default());
    let mut recorder = Recorder::default();
    for piece in pieces {
        scanner.feed(piece, &mut recorder)?;
    }
    scanner.finish(&mut recorder)?;
    Ok(recorder.seen)
}

fn error(document: &str) -> Unreadable {
    scan(document.as_bytes()).unwrap_err()
}

fn text_tokens(document: &str) -> u64 {
    let mut scanner = Scanner::new(Limits::default());
    scanner.feed(document.as_bytes(), &mut Recorder::default()).unwrap();
    scanner.text_tokens()
}

#[test]
fn values_are_reported_with_their_bytes() {
    let document = br#" {"x":[{"a":1}], "a" : -1.5e+3,"in":[true,null,"\u00e9\n",{"b":{}}]} "#;
    let expected = [
        "1 OpenObject 1..1",
        "2 -1.5e+3 23..30",
        "3 OpenArray 36..36",
        "4 Bool(true) 37..41",
        "4 Null 42..46",
        "4 \"é\\n\" 47..57",
        "4 OpenObject 58..58",
        "5 OpenObject 63..63",
        "5 CloseObject 63..65",
        "4 CloseObject 58..66",
        "3 CloseArray 36..67",
        "1 CloseObject 1..68",
    ];
    assert_eq!(scan(document).unwrap(), expected);
    assert_eq!(scan(b"12").unwrap(), ["1 12 0..2"]);
    assert_eq!(scan(b" false ").unwrap(), ["1 Bool(false) 1..6"]);
}

#[test]
fn only_strict_json_is_read() {
    let broken = [
        "{\"a\":1,}", "[1,]", "[,1]", "{,}", "{\"a\"}", "{\"a\":}", "{a:1}", "{1:1}", "[1 2]", "]",
        "}", "[}", "{]", "[1}", "{\"a\":1]", "nul1", "True", "NaN", "-", "-a", "01", "1.", "1.e1",
        ".5", "1e", "1e+", "+1", "0x1", "\"\\x\"", "\"\\u12g4\"", "\"a\nb\"", "\"\u{1}\"", "'a'",
        "// \n1", "[-]", "\u{b}1", "[1-]",
    ];
    for document in broken {
        let error = scan(document.as_bytes()).unwrap_err();
        assert!(
            matches!(
                error,
                Unreadable::NotJson | Unreadable::Incomplete | Unreadable::TrailingBytes
            ),
            "{document} {error:?}"
        );
    }
    for (document, expected) in [
        ("", Unreadable::Empty),
        (" \n", Unreadable::Empty),
        ("[1", Unreadable::Incomplete),
        ("\"a", Unreadable::Incomplete),
        ("nul", Unreadable::NotJson),
        ("{}{}", Unreadable::TrailingBytes),
        ("1 2", Unreadable::TrailingBytes),
        ("null,", Unreadable::TrailingBytes),
        ("\u{feff}{}", Unreadable::NotUtf8),
    ] {
        assert_eq!(error(document), expected, "{document}");
    }
    for document in
        [&b"{\0\"\0"[..], b"\0{", b"\xff\xfe{\0", b"\"\x80\"", b"\"\xc3\"", b"\"\xed\xa0\x80\""]
    {
        assert_eq!(scan(document), Err(Unreadable::NotUtf8), "{document:?}");
    }
    for document in [
        "{}",
        "[]",
        "0",
        "-0",
        "10.01E-7",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"é中😀\"",
        "[[],{}]",
    ] {
        assert!(scan(document.as_bytes()).is_ok(), "{document}");
    }
}

#[test]
fn a_member_that_an_object_has_twice_is_refused_at_any_depth() {
    for document in [
        r#"{"x":1,"x":2}"#,
        r#"{"x":1,"\u0078":2}"#,
        r#"{"x":[{"y":{"z":1,"z":2}}]}"#,
        r#"{"a":1,"aTwo":2}"#,
        r#"{"\ud800":1,"\ud801":2}"#,
    ] {
        assert_eq!(error(document), Unreadable::DuplicateMember, "{document}");
    }
    assert!(scan(br#"{"x":{"x":[{"x":1},{"x":1}]},"y":{"x":1}}"#).is_ok());
    for len in [31, 32, 33, 34, 100] {
        let members = Vec::from_iter((0..len).map(|n| format!("\"m{n}\":{{\"x\":0}}"))).join(",");
        assert!(scan_pieces(&[format!("{{{members}}}").as_bytes()]).is_ok(), "{len}");
        for twice in 0..len {
            let document = format!("{{{members},\"m{twice}\":0}}");
            let result = scan_pieces(&[document.as_bytes()]);
            assert_eq!(result, Err(Unreadable::DuplicateMember), "{len} {twice}");
        }
    }
}

#[test]
fn a_name_that_is_similar_to_a_known_one_is_refused() {
    for name in [
        "A", "atwo", "ATWO", "a\\u0000", "\\u0000a\\u0000Two", "ta\u{17f}k", "tas\u{212a}", "In",
        "\u{131}n", "\u{130}N", "a\\ud800",
    ] {
        assert_eq!(error(&format!("{{\"{name}\":1}}")), Unreadable::SimilarMember, "{name}");
        assert!(scan(format!("{{\"x\":{{\"{name}\":1}}}}").as_bytes()).is_ok(), "{name}");
    }
    let long = "\\u0000".repeat(600);
    assert_eq!(error(&format!("{{\"a{long}\":1}}")), Unreadable::FlawedText);
    for name in ["aa", "b", "é", "x\\u0000", "xk"] {
        assert!(scan(format!("{{\"{name}\":1}}").as_bytes()).is_ok(), "{name}");
    }
}

#[test]
fn the_bounds_are_kept() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(scan_pieces(&[nested(128).as_bytes()]).is_ok());
    assert_eq!(scan_pieces(&[nested(129).as_bytes()]), Err(Unreadable::TooDeep));
    let object = |members: u32| {
        let members = Vec::from_iter((0..members).map(|n| format!("\"{n}\":0"))).join(",");
        format!("{{{members}}}")
    };
    assert!(scan_pieces(&[object(16_384).as_bytes()]).is_ok());
    assert_eq!(scan_pieces(&[object(16_385).as_bytes()]), Err(Unreadable::TooManyMembers));
    let several = format!("[{},{}]", object(16_000), object(16_000));
    assert!(scan_pieces(&[several.as_bytes()]).is_ok());
    assert_eq!(error(&format!("{{\"a\":{}}}", "1".repeat(65))), Unreadable::TooLong);
    assert!(scan(format!("{{\"x\":{}}}", "1".repeat(512)).as_bytes()).is_ok());
    assert_eq!(error(&format!("{{\"x\":{}}}", "1".repeat(513))), Unreadable::TooLong);
    assert_eq!(error(&format!("{{\"x\":{}}}", "a".repeat(513))), Unreadable::TooLong);
    // However much of it follows.
    assert_eq!(error(&format!("{{\"x\":{}", "1".repeat(513))), Unreadable::TooLong);
    assert!(
        scan(format!("{{\"a\":{},\"x\":{}}}", "1".repeat(64), "1".repeat(65)).as_bytes()).is_ok()
    );
}

#[test]
fn memory_is_bounded_and_small_for_usual_documents() {
    let memory_bytes = |document: &str| {
        let mut scanner = Scanner::new(Limits::default());
        assert_eq!(scanner.memory_bytes(), 0);
        for byte in document.as_bytes() {
            let _ = scanner.feed(std::slice::from_ref(byte), &mut Recorder::default());
        }
        scanner.memory_bytes()
    };
    let message = r#"{"role":"user","content":"TEXT"}"#.replace("TEXT", &"x".repeat(10_000));
    let chat = format!("{{\"a\":\"m\",\"messages\":[{}]}}", [message.as_str(); 20].join(","));
    assert!(memory_bytes(&chat) < 1000);
    let members = Vec::from_iter((0..20_000).map(|n| format!("\"{n}\":0"))).join(",");
    let nested = format!("{}{{{members}", "[".repeat(120));
    let text = "x".repeat(1000);
    for document in [nested, format!("{{\"a\":\"{text}"), format!("{{\"a\":{}", "1".repeat(1000))] {
        assert!(memory_bytes(&document) < 136_000);
    }
}

/// Receives one text.
struct Exact(Option<(Result<String, Unreadable>, bool, u64)>);

impl Reader for Exact {
    fn names(&self, _: Spot) -> &'static Names {
        &OTHER_NAMES
    }

    fn items(&self, _: Spot) -> Spot {
        Spot::IGNORED
    }

    fn value(&mut self, _: Spot, value: Value<'_>, _: Span) -> Result<(), Unreadable> {
        let Value::Text(text) = value else { panic!("{value:?}") };
        self.0 = Some((text.exact().map(str::to_owned), text.is_cut, text.len));
        Ok(())
    }
}

#[test]
fn texts_are_decoded_and_cut_off() {
    let exact = |document: &str| {
        let mut reader = Exact(None);
        let mut scanner = Scanner::new(Limits::default());
        for byte in document.as_bytes() {
            scanner.feed(std::slice::from_ref(byte), &mut reader).unwrap();
        }
        reader.0.unwrap()
    };
    assert_eq!(exact(r#""\ud83d\ude00A\u00e9\/""#), (Ok("😀Aé/".to_owned()), false, 8));
    for flawed in [
        r#""\ud83d""#,
        r#""\ude00""#,
        r#""\ud83dx""#,
        r#""\ud83d\n""#,
        r#""\ud83d\ud83d\ude00""#,
        r#""\u0000""#,
    ] {
        assert_eq!(exact(flawed).0, Err(Unreadable::FlawedText), "{flawed}");
    }
    let text = "x".repeat(512);
    assert_eq!(exact(&format!("\"{text}\"")), (Ok(text.clone()), false, 512));
    assert_eq!(exact(&format!("\"{text}\\u00e9\"")), (Err(Unreadable::TooLong), true, 514));
}

#[test]
fn tokens_are_estimated() {
    assert_eq!(text_tokens(r#"{"name":"abcd","x":["\u00e9","f"]}"#), 2);
    let base64 = |len: usize| "Ab+/-_9=".repeat(len / 8);
    assert_eq!(text_tokens(&format!("\"{}\"", base64(8192))), 2048);
    assert_eq!(text_tokens(&format!("[\"{}\",\"abc\"]", base64(8200))), 2001);
    assert_eq!(text_tokens(&format!("\"data:image/png;base64,{}\"", base64(8192))), 2000);
    assert_eq!(text_tokens(&format!("\"{} {}\"", base64(8192), base64(8))), 2051);
    // Nobody wants this text.
    let ignored = |len: usize| text_tokens(&format!("{{\"other\":\"{}\"}}", base64(len)));
    assert_eq!([800, 2048, 2056, 8192, 8200].map(ignored), [200, 512, 514, 2048, 2000]);
}

#[test]
fn an_error_stays_until_the_next_document() {
    let mut scanner = Scanner::new(Limits::default());
    let recorder = &mut Recorder::default();
    assert_eq!(scanner.feed(b"{\"\\u12 ", recorder), Err(Unreadable::NotJson));
    assert_eq!(scanner.feed(b"1", recorder), Err(Unreadable::NotJson));
    assert_eq!(scanner.finish(recorder), Err(Unreadable::NotJson));
    for unfinished in
        [&b"{\"a\":\"\\ud83d"[..], b"\"\\", b"\"\\u12", b"\"\xe2\x82", b"[1", b"{\"a\":1"]
    {
        scanner.reset();
        assert_eq!(scanner.feed(unfinished, recorder), Ok(()));
        assert!(!scanner.is_complete());
        scanner.reset();
        recorder.seen.clear();
        assert_eq!(scanner.feed(b"{\"a\":\"b\"}", recorder), Ok(()));
        assert!(scanner.is_complete());
        assert_eq!(scanner.finish(recorder), Ok(()));
        assert_eq!(recorder.seen, ["1 OpenObject 0..0", "2 \"b\" 5..8", "1 CloseObject 0..9"]);
        assert_eq!(scanner.text_tokens(), 1);
    }
    scanner.reset();
    assert_eq!(scanner.feed(b"12", recorder), Ok(()));
    scanner.reset();
    assert_eq!(scanner.feed(b"3", recorder), Ok(()));
    assert_eq!(scanner.finish(recorder), Ok(()));
    assert_eq!(recorder.seen.last().unwrap(), "1 3 0..1");
}

#[test]
fn a_tolerant_scanner_reports_every_member_of_a_name() {
    let document = br#"{"a":1,"a":2,"A":3,"aTwo":4,"in":{},"IN":5,"x":{"y":1,"y":2}}"#;
    let mut scanner = Scanner::tolerant(Limits { max_open_keys: 0, ..Limits::default() });
    let mut recorder = Recorder::default();
    scanner.feed(document, &mut recorder).unwrap();
    scanner.finish(&mut recorder).unwrap();
    let numbers = recorder.seen.iter().filter(|seen| seen.starts_with("2 "));
    assert_eq!(numbers.collect::<Vec<_>>(), ["2 1 5..6", "2 2 11..12", "2 4 26..27"]);
}

#[test]
fn no_value_keeps_a_tolerant_scanner_from_what_follows() {
    let deep = format!("{}1{}", "[{\"x\":".repeat(600), "}]".repeat(600));
    let escaped = r#"{"s":"}\\\"]{","t":["\\"]}"#;
    let long = "7".repeat(600);
    for (spot, value) in ["ignored", "in"].into_iter().flat_map(|spot| {
        [deep.as_str(), escaped, &long, "NaN", "-Infinity", "{]", "{\"\":,,}"]
            .map(|value| (spot, value))
    }) {
        if spot == "in" && matches!(value, "{]" | "{\"\":,,}") {
            continue;
        }
        let document = format!("{{\"{spot}\":{value},\"a\":7}}");
        for size in [1, 7, document.len()] {
            let mut scanner = Scanner::tolerant(Limits::default());
            let mut recorder = Recorder::default();
            let mut pieces = document.as_bytes().chunks(size);
            pieces.try_for_each(|piece| scanner.feed(piece, &mut recorder)).unwrap();
            scanner.finish(&mut recorder).unwrap();
            let seen = recorder.seen.iter().any(|seen| seen.starts_with("2 7 "));
            assert!(seen, "{document} in pieces of {size}: {:?}", recorder.seen);
        }
    }
}

#[test]
fn a_text_of_a_tolerant_scanner_may_contain_any_bytes() {
    for document in [&b"{\"x\":\"\x00\n\xff\xc3\",\"a\":7}"[..], b"{\"\xff\t\":[\"\x80\"],\"a\":7}"]
    {
        for size in [1, document.len()] {
            let mut scanner = Scanner::tolerant(Limits::default());
            let mut recorder = Recorder::default();
            document.chunks(size).try_for_each(|piece| scanner.feed(piece, &mut recorder)).unwrap();
            assert!(recorder.seen.iter().any(|seen| seen.starts_with("2 7 ")));
        }
    }
}

#[test]
fn long_names_count_as_text() {
    let tokens = |name: usize| {
        let document = format!("{{\"{}\":\"1234\"}}", "n".repeat(name));
        let mut scanner = Scanner::new(Limits::default());
        scanner.feed(document.as_bytes(), &mut Recorder::default()).unwrap();
        scanner.text_tokens()
    };
    assert_eq!([tokens(10), tokens(4096), tokens(4100), tokens(8096)], [1, 1, 2, 1001]);
}

/// Receives the pieces of a text.
#[derive(Default)]
struct Pieces(Vec<u8>, Option<bool>);

impl Reader for Pieces {
    fn names(&self, _: Spot) -> &'static Names {
        &ROOT_NAMES
    }

    fn items(&self, at: Spot) -> Spot {
        at
    }

    fn streams(&self, at: Spot) -> bool {
        at == A
    }

    fn piece(&mut self, at: Spot, text: &[u8]) -> Result<(), Unreadable> {
        assert_eq!(at, A);
        self.0.extend_from_slice(text);
        Ok(())
    }

    fn value(&mut self, at: Spot, value: Value<'_>, _: Span) -> Result<(), Unreadable> {
        if let (A, Value::Text(text)) = (at, value) {
            assert_eq!(text.len, self.0.len() as u64);
            self.1 = Some(text.is_cut);
        }
        Ok(())
    }
}

#[test]
fn a_long_text_is_received_in_pieces() {
    let text = "\u{e9}x".repeat(400);
    let escaped = format!("{text}\\n\\u00e9\\ud83d\\ude00");
    let document = format!("{{\"in\":\"no\",\"a\":\"{escaped}\",\"b\":\"no\"}}");
    for len in [1, 2, 3, 7, document.len()] {
        let mut scanner = Scanner::new(Limits::default());
        let mut pieces = Pieces::default();
        for piece in document.as_bytes().chunks(len) {
            scanner.feed(piece, &mut pieces).unwrap();
        }
        assert_eq!(String::from_utf8(pieces.0).unwrap(), format!("{text}\né😀"));
        assert_eq!(pieces.1, Some(true));
    }
}

/// What is before an error is received however the document is cut.
#[test]
fn a_text_that_is_not_utf8_is_received_up_to_the_error() {
    for (text, valid) in [
        (&b"ab\xE2("[..], &b"ab\xE2"[..]),
        (b"ab\xFFcd", b"ab"),
        (b"\xC3\xA9\xF0\x9F\x98x", b"\xC3\xA9\xF0\x9F\x98"),
        (b"\xC3\xA9\x80", b"\xC3\xA9"),
    ] {
        let document = [b"{\"a\":\"", text, b"\"}"].concat();
        let whole = vec![document.as_slice()];
        let single = document.chunks(1).collect();
        for pieces in [whole, single] {
            let mut received = Pieces(Vec::new(), None);
            let mut scanner = Scanner::new(Limits::default());
            let mut fed = pieces.iter().map(|piece| scanner.feed(piece, &mut received));
            assert_eq!(fed.find_map(Result::err), Some(Unreadable::NotUtf8), "{text:?}");
            assert_eq!(received.0, valid, "{text:?}");
        }
    }
}
