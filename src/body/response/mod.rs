//! Responses of AI services: how many tokens they used, and what follows from that for a reservation.
//!
//! A [`Meter`] reads a response as it passes, in any pieces. Counts are the largest that were
//! reported of each kind, never sums: wherever a provider reports a count several times, it is cumulative. Nothing that
//! was generated is kept. Nothing is held back, but what
//! may be an event with the usage in a stream whose client did not ask for it: that is removed.

mod counts;
mod documents;
mod layout;
mod messages;
mod meter;
mod metered;
mod reading;
mod stripper;
#[cfg(test)]
mod tests;

pub use meter::{Meter, ResponseHead};
pub use metered::{End, Metered, ModelUsage, Settle};
