//! The framing of Amazon Bedrock's streams (`application/vnd.amazon.eventstream`), in any pieces.

use crate::record::{Crc32, take};

/// Splits a stream into messages. It keeps nothing of a message but its headers, at most 128 KiB.
///
/// A message has a prelude of 12 bytes (its length, the length of its headers, and the CRC-32 of both), headers, a
/// payload of at most 24 MiB, and the CRC-32 of all that. Integers are big-endian.
#[derive(Debug, Default)]
pub struct Frames {
    place: Place,
    /// How many bytes are left of the headers or the payload.
    left: usize,
    payload_bytes: usize,
    crc: Crc32,
    /// What there is of the prelude or the checksum.
    partial: Vec<u8>,
    headers: Vec<u8>,
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

const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;
const MAX_HEADERS_BYTES: usize = 128 * 1024;
const MAX_PAYLOAD_BYTES: usize = 24 * 1024 * 1024;

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

    /// `:message-type` of the message: `event`, `exception` or `error`; empty if it has none. Headers are known when the
    /// payload begins, until the next message.
    pub fn message_type(&self) -> &[u8] {
        self.header(":message-type")
    }

    /// `:event-type` of the message, e.g. `metadata`; empty if it has none.
    pub fn event_type(&self) -> &[u8] {
        self.header(":event-type")
    }

    /// `:exception-type` of the message, e.g. `throttlingException`; empty if it has none.
    pub fn exception_type(&self) -> &[u8] {
        self.header(":exception-type")
    }

    fn header(&self, name: &str) -> &[u8] {
        let mut rest = self.headers.as_slice();
        while let Some((found, value)) = next_header(&mut rest) {
            if found == name.as_bytes() {
                return value;
            }
        }
        &[]
    }

    fn part<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, Broken> {
        loop {
            match self.place {
                Place::Prelude => {
                    if !self.gather(bytes, PRELUDE_BYTES) {
                        return Ok(None);
                    }
                    self.begin()?;
                }
                Place::Headers if self.left > 0 => {
                    let Some(piece) = self.piece(bytes) else { return Ok(None) };
                    self.headers.extend_from_slice(piece);
                }
                Place::Headers => {
                    let mut rest = self.headers.as_slice();
                    while !rest.is_empty() {
                        next_header(&mut rest).ok_or(Broken)?;
                    }
                    self.left = self.payload_bytes;
                    self.place = Place::Payload;
                }
                Place::Payload if self.left > 0 => return Ok(self.piece(bytes).map(Part::Payload)),
                Place::Payload => self.place = Place::Checksum,
                Place::Checksum => {
                    if !self.gather(bytes, CHECKSUM_BYTES) {
                        return Ok(None);
                    }
                    return self.end().map(Some);
                }
                Place::Nowhere => return Err(Broken),
            }
        }
    }

    /// Begins a message after its prelude.
    fn begin(&mut self) -> Result<(), Broken> {
        let mut prelude = self.partial.as_slice();
        self.crc = Crc32::default();
        self.crc.add(prelude.get(..PRELUDE_BYTES - CHECKSUM_BYTES).unwrap_or_default());
        let expected = self.crc.value();
        self.crc.add(&expected.to_be_bytes());
        let total = integer(&mut prelude)?;
        let headers = integer(&mut prelude)?;
        let checksum = integer(&mut prelude)?;
        let payload = total
            .checked_sub(headers.saturating_add(PRELUDE_BYTES + CHECKSUM_BYTES))
            .ok_or(Broken)?;
        if checksum != expected as usize
            || headers > MAX_HEADERS_BYTES
            || payload > MAX_PAYLOAD_BYTES
        {
            return Err(Broken);
        }
        self.partial.clear();
        self.headers.clear();
        self.left = headers;
        self.payload_bytes = payload;
        self.place = Place::Headers;
        Ok(())
    }

    /// Ends a message after its checksum.
    fn end(&mut self) -> Result<Part<'static>, Broken> {
        if self.partial != self.crc.value().to_be_bytes() {
            return Err(Broken);
        }
        self.partial.clear();
        self.place = Place::Prelude;
        Ok(Part::End)
    }

    /// Removes and returns what there is of the headers or the payload; `None` if nothing.
    fn piece<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let piece = split(bytes, self.left.min(bytes.len()))?;
        self.left -= piece.len();
        self.crc.add(piece);
        (!piece.is_empty()).then_some(piece)
    }

    /// Gathers this many bytes. Returns whether all of them are there.
    fn gather(&mut self, bytes: &mut &[u8], len: usize) -> bool {
        let missing = len.saturating_sub(self.partial.len());
        let piece = split(bytes, missing.min(bytes.len())).unwrap_or_default();
        self.partial.extend_from_slice(piece);
        self.partial.len() == len
    }
}

/// Removes and returns the first header: its name, and its value if it is a string.
fn next_header<'a>(headers: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    const STRING: u8 = 7;
    let [len] = take(headers)?;
    let name = split(headers, len.into())?;
    let [kind] = take(headers)?;
    let len = match kind {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        9 => 16,
        6 | STRING => u16::from_be_bytes(take(headers)?).into(),
        _ => return None,
    };
    let value = split(headers, len)?;
    Some((name, if kind == STRING { value } else { &[] }))
}

/// Removes and returns an integer.
fn integer(bytes: &mut &[u8]) -> Result<usize, Broken> {
    take(bytes).and_then(|bytes| u32::from_be_bytes(bytes).try_into().ok()).ok_or(Broken)
}

/// Removes and returns the first bytes.
fn split<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(first)
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
                ["", &*"x".repeat(70), "", "abc"].map(str::to_owned),
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
        assert_eq!(messages(&message(&[("a", 10, &[])], b"")), Err(Broken));
        assert_eq!(messages(&framed(&[5, b'a'], b"")), Err(Broken));
        assert_eq!(messages(&framed(&[1, b'a', 7, 0, 9, b'x'], b"")), Err(Broken));
        let prelude = |total: usize, headers: usize| {
            let be = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
            let mut prelude = [be(total), be(headers)].concat();
            prelude.extend(crc32(&prelude).to_be_bytes());
            Frames::default().next(&mut prelude.as_slice()).map(|part| part.is_some())
        };
        assert_eq!(prelude(16, 0), Ok(false));
        for (total, headers) in [(15, 0), (16, 1), (0, 0), (0xFFFF_FFFF, 0), (0, 0xFFFF_FFFF)] {
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
