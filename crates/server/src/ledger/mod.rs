//! The ledger of budgets: it leases parts of them to proxies.
//!
//! One thread takes the orders of all requests that wait, and commits them together. A request gets its receipts when they
//! are durable. An order that comes again gets the same receipt, so a proxy repeats what was not answered. Another thread
//! reads accounts, so that nobody who reads delays an order.

mod account;
mod book;
mod clerk;
mod error;
mod measures;
mod orders;
mod scarcity;
mod store;

use std::path::PathBuf;

use zeroize::Zeroizing;

pub use account::{Account, Sums};
pub use clerk::{Ledger, Listing, Receipted, Report, Statement};
pub use error::LedgerError;
pub use measures::LedgerMeasures;
pub use orders::Posted;
pub(crate) use orders::parse;

/// Where accounts are kept.
pub enum Place {
    /// A file of SQLite.
    File(PathBuf),
    /// A Redis.
    Redis(RedisOptions),
}

/// How a Redis is reached. It has no `Debug`, because the URL may contain a password.
pub struct RedisOptions {
    /// `redis://` or `rediss://`, with user, password and number of the database.
    pub url: Zeroizing<String>,
    /// The authorities of `rediss`, in PEM; those of the web if absent.
    pub authorities: Option<Vec<u8>>,
    /// Whether `redis` is allowed to other machines, which shows everything to everyone on the network path.
    pub allow_cleartext: bool,
}

impl Ledger {
    /// Opens the ledger, and makes it if it is not there. `report` says later that it fails.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if it cannot be used.
    pub fn open(place: &Place, report: Report) -> Result<Self, LedgerError> {
        match place {
            Place::File(path) => {
                let writer = store::Sqlite::open(path)?;
                let reader = store::Sqlite::read(path)?;
                Self::start(writer, reader, report)
            }
            Place::Redis(options) => {
                let writer = store::Redis::open(options)?;
                let reader = store::Redis::open(options)?;
                Self::start(writer, reader, report)
            }
        }
    }
}
