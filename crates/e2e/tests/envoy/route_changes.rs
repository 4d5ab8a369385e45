//! Routes that match on headers which the module edits: what was judged is what is sent.

use serde_json::{Value, json};

use crate::gateways::{KNOWN, Plan, digest, proven};
use crate::keys::{Minter, options};
use crate::support::tls::{Authority, Cluster, Serve};
use crate::support::{Envoy, Request, Response, config, each_envoy};

/// Sends requests with that header to the cluster `with`, all others to `api`.
fn route_by(config: &mut Value, header: &str, with: &str) {
    let manager = config::connection_manager(config, "gate");
    let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
    let mut first = routes[0].clone();
    first["match"]["headers"] = json!([{"name": header, "present_match": true}]);
    first["route"]["cluster"] = json!(with);
    routes.as_array_mut().unwrap().insert(0, first);
}

fn code(answer: &Response) -> (u16, Value) {
    (answer.status, answer.json()["error"]["code"].clone())
}

/// A key in any other header than a key source is refused, because removing it may change the route.
#[test]
fn a_key_where_it_does_not_belong_is_refused() {
    each_envoy(|binary| {
        let stamped = Serve::plain().start();
        let other = Serve::plain().start();
        let main = Minter::new("main", None);
        let plugin = json!({"upstream_tls": {"require_stamp": true}});
        let digest = digest();
        let stamped_cluster = Cluster::plain("stamped", &stamped).stamp(&digest, &[]);
        let other_cluster = Cluster::plain("api", &other);
        let options = options("elsewhere", &main, plugin).on(binary).edit(move |config| {
            stamped_cluster.add(config);
            other_cluster.install(config);
            route_by(config, "x-team", "stamped");
        });
        let envoy = Envoy::start(options);
        let [key, second] = ["k1", "k2"].map(|jti| main.key(jti, json!({})));
        let (jwt, second_jwt) = (main.jwt("k3", json!({})), main.jwt("k4", json!({})));
        let escaped = key.replacen("vk1.", "vk1%2e", 1);
        for (sent, team) in [
            (&key, &key),
            (&key, &second),
            (&key, &second_jwt),
            (&jwt, &jwt),
            (&jwt, &second_jwt),
            (&jwt, &second),
            (&key, &escaped),
        ] {
            let request = Request::new("GET", "/v1/a").bearer(sent);
            for value in [format!("for {team}, please"), format!("it is_{team}.")] {
                let answer = envoy.send(&request.clone().header("x-team", value));
                assert_eq!(code(&answer), (401, json!("invalid_token")), "{team}");
            }
        }
        // Another team's token is none of the module's business.
        let foreign = "eyJhbGciOiJIUzI1NiIsImtpZCI6Im90aGVyLTEifQ.eyJqdGkiOiJrMSJ9.\
                       AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let request = Request::new("GET", "/v1/a").bearer(&key).header("x-team", foreign);
        assert_eq!(envoy.send(&request).status, 200);
        envoy.stop();
        assert_eq!(other.final_counts().bytes, 0);
        assert_eq!(stamped.final_counts().requests, 1);
    });
}

#[test]
fn an_identity_header_that_still_comes_is_refused() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let key = main.key("k1", json!({}));
        for name in ["x-vkey-key", "X-Vkey-Tenant", "x_vkey_sub", "x-vkey-anything"] {
            let options = options("identity", &main, json!({})).on(binary).edit(|config| {
                let manager = config::connection_manager(config, "gate");
                manager.as_object_mut().unwrap().remove("early_header_mutation_extensions");
                manager["common_http_protocol_options"]["headers_with_underscores_action"] =
                    json!("ALLOW");
            });
            let envoy = Envoy::start(options);
            let request = Request::new("GET", "/v1/a").bearer(&key);
            assert_eq!(envoy.send(&request).status, 200);
            let answer = envoy.send(&request.header(name, "forged"));
            assert_eq!(code(&answer), (400, json!("header_mismatch")), "{name}");
        }
    });
}

/// The shipped configuration removes them before a route is chosen.
#[test]
fn the_shipped_configuration_chooses_no_route_by_a_forged_identity() {
    each_envoy(|binary| {
        let forged = Serve::plain().start();
        let cluster = Cluster::plain("forged", &forged);
        let main = Minter::new("main", None);
        let options = options("shipped", &main, json!({})).on(binary).edit(move |config| {
            cluster.add(config);
            route_by(config, "x-vkey-tenant", "forged");
            // The module states the tenant of the key, which must not lead there either.
            let manager = config::connection_manager(config, "gate");
            let first = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0];
            first["match"]["headers"] =
                json!([{"name": "x-vkey-tenant", "string_match": {"exact": "root"}}]);
        });
        let envoy = Envoy::start(options);
        let key = main.key("k1", json!({}));
        let request = Request::new("GET", "/v1/a").bearer(&key).header("x-vkey-tenant", "root");
        assert_eq!(envoy.send(&request).status, 200);
        envoy.stop();
        assert_eq!(forged.final_counts().bytes, 0);
    });
}

/// A route that matches on a key source changes with each request. The one that was taken is judged at
/// the response, and the next request is refused.
#[test]
fn the_route_that_was_taken_is_judged() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let leaf = authority.server(&[KNOWN]);
        let [stamped, other] = [(); 2].map(|()| Serve::tls(&leaf).start());
        let good = Cluster::tls("stamped", &stamped, &authority).sni(KNOWN).san(KNOWN);
        for gated in [false, true] {
            let before = other.counts().requests;
            let good = good.clone().stamp(&digest(), &[KNOWN]).gate();
            let unstamped = proven(&other, &authority, KNOWN);
            let unstamped = if gated { unstamped.gate() } else { unstamped };
            let plugin = json!({"upstream_tls": {"require_stamp": true}});
            let gateway = Plan::new(binary, "taken", plugin)
                .edit(move |config| {
                    good.add(config);
                    unstamped.install(config);
                    route_by(config, "authorization", "stamped");
                })
                .start();
            for host in [KNOWN, "h1.corp.example", "h2.corp.example", KNOWN] {
                gateway.refuses(host, "upstream_unproven");
            }
            assert_eq!((gateway.charged(), gateway.counts()), (1, (0, 4)), "{gated}");
            gateway.envoy.stop();
            assert_eq!(other.counts().requests, before + 1);
        }
        assert_eq!(stamped.final_counts().bytes, 0);
    });
}

/// A route that is gone after the module's edits leads nowhere, and is no reason to refuse others.
#[test]
fn a_route_that_is_gone_is_answered_by_the_proxy() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN).stamp(&digest(), &[KNOWN]).gate();
        let plugin = json!({"upstream_tls": {"require_stamp": true}});
        let gateway = Plan::new(binary, "gone", plugin)
            .edit(move |config| {
                cluster.install(config);
                route_by(config, "authorization", "api");
                let manager = config::connection_manager(config, "gate");
                let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
                routes[1]["match"]["prefix"] = json!("/v1/ok");
            })
            .start();
        assert_eq!(gateway.send(KNOWN).status, 404);
        assert_eq!(gateway.envoy.send(&gateway.request(KNOWN).path("/v1/ok")).status, 200);
        assert_eq!(gateway.counts(), (2, 0));
        gateway.envoy.stop();
        assert_eq!(upstream.final_counts().requests, 1);
    });
}

/// Where the gate of the cluster has judged, and no stamp is asked for, routes may depend on what the
/// module adds.
#[test]
fn a_route_by_tenant_to_a_cluster_with_a_gate_passes() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let leaf = authority.server(&[KNOWN]);
        let [own, common] = [(); 2].map(|()| Serve::tls(&leaf).start());
        let mine = Cluster::tls("acme", &own, &authority).sni(KNOWN).san(KNOWN).gate();
        let other = proven(&common, &authority, KNOWN).gate();
        let gateway = Plan::new(binary, "tenants", json!({}))
            .edit(move |config| {
                mine.add(config);
                other.install(config);
                route_by(config, "x-vkey-tenant", "acme");
            })
            .start();
        for _ in 0..3 {
            gateway.passes(KNOWN);
        }
        gateway.envoy.stop();
        assert_eq!(own.final_counts().requests, 3);
        assert_eq!(common.final_counts().bytes, 0);
    });
}
