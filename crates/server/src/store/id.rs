//! The ids of records, whose order is that of their times.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{StoreError, integer, unsigned};

/// The bits that tell records of one microsecond from each other.
const BITS: u32 = 10;

/// The last time that an id has, Unix microseconds: in the year 2255, and with room for records that claim later ones.
const MAX_MICROS: u64 = (1 << (63 - BITS)) - (1 << 30);

/// The id of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(pub(super) i64);

impl Id {
    /// No record is after it.
    pub(super) const LAST: Self = Self(i64::MAX);

    /// The first id of a time, Unix microseconds.
    pub(super) fn first(micros: u64) -> Self {
        Self(integer(micros.min(MAX_MICROS)) << BITS)
    }

    /// The first id of a time, or after it, that no record has.
    pub(super) fn free(db: &Connection, micros: u64) -> Result<Self, StoreError> {
        let mut last = db.prepare_cached(
            "SELECT id FROM records WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1",
        )?;
        let mut first = Self::first(micros);
        loop {
            let end = first.0 | ((1 << BITS) - 1);
            let taken: Option<i64> = last.query_row([first.0, end], |row| row.get(0)).optional()?;
            match taken {
                None => return Ok(first),
                Some(taken) if taken < end => return Ok(Self(taken + 1)),
                // So many records of one microsecond take that of the next ones.
                Some(_) => first = Self(end.checked_add(1).ok_or(StoreError::Damaged)?),
            }
        }
    }

    /// The id of a row.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        row.get("id").map(Self)
    }

    /// The time, Unix microseconds.
    pub(super) fn micros(self) -> u64 {
        unsigned(self.0 >> BITS)
    }
}
