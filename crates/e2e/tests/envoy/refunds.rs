//! What is given back: what was refused before a byte of it left, and nothing else.

use std::path::Path;

use serde_json::{Value, json};

use crate::gateways::{KNOWN, Plan, UNLISTED, assert_refused, digest, proven, route};
use crate::support::tls::{Authority, Cluster, Serve};
use crate::support::{Connection, config, each_envoy, wait_for};

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

// === who is refused for what another has brought about ===

/// Behind a gate that lets the request go, a name that a client has chosen harms that client alone.
#[test]
fn a_name_that_no_certificate_is_for_refuses_nobody_else() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN).stamp(&digest(), &[KNOWN]).gate();
        let tighten = json!({"upstream_tls": {"tighten": [
            {"host": "llm.other.example", "client_certificate": true},
        ]}});
        let gateway = plan(binary, "names", tighten, cluster)
            .edit(|config| route(config)["host_rewrite_literal"] = json!(KNOWN))
            .start();
        for name in ["a..b", "127.1", "user@x", "xn--.com", "llm.other.example"] {
            let answer = gateway.send(name);
            assert!(answer.status >= 400, "{name}: {answer:?}");
            gateway.passes(KNOWN);
            gateway.passes(UNLISTED);
        }
        // A name that can be read in two ways is not even sent.
        gateway.envoy.stop();
        let sent = upstream.final_counts().requests;
        assert_eq!(sent, 5 * 2 + 1);
    });
}

/// Another filter may answer without saying so in the details.
#[test]
fn an_answer_of_another_filter_says_nothing_of_the_upstream() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate();
        let gateway =
            plan(binary, "waf", json!({}), cluster)
                .edit(|config| {
                    let filters = config::http_filters(config);
                    let router = filters.len() - 1;
                    filters.insert(router, json!({
                    "name": "envoy.filters.http.lua",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                        "default_source_code": {"inline_string":
                            "function envoy_on_request(handle) \
                               if handle:headers():get('x-block') then \
                                 handle:respond({[':status'] = '403'}, 'blocked') \
                               end \
                             end"},
                    },
                }));
                })
                .start();
        for _ in 0..3 {
            let answer = gateway.envoy.send(&gateway.request(KNOWN).header("x-block", "1"));
            assert_eq!((answer.status, answer.text().as_str()), (403, "blocked"));
            gateway.passes(KNOWN);
        }
    });
}

/// A route that rewrites the host asks for it whatever the client names.
#[test]
fn a_rewritten_host_is_found_once_for_all_names() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let plain = Serve::plain().start();
        let ungated = Serve::tls(&authority.server(&[KNOWN])).start();
        for (upstream, cluster, reason) in [
            (&plain, Cluster::plain("api", &plain), "upstream_plaintext"),
            (&ungated, proven(&ungated, &authority, KNOWN), "upstream_unproven"),
        ] {
            let gateway = plan(binary, "rewritten", json!({}), cluster)
                .edit(|config| route(config)["host_rewrite_literal"] = json!(KNOWN))
                .start();
            gateway.passes("n0.corp.example");
            gateway.envoy.wait_for_access_log(1);
            for number in 1..6 {
                gateway.refuses(&format!("n{number}.corp.example"), reason);
            }
            assert_eq!((gateway.charged(), gateway.counts()), (1, (1, 5)));
            gateway.envoy.stop();
            assert_eq!(upstream.final_counts().requests, 1);
        }
    });
}

/// A client that hangs up once its request was sent does not keep the upstream from being judged.
#[test]
fn a_client_that_hangs_up_leaves_a_verdict() {
    each_envoy(|binary| {
        let upstream = Serve::plain().hold().start();
        let cluster = Cluster::plain("api", &upstream);
        let gateway = plan(binary, "gone", json!({}), cluster).start();
        let mut gone = Connection::open(gateway.envoy.gate());
        gone.send_raw(&gateway.request(KNOWN).encode()).unwrap();
        wait_for(
            || upstream.received().contains("a secret prompt").then_some(()),
            || gateway.envoy.proxy_log(),
        );
        drop(gone);
        gateway.envoy.wait_for_access_log(1);
        for _ in 0..3 {
            gateway.refuses(KNOWN, "upstream_plaintext");
        }
        assert_eq!((gateway.charged(), gateway.counts().1), (1, 3));
        let record = &gateway.records(6)[0];
        assert_eq!(record.tls_verdict.as_deref(), Some("upstream_plaintext"));
    });
}
