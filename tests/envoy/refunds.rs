//! What is given back: what was refused before a byte of it left, and nothing else.

use std::path::Path;

use serde_json::{Value, json};

use crate::gateways::{KNOWN, Plan, UNLISTED, assert_refused, digest, proven};
use crate::support::each_envoy;
use crate::support::tls::{Authority, Cluster, Serve};

/// A gateway whose requests go to one cluster.
fn plan(binary: &Path, label: &str, plugin: Value, cluster: Cluster) -> Plan {
    Plan::new(binary, label, plugin).edit(|config| cluster.install(config))
}

fn without_required_gate() -> Value {
    json!({"upstream_tls": {"require_gate": false}})
}

#[test]
fn a_response_that_is_withheld_stays_charged() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream);
        let gateway = plan(binary, "withheld", without_required_gate(), cluster).start();
        gateway.refuses(KNOWN, "upstream_plaintext");
        assert_eq!((gateway.charged(), gateway.counts()), (1, (0, 1)));
        assert_eq!(upstream.counts().requests, 1);
    });
}

/// A client that names another host each time, or two in turns, gets no further.
#[test]
fn a_withheld_response_refuses_every_judged_host_of_its_cluster() {
    each_envoy(|binary| {
        for plugin in [json!({}), without_required_gate()] {
            let upstream = Serve::plain().start();
            let cluster = Cluster::plain("api", &upstream);
            let gateway = plan(binary, "subdomains", plugin, cluster).start();
            for number in 0..30 {
                let subdomain = format!("s{number}.api.openai.com");
                let host = [subdomain.as_str(), KNOWN, "api.anthropic.com"][number % 3];
                let answer = gateway.send(host);
                assert_eq!(answer.status, 502, "{host}: {answer:?}");
            }
            // What no policy judges is not concerned.
            gateway.passes(UNLISTED);
            assert_eq!((gateway.charged(), gateway.counts()), (2, (1, 30)));
            gateway.envoy.stop();
            assert_eq!(upstream.final_counts().requests, 2);
        }
    });
}

#[test]
fn a_cluster_without_a_gate_is_refused_after_its_first_response() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN);
        let gateway = plan(binary, "ungated", json!({}), cluster.clone()).start();
        gateway.passes(KNOWN);
        for _ in 0..3 {
            assert_refused(&gateway.send(KNOWN), "upstream_unproven", &gateway.envoy);
        }
        assert_eq!((gateway.charged(), gateway.counts()), (1, (1, 3)));
        let log = gateway.envoy.proxy_log();
        assert!(log.contains(r#"cluster "api" has no gate"#), "{log}");

        // The stamp, the gate, or the configuration answers for it.
        let stamped = cluster.clone().stamp(&digest(), &[KNOWN]);
        let elsewhere = cluster.clone().stamp(&digest(), &["api.anthropic.com"]);
        for (plugin, cluster, passes) in [
            (json!({}), stamped, true),
            (json!({}), elsewhere, false),
            (json!({}), cluster.clone().gate(), true),
            (without_required_gate(), cluster, true),
        ] {
            let gateway = plan(binary, "proven", plugin, cluster).start();
            gateway.passes(KNOWN);
            assert_eq!(gateway.send(KNOWN).status == 200, passes);
        }
    });
}

/// A retry that is refused comes after an attempt that has left.
#[test]
fn a_request_that_was_sent_once_stays_charged() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let failing = Serve::tls(&authority.server(&[KNOWN])).failures(1000).start();
        let bad = Serve::tls(&authority.server(&["other.example"])).start();
        let cluster = Cluster::tls("api", &failing, &authority).sni(KNOWN).endpoint(&bad).gate();
        let gateway =
            plan(binary, "sent", json!({}), cluster).edit(crate::upstream_retries::retry).start();
        for _ in 0..8 {
            gateway.refuses(KNOWN, "upstream_name");
        }
        let sent = failing.counts().requests;
        assert!(sent > 0, "no attempt was sent");
        assert_eq!((gateway.charged(), gateway.counts()), (sent, (0, 8)));
        gateway.envoy.stop();
        assert_eq!(bad.final_counts().bytes, 0);
    });
}
