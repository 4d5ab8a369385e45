//! The gate of a cluster: nothing leaves before the connection has shown what the policy asks for.

use serde_json::json;

use crate::gateways::{
    Gateway, KNOWN, Plan, UNLISTED, assert_allowed, assert_denied, proven, route, tighten,
};
use crate::load::{CONNECTIONS, WORKERS, connect, send_in_step};
use crate::support::tls::{Authority, Cluster, Serve};
use crate::support::{Connection, each_envoy};

#[test]
fn a_known_host_is_never_plaintext() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let gateway = Gateway::start(binary, "plain", Cluster::plain("api", &upstream).gate());
        gateway.refuses_to_send(KNOWN, &upstream, "upstream_plaintext");
    });
}

#[test]
fn no_spelling_of_a_known_host_is_plaintext() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let gateway = Gateway::start(binary, "spellings", Cluster::plain("api", &upstream).gate());
        let spellings = [
            "API.OpenAI.com",
            "api.openai.com.",
            "api.openai.com:443",
            "api.openai.com:8080",
            "api.openai.com.:80",
            "eu.api.openai.com",
            "bedrock-runtime.eu-central-1.amazonaws.com",
        ];
        for spelling in spellings {
            gateway.refuses(spelling, "upstream_plaintext");
        }
        // What can be read in two ways is refused before a connection is chosen.
        let unreadable = ["user@api.openai.com", "xn--api-.openai.com", "0x7f.1"];
        for spelling in unreadable {
            gateway.refuses(spelling, "upstream_name");
        }
        assert_eq!(gateway.charged(), 0);
        for record in gateway.records(spellings.len() + unreadable.len() + 1) {
            let name = unreadable.contains(&record.authority.as_deref().unwrap_or_default());
            assert_denied(&record, if name { "upstream_name" } else { "upstream_plaintext" });
        }
        assert_eq!(upstream.final_counts().bytes, 0);
    });
}

/// Some hosts that no rule is for are served in plain text, as they were.
#[test]
fn an_unlisted_host_is_only_written_down() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let gateway = Gateway::start(binary, "unlisted", Cluster::plain("api", &upstream).gate());
        gateway.passes(UNLISTED);
        assert_eq!(gateway.counts(), (1, 0));
        assert_allowed(&gateway.records(2)[0], Some("unlisted"));
    });
}

#[test]
fn what_a_configuration_tightens_is_judged() {
    each_envoy(|binary| {
        for host in ["*", UNLISTED, "*.corp.example"] {
            let upstream = Serve::plain().start();
            let cluster =
                Cluster::plain("api", &upstream).gate_with(tighten(json!({"host": host})));
            let gateway = Gateway::start(binary, "tighten", cluster);
            gateway.refuses_to_send(UNLISTED, &upstream, "upstream_plaintext");
        }
    });
}

#[test]
fn an_old_version_is_refused() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let leaf = authority.server(&[KNOWN]);
        let upstream = Serve::tls11(&leaf).start();
        let cluster = proven(&upstream, &authority, KNOWN)
            .versions("TLSv1_0", "TLSv1_1")
            .cipher_suites(&["ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA"]);
        let gateway = Gateway::start(binary, "tls11", cluster.gate());
        gateway.refuses_to_send(KNOWN, &upstream, "upstream_version");
        assert!(upstream.final_counts().handshakes > 0, "the gate is what refuses");

        let newer = tighten(json!({"host": KNOWN, "min_version": "TLSv1.3"}));
        let upstream = Serve::tls(&leaf).only_tls12().start();
        let cluster = proven(&upstream, &authority, KNOWN);
        let gateway = Gateway::start(binary, "tls12", cluster.gate_with(newer.clone()));
        gateway.refuses_to_send(KNOWN, &upstream, "upstream_version");
        assert!(upstream.final_counts().handshakes > 0, "the gate is what refuses");

        let upstream = Serve::tls(&leaf).only_tls13().start();
        let cluster = proven(&upstream, &authority, KNOWN);
        Gateway::start(binary, "tls13", cluster.gate_with(newer)).passes(KNOWN);
    });
}

#[test]
fn a_good_upstream_passes_and_its_connection_is_kept() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let gateway = Gateway::start(binary, "good", proven(&upstream, &authority, KNOWN).gate());
        let body = vec![b'x'; 1_000_000];
        let large = gateway.request(KNOWN).body(&body);
        for request in [&large, &gateway.request(KNOWN), &large] {
            assert_eq!(gateway.envoy.send(request).status, 200, "{}", gateway.envoy.proxy_log());
        }
        let answer = gateway.passes(KNOWN);
        assert!(answer.header("ratelimit").is_some(), "{answer:?}");
        assert_eq!((gateway.charged(), gateway.counts()), (4, (4, 0)));
        for record in gateway.records(6) {
            assert_allowed(&record, Some("verified"));
        }
        let counts = upstream.final_counts();
        assert_eq!((counts.accepted, counts.handshakes, counts.requests), (1, 1, 4));
        let heads: usize = upstream.heads().iter().map(String::len).sum();
        let bodies = 2 * body.len() + 2 * "a secret prompt".len();
        assert_eq!(counts.bytes, u64::try_from(heads + bodies).unwrap());
    });
}

#[test]
fn http2_upstreams_pass_or_are_refused_like_others() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).http2().start();
        let cluster = proven(&upstream, &authority, KNOWN).http2();
        let gateway = Gateway::start(binary, "h2", cluster.gate());
        let large = gateway.request(KNOWN).body(vec![b'x'; 1_000_000]);
        for request in [&large, &gateway.request(KNOWN), &large] {
            assert_eq!(gateway.envoy.send(request).status, 200, "{}", gateway.envoy.proxy_log());
        }
        for record in gateway.records(3) {
            assert_allowed(&record, Some("verified"));
        }
        let counts = upstream.final_counts();
        assert_eq!((counts.accepted, counts.requests), (1, 3));
        assert!(counts.bytes > 2_000_000, "{counts:?}");

        // The connection itself opens with bytes that belong to no request (RFC 9113, section 3.4).
        let other = Serve::tls(&authority.server(&["other.example"])).http2().start();
        let cluster = Cluster::tls("api", &other, &authority).sni(KNOWN).http2();
        let gateway = Gateway::start(binary, "h2_other", cluster.gate());
        for _ in 0..2 {
            gateway.refuses(KNOWN, "upstream_name");
        }
        for record in gateway.records(2) {
            assert_denied(&record, "upstream_name");
        }
        let counts = other.final_counts();
        assert_eq!((counts.accepted, counts.requests), (1, 0));
        assert!(counts.bytes < 100, "more than a preface and its settings: {counts:?}");
    });
}

#[test]
fn each_worker_has_a_gate() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let good = Serve::tls(&authority.server(&[KNOWN])).start();
        let bad = Serve::plain().start();
        let cluster = proven(&good, &authority, KNOWN).gate();
        let plain = Cluster::plain("plain", &bad).gate();
        let gateway = Plan::new(binary, "workers", json!({}))
            .options(|options| options.concurrency(WORKERS))
            .edit(|config| {
                cluster.install(config);
                plain.install_for(config, "api.anthropic.com");
            })
            .start();
        let mut connections = connect(&gateway.envoy);
        for (host, status) in [(KNOWN, 200), ("api.anthropic.com", 502), (KNOWN, 200)] {
            let request = gateway.request(host).encode();
            let statuses = send_in_step(&mut connections, vec![&request; 2 * CONNECTIONS]);
            assert!(statuses.iter().all(|have| *have == status), "{host}: {statuses:?}");
        }
        drop(connections);
        gateway.envoy.stop();
        assert_eq!(bad.final_counts().bytes, 0);
        let counts = good.final_counts();
        assert_eq!(counts.requests, u64::try_from(4 * CONNECTIONS).unwrap());
        assert!(counts.accepted > 1, "{counts:?}");
    });
}

#[test]
fn the_host_that_the_route_asks_for_is_the_one_that_counts() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream).gate();
        let gateway = Plan::new(binary, "rewrite", json!({}))
            .edit(|config| {
                cluster.install(config);
                route(config)["host_rewrite_literal"] = json!(KNOWN);
            })
            .start();
        gateway.refuses_to_send(UNLISTED, &upstream, "upstream_plaintext");
    });
}

#[test]
fn an_upstream_that_never_finishes_its_handshake_is_given_up() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let silent = Serve::tls(&authority.server(&[KNOWN])).silent().start();
        let good = Serve::tls(&authority.server(&["api.anthropic.com"])).start();
        let cluster = proven(&silent, &authority, KNOWN)
            .edit(|cluster| cluster["connect_timeout"] = json!("60s"))
            .gate_with(json!({"deadline": "1s"}));
        let other = Cluster::tls("other", &good, &authority).gate();
        let gateway = Plan::new(binary, "silent", json!({}))
            .edit(|config| {
                cluster.install(config);
                other.install_for(config, "api.anthropic.com");
            })
            .start();

        // A client that goes away while its request waits leaves nothing behind.
        let mut gone = Connection::open(gateway.envoy.gate());
        gone.send_raw(&gateway.request(KNOWN).encode()).unwrap();
        gateway.envoy.wait_for_stat("cluster.api.upstream_cx_total", 1);
        drop(gone);
        gateway.envoy.wait_for_stat("http.gate.downstream_rq_active", 0);
        gateway.passes("api.anthropic.com");

        gateway.refuses(KNOWN, "upstream_unproven");
        gateway.passes("api.anthropic.com");
        assert_eq!(gateway.counts().1, 1);
        let lines = gateway.lines(5);
        let given_up = lines.iter().find(|line| line.outcome.status == Some(502)).unwrap();
        assert_denied(given_up.record.as_ref().unwrap(), "upstream_unproven");
        let waited_ns = given_up.outcome.duration_ns.unwrap();
        assert!((1_000_000_000..5_000_000_000).contains(&waited_ns), "{waited_ns}");
        assert_eq!(silent.final_counts().handshakes, 0);
    });
}
