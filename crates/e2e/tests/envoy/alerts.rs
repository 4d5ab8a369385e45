//! What is reported and never in anybody's way: sources of bad keys, and unusual use of a good one.

use serde_json::{Value, json};
use vkey::decision::{Decision, DenyReason};

use crate::keys::{Minter, attenuate, options, records};
use crate::metrics::series;
use crate::support::{Envoy, Request, config, each_envoy, wait_for};

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
    assert_eq!(log.matches("3 failed authentications from 127.0.0.1").count(), 1, "{log}");
    expect_metric(&envoy, "vkey_auth_alerts_total", 1);
    expect_metric(&envoy, "vkey_requests_total", 6);
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

/// Health checks, preflights, redirects and errors that something in front of the module answers: nobody was
/// denied, so what counts denials does not count them.
#[test]
fn what_is_answered_in_front_of_the_module_is_no_denial() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let options = options("unseen", &main, json!({})).on(binary).edit(answer_in_front);
        let envoy = Envoy::start(options);
        let probe = Request::new("GET", "/healthz");
        let preflight = Request::new("OPTIONS", "/v1/models")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST");
        let fault = Request::new("GET", "/v1/models").header("x-abort", "yes");
        let redirect = Request::new("GET", "/v1%2fmodels");
        let unseen = [(probe, 200), (preflight, 200), (fault, 503), (redirect, 307)];
        for (request, status) in &unseen {
            assert_eq!(envoy.send(request).status, *status, "{binary:?}");
        }
        assert_eq!(envoy.send(&get(&main.key("good", json!({})))).status, 200);
        assert_eq!(envoy.send(&Request::new("GET", "/v1/models")).status, 401);
        envoy.wait_for_access_log(unseen.len() + 2);
        let requests = series(&envoy, "vkey_requests_total");
        let of = |decision: &str| {
            let of = requests.iter().filter(|series| series.labels["decision"] == decision);
            of.map(|series| series.value).sum::<u64>()
        };
        assert_eq!(["unseen", "deny", "allow"].map(of), [4, 1, 1], "{requests:?}");
        let lines = envoy.access_log();
        for (line, (_, status)) in lines.iter().zip(&unseen) {
            assert!(line.starts_with(r#"{"vkey":"-","start":""#), "{line}");
            assert!(line.contains(&format!(r#""status":{status}"#)), "{line}");
        }
        let decisions = records(&envoy, 6).into_iter().map(|record| record.decision);
        let denied = Decision::Deny(DenyReason::KeyMissing);
        let seen = [Some(Decision::Allow), Some(denied)];
        assert!(decisions.eq([None; 4].into_iter().chain(seen)));
    });
}

/// Filters before the module that answer themselves, and a redirect of the connection manager's.
fn answer_in_front(config: &mut Value) {
    let filter = |name: &str, kind: &str, mut config: Value| {
        let kind = format!("type.googleapis.com/envoy.extensions.filters.http.{kind}");
        config["@type"] = json!(kind);
        json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
    };
    let probes = json!({
        "pass_through_mode": false,
        "headers": [{"name": ":path", "string_match": {"exact": "/healthz"}}],
    });
    let aborts = json!({
        "abort": {"http_status": 503, "percentage": {"numerator": 100}},
        "headers": [{"name": "x-abort", "present_match": true}],
    });
    let filters = [
        filter("health_check", "health_check.v3.HealthCheck", probes),
        filter("cors", "cors.v3.Cors", json!({})),
        filter("fault", "fault.v3.HTTPFault", aborts),
    ];
    config::http_filters(config).splice(0..0, filters);
    let manager = config::connection_manager(config, "gate");
    manager["path_with_escaped_slashes_action"] = json!("UNESCAPE_AND_REDIRECT");
    manager["route_config"]["virtual_hosts"][0]["typed_per_filter_config"] = json!({
        "envoy.filters.http.cors": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [{"exact": "https://app.example"}],
            "allow_methods": "POST",
        },
    });
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
