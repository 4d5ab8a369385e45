//! `vkey serve`: collects audit trails, answers questions about them, and leases budgets to proxies.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::ServerConfig;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use ureq::tls::RootCerts;

use vkey::audit::{AuditKey, Mask};
use vkey::config::{Config, Plan, RingConfig, RoleConfig};
use vkey::engine::Engine;
use vkey::issuing::KeyFlaw;
use vkey_server::alerts::{Receiver, Thresholds};
use vkey_server::client::{Client, ClientOptions, InvalidClient};
use vkey_server::collect::LineReader;
use vkey_server::gate::Gate;
use vkey_server::server::{self, Options, Report, ServerError, Stopper};
use vkey_server::store::Retention;
use vkey_server::web::{Engines, TlsError, server_config};

use super::audit::{SecretArgs, StoreFailure};
use super::config_file::ConfigFile;
use super::error::{Error, Failure};
use super::exit::Exit;
use super::explain::compile;
use super::input::{self, InputError, Place};
use super::ledger::{LedgerArgs, LedgerFailure, audience};
use super::output::Output;
use super::plugins::Plugin;
use super::ring_secret::{RingEnvironment, SecretFileArgs};
use super::text::escape_line;
use super::time;
use super::url::Url;
use super::usage::read_roots;

/// The longest file with certificates or a key, in bytes.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// How long a gate may take for the limits of a key.
const GATE_TIMEOUT: Duration = Duration::from_secs(2);

const AFTER_HELP: &str = "\
Who asks needs a key whose tier has usage_of_others in the configuration, and whose audience is that of the server: \
vkey mint --aud vkey-serve. A proxy that orders from the ledger needs a key with the audience vkey-ledger, or a client \
certificate with --client-ca. Every restriction of a key counts.

Exit codes: 0 ended by a signal; 1 a secret or a certificate is not acceptable; 2 invalid usage; 3 a file, the \
environment, the network or the system failed.";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The configuration of the gate, for its rings and tiers (FILE#NAME if there are several)
    #[arg(long, value_name = "FILE")]
    config: ConfigFile,
    #[command(flatten)]
    ring_secret: SecretFileArgs,
    /// The audience that keys must have
    #[arg(long, value_name = "NAME", default_value = "vkey-serve", value_parser = audience)]
    audience: String,
    /// The store, a file of SQLite; it is made if it is not there
    #[arg(long, value_name = "FILE", default_value = "vkey-audit.db")]
    store: PathBuf,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    secrets: AuditSecretArgs,
    #[command(flatten)]
    alerts: AlertArgs,
    #[command(flatten)]
    gates: GateArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(flatten)]
    kept: KeptArgs,
    #[command(flatten)]
    network: NetworkArgs,
}

/// What is collected.
#[derive(clap::Args)]
struct SourceArgs {
    /// Follow a log through rotation: an access log, the log of a proxy, or a log of Kubernetes or Docker with either
    /// in it; - is standard input. Repeatable
    #[arg(long, value_name = "FILE")]
    follow: Vec<PathBuf>,
    /// Serve Envoy's access log service on this address, e.g. 127.0.0.1:9470. On another than a loopback address it needs
    /// --client-ca, because it asks for no key
    #[arg(long, value_name = "ADDRESS")]
    als: Option<SocketAddr>,
}

/// Who says what is left of limits.
#[derive(clap::Args)]
struct GateArgs {
    /// Show what is left of limits, as this gate says: its usage endpoint; the path defaults to that of
    /// https://gw.example/.vkey/usage. Repeatable
    #[arg(long, value_name = "URL", value_parser = Url::parse, requires = "gate_key")]
    gate: Vec<Url>,
    /// Read the key for --gate from an environment variable; its tier needs usage_of_others there
    #[arg(long, value_name = "NAME", value_parser = input::variable_name, requires = "gate", group = "gate_key")]
    gate_key_env: Option<String>,
    /// Read the key for --gate from a file
    #[arg(long, value_name = "PATH", requires = "gate", group = "gate_key")]
    gate_key_file: Option<PathBuf>,
    /// Trust only the authorities in this PEM file for --gate; by default those of the web
    #[arg(long, value_name = "FILE", requires = "gate")]
    gate_ca: Option<PathBuf>,
    /// Allow http for --gate to other machines, which exposes its key to everyone on the network path
    #[arg(long, requires = "gate")]
    gate_allow_http: bool,
}

/// Who gets alerts, and when.
#[derive(clap::Args)]
struct AlertArgs {
    /// Post each alert to this URL, as JSON
    #[arg(long, value_name = "URL")]
    alert_url: Option<String>,
    /// When something is an alert, e.g. authentication=50 or window=5m; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = threshold)]
    alert_threshold: Vec<String>,
    /// Read the bearer token for --alert-url from an environment variable
    #[arg(long, value_name = "NAME", value_parser = input::variable_name, requires = "alert_url", conflicts_with = "alert_token_file")]
    alert_token_env: Option<String>,
    /// Read the bearer token for --alert-url from a file
    #[arg(long, value_name = "PATH", requires = "alert_url")]
    alert_token_file: Option<PathBuf>,
    /// Trust only the authorities in this PEM file for --alert-url; by default those of the web
    #[arg(long, value_name = "FILE", requires = "alert_url")]
    alert_ca: Option<PathBuf>,
    /// Allow http to another machine in --alert-url
    #[arg(long, requires = "alert_url")]
    alert_allow_http: bool,
}

/// The secrets of the chains.
#[derive(clap::Args)]
struct AuditSecretArgs {
    /// Read an earlier audit secret from an environment variable, beside that of the configuration; repeatable
    #[arg(long, value_name = "NAME", value_parser = input::variable_name)]
    audit_secret_env: Vec<String>,
    /// Read an earlier audit secret from a file; repeatable
    #[arg(long, value_name = "PATH")]
    audit_secret_file: Vec<PathBuf>,
}

/// What is kept.
#[derive(clap::Args)]
struct KeptArgs {
    /// Mask a member of the audit line in the store, beside those that the gate masks; repeatable
    #[arg(long, value_name = "MEMBER", value_parser = member)]
    mask: Vec<&'static str>,
    /// The most records that are kept. Totals and anchors are kept always
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    max_records: u64,
    /// How old a record becomes, e.g. 90d; any age if absent
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    max_age: Option<u64>,
}

/// Where it serves.
#[derive(clap::Args)]
struct NetworkArgs {
    /// The address of the API and the page; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9911")]
    listen: SocketAddr,
    /// Serve TLS 1.2 and 1.3 with the certificate chain of this PEM file
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key of --cert, a PEM file
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Accept only clients with a certificate of an authority of this PEM file
    #[arg(long, value_name = "FILE", requires = "cert")]
    client_ca: Option<PathBuf>,
    /// Serve other machines without TLS, which exposes keys and records to everyone on the network path
    #[arg(long)]
    allow_http: bool,
}

/// Why the server cannot start, or has ended.
#[derive(Debug)]
enum ServeError {
    /// Other machines would be served without TLS.
    Cleartext,
    /// The access log service would take records from anyone on a network.
    OpenService,
    /// The URL of an option, or the token or the key for it, cannot be used.
    Client(&'static str, InvalidClient),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The certificate or its key cannot be used.
    Tls(TlsError),
    /// Standard error cannot be shared with another thread.
    Diagnostics(io::Error),
    /// Signals cannot be received.
    Signals(io::Error),
    /// The server failed.
    Server(ServerError),
}

/// Runs `vkey serve`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    args.check_stdin()?;
    let (plugin, config) = args.config.gate()?;
    let reader = LineReader::new(args.secrets.keys(&config)?, args.kept.mask());
    let ledger = args.ledger.place(&args.store, &args.audience)?;
    let engines = args.engines(config, &plugin)?;
    let tls = args.network.tls()?;
    let listener = args.network.listener()?;
    let access_log_service = args.access_log_service()?;
    let (thresholds, receiver) = (args.alerts.thresholds(), args.alerts.receiver()?);
    let gates = args.gates.gates()?;
    let stopper = Stopper::default();
    end_on_signals(&stopper)?;
    out.note(format_args!("the page and the API are on {}", args.network.url(&listener)?));
    let is_stdin = |path: &&PathBuf| path.as_path() == Path::new("-");
    let options = Options {
        store: args.store.clone(),
        retention: args.kept.retention(),
        reader,
        follow: args.sources.follow.iter().filter(|path| !is_stdin(path)).cloned().collect(),
        reads_stdin: args.sources.follow.iter().any(|path| is_stdin(&path)),
        access_log_service,
        thresholds,
        receiver,
        gates,
        ledger,
        listener,
        tls,
        has_client_certificates: args.network.client_ca.is_some(),
        report_ledger: LedgerArgs::reporter()?,
        report: reporter()?,
    };
    match server::run(options, engines, &stopper) {
        Ok(()) => Ok(Exit::Success),
        Err(ServerError::Store(error)) => Err(StoreFailure::new("--store", error).into()),
        Err(ServerError::Ledger(error)) => Err(LedgerFailure::Unusable(error).into()),
        Err(error) => Err(ServeError::Server(error).into()),
    }
}

/// Writes to standard error why an alert was not delivered.
fn reporter() -> Result<Report, ServeError> {
    let to = Output::diagnostics().map_err(ServeError::Diagnostics)?;
    Ok(Box::new(move |error| {
        // If that fails, there is nowhere to report it.
        _ = writeln!(&to, "vkey: an alert was not delivered, and will be tried again: {error}");
    }))
}

/// Ends the server when the process is asked to end.
fn end_on_signals(stopper: &Stopper) -> Result<(), ServeError> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(ServeError::Signals)?;
    let stopper = stopper.clone();
    let wait = thread::Builder::new().name("signals".to_owned());
    let wait = wait.spawn(move || {
        if signals.forever().next().is_some() {
            stopper.stop();
        }
    });
    wait.map(drop).map_err(ServeError::Signals)
}

// === impl Args ===

impl Args {
    fn check_stdin(&self) -> Result<(), InputError> {
        let is_stdin = |path: &PathBuf| path.as_path() == Path::new("-");
        let logs = self.sources.follow.iter().filter(|path| is_stdin(path)).count();
        let secrets = self.secrets.audit_secret_file.iter().filter(|path| is_stdin(path)).count();
        let others = usize::from(self.config.is_stdin()) + usize::from(self.ring_secret.is_stdin());
        if logs + secrets + others > 1 { Err(InputError::StdinTwice) } else { Ok(()) }
    }

    fn access_log_service(&self) -> Result<Option<TcpListener>, ServeError> {
        let Some(address) = self.sources.als else { return Ok(None) };
        let network = &self.network;
        if !address.ip().is_loopback() && network.client_ca.is_none() && !network.allow_http {
            return Err(ServeError::OpenService);
        }
        listen(address).map(Some)
    }

    /// The engines that know keys: for those with the audience of the server, and for those with that of the ledger.
    fn engines(&self, config: Config, plugin: &Plugin) -> Result<Engines, Error> {
        input::check_variables(config.rings().iter().flat_map(RingConfig::variables))?;
        let environment = RingEnvironment::read(config.rings(), &self.ring_secret)?;
        let trail = Engine::new(plan(config, &environment, &self.audience)?);
        let audience = &self.ledger.ledger_audience;
        // It is read a second time, because each engine owns its own.
        let ledger = match RoleConfig::parse(&plugin.text).map_err(InputError::Config)? {
            RoleConfig::Gate(config) if self.ledger.is_set() => {
                Some(Engine::new(plan(*config, &environment, audience)?))
            }
            _ => None,
        };
        Ok(Engines { trail, ledger })
    }
}

/// The plan of the gate, for keys with an audience.
fn plan(config: Config, environment: &RingEnvironment, audience: &str) -> Result<Plan, Error> {
    let plan = compile(config, |name| environment.value(name));
    let mut plan = plan.map_err(|not_ready| environment.lacks(not_ready))?;
    plan.settings.audience = Some(audience.to_owned());
    Ok(plan)
}

// === impl AlertArgs ===

impl AlertArgs {
    fn thresholds(&self) -> Thresholds {
        let mut thresholds = Thresholds::default();
        for text in &self.alert_threshold {
            // It was checked as the argument was parsed.
            _ = thresholds.set(text);
        }
        thresholds
    }

    fn receiver(&self) -> Result<Option<Receiver>, Error> {
        let Some(url) = &self.alert_url else { return Ok(None) };
        let file = self.alert_token_file.as_deref();
        let token = match (&self.alert_token_env, file) {
            (Some(name), _) => Some(Place::Variable("--alert-token-env", name.clone())),
            (None, file) => file.map(|path| Place::File("--alert-token-file", path.to_owned())),
        };
        let options = ClientOptions {
            allow_http: self.alert_allow_http,
            token: token.map(|place| place.read_line()).transpose()?,
            roots: roots("--alert-ca", self.alert_ca.as_deref())?,
            ..ClientOptions::default()
        };
        let client = Client::new(url, options);
        let client = client.map_err(|invalid| ServeError::Client("--alert-url", invalid))?;
        Ok(Some(Receiver::new(client)))
    }
}

// === impl GateArgs ===

impl GateArgs {
    fn gates(&self) -> Result<Vec<Arc<Gate>>, Error> {
        let key = match (&self.gate_key_env, &self.gate_key_file) {
            (Some(name), _) => Place::Variable("--gate-key-env", name.clone()),
            (None, Some(path)) => Place::File("--gate-key-file", path.clone()),
            // No gate either, as the parser of arguments has checked.
            (None, None) => return Ok(Vec::new()),
        };
        let key = key.read_line()?;
        // Only a key may be sent: anything else may be a misplaced secret.
        KeyFlaw::read(&key).map_err(|_| KeyFlaw::Form)?;
        let mut gates = Vec::new();
        for url in &self.gate {
            let options = ClientOptions {
                allow_http: self.gate_allow_http,
                token: Some(key.clone()),
                roots: roots("--gate-ca", self.gate_ca.as_deref())?,
                timeout: GATE_TIMEOUT,
            };
            let client = Client::new(&url.with_query(&[]), options);
            let client = client.map_err(|invalid| ServeError::Client("--gate", invalid))?;
            gates.push(Arc::new(Gate::new(client)));
        }
        Ok(gates)
    }
}

fn roots(option: &'static str, ca: Option<&Path>) -> Result<RootCerts, InputError> {
    ca.map_or(Ok(RootCerts::WebPki), |path| read_roots(option, path))
}

// === impl AuditSecretArgs ===

impl AuditSecretArgs {
    /// The keys of the chains: that of the configuration, and earlier ones.
    fn keys(&self, config: &Config) -> Result<Vec<AuditKey>, Error> {
        let own = config.audit_key(input::environment).map_err(InputError::NotReady)?;
        let earlier = SecretArgs {
            names: ("--audit-secret-env", "--audit-secret-file"),
            variables: &self.audit_secret_env,
            files: &self.audit_secret_file,
        };
        Ok(own.into_iter().chain(earlier.keys()?).collect())
    }
}

// === impl KeptArgs ===

impl KeptArgs {
    fn mask(&self) -> Option<Mask> {
        (!self.mask.is_empty()).then(|| Mask::new(self.mask.clone().into(), None))
    }

    fn retention(&self) -> Retention {
        Retention { max_records: self.max_records, max_age_secs: self.max_age }
    }
}

// === impl NetworkArgs ===

impl NetworkArgs {
    fn tls(&self) -> Result<Option<ServerConfig>, Error> {
        let read =
            |option, path: &PathBuf| Place::File(option, path.clone()).read_bytes(MAX_PEM_BYTES);
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        let (cert, key) = (read("--cert", cert)?, read("--key", key)?);
        let authorities = self.client_ca.as_ref().map(|path| read("--client-ca", path));
        let authorities = authorities.transpose()?;
        let authorities = authorities.as_ref().map(|authorities| authorities.as_slice());
        Ok(Some(server_config(&cert, &key, authorities).map_err(ServeError::Tls)?))
    }

    fn listener(&self) -> Result<TcpListener, ServeError> {
        if self.cert.is_none() && !self.listen.ip().is_loopback() && !self.allow_http {
            return Err(ServeError::Cleartext);
        }
        listen(self.listen)
    }

    fn url(&self, listener: &TcpListener) -> Result<String, ServeError> {
        let scheme = if self.cert.is_some() { "https" } else { "http" };
        let address = listener.local_addr();
        let address = address.map_err(|error| ServeError::Listen(self.listen, error))?;
        Ok(format!("{scheme}://{address}/"))
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).map_err(|error| ServeError::Listen(address, error))
}

fn threshold(text: &str) -> Result<String, String> {
    let set = Thresholds::default().set(text);
    set.map(|()| text.to_owned()).map_err(|invalid| invalid.to_string())
}

fn member(text: &str) -> Result<&'static str, String> {
    let found = Mask::MASKABLE.iter().find(|name| **name == text);
    found.copied().ok_or_else(|| format!("expected one of {}", Mask::MASKABLE.join(", ")))
}

// === impl ServeError ===

impl Failure for ServeError {
    fn exit(&self) -> Exit {
        match self {
            Self::Cleartext | Self::OpenService | Self::Client(..) => Exit::Usage,
            Self::Tls(_) => Exit::Refused,
            Self::Diagnostics(_) | Self::Listen(..) | Self::Signals(_) | Self::Server(_) => {
                Exit::Environment
            }
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cleartext => f.write_str(
                "keys and records would be sent unencrypted over a network; use --cert and --key, or --allow-http",
            ),
            Self::OpenService => f.write_str(
                "anyone on the network could add records; use --client-ca, or --allow-http on a network that is trusted",
            ),
            Self::Client(option, invalid) => write!(f, "{option}: {invalid}"),
            Self::Diagnostics(error) => write!(f, "standard error cannot be used: {error}"),
            Self::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}; choose another address")
            }
            Self::Tls(error) => error.fmt(f),
            Self::Signals(error) => write!(f, "signals cannot be received: {error}"),
            Self::Server(error) => f.write_str(&escape_line(&error.to_string())),
        }
    }
}
