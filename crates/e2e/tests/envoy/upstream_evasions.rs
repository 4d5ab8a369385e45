//! Ways around the gate of a cluster that proxies have, and that lead nowhere.

use serde_json::{Value, json};

use crate::gateways::{Gateway, KNOWN, Plan, UNLISTED, proven, route};
use crate::support::tls::{Authority, Cluster, Serve};
use crate::support::{Connection, config, each_envoy};

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Envoy rewrites the authority when a request has its connection: after the filters saw the request.
#[test]
fn a_host_that_is_rewritten_at_the_last_moment_is_judged() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream).gate().edit(|cluster| {
            let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
            endpoint["endpoint"]["hostname"] = json!(KNOWN);
        });
        let gateway = Plan::new(binary, "auto_rewrite", json!({}))
            .edit(|config| {
                cluster.install(config);
                route(config)["auto_host_rewrite"] = json!(true);
            })
            .start();
        gateway.refuses_to_send(UNLISTED, &upstream, "upstream_plaintext");
    });
}

/// Trailers end a body that is held, and a filter without an opinion on them would let all of it go.
#[test]
fn trailers_let_nothing_go_that_is_held() {
    each_envoy(|binary| {
        for flag in [false, true] {
            let upstream = Serve::plain().start();
            let cluster = Cluster::plain("api", &upstream).gate();
            let gateway = Plan::new(binary, "trailers", json!({}))
                .edit(move |config| {
                    let manager = config::connection_manager(config, "gate");
                    manager["http_protocol_options"]["enable_trailers"] = json!(true);
                    cluster.install(config);
                    let cluster = config::named(config, "/static_resources/clusters", "api");
                    let options = &mut cluster["typed_extension_protocol_options"][OPTIONS];
                    let gate = &mut options["http_filters"][0]["typed_config"]["config"];
                    gate["allow_on_headers_stop_iteration"] = json!(flag);
                })
                .start();
            let mut wire = gateway.request(KNOWN).header("transfer-encoding", "chunked").encode();
            let body = wire.windows(4).position(|end| end == b"\r\n\r\n").expect("an end") + 4;
            wire.truncate(body);
            wire.extend_from_slice(b"4\r\ntext\r\n0\r\nx-trailer: 1\r\n\r\n");
            let mut connection = Connection::open(gateway.envoy.gate());
            connection.send_raw(&wire).expect("Envoy reads");
            assert_eq!(connection.read_response().expect("an answer").status, 502);
            gateway.envoy.stop();
            assert_eq!(upstream.final_counts().bytes, 0, "{flag}");
        }
    });
}

/// A copy has no filter state, so its gate cannot know what goes with it.
#[test]
fn a_copy_carries_no_credential_to_a_host_that_is_not_judged() {
    each_envoy(|binary| {
        let [upstream, copies] = [(); 2].map(|()| Serve::plain().start());
        let main = Cluster::plain("api", &upstream).gate();
        let shadow = Cluster::plain("shadow", &copies).gate();
        let credential =
            json!({"hosts": [KNOWN], "header": "authorization", "value": "Bearer ${PROVIDER_KEY}"});
        let gateway = Plan::new(
            binary,
            "mirror",
            json!({"forward": {"credentials_in_front": true, "credentials": [credential]}}),
        )
        .options(|options| options.env("PROVIDER_KEY", "the provider's"))
        .edit(|config| {
            main.install(config);
            shadow.add(config);
            let route = route(config);
            route["request_mirror_policies"] = json!([{"cluster": "shadow"}]);
            route["host_rewrite_literal"] = json!(UNLISTED);
        })
        .start();
        gateway.refuses(KNOWN, "upstream_plaintext");
        gateway.envoy.wait_for_stat("cluster.shadow.upstream_rq_active", 0);
        gateway.envoy.stop();
        assert_eq!((upstream.final_counts().bytes, copies.final_counts().bytes), (0, 0));
    });
}

/// The verdict on one attempt is of its own connection: here the next attempt goes to a cluster that has
/// no gate, and what that answers is withheld.
#[test]
fn the_verdict_on_one_attempt_does_not_bless_the_next() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let good = Serve::tls(&authority.server(&[KNOWN])).failures(100).start();
        let bad = Serve::plain().start();
        let gated = proven(&good, &authority, KNOWN).gate();
        let open = Cluster::plain("open", &bad);
        let gateway = Plan::new(binary, "refresh", json!({})).edit(|config| {
            gated.install(config);
            open.add(config);
            retry_elsewhere(route(config));
        });
        let Some(gateway) = start_where_known(gateway, binary) else { return };
        for _ in 0..12 {
            let answer = gateway.send(KNOWN);
            assert_ne!(answer.status, 200, "{answer:?}");
        }
        assert!(bad.counts().requests > 0, "no attempt went there");
    });
}

/// Spreads attempts over both clusters, each chosen anew.
fn retry_elsewhere(route: &mut Value) {
    let route = route.as_object_mut().expect("a route");
    route.remove("cluster");
    let clusters = json!([{"name": "api", "weight": 50}, {"name": "open", "weight": 50}]);
    route.insert("weighted_clusters".to_owned(), json!({"clusters": clusters}));
    let policy = json!({"retry_on": "5xx", "num_retries": 4, "refresh_cluster_on_retry": true});
    route.insert("retry_policy".to_owned(), policy);
}

/// Envoy chooses the cluster anew for a retry since 1.39; older ones do not know the member.
fn start_where_known(plan: Plan, binary: &std::path::Path) -> Option<Gateway> {
    let old = binary.to_string_lossy().contains("1.36");
    (!old).then(|| plan.start())
}
