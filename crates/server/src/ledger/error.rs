//! Why the ledger does not respond.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::store::StoreError;

/// Why the ledger cannot be used, or has no receipt. Nothing in it is from a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerError {
    /// The file cannot be opened or made.
    File(PathBuf, String),
    /// Another process has the file.
    Locked(PathBuf),
    /// The file is not a ledger.
    Foreign,
    /// A later version of the command wrote the ledger.
    Newer,
    /// An account cannot be read.
    Damaged(String),
    /// SQLite reports an error.
    Sqlite(String),
    /// The URL is not that of a Redis.
    Url,
    /// Everyone on the network path would see what is sent to the Redis.
    Cleartext,
    /// An authority for the Redis cannot be used.
    Authorities,
    /// The Redis cannot be reached, or did not respond in time.
    Unreachable(String),
    /// The Redis refuses a command.
    Redis(String),
    /// Other servers changed the same account again and again.
    Contended,
    /// More requests wait than can be remembered.
    Overloaded,
    /// The server ends.
    Ending,
    /// The system has no more threads.
    System(String),
}

// === impl LedgerError ===

impl LedgerError {
    pub(super) fn file(path: &Path, error: &io::Error) -> Self {
        Self::File(path.to_owned(), error.to_string())
    }

    /// The word for it in metrics and responses.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Contended => "ledger_contended",
            Self::Overloaded => "ledger_overloaded",
            Self::Ending => "ending",
            Self::Unreachable(_) => "ledger_unreachable",
            _ => "ledger_failed",
        }
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            _ => Self::Sqlite(error.to_string()),
        }
    }
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::File(path, error) => Self::File(path, error.to_string()),
            StoreError::Locked(path) => Self::Locked(path),
            StoreError::Foreign => Self::Foreign,
            StoreError::Newer => Self::Newer,
            error => Self::Sqlite(error.to_string()),
        }
    }
}

impl From<redis::RedisError> for LedgerError {
    fn from(error: redis::RedisError) -> Self {
        // A refused login is also an error of the connection.
        if error.is_timeout() {
            Self::Unreachable("no response in time".to_owned())
        } else if error.is_io_error() {
            Self::Unreachable(error.to_string())
        } else {
            Self::Redis(error.to_string())
        }
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{} cannot be opened: {error}", path.display()),
            Self::Locked(path) => {
                write!(f, "another `vkey serve` has the ledger: {} is locked", path.display())
            }
            Self::Foreign => f.write_str("the file is not a ledger of vkey"),
            Self::Newer => {
                f.write_str("the ledger was written by a later version of vkey; use that one")
            }
            Self::Damaged(account) => write!(f, "the account {account} cannot be read"),
            Self::Sqlite(error) => write!(f, "the ledger reports: {error}"),
            Self::Url => f.write_str(
                "expected a URL of a Redis, e.g. rediss://redis.example:6379/0, without a fragment",
            ),
            Self::Cleartext => f.write_str(
                "redis exposes the password and the accounts to everyone on the network path; use rediss, or \
                 --ledger-allow-cleartext if the network is trusted",
            ),
            Self::Authorities => f.write_str("the file has no certificate in PEM that can be used"),
            Self::Unreachable(why) => write!(f, "the Redis cannot be reached: {why}"),
            Self::Redis(why) => write!(f, "the Redis reports: {why}"),
            Self::Contended => f.write_str("other servers keep changing the same account"),
            Self::Overloaded => f.write_str("too many requests wait for the ledger"),
            Self::Ending => f.write_str("the server ends"),
            Self::System(error) => write!(f, "the ledger cannot go on: {error}"),
        }
    }
}

impl std::error::Error for LedgerError {}
