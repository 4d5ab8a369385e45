//! What becomes of a reservation: it is refunded, or replaced by what was used.

use std::slice::from_ref;

use crate::limits::gcra::RateReservation;
use crate::limits::quota::{Quota, QuotaReservation, Unit};
use crate::limits::{Amounts, Charge, Kind, Limit};
use crate::time::secs;

use super::{Reservation, Tally, Used};

impl Tally {
    /// Replaces the tokens and the money that a request reserved by what it used. Of what it reserved in a window that
    /// has ended, nothing is refunded. What it used beyond that is charged to the current window, above the limit too.
    pub fn settle(
        &mut self,
        charges: &[Charge],
        reservation: &Reservation,
        (reserved, actual): (&Amounts, &Amounts),
        now_ns: u64,
    ) {
        self.clock_ns = self.clock_ns.max(now_ns);
        for (charge, used) in charges.iter().zip(&reservation.used) {
            match charge.limit {
                Limit::Quota(quota) if quota.unit == Unit::Requests => {}
                Limit::Quota(quota) if quota.is_shared() => {
                    self.settle_shared(charge, &quota, used, actual.of(quota.unit));
                }
                Limit::Quota(quota) => {
                    let then = (reservation.at_ns, used);
                    self.settle_quota(charge, &quota, then, (reserved, actual));
                }
                Limit::Rate(_) => {}
            }
        }
        self.drop_idle();
    }

    /// Refunds the charges of a request that was allowed and then refused.
    pub fn give_back(&mut self, charges: &[Charge], reservation: &Reservation, reserved: &Amounts) {
        let Reservation { at_ns, undone, used } = reservation;
        for (charge, used) in charges.iter().zip(used) {
            match (charge.limit, used) {
                (Limit::Rate(rate), Used::Rate(tat)) => {
                    let tat = Some(*tat).filter(|_| *undone == self.undone);
                    let reserved = RateReservation { at_ns: *at_ns, tat };
                    let tat = rate.give_back(self.tat(charge.scope), &reserved, self.clock_ns);
                    self.set(charge.scope, &Used::Rate(tat));
                }
                (Limit::Quota(quota), _) if quota.is_shared() => {
                    self.settle_shared(charge, &quota, used, 0);
                }
                (Limit::Quota(quota), _) => {
                    let amounts = (reserved, &Amounts::default());
                    self.settle_quota(charge, &quota, (*at_ns, used), amounts);
                }
                // The reservation is of other charges.
                (Limit::Rate(_), Used::Quota(..) | Used::Lease { .. }) => {}
            }
        }
        self.undone = self.undone.wrapping_add(1);
        self.drop_idle();
    }

    /// Replaces what was reserved of one quota; the request itself is refunded. If its entry was lost in between, what was
    /// reserved is not in it, and is not refunded. If use beyond what was reserved needs a place for the limit of a child,
    /// and others have all of them, it is not charged.
    fn settle_quota(
        &mut self,
        charge: &Charge,
        quota: &Quota,
        (at_ns, then): (u64, &Used),
        (reserved, actual): (&Amounts, &Amounts),
    ) {
        let spent = self.spent(charge.scope, quota, self.clock_ns);
        let (now_secs, at_secs) = (secs(self.clock_ns), secs(at_ns));
        let has_turned = quota.per.window(at_secs) != quota.per.window(now_secs);
        let is_there = match then {
            Used::Quota(_, _, then) => has_turned || then.entry == spent.entry,
            Used::Rate(_) | Used::Lease { .. } => false,
        };
        let amount = if is_there { reserved.of(quota.unit) } else { 0 };
        let used = match quota.unit {
            Unit::Requests => 0,
            Unit::Tokens | Unit::CostMicroUsd => actual.of(quota.unit),
        };
        if self.check_places(from_ref(charge), actual, self.clock_ns).is_ok() {
            let reserved = QuotaReservation { amount, at_secs };
            let settled = quota.settle(spent, reserved, used, now_secs);
            self.set(charge.scope, &Used::Quota(quota.unit, quota.per, settled));
        }
    }
}

impl Amounts {
    /// Whether a quota of these charges counts what is another amount in `other`.
    pub fn differ(&self, other: &Self, charges: &[Charge]) -> bool {
        charges.iter().any(|charge| match charge.limit.kind() {
            Kind::Rate => false,
            Kind::Quota(unit, _) => self.of(unit) != other.of(unit),
        })
    }
}
