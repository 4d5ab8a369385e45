//! The tally of a cell: the use of each limit.
//!
//! A request is charged to all of its limits or to none. The tally has its own clock, the latest
//! time of a charge: if the host's clock goes back, nothing is refilled. An entry is removed when
//! it is equal to no use: its backlog has drained, its window has ended, or its child's caveats
//! allow nothing any more.

mod bytes;
mod leases;
mod settlement;

pub use leases::{Occasion, PlacedOrder};

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smallvec::SmallVec;

use crate::decision::DenyReason;
use crate::limits::allowance::Allowance;
use crate::limits::gcra::Tat;
use crate::limits::lease::Lease;
use crate::limits::quota::{Period, Quota, Spent, Unit};
use crate::limits::{Amounts, Charge, Child, Kind, Limit, LimitName, Scope};
use crate::time::{nanos, secs};

/// The most limits of children in use at the same time. The holder of a key can make any number of
/// children, so a further one is refused. A limit in use is never forgotten.
pub const MAX_CHILD_LIMITS: usize = 64;

/// The most of them set by caveats after the first. The holder of a narrowed key can add only such
/// caveats, so the other places stay free for limits of first caveats.
pub const MAX_LATER_LIMITS: usize = 32;

/// The most of those with the same first caveat, so that one narrowed key cannot take all the
/// places.
pub const MAX_FAMILY_LIMITS: usize = 16;

/// The use of the limits of one key or one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    clock_ns: u64,
    /// The number of refunds; wraps around.
    undone: u32,
    rates: SmallVec<[RateUse; 1]>,
    quotas: SmallVec<[QuotaUse; 2]>,
    leases: Vec<Leased>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RateUse {
    scope: Scope,
    tat: Tat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct QuotaUse {
    scope: Scope,
    unit: Unit,
    per: Period,
    spent: Spent,
}

/// A lease of a quota that proxies share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leased {
    scope: Scope,
    unit: Unit,
    per: Period,
    lease: Lease,
}

/// What a request reserved of all its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// When it was charged, by the tally's clock.
    at_ns: u64,
    /// The number of refunds by then.
    undone: u32,
    /// The use of each limit after the charge, in the order of the charges.
    used: Uses,
}

/// The use of some limits. Few keys and tenants have more than these.
type Uses = SmallVec<[Used; 3]>;

/// The use of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Used {
    Rate(Tat),
    Quota(Unit, Period, Spent),
    /// An amount of the lease with this id.
    Lease {
        id: u64,
        amount: u64,
    },
}

/// A limit had no room for a request. If several had none: the one that has room last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Why the request is refused.
    pub reason: DenyReason,
    /// What has no room.
    pub exhausted: Exhausted,
    /// The earliest time with room again, in Unix nanoseconds; `None` for never.
    pub until_ns: Option<u64>,
}

/// What has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exhausted {
    /// The table of children's limits is full.
    ChildLimits,
    /// A limit is used up.
    Limit(LimitName),
}

/// Selects the children that share some places.
type Share<'a> = &'a dyn Fn(&Child) -> bool;

// === impl Tally ===

impl Tally {
    /// Charges a request to every limit.
    ///
    /// # Errors
    ///
    /// [`Exceeded`] when one of them has no room; then nothing is charged.
    pub fn reserve(
        &mut self,
        charges: &[Charge],
        amounts: &Amounts,
        now_ns: u64,
    ) -> Result<Reservation, Exceeded> {
        let used = self.charged(charges, amounts, now_ns)?;
        self.clock_ns = self.clock_ns.max(now_ns);
        charges.iter().zip(&used).for_each(|(charge, used)| self.set(charge.scope, used));
        self.drop_idle();
        Ok(Reservation { at_ns: self.clock_ns, undone: self.undone, used })
    }

    /// Whether every limit has room for a request.
    ///
    /// # Errors
    ///
    /// [`Exceeded`] when one of them has none.
    pub fn has_room(
        &self,
        charges: &[Charge],
        amounts: &Amounts,
        now_ns: u64,
    ) -> Result<(), Exceeded> {
        self.charged(charges, amounts, now_ns).map(drop)
    }

    /// The allowance of each limit, in the order of the charges.
    pub fn allowances(&self, charges: &[Charge], now_ns: u64) -> Vec<Allowance> {
        // The allowance depends on the tally's clock, the time to wait on the host's.
        let at_ns = now_ns.max(self.clock_ns);
        let allowance = |charge: &Charge| match charge.limit {
            Limit::Rate(rate) => {
                let tat = self.tat(charge.scope);
                Allowance::of_rate(charge.name(), &rate, tat, at_ns, now_ns)
            }
            Limit::Quota(quota) if quota.is_shared() => {
                let lease = self.lease(charge.scope, &quota, at_ns);
                Allowance::of_lease(charge.name(), &quota, lease, at_ns, now_ns)
            }
            Limit::Quota(quota) => {
                let spent = self.spent(charge.scope, &quota, at_ns);
                Allowance::of_quota(charge.name(), &quota, spent, at_ns, now_ns)
            }
        };
        charges.iter().map(allowance).collect()
    }

    /// The use of each limit after charging a request.
    fn charged(
        &self,
        charges: &[Charge],
        amounts: &Amounts,
        now_ns: u64,
    ) -> Result<Uses, Exceeded> {
        let now_ns = now_ns.max(self.clock_ns);
        let mut used = Uses::with_capacity(charges.len());
        let mut exceeded: Option<Exceeded> = None;
        for charge in charges {
            match self.charge(charge, amounts, now_ns) {
                Ok(with) => used.push(with),
                Err(this) => exceeded = Some(exceeded.map_or(this, |other| other.later(this))),
            }
        }
        match exceeded {
            Some(exceeded) => Err(exceeded),
            None => self.check_places(charges, amounts, now_ns).map(|()| used),
        }
    }

    /// What is used of one limit with a request.
    fn charge(&self, charge: &Charge, amounts: &Amounts, now_ns: u64) -> Result<Used, Exceeded> {
        let exceeded = |reason, until_ns| Exceeded {
            reason,
            exhausted: Exhausted::Limit(charge.name()),
            until_ns,
        };
        // By the clock of the host it may still be good. By this one what it used is forgotten.
        if charge.scope.is_over(now_ns) {
            return Err(exceeded(DenyReason::KeyExpired, None));
        }
        let scope = charge.scope;
        match charge.limit {
            Limit::Rate(rate) => {
                let tat = rate.reserve(self.tat(scope), now_ns);
                tat.map(Used::Rate).map_err(|ns| exceeded(charge.reason(), Some(ns)))
            }
            Limit::Quota(quota) if quota.is_shared() => {
                let used = self.charge_lease(charge, &quota, amounts, now_ns);
                used.map_err(|lack| Self::without_lease(charge, &quota, amounts, lack, now_ns))
            }
            Limit::Quota(quota) => {
                let (amount, spent) = (amounts.of(quota.unit), self.spent(scope, &quota, now_ns));
                if amount == 0 {
                    return Ok(Used::Quota(quota.unit, quota.per, spent));
                }
                let spent = quota.reserve(spent, amount, secs(now_ns));
                spent
                    .map(|spent| Used::Quota(quota.unit, quota.per, spent))
                    .map_err(|secs| exceeded(charge.reason(), secs.map(nanos)))
            }
        }
    }

    /// Whether there are places for the limits of children that are not in use yet, and will be by a request with these
    /// amounts.
    #[inline]
    fn check_places(
        &self,
        charges: &[Charge],
        amounts: &Amounts,
        now_ns: u64,
    ) -> Result<(), Exceeded> {
        match charges.iter().all(|charge| charge.scope.child().is_none()) {
            true => Ok(()),
            false => self.check_places_of_children(charges, amounts, now_ns),
        }
    }

    fn check_places_of_children(
        &self,
        charges: &[Charge],
        amounts: &Amounts,
        now_ns: u64,
    ) -> Result<(), Exceeded> {
        let fresh = charges.iter().filter_map(|charge| {
            charge.scope.child().filter(|_| charge.takes(amounts) && !self.uses(charge, now_ns))
        });
        let fresh: Vec<Child> = fresh.collect();
        if fresh.is_empty() {
            return Ok(());
        }
        // All children on the way of a request have the same first caveat.
        let family = fresh.iter().find_map(|child| child.family);
        let is_later = |child: &Child| child.family.is_some();
        let is_of_family = |child: &Child| is_later(child) && child.family == family;
        let shares: [(usize, Share<'_>); 3] = [
            (MAX_CHILD_LIMITS, &|_| true),
            (MAX_LATER_LIMITS, &is_later),
            (MAX_FAMILY_LIMITS, &is_of_family),
        ];
        let full = shares.into_iter().filter_map(|(places, shares)| {
            let wanted = fresh.iter().filter(|child| shares(child)).count();
            (wanted > 0).then(|| self.free_at(places, wanted, shares, now_ns)).flatten()
        });
        match full.max() {
            None => Ok(()),
            Some(until_ns) => Err(Exceeded {
                reason: DenyReason::ChildQuota,
                exhausted: Exhausted::ChildLimits,
                until_ns: Some(until_ns).filter(|until_ns| *until_ns < u64::MAX),
            }),
        }
    }

    /// When enough of the places that some children share will be free, in Unix nanoseconds; `None`
    /// if they are free now.
    fn free_at(&self, places: usize, wanted: usize, shares: Share<'_>, now_ns: u64) -> Option<u64> {
        let rates = self.rates.iter().map(|rate| (rate.scope, rate.end_ns()));
        let quotas = self.quotas.iter().map(|quota| (quota.scope, quota.end_ns()));
        let in_use = |(scope, end_ns): (Scope, u64)| {
            let child = scope.child().filter(|child| shares(child))?;
            Some(end_ns.min(nanos(child.exp_secs))).filter(|end_ns| *end_ns > now_ns)
        };
        // A heap, because only the first few ends matter, and sorting takes kilobytes of code.
        let mut ends_ns: BinaryHeap<Reverse<u64>> =
            rates.chain(quotas).filter_map(in_use).map(Reverse).collect();
        let lacking =
            (ends_ns.len() + wanted).checked_sub(places).filter(|lacking| *lacking > 0)?;
        let until_ns = std::iter::from_fn(|| ends_ns.pop()).map(|Reverse(end_ns)| end_ns);
        // More children than places never fit.
        Some(until_ns.take(lacking).last().unwrap_or(u64::MAX))
    }

    fn uses(&self, charge: &Charge, now_ns: u64) -> bool {
        let scope = charge.scope;
        match charge.limit.kind() {
            Kind::Rate => {
                self.rates.iter().any(|rate| rate.scope == scope && rate.end_ns() > now_ns)
            }
            Kind::Quota(unit, per) => {
                let used = |quota: &QuotaUse| quota.is(scope, unit, per) && quota.end_ns() > now_ns;
                self.quotas.iter().any(used)
            }
        }
    }

    /// Removes entries that are equal to no use.
    fn drop_idle(&mut self) {
        let clock_ns = self.clock_ns;
        let lasts = |scope: Scope, end_ns: u64| end_ns > clock_ns && !scope.is_over(clock_ns);
        self.rates.retain(|rate| lasts(rate.scope, rate.end_ns()));
        self.quotas.retain(|quota| lasts(quota.scope, quota.end_ns()));
        self.leases.retain(|leased| !leased.lease.is_over(leased.per, clock_ns));
    }

    fn tat(&self, scope: Scope) -> Tat {
        let found = self.rates.iter().find(|rate| rate.scope == scope);
        found.map_or_else(Tat::default, |rate| rate.tat)
    }

    /// The use of a quota; of an entry that is yet to be made if there is none.
    fn spent(&self, scope: Scope, quota: &Quota, now_ns: u64) -> Spent {
        let found = self.quotas.iter().find(|used| used.is(scope, quota.unit, quota.per));
        found.map_or_else(|| Spent::begin(quota.unit, now_ns), |used| used.spent)
    }

    fn set(&mut self, scope: Scope, used: &Used) {
        match *used {
            Used::Rate(tat) => match self.rates.iter_mut().find(|rate| rate.scope == scope) {
                Some(rate) => rate.tat = tat,
                None => self.rates.push(RateUse { scope, tat }),
            },
            Used::Quota(unit, per, spent) => {
                match self.quotas.iter_mut().find(|used| used.is(scope, unit, per)) {
                    Some(used) => used.spent = spent,
                    None => self.quotas.push(QuotaUse { scope, unit, per, spent }),
                }
            }
            Used::Lease { id, amount } => {
                self.settle_lease(id, 0, amount);
            }
        }
    }
}

// === impl Scope ===

impl Scope {
    fn child(self) -> Option<Child> {
        match self {
            Self::Child(child) => Some(child),
            Self::Tier | Self::Only | Self::Tenant => None,
        }
    }

    /// Whether it belongs to a child whose caveats allow nothing any more.
    fn is_over(self, now_ns: u64) -> bool {
        matches!(self, Self::Child(child) if nanos(child.exp_secs) <= now_ns)
    }
}

// === impl RateUse ===

impl RateUse {
    /// When the backlog has drained, in Unix nanoseconds.
    fn end_ns(&self) -> u64 {
        self.tat.ceil_ns()
    }
}

// === impl QuotaUse ===

impl QuotaUse {
    fn is(&self, scope: Scope, unit: Unit, per: Period) -> bool {
        (self.scope, self.unit, self.per) == (scope, unit, per)
    }

    /// When the entry can be removed. Never with debt: paying it off depends on the limit, which is
    /// not stored here.
    fn end_ns(&self) -> u64 {
        let Spent { window, used, over, .. } = self.spent;
        match (used, over) {
            (0, 0) => 0,
            (_, 0) => self.per.end_secs(window).map_or(u64::MAX, nanos),
            _ => u64::MAX,
        }
    }
}

// === impl Exceeded ===

impl Exceeded {
    fn later(self, other: Self) -> Self {
        let never = |exceeded: &Self| exceeded.until_ns.unwrap_or(u64::MAX);
        if never(&other) > never(&self) { other } else { self }
    }
}

#[cfg(test)]
mod tests;
