//! The leases in a tally: what a request takes of them, and what they order from the ledger.

use crate::decision::DenyReason;
use crate::limits::lease::{Lack, Lease, Order, Receipt, Terms};
use crate::limits::quota::{Period, Quota, Unit};
use crate::limits::{Amounts, Charge, Scope};
use crate::time::{nanos, secs};

use super::{Exceeded, Exhausted, Leased, Tally, Used};

/// When a request may be tried again that found its lease spent, in nanoseconds.
const RETRY_NS: u64 = 1_000_000_000;

/// The most leases of a cell: more than there are quotas of tier or tenant, with the next window of each.
const MAX_LEASES: usize = 64;

/// How long before the end of a window a lease in use asks for the next window, in seconds.
const EARLY_SECS: u64 = 2;

/// An order, and the quota that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedOrder {
    /// What the quota counts.
    pub unit: Unit,
    /// The length of its windows.
    pub per: Period,
    /// The order.
    pub order: Order,
}

/// What the orders of a tally depend on.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// The time in Unix nanoseconds.
    pub now_ns: u64,
    /// What a request waits for, if one waits. Leases that are not there are made for it.
    pub waiting: Option<&'a Amounts>,
    /// Other proxies ask the ledger for what it no longer has.
    pub is_scarce: bool,
    /// A random number, for the ids of new leases.
    pub seed: u64,
}

impl Tally {
    /// Whether a request may wait for the first part of a budget, and has room in all other limits.
    pub fn may_wait(&self, charges: &[Charge], amounts: &Amounts, now_ns: u64) -> bool {
        let now_ns = now_ns.max(self.clock_ns);
        let is_unleased = |(charge, quota): (&Charge, &Quota)| {
            self.charge_lease(charge, quota, amounts, now_ns) == Err(Lack::Unleased)
        };
        let has_room = |charge: &Charge| self.charge(charge, amounts, now_ns).is_ok();
        let waits = |charge: &Charge| {
            has_room(charge)
                || charge.shared_quota().is_some_and(|quota| is_unleased((charge, quota)))
        };
        // Nearly every request finds a lease, and needs no more than this.
        shared(charges).any(is_unleased) && charges.iter().all(waits)
    }

    /// Records what a refused request lacked of each lease, so that the next orders ask for it.
    pub fn lack(&mut self, charges: &[Charge], amounts: &Amounts, now_ns: u64) {
        let now_ns = now_ns.max(self.clock_ns);
        for (charge, quota) in shared(charges) {
            let amount = amounts.of(quota.unit);
            let is_lacking = self.charge_lease(charge, quota, amounts, now_ns).is_err();
            if is_lacking
                && amount <= quota.limit
                && let Some(lease) = self.lease_mut(charge.scope, quota, now_ns)
            {
                lease.lack(amount);
            }
        }
    }

    /// Whether an order may be due for one of these charges.
    pub fn is_low(&self, charges: &[Charge], now_ns: u64) -> bool {
        let now_ns = now_ns.max(self.clock_ns);
        let lease = |(charge, quota): (&Charge, &Quota)| self.lease(charge.scope, quota, now_ns);
        shared(charges).filter_map(lease).any(|lease| lease.is_low() && !lease.state().is_pending)
    }

    /// Whether one of these charges is beyond what the ledger has granted, because it does not respond.
    pub fn is_local(&self, charges: &[Charge], now_ns: u64) -> bool {
        let now_ns = now_ns.max(self.clock_ns);
        let lease = |(charge, quota): (&Charge, &Quota)| self.lease(charge.scope, quota, now_ns);
        let is_local = |lease: &Lease| lease.state().is_lost && lease.used > lease.granted;
        shared(charges).filter_map(lease).any(is_local)
    }

    /// Whether something is held of a budget of these charges, or the ledger must still be told what was spent.
    pub fn holds_leases(&self, charges: &[Charge]) -> bool {
        let of =
            |leased: &Leased| shared(charges).any(|(charge, quota)| leased.is(charge.scope, quota));
        self.leases.iter().any(|leased| of(leased) && leased.lease.is_held())
    }

    /// The orders that are due.
    pub fn orders(&mut self, charges: &[Charge], occasion: &Occasion<'_>) -> Vec<PlacedOrder> {
        let &Occasion { now_ns, waiting, is_scarce, seed } = occasion;
        let now_ns = now_ns.max(self.clock_ns);
        self.leases.retain(|leased| !leased.lease.is_over(leased.per, now_ns));
        if let Some(amounts) = waiting {
            self.begin_leases(charges, amounts, seed, now_ns);
            self.lack(charges, amounts, now_ns);
        }
        self.begin_next_leases(charges, seed, now_ns);
        let mut orders = Vec::new();
        for leased in &mut self.leases {
            let quota = shared(charges).find(|(charge, quota)| leased.is(charge.scope, quota));
            if let Some((_, &quota)) = quota
                && let Some(order) = leased.lease.order(&Terms { now_ns, quota, is_scarce })
            {
                orders.push(PlacedOrder { unit: quota.unit, per: quota.per, order });
            }
        }
        orders
    }

    /// Takes a receipt of the ledger to its lease. `others_hold`: as in [`Lease::receive`].
    pub fn receive(&mut self, receipt: &Receipt, others_hold: bool, now_ns: u64) {
        if let Some(lease) = self.lease_of(receipt.lease) {
            lease.receive(receipt, others_hold, now_ns);
        }
    }

    /// Records that the ledger did not respond to an order.
    pub fn lose(&mut self, order: &Order) {
        if let Some(lease) = self.lease_of(order.lease) {
            lease.lose(order.number);
        }
    }

    /// Records that the ledger did not respond to the orders of these charges.
    pub fn lose_pending(&mut self, charges: &[Charge]) {
        for leased in &mut self.leases {
            if shared(charges).any(|(charge, quota)| leased.is(charge.scope, quota)) {
                leased.lease.lose(leased.lease.number);
            }
        }
    }

    /// What is used of a lease with a request.
    pub(super) fn charge_lease(
        &self,
        charge: &Charge,
        quota: &Quota,
        amounts: &Amounts,
        now_ns: u64,
    ) -> Result<Used, Lack> {
        let amount = amounts.of(quota.unit);
        if amount == 0 {
            return Ok(Used::Lease { id: 0, amount });
        }
        if amount > quota.limit {
            return Err(Lack::Exhausted);
        }
        let lease = self.lease(charge.scope, quota, now_ns).ok_or(Lack::Unleased)?;
        lease.reserve(amount, quota.local(), now_ns).map(|_| Used::Lease { id: lease.id, amount })
    }

    /// The refusal of a request for which a lease has no room.
    pub(super) fn without_lease(
        charge: &Charge,
        quota: &Quota,
        amounts: &Amounts,
        lack: Lack,
        now_ns: u64,
    ) -> Exceeded {
        let soon_ns = Some(now_ns.saturating_add(RETRY_NS));
        let is_ever = amounts.of(quota.unit) <= quota.limit;
        let end_secs = quota.per.end_secs(quota.per.window(secs(now_ns))).filter(|_| is_ever);
        let (reason, until_ns) = match lack {
            Lack::Unleased | Lack::Spent => (DenyReason::LeaseSpent, soon_ns),
            Lack::Lost => (DenyReason::LedgerLost, soon_ns),
            Lack::Exhausted => (charge.reason(), end_secs.map(nanos)),
        };
        Exceeded { reason, exhausted: Exhausted::Limit(charge.name()), until_ns }
    }

    /// Replaces what was reserved of a lease.
    pub(super) fn settle_lease(&mut self, id: u64, reserved: u64, actual: u64) -> bool {
        let lease = self.lease_of(id);
        let found = lease.is_some();
        if let Some(lease) = lease {
            *lease = lease.settle(reserved, actual);
        }
        found
    }

    /// Settles what a request took of a quota that proxies share. If its lease was lost in between, what was used beyond
    /// the reservation is taken from the present one.
    pub(super) fn settle_shared(
        &mut self,
        charge: &Charge,
        quota: &Quota,
        used: &Used,
        actual: u64,
    ) {
        let &Used::Lease { id, amount } = used else { return };
        if self.settle_lease(id, amount, actual) {
            return;
        }
        let now_ns = self.clock_ns;
        if let Some(lease) = self.lease_mut(charge.scope, quota, now_ns) {
            *lease = lease.settle(0, actual.saturating_sub(amount));
        }
    }

    pub(super) fn lease(&self, scope: Scope, quota: &Quota, now_ns: u64) -> Option<&Lease> {
        let window = quota.per.window(secs(now_ns));
        let found = |leased: &&Leased| leased.is(scope, quota) && leased.lease.window == window;
        self.leases.iter().find(found).map(|leased| &leased.lease)
    }

    fn lease_mut(&mut self, scope: Scope, quota: &Quota, now_ns: u64) -> Option<&mut Lease> {
        let window = quota.per.window(secs(now_ns));
        let found = |leased: &&mut Leased| leased.is(scope, quota) && leased.lease.window == window;
        self.leases.iter_mut().find(found).map(|leased| &mut leased.lease)
    }

    fn lease_of(&mut self, id: u64) -> Option<&mut Lease> {
        self.leases.iter_mut().map(|leased| &mut leased.lease).find(|lease| lease.id == id)
    }

    /// Makes the leases of which a request lacks the first part.
    fn begin_leases(&mut self, charges: &[Charge], amounts: &Amounts, seed: u64, now_ns: u64) {
        for (charge, quota) in shared(charges) {
            let is_needed = (1..=quota.limit).contains(&amounts.of(quota.unit));
            if is_needed && self.lease(charge.scope, quota, now_ns).is_none() {
                self.begin(charge.scope, quota, quota.per.window(secs(now_ns)), seed);
            }
        }
    }

    /// Makes leases of the next window for those in use whose window is about to end.
    fn begin_next_leases(&mut self, charges: &[Charge], seed: u64, now_ns: u64) {
        for (charge, quota) in shared(charges) {
            let (now, soon) = (secs(now_ns), secs(now_ns).saturating_add(EARLY_SECS));
            let (window, next) = (quota.per.window(now), quota.per.window(soon));
            let lease = self.lease(charge.scope, quota, now_ns);
            let is_busy = lease.is_some_and(|lease| lease.is_busy(now_ns));
            if next != window && is_busy && self.lease(charge.scope, quota, nanos(soon)).is_none() {
                self.begin(charge.scope, quota, next, seed);
            }
        }
    }

    fn begin(&mut self, scope: Scope, &Quota { unit, per, .. }: &Quota, window: u32, seed: u64) {
        // The oldest are those of windows that have ended, of which the ledger was not told for long.
        while self.leases.len() >= MAX_LEASES {
            self.leases.remove(0);
        }
        let place = u64::try_from(self.leases.len()).unwrap_or(0);
        // 0 stands for no lease.
        let id = seed.wrapping_add(place).max(1);
        self.leases.push(Leased { scope, unit, per, lease: Lease::new(id, window) });
    }
}

impl Leased {
    fn is(&self, scope: Scope, quota: &Quota) -> bool {
        (self.scope, self.unit, self.per) == (scope, quota.unit, quota.per)
    }
}

/// The charges whose quotas proxies share.
fn shared(charges: &[Charge]) -> impl Iterator<Item = (&Charge, &Quota)> {
    charges.iter().filter_map(|charge| Some((charge, charge.shared_quota()?)))
}
