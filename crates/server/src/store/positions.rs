//! How far files were read.

use rusqlite::{Connection, params};

use super::{StoreError, integer, unsigned};

/// The most positions of one path that are kept: rotated files that were read to their end are many. The follower knows
/// fewer.
const MAX_POSITIONS: i64 = 4096;

/// Room is made once for this number of positions, because to find the oldest ones takes a while.
const PRUNE_EVERY: u8 = 64;

/// How far a file was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The path that is followed. A file that was renamed keeps it.
    pub path: String,
    /// What the file is known by: the SHA-256 of its first line.
    pub fingerprint: [u8; 32],
    /// The bytes that were read, of the text that is not compressed.
    pub offset: u64,
    /// The beginnings of lines that are not complete: see [`crate::Unwrapper::pending`].
    pub pending: String,
    /// Whether it was read to its end, and has another name by now.
    pub is_done: bool,
}

/// The positions in files of a path.
pub(super) fn of(db: &Connection, path: &str) -> Result<Vec<Position>, StoreError> {
    let mut rows = db.prepare_cached(
        "SELECT fingerprint, offset, pending, done FROM positions WHERE path = ?1 ORDER BY at, offset",
    )?;
    let rows = rows.query_map([path], |row| {
        Ok(Position {
            path: path.to_owned(),
            fingerprint: row.get(0)?,
            offset: unsigned(row.get(1)?),
            pending: row.get(2)?,
            is_done: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Writes a position.
pub(super) fn save(db: &Connection, position: &Position) -> Result<(), StoreError> {
    let Position { path, fingerprint, offset, pending, is_done } = position;
    let is_known = db
        .prepare_cached(
            "UPDATE positions SET offset = ?3, pending = ?4, done = ?5, at = unixepoch() WHERE path = ?1 AND fingerprint = ?2",
        )?
        .execute(params![path, fingerprint, integer(*offset), pending, is_done])?
        > 0;
    if is_known {
        return Ok(());
    }
    db.prepare_cached("INSERT INTO positions VALUES (?1, ?2, ?3, ?4, ?5, unixepoch())")?
        .execute(params![path, fingerprint, integer(*offset), pending, is_done])?;
    if !fingerprint.first().is_some_and(|byte| byte.is_multiple_of(PRUNE_EVERY)) {
        return Ok(());
    }
    // Those of files that are never to be read are kept the longest, because nothing writes them again.
    db.prepare_cached(
        "DELETE FROM positions WHERE path = ?1 AND fingerprint IN (
            SELECT fingerprint FROM positions WHERE path = ?1
            ORDER BY offset = 9223372036854775807 DESC, at DESC, offset DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![path, MAX_POSITIONS])?;
    Ok(())
}
