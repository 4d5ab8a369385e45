//! One budget over several proxies, which lease it from a ledger.

mod site;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::keys;

use site::{Keeping, Redis, Site};

fn budget(requests: u64) -> Value {
    json!({"quotas": [{"requests": requests, "per": "total", "scope": "cluster"}]})
}

/// The account of the key with that id.
fn account(jti: &str) -> String {
    format!("key/acme/{jti}/requests/total")
}

/// The budgets of the tests; `VKEY_TEST_BUDGET=1000000` has a larger one besides.
fn budgets() -> Vec<u64> {
    let more = std::env::var("VKEY_TEST_BUDGET").ok().and_then(|text| text.parse().ok());
    [100, 10_000].into_iter().chain(more).collect()
}

fn assert_exact(proxies: usize, keeping: Keeping) {
    let name = |limit: &u64| format!("b{limit}");
    let tiers = budgets().iter().map(|limit| (name(limit), budget(*limit))).collect();
    let site = Site::start(proxies, Value::Object(tiers), keeping);
    for limit in budgets() {
        let (jti, begin) = (name(&limit), Instant::now());
        let sums = site.send_until(&jti, |sums| sums.allowed >= limit);
        println!("{proxies} proxies, {jti}: {sums:?} in {:?}", begin.elapsed());
        assert_eq!((sums.allowed, sums.unavailable), (limit, 0), "{sums:?}");
        site.assert_spent(&jti);
        site.wait_for_account(&account(&jti), |sums| sums["used"] == limit && sums["held"] == 0);
    }
}

#[test]
fn two_proxies_let_exactly_as_much_through_as_their_budget_says() {
    assert_exact(2, Keeping::File);
}

#[test]
fn four_proxies_let_exactly_as_much_through_with_redis() {
    assert_exact(4, Keeping::Redis(Redis::start()));
}

/// What it held is lost until the window ends, and nothing else.
#[test]
fn a_proxy_that_is_killed_takes_no_more_with_it_than_it_held() {
    const LIMIT: u64 = 20_000;
    let mut site = Site::start(2, json!({"b": budget(LIMIT)}), Keeping::File);
    let before = site.send_until("b", |sums| sums.allowed >= LIMIT / 4);
    drop(site.proxies.pop());
    let name = account("b");
    let after = site.send_until("b", |_| {
        let sums = site.wait_for_account(&name, |_| true);
        sums["left"] == 0 && sums["held"].as_u64() < Some(LIMIT / 4) && sums["used"] != 0
    });
    site.assert_spent("b");
    let sums = site.wait_for_account(&name, |sums| sums["leases"] == 2 && sums["left"] == 0);
    let (passed, held) = (before.allowed + after.allowed, sums["held"].as_u64().unwrap());
    println!("{passed} of {LIMIT} passed, {held} were held by the proxy that was killed");
    assert!(passed <= LIMIT && passed + held >= LIMIT, "{passed} passed: {sums}");
    // One that starts gets nothing of it either.
    let started = site.start_proxy(keys::options("restarted", &site.main, site.plugin.clone()));
    let mut rounds = 0;
    let more = site.send_to(&[&started], "b", |_| {
        rounds += 1;
        rounds > 5
    });
    assert_eq!(more.allowed, 0, "{more:?}");
}

#[test]
fn a_ledger_that_is_killed_has_promised_nothing_twice() {
    const LIMIT: u64 = 20_000;
    let mut site = Site::start(2, json!({"b": budget(LIMIT)}), Keeping::Redis(Redis::start()));
    let mut passed = 0;
    for step in 1..=6 {
        let before = passed;
        passed += site.send_until("b", |sums| before + sums.allowed >= LIMIT * step / 8).allowed;
        match (&mut site.ledger.keeping, step % 2) {
            (Keeping::Redis(redis), 0) => {
                redis.kill();
                redis.restart();
            }
            _ => {
                site.ledger.kill();
                site.ledger.restart();
            }
        }
    }
    let before = passed;
    passed += site.send_until("b", |sums| before + sums.allowed >= LIMIT).allowed;
    assert_eq!(passed, LIMIT);
    site.assert_spent("b");
}

/// What is leased is spent; what is not is refused; and when the network is back, nothing is counted twice.
#[test]
fn a_network_that_is_held_back_holds_back_no_more_than_the_rest() {
    const LIMIT: u64 = 20_000;
    let local = json!({"requests": LIMIT, "per": "total", "scope": "cluster", "on_loss": "local", "local_percent": 1});
    let tiers = json!({"strict": budget(LIMIT), "local": {"quotas": [local]}});
    let site = Site::start(2, tiers, Keeping::File);
    for (jti, beyond) in [("strict", 0), ("local", 2 * LIMIT / 100)] {
        let first = site.send_until(jti, |sums| sums.allowed >= LIMIT / 4);
        site.network.hold(true);
        let mut last = (0, Instant::now());
        let held = site.send_until(jti, |sums| {
            if sums.allowed != last.0 {
                last = (sums.allowed, Instant::now());
            }
            // The proxies know that the ledger is lost, and have spent what they may.
            sums.unavailable > 0 && last.1.elapsed() > Duration::from_secs(2)
        });
        site.network.hold(false);
        let spent = first.allowed + held.allowed;
        assert!(spent < LIMIT, "{spent}: the network was held back too late");
        let rest = site.send_until(jti, |sums| spent + sums.allowed >= LIMIT);
        let passed = spent + rest.allowed;
        println!("{jti}: {first:?}, {held:?} while it was held back, {rest:?}");
        assert!((LIMIT..=LIMIT + beyond).contains(&passed), "{jti}: {passed}");
        site.assert_spent(jti);
    }
}
