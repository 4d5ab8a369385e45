//! An account: one budget in one window, and who holds how much of it.
//!
//! What the ledger has promised never exceeds the budget: each lease is charged with what was granted, or with what was
//! spent if that is more. Only the order with the next number changes a lease. An order that comes again gets its receipt
//! again, and an older one gets the receipt of the last.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use vkey::limits::lease::{Order, Receipt};

/// What is left divided by this is granted at most at a time, so that grants shrink towards the end of a budget.
const SHARE: u64 = 4;

/// One budget in one window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The budget, as the last order stated it.
    pub limit: u64,
    /// The largest budget that an order stated. What it allowed is no debt after the budget was lowered.
    largest: u64,
    /// What earlier windows spent above their budgets.
    pub carried: u64,
    /// The leases.
    leases: BTreeMap<u64, Held>,
}

/// What a proxy holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    granted: u64,
    used: u64,
    /// The number of the last order.
    number: u32,
    /// What the receipt for it said was left.
    left: u64,
    /// When that order came, Unix seconds.
    at_secs: u64,
}

/// The sums of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// The budget, as the last order stated it.
    pub limit: u64,
    /// What proxies reported as spent, and what earlier windows spent above their budgets.
    pub used: u64,
    /// What proxies hold and have not reported as spent.
    pub held: u64,
    /// What is left for further leases.
    pub left: u64,
    /// How many leases there are.
    pub leases: u64,
    /// When the last order came, Unix seconds.
    pub at_secs: u64,
}

// === impl Account ===

impl Account {
    /// An account of a window that begins.
    pub fn new(carried: u64) -> Self {
        Self { carried, ..Self::default() }
    }

    /// Whether an order, or a later one of its lease, was taken before.
    pub fn has(&self, order: &Order) -> bool {
        self.leases.get(&order.lease).is_some_and(|held| held.number >= order.number)
    }

    /// Takes an order, and returns its receipt.
    pub fn apply(&mut self, order: &Order, now_secs: u64) -> Receipt {
        let held = self.leases.get(&order.lease).copied().unwrap_or_default();
        if order.number > held.number {
            // The proxy knows best: the store may have lost what it was told last.
            let base = order.granted.max(order.used);
            let others = self.charged().saturating_sub(held.charged());
            let left = order.limit.saturating_sub(others.saturating_add(base));
            let grant = grant(left, order);
            // An order that is granted nothing does not make up for what was spent beyond the grant.
            let granted = if grant == 0 { order.granted } else { base.saturating_add(grant) };
            let held = Held {
                granted,
                used: order.used,
                number: order.number,
                left: left.saturating_sub(grant),
                at_secs: now_secs,
            };
            self.limit = order.limit;
            self.largest = self.largest.max(order.limit);
            self.leases.insert(order.lease, held);
        }
        self.receipt(order.lease)
    }

    /// Whether another proxy than that of a lease may hold something that it does not need.
    pub fn others_hold(&self, lease: u64) -> bool {
        self.leases.iter().any(|(id, held)| *id != lease && held.granted > held.used)
    }

    /// What was spent above the budget: the debt for the next window.
    pub fn excess(&self) -> u64 {
        self.charged().saturating_sub(self.largest)
    }

    /// The sums.
    pub fn sums(&self) -> Sums {
        let used = self.leases.values().map(|held| held.used);
        let held = self.leases.values().map(|held| held.granted.saturating_sub(held.used));
        Sums {
            limit: self.limit,
            used: used.fold(self.carried, u64::saturating_add),
            held: held.fold(0, u64::saturating_add),
            left: self.limit.saturating_sub(self.charged()),
            leases: u64::try_from(self.leases.len()).unwrap_or(u64::MAX),
            at_secs: self.leases.values().map(|held| held.at_secs).max().unwrap_or(0),
        }
    }

    /// What is promised or spent.
    pub fn charged(&self) -> u64 {
        let leases = self.leases.values().map(Held::charged);
        leases.fold(self.carried, u64::saturating_add)
    }

    fn receipt(&self, lease: u64) -> Receipt {
        let Held { granted, number, left, .. } =
            self.leases.get(&lease).copied().unwrap_or_default();
        Receipt { lease, number, granted, left }
    }
}

// === impl Held ===

impl Held {
    fn charged(&self) -> u64 {
        self.granted.max(self.used)
    }
}

/// How much of what is left is granted. Less than what is needed would help nobody.
fn grant(left: u64, order: &Order) -> u64 {
    let share = left.div_ceil(SHARE);
    match order.wanted.want {
        0 => 0,
        want if order.wanted.need <= left => want.min(share).max(order.wanted.need),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vkey::limits::lease::Wanted;

    fn order(lease: u64, number: u32, limit: u64, granted: u64, used: u64, want: u64) -> Order {
        let wanted = Wanted { need: want.min(1), want };
        Order { lease, number, window: 0, limit, granted, used, wanted }
    }

    /// As for a quota of one proxy.
    #[test]
    fn what_a_larger_budget_allowed_is_no_debt() {
        let mut account = Account::new(0);
        account.apply(&order(1, 1, 100, 50, 50, 0), 0);
        account.apply(&order(1, 2, 10, 50, 50, 0), 0);
        assert_eq!((account.limit, account.sums().left, account.excess()), (10, 0, 0));
        account.apply(&order(1, 3, 10, 50, 104, 0), 0);
        assert_eq!(account.excess(), 4);
        assert_eq!(account.apply(&order(2, 1, 10, 0, 0, 1), 0).granted, 0, "the lower one counts");
    }

    #[test]
    fn only_a_later_order_is_new() {
        let mut account = Account::new(0);
        let first = order(1, 2, 10, 0, 0, 4);
        assert!(!account.has(&first));
        account.apply(&first, 0);
        assert!(account.has(&first) && account.has(&order(1, 1, 10, 0, 0, 4)));
        assert!(!account.has(&order(1, 3, 10, 0, 0, 4)) && !account.has(&order(2, 1, 10, 0, 0, 4)));
    }

    #[test]
    fn a_text_of_an_account_has_all_of_it() {
        let mut account = Account::new(3);
        account.apply(&order(u64::MAX, 7, u64::MAX, 5, 2, 9), 1_790_000_000);
        let text = serde_json::to_string(&account).unwrap();
        assert_eq!(serde_json::from_str::<Account>(&text).unwrap(), account);
    }
}
