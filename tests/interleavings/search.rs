//! Searches all orders of the steps of several workers.

use std::cell::{Cell as Place, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use vkey::config::Config;
use vkey::decision::{Decision, DenyClass};
use vkey::engine::{Engine, KnownKey};
use vkey::gate::Admission;
use vkey::host::{MemoryStore, RecordStore, Rules, SharedData};
use vkey::key::Key;
use vkey::key::token::Unverified;
use vkey::limits::cell::{Cell, tenant_name};

use super::keys::SECRET;
use super::replay::{CallResult, Replay, Suspended};
use super::work::{RESERVED, SENT, Work, admit, cell_name};

/// Some time in 2026, in nanoseconds.
pub(crate) const NOW_NS: u64 = 1_790_000_000_000_000_000;

/// Requests that several workers process concurrently, one each.
pub(crate) struct Search {
    pub(crate) engine: Engine,
    pub(crate) host: Rules,
    /// The rules that workers assume; `None`: each detects them.
    pub(crate) assumed: Option<Rules>,
    pub(crate) keys: Vec<Rc<KnownKey>>,
    /// How far the clock of each worker is ahead of the previous worker's.
    pub(crate) step_ns: u64,
    pub(crate) work: Work,
    /// What is wrong after all workers have finished.
    pub(crate) expect: Expect,
    /// A record that exists before.
    pub(crate) planted: Option<(&'static str, Vec<u8>)>,
    pub(crate) create_with_zero: bool,
    pub(crate) reset_with_zero: bool,
    pub(crate) counts_tenants: bool,
    /// How many of these requests and later ones the limits have room for.
    pub(crate) room: usize,
    pub(crate) met: BTreeSet<Vec<u8>>,
    pub(crate) ends: usize,
    pub(crate) violations: Vec<String>,
}

/// The problems of a state in which all workers have finished, with these decisions.
pub(crate) type Expect = fn(&Search, &MemoryStore, &[Decision]) -> Vec<String>;

#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) results: Vec<CallResult>,
    pub(crate) decision: Option<Decision>,
}

impl Search {
    pub(crate) fn new(config: &str, keys: &[String], room: usize) -> Self {
        let ring = format!(r#""keyring": [{{"name": "main", "secret": "${{S}}"}}], {config}"#);
        let config = Config::parse(format!("{{{ring}}}").as_bytes()).unwrap();
        let plan = config.compile(|_| Some(SECRET.to_owned())).unwrap();
        let engine = Engine::new(plan);
        let key = |token: &String| {
            let unverified = Unverified::parse(token.as_bytes()).unwrap();
            Rc::new(engine.prepare(Key::verify(unverified, engine.keyring()).unwrap()))
        };
        let keys = keys.iter().map(key).collect();
        Self {
            engine,
            host: Rules::Envoy,
            assumed: Some(Rules::Envoy),
            keys,
            step_ns: 1_000_000,
            work: admit,
            expect: Search::expect_the_room,
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

    pub(crate) fn over(mut self, (host, assumed): (Rules, Option<Rules>)) -> Self {
        (self.host, self.assumed) = (host, assumed);
        self
    }

    pub(crate) fn run(mut self) -> Self {
        let store = MemoryStore::new(self.host);
        if let Some((name, record)) = &self.planted {
            store.set_shared_data(name, record, 0).unwrap();
        }
        let worker = Worker { results: Vec::new(), decision: None };
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
            results: &worker.results,
            given: Place::new(0),
            fresh: RefCell::new(None),
            create_with_zero: self.create_with_zero,
            reset_with_zero: self.reset_with_zero,
        };
        let key = &self.keys[index];
        let now_ns = NOW_NS + self.step_ns * index as u64;
        let run = || {
            let rules = self.assumed.unwrap_or_else(|| Rules::find(&replay).unwrap());
            (self.work)(&RecordStore::new(&replay, rules), &self.engine, key, now_ns)
        };
        let run = catch_unwind(AssertUnwindSafe(run));
        worker.decision = match run {
            Ok(decision) => Some(decision),
            Err(payload) if payload.is::<Suspended>() => None,
            Err(payload) => resume_unwind(payload),
        };
        let result = replay.fresh.into_inner();
        // The round starts again with its read, unless it began with an earlier snapshot or with detecting
        // the rules of the host.
        let began_with_read = matches!(worker.results.last(), Some(CallResult::Read(..)));
        match result.expect("a step makes a call") {
            CallResult::Mismatch if began_with_read && self.assumed.is_some() => {
                worker.results.pop();
            }
            result => worker.results.push(result),
        }
    }

    /// Checks the state after all workers have finished, in any order.
    fn check(&mut self, store: &MemoryStore, workers: &[Worker]) {
        let decisions: Vec<Decision> = workers.iter().flat_map(|worker| worker.decision).collect();
        let problems = (self.expect)(self, store, &decisions);
        self.violations.extend(problems);
    }

    fn expect_the_room(&self, store: &MemoryStore, decisions: &[Decision]) -> Vec<String> {
        let sent = |decision: &&Decision| decision.forwards() || **decision == Decision::Deny(SENT);
        let charged = decisions.iter().filter(sent).count();
        let counted = self.count_cells(store, decisions);
        // No room was lost or gained: later requests, one after the other, get exactly the rest.
        let later = self.admit_later(store);
        let problems = [
            (charged <= self.room, "more got in than there is room for"),
            (charged + later == self.room, "the room left is not what was not used"),
            (counted, "the counts are not those of the decisions"),
        ];
        let problems = problems.into_iter().filter(|(holds, _)| !holds);
        problems.map(|(_, what)| format!("{what}: {decisions:?}, {later} later")).collect()
    }

    pub(crate) fn count_cells(&self, store: &MemoryStore, decisions: &[Decision]) -> bool {
        let records = RecordStore::new(store, self.host);
        let adds_up = |name, belongs: &dyn Fn(&KnownKey) -> bool| {
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
            adds_up(cell_name(key), &|other| cell_name(other) == cell_name(key))
                && (!self.counts_tenants
                    || self.engine.tenant_charges(key.tenant()).is_empty()
                    || adds_up(tenant_name(key.tenant()), &|other| other.tenant() == key.tenant()))
        })
    }

    fn admit_later(&self, store: &MemoryStore) -> usize {
        let store = store.fork();
        let records = RecordStore::new(&store, self.host);
        let admit = |key: &Rc<KnownKey>| {
            let admission = Admission::new(&records, &self.engine, key, None, NOW_NS);
            admission.with_amounts(RESERVED).admit(Decision::Allow).decision.forwards()
        };
        (0..self.room + 1).map(|_| self.keys.iter().filter(|key| admit(key)).count()).sum()
    }

    #[track_caller]
    pub(crate) fn hold(self) {
        let Self { ends, violations, .. } = self.run();
        println!("{ends} ends");
        assert!(ends > 1);
        assert_eq!(violations, [""; 0]);
    }

    #[track_caller]
    pub(crate) fn fail(self, what: &str) {
        let Self { ends, violations, .. } = self.run();
        println!("{} violations at {ends} ends", violations.len());
        assert!(violations.iter().any(|violation| violation.starts_with(what)), "{violations:?}");
    }
}

/// Identifies a state: the content of the records, and what each worker has read and done. Of a
/// compare-and-swap value, only whether it is the current one matters.
pub(crate) fn fingerprint(store: &MemoryStore, workers: &[Worker]) -> Vec<u8> {
    let mut text = String::new();
    let mut names = BTreeSet::new();
    for worker in workers {
        text += &format!("{:?}", worker.decision);
        for result in &worker.results {
            let CallResult::Read(name, record) = result else {
                text += &format!("{result:?};");
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
