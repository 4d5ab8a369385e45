//! Strings: escapes, UTF-8, and what is remembered of their text.

use super::Unreadable;
use super::hash::{HASH_OF_NOTHING, hash};
use super::reader::{MAX_TEXT_BYTES, Names, Reader, Spot, Text};
use super::words::{is_base64, plain_bytes};

/// The string that is being read.
#[derive(Debug, Default)]
pub(super) struct Str {
    /// The first bytes of its text, if it is wanted.
    pub(super) text: Vec<u8>,
    /// The length of its text.
    pub(super) len: u64,
    /// The hash of its text, if it is a name that is hashed.
    hash: u64,
    /// Whether it contains NUL or half a surrogate pair.
    pub(super) is_flawed: bool,
    is_hashed: bool,
    /// Whether it may contain control characters and bytes that are not UTF-8.
    is_tolerant: bool,
    is_wanted: bool,
    /// Where it is, if the reader receives all of its text.
    streamed_at: Option<Spot>,
    /// Whether it has a byte that base64 has not, after the first [`PREFIX_BYTES`].
    has_words: bool,
    escape: Escape,
    /// The first half of a surrogate pair, or 0.
    high: u32,
    /// The bytes of a UTF-8 sequence of which some are missing, and their number.
    partial: [u8; 4],
    partial_len: usize,
}

/// The name of a member.
pub(super) struct Name<'a> {
    /// Its text, if it is wanted.
    pub(super) text: Text<'a>,
    /// The hash of all of it, if members are compared.
    pub(super) hash: u64,
}

/// How far an escape sequence has been read.
#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    /// The backslash.
    Begun,
    /// `\u`, and some of its digits, after a 1.
    Digits(u32),
}

/// A text in base64 of more than that many bytes is not text, but a file.
const MIN_FILE_BYTES: u64 = 8192;

/// Longer texts of which nothing but the length matters are read in another way, so less is read twice of a long one. It
/// is less than [`MIN_FILE_BYTES`].
const MAX_IGNORED_BYTES: usize = 2048;

/// The first bytes of a text may be others: a data URL says there what follows.
const PREFIX_BYTES: u64 = 128;

// === impl Str ===

impl Str {
    /// Begins the name of a member, after its opening quote. `is_tolerant`: it may contain control characters and bytes
    /// that are not UTF-8, and is not hashed.
    pub(super) fn begin_name(&mut self, is_wanted: bool, is_tolerant: bool) {
        self.begin(is_wanted, None, is_tolerant);
        self.is_hashed = !is_tolerant;
        self.has_words = true;
    }

    /// Begins a text, after its opening quote. `is_tolerant`: as for a name.
    pub(super) fn begin_text(
        &mut self,
        is_wanted: bool,
        streamed_at: Option<Spot>,
        is_tolerant: bool,
    ) {
        self.begin(is_wanted, streamed_at, is_tolerant);
        self.is_hashed = false;
        self.has_words = is_tolerant;
    }

    fn begin(&mut self, is_wanted: bool, streamed_at: Option<Spot>, is_tolerant: bool) {
        self.text.clear();
        self.len = 0;
        self.hash = HASH_OF_NOTHING;
        self.is_flawed = false;
        self.is_tolerant = is_tolerant;
        self.is_wanted = is_wanted;
        self.streamed_at = streamed_at;
    }

    /// Forgets what is missing of a string.
    pub(super) fn reset(&mut self) {
        self.escape = Escape::None;
        self.high = 0;
        self.partial_len = 0;
    }

    /// Reads what is left of the string, and removes it from `bytes`. Returns whether the string has ended.
    pub(super) fn read(
        &mut self,
        bytes: &mut &[u8],
        reader: &mut dyn Reader,
    ) -> Result<bool, Unreadable> {
        loop {
            while !matches!(self.escape, Escape::None) {
                let Some((byte, after)) = bytes.split_first() else { return Ok(false) };
                *bytes = after;
                self.escape(*byte, reader)?;
            }
            self.plain(bytes, reader)?;
            let Some((byte, after)) = bytes.split_first() else { return Ok(false) };
            *bytes = after;
            match byte {
                _ if self.partial_len > 0 => return Err(Unreadable::NotUtf8),
                b'"' => {
                    self.end_pair(reader)?;
                    return Ok(true);
                }
                b'\\' => self.escape = Escape::Begun,
                _ if self.is_tolerant => self.put(&[*byte], reader)?,
                _ => return Err(Unreadable::NotJson),
            }
        }
    }

    /// It as a value.
    pub(super) fn value(&self) -> Text<'_> {
        self.text(&self.text)
    }

    /// The name that has ended, with this text.
    pub(super) fn name<'a>(&self, text: &'a [u8]) -> Name<'a> {
        Name { text: self.text(text), hash: self.hash }
    }

    fn text<'a>(&self, bytes: &'a [u8]) -> Text<'a> {
        Text { bytes, is_cut: self.is_cut(), is_flawed: self.is_flawed, len: self.len }
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
        let (len, is_ascii) = plain_bytes(bytes);
        let Some((run, after)) = bytes.split_at_checked(len) else { return Ok(()) };
        if run.is_empty() {
            return Ok(());
        }
        let is_checked = (self.partial_len > 0 || !is_ascii) && !self.is_tolerant;
        let valid_len = if is_checked { self.check(run) } else { run.len() };
        // What is before an error is received, as it is if it comes in a piece of its own.
        let valid = run.get(..valid_len).unwrap_or_default();
        if !valid.is_empty() {
            self.end_pair(reader)?;
            self.put(valid, reader)?;
        }
        *bytes = after;
        if valid_len == run.len() { Ok(()) } else { Err(Unreadable::NotUtf8) }
    }

    /// How many of these bytes are UTF-8. A sequence may go on after them.
    #[inline(never)]
    fn check(&mut self, run: &[u8]) -> usize {
        let mut len = 0;
        loop {
            if self.partial_len == 0 {
                len += valid_len(run.get(len..).unwrap_or_default());
            }
            match run.get(len) {
                Some(byte) if self.goes_on(*byte) => len += 1,
                Some(_) | None => return len,
            }
        }
    }

    /// Whether a byte may be the next of a sequence of which some are missing.
    fn goes_on(&mut self, byte: u8) -> bool {
        if let Some(to) = self.partial.get_mut(self.partial_len) {
            *to = byte;
        }
        self.partial_len += 1;
        match str::from_utf8(self.partial.get(..self.partial_len).unwrap_or_default()) {
            Ok(_) => self.partial_len = 0,
            Err(error) => return error.error_len().is_none(),
        }
        true
    }

    /// Reads a byte of an escape sequence.
    fn escape(&mut self, byte: u8, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if let Escape::Digits(digits) = self.escape {
            let digit = char::from(byte).to_digit(16).ok_or(Unreadable::NotJson)?;
            let digits = digits << 4 | digit;
            self.escape = Escape::Digits(digits);
            return if digits < 0x1_0000 { Ok(()) } else { self.unit(digits & 0xFFFF, reader) };
        }
        let plain = match byte {
            b'u' => {
                self.escape = Escape::Digits(1);
                return Ok(());
            }
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return Err(Unreadable::NotJson),
        };
        self.escape = Escape::None;
        self.end_pair(reader)?;
        self.put(&[plain], reader)
    }

    /// Adds a UTF-16 code unit.
    fn unit(&mut self, unit: u32, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        self.escape = Escape::None;
        let mut code = unit;
        if self.high != 0 && (0xDC00..0xE000).contains(&unit) {
            code = 0x1_0000 + ((self.high & 0x3FF) << 10 | unit & 0x3FF);
            self.high = 0;
        }
        self.end_pair(reader)?;
        if (0xD800..0xDC00).contains(&code) {
            self.high = code;
            return Ok(());
        }
        self.put_code(code, reader)
    }

    /// Adds half a surrogate pair if its second half does not follow.
    fn end_pair(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        match std::mem::take(&mut self.high) {
            0 => Ok(()),
            half => self.put_code(half, reader),
        }
    }

    /// Adds a code point. Half a surrogate pair becomes U+FFFD.
    #[inline(never)]
    fn put_code(&mut self, code: u32, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let char = char::from_u32(code);
        self.is_flawed |= code == 0 || char.is_none();
        let char = char.unwrap_or(char::REPLACEMENT_CHARACTER);
        self.put(char.encode_utf8(&mut [0; 4]).as_bytes(), reader)
    }

    /// Adds bytes of the text.
    #[inline(never)]
    fn put(&mut self, bytes: &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if self.is_hashed {
            self.hash = hash(self.hash, bytes);
        } else if !self.has_words {
            let prefix = usize::try_from(PREFIX_BYTES.saturating_sub(self.len)).unwrap_or_default();
            if let Some(rest @ [_, ..]) = bytes.get(prefix..) {
                self.has_words = !is_base64(rest);
            }
        }
        self.len += bytes.len() as u64;
        if self.is_wanted {
            let room = MAX_TEXT_BYTES.saturating_sub(self.text.len()).min(bytes.len());
            self.text.extend_from_slice(bytes.get(..room).unwrap_or_default());
        }
        match self.streamed_at {
            Some(at) => reader.piece(at, bytes),
            None => Ok(()),
        }
    }
}

// === impl Name ===

impl Name<'_> {
    /// The spot of the member with exactly this name.
    pub(super) fn spot(&self, names: &Names) -> Spot {
        if self.text.is_cut { names.others } else { names.spot(self.text.bytes) }
    }

    /// The spot of the member with this name if it is named.
    ///
    /// # Errors
    ///
    /// Those of [`Names::find`], and [`Unreadable::FlawedText`] if it is too long to tell.
    pub(super) fn find(&self, names: &Names) -> Result<Option<Spot>, Unreadable> {
        match (self.text.is_cut, self.text.is_flawed) {
            // It may be so long only because of its NULs.
            (true, true) => Err(Unreadable::FlawedText),
            (true, false) => Ok(None),
            (false, _) => names.find(self.text.bytes),
        }
    }
}

/// The text of a string whose opening quote is before these bytes, if it ends in them, has no escape and is not so long
/// that readers receive a part of it only, or, if nothing but its length matters, that it may be a file; and what follows
/// it. `is_tolerant`: it need not be UTF-8.
pub(super) fn whole_string(
    after: &[u8],
    is_ignored: bool,
    is_tolerant: bool,
) -> Option<(&[u8], &[u8])> {
    let max_bytes = if is_ignored { MAX_IGNORED_BYTES } else { MAX_TEXT_BYTES };
    let (len, is_ascii) = plain_bytes(after.get(..=max_bytes).unwrap_or(after));
    let (text, rest) = after.split_at_checked(len).filter(|_| len <= max_bytes)?;
    let (b'"', rest) = rest.split_first()? else { return None };
    (is_ascii || is_tolerant || str::from_utf8(text).is_ok()).then_some((text, rest))
}

/// The length of the valid UTF-8 at the beginning of some bytes.
fn valid_len(bytes: &[u8]) -> usize {
    str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len)
}
