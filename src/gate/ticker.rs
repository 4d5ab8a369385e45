//! The tick of the root context, which several parts of a gate need at different times.

use std::cell::Cell;

use crate::host::{Host, HostError};

/// The period of the tick.
#[derive(Default)]
pub(super) struct Ticker {
    /// Milliseconds; 0: off.
    millis: Cell<u32>,
}

impl Ticker {
    /// The period in milliseconds; 0: off.
    pub(super) fn millis(&self) -> u32 {
        self.millis.get()
    }

    /// Ticks at least this often. Setting the same period again would put the next tick off.
    ///
    /// # Errors
    ///
    /// [`HostError`] if the host has no tick.
    pub(super) fn hasten(&self, host: &impl Host, millis: u32) -> Result<(), HostError> {
        if matches!(self.millis.get(), 1.. if self.millis.get() <= millis) {
            return Ok(());
        }
        host.set_tick_period(millis).inspect(|()| self.millis.set(millis))
    }

    /// Ticks this often, or not at all. If the period cannot be changed, the tick continues.
    pub(super) fn set(&self, host: &impl Host, millis: u32) {
        if self.millis.get() != millis && host.set_tick_period(millis).is_ok() {
            self.millis.set(millis);
        }
    }
}
