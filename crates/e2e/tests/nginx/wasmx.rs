//! The shipped configuration with the module, on an nginx with WasmX: `make check-nginx NGINX=PATH`.
//! Without one these tests are skipped by name.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use vkey::config::Config as Plugin;

use crate::config::Config;
use crate::keys::{Minter, VARIABLE};
use crate::lines::{Line, audit_lines};
use crate::process::Nginx;
use crate::support::{Connection, DEADLINE, Request, TempDir, artefact, wait_for};
use crate::upstream::Recorder;

/// Enough connections that both workers get some.
const CONNECTIONS: usize = 64;

/// What the client puts where only the module may write.
const FORGED: &str = "forged-identity";

fn minter() -> Minter {
    Minter::new("main", None)
}

/// The shipped file with this module and a configuration of the module's, completed.
fn config(mut plugin: Value) -> Config {
    let secret = format!("${{{VARIABLE}}}");
    plugin["keyring"] = json!([{"name": "main", "secret": secret}]);
    plugin["audit"] = json!({"level": "info"});
    plugin["host"] = json!("nginx");
    Plugin::parse(plugin.to_string().as_bytes()).expect("a configuration");
    module(Config::shipped().with_plugin(&plugin.to_string()), "VKEY_TEST_WASM_NGINX")
}

fn module(config: Config, variable: &str) -> Config {
    let file = artefact(variable);
    config.replace("/etc/nginx/vkey-nginx.wasm", file.to_str().expect("a path in UTF-8"), 1)
}

fn start(config: &Config, minter: &Minter, service: &Recorder) -> Nginx {
    let binary: PathBuf = artefact("VKEY_TEST_NGINX_WASMX");
    let secret = [(VARIABLE, minter.secret.as_str())];
    Nginx::start_in(TempDir::new("nginx-wasmx"), &binary, config, service, &secret)
}

fn request(path: impl AsRef<[u8]>) -> Request {
    Request::new("GET", path).header("host", "gw.example")
}

fn lines(nginx: &Nginx, count: usize) -> Vec<Line> {
    let read = || Some(audit_lines(&nginx.log())).filter(|lines| lines.len() >= count);
    let lines = wait_for(read, || nginx.log());
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

/// The statuses of requests that go out on many connections before any answer is read.
fn send_in_step(nginx: &Nginx, requests: &[Request]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for some in requests.chunks(CONNECTIONS) {
        let mut connections = Vec::from_iter(some.iter().map(|_| Connection::open(nginx.gate())));
        for (connection, request) in connections.iter_mut().zip(some) {
            connection.send_raw(&request.encode()).expect("nginx reads");
        }
        let answers = connections.iter_mut().map(Connection::read_response);
        statuses.extend(answers.map(|answer| answer.expect("an answer").status));
    }
    statuses
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|have| **have == status).count()
}

/// What the exact counts below rest on, without the module: nginx's own limit, which is exact too.
#[test]
fn many_requests_in_step_are_counted_and_reach_both_workers() {
    let service = Recorder::start();
    let limit = "proxy_set_header x-worker $pid; set $vkey_decision allow; \
        limit_req zone=all burst=99 nodelay; limit_req_status 429;";
    let zone = "    limit_req_zone $server_name zone=all:1m rate=1r/m;\n";
    let line = "    server_tokens off;\n";
    let config = Config::plain(limit).replace(line, &format!("{line}{zone}"), 1);
    let nginx = Nginx::start(&artefact("VKEY_TEST_NGINX"), &config, &service);
    let statuses = send_in_step(&nginx, &vec![request("/v1/models"); 640]);
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (100, 540), "{statuses:?}");
    let received = service.received();
    let workers = BTreeSet::from_iter(received.iter().flat_map(|one| one.header("x-worker")));
    assert_eq!((received.len(), workers.len()), (100, 2));
}

#[test]
#[ignore = "no nginx with WasmX: make check-nginx NGINX=/path/to/nginx"]
fn every_status_has_its_reason_and_its_audit_line() {
    let (minter, service) = (minter(), Recorder::start());
    let plugin = json!({"tiers": {
        "default": {"only": {"paths": ["/v1/**"]}},
        "small": {"quotas": [{"requests": 1, "per": "month"}]},
    }});
    let nginx = start(&config(plugin), &minter, &service);
    let (plain, small) =
        (minter.key("plain", json!({})), minter.key("small", json!({"tier": "small"})));
    let mut many = request("/v1/models").bearer(&plain);
    for number in 0..120 {
        many = many.header(&format!("x-{number}"), "x");
    }
    let doubled = request("/v1/models").bearer(&plain);
    let doubled = doubled.header("x-original-url", "/v1/a").header("x-original-url", "/v2/a");
    let cases = [
        (request("/v1/models").bearer(&plain), 200, Value::Null),
        (request("/v1/models"), 401, json!("key_missing")),
        (request("/v1/models").bearer("vk1.none"), 401, json!("key_malformed")),
        (request("/v2/models").bearer(&plain), 403, json!("path")),
        (request("/v1/models").bearer(&small), 200, Value::Null),
        (request("/v1/models").bearer(&small), 429, json!("quota")),
        (many, 400, json!("header_mismatch")),
        // A rule about paths judged the key, so that these would have to go; only the first can.
        (doubled, 400, json!("header_mismatch")),
    ];
    for (request, status, _) in &cases {
        let answer = nginx.send(request);
        assert_eq!(answer.status, *status, "{answer:?}\n{}", nginx.log());
        assert_eq!(answer.header("retry-after").is_some(), *status == 429);
    }
    let mut audits = lines(&nginx, cases.len());
    for (request, status, reason) in &cases {
        let found = audits.iter().position(|line| {
            line.audit["status"] == *status && (reason.is_null() || line.audit["reason"] == *reason)
        });
        let text = String::from_utf8_lossy(&request.encode()).into_owned();
        audits.remove(found.unwrap_or_else(|| panic!("no line of {text}: {audits:?}")));
    }
    assert_eq!(service.received().len(), 2);
    nginx.no_worker_crashed();
}

#[test]
#[ignore = "no nginx with WasmX: make check-nginx NGINX=/path/to/nginx"]
fn counts_are_exact_over_both_workers() {
    let (minter, service) = (minter(), Recorder::start());
    let plugin = json!({"tiers": {"default": {"quotas": [{"requests": 100, "per": "total"}]}}});
    let nginx = start(&config(plugin), &minter, &service);
    let key = minter.key("shared", json!({}));
    let requests = vec![request("/v1/models").bearer(&key); 640];
    let statuses = send_in_step(&nginx, &requests);
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (100, 540), "{statuses:?}");
    assert_eq!(service.received().len(), 100);
    let workers = BTreeSet::from_iter(lines(&nginx, 640).iter().map(|line| line.worker));
    assert_eq!(workers.len(), 2, "one worker alone proves nothing");
    // The first request of a key makes its record: of many new keys none loses a request.
    let fresh: Vec<String> =
        (0..50).map(|number| minter.key(&format!("k{number}"), json!({}))).collect();
    let requests: Vec<_> = fresh
        .iter()
        .flat_map(|key| vec![request("/v1/models").bearer(key); CONNECTIONS * 2])
        .collect();
    let statuses = send_in_step(&nginx, &requests);
    for (key, statuses) in statuses.chunks(CONNECTIONS * 2).enumerate() {
        assert_eq!((count(statuses, 200), count(statuses, 429)), (100, 28), "key {key}");
    }
    nginx.no_worker_crashed();
}

/// With the pass list and without it: then by what the module alone does.
#[test]
#[ignore = "no nginx with WasmX: make check-nginx NGINX=/path/to/nginx"]
fn no_key_and_no_forged_identity_reaches_the_upstream() {
    let minter = minter();
    for passes in ["off", "on"] {
        let service = Recorder::start();
        let line = "proxy_pass_request_headers off;";
        let config =
            config(json!({})).replace(line, &format!("proxy_pass_request_headers {passes};"), 1);
        let nginx = start(&config, &minter, &service);
        let key = minter.key("raw", json!({"sub": "a user"}));
        let bearer = format!("Bearer {key}");
        for (name, value) in [
            ("authorization", bearer.as_str()),
            ("Authorization", bearer.as_str()),
            ("x-api-key", key.as_str()),
            ("api-key", key.as_str()),
            ("x-goog-api-key", key.as_str()),
        ] {
            let answer = nginx.send(&request("/v1/%C3%A9?a=%2F").header(name, value));
            assert_eq!(answer.status, 200, "{name}: {answer:?}\n{}", nginx.log());
            let received = service.take_one();
            assert!(!received.holds(key.as_bytes()), "{name}: {}", received.head.escape_ascii());
            assert_eq!(received.target(), b"/v1/%C3%A9?a=%2F");
            assert_eq!(received.header("x-vkey-key"), ["raw"]);
            assert_eq!(received.header("x-vkey-tenant"), ["acme"]);
            assert_eq!(received.header("x-vkey-sub"), ["a%20user"]);
        }
        for name in ["x-vkey-key", "X-Vkey-Tenant", "x-vkey-sub"] {
            let once = request("/v1/models").bearer(&key).header(name, FORGED);
            let twice = once.clone().header(name, "another");
            assert_ne!(nginx.send(&once).status, 503);
            assert_eq!(nginx.send(&twice).status, 400, "{name}");
        }
        let doubled = request("/v1/models").bearer(&key).bearer(&key);
        assert_ne!(nginx.send(&doubled).status, 200);
        for received in service.received() {
            assert!(!received.holds(FORGED.as_bytes()), "{}", received.head.escape_ascii());
            assert!(!received.holds(key.as_bytes()), "{}", received.head.escape_ascii());
        }
        nginx.no_worker_crashed();
    }
}

#[test]
#[ignore = "no nginx with WasmX: make check-nginx NGINX=/path/to/nginx"]
fn hosts_are_judged_by_the_host_header() {
    let (minter, service) = (minter(), Recorder::start());
    let plugin = json!({"tiers": {
        "ours": {"only": {"hosts": ["gw.example"]}},
        "theirs": {"only": {"hosts": ["other.example"]}},
    }});
    let config = config(plugin).without_guards();
    let nginx = start(&config, &minter, &service);
    let ours = minter.key("ours", json!({"tier": "ours"}));
    let theirs = minter.key("theirs", json!({"tier": "theirs"}));
    let of_host = |host: &str, target: &str| Request::new("GET", target).header("host", host);
    assert_eq!(nginx.send(&of_host("gw.example", "/v1").bearer(&ours)).status, 200);
    assert_eq!(nginx.send(&of_host("gw.example", "/v1").bearer(&theirs)).status, 403);
    assert_eq!(nginx.send(&of_host("other.example", "/v1").bearer(&theirs)).status, 421);
    // nginx goes by the target, the module by the header: they have to agree.
    let absolute = of_host("other.example", "http://gw.example/v1").bearer(&theirs);
    assert_eq!(nginx.send(&absolute).status, 400);
    assert_eq!(service.received().len(), 1);
    // Of a host that the upstream-TLS policy verifies nginx shows nothing.
    let known = config.replace("server_name gw.example;", "server_name api.openai.com;", 1);
    let nginx_known = start(&known, &minter, &service);
    let plain = minter.key("plain", json!({}));
    assert_eq!(nginx_known.send(&of_host("api.openai.com", "/v1").bearer(&plain)).status, 502);
    assert_eq!(service.received().len(), 1);
    nginx.no_worker_crashed();
    nginx_known.no_worker_crashed();
}

#[test]
#[ignore = "no nginx with WasmX: make check-nginx NGINX=/path/to/nginx"]
fn a_full_zone_refuses_new_keys_and_goes_on_counting_the_others() {
    let (minter, service) = (minter(), Recorder::start());
    let plugin = json!({"tiers": {"default": {"quotas": [{"requests": 3, "per": "total"}]}}});
    let config = config(plugin).replace("shm_kv vkey 16m", "shm_kv vkey 64k", 1);
    let nginx = start(&config, &minter, &service);
    let old = request("/v1/models").bearer(&minter.key("old", json!({})));
    assert_eq!(nginx.send(&old).status, 200);
    let new = |number: u32| request("/v1").bearer(&minter.key(&format!("new-{number}"), json!({})));
    let full = (0..4000).find(|number| nginx.send(&new(*number)).status != 200);
    assert!(full.is_some(), "the zone is never full");
    assert_eq!(nginx.send(&new(5000)).status, 500);
    let statuses = [&old, &old, &old].map(|request| nginx.send(request).status);
    assert_eq!(statuses, [200, 200, 429], "{}", nginx.log());
    nginx.no_worker_crashed();
}

#[test]
#[ignore = "no nginx with WasmX: make check-nginx NGINX=/path/to/nginx"]
fn a_reload_begins_counts_anew_and_refuses_nobody() {
    let (minter, service) = (minter(), Recorder::start());
    let plugin = json!({"tiers": {"small": {"quotas": [{"requests": 2, "per": "total"}]}}});
    let config = config(plugin);
    let nginx = start(&config, &minter, &service);
    let small = request("/v1").bearer(&minter.key("small", json!({"tier": "small"})));
    let other = request("/v1").bearer(&minter.key("other", json!({})));
    let use_up = || [&small, &small, &small].map(|request| nginx.send(request).status);
    assert_eq!(use_up(), [200, 200, 429]);
    let done = AtomicBool::new(false);
    let statuses = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut statuses = Vec::new();
            let deadline = Instant::now() + DEADLINE;
            while !done.load(Ordering::SeqCst) && Instant::now() < deadline {
                statuses.push(nginx.send(&other).status);
            }
            statuses
        });
        nginx.reload(&config);
        done.store(true, Ordering::SeqCst);
        asking.join().expect("every request has an answer")
    });
    assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(use_up(), [200, 200, 429]);
    nginx.no_worker_crashed();
}

#[test]
#[ignore = "no nginx with WasmX: make check-nginx NGINX=/path/to/nginx"]
fn what_the_configuration_of_nginx_lacks_opens_nothing() {
    let (minter, service) = (minter(), Recorder::start());
    let limited = json!({"tiers": {"default": {"quotas": [{"requests": 3, "per": "total"}]}}});
    let zone = "    shm_kv vkey 16m eviction=none;\n";
    let seal = "    map '' $vkey_decision { default ''; }\n";
    let unsealed = config(limited.clone())
        .replace(seal, "", 1)
        .replace("map $vkey_decision $vkey_upstream", "map '' $vkey_upstream", 1)
        .replace("default http://nowhere", "default http://service", 1)
        .replace("\"decision\":\"$vkey_decision\",", "", 1);
    let wrong_module = Config::shipped();
    let cases = [
        ("no zone", config(limited).replace(zone, "", 1), 500, "wasm"),
        ("no seal", unsealed, 503, "vkey_decision"),
        ("vkey.wasm", module(wrong_module, "VKEY_TEST_WASM"), 503, "vkey-nginx.wasm"),
    ];
    for (what, config, status, says) in cases {
        let nginx = start(&config, &minter, &service);
        let key = minter.key("good", json!({}));
        let answer = nginx.send(&request("/v1/models").bearer(&key));
        assert_eq!(answer.status, status, "{what}: {}", nginx.log());
        assert!(nginx.log().contains(says), "{what}: {}", nginx.log());
        assert_eq!(service.connections(), 0, "{what}");
        nginx.no_worker_crashed();
    }
}

/// nginx cuts a line of its log at 2048 bytes: the audit line ends before that, whatever a client wrote.
#[test]
#[ignore = "no nginx with WasmX: make check-nginx NGINX=/path/to/nginx"]
fn an_audit_line_is_whole_however_long_the_request() {
    let (minter, service) = (minter(), Recorder::start());
    let nginx = start(&config(json!({})), &minter, &service);
    let key = minter.key("k".repeat(64).as_str(), json!({"sub": "s".repeat(128)}));
    let names: Vec<String> =
        (0..40).map(|number| format!("{number}{}=x", "n".repeat(60))).collect();
    let path = format!("/v1/{}?{}", "a".repeat(1400), names.join("&"));
    let sent = request(&path).bearer(&key).header("user-agent", "u".repeat(2000));
    assert_eq!(nginx.send(&sent).status, 200);
    let line = lines(&nginx, 1).remove(0);
    assert!(line.audit.to_string().len() < 1600, "{line:?}");
    assert_eq!(line.audit["status"], 200);
    nginx.no_worker_crashed();
}
