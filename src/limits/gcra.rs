//! Rates: the generic cell rate algorithm (GCRA; ITU-T I.371, annex A), whose whole state is one
//! point in time.
//!
//! Each request moves the theoretical arrival time (TAT) on by the emission interval `per / requests`.
//! What the TAT is ahead of now is the backlog; a request conforms while the backlog with it is no
//! more than `burst` intervals. Where `requests` does not divide `per`, the TAT has a fraction of a
//! nanosecond, so that nothing is lost or won by rounding: the arithmetic is in *ticks* of
//! `1 / requests` nanoseconds.

use std::num::NonZeroU32;

use crate::json::{Invalid, Node};
use crate::time::{NANOS_PER_SEC, secs};

/// The most `requests` and the largest `burst`.
const MAX_REQUESTS: u64 = 1_000_000_000;

/// The longest `per`, and the longest that a burst may take to come back: 366 days.
const MAX_PER_SECS: u64 = 366 * 86_400;

/// A rate: `requests` per `per`, and `burst` of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    per_ns: u64,
    burst: NonZeroU32,
}

/// A theoretical arrival time: when the backlog will be gone. The default is long past, which is the
/// state of a rate that was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tat {
    /// Unix nanoseconds.
    pub ns: u64,
    /// Ticks beyond, fewer than the rate's `requests`.
    pub fraction: u32,
}

/// What a request reserved of a rate. A refund needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateReservation {
    /// When it was charged, Unix nanoseconds.
    pub at_ns: u64,
    /// The TAT after the charge; `None` if another request was refunded since.
    pub tat: Option<Tat>,
}

impl Rate {
    /// A rate of `requests` in `per_secs`, of which `burst` may come at once. `None` when one of them
    /// is 0 or beyond its bound, or when a burst would take longer than 366 days to come back.
    pub fn new(requests: u32, per_secs: u64, burst: u32) -> Option<Self> {
        let bounded = |number: u32| u64::from(number) <= MAX_REQUESTS;
        let rate = Self {
            requests: NonZeroU32::new(requests)?,
            per_ns: per_secs.checked_mul(NANOS_PER_SEC)?,
            burst: NonZeroU32::new(burst)?,
        };
        let fits = bounded(requests)
            && bounded(burst)
            && (1..=MAX_PER_SECS).contains(&per_secs)
            && rate.refill_secs() <= MAX_PER_SECS;
        fits.then_some(rate)
    }

    /// Reads `{requests, per, burst}`; `burst` is `requests` where it is absent.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for an unknown, missing or ill-typed member, and as [`Rate::new`].
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["requests", "per", "burst"])?;
        let requests = count(&members.require("requests")?)?;
        let per = members.require("per")?;
        let per_secs = match per.seconds()? {
            per_secs @ 1..=MAX_PER_SECS => per_secs,
            _ => return Err(per.expected("1s to 366d")),
        };
        let burst = members.read("burst", count)?.unwrap_or(requests);
        Self::new(requests, per_secs, burst)
            .ok_or_else(|| node.expected("a burst that comes back within 366 days"))
    }

    /// How many requests there are in a period.
    pub fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// The period, in seconds.
    pub fn per_secs(&self) -> u64 {
        secs(self.per_ns)
    }

    /// The most requests that conform at once.
    pub fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// The rate as so many requests in so many whole seconds: the burst and the time in which it comes
    /// back, or the requests and their period where that time is no whole number of seconds.
    pub fn policy(&self) -> (u64, u64) {
        let ticks_per_sec = self.ticks(NANOS_PER_SEC);
        let whole = self.capacity().checked_rem(ticks_per_sec) == Some(0);
        match whole {
            true => (u64::from(self.burst()), self.refill_secs()),
            false => (u64::from(self.requests()), self.per_secs()),
        }
    }

    /// How long a spent burst takes to come back, in seconds, rounded up.
    fn refill_secs(&self) -> u64 {
        saturated(self.capacity().div_ceil(self.ticks(NANOS_PER_SEC)))
    }

    /// Lets one request in.
    ///
    /// # Errors
    ///
    /// When the rate is used up: the first moment at which a request conforms, Unix nanoseconds.
    pub fn reserve(&self, tat: Tat, now_ns: u64) -> Result<Tat, u64> {
        let backlog = self.backlog(tat, now_ns).saturating_add(self.interval());
        match backlog.checked_sub(self.capacity()) {
            None | Some(0) => Ok(self.tat(self.ticks(now_ns).saturating_add(backlog))),
            Some(excess) => Err(now_ns.saturating_add(self.nanos_up(excess))),
        }
    }

    /// Takes back a request that was let in, `reserved`.
    ///
    /// What of it has drained since is gone: it would have drained without the request too, or been
    /// room for another. So much at least has not: what is left of one interval that began when it was
    /// let in; and, as long as nothing else was taken back since, what is left of the backlog that it
    /// left behind. More is not given back, so a rate never lets more in than it would have without
    /// the request. While the clock has not moved, or the backlog has stayed longer than an interval,
    /// the request leaves no trace.
    #[must_use]
    pub fn give_back(&self, tat: Tat, reserved: &RateReservation, now_ns: u64) -> Tat {
        let elapsed = self.ticks(now_ns.saturating_sub(reserved.at_ns));
        let of_interval = self.interval().saturating_sub(elapsed);
        let of_backlog = reserved.tat.map_or(0, |tat| self.backlog(tat, now_ns));
        let refund = of_interval.max(of_backlog.min(self.interval()));
        self.tat(self.at(tat).saturating_sub(refund))
    }

    /// How many requests would conform at once now.
    pub fn remaining(&self, tat: Tat, now_ns: u64) -> u64 {
        let room = self.capacity().saturating_sub(self.backlog(tat, now_ns));
        saturated(room.checked_div(self.interval()).unwrap_or(0))
    }

    fn backlog(&self, tat: Tat, now_ns: u64) -> u128 {
        self.at(tat).saturating_sub(self.ticks(now_ns))
    }

    /// The emission interval in ticks: `per / requests` nanoseconds.
    fn interval(&self) -> u128 {
        u128::from(self.per_ns)
    }

    /// The burst in ticks.
    fn capacity(&self) -> u128 {
        self.interval().saturating_mul(u128::from(self.burst.get()))
    }

    fn ticks(&self, ns: u64) -> u128 {
        u128::from(ns).saturating_mul(u128::from(self.requests.get()))
    }

    /// A fraction that another `requests` left counts for at most a nanosecond.
    fn at(&self, tat: Tat) -> u128 {
        let fraction = tat.fraction.min(self.requests.get());
        self.ticks(tat.ns).saturating_add(u128::from(fraction))
    }

    fn tat(&self, ticks: u128) -> Tat {
        let requests = u128::from(self.requests.get());
        let fraction = ticks.checked_rem(requests).unwrap_or(0);
        Tat {
            ns: saturated(ticks.checked_div(requests).unwrap_or(0)),
            fraction: u32::try_from(fraction).unwrap_or(u32::MAX),
        }
    }

    fn nanos_up(&self, ticks: u128) -> u64 {
        saturated(ticks.div_ceil(u128::from(self.requests.get())))
    }
}

impl Tat {
    /// Whether nothing is left of the backlog.
    pub fn is_past(&self, now_ns: u64) -> bool {
        self.ceil_ns() <= now_ns
    }

    /// When the backlog will be gone, Unix nanoseconds, rounded up.
    pub fn ceil_ns(&self) -> u64 {
        self.ns.saturating_add(u64::from(self.fraction > 0))
    }
}

fn count(node: &Node<'_>) -> Result<u32, Invalid> {
    let count = node.integer().ok().filter(|count| (1..=MAX_REQUESTS).contains(count));
    let count = count.and_then(|count| u32::try_from(count).ok());
    count.ok_or_else(|| node.expected("1 to 1000000000"))
}

fn saturated(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
