//! Server-sent events (WHATWG HTML, section 9.2), in any pieces.

use super::json::words::line_bytes;

/// Splits a stream into the data of its events. It keeps nothing but the name of an event.
///
/// Lines end at CR, LF or CRLF only. An event ends after its empty line, with the LF of a CRLF: after a CR this is known
/// when the next byte comes.
#[derive(Debug)]
pub struct Events {
    place: Place,
    field: Field,
    /// The value of the last field `event` of this event, cut off after [`MAX_NAME_BYTES`].
    name: Vec<u8>,
    /// Whether the event has a line that is no comment.
    has_begun: bool,
    /// Whether the event has a line of data.
    has_line: bool,
    /// The first bytes of its data, as many as `[DONE]` has, and their number.
    first: u64,
    first_len: u8,
    /// The last byte was a CR.
    after_cr: bool,
    /// The line that ended with that CR was empty.
    is_ending: bool,
    /// The last part was the end of an event.
    has_ended: bool,
}

/// A part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// An event begins with the next byte. What came before it since the last one are comments.
    Begin,
    /// More of the data of the event. A line feed stands between its lines.
    Data(&'a [u8]),
    /// The event has ended. All bytes since the end of the one before are its own.
    End,
}

/// The name of an event is cut off after that many bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Where in a line the next byte is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the byte order mark that a stream may begin with, after this many bytes.
    Mark(usize),
    /// At the start of a line.
    Start,
    /// In the name of a field.
    Field,
    /// After the colon. A space there is not part of the value.
    Colon,
    /// In the value of a field.
    Value,
}

/// The name of a field: 1 and up to 6 bytes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field(u64);

const BYTE_ORDER_MARK: [u8; 3] = *b"\xEF\xBB\xBF";

/// What the data of the last event of a stream begins with, at OpenAI and others.
const DONE: u64 = u64::from_be_bytes(*b"\0\0[DONE]");
const DONE_BYTES: u8 = 6;

// === impl Events ===

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Reads a stream from its start.
    pub fn new() -> Self {
        Self {
            place: Place::Mark(0),
            field: Field::EMPTY,
            name: Vec::new(),
            has_begun: false,
            has_line: false,
            first: 0,
            first_len: 0,
            after_cr: false,
            is_ending: false,
            has_ended: false,
        }
    }

    /// The next part of the stream, which is removed from `bytes`; `None` if these have no further one. How the stream
    /// is cut makes no difference to its events.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        self.begin();
        while let Some((byte, after)) = bytes.split_first() {
            let part = match std::mem::take(&mut self.after_cr) {
                true => self.after_cr(bytes, *byte, after),
                false => self.byte(bytes, *byte, after),
            };
            if part.is_some() {
                return part;
            }
        }
        None
    }

    /// Ends the stream. An event without its empty line ends too; `None` if there is none that has data.
    pub fn finish(&mut self) -> Option<Part<'static>> {
        self.begin();
        (self.is_ending || self.has_line).then(|| self.end())
    }

    /// The name of the event, as far as it is known; empty if it has none. After its end it is valid until the next
    /// call.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether the event has data. A comment has none, and the data of an event that keeps a connection open may be
    /// empty.
    pub fn has_data(&self) -> bool {
        self.first_len > 0
    }

    /// Whether the data of the event begins with `[DONE]`.
    pub fn is_done(&self) -> bool {
        self.first == DONE
    }

    /// Forgets an event that has ended.
    fn begin(&mut self) {
        if std::mem::take(&mut self.has_ended) {
            self.name.clear();
            self.has_begun = false;
            self.has_line = false;
            self.first = 0;
            self.first_len = 0;
        }
    }

    fn end(&mut self) -> Part<'static> {
        self.is_ending = false;
        self.has_ended = true;
        Part::End
    }

    /// Reads the byte after a CR, if it is an LF.
    fn after_cr<'a>(
        &mut self,
        bytes: &mut &'a [u8],
        byte: u8,
        after: &'a [u8],
    ) -> Option<Part<'a>> {
        if byte == b'\n' {
            *bytes = after;
        }
        self.is_ending.then(|| self.end())
    }

    /// Reads one byte, or all that there is of a value.
    fn byte<'a>(&mut self, bytes: &mut &'a [u8], byte: u8, after: &'a [u8]) -> Option<Part<'a>> {
        let is_end = is_line_end(byte);
        match self.place {
            Place::Mark(len) if BYTE_ORDER_MARK.get(len) == Some(&byte) => {
                *bytes = after;
                self.place = if len < 2 { Place::Mark(len + 1) } else { Place::Start };
            }
            Place::Mark(0) => self.place = Place::Start,
            // What looked like a mark is part of a name.
            Place::Mark(_) => {
                self.field = Field::OTHER;
                self.place = Place::Field;
                self.has_begun = true;
                return Some(Part::Begin);
            }
            Place::Start if is_end => {
                *bytes = after;
                self.after_cr = byte == b'\r';
                self.is_ending = self.after_cr;
                return (!self.after_cr).then(|| self.end());
            }
            Place::Start if !self.has_begun && byte != b':' => {
                self.has_begun = true;
                return Some(Part::Begin);
            }
            Place::Start => match bytes.strip_prefix(b"data:") {
                Some(value) => {
                    *bytes = value;
                    self.field = Field::DATA;
                    self.place = Place::Colon;
                    return self.begin_value();
                }
                None => {
                    self.field = Field::EMPTY;
                    self.place = Place::Field;
                }
            },
            Place::Field if is_end => {
                self.place = Place::Value;
                return self.begin_value();
            }
            Place::Field if byte == b':' => {
                *bytes = after;
                self.place = Place::Colon;
                return self.begin_value();
            }
            Place::Field => {
                *bytes = after;
                self.field = self.field.and(byte);
            }
            Place::Colon => {
                if byte == b' ' {
                    *bytes = after;
                }
                self.place = Place::Value;
            }
            Place::Value if is_end => {
                *bytes = after;
                self.after_cr = byte == b'\r';
                self.place = Place::Start;
            }
            Place::Value => return self.value(bytes),
        }
        None
    }

    /// Begins the value of a field whose name is known.
    fn begin_value(&mut self) -> Option<Part<'static>> {
        match self.field {
            Field::EVENT => self.name.clear(),
            Field::DATA if std::mem::replace(&mut self.has_line, true) => {
                return Some(self.data(b"\n"));
            }
            _ => {}
        }
        None
    }

    /// Reads all that there is of a value.
    fn value<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        let (value, after) = bytes.split_at_checked(line_bytes(bytes))?;
        *bytes = after;
        match self.field {
            Field::EVENT => {
                let room = MAX_NAME_BYTES.saturating_sub(self.name.len());
                self.name.extend_from_slice(value.get(..room).unwrap_or(value));
                None
            }
            Field::DATA => Some(self.data(value)),
            _ => None,
        }
    }

    fn data<'a>(&mut self, data: &'a [u8]) -> Part<'a> {
        if let (0, Some([a, b, c, d, e, f])) = (self.first_len, data.first_chunk()) {
            self.first = u64::from_be_bytes([0, 0, *a, *b, *c, *d, *e, *f]);
            self.first_len = DONE_BYTES;
        }
        for byte in data.iter().take(usize::from(DONE_BYTES - self.first_len)) {
            self.first = self.first << 8 | u64::from(*byte);
            self.first_len += 1;
        }
        Part::Data(data)
    }
}

// === impl Field ===

impl Field {
    const EMPTY: Self = Self(1);
    const DATA: Self = Self::EMPTY.and(b'd').and(b'a').and(b't').and(b'a');
    const EVENT: Self = Self::EMPTY.and(b'e').and(b'v').and(b'e').and(b'n').and(b't');
    /// Any name that is too long to be known.
    const OTHER: Self = Self(u64::MAX);

    /// The name, with another byte.
    const fn and(self, byte: u8) -> Self {
        if self.0 >> 48 != 0 {
            return Self::OTHER;
        }
        Self(self.0 << 8 | byte as u64)
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event: its name, its data, its bytes, and whether it is the last.
    type Event = (String, Option<String>, String, bool);

    /// The events of a stream, for each way to cut it once, and in pieces of one byte.
    fn events(stream: &str) -> Vec<Event> {
        let whole = events_of(&[stream.as_bytes()]);
        assert_eq!(events_of(&Vec::from_iter(stream.as_bytes().chunks(1))), whole, "{stream:?}");
        for at in 0..stream.len() {
            let (first, second) = stream.as_bytes().split_at(at);
            assert_eq!(events_of(&[first, second]), whole, "{stream:?} cut at {at}");
        }
        whole
    }

    fn events_of(pieces: &[&[u8]]) -> Vec<Event> {
        let mut events = Events::new();
        let (mut data, mut own, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let before = rest;
                let part = events.next(&mut rest);
                own.extend_from_slice(&before[..before.len() - rest.len()]);
                match part {
                    Some(Part::Begin) => assert!(are_comments(&own), "{own:?}"),
                    Some(Part::Data(piece)) => data.extend_from_slice(piece),
                    Some(Part::End) => found.push(event(&events, &mut data, &mut own)),
                    None => break,
                }
            }
        }
        if events.finish().is_some() {
            found.push(event(&events, &mut data, &mut own));
        }
        assert_eq!(own, b"");
        found
    }

    /// Whether nothing but comments comes before an event, and what may begin a stream.
    fn are_comments(before: &[u8]) -> bool {
        let rest = before.trim_ascii_start();
        let rest = BYTE_ORDER_MARK
            .iter()
            .fold(rest, |rest, byte| rest.strip_prefix(&[*byte]).unwrap_or(rest));
        rest.split(|byte| is_line_end(*byte)).all(|line| line.is_empty() || line[0] == b':')
    }

    fn event(events: &Events, data: &mut Vec<u8>, own: &mut Vec<u8>) -> Event {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (data, own) = (std::mem::take(data), std::mem::take(own));
        assert_eq!(events.has_data(), !data.is_empty());
        let data = events.has_data().then(|| text(&data));
        (text(events.name()), data, text(&own), events.is_done())
    }

    /// Name and data of the events.
    fn contents(stream: &str) -> Vec<(String, Option<String>)> {
        events(stream).into_iter().map(|(name, data, ..)| (name, data)).collect()
    }

    fn content(name: &str, data: &str) -> (String, Option<String>) {
        (name.to_owned(), Some(data.to_owned()))
    }

    #[test]
    fn lines_end_at_cr_lf_and_crlf_only() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = ["event: a", "data: {\u{2028}1\u{85}", "data:}", "", "data:x", "", ""];
            let stream = stream.join(end);
            assert_eq!(
                contents(&stream),
                [content("a", "{\u{2028}1\u{85}\n}"), content("", "x")],
                "{end:?}"
            );
        }
    }

    #[test]
    fn an_event_has_all_bytes_up_to_its_end() {
        for stream in [
            "\u{feff}data: 1\n\ndata: 2\r\n\r\nid: 3\r\r: comment\n\n\r\n\ndata: 4\r\n\r\n",
            "data: 1\r\r\ndata: 2\n\r\n\rdata: 3\r\n\n",
        ] {
            let own = Vec::from_iter(events(stream).into_iter().map(|(_, _, own, _)| own));
            assert_eq!(own.concat(), stream);
            let ends = Vec::from_iter(own.iter().map(|own| own.trim_end_matches(['\r', '\n'])));
            let data = |end: &&&str| !end.is_empty() && !end.starts_with([':', 'i']);
            assert!(ends.iter().filter(data).all(|end| end.contains("data: ")), "{own:?}");
        }
        let own = |(_, _, own, _): Event| own;
        assert_eq!(
            Vec::from_iter(events("data: 1\r\n\r\ndata: 2\n\n").into_iter().map(own)),
            ["data: 1\r\n\r\n", "data: 2\n\n"]
        );
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let stream = "data\n\n\ndata:  a:b\nDATA: no\n data: no\ndatax: no\nevent\nretry: 1\n\n\
                      event:x\nevent: y\n: c\ndata: \ndata\n\nevent: z\n\ndata: last";
        assert_eq!(
            contents(stream),
            [
                (String::new(), None),
                (String::new(), None),
                content("", " a:b"),
                content("y", "\n"),
                ("z".to_owned(), None),
                content("", "last"),
            ]
        );
        assert_eq!(contents("\u{feff}data: a\n\n"), [content("", "a")]);
        assert_eq!(contents("\u{feff}\u{feff}data: a\n\n"), [(String::new(), None)]);
        assert_eq!(contents("\u{fec0}data: a\n\n"), [(String::new(), None)]);
        // Half a mark is the beginning of a name.
        let halved = events_of(&[b"\xEF\xBBdata: a\n\n"]);
        assert!(matches!(halved.as_slice(), [(_, None, ..)]), "{halved:?}");
        let long = "n".repeat(70);
        assert_eq!(contents(&format!("event: {long}\n\n"))[0].0, "n".repeat(64));
    }

    #[test]
    fn the_end_mark_is_recognised() {
        let is_done = |stream: &str| events(stream).iter().any(|(.., is_done)| *is_done);
        assert!(is_done("data: [DONE]\n\n"));
        assert!(is_done("data:[DONE] \n\n"));
        for stream in
            ["data: [DONE\n\n", "data: x[DONE]\n\n", "data: [DO\ndata: NE]\n\n", ": [DONE]\n\n"]
        {
            assert!(!is_done(stream), "{stream:?}");
        }
        assert!(is_done("data: [DON\n\ndata: [DONE]\n\n"));
    }
}
