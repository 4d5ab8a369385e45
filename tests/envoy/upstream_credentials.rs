//! Provider credentials: they go where the connection is judged, and nowhere else.

use serde_json::{Value, json};

use crate::gateways::{KNOWN, Plan, UNLISTED, assert_allowed, digest, proven, route};
use crate::support::each_envoy;
use crate::support::tls::{Authority, Cluster, Counts, Serve};

const CREDENTIAL: &str = "authorization: Bearer a-provider-key";

/// A configuration that gives requests for those hosts a provider's credential.
fn forwarding(hosts: &[&str]) -> Value {
    let credential =
        json!({"hosts": hosts, "header": "authorization", "value": "Bearer ${PROVIDER}"});
    json!({"forward": {"credentials": [credential]}})
}

fn plan(binary: &std::path::Path, label: &str, hosts: &[&str]) -> Plan {
    let plan = Plan::new(binary, label, forwarding(hosts));
    plan.options(|options| options.env("PROVIDER", "a-provider-key"))
}

#[test]
fn a_good_upstream_of_a_known_host_gets_its_credential() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN);
        for cluster in [cluster.clone().gate(), cluster] {
            let gateway = plan(binary, "known", &[KNOWN]).edit(|config| cluster.install(config));
            let answer = gateway.start().passes(KNOWN);
            assert!(answer.text().contains(CREDENTIAL), "{answer:?}");
        }
    });
}

#[test]
fn a_bad_upstream_of_a_known_host_does_not() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream).gate();
        let gateway = plan(binary, "bad", &[KNOWN]).edit(|config| cluster.install(config)).start();
        gateway.refuses_to_send(KNOWN, &upstream, "upstream_plaintext");
    });
}

#[test]
fn an_unlisted_host_gets_no_credential_and_no_request() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[UNLISTED])).start();
        let cluster = proven(&upstream, &authority, UNLISTED);
        for cluster in [cluster.clone().gate(), cluster] {
            let gateway = plan(binary, "unlisted", &[UNLISTED]);
            let gateway = gateway.edit(|config| cluster.install(config)).start();
            gateway.refuses_to_send(UNLISTED, &upstream, "upstream_unproven");
            assert_eq!(upstream.final_counts(), Counts::default());
        }
    });
}

/// The stamp says what the route will ask for, which the host that the client names does not.
#[test]
fn a_stamped_cluster_that_asks_for_a_known_host_gets_the_credential() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let bad = Serve::plain().start();
        let good = proven(&upstream, &authority, KNOWN).gate().stamp(&digest(), &[KNOWN]);
        let gateway = plan(binary, "stamped", &[UNLISTED])
            .edit(|config| {
                good.install(config);
                route(config)["host_rewrite_literal"] = json!(KNOWN);
            })
            .start();
        let answer = gateway.passes(UNLISTED);
        assert!(answer.text().contains(CREDENTIAL), "{answer:?}");
        assert_allowed(&gateway.records(1)[0], Some("verified"));

        let stamped = Cluster::plain("api", &bad).gate().stamp(&digest(), &[KNOWN]);
        let gateway = plan(binary, "stamped_bad", &[UNLISTED])
            .edit(|config| {
                stamped.install(config);
                route(config)["host_rewrite_literal"] = json!(KNOWN);
            })
            .start();
        gateway.refuses_to_send(UNLISTED, &bad, "upstream_plaintext");
    });
}
