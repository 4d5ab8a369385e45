//! The ledger of a cell: what was used of each limit.
//!
//! A request is charged to all of its limits or to none. The ledger has a clock of its own, the latest
//! time anything was charged at: a host whose clock goes back gives nothing back. What nothing is left
//! of, a backlog that has drained or a window that is over, is the same as what was never used, and
//! takes no room.

use crate::allowance::Allowance;
use crate::decision::DenyReason;
use crate::gcra::Tat;
use crate::limit::{Charge, ChildId, Kind, Limit, LimitName, Scope};
use crate::quota::{Period, Quota, Reserved, Spent, Unit};
use crate::record::take;
use crate::time::{nanos, secs};

/// The most limits of children that are in use at one time. Whoever holds a key can make any number
/// of children, so beyond this one more is refused: what is in use is never forgotten.
pub const MAX_CHILD_LIMITS: usize = 64;

/// What was used of the limits of one key, or of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    clock_ns: u64,
    rates: Vec<RateUse>,
    quotas: Vec<QuotaUse>,
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

/// A request was charged at that time, by the ledger's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    at_ns: u64,
}

/// A limit had no room for a request. Where several had none, the one that has room last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Why the request is refused.
    pub reason: DenyReason,
    /// What has no room.
    pub exhausted: Exhausted,
    /// When there may be room again, Unix nanoseconds; `None` for never.
    pub until_ns: Option<u64>,
}

/// What has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exhausted {
    /// The table of children's limits, for one more of them.
    ChildLimits,
    /// A limit.
    Limit(LimitName),
}

// === impl Ledger ===

impl Ledger {
    /// Charges a request to every limit.
    ///
    /// # Errors
    ///
    /// [`Exceeded`] when one of them has no room; then nothing is charged.
    pub fn reserve(&mut self, charges: &[Charge], now_ns: u64) -> Result<Reservation, Exceeded> {
        self.clock_ns = self.clock_ns.max(now_ns);
        self.drop_idle();
        let exceeded = charges.iter().filter_map(|charge| self.check(charge).err());
        if let Some(exceeded) = exceeded.reduce(Exceeded::later) {
            return Err(exceeded);
        }
        self.check_room(charges)?;
        charges.iter().for_each(|charge| self.charge(charge));
        Ok(Reservation { at_ns: self.clock_ns })
    }

    /// Takes back the charges of a request that was let in and then refused.
    pub fn give_back(&mut self, charges: &[Charge], reservation: Reservation) {
        let Reservation { at_ns } = reservation;
        let (clock_ns, now_secs) = (self.clock_ns, self.now_secs());
        for charge in charges {
            match charge.limit {
                Limit::Rate(rate) => {
                    let tat = self.tat(charge.scope);
                    self.set_tat(charge.scope, rate.give_back(tat, at_ns, clock_ns));
                }
                Limit::Quota(quota) => {
                    let at_secs = secs(at_ns);
                    let reserved = Reserved { amount: charge.amount, at_secs };
                    let spent = self.spent(charge.scope, &quota);
                    let spent = quota.settle(spent, reserved, 0, now_secs);
                    self.set_spent(charge.scope, &quota, spent);
                }
            }
        }
        self.drop_idle();
    }

    /// What is left of each limit.
    pub fn allowances(&self, charges: &[Charge], now_ns: u64) -> Vec<Allowance> {
        // What is left is that of the ledger's time; how long to wait depends on the host's.
        let at_ns = now_ns.max(self.clock_ns);
        let allowance = |charge: &Charge| match charge.limit {
            Limit::Rate(rate) => {
                let tat = self.tat(charge.scope);
                Allowance::of_rate(charge.name(), &rate, tat, at_ns, now_ns)
            }
            Limit::Quota(quota) => {
                let spent = self.spent(charge.scope, &quota);
                Allowance::of_quota(charge.name(), &quota, spent, at_ns, now_ns)
            }
        };
        charges.iter().map(allowance).collect()
    }

    /// Whether the limit has room for the charge.
    fn check(&self, charge: &Charge) -> Result<(), Exceeded> {
        let until_ns = match charge.limit {
            Limit::Rate(rate) => match rate.reserve(self.tat(charge.scope), self.clock_ns) {
                Ok(_) => return Ok(()),
                Err(until_ns) => Some(until_ns),
            },
            Limit::Quota(quota) => {
                let spent = self.spent(charge.scope, &quota);
                match quota.reserve(spent, charge.amount, self.now_secs()) {
                    Ok(_) => return Ok(()),
                    Err(until_secs) => until_secs.map(nanos),
                }
            }
        };
        Err(Exceeded {
            reason: charge.reason(),
            exhausted: Exhausted::Limit(charge.name()),
            until_ns,
        })
    }

    /// Charges a limit that has room.
    fn charge(&mut self, charge: &Charge) {
        let (clock_ns, now_secs) = (self.clock_ns, self.now_secs());
        match charge.limit {
            Limit::Rate(rate) => {
                if let Ok(tat) = rate.reserve(self.tat(charge.scope), clock_ns) {
                    self.set_tat(charge.scope, tat);
                }
            }
            Limit::Quota(quota) => {
                let spent = self.spent(charge.scope, &quota);
                if let Ok(spent) = quota.reserve(spent, charge.amount, now_secs) {
                    self.set_spent(charge.scope, &quota, spent);
                }
            }
        }
    }

    /// Whether there is room for the limits of a child that are not in use yet.
    fn check_room(&self, charges: &[Charge]) -> Result<(), Exceeded> {
        let child = |charge: &&Charge| matches!(charge.scope, Scope::Child(_));
        let fresh = charges.iter().filter(child).filter(|charge| !self.uses(charge)).count();
        let in_use = self.child_rates().count() + self.child_quotas().count();
        if fresh == 0 || in_use + fresh <= MAX_CHILD_LIMITS {
            return Ok(());
        }
        let drained = self.child_rates().map(|rate| rate.tat.ceil_ns());
        let over = self.child_quotas().filter_map(|quota| quota.per.end_secs(quota.spent.window));
        let until_ns = drained.chain(over.map(nanos)).min();
        Err(Exceeded {
            reason: DenyReason::ChildQuota,
            exhausted: Exhausted::ChildLimits,
            until_ns,
        })
    }

    fn uses(&self, charge: &Charge) -> bool {
        let scope = charge.scope;
        match charge.limit.kind() {
            Kind::Rate => self.rates.iter().any(|rate| rate.scope == scope),
            Kind::Quota(unit, per) => self.quotas.iter().any(|quota| quota.is(scope, unit, per)),
        }
    }

    /// Forgets what nothing is left of.
    fn drop_idle(&mut self) {
        let (clock_ns, now_secs) = (self.clock_ns, self.now_secs());
        self.rates.retain(|rate| !rate.tat.is_past(clock_ns));
        self.quotas.retain(|quota| !quota.is_idle(now_secs));
    }

    fn tat(&self, scope: Scope) -> Tat {
        let found = self.rates.iter().find(|rate| rate.scope == scope);
        found.map_or_else(Tat::default, |rate| rate.tat)
    }

    fn spent(&self, scope: Scope, quota: &Quota) -> Spent {
        let found = self.quotas.iter().find(|used| used.is(scope, quota.unit, quota.per));
        found.map_or_else(Spent::default, |used| used.spent)
    }

    fn set_tat(&mut self, scope: Scope, tat: Tat) {
        match self.rates.iter_mut().find(|rate| rate.scope == scope) {
            Some(rate) => rate.tat = tat,
            None => self.rates.push(RateUse { scope, tat }),
        }
    }

    fn set_spent(&mut self, scope: Scope, quota: &Quota, spent: Spent) {
        let Quota { unit, per, .. } = *quota;
        match self.quotas.iter_mut().find(|used| used.is(scope, unit, per)) {
            Some(used) => used.spent = spent,
            None => self.quotas.push(QuotaUse { scope, unit, per, spent }),
        }
    }

    fn now_secs(&self) -> u64 {
        secs(self.clock_ns)
    }

    fn child_rates(&self) -> impl Iterator<Item = &RateUse> {
        self.rates.iter().filter(|rate| matches!(rate.scope, Scope::Child(_)))
    }

    fn child_quotas(&self) -> impl Iterator<Item = &QuotaUse> {
        self.quotas.iter().filter(|quota| matches!(quota.scope, Scope::Child(_)))
    }
}

// === impl QuotaUse ===

impl QuotaUse {
    fn is(&self, scope: Scope, unit: Unit, per: Period) -> bool {
        (self.scope, self.unit, self.per) == (scope, unit, per)
    }

    fn is_idle(&self, now_secs: u64) -> bool {
        let Spent { window, used, over } = self.spent;
        over == 0 && (used == 0 || window < self.per.window(now_secs))
    }
}

// === impl Exceeded ===

impl Exceeded {
    fn later(self, other: Self) -> Self {
        let never = |exceeded: &Self| exceeded.until_ns.unwrap_or(u64::MAX);
        if never(&other) > never(&self) { other } else { self }
    }
}

// === as bytes ===

impl Ledger {
    /// Appends the ledger to a record: the clock, then the rates and the quotas in use, each list with
    /// its length before it.
    pub(crate) fn write(&self, record: &mut Vec<u8>) {
        record.extend_from_slice(&self.clock_ns.to_le_bytes());
        write_list(record, &self.rates, |RateUse { scope, tat }, record| {
            write_scope(*scope, record);
            record.extend_from_slice(&tat.ns.to_le_bytes());
            record.extend_from_slice(&tat.fraction.to_le_bytes());
        });
        write_list(record, &self.quotas, |QuotaUse { scope, unit, per, spent }, record| {
            write_scope(*scope, record);
            record.extend_from_slice(&[*unit as u8, *per as u8]);
            record.extend_from_slice(&spent.window.to_le_bytes());
            record.extend_from_slice(&spent.used.to_le_bytes());
            if *unit != Unit::Requests {
                record.extend_from_slice(&spent.over.to_le_bytes());
            }
        });
    }

    /// Reads what [`Ledger::write`] wrote from the front of `bytes`.
    pub(crate) fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            clock_ns: take(bytes).map(u64::from_le_bytes)?,
            rates: read_list(bytes, |bytes| {
                let scope = read_scope(bytes)?;
                let ns = take(bytes).map(u64::from_le_bytes)?;
                let fraction = take(bytes).map(u32::from_le_bytes)?;
                Some(RateUse { scope, tat: Tat { ns, fraction } })
            })?,
            quotas: read_list(bytes, |bytes| {
                let scope = read_scope(bytes)?;
                let [unit, per] = take(bytes)?;
                let unit = *Unit::ALL.get(usize::from(unit))?;
                let per = *Period::ALL.get(usize::from(per))?;
                let window = take(bytes).map(u32::from_le_bytes)?;
                let used = take(bytes).map(u64::from_le_bytes)?;
                let over = match unit {
                    Unit::Requests => 0,
                    Unit::Tokens | Unit::CostMicroUsd => take(bytes).map(u64::from_le_bytes)?,
                };
                Some(QuotaUse { scope, unit, per, spent: Spent { window, used, over } })
            })?,
        })
    }
}

/// The numbers of the scopes in a record are forever.
const TIER: u8 = 0;
const ONLY: u8 = 1;
const TENANT: u8 = 2;
const CHILD: u8 = 3;

fn write_scope(scope: Scope, record: &mut Vec<u8>) {
    match scope {
        Scope::Tier => record.push(TIER),
        Scope::Only => record.push(ONLY),
        Scope::Tenant => record.push(TENANT),
        Scope::Child(ChildId(id)) => {
            record.push(CHILD);
            record.extend_from_slice(&id);
        }
    }
}

fn read_scope(bytes: &mut &[u8]) -> Option<Scope> {
    let [scope] = take(bytes)?;
    match scope {
        TIER => Some(Scope::Tier),
        ONLY => Some(Scope::Only),
        TENANT => Some(Scope::Tenant),
        CHILD => take(bytes).map(ChildId).map(Scope::Child),
        _ => None,
    }
}

/// No list is longer than a byte can count: what is no child's is bounded by the kinds there are.
fn write_list<T>(record: &mut Vec<u8>, items: &[T], write: impl Fn(&T, &mut Vec<u8>)) {
    record.push(u8::try_from(items.len()).unwrap_or(u8::MAX));
    items.iter().for_each(|item| write(item, record));
}

fn read_list<T>(bytes: &mut &[u8], read: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let [len] = take(bytes)?;
    (0..len).map(|_| read(bytes)).collect()
}

#[cfg(test)]
mod tests;
