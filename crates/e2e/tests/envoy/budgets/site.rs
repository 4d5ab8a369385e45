//! Proxies, a ledger, and the network between them, each of which can be taken away.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::keys::{self, Minter};
use crate::load::{WORKERS, connect, send_in_step};
use crate::support::{Connection, Envoy, Options, Request, TempDir, artefact, wait_for};

/// The variable with the key that proxies show to the ledger.
const LEDGER_KEY: &str = "VKEY_LEDGER_KEY";

/// How long a budget may take until all of it was spent.
const SPENDING: Duration = Duration::from_secs(120);

/// How often a network that is held back looks whether it still is.
const PATIENCE: Duration = Duration::from_millis(5);

/// A process that ends with its owner.
struct Process(Option<Child>);

/// Where a ledger keeps its accounts.
pub(super) enum Keeping {
    File,
    Redis(Redis),
}

/// A real Redis that writes every change to its file before it responds.
pub(super) struct Redis {
    address: SocketAddr,
    dir: TempDir,
    process: Process,
}

/// `vkey serve` with a ledger.
pub(super) struct Ledger {
    pub(super) keeping: Keeping,
    address: SocketAddr,
    dir: TempDir,
    secret: String,
    process: Process,
}

/// The network to the ledger.
pub(super) struct Network {
    address: SocketAddr,
    is_held: Arc<AtomicBool>,
}

/// Some proxies with one ledger.
pub(super) struct Site {
    pub(super) main: Minter,
    pub(super) plugin: Value,
    pub(super) network: Network,
    pub(super) ledger: Ledger,
    pub(super) proxies: Vec<Envoy>,
}

/// What became of some requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) allowed: u64,
    pub(super) limited: u64,
    pub(super) unavailable: u64,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().expect("the command starts")))
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.0.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Redis {
    pub(super) fn start() -> Self {
        let mut redis =
            Self { address: free_address(), dir: TempDir::new("redis"), process: Process(None) };
        redis.restart();
        redis
    }

    pub(super) fn kill(&mut self) {
        self.process.kill();
    }

    pub(super) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--port", &self.address.port().to_string()]);
        command.arg("--dir").arg(self.dir.file(".")).stdout(Stdio::null());
        self.process = Process::start(&mut command);
        let ping = || {
            let mut connection = TcpStream::connect(self.address).ok()?;
            connection.write_all(b"PING\r\n").ok()?;
            let mut response = [0; 7];
            connection.read_exact(&mut response).ok()?;
            (&response == b"+PONG\r\n").then_some(())
        };
        wait_for(ping, || "redis-server does not respond: `tools/setup.sh redis`".to_owned());
    }
}

impl Ledger {
    fn start(main: &Minter, plugin: &Value, keeping: Keeping) -> Self {
        let dir = TempDir::new("ledger");
        std::fs::write(dir.file("config.json"), keys::complete(plugin.clone())).unwrap();
        let (address, secret) = (free_address(), main.secret.clone());
        let mut ledger = Self { keeping, address, dir, secret, process: Process(None) };
        ledger.restart();
        ledger
    }

    pub(super) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(artefact("VKEY_TEST_COMMAND"));
        command.args(["serve", "--listen", &self.address.to_string()]);
        command.arg("--config").arg(self.dir.file("config.json"));
        command.arg("--store").arg(self.dir.file("audit.db")).arg("--ledger");
        match &self.keeping {
            Keeping::File => command.arg(self.dir.file("ledger.db")),
            Keeping::Redis(redis) => command.arg(format!("redis://{}/0", redis.address)),
        };
        command.env(keys::VARIABLE, &self.secret).env(LEDGER_KEY, "unused");
        self.process = Process::start(command.stderr(Stdio::piped()));
        let child = self.process.0.as_mut().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("http://"), "{line}");
        // Whatever else it says must have a reader.
        thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    }

    pub(super) fn kill(&mut self) {
        self.process.kill();
    }

    /// The sums of an account.
    pub(super) fn account(&self, key: &str, name: &str) -> Value {
        let path = format!("/v1/ledger/accounts?account={name}");
        let answer = Connection::open(self.address).send(&Request::new("GET", path).bearer(key));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["accounts"][0].clone()
    }
}

impl Network {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, is_held) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let held = Arc::clone(&is_held);
        thread::spawn(move || {
            for near in listener.incoming() {
                // A connection that cannot be made is closed, as by a ledger that is gone.
                if let (Ok(near), Ok(far)) = (near, TcpStream::connect(to)) {
                    let ends = (near.try_clone().unwrap(), far.try_clone().unwrap());
                    let (there, back) = (Arc::clone(&held), Arc::clone(&held));
                    thread::spawn(move || carry(near, far, &there));
                    thread::spawn(move || carry(ends.1, ends.0, &back));
                }
            }
        });
        Self { address, is_held }
    }

    /// Holds everything back, or lets it go.
    pub(super) fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::SeqCst);
    }
}

/// Carries bytes from one end to the other.
fn carry(mut from: TcpStream, mut to: TcpStream, is_held: &AtomicBool) {
    let mut part = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut part) {
        while is_held.load(Ordering::SeqCst) {
            thread::sleep(PATIENCE);
        }
        if to.write_all(&part[..count]).is_err() {
            break;
        }
    }
    _ = to.shutdown(std::net::Shutdown::Both);
    _ = from.shutdown(std::net::Shutdown::Both);
}

impl Site {
    pub(super) fn start(proxies: usize, tiers: Value, keeping: Keeping) -> Self {
        Self::start_with(proxies, json!({"tiers": tiers}), keeping, |main, plugin| {
            keys::options("budgets", main, plugin)
        })
    }

    pub(super) fn start_with(
        proxies: usize,
        mut plugin: Value,
        keeping: Keeping,
        options: impl Fn(&Minter, Value) -> Options,
    ) -> Self {
        let main = Minter::new("main", None);
        let key = format!("${{{LEDGER_KEY}}}");
        plugin["ledger"] = json!({"cluster": "vkey_ledger", "key": key});
        let ledger = Ledger::start(&main, &plugin, keeping);
        let network = Network::start(ledger.address);
        let mut site = Self { main, plugin, network, ledger, proxies: Vec::new() };
        for _ in 0..proxies {
            let started = site.start_proxy(options(&site.main, site.plugin.clone()));
            site.proxies.push(started);
        }
        site
    }

    pub(super) fn start_proxy(&self, options: Options) -> Envoy {
        let address = self.network.address;
        let options = options.env(LEDGER_KEY, &self.ledger_key()).concurrency(WORKERS);
        Envoy::start(options.edit(move |built| {
            let clusters = built.pointer_mut("/static_resources/clusters");
            let address =
                json!({"address": address.ip().to_string(), "port_value": address.port()});
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

    /// A key of the tier with its name.
    pub(super) fn key(&self, jti: &str) -> String {
        self.main.key(jti, json!({"tier": jti}))
    }

    fn ledger_key(&self) -> String {
        self.main.key("proxies", json!({"aud": ["vkey-ledger"]}))
    }

    /// Sends requests of a key to all proxies in turn, until `is_over` says so.
    pub(super) fn send_until(&self, jti: &str, is_over: impl FnMut(Sums) -> bool) -> Sums {
        self.send_to(&Vec::from_iter(&self.proxies), jti, is_over)
    }

    pub(super) fn send_to(
        &self,
        proxies: &[&Envoy],
        jti: &str,
        mut is_over: impl FnMut(Sums) -> bool,
    ) -> Sums {
        let request = Request::new("GET", "/v1/models").bearer(&self.key(jti)).encode();
        let mut connections: Vec<_> = proxies.iter().map(|proxy| connect(proxy)).collect();
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

    /// Nothing of a budget is left: some more requests are refused.
    #[track_caller]
    pub(super) fn assert_spent(&self, jti: &str) {
        let mut rounds = 0;
        let more = self.send_until(jti, |_| {
            rounds += 1;
            rounds > 5
        });
        assert_eq!(more.allowed, 0, "{more:?}");
    }

    /// Waits until the ledger says so of an account.
    pub(super) fn wait_for_account(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let account = || self.ledger.account(&self.ledger_key(), name);
        wait_for(|| Some(account()).filter(&is_so), || account().to_string())
    }
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
