//! The clock of the collector.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time, Unix seconds.
#[expect(clippy::disallowed_methods, reason = "the edge where the collector reads the clock")]
pub(crate) fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time of a clock that is never set.
#[expect(clippy::disallowed_methods, reason = "the edge where the collector reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
