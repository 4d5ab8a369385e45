//! The upstreams that other tests count on: what they count is what came, on every Envoy.

use std::path::Path;

use serde_json::json;

use crate::keys::{Minter, options};
use crate::support::tls::{Authority, Cluster, Counts, Serve, Upstream};
use crate::support::{Envoy, Request, TempDir, each_envoy};

const NAME: &str = "api.example";

/// An Envoy that sends all requests to a cluster, and a request that its gate allows.
pub(crate) fn gate(binary: &Path, label: &str, cluster: Cluster) -> (Envoy, Request) {
    let main = Minter::new("main", None);
    let options = options(label, &main, json!({})).on(binary);
    let envoy = Envoy::start(options.edit(|config| cluster.install(config)));
    (envoy, Request::new("GET", "/v1/models").bearer(&main.key("k1", json!({}))))
}

/// Closes the upstream's connections and waits until Envoy has seen it: a request that is faster
/// would be sent on a connection that is gone.
pub(crate) fn disconnect(envoy: &Envoy, upstream: &Upstream, cluster: &str) {
    upstream.close_connections();
    envoy.wait_for_stat(&format!("cluster.{cluster}.upstream_cx_active"), 0);
}

/// What came, once the Envoy has ended.
fn final_counts(envoy: &Envoy, upstream: &Upstream) -> Counts {
    envoy.stop();
    upstream.final_counts()
}

#[test]
fn requests_of_one_connection_are_counted_to_the_byte() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        for (label, serve) in [
            ("tls13", Serve::tls(&authority.server(&[NAME])).only_tls13()),
            ("tls12", Serve::tls(&authority.server(&["127.0.0.1", NAME])).only_tls12()),
            ("plain", Serve::plain()),
        ] {
            let upstream = serve.start();
            let cluster = match label {
                "plain" => Cluster::plain("api", &upstream),
                _ => Cluster::tls("api", &upstream, &authority).sni(NAME).san(NAME),
            };
            let (envoy, request) = gate(binary, label, cluster);
            let answers = [
                envoy.send(&request),
                envoy.send(&request.clone().body("four")),
                envoy.send(&request),
            ];
            assert!(answers.iter().all(|answer| answer.status == 200), "{label}: {answers:?}");
            let heads = upstream.heads();
            let sent: usize = heads.iter().map(String::len).sum();
            let bytes = u64::try_from(sent + "four".len()).unwrap();
            let handshakes = u64::from(label != "plain");
            let expected = Counts { accepted: 1, handshakes, bytes, requests: 3 };
            assert_eq!(final_counts(&envoy, &upstream), expected, "{label}: {heads:?}");
            assert!(answers[0].text().contains("x-vkey-key: k1"), "{label}: {:?}", answers[0]);
        }
    });
}

#[test]
fn http2_is_counted_too() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[NAME])).http2().start();
        let cluster = Cluster::tls("api", &upstream, &authority).sni(NAME).san(NAME).http2();
        let (envoy, request) = gate(binary, "h2", cluster);
        let body = vec![b'x'; 200_000]; // more than the windows of a fresh connection
        let answers =
            [envoy.send(&request), envoy.send(&request.clone().body(&body)), envoy.send(&request)];
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let counts = final_counts(&envoy, &upstream);
        assert_eq!((counts.accepted, counts.handshakes, counts.requests), (1, 1, 3));
        assert!(counts.bytes > 200_000, "{counts:?}");
    });
}

#[test]
fn tls_1_1_is_counted_and_refused_by_a_cluster_that_wants_more() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls11(&authority.server(&[NAME])).start();
        let cluster = Cluster::tls("api", &upstream, &authority).sni(NAME).san(NAME);
        let old = cluster
            .clone()
            .versions("TLSv1_0", "TLSv1_1")
            .cipher_suites(&["ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA"]);
        let (envoy, request) = gate(binary, "tls11", old);
        let answer = envoy.send(&request);
        assert_eq!(answer.status, 200, "{answer:?}\n{}", envoy.proxy_log());
        assert_eq!(envoy.send(&request.clone().body("four")).status, 200);
        let first = final_counts(&envoy, &upstream);
        let sent: usize = upstream.heads().iter().map(String::len).sum();
        let bytes = u64::try_from(sent + "four".len()).unwrap();
        assert_eq!(first, Counts { accepted: 1, handshakes: 1, bytes, requests: 2 });

        let (envoy, request) =
            gate(binary, "tls11_refused", cluster.versions("TLSv1_2", "TLSv1_3"));
        assert_eq!(envoy.send(&request).status, 503);
        let refused = final_counts(&envoy, &upstream);
        assert!(refused.accepted > first.accepted, "{refused:?}");
        assert_eq!(refused, Counts { accepted: refused.accepted, ..first });
    });
}

#[test]
fn a_certificate_is_swapped_while_the_upstream_runs() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let (old, new) = (authority.server(&[NAME]), authority.server(&[NAME]));
        assert_ne!(old.sha256(), new.sha256());
        let upstream = Serve::tls(&old).start();
        let cluster = Cluster::tls("api", &upstream, &authority).sni(NAME).pins(&[old.sha256()]);
        let (envoy, request) = gate(binary, "swap", cluster);
        assert_eq!(envoy.send(&request).status, 200);
        upstream.swap(&new);
        assert_eq!(envoy.send(&request).status, 200, "the connection is still the old one");
        let before = upstream.counts();
        disconnect(&envoy, &upstream, "api");
        assert_eq!(envoy.send(&request).status, 503);
        assert_eq!(final_counts(&envoy, &upstream).bytes, before.bytes);
    });
}

/// With resumption a client goes by the certificate that it saw first, for as long as it can.
#[test]
fn a_resumed_session_hides_a_swap() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let (old, new) = (authority.server(&[NAME]), authority.server(&[NAME]));
        for serve in [Serve::tls(&old).only_tls12(), Serve::tls(&old).only_tls13()] {
            let upstream = serve.resumption().start();
            let cluster = Cluster::tls("api", &upstream, &authority).pins(&[old.sha256()]);
            let resuming = cluster.context(|context| context["max_session_keys"] = json!(1));
            let (envoy, request) = gate(binary, "resumption", resuming);
            assert_eq!(envoy.send(&request).status, 200);
            upstream.swap(&new);
            disconnect(&envoy, &upstream, "api");
            assert_eq!(envoy.send(&request).status, 200);
            assert_eq!(final_counts(&envoy, &upstream).handshakes, 2);
        }
    });
}

#[test]
fn an_upstream_can_require_and_merely_accept_a_client_certificate() {
    each_envoy(|binary| {
        let dir = TempDir::new("clients");
        let (authority, clients) = (Authority::new("upstreams"), Authority::new("clients"));
        let client = clients.client("proxy");
        let files = client.write(dir.path(), "client");
        let leaf = authority.server(&[NAME]);
        for (required, given, status) in
            [(true, true, 200), (true, false, 503), (false, true, 200), (false, false, 200)]
        {
            let serve = Serve::tls(&leaf);
            let upstream = match required {
                true => serve.requires_client(&clients).start(),
                false => serve.accepts_client(&clients).start(),
            };
            let mut cluster = Cluster::tls("api", &upstream, &authority).sni(NAME).san(NAME);
            if given {
                cluster = cluster.client_certificate(&files);
            }
            let (envoy, request) = gate(binary, "clients", cluster);
            assert_eq!(envoy.send(&request).status, status, "{required} {given}");
            let counts = final_counts(&envoy, &upstream);
            assert_eq!(counts.requests, u64::from(status == 200), "{required} {given}");
            assert_eq!(counts.bytes > 0, status == 200, "{required} {given}: {counts:?}");
            let shown = if given { vec![Some(client.sha256())] } else { vec![None] };
            assert_eq!(upstream.clients(), if status == 200 { shown } else { vec![] });
        }
    });
}

#[test]
fn an_upstream_can_fail_and_can_be_silent() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[NAME])).failures(1).start();
        let (envoy, request) = gate(binary, "fail", Cluster::tls("api", &upstream, &authority));
        let statuses = [(); 2].map(|()| envoy.send(&request).status);
        assert_eq!(statuses, [503, 200]);
        assert_eq!(final_counts(&envoy, &upstream).requests, 2);

        let upstream = Serve::tls(&authority.server(&[NAME])).silent().start();
        let cluster = Cluster::tls("api", &upstream, &authority);
        let cluster = cluster.edit(|cluster| cluster["connect_timeout"] = json!("0.2s"));
        let (envoy, request) = gate(binary, "silent", cluster);
        assert_eq!(envoy.send(&request).status, 503);
        let counts = final_counts(&envoy, &upstream);
        assert!(counts.accepted > 0, "{counts:?}");
        assert_eq!(counts, Counts { accepted: counts.accepted, ..Counts::default() });
    });
}
