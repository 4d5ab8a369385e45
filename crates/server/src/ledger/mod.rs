//! The ledger of budgets: it leases parts of them to proxies.

mod account;

pub use account::{Account, Sums};
