//! Removes the event with the usage from a stream whose client did not ask for it.

use std::borrow::Cow;

use super::documents::Documents;
use crate::body::sse::{Events, Part};

/// Removes each event whose data has an empty list `choices` and an object `usage`. All other bytes stay as they are.
///
/// An event is held until its data shows that it is another one, as its first choice does. Comments before an event are
/// not held.
#[derive(Default)]
pub(super) struct Stripper {
    place: Place,
    /// What earlier pieces had of the event that is held.
    held: Vec<u8>,
}

/// Where in the stream the next byte is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Before an event.
    #[default]
    Before,
    /// In an event that may be the one.
    Held,
    /// In another event.
    Passing,
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

// === impl Stripper ===

impl Stripper {
    /// Reads the next piece of a stream, of which all but `rest` has been read. Returns what goes on to the client of it,
    /// and of what was held before. How the stream is cut makes no difference to the sum.
    pub(super) fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        rest: &'a [u8],
        events: &mut Events,
        documents: &mut Documents,
    ) -> Cow<'a, [u8]> {
        let mut piece = Piece { bytes, rest, from: 0, held_from: 0, passed: Vec::new() };
        while let Some(part) = events.next(&mut piece.rest) {
            match part {
                Part::Begin => {
                    self.place = Place::Held;
                    piece.held_from = piece.position();
                }
                Part::Data(data) => {
                    let is_readable = documents.feed(data);
                    let is_other = !is_readable || documents.reading.signs.is_other;
                    if self.place == Place::Held && is_other {
                        self.release(&mut piece);
                    }
                }
                Part::End => {
                    self.end_event(documents, &mut piece);
                    documents.end_event(events);
                }
            }
        }
        self.end_piece(piece)
    }

    /// Ends the stream. Returns what was held, unless it is the event with the usage.
    pub(super) fn finish(self, documents: &Documents) -> Vec<u8> {
        let is_usage = self.place == Place::Held && documents.is_usage();
        if is_usage { Vec::new() } else { self.held }
    }

    fn end_event(&mut self, documents: &Documents, piece: &mut Piece<'_>) {
        if self.place == Place::Held {
            let len = self.held.len() + piece.held_bytes();
            if len <= MAX_HELD_BYTES && documents.is_usage() {
                self.held.clear();
                piece.remove();
            } else {
                self.release(piece);
            }
        }
        self.place = Place::Before;
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

// === impl Piece ===

impl<'a> Piece<'a> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Format;
    use crate::body::response::{Meter, ResponseHead};

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

    fn stripping() -> Meter {
        Meter::new(Format::OpenAiChat, &ResponseHead::default()).stripping()
    }

    fn strip_pieces(pieces: &[&[u8]]) -> String {
        let mut meter = stripping();
        let mut passed = Vec::new();
        for piece in pieces {
            passed.extend_from_slice(&meter.feed(piece));
        }
        passed.extend(meter.finish_stripping());
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
        let mut meter = stripping();
        for piece in [": keep-alive\n", "\n", "data: {\"id\":\"1\",\"choices\":[{", "\"delta\""] {
            assert_eq!(meter.feed(piece.as_bytes()), piece.as_bytes());
        }
        assert_eq!(&*meter.feed(b"}]}\n\ndata: {\"id\":1"), b"}]}\n\n");
        assert_eq!(&*meter.feed(b",\"choices\":[{"), b"data: {\"id\":1,\"choices\":[{");
        assert!(matches!(meter.feed(b"}]}\n\n"), Cow::Borrowed(_)));
        assert_eq!(&*meter.feed(b"data: [DONE]\n"), b"data: [DONE]\n");
        let mut meter = stripping();
        assert_eq!(&*meter.feed(b"{\"choices\":[],"), b"{\"choices\":[],");
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
