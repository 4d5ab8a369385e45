//! The scanner.

use super::Unreadable;
use super::atom::{atom, atom_bytes};
use super::hash::{HASH_OF_NOTHING, hash};
use super::members::Members;
use super::reader::{MAX_NUMBER_BYTES, Names, Reader, Span, Spot, Text, Value};
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
    /// The offset after the last byte of the piece that is read.
    end: u64,
    place: Place,
    inside: Inside,
    /// The offset of the first byte of what the next byte is inside of.
    start: u64,
    /// The objects and arrays that are open.
    open: Vec<Container>,
    members: Members,
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

/// What may come next, and where.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The tokens that may come next, a sum of constants of [`next`].
    next: u8,
    /// The spot of the value that is being read, or comes next.
    spot: Spot,
    within: Within,
}

/// What a value is directly inside of.
#[derive(Clone, Copy, Debug)]
struct Within {
    /// The spot of the object or array.
    at: Spot,
    /// The members of interest of an object that is not ignored.
    names: Option<&'static Names>,
    /// The spot of the elements of an array.
    items: Spot,
    /// The tokens that may follow a value.
    after_value: u8,
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
    /// A string may be either.
    pub(super) const STRING: u8 = NAME | VALUE;
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
            b'"' => STRING,
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
    /// What it is directly inside of.
    within: Within,
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
            end: 0,
            place: Place::START,
            inside: Inside::Nothing,
            start: 0,
            open: Vec::new(),
            members: Members::default(),
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
        self.end = 0;
        self.place = Place::START;
        self.inside = Inside::Nothing;
        self.open.clear();
        self.members.clear();
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
        self.place.next == next::NOTHING && self.error.is_none()
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
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            match self.inside {
                Inside::Nothing => self.tokens(&mut bytes, reader)?,
                Inside::Atom => self.kept_atom(&mut bytes, reader)?,
                Inside::Skipped => {
                    if self.skip.read(&mut bytes) {
                        self.inside = Inside::Nothing;
                        self.place.end_value();
                    }
                }
                Inside::Name | Inside::Text => {
                    if self.string.read(&mut bytes, reader)? {
                        self.end_string(self.offset(bytes), reader)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The offset of what is left of a piece.
    fn offset(&self, rest: &[u8]) -> u64 {
        self.end - rest.len() as u64
    }

    /// Reads tokens up to one that this piece does not end, or that is read in another way. The place is in variables
    /// meanwhile, because all of them need it.
    fn tokens(&mut self, bytes: &mut &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let mut place = self.place;
        let mut rest = *bytes;
        while let Some((byte, after)) = rest.split_first() {
            let start = rest;
            rest = after;
            let token = next::TOKENS.get(usize::from(*byte)).copied().unwrap_or_default();
            if token == next::SPACE {
                continue;
            }
            if place.next & token == 0 {
                return Err(place.unexpected(*byte));
            }
            match (token, byte) {
                (next::STRING, _) => {
                    let is_ignored = place.spot == Spot::IGNORED && place.next & next::NAME == 0;
                    let whole = whole_string(rest, is_ignored, self.is_tolerant);
                    let Some((text, after)) = whole else {
                        self.begin_string(place, self.offset(start), reader);
                        break;
                    };
                    rest = after;
                    let span = Span { start: self.offset(start), end: self.offset(rest) };
                    self.whole_string(text, &mut place, span, reader)?;
                }
                (next::COLON, _) => place.next = next::VALUE,
                (next::COMMA, _) => place.comma(),
                (next::END_OF_OBJECT | next::END_OF_ARRAY, _) => {
                    self.close(&mut place, self.offset(rest), reader)?;
                }
                (_, b'{' | b'[') => {
                    let is_array = *byte == b'[';
                    if !self.open(is_array, &mut place, self.offset(start), reader)? {
                        break;
                    }
                }
                _ => {
                    let (text, after) =
                        start.split_at_checked(atom_bytes(start)).unwrap_or_default();
                    if after.is_empty() {
                        self.begin(Inside::Atom, self.offset(start));
                        self.atom.clear();
                        rest = start;
                        break;
                    }
                    rest = after;
                    place.end_value();
                    if place.spot != Spot::IGNORED || !self.is_tolerant {
                        let span = Span { start: self.offset(start), end: self.offset(rest) };
                        self.atom(text, place.spot, span, reader)?;
                    }
                }
            }
            place.punctuation(&mut rest);
        }
        self.place = place;
        *bytes = rest;
        Ok(())
    }

    /// Begins what may end in another piece.
    fn begin(&mut self, inside: Inside, start: u64) {
        self.inside = inside;
        self.start = start;
    }

    /// Reads a string that ends in the piece in which it begins, as most do.
    fn whole_string(
        &mut self,
        text: &[u8],
        place: &mut Place,
        span: Span,
        reader: &mut dyn Reader,
    ) -> Result<(), Unreadable> {
        let len = text.len() as u64;
        let text = Text { bytes: text, is_cut: false, is_flawed: false, len };
        if place.next & next::NAME != 0 {
            place.next = next::COLON;
            place.spot = match place.within.names {
                Some(names) if self.is_tolerant => names.spot(text.bytes),
                _ => {
                    let hash = hash(HASH_OF_NOTHING, text.bytes);
                    self.name(&Name { text, hash }, place.within, reader)?
                }
            };
            return Ok(());
        }
        self.text_bytes += len;
        place.end_value();
        if place.spot == Spot::IGNORED {
            return Ok(());
        }
        if len > 0 && reader.streams(place.spot) {
            reader.piece(place.spot, text.bytes)?;
        }
        reader.value(place.spot, Value::Text(text), span)
    }

    /// Begins a string that may end in another piece, or has to be decoded.
    fn begin_string(&mut self, place: Place, start: u64, reader: &mut dyn Reader) {
        if place.next & next::NAME != 0 {
            self.begin(Inside::Name, start);
            self.string.begin_name(place.within.names.is_some(), self.is_tolerant);
            return;
        }
        self.begin(Inside::Text, start);
        let is_wanted = place.spot != Spot::IGNORED;
        let is_streamed = is_wanted && reader.streams(place.spot);
        let streamed_at = is_streamed.then_some(place.spot);
        self.string.begin_text(is_wanted, streamed_at, self.is_tolerant);
    }

    /// Ends a string that was begun.
    fn end_string(&mut self, end: u64, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if matches!(std::mem::replace(&mut self.inside, Inside::Nothing), Inside::Name) {
            let string = std::mem::take(&mut self.string.text);
            let name = self.string.name(&string);
            let spot = self.name(&name, self.place.within, reader);
            self.string.text = string;
            self.place.next = next::COLON;
            self.place.spot = spot?;
            return Ok(());
        }
        if self.string.is_file() {
            self.files += 1;
        } else {
            self.text_bytes += self.string.len;
        }
        self.place.end_value();
        let span = Span { start: self.start, end };
        report(self.place.spot, Value::Text(self.string.value()), span, reader)
    }

    /// Reads the name of a member of the innermost object. Returns the spot of its value.
    #[inline(never)]
    fn name(
        &mut self,
        name: &Name<'_>,
        object: Within,
        reader: &mut dyn Reader,
    ) -> Result<Spot, Unreadable> {
        if self.is_tolerant {
            return Ok(object.names.map_or(Spot::IGNORED, |names| name.spot(names)));
        }
        self.name_bytes += name.text.len;
        let (mut id, mut spot) = (name.hash, Spot::IGNORED);
        if let Some(names) = object.names {
            let known = match reader.member(object.at, &name.text) {
                Some(spot) => Some(spot),
                None => name.find(names)?,
            };
            spot = known.unwrap_or(names.others);
            // Names that lead to the same spot are the same.
            if let Some(spot) = known.filter(|spot| *spot != Spot::IGNORED) {
                id = spot.0.into();
            }
        }
        if self.members.len() >= usize::try_from(self.limits.max_open_keys).unwrap_or(usize::MAX) {
            return Err(Unreadable::TooManyMembers);
        }
        let first = self.open.last().ok_or(Unreadable::NotJson)?.members_before;
        self.members.push(first, id)?;
        Ok(spot)
    }

    /// Begins an object or array. Returns false if it is skipped instead.
    fn open(
        &mut self,
        is_array: bool,
        place: &mut Place,
        start: u64,
        reader: &mut dyn Reader,
    ) -> Result<bool, Unreadable> {
        let is_too_deep = self.open.len() >= usize::from(self.limits.max_depth);
        let at = place.spot;
        if self.is_tolerant && (is_too_deep || at == Spot::IGNORED) {
            self.inside = Inside::Skipped;
            self.skip = Skip::default();
            return Ok(false);
        }
        if is_too_deep {
            return Err(Unreadable::TooDeep);
        }
        let value = if is_array { Value::OpenArray } else { Value::OpenObject };
        report(at, value, Span { start, end: start }, reader)?;
        let members_before = self.members.len();
        self.open.push(Container { start, members_before, within: place.within });
        let is_read = at != Spot::IGNORED;
        let items = if is_read && is_array { reader.items(at) } else { Spot::IGNORED };
        let names = (is_read && !is_array).then(|| reader.names(at));
        let (first, end) = match is_array {
            true => (next::VALUE, next::END_OF_ARRAY),
            false => (next::NAME, next::END_OF_OBJECT),
        };
        let within = Within { at, names, items, after_value: next::COMMA | end };
        *place = Place { next: first | end, spot: items, within };
        Ok(true)
    }

    /// Ends the innermost object or array.
    fn close(
        &mut self,
        place: &mut Place,
        end: u64,
        reader: &mut dyn Reader,
    ) -> Result<(), Unreadable> {
        let container = self.open.pop().ok_or(Unreadable::NotJson)?;
        self.members.end(container.members_before)?;
        let value = if place.within.is_array() { Value::CloseArray } else { Value::CloseObject };
        place.spot = place.within.at;
        place.within = container.within;
        place.end_value();
        report(place.spot, value, Span { start: container.start, end }, reader)
    }

    /// Reads more of a number or a literal that an earlier piece did not end.
    fn kept_atom(&mut self, bytes: &mut &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let (text, after) = bytes.split_at_checked(atom_bytes(bytes)).unwrap_or_default();
        *bytes = after;
        let room = (MAX_ATOM_BYTES + 1).saturating_sub(self.atom.len()).min(text.len());
        self.atom.extend_from_slice(text.get(..room).unwrap_or_default());
        match bytes.is_empty() {
            true if self.atom.len() > MAX_ATOM_BYTES && !self.is_tolerant => {
                Err(Unreadable::TooLong)
            }
            true => Ok(()),
            false => self.end_kept_atom(self.offset(bytes), reader),
        }
    }

    fn end_kept_atom(&mut self, end: u64, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        self.inside = Inside::Nothing;
        self.place.end_value();
        let text = std::mem::take(&mut self.atom);
        let result = self.atom(&text, self.place.spot, Span { start: self.start, end }, reader);
        self.atom = text;
        result
    }

    /// Reads a number or a literal.
    fn atom(
        &mut self,
        text: &[u8],
        at: Spot,
        span: Span,
        reader: &mut dyn Reader,
    ) -> Result<(), Unreadable> {
        let max_len = if at == Spot::IGNORED { MAX_ATOM_BYTES } else { MAX_NUMBER_BYTES };
        match atom(text) {
            Ok(value) if text.len() <= max_len => report(at, value, span, reader),
            _ if self.is_tolerant => Ok(()),
            Err(unreadable) if text.len() <= MAX_ATOM_BYTES => Err(unreadable),
            _ => Err(Unreadable::TooLong),
        }
    }

    fn end(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if matches!(self.inside, Inside::Atom) && self.open.is_empty() {
            return self.end_kept_atom(self.end, reader);
        }
        match (self.inside, self.place.next) {
            (_, next::NOTHING) => Ok(()),
            (Inside::Nothing, next) if next & next::DOCUMENT != 0 => Err(Unreadable::Empty),
            _ => Err(Unreadable::Incomplete),
        }
    }
}

// === impl Place ===

impl Place {
    /// Before a document.
    const START: Self =
        Self { next: next::VALUE | next::DOCUMENT, spot: Spot::ROOT, within: Within::NOTHING };

    /// A value ends.
    fn end_value(&mut self) {
        self.next = self.within.after_value;
    }

    /// A comma has come.
    fn comma(&mut self) {
        self.next = if self.within.is_array() { next::VALUE } else { next::NAME };
        self.spot = self.within.items;
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

    /// Why a byte is wrong that does not begin a token that may come next.
    fn unexpected(self, byte: u8) -> Unreadable {
        match (self.next, byte) {
            (next::NOTHING, _) => Unreadable::TrailingBytes,
            // UTF-16, UTF-32 and byte order marks have such bytes.
            (_, 0 | 0x80..) => Unreadable::NotUtf8,
            _ => Unreadable::NotJson,
        }
    }
}

// === impl Within ===

impl Within {
    /// What a document is inside of.
    const NOTHING: Self =
        Self { at: Spot::IGNORED, names: None, items: Spot::IGNORED, after_value: next::NOTHING };

    fn is_array(self) -> bool {
        self.after_value & next::END_OF_ARRAY != 0
    }
}

/// Reports a value, unless it is ignored.
fn report(
    at: Spot,
    value: Value<'_>,
    span: Span,
    reader: &mut dyn Reader,
) -> Result<(), Unreadable> {
    if at == Spot::IGNORED { Ok(()) } else { reader.value(at, value, span) }
}
