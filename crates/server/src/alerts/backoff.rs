//! How long to wait for a receiver that is away.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);

/// Waits that double, up to a longest one.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    next: Duration,
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self::new(FIRST)
    }
}

impl Backoff {
    /// Waits that begin with this one.
    pub(super) fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// The next wait: a part of it, at least a half, is random, so that collectors that failed together do not come back
    /// together. `random` is any number.
    pub(super) fn next(&mut self, random: u32) -> Duration {
        let half = self.next / 2;
        let part = half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.next = self.next.saturating_mul(2).min(LONGEST);
        half + part
    }

    /// Begins again with the first wait.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let waits = Vec::from_iter((0..12).map(|_| backoff.next(u32::MAX).as_secs()));
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.next(0), Duration::from_millis(500));
        assert_eq!(backoff.next(0), Duration::from_secs(1));
        let between = backoff.next(u32::MAX / 2);
        assert!(between > Duration::from_secs(2) && between < Duration::from_secs(4));
    }
}
