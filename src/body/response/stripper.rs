//! Removes the event with the usage from a stream whose client did not ask for it.

use std::borrow::Cow;
use std::fmt;

use crate::body::json::{Limits, Names, Reader, Scanner, Span, Spot, Unreadable, Value};
use crate::body::sse::{Events, Part};

/// Removes each event whose data has an empty list `choices` and an object `usage`. All other bytes stay as they are.
///
/// An event is held until its data shows that it is another one, as its first choice does. Comments before an event are
/// not held, nor is anything that is not a stream of events.
pub struct Stripper {
    place: Place,
    events: Events,
    scanner: Scanner,
    signs: Signs,
    /// What earlier pieces had of the event that is held.
    held: Vec<u8>,
}

/// Where in the stream the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the start of a line, before an event.
    Before,
    /// In a comment before an event.
    Comment,
    /// After the CR of such a comment.
    CommentEnd,
    /// In an event that may be the one.
    Held,
    /// In another event.
    Passing,
    /// In something that is not a stream of events.
    Nowhere,
}

/// What the data of an event shows.
#[derive(Clone, Copy, Debug, Default)]
struct Signs {
    has_choices: bool,
    has_usage: bool,
    is_other: bool,
}

/// A piece of the stream, and what of it has been passed on.
struct Piece<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
    /// Up to here, all is in `passed` or removed.
    from: usize,
    /// Where the event begins that is held.
    held_from: usize,
    passed: Vec<u8>,
}

/// A larger event is not held. The one with the usage has some hundred bytes.
const MAX_HELD_BYTES: usize = 16 * 1024;

const CHOICES: Spot = Spot(2);
const CHOICE: Spot = Spot(3);
const USAGE: Spot = Spot(4);

static NAMES: Names =
    Names { named: &[("choices", CHOICES), ("usage", USAGE)], others: Spot::IGNORED };
static NO_NAMES: Names = Names { named: &[], others: Spot::IGNORED };

// === impl Stripper ===

impl Default for Stripper {
    fn default() -> Self {
        Self::new()
    }
}

impl Stripper {
    /// Reads a body from its start.
    pub fn new() -> Self {
        Self {
            place: Place::Before,
            events: Events::new(),
            scanner: Scanner::tolerant(Limits::default()),
            signs: Signs::default(),
            held: Vec::new(),
        }
    }

    /// What goes on to the client of the next piece of the body, and of what was held before. How the body is cut makes
    /// no difference to the sum.
    pub fn feed<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut piece = Piece::new(bytes);
        while let Some(byte) = piece.rest.first() {
            match (self.place, byte) {
                (Place::Nowhere, _) => break,
                (Place::Held | Place::Passing, _) => {
                    if let Some(part) = self.events.next(&mut piece.rest) {
                        self.part(part, &mut piece);
                    }
                }
                (Place::CommentEnd, b'\n') => {
                    self.skip(1, &mut piece);
                    self.place = Place::Before;
                }
                (Place::Before | Place::CommentEnd, b':') | (Place::Comment, _) => {
                    self.comment(&mut piece);
                }
                (Place::Before | Place::CommentEnd, b'{' | b'[') => self.place = Place::Nowhere,
                (Place::Before | Place::CommentEnd, _) => {
                    self.place = Place::Held;
                    piece.held_from = piece.position();
                }
            }
        }
        self.end_piece(piece)
    }

    /// Ends the body. Returns what was held, unless it is the event with the usage.
    pub fn finish(self) -> Vec<u8> {
        if self.is_usage(self.held.len()) { Vec::new() } else { self.held }
    }

    /// Reads a comment before an event, which is not held.
    fn comment(&mut self, piece: &mut Piece<'_>) {
        let end = piece.rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        self.place = match end.and_then(|end| piece.rest.get(end)) {
            None => Place::Comment,
            Some(b'\n') => Place::Before,
            Some(_) => Place::CommentEnd,
        };
        self.skip(end.map_or(piece.rest.len(), |end| end + 1), piece);
    }

    /// Reads bytes that have no part of an event.
    fn skip(&mut self, len: usize, piece: &mut Piece<'_>) {
        if let Some((mut bytes, rest)) = piece.rest.split_at_checked(len) {
            piece.rest = rest;
            while self.events.next(&mut bytes).is_some() {}
        }
    }

    /// Reads a part of an event.
    fn part(&mut self, part: Part<'_>, piece: &mut Piece<'_>) {
        let is_held = self.place == Place::Held;
        match part {
            Part::Data(data) if is_held => {
                let is_readable = self.scanner.feed(data, &mut self.signs).is_ok();
                if !is_readable || self.signs.is_other {
                    self.release(piece);
                }
            }
            Part::Data(_) => {}
            Part::End => {
                if is_held && self.is_usage(self.held.len() + piece.held_bytes()) {
                    self.held.clear();
                    piece.remove();
                } else if is_held {
                    self.release(piece);
                }
                self.place = Place::Before;
                self.scanner.reset();
                self.signs = Signs::default();
            }
        }
    }

    /// Whether the event that is held is the one with the usage, if it is `len` bytes long.
    fn is_usage(&self, len: usize) -> bool {
        let Signs { has_choices, has_usage, is_other } = self.signs;
        let is_complete = self.scanner.is_complete() && len <= MAX_HELD_BYTES;
        is_complete && has_choices && has_usage && !is_other
    }

    /// Passes on what is held.
    fn release(&mut self, piece: &mut Piece<'_>) {
        piece.passed.append(&mut self.held);
        self.place = Place::Passing;
    }

    /// Holds what may be the event at the end of a piece, and passes on the rest.
    fn end_piece<'a>(&mut self, mut piece: Piece<'a>) -> Cow<'a, [u8]> {
        let mut end = piece.bytes.len();
        if self.place == Place::Held {
            match self.held.len() + piece.held_bytes() {
                ..=MAX_HELD_BYTES => {
                    end = piece.held_from;
                    self.held.extend_from_slice(piece.bytes.get(end..).unwrap_or_default());
                }
                _ => self.release(&mut piece),
            }
        }
        piece.pass(end)
    }
}

impl fmt::Debug for Stripper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is held may be what was generated.
        f.debug_struct("Stripper").field("place", &self.place).finish_non_exhaustive()
    }
}

// === impl Piece ===

impl<'a> Piece<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, rest: bytes, from: 0, held_from: 0, passed: Vec::new() }
    }

    fn position(&self) -> usize {
        self.bytes.len() - self.rest.len()
    }

    /// How much of the event that is held is in this piece so far.
    fn held_bytes(&self) -> usize {
        self.position().saturating_sub(self.held_from)
    }

    /// Removes the event that is held.
    fn remove(&mut self) {
        let before = self.bytes.get(self.from..self.held_from).unwrap_or_default();
        self.passed.extend_from_slice(before);
        self.from = self.position();
    }

    /// All that is passed on, up to `end`.
    fn pass(mut self, end: usize) -> Cow<'a, [u8]> {
        let rest = self.bytes.get(self.from..end).unwrap_or_default();
        if self.passed.is_empty() {
            return Cow::Borrowed(rest);
        }
        self.passed.extend_from_slice(rest);
        Cow::Owned(self.passed)
    }
}

// === impl Signs ===

impl Reader for Signs {
    fn names(&self, at: Spot) -> &'static Names {
        if at == Spot::ROOT { &NAMES } else { &NO_NAMES }
    }

    fn items(&self, _: Spot) -> Spot {
        CHOICE
    }

    fn value(&mut self, at: Spot, value: Value<'_>, _: Span) -> Result<(), Unreadable> {
        match (at, value) {
            (Spot::ROOT, Value::OpenObject | Value::CloseObject) => {}
            (CHOICES, Value::OpenArray) => self.has_choices = true,
            (USAGE, Value::OpenObject) => self.has_usage = true,
            (CHOICES, Value::CloseArray) | (USAGE, Value::CloseObject) => {}
            _ => self.is_other = true,
        }
        // The rest of such a document need not be read.
        if self.is_other { Err(Unreadable::WrongType) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: &str = r#"data: {"choices":[],"usage":{"total_tokens":1}}"#;

    /// What a client gets, for each way to cut a body once, and in single bytes.
    fn strip(body: &str) -> String {
        let whole = strip_pieces(&[body.as_bytes()]);
        assert_eq!(strip_pieces(&body.as_bytes().chunks(1).collect::<Vec<_>>()), whole);
        for at in 0..body.len().min(300) {
            let (first, second) = body.as_bytes().split_at(at);
            assert_eq!(strip_pieces(&[first, second]), whole, "cut at {at}");
        }
        whole
    }

    fn strip_pieces(pieces: &[&[u8]]) -> String {
        let mut stripper = Stripper::new();
        let mut passed = Vec::new();
        for piece in pieces {
            passed.extend_from_slice(&stripper.feed(piece));
            assert!(stripper.held.len() <= MAX_HELD_BYTES);
        }
        passed.extend(stripper.finish());
        String::from_utf8(passed).unwrap()
    }

    #[test]
    fn the_event_with_the_usage_is_removed_with_all_its_lines() {
        let before = "data: {\"choices\":[{}]}\n\n";
        for end in ["\n\n", "\r\r", "\r\n\r\n", "\n\r\n"] {
            let (line_end, _) = end.split_at(1);
            for event in [
                USAGE.to_owned(),
                format!("event: x\nid: 7{line_end}{USAGE}"),
                format!("{USAGE}\n: comment"),
                "data:{\"usage\":{\"a\":[{}]},\ndata: \"id\":\"x\", \"choices\" : [ ] }".to_owned(),
            ] {
                let body = format!("{before}{event}{end}data: [DONE]\n\n");
                assert_eq!(strip(&body), format!("{before}data: [DONE]\n\n"), "{event} {end:?}");
                assert_eq!(strip(&format!("{before}{event}")), before, "{event}");
            }
        }
    }

    #[test]
    fn comments_before_it_stay() {
        for end in ["\n", "\r", "\r\n"] {
            let body = format!(": a{end}:{end}{USAGE}{end}{end}: b{end}data: [DONE]{end}{end}");
            let expected = format!(": a{end}:{end}: b{end}data: [DONE]{end}{end}");
            assert_eq!(strip(&body), expected, "{end:?}");
        }
    }

    #[test]
    fn all_other_events_stay() {
        for body in [
            r#"data: {"choices":[],"usage":null}"#,
            r#"data: {"choices":[]}"#,
            r#"data: {"usage":{}}"#,
            r#"data: {"choices":[null],"usage":{}}"#,
            r#"data: {"choices":null,"usage":{}}"#,
            r#"data: {"choices":[],"usage":[{}]}"#,
            r#"data: {"choices":[],"usage":{}"#,
            r#"data: {"choices":[],"usage":{}}}"#,
            r#"data: [{"choices":[],"usage":{}}]"#,
            r#"data: {"x":{"choices":[],"usage":{}}}"#,
            r#"dat: {"choices":[],"usage":{}}"#,
            "data: [DONE]",
            "data",
            "\u{feff}data: x",
        ] {
            for end in ["\n\n", "\r\n\r\n", ""] {
                assert_eq!(strip(&format!("{body}{end}")), format!("{body}{end}"));
            }
        }
    }

    #[test]
    fn what_cannot_be_the_usage_is_not_held() {
        let mut stripper = Stripper::new();
        for piece in [": keep-alive\n", "\n", "data: {\"id\":\"1\",\"choices\":[{", "\"delta\""] {
            assert_eq!(stripper.feed(piece.as_bytes()), piece.as_bytes());
        }
        assert_eq!(&*stripper.feed(b"}]}\n\ndata: {\"id\":1"), b"}]}\n\n");
        assert_eq!(&*stripper.feed(b",\"choices\":[{"), b"data: {\"id\":1,\"choices\":[{");
        assert!(matches!(stripper.feed(b"}]}\n\n"), Cow::Borrowed(_)));
        assert_eq!(&*stripper.feed(b"data: [DONE]\n"), b"data: [DONE]\n");
        let mut stripper = Stripper::new();
        assert_eq!(&*stripper.feed(b"{\"choices\":[],"), b"{\"choices\":[],");
    }

    #[test]
    fn an_event_that_is_too_large_is_not_held() {
        let event = |len: usize| {
            let padding = "x".repeat(len - 40);
            let event = format!("data: {{\"x\":\"{padding}\",\"choices\":[],\"usage\":{{}}}}\n\n");
            assert_eq!(event.len(), len);
            event
        };
        assert_eq!(strip(&event(MAX_HELD_BYTES)), "");
        let large = event(MAX_HELD_BYTES + 1);
        assert_eq!(strip(&large), large);
    }
}
