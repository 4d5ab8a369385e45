//! What the gate of a cluster adds to the time that a request takes: printed, and bounded.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::gateways::{Gateway, KNOWN, Plan, UNLISTED, proven};
use crate::support::tls::{Authority, Cluster, Serve, Upstream};
use crate::support::{Connection, each_envoy};

const POOLED: usize = 1000;
const NEW: usize = 400;

/// Many times what is aimed at, 0.05 ms and 3 ms: the machine may have other things to do.
const MAX_POOLED: Duration = Duration::from_millis(1);
const MAX_NEW: Duration = Duration::from_millis(10);

/// The times that requests took, in order.
struct Times(Vec<Duration>);

impl Times {
    fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }
}

/// One upstream behind two clusters of one Envoy: a host that is judged goes to the one with a gate,
/// a host that is not goes to the one without.
fn gateway(binary: &Path, change: fn(Cluster) -> Cluster) -> (Gateway, Upstream) {
    let authority = Authority::new("upstreams");
    let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
    let gated = change(proven(&upstream, &authority, KNOWN).gate());
    let bare = Cluster::tls("bare", &upstream, &authority).sni(KNOWN).san(KNOWN);
    let bare = change(bare);
    let plan = Plan::new(binary, "latency", json!({}));
    let gateway = plan.edit(|config| {
        gated.install(config);
        bare.install_for(config, UNLISTED);
    });
    (gateway.start(), upstream)
}

/// Sends requests to both clusters by turns, so that what else the machine does hits both.
fn measure(gateway: &Gateway, count: usize) -> [Times; 2] {
    let requests = [UNLISTED, KNOWN].map(|host| gateway.request(host));
    let mut times = [const { Vec::new() }; 2];
    let mut connection = Connection::open(gateway.envoy.gate());
    for round in 0..count + count / 10 {
        for (request, times) in requests.iter().zip(&mut times) {
            let start = Instant::now();
            let answer = connection.send(request);
            let time = start.elapsed();
            assert_eq!(answer.status, 200, "{answer:?}");
            // The first are not as fast as the others.
            if round >= count / 10 {
                times.push(time);
            }
        }
    }
    times.map(|mut times| {
        times.sort();
        Times(times)
    })
}

fn report(label: &str, [bare, gated]: &[Times; 2]) -> Duration {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let (without, with) = (bare.median(), gated.median());
    println!(
        "{label:20} {:>9} {:>9.3} {:>9.3} {:>+9.3}",
        bare.0.len(),
        millis(without),
        millis(with),
        millis(with) - millis(without),
    );
    with.saturating_sub(without)
}

#[test]
fn the_gate_adds_little() {
    each_envoy(|binary| {
        println!(
            "{:20} {:>9} {:>9} {:>9} {:>9}",
            "median, ms", "requests", "without", "with", "added"
        );
        let (pooled, _upstream) = gateway(binary, |cluster| cluster);
        let added = report("pooled connection", &measure(&pooled, POOLED));
        assert!(added <= MAX_POOLED, "{added:?}");
        let (new, _upstream) = gateway(binary, |cluster| cluster.max_requests(1));
        let added = report("new connection", &measure(&new, NEW));
        assert!(added <= MAX_NEW, "{added:?}");
    });
}
