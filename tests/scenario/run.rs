//! Runs a scenario on a machine and collects all problems.

use std::collections::BTreeMap;

use vkey::alerts::failures::{SHARDS, shard_name};
use vkey::host::{HeaderList, MemoryStore, Rules, SharedData as _};
use vkey::json::Integers;
use vkey::key::revocations::{list_name, version_name};

use super::body::declare;
use super::check::{Context, check_configured, check_observed, is_audit_line};
use super::format::{ConfigSpec, HostKind, Scenario, Variant};
use super::forwarded::check_trailers;
use super::keys::mint_all;
use super::step::Step;
use super::tally::Tally;
use super::text::{Meaning, bytes, env_value, shifted};
use super::upstream::Upstream;
use super::{Log, Machine, Observed, Sent};

/// The start time of scenarios that specify none.
pub(crate) const USUAL_START: u64 = 1_800_000_000;

/// Creates the machine for a configuration, an environment and the rules of a host.
pub(crate) type MakeMachine =
    dyn Fn(Vec<u8>, BTreeMap<String, String>, HostKind) -> Box<dyn Machine>;

/// All problems of a scenario on a kind of machine, each with its place.
pub(crate) fn run(scenario: &Scenario, make: &MakeMachine) -> Vec<String> {
    let mut problems = Vec::new();
    for variant in &scenario.variants {
        for host in &scenario.hosts {
            let found = Conversation::new(scenario, variant, *host, make).hold();
            let place = format!("[{}, {host:?}]", variant.name);
            problems.extend(found.into_iter().map(|problem| format!("{place} {problem}")));
        }
    }
    problems
}

struct Conversation<'a> {
    scenario: &'a Scenario,
    variant: &'a Variant,
    host: HostKind,
    start: u64,
    env: BTreeMap<String, String>,
    keys: BTreeMap<String, String>,
    machine: Box<dyn Machine>,
    tally: Tally,
    problems: Vec<String>,
}

impl<'a> Conversation<'a> {
    fn new(
        scenario: &'a Scenario,
        variant: &'a Variant,
        host: HostKind,
        make: &MakeMachine,
    ) -> Self {
        let start = scenario.start.unwrap_or(USUAL_START);
        let values = variant.env.iter();
        let env: BTreeMap<_, _> =
            values.map(|(name, value)| (name.clone(), env_value(value))).collect();
        let keys = mint_all(scenario, variant, &env, start);
        let config = match &variant.config {
            ConfigSpec::Absent => Vec::new(),
            ConfigSpec::Text(text) => bytes(text),
            ConfigSpec::Object(json) => {
                let meaning = Meaning { start, n: 1, env: &env, keys: &keys };
                meaning.fill_json(json).to_string().into_bytes()
            }
        };
        Self {
            scenario,
            variant,
            host,
            start,
            machine: make(config, env.clone(), host),
            env,
            keys,
            tally: Tally::default(),
            problems: Vec::new(),
        }
    }

    fn hold(mut self) -> Vec<String> {
        self.leave_records();
        let workers =
            self.scenario.steps_on(self.host).iter().map(|step| step.worker).max().unwrap_or(0);
        for worker in 0..=workers {
            let configured = self.machine.configure(worker);
            let found = check_configured(&self.context(1), &self.variant.configure, &configured);
            self.note("configuration", found);
        }
        for step in self.scenario.steps_on(self.host) {
            for n in 1..=step.repeat {
                let found = self.take(step, n);
                self.note(&step.name, found);
            }
        }
        self.problems
    }

    /// Runs a step for the nth time.
    fn take(&mut self, step: &Step, n: u64) -> Vec<String> {
        let (sent, observed) = self.ask(step, n);
        let (mut problems, audited) = check_observed(&self.context(n), step, &observed);
        if let Some(trailers) = self.machine.trailers() {
            problems.extend(check_trailers(&self.context(n), step, trailers));
        }
        if let Some(audited) = audited {
            self.tally.add(&audited, &self.scenario.records);
            self.tally.add_verdict(&audited, &sent.upstream);
        }
        // A bare host has neither records nor metrics.
        let bare = self.host == HostKind::Rules(Rules::Bare);
        if let Some(store) = self.machine.store().filter(|_| !bare) {
            problems.extend(self.check_store(store));
            // nginx has no metrics.
            if store.rules() != Rules::Nginx {
                problems.extend(check_metrics(step, store));
            }
        }
        problems
    }

    /// Sends the request of a step. A request that took so long that its time has passed is sent again. The
    /// log lines of all attempts are kept, because the module logs some things only once; of the audit
    /// lines, only the last.
    fn ask(&mut self, step: &Step, n: u64) -> (Sent, Observed) {
        let mut log = Log::new();
        loop {
            let start = self.machine.start(step.at);
            if let Some(start) = start {
                self.start = start;
                self.keys = mint_all(self.scenario, self.variant, &self.env, start);
            }
            let sent = self.sent(step, n);
            // The earlier repetitions only prepare the measurement.
            if n == step.repeat && !step.bench.is_empty() {
                self.machine.announce(&step.name, &step.bench);
            }
            let mut observed = self.machine.request(step.worker, &sent);
            if self.machine.start(step.at) == start {
                log.append(&mut observed.log);
                return (sent, Observed { log, ..observed });
            }
            log.extend(observed.log.into_iter().filter(|(_, line)| !is_audit_line(line)));
        }
    }

    fn context(&self, n: u64) -> Context<'_> {
        Context {
            pinned: self.machine.pins_clock(),
            meaning: self.meaning(n),
            config: match &self.variant.config {
                ConfigSpec::Object(config) => Some(config),
                _ => None,
            },
            outcome: self.variant.configure.outcome,
            nginx: self.host == HostKind::Rules(Rules::Nginx),
        }
    }

    fn meaning(&self, n: u64) -> Meaning<'_> {
        Meaning { start: self.start, n, env: &self.env, keys: &self.keys }
    }

    fn sent(&self, step: &Step, n: u64) -> Sent {
        let meaning = self.meaning(n);
        let header = |(name, value): &(String, String)| (bytes(name), bytes(&meaning.fill(value)));
        let mut headers: HeaderList = step.request.headers.iter().map(header).collect();
        let body = step.request.body.parts(&meaning);
        if !body.is_empty() {
            declare(&mut headers, &body, step.request.chunked);
        }
        let trailers = step.request.trailers.map(|value| meaning.fill(value));
        let upstream = meaning.fill_json(&step.upstream);
        Sent {
            now_ns: shifted(self.start, step.at) * 1_000_000_000 + step.at_ns,
            headers,
            body,
            unfinished: step.request.unfinished,
            trailers,
            source: step.request.source.clone(),
            client_cert: step.request.client_cert.clone(),
            faults: step.faults.clone(),
            ending: step.ending.clone(),
            response: step.ending.response.parts(&meaning),
            upstream: Upstream::read(&upstream.root(Integers::Digits)).expect("read before"),
        }
    }

    fn leave_records(&self) {
        for (name, record) in self.scenario.records.iter().chain(&self.scenario.damaged) {
            let store = self.machine.store().expect("shared data that can be reached");
            store.set_shared_data(name, &bytes(record), 0).expect("an empty store");
        }
    }

    fn check_store(&self, store: &MemoryStore) -> Vec<String> {
        let records = &self.scenario.records;
        let shards = (0..SHARDS).map(shard_name);
        let shards = shards.filter(|name| matches!(store.shared_data(name.as_str()), Ok(Some(_))));
        let is_left = |name: &str, record: &str| {
            store.shared_data(name).ok().flatten().map(|(found, _)| found) == Some(bytes(record))
        };
        let damaged = self.scenario.damaged.iter().filter(|(name, record)| is_left(name, record));
        // With the rules of Envoy, the probe record remains. The others say when counting began, and what was noticed.
        let of_proxy = ["vkey/h/envoy", "vkey/h/start", "vkey/g/notices"];
        let of_proxy =
            of_proxy.iter().filter(|name| store.shared_data(name).is_ok_and(|r| r.is_some()));
        // A versioned list of revocations has a record, for all workers.
        let lists = [version_name(), list_name()];
        let lists = lists.iter().filter(|n| matches!(store.shared_data(n.as_str()), Ok(Some(_))));
        let others =
            records.len() + damaged.count() + shards.count() + lists.count() + of_proxy.count();
        let mut problems = self.tally.check_cells(&self.context(1), store, others);
        problems.extend(self.tally.check_statuses(&self.context(1), store));
        problems.extend(self.tally.check_metrics(&self.context(1), store));
        for (name, record) in records {
            if !is_left(name, record) {
                problems.push(format!("the record {name} of another module was overwritten"));
            }
        }
        problems
    }

    fn note(&mut self, place: &str, found: Vec<String>) {
        self.problems.extend(found.into_iter().map(|problem| format!("{place}: {problem}")));
    }
}

/// The metrics that a step names.
fn check_metrics(step: &Step, store: &MemoryStore) -> Vec<String> {
    let wrong = |(name, expected): &&(String, u64)| store.metric(name) != Some(*expected);
    let problem = |(name, expected): &(String, u64)| {
        format!("metric {name} is {:?}, not {expected}", store.metric(name))
    };
    step.expect.metrics.iter().filter(wrong).map(problem).collect()
}
