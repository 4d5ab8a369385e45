//! Limits over all workers of one proxy: as much as was said and not one request more, and the same
//! told by everyone who counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::keys::{Minter, attenuate, options};
use crate::load::{Tally, WORKERS, connect, number, send_in_step, usage};
use crate::metrics::series;
use crate::support::{Connection, Envoy, Request, artefact, each_envoy};

const LIMITS: [u64; 3] = [1, 10, 1_000];

/// The keys of a tenant that share its limit.
const KEYS: usize = 50;

/// The keys that are narrowed from one.
const CHILDREN: usize = 20;

/// What a child is limited to: nothing; less than its share of a thousand; more.
const OF_EACH_CHILD: [Option<u64>; 3] = [None, Some(26), Some(51)];

/// So many requests, and no more for as long as a test may last.
type Kind = fn(u64) -> Value;
const KINDS: [(&str, Kind); 2] = [("quota", quota), ("rate", rate)];

fn quota(requests: u64) -> Value {
    json!({"quotas": [{"requests": requests, "per": "total"}]})
}

fn rate(requests: u64) -> Value {
    json!({"rate": {"requests": requests, "per": "300d", "burst": requests}})
}

/// A limit to be used up, by a tenant (and under a tier) of its name.
struct Case {
    name: String,
    kind: Kind,
    limit: u64,
    of_each_child: Option<u64>,
}

/// What became of the requests of a tenant, as its client saw it, by the ids of the keys.
struct Seen<'a> {
    tenant: &'a str,
    of_keys: BTreeMap<String, Tally>,
}

fn cases(of_each_child: &[Option<u64>]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, kind) in KINDS {
        for limit in LIMITS {
            for of_each_child in of_each_child.iter().copied() {
                let each = of_each_child.map_or_else(String::new, |each| format!("-each-{each}"));
                let name = format!("{name}-{limit}{each}");
                cases.push(Case { name, kind, limit, of_each_child });
            }
        }
    }
    cases
}

/// A proxy with the limits of the cases on the `tiers`, or on the `tenants`.
fn start(minter: &Minter, limited: &str, cases: &[Case]) -> Envoy {
    let mut plugin = json!({"tiers": {"operator": {"usage_of_others": true}}, "tenants": {}});
    for Case { name, kind, limit, .. } in cases {
        plugin["tenants"][name] = json!({});
        plugin[limited][name] = kind(*limit);
    }
    Envoy::start(options(limited, minter, plugin).concurrency(WORKERS))
}

/// Sends far more requests than a limit has room for, of each key in turn, and says for each key
/// what became of them.
fn use_up(envoy: &Envoy, keys: &[String], limit: u64) -> Vec<Tally> {
    let request = |key: &String| Request::new("GET", "/v1/models").bearer(key).encode();
    let requests: Vec<_> = keys.iter().map(request).collect();
    let count = usize::try_from(limit * 2).unwrap().max(640);
    let statuses = send_in_step(&mut connect(envoy), requests.iter().cycle().take(count));
    let of_key = |index| statuses.iter().skip(index).step_by(keys.len()).copied();
    (0..keys.len()).map(|index| Tally::of_statuses(of_key(index))).collect()
}

impl Case {
    /// Exactly `allowed` went through, and what did not was refused by a limit.
    #[track_caller]
    fn assert_exact(&self, tallies: &[Tally], allowed: u64) {
        let sum = Tally::sum(tallies);
        let limited = sum.sent() - allowed;
        assert_eq!(sum, Tally { allowed, limited, refused: 0 }, "{}", self.name);
        assert!(limited >= allowed, "{}: {sum:?} leaves the limit untried", self.name);
    }
}

/// Whoever counts has counted what the clients saw: the cells of the keys and of their tenants, the
/// metrics, the audit lines.
#[track_caller]
fn assert_agreed(envoy: &Envoy, minter: &Minter, clients: &[Seen<'_>]) {
    let sums = clients.iter().map(|seen| (seen.tenant, Tally::sum(seen.of_keys.values())));
    let sums = BTreeMap::from_iter(sums);
    let sent = Tally::sum(sums.values()).sent();
    let lines = envoy.wait_for_access_log(usize::try_from(sent).unwrap());
    let of_lines = Tally::of_lines(&lines);
    assert_eq!(of_lines, sums.iter().map(|(tenant, sum)| ((*tenant).to_owned(), *sum)).collect());
    let operator = minter.key("op", json!({"tenant": "operators", "tier": "operator"}));
    let mut connection = Connection::open(envoy.gate());
    let hits = series(envoy, "vkey_limit_hits_total");
    for Seen { tenant, of_keys } in clients {
        let sum = sums[tenant];
        assert_eq!(Tally::of_metrics(envoy, tenant), sum, "metrics of {tenant}");
        let hits = hits.iter().filter(|series| series.labels["tenant"] == *tenant);
        assert_eq!(hits.map(|series| series.value).sum::<u64>(), sum.limited, "hits of {tenant}");
        let of_tenant = usage(&mut connection, &operator, &format!("?tenant={tenant}"));
        assert_eq!(Tally::of_usage(&of_tenant), sum, "usage of {tenant}");
        for (jti, tally) in of_keys {
            let of_key = usage(&mut connection, &operator, &format!("?tenant={tenant}&jti={jti}"));
            assert_eq!(Tally::of_usage(&of_key), *tally, "usage of {jti}");
        }
    }
}

#[test]
fn a_key_gets_exactly_as_much_as_its_limit_says() {
    let main = Minter::new("main", None);
    let cases = cases(&[None]);
    let envoy = start(&main, "tiers", &cases);
    let seen = cases.iter().map(|case| {
        let Case { name, .. } = case;
        let key = main.key(name, json!({"tenant": name, "tier": name}));
        let tallies = use_up(&envoy, &[key], case.limit);
        case.assert_exact(&tallies, case.limit);
        Seen { tenant: name, of_keys: BTreeMap::from([(name.clone(), tallies[0])]) }
    });
    assert_agreed(&envoy, &main, &Vec::from_iter(seen));
}

#[test]
fn the_keys_of_a_tenant_get_exactly_as_much_as_its_limit_says() {
    let main = Minter::new("main", None);
    let cases = cases(&[None]);
    let envoy = start(&main, "tenants", &cases);
    let seen = cases.iter().map(|case| {
        let Case { name, .. } = case;
        let jtis: Vec<_> = (0..KEYS).map(|number| format!("{name}-{number}")).collect();
        let keys = jtis.iter().map(|jti| main.key(jti, json!({"tenant": name})));
        let tallies = use_up(&envoy, &Vec::from_iter(keys), case.limit);
        case.assert_exact(&tallies, case.limit);
        Seen { tenant: name, of_keys: jtis.into_iter().zip(tallies).collect() }
    });
    assert_agreed(&envoy, &main, &Vec::from_iter(seen));
}

#[test]
fn the_children_of_a_key_get_exactly_as_much_as_its_limit_and_theirs_say() {
    let main = Minter::new("main", None);
    let cases = cases(&OF_EACH_CHILD);
    let envoy = start(&main, "tiers", &cases);
    let seen = cases.iter().map(|case| {
        let Case { name, kind, limit, of_each_child } = case;
        let parent = main.key(name, json!({"tenant": name, "tier": name}));
        let child = |number: usize| {
            let named = attenuate(&parent, &json!({"paths": ["/v1/**", format!("/{number}")]}));
            of_each_child.map_or(named.clone(), |each| attenuate(&named, &kind(each)))
        };
        let children: Vec<_> = (0..CHILDREN).map(child).collect();
        let tallies = use_up(&envoy, &children, *limit);
        let each = of_each_child.unwrap_or(u64::MAX);
        let all = each.saturating_mul(number(CHILDREN));
        case.assert_exact(&tallies, all.min(*limit));
        assert!(tallies.iter().all(|tally| tally.allowed <= each), "{name}: {tallies:?}");
        Seen { tenant: name, of_keys: BTreeMap::from([(name.clone(), Tally::sum(&tallies))]) }
    });
    assert_agreed(&envoy, &main, &Vec::from_iter(seen));
}

/// The cells of a key and of its tenant are charged one after the other. What the second has no
/// room for is taken back from the first.
#[test]
fn what_a_tenant_has_no_room_for_is_charged_to_no_key() {
    let main = Minter::new("main", None);
    let plugin = json!({"tiers": {"default": quota(30)}, "tenants": {"acme": quota(1_000)}});
    let envoy = Envoy::start(options("taken_back", &main, plugin).concurrency(WORKERS));
    let keys = (0..KEYS).map(|number| main.key(&format!("k{number}"), json!({})));
    let keys = Vec::from_iter(keys);
    let tallies = use_up(&envoy, &keys, 1_000);
    assert_eq!(Tally::sum(&tallies), Tally { allowed: 1_000, limited: 1_000, refused: 0 });
    let mut connection = Connection::open(envoy.gate());
    for (key, tally) in keys.iter().zip(tallies) {
        let usage = usage(&mut connection, key, "");
        assert_eq!(Tally::of_usage(&usage), tally, "{usage}");
        assert_eq!(usage["limits"][0]["used"], tally.allowed, "{usage}");
    }
}

/// Such a tenant has no cell. Every worker reads the totals of all workers.
#[test]
fn the_totals_of_a_tenant_without_limits_are_exact() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let plugin = json!({
            "tiers": {"default": quota(30), "operator": {"usage_of_others": true}},
            "tenants": {"free": {}},
        });
        let envoy =
            Envoy::start(options("free_tenant", &main, plugin).on(binary).concurrency(WORKERS));
        let key = |tenant: &str, number| {
            let claims = json!({"tenant": tenant, "only": {"paths": ["/v1/**"]}});
            main.key(&format!("k{number}"), claims)
        };
        let request = |key: &String, path| Request::new("GET", path).bearer(key).encode();
        let keys = Vec::from_iter((0..KEYS).map(|number| key("free", number)));
        let mut requests: Vec<_> = keys.iter().map(|key| request(key, "/v1/models")).collect();
        requests.extend(keys.iter().map(|key| request(key, "/v2/models")));
        requests.push(request(&key("unlisted", 0), "/v1/models"));
        let sent = requests.len() * 50;
        let statuses = send_in_step(&mut connect(&envoy), requests.iter().cycle().take(sent));
        let of_free = statuses.chunks(requests.len()).flat_map(|round| &round[..2 * KEYS]);
        let tally = Tally::of_statuses(of_free.copied());
        let each = number(KEYS);
        assert_eq!(tally, Tally { allowed: 30 * each, limited: 20 * each, refused: 50 * each });
        // The counter counts what has ended.
        envoy.wait_for_access_log(sent);
        let operator = main.key("op", json!({"tenant": "operators", "tier": "operator"}));
        for mut connection in connect(&envoy) {
            let free = usage(&mut connection, &operator, "?tenant=free");
            assert_eq!(Tally::of_usage(&free), tally, "{free}");
            assert_eq!(free["denied"]["forbidden"], tally.refused, "{free}");
            assert_eq!((&free["known"], &free["limits"]), (&Value::Null, &json!([])));
            let unlisted = usage(&mut connection, &operator, "?tenant=unlisted");
            assert_eq!((&unlisted["known"], &unlisted["seen"]), (&json!(false), &json!(0)));
        }
    });
}

/// The same with the mistake that the tests above are for: without it, they would prove nothing.
/// Some twenty of a thousand too many pass on two cores.
#[test]
fn writing_without_comparing_lets_too_many_through() {
    let main = Minter::new("main", None);
    let plugin = json!({"tiers": {"default": quota(1_000)}});
    let options = options("write_cas_zero", &main, plugin)
        .module(artefact("VKEY_TEST_WASM_FAULTS"))
        .env("VKEY_FAULT", "write_cas_zero");
    let envoy = Envoy::start(options.concurrency(WORKERS));
    let passed = |number| {
        let key = main.key(&format!("k{number}"), json!({}));
        use_up(&envoy, &[key], 1_000)[0].allowed
    };
    let passed = (0..50).map(passed).find(|passed| *passed > 1_000);
    println!("passed of 1000 without comparing: {passed:?}");
    assert!(passed.is_some());
}

/// So many requests per second, and as many at once: a client that is kept waiting for a second
/// loses nothing.
const PER_SEC: u64 = 100;

/// The clock of the proxy and the one of the test are not one: a request more or less.
const BY_CLOCKS: u64 = 1;

/// One request on every connection: when the first was sent, when all were answered, how many
/// passed.
struct Round {
    began: Instant,
    ended: Instant,
    passed: u64,
}

#[test]
fn a_rate_holds_in_real_time() {
    let main = Minter::new("main", None);
    let rate = json!({"requests": PER_SEC, "per": "1s", "burst": PER_SEC});
    let plugin = json!({"tiers": {"default": {"rate": rate}}});
    let envoy = Envoy::start(options("rate", &main, plugin).concurrency(WORKERS));
    let request = Request::new("GET", "/v1/models").bearer(&main.key("k1", json!({}))).encode();
    let mut connections = connect(&envoy);
    let started = Instant::now();
    let mut rounds = Vec::new();
    while started.elapsed() < Duration::from_secs(2) {
        let began = Instant::now();
        let all = connections.len();
        let statuses = send_in_step(&mut connections, std::iter::repeat_n(&request, all));
        let passed = Tally::of_statuses(statuses).allowed;
        rounds.push(Round { began, ended: Instant::now(), passed });
    }
    for (index, first) in rounds.iter().enumerate() {
        let mut passed = 0;
        for round in &rounds[index..] {
            passed += round.passed;
            let most = PER_SEC + due(round.ended - first.began) + BY_CLOCKS;
            assert!(passed <= most, "{passed} passed, {most} at most");
        }
    }
    let (first, last) = (rounds.first().unwrap(), rounds.last().unwrap());
    let passed: u64 = rounds.iter().map(|round| round.passed).sum();
    let least = due(last.began - first.ended);
    println!("{} rounds, {passed} passed, at least {least} were due", rounds.len());
    assert!(passed >= least, "{passed} passed of {least} that were due");
    assert!(least >= PER_SEC, "{least} are too few to tell");
}

/// How many requests come back in a time.
fn due(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap() * PER_SEC / 1_000_000_000
}
