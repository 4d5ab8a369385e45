//! The stamp of a cluster: what its configuration was rendered from, and for which hosts.

use serde_json::json;

use crate::gateways::{
    Gateway, KNOWN, Plan, UNLISTED, assert_allowed, assert_denied, digest, proven,
};
use crate::support::each_envoy;
use crate::support::tls::{Authority, Cluster, Counts, Serve};

/// The policy of another build.
fn stale() -> String {
    "0".repeat(64)
}

#[test]
fn a_cluster_without_a_current_stamp_is_not_even_connected_to() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate();
        for (cluster, host) in [
            (cluster.clone(), KNOWN),
            (cluster.clone(), UNLISTED),
            (cluster.clone().stamp(&stale(), &[KNOWN]), KNOWN),
        ] {
            let plan = Plan::new(binary, "unstamped", require());
            let gateway = plan.edit(|config| cluster.install(config)).start();
            gateway.refuses_to_send(host, &upstream, "upstream_unproven");
            assert_eq!(upstream.final_counts(), Counts::default());
        }
        let plan = Plan::new(binary, "current", require());
        let stamped = cluster.stamp(&digest(), &[KNOWN]);
        let gateway = plan.edit(|config| stamped.install(config)).start();
        gateway.passes(KNOWN);
        assert_allowed(&gateway.records(1)[0], Some("verified"));
    });
}

fn require() -> serde_json::Value {
    json!({"upstream_tls": {"require_stamp": true}})
}

/// A limit that has no room says nothing of requests that would not be sent anyway.
#[test]
fn the_stamp_comes_before_the_limits() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream).gate();
        let mut plugin = require();
        plugin["tenants"] = json!({"acme": {"quotas": [{"requests": 0, "per": "total"}]}});
        let gateway =
            Plan::new(binary, "limits", plugin).edit(|config| cluster.install(config)).start();
        gateway.refuses(KNOWN, "upstream_unproven");
        assert_denied(&gateway.records(1)[0], "upstream_unproven");
    });
}

#[test]
fn the_gate_of_a_cluster_can_require_the_stamp_too() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate_with(require());
        let gateway = Gateway::start(binary, "gate", cluster.clone().stamp(&stale(), &[KNOWN]));
        gateway.refuses_to_send(KNOWN, &upstream, "upstream_unproven");
        Gateway::start(binary, "current", cluster.stamp(&digest(), &[KNOWN])).passes(KNOWN);
    });
}

#[test]
fn a_stamped_cluster_is_for_its_hosts_alone() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let names = [KNOWN, "api.anthropic.com", UNLISTED];
        let upstream = Serve::tls(&authority.server(&names)).start();
        let cluster = Cluster::tls("api", &upstream, &authority).gate();
        let gateway = Gateway::start(binary, "hosts", cluster.stamp(&digest(), &[KNOWN]));
        for host in ["api.anthropic.com", UNLISTED, "eu.api.openai.com"] {
            gateway.refuses(host, "upstream_name");
        }
        for record in gateway.records(3) {
            assert_denied(&record, "upstream_name");
        }
        assert_eq!(upstream.final_counts().bytes, 0);
    });
}
