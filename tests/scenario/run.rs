//! Runs a scenario on a machine and collects what is not as it should be.

use std::collections::BTreeMap;

use vkey::cell::Cell;
use vkey::config::Dialect;
use vkey::host::{CellStore, HeaderList, SharedData as _};

use super::check::{Audited, Context, check_configured, check_observed};
use super::format::{ConfigSpec, HostKind, Scenario, Variant};
use super::keys::mint_all;
use super::step::Step;
use super::text::{Meaning, bytes, env_value, shifted};
use super::{Machine, Sent};

/// The start of scenarios that do not care.
const USUAL_START: u64 = 1_800_000_000;

/// Makes the machine for a configuration, an environment and the rules of a host.
pub(crate) type MakeMachine =
    dyn Fn(Vec<u8>, BTreeMap<String, String>, HostKind) -> Box<dyn Machine>;

/// Everything wrong with a scenario on a kind of machine, each problem with its place.
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
    /// What the audit lines add up to, by key.
    counted: BTreeMap<String, Cell>,
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
                let meaning = Meaning { start, env: &env, keys: &keys };
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
            counted: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    fn hold(mut self) -> Vec<String> {
        self.leave_records();
        let workers = self.scenario.steps.iter().map(|step| step.worker).max().unwrap_or(0);
        for worker in 0..=workers {
            let configured = self.machine.configure(worker);
            let found = check_configured(&self.context(), &self.variant.configure, &configured);
            self.note("configuration", found);
        }
        for step in &self.scenario.steps {
            let sent = self.sent(step);
            for _ in 0..step.repeat {
                let observed = self.machine.request(step.worker, &sent);
                let (found, audited) = check_observed(&self.context(), step, &observed);
                self.note(&step.name, found);
                if let Some(audited) = audited {
                    self.count(audited);
                }
                let found = self.check_store();
                self.note(&step.name, found);
            }
        }
        self.problems
    }

    fn context(&self) -> Context<'_> {
        Context {
            meaning: self.meaning(),
            config: match &self.variant.config {
                ConfigSpec::Object(config) => Some(config),
                _ => None,
            },
            outcome: self.variant.configure.outcome,
        }
    }

    fn meaning(&self) -> Meaning<'_> {
        Meaning { start: self.start, env: &self.env, keys: &self.keys }
    }

    fn sent(&self, step: &Step) -> Sent {
        let meaning = self.meaning();
        let header = |(name, value): &(String, String)| (bytes(name), bytes(&meaning.fill(value)));
        let headers: HeaderList = step.request.headers.iter().map(header).collect();
        Sent {
            now_ns: shifted(self.start, step.at) * 1_000_000_000,
            headers,
            source: step.request.source.clone(),
            client_cert: step.request.client_cert.clone(),
            faults: step.faults.clone(),
            ending: step.ending.clone(),
        }
    }

    fn leave_records(&self) {
        for (name, record) in &self.scenario.records {
            let store = self.machine.store().expect("shared data that can be reached");
            store.set_shared_data(name, &bytes(record), 0).expect("an empty store");
        }
    }

    /// Counts what an audit line says was counted.
    fn count(&mut self, audited: Audited) {
        let cell = self.counted.entry(audited.jti).or_insert_with_key(|jti| Cell::new(jti));
        cell.count(audited.decision);
    }

    /// Counts are exact: every cell holds what the audit lines add up to, and there is no other.
    fn check_store(&self) -> Vec<String> {
        let bare = self.host == HostKind::Rules(Dialect::Bare);
        let Some(store) = self.machine.store().filter(|_| !bare) else {
            return Vec::new();
        };
        let cells = CellStore::new(store, Dialect::Auto);
        let mut problems = Vec::new();
        for (jti, counted) in &self.counted {
            if cells.read(jti).as_ref() != Ok(counted) {
                problems
                    .push(format!("the cell of {jti} is {:?}, not {counted:?}", cells.read(jti)));
            }
        }
        for (name, record) in &self.scenario.records {
            if store.shared_data(name).ok().flatten().map(|(found, _)| found) != Some(bytes(record))
            {
                problems.push(format!("the record {name} of another module was overwritten"));
            }
        }
        let masked = self.context().masked("jti");
        let expected = self.counted.len() + self.scenario.records.len();
        if !masked && store.len() != expected {
            problems.push(format!("{} records in shared data, not {expected}", store.len()));
        }
        problems
    }

    fn note(&mut self, place: &str, found: Vec<String>) {
        self.problems.extend(found.into_iter().map(|problem| format!("{place}: {problem}")));
    }
}
