//! The module and the proxy read a request alike, or the request is refused: host, path, trailers, and
//! headers that say something else.

use serde_json::{Value, json};

use crate::gateways::{Gateway, UNLISTED};
use crate::keys::{Minter, attenuate, options};
use crate::support::tls::{Cluster, Serve, Upstream};
use crate::support::{Connection, Envoy, Options, Request, config, each_envoy, wait_for};

fn manager(config: &mut Value) -> &mut Value {
    config::connection_manager(config, "gate")
}

fn code(envoy: &Envoy, request: &Request) -> (u16, Option<String>) {
    let answer = envoy.send(request);
    let code = serde_json::from_str::<Value>(&answer.text()).ok();
    let code = code.and_then(|json| json["error"]["code"].as_str().map(str::to_owned));
    (answer.status, code)
}

// === hosts ===

/// A virtual host for `a.example`, and one for everything else.
fn beside_a(options: Options, own: Cluster, rest: Cluster, strips: bool) -> Options {
    options.edit(move |config| {
        own.install_for(config, "a.example");
        rest.install(config);
        manager(config)["route_config"]["virtual_hosts"][1]["domains"] = json!(["a.example"]);
        if !strips {
            manager(config)["strip_any_host_port"] = json!(false);
            manager(config)["strip_trailing_host_dot"] = json!(false);
        }
    })
}

#[test]
fn a_key_for_a_host_reaches_the_virtual_host_of_that_name_only() {
    each_envoy(|binary| {
        for strips in [false, true] {
            let [own, rest] = [(); 2].map(|()| Serve::plain().start());
            let clusters = (Cluster::plain("own", &own), Cluster::plain("rest", &rest));
            let main = Minter::new("main", None);
            let options = options("hosts", &main, json!({})).on(binary);
            let envoy = Envoy::start(beside_a(options, clusters.0, clusters.1, strips));
            let key = main.key("k1", json!({"only": {"hosts": ["a.example"]}}));
            let any = main.key("k2", json!({}));
            for host in [
                "a.example:80", "a.example:", "a.example.", "a.example:99999", "a.example:0",
                "A.example", "a.example.:443", "b.example", "x@a.example",
            ] {
                let request = Request::new("GET", "/v1/a").header("host", host);
                let (status, reason) = code(&envoy, &request.clone().bearer(&key));
                let refused = status == 403 && reason.as_deref() == Some("host");
                // Where Envoy strips, it is the plain name that the module sees, and routes by.
                assert!(refused || status == 400 || (strips && status == 200), "{host}: {status}");
                // A key without a rule about hosts is not concerned.
                envoy.send(&request.bearer(&any));
            }
            let request = Request::new("GET", "/v1/a").header("host", "a.example").bearer(&key);
            assert_eq!(envoy.send(&request).status, 200);
            envoy.stop();
            assert!(own.final_counts().requests > 0 && rest.final_counts().requests > 0);
            assert!(!rest.received().contains("x-vkey-key: k1"), "{}", rest.received());
        }
    });
}

// === paths ===

#[test]
fn a_path_that_the_proxy_does_not_normalise_is_refused() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream);
        let main = Minter::new("main", None);
        // Envoy's defaults.
        let options = options("paths", &main, json!({})).on(binary).edit(move |config| {
            cluster.install(config);
            for option in ["normalize_path", "merge_slashes", "path_with_escaped_slashes_action"] {
                manager(config).as_object_mut().unwrap().remove(option);
            }
        });
        let envoy = Envoy::start(options);
        let key = main.key("k1", json!({"only": {"paths": ["/v1/**"]}}));
        for path in [
            "/admin/../v1/x", "/v1/../admin", "//v1/x", "/v1//x", "/v1/./x", "/v1/%78",
            "/v1/%2e%2e/x", "/v1/%2fx", "/v1/x/..", "/v1/x%5c", "/v1/..;/x",
        ] {
            let refused = (400, Some("path_ambiguous".to_owned()));
            assert_eq!(code(&envoy, &Request::new("GET", path).bearer(&key)), refused, "{path}");
        }
        for path in ["/v1/x", "/v1/x/", "/v1/a%20b%c3%a9", "/v1/x?y=/../z"] {
            let answer = envoy.send(&Request::new("GET", path).bearer(&key));
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.text().starts_with(&format!("GET {path} ")), "{answer:?}");
        }
        envoy.stop();
        assert_eq!(upstream.final_counts().requests, 4);
    });
}

/// The shipped configuration normalises, so that no client sees the difference.
#[test]
fn a_path_that_the_proxy_normalises_is_judged_as_it_is_sent() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let gateway = Gateway::start(binary, "normal", Cluster::plain("api", &upstream));
        for (path, sent) in [
            ("/admin/../v1/x", "/v1/x"),
            ("/v1//x", "/v1/x"),
            ("/v1/./x", "/v1/x"),
            ("/v1/%7Ex", "/v1/~x"),
            ("/v1/%78", "/v1/x"),
            ("/v1/a%2Db%2ec%5Fd", "/v1/a-b.c_d"),
        ] {
            let answer = gateway.envoy.send(&gateway.request(UNLISTED).path(path));
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(answer.text().starts_with(&format!("POST {sent} ")), "{answer:?}");
        }
    });
}

// === trailers ===

/// A chunked request with these trailers.
fn with_trailers(request: &Request, trailers: &[(&str, &str)]) -> Vec<u8> {
    let mut wire = request.clone().body("").header("transfer-encoding", "chunked").encode();
    let body = wire.windows(4).position(|end| end == b"\r\n\r\n").expect("an end") + 4;
    wire.truncate(body);
    wire.extend_from_slice(b"4\r\ntext\r\n0\r\n");
    for (name, value) in trailers {
        wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

/// Lets trailers through, from the client and to the upstream.
fn enable_trailers(config: &mut Value) {
    manager(config)["http_protocol_options"]["enable_trailers"] = json!(true);
    manager(config)["common_http_protocol_options"]["headers_with_underscores_action"] =
        json!("ALLOW");
    let cluster = config::named(config, "/static_resources/clusters", "api");
    let options = cluster["typed_extension_protocol_options"].as_object_mut().unwrap();
    for options in options.values_mut() {
        options["explicit_http_config"]["http_protocol_options"] = json!({"enable_trailers": true});
    }
}

#[test]
fn trailers_carry_neither_keys_nor_identities() {
    each_envoy(|binary| {
        for gated in [false, true] {
            let upstream = Serve::plain().start();
            let cluster = Cluster::plain("api", &upstream);
            let cluster = if gated { cluster.gate() } else { cluster };
            let main = Minter::new("main", None);
            let options = options("trailers", &main, json!({})).on(binary).edit(move |config| {
                cluster.install(config);
                enable_trailers(config);
            });
            let envoy = Envoy::start(options);
            let [key, jwt] = [main.key("k1", json!({})), main.jwt("k2", json!({}))];
            let request = Request::new("POST", "/v1/a").bearer(&key);
            let trailers = [
                ("x-kept", "yes"),
                ("x-vkey-tenant", "forged"),
                ("X-VKEY-KEY", "forged"),
                ("x_vkey_sub", "forged"),
                ("authorization", "Bearer forged"),
                ("x-api-key", "forged"),
                ("x-note", &format!("my key is {key}")),
                ("x-other", &jwt),
                ("x-http-method-override", "forged"),
            ];
            let mut connection = Connection::open(envoy.gate());
            connection.send_raw(&with_trailers(&request, &trailers)).expect("Envoy reads");
            assert_eq!(connection.read_response().expect("an answer").status, 200);
            envoy.stop();
            upstream.final_counts();
            let received = upstream.received();
            assert!(received.contains("x-kept: yes"), "{received}");
            assert!(!received.contains("forged"), "{received}");
            assert!(!received.contains(&key) && !received.contains(&jwt), "{received}");
        }
    });
}

// === headers that say something else ===

const OVERRIDES: [&str; 13] = [
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-uri",
    "x-rewrite-url",
];

fn echo(binary: &std::path::Path, label: &str) -> (Envoy, Upstream, Minter) {
    let upstream = Serve::plain().start();
    let cluster = Cluster::plain("api", &upstream);
    let main = Minter::new("main", None);
    let options = options(label, &main, json!({"tiers": {"free": {}}})).on(binary);
    (Envoy::start(options.edit(move |config| cluster.install(config))), upstream, main)
}

#[test]
fn no_header_changes_what_was_judged() {
    each_envoy(|binary| {
        let (envoy, upstream, main) = echo(binary, "overrides");
        let judged = [
            main.key("k1", json!({"only": {"methods": ["GET"]}})),
            main.key("k2", json!({"only": {"paths": ["/v1/**"]}})),
            main.key("k3", json!({"only": {"hosts": ["a.example"]}})),
            attenuate(&main.key("k4", json!({})), &json!({"any_of": [{"methods": ["GET"]}]})),
        ];
        let free = main.key("k5", json!({}));
        for name in OVERRIDES {
            for (key, kept) in judged.iter().map(|key| (key, false)).chain([(&free, true)]) {
                let request = Request::new("GET", "/v1/a").header("host", "a.example").bearer(key);
                let answer = envoy.send(&request.header(name, "overridden"));
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.text().contains("overridden"), kept, "{name}: {answer:?}");
            }
        }
        drop(upstream);
    });
}

/// Envoy's router retries and hedges as these headers say, where the proxy takes the client for its own.
#[test]
fn a_client_does_not_choose_how_often_a_request_is_sent() {
    each_envoy(|binary| {
        let (envoy, upstream, main) = echo(binary, "retries");
        let key = main.key("k1", json!({}));
        upstream.fail_next(1);
        let request = Request::new("GET", "/v1/a")
            .bearer(&key)
            .header("x-envoy-retry-on", "5xx")
            .header("x-envoy-max-retries", "3")
            .header("x-envoy-hedge-on-per-try-timeout", "true")
            .header("x-envoy-upstream-rq-per-try-timeout-ms", "1");
        assert_eq!(envoy.send(&request).status, 503);
        assert_eq!(upstream.counts().requests, 1);
        assert!(!upstream.received().contains("x-envoy-retry"), "{}", upstream.received());
    });
}

// === the client's address ===

#[test]
fn the_log_says_that_clients_choose_their_addresses() {
    each_envoy(|binary| {
        for trusts in [false, true] {
            let main = Minter::new("main", None);
            let options = options("addresses", &main, json!({})).on(binary).edit(move |config| {
                manager(config)["use_remote_address"] = json!(!trusts);
            });
            let envoy = Envoy::start(options);
            let request = Request::new("GET", "/v1/a").bearer(&main.key("k1", json!({})));
            let request = request.header("x-forwarded-for", "203.0.113.7");
            assert_eq!((envoy.send(&request).status, envoy.send(&request).status), (200, 200));
            envoy.stop();
            let log = envoy.proxy_log();
            let warnings = log.matches("takes the client's address from x-forwarded-for").count();
            assert_eq!(warnings, usize::from(trusts), "{log}");
        }
    });
}

/// Envoy reads no entry with a port or brackets and takes its peer for the client. The module reads them.
#[test]
fn a_proxy_that_writes_ports_hides_clients_from_envoy_and_not_from_the_module() {
    each_envoy(|binary| {
        for (trusted_hops, reads_ports) in [(0, false), (2, true)] {
            let main = Minter::new("main", None);
            let plugin = json!({"client": {"trusted_hops": trusted_hops}});
            let options = options("ports", &main, plugin).on(binary).edit(|config| {
                manager(config)["use_remote_address"] = json!(true);
                manager(config)["xff_num_trusted_hops"] = json!(1);
            });
            let envoy = Envoy::start(options);
            let of =
                |jti: &str, network: &str| main.key(jti, json!({"only": {"sources": [network]}}));
            let (peer, v4, v6) =
                (of("k1", "127.0.0.0/8"), of("k2", "203.0.113.9"), of("k3", "2001:db8::5"));
            let status = |key: &str, entry: &str| {
                let request = Request::new("GET", "/v1/a").bearer(key);
                envoy.send(&request.header("x-forwarded-for", entry)).status
            };
            assert_eq!((status(&v4, "203.0.113.9"), status(&v6, "2001:db8::5")), (200, 200));
            let (client, load_balancer) = if reads_ports { (200, 403) } else { (403, 200) };
            for (key, entry) in
                [(&v4, "203.0.113.9:4711"), (&v6, "[2001:db8::5]"), (&v6, "[2001:db8::5]:4711")]
            {
                let seen = (status(key, entry), status(&peer, entry));
                assert_eq!(seen, (client, load_balancer), "{trusted_hops} {entry}");
            }
            // Nobody can tell that the end was meant for a port.
            assert_eq!(status(&v6, "2001:db8::5:4711"), 403);
            assert_eq!(status(&of("k4", "2001:db8::5:4711"), "2001:db8::5:4711"), 200);
        }
    });
}

// === revocations ===

/// A connection that was open before an update goes on under the old configuration.
#[test]
fn a_key_that_was_revoked_is_refused_on_connections_that_were_open() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let revoked =
            |version: u32, keys: &[&str]| json!({"revoked": {"version": version, "keys": keys}});
        let options = options("revoked", &main, json!({})).on(binary);
        let (envoy, mut listener) = crate::updates::Listener::start(options, revoked(7, &[]));
        let [leaked, good] = ["k1", "k2"].map(|jti| main.key(jti, json!({})));
        let mut open = Connection::open(envoy.gate());
        let mut status = |key: &str| open.send(&Request::new("GET", "/v1/a").bearer(key)).status;
        assert_eq!((status(&leaked), status(&good)), (200, 200));
        listener.publish(revoked(8, &["k1"]));
        wait_for(|| (status(&leaked) == 401).then_some(()), || envoy.proxy_log());
        assert_eq!(status(&good), 200, "{}", envoy.proxy_log());

        // A rollback is judged by the newer list, and shows.
        listener.publish(revoked(7, &["k9"]));
        wait_for(
            || (crate::updates::stat(&envoy, "vkey_revocations_version") == 7).then_some(()),
            || envoy.proxy_log(),
        );
        let fresh = |key: &str| envoy.send(&Request::new("GET", "/v1/a").bearer(key)).status;
        assert_eq!((fresh(&leaked), fresh(&good)), (401, 200));
        assert_eq!(crate::updates::stat(&envoy, "vkey_revocations_newest_version"), 8);
        assert!(crate::updates::stat(&envoy, "vkey_revocations_outdated_total") > 0);
        let log = envoy.proxy_log();
        assert!(log.contains("version 7, are older than version 8"), "{log}");
    });
}
