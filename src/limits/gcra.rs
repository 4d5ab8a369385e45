//! Rates: the generic cell rate algorithm (GCRA; ITU-T I.371, annex A). Its whole state is one
//! point in time.
//!
//! Each request advances the theoretical arrival time (TAT) by the emission interval `per /
//! requests`. The time from now to the TAT is the backlog. A request conforms if the backlog
//! including it is at most `burst` intervals. If `requests` does not divide `per`, the TAT has a
//! fraction of a nanosecond. The arithmetic is therefore in *ticks* of `1 / requests` nanoseconds,
//! which need no rounding.

use std::num::NonZeroU32;

use crate::json::{Invalid, Node};
use crate::time::{NANOS_PER_SEC, secs};

/// The largest `requests` and the largest `burst`.
const MAX_REQUESTS: u64 = 1_000_000_000;

/// The longest `per`, and the longest time in which a burst may refill: 366 days.
const MAX_PER_SECS: u64 = 366 * 86_400;

/// A rate: `requests` per period, with at most `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    per_ns: u64,
    burst: NonZeroU32,
}

/// A theoretical arrival time: when the backlog will have drained. The default is 1970: the rate
/// was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tat {
    /// Unix nanoseconds.
    pub ns: u64,
    /// Ticks after `ns`, fewer than the rate's `requests`.
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
    /// A rate of `requests` in `per_secs`, of which `burst` may come at once. `None` if one of them
    /// is 0 or too large, or if a burst would take longer than 366 days to refill.
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

    /// Reads `{requests, per, burst}`; `burst` defaults to `requests`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for an unknown or missing member, one of the wrong type, and for numbers that
    /// [`Rate::new`] rejects.
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

    /// The number of requests in a period.
    pub fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// The period, in seconds.
    pub fn per_secs(&self) -> u64 {
        secs(self.per_ns)
    }

    /// The most requests that conform at the same time.
    pub fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// The rate as a number of requests and a window in whole seconds: the burst and its refill
    /// time. If the refill time is not a whole number of seconds, `requests` and `per` instead.
    pub fn policy(&self) -> (u64, u64) {
        match divided(self.capacity(), self.ticks(NANOS_PER_SEC)) {
            (refill_secs, 0) => (u64::from(self.burst()), refill_secs),
            _ => (u64::from(self.requests()), self.per_secs()),
        }
    }

    /// The time in which a spent burst refills, in seconds, rounded up.
    fn refill_secs(&self) -> u64 {
        saturated(self.capacity().div_ceil(self.ticks(NANOS_PER_SEC)))
    }

    /// Charges one request, and returns the TAT after it.
    ///
    /// # Errors
    ///
    /// If the request does not conform: the earliest time at which one will, in Unix nanoseconds.
    pub fn reserve(&self, tat: Tat, now_ns: u64) -> Result<Tat, u64> {
        let backlog = self.backlog(tat, now_ns).saturating_add(self.interval());
        match backlog.checked_sub(self.capacity()) {
            None | Some(0) => self.tat_after(now_ns, backlog),
            Some(excess) => Err(now_ns.saturating_add(self.nanos_up(excess))),
        }
    }

    /// Refunds the part of a charge that cannot have drained yet.
    ///
    /// The refund is at most one emission interval. It is the larger of two amounts: the interval
    /// less the time since the charge; and, if no other charge was refunded since, the backlog that
    /// is left of the one after the charge. What has drained is not refunded: it would have drained
    /// without the request too, or made room for another. So a rate never allows more than it would
    /// have without the request. The refund is complete if no time has passed, or if the backlog
    /// has stayed longer than an interval.
    #[must_use]
    pub fn give_back(&self, tat: Tat, reserved: &RateReservation, now_ns: u64) -> Tat {
        let elapsed = self.ticks(now_ns.saturating_sub(reserved.at_ns));
        let of_interval = self.interval().saturating_sub(elapsed);
        let of_backlog = reserved.tat.map_or(0, |tat| self.backlog(tat, now_ns));
        let refund = of_interval.max(of_backlog.min(self.interval()));
        self.tat(self.backlog(tat, 0).saturating_sub(refund))
    }

    /// The number of requests that would conform now.
    pub fn remaining(&self, tat: Tat, now_ns: u64) -> u64 {
        let room = self.capacity().saturating_sub(self.backlog(tat, now_ns));
        divided(room, self.interval()).0
    }

    /// The TAT at the end of a backlog. A TAT past the year 2554, the last that nanoseconds reach, could not be stored:
    /// the request would be free, so it does not conform.
    fn tat_after(&self, now_ns: u64, backlog: u128) -> Result<Tat, u64> {
        let Tat { ns, fraction } = self.tat(backlog);
        let after = now_ns.checked_add(ns).map(|ns| Tat { ns, fraction });
        after.filter(|tat| tat.ns < u64::MAX || tat.fraction == 0).ok_or(u64::MAX)
    }

    /// The ticks from now to a TAT. A fraction that was stored under another value of `requests` counts for at most a
    /// nanosecond.
    fn backlog(&self, tat: Tat, now_ns: u64) -> u128 {
        let fraction = tat.fraction.min(self.requests.get());
        let ahead_ns = tat.ns.checked_sub(now_ns);
        ahead_ns.map_or(0, |ahead_ns| self.ticks(ahead_ns) + u128::from(fraction))
    }

    /// The emission interval in ticks: `per / requests` nanoseconds.
    fn interval(&self) -> u128 {
        u128::from(self.per_ns)
    }

    /// The burst in ticks.
    fn capacity(&self) -> u128 {
        product(self.per_ns, self.burst)
    }

    fn ticks(&self, ns: u64) -> u128 {
        product(ns, self.requests)
    }

    fn tat(&self, ticks: u128) -> Tat {
        let (ns, fraction) = divided(ticks, u128::from(self.requests.get()));
        Tat { ns, fraction: u32::try_from(fraction).unwrap_or(u32::MAX) }
    }

    fn nanos_up(&self, ticks: u128) -> u64 {
        saturated(ticks.div_ceil(u128::from(self.requests.get())))
    }
}

impl Tat {
    /// Whether the backlog has drained.
    pub fn is_past(&self, now_ns: u64) -> bool {
        self.ceil_ns() <= now_ns
    }

    /// When the backlog will have drained, in Unix nanoseconds, rounded up.
    pub fn ceil_ns(&self) -> u64 {
        self.ns.saturating_add(u64::from(self.fraction > 0))
    }
}

fn count(node: &Node<'_>) -> Result<u32, Invalid> {
    let count = node.integer().ok().filter(|count| (1..=MAX_REQUESTS).contains(count));
    let count = count.and_then(|count| u32::try_from(count).ok());
    count.ok_or_else(|| node.expected("1 to 1000000000"))
}

fn product(number: u64, factor: NonZeroU32) -> u128 {
    u128::from(number) * u128::from(factor.get())
}

/// The quotient and the rest. Nearly all numbers have 64 bits, and WebAssembly divides no others at once.
fn divided(number: u128, divisor: u128) -> (u64, u64) {
    let parts = |number: u128| u64::try_from(number).ok();
    match parts(number).zip(parts(divisor)) {
        Some((number, divisor)) => {
            (number.checked_div(divisor).unwrap_or(0), number.checked_rem(divisor).unwrap_or(0))
        }
        None => (
            saturated(number.checked_div(divisor).unwrap_or(0)),
            saturated(number.checked_rem(divisor).unwrap_or(0)),
        ),
    }
}

fn saturated(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
