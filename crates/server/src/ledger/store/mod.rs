//! Where accounts are kept: a file of SQLite, or a Redis.

mod redis;
mod sqlite;

pub(super) use redis::Redis;
pub(super) use sqlite::Sqlite;

use super::account::Account;
use super::book::Taken;
use super::error::LedgerError;
use super::orders::Posted;

/// The most names that are looked at for one question.
pub(super) const MAX_NAMES: usize = 10_000;

/// What keeps accounts.
pub(super) trait Store: Send + 'static {
    /// Takes orders. Those that have a receipt are durable. The others may be too, and can be repeated.
    fn take(&mut self, orders: &[Posted], now_secs: u64) -> Vec<Result<Taken, LedgerError>>;

    /// Tells other servers which accounts are scarce, and returns those that they told.
    fn exchange(&mut self, scarce: &[String]) -> Result<Vec<String>, LedgerError>;

    /// These accounts.
    fn accounts(&mut self, of: &[(String, u32)]) -> Result<Vec<Option<Account>>, LedgerError>;

    /// The names of the accounts of a tenant and of its keys, at most [`MAX_NAMES`] of each.
    fn names(&mut self, tenant: &str, now_secs: u64) -> Result<Vec<String>, LedgerError>;

    /// Deletes accounts that nobody needs any more.
    fn prune(&mut self, now_secs: u64) -> Result<(), LedgerError>;
}

/// The account that was written as this text.
fn read(name: &str, text: &str) -> Result<Account, LedgerError> {
    serde_json::from_str(text).map_err(|_| LedgerError::Damaged(name.to_owned()))
}

/// The text of an account.
fn write(name: &str, account: &Account) -> Result<String, LedgerError> {
    serde_json::to_string(account).map_err(|_| LedgerError::Damaged(name.to_owned()))
}

/// The result if nothing could be taken.
fn all(orders: &[Posted], error: &LedgerError) -> Vec<Result<Taken, LedgerError>> {
    orders.iter().map(|_| Err(error.clone())).collect()
}
#[cfg(test)]
#[path = "../../../tests/support/redis_server.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod redis_server;
#[cfg(test)]
mod tests;
