//! Backups of a store, and how they are put back.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::{ChainState, Reader, StoreError, connect, lock, make_private, schema};

/// The pages that are copied at a time. In between the writer goes on.
const PAGES: i32 = 1000;

/// Why a backup is not put back.
#[derive(Debug)]
pub enum RestoreError {
    /// A store cannot be used.
    Store(StoreError),
    /// The backup cannot be used.
    Backup(StoreError),
    /// Another copy knows of records that the backup lacks.
    Behind(Vec<Behind>),
}

/// A chain that goes further in another copy than in the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The other copy.
    pub copy: PathBuf,
    /// The id of the chain.
    pub chain: String,
    /// The number of records that the backup has of it, up to the first gap.
    pub has: u64,
    /// The number of records that an anchor in the copy counts.
    pub anchored: u64,
}

/// Copies a store into a new file, consistently, while a collector writes.
///
/// # Errors
///
/// [`StoreError`], also if the file is there already.
pub fn backup(store: &Path, to: &Path) -> Result<(), StoreError> {
    let from = Reader::open(store)?;
    let file = |error| StoreError::File(to.to_owned(), error);
    if to.try_exists().map_err(file)? {
        return Err(file(std::io::ErrorKind::AlreadyExists.into()));
    }
    let part = beside(to, ".part");
    copy(&from.db, &part)?;
    fs::rename(&part, to).map_err(file)
}

/// Puts a backup in the place of a store, which no collector may have open. Other copies, and the store that is
/// replaced, must not have seen an anchor for records that the backup lacks.
///
/// # Errors
///
/// [`RestoreError`]; then nothing has changed.
pub fn restore(from: &Path, store: &Path, others: &[PathBuf]) -> Result<(), RestoreError> {
    let _lock = lock(store).map_err(RestoreError::Store)?;
    let backup = Reader::open(from).and_then(|backup| {
        let is_sound: String =
            backup.db.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        if is_sound == "ok" { Ok(backup) } else { Err(StoreError::Damaged) }
    });
    let backup = backup.map_err(RestoreError::Backup)?;
    let has = backup.chains().map_err(RestoreError::Backup)?;
    let mut behind = Vec::new();
    let is_there = fs::metadata(store).is_ok_and(|file| file.len() > 0);
    for copy in is_there.then_some(store).into_iter().chain(others.iter().map(PathBuf::as_path)) {
        let seen =
            Reader::open(copy).and_then(|copy| copy.chains()).map_err(RestoreError::Store)?;
        behind.extend(seen.iter().filter_map(|chain| is_behind(&has, chain, copy)));
    }
    if !behind.is_empty() {
        return Err(RestoreError::Behind(behind));
    }
    let part = beside(store, ".part");
    copy(&backup.db, &part).map_err(RestoreError::Store)?;
    let file = |error| RestoreError::Store(StoreError::File(store.to_owned(), error));
    // What an earlier store had not written into its file yet would be taken for a part of this one.
    for name in ["-wal", "-shm"] {
        match fs::remove_file(beside(store, name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(error)),
            _ => {}
        }
    }
    fs::rename(&part, store).map_err(file)
}

/// Whether a copy has seen an anchor of a chain for more records than a backup has.
fn is_behind(has: &[ChainState], seen: &ChainState, copy: &Path) -> Option<Behind> {
    let anchored = seen.anchored?;
    let has = has.iter().find(|chain| chain.name == seen.name);
    // What the backup misses as well is no reason: the other copy may have it from an anchor alone.
    let has = has.map_or(0, |chain| chain.anchored.unwrap_or(0).max(chain.verified));
    let is_behind = has < anchored.min(seen.records);
    is_behind.then(|| Behind { copy: copy.to_owned(), chain: seen.name.clone(), has, anchored })
}

fn copy(from: &Connection, to: &Path) -> Result<(), StoreError> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::File(to.to_owned(), error));
        }
        _ => {}
    }
    make_private(to).map_err(|error| StoreError::File(to.to_owned(), error))?;
    let mut db = connect(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    Backup::new(from, &mut db)?.run_to_completion(PAGES, Duration::ZERO, None)?;
    // One file, without a log beside it.
    db.pragma_update(None, "journal_mode", "DELETE")?;
    schema::check(&db)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

// === impl RestoreError ===

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Backup(error) => write!(f, "the backup cannot be used: {error}"),
            Self::Behind(chains) => {
                f.write_str("the backup is behind another copy, so nothing was restored")?;
                for Behind { copy, chain, has, anchored } in chains {
                    let copy = copy.display();
                    write!(
                        f,
                        "; {copy} has seen an anchor for {anchored} records of chain {chain}, and the backup has {has}"
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for RestoreError {}
