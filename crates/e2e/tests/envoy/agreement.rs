//! A differential test of views: what the module judged is what Envoy routed and sent, or the request
//! was refused.
//!
//! Random requests with random keys go through random proxies on a real Envoy. The test has a router of
//! its own, written from Envoy's documentation. From what the module says that it judged (authority and
//! path of the audit line, headers after its edits) that router predicts the route, the cluster and the
//! request that the upstream gets. Client, access log and upstreams have to agree with it.
//!
//! `VKEY_TEST_SEED=<number>` draws other proxies, keys and requests, and `PROPTEST_CASES=<number>` more of them.

mod check;
mod clusters;
mod coverage;
mod draw;
mod key;
mod proxy;
mod request;
mod router;
mod world;

use check::Tally;
use proptest::prelude::ProptestConfig;
use world::World;

use crate::support::envoys;

const SEED: u64 = 20_261_128;

/// How many Envoys of each version run, and how many proxies each of them has.
const WORLDS: usize = 5;
const PROXIES: usize = 8;

/// How many requests are sent at least for each of `PROPTEST_CASES`, to all proxies together.
const REQUESTS: u32 = 6;

/// From how many on nothing may be rare.
const MANY_REQUESTS: u32 = 20_000;

/// How many failures are shown in full.
const SHOWN: usize = 3;

#[test]
fn what_was_judged_is_what_is_sent() {
    let seed = std::env::var("VKEY_TEST_SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    println!("VKEY_TEST_SEED={seed}");
    let binaries = envoys();
    let all = ProptestConfig::default().cases * REQUESTS;
    let requests = usize::try_from(all).unwrap().div_ceil(binaries.len() * WORLDS * PROXIES);
    let mut tally = Tally::default();
    for (version, binary) in binaries.iter().enumerate() {
        for number in 0..WORLDS {
            let number = version * WORLDS + number;
            println!("world {number} on {}", binary.display());
            World::draw(seed, number, PROXIES).run(binary, requests, &mut tally);
        }
    }
    let Tally { coverage, failures } = &tally;
    println!("{coverage:#?}");
    let shown: Vec<_> = failures.iter().take(SHOWN).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), shown.join("\n\n"));
    if all >= MANY_REQUESTS {
        coverage.assert_complete(u64::from(all));
    }
}
