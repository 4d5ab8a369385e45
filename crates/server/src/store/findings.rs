//! What does not verify.

use rusqlite::{Connection, params};

use super::{StoreError, counters};

/// The most findings that are kept. The counters have all of them.
const MAX_FINDINGS: i64 = 1000;

/// The longest text of a finding, in bytes.
const MAX_TEXT_BYTES: usize = 2048;

/// Adds a finding about a record or a chain.
pub(super) fn add(
    db: &Connection,
    kind: &str,
    about: Option<(&str, Option<u64>)>,
    text: &str,
) -> Result<(), StoreError> {
    let (chain, seq) = about.unzip();
    let seq = seq.flatten().map(super::integer);
    let text = text.get(..text.floor_char_boundary(MAX_TEXT_BYTES)).unwrap_or_default();
    db.prepare_cached(
        "INSERT INTO findings (at, kind, chain, seq, text) VALUES (unixepoch(), ?1, ?2, ?3, ?4)",
    )?
    .execute(params![kind, chain, seq, text])?;
    let last = db.last_insert_rowid();
    db.prepare_cached("DELETE FROM findings WHERE id <= ?1")?.execute([last - MAX_FINDINGS])?;
    counters::add(db, &format!("findings.{kind}"), 1)
}
