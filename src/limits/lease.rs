//! The lease: the part of a budget that one proxy may spend.
//!
//! A budget is a quota that holds for all proxies together. The ledger gives each proxy a part of it, and the proxy spends
//! that part without asking. Proxy and ledger exchange orders and receipts, one at a time for each lease:
//!
//! - An order says how much was granted so far, as the proxy knows it, and how much is spent. It asks for more, or it gives
//!   something back: then the proxy has lowered what is granted before the order leaves.
//! - A receipt says how much is granted in total. It counts only if it is for the last order.
//!
//! Orders have numbers and are repeated until their receipt comes, so a message that is lost, repeated or late changes
//! nothing. What a proxy may spend is at most what the ledger has charged for it at that time.

use crate::limits::quota::{Period, Quota};
use crate::time::{NANOS_PER_SEC, secs};

/// How long an order waits for its receipt before it is sent again, in nanoseconds.
pub const RESEND_NS: u64 = 1_000_000_000;

/// The shortest time over which the rate of use is measured, in nanoseconds.
const MEASURE_NS: u64 = 100_000_000;

/// A lease that is not used for so long is quiet, in nanoseconds.
const QUIET_NS: u64 = 500_000_000;

/// How often the use of a lease in use is reported at least, in nanoseconds.
const REPORT_NS: u64 = 10_000_000_000;

/// How long a lease without use is kept while the ledger has plenty, in nanoseconds.
const KEEP_NS: u64 = 60_000_000_000;

/// How long after the end of its window a lease is remembered at most, in seconds: responses may still be running.
const REMEMBER_SECS: u64 = 600;

/// How long after the end of its window a lease is remembered of which the ledger must still be told something, in seconds:
/// not much longer than it listens (`LATE_SECS` there).
const UNTOLD_SECS: u64 = 86_400;

/// For how long ahead a lease is asked for, in seconds of the present use.
const AHEAD_SECS: u64 = 2;

/// How many times what the first request needs is asked for with it.
const FIRST: u64 = 8;

/// A quota divided by this is asked for first.
const FIRST_SHARE: u64 = 64;

/// A quota divided by this is kept without use while the ledger has plenty.
const KEPT_SHARE: u64 = 256;

/// What one proxy holds of a budget in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Identifies it at the ledger. Random, so that no lease of a proxy that has ended has the same.
    pub id: u64,
    /// The window of the quota.
    pub window: u32,
    /// What the ledger has granted in total, without what was given back.
    pub granted: u64,
    /// What is spent and reserved.
    pub used: u64,
    /// What was left in the ledger at the last receipt.
    pub left: u64,
    /// The number of the last order; 0 before the first.
    pub number: u32,
    pub(super) state: State,
    /// What the last order asked for.
    pub(super) wanted: Wanted,
    /// When that order was sent last, in Unix nanoseconds.
    pub(super) sent_ns: u64,
    /// The use that the last order reported.
    pub(super) reported: u64,
    /// What refused requests lacked since the last receipt.
    pub(super) lacked: u64,
    /// What was there to spend after the last receipt.
    pub(super) size: u64,
    /// What was spent beyond earlier grants, because the ledger was lost or responses used more than was reserved.
    pub(super) overdrawn: u64,
    pub(super) pace: Pace,
}

/// How a lease stands with the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The last order has no receipt.
    pub is_pending: bool,
    /// Something was granted and is not all given back.
    pub is_open: bool,
    /// The ledger does not respond.
    pub is_lost: bool,
    /// Other proxies hold something of the budget, of which the ledger has too little.
    pub others_hold: bool,
}

/// What an order asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Less than this is of no use.
    pub need: u64,
    /// More than this is not needed.
    pub want: u64,
}

/// How fast a lease is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    /// Units per second.
    pub(super) rate: u64,
    /// The use at the last measurement.
    pub(super) used: u64,
    /// When that was, in Unix nanoseconds.
    pub(super) at_ns: u64,
    /// When use was last found, in Unix nanoseconds.
    pub(super) busy_ns: u64,
}

/// What a proxy says to the ledger about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The lease.
    pub lease: u64,
    /// The number of the order, from 1. An order that is sent again has the same.
    pub number: u32,
    /// The window of the quota.
    pub window: u32,
    /// The budget per window.
    pub limit: u64,
    /// What is granted, as the proxy knows it. It spends no more until the receipt.
    pub granted: u64,
    /// What is spent and reserved.
    pub used: u64,
    /// What it asks for; nothing if something is given back.
    pub wanted: Wanted,
}

/// What the ledger says to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The lease.
    pub lease: u64,
    /// The number of the order.
    pub number: u32,
    /// What is granted in total.
    pub granted: u64,
    /// What is left of the budget for all.
    pub left: u64,
}

/// Why a lease has no room for an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// It holds nothing, and the ledger may have something: the first part has not come yet, or all was given back.
    Unleased,
    /// The lease is spent. The ledger may have more.
    Spent,
    /// The ledger does not respond.
    Lost,
    /// The budget is spent.
    Exhausted,
}

/// What an order depends on besides the lease.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The time in Unix nanoseconds.
    pub now_ns: u64,
    /// The budget.
    pub quota: Quota,
    /// Other proxies ask the ledger for what it no longer has.
    pub is_scarce: bool,
}

// === impl Lease ===

impl Lease {
    /// A lease that is not granted yet.
    pub fn new(id: u64, window: u32) -> Self {
        Self {
            id,
            window,
            granted: 0,
            used: 0,
            left: 0,
            number: 0,
            state: State::default(),
            wanted: Wanted::default(),
            sent_ns: 0,
            reported: 0,
            lacked: 0,
            size: 0,
            overdrawn: 0,
            pace: Pace::default(),
        }
    }

    /// How it stands with the ledger.
    pub fn state(&self) -> State {
        self.state
    }

    /// What can be spent.
    pub fn remaining(&self) -> u64 {
        self.granted.saturating_sub(self.used)
    }

    /// Whether the ledger has responded to an order.
    pub(super) fn has_receipt(&self) -> bool {
        self.number > u32::from(self.state.is_pending)
    }

    /// The same lease after a request.
    ///
    /// # Errors
    ///
    /// [`Lack`] if there is no room for the amount. `local`: how much may be spent without the ledger.
    pub fn reserve(self, amount: u64, local: u64, now_ns: u64) -> Result<Self, Lack> {
        let used = self.used.checked_add(amount).ok_or(Lack::Exhausted)?;
        let beyond = used.saturating_sub(self.granted);
        if beyond == 0 {
            return Ok(Self { used, ..self });
        }
        if self.state.is_lost {
            let is_within = beyond.saturating_add(self.overdrawn) <= local;
            return if is_within { Ok(Self { used, ..self }) } else { Err(Lack::Lost) };
        }
        // What the ledger said a while ago does not hold any more: others may have given back.
        let is_current = self.has_receipt()
            && !self.state.is_pending
            && now_ns.saturating_sub(self.sent_ns) < NANOS_PER_SEC;
        Err(match self.state.is_open {
            _ if is_current && beyond > self.left => match self.state.others_hold {
                true => Lack::Spent,
                false => Lack::Exhausted,
            },
            false => Lack::Unleased,
            true => Lack::Spent,
        })
    }

    /// Replaces what was reserved by what was used.
    #[must_use]
    pub fn settle(self, reserved: u64, actual: u64) -> Self {
        Self { used: self.used.saturating_sub(reserved).saturating_add(actual), ..self }
    }

    /// Whether less than a quarter of it is left, or requests were refused for want of more.
    pub fn is_low(&self) -> bool {
        self.lacked > 0 || self.remaining() < self.size.div_ceil(4) || self.used > self.granted
    }

    /// Records that a request of this amount found no room.
    pub fn lack(&mut self, amount: u64) {
        self.lacked = self.lacked.max(amount);
    }

    /// The next order: one that must be sent again, or a new one if the lease is low, or holds more than it needs.
    pub fn order(&mut self, terms: &Terms) -> Option<Order> {
        let &Terms { now_ns, quota, .. } = terms;
        if self.state.is_pending {
            let is_due = now_ns.saturating_sub(self.sent_ns) >= RESEND_NS;
            self.sent_ns = if is_due { now_ns } else { self.sent_ns };
            return is_due.then(|| self.as_order(quota.limit));
        }
        self.pace.measure(self.used, now_ns);
        let is_over = quota.per.end_secs(self.window).is_some_and(|end| secs(now_ns) >= end);
        self.wanted = match is_over {
            true => Wanted::default(),
            false => self.wants(terms),
        };
        let kept = if is_over { 0 } else { self.kept(terms) };
        if self.wanted.want == 0 && self.remaining() > kept {
            self.granted = self.used.saturating_add(kept);
            self.state.is_open = kept > 0;
            self.size = kept;
        } else if self.wanted.want == 0 && !self.must_report(is_over, now_ns) {
            return None;
        }
        self.number = self.number.checked_add(1)?;
        self.state.is_pending = true;
        self.reported = self.used;
        self.sent_ns = now_ns;
        Some(self.as_order(quota.limit))
    }

    /// What a receipt changes. One for an earlier order changes nothing. `others_hold`: the ledger says that the account is
    /// scarce.
    pub fn receive(&mut self, receipt: &Receipt, others_hold: bool, now_ns: u64) {
        if !self.state.is_pending || receipt.lease != self.id || receipt.number != self.number {
            return;
        }
        let absorbed = self.used.min(receipt.granted).saturating_sub(self.granted);
        self.overdrawn = self.overdrawn.saturating_add(absorbed);
        let is_more = receipt.granted > self.granted;
        self.granted = receipt.granted;
        self.left = receipt.left;
        self.size = self.remaining();
        let is_open = self.state.is_open || is_more;
        self.state = State { is_pending: false, is_open, is_lost: false, others_hold };
        // What was lacked since the order left is still lacking.
        if self.lacked <= self.wanted.need {
            self.lacked = 0;
        }
        self.sent_ns = now_ns;
    }

    /// Records that the ledger did not respond to an order.
    pub fn lose(&mut self, number: u32) {
        self.state.is_lost |= self.state.is_pending && self.number == number;
    }

    /// Whether it was used lately, or would have been.
    pub(super) fn is_busy(&self, now_ns: u64) -> bool {
        self.pace.is_busy(now_ns, self.lacked)
    }

    /// Whether something is held, or the ledger must still be told something.
    pub(super) fn is_held(&self) -> bool {
        self.remaining() > 0 || self.state.is_pending || self.used != self.reported
    }

    /// Whether it can be forgotten: its window has ended long ago.
    pub(super) fn is_over(&self, per: Period, now_ns: u64) -> bool {
        let bounds = per.start_secs(self.window).zip(per.end_secs(self.window));
        bounds.is_some_and(|(start, end)| {
            let remember_secs = match self.is_held() {
                true => UNTOLD_SECS,
                false => end.saturating_sub(start).min(REMEMBER_SECS),
            };
            secs(now_ns) >= end.saturating_add(remember_secs)
        })
    }

    /// Whether the ledger should know what is spent: the lease is quiet, or the ledger has not been told for long.
    fn must_report(&self, is_over: bool, now_ns: u64) -> bool {
        let is_quiet = now_ns.saturating_sub(self.pace.busy_ns) >= QUIET_NS;
        let is_due = is_over || is_quiet || now_ns.saturating_sub(self.sent_ns) >= REPORT_NS;
        self.used != self.reported && is_due
    }

    /// The last order. If it is sent again it is the same: the ledger reads only the first that comes.
    fn as_order(&self, limit: u64) -> Order {
        let Self { id: lease, number, window, granted, reported: used, wanted, .. } = *self;
        Order { lease, number, window, limit, granted, used, wanted }
    }

    /// What it needs more of. If the ledger had nothing at the last receipt, it is asked again after a second.
    fn wants(&self, terms: &Terms) -> Wanted {
        let &Terms { now_ns, quota, .. } = terms;
        let is_fresh = self.number == 0;
        let rests = !is_fresh
            && self.left < self.lacked.max(1)
            && now_ns.saturating_sub(self.sent_ns) < NANOS_PER_SEC;
        let is_asked = is_fresh || self.lacked > 0 || (self.state.is_open && self.is_low());
        let is_wanted = is_asked && self.pace.is_busy(now_ns, self.lacked);
        let is_beyond = self.used > self.granted && self.used != self.reported;
        if rests || !(is_wanted || is_beyond) {
            return Wanted::default();
        }
        let need = self.lacked.max(1);
        let first = match self.state.is_open {
            false => (quota.limit / FIRST_SHARE).max(need.saturating_mul(FIRST)),
            true if self.is_scarce(terms) => 0,
            true => quota.limit / KEPT_SHARE,
        };
        let ahead = self.pace.rate.saturating_mul(AHEAD_SECS).saturating_sub(self.remaining());
        Wanted { need, want: need.max(first).max(ahead) }
    }

    /// How much of what remains it keeps. When it is quiet nothing of it is needed.
    fn kept(&self, terms: &Terms) -> u64 {
        let since = |ns: u64| terms.now_ns.saturating_sub(ns);
        let soon = self.pace.rate.saturating_mul(AHEAD_SECS).max(1);
        match (self.is_scarce(terms), since(self.pace.busy_ns)) {
            // What has just come is not measured yet.
            _ if since(self.sent_ns) < QUIET_NS => u64::MAX,
            (true, QUIET_NS..) | (false, KEEP_NS..) => 0,
            (true, _) => soon,
            (false, QUIET_NS..) => soon.max(terms.quota.limit / KEPT_SHARE),
            (false, _) => u64::MAX,
        }
    }

    /// Whether others may lack what it holds.
    fn is_scarce(&self, terms: &Terms) -> bool {
        terms.is_scarce || self.left < (terms.quota.limit / KEPT_SHARE).max(1)
    }
}

// === impl Pace ===

impl Pace {
    /// Measures the use since the last measurement.
    fn measure(&mut self, used: u64, now_ns: u64) {
        let elapsed_ns = now_ns.saturating_sub(self.at_ns);
        if elapsed_ns < MEASURE_NS {
            return;
        }
        let spent = used.saturating_sub(self.used);
        if spent > 0 || self.at_ns == 0 {
            self.busy_ns = now_ns;
        }
        let rate = u128::from(spent) * u128::from(NANOS_PER_SEC) / u128::from(elapsed_ns);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        *self = Self { rate: rate.max(self.rate / 2), used, at_ns: now_ns, ..*self };
    }

    /// Whether there was use lately, or there would have been.
    fn is_busy(&self, now_ns: u64, lacked: u64) -> bool {
        lacked > 0 || now_ns.saturating_sub(self.busy_ns) < NANOS_PER_SEC
    }
}
