//! What a client is told of its limits with each answer.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::keys::{Minter, attenuate, now_secs, options};
use crate::support::{Envoy, Options, Request, Response, config};

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// The time in which one request of the rate comes back.
const INTERVAL: u64 = HOUR / 10;

/// The items of a `RateLimit` or `RateLimit-Policy` field: the name of a limit, and its parameters.
type Items = Vec<(String, BTreeMap<String, u64>)>;

fn items(answer: &Response, field: &str) -> Items {
    let value = answer.header(field).unwrap_or_else(|| panic!("no {field} in {answer:?}"));
    let parameter = |text: &str| {
        let (name, value) = text.split_once('=').expect(text);
        (name.to_owned(), value.parse().expect(text))
    };
    let item = |text: &str| {
        let mut parts = text.split(';');
        let name = parts.next().unwrap().trim_matches('"').to_owned();
        (name, parts.map(parameter).collect())
    };
    value.split(", ").map(item).collect()
}

/// What remains of each limit, in order.
fn remaining(answer: &Response) -> Vec<u64> {
    items(answer, "ratelimit").iter().map(|(_, parameters)| parameters["r"]).collect()
}

/// A tier with a rate and a quota, one with a single request, a tenant with a quota, one without.
fn plugin() -> Value {
    let limited = json!({
        "rate": {"requests": 10, "per": "1h", "burst": 3},
        "quotas": [{"requests": 5, "per": "total"}],
    });
    json!({
        "tiers": {"limited": limited, "counted": {"quotas": [{"requests": 1, "per": "total"}]}},
        "tenants": {"acme": {"quotas": [{"requests": 1_000, "per": "day"}]}, "free": {}},
    })
}

fn get(envoy: &Envoy, key: &str) -> Response {
    envoy.send(&Request::new("GET", "/v1/models").bearer(key))
}

#[test]
fn every_answer_tells_of_every_limit_and_a_refusal_of_its_policy() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("told", &main, plugin()));
    let key = main.key("k1", json!({"tier": "limited"}));
    let child = attenuate(&key, &json!({"quotas": [{"requests": 9, "per": "total"}]}));
    let policy = concat!(
        r#""tier_rate";q=3;w=1080, "tier_requests_total";q=5, "caveat_1_requests_total";q=9, "#,
        r#""tenant_requests_day";q=1000;w=86400"#,
    );
    let began = now_secs();
    let midnight = DAY - began % DAY;
    for (status, left) in
        [(200, [2, 4, 8, 999]), (200, [1, 3, 7, 998]), (200, [0, 2, 6, 997]), (429, [0, 2, 6, 997])]
    {
        let answer = get(&envoy, &child);
        assert_eq!(answer.status, status, "{answer:?}");
        let policy = (status == 429).then_some(policy);
        assert_eq!(answer.header("ratelimit-policy").as_deref(), policy);
        assert_eq!(remaining(&answer), left);
        let state = items(&answer, "ratelimit");
        let reset = |limit: usize| state[limit].1.get("t").copied();
        assert_counts_down(reset(0), (3 - left[0]) * INTERVAL, began);
        assert_eq!((reset(1), reset(2)), (None, None));
        assert_counts_down(reset(3), midnight, began);
        let retry_after = answer.header("retry-after").map(|secs| secs.parse().unwrap());
        if status == 429 {
            assert_counts_down(retry_after, INTERVAL, began);
            assert!(answer.text().contains("limit tier_rate of 3"), "{}", answer.text());
        } else {
            assert_eq!(retry_after, None);
        }
    }
}

/// The seconds were `from` when the test began.
#[track_caller]
fn assert_counts_down(secs: Option<u64>, from: u64, began: u64) {
    let took = now_secs() - began + 1;
    let wanted = from.saturating_sub(took)..=from;
    assert!(secs.is_some_and(|secs| wanted.contains(&secs)), "{secs:?} in {wanted:?}");
}

/// What never has room again is worth trying with another key, when this one has expired.
#[test]
fn what_is_used_up_for_good_is_worth_trying_with_the_next_key() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("for_good", &main, plugin()));
    let began = now_secs();
    let key = main.key("k1", json!({"tier": "counted", "exp": began + HOUR}));
    assert_eq!(get(&envoy, &key).status, 200);
    let answer = get(&envoy, &key);
    assert_eq!((answer.status, remaining(&answer)), (429, vec![0, 999]));
    let retry_after = answer.header("retry-after").map(|secs| secs.parse().unwrap());
    assert_counts_down(retry_after, HOUR, began);
    assert_eq!(answer.json()["error"]["code"], "quota");
    assert!(answer.text().contains("which does not reset"), "{}", answer.text());
}

/// The echo, which names limits of its own.
fn limited_echo(label: &str, minter: &Minter) -> Options {
    options(label, minter, plugin()).edit(|config| {
        let lua = &mut config::connection_manager(config, "echo")["http_filters"][0];
        let code = &mut lua["typed_config"]["default_source_code"]["inline_string"];
        let plain = r#"["content-type"] = "text/plain""#;
        let theirs =
            r#"["ratelimit"] = "\"theirs\";r=1;t=1", ["ratelimit-policy"] = "\"theirs\";q=1;w=1""#;
        let text = code.as_str().unwrap().replace(plain, &format!("{plain}, {theirs}"));
        *code = json!(text);
    })
}

#[test]
fn limits_of_the_upstream_give_way_to_those_of_the_key() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(limited_echo("theirs", &main));
    let answer = get(&envoy, &main.key("k1", json!({"tier": "counted"})));
    let state = answer.header("ratelimit").unwrap();
    assert!(state.starts_with(r#""tier_requests_total";r=0, "tenant_requests_day";r=999;t="#));
    // An allowed answer has no policy of the module's, so that of the upstream stays.
    let policy = |answer: &Response| answer.header("ratelimit-policy");
    assert_eq!(policy(&answer).as_deref(), Some(r#""theirs";q=1;w=1"#));
    // Without a limit of its own there is nothing that would have to give way.
    let answer = get(&envoy, &main.key("k2", json!({"tenant": "free"})));
    assert_eq!(answer.header("ratelimit").as_deref(), Some(r#""theirs";r=1;t=1"#));
}

#[test]
fn a_configuration_chooses_which_answers_tell_of_limits() {
    let main = Minter::new("main", None);
    for (headers, allowed, refused) in [
        ("always", [true, false], true),
        ("refused", [false; 2], true),
        ("never", [false; 2], false),
    ] {
        let mut plugin = plugin();
        plugin["limits"] = json!({"headers": headers});
        let envoy = Envoy::start(options(&format!("headers_{headers}"), &main, plugin));
        let key = main.key("k1", json!({"tier": "counted"}));
        let told = |answer: &Response| {
            ["ratelimit", "ratelimit-policy"].map(|name| answer.header(name).is_some())
        };
        let answer = get(&envoy, &key);
        assert_eq!((answer.status, told(&answer)), (200, allowed), "{headers}: {answer:?}");
        let answer = get(&envoy, &key);
        assert_eq!((answer.status, told(&answer)), (429, [refused; 2]), "{headers}: {answer:?}");
        assert!(answer.header("retry-after").is_some(), "{headers}: {answer:?}");
        assert!(answer.text().contains("limit tier_requests_total of 1"), "{}", answer.text());
    }
}

#[test]
fn without_a_limit_nothing_is_told() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("untold", &main, plugin()));
    let free = main.key("k1", json!({"tenant": "free"}));
    let limited = main.key("k2", json!({"tier": "counted"}));
    let usage = envoy.send(&Request::new("GET", "/.vkey/usage").bearer(&limited));
    for answer in [get(&envoy, &free), get(&envoy, "no key"), usage] {
        for field in ["ratelimit", "ratelimit-policy", "retry-after"] {
            assert_eq!(answer.header(field), None, "{answer:?}");
        }
    }
}

/// The proxy's own answer, for an upstream that is not there, has them too: the request is
/// spent.
#[test]
fn a_failure_behind_the_gate_tells_of_the_limits() {
    let main = Minter::new("main", None);
    let options = options("behind", &main, plugin()).edit(|config| {
        let cluster = &mut config["static_resources"]["clusters"][0];
        let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
        endpoint["endpoint"]["address"] = json!({"pipe": {"path": "@nobody-listens-here"}});
    });
    let envoy = Envoy::start(options);
    let answer = get(&envoy, &main.key("k1", json!({"tier": "counted"})));
    assert_eq!((answer.status, remaining(&answer)), (503, vec![0, 999]));
}
