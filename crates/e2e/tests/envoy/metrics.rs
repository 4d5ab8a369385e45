//! Metrics: few names, whoever calls, with labels as Prometheus wants them.

use std::collections::BTreeMap;
use std::iter::repeat_n;

use serde_json::json;

use crate::keys::{Minter, options};
use crate::load::{CONNECTIONS, Tally, WORKERS, connect, number, send_in_step};
use crate::support::{Envoy, Request, config, wait_for};
use crate::updates::Listener;

/// One series of a metric, as Prometheus reads it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: u64,
}

/// The lines of `/stats/prometheus` that are a sample of that metric.
fn samples(envoy: &Envoy, metric: &str) -> Vec<String> {
    let text = envoy.admin_get("/stats/prometheus").text();
    let sample = |line: &&str| line.split('{').next() == Some(metric);
    text.lines().filter(sample).map(str::to_owned).collect()
}

/// The series of a metric. Labels of the module hold nothing that would have to be escaped.
pub(crate) fn series(envoy: &Envoy, metric: &str) -> Vec<Series> {
    let series = |line: String| {
        let (labels, value) = line[metric.len() + 1..].split_once("} ").expect(&line);
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(name, value)| (name.into(), value.trim_matches('"').into()));
        Series { labels: labels.collect(), value: value.parse().expect(&line) }
    };
    samples(envoy, metric).into_iter().map(series).collect()
}

fn get(envoy: &Envoy, key: &str) -> u16 {
    envoy.send(&Request::new("GET", "/v1/models").bearer(key)).status
}

#[test]
fn metrics_have_the_names_and_labels_that_the_shipped_configuration_gives_them() {
    let main = Minter::new("main", None);
    let plugin = json!({
        "tiers": {"default": {"quotas": [{"requests": 2, "per": "total"}]}},
        "tenants": {"acme": {}, "a-b_c": {"rate": {"requests": 1, "per": "300d"}}},
        "revoked": {"version": 7},
        "mcp": {"paths": ["/v1/mcp"]},
    });
    let envoy = Envoy::start(options("names", &main, plugin));
    let acme = main.key("k1", json!({}));
    let dashed = main.key("k2", json!({"tenant": "a-b_c"}));
    let statuses = [&*acme, &acme, &acme, &dashed, &dashed, "no key", ""].map(|k| get(&envoy, k));
    assert_eq!(statuses, [200, 200, 429, 200, 429, 401, 401]);
    let ping = r#"{"jsonrpc": "2.0", "id": 1, "method": "ping"}"#;
    let message = Request::new("POST", "/v1/mcp").bearer(&main.key("k3", json!({})));
    let message = message.header("content-type", "application/json").body(ping);
    assert_eq!(envoy.send(&message).status, 200);
    envoy.wait_for_access_log(statuses.len() + 1);
    for (metric, expected) in [
        (
            "vkey_requests_total",
            &[
                r#"{decision="allow",reason="none",tenant="a-b_c"} 1"#,
                r#"{decision="allow",reason="none",tenant="acme"} 3"#,
                r#"{decision="deny",reason="key_malformed",tenant="none"} 1"#,
                r#"{decision="deny",reason="key_missing",tenant="none"} 1"#,
                r#"{decision="deny",reason="quota",tenant="acme"} 1"#,
                r#"{decision="deny",reason="tenant_rate",tenant="a-b_c"} 1"#,
            ][..],
        ),
        (
            "vkey_limit_hits_total",
            &[
                r#"{limit="tenant_rate",tenant="a-b_c"} 1"#,
                r#"{limit="tier_requests_total",tenant="acme"} 1"#,
            ],
        ),
        ("vkey_mcp_calls_total", &[r#"{class="lifecycle",decision="allow",tenant="acme"} 1"#]),
        ("vkey_revocations_version", &["{} 7"]),
    ] {
        let expected: Vec<_> = expected.iter().map(|rest| format!("{metric}{rest}")).collect();
        assert_eq!(samples(&envoy, metric), expected);
    }
}

/// Where the rules for labels were less exact, they would take parts out of other names too.
#[test]
fn other_stats_keep_their_names() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("others", &main, json!({})).edit(|config| {
        let manager = config::connection_manager(config, "gate");
        manager["stat_prefix"] = json!("wasmcustom.vkey_a.reason.b.tenant.c");
    }));
    let text = envoy.admin_get("/stats/prometheus").text();
    let others: Vec<_> = text.lines().filter(|line| !line.starts_with("vkey_")).collect();
    let kept = "vkey_a_reason_b_tenant_c";
    assert!(others.iter().any(|line| line.contains(kept)), "no {kept} in {others:#?}");
    for label in ["anomaly", "decision", "limit", "reason", "tenant"] {
        let labelled = others.iter().find(|line| line.contains(&format!("{label}=\"")));
        assert_eq!(labelled, None);
    }
}

/// The sum over all series of a metric.
fn total(envoy: &Envoy, metric: &str) -> u64 {
    series(envoy, metric).iter().map(|series| series.value).sum()
}

/// Whoever mints keys may invent tenants; each would be a series for as long as the process lives.
#[test]
fn tenants_that_are_not_listed_share_a_series() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("unlisted", &main, json!({"tenants": {"acme": {}}})));
    for number in 0..50 {
        let tenant = format!("tenant-{number}");
        assert_eq!(get(&envoy, &main.key(&tenant, json!({"tenant": tenant}))), 200);
    }
    envoy.wait_for_access_log(50);
    let shared = r#"vkey_requests_total{decision="allow",reason="none",tenant="other"} 50"#;
    assert_eq!(samples(&envoy, "vkey_requests_total"), [shared]);
}

/// Each retry is a compare-and-swap that another worker got ahead of.
#[test]
fn retries_under_load_are_counted() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("retries", &main, json!({})).concurrency(WORKERS));
    let request = Request::new("DELETE", "/v1/models").bearer(&main.key("hot", json!({}))).encode();
    let mut connections = connect(&envoy);
    assert_eq!(total(&envoy, "vkey_contention_retries_total"), 0);
    let mut sent = 0;
    let retries = wait_for(
        || {
            send_in_step(&mut connections, repeat_n(&request, 10 * CONNECTIONS));
            sent += 10 * CONNECTIONS;
            Some(total(&envoy, "vkey_contention_retries_total")).filter(|retries| *retries > 0)
        },
        || envoy.proxy_log(),
    );
    println!("{retries} retries in {sent} requests");
}

#[test]
fn series_go_on_through_an_update() {
    let main = Minter::new("main", None);
    let plugin = |version: u64, path: &str| {
        let tiers = json!({"default": {"only": {"paths": [path]}}});
        json!({"tenants": {"acme": {}}, "tiers": tiers, "revoked": {"version": version}})
    };
    let (envoy, mut listener) =
        Listener::start(options("go_on", &main, json!({})), plugin(7, "/v1/**"));
    let key = main.key("k1", json!({}));
    let version = || series(&envoy, "vkey_revocations_version")[0].value;
    assert_eq!((get(&envoy, &key), get(&envoy, &key), version()), (200, 200, 7));

    listener.publish(plugin(8, "/v2/**"));
    let mut sent = 2;
    wait_for(
        || {
            sent += 1;
            (get(&envoy, &key) == 403).then_some(())
        },
        || envoy.proxy_log(),
    );
    assert_eq!(version(), 8);
    envoy.wait_for_access_log(sent);
    let expected = Tally { allowed: number(sent - 1), limited: 0, refused: 1 };
    assert_eq!(Tally::of_metrics(&envoy, "acme"), expected);
}
