//! Times as numbers: Unix nanoseconds on the request path, Unix seconds in keys and windows.

/// Nanoseconds of a second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;

/// The second that a nanosecond lies in.
pub fn secs(ns: u64) -> u64 {
    ns / NANOS_PER_SEC
}

/// The first nanosecond of a second.
pub fn nanos(secs: u64) -> u64 {
    secs.saturating_mul(NANOS_PER_SEC)
}

/// Seconds until a time, rounded up: whoever waits so long has waited long enough.
pub fn secs_until(until_ns: u64, now_ns: u64) -> u64 {
    until_ns.saturating_sub(now_ns).div_ceil(NANOS_PER_SEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_to_wait_are_rounded_up() {
        assert_eq!(secs_until(NANOS_PER_SEC + 1, 0), 2);
        assert_eq!(secs_until(NANOS_PER_SEC, 0), 1);
        assert_eq!(secs_until(0, NANOS_PER_SEC), 0);
    }
}
