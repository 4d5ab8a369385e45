//! Alerts: what the store raises, and how a receiver gets it.
//!
//! The store raises alerts as it writes: see [`crate::store::Thresholds`]. A [`Sender`] delivers each to a [`Receiver`]
//! at least once, and waits longer and longer while that is away. It reads the store and asks the writer to write that an
//! alert was taken, so it never keeps the collector waiting, and goes on after a restart.

mod backoff;
mod receiver;
mod sender;

pub use receiver::Receiver;
pub use sender::Sender;

pub use crate::store::{Alert, AlertKind, InvalidThreshold, Thresholds};

#[cfg(test)]
mod tests;
