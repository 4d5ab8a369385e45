//! A real nginx that a test starts, asks and stops.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::config::{Config, Ports};
use crate::support::{Connection, DEADLINE, Request, Response, TempDir, wait_for};
use crate::upstream::Recorder;

/// A port that was free may be taken when nginx listens.
const TRIES: u32 = 5;

const POLL: Duration = Duration::from_millis(5);

/// As `Config::moved` says.
const WORKERS: usize = 2;

const LOG: &str = "vkey.log";
const ACCESS_LOG: &str = "access.log";

/// A running nginx: one master and two workers. Dropping it ends them.
pub(crate) struct Nginx {
    master: Child,
    binary: PathBuf,
    ports: Ports,
    dir: TempDir,
}

impl Nginx {
    /// Starts `binary` with `config` in front of `service`, and returns when it accepts.
    pub(crate) fn start(binary: &Path, config: &Config, service: &Recorder) -> Self {
        Self::start_in(TempDir::new("nginx"), binary, config, service, &[])
    }

    /// The same over files that are there already, with these environment variables and no others.
    pub(crate) fn start_in(
        dir: TempDir,
        binary: &Path,
        config: &Config,
        service: &Recorder,
        environment: &[(&str, &str)],
    ) -> Self {
        let ports = Ports { gate: free(), gate_tls: free(), service: service.address() };
        let master = spawn(binary, &dir, &config.moved(&ports, dir.path()), environment);
        let mut nginx = Self { master, binary: binary.to_owned(), ports, dir };
        for _ in 1..TRIES {
            if nginx.serves() {
                return nginx;
            }
            let log = nginx.log();
            assert!(log.contains("Address already in use"), "nginx does not start:\n{log}");
            nginx.ports = Ports { gate: free(), gate_tls: free(), ..nginx.ports };
            let text = config.moved(&nginx.ports, nginx.dir.path());
            nginx.master = spawn(binary, &nginx.dir, &text, environment);
        }
        panic!("no port stays free:\n{}", nginx.log());
    }

    /// What `nginx -t` says of a configuration, and whether it is content.
    pub(crate) fn check(binary: &Path, config: &Config) -> (bool, String) {
        let dir = TempDir::new("nginx-check");
        let unused = free();
        let ports = Ports { gate: unused, gate_tls: unused, service: unused };
        write(&dir, &config.moved(&ports, dir.path()));
        let output = command(binary, &dir).arg("-t").output().expect("nginx can be run");
        let log = fs::read_to_string(dir.file("start.log")).unwrap_or_default();
        (output.status.success(), log + &String::from_utf8_lossy(&output.stderr))
    }

    /// Where clients connect.
    pub(crate) fn gate(&self) -> SocketAddr {
        self.ports.gate
    }

    /// Where clients connect who speak TLS.
    pub(crate) fn gate_tls(&self) -> SocketAddr {
        self.ports.gate_tls
    }

    /// One request on a connection of its own.
    pub(crate) fn send(&self, request: &Request) -> Response {
        Connection::open(self.gate()).send(request)
    }

    /// Bytes on a connection of their own, and the answer.
    pub(crate) fn send_raw(&self, bytes: &[u8]) -> Response {
        let mut connection = Connection::open(self.gate());
        connection.send_raw(bytes).expect("nginx reads");
        connection.read_response().expect("an answer")
    }

    /// Puts another configuration in the place of the one that was read, and has nginx read it. Returns
    /// when the old workers are gone.
    pub(crate) fn reload(&self, config: &Config) {
        let before = self.workers();
        write(&self.dir, &config.moved(&self.ports, self.dir.path()));
        let mut reload = command(&self.binary, &self.dir);
        let status = reload.args(["-s", "reload"]).status().expect("nginx can be run");
        assert!(status.success(), "{}", self.log());
        let replaced = || {
            let now = self.workers();
            (now.len() == WORKERS && now.iter().all(|pid| !before.contains(pid))).then_some(())
        };
        wait_for(replaced, || self.log());
    }

    /// The ids of the worker processes.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let master = self.master.id();
        let children = format!("/proc/{master}/task/{master}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        children.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
    }

    /// The log so far: what nginx said at its start, and what it and the module said since.
    pub(crate) fn log(&self) -> String {
        let read = |name| fs::read(self.dir.file(name)).unwrap_or_default();
        let both = [read("start.log"), read(LOG)].concat();
        String::from_utf8_lossy(&both).into_owned()
    }

    /// Panics where a worker has crashed.
    pub(crate) fn no_worker_crashed(&self) {
        let log = self.log();
        assert!(!log.contains("exited on signal"), "{log}");
    }

    /// The lines of the access log so far; one is written after the client has its answer.
    pub(crate) fn access_log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.file(ACCESS_LOG)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether clients can connect and every worker runs; not, when the process is gone.
    fn serves(&mut self) -> bool {
        let mut outcome = None;
        let deadline = Instant::now() + DEADLINE;
        while outcome.is_none() {
            assert!(Instant::now() < deadline, "nginx neither serves nor ends:\n{}", self.log());
            let all = self.workers().len() == WORKERS;
            outcome = match self.ended() {
                true => Some(false),
                false => (all && TcpStream::connect(self.gate()).is_ok()).then_some(true),
            };
            sleep(POLL);
        }
        outcome == Some(true)
    }

    fn ended(&mut self) -> bool {
        self.master.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Nginx {
    /// A master that is killed leaves its workers behind; one that is told to stop ends them first.
    fn drop(&mut self) {
        if !self.ended() {
            // Both fail only for a process that is gone.
            let _ = command(&self.binary, &self.dir).args(["-s", "stop"]).status();
            let _ = self.master.wait();
        }
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

fn write(dir: &TempDir, text: &str) {
    fs::write(dir.file("nginx.conf"), text).expect("the directory is ours");
}

/// An nginx that has its configuration, its process id and what it says at its start in `dir`. Started
/// by root it would give its workers to somebody who cannot write there.
fn command(binary: &Path, dir: &TempDir) -> Command {
    let mut command = Command::new(binary);
    let pid = dir.file("nginx.pid");
    command
        .arg("-p")
        .arg(dir.path())
        .arg("-e")
        .arg(dir.file("start.log"))
        .arg("-c")
        .arg(dir.file("nginx.conf"))
        .args(["-g", &format!("daemon off; user root root; pid {};", pid.display())]);
    command
}

fn spawn(binary: &Path, dir: &TempDir, text: &str, environment: &[(&str, &str)]) -> Child {
    write(dir, text);
    let output = File::create(dir.file("output.log")).expect("the directory is ours");
    command(binary, dir)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a file of ours"))
        .stderr(output)
        .spawn()
        .expect("nginx can be run")
}
