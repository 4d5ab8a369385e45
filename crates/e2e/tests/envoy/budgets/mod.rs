//! One budget over several proxies, which lease it from a ledger.

mod cost;
mod site;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::keys;
use crate::llm::in_front_of;
use crate::llm::quotas::{case_of, chat, used, word};
use crate::metrics::series;
use crate::support::{Connection, Provider, Replay};

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
    let mut last = (0, 0);
    let after = site.send_until("b", |sums| {
        // Rounds without a request that passed: the ledger has nothing, and the proxy has spent what it held.
        last = if sums.allowed == last.0 { (last.0, last.1 + 1) } else { (sums.allowed, 0) };
        last.1 > 5 && site.wait_for_account(&name, |_| true)["left"] == 0
    });
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

/// Streams that end, and streams whose clients leave, over both proxies: the ledger has what both have charged, and that is
/// what the provider reported.
#[test]
fn the_tokens_of_all_proxies_are_settled_in_the_ledger() {
    const STREAMS: u64 = 400;
    const USED: u64 = 50;
    let provider = Provider::start(|request| {
        let sent = Replay::events().piece(word("Rhine"));
        if case_of(request) == "whole" { sent.piece(used(USED)) } else { sent.silence() }
    });
    let quotas = json!([{"tokens": 1_000_000, "per": "total", "scope": "cluster"}]);
    let plugin = json!({
        "tiers": {"default": {"quotas": quotas}},
        "tenants": {"whole": {}, "left": {}},
    });
    let site = Site::start_with(2, plugin, Keeping::File, |main, plugin| {
        in_front_of(&provider, "budget-tokens", main, plugin)
    });
    let [whole, left] =
        ["whole", "left"].map(|tenant| site.main.key("streams", json!({"tenant": tenant})));
    for number in 0..STREAMS {
        let envoy = &site.proxies[usize::from(number % 2 == 1)];
        let mut connection = Connection::open(envoy.gate());
        if number % 4 < 3 {
            assert_eq!(connection.send(&chat(&whole, "whole")).status, 200);
        } else {
            connection.send_raw(&chat(&left, "left").encode()).unwrap();
            while connection.read_some().unwrap() < "Rhine".len() {}
        }
    }
    let charged = |tenant: &str| {
        let tokens = site.proxies.iter().flat_map(|envoy| series(envoy, "vkey_tokens_total"));
        tokens.filter(|one| one.labels["tenant"] == tenant).map(|one| one.value).sum::<u64>()
    };
    let in_ledger = |tenant: &str, tokens: u64| {
        let name = format!("key/{tenant}/streams/tokens/total");
        site.wait_for_account(&name, |sums| sums["used"] == tokens);
    };
    // A stream whose client left ends when the proxy finds out.
    for envoy in &site.proxies {
        envoy.wait_for_access_log(usize::try_from(STREAMS / 2).unwrap());
    }
    in_ledger("whole", STREAMS * 3 / 4 * USED);
    assert_eq!(charged("whole"), STREAMS * 3 / 4 * USED);
    // What one request reserves is what each costs whose client leaves.
    let each = charged("left") / (STREAMS / 4);
    assert_eq!(charged("left"), each * STREAMS / 4);
    in_ledger("left", charged("left"));
}
