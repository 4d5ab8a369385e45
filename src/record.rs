//! The format of records in shared data, which distinguishes a record from any other data there.
//!
//! A host may find records by a checksum of their name, return a copy that another worker is writing, or
//! share its store with other modules. So a record contains its name, a version and a checksum. Bytes that
//! fail these checks are never used.

use std::fmt;

/// The prefix of every record name. nginx uses the part before the first `/` to select the zone.
const PREFIX: &str = "vkey/";

const MAGIC: &[u8; 4] = b"vkey";

/// Bytes before the name: magic, version, name length.
const HEAD_BYTES: usize = 6;

const CHECKSUM_BYTES: usize = 4;

/// Capacity for a typical record, without its name.
const BODY_BYTES: usize = 160;

/// The content of a record.
pub trait Record: Sized {
    /// Identifies the kind of record and its layout. A new layout takes the next unused number. Numbers are
    /// never reused. (1 was the first layout of cells.)
    const VERSION: u8;

    /// The content if there is no record.
    fn fresh() -> Self;

    /// Writes the content of a record.
    fn write(&self, record: &mut Writer<'_>);

    /// Reads the content from the front of `bytes`; `None` if it is invalid.
    fn read(bytes: &mut &[u8]) -> Option<Self>;

    /// Like [`Record::read`], over fresh content: a large one is not moved then.
    fn read_over(&mut self, bytes: &mut &[u8]) -> Option<()> {
        *self = Self::read(bytes)?;
        Some(())
    }
}

/// Writes a record over the bytes that were read, and notices whether any of them differs. A record of which only
/// numbers change keeps its memory.
pub struct Writer<'a> {
    record: &'a mut Vec<u8>,
    /// The bytes that are written.
    len: usize,
    changed: bool,
}

/// The name of a record in shared data; it begins with `vkey/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Box<str>);

/// Why bytes are not the record of the expected name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotThisRecord {
    /// They begin like that record, but are torn or changed.
    Corrupt,
    /// A valid record of another name: the host confuses the two names.
    Foreign,
    /// A valid record of that name, in a layout that this version of the module does not read.
    OtherLayout,
    /// They do not look like a record of that name.
    Unknown,
}

// === impl Name ===

impl Name {
    /// The name of the record of `id`, of a kind. Neither contains a `/`, so names are unique.
    pub fn new(kind: &str, id: &str) -> Self {
        Self([PREFIX, kind, "/", id].concat().into())
    }

    /// The name of the record of `id` that belongs to `owner`. All records of such a kind have an owner,
    /// and no part contains a `/`, so names are unique.
    #[inline(never)] // once, not at each of its many calls
    pub fn within(kind: &str, owner: &str, id: &str) -> Self {
        Self([PREFIX, kind, "/", owner, "/", id].concat().into())
    }

    /// The name in shared data.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without the prefix, as the record contains it.
    fn inside(&self) -> &[u8] {
        self.0.as_bytes().strip_prefix(PREFIX.as_bytes()).unwrap_or_default()
    }
}

// === impl Writer ===

impl<'a> Writer<'a> {
    /// Writes over these bytes.
    pub(crate) fn over(record: &'a mut Vec<u8>) -> Self {
        Self { record, len: 0, changed: false }
    }

    /// Writes what stands before the content.
    fn begin(name: &Name, version: u8, record: &'a mut Vec<u8>) -> Self {
        let name = name.inside();
        if record.is_empty() {
            record.reserve(HEAD_BYTES + name.len() + BODY_BYTES);
        }
        let mut writer = Self::over(record);
        writer.put(*MAGIC);
        writer.put([version, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        writer.put_slice(name);
        writer
    }

    /// Writes some bytes.
    #[inline(never)] // once for each length: records have many numbers
    pub fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let rest = self.record.get_mut(self.len..);
        match rest.and_then(<[u8]>::first_chunk_mut) {
            Some(before) if *before == bytes => {}
            Some(before) => {
                *before = bytes;
                self.changed = true;
            }
            None => self.append(&bytes),
        }
        self.len += N;
    }

    /// Writes some bytes.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        match self.record.get_mut(self.len..self.len + bytes.len()) {
            Some(before) if before == bytes => {}
            _ => self.append(bytes),
        }
        self.len += bytes.len();
    }

    /// Writes a length-prefixed text. A text of more than 255 bytes is written as an empty one.
    pub(crate) fn put_text(&mut self, text: &str) {
        let (len, text) = u8::try_from(text.len()).map_or((0, ""), |len| (len, text));
        self.put([len]);
        self.put_slice(text.as_bytes());
    }

    /// Replaces everything that follows what is written.
    fn append(&mut self, bytes: &[u8]) {
        self.record.truncate(self.len);
        self.record.extend_from_slice(bytes);
        self.changed = true;
    }

    /// Writes the checksum. Returns whether the record differs from the one before.
    fn finish(self) -> bool {
        if self.changed || self.record.len() != self.len + CHECKSUM_BYTES {
            self.record.truncate(self.len);
            let checksum = crc32(self.record).to_le_bytes();
            self.record.extend_from_slice(&checksum);
            return true;
        }
        false
    }
}

// === records ===

/// Encodes a record: magic, version, name length, name, content, CRC-32. Integers are little-endian.
pub fn encode<R: Record>(name: &Name, content: &R) -> Vec<u8> {
    let mut record = Vec::new();
    overwrite(name, content, &mut record);
    record
}

/// Encodes a record in the memory of the one that was read. Returns whether it differs from that.
#[inline(never)] // once for each kind of record, not for each use
pub fn overwrite<R: Record>(name: &Name, content: &R, record: &mut Vec<u8>) -> bool {
    let mut writer = Writer::begin(name, R::VERSION, record);
    content.write(&mut writer);
    writer.finish()
}

/// Decodes the record of that name.
///
/// # Errors
///
/// [`NotThisRecord`] if it is not a valid record of that name.
pub fn decode<R: Record>(name: &Name, record: &[u8]) -> Result<R, NotThisRecord> {
    let mut content = R::fresh();
    decode_over(name, record, &mut content).map(|()| content)
}

/// Like [`decode`], over fresh content, which must not be used after an error.
pub(crate) fn decode_over<R: Record>(
    name: &Name,
    record: &[u8],
    fresh: &mut R,
) -> Result<(), NotThisRecord> {
    let mut content = content_of(name, R::VERSION, record)?;
    fresh.read_over(&mut content).filter(|()| content.is_empty()).ok_or(NotThisRecord::Corrupt)
}

/// The content bytes of the record of that name, in the layout of `version`.
fn content_of<'a>(name: &Name, version: u8, record: &'a [u8]) -> Result<&'a [u8], NotThisRecord> {
    let Some((written, found, content)) = split(record) else {
        let (_, found, _) = split_body(record).ok_or(NotThisRecord::Unknown)?;
        let own = found == name.inside();
        return Err(if own { NotThisRecord::Corrupt } else { NotThisRecord::Unknown });
    };
    if found != name.inside() {
        return Err(NotThisRecord::Foreign);
    }
    if written != version {
        return Err(NotThisRecord::OtherLayout);
    }
    Ok(content)
}

/// Checks the checksum and the magic, and splits a record into version, name and content.
fn split(record: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (body, checksum) = record.split_at_checked(record.len().checked_sub(CHECKSUM_BYTES)?)?;
    if crc32(body).to_le_bytes() != checksum {
        return None;
    }
    split_body(body)
}

/// Like [`split`], without the checksum.
fn split_body(body: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let mut rest = body.strip_prefix(MAGIC)?;
    let [version, len] = take(&mut rest)?;
    let (name, content) = rest.split_at_checked(usize::from(len))?;
    Some((version, name, content))
}

/// Removes and returns the first bytes.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// Removes and returns a length-prefixed text.
pub(crate) fn take_str<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let [len] = take(bytes)?;
    let (text, rest) = bytes.split_at_checked(usize::from(len))?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

/// Removes a length-prefixed text and returns a copy.
pub(crate) fn take_text(bytes: &mut &[u8]) -> Option<Box<str>> {
    take_str(bytes).map(Box::from)
}

impl fmt::Display for NotThisRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "not a whole record",
            Self::Foreign => "another name's record",
            Self::OtherLayout => "a record of another layout",
            Self::Unknown => "no record",
        })
    }
}

impl std::error::Error for NotThisRecord {}

/// CRC-32 (ISO-HDLC, as in zlib).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::default();
    crc.add(bytes);
    crc.value()
}

/// CRC-32 of bytes that come in pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crc32(u32);

impl Default for Crc32 {
    fn default() -> Self {
        Self(!0)
    }
}

impl Crc32 {
    /// Adds bytes.
    #[inline(never)] // once, not for each kind of record
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<4>();
        let crc = words.iter().fold(self.0, |crc, word| {
            let [a, b, c, d] = (crc ^ u32::from_le_bytes(*word)).to_le_bytes();
            crc32_of(3, a) ^ crc32_of(2, b) ^ crc32_of(1, c) ^ crc32_of(0, d)
        });
        self.0 = rest.iter().fold(crc, |crc, byte| {
            let [low, ..] = crc.to_le_bytes();
            crc >> 8 ^ crc32_of(0, low ^ byte)
        });
    }

    /// The checksum of all bytes that were added.
    pub(crate) fn value(self) -> u32 {
        !self.0
    }
}

/// The contribution of a byte to the checksum, by the number of bytes after it. A table for each position
/// allows four bytes at a time.
fn crc32_of(bytes_after: usize, byte: u8) -> u32 {
    static TABLES: [[u32; 256]; 4] = crc32_tables();
    let table = TABLES.get(bytes_after);
    table.and_then(|table| table.get(usize::from(byte))).copied().unwrap_or(0)
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn crc32_tables() -> [[u32; 256]; 4] {
    let mut tables = [crc32_table(); 4];
    let mut behind = 1;
    while behind < 4 {
        let mut index = 0;
        while index < 256 {
            let before = tables[behind - 1][index];
            tables[behind][index] = before >> 8 ^ tables[0][(before & 0xFF) as usize];
            index += 1;
        }
        behind += 1;
    }
    tables
}

const fn crc32_table() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let mut table = [0; 256];
    let mut index: u32 = 0;
    while index < 256 {
        let mut crc = index;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            table[index as usize] = crc;
        }
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Pair([u8; 2]);

    impl Record for Pair {
        const VERSION: u8 = 200;

        fn fresh() -> Self {
            Self([0; 2])
        }

        fn write(&self, record: &mut Writer<'_>) {
            record.put(self.0);
        }

        fn read(bytes: &mut &[u8]) -> Option<Self> {
            take(bytes).map(Self)
        }
    }

    fn decoded(id: &str, record: &[u8]) -> Result<Pair, NotThisRecord> {
        decode(&Name::new("k", id), record)
    }

    #[test]
    fn the_checksum_is_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = encode(&Name::new("k", "k1"), &Pair([1, 2]));
        assert_eq!(decoded("k1", &record), Ok(Pair([1, 2])));
    }

    #[test]
    fn a_record_of_another_name_is_foreign() {
        let record = encode(&Name::new("k", "k1"), &Pair([1, 2]));
        assert_eq!(decoded("k2", &record), Err(NotThisRecord::Foreign));
        let other = decode::<Pair>(&Name::new("t", "k1"), &record);
        assert_eq!(other, Err(NotThisRecord::Foreign));
    }

    #[test]
    fn every_change_of_a_byte_or_the_length_is_detected() {
        let record = encode(&Name::new("k", "k1"), &Pair([1, 2]));
        let head = HEAD_BYTES + "k/k1".len();
        for index in 0..record.len() {
            let expected =
                if index < head { NotThisRecord::Unknown } else { NotThisRecord::Corrupt };
            let mut changed = record.clone();
            changed[index] ^= 1;
            // A torn record is recognised without its version.
            let expected = if index == MAGIC.len() { NotThisRecord::Corrupt } else { expected };
            assert_eq!(decoded("k1", &changed), Err(expected), "byte {index}");
            let shown = if index < head { NotThisRecord::Unknown } else { NotThisRecord::Corrupt };
            assert_eq!(decoded("k1", &record[..index]), Err(shown), "{index} bytes");
        }
        assert_eq!(decoded("k1", &[record, vec![0]].concat()), Err(NotThisRecord::Corrupt));
    }

    #[test]
    fn a_valid_record_of_another_version_has_another_layout() {
        struct Later;
        impl Record for Later {
            const VERSION: u8 = 201;
            fn fresh() -> Self {
                Self
            }
            fn write(&self, _: &mut Writer<'_>) {}
            fn read(_: &mut &[u8]) -> Option<Self> {
                None
            }
        }
        let record = encode(&Name::new("k", "k1"), &Later);
        assert_eq!(decoded("k1", &record), Err(NotThisRecord::OtherLayout));
        assert_eq!(decoded("k2", &record), Err(NotThisRecord::Foreign));
    }

    /// Its checksum is valid, so only the reader can detect the trailing bytes.
    #[test]
    fn content_with_trailing_bytes_is_rejected() {
        struct Three;
        impl Record for Three {
            const VERSION: u8 = 200;
            fn fresh() -> Self {
                Self
            }
            fn write(&self, record: &mut Writer<'_>) {
                record.put(*b"123");
            }
            fn read(_: &mut &[u8]) -> Option<Self> {
                None
            }
        }
        let record = encode(&Name::new("k", "k1"), &Three);
        assert_eq!(decoded("k1", &record), Err(NotThisRecord::Corrupt));
    }
}
