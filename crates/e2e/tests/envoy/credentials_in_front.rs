//! Provider credentials that are attached in front of the routes, for proxies without upstream filters.

use serde_json::{Value, json};

use crate::gateways::{KNOWN, Plan, UNLISTED, digest, proven, route};
use crate::support::each_envoy;
use crate::support::tls::{Authority, Cluster, Counts, Serve};

const CREDENTIAL: &str = "authorization: Bearer a-provider-key";

/// A configuration that gives requests for those hosts a provider's credential.
fn forwarding(hosts: &[&str]) -> Value {
    let credential =
        json!({"hosts": hosts, "header": "authorization", "value": "Bearer ${PROVIDER}"});
    json!({"forward": {"credentials_in_front": true, "credentials": [credential]}})
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

/// A credential is for the host that the client names. A route that leads to another one, whatever that
/// proves, takes it away once.
#[test]
fn a_route_to_another_host_is_found_at_the_response() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let other = Serve::tls(&authority.server(&["api.anthropic.com"])).start();
        let cluster = Cluster::tls("api", &other, &authority)
            .sni("api.anthropic.com")
            .san("api.anthropic.com");
        for cluster in [cluster.clone().gate(), cluster] {
            let before = other.counts().requests;
            let gateway = plan(binary, "rewritten", &[KNOWN])
                .edit(|config| {
                    cluster.install(config);
                    route(config)["host_rewrite_literal"] = json!("api.anthropic.com");
                })
                .start();
            for _ in 0..3 {
                gateway.refuses(KNOWN, "upstream_name");
            }
            assert_eq!((gateway.charged(), gateway.counts()), (1, (0, 3)));
            assert_eq!(other.counts().requests, before + 1);
        }
    });
}

/// Two hosts in turns get no further than one.
#[test]
fn a_credential_is_carried_away_once() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster =
            Cluster::plain("api", &upstream).stamp(&digest(), &["a.example", "b.example"]);
        let gateway =
            plan(binary, "turns", &["*.example"]).edit(|config| cluster.install(config)).start();
        for number in 0..6 {
            let host = ["a.example", "b.example"][number % 2];
            gateway.refuses(host, "upstream_plaintext");
        }
        assert_eq!((gateway.charged(), gateway.counts()), (1, (0, 6)));
        gateway.envoy.stop();
        assert_eq!(upstream.final_counts().requests, 1);
    });
}

#[test]
fn another_spelling_of_the_host_is_refused() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream);
        let gateway = plan(binary, "spellings", &[KNOWN])
            .edit(|config| {
                cluster.install(config);
                let manager = crate::support::config::connection_manager(config, "gate");
                manager["strip_any_host_port"] = json!(false);
                manager["strip_trailing_host_dot"] = json!(false);
            })
            .start();
        for spelling in ["api.openai.com:443", "api.openai.com.", "API.OpenAI.com"] {
            let answer = gateway.send(spelling);
            assert_eq!((answer.status, &answer.json()["error"]["code"]), (403, &json!("host")));
        }
        gateway.envoy.stop();
        assert_eq!(upstream.final_counts().bytes, 0);
    });
}
