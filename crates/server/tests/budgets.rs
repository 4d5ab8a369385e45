//! Searches the states that two proxies and an account can reach, however the messages between them are lost, repeated or
//! late. A message that was sent can be delivered at any later time, any number of times. Proxies spend, give back, crash
//! and lose the ledger in any order.
//!
//! In every state no more is spent than the budget. From every state without a crash the whole budget can be spent, and
//! the ledger gets to know what was spent.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use vkey::limits::lease::{Lease, Order, Receipt, Terms};
use vkey::limits::quota::{Period, Quota, QuotaScope, Unit};
use vkey_server::ledger::Account;

/// Noon of a day.
const BEGIN_NS: u64 = (20_000 * 86_400 + 43_200) * 1_000_000_000;

/// A step of the clock: an order is sent again after it, and a lease that was not used is quiet.
const STEP_NS: u64 = 1_000_000_000;

/// A step of the clock when nothing is lost any more.
const CALM_STEP_NS: u64 = 250_000_000;

/// How many of these steps it may take until the whole budget is spent.
const CALM_STEPS: usize = 120;

/// What is searched.
#[derive(Clone, Copy, Debug)]
struct Setup {
    /// The budget.
    limit: u64,
    /// What a proxy may spend without the ledger.
    local: u64,
    /// How often proxies may crash, refund a unit and use a unit more than was reserved, in all.
    crashes: u32,
    refunds: u32,
    overruns: u32,
    /// How often the clock may go on.
    ticks: u32,
    /// How many steps are searched.
    depth: usize,
    /// Whether the ledger must get to know what was spent.
    is_known: bool,
}

/// A state of everything.
#[derive(Clone)]
struct World {
    now_ns: u64,
    leases: [Lease; 2],
    /// What was spent with the present lease of each proxy.
    spent: [u64; 2],
    /// What was spent in all.
    total: u64,
    account: Account,
    orders: Vec<Order>,
    receipts: Vec<Receipt>,
    /// How many leases there were.
    leased: u64,
    left: Setup,
}

/// A step.
#[derive(Clone, Copy, Debug)]
enum Step {
    Spend(usize, u64),
    Send(usize, bool),
    /// Sends an order, which arrives at once, as does its receipt.
    Exchange(usize, bool),
    DeliverOrder(usize),
    DeliverReceipt(usize),
    Lose(usize),
    Refund(usize),
    Overrun(usize),
    Crash(usize),
    Tick,
}

// === impl World ===

impl World {
    fn new(setup: Setup) -> Self {
        let window = Period::Day.window(BEGIN_NS / 1_000_000_000);
        Self {
            now_ns: BEGIN_NS,
            leases: [1, 2].map(|id| Lease::new(id, window)),
            spent: [0; 2],
            total: 0,
            account: Account::default(),
            orders: Vec::new(),
            receipts: Vec::new(),
            leased: 2,
            left: setup,
        }
    }

    /// Every step that can be made.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for proxy in 0..2 {
            steps.extend([1, 2].map(|amount| Step::Spend(proxy, amount)));
            for is_scarce in [false, true] {
                steps.extend([Step::Send(proxy, is_scarce), Step::Exchange(proxy, is_scarce)]);
            }
            let lease = self.leases[proxy];
            let optional = [
                (lease.state().is_pending && self.left.local > 0, Step::Lose(proxy)),
                (self.left.refunds > 0 && self.spent[proxy] > 0, Step::Refund(proxy)),
                (self.left.overruns > 0 && self.spent[proxy] > 0, Step::Overrun(proxy)),
                (self.left.crashes > 0 && lease.number > 0, Step::Crash(proxy)),
            ];
            steps.extend(optional.into_iter().filter_map(|(can, step)| can.then_some(step)));
        }
        steps.extend((0..self.orders.len()).map(Step::DeliverOrder));
        steps.extend((0..self.receipts.len()).map(Step::DeliverReceipt));
        if self.left.ticks > 0 {
            steps.push(Step::Tick);
        }
        steps
    }

    fn make(&mut self, step: Step) {
        match step {
            Step::Spend(proxy, amount) => _ = self.spend(proxy, amount),
            Step::Send(proxy, is_scarce) => _ = self.send(proxy, is_scarce),
            Step::Exchange(proxy, is_scarce) => _ = self.exchange(proxy, is_scarce),
            Step::DeliverOrder(index) => {
                let order = self.orders[index];
                self.deliver_order(order);
            }
            Step::DeliverReceipt(index) => {
                let receipt = self.receipts[index];
                self.deliver_receipt(receipt);
            }
            Step::Lose(proxy) => {
                let number = self.leases[proxy].number;
                self.leases[proxy].lose(number);
            }
            Step::Refund(proxy) => {
                self.left.refunds -= 1;
                self.leases[proxy] = self.leases[proxy].settle(1, 0);
                self.spent[proxy] -= 1;
                self.total -= 1;
            }
            Step::Overrun(proxy) => {
                self.left.overruns -= 1;
                self.leases[proxy] = self.leases[proxy].settle(0, 1);
                self.spent[proxy] += 1;
                self.total += 1;
            }
            Step::Crash(proxy) => {
                self.left.crashes -= 1;
                self.leased += 1;
                self.leases[proxy] = Lease::new(self.leased, self.leases[proxy].window);
                self.spent[proxy] = 0;
            }
            Step::Tick => {
                self.left.ticks -= 1;
                self.now_ns += STEP_NS;
            }
        }
    }

    /// A request for an amount. Returns whether it is allowed.
    fn spend(&mut self, proxy: usize, amount: u64) -> bool {
        let reserved = self.leases[proxy].reserve(amount, self.left.local, self.now_ns);
        match reserved {
            Ok(lease) => {
                self.leases[proxy] = lease;
                self.spent[proxy] += amount;
                self.total += amount;
            }
            Err(_) => self.leases[proxy].lack(amount),
        }
        reserved.is_ok()
    }

    /// An order, if one is due.
    fn send(&mut self, proxy: usize, is_scarce: bool) -> Option<Order> {
        let scope = QuotaScope::Cluster { local_percent: 0 };
        let limit = self.left.limit;
        let quota = Quota { unit: Unit::Requests, limit, per: Period::Day, scope };
        let terms = Terms { now_ns: self.now_ns, quota, is_scarce };
        let order = self.leases[proxy].order(&terms)?;
        if !self.orders.contains(&order) {
            self.orders.push(order);
        }
        Some(order)
    }

    fn deliver_order(&mut self, order: Order) -> Receipt {
        let receipt = self.account.apply(&order, self.now_ns / 1_000_000_000);
        if !self.receipts.contains(&receipt) {
            self.receipts.push(receipt);
        }
        receipt
    }

    fn deliver_receipt(&mut self, receipt: Receipt) {
        for lease in self.leases.iter_mut().filter(|lease| lease.id == receipt.lease) {
            lease.receive(&receipt, false, self.now_ns);
        }
    }

    /// Returns whether another proxy may hold what this one needs.
    fn exchange(&mut self, proxy: usize, is_scarce: bool) -> bool {
        let Some(order) = self.send(proxy, is_scarce) else { return false };
        let receipt = self.deliver_order(order);
        self.deliver_receipt(receipt);
        order.wanted.want > 0
            && receipt.granted == order.granted
            && self.account.others_hold(order.lease)
    }

    /// What may be spent at most.
    fn bound(&self, setup: Setup) -> u64 {
        setup.limit + setup.local * self.leased + u64::from(setup.overruns - self.left.overruns)
    }

    /// A number for the state, without what can never matter any more.
    fn fingerprint(&self) -> u64 {
        let mut text = Hashed(DefaultHasher::new());
        let left = (self.left.crashes, self.left.refunds, self.left.overruns, self.left.ticks);
        (self.now_ns, self.spent, self.total, self.leased, left).hash(&mut text.0);
        write!(text, "{:?}{:?}", self.leases, self.account).unwrap();
        let mut orders = Vec::from_iter(self.orders.iter().map(order_key));
        let mut receipts = Vec::from_iter(self.receipts.iter().map(receipt_key));
        orders.sort_unstable();
        receipts.sort_unstable();
        (orders, receipts).hash(&mut text.0);
        text.0.finish()
    }

    /// Nothing is lost any more, and both proxies want to spend, or nobody does. The scarcity that one order meets is told
    /// to the other proxy.
    fn calm(&mut self, wants: bool) {
        let mut is_scarce = false;
        for _ in 0..CALM_STEPS {
            self.now_ns += CALM_STEP_NS;
            let mut met = false;
            for proxy in 0..2 {
                if wants {
                    self.spend(proxy, 1);
                }
                met |= self.exchange(proxy, is_scarce);
            }
            is_scarce = met;
        }
    }
}

fn order_key(order: &Order) -> [u64; 6] {
    let Order { lease, number, granted, used, wanted, .. } = *order;
    [lease, number.into(), granted, used, wanted.need, wanted.want]
}

fn receipt_key(receipt: &Receipt) -> [u64; 4] {
    [receipt.lease, receipt.number.into(), receipt.granted, receipt.left]
}

/// Hashes what is written.
struct Hashed(DefaultHasher);

impl fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

// === the search ===

/// A world, and how it was reached.
struct Reached {
    world: World,
    trace: Vec<Step>,
}

/// Searches every state that is reached by this number of steps. Returns how many there are.
fn search(setup: Setup) -> usize {
    let mut seen = HashSet::new();
    let mut layer = vec![Reached { world: World::new(setup), trace: Vec::new() }];
    seen.insert(layer[0].world.fingerprint());
    for _ in 0..setup.depth {
        let mut next = Vec::new();
        for Reached { world, trace } in &layer {
            for step in world.steps() {
                let mut world = world.clone();
                world.make(step);
                if !seen.insert(world.fingerprint()) {
                    continue;
                }
                let trace = [trace.as_slice(), &[step]].concat();
                check(setup, &world, &trace);
                next.push(Reached { world, trace });
            }
        }
        layer = next;
    }
    for (index, Reached { world, trace }) in layer.iter().enumerate() {
        if index % 16 == 0 {
            check_calm(setup, world, trace);
        }
    }
    seen.len()
}

/// Makes steps at random, many of them.
fn wander(setup: Setup, walks: u64, length: usize) {
    for seed in 1..=walks {
        let (mut world, mut random) = (World::new(setup), Random(seed));
        let mut trace = Vec::new();
        for _ in 0..length {
            let steps = world.steps();
            let step = steps[random.below(steps.len())];
            world.make(step);
            trace.push(step);
            check(setup, &world, &trace);
        }
        check_calm(setup, &world, &trace);
    }
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % bound
    }
}

fn check(setup: Setup, world: &World, trace: &[Step]) {
    let bound = world.bound(setup);
    assert!(world.total <= bound, "{} of {bound} are spent: {trace:?}", world.total);
    let promised = world.account.sums();
    assert!(
        setup.local > 0 || setup.overruns > 0 || promised.used + promised.held <= setup.limit,
        "{promised:?} is promised: {trace:?}"
    );
}

fn check_calm(setup: Setup, world: &World, trace: &[Step]) {
    if world.left.crashes < setup.crashes {
        return;
    }
    let mut busy = world.clone();
    busy.calm(true);
    let least = setup.limit.max(world.total);
    let is_exact = setup.local == 0 && setup.overruns == 0;
    let most = if is_exact { least } else { world.bound(setup) };
    assert!((least..=most).contains(&busy.total), "{} are spent: {trace:?}", busy.total);
    if !setup.is_known {
        return;
    }
    let mut idle = world.clone();
    idle.calm(false);
    let used = idle.account.sums().used;
    assert_eq!(used, world.total, "the ledger does not know what was spent: {trace:?}");
}

const SETUP: Setup = Setup {
    limit: 4,
    local: 0,
    crashes: 0,
    refunds: 0,
    overruns: 0,
    ticks: 3,
    depth: 6,
    is_known: false,
};

#[test]
fn messages_that_are_lost_repeated_or_late_spend_no_more_than_the_budget() {
    let states = search(SETUP);
    println!("{states} states");
    assert!(states > 10_000, "{states}");
}

#[test]
fn the_ledger_gets_to_know_what_was_spent() {
    search(Setup { is_known: true, ..SETUP });
    search(Setup { refunds: 1, overruns: 1, depth: 6, is_known: true, ..SETUP });
}

#[test]
fn proxies_that_crash_spend_no_more_than_the_budget() {
    let states = search(Setup { crashes: 2, depth: 6, ..SETUP });
    println!("{states} states");
}

#[test]
fn proxies_without_the_ledger_spend_their_local_part_more() {
    let states = search(Setup { local: 1, depth: 6, ..SETUP });
    println!("{states} states");
}

#[test]
fn refunds_and_overruns_add_to_no_budget() {
    let states = search(Setup { refunds: 1, overruns: 1, depth: 6, ..SETUP });
    println!("{states} states");
}

#[test]
fn long_walks_spend_no_more_than_the_budget() {
    let calm = Setup { limit: 6, ticks: 30, ..SETUP };
    wander(calm, 300, 80);
    wander(Setup { crashes: 3, ..calm }, 300, 80);
    wander(Setup { local: 2, ..calm }, 300, 80);
    wander(Setup { refunds: 3, ..calm }, 300, 80);
    wander(Setup { refunds: 2, overruns: 2, ..calm }, 300, 80);
}
