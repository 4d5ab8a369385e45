//! Counters that outlive the process.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::{StoreError, integer, unsigned};

/// Adds to a counter, up to the greatest number that there is.
pub(super) fn add(db: &Connection, name: &str, count: u64) -> Result<(), StoreError> {
    if count > 0 {
        db.prepare_cached(
            "INSERT INTO counters VALUES (?1, ?2) ON CONFLICT DO UPDATE
             SET value = excluded.value + min(value, 9223372036854775807 - excluded.value)",
        )?
        .execute(params![name, integer(count)])?;
    }
    Ok(())
}

/// All counters, by name.
pub(super) fn all(db: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    let mut counters = db.prepare_cached("SELECT name, value FROM counters ORDER BY name")?;
    let counters = counters.query_map((), |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
    Ok(counters.collect::<Result<_, _>>()?)
}

/// The counters whose names begin with a prefix, which ends with a `.`.
pub(super) fn with_prefix(
    db: &Connection,
    prefix: &str,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut counters = db.prepare_cached(
        "SELECT name, value FROM counters WHERE name >= ?1 AND name < ?1 || char(0x10ffff)",
    )?;
    let counters = counters.query_map([prefix], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
    Ok(counters.collect::<Result<_, _>>()?)
}
