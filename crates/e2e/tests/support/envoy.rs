//! A real Envoy that a test starts, asks and stops.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{
    Connection, DEADLINE, Request, Response, TempDir, artefact, config, wait_for, wait_within,
};

type Edit = Box<dyn FnOnce(&mut Value)>;

/// What differs from the shipped `envoy.yaml`; without a change it is that file with the built
/// module.
pub(crate) struct Options {
    label: String,
    under: Vec<String>,
    deadline: Duration,
    binary: Option<PathBuf>,
    variants: Vec<String>,
    tls_folder: PathBuf,
    module: Option<PathBuf>,
    plugin: Option<String>,
    environment: Vec<(String, String)>,
    concurrency: u32,
    log_level: String,
    arguments: Vec<String>,
    folder: Option<PathBuf>,
    edits: Vec<Edit>,
}

impl Options {
    /// `label` names the test's directory.
    pub(crate) fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            under: Vec::new(),
            deadline: DEADLINE,
            binary: None,
            variants: Vec::new(),
            tls_folder: PathBuf::new(),
            module: None,
            plugin: None,
            environment: Vec::new(),
            concurrency: 1,
            log_level: "info".to_owned(),
            arguments: Vec::new(),
            folder: None,
            edits: Vec::new(),
        }
    }

    /// A command that becomes Envoy, with its arguments, as `taskset`.
    pub(crate) fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().copied().map(str::to_owned).collect();
        self
    }

    /// How long it may take to start, where that is another time than `DEADLINE`.
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Another Envoy than the one `VKEY_TEST_ENVOY` names; `each_envoy` hands them out.
    pub(crate) fn on(mut self, binary: &Path) -> Self {
        self.binary = Some(binary.to_owned());
        self
    }

    /// Enables a variant of `envoy.yaml`; the files it reads are in that folder.
    pub(crate) fn variant(mut self, name: &str, tls_folder: &Path) -> Self {
        self.variants.push(name.to_owned());
        self.tls_folder = tls_folder.to_owned();
        self
    }

    /// Another module than the one `VKEY_TEST_WASM` names.
    pub(crate) fn module(mut self, path: PathBuf) -> Self {
        self.module = Some(path);
        self
    }

    /// The plugin configuration: text, so that it may be broken.
    pub(crate) fn plugin(mut self, text: impl Into<String>) -> Self {
        self.plugin = Some(text.into());
        self
    }

    /// Envoy's environment is what is named here and nothing else; the module also gets to see it.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The number of workers.
    pub(crate) fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    pub(crate) fn log_level(mut self, level: &str) -> Self {
        self.log_level = level.to_owned();
        self
    }

    /// More arguments of Envoy's.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().copied().map(str::to_owned).collect();
        self
    }

    /// The folder that Envoy runs in.
    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// A change of the whole configuration, made last; `config` has the ways into it.
    pub(crate) fn edit(mut self, edit: impl FnOnce(&mut Value) + 'static) -> Self {
        self.edits.push(Box::new(edit));
        self
    }

    fn config(&mut self, dir: &TempDir) -> Value {
        let module = self.module.take().unwrap_or_else(|| artefact("VKEY_TEST_WASM"));
        let mut built = config::variant(&self.variants, &self.tls_folder);
        config::isolate(&mut built, &module, &dir.file(ACCESS_LOG), dir);
        for (name, _) in &self.environment {
            config::show_to_module(&mut built, name);
        }
        if let Some(text) = self.plugin.take() {
            *config::plugin(&mut built) = Value::String(text);
        }
        for edit in self.edits.drain(..) {
            edit(&mut built);
        }
        built
    }
}

const ACCESS_LOG: &str = "access.log";
const PROXY_LOG: &str = "proxy.log";
const ADMIN_ADDRESS: &str = "admin.txt";

/// A running Envoy; dropping it ends the process.
pub(crate) struct Envoy {
    child: Mutex<Child>,
    dir: TempDir,
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
}

/// An Envoy that went away instead of serving.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl Envoy {
    /// Starts an Envoy and returns when it serves; panics with its log when it does not.
    pub(crate) fn start(options: Options) -> Self {
        Self::launch(options).unwrap_or_else(|refused| panic!("{refused:#?}"))
    }

    /// Starts an Envoy that must refuse its configuration; panics when it serves.
    pub(crate) fn refuse(options: Options) -> Refused {
        match Self::launch(options) {
            Ok(envoy) => panic!("Envoy serves:\n{}", envoy.proxy_log()),
            Err(refused) => refused,
        }
    }

    /// Starts an Envoy and waits until it either serves or has exited.
    pub(crate) fn launch(mut options: Options) -> Result<Self, Refused> {
        let dir = TempDir::new(&options.label);
        let config = options.config(&dir);
        fs::write(dir.file("envoy.json"), format!("{config:#}")).expect("the directory is ours");
        let child = spawn(&options, &dir);
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        // From here on the process has an owner that ends it, whatever happens next.
        let listeners = BTreeMap::new();
        let mut envoy = Self { child: Mutex::new(child), dir, admin: unknown, listeners };
        let outcome = wait_within(
            options.deadline,
            || match envoy.exited() {
                Some(status) => Some(Err(status)),
                None => envoy.serving().map(Ok),
            },
            || envoy.proxy_log(),
        );
        match outcome {
            Ok((admin, listeners)) => {
                (envoy.admin, envoy.listeners) = (admin, listeners);
                Ok(envoy)
            }
            Err(status) => Err(Refused { status, log: envoy.proxy_log() }),
        }
    }

    /// Where clients connect.
    pub(crate) fn gate(&self) -> SocketAddr {
        self.listener("gate")
    }

    /// Where the listener of that name accepts.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        *self.listeners.get(name).expect("a listener of that name")
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child().id()
    }

    /// The memory of the process, that of its Wasm VMs included.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024
    }

    /// Where the admin interface answers.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// One request to the gate on a connection of its own.
    pub(crate) fn send(&self, request: &Request) -> Response {
        Connection::open(self.gate()).send(request)
    }

    pub(crate) fn admin_get(&self, path: &str) -> Response {
        Connection::open(self.admin).send(&Request::new("GET", path))
    }

    pub(crate) fn admin_post(&self, path: &str) -> Response {
        Connection::open(self.admin).send(&Request::new("POST", path).header("content-length", "0"))
    }

    /// The value of a counter or gauge of Envoy's own; nothing where there is none of that name.
    pub(crate) fn stat(&self, name: &str) -> Option<u64> {
        let pattern = name.replace('.', "\\.");
        let text = self.admin_get(&format!("/stats?filter=^{pattern}$")).text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map(|value| value.parse().expect("a number"))
    }

    /// Waits until a counter or gauge of Envoy's own has that value.
    pub(crate) fn wait_for_stat(&self, name: &str, value: u64) {
        let now = || format!("{name} is {:?} and never {value}", self.stat(name));
        wait_for(|| (self.stat(name) == Some(value)).then_some(()), now);
    }

    /// The complete lines so far. Envoy writes a line when the request is over, after the client
    /// has its answer.
    pub(crate) fn access_log(&self) -> Vec<String> {
        let text = read(self.dir.file(ACCESS_LOG));
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(str::to_owned).collect()
    }

    /// Waits until at least `count` lines are there and returns all.
    pub(crate) fn wait_for_access_log(&self, count: usize) -> Vec<String> {
        wait_for(
            || Some(self.access_log()).filter(|lines| lines.len() >= count),
            || format!("{count} lines wanted in {:#?}\n{}", self.access_log(), self.proxy_log()),
        )
    }

    /// The file that the access log goes to.
    pub(crate) fn access_log_path(&self) -> PathBuf {
        self.dir.file(ACCESS_LOG)
    }

    pub(crate) fn proxy_log(&self) -> String {
        read(self.dir.file(PROXY_LOG))
    }

    /// The file that the log of the process goes to.
    pub(crate) fn proxy_log_path(&self) -> PathBuf {
        self.dir.file(PROXY_LOG)
    }

    /// The status of a process that is gone.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("the child is ours")
    }

    /// Asks Envoy to end and waits until it has; afterwards both logs are complete.
    pub(crate) fn stop(&self) -> ExitStatus {
        self.admin_post("/quitquitquit");
        wait_for(|| self.exited(), || self.proxy_log())
    }

    /// The addresses, once the main thread is done with its configuration and the workers run.
    fn serving(&self) -> Option<(SocketAddr, BTreeMap<String, SocketAddr>)> {
        let admin = read(self.dir.file(ADMIN_ADDRESS)).trim().parse().ok()?;
        let ask = |path| {
            let mut connection = Connection::try_open(admin).ok()?;
            connection.try_send(&Request::new("GET", path)).ok()
        };
        (ask("/ready")?.text().trim() == "LIVE").then_some(())?;
        let statuses = ask("/listeners?format=json")?.json();
        let statuses = statuses["listener_statuses"].as_array()?.iter();
        let listeners: BTreeMap<_, _> = statuses.filter_map(listening).collect();
        (!listeners.is_empty()).then_some((admin, listeners))
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let mut child = self.child();
        // Both fail only for a process that has been waited for already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Name and address of a listener that is no pipe, from its status.
fn listening(status: &Value) -> Option<(String, SocketAddr)> {
    let port = status["local_address"]["socket_address"]["port_value"].as_u64()?;
    let port = u16::try_from(port).expect("a port");
    Some((status["name"].as_str()?.to_owned(), SocketAddr::from(([127, 0, 0, 1], port))))
}

fn spawn(options: &Options, dir: &TempDir) -> Child {
    let log = File::create(dir.file(PROXY_LOG)).expect("the directory is ours");
    let binary = options.binary.clone().unwrap_or_else(|| artefact("VKEY_TEST_ENVOY"));
    let mut words = options.under.iter().map(OsString::from).chain([binary.into_os_string()]);
    Command::new(words.next().expect("at least Envoy"))
        .current_dir(options.folder.as_deref().unwrap_or(Path::new(".")))
        .args(words)
        .arg("--config-path")
        .arg(dir.file("envoy.json"))
        .arg("--admin-address-path")
        .arg(dir.file(ADMIN_ADDRESS))
        .args(["--concurrency", &options.concurrency.to_string()])
        .args(["--log-level", &options.log_level])
        .args(["--file-flush-interval-msec", "20"])
        .args(&options.arguments)
        .arg("--disable-hot-restart") // nothing shared with another Envoy, nothing left in /dev/shm
        .env_clear()
        .envs(options.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file of ours"))
        .stderr(log)
        .spawn()
        .expect("Envoy can be run")
}

/// A file that Envoy may not have made yet.
fn read(path: PathBuf) -> String {
    fs::read(path)
        .map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).into_owned())
}
