//! Attempts of one request: each is judged by the connection that it would go over.

use serde_json::{Value, json};

use crate::gateways::{
    Gateway, KNOWN, Plan, assert_allowed, assert_denied, assert_refused, proven, route,
};
use crate::support::tls::{Authority, Cluster, Serve};
use crate::support::{Envoy, each_envoy, wait_for};

/// Tries another endpoint where one answers with an error.
pub(crate) fn retry(config: &mut Value) {
    route(config)["retry_policy"] = json!({
        "retry_on": "5xx", "num_retries": 3, "host_selection_retry_max_attempts": 20,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type":
                "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            },
        }],
    });
}

pub(crate) fn retries(envoy: &Envoy) -> u64 {
    envoy.stat("cluster.api.upstream_rq_retry").unwrap_or(0)
}

#[test]
fn a_retry_to_a_good_endpoint_passes() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let leaf = authority.server(&[KNOWN]);
        let [one, other] = [(); 2].map(|()| Serve::tls(&leaf).start());
        let cluster = proven(&one, &authority, KNOWN).endpoint(&other).gate();
        let gateway = Plan::new(binary, "retry", json!({}))
            .edit(|config| {
                cluster.install(config);
                retry(config);
            })
            .start();
        one.fail_next(3);
        other.fail_next(1);
        gateway.passes(KNOWN);
        one.fail_next(0);
        other.fail_next(0);
        gateway.passes(KNOWN);
        assert!(retries(&gateway.envoy) > 0);
        assert_eq!((gateway.charged(), gateway.counts()), (2, (2, 0)));
        for record in gateway.records(4) {
            assert_allowed(&record, Some("verified"));
        }
    });
}

/// Has the second endpoint of a cluster spoken to in plain text.
fn second_in_plain_text(cluster: Cluster) -> Cluster {
    let plain = json!({"plain": true});
    let transport = json!({
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type":
            "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        },
    });
    cluster.edit(|cluster| {
        let second = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][1];
        second["metadata"] = json!({"filter_metadata": {"envoy.transport_socket_match": plain}});
        cluster["transport_socket_matches"] =
            json!([{"name": "plain", "match": plain, "transport_socket": transport}]);
    })
}

#[test]
fn a_retry_to_a_bad_endpoint_is_refused() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        for reason in ["upstream_name", "upstream_plaintext"] {
            let failing = Serve::tls(&authority.server(&[KNOWN])).failures(1000).start();
            let bad = match reason {
                "upstream_name" => Serve::tls(&authority.server(&["other.example"])).start(),
                _ => Serve::plain().start(),
            };
            let both = Cluster::tls("api", &failing, &authority).sni(KNOWN).endpoint(&bad).gate();
            let both = if reason == "upstream_name" { both } else { second_in_plain_text(both) };
            let gateway = Plan::new(binary, "bad", json!({}))
                .edit(|config| {
                    both.install(config);
                    retry(config);
                })
                .start();
            // Which endpoint is the first differs from request to request.
            for _ in 0..6 {
                gateway.refuses(KNOWN, reason);
            }
            assert!(retries(&gateway.envoy) > 0, "no attempt came after another");
            // What an earlier attempt has sent is paid for.
            let sent = failing.counts().requests;
            assert!(sent > 0);
            assert_eq!((gateway.charged(), gateway.counts()), (sent, (0, 6)));
            for record in gateway.records(8) {
                assert_denied(&record, reason);
            }
            assert_eq!(bad.final_counts().bytes, 0);
        }
    });
}

/// A gateway that sends what goes to one cluster to another one too.
fn mirroring(binary: &std::path::Path, main: Cluster, shadow: Cluster) -> Gateway {
    Plan::new(binary, "mirror", json!({}))
        .edit(|config| {
            main.install(config);
            shadow.add(config);
            route(config)["request_mirror_policies"] = json!([{"cluster": "shadow"}]);
        })
        .start()
}

#[test]
fn a_copy_to_a_bad_upstream_is_refused_alone() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let (good, bad) = (Serve::tls(&authority.server(&[KNOWN])).start(), Serve::plain().start());
        let main = proven(&good, &authority, KNOWN).gate();
        let gateway = mirroring(binary, main, Cluster::plain("shadow", &bad).gate());
        // Envoy puts `-shadow` behind the host of a copy, before its port.
        for host in [KNOWN, "API.OpenAI.com.", "api.openai.com:8443"] {
            gateway.passes(host);
        }
        gateway.envoy.wait_for_stat("cluster.shadow.upstream_rq_active", 0);
        assert!(gateway.envoy.stat("cluster.shadow.upstream_rq_total").is_some_and(|n| n > 0));
        assert_eq!((gateway.charged(), gateway.counts()), (3, (3, 0)));
        for record in gateway.records(5) {
            assert_allowed(&record, Some("verified"));
        }
        assert_eq!(good.final_counts().requests, 3);
        assert_eq!(bad.final_counts().bytes, 0);
    });
}

#[test]
fn a_copy_to_a_good_upstream_passes() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let leaf = authority.server(&[KNOWN]);
        let [good, copies] = [(); 2].map(|()| Serve::tls(&leaf).start());
        let main = proven(&good, &authority, KNOWN).gate();
        let shadow = Cluster::tls("shadow", &copies, &authority).sni(KNOWN).san(KNOWN).gate();
        let gateway = mirroring(binary, main, shadow);
        for _ in 0..3 {
            gateway.passes(KNOWN);
        }
        wait_for(
            || (copies.counts().requests == 3).then_some(()),
            || format!("{:?}\n{}", copies.counts(), gateway.envoy.proxy_log()),
        );
        for record in gateway.records(3) {
            assert_allowed(&record, Some("verified"));
        }
    });
}

/// A copy to a good upstream may have been sent by then.
#[test]
fn a_request_is_refused_whatever_becomes_of_its_copy() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let good = Serve::tls(&authority.server(&[KNOWN])).start();
        let bad = Serve::plain().start();
        let shadow = Cluster::tls("shadow", &good, &authority).sni(KNOWN).gate();
        let gateway = mirroring(binary, Cluster::plain("api", &bad).gate(), shadow);
        for _ in 0..3 {
            let answer = gateway.send(KNOWN);
            assert_refused(&answer, "upstream_plaintext", &gateway.envoy);
        }
        assert_eq!((gateway.charged(), gateway.counts()), (0, (0, 3)));
        for record in gateway.records(5) {
            assert_denied(&record, "upstream_plaintext");
        }
        assert_eq!(bad.final_counts().bytes, 0);
    });
}
