//! The framing of Amazon Bedrock's streams (`application/vnd.amazon.eventstream`), in any pieces.

use crate::record::{Crc32, take};

/// Splits a stream into messages. It keeps nothing of a message but three header values.
///
/// A message has a prelude of 12 bytes (its length, the length of its headers, and the CRC-32 of both), headers, a
/// payload, and a CRC-32 of all that.
#[derive(Debug, Default)]
pub struct Frames {
    place: Place,
    /// How many bytes are left of the headers or the payload.
    left: u32,
    payload_bytes: u32,
    crc: Crc32,
    /// The bytes of an integer or a prelude of which some are missing.
    partial: Vec<u8>,
    headers: Headers,
}

/// A part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// More of the payload of the message. Its checksum has not been checked yet.
    Payload(&'a [u8]),
    /// The message has ended, and its checksum is right.
    End,
}

/// The stream is not a sequence of messages, or was changed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// The value of a header is cut off after that many bytes.
pub const MAX_HEADER_BYTES: usize = 64;

/// Where in a message the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Prelude,
    Headers,
    Payload,
    Checksum,
    /// Nowhere: the stream is broken.
    Nowhere,
}

/// The headers of a message: for each the length of its name, the name, its type, and a value.
#[derive(Debug, Default)]
struct Headers {
    place: HeaderPlace,
    /// How many bytes are left of the name or value.
    left: u16,
    /// The name, cut off like a value.
    name: Vec<u8>,
    /// Which of `values` the value belongs to, if any.
    index: Option<usize>,
    values: [HeaderValue; NAMES.len()],
}

/// Where in a header the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HeaderPlace {
    #[default]
    NameLength,
    Name,
    Type,
    Length,
    /// In the length, after this byte.
    LengthEnd(u8),
    Value,
}

#[derive(Debug, Default)]
struct HeaderValue {
    is_present: bool,
    bytes: Vec<u8>,
}

/// The headers whose values are kept.
const NAMES: [&str; 3] = [":message-type", ":event-type", ":exception-type"];

const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;
const MAX_HEADERS_BYTES: u32 = 128 * 1024;
const MAX_PAYLOAD_BYTES: u32 = 24 * 1024 * 1024;

// === impl Frames ===

impl Frames {
    /// The next part of the stream, which is removed from `bytes`; `None` if these have no further one. How the stream
    /// is cut makes no difference to its messages.
    ///
    /// # Errors
    ///
    /// [`Broken`], also for all further calls.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, Broken> {
        let part = self.part(bytes);
        if part.is_err() {
            self.place = Place::Nowhere;
        }
        part
    }

    /// Whether the stream may end here.
    pub fn is_complete(&self) -> bool {
        self.place == Place::Prelude && self.partial.is_empty()
    }

    /// `:message-type` of the message: `event`, `exception` or `error`; empty if it has none.
    pub fn message_type(&self) -> &[u8] {
        self.headers.value(0)
    }

    /// `:event-type` of the message, e.g. `metadata`; empty if it has none.
    pub fn event_type(&self) -> &[u8] {
        self.headers.value(1)
    }

    /// `:exception-type` of the message, e.g. `throttlingException`; empty if it has none.
    pub fn exception_type(&self) -> &[u8] {
        self.headers.value(2)
    }

    fn part<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, Broken> {
        loop {
            match self.place {
                Place::Prelude => {
                    let Some(prelude) = self.whole::<PRELUDE_BYTES>(bytes) else { return Ok(None) };
                    self.begin(&prelude)?;
                }
                Place::Headers if self.left > 0 => {
                    let Some(piece) = self.piece(bytes) else { return Ok(None) };
                    self.headers.read(piece)?;
                }
                Place::Headers => {
                    self.headers.end()?;
                    self.left = self.payload_bytes;
                    self.place = Place::Payload;
                }
                Place::Payload if self.left > 0 => return Ok(self.piece(bytes).map(Part::Payload)),
                Place::Payload => self.place = Place::Checksum,
                Place::Checksum => {
                    let Some(checksum) = self.whole::<CHECKSUM_BYTES>(bytes) else {
                        return Ok(None);
                    };
                    return self.end(checksum).map(Some);
                }
                Place::Nowhere => return Err(Broken),
            }
        }
    }

    /// Begins a message.
    fn begin(&mut self, prelude: &[u8]) -> Result<(), Broken> {
        let mut rest = prelude;
        let mut next = || take(&mut rest).map(u32::from_be_bytes).ok_or(Broken);
        let (total, headers, checksum) = (next()?, next()?, next()?);
        self.crc = Crc32::default();
        self.crc.add(prelude.get(..PRELUDE_BYTES - CHECKSUM_BYTES).unwrap_or_default());
        let payload = total.checked_sub(headers).and_then(|rest| rest.checked_sub(16));
        self.payload_bytes = payload.filter(|len| *len <= MAX_PAYLOAD_BYTES).ok_or(Broken)?;
        if checksum != self.crc.value() || headers > MAX_HEADERS_BYTES {
            return Err(Broken);
        }
        self.crc.add(&checksum.to_be_bytes());
        self.left = headers;
        self.headers.begin();
        self.place = Place::Headers;
        Ok(())
    }

    /// Ends a message.
    fn end(&mut self, checksum: [u8; CHECKSUM_BYTES]) -> Result<Part<'static>, Broken> {
        self.place = Place::Prelude;
        match u32::from_be_bytes(checksum) == self.crc.value() {
            true => Ok(Part::End),
            false => Err(Broken),
        }
    }

    /// Removes and returns what there is of the headers or the payload; `None` if nothing.
    fn piece<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let len = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (piece, after) = bytes.split_at_checked(len).filter(|_| len > 0)?;
        *bytes = after;
        self.left = self.left.saturating_sub(u32::try_from(len).unwrap_or(u32::MAX));
        self.crc.add(piece);
        Some(piece)
    }

    /// Removes and returns a number of bytes once all of them are there.
    fn whole<const N: usize>(&mut self, bytes: &mut &[u8]) -> Option<[u8; N]> {
        let len = N.saturating_sub(self.partial.len()).min(bytes.len());
        let (piece, after) = bytes.split_at_checked(len)?;
        self.partial.extend_from_slice(piece);
        *bytes = after;
        let whole = self.partial.first_chunk().copied()?;
        self.partial.clear();
        Some(whole)
    }
}

// === impl Headers ===

impl Headers {
    fn begin(&mut self) {
        self.place = HeaderPlace::NameLength;
        self.values.iter_mut().for_each(HeaderValue::clear);
    }

    fn end(&self) -> Result<(), Broken> {
        (self.place == HeaderPlace::NameLength).then_some(()).ok_or(Broken)
    }

    /// The value of a header.
    fn value(&self, index: usize) -> &[u8] {
        self.values.get(index).map(|value| value.bytes.as_slice()).unwrap_or_default()
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        bytes.iter().try_for_each(|byte| self.byte(*byte))
    }

    fn byte(&mut self, byte: u8) -> Result<(), Broken> {
        match self.place {
            HeaderPlace::NameLength => {
                self.name.clear();
                self.left = byte.into();
                self.place = if byte > 0 { HeaderPlace::Name } else { HeaderPlace::Type };
            }
            HeaderPlace::Name => {
                push(&mut self.name, byte);
                self.left = self.left.saturating_sub(1);
                if self.left == 0 {
                    self.place = HeaderPlace::Type;
                }
            }
            HeaderPlace::Type => return self.begin_value(byte),
            HeaderPlace::Length => self.place = HeaderPlace::LengthEnd(byte),
            HeaderPlace::LengthEnd(high) => self.begin_bytes(u16::from_be_bytes([high, byte])),
            HeaderPlace::Value => {
                if let Some(value) = self.index.and_then(|index| self.values.get_mut(index)) {
                    push(&mut value.bytes, byte);
                }
                self.begin_bytes(self.left.saturating_sub(1));
            }
        }
        Ok(())
    }

    /// Begins a value of a type. Only strings are kept.
    fn begin_value(&mut self, kind: u8) -> Result<(), Broken> {
        const STRING: u8 = 7;
        let name = &self.name;
        self.index = NAMES.iter().position(|known| kind == STRING && known.as_bytes() == name);
        if let Some(value) = self.index.and_then(|index| self.values.get_mut(index))
            && std::mem::replace(&mut value.is_present, true)
        {
            return Err(Broken);
        }
        match kind {
            0 | 1 => self.begin_bytes(0),
            2 => self.begin_bytes(1),
            3 => self.begin_bytes(2),
            4 => self.begin_bytes(4),
            5 | 8 => self.begin_bytes(8),
            9 => self.begin_bytes(16),
            6 | STRING => self.place = HeaderPlace::Length,
            _ => return Err(Broken),
        }
        Ok(())
    }

    /// Begins, or goes on with, a value with this many bytes left.
    fn begin_bytes(&mut self, left: u16) {
        self.left = left;
        self.place = if left > 0 { HeaderPlace::Value } else { HeaderPlace::NameLength };
    }
}

impl HeaderValue {
    fn clear(&mut self) {
        self.is_present = false;
        self.bytes.clear();
    }
}

/// Adds a byte, if there is room.
fn push(bytes: &mut Vec<u8>, byte: u8) {
    if bytes.len() < MAX_HEADER_BYTES {
        bytes.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::crc32;

    /// A header: its name, its type, and its value with any length before it.
    type Header<'a> = (&'a str, u8, &'a [u8]);

    fn message(headers: &[Header<'_>], payload: &[u8]) -> Vec<u8> {
        let header = |(name, kind, value): &Header<'_>| {
            [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), &[*kind], value].concat()
        };
        let headers = headers.iter().flat_map(header).collect::<Vec<u8>>();
        framed(&headers, payload)
    }

    fn framed(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let be = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
        let mut message = [be(16 + headers.len() + payload.len()), be(headers.len())].concat();
        message.extend(crc32(&message).to_be_bytes());
        message.extend([headers, payload].concat());
        message.extend(crc32(&message).to_be_bytes());
        message
    }

    fn text(value: &str) -> Vec<u8> {
        [&u16::try_from(value.len()).unwrap().to_be_bytes(), value.as_bytes()].concat()
    }

    /// The messages of a stream: type, type of the event, type of the exception, payload.
    fn messages(stream: &[u8]) -> Result<Vec<[String; 4]>, Broken> {
        let whole = messages_of(&[stream]);
        assert_eq!(messages_of(&Vec::from_iter(stream.chunks(1))), whole);
        for at in 0..stream.len() {
            let (first, second) = stream.split_at(at);
            assert_eq!(messages_of(&[first, second]), whole, "cut at {at}");
        }
        whole
    }

    fn messages_of(pieces: &[&[u8]]) -> Result<Vec<[String; 4]>, Broken> {
        let mut frames = Frames::default();
        let (mut payload, mut found) = (Vec::new(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while let Some(part) = frames.next(&mut rest)? {
                match part {
                    Part::Payload(piece) => payload.extend_from_slice(piece),
                    Part::End => {
                        let headers =
                            [frames.message_type(), frames.event_type(), frames.exception_type()];
                        let [a, b, c] =
                            headers.map(|value| String::from_utf8(value.to_vec()).unwrap());
                        found.push([
                            a,
                            b,
                            c,
                            String::from_utf8(std::mem::take(&mut payload)).unwrap(),
                        ]);
                    }
                }
            }
        }
        frames.is_complete().then_some(found).ok_or(Broken)
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let event = [
            (":event-type", 7, &*text("metadata")),
            (":content-type", 7, &*text("application/json")),
            (":message-type", 7, &*text("event")),
        ];
        let exception = [
            (":message-type", 7, &*text("exception")),
            (":exception-type", 7, &*text("throttlingException")),
        ];
        let kinds = [
            ("a", 0, &[][..]),
            ("b", 1, &[]),
            ("c", 2, &[1]),
            ("d", 3, &[1; 2]),
            ("e", 4, &[1; 4]),
            ("f", 5, &[1; 8]),
            ("g", 6, &[0, 3, 1, 2, 3]),
            ("h", 8, &[1; 8]),
            ("i", 9, &[1; 16]),
            ("", 7, &[0, 0]),
            (":event-type", 7, &*text(&"x".repeat(70))),
        ];
        let stream = [message(&event, b"{}"), message(&exception, b""), message(&kinds, b"abc")];
        assert_eq!(
            messages(&stream.concat()).unwrap(),
            [
                ["event", "metadata", "", "{}"].map(str::to_owned),
                ["exception", "", "throttlingException", ""].map(str::to_owned),
                ["", &*"x".repeat(64), "", "abc"].map(str::to_owned),
            ]
        );
        assert_eq!(messages(b""), Ok(vec![]));
    }

    #[test]
    fn a_stream_with_any_changed_byte_is_broken() {
        let stream = message(&[(":event-type", 7, &*text("chunk"))], b"{\"bytes\":\"e30=\"}");
        let messages = messages_of(&[&stream]);
        assert!(messages.is_ok());
        for at in 0..stream.len() {
            let mut changed = stream.clone();
            changed[at] ^= 1;
            assert_eq!(messages_of(&[&changed]), Err(Broken), "byte {at}");
            assert_eq!(
                messages_of(&[&stream[..at]]),
                if at == 0 { Ok(vec![]) } else { Err(Broken) }
            );
        }
    }

    #[test]
    fn lengths_and_headers_that_cannot_be_are_refused() {
        let twice = [(":event-type", 7, &*text("a")), (":event-type", 7, &*text("b"))];
        assert_eq!(messages(&message(&twice, b"")), Err(Broken));
        assert_eq!(messages(&message(&[("a", 10, &[])], b"")), Err(Broken));
        assert_eq!(messages(&framed(&[5, b'a'], b"")), Err(Broken));
        assert_eq!(messages(&framed(&[1, b'a', 7, 0, 9, b'x'], b"")), Err(Broken));
        let prelude = |total: u32, headers: u32| {
            let mut prelude = [total.to_be_bytes(), headers.to_be_bytes()].concat();
            prelude.extend(crc32(&prelude).to_be_bytes());
            Frames::default().next(&mut prelude.as_slice()).map(|part| part.is_some())
        };
        assert_eq!(prelude(16, 0), Ok(false));
        for (total, headers) in [(15, 0), (16, 1), (0, 0), (u32::MAX, 0), (0, u32::MAX)] {
            assert_eq!(prelude(total, headers), Err(Broken), "{total} {headers}");
        }
        assert_eq!(prelude(MAX_HEADERS_BYTES + 16, MAX_HEADERS_BYTES), Ok(false));
        assert_eq!(prelude(MAX_HEADERS_BYTES + 17, MAX_HEADERS_BYTES + 1), Err(Broken));
        assert_eq!(prelude(MAX_PAYLOAD_BYTES + 16, 0), Ok(false));
        assert_eq!(prelude(MAX_PAYLOAD_BYTES + 17, 0), Err(Broken));
    }

    #[test]
    fn a_broken_stream_stays_broken() {
        let mut frames = Frames::default();
        assert_eq!(frames.next(&mut &[0; 12][..]), Err(Broken));
        let stream = message(&[], b"");
        assert_eq!(frames.next(&mut stream.as_slice()), Err(Broken));
        assert!(!frames.is_complete());
    }
}
