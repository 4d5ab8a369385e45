//! Failed authentications, by source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The failures of a source in a window. After them its failures are refused with 429.
const MAX_FAILURES: u32 = 10;

const WINDOW: Duration = Duration::from_secs(300);

/// The most sources that are remembered. When there are more, those whose window is over are forgotten, and then all.
const MAX_SOURCES: usize = 4096;

/// The failures of each source. A request with a valid key is never checked against them.
#[derive(Default)]
pub(super) struct Failures {
    sources: HashMap<IpAddr, (Instant, u32)>,
}

impl Failures {
    /// Adds a failure. Returns in how many seconds the source may fail again, if it has failed too often.
    pub(super) fn add(&mut self, source: IpAddr, now: Instant) -> Option<u64> {
        let is_over = |begin: Instant| now.duration_since(begin) >= WINDOW;
        if self.sources.len() >= MAX_SOURCES {
            self.sources.retain(|_, (begin, _)| !is_over(*begin));
            if self.sources.len() >= MAX_SOURCES {
                self.sources.clear();
            }
        }
        let (begin, count) = self.sources.entry(network(source)).or_insert((now, 0));
        if is_over(*begin) {
            (*begin, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        let left = WINDOW.saturating_sub(now.duration_since(*begin));
        (*count > MAX_FAILURES).then_some(left.as_secs().max(1))
    }
}

/// The address, or the /64 of an IPv6 address: one client has all of it.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            std::net::Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_fails_too_often_waits_for_the_end_of_its_window() {
        let (mut failures, begin) = (Failures::default(), crate::clock::instant());
        let source: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        for _ in 0..MAX_FAILURES {
            assert_eq!(failures.add(source, begin), None);
        }
        assert_eq!(failures.add(neighbour, begin + WINDOW / 3), Some(200));
        assert_eq!(failures.add("2001:db8:0:1::1".parse().unwrap(), begin), None);
        assert_eq!(failures.add(source, begin + WINDOW), None, "a new window");
    }

    #[test]
    fn the_memory_is_bounded() {
        let (mut failures, now) = (Failures::default(), crate::clock::instant());
        for number in 0..20_000_u32 {
            failures.add(std::net::Ipv4Addr::from(number).into(), now);
            assert!(failures.sources.len() <= MAX_SOURCES);
        }
    }
}
