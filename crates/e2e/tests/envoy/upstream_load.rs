//! Load at the gate of a cluster: a thousand connections that come up at once.

use serde_json::json;

use crate::gateways::{Gateway, KNOWN, proven};
use crate::load::send_in_step;
use crate::support::tls::{Authority, Cluster, Serve};
use crate::support::{Connection, Envoy, each_envoy};

const REQUESTS: usize = 1000;

/// What the proxy's memory may go up by from one round to the next.
const NOISE_BYTES: u64 = 4_000_000;

/// A cluster whose requests all get connections of their own.
fn wide(cluster: Cluster) -> Cluster {
    roomy(cluster).max_requests(1)
}

/// A cluster with room for all requests at once.
fn roomy(cluster: Cluster) -> Cluster {
    let most = json!({
        "max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000,
    });
    cluster.edit(|cluster| {
        cluster["circuit_breakers"] = json!({"thresholds": [most]});
        cluster["connect_timeout"] = json!("60s");
    })
}

/// The statuses of a thousand requests that are under way together.
fn storm(gateway: &Gateway) -> Vec<u16> {
    let open = |_| Connection::open(gateway.envoy.gate());
    let mut connections: Vec<_> = (0..REQUESTS).map(open).collect();
    let request = gateway.request(KNOWN).encode();
    send_in_step(&mut connections, vec![&request; REQUESTS])
}

fn allocated_bytes(envoy: &Envoy) -> u64 {
    let memory = envoy.admin_get("/memory").json();
    memory["allocated"].as_str().unwrap().parse().unwrap()
}

/// Waits until nothing of the requests is left in Envoy.
fn settle(envoy: &Envoy) {
    envoy.wait_for_stat("http.gate.downstream_cx_active", 0);
    for gauge in ["upstream_cx_active", "upstream_rq_active", "upstream_rq_pending_active"] {
        envoy.wait_for_stat(&format!("cluster.api.{gauge}"), 0);
    }
}

/// How often Envoy has called the gates' tick since its log says so.
fn ticks(envoy: &Envoy) -> usize {
    envoy.proxy_log().matches("proxy_on_tick").count()
}

/// The tick is called while something waits, and then no more.
fn assert_at_rest(gateway: &Gateway, answered: u16) {
    gateway.envoy.admin_post("/logging?wasm=trace");
    assert_eq!(gateway.send(KNOWN).status, answered);
    gateway.charged();
    let before = ticks(&gateway.envoy);
    assert!(before > 0, "the log shows no tick");
    // Each of these takes about as long as a tick would.
    for _ in 0..100 {
        gateway.charged();
    }
    assert_eq!(ticks(&gateway.envoy), before);
    gateway.envoy.admin_post("/logging?wasm=info");
}

fn assert_all(statuses: &[u16], wanted: u16) {
    let others: Vec<_> = statuses.iter().filter(|status| **status != wanted).collect();
    assert!(others.is_empty(), "{} others than {wanted}: {:?}", others.len(), others.first());
}

#[test]
fn a_thousand_new_connections_to_a_good_upstream_pass() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = wide(proven(&upstream, &authority, KNOWN)).gate();
        let gateway = Gateway::start(binary, "good_storm", cluster);
        assert_all(&storm(&gateway), 200);
        assert_eq!(gateway.charged(), 1000);
        settle(&gateway.envoy);
        let counts = upstream.counts();
        assert_eq!((counts.handshakes, counts.requests), (1000, 1000));
    });
}

#[test]
fn a_thousand_requests_wait_for_one_connection() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        for (name, status) in [(KNOWN, 200), ("other.example", 502)] {
            let upstream = Serve::tls(&authority.server(&[name])).http2().start();
            let cluster = Cluster::tls("api", &upstream, &authority).sni(KNOWN).http2();
            let cluster = roomy(cluster).gate();
            let gateway = Gateway::start(binary, "h2_storm", cluster);
            assert_all(&storm(&gateway), status);
            let allowed = if status == 200 { 1000 } else { 0 };
            assert_eq!((gateway.charged(), gateway.counts()), (allowed, (allowed, 1000 - allowed)));
            gateway.envoy.wait_for_stat("cluster.api.upstream_rq_active", 0);
            gateway.envoy.stop();
            let counts = upstream.final_counts();
            assert_eq!((counts.accepted, counts.requests), (1, allowed));
        }
    });
}

#[test]
fn a_thousand_new_connections_to_a_bad_upstream_are_refused() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&["other.example"])).start();
        let cluster = wide(Cluster::tls("api", &upstream, &authority).sni(KNOWN)).gate();
        let gateway = Gateway::start(binary, "bad_storm", cluster);
        let mut allocated = Vec::new();
        for _ in 0..4 {
            assert_all(&storm(&gateway), 502);
            settle(&gateway.envoy);
            allocated.push(allocated_bytes(&gateway.envoy));
        }
        assert_eq!((gateway.charged(), gateway.counts()), (0, (0, 4000)));
        assert_at_rest(&gateway, 502);
        println!("allocated bytes after each thousand: {allocated:?}");
        assert!(allocated[3] < allocated[1] + NOISE_BYTES, "{allocated:?}");
        gateway.envoy.stop();
        let counts = upstream.final_counts();
        assert_eq!((counts.bytes, counts.requests), (0, 0));
        assert!(counts.handshakes > 1000, "{counts:?}");
    });
}
