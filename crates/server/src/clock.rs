//! The clock of the machine.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time, Unix seconds.
#[expect(clippy::disallowed_methods, reason = "the edge where the server reads the clock")]
pub(crate) fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The present moment, to measure elapsed time.
#[expect(clippy::disallowed_methods, reason = "the edge where the server reads the clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
