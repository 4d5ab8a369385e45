//! One budget over several proxies, which lease it from a ledger.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::keys::{self, Minter};
use crate::load::{WORKERS, connect, send_in_step};
use crate::support::{Connection, Envoy, Request, TempDir, artefact, wait_for};

/// The variable with the key that proxies show to the ledger.
const LEDGER_KEY: &str = "VKEY_LEDGER_KEY";

/// How long a budget may take until all of it was spent.
const SPENDING: Duration = Duration::from_secs(60);

/// `vkey serve` with a ledger, which may be killed and started again.
struct Ledger {
    address: SocketAddr,
    dir: TempDir,
    secret: String,
    child: Option<Child>,
}

/// Some proxies with one ledger.
struct Site {
    main: Minter,
    ledger: Ledger,
    proxies: Vec<Envoy>,
}

/// What became of some requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    allowed: u64,
    limited: u64,
    unavailable: u64,
}

impl Ledger {
    fn start(main: &Minter, plugin: &Value) -> Self {
        let dir = TempDir::new("ledger");
        std::fs::write(dir.file("config.json"), keys::complete(plugin.clone())).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut ledger = Self { address, dir, secret: main.secret.clone(), child: None };
        ledger.restart();
        ledger
    }

    fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(artefact("VKEY_TEST_COMMAND"));
        command.args(["serve", "--listen", &self.address.to_string()]);
        command.arg("--config").arg(self.dir.file("config.json"));
        command.arg("--store").arg(self.dir.file("audit.db"));
        command.arg("--ledger").arg(self.dir.file("ledger.db"));
        command.env(keys::VARIABLE, &self.secret).env(LEDGER_KEY, "unused");
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the command starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("http://"), "{line}");
        self.child = Some(child);
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// The sums of an account.
    fn account(&self, key: &str, name: &str) -> Value {
        let path = format!("/v1/ledger/accounts?account={name}");
        let answer = Connection::open(self.address).send(&Request::new("GET", path).bearer(key));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Site {
    fn start(proxies: usize, tiers: Value) -> Self {
        let main = Minter::new("main", None);
        let plugin = json!({
            "ledger": {"cluster": "vkey_ledger", "key": format!("${{{LEDGER_KEY}}}")},
            "tiers": tiers,
        });
        let ledger = Ledger::start(&main, &plugin);
        let start = |_| start_proxy(&main, &plugin, ledger.address);
        let proxies = (0..proxies).map(start).collect();
        Self { main, ledger, proxies }
    }

    fn key(&self, jti: &str) -> String {
        self.main.key(jti, json!({"tier": jti}))
    }

    /// Sends requests of a key to all proxies in turn, until `is_over` says so.
    fn send_until(&self, jti: &str, mut is_over: impl FnMut(Sums) -> bool) -> Sums {
        let request = Request::new("GET", "/v1/models").bearer(&self.key(jti)).encode();
        let mut connections: Vec<_> = self.proxies.iter().map(connect).collect();
        let mut sums = Sums::default();
        let until = Instant::now() + SPENDING;
        while !is_over(sums) && Instant::now() < until {
            for connections in &mut connections {
                let batch = std::iter::repeat_n(&request, connections.len());
                sums.add(send_in_step(connections, batch));
            }
        }
        sums
    }
}

fn ledger_key(main: &Minter) -> String {
    main.key("proxies", json!({"aud": ["vkey-ledger"]}))
}

fn start_proxy(main: &Minter, plugin: &Value, ledger: SocketAddr) -> Envoy {
    let options = keys::options("budgets", main, plugin.clone());
    let options = options.env(LEDGER_KEY, &ledger_key(main)).concurrency(WORKERS);
    Envoy::start(options.edit(move |built| {
        let clusters = built.pointer_mut("/static_resources/clusters");
        let address = json!({"address": ledger.ip().to_string(), "port_value": ledger.port()});
        let endpoint = json!({"endpoint": {"address": {"socket_address": address}}});
        clusters.and_then(Value::as_array_mut).unwrap().push(json!({
            "name": "vkey_ledger",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "vkey_ledger",
                "endpoints": [{"lb_endpoints": [endpoint]}],
            },
        }));
    }))
}

fn budget(requests: u64) -> Value {
    json!({"quotas": [{"requests": requests, "per": "total", "scope": "cluster"}]})
}

impl Sums {
    fn add(&mut self, statuses: Vec<u16>) {
        for status in statuses {
            *match status {
                200 => &mut self.allowed,
                429 => &mut self.limited,
                503 => &mut self.unavailable,
                other => panic!("status {other}"),
            } += 1;
        }
    }
}

#[test]
fn a_budget_over_two_proxies_lets_exactly_as_much_through_as_it_says() {
    let site = Site::start(2, json!({"b100": budget(100), "b10000": budget(10_000)}));
    for (jti, limit) in [("b100", 100), ("b10000", 10_000)] {
        let begin = Instant::now();
        let sums = site.send_until(jti, |sums| sums.allowed >= limit);
        println!("{jti}: {sums:?} in {:?}", begin.elapsed());
        assert_eq!((sums.allowed, sums.unavailable), (limit, 0), "{sums:?}");
        let mut rounds = 0;
        let more = site.send_until(jti, |_| {
            rounds += 1;
            rounds > 5
        });
        assert_eq!(more.allowed, 0, "{more:?}");
        let name = format!("key/acme/{jti}/requests/total");
        let key = ledger_key(&site.main);
        wait_for(
            || {
                let account = site.ledger.account(&key, &name);
                let sums = account.to_string();
                sums.contains(&format!(r#""used":{limit}"#)).then_some(())
            },
            || site.ledger.account(&key, &name).to_string(),
        );
    }
}
