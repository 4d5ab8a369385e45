//! Without the gate of a cluster: the answer is judged, since the request cannot be.

use serde_json::json;

use crate::gateways::{
    Gateway, KNOWN, Plan, UNLISTED, assert_allowed, assert_denied, proven, route, tighten,
};
use crate::support::each_envoy;
use crate::support::tls::{Authority, Cluster, Serve};

/// What the log says of a proxy whose clusters have no gate.
const WARNING: &str = "upstream TLS: no cluster has the module as its upstream filter";

#[test]
fn an_answer_over_a_bad_connection_is_withheld_and_its_cluster_refused() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let other = authority.server(&["other.example"]);
        for reason in ["upstream_plaintext", "upstream_name"] {
            let upstream = match reason {
                "upstream_plaintext" => Serve::plain().start(),
                _ => Serve::tls(&other).start(),
            };
            let cluster = match reason {
                "upstream_plaintext" => Cluster::plain("api", &upstream),
                _ => Cluster::tls("api", &upstream, &authority).sni(KNOWN),
            };
            let gateway = Gateway::start(binary, "withheld", cluster);
            let answer = gateway.send(KNOWN);
            // The upstream answers with the request's head.
            assert!(!answer.text().contains("/v1/chat"), "{answer:?}");
            crate::gateways::assert_refused(&answer, reason, &gateway.envoy);
            assert_eq!(upstream.counts().requests, 1);
            for _ in 0..3 {
                gateway.refuses(KNOWN, reason);
            }
            // The first was sent.
            assert_eq!((gateway.charged(), gateway.counts()), (1, (0, 4)));
            for record in gateway.records(6) {
                assert_denied(&record, reason);
            }
            assert_eq!(upstream.final_counts().requests, 1);
        }
    });
}

#[test]
fn a_good_upstream_passes_without_a_gate() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN);
        let plugin = json!({"upstream_tls": {"require_gate": false}});
        let gateway = Plan::new(binary, "good", plugin).edit(|config| cluster.install(config));
        let gateway = gateway.start();
        gateway.passes(KNOWN);
        let answer = gateway.passes(KNOWN);
        assert!(answer.header("ratelimit").is_some(), "{answer:?}");
        for record in gateway.records(2) {
            assert_allowed(&record, Some("verified"));
        }
        assert_eq!(upstream.final_counts().accepted, 1);
    });
}

#[test]
fn the_log_says_whether_the_clusters_have_gates() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        for gated in [false, true] {
            let cluster = Cluster::plain("api", &upstream);
            let cluster = if gated { cluster.gate() } else { cluster };
            let gateway = Gateway::start(binary, "warning", cluster);
            gateway.envoy.stop();
            let log = gateway.envoy.proxy_log();
            assert_eq!(log.contains(WARNING), !gated, "{log}");
        }
    });
}

/// The host that a route asks for is known only once all is over: what broke the policy is written
/// down then, and the next request is refused.
#[test]
fn a_host_that_the_route_names_is_judged_late() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream);
        let gateway = Plan::new(binary, "late", json!({}))
            .edit(|config| {
                cluster.install(config);
                route(config)["host_rewrite_literal"] = json!(KNOWN);
            })
            .start();
        gateway.passes(UNLISTED);
        gateway.envoy.wait_for_access_log(1);
        gateway.refuses(UNLISTED, "upstream_plaintext");
        let records = gateway.records(2);
        assert_allowed(&records[0], Some("upstream_plaintext"));
        assert_denied(&records[1], "upstream_plaintext");
        assert_eq!(upstream.final_counts().requests, 1);
    });
}

/// What only the gate in front tightens, the gate of the cluster does not know.
#[test]
fn the_gate_in_front_judges_by_its_own_rules_too() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let leaf = authority.server(&[KNOWN, UNLISTED]);
        let upstream = Serve::plain().start();
        let old = Serve::tls(&leaf).only_tls12().start();
        let verified = proven(&old, &authority, KNOWN).gate();
        for (host, cluster, rule, reason) in [
            (
                UNLISTED,
                Cluster::plain("api", &upstream).gate(),
                json!({"host": "*"}),
                "upstream_plaintext",
            ),
            (KNOWN, verified, json!({"host": KNOWN, "min_version": "TLSv1.3"}), "upstream_version"),
        ] {
            let gateway = Plan::new(binary, "front", tighten(rule))
                .edit(|config| cluster.install(config))
                .start();
            for _ in 0..2 {
                gateway.refuses(host, reason);
            }
            assert_eq!((gateway.charged(), gateway.counts()), (1, (0, 2)));
            for record in gateway.records(4) {
                assert_denied(&record, reason);
            }
        }
        assert_eq!((upstream.final_counts().requests, old.final_counts().requests), (1, 1));
    });
}

#[test]
fn what_envoy_refuses_itself_stays_as_it_is() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&["other.example"])).start();
        let verifying = proven(&upstream, &authority, KNOWN);
        let empty = verifying.clone().edit(|cluster| {
            cluster["load_assignment"]["endpoints"] = json!([]);
        });
        for cluster in [verifying.clone(), verifying.gate(), empty.clone(), empty.gate()] {
            let gateway = Gateway::start(binary, "envoy", cluster);
            assert_eq!(gateway.send(KNOWN).status, 503);
            assert_eq!((gateway.charged(), gateway.counts()), (1, (1, 0)));
            let line = &gateway.lines(3)[0];
            assert_allowed(line.record.as_ref().unwrap(), None);
            assert_eq!(line.outcome.status, Some(503));
        }
        assert_eq!(upstream.final_counts().bytes, 0);
    });
}
