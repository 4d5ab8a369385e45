//! The scanner.

use super::Unreadable;
use super::members::Members;
use super::number::Number;
use super::reader::{MAX_NUMBER_BYTES, Reader, Span, Spot, Text, Value};
use super::string::Str;

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
    /// Whether an object may have a member twice, and members that differ from known ones in case only.
    is_tolerant: bool,
    state: State,
    /// The offset of the next byte that is fed.
    offset: u64,
    /// The objects and arrays that are open.
    open: Vec<Container>,
    members: Members,
    /// The spot of the value that is being read, or comes next.
    spot: Spot,
    string: Str,
    /// The length of all texts, without names and files.
    text_bytes: u64,
    /// The number of texts that are files in base64.
    files: u64,
    /// Why the document is not readable.
    error: Option<Unreadable>,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum State {
    /// The value of the document.
    Root,
    /// A value.
    Value,
    /// A value or the end of the array.
    FirstItem,
    /// A name or the end of the object.
    FirstName,
    /// A name.
    Name,
    /// A colon.
    Colon,
    /// A comma, or the end of the object or array.
    AfterValue,
    /// The rest of a string.
    Str,
    /// The rest of a number.
    Number { so_far: Number, start: u64 },
    /// The rest of `null`, `true` or `false`.
    Literal { rest: &'static [u8], start: u64 },
    /// Nothing.
    End,
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
            state: State::Root,
            offset: 0,
            open: Vec::new(),
            members: Members::default(),
            spot: Spot::ROOT,
            string: Str::new(),
            text_bytes: 0,
            files: 0,
            error: None,
        }
    }

    /// As [`Scanner::new`], but an object may have a member twice, and members whose names differ from known ones in
    /// case only. This is for what a provider sends, of which a reader may take the largest of all counts.
    pub fn tolerant(limits: Limits) -> Self {
        Self { is_tolerant: true, ..Self::new(limits) }
    }

    /// Begins another document, and keeps the memory.
    pub fn reset(&mut self) {
        self.state = State::Root;
        self.offset = 0;
        self.open.clear();
        self.members.clear();
        self.spot = Spot::ROOT;
        self.string.reset();
        self.text_bytes = 0;
        self.files = 0;
        self.error = None;
    }

    /// Reads the next bytes of the document. How it is cut makes no difference.
    ///
    /// # Errors
    ///
    /// Why the document is not readable. It stays so: all further calls return the same.
    pub fn feed(&mut self, bytes: &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        self.once(|scanner| scanner.read(bytes, reader))
    }

    /// Ends the document.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Empty`] or [`Unreadable::Incomplete`] if it has not ended, or what `feed` returned.
    pub fn finish(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        self.once(|scanner| scanner.end(reader))
    }

    /// Whether the value of the document has ended. Only white space may follow. (A number that is a document by
    /// itself ends with what follows it.)
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::End) && self.error.is_none()
    }

    /// The length of all texts after unescaping, without names of members and without files.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// An estimate of the tokens of all texts: 1 for 4 bytes of text, and 2000 for each text that is a file: more than
    /// 8192 bytes in base64, except for the first 128, which may be those of a data URL.
    pub fn text_tokens(&self) -> u64 {
        let files = self.files.saturating_mul(FILE_TOKENS);
        self.text_bytes.div_ceil(BYTES_PER_TOKEN).saturating_add(files)
    }

    /// Remembers an error.
    fn once(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let result = read(self);
        self.error = result.err();
        result
    }

    fn read(&mut self, mut bytes: &[u8], reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let end = self.offset.saturating_add(bytes.len() as u64);
        while let Some(byte) = bytes.first() {
            self.offset = end.saturating_sub(bytes.len() as u64);
            match self.state {
                State::Str => {
                    if self.string.read(&mut bytes, reader)? {
                        self.offset = end.saturating_sub(bytes.len() as u64);
                        self.end_string(reader)?;
                    }
                    continue;
                }
                State::Number { so_far, start } => {
                    let Some(number) = so_far.next(*byte) else {
                        self.end_number(so_far, start, reader)?;
                        continue;
                    };
                    self.string.push(*byte);
                    self.state = State::Number { so_far: number, start };
                }
                State::Literal { rest, start } => self.literal(*byte, rest, start, reader)?,
                _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => {}
                _ => self.token(*byte, reader)?,
            }
            bytes = bytes.get(1..).unwrap_or_default();
        }
        self.offset = end;
        Ok(())
    }

    /// Reads a byte that is neither white space nor inside of a value.
    fn token(&mut self, byte: u8, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        match (self.state, byte) {
            (State::FirstItem, b']') | (State::FirstName, b'}') => self.close(byte, reader),
            (State::FirstName | State::Name, b'"') => {
                let is_wanted = self.open.last().is_some_and(|object| object.at != Spot::IGNORED);
                self.begin_string(true, is_wanted);
                Ok(())
            }
            (State::Colon, b':') => {
                self.state = State::Value;
                Ok(())
            }
            (State::AfterValue, b',') => {
                let items = self.open.last().and_then(|container| container.items);
                self.spot = items.unwrap_or(Spot::IGNORED);
                self.state = if items.is_some() { State::Value } else { State::Name };
                Ok(())
            }
            (State::AfterValue, b'}' | b']') => self.close(byte, reader),
            (State::Root | State::Value | State::FirstItem, _) => self.begin(byte, reader),
            (State::End, _) => Err(Unreadable::TrailingBytes),
            _ => Err(misplaced(byte)),
        }
    }

    /// Begins a value.
    fn begin(&mut self, byte: u8, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let start = self.offset;
        match byte {
            b'"' => {
                let is_wanted = self.spot != Spot::IGNORED;
                self.begin_string(false, is_wanted);
                if is_wanted && reader.streams(self.spot) {
                    self.string.stream(self.spot);
                }
            }
            b'{' => return self.open(None, reader),
            b'[' => {
                let is_wanted = self.spot != Spot::IGNORED;
                let items = if is_wanted { reader.items(self.spot) } else { Spot::IGNORED };
                return self.open(Some(items), reader);
            }
            b'n' => self.state = State::Literal { rest: b"ull", start },
            b't' => self.state = State::Literal { rest: b"rue", start },
            b'f' => self.state = State::Literal { rest: b"alse", start },
            _ => {
                let so_far = Number::begin(byte).ok_or_else(|| misplaced(byte))?;
                self.string.begin(start, false, self.spot != Spot::IGNORED);
                self.string.push(byte);
                self.state = State::Number { so_far, start };
            }
        }
        Ok(())
    }

    /// Begins an object (without `items`) or an array.
    fn open(&mut self, items: Option<Spot>, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if self.open.len() >= usize::from(self.limits.max_depth) {
            return Err(Unreadable::TooDeep);
        }
        let start = self.offset;
        let value = if items.is_some() { Value::OpenArray } else { Value::OpenObject };
        self.report(reader, value, Span { start, end: start })?;
        let members_before = self.members.len();
        self.open.push(Container { start, members_before, at: self.spot, items });
        self.spot = items.unwrap_or(Spot::IGNORED);
        self.state = if items.is_some() { State::FirstItem } else { State::FirstName };
        Ok(())
    }

    /// Ends the innermost object or array.
    fn close(&mut self, byte: u8, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let container = self.open.pop().ok_or(Unreadable::NotJson)?;
        let (expected, value) = match container.items {
            None => (b'}', Value::CloseObject),
            Some(_) => (b']', Value::CloseArray),
        };
        if byte != expected {
            return Err(Unreadable::NotJson);
        }
        self.members.end(container.members_before)?;
        self.spot = container.at;
        let end = self.offset.saturating_add(1);
        self.end_value(reader, value, Span { start: container.start, end })
    }

    fn begin_string(&mut self, is_name: bool, is_wanted: bool) {
        self.string.begin(self.offset, is_name, is_wanted);
        self.state = State::Str;
    }

    fn end_string(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        if self.string.is_name {
            return self.end_name(reader);
        }
        let string = &self.string;
        if string.is_file() {
            self.files = self.files.saturating_add(1);
        } else {
            self.text_bytes = self.text_bytes.saturating_add(string.len);
        }
        let span = Span { start: string.start, end: self.offset };
        self.state = self.after_value();
        if self.spot == Spot::IGNORED {
            return Ok(());
        }
        let text = Text {
            bytes: &string.text,
            is_cut: string.is_cut(),
            is_flawed: string.is_flawed,
            len: string.len,
        };
        reader.value(self.spot, Value::Text(text), span)
    }

    /// Ends the name of a member.
    fn end_name(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        let object = self.open.last().ok_or(Unreadable::NotJson)?;
        self.state = State::Colon;
        if self.is_tolerant {
            self.spot = match object.at {
                Spot::IGNORED => Spot::IGNORED,
                at => reader.names(at).spot(&self.string.text),
            };
            return Ok(());
        }
        if self.members.len() >= usize::try_from(self.limits.max_open_keys).unwrap_or(usize::MAX) {
            return Err(Unreadable::TooManyMembers);
        }
        let mut id = self.string.hash;
        self.spot = Spot::IGNORED;
        if object.at != Spot::IGNORED {
            let names = reader.names(object.at);
            let known = self.string.find(names)?;
            self.spot = known.unwrap_or(names.others);
            // Names that lead to the same spot are the same.
            if let Some(spot) = known.filter(|spot| *spot != Spot::IGNORED) {
                id = spot.0.into();
            }
        }
        self.members.push(object.members_before, id)
    }

    fn end_number(
        &mut self,
        number: Number,
        start: u64,
        reader: &mut dyn Reader,
    ) -> Result<(), Unreadable> {
        if !number.may_end() {
            return Err(Unreadable::NotJson);
        }
        let span = Span { start, end: self.offset };
        self.state = self.after_value();
        if self.spot == Spot::IGNORED {
            return Ok(());
        }
        if self.string.text.len() > MAX_NUMBER_BYTES {
            return Err(Unreadable::TooLong);
        }
        reader.value(self.spot, Value::Number(&self.string.text), span)
    }

    /// Reads a byte of `null`, `true` or `false`.
    fn literal(
        &mut self,
        byte: u8,
        rest: &'static [u8],
        start: u64,
        reader: &mut dyn Reader,
    ) -> Result<(), Unreadable> {
        match rest {
            [expected, ..] if *expected != byte => Err(misplaced(byte)),
            [_, rest @ ..] if !rest.is_empty() => {
                self.state = State::Literal { rest, start };
                Ok(())
            }
            _ => {
                let end = self.offset.saturating_add(1);
                let value = match end.saturating_sub(start) {
                    5 => Value::Bool(false),
                    _ if byte == b'e' => Value::Bool(true),
                    _ => Value::Null,
                };
                self.end_value(reader, value, Span { start, end })
            }
        }
    }

    fn end_value(
        &mut self,
        reader: &mut dyn Reader,
        value: Value<'_>,
        span: Span,
    ) -> Result<(), Unreadable> {
        self.state = self.after_value();
        self.report(reader, value, span)
    }

    fn after_value(&self) -> State {
        if self.open.is_empty() { State::End } else { State::AfterValue }
    }

    /// Reports a value, unless it is ignored.
    fn report(
        &self,
        reader: &mut dyn Reader,
        value: Value<'_>,
        span: Span,
    ) -> Result<(), Unreadable> {
        match self.spot {
            Spot::IGNORED => Ok(()),
            spot => reader.value(spot, value, span),
        }
    }

    fn end(&mut self, reader: &mut dyn Reader) -> Result<(), Unreadable> {
        match self.state {
            State::End => Ok(()),
            State::Number { so_far, start } if self.open.is_empty() => {
                self.end_number(so_far, start, reader)
            }
            State::Root => Err(Unreadable::Empty),
            _ => Err(Unreadable::Incomplete),
        }
    }
}

/// Why a byte that no JSON has at its place is wrong. UTF-16, UTF-32 and byte order marks have such bytes.
fn misplaced(byte: u8) -> Unreadable {
    match byte {
        0 | 0x80.. => Unreadable::NotUtf8,
        _ => Unreadable::NotJson,
    }
}
