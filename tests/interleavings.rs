//! Every order in which the calls of several workers can reach the shared data, for requests on one
//! key, on keys of one tenant, on children of one key.
//!
//! A worker is the library's own code. It is run again from its start for each step, with the answers it
//! had so far, up to the first call that has no answer yet; that call is made, and its answer kept. So a
//! search over the orders needs no threads and misses none. A round that another worker got ahead of
//! leaves no trace in a worker but the count of its tries, so its answers are dropped, and states that
//! were met before are not searched again.

#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]

use std::cell::{Cell as Place, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use vkey::config::Config;
use vkey::decision::{Decision, DenyClass, DenyReason};
use vkey::engine::Engine;
use vkey::exchange::Refund;
use vkey::gate::{Admission, end_session};
use vkey::host::{HostError, MemoryStore, RecordStore, Rules, SharedData, WriteError};
use vkey::key::Key;
use vkey::key::keyring::{Ring, RingState, Secret};
use vkey::key::token::{Kid, Unverified, mint};
use vkey::limits::cell::{Cell, key_name, tenant_name};
use vkey::limits::sessions::{SessionId, Sessions, sessions_name};
use vkey::record::{Name, Record, encode};

const SECRET: &str = "Interleavings-1-all-of-them";

/// Some time in 2026, in nanoseconds.
const NOW_NS: u64 = 1_790_000_000_000_000_000;

/// A year, for limits that do not come back in a test.
const SLOW: &str = r#""per": "365d""#;

// === what the workers do ===

/// What a worker runs for its request, over whatever stands for the shared data.
type Work = fn(&RecordStore<'_, Replay<'_>>, &Engine, &Key, u64) -> Decision;

fn admit(store: &RecordStore<'_, Replay<'_>>, engine: &Engine, key: &Key, now_ns: u64) -> Decision {
    Admission::new(store, engine, key, None, now_ns).admit(Decision::Allow).decision
}

/// Why a request is refused that was sent, and so stays charged.
const SENT: DenyReason = DenyReason::UpstreamPin;

/// Admission, and then something that keeps the request from going on, or its response from the client.
fn admit_and_withdraw(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &Key,
    now_ns: u64,
) -> Decision {
    let admission = Admission::new(store, engine, key, None, now_ns);
    let admitted = admission.admit(Decision::Allow);
    let (reason, refund) = match key.claims().jti.as_str() {
        "taken_back" => (DenyReason::NotReady, Refund::Everything),
        "sent" => (SENT, Refund::Nothing),
        _ => return admitted.decision,
    };
    if !admitted.decision.forwards() {
        return admitted.decision;
    }
    admission.withdraw(&admitted.reservations, reason, refund).unwrap();
    Decision::Deny(reason)
}

fn session() -> SessionId {
    SessionId::parse(b"s-1", "gw.example", "/mcp").unwrap()
}

/// The end of a session, free where its key has opened it.
fn end(store: &RecordStore<'_, Replay<'_>>, engine: &Engine, key: &Key, now_ns: u64) -> Decision {
    end_once(store, engine, key, now_ns, end_session(store, key, session()))
}

/// The same with the mistake of deciding by what was read before the session was ended.
fn look_then_end(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &Key,
    now_ns: u64,
) -> Decision {
    let claims = key.claims();
    let name = sessions_name(&claims.tenant, &claims.jti);
    let is_open = store.read::<Sessions>(&name).unwrap().holds(session());
    if is_open {
        store.update(&name, |sessions: &mut Sessions| sessions.end(session())).unwrap();
    }
    end_once(store, engine, key, now_ns, is_open)
}

fn end_once(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &Key,
    now_ns: u64,
    is_free: bool,
) -> Decision {
    let admission = Admission::new(store, engine, key, None, now_ns);
    let admission = if is_free { admission.free_of_charge() } else { admission };
    admission.admit(Decision::Allow).decision
}

fn cell_name(key: &Key) -> Name {
    key_name(&key.claims().tenant, &key.claims().jti)
}

/// Admission with the mistake of deciding by what was read before the loop.
fn check_then_count(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &Key,
    now_ns: u64,
) -> Decision {
    let charges = engine.key_charges(key);
    let name = cell_name(key);
    let mode = engine.settings().mode;
    let mut before: Cell = store.read(&name).unwrap();
    let decision = before.count(Decision::Allow, &charges, None, now_ns, mode).decision;
    let count = |cell: &mut Cell| {
        let charges = if decision.forwards() { &*charges } else { &[] };
        _ = cell.count(decision, charges, None, now_ns, mode);
    };
    store.update(&name, count).unwrap();
    decision
}

/// Admission with the mistake of keeping what the tenant's refusal should give back.
fn keep_the_charge(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &Key,
    now_ns: u64,
) -> Decision {
    let mode = engine.settings().mode;
    let [of_key, of_tenant] = [
        (cell_name(key), engine.key_charges(key)),
        (tenant_name(&key.claims().tenant), engine.tenant_charges(&key.claims().tenant)),
    ]
    .map(|(name, charges)| {
        let count =
            |cell: &mut Cell| cell.count(Decision::Allow, &charges, None, now_ns, mode).decision;
        store.update(&name, count).unwrap()
    });
    if of_key.forwards() { of_tenant } else { of_key }
}

// === one step of one worker ===

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Read(String, Option<(Vec<u8>, u32)>),
    Written,
    Mismatch,
}

/// The shared data as a worker meets it that is run again.
struct Replay<'a> {
    store: &'a MemoryStore,
    answers: &'a [Answer],
    given: Place<usize>,
    fresh: RefCell<Option<Answer>>,
    /// Every `cas` that is never issued becomes 0.
    create_with_zero: bool,
    /// What is put in the place of garbage overwrites whatever is there.
    reset_with_zero: bool,
}

/// The worker has come as far as it can in this step.
struct Suspended;

impl Replay<'_> {
    fn answer(&self, call: impl FnOnce() -> Answer) -> Answer {
        let index = self.given.replace(self.given.get() + 1);
        if let Some(answer) = self.answers.get(index) {
            return answer.clone();
        }
        if self.fresh.borrow().is_some() {
            // Without the hook that would print a message.
            resume_unwind(Box::new(Suspended));
        }
        let answer = call();
        *self.fresh.borrow_mut() = Some(answer.clone());
        answer
    }
}

impl SharedData for Replay<'_> {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        let read = || Answer::Read(name.to_owned(), self.store.shared_data(name).unwrap());
        match self.answer(read) {
            Answer::Read(_, record) => Ok(record),
            answer => panic!("{answer:?} for a read"),
        }
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        let resets = record == encode(&key_name("acme", "k"), &Cell::default());
        let overwrites =
            (self.create_with_zero && cas == u32::MAX) || (self.reset_with_zero && resets);
        let cas = if overwrites { 0 } else { cas };
        let write = || match self.store.set_shared_data(name, record, cas) {
            Ok(()) => Answer::Written,
            Err(WriteError::CasMismatch) => Answer::Mismatch,
            Err(error) => panic!("{error:?}"),
        };
        match self.answer(write) {
            Answer::Written => Ok(()),
            Answer::Mismatch => Err(WriteError::CasMismatch),
            answer => panic!("{answer:?} for a write"),
        }
    }
}

// === all orders ===

/// Requests that several workers get at once, one each.
struct Search {
    engine: Engine,
    host: Rules,
    /// The rules that workers go by; `None`: each finds them out.
    told: Option<Rules>,
    keys: Vec<Rc<Key>>,
    /// How far the clock of each worker is ahead of the one before.
    step_ns: u64,
    work: Work,
    /// A record that is there before.
    planted: Option<(&'static str, Vec<u8>)>,
    create_with_zero: bool,
    reset_with_zero: bool,
    counts_tenants: bool,
    /// How many of the requests, and of any number of later ones, the limits have room for.
    room: usize,
    met: BTreeSet<Vec<u8>>,
    ends: usize,
    violations: Vec<String>,
}

#[derive(Clone)]
struct Worker {
    answers: Vec<Answer>,
    decision: Option<Decision>,
}

impl Search {
    fn new(config: &str, keys: &[String], room: usize) -> Self {
        let ring = format!(r#""keyring": [{{"name": "main", "secret": "${{S}}"}}], {config}"#);
        let config = Config::parse(format!("{{{ring}}}").as_bytes()).unwrap();
        let plan = config.compile(|_| Some(SECRET.to_owned())).unwrap();
        let key = |token: &String| {
            let unverified = Unverified::parse(token.as_bytes()).unwrap();
            Rc::new(Key::verify(unverified, &plan.keyring).unwrap())
        };
        let keys = keys.iter().map(key).collect();
        Self {
            engine: Engine::new(plan),
            host: Rules::Envoy,
            told: Some(Rules::Envoy),
            keys,
            step_ns: 1_000_000,
            work: admit,
            planted: None,
            create_with_zero: false,
            reset_with_zero: false,
            counts_tenants: true,
            room,
            met: BTreeSet::new(),
            ends: 0,
            violations: Vec::new(),
        }
    }

    fn over(mut self, (host, told): (Rules, Option<Rules>)) -> Self {
        (self.host, self.told) = (host, told);
        self
    }

    fn run(mut self) -> Self {
        let store = MemoryStore::new(self.host);
        if let Some((name, record)) = &self.planted {
            store.set_shared_data(name, record, 0).unwrap();
        }
        let worker = Worker { answers: Vec::new(), decision: None };
        self.visit(&store, &vec![worker; self.keys.len()]);
        self
    }

    fn visit(&mut self, store: &MemoryStore, workers: &[Worker]) {
        if !self.met.insert(fingerprint(store, workers)) {
            return;
        }
        let mut busy = false;
        for index in 0..workers.len() {
            if workers[index].decision.is_some() {
                continue;
            }
            busy = true;
            let store = store.fork();
            let mut workers = workers.to_vec();
            self.step(&store, &mut workers[index], index);
            self.visit(&store, &workers);
        }
        if !busy {
            self.ends += 1;
            self.check(store, workers);
        }
    }

    fn step(&self, store: &MemoryStore, worker: &mut Worker, index: usize) {
        let replay = Replay {
            store,
            answers: &worker.answers,
            given: Place::new(0),
            fresh: RefCell::new(None),
            create_with_zero: self.create_with_zero,
            reset_with_zero: self.reset_with_zero,
        };
        let key = &self.keys[index];
        let now_ns = NOW_NS + self.step_ns * index as u64;
        let run = || {
            let rules = self.told.unwrap_or_else(|| Rules::find(&replay).unwrap());
            (self.work)(&RecordStore::new(&replay, rules), &self.engine, key, now_ns)
        };
        let run = catch_unwind(AssertUnwindSafe(run));
        worker.decision = match run {
            Ok(decision) => Some(decision),
            Err(payload) if payload.is::<Suspended>() => None,
            Err(payload) => resume_unwind(payload),
        };
        let answer = replay.fresh.into_inner();
        // The round starts again with its read; not so where it began with an earlier look, or has to find
        // out the rules of the host.
        let began_with_read = matches!(worker.answers.last(), Some(Answer::Read(..)));
        match answer.expect("a step makes a call") {
            Answer::Mismatch if began_with_read && self.told.is_some() => {
                worker.answers.pop();
            }
            answer => worker.answers.push(answer),
        }
    }

    /// What holds when all have finished, whatever the order was.
    fn check(&mut self, store: &MemoryStore, workers: &[Worker]) {
        let decisions: Vec<Decision> = workers.iter().flat_map(|worker| worker.decision).collect();
        let sent = |decision: &&Decision| decision.forwards() || **decision == Decision::Deny(SENT);
        let charged = decisions.iter().filter(sent).count();
        let counted = self.count_cells(store, &decisions);
        // Nothing leaked and nothing is left over: later requests, one after the other, get exactly what
        // remains.
        let later = self.admit_later(store);
        for (holds, what) in [
            (charged <= self.room, "more got in than there is room for"),
            (charged + later == self.room, "the room left is not what was not used"),
            (counted, "the counts are not those of the decisions"),
        ] {
            if !holds {
                self.violations.push(format!("{what}: {decisions:?}, {later} later"));
            }
        }
    }

    fn count_cells(&self, store: &MemoryStore, decisions: &[Decision]) -> bool {
        let records = RecordStore::new(store, self.host);
        let adds_up = |name, belongs: &dyn Fn(&Key) -> bool| {
            let cell: Cell = records.read(&name).unwrap();
            let own = || self.keys.iter().zip(decisions).filter(|(key, _)| belongs(key));
            let count = |wanted: &dyn Fn(&Decision) -> bool| {
                own().filter(|(_, decision)| wanted(decision)).count() as u64
            };
            let classes = DenyClass::ALL.map(|class| {
                count(&|decision| {
                    !decision.forwards() && decision.reason().unwrap().class() == class
                })
            });
            let denied: Vec<u64> = cell.denied().map(|(_, count)| count).collect();
            cell.seen() == own().count() as u64
                && cell.allowed() == count(&|decision| decision.forwards())
                && denied == classes
        };
        self.keys.iter().all(|key| {
            let claims = key.claims();
            adds_up(cell_name(key), &|other| cell_name(other) == cell_name(key))
                && (!self.counts_tenants
                    || adds_up(tenant_name(&claims.tenant), &|other| {
                        other.claims().tenant == claims.tenant
                    }))
        })
    }

    fn admit_later(&self, store: &MemoryStore) -> usize {
        let store = store.fork();
        let records = RecordStore::new(&store, self.host);
        let admit = |key: &Rc<Key>| {
            let admission = Admission::new(&records, &self.engine, key, None, NOW_NS);
            admission.admit(Decision::Allow).decision.forwards()
        };
        (0..self.room + 1).map(|_| self.keys.iter().filter(|key| admit(key)).count()).sum()
    }

    #[track_caller]
    fn hold(self) {
        let Self { ends, violations, .. } = self.run();
        println!("{ends} ends");
        assert!(ends > 1);
        assert_eq!(violations, [""; 0]);
    }

    #[track_caller]
    fn fail(self, what: &str) {
        let Self { ends, violations, .. } = self.run();
        println!("{} violations at {ends} ends", violations.len());
        assert!(violations.iter().any(|violation| violation.starts_with(what)), "{violations:?}");
    }
}

/// What a state comes to: what the records hold, and what each worker has read and done. A number that
/// is only compared matters as far as it is the present one.
fn fingerprint(store: &MemoryStore, workers: &[Worker]) -> Vec<u8> {
    let mut text = String::new();
    let mut names = BTreeSet::new();
    for worker in workers {
        text += &format!("{:?}", worker.decision);
        for answer in &worker.answers {
            let Answer::Read(name, record) = answer else {
                text += &format!("{answer:?};");
                continue;
            };
            let present = store.shared_data(name).unwrap().map(|(_, cas)| cas);
            let current = record.as_ref().map(|(_, cas)| *cas) == present;
            text += &format!("{name} {:?} {current};", record.as_ref().map(|(bytes, _)| bytes));
            names.insert(name);
        }
    }
    for name in names {
        let record = store.shared_data(name).unwrap().map(|(record, _)| record);
        text += &format!("{name} {record:?}");
    }
    text.into_bytes()
}

// === keys ===

fn ring() -> (Ring, Kid) {
    let secret = Secret::parse(SECRET).unwrap();
    let ring = Ring::new("main", &secret, RingState::Active, None).unwrap();
    let kid = ring.kid_at(0).unwrap();
    (ring, kid)
}

fn token(jti: &str) -> String {
    let (ring, kid) = ring();
    let claims = format!(r#"{{"jti":"{jti}","tenant":"acme","iat":1780000000,"exp":1900000000}}"#);
    mint(&ring.signing_key(&kid), &kid, claims.as_bytes())
}

fn child(jti: &str, caveat: &str) -> String {
    let token = token(jti);
    Unverified::parse(token.as_bytes()).unwrap().attenuate(caveat.as_bytes()).unwrap()
}

fn rate(requests: u32) -> String {
    format!(r#""rate": {{"requests": {requests}, {SLOW}}}"#)
}

fn quota(requests: u32) -> String {
    format!(r#""quotas": [{{"requests": {requests}, "per": "total"}}]"#)
}

fn of_tier(limit: &str) -> String {
    format!(r#""tiers": {{"default": {{{limit}}}}}"#)
}

fn of_both(tier: &str, tenant: &str) -> String {
    format!(r#"{}, "tenants": {{"acme": {{{tenant}}}}}"#, of_tier(tier))
}

// === the tests ===

/// The rules of the host, and those that workers are told; where there are none they find them out.
const TOLD: [(Rules, Option<Rules>); 2] =
    [(Rules::Envoy, Some(Rules::Envoy)), (Rules::Nginx, Some(Rules::Nginx))];
const FOUND_OUT: [(Rules, Option<Rules>); 2] = [(Rules::Envoy, None), (Rules::Nginx, None)];

#[test]
fn two_workers_on_one_key() {
    for rules in TOLD.into_iter().chain(FOUND_OUT) {
        for limit in [rate(1), quota(1)] {
            let keys = [token("k"), token("k")];
            Search::new(&of_tier(&limit), &keys, 1).over(rules).hold();
        }
    }
}

#[test]
fn three_workers_on_one_key_and_its_tenant() {
    for rules in TOLD {
        for (key, tenant) in [(1, 2), (2, 1), (2, 2), (3, 1)] {
            let keys = [token("k"), token("k"), token("k")];
            let room = key.min(tenant) as usize;
            Search::new(&of_both(&rate(key), &quota(tenant)), &keys, room).over(rules).hold();
            Search::new(&of_both(&quota(key), &rate(tenant)), &keys, room).over(rules).hold();
        }
    }
}

#[test]
fn three_workers_on_three_keys_of_a_tenant() {
    let keys = [token("a"), token("b"), token("c")];
    for room in 1..=3 {
        let config = of_both(&quota(2), &rate(room));
        Search::new(&config, &keys, room as usize).hold();
    }
}

#[test]
fn two_keys_of_a_tenant_that_has_less_than_either() {
    let keys = [token("a"), token("a"), token("b")];
    Search::new(&of_both(&rate(2), &quota(1)), &keys, 1).hold();
}

#[test]
fn children_of_one_key() {
    let one = format!("{{{}}}", quota(1));
    let other = format!(r#"{{"methods": ["GET"], {}}}"#, rate(2));
    let keys = [child("k", &one), child("k", &one), child("k", &other)];
    Search::new(&of_tier(&quota(2)), &keys, 2).hold();
    Search::new(&of_both(&quota(3), &quota(2)), &keys, 2).hold();
}

#[test]
fn a_request_that_is_taken_back_leaves_its_room() {
    let keys = [token("a"), token("taken_back"), token("taken_back")];
    for (tier, tenant, room) in [(quota(1), rate(2), 2), (rate(2), quota(1), 1)] {
        let mut search = Search::new(&of_both(&tier, &tenant), &keys, room);
        search.work = admit_and_withdraw;
        search.hold();
    }
}

#[test]
fn a_request_that_was_sent_keeps_its_room() {
    let keys = [token("a"), token("sent"), token("sent")];
    for (tier, tenant, room) in [(quota(2), rate(2), 2), (rate(2), quota(1), 1)] {
        let mut search = Search::new(&of_both(&tier, &tenant), &keys, room);
        search.work = admit_and_withdraw;
        search.hold();
    }
}

/// Bytes that are no cell: of another module, torn, in another layout.
/// `room`: that of the limits, and the one free end.
fn ending_one_session(key: u32, tenant: u32, room: usize, work: Work) -> Search {
    let keys = [token("k"), token("k"), token("k")];
    let mut search = Search::new(&of_both(&quota(key), &rate(tenant)), &keys, room);
    let mut open = Sessions::default();
    open.open(session());
    let name = sessions_name("acme", "k");
    search.planted = Some(("vkey/s/acme/k", encode(&name, &open)));
    search.work = work;
    search
}

#[test]
fn a_session_ends_once_for_nothing() {
    for rules in TOLD {
        for (key, tenant, room) in [(1, 2, 2), (3, 3, 4)] {
            ending_one_session(key, tenant, room, end).over(rules).hold();
        }
    }
}

#[test]
fn ending_by_an_earlier_look_is_caught() {
    ending_one_session(1, 2, 2, look_then_end).fail("more got in");
}

fn unreadable() -> [Vec<u8>; 3] {
    struct OtherCell;
    impl Record for OtherCell {
        const VERSION: u8 = 1;
        fn fresh() -> Self {
            Self
        }
        fn write(&self, _: &mut Vec<u8>) {}
        fn read(_: &mut &[u8]) -> Option<Self> {
            None
        }
    }
    let name = key_name("acme", "k");
    let torn = encode(&name, &Cell::default()).split_last().unwrap().1.to_vec();
    [b"another module's".to_vec(), torn, encode(&name, &OtherCell)]
}

#[test]
fn two_workers_on_a_key_whose_cell_cannot_be_read() {
    for rules in TOLD.into_iter().chain(FOUND_OUT) {
        for record in unreadable() {
            let keys = [token("k"), token("k")];
            let mut search = Search::new(&of_tier(&quota(1)), &keys, 1).over(rules);
            search.planted = Some(("vkey/k/acme/k", record));
            search.hold();
        }
    }
}

#[test]
fn two_workers_on_a_tenant_whose_cell_cannot_be_read() {
    for rules in TOLD {
        let keys = [token("a"), token("b")];
        let mut search = Search::new(&of_both(&rate(2), &quota(1)), &keys, 1).over(rules);
        search.planted = Some(("vkey/t/acme", b"another module's".to_vec()));
        search.hold();
    }
}

#[test]
fn three_workers_on_a_key_whose_cell_has_another_layout() {
    let [.., record] = unreadable();
    for rules in TOLD {
        let keys = [token("k"), token("k"), token("k")];
        let mut search = Search::new(&of_tier(&quota(2)), &keys, 2).over(rules);
        search.planted = Some(("vkey/k/acme/k", record.clone()));
        search.hold();
    }
}

#[test]
fn resetting_with_zero_is_caught() {
    let [.., record] = unreadable();
    let mut search = Search::new(&of_tier(&quota(1)), &[token("k"), token("k")], 1);
    search.planted = Some(("vkey/k/acme/k", record));
    search.reset_with_zero = true;
    search.fail("more got in than there is room for");
}

#[test]
fn creating_with_zero_is_caught() {
    let keys = [token("k"), token("k")];
    let mut search = Search::new(&of_tier(&quota(1)), &keys, 1);
    search.create_with_zero = true;
    search.fail("more got in than there is room for");
}

#[test]
fn believing_that_the_host_is_nginx_is_caught() {
    let keys = [token("k"), token("k")];
    let believed = (Rules::Envoy, Some(Rules::Nginx));
    let search = Search::new(&of_tier(&quota(1)), &keys, 1).over(believed);
    search.fail("more got in than there is room for");
}

#[test]
fn deciding_outside_the_loop_is_caught() {
    let keys = [token("k"), token("k")];
    let mut search = Search::new(&of_tier(&quota(1)), &keys, 1);
    search.work = check_then_count;
    search.counts_tenants = false;
    search.fail("more got in than there is room for");
}

#[test]
fn keeping_the_charge_of_a_refused_request_is_caught() {
    let keys = [token("a"), token("b")];
    let mut search = Search::new(&of_both(&quota(2), &quota(1)), &keys, 1);
    search.work = keep_the_charge;
    search.fail("the counts are not those of the decisions");
}

/// A host on which another worker is always ahead.
struct Contended(MemoryStore);

impl SharedData for Contended {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.0.shared_data(name)
    }

    fn set_shared_data(&self, _: &str, _: &[u8], _: u32) -> Result<(), WriteError> {
        Err(WriteError::CasMismatch)
    }
}

#[test]
fn a_host_that_always_answers_mismatch_allows_nothing() {
    let search = Search::new(&of_both(&quota(9), &quota(9)), &[token("k")], 9);
    let host = Contended(MemoryStore::new(Rules::Envoy));
    for rules in [Rules::Envoy, Rules::Nginx] {
        let records = RecordStore::new(&host, rules);
        let admission = Admission::new(&records, &search.engine, &search.keys[0], None, NOW_NS);
        let decision = admission.admit(Decision::Allow).decision;
        assert_eq!(decision, Decision::Deny(DenyReason::Contention), "{rules:?}");
        assert!(records.retries() >= 64);
    }
    assert!(host.0.is_empty());
}
