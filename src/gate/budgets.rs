//! Budgets: quotas that all proxies share. This worker orders leases of them from the ledger, outside of requests.
//!
//! A request spends what its proxy holds, inside the loop that counts it. The tick of the root context orders more of what
//! is low, and gives back what is not needed. Only a request that finds no lease at all orders one itself, and waits for it.

use std::cell::{Cell as Counter, RefCell};
use std::rc::Rc;

use crate::config::LedgerService;
use crate::engine::KnownKey;
use crate::exchange::Waiting;
use crate::host::{Body, Host, HostError, Level, RecordStore, ServiceCall};
use crate::ledger::{AccountName, LEASES_PATH, MAX_ORDERS, Owner, Receipts, write_orders};
use crate::limits::cell::Cell;
use crate::limits::lease::Order;
use crate::limits::quota::{Period, Unit};
use crate::limits::tally::{Occasion, PlacedOrder};
use crate::limits::{Amounts, Charge};
use crate::record::Name;
use crate::time::nanos;

use super::metrics::Metrics;
use super::ticker::Ticker;

/// How often a worker ticks while a lease is low, in milliseconds.
const FAST_MILLIS: u32 = 10;

/// How often it ticks while a request waits, in milliseconds.
pub(super) const WAIT_MILLIS: u32 = 50;

/// How often it ticks while it has leases, in milliseconds.
const SLOW_MILLIS: u32 = 100;

/// How often all leases are looked at, and the ledger is asked what is scarce, in nanoseconds.
const ROUND_NS: u64 = 400_000_000;

/// The shortest time between two looks at all requests that wait, in nanoseconds: a tick may come early.
const LOOK_NS: u64 = 40_000_000;

/// The most receipts and names that a response of the ledger may have, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 << 10;

/// The ids that are set aside for one cell: more than it has shared quotas.
const IDS: u64 = 256;

const MILLIS_PER_SEC: u64 = 1000;

/// The budgets of one root context.
#[derive(Default)]
pub(super) struct Budgets {
    service: Option<LedgerService>,
    /// The cells whose budgets this worker has charged, in the order of their names. A map would be ten kilobytes of code.
    watched: RefCell<Vec<Watched>>,
    /// The contexts of the requests that wait, and their keys.
    waiting: RefCell<Vec<(u32, Rc<KnownKey>)>>,
    /// When all requests that wait were looked at, Unix nanoseconds.
    looked_ns: Counter<u64>,
    /// The calls whose response has not come, each after its number. They are few.
    calls: RefCell<Vec<(u32, Vec<Sent>)>>,
    /// The accounts that are scarce, as the ledger said last.
    scarce: RefCell<Box<[String]>>,
    /// When all leases were looked at, Unix nanoseconds.
    round_ns: Counter<u64>,
    /// The next id of a lease; 0 before the first.
    next_id: Counter<u64>,
    /// A watched cell has a lease that is low.
    has_low: Counter<bool>,
    /// The last call failed.
    is_down: Counter<bool>,
}

/// An order that was sent, and the cell that it is of.
struct Sent {
    cell: Name,
    account: String,
    order: Order,
}

/// A cell with shared quotas.
struct Place {
    cell: Name,
    /// The shared ones alone.
    charges: Box<[Charge]>,
    owner: Owner,
}

/// A cell that is watched.
struct Watched {
    place: Place,
    /// It was charged since all leases were looked at.
    is_touched: bool,
    /// One of its leases is low.
    is_low: bool,
}

// === impl Budgets ===

impl Budgets {
    pub(super) fn new(service: Option<LedgerService>) -> Self {
        Self { service, ..Self::default() }
    }

    /// Whether there is a ledger.
    pub(super) fn has_ledger(&self) -> bool {
        self.service.is_some()
    }

    /// Remembers that the request of a context waits.
    pub(super) fn add_waiting(&self, context: u32, key: &Rc<KnownKey>) {
        if let Ok(mut waiting) = self.waiting.try_borrow_mut() {
            waiting.push((context, Rc::clone(key)));
        }
    }

    /// Forgets the requests that do not wait any longer.
    pub(super) fn retain_waiting(&self, waits: impl Fn(u32, &KnownKey) -> bool) {
        // Nothing is borrowed while the host is called: it may call back.
        let mut waiting = self.waiting.take();
        waiting.retain(|(context, key)| waits(*context, key));
        if let Ok(mut all) = self.waiting.try_borrow_mut() {
            all.append(&mut waiting);
        }
    }

    /// Whether all requests that wait are to be looked at: a look costs host calls.
    pub(super) fn is_time_to_look(&self, now_ns: u64) -> bool {
        let is_time = now_ns.saturating_sub(self.looked_ns.get()) >= LOOK_NS;
        if is_time {
            self.looked_ns.set(now_ns);
        }
        is_time
    }

    /// How long a request waits, in nanoseconds; `None` if there is no ledger.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.service.as_ref().map(|service| nanos(service.deadline_secs))
    }

    /// Watches the leases of a key that has charged them. `is_low`: one of them is low.
    pub(super) fn watch(&self, host: &impl Host, ticker: &Ticker, key: &KnownKey, is_low: bool) {
        if let Ok(mut watched) = self.watched.try_borrow_mut() {
            watch_cell(&mut watched, key.cell_name(), key.charges(), is_low, || key_owner(key));
            if let Some(cell) = key.tenant_cell_name() {
                let charges = key.tenant_charges();
                watch_cell(&mut watched, cell, charges, is_low, || tenant_owner(key));
            }
        }
        self.has_low.set(self.has_low.get() || is_low);
        // A host without a tick orders nothing more: what is leased is spent.
        _ = ticker.hasten(host, if is_low { FAST_MILLIS } else { SLOW_MILLIS });
    }

    /// Orders the leases that a request waits for. Returns whether the orders are on their way.
    pub(super) fn order_for(
        &self,
        host: &impl Host,
        metrics: &Metrics,
        waiting: &Waiting,
        now_ns: u64,
    ) -> bool {
        let store = RecordStore::new(host, host.rules());
        let mut orders = Vec::new();
        for place in places(&waiting.asked.key) {
            let waiting = Some(&waiting.amounts);
            orders.extend(self.orders_of(host, &store, &place, waiting, now_ns).0);
        }
        metrics.count_retries(host, store.retries());
        // Another request may have ordered them.
        orders.is_empty() || self.send(host, metrics, orders)
    }

    /// The orders that are due for a cell, and whether it holds leases.
    fn orders_of<H: Host>(
        &self,
        host: &H,
        store: &RecordStore<'_, H>,
        place: &Place,
        waiting: Option<&Amounts>,
        now_ns: u64,
    ) -> (Vec<Sent>, bool) {
        let seed = self.next_ids(host, now_ns);
        let occasion = Occasion { now_ns, waiting, is_scarce: self.is_scarce(place), seed };
        let placed = store.update(&place.cell, |cell: &mut Cell| {
            let tally = cell.tally_mut();
            (tally.orders(&place.charges, &occasion), tally.holds_leases(&place.charges))
        });
        // A cell that cannot be written keeps its orders for the next time.
        let (placed, holds) = placed.unwrap_or_else(|_| (Vec::new(), true));
        (placed.into_iter().map(|placed| place.sent(placed)).collect(), holds)
    }

    /// The first of some ids that no lease has.
    fn next_ids(&self, host: &impl Host, now_ns: u64) -> u64 {
        if self.next_id.get() == 0 {
            let random = host.random().and_then(|random| random.first_chunk().copied());
            self.next_id.set(random.map_or(now_ns, u64::from_le_bytes));
        }
        self.next_id.replace(self.next_id.get().wrapping_add(IDS))
    }

    fn is_scarce(&self, place: &Place) -> bool {
        let Ok(scarce) = self.scarce.try_borrow() else { return false };
        !scarce.is_empty() && place.accounts().any(|account| scarce.contains(&account))
    }

    /// Sends orders to the ledger; without orders, asks what is scarce. Returns whether all of it is on its way.
    fn send(&self, host: &impl Host, metrics: &Metrics, mut orders: Vec<Sent>) -> bool {
        let mut is_sent = true;
        loop {
            let rest = orders.split_off(orders.len().min(MAX_ORDERS));
            is_sent &= self.send_call(host, metrics, orders);
            if rest.is_empty() {
                return is_sent;
            }
            orders = rest;
        }
    }

    fn send_call(&self, host: &impl Host, metrics: &Metrics, orders: Vec<Sent>) -> bool {
        let Some(service) = &self.service else { return false };
        let body = write_orders(orders.iter().map(|sent| (&*sent.account, &sent.order)));
        let timeout_millis = service.deadline_secs.saturating_mul(MILLIS_PER_SEC);
        let call = ServiceCall {
            cluster: &service.cluster,
            authority: &service.authority,
            path: LEASES_PATH,
            authorization: service.authorization.as_ref().map(|value| value.as_str()),
            body: body.as_bytes(),
            timeout_millis: u32::try_from(timeout_millis).unwrap_or(u32::MAX),
        };
        match host.post(&call) {
            Ok(number) => {
                if let Ok(mut calls) = self.calls.try_borrow_mut() {
                    calls.push((number, orders));
                }
                true
            }
            Err(HostError(status)) => {
                let cluster = &service.cluster;
                let cause = format!("the proxy does not call cluster {cluster}: status {status}");
                self.fail(host, metrics, &orders, &cause);
                false
            }
        }
    }

    /// Takes the response to a call to the cells whose orders it was for. Returns these cells.
    pub(super) fn respond(
        &self,
        host: &impl Host,
        metrics: &Metrics,
        number: u32,
        bytes: usize,
    ) -> Vec<Name> {
        // A call that failed at once may have a response too (Envoy: a cluster without a healthy host).
        let Some(orders) = self.take_call(number) else { return Vec::new() };
        match read_receipts(host, bytes) {
            Ok(receipts) => self.receive(host, metrics, &orders, receipts),
            Err(cause) => self.fail(host, metrics, &orders, &cause),
        }
        orders.into_iter().map(|sent| sent.cell).collect()
    }

    fn receive(
        &self,
        host: &impl Host,
        metrics: &Metrics,
        orders: &[Sent],
        Receipts { receipts, scarce }: Receipts,
    ) {
        metrics.count_ledger_call(host, true);
        if self.is_down.replace(false) {
            host.log(Level::Warn, "vkey: the ledger of budgets responds again");
        }
        let now_ns = host.now_ns().unwrap_or(0);
        let store = RecordStore::new(host, host.rules());
        for Sent { cell, account, order } in orders {
            let receipt = receipts.iter().find(|receipt| receipt.lease == order.lease);
            let others_hold = scarce.contains(account);
            // What cannot be written comes again with its order. An order without a receipt was not taken.
            _ = store.update(cell, |cell: &mut Cell| match receipt {
                Some(receipt) => cell.tally_mut().receive(receipt, others_hold, now_ns),
                None => cell.tally_mut().lose(order),
            });
        }
        metrics.count_retries(host, store.retries());
        if let Ok(mut known) = self.scarce.try_borrow_mut() {
            *known = scarce;
        }
    }

    /// The orders of a call.
    fn take_call(&self, number: u32) -> Option<Vec<Sent>> {
        let mut calls = self.calls.try_borrow_mut().ok()?;
        let place = calls.iter().position(|(of, _)| *of == number)?;
        Some(calls.swap_remove(place).1)
    }

    /// Records that the ledger did not respond to orders. They are sent again.
    #[cold]
    fn fail(&self, host: &impl Host, metrics: &Metrics, orders: &[Sent], cause: &str) {
        metrics.count_ledger_call(host, false);
        if !self.is_down.replace(true) {
            let text = ["vkey: the ledger of budgets does not respond: ", cause].concat();
            host.log(Level::Warn, &text);
        }
        let store = RecordStore::new(host, host.rules());
        for sent in orders {
            _ = store.update(&sent.cell, |cell: &mut Cell| cell.tally_mut().lose(&sent.order));
        }
    }

    /// Records that a request has waited in vain.
    pub(super) fn give_up(&self, host: &impl Host, key: &KnownKey) {
        let store = RecordStore::new(host, host.rules());
        for place in places(key) {
            let lose = |cell: &mut Cell| cell.tally_mut().lose_pending(&place.charges);
            _ = store.update(&place.cell, lose);
        }
    }

    /// Whether a request must still wait.
    pub(super) fn still_waits(&self, host: &impl Host, waiting: &Waiting, now_ns: u64) -> bool {
        let store = RecordStore::new(host, host.rules());
        let waits = |place: Place| {
            let cell = store.read::<Cell>(&place.cell).unwrap_or_default();
            cell.tally().may_wait(&place.charges, &waiting.amounts, now_ns)
        };
        now_ns < waiting.until_ns && places(&waiting.asked.key).any(waits)
    }

    /// Sends the orders that are due.
    pub(super) fn tick(&self, host: &impl Host, metrics: &Metrics, now_ns: u64) {
        let is_round = now_ns.saturating_sub(self.round_ns.get()) >= ROUND_NS;
        if !is_round && !self.has_low.get() {
            return;
        }
        self.has_low.set(false);
        // Nothing is borrowed while the host is called: it may call back.
        let mut watched = self.watched.take();
        let (mut orders, mut holds_any) = (Vec::new(), false);
        let store = RecordStore::new(host, host.rules());
        watched.retain_mut(|watched| {
            let Watched { place, is_touched, is_low } = watched;
            if !std::mem::take(is_low) && !is_round {
                return true;
            }
            let (due, holds) = self.orders_of(host, &store, place, None, now_ns);
            orders.extend(due);
            holds_any |= holds;
            let was_touched = *is_touched;
            *is_touched &= !is_round;
            holds || was_touched
        });
        metrics.count_retries(host, store.retries());
        // The host has not called back, or only the latest is watched.
        if let Ok(mut all) = self.watched.try_borrow_mut()
            && all.is_empty()
        {
            *all = watched;
        }
        if is_round {
            self.round_ns.set(now_ns);
        }
        let is_open = self.calls.try_borrow().is_ok_and(|calls| !calls.is_empty());
        // Without orders, a worker asks whether others lack what it holds.
        if !orders.is_empty() || is_round && holds_any && !is_open {
            self.send(host, metrics, orders);
        }
    }

    /// How many cells are watched.
    #[cfg(test)]
    pub(super) fn watched_len(&self) -> usize {
        self.watched.borrow().len()
    }

    /// How often the tick is needed, in milliseconds; 0: not at all.
    pub(super) fn tick_millis(&self) -> u32 {
        let has = |list: Option<usize>| list.is_some_and(|len| len > 0);
        let waits = has(self.waiting.try_borrow().ok().map(|waiting| waiting.len()));
        let watches = has(self.watched.try_borrow().ok().map(|watched| watched.len()));
        match (self.has_low.get(), waits, watches) {
            (true, ..) => FAST_MILLIS,
            (false, true, _) => WAIT_MILLIS,
            (false, false, true) => SLOW_MILLIS,
            (false, false, false) => 0,
        }
    }
}

// === impl Place ===

impl Place {
    fn new(cell: &Name, charges: &[Charge], owner: Owner) -> Self {
        Self { cell: cell.clone(), charges: shared(charges).copied().collect(), owner }
    }

    fn account(&self, unit: Unit, per: Period) -> String {
        AccountName { owner: self.owner.clone(), unit, per }.to_string()
    }

    fn accounts(&self) -> impl Iterator<Item = String> {
        let quotas = self.charges.iter().filter_map(Charge::shared_quota);
        quotas.map(|quota| self.account(quota.unit, quota.per))
    }

    fn sent(&self, PlacedOrder { unit, per, order }: PlacedOrder) -> Sent {
        Sent { cell: self.cell.clone(), account: self.account(unit, per), order }
    }
}

/// Watches a cell, if it has shared quotas.
fn watch_cell(
    watched: &mut Vec<Watched>,
    cell: &Name,
    charges: &[Charge],
    is_low: bool,
    owner: impl Fn() -> Owner,
) {
    if shared(charges).next().is_none() {
        return;
    }
    let found = watched.binary_search_by(|known| known.place.cell.as_str().cmp(cell.as_str()));
    match found.map(|place| watched.get_mut(place)) {
        Ok(Some(known)) => {
            known.is_touched = true;
            known.is_low |= is_low;
            // The key may have been minted again for another tier.
            if !shared(charges).eq(&*known.place.charges) {
                known.place = Place::new(cell, charges, owner());
            }
        }
        Ok(None) => {}
        Err(place) => {
            let known = Place::new(cell, charges, owner());
            watched.insert(place, Watched { place: known, is_touched: true, is_low });
        }
    }
}

/// The cells of a key that have shared quotas: its own, and its tenant's.
fn places(key: &KnownKey) -> impl Iterator<Item = Place> {
    let own = Place::new(key.cell_name(), key.charges(), key_owner(key));
    let of_tenant = key
        .tenant_cell_name()
        .map(|cell| Place::new(cell, key.tenant_charges(), tenant_owner(key)));
    [Some(own), of_tenant].into_iter().flatten().filter(|place| !place.charges.is_empty())
}

fn key_owner(key: &KnownKey) -> Owner {
    Owner::Key { tenant: key.tenant().to_owned(), jti: key.jti().to_owned() }
}

fn tenant_owner(key: &KnownKey) -> Owner {
    Owner::Tenant { tenant: key.tenant().to_owned() }
}

/// The charges whose quotas proxies share.
fn shared(charges: &[Charge]) -> impl Iterator<Item = &Charge> {
    charges.iter().filter(|charge| charge.shared_quota().is_some())
}

/// Reads what the ledger says.
fn read_receipts(host: &impl Host, bytes: usize) -> Result<Receipts, String> {
    match host.call_status() {
        None => return Err("no response came in time".to_owned()),
        Some(200) if bytes <= MAX_RESPONSE_BYTES => {}
        Some(status) => return Err(format!("it responds with status {status}, {bytes} bytes")),
    }
    let text = host.body(Body::CallResponse, 0, bytes).unwrap_or_default();
    Receipts::parse(&text).map_err(|invalid| format!("its response is invalid: {invalid}"))
}
