//! Provider credentials at the gate of a cluster: they go to their own host over a connection that was
//! judged, whatever the client names and wherever a route leads.

use std::path::Path;

use serde_json::{Value, json};

use crate::gateways::{KNOWN, Plan, UNLISTED, assert_allowed, proven, route};
use crate::support::tls::{Authority, Cluster, Serve, Upstream};
use crate::support::{config, each_envoy, wait_for};

const SECRET: &str = "a-provider-key";
const CREDENTIAL: &str = "authorization: Bearer a-provider-key";

/// What the gate of a cluster holds for those hosts.
fn held(hosts: &[&str]) -> Value {
    json!({"credentials": [
        {"name": "openai", "hosts": hosts, "header": "authorization", "value": "Bearer ${PROVIDER}"},
    ]})
}

/// A gateway whose listener grants the credential and does not hold it.
fn plan(binary: &Path, label: &str) -> Plan {
    let plan = Plan::new(binary, label, json!({"forward": {"credentials": [{"name": "openai"}]}}));
    plan.options(|options| options.env("PROVIDER", SECRET))
}

/// Leaves ports and dots to the module.
fn keep_spellings(config: &mut Value) {
    let manager = config::connection_manager(config, "gate");
    manager["strip_any_host_port"] = json!(false);
    manager["strip_trailing_host_dot"] = json!(false);
}

/// That an upstream has seen nothing of the credential.
#[track_caller]
fn assert_unseen(upstream: &Upstream) {
    let received = upstream.received();
    assert!(!received.contains(SECRET), "{received}");
}

#[test]
fn a_credential_reaches_its_host_on_new_and_on_kept_connections() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate_with(held(&[KNOWN]));
        let gateway = plan(binary, "held").edit(|config| cluster.install(config)).start();
        let with_body = gateway.request(KNOWN).body(vec![b'x'; 300_000]);
        let without = gateway.request(KNOWN).body("");
        for request in [&with_body, &without, &with_body] {
            let answer = gateway.envoy.send(request);
            assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.envoy.proxy_log());
            let heads = upstream.heads();
            let head = heads.last().expect("a request").to_ascii_lowercase();
            let credentials: Vec<_> =
                head.lines().filter(|line| line.starts_with("authorization")).collect();
            assert_eq!(credentials, [CREDENTIAL.to_ascii_lowercase()], "{head}");
            upstream.close_connections();
            gateway.envoy.wait_for_stat("cluster.api.upstream_cx_active", 0);
            gateway.passes(KNOWN);
        }
        for record in gateway.records(6) {
            assert_allowed(&record, Some("verified"));
        }
    });
}

/// The virtual host of the provider, and one for everything else that leads to a service without a gate.
fn install_beside(config: &mut Value, provider: Cluster, internal: Cluster) {
    provider.install_for(config, KNOWN);
    internal.install(config);
    keep_spellings(config);
}

#[test]
fn no_spelling_of_the_host_takes_a_credential_elsewhere() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let provider = Serve::tls(&authority.server(&[KNOWN])).start();
        let internal = Serve::plain().start();
        let cluster = proven(&provider, &authority, KNOWN).gate_with(held(&[KNOWN]));
        let other = Cluster::plain("internal", &internal);
        let gateway = plan(binary, "spellings")
            .edit(|config| {
                install_beside(config, cluster, other);
                // Only the exact name leads to the provider.
                let manager = config::connection_manager(config, "gate");
                manager["route_config"]["virtual_hosts"][1]["domains"] = json!([KNOWN]);
            })
            .start();
        let spellings = [
            "api.openai.com:443",
            "api.openai.com:80",
            "api.openai.com.",
            "api.openai.com.:443",
            "API.OpenAI.com:8443",
            "api.openai.com:",
            "eu.api.openai.com",
            "user@api.openai.com",
            UNLISTED,
        ];
        for spelling in spellings {
            gateway.send(spelling);
        }
        gateway.passes(KNOWN);
        assert!(provider.received().contains(SECRET));
        gateway.envoy.stop();
        assert!(internal.final_counts().requests > 0, "nothing got there at all");
        assert_unseen(&internal);
    });
}

#[test]
fn no_path_of_another_route_takes_a_credential_elsewhere() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let provider = Serve::tls(&authority.server(&[KNOWN])).start();
        let [internal, gated] = [(); 2].map(|()| Serve::plain().start());
        let cluster = proven(&provider, &authority, KNOWN).gate_with(held(&[KNOWN]));
        let other = Cluster::plain("internal", &internal);
        // A gate that holds the same credential, and leads to another host.
        let third = Cluster::plain("gated", &gated).gate_with(held(&[KNOWN]));
        let gateway = plan(binary, "prefixes")
            .edit(|config| {
                cluster.add(config);
                other.add(config);
                third.add(config);
                let manager = config::connection_manager(config, "gate");
                manager["route_config"]["virtual_hosts"][0]["routes"] = json!([
                    {"match": {"prefix": "/v1/chat"},
                     "route": {"cluster": "api", "host_rewrite_literal": KNOWN}},
                    {"match": {"prefix": "/v1/gated"},
                     "route": {"cluster": "gated", "host_rewrite_literal": UNLISTED}},
                    {"match": {"prefix": "/"},
                     "route": {"cluster": "internal", "host_rewrite_literal": UNLISTED}},
                ]);
            })
            .start();
        for host in [KNOWN, UNLISTED] {
            for path in ["/v1/other", "/v1/gated"] {
                gateway.envoy.send(&gateway.request(host).path(path));
            }
            gateway.passes(host);
        }
        assert_eq!(provider.heads().len(), 2);
        assert!(provider.heads().iter().all(|head| head.contains(SECRET)));
        gateway.envoy.stop();
        for upstream in [&internal, &gated] {
            assert!(upstream.final_counts().requests > 0, "nothing got there at all");
            assert_unseen(upstream);
        }
    });
}

#[test]
fn a_mirror_gets_no_credential_from_any_gate() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let leaf = authority.server(&[KNOWN]);
        let [provider, copies] = [(); 2].map(|()| Serve::tls(&leaf).start());
        for gated in [false, true] {
            let main = proven(&provider, &authority, KNOWN).gate_with(held(&[KNOWN]));
            let shadow = Cluster::tls("shadow", &copies, &authority).sni(KNOWN).san(KNOWN);
            let shadow = if gated { shadow.gate_with(held(&[KNOWN])) } else { shadow };
            let gateway = plan(binary, "mirror")
                .edit(|config| {
                    main.install(config);
                    shadow.add(config);
                    route(config)["request_mirror_policies"] = json!([
                        {"cluster": "shadow", "disable_shadow_host_suffix_append": true},
                    ]);
                })
                .start();
            let before = copies.counts().requests;
            for _ in 0..4 {
                gateway.passes(KNOWN);
            }
            wait_for(
                || (copies.counts().requests == before + 4).then_some(()),
                || format!("{:?}\n{}", copies.counts(), gateway.envoy.proxy_log()),
            );
            gateway.envoy.stop();
        }
        assert!(provider.heads().iter().all(|head| head.contains(SECRET)));
        assert_unseen(&copies);
    });
}

/// The attempts of a request share one header map, and each endpoint has a host of its own.
#[test]
fn a_retry_to_another_host_gets_no_credential() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let provider = Serve::tls(&authority.server(&[KNOWN])).failures(1000).start();
        let other = Serve::tls(&authority.server(&[UNLISTED])).start();
        let cluster = Cluster::tls("api", &provider, &authority)
            .endpoint(&other)
            .gate_with(held(&[KNOWN]))
            .edit(|cluster| {
                cluster["type"] = json!("STRICT_DNS");
                let endpoints = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
                endpoints[0]["endpoint"]["hostname"] = json!(KNOWN);
                endpoints[1]["endpoint"]["hostname"] = json!(UNLISTED);
            });
        let gateway = plan(binary, "retry")
            .edit(|config| {
                cluster.install(config);
                route(config)["auto_host_rewrite"] = json!(true);
                crate::upstream_retries::retry(config);
            })
            .start();
        for _ in 0..6 {
            gateway.passes(UNLISTED);
        }
        assert!(crate::upstream_retries::retries(&gateway.envoy) > 0);
        assert!(provider.heads().iter().all(|head| head.contains(SECRET)));
        assert!(!provider.heads().is_empty());
        gateway.envoy.stop();
        assert_unseen(&other);
    });
}

#[test]
fn an_upstream_that_proves_to_be_another_gets_nothing() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let other = Serve::tls(&authority.server(&["other.example"])).start();
        let plain = Serve::plain().start();
        for (upstream, cluster, reason) in [
            (&other, Cluster::tls("api", &other, &authority).sni(KNOWN), "upstream_name"),
            (&plain, Cluster::plain("api", &plain), "upstream_plaintext"),
        ] {
            // Without a credential the host would only be observed.
            for host in [KNOWN, UNLISTED] {
                let cluster = cluster.clone().gate_with(held(&[KNOWN, UNLISTED]));
                let gateway = plan(binary, "another").edit(|config| cluster.install(config));
                gateway.start().refuses_to_send(host, upstream, reason);
            }
        }
    });
}

#[test]
fn a_cluster_without_a_gate_gets_no_credential() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN);
        let gateway = plan(binary, "ungated").edit(|config| cluster.install(config)).start();
        gateway.passes(KNOWN);
        assert_unseen(&upstream);
    });
}

#[test]
fn a_gate_without_its_secret_refuses_everything() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate_with(held(&[KNOWN]));
        let plan = Plan::new(binary, "unset", json!({}));
        let gateway = plan.edit(|config| cluster.install(config)).start();
        let answer = gateway.send(KNOWN);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("not_ready")));
        assert_eq!(gateway.charged(), 0);
        gateway.envoy.stop();
        assert_eq!(upstream.final_counts().bytes, 0);
        let log = gateway.envoy.proxy_log();
        assert!(log.contains("environment variable PROVIDER is not set or empty"), "{log}");
    });
}
