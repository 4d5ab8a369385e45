//! The cell: the shared-data record that counts one key.
//!
//! A host may find records by a checksum of their name, lend a copy that another worker is writing,
//! or share its store with other modules. So a cell names its key, and proves itself by a version and
//! a checksum; what does not prove itself is never counted on.

use std::fmt;

use crate::decision::{Decision, DenyClass};

/// Bytes before the id: magic, version, length of the id.
const HEAD_BYTES: usize = 6;

const MAGIC: &[u8; 4] = b"vkey";

/// The version of the layout. A new layout takes the next number; numbers are never used again.
const VERSION: u8 = 1;

const CHECKSUM_BYTES: usize = 4;

/// Counts of one key. `seen = allowed + sum(denied)` holds in every cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    id: Box<str>,
    allowed: u64,
    denied: [u64; DenyClass::COUNT],
}

/// The record is not a cell of that key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotThisCell {
    /// Torn, overwritten, or of a version this one does not know.
    Corrupt,
    /// A whole cell of another key: the host confuses the two names.
    Foreign,
}

impl Cell {
    /// A cell in which nothing is counted yet.
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), allowed: 0, denied: [0; DenyClass::COUNT] }
    }

    /// Reads the record of the key `id`.
    ///
    /// # Errors
    ///
    /// [`NotThisCell`] when it is anything but a whole cell of that key.
    pub fn decode(id: &str, record: &[u8]) -> Result<Self, NotThisCell> {
        let (found, counts) = split(record).ok_or(NotThisCell::Corrupt)?;
        if found != id.as_bytes() {
            return Err(NotThisCell::Foreign);
        }
        let mut counts = counts.chunks_exact(size_of::<u64>()).map(read_u64);
        let allowed = counts.next().ok_or(NotThisCell::Corrupt)?;
        let mut cell = Self { allowed, ..Self::new(id) };
        for denied in &mut cell.denied {
            *denied = counts.next().ok_or(NotThisCell::Corrupt)?;
        }
        if counts.next().is_some() { Err(NotThisCell::Corrupt) } else { Ok(cell) }
    }

    /// The record: magic, version, length of the id, id, counts, CRC-32; integers little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut record = Vec::with_capacity(HEAD_BYTES + self.id.len() + 64);
        record.extend_from_slice(MAGIC);
        record.push(VERSION);
        record.push(u8::try_from(self.id.len()).unwrap_or(u8::MAX));
        record.extend_from_slice(self.id.as_bytes());
        for count in [self.allowed].iter().chain(&self.denied) {
            record.extend_from_slice(&count.to_le_bytes());
        }
        record.extend_from_slice(&crc32(&record).to_le_bytes());
        record
    }

    /// Counts one request.
    pub fn count(&mut self, decision: Decision) {
        match decision {
            Decision::Allow | Decision::Shadow(_) => self.allowed = self.allowed.saturating_add(1),
            Decision::Deny(reason) => self.count_denied(reason.class()),
        }
    }

    /// Takes an allowed request back that was refused after it was counted.
    pub fn take_back(&mut self, class: DenyClass) {
        self.allowed = self.allowed.saturating_sub(1);
        self.count_denied(class);
    }

    /// Requests decided on.
    pub fn seen(&self) -> u64 {
        self.denied.iter().fold(self.allowed, |sum, denied| sum.saturating_add(*denied))
    }

    /// Requests that went on.
    pub fn allowed(&self) -> u64 {
        self.allowed
    }

    /// Requests refused, by class.
    pub fn denied(&self) -> impl Iterator<Item = (DenyClass, u64)> {
        DenyClass::ALL.into_iter().zip(self.denied)
    }

    fn count_denied(&mut self, class: DenyClass) {
        if let Some(denied) = self.denied.get_mut(class as usize) {
            *denied = denied.saturating_add(1);
        }
    }
}

impl fmt::Display for NotThisCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "not a whole cell",
            Self::Foreign => "another key's cell",
        })
    }
}

impl std::error::Error for NotThisCell {}

/// Checks magic, version and checksum, and splits a record into the id and the counts.
fn split(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, checksum) = record.split_at_checked(record.len().checked_sub(CHECKSUM_BYTES)?)?;
    if crc32(body).to_le_bytes() != checksum {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
    let (len, rest) = rest.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

fn read_u64(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// CRC-32 (ISO-HDLC, as in zlib).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc32_table();
    !bytes.iter().fold(!0, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        let index = usize::from(low ^ byte);
        crc >> 8 ^ TABLE.get(index).copied().unwrap_or(0)
    })
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
    use crate::decision::DenyReason;

    fn counted() -> Cell {
        let mut cell = Cell::new("k1");
        cell.count(Decision::Allow);
        cell.count(Decision::Allow);
        cell.count(Decision::Shadow(DenyReason::Path));
        cell.count(Decision::Deny(DenyReason::Path));
        cell.count(Decision::Deny(DenyReason::KeyExpired));
        cell
    }

    #[test]
    fn the_checksum_is_the_one_everybody_knows() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_cell_reads_what_it_wrote() {
        let cell = counted();
        assert_eq!(Cell::decode("k1", &cell.encode()), Ok(cell));
    }

    #[test]
    fn seen_is_the_sum() {
        let mut cell = counted();
        assert_eq!((cell.seen(), cell.allowed()), (5, 3));
        cell.take_back(DenyClass::Unavailable);
        assert_eq!((cell.seen(), cell.allowed()), (5, 2));
        let denied: Vec<u64> = cell.denied().map(|(_, count)| count).collect();
        assert_eq!(denied, [1, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn a_cell_of_another_key_is_foreign() {
        assert_eq!(Cell::decode("k2", &counted().encode()), Err(NotThisCell::Foreign));
    }

    #[test]
    fn every_changed_byte_and_every_length_is_noticed() {
        let record = counted().encode();
        for index in 0..record.len() {
            let mut changed = record.clone();
            changed[index] ^= 1;
            assert_eq!(Cell::decode("k1", &changed), Err(NotThisCell::Corrupt), "byte {index}");
            assert_eq!(Cell::decode("k1", &record[..index]), Err(NotThisCell::Corrupt));
        }
        assert_eq!(Cell::decode("k1", &[record, vec![0]].concat()), Err(NotThisCell::Corrupt));
    }
}
