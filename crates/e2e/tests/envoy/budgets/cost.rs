//! What a budget costs a proxy, beside the same quota of its own.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::load::{WORKERS, connect};
use crate::metrics::series;
use crate::support::{Connection, Envoy, Request};

use super::budget;
use super::site::{Keeping, Site};

/// Rounds of each kind, in turn.
const ROUNDS: usize = 8;

/// Requests of a round on each connection.
const REQUESTS: usize = 100;

/// How much more CPU time a request may take. It is measured in steps of 10 ms on a machine that does other things too.
const MOST: f64 = 1.05;

/// The most calls to the ledger of a worker in a second, however many requests it has: it asks what is scarce, and orders.
const MOST_CALLS: f64 = 4.0;

/// More than is spent.
const PLENTY: u64 = 100_000_000;

/// What some requests took.
#[derive(Default)]
struct Cost {
    requests: u64,
    cpu: Duration,
    latencies: Vec<Duration>,
}

impl Cost {
    fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() / self.requests as f64
    }

    fn percentile(&mut self, percent: usize) -> Duration {
        self.latencies.sort_unstable();
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }

    /// One request on each connection at a time.
    fn add_round(&mut self, envoy: &Envoy, connections: &mut [Connection], request: &[u8]) {
        let before = cpu(envoy);
        for _ in 0..REQUESTS {
            let begin = Instant::now();
            for connection in &mut *connections {
                connection.send_raw(request).unwrap();
            }
            for connection in &mut *connections {
                assert_eq!(connection.read_response().unwrap().status, 200);
                self.latencies.push(begin.elapsed());
                self.requests += 1;
            }
        }
        self.cpu += cpu(envoy) - before;
    }
}

/// The CPU time of a process (proc(5): `utime` and `stime`, in hundredths of a second).
fn cpu(envoy: &Envoy) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", envoy.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |place: usize| fields[place].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

#[test]
fn a_budget_costs_a_proxy_hardly_more_than_a_quota() {
    let own = json!({"quotas": [{"requests": PLENTY, "per": "total"}]});
    let tiers = json!({"own": own, "shared": budget(PLENTY)});
    let site = Site::start(1, tiers, Keeping::File);
    let envoy = &site.proxies[0];
    let mut connections = connect(envoy);
    let requests = ["own", "shared"]
        .map(|tier| Request::new("GET", "/v1/models").bearer(&site.key(tier)).encode());
    let mut costs = [Cost::default(), Cost::default()];
    for request in &requests {
        Cost::default().add_round(envoy, &mut connections, request);
    }
    let calls = || {
        let all = series(envoy, "vkey_ledger_calls_total");
        all.iter().map(|series| series.value).sum::<u64>()
    };
    let (before, begin) = (calls(), Instant::now());
    for _ in 0..ROUNDS {
        for (cost, request) in costs.iter_mut().zip(&requests) {
            cost.add_round(envoy, &mut connections, request);
        }
    }
    let [own, shared] = &mut costs;
    let (calls, secs) = (calls() - before, begin.elapsed().as_secs_f64());
    let each = calls as f64 / secs / f64::from(WORKERS);
    let ratio = shared.cpu_per_request() / own.cpu_per_request();
    println!(
        "own quota: {:.1} µs, p99 {:?}; budget: {:.1} µs, p99 {:?}; {ratio:.3} times; {calls} calls in {secs:.1} s for {} requests",
        own.cpu_per_request() * 1e6,
        own.percentile(99),
        shared.cpu_per_request() * 1e6,
        shared.percentile(99),
        shared.requests,
    );
    assert!(ratio <= MOST, "{ratio}");
    assert!(each <= MOST_CALLS, "{each} calls each second and worker");
}
