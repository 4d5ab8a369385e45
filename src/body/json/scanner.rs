//! The scanner.

use super::Unreadable;
use super::atom::{atom, atom_bytes};
use super::hash::{HASH_OF_NOTHING, hash};
use super::members::Members;
use super::reader::{MAX_NUMBER_BYTES, Reader, Span, Spot, Text, Value};
use super::skip::Skip;
use super::string::{Name, Str, whole_string};

/// The bounds of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How deep objects and arrays may be nested.
    pub max_depth: u16,
    /// How many members all open objects may have together. Each takes 8 bytes of memory.
    pub max_open_keys: u32,
}

/// Reads one document.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    /// Whether what does not keep a reader from finding the end of a value is accepted: see [`Scanner::tolerant`].
    is_tolerant: bool,
    /// The offset of the next byte that is fed.
    offset: u64,
    /// The tokens that may come next, a sum of constants of [`next`].
    next: u8,
    inside: Inside,
    /// The offset of the first byte of what the next byte is inside of.
    start: u64,
    /// The objects and arrays that are open.
    open: Vec<Container>,
    members: Members,
    /// The spot of the value that is being read, or comes next.
    spot: Spot,
    string: Str,
    /// The bytes of a number or a literal that began in an earlier piece.
    atom: Vec<u8>,
    skip: Skip,
    /// The length of all texts, without names and files.
    text_bytes: u64,
    /// The length of all names.
    name_bytes: u64,
    /// The number of texts that are files in base64.
    files: u64,
    /// Why the document is not readable.
    error: Option<Unreadable>,
}

/// The tokens that may come next.
mod next {
    use crate::body::json::atom::is_atom;

    /// Only white space.
    pub(super) const NOTHING: u8 = 0;
    pub(super) const VALUE: u8 = 1;
    pub(super) const NAME: u8 = 2;
    pub(super) const COLON: u8 = 4;
    pub(super) const COMMA: u8 = 8;
    pub(super) const END_OF_OBJECT: u8 = 16;
    pub(super) const END_OF_ARRAY: u8 = 32;
    /// With [`VALUE`]: it is the whole document.
    pub(super) const DOCUMENT: u8 = 64;
    /// Only in [`TOKENS`]: white space, which may always come.
    pub(super) const SPACE: u8 = 128;

    /// The tokens that a byte may begin.
    pub(super) static TOKENS: [u8; 256] = tokens();

    const fn tokens() -> [u8; 256] {
        let mut tokens = [NOTHING; 256];
        let mut byte = 0;
        while byte < 0x80 {
            #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
            {
                tokens[byte as usize] = token(byte);
            }
            byte += 1;
        }
        tokens
    }

    const fn token(byte: u8) -> u8 {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => SPACE,
            b':' => COLON,
            b',' => COMMA,
            b'}' => END_OF_OBJECT,
            b']' => END_OF_ARRAY,
            b'"' => NAME | VALUE,
            b'{' | b'[' => VALUE,
            _ if is_atom(byte) => VALUE,
            _ => NOTHING,
        }
    }
}

/// What the next byte is inside of.
#[derive(Clone, Copy, Debug)]
enum Inside {
    Nothing,
    /// The name of a member.
    Name,
    /// A string.
    Text,
    /// A number, `null`, `true` or `false`.
    Atom,
    /// An object or array of which nothing is read but its end.
    Skipped,
}

/// An object or array that is open.
#[derive(Debug)]
struct Container {
    start: u64,
    /// The number of members of open objects before its own.
    members_before: usize,
    at: Spot,
    /// The spot of the elements of an array; `None` is an object.
    items: Option<Spot>,
}

/// The estimate for a file in base64.
const FILE_TOKENS: u64 = 2000;

/// The estimate for text.
const BYTES_PER_TOKEN: u64 = 4;

/// Numbers that are ignored may be longer than others, but not much.
const MAX_ATOM_BYTES: usize = 512;

/// The names of ordinary documents are short, and come free: they take part of what is estimated for their texts.
const FREE_NAME_BYTES: u64 = 4096;

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { max_depth: 128, max_open_keys: 16_384 }
    }
}

// === impl Scanner ===

impl Scanner {
    /// Reads a document within these limits. It allocates memory only when it needs some.
    #[inline(never)]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            is_tolerant: false,
            offset: 0,
            next: next::VALUE | next::DOCUMENT,
            inside: Inside::Nothing,
            start: 0,
            open: Vec::new(),
            members: Members::default(),
            spot: Spot::ROOT,
            string: Str::default(),
            atom: Vec::new(),
            skip: Skip::default(),
            text_bytes: 0,
            name_bytes: 0,
            files: 0,
            error: None,
        }
    }

    /// As [`Scanner::new`], for what a provider sends, of which a reader may take the largest of all counts. No value
    /// keeps it from the values after it: an object may have a member twice, and members whose names differ from known
    /// ones in case only. Objects and arrays that are ignored, or nested too deeply, are skipped up to their end. A string
    /// may contain control characters and bytes that are not UTF-8, and what looks like a number or a literal but is
    /// not one, as `NaN`, or is too long, is not reported.
    pub fn tolerant(limits: Limits) -> Self {
        Self { is_tolerant: true, ..Self::new(limits) }
    }

    /// Begins another document, and keeps the memory.
    pub fn reset(&mut self) {
        self.offset = 0;
        self.next = next::VALUE | next::DOCUMENT;
        self.inside = Inside::Nothing;
        self.open.clear();
        self.members.clear();
        self.spot = Spot::ROOT;
        self.string.reset();
        self.atom.clear();
        self.text_bytes = 0;
        self.name_bytes = 0;
        self.files = 0;
        self.error = None;
    }

    /// Reads the next bytes of the document. How it is cut makes no difference.
    ///
    /// # Errors
    ///
    /// Why the document is not readable. It stays so: all further calls return the same.
    pub fn feed(&mut self, bytes: &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if self.error.is_none() {
            self.error = self.read(bytes, reader).err();
        }
        self.error.map_or(Ok(()), Err)
    }

    /// Ends the document.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Empty`] or [`Unreadable::Incomplete`] if it has not ended, or what `feed` returned.
    pub fn finish(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if self.error.is_none() {
            self.error = self.end(reader).err();
        }
        self.error.map_or(Ok(()), Err)
    }

    /// Whether the value of the document has ended. Only white space may follow. (A number that is a document by
    /// itself ends with what follows it.)
    pub fn is_complete(&self) -> bool {
        self.next == next::NOTHING && self.error.is_none()
    }

    /// The length of all texts after unescaping, without names of members and without files.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// An estimate of the tokens of all texts: 1 for 4 bytes of text, and 2000 for each text that is a file: more than
    /// 8192 bytes in base64, except for the first 128, which may be those of a data URL. Names of members count as text,
    /// except for the first 4096 bytes of all names together.
    pub fn text_tokens(&self) -> u64 {
        let text_bytes = self.text_bytes + self.name_bytes.saturating_sub(FREE_NAME_BYTES);
        text_bytes.div_ceil(BYTES_PER_TOKEN) + self.files * FILE_TOKENS
    }

    /// The memory that is allocated, in bytes.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let open = size_of::<Container>() * self.open.capacity();
        open + self.members.memory_bytes() + self.string.text.capacity() + self.atom.capacity()
    }

    fn read(&mut self, mut bytes: &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let end = self.offset + bytes.len() as u64;
        while let Some((byte, after)) = bytes.split_first() {
            match self.inside {
                Inside::Nothing => {
                    self.offset = end - bytes.len() as u64;
                    if let Some((text, after)) = whole_string(*byte, after, self.is_tolerant) {
                        bytes = after;
                        self.whole_string(text, reader)?;
                        self.punctuation(&mut bytes);
                        continue;
                    }
                    self.token(*byte, reader)?;
                    if !matches!(self.inside, Inside::Atom) {
                        bytes = after;
                    }
                }
                Inside::Atom => {
                    let len = atom_bytes(bytes);
                    let Some((text, after)) = bytes.split_at_checked(len) else { break };
                    bytes = after;
                    self.offset = end - bytes.len() as u64;
                    self.atom(text, bytes.is_empty(), reader)?;
                    self.punctuation(&mut bytes);
                }
                Inside::Skipped => {
                    if !self.skip.read(&mut bytes) {
                        break;
                    }
                    self.end_value();
                }
                Inside::Name | Inside::Text => {
                    if !self.string.read(&mut bytes, reader)? {
                        break;
                    }
                    self.offset = end - bytes.len() as u64;
                    self.end_string(reader)?;
                }
            }
        }
        self.offset = end;
        Ok(())
    }

    /// Reads a string that ends in the piece in which it begins, as most do.
    fn whole_string(&mut self, text: &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if self.next & (next::NAME | next::VALUE) == 0 {
            return Err(self.unexpected(b'"'));
        }
        self.start = self.offset;
        let len = text.len() as u64;
        let text = Text { bytes: text, is_cut: false, is_flawed: false, len };
        self.offset += len + 2;
        if self.next & next::NAME != 0 {
            self.name_bytes += len;
            let hash = if self.is_tolerant { 0 } else { hash(HASH_OF_NOTHING, text.bytes) };
            return self.end_name(&Name { text, hash }, reader);
        }
        self.text_bytes += len;
        self.end_value();
        if self.spot == Spot::IGNORED {
            return Ok(());
        }
        if len > 0 && reader.streams(self.spot) {
            reader.piece(self.spot, text.bytes)?;
        }
        self.report(Value::Text(text), reader)
    }

    /// Reads white space, or the first byte of a token.
    fn token(&mut self, byte: u8, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let token = next::TOKENS.get(usize::from(byte)).copied().unwrap_or_default();
        if token == next::SPACE {
            return Ok(());
        }
        if self.next & token == 0 {
            return Err(self.unexpected(byte));
        }
        match byte {
            b':' => self.next = next::VALUE,
            b',' => self.comma(),
            b'{' | b'[' => return self.open(byte == b'[', reader),
            b'}' | b']' => return self.close(reader),
            b'"' if self.next & next::NAME != 0 => {
                let is_wanted = self.open.last().is_some_and(|object| object.at != Spot::IGNORED);
                self.begin(Inside::Name);
                self.string.begin_name(is_wanted, self.is_tolerant);
            }
            b'"' => {
                self.begin(Inside::Text);
                let is_wanted = self.spot != Spot::IGNORED;
                let is_streamed = is_wanted && reader.streams(self.spot);
                let streamed_at = is_streamed.then_some(self.spot);
                self.string.begin_text(is_wanted, streamed_at, self.is_tolerant);
            }
            _ => {
                self.begin(Inside::Atom);
                self.atom.clear();
            }
        }
        Ok(())
    }

    /// Reads what follows a name or a value in a document without white space, as most are.
    fn punctuation(&mut self, bytes: &mut &[u8]) {
        match bytes.split_first() {
            Some((b':', after)) if self.next == next::COLON => {
                *bytes = after;
                self.next = next::VALUE;
            }
            Some((b',', after)) if self.next & next::COMMA != 0 => {
                *bytes = after;
                self.comma();
            }
            _ => {}
        }
    }

    fn comma(&mut self) {
        let items = self.open.last().and_then(|container| container.items);
        self.next = if items.is_some() { next::VALUE } else { next::NAME };
        self.spot = items.unwrap_or(Spot::IGNORED);
    }

    /// Why a byte is wrong that does not begin a token that may come next.
    fn unexpected(&self, byte: u8) -> Unreadable {
        match (self.next, byte) {
            (next::NOTHING, _) => Unreadable::TrailingBytes,
            // UTF-16, UTF-32 and byte order marks have such bytes.
            (_, 0 | 0x80..) => Unreadable::NotUtf8,
            _ => Unreadable::NotJson,
        }
    }

    fn begin(&mut self, inside: Inside) {
        self.inside = inside;
        self.start = self.offset;
    }

    /// Begins an object or array.
    fn open(&mut self, is_array: bool, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let is_too_deep = self.open.len() >= usize::from(self.limits.max_depth);
        let at = self.spot;
        if self.is_tolerant && (is_too_deep || at == Spot::IGNORED) {
            self.inside = Inside::Skipped;
            self.skip = Skip::default();
            return Ok(());
        }
        if is_too_deep {
            return Err(Unreadable::TooDeep);
        }
        let start = self.offset;
        let mut items = is_array.then_some(Spot::IGNORED);
        if at != Spot::IGNORED {
            let value = if is_array { Value::OpenArray } else { Value::OpenObject };
            reader.value(at, value, Span { start, end: start })?;
            items = is_array.then(|| reader.items(at));
        }
        self.open.push(Container { start, members_before: self.members.len(), at, items });
        self.spot = items.unwrap_or(Spot::IGNORED);
        self.next = match is_array {
            true => next::VALUE | next::END_OF_ARRAY,
            false => next::NAME | next::END_OF_OBJECT,
        };
        Ok(())
    }

    /// Ends the innermost object or array.
    fn close(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let container = self.open.pop().ok_or(Unreadable::NotJson)?;
        self.members.end(container.members_before)?;
        self.spot = container.at;
        self.start = container.start;
        self.offset += 1;
        let is_array = container.items.is_some();
        self.end_value();
        self.report(if is_array { Value::CloseArray } else { Value::CloseObject }, reader)
    }

    /// Reads bytes of a number or a literal. If they are the last of a piece, more may follow.
    fn atom(
        &mut self,
        text: &[u8],
        is_last: bool,
        reader: &mut dyn Reader,
    ) -> Result<(), Unreadable> {
        if self.atom.len() + text.len() > MAX_ATOM_BYTES && !self.is_tolerant {
            return Err(Unreadable::TooLong);
        }
        if !is_last && self.atom.is_empty() {
            return self.end_atom(text, reader);
        }
        let room = (MAX_ATOM_BYTES + 1).saturating_sub(self.atom.len()).min(text.len());
        self.atom.extend_from_slice(text.get(..room).unwrap_or_default());
        if is_last { Ok(()) } else { self.end_kept_atom(reader) }
    }

    fn end_kept_atom(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let text = std::mem::take(&mut self.atom);
        let result = self.end_atom(&text, reader);
        self.atom = text;
        result
    }

    fn end_atom(&mut self, text: &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let is_ignored = self.spot == Spot::IGNORED;
        let is_short = is_ignored || text.len() <= MAX_NUMBER_BYTES;
        self.end_value();
        match atom(text) {
            Ok(value) if is_short => self.report(value, reader),
            _ if self.is_tolerant => Ok(()),
            Ok(_) => Err(Unreadable::TooLong),
            Err(unreadable) => Err(unreadable),
        }
    }

    fn end_string(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if matches!(self.inside, Inside::Name) {
            self.name_bytes += self.string.len;
            let string = std::mem::take(&mut self.string.text);
            let result = self.end_name(&self.string.name(&string), reader);
            self.string.text = string;
            return result;
        }
        if self.string.is_file() {
            self.files += 1;
        } else {
            self.text_bytes += self.string.len;
        }
        self.end_value();
        self.report(Value::Text(self.string.value()), reader)
    }

    /// Ends the name of a member.
    fn end_name(&mut self, name: &Name<'_>, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        self.inside = Inside::Nothing;
        self.next = next::COLON;
        self.spot = Spot::IGNORED;
        let object = self.open.last().ok_or(Unreadable::NotJson)?;
        let at = object.at;
        let names = (at != Spot::IGNORED).then(|| reader.names(at));
        if self.is_tolerant {
            self.spot = names.map_or(Spot::IGNORED, |names| name.spot(names));
            return Ok(());
        }
        let mut id = name.hash;
        if let Some(names) = names {
            let known = match reader.member(at, &name.text) {
                Some(spot) => Some(spot),
                None => name.find(names)?,
            };
            self.spot = known.unwrap_or(names.others);
            // Names that lead to the same spot are the same.
            if let Some(spot) = known.filter(|spot| *spot != Spot::IGNORED) {
                id = spot.0.into();
            }
        }
        if self.members.len() >= usize::try_from(self.limits.max_open_keys).unwrap_or(usize::MAX) {
            return Err(Unreadable::TooManyMembers);
        }
        self.members.push(object.members_before, id)
    }

    /// Ends a value at the present offset.
    fn end_value(&mut self) {
        self.inside = Inside::Nothing;
        self.next = match self.open.last() {
            None => next::NOTHING,
            Some(Container { items: Some(_), .. }) => next::COMMA | next::END_OF_ARRAY,
            Some(_) => next::COMMA | next::END_OF_OBJECT,
        };
    }

    /// Reports a value that has ended, unless it is ignored.
    fn report(&self, value: Value<'_>, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        match self.spot {
            Spot::IGNORED => Ok(()),
            spot => reader.value(spot, value, Span { start: self.start, end: self.offset }),
        }
    }

    fn end(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if matches!(self.inside, Inside::Atom) && self.open.is_empty() {
            return self.end_kept_atom(reader);
        }
        match (self.inside, self.next) {
            (_, next::NOTHING) => Ok(()),
            (Inside::Nothing, next) if next & next::DOCUMENT != 0 => Err(Unreadable::Empty),
            _ => Err(Unreadable::Incomplete),
        }
    }
}
