//! The store of the collector: SQLite, with one writer and any number of readers.
//!
//! What is read from a file and how far the file was read are written in one transaction. So a collector that is killed
//! at any moment goes on where it was: nothing is lost, and nothing is stored twice. A record with a place in a chain
//! is stored once, however many ways it comes.

mod alerts;
mod backup;
mod chains;
mod checkpoint;
mod counters;
mod files;
mod filter;
mod findings;
mod held;
mod id;
mod measures;
mod positions;
mod query;
mod record;
mod schema;
mod thresholds;
mod totals;
mod usage;
mod watch;
mod words;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Statement, TransactionBehavior, params};

use vkey::audit::Anchor;

use crate::clock::now_secs;

pub use alerts::{Alert, AlertKind, DELIVERED_FOR_SECS};
pub use backup::{Behind, Content, Contradiction, RestoreError, backup, restore};
pub use filter::{Cursor, Filter, Status};
use id::Id;
pub use measures::Measures;
pub use positions::Position;
pub use query::{ChainState, FindingRow, Found, Gap, Overview, Reader, StoredRecord};
pub use record::{Place, Record, TokenCounts};
pub use thresholds::{InvalidThreshold, Thresholds};
pub(crate) use totals::REQUESTS;
pub use usage::{By, Usage, UsageFilter, UsageRow, UsedKey};

/// How long a statement waits for another process, e.g. one that makes a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The pages of the indexes into which records come at many places, for the writer; a negative number is one of KiB.
const CACHE_KIB: i64 = -32_768;

/// The pages of 4 KiB after which the writer itself writes the log beside the store into it, and begins it anew. Until then
/// another thread does the first of that.
const CHECKPOINT_PAGES: i64 = 65_536;

/// Nobody else reads a store.
const PRIVATE: u32 = 0o600;

/// How much more records than `max_records` may be kept, as a part of them: pruning goes in steps.
const SLACK: u64 = 100;

/// The most records that are pruned in one transaction.
const MAX_PRUNED: u64 = 20_000;

/// The greatest number of a record in a chain. No gate writes it, and SQLite has no greater one.
const MAX_SEQ: u64 = u64::MAX >> 2;

/// How long totals by the hour are kept, in hours.
const KEPT_HOURS: i64 = 24 * 31;

/// A store that is open for writing. One process has it at a time.
pub struct Store {
    db: Connection,
    chains: chains::Chains,
    retention: Retention,
    records: u64,
    watch: watch::Watch,
    checkpoints: checkpoint::Checkpoints,
    /// Holds the lock on the file that says that the store is open.
    _lock: File,
}

/// How much is kept. Totals and anchors are kept always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The most records.
    pub max_records: u64,
    /// How old a record becomes, in seconds; `None` without a limit.
    pub max_age_secs: Option<u64>,
}

/// What a collector takes from a source.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// The record of a request.
    Record(Box<Record>),
    /// An anchor, and its line.
    Anchor(Box<Anchor>, String),
    /// What does not verify: the kind, as [`crate::Finding::word`] has it, and the text.
    Finding(&'static str, String),
    /// What is only counted.
    Counted(&'static str),
    /// The receiver of alerts has taken the alert with this id.
    Delivered(i64),
}

/// What is written in one transaction, or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// What was taken.
    pub items: Vec<Item>,
    /// How far the file was read with it.
    pub position: Option<Position>,
}

/// Why the store cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// The file cannot be opened or made.
    File(PathBuf, io::Error),
    /// Another process collects into it.
    Locked(PathBuf),
    /// A later version of the command wrote it.
    Newer,
    /// An earlier version of the command wrote it.
    Older,
    /// It is no store, or contradicts itself.
    Damaged,
    /// It is no store.
    Foreign,
    /// Another process keeps it from being read or written, for longer than 10 s.
    Busy,
    /// The question took too long: see [`Reader::interrupt_when`].
    Interrupted,
    /// The writer has no timer.
    Timer(io::Error),
    /// SQLite reports an error.
    Sqlite(rusqlite::Error),
}

// === impl Store ===

impl Store {
    /// Opens a store, or makes it. It can be read and written by its owner alone.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn open(path: &Path, retention: Retention) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        refuse_foreign(path)?;
        make_private(path).map_err(|error| StoreError::File(path.to_owned(), error))?;
        let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "cache_size", CACHE_KIB)?;
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        schema::migrate(&mut db)?;
        let records = db.query_row("SELECT count(*) FROM records", (), |row| row.get(0))?;
        let chains = chains::Chains::default();
        let watch = watch::Watch::new(&db)?;
        let (records, checkpoints) = (unsigned(records), checkpoint::Checkpoints::new(path)?);
        Ok(Self { db, chains, retention, records, watch, checkpoints, _lock: lock })
    }

    /// Sets when something is an alert. Without it, [`Thresholds::default`] says so.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.watch.thresholds = thresholds;
    }

    /// How far the files of a path were read.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn positions(&self, path: &str) -> Result<Vec<Position>, StoreError> {
        positions::of(&self.db, path)
    }

    /// Writes batches, all of them or none. Returns how many records are new.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then nothing is written.
    pub fn push(&mut self, batches: &[Batch]) -> Result<u64, StoreError> {
        self.push_at(batches, now_secs())
    }

    /// Does what [`Self::push`] does at a time, Unix seconds.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then nothing is written.
    pub fn push_at(&mut self, batches: &[Batch], now_secs: u64) -> Result<u64, StoreError> {
        let pushed = self.try_push(batches, now_secs);
        match pushed {
            Ok(stored) => {
                self.records = self.records.saturating_add(stored);
                self.checkpoints.written(stored);
            }
            Err(_) => self.chains.forget(),
        }
        pushed
    }

    /// Raises alerts for what is too much or missing for too long: see [`Thresholds`]. Returns how many it raised.
    /// Anomalies, refused upstreams and findings are alerts as soon as they are pushed.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn evaluate(&mut self, now_secs: u64) -> Result<u64, StoreError> {
        let db = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let raised = self.watch.evaluate(&db, now_secs)?;
        db.commit()?;
        Ok(raised)
    }

    /// Deletes records that are too old or too many, up to 20 000. Returns how many it deleted.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn prune(&mut self, now_secs: u64) -> Result<u64, StoreError> {
        let too_old = match self.retention.max_age_secs {
            Some(age) => {
                let before = now_secs.saturating_sub(age).saturating_mul(1_000_000);
                self.delete(Id::first(before), MAX_PRUNED)?
            }
            None => 0,
        };
        let most = self.retention.max_records;
        let excess = self.records.saturating_sub(most);
        let is_full = excess > most / SLACK || (excess > 0 && most < SLACK);
        let count = if is_full { excess.min(MAX_PRUNED) } else { 0 };
        let too_many = self.delete(Id::LAST, count)?;
        let hour = i64::try_from(now_secs / 3600).unwrap_or(i64::MAX);
        self.db
            .prepare_cached("DELETE FROM hours WHERE hour < ?1")?
            .execute([hour.saturating_sub(KEPT_HOURS)])?;
        Ok(too_old + too_many)
    }

    /// Deletes the first records before one, up to a number.
    fn delete(&mut self, Id(before): Id, count: u64) -> Result<u64, StoreError> {
        if count == 0 {
            return Ok(0);
        }
        let db = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let which = params![before, integer(count)];
        let first = "SELECT id FROM records WHERE id < ?1 ORDER BY id LIMIT ?2";
        for (table, id) in [("words", "rowid"), ("records", "id")] {
            db.prepare_cached(&format!("DELETE FROM {table} WHERE {id} IN ({first})"))?
                .execute(which)?;
        }
        let deleted = db.changes();
        counters::add(&db, "pruned", deleted)?;
        db.commit()?;
        self.records = self.records.saturating_sub(deleted);
        Ok(deleted)
    }

    fn try_push(&mut self, batches: &[Batch], now_secs: u64) -> Result<u64, StoreError> {
        let Self { db, chains, watch, .. } = self;
        let db = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut statement = db.prepare_cached(INSERT)?;
        let (mut totals, mut stored, mut doubled) = (totals::Totals::default(), 0, 0);
        let (mut seen, mut words) = (watch::Seen::default(), words::Words::default());
        for item in batches.iter().flat_map(|batch| &batch.items) {
            match item {
                Item::Record(record) => match insert(&mut statement, &db, chains, record)? {
                    Some(id) => {
                        totals.add(record);
                        words.add(id, record);
                        watch.see(&mut seen, record, now_secs);
                        stored += 1;
                    }
                    None => doubled += 1,
                },
                Item::Anchor(anchor, line) => {
                    let is_new = chains.take_anchor(&db, anchor, line)?;
                    counters::add(&db, "anchors", u64::from(is_new))?;
                }
                Item::Finding(kind, text) => findings::add(&db, kind, None, text)?,
                Item::Counted(name) => counters::add(&db, name, 1)?,
                Item::Delivered(id) => alerts::deliver(&db, *id, now_secs)?,
            }
        }
        chains.save(&db)?;
        words.save(&db)?;
        totals.save(&db)?;
        counters::add(&db, "records", stored)?;
        counters::add(&db, "doubled", doubled)?;
        for position in batches.iter().filter_map(|batch| batch.position.as_ref()) {
            positions::save(&db, position)?;
        }
        watch.raise(&db, &mut seen, now_secs)?;
        drop(statement);
        db.commit()?;
        watch.take(seen);
        Ok(stored)
    }
}

/// Writes a record.
const INSERT: &str = "INSERT INTO records (id, failed, decision, reason, tenant, key, user, model, tool, method, path,
        code, request_id, tokens, cost, verdict, anomaly, chain, seq, line)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";

/// Writes a record. Returns its id; `None` if it was taken before.
fn insert(
    insert: &mut Statement<'_>,
    db: &Connection,
    chains: &mut chains::Chains,
    record: &Record,
) -> Result<Option<Id>, StoreError> {
    let place = record.link.as_ref().filter(|place| place.seq <= MAX_SEQ);
    if let (Some(Place { chain, seq, .. }), None) = (&record.link, place) {
        let text = "the number of the record is too large";
        findings::add(db, "unlinked", Some((chain, Some(*seq))), text)?;
    }
    let chain = match place {
        None => None,
        Some(place) => match chains.take(db, place, record.ts_micros)? {
            None => return Ok(None),
            chain => chain,
        },
    };
    let id = Id::free(db, record.ts_micros)?;
    let Id(number) = id;
    insert.execute(params![
        number,
        record.is_failed,
        record.decision,
        record.reason,
        record.tenant,
        record.key,
        record.user,
        record.model,
        record.tool,
        record.method,
        record.path,
        record.code.map(integer),
        record.request_id,
        record.tokens.map(|tokens| integer(tokens.total)),
        record.cost.map(integer),
        record.verdict,
        record.anomaly,
        chain,
        place.map(|place| integer(place.seq)),
        record.line,
    ])?;
    Ok(Some(id))
}

/// Refuses a file that is no store before anything of it is changed. An empty one becomes a store.
fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    if !path.metadata().is_ok_and(|file| file.is_file() && file.len() > 0) {
        return Ok(());
    }
    schema::recognize(&connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?)
}

/// Opens the store of a path.
pub(crate) fn connect(path: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Makes an empty file that only its owner can read, or takes the rights of others away.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(PRIVATE).open(path)?;
    let mut rights = file.metadata()?.permissions();
    if rights.mode() & 0o077 != 0 {
        rights.set_mode(PRIVATE);
        file.set_permissions(rights)?;
    }
    Ok(())
}

/// Locks the store of a path against other collectors, until the file is closed.
pub(crate) fn lock(path: &Path) -> Result<File, StoreError> {
    // A link and the file that it leads to are one store.
    let mut name = match files::resolve(path) {
        Ok(path) => path.into_os_string(),
        Err(error) => return Err(StoreError::File(path.to_owned(), error)),
    };
    name.push(".lock");
    let path = PathBuf::from(name);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(PRIVATE).open(&path);
    let file = file.map_err(|error| StoreError::File(path.clone(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked(path)),
        Err(std::fs::TryLockError::Error(error)) => Err(StoreError::File(path, error)),
    }
}

/// SQLite has no unsigned numbers. No count and no time reaches the bound.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The number that [`integer`] wrote.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

// === impl StoreError ===

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::OperationInterrupted) => Self::Interrupted,
            _ => Self::Sqlite(error),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{} cannot be opened: {error}", path.display()),
            Self::Locked(path) => {
                write!(f, "another `vkey serve` has the store: {} is locked", path.display())
            }
            Self::Newer => {
                f.write_str("the store was written by a later version of vkey; use that one")
            }
            Self::Older => f.write_str(
                "the store was written by an earlier version of vkey; start `vkey serve` with it once",
            ),
            Self::Damaged => f.write_str("the store is damaged; restore a backup"),
            Self::Foreign => f.write_str("the file is not a store of vkey"),
            Self::Busy => f.write_str("another process uses the store; wait until it has ended"),
            Self::Interrupted => f.write_str(
                "the question takes too long; ask for fewer records, e.g. with from and to",
            ),
            Self::Timer(error) => write!(f, "no timer can be made: {error}"),
            Self::Sqlite(error) => write!(f, "the store reports: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod tests;
