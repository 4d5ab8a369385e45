//! Accounts in a file of SQLite. One process has it at a time.

use std::fs::File;
use std::path::Path;

use rusqlite::{
    CachedStatement, Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params,
};

use crate::ledger::account::Account;
use crate::ledger::book::{Book, Source, Taken};
use crate::ledger::error::LedgerError;
use crate::ledger::orders::{Posted, kept_until_secs};
use crate::store::{connect, lock, make_private};

use super::{MAX_NAMES, Store, all, read, write};

/// What makes each version of the schema out of the one before it. Version 0 is an empty file.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

/// Marks the file as a ledger: `vkyl`.
const APPLICATION_ID: i32 = 0x766b_796c;

/// The most accounts that are deleted in one transaction.
const MAX_PRUNED: u32 = 1000;

/// The most such transactions at a time.
const MAX_PARTS: usize = 100;

/// A ledger in a file.
pub(in crate::ledger) struct Sqlite {
    db: Connection,
    /// Holds the lock on the file that says that the ledger is open.
    _lock: Option<File>,
}

// === impl Sqlite ===

impl Sqlite {
    /// Opens a ledger for writing, or makes it. It can be read and written by its owner alone.
    pub(in crate::ledger) fn open(path: &Path) -> Result<Self, LedgerError> {
        let lock = lock(path)?;
        refuse_foreign(path)?;
        make_private(path).map_err(|error| LedgerError::file(path, &error))?;
        let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // What was answered survives a loss of power.
        db.pragma_update(None, "synchronous", "FULL")?;
        migrate(&mut db)?;
        Ok(Self { db, _lock: Some(lock) })
    }

    /// Opens a ledger for reading, beside the one that writes it.
    pub(in crate::ledger) fn read(path: &Path) -> Result<Self, LedgerError> {
        let db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        Ok(Self { db, _lock: None })
    }

    #[cfg(test)]
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    fn try_take(
        &mut self,
        orders: &[Posted],
        now_secs: u64,
    ) -> Result<Vec<Result<Taken, LedgerError>>, LedgerError> {
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut book, mut rows) = (Book::default(), Rows { db: &change });
        let mut taken = Vec::with_capacity(orders.len());
        for posted in orders {
            match book.take(&mut rows, posted, now_secs) {
                // An account that cannot be read concerns nobody else.
                result @ (Ok(_) | Err(LedgerError::Damaged(_))) => taken.push(result),
                Err(error) => return Err(error),
            }
        }
        for (name, window, page) in book.changed() {
            let kept = kept_until_secs(page.per, window).and_then(|secs| i64::try_from(secs).ok());
            change.prepare_cached(WRITE)?.execute(params![
                name,
                window,
                write(name, &page.account)?,
                kept
            ])?;
        }
        change.commit()?;
        Ok(taken)
    }

    /// Adds the names that begin with a text.
    fn add_names(&self, prefix: &str, names: &mut Vec<String>) -> Result<(), LedgerError> {
        let mut next = self.db.prepare_cached(NEXT_NAME)?;
        let mut after = prefix.to_owned();
        for _ in 0..MAX_NAMES {
            let found: Option<String> = next.query_row([&after], |row| row.get(0)).optional()?;
            match found.filter(|name| name.starts_with(prefix)) {
                Some(name) => after.clone_from(&name),
                None => break,
            }
            names.push(after.clone());
        }
        Ok(())
    }
}

const READ: &str = "SELECT state FROM accounts WHERE name = ?1 AND window = ?2";

const WRITE: &str =
    "INSERT INTO accounts (name, window, state, kept_until_secs) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (name, window) DO UPDATE SET state = excluded.state";

/// A name may have thousands of windows, so the next name is searched for each time.
const NEXT_NAME: &str = "SELECT name FROM accounts WHERE name > ?1 ORDER BY name LIMIT 1";

impl Store for Sqlite {
    fn take(&mut self, orders: &[Posted], now_secs: u64) -> Vec<Result<Taken, LedgerError>> {
        if orders.is_empty() {
            return Vec::new();
        }
        self.try_take(orders, now_secs).unwrap_or_else(|error| all(orders, &error))
    }

    fn exchange(&mut self, _: &[String]) -> Result<Vec<String>, LedgerError> {
        Ok(Vec::new())
    }

    fn accounts(&mut self, of: &[(String, u32)]) -> Result<Vec<Option<Account>>, LedgerError> {
        let mut rows = Rows { db: &self.db };
        of.iter().map(|(name, window)| rows.account(name, *window)).collect()
    }

    fn names(&mut self, tenant: &str, _: u64) -> Result<Vec<String>, LedgerError> {
        let mut names = Vec::new();
        self.add_names(&format!("tenant/{tenant}/"), &mut names)?;
        self.add_names(&format!("key/{tenant}/"), &mut names)?;
        Ok(names)
    }

    fn prune(&mut self, now_secs: u64) -> Result<(), LedgerError> {
        let now = i64::try_from(now_secs).unwrap_or(i64::MAX);
        let mut delete = self.db.prepare_cached(
            "DELETE FROM accounts WHERE (name, window) IN
                (SELECT name, window FROM accounts WHERE kept_until_secs < ?1 LIMIT ?2)",
        )?;
        // In parts, so that no order waits for long.
        for _ in 0..MAX_PARTS {
            if delete.execute(params![now, MAX_PRUNED])? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Refuses a file that is no ledger before anything of it is changed. An empty one becomes a ledger.
fn refuse_foreign(path: &Path) -> Result<(), LedgerError> {
    if !path.metadata().is_ok_and(|file| file.is_file() && file.len() > 0) {
        return Ok(());
    }
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let id: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if id != APPLICATION_ID {
        // A process that ended while it made the file left it without a table.
        let tables: i64 =
            db.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        return if id == 0 && tables == 0 { Ok(()) } else { Err(LedgerError::Foreign) };
    }
    if version(&db)? > MIGRATIONS.len() { Err(LedgerError::Newer) } else { Ok(()) }
}

fn migrate(db: &mut Connection) -> Result<(), LedgerError> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = version(&change)?;
    let Some(steps) = MIGRATIONS.get(version..) else { return Err(LedgerError::Newer) };
    for step in steps {
        change.execute_batch(step)?;
    }
    let present = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    change.pragma_update(None, "application_id", APPLICATION_ID)?;
    change.pragma_update(None, "user_version", present)?;
    change.commit()?;
    Ok(())
}

fn version(db: &Connection) -> Result<usize, LedgerError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    usize::try_from(version).map_err(|_| LedgerError::Newer)
}

/// The rows of accounts.
struct Rows<'a> {
    db: &'a Connection,
}

impl Rows<'_> {
    fn window(
        mut statement: CachedStatement<'_>,
        name: &str,
        window: u32,
    ) -> Result<Option<u32>, LedgerError> {
        Ok(statement.query_row(params![name, window], |row| row.get(0))?)
    }
}

impl Source for Rows<'_> {
    fn account(&mut self, name: &str, window: u32) -> Result<Option<Account>, LedgerError> {
        let mut statement = self.db.prepare_cached(READ)?;
        let text: Option<String> =
            statement.query_row(params![name, window], |row| row.get(0)).optional()?;
        text.map(|text| read(name, &text)).transpose()
    }

    fn earlier(&mut self, name: &str, window: u32) -> Result<Option<u32>, LedgerError> {
        let text = "SELECT max(window) FROM accounts WHERE name = ?1 AND window < ?2";
        Self::window(self.db.prepare_cached(text)?, name, window)
    }

    fn later(&mut self, name: &str, window: u32) -> Result<Option<u32>, LedgerError> {
        let text = "SELECT min(window) FROM accounts WHERE name = ?1 AND window > ?2";
        Self::window(self.db.prepare_cached(text)?, name, window)
    }
}
