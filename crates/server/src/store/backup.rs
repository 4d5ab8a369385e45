//! Backups of a store, and how they are put back.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::files::{self, Part};
use super::held::Held;
use super::{Reader, StoreError, connect, lock, schema, unsigned};

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The number of records, without those that were deleted because of their age or number.
    pub records: u64,
    /// The number of chains.
    pub chains: u64,
}

/// Why a backup is not put back. The store is as it was then.
#[derive(Debug)]
pub enum RestoreError {
    /// The new store cannot be written, or a collector has the store open.
    Store(StoreError),
    /// The backup cannot be used.
    Backup(StoreError),
    /// The backup is the store.
    Same,
    /// The store that would be replaced cannot be read, so nobody knows which anchors it has seen.
    Replaced(StoreError),
    /// Another process reads the store that would be replaced.
    InUse,
    /// A part of another store has the name of a part of the store.
    Beside(PathBuf),
    /// Another copy cannot be read.
    Copy(PathBuf, StoreError),
    /// Other copies have seen anchors for records that the backup lacks.
    Behind(Vec<Behind>),
    /// An anchor that another copy has seen is not that of the backup.
    Contradiction(Contradiction),
}

/// An anchor that counts as many records in a backup and in another copy, and is for different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The other copy.
    pub copy: PathBuf,
    /// The id of the chain.
    pub chain: String,
    /// The number of records that the anchor counts.
    pub records: u64,
}

/// A chain of which a backup lacks records, although another copy has seen an anchor that counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The other copy.
    pub copy: PathBuf,
    /// The id of the chain.
    pub chain: String,
    /// The number of records that an anchor in the copy counts.
    pub anchored: u64,
    /// How many of them the backup lacks.
    pub lacking: u64,
    /// The number of the first of those.
    pub first: u64,
}

/// Copies a store into a new file, as it is at one moment, while a collector may write. Also a store of an earlier
/// version, which is not changed.
///
/// # Errors
///
/// [`StoreError`], also if the file is there already. Then there is no new file.
pub fn backup(store: &Path, to: &Path) -> Result<Content, StoreError> {
    let from = Reader::open_earlier(store)?;
    let file = |error| StoreError::File(to.to_owned(), error);
    if files::is_taken(to) {
        return Err(file(std::io::ErrorKind::AlreadyExists.into()));
    }
    let part = Part::of(to).map_err(file)?;
    let content = content(&copy(&from.db, &part)?)?;
    part.keep_as_new(to).map_err(file)?;
    Ok(content)
}

/// Puts a backup in the place of a store, which no other process may have open. A backup of an earlier version is
/// brought forward. Other copies, and the store that is replaced, must not have seen an anchor for records that the
/// backup lacks.
///
/// # Errors
///
/// [`RestoreError`]
pub fn restore(from: &Path, store: &Path, copies: &[PathBuf]) -> Result<Content, RestoreError> {
    let file = |error| RestoreError::Store(StoreError::File(store.to_owned(), error));
    // The files beside a store have the name that a link leads to.
    let store = files::resolve(store).map_err(file)?;
    let _lock = lock(&store).map_err(RestoreError::Store)?;
    if files::is_same(from, &store) {
        return Err(RestoreError::Same);
    }
    let part = Part::of(&store).map_err(file)?;
    let content = fill(&part, from, &store, copies)?;
    settle(&store)?;
    part.replace(&store).map_err(file)?;
    Ok(content)
}

/// Copies a backup, and compares the copy with the others.
fn fill(
    part: &Part,
    from: &Path,
    store: &Path,
    copies: &[PathBuf],
) -> Result<Content, RestoreError> {
    let from = Reader::open_earlier(from).map_err(RestoreError::Backup)?;
    let mut new = copy(&from.db, part).map_err(RestoreError::of_copying)?;
    schema::migrate(&mut new).map_err(RestoreError::of_copying)?;
    let mut behind = Vec::new();
    let mut check = |copy: &Connection, path: &Path| {
        behind.extend(compare(&new, copy, path)?);
        contradiction(&new, copy, path)
    };
    let mut contradictions = Vec::new();
    if holds_anything(store) {
        let seen = Reader::open_earlier(store).and_then(|old| check(&old.db, store));
        contradictions.push(seen.map_err(RestoreError::Replaced)?);
    }
    for path in copies {
        let seen = Reader::open_earlier(path).and_then(|copy| check(&copy.db, path));
        contradictions.push(seen.map_err(|error| RestoreError::Copy(path.clone(), error))?);
    }
    if let Some(contradiction) = contradictions.into_iter().flatten().next() {
        return Err(RestoreError::Contradiction(contradiction));
    }
    if !behind.is_empty() {
        return Err(RestoreError::Behind(behind));
    }
    content(&new).map_err(RestoreError::of_copying)
}

/// Copies a store as it is at one moment into an empty file, and checks the copy.
fn copy(from: &Connection, part: &Part) -> Result<Connection, StoreError> {
    let mut to = connect(part.path(), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // In one step. Between steps the collector writes, and then a copy begins anew.
    match Backup::new(from, &mut to)?.step(-1)? {
        StepResult::Done => {}
        _ => return Err(StoreError::Busy),
    }
    // One file, without a log beside it.
    if journal_mode(&to)? != "delete" {
        return Err(StoreError::Busy);
    }
    let found: String = to.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
    if found == "ok" { Ok(to) } else { Err(StoreError::Damaged) }
}

/// Writes all of a store into its one file, so that another one can take its place at once. Whoever is killed in between
/// leaves the old store or the new one: nothing is beside the new one that belongs to the old one.
fn settle(store: &Path) -> Result<(), RestoreError> {
    if holds_anything(store) {
        let old = connect(store, OpenFlags::SQLITE_OPEN_READ_WRITE);
        match old.and_then(|old| journal_mode(&old)) {
            Ok(mode) if mode == "delete" => {}
            Ok(_) | Err(StoreError::Busy) => return Err(RestoreError::InUse),
            Err(error) => return Err(RestoreError::Replaced(error)),
        }
    }
    if let Some(path) = files::left_beside(store) {
        return Err(RestoreError::Beside(path));
    }
    // The disk must not see the new name before it sees that the log of the old store is gone.
    files::sync_folder(store)
        .map_err(|error| RestoreError::Store(StoreError::File(store.to_owned(), error)))
}

/// Switches to a journal that exists during a write only, and returns the mode that holds.
fn journal_mode(db: &Connection) -> Result<String, StoreError> {
    Ok(db.query_row("PRAGMA journal_mode = DELETE", (), |row| row.get(0))?)
}

fn holds_anything(store: &Path) -> bool {
    fs::metadata(store).is_ok_and(|file| file.len() > 0)
}

fn content(db: &Connection) -> Result<Content, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM chains)";
    Ok(db.query_row(sql, (), |row| {
        Ok(Content { records: unsigned(row.get(0)?), chains: unsigned(row.get(1)?) })
    })?)
}

/// The chains of which a backup lacks records that an anchor in a copy counts.
fn compare(backup: &Connection, copy: &Connection, path: &Path) -> Result<Vec<Behind>, StoreError> {
    let mut names =
        copy.prepare("SELECT name FROM chains WHERE anchored IS NOT NULL ORDER BY first_ts, name")?;
    let mut behind = Vec::new();
    for name in names.query_map((), |row| row.get::<_, String>(0))? {
        let chain = name?;
        let (has, seen) = (Held::read(backup, &chain)?, Held::read(copy, &chain)?);
        if let Some((first, lacking)) = has.lacks(&seen) {
            let (copy, anchored) = (path.to_owned(), seen.anchored);
            behind.push(Behind { copy, chain, anchored, lacking, first });
        }
    }
    Ok(behind)
}

/// The first anchor of a copy that counts other records than that of a backup for as many.
fn contradiction(
    backup: &Connection,
    copy: &Connection,
    path: &Path,
) -> Result<Option<Contradiction>, StoreError> {
    let mut seen = copy.prepare(
        "SELECT name, records, last FROM anchors JOIN chains ON id = chain ORDER BY name, records",
    )?;
    let mut has = backup.prepare(
        "SELECT 1 FROM anchors JOIN chains ON id = chain WHERE name = ?1 AND records = ?2 AND last <> ?3",
    )?;
    let mut rows = seen.query(())?;
    while let Some(row) = rows.next()? {
        let (chain, records): (String, i64) = (row.get(0)?, row.get(1)?);
        if has.exists((&chain, records, row.get::<_, String>(2)?))? {
            let (copy, records) = (path.to_owned(), unsigned(records));
            return Ok(Some(Contradiction { copy, chain, records }));
        }
    }
    Ok(None)
}

// === impl RestoreError ===

impl RestoreError {
    /// A copy shows what is wrong with the backup, and fails for want of room too.
    fn of_copying(error: StoreError) -> Self {
        match error {
            StoreError::Damaged | StoreError::Foreign | StoreError::Newer => Self::Backup(error),
            error => Self::Store(error),
        }
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Backup(error) => write!(f, "the backup cannot be used: {error}"),
            Self::Same => f.write_str("the backup is the store itself"),
            Self::Replaced(error) => write!(
                f,
                "the store that would be replaced cannot be read, so the anchors that it has seen are not known: \
                 {error}; move it away, with the files -wal and -shm beside it, to restore without it"
            ),
            Self::InUse => f.write_str(
                "another process reads the store that would be replaced; wait until it has ended",
            ),
            Self::Beside(path) => write!(
                f,
                "{} is there, and belongs to another store; move it to that store, or delete it",
                path.display()
            ),
            Self::Copy(path, error) => {
                write!(f, "the copy {} cannot be used: {error}", path.display())
            }
            Self::Behind(chains) => {
                f.write_str("the backup is behind another copy, so nothing was restored")?;
                chains.iter().try_for_each(|behind| write!(f, "; {behind}"))
            }
            Self::Contradiction(Contradiction { copy, chain, records }) => write!(
                f,
                "the backup contradicts {}: their anchors for {records} records of chain {chain} differ",
                copy.display()
            ),
        }
    }
}

impl std::error::Error for RestoreError {}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { copy, chain, anchored, lacking, first } = self;
        let copy = copy.display();
        write!(
            f,
            "{copy} has seen an anchor for {anchored} records of chain {chain}, and the backup lacks {lacking} of them, \
             the first is record {first}"
        )
    }
}

#[cfg(test)]
mod tests;
