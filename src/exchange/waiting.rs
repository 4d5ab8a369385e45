//! A request that waits for the first lease of a budget.

use crate::limits::Amounts;

use super::held::{Asked, ReadBody};

/// A request that everything but a lease allows. Nothing of it has been sent or counted.
#[derive(Debug)]
pub struct Waiting {
    /// What is known of it.
    pub asked: Asked,
    /// Its body, if it was read.
    pub body: Option<ReadBody>,
    /// What it reserves.
    pub amounts: Amounts,
    /// How long it waits, Unix nanoseconds.
    pub until_ns: u64,
}
