//! Requests that spend budgets, which all proxies share.

use std::cell::{Cell, RefCell};

use super::*;
use crate::audit::{Line, Mask};
use crate::decision::Decision;
use crate::host::RecordStore;
use crate::json::Json;
use crate::key::token::Unverified;
use crate::limits::cell::key_name;

const SEC_NS: u64 = 1_000_000_000;

/// The context of the gate itself.
const ROOT: u32 = 1;

/// One proxy with one worker, and a ledger that grants what is left.
struct Proxy {
    gate: Gate,
    /// What the root context calls.
    root: MemoryHost,
    now_ns: Cell<u64>,
    /// What the ledger has.
    left: Cell<u64>,
    /// The number of calls that all hosts have made so far.
    calls: Cell<usize>,
    is_reachable: Cell<bool>,
    /// An item for each request whose record says that it was charged without the ledger.
    locals: RefCell<Vec<()>>,
}

/// A request under way.
struct Sent {
    host: MemoryHost,
    exchange: Exchange,
    context: u32,
    action: Action,
}

impl Proxy {
    fn new(quota: &str, budget: u64) -> Self {
        Self::with("", quota, budget)
    }

    /// `more`: further members of the configuration.
    fn with(more: &str, quota: &str, budget: u64) -> Self {
        let config = format!(
            r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}], {more}
                "ledger": {{"cluster": "ledger", "key": "${{S}}"}},
                "tiers": {{"default": {{"quotas": [{quota}]}}}}}}"#
        );
        let config = Config::parse(config.as_bytes()).unwrap();
        let plan = config.compile(|_| Some(SECRET.to_owned())).unwrap();
        let policy = include_bytes!("../../../filters/vkey/upstream-tls.json");
        Self {
            gate: Gate::open(plan, Policy::parse(policy).unwrap()),
            root: MemoryHost::new(MemoryStore::new(Rules::Envoy)),
            now_ns: Cell::new(1_000 * SEC_NS),
            left: Cell::new(budget),
            calls: Cell::new(0),
            is_reachable: Cell::new(true),
            locals: RefCell::default(),
        }
    }

    fn of_requests(budget: u64, more: &str) -> Self {
        let quota = format!(r#"{{"requests": {budget}, "per": "day", "scope": "cluster"{more}}}"#);
        Self::new(&quota, budget)
    }

    /// Gives a host the present time, and numbers its calls after all others.
    fn prepare(&self, host: &MemoryHost) {
        host.now_ns.set(Some(self.now_ns.get()));
        host.makes_calls.set(self.is_reachable.get());
        host.calls.replace(vec![String::new(); self.calls.get()]);
    }

    /// The calls that a host has made, by their numbers.
    fn calls_of(&self, host: &MemoryHost) -> Vec<(u32, String)> {
        let calls = host.calls.take();
        let new = calls.into_iter().enumerate().skip(self.calls.get());
        let new: Vec<_> =
            new.map(|(index, body)| (u32::try_from(index + 1).unwrap(), body)).collect();
        self.calls.set(self.calls.get() + new.len());
        new
    }

    /// A request that is sent, and what it asks the ledger.
    fn send(&self) -> (Sent, Vec<(u32, String)>) {
        self.send_with(&token())
    }

    fn send_with(&self, token: &str) -> (Sent, Vec<(u32, String)>) {
        let shown = host(Some(token));
        let host = MemoryHost::new(self.root.store().clone());
        host.headers.replace(shown.headers.take());
        self.prepare(&host);
        let (mut exchange, context) = (Exchange::default(), 7);
        let opening = Opening { context, is_whole: true };
        let action = self.gate.on_request_headers(&host, &mut exchange, opening);
        let calls = self.calls_of(&host);
        (Sent { host, exchange, context, action }, calls)
    }

    /// Takes the response to a call, and looks at a request that waits.
    fn respond(&self, (number, status): (u32, Option<u16>), body: &str, sent: Option<&mut Sent>) {
        self.prepare(&self.root);
        self.root.call_status.set(status);
        self.root.call_response.push(body);
        self.root.call_response.arrive();
        let sent = RefCell::new(sent);
        self.gate.on_call_response(&self.root, ROOT, (number, body.len()), |context| {
            let mut sent = sent.borrow_mut();
            let Some(sent) = sent.as_mut().filter(|sent| sent.context == context) else {
                return Action::Continue;
            };
            self.gate.on_tick(&sent.host, &mut sent.exchange)
        });
        self.root.call_response.pass();
    }

    /// The ledger grants what it has.
    fn grant(&self, calls: Vec<(u32, String)>, mut sent: Option<&mut Sent>) {
        for (number, body) in calls {
            let orders = Json::parse(body.as_bytes()).unwrap();
            let Some(Json::Array(orders)) = orders.get("orders") else { panic!("{body}") };
            let receipts: Vec<String> = orders.iter().map(|order| self.receipt(order)).collect();
            let response = format!(r#"{{"receipts":[{}],"scarce":[]}}"#, receipts.join(","));
            self.respond((number, Some(200)), &response, sent.as_deref_mut());
        }
    }

    fn receipt(&self, order: &Json) -> String {
        let number = |name| order.get(name).and_then(Json::as_u64).unwrap();
        let grant = number("want").min(self.left.get());
        self.left.set(self.left.get() - grant);
        format!(
            r#"{{"lease":"{}","number":{},"granted":{},"left":{}}}"#,
            order.get("lease").and_then(Json::as_str).unwrap(),
            number("number"),
            number("granted") + grant,
            self.left.get(),
        )
    }

    fn tick(&self, sent: Option<&mut Sent>) -> Vec<(u32, String)> {
        self.prepare(&self.root);
        let looked = RefCell::new(sent);
        self.gate.tick(&self.root, ROOT, |_| {
            let mut sent = looked.borrow_mut();
            let Some(sent) = sent.as_mut() else { return Action::Continue };
            sent.host.now_ns.set(Some(self.now_ns.get()));
            self.gate.on_tick(&sent.host, &mut sent.exchange)
        });
        self.calls_of(&self.root)
    }

    fn pass(&self, ns: u64) {
        self.now_ns.set(self.now_ns.get() + ns);
    }

    /// A request that must not wait, and its reason.
    fn outcome(&self) -> Option<DenyReason> {
        let (sent, calls) = self.send();
        assert!(calls.is_empty(), "{calls:?}");
        let record = sent.exchange.decided().expect("it is decided").record();
        let written = record.write(&Mask::default());
        assert_eq!(written.contains(r#","budget":"local","#), record.is_local, "{written}");
        self.locals.borrow_mut().extend(record.is_local.then_some(()));
        sent.reason()
    }
}

impl Sent {
    /// Why it is refused; `None` if it is forwarded.
    fn reason(&self) -> Option<DenyReason> {
        assert!(!matches!(self.exchange, Exchange::Waiting(_)), "it waits");
        let decided = self.exchange.decided().expect("it is decided");
        match decided.outcome().decision.unwrap() {
            Decision::Deny(reason) => Some(reason),
            decision => {
                assert!(self.exchange.is_forwarded() && decision.forwards());
                None
            }
        }
    }
}

#[test]
fn the_first_request_waits_for_its_lease_and_no_other() {
    let proxy = Proxy::of_requests(1000, "");
    let (mut first, calls) = proxy.send();
    assert_eq!((first.action, calls.len()), (Action::Pause, 1));
    assert!(matches!(first.exchange, Exchange::Waiting(_)) && first.host.reply.take().is_none());
    assert!(calls[0].1.contains(r#""account":"key/acme/k/requests/day""#), "{calls:?}");
    proxy.grant(calls, Some(&mut first));
    assert!(first.host.resumed.get());
    assert_eq!(first.reason(), None);
    assert_eq!(proxy.left.get(), 1000 - 15, "a sixty-fourth of the budget");
    for _ in 0..14 {
        assert_eq!(proxy.outcome(), None);
    }
    assert_eq!(proxy.outcome(), Some(DenyReason::LeaseSpent));
}

#[test]
fn the_tick_orders_more_before_a_lease_is_spent() {
    let proxy = Proxy::of_requests(100_000, "");
    let (mut first, calls) = proxy.send();
    proxy.grant(calls, Some(&mut first));
    let mut calls = 0;
    for _ in 0..200 {
        for _ in 0..100 {
            assert_eq!(proxy.outcome(), None);
        }
        proxy.pass(SEC_NS / 100);
        let ordered = proxy.tick(None);
        calls += ordered.len();
        proxy.grant(ordered, None);
    }
    assert!(calls <= 40, "{calls} calls for 20 000 requests in 2 s");
}

#[test]
fn a_budget_is_spent_to_its_end_and_then_refused_until_the_window_ends() {
    let proxy = Proxy::of_requests(50, "");
    let (mut first, calls) = proxy.send();
    proxy.grant(calls, Some(&mut first));
    let (mut passed, mut spent) = (1, false);
    for _ in 0..400 {
        match proxy.outcome() {
            None => passed += 1,
            Some(DenyReason::Quota) => spent = true,
            Some(reason) => assert_eq!(reason, DenyReason::LeaseSpent),
        }
        proxy.pass(SEC_NS / 20);
        let ordered = proxy.tick(None);
        proxy.grant(ordered, None);
    }
    assert_eq!((passed, spent, proxy.left.get()), (50, true, 0));
    let (sent, _) = proxy.send();
    let reply = sent.host.reply.take().unwrap();
    let wait = reply.headers.iter().find(|(name, _)| name == "retry-after");
    assert!(wait.is_some_and(|(_, secs)| secs.parse::<u64>().unwrap() > 3600), "{reply:?}");
}

#[test]
fn what_is_not_needed_goes_back_and_the_next_request_waits_again() {
    let proxy = Proxy::of_requests(1000, "");
    let (mut first, calls) = proxy.send();
    proxy.grant(calls, Some(&mut first));
    proxy.pass(SEC_NS);
    assert_eq!(proxy.tick(None).len(), 1, "a worker without orders asks what is scarce");
    proxy.pass(SEC_NS * 61);
    let ordered = proxy.tick(None);
    assert_eq!(ordered.len(), 1);
    assert!(ordered[0].1.contains(r#""granted":1,"used":1,"need":0,"want":0"#), "{ordered:?}");
    proxy.grant(ordered, None);
    proxy.pass(SEC_NS);
    assert_eq!(proxy.tick(None).len(), 0);
    proxy.pass(SEC_NS);
    proxy.tick(None);
    assert_eq!(proxy.root.tick_millis.get(), 0, "nothing is left to do");
    let (mut again, calls) = proxy.send();
    assert!(matches!(again.exchange, Exchange::Waiting(_)));
    proxy.grant(calls, Some(&mut again));
    assert_eq!(again.reason(), None);
}

#[test]
fn a_lost_ledger_refuses_what_is_not_leased_and_may_leave_a_part_to_each_proxy() {
    for (more, extra) in [("", 0), (r#", "on_loss": "local", "local_percent": 2"#, 20)] {
        let proxy = Proxy::of_requests(1000, more);
        let (mut first, calls) = proxy.send();
        proxy.grant(calls, Some(&mut first));
        proxy.is_reachable.set(false);
        proxy.pass(SEC_NS);
        let mut passed = 1;
        for _ in 0..100 {
            proxy.pass(SEC_NS / 50);
            match proxy.outcome() {
                None => passed += 1,
                Some(DenyReason::LeaseSpent) if passed <= 15 => {}
                Some(reason) => assert_eq!(reason, DenyReason::LedgerLost),
            }
            proxy.tick(None);
        }
        assert_eq!(passed, 15 + extra);
        assert_eq!(proxy.locals.take().len() as u64, extra, "records say so of each such request");
        let log = proxy.root.log.take();
        let said = log.iter().filter(|(_, line)| line.contains("does not respond")).count();
        assert_eq!(said, 1, "said once");
        proxy.is_reachable.set(true);
        proxy.pass(SEC_NS);
        // The order without a receipt comes again as it was, and then one that says what was spent since.
        let mut told = String::new();
        for _ in 0..3 {
            let ordered = proxy.tick(None);
            told.extend(ordered.iter().map(|(_, body)| body.as_str()));
            proxy.grant(ordered, None);
            proxy.pass(SEC_NS);
        }
        assert!(told.contains(&format!(r#""used":{passed},"#)), "{told}");
    }
}

#[test]
fn a_request_waits_no_longer_than_the_deadline() {
    let proxy = Proxy::of_requests(1000, "");
    let (mut first, calls) = proxy.send();
    assert_eq!(calls.len(), 1);
    proxy.pass(SEC_NS / 2);
    proxy.tick(Some(&mut first));
    assert!(matches!(first.exchange, Exchange::Waiting(_)));
    proxy.pass(SEC_NS / 2);
    proxy.tick(Some(&mut first));
    assert_eq!(first.reason(), Some(DenyReason::LedgerLost));
    assert_eq!(first.host.reply.take().unwrap().status, 503);
    assert_eq!(proxy.outcome(), Some(DenyReason::LedgerLost), "the next one does not wait");
}

#[test]
fn a_response_that_is_no_receipt_is_the_same_as_none() {
    for (status, body) in
        [(None, ""), (Some(503), "{}"), (Some(200), "{}"), (Some(200), "receipts"), (Some(401), "")]
    {
        let proxy = Proxy::of_requests(1000, "");
        let (mut first, calls) = proxy.send();
        proxy.respond((calls[0].0, status), body, Some(&mut first));
        assert_eq!(first.reason(), Some(DenyReason::LedgerLost), "{status:?} {body}");
    }
}

#[test]
fn a_client_that_leaves_while_it_waits_is_charged_nothing() {
    let proxy = Proxy::of_requests(1000, "");
    let (mut first, calls) = proxy.send();
    proxy.gate.on_log(&first.host, &mut first.exchange);
    let log = first.host.log.take();
    let line = log.iter().find_map(|(_, line)| Line::parse(line).ok()).expect("an audit line");
    let decision = line.record.and_then(|record| record.decision);
    assert_eq!(decision, Some(Decision::Deny(DenyReason::LeaseSpent)));
    proxy.grant(calls, Some(&mut first));
    for _ in 0..15 {
        assert_eq!(proxy.outcome(), None);
    }
}

#[test]
fn a_ledger_is_needed_where_a_quota_is_shared() {
    let quota = r#"{"requests": 1, "per": "day", "scope": "cluster"}"#;
    let config = format!(
        r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}],
            "tenants": {{"acme": {{"quotas": [{quota}]}}}}}}"#
    );
    let invalid = Config::parse(config.as_bytes()).unwrap_err().to_string();
    assert!(invalid.starts_with("ledger: a quota has"), "{invalid}");
}

#[test]
fn what_is_refunded_after_the_lease_went_back_is_told_to_the_ledger() {
    let quota = r#"{"requests": 1000, "per": "day", "scope": "cluster"}"#;
    let proxy = Proxy::with(r#""limits": {"cluster": true},"#, quota, 1000);
    let (mut first, calls) = proxy.send();
    proxy.grant(calls, Some(&mut first));
    for _ in 0..80 {
        proxy.pass(SEC_NS);
        let ordered = proxy.tick(None);
        proxy.grant(ordered, None);
    }
    assert_eq!(proxy.root.tick_millis.get(), 0, "nothing is left to do");
    proxy.prepare(&first.host);
    first.host.show(Property::ResponseCodeDetails.path(), "request_rate_limited");
    proxy.gate.on_response_headers(&first.host, &mut first.exchange);
    assert!(first.host.tick_millis.get() > 0);
    proxy.pass(SEC_NS);
    let ordered = proxy.tick(None);
    assert!(ordered[0].1.contains(r#""used":0,"#), "{ordered:?}");
}

/// The ledger listens no longer than a day to a window that has ended.
#[test]
fn a_lease_of_long_ago_keeps_no_request_back() {
    let proxy = Proxy::of_requests(1000, "");
    let (mut first, calls) = proxy.send();
    proxy.grant(calls, Some(&mut first));
    proxy.pass(3 * 86_400 * SEC_NS);
    let (mut again, calls) = proxy.send();
    assert_eq!(calls[0].1.matches("lease").count(), 1, "{calls:?}");
    proxy.grant(calls, Some(&mut again));
    assert_eq!(again.reason(), None);
}

#[test]
fn an_order_without_a_receipt_is_lost_and_the_others_are_not() {
    let quotas = r#"{"requests": 1000, "per": "day", "scope": "cluster"},
        {"requests": 9000, "per": "month", "scope": "cluster"}"#;
    let proxy = Proxy::new(quotas, 100_000);
    let (mut first, calls) = proxy.send();
    let orders = Json::parse(calls[0].1.as_bytes()).unwrap();
    let Some(Json::Array(orders)) = orders.get("orders") else { panic!("{calls:?}") };
    let response = format!(r#"{{"receipts":[{}],"scarce":[]}}"#, proxy.receipt(&orders[0]));
    proxy.respond((calls[0].0, Some(200)), &response, Some(&mut first));
    assert_eq!(first.reason(), Some(DenyReason::LedgerLost));
    proxy.pass(SEC_NS);
    let again = proxy.tick(None);
    let month = r#""account":"key/acme/k/requests/month","lease":"000000e8d4a51001","number":1,"#;
    assert!(again[0].1.contains(month), "{again:?}");
    proxy.grant(again, None);
    assert_eq!(proxy.outcome(), None);
}

#[test]
fn what_the_ledger_said_long_ago_is_asked_again() {
    let proxy = Proxy::of_requests(8, "");
    let (mut first, calls) = proxy.send();
    proxy.grant(calls, Some(&mut first));
    for _ in 0..7 {
        assert_eq!(proxy.outcome(), None);
    }
    proxy.pass(SEC_NS);
    let ordered = proxy.tick(None);
    proxy.grant(ordered, None);
    assert_eq!(proxy.outcome(), Some(DenyReason::Quota));
    // Another proxy gives something back.
    proxy.pass(3600 * SEC_NS);
    proxy.left.set(3);
    assert_eq!(
        proxy.send().0.reason(),
        Some(DenyReason::LeaseSpent),
        "that is not known to be all"
    );
    let ordered = proxy.tick(None);
    proxy.grant(ordered, None);
    assert_eq!(proxy.outcome(), None);
}

/// While others hold something, nobody is told to wait until the window ends.
#[test]
fn what_others_hold_may_come_soon() {
    let proxy = Proxy::of_requests(8, "");
    let (mut first, calls) = proxy.send();
    let order = Json::parse(calls[0].1.as_bytes()).unwrap();
    let Some(Json::Array(orders)) = order.get("orders") else { panic!("{calls:?}") };
    proxy.left.set(0);
    let receipt = proxy.receipt(&orders[0]);
    let scarce = r#""key/acme/k/requests/day""#;
    let response = format!(r#"{{"receipts":[{receipt}],"scarce":[{scarce}]}}"#);
    proxy.respond((calls[0].0, Some(200)), &response, Some(&mut first));
    assert_eq!(first.reason(), Some(DenyReason::LeaseSpent));
}

/// Each minute has a lease of its own. The counts of the cell must survive whatever the ledger does not take.
#[test]
fn leases_that_are_never_told_do_not_fill_the_cell() {
    let quota = r#"{"requests": 5, "per": "minute", "scope": "cluster"}"#;
    let proxy = Proxy::new(quota, 5);
    proxy.is_reachable.set(false);
    for minute in 1..=300 {
        let (sent, _) = proxy.send();
        assert_eq!(sent.reason(), Some(DenyReason::LedgerLost));
        let store = RecordStore::new(&proxy.root, Rules::Envoy);
        let cell = store.read::<crate::limits::cell::Cell>(&key_name("acme", "k")).unwrap();
        assert_eq!(cell.seen(), minute);
        proxy.pass(60 * SEC_NS);
    }
}

/// Who narrows a key makes new keys of the same cell.
#[test]
fn a_cell_is_watched_once_whatever_keys_it_has() {
    let proxy = Proxy::of_requests(1000, "");
    let (mut first, calls) = proxy.send();
    proxy.grant(calls, Some(&mut first));
    let parent = token();
    for number in 0..10 {
        let child = Unverified::parse(parent.as_bytes()).unwrap();
        let caveat = format!(r#"{{"paths":["/v1","/{number}"]}}"#);
        let child = child.attenuate(caveat.as_bytes()).unwrap();
        assert_eq!(proxy.send_with(&child).0.reason(), None);
    }
    proxy.pass(SEC_NS);
    assert_eq!(proxy.gate.budgets.watched_len(), 1);
}

/// A window that begins finds its lease there, so no request of a key in use waits for it.
#[test]
fn the_next_window_is_leased_before_it_begins() {
    let quota = r#"{"requests": 600, "per": "minute", "scope": "cluster"}"#;
    let proxy = Proxy::new(quota, 100_000);
    proxy.now_ns.set(1_200 * SEC_NS + 55 * SEC_NS);
    let (mut first, calls) = proxy.send();
    proxy.grant(calls, Some(&mut first));
    for _ in 0..20 {
        proxy.pass(SEC_NS / 2);
        assert_eq!(proxy.outcome(), None, "at {} ns", proxy.now_ns.get());
        let ordered = proxy.tick(None);
        proxy.grant(ordered, None);
    }
    assert!(proxy.now_ns.get() > 1_260 * SEC_NS, "the window has turned");
}

/// Envoy calls back about a call that it refused to send.
#[test]
fn a_response_to_no_call_changes_nothing() {
    let proxy = Proxy::of_requests(1000, "");
    let (mut first, calls) = proxy.send();
    proxy.grant(calls, Some(&mut first));
    proxy.respond((99, None), "", None);
    assert!(proxy.root.log.take().is_empty());
    assert_eq!(proxy.outcome(), None);
}
