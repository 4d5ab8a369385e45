//! Certificates at the gate of a cluster: pins, names, and the proxy's own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::json;

use crate::gateways::{Gateway, KNOWN, assert_allowed, assert_denied, digest, proven, tighten};
use crate::support::tls::{Authority, Cluster, Leaf, Serve};
use crate::support::{Connection, Request, TempDir, each_envoy, wait_for};

fn pins(leaves: &[&Leaf]) -> serde_json::Value {
    let pins: Vec<_> = leaves.iter().map(|leaf| format!("sha256:{}", leaf.sha256())).collect();
    tighten(json!({"host": KNOWN, "pins": pins}))
}

/// What clients get that never stop to send.
#[derive(Default)]
struct Traffic {
    ended: AtomicBool,
    allowed: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Traffic {
    /// Sends requests from several clients while `course` runs.
    fn during<T>(&self, gateway: &Gateway, course: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| self.send(gateway, &gateway.request(KNOWN)));
            }
            // Also where the course fails: the clients would wait for each other.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(course));
            self.ended.store(true, Ordering::SeqCst);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn send(&self, gateway: &Gateway, request: &Request) {
        let mut connection = Connection::open(gateway.envoy.gate());
        while !self.ended.load(Ordering::SeqCst) {
            let count = match connection.send(request).status {
                200 => &self.allowed,
                502 => &self.refused,
                _ => &self.failed,
            };
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until as many more answers are counted.
    fn wait(count: &AtomicU64, more: u64) {
        let wanted = count.load(Ordering::SeqCst) + more;
        let now = || count.load(Ordering::SeqCst);
        wait_for(|| (now() >= wanted).then_some(()), || format!("{} of {wanted}", now()));
    }
}

#[test]
fn a_certificate_that_is_not_pinned_is_refused() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let [shown, one, other] = [(); 3].map(|()| authority.server(&[KNOWN]));
        let upstream = Serve::tls(&shown).start();
        let cluster = proven(&upstream, &authority, KNOWN);
        let gated = cluster.clone().gate_with(pins(&[&one, &other]));
        let gateway = Gateway::start(binary, "pin", gated);
        gateway.refuses_to_send(KNOWN, &upstream, "upstream_pin");
        let gateway = Gateway::start(binary, "pinned", cluster.gate_with(pins(&[&one, &shown])));
        gateway.passes(KNOWN);
        assert_allowed(&gateway.records(1)[0], Some("verified"));
    });
}

#[test]
fn two_pins_rotate_without_a_refusal() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let [old, new] = [(); 2].map(|()| authority.server(&[KNOWN]));
        let upstream = Serve::tls(&old).start();
        let cluster = proven(&upstream, &authority, KNOWN).max_requests(3);
        let gateway = Gateway::start(binary, "rotate", cluster.gate_with(pins(&[&old, &new])));
        let traffic = Traffic::default();
        traffic.during(&gateway, || {
            Traffic::wait(&traffic.allowed, 30);
            upstream.swap(&new);
            let connections = upstream.counts().handshakes;
            Traffic::wait(&traffic.allowed, 60);
            assert!(upstream.counts().handshakes > connections + 5);
        });
        let refused = traffic.refused.load(Ordering::SeqCst);
        assert_eq!((refused, traffic.failed.load(Ordering::SeqCst)), (0, 0));
    });
}

#[test]
fn a_pinned_upstream_that_changes_its_certificate_gets_nothing_more() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let [old, reserve, new] = [(); 3].map(|()| authority.server(&[KNOWN]));
        let upstream = Serve::tls(&old).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate_with(pins(&[&old, &reserve]));
        let gateway = Gateway::start(binary, "stop", cluster);
        let traffic = Traffic::default();
        let before = traffic.during(&gateway, || {
            Traffic::wait(&traffic.allowed, 30);
            assert_eq!(traffic.refused.load(Ordering::SeqCst), 0);
            upstream.swap(&new);
            let handshakes = upstream.counts().handshakes;
            upstream.close_connections();
            // What had arrived on the old connections is counted by then.
            Traffic::wait(&traffic.refused, 20);
            let before = upstream.counts();
            assert!(before.handshakes > handshakes, "{before:?}");
            let allowed = traffic.allowed.load(Ordering::SeqCst);
            Traffic::wait(&traffic.refused, 40);
            assert_eq!(traffic.allowed.load(Ordering::SeqCst), allowed);
            before
        });
        gateway.envoy.stop();
        let after = upstream.final_counts();
        assert_eq!((after.bytes, after.requests), (before.bytes, before.requests));
        assert!(after.handshakes > before.handshakes, "{after:?}");
        // A connection that was cut off is an error of its own, once for each client at most.
        assert!(traffic.failed.load(Ordering::SeqCst) <= 4);
    });
}

#[test]
fn the_proxy_needs_the_certificate_of_its_own_that_the_policy_asks_for() {
    each_envoy(|binary| {
        let dir = TempDir::new("clients");
        let (authority, clients) = (Authority::new("upstreams"), Authority::new("clients"));
        let leaf = authority.server(&[KNOWN]);
        let own = tighten(json!({"host": KNOWN, "client_certificate": true}));
        let client = clients.client("proxy");

        let upstream = Serve::tls(&leaf).accepts_client(&clients).start();
        let cluster = proven(&upstream, &authority, KNOWN);
        let gateway = Gateway::start(binary, "without", cluster.gate_with(own.clone()));
        gateway.refuses_to_send(KNOWN, &upstream, "upstream_client_cert");

        let upstream = Serve::tls(&leaf).accepts_client(&clients).start();
        let cluster = proven(&upstream, &authority, KNOWN)
            .client_certificate(&client.write(dir.path(), "client"));
        let gateway = Gateway::start(binary, "with", cluster.gate_with(own));
        gateway.passes(KNOWN);
        assert_allowed(&gateway.records(1)[0], Some("verified"));
        assert_eq!(upstream.clients(), [Some(client.sha256())]);
    });
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        for names in [&["other.example"][..], &["openai.com", "*.openai.org"], &["127.0.0.1"]] {
            let upstream = Serve::tls(&authority.server(names)).start();
            let cluster = Cluster::tls("api", &upstream, &authority).sni(KNOWN).gate();
            let gateway = Gateway::start(binary, "name", cluster);
            gateway.refuses_to_send(KNOWN, &upstream, "upstream_name");
        }
        let upstream = Serve::tls(&authority.server(&["*.openai.com"])).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate();
        Gateway::start(binary, "wildcard", cluster).passes(KNOWN);
    });
}

/// Envoy before 1.39 shows the first name of a certificate and no other.
#[test]
fn a_name_that_is_not_the_first_passes_where_it_is_shown_or_the_stamp_vouches() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let leaf = authority.server(&["other.example", KNOWN]);
        let upstream = Serve::tls(&leaf).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate();
        let gateway = Gateway::start(binary, "second", cluster.clone());
        let shows_all = match gateway.send(KNOWN).status {
            200 => {
                assert_allowed(&gateway.records(1)[0], Some("verified"));
                true
            }
            _ => {
                assert_denied(&gateway.records(1)[0], "upstream_name");
                assert_eq!(upstream.final_counts().bytes, 0);
                false
            }
        };
        let oldest = binary.to_string_lossy().contains("1.36");
        assert_eq!(shows_all, !oldest);

        let stamped = Gateway::start(binary, "stamped", cluster.stamp(&digest(), &[KNOWN]));
        stamped.passes(KNOWN);
        let verdict = if shows_all { "verified" } else { "stamped" };
        assert_allowed(&stamped.records(1)[0], Some(verdict));
    });
}
