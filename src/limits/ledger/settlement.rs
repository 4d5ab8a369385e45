//! What becomes of a reservation: it is refunded, or replaced by what was used.

use crate::limits::gcra::RateReservation;
use crate::limits::quota::{Quota, QuotaReservation, Spent, Unit};
use crate::limits::{Amounts, Charge, Kind, Limit};
use crate::time::secs;

use super::{Ledger, Reservation, Used};

impl Ledger {
    /// Replaces the tokens and the money that a request reserved by what it used. Of what it reserved in a window that
    /// has ended, nothing is refunded. What it used beyond that is charged to the current window, above the limit too.
    pub fn settle(
        &mut self,
        charges: &[Charge],
        reservation: &Reservation,
        actual: Amounts,
        now_ns: u64,
    ) {
        self.clock_ns = self.clock_ns.max(now_ns);
        for charge in charges {
            match charge.limit {
                Limit::Quota(quota) if quota.unit != Unit::Requests => {
                    self.settle_quota(charge, &quota, reservation, actual.of(quota.unit));
                }
                Limit::Quota(_) | Limit::Rate(_) => {}
            }
        }
        self.drop_idle();
    }

    /// Refunds the charges of a request that was allowed and then refused.
    pub fn give_back(&mut self, charges: &[Charge], reservation: &Reservation) {
        let Reservation { at_ns, undone, used, .. } = reservation;
        for (charge, used) in charges.iter().zip(used) {
            match (charge.limit, used) {
                (Limit::Rate(rate), Used::Rate(tat)) => {
                    let tat = Some(*tat).filter(|_| *undone == self.undone);
                    let reserved = RateReservation { at_ns: *at_ns, tat };
                    let tat = rate.give_back(self.tat(charge.scope), &reserved, self.clock_ns);
                    self.set(charge.scope, &Used::Rate(tat));
                }
                (Limit::Quota(quota), _) => self.settle_quota(charge, &quota, reservation, 0),
                // The reservation is of other charges.
                (Limit::Rate(_), Used::Quota(..) | Used::Nothing) => {}
            }
        }
        self.undone = self.undone.wrapping_add(1);
        self.drop_idle();
    }

    /// Replaces what was reserved of one quota. If the record was lost in between, what was reserved is not in it, and is
    /// not refunded. If use beyond what was reserved needs a place for the limit of a child, and others have all of them,
    /// it is not charged.
    fn settle_quota(
        &mut self,
        charge: &Charge,
        quota: &Quota,
        reservation: &Reservation,
        actual: u64,
    ) {
        let amount = reservation.amounts.of(quota.unit);
        if amount == 0 && actual == 0 {
            return;
        }
        let (now_secs, at_secs) = (secs(self.clock_ns), secs(reservation.at_ns));
        let found = self.use_of(charge.scope, quota);
        let is_lost = found.is_none_or(|found| found.since_ns > reservation.at_ns)
            && quota.per.window(at_secs) == quota.per.window(now_secs);
        let amount = if is_lost { 0 } else { amount };
        let spent = found.map_or_else(Spent::default, |found| found.spent);
        let settled = quota.settle(spent, QuotaReservation { amount, at_secs }, actual, now_secs);
        let fresh = self.fresh_child(charge, self.clock_ns);
        if self.check_places(fresh.as_slice(), self.clock_ns).is_ok() {
            self.set(charge.scope, &Used::Quota(*quota, settled));
        }
    }
}

// === impl Reservation ===

impl Reservation {
    /// Whether a request used more or less of a quota of these charges than it reserved.
    pub fn differs(&self, charges: &[Charge], actual: Amounts) -> bool {
        charges.iter().any(|charge| match charge.limit.kind() {
            Kind::Rate | Kind::Quota(Unit::Requests, _) => false,
            Kind::Quota(unit, _) => self.amounts.of(unit) != actual.of(unit),
        })
    }
}
