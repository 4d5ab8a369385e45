//! What is reported and never in anybody's way: sources of bad keys, and unusual use of a good one.

use serde_json::json;
use vkey::decision::{Decision, DenyReason};

use crate::keys::{Minter, attenuate, options, records};
use crate::metrics::series;
use crate::support::{Envoy, Request, wait_for};

fn get(key: &str) -> Request {
    Request::new("GET", "/v1/models").bearer(key)
}

#[track_caller]
fn expect_metric(envoy: &Envoy, metric: &str, value: u64) {
    let sum = || series(envoy, metric).iter().map(|series| series.value).sum::<u64>();
    wait_for(|| (sum() == value).then_some(()), || format!("{metric} is {}, not {value}", sum()));
}

#[test]
fn a_source_of_bad_keys_is_blocked_and_a_good_key_from_it_is_not() {
    let main = Minter::new("main", None);
    let plugin = json!({"auth_failures": {"threshold": 3, "window": "1h", "block_for": "1h"}});
    let envoy = Envoy::start(options("blocked", &main, plugin).concurrency(4));
    let good = main.key("good", json!({}));
    let forged = Minter::new("main", None).key("good", json!({}));
    for _ in 0..3 {
        assert_eq!(envoy.send(&get(&forged)).status, 401);
    }
    let blocked = envoy.send(&get(&forged));
    assert_eq!((blocked.status, &blocked.json()["error"]["code"]), (429, &json!("source_blocked")));
    let wait: u64 = blocked.header("retry-after").unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    let policy = blocked.header("ratelimit-policy");
    assert_eq!(policy.as_deref(), Some("\"auth_failures\";q=3;w=3600"));
    assert_eq!(envoy.send(&get(&good)).status, 200);
    assert_eq!(envoy.send(&Request::new("GET", "/v1/models")).status, 401);
    let log = envoy.proxy_log();
    assert_eq!(log.matches("3 keys that are not valid came from 127.0.0.1").count(), 1, "{log}");
    expect_metric(&envoy, "vkey_auth_alerts_total", 1);
    expect_metric(&envoy, "vkey_auth_failures_total", 4);
    let records = records(&envoy, 6);
    let blocked = &records[3];
    assert_eq!(blocked.decision, Some(Decision::Deny(DenyReason::SourceBlocked)));
    assert_eq!(blocked.jti, None);
}

#[test]
fn unusual_use_is_marked_once_and_refused_never() {
    let main = Minter::new("main", None);
    let plugin = json!({"tenants": {"acme": {}}, "anomaly": {"sensitivity": "high"}});
    let envoy = Envoy::start(options("anomaly", &main, plugin).concurrency(4));
    let good = main.key("good", json!({}));
    let refused = attenuate(&good, &json!({"methods": []}));
    // A quarter of at least ten, whatever window of five minutes they fall into.
    for _ in 0..20 {
        assert_eq!(envoy.send(&get(&refused)).status, 403);
    }
    assert_eq!(envoy.send(&get(&good)).status, 200);
    let records = records(&envoy, 21);
    let marks: Vec<&str> = records.iter().filter_map(|record| record.anomaly.as_deref()).collect();
    assert!(!marks.is_empty() && marks.len() <= 2 && marks.iter().all(|mark| *mark == "refusals"));
}

#[test]
fn anomalies_are_counted_by_kind_and_tenant() {
    let main = Minter::new("main", None);
    let plugin = json!({"tenants": {"acme": {}}, "anomaly": {"sensitivity": "high"}});
    let envoy = Envoy::start(options("anomalies", &main, plugin));
    let refused = attenuate(&main.key("good", json!({})), &json!({"methods": []}));
    for _ in 0..20 {
        assert_eq!(envoy.send(&get(&refused)).status, 403);
    }
    let metric = "vkey_anomalies_total";
    let found = wait_for(
        || Some(series(&envoy, metric)).filter(|found| !found.is_empty()),
        || "no anomaly".to_owned(),
    );
    let labels: Vec<_> = found.iter().flat_map(|series| &series.labels).collect();
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("anomaly", "refusals"), ("tenant", "acme")]);
}
