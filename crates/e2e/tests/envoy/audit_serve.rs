//! `vkey serve` beside a real Envoy, over gRPC and from its files at once, killed again and again.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::audit_als::{SECRET, VARIABLE, beside, chained};
use crate::keys::{self, Minter};
use crate::load::{WORKERS, connect, send_in_step};
use crate::support::{Connection, Envoy, Request, TempDir, artefact, wait_for};

/// Requests of the test. `VKEY_TEST_REQUESTS=100000` sends more.
const REQUESTS: usize = 20_000;

/// How often the collector is killed meanwhile.
const KILLS: usize = 10;

/// The command that collects, in a process that may be killed.
struct Collector {
    child: Child,
    address: SocketAddr,
}

/// How the collector is started each time.
struct Start<'a> {
    envoy: &'a Envoy,
    main: &'a Minter,
    als: SocketAddr,
    dir: &'a TempDir,
    /// Arguments that are not those of every collector.
    args: Vec<String>,
}

impl Start<'_> {
    fn collector(&self) -> Collector {
        let als = self.als.to_string();
        let mut command = Command::new(artefact("VKEY_TEST_COMMAND"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--max-records", "1000000", "--als", &als]);
        command.arg("--config").arg(self.dir.file("config.json"));
        command.arg("--store").arg(self.dir.file("store.db"));
        command.arg("--follow").arg(self.envoy.access_log_path());
        command.arg("--follow").arg(self.envoy.proxy_log_path()).args(&self.args);
        command.env(keys::VARIABLE, &self.main.secret).env(VARIABLE, SECRET);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the command starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("//").next().and_then(|url| url.strip_suffix('/'));
        let Some(address) = address.and_then(|address| address.parse().ok()) else {
            panic!("{line}");
        };
        Collector { child, address }
    }
}

impl Collector {
    fn get(&self, key: &str, path: &str) -> String {
        let answer = Connection::open(self.address).send(&Request::new("GET", path).bearer(key));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.text()
    }

    fn json(&self, key: &str, path: &str) -> Value {
        serde_json::from_str(&self.get(key, path)).unwrap()
    }

    fn requests(&self, key: &str, by: &str) -> u64 {
        let usage = self.json(key, &format!("/api/usage?by={by}"));
        let rows = usage["rows"].as_array().unwrap();
        rows.iter().map(|row| row["requests"].as_u64().unwrap()).sum()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // SIGKILL.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A port that nothing listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Writes the configuration of the collector.
fn write_config(dir: &TempDir) {
    let config = json!({
        "keyring": [{"name": "main", "secret": format!("${{{}}}", keys::VARIABLE)}],
        "tiers": {"operator": {"only": {"paths": []}, "usage_of_others": true}},
        "audit": {"secret": format!("${{{VARIABLE}}}")},
    });
    std::fs::write(dir.file("config.json"), config.to_string()).unwrap();
}

#[test]
fn every_request_is_in_the_store_once_however_often_the_collector_is_killed() {
    let count = std::env::var("VKEY_TEST_REQUESTS").ok().and_then(|text| text.parse().ok());
    let count = count.unwrap_or(REQUESTS);
    let (main, als, dir) = (Minter::new("main", None), free_address(), TempDir::new("serve"));
    let binary = artefact("VKEY_TEST_ENVOY");
    let options = beside(als, chained(&binary, &main).concurrency(WORKERS));
    let envoy = Envoy::start(options);
    write_config(&dir);
    let start = Start { envoy: &envoy, main: &main, als, dir: &dir, args: Vec::new() };
    let key = main.key("k1", json!({}));
    let operator = main.key("op", json!({"tier": "operator", "aud": ["vkey-serve"]}));
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let paths = ["/v1/a", "/v1/b", "/v1/c", "/v2/d"];
            let requests = (0..count).map(|number| {
                sent.fetch_add(1, Ordering::Relaxed);
                Request::new("GET", paths[number % 4]).bearer(&key).encode()
            });
            let statuses = send_in_step(&mut connect(&envoy), requests);
            let allowed = statuses.iter().filter(|status| **status == 200).count();
            assert_eq!(allowed, count / 4 * 3);
        });
        for kill in 1..=KILLS {
            let collector = start.collector();
            let reached = || sent.load(Ordering::Relaxed) >= count * kill / (KILLS + 1);
            wait_for(
                || reached().then_some(()),
                || format!("{} were sent", sent.load(Ordering::Relaxed)),
            );
            drop(collector);
        }
    });
    let collector = start.collector();
    let expected = u64::try_from(count).unwrap();
    let stored = || collector.requests(&operator, "day");
    wait_for(|| (stored() >= expected).then_some(()), || format!("{} are stored", stored()));
    envoy.stop();
    let chains = || collector.json(&operator, "/api/chain");
    let are_closed = |chains: &Value| {
        chains["chains"].as_array().unwrap().iter().all(|chain| chain["closed"] == true)
    };
    wait_for(|| are_closed(&chains()).then_some(()), || chains().to_string());
    let chains = chains();
    assert_eq!((&chains["intact"], &chains["findings"]), (&json!(true), &json!([])), "{chains}");
    let verified = chains["chains"].as_array().unwrap().iter();
    assert_eq!(verified.map(|chain| chain["verified"].as_u64().unwrap()).sum::<u64>(), expected);
    for by in ["key", "tenant", "model", "tool", "reason", "verdict", "day"] {
        assert_eq!(collector.requests(&operator, by), expected, "{by}");
    }
    let metrics = collector.get(&operator, "/metrics");
    for sample in [
        format!("vkey_audit_records_total {expected}"),
        format!("vkey_audit_refused_total {}", expected / 4),
        format!("vkey_audit_requests_total{{reason=\"path\"}} {}", expected / 4),
        "vkey_audit_missing_records 0".to_owned(),
        "vkey_audit_open_chains 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{sample}:\n{metrics}");
    }
}

#[test]
fn the_limits_left_are_those_that_the_gate_has_counted() {
    let (main, als, dir) =
        (Minter::new("main", None), free_address(), TempDir::new("serve-limits"));
    let plugin = json!({
        "tiers": {
            "default": {"quotas": [{"requests": 4711, "per": "total"}]},
            "operator": {"only": {"paths": []}, "usage_of_others": true},
        },
    });
    let envoy = Envoy::start(keys::options("serve_limits", &main, plugin).concurrency(WORKERS));
    write_config(&dir);
    let operator = main.key("op", json!({"tier": "operator"}));
    std::fs::write(dir.file("gate.key"), operator).unwrap();
    let gate = format!("http://{}", envoy.gate());
    let nobody = format!("http://{}", free_address());
    let file = dir.file("gate.key").display().to_string();
    let args = ["--gate", &gate, "--gate", &nobody, "--gate-key-file", &file].map(str::to_owned);
    let start = Start { envoy: &envoy, main: &main, als, dir: &dir, args: args.to_vec() };
    let collector = start.collector();
    for (name, requests) in [("k1", 11), ("k2", 2)] {
        let key = main.key(name, json!({}));
        let request = Request::new("GET", "/v1/a").bearer(&key).encode();
        let statuses = send_in_step(&mut connect(&envoy), std::iter::repeat_n(request, requests));
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
    let visitor = main.key("v", json!({"tier": "operator", "aud": ["vkey-serve"]}));
    let stored = || collector.requests(&visitor, "day");
    wait_for(|| (stored() >= 13).then_some(()), || format!("{} are stored", stored()));
    let page = collector.get(&visitor, "/limits");
    let (first, second) = page.split_once(&nobody["http://".len()..]).expect("both gates");
    assert!(first.contains(&gate["http://".len()..]), "{first}");
    let cells = |text: &str| first.matches(text).count();
    // Left and used, of both keys.
    assert_eq!(
        (cells(">4\u{202f}700<"), cells(">4\u{202f}709<"), cells(">4\u{202f}711<")),
        (1, 1, 2),
        "{first}"
    );
    assert!(first.contains(">k1<") && first.contains(">k2<"), "{first}");
    assert!(second.contains("the server cannot be reached"), "{second}");
}
