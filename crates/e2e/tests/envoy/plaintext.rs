//! Credentials that may go without TLS to a host that no rule of the policy is for.

use std::path::Path;

use serde_json::{Value, json};

use crate::gateways::{KNOWN, Plan, UNLISTED, assert_allowed, assert_refused, tighten};
use crate::keys::complete;
use crate::support::tls::{Authority, Cluster, Serve, Upstream};
use crate::support::{Connection, Envoy, Options, config, each_envoy};

const SECRET: &str = "a-provider-key";
const LOOPBACK: &str = "127.0.0.1";

/// A credential for hosts, with `plaintext` until the end of a day.
fn credential(hosts: &[&str], until: Option<&str>) -> Value {
    let mut credential =
        json!({"hosts": hosts, "header": "authorization", "value": "Bearer ${PROVIDER}"});
    if let Some(until) = until {
        let reason = "the model runs on this machine";
        credential["plaintext"] = json!({"reason": reason, "owner": "platform", "until": until});
    }
    credential
}

/// What the gate of a cluster holds.
fn held(hosts: &[&str], until: Option<&str>) -> Value {
    let mut credential = credential(hosts, until);
    credential["name"] = json!("local");
    json!({"credentials": [credential]})
}

fn plan(binary: &Path, label: &str) -> Plan {
    let plan = Plan::new(binary, label, json!({"forward": {"credentials": [{"name": "local"}]}}));
    plan.options(|options| options.env("PROVIDER", SECRET))
}

/// That each request that an upstream has seen carried the credential.
#[track_caller]
fn assert_carried(upstream: &Upstream, requests: usize) {
    let heads = upstream.heads();
    assert_eq!(heads.len(), requests);
    assert!(heads.iter().all(|head| head.contains(SECRET)), "{heads:?}");
}

#[test]
fn a_credential_goes_to_a_loopback_host_without_tls_while_its_exception_holds() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster =
            Cluster::plain("api", &upstream).gate_with(held(&[LOOPBACK], Some("2099-12-31")));
        let gateway = plan(binary, "plaintext").edit(|config| cluster.install(config)).start();
        for host in [LOOPBACK, "127.0.0.1:8080", LOOPBACK] {
            gateway.passes(host);
        }
        assert_carried(&upstream, 3);
        // Another host of the same cluster gets none.
        gateway.passes(UNLISTED);
        assert!(!upstream.heads().last().expect("a request").contains(SECRET));
        gateway.refuses(KNOWN, "upstream_plaintext");
        let records = gateway.records(5);
        records.iter().take(3).for_each(|record| assert_allowed(record, Some("plaintext")));
        assert_allowed(&records[3], Some("unlisted"));
        assert_eq!(upstream.final_counts().requests, 4);
    });
}

#[test]
fn without_the_exception_or_after_its_day_nothing_is_sent() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let refuse = |until, reason| {
            let cluster = Cluster::plain("api", &upstream).gate_with(held(&[LOOPBACK], until));
            let gateway = plan(binary, "refused").edit(|config| cluster.install(config)).start();
            gateway.refuses_to_send(LOOPBACK, &upstream, reason);
            gateway.envoy.proxy_log()
        };
        // One worker more than the main thread, and each configures the gate.
        let log = refuse(None, "upstream_plaintext");
        let says = "credential local: no rule of the policy is for 127.0.0.1, so without TLS";
        assert_eq!(log.matches(says).count(), 1, "{log}");
        let log = refuse(Some("2020-12-31"), "upstream_unproven");
        assert!(log.contains(
            "its plaintext ended at 2021-01-01T00:00:00Z, so without TLS requests for its hosts"
        ));
    });
}

#[test]
fn an_exception_loosens_no_rule_and_no_connection_with_tls() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let plain = Serve::plain().start();
        let other = Serve::tls(&authority.server(&["other.example"])).start();
        let gate = held(&[UNLISTED], Some("2099-12-31"));
        let mut tightened = gate.clone();
        tightened["upstream_tls"] = tighten(json!({"host": UNLISTED}))["upstream_tls"].clone();
        for (upstream, cluster, gate, reason) in [
            (&plain, Cluster::plain("api", &plain), tightened, "upstream_plaintext"),
            (&other, Cluster::tls("api", &other, &authority).sni(UNLISTED), gate, "upstream_name"),
        ] {
            let cluster = cluster.gate_with(gate);
            let gateway = plan(binary, "loosens").edit(|config| cluster.install(config)).start();
            gateway.refuses_to_send(UNLISTED, upstream, reason);
        }
    });
}

#[test]
fn an_exception_for_a_known_host_is_refused() {
    each_envoy(|binary| {
        let says = "plaintext: api.openai.com is a known host, which is never plaintext";
        for host in [KNOWN, "*.openai.com", "API.OpenAI.com"] {
            let hosts = [LOOPBACK, host];
            let upstream = Serve::plain().start();
            let cluster =
                Cluster::plain("api", &upstream).gate_with(held(&hosts, Some("2099-12-31")));
            let log = plan(binary, "known").edit(|config| cluster.install(config)).refuse();
            assert!(
                log.contains(&format!("configuration refused: credentials[0].{says}")),
                "{log}"
            );

            let credential = credential(&hosts, Some("2099-12-31"));
            let forward = json!({"credentials_in_front": true, "credentials": [credential]});
            let plugin = complete(json!({"forward": forward}));
            let refused = Envoy::refuse(Options::new("known-front").on(binary).plugin(plugin));
            assert!(
                refused.log.contains(&format!("forward.credentials[0].{says}")),
                "{}",
                refused.log
            );
            assert!(!refused.status.success());
        }
    });
}

/// Only the upstream gate sees to which host a route sends the request.
#[test]
fn a_credential_in_front_goes_without_tls_only_through_an_upstream_gate() {
    each_envoy(|binary| {
        let credential = |until| credential(&[LOOPBACK], Some(until));
        let forward = |until| json!({"forward": {"credentials_in_front": true, "credentials": [credential(until)]}});
        let start = |upstream: &Upstream, until, gated, rewritten: bool| {
            let cluster = Cluster::plain("api", upstream);
            let cluster = if gated { cluster.gate() } else { cluster };
            let plan = Plan::new(binary, "front", forward(until));
            let plan = plan.options(|options| options.env("PROVIDER", SECRET));
            let edit = move |config: &mut Value| {
                cluster.install(config);
                if rewritten {
                    let manager = config::connection_manager(config, "gate");
                    let route =
                        &mut manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
                    route["host_rewrite_literal"] = json!("other.example");
                }
            };
            plan.edit(edit).start()
        };
        let upstream = Serve::plain().start();
        let gateway = start(&upstream, "2099-12-31", true, false);
        gateway.passes(LOOPBACK);
        assert_carried(&upstream, 1);
        assert_allowed(&gateway.records(1)[0], Some("plaintext"));

        let upstream = Serve::plain().start();
        start(&upstream, "2020-12-31", true, false)
            .refuses_to_send(LOOPBACK, &upstream, "upstream_unproven");
        start(&upstream, "2099-12-31", true, true)
            .refuses_to_send(LOOPBACK, &upstream, "upstream_plaintext");

        for rewritten in [false, true] {
            let upstream = Serve::plain().start();
            let gateway = start(&upstream, "2099-12-31", false, rewritten);
            (0..3).for_each(|_| gateway.refuses(LOOPBACK, "upstream_plaintext"));
            // Then the cluster is refused before anything is sent.
            assert_eq!(upstream.final_counts().requests, 1);
        }
    });
}

/// Adds a listener with the same routes that does not have the module.
fn add_outsider(config: &mut Value) {
    let mut listener = config::named(config, "/static_resources/listeners", "gate").clone();
    listener["name"] = json!("outsider");
    listener["address"]["socket_address"]["port_value"] = json!(0);
    let listeners = config["static_resources"]["listeners"].as_array_mut().expect("a list");
    listeners.push(listener);
    let filters = &mut config::connection_manager(config, "outsider")["http_filters"];
    let filters = filters.as_array_mut().expect("a list");
    filters.retain(|filter| filter["name"] == "envoy.filters.http.router");
    assert_eq!(filters.len(), 1);
}

/// The gate cannot know what such a request carries.
#[test]
fn a_listener_without_the_module_sends_nothing_without_tls() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream).gate_with(json!({}));
        let plan = Plan::new(binary, "outsider", json!({}));
        let gateway = plan
            .edit(move |config| {
                cluster.install(config);
                add_outsider(config);
            })
            .start();
        gateway.passes(UNLISTED);
        let request = gateway.request(UNLISTED);
        let answer = Connection::open(gateway.envoy.listener("outsider")).send(&request);
        assert_refused(&answer, "upstream_plaintext", &gateway.envoy);
        assert_eq!(upstream.final_counts().requests, 1);
    });
}
