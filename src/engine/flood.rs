//! Which failed authentications are counted by source, so that a flood of them stays cheap.

/// The failures of a second that are all counted.
const ALL_COUNTED: u32 = 32;

/// Of the others, one is counted for each this many.
const ONE_OF: u32 = 16;

/// The failures that a worker has seen in the current second. Asking for an address and counting it costs more than all
/// the rest of a refusal, so in a flood only some of them are counted. No source is ever taken to have failed more often
/// than it has.
#[derive(Debug, Default)]
pub(super) struct Flood {
    second: u64,
    failures: u32,
}

impl Flood {
    /// Whether to count the next failure.
    pub(super) fn counts_next(&mut self, now_secs: u64) -> bool {
        if self.second != now_secs {
            *self = Self { second: now_secs, failures: 0 };
        }
        self.failures = self.failures.saturating_add(1);
        self.failures <= ALL_COUNTED || self.failures.is_multiple_of(ONE_OF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_flood_some_failures_are_counted() {
        let mut flood = Flood::default();
        let mut counted = |now_secs| (0..320).filter(|_| flood.counts_next(now_secs)).count();
        assert_eq!(counted(7), 32 + 18);
        assert_eq!(counted(8), 32 + 18, "each second begins anew");
        assert_eq!(counted(7), 32 + 18, "also if the clock goes back");
    }
}
