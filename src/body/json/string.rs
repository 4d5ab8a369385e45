//! Strings: escapes, UTF-8, and what is remembered of their text.

use super::Unreadable;
use super::reader::{MAX_TEXT_BYTES, Names, Reader, Spot};

/// The string that is being read.
#[derive(Debug)]
pub(super) struct Str {
    /// The offset of its opening quote in the document.
    pub(super) start: u64,
    /// Whether it is the name of a member.
    pub(super) is_name: bool,
    /// Whether its text is remembered.
    is_wanted: bool,
    /// Where it is, if the reader receives all of its text.
    streamed_at: Option<Spot>,
    /// The first bytes of its text, if it is wanted.
    pub(super) text: Vec<u8>,
    /// The length of its text.
    pub(super) len: u64,
    /// The hash of its text, if it is a name (FNV-1a).
    pub(super) hash: u64,
    /// Whether it contains NUL or half a surrogate pair.
    pub(super) is_flawed: bool,
    /// Whether it has a byte that base64 has not, after the first [`PREFIX_BYTES`].
    has_words: bool,
    escape: Escape,
    /// The first half of a surrogate pair, or 0.
    high: u16,
    rest: Continuation,
}

/// How far an escape sequence has been read.
#[derive(Clone, Copy, Debug)]
enum Escape {
    None,
    /// The backslash.
    Begun,
    /// `\u`, and some of its digits.
    Digits {
        count: u8,
        value: u16,
    },
}

/// What is missing of a UTF-8 sequence: a number of bytes, and the range of the next one (Unicode, table 3-7).
#[derive(Clone, Copy, Debug)]
struct Continuation {
    count: u8,
    min: u8,
    max: u8,
}

/// A text in base64 of more than that many bytes is not text, but a file.
const MIN_FILE_BYTES: u64 = 8192;

/// The first bytes of a text may be others: a data URL says there what follows.
const PREFIX_BYTES: u64 = 128;

const REPLACEMENT: &str = "\u{fffd}";

// === impl Str ===

impl Str {
    pub(super) fn new() -> Self {
        Self {
            start: 0,
            is_name: false,
            is_wanted: false,
            streamed_at: None,
            text: Vec::new(),
            len: 0,
            hash: 0,
            is_flawed: false,
            has_words: false,
            escape: Escape::None,
            high: 0,
            rest: Continuation::NOTHING,
        }
    }

    /// Begins a string, after its opening quote.
    pub(super) fn begin(&mut self, start: u64, is_name: bool, is_wanted: bool) {
        self.start = start;
        self.is_name = is_name;
        self.is_wanted = is_wanted;
        self.streamed_at = None;
        self.text.clear();
        self.len = 0;
        self.hash = 0xCBF2_9CE4_8422_2325;
        self.is_flawed = false;
        self.has_words = false;
    }

    /// Gives the reader all of the text, at a spot.
    pub(super) fn stream(&mut self, at: Spot) {
        self.streamed_at = Some(at);
    }

    /// Reads what is left of the string, and removes it from `bytes`. Returns whether the string has ended.
    pub(super) fn read(
        &mut self,
        bytes: &mut &[u8],
        reader: &mut dyn Reader,
    ) -> Result<bool, Unreadable> {
        loop {
            if !matches!(self.escape, Escape::None) {
                let Some((byte, after)) = bytes.split_first() else { return Ok(false) };
                *bytes = after;
                self.escape(*byte, reader)?;
                continue;
            }
            self.plain(bytes, reader)?;
            self.multibyte(bytes, reader)?;
            let Some((byte, after)) = bytes.split_first() else { return Ok(false) };
            match byte {
                b'"' => {
                    *bytes = after;
                    self.end_pair(reader)?;
                    return Ok(true);
                }
                b'\\' => {
                    *bytes = after;
                    self.escape = Escape::Begun;
                }
                0..0x20 => return Err(Unreadable::NotJson),
                _ => {}
            }
        }
    }

    /// Forgets a string of which something is missing.
    pub(super) fn reset(&mut self) {
        self.escape = Escape::None;
        self.high = 0;
        self.rest = Continuation::NOTHING;
    }

    /// Adds a byte of a number.
    pub(super) fn push(&mut self, byte: u8) {
        if self.is_wanted && self.text.len() < MAX_TEXT_BYTES {
            self.text.push(byte);
        }
    }

    /// The spot of the member with this name.
    ///
    /// # Errors
    ///
    /// Those of [`Names::find`]. A name that is cut off is none of `names`, unless it is long only because of NULs.
    pub(super) fn find(&mut self, names: &Names) -> Result<Option<Spot>, Unreadable> {
        match (self.is_cut(), self.is_flawed) {
            (true, true) => Err(Unreadable::FlawedText),
            (true, false) => Ok(None),
            (false, _) => names.find(&mut self.text),
        }
    }

    /// Whether the text is a file in base64.
    pub(super) fn is_file(&self) -> bool {
        self.len > MIN_FILE_BYTES && !self.has_words
    }

    /// Whether the text was cut off.
    pub(super) fn is_cut(&self) -> bool {
        self.len > MAX_TEXT_BYTES as u64
    }

    /// Reads bytes that stand for themselves.
    fn plain(&mut self, bytes: &mut &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if self.rest.count > 0 {
            return Ok(());
        }
        self.run(bytes, plain_bytes(bytes), reader)
    }

    /// Adds a number of bytes.
    fn run(
        &mut self,
        bytes: &mut &[u8],
        len: usize,
        reader: &mut dyn Reader,
    ) -> Result<(), Unreadable> {
        match bytes.split_at_checked(len) {
            Some((run, after)) if len > 0 => {
                *bytes = after;
                self.end_pair(reader)?;
                self.put(run, reader)
            }
            _ => Ok(()),
        }
    }

    /// Reads bytes that are not ASCII.
    fn multibyte(&mut self, bytes: &mut &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let mut len = 0;
        for byte in *bytes {
            if self.rest.count == 0 && *byte < 0x80 {
                break;
            }
            self.rest = self.rest.next(*byte).ok_or(Unreadable::NotUtf8)?;
            len += 1;
        }
        self.run(bytes, len, reader)
    }

    /// Reads a byte of an escape sequence.
    fn escape(&mut self, byte: u8, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let plain = match (self.escape, byte) {
            (Escape::Begun, b'u') => {
                self.escape = Escape::Digits { count: 0, value: 0 };
                return Ok(());
            }
            (Escape::Begun, b'"' | b'\\' | b'/') => byte,
            (Escape::Begun, b'b') => 0x08,
            (Escape::Begun, b'f') => 0x0c,
            (Escape::Begun, b'n') => b'\n',
            (Escape::Begun, b'r') => b'\r',
            (Escape::Begun, b't') => b'\t',
            (Escape::Digits { count, value }, _) => return self.digit(count, value, byte, reader),
            _ => return Err(Unreadable::NotJson),
        };
        self.escape = Escape::None;
        self.end_pair(reader)?;
        self.put(&[plain], reader)
    }

    /// Reads a digit of a `\u` sequence.
    fn digit(
        &mut self,
        count: u8,
        value: u16,
        byte: u8,
        reader: &mut dyn Reader,
    ) -> Result<(), Unreadable> {
        let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
        let value = value << 4 | digit.ok_or(Unreadable::NotJson)?;
        if count < 3 {
            self.escape = Escape::Digits { count: count + 1, value };
            return Ok(());
        }
        self.escape = Escape::None;
        self.unit(value, reader)
    }

    /// Adds a UTF-16 code unit.
    fn unit(&mut self, unit: u16, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if self.high != 0 {
            let pair = [self.high, unit];
            if let Some(Ok(char)) = char::decode_utf16(pair).next() {
                self.high = 0;
                return self.put(char.encode_utf8(&mut [0; 4]).as_bytes(), reader);
            }
            self.end_pair(reader)?;
        }
        match char::from_u32(unit.into()) {
            Some(char) => {
                self.is_flawed |= char == '\0';
                self.put(char.encode_utf8(&mut [0; 4]).as_bytes(), reader)
            }
            None if unit < 0xDC00 => {
                self.high = unit;
                Ok(())
            }
            None => self.put_half(reader),
        }
    }

    /// Adds half a surrogate pair if its second half does not follow.
    fn end_pair(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        match std::mem::take(&mut self.high) {
            0 => Ok(()),
            _ => self.put_half(reader),
        }
    }

    fn put_half(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        self.is_flawed = true;
        self.put(REPLACEMENT.as_bytes(), reader)
    }

    /// Adds bytes of the text.
    fn put(&mut self, bytes: &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if self.is_name {
            self.hash = bytes.iter().fold(self.hash, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
            });
        }
        if self.is_wanted {
            let room = MAX_TEXT_BYTES.saturating_sub(self.text.len());
            self.text.extend(bytes.iter().take(room));
        }
        if !self.has_words {
            let prefix = usize::try_from(PREFIX_BYTES.saturating_sub(self.len)).unwrap_or_default();
            self.has_words = bytes.iter().skip(prefix).any(|byte| !is_base64(*byte));
        }
        self.len = self.len.saturating_add(bytes.len() as u64);
        match self.streamed_at {
            Some(at) => reader.piece(at, bytes),
            None => Ok(()),
        }
    }
}

/// Whether base64 has that byte, in either alphabet, or as padding.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// The number of bytes at the front that are printable ASCII and neither a quote nor a backslash.
fn plain_bytes(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\' | 0x80..))
        .unwrap_or(bytes.len())
}

// === impl Continuation ===

impl Continuation {
    const NOTHING: Self = Self { count: 0, min: 0, max: 0 };

    /// The next byte of a sequence; `None` if it is invalid.
    fn next(self, byte: u8) -> Option<Self> {
        match self.count {
            0 => Self::begin(byte),
            1.. if byte < self.min || byte > self.max => None,
            count => Some(Self { count: count - 1, min: 0x80, max: 0xBF }),
        }
    }

    /// The first byte of a sequence of more than one.
    fn begin(byte: u8) -> Option<Self> {
        let (count, min, max) = match byte {
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return None,
        };
        Some(Self { count, min, max })
    }
}
