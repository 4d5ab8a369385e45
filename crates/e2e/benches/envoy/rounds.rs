//! The measurement: cases by turns, so that what else the machine does hits all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::cases::{Ask, Case, Group};
use crate::keys::Issuer;
use crate::process::cpu_ns;
use crate::proxy;
use crate::supply::Supply;
use crate::support::{Connection, Envoy};
use crate::wrk::{self, Load};

/// The core of the load generator.
const LOAD_CPU: &str = "1";

/// How long a case runs before it is measured: its code is compiled then.
const WARM_UP_SECS: u64 = 1;

/// So many requests are under way at a time when keys are shown to the proxy.
const IN_FLIGHT: usize = 16;

/// How many fresh keys that takes.
const WARM_UP_KEYS: usize = 5000;

/// More than are under way at the end.
const SPARE_KEYS: usize = 1000;

/// How often a case is measured again for want of keys.
const MORE_KEYS: usize = 4;

/// How long, and how often.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Of each case in each round.
    pub(crate) secs: u64,
}

/// What a case took in each round.
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) samples: Vec<Sample>,
}

/// One load.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// CPU time of the proxy, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) requests: f64,
    pub(crate) secs: f64,
}

/// A group under way.
struct Bench<'a> {
    supply: Supply<'a>,
    /// In the order of the group's proxies.
    envoys: Vec<Option<Envoy>>,
    /// The fastest that each case was, in requests per second.
    rates: BTreeMap<&'static str, f64>,
}

/// Measures a group and says what it is at.
///
/// # Errors
///
/// Names the case and says what was wrong: an answer of another status than wanted, a connection
/// that failed, a tool that cannot be run.
pub(crate) fn measure(
    issuer: &Issuer,
    group: &Group,
    effort: Effort,
    say: impl Fn(&str),
) -> Result<Vec<Row>, String> {
    let in_case = |case: &Case, error| format!("{} {}: {error}", group.name, case.id);
    say("start");
    let mut bench = Bench::start(issuer, group)?;
    let mut rows = Vec::new();
    for case in &group.cases {
        say(&format!("check {}", case.id));
        bench.prepare(case).map_err(|error| in_case(case, error))?;
        rows.push(Row { case: case.clone(), samples: Vec::new() });
    }
    for round in 1..=effort.rounds {
        for Row { case, samples } in &mut rows {
            say(&format!("round {round} of {}, {}", effort.rounds, case.id));
            let sample = bench.sample(case, effort.secs);
            samples.push(sample.map_err(|error| in_case(case, error))?);
        }
    }
    for case in &group.cases {
        let answer = bench.probe(case, &case.request, case.expected);
        answer.map_err(|error| in_case(case, error))?;
    }
    Ok(rows)
}

// === impl Sample ===

impl Sample {
    /// CPU time per request, in microseconds.
    pub(crate) fn us(&self) -> f64 {
        self.cpu_us / self.requests
    }

    /// Requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests / self.secs
    }

    /// How many cores the proxy used.
    pub(crate) fn cores(&self) -> f64 {
        self.cpu_us / 1e6 / self.secs
    }
}

// === impl Bench ===

impl<'a> Bench<'a> {
    fn start(issuer: &'a Issuer, group: &Group) -> Result<Self, String> {
        let mut envoys = Vec::new();
        for plan in &group.proxies {
            let needed = !plan.listeners.is_empty();
            envoys.push(needed.then(|| proxy::start(plan, &issuer.secret)).transpose()?);
        }
        Ok(Self { supply: Supply::new(issuer), envoys, rates: BTreeMap::new() })
    }

    /// Shows that the case does what it is for, its keys to the proxy, and a load to both.
    fn prepare(&mut self, case: &Case) -> Result<(), String> {
        for (ask, status) in &case.checks {
            self.probe(case, ask, *status)?;
        }
        self.probe(case, &case.request, case.expected)?;
        self.show_keys(case)?;
        self.warm_up(case)
    }

    /// One request, whose answer must have that status.
    fn probe(&mut self, case: &Case, ask: &Ask, expected: u16) -> Result<(), String> {
        let answer = Connection::open(self.address(case)).send(&self.supply.request(ask));
        if answer.status == expected {
            return Ok(());
        }
        let (path, status, text) = (ask.path, answer.status, answer.text());
        Err(format!("{path} is answered with {status} and not {expected}: {text}"))
    }

    /// Sends one request for each key of a case that has a limited number of them.
    fn show_keys(&self, case: &Case) -> Result<(), String> {
        let open = || Connection::open(self.address(case));
        let mut connections: Vec<_> = std::iter::repeat_with(open).take(IN_FLIGHT).collect();
        let mut requests = self.supply.requests(&case.request).peekable();
        while requests.peek().is_some() {
            let mut sent = 0;
            for (connection, request) in connections.iter_mut().zip(requests.by_ref()) {
                connection.send_raw(&request.encode()).map_err(|error| error.to_string())?;
                sent += 1;
            }
            for connection in connections.iter_mut().take(sent) {
                let answer = connection.read_response().map_err(|error| error.to_string())?;
                if answer.status != case.expected {
                    return Err(format!("a key is answered with {}", answer.status));
                }
            }
        }
        Ok(())
    }

    /// Runs the case without measuring it. Fresh keys come again here: there are more of them than
    /// the gate remembers.
    fn warm_up(&mut self, case: &Case) -> Result<(), String> {
        let mut load = self.supply.load(case, WARM_UP_KEYS).map_err(|error| error.to_string())?;
        if let Some(keys) = &mut load.keys {
            keys.again = true;
        }
        self.load(case, &load, WARM_UP_SECS).map(|_| ())
    }

    /// Measures the case once. Where keys run out because the case is faster than it was before, it
    /// is measured again, with more of them.
    fn sample(&mut self, case: &Case, secs: u64) -> Result<Sample, String> {
        let mut wanted = self.rates.get(case.id).map_or(0.0, |rate| rate * number(secs) * 1.5);
        for _ in 0..MORE_KEYS {
            let load = self.supply.load(case, whole(wanted) + SPARE_KEYS);
            match self.load(case, &load.map_err(|error| error.to_string())?, secs) {
                Err(error) if error.contains(wrk::NO_KEY_LEFT) => wanted *= 2.0,
                outcome => return outcome,
            }
        }
        Err(wrk::NO_KEY_LEFT.to_owned())
    }

    /// Sends requests for that long.
    fn load(&mut self, case: &Case, load: &Load, secs: u64) -> Result<Sample, String> {
        let pid = self.envoy(case).pid();
        let cpu = || cpu_ns(pid).map_err(|error| error.to_string());
        let (start, before) = (Instant::now(), cpu()?);
        let outcome = wrk::run(load, self.address(case), secs, LOAD_CPU)?;
        let (used, took) = (cpu()? - before, start.elapsed());
        let wrong = outcome.other_than(case.expected);
        if wrong > 0 {
            let all = outcome.requests;
            return Err(format!("{wrong} of {all} answers were not {}", case.expected));
        }
        let requests = number(outcome.requests);
        self.supply.sent(case, whole(requests));
        let secs = took.as_secs_f64();
        let sample = Sample { cpu_us: number(used) / 1e3, requests, secs };
        let rate = self.rates.entry(case.id).or_default();
        *rate = rate.max(sample.rate());
        Ok(sample)
    }

    fn envoy(&self, case: &Case) -> &Envoy {
        self.envoys[case.proxy].as_ref().expect("a proxy with the listeners of its cases")
    }

    fn address(&self, case: &Case) -> SocketAddr {
        self.envoy(case).listener(case.listener)
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count, and far below 2^52"
)]
fn whole(number: f64) -> usize {
    number as usize
}
