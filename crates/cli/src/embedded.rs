//! The embedded host, as `run` and `mcp` start it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use vkey::config::{Config, RingConfig, RoleConfig};
use vkey::headers::KeySource;
use vkey::host::{FilterState, Level};
use vkey::host::{MemoryHost, MemoryStore, Rules};
use vkey_vm::{BuiltIn, Limits, Module, ModuleError, Setup, StartError, Worker};

use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::{self, InputError, Place};
use super::output::Output;
use super::ring::read_secret;
use super::strength;
use super::text::sentence;
use super::time::{self, Clock, ClockError};

/// How the module is hosted.
#[derive(clap::Args)]
pub(super) struct HostArgs {
    /// The plugin configuration; the module sees the environment variables that it names
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// The host to behave as; bare: one without shared data
    #[arg(long, value_name = "HOST", value_enum, default_value_t = HostKind::Envoy)]
    host: HostKind,
    /// Hold the clock at this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse_ns)]
    now: Option<u64>,
    /// How long the module may take over a request, and over its end
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = deadline)]
    deadline: Duration,
}

/// The hosts that can be modelled.
#[derive(Clone, Copy, clap::ValueEnum)]
enum HostKind {
    Envoy,
    Nginx,
    Bare,
}

/// The module, ready to be started on workers.
pub(super) struct EmbeddedHost {
    module: Module,
    setup: Arc<Setup>,
    pub(super) clock: Clock,
    /// The environment variables that hold secrets of rings.
    pub(super) ring_variables: Vec<String>,
    /// Where the module looks for a key first.
    key_source: Option<KeySource>,
}

/// Levels of the module's log.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

/// Why the embedded host does not start.
#[derive(Debug)]
enum HostError {
    /// The module that is built in cannot be run.
    Module(ModuleError),
    /// The configuration is that of a cluster's gate.
    NoGate,
    /// One secret is given for rings with several.
    SeveralSecrets,
    /// The module does not start.
    Worker(StartError),
}

impl HostArgs {
    /// Whether the configuration is to come from standard input.
    pub(super) fn reads_stdin(&self) -> bool {
        self.config.as_deref() == Some(Path::new("-"))
    }

    /// Loads the module that is built in for the host, under the configuration. What would make it refuse every
    /// request is an error here. A secret that is read from a place stands for that of the ring.
    pub(super) fn load(
        &self,
        modules: BuiltIn,
        secret: Option<&Place>,
    ) -> Result<EmbeddedHost, Error> {
        // Standard input is for what the commands judge.
        if self.reads_stdin() {
            return Err(InputError::StdinTwice.into());
        }
        // Only `mcp --setup` lets it be absent, and starts no module.
        let path = self.config.as_deref().unwrap_or(Path::new(""));
        let (configuration, RoleConfig::Gate(config)) = input::role_config(path)? else {
            return Err(HostError::NoGate.into());
        };
        let read = secret.map(|place| read_secret_of(config.rings(), place)).transpose()?;
        let environment = |name: &str| match &read {
            Some((variable, text)) if variable == name => Some(text.to_string()),
            _ => input::environment(name),
        };
        input::check_variables(config.variables())?;
        strength::check_rings(config.rings(), environment)?;
        let limits = Limits { deadline: self.deadline, ..Limits::default() };
        let module =
            Module::load(modules.of(self.host.into()), limits).map_err(HostError::Module)?;
        Ok(self.host(module, configuration, *config, environment)?)
    }

    /// Puts a loaded module under a configuration, of which `configuration` is the text.
    pub(super) fn host(
        &self,
        module: Module,
        configuration: Vec<u8>,
        config: Config,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<EmbeddedHost, InputError> {
        let variables: Vec<String> = config.variables().map(str::to_owned).collect();
        let ring_variables = config.rings().iter().map(RingConfig::variable);
        let ring_variables = ring_variables.map(str::to_owned).collect();
        let plan = config.compile(&environment).map_err(InputError::NotReady)?;
        let value = |name: String| environment(&name).map(|value| (name, value));
        let setup = Setup {
            configuration,
            environment: variables.into_iter().filter_map(value).collect(),
            store: MemoryStore::new(self.host.into()),
        };
        let clock = Clock::new(self.now);
        let key_source = plan.settings.key_sources.first().cloned();
        Ok(EmbeddedHost { module, setup: Arc::new(setup), clock, ring_variables, key_source })
    }
}

impl EmbeddedHost {
    /// A host of another module, with its clock at 1970.
    #[cfg(test)]
    pub(super) fn of(module: Module) -> Self {
        let store = MemoryStore::new(Rules::Envoy);
        let setup = Setup { configuration: Vec::new(), environment: Vec::new(), store };
        Self {
            module,
            setup: Arc::new(setup),
            clock: Clock::new(Some(0)),
            ring_variables: Vec::new(),
            key_source: None,
        }
    }

    /// Starts a worker.
    pub(super) fn worker(&self) -> Result<Worker, Error> {
        let now_ns = self.clock.now_ns()?;
        let worker = Worker::start(self.module.clone(), Arc::clone(&self.setup), now_ns);
        Ok(worker.map_err(HostError::Worker)?)
    }

    /// A host for one request, at the present.
    pub(super) fn request(&self) -> Result<MemoryHost, ClockError> {
        let host = MemoryHost::new(self.setup.store.clone());
        host.now_ns.set(Some(self.clock.now_ns()?));
        Ok(host)
    }

    /// The header that a client sends a key in.
    pub(super) fn key_header(&self, key: &str) -> (Vec<u8>, Vec<u8>) {
        let name = self.key_source.as_ref().map_or("authorization", |source| &source.header);
        let scheme = self.key_source.as_ref().and_then(|source| source.scheme.as_deref());
        let prefix = self.key_source.as_ref().and_then(|source| source.item_prefix.as_deref());
        let value = match scheme {
            Some(scheme) => format!("{scheme} {key}"),
            None => [prefix.unwrap_or_default(), key].concat(),
        };
        (name.into(), value.into())
    }
}

/// Reads the secret of the rings, which must have the same one: the variable that it is for, and the text.
fn read_secret_of(
    rings: &[RingConfig],
    place: &Place,
) -> Result<(String, Zeroizing<String>), Error> {
    let mut variables = rings.iter().map(RingConfig::variable);
    let variable = variables.next().unwrap_or_default();
    if variables.any(|other| other != variable) {
        return Err(HostError::SeveralSecrets.into());
    }
    let (text, _) = read_secret(place)?;
    Ok((variable.to_owned(), text))
}

/// The audit line among what the module did about a request; the module writes one and nothing else that
/// begins so.
pub(super) fn take_audit_line(host: &MemoryHost) -> Option<String> {
    const START: &str = "{\"v\":";
    let mut log = host.log.borrow_mut();
    let logged = log.iter().position(|(_, line)| line.starts_with(START));
    let logged = logged.map(|index| log.remove(index).1);
    logged.or_else(|| host.filter_state.borrow_mut().remove(FilterState::Audit.key()))
}

/// Shows what the module says, down to a level.
pub(super) fn show_log(log: &[(Level, String)], least: Level, out: &mut Output) {
    shown_log(log, least).for_each(|note| out.note(note));
}

/// What the module says, down to a level, as notes.
pub(super) fn shown_log(log: &[(Level, String)], least: Level) -> impl Iterator<Item = String> {
    let shown = log.iter().filter(move |(level, _)| *level as u32 >= least as u32);
    shown.map(|(level, line)| {
        // The module's own lines name it, as ours do.
        let line = line.strip_prefix("vkey: ").unwrap_or(line);
        format!("{}: {}", level.name(), sentence(line))
    })
}

fn deadline(text: &str) -> Result<Duration, &'static str> {
    const MOST: Duration = Duration::from_secs(3600);
    let duration = time::parse_wait(text);
    let duration = duration.filter(|duration| !duration.is_zero() && *duration <= MOST);
    duration.ok_or("expected a duration up to 1h, as 500ms or 2s")
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::Trace,
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
            LogLevel::Critical => Self::Critical,
        }
    }
}

impl From<HostKind> for Rules {
    fn from(kind: HostKind) -> Self {
        match kind {
            HostKind::Envoy => Self::Envoy,
            HostKind::Nginx => Self::Nginx,
            HostKind::Bare => Self::Bare,
        }
    }
}

impl Failure for HostError {
    fn exit(&self) -> Exit {
        match self {
            Self::Module(_) => Exit::Environment,
            Self::NoGate | Self::SeveralSecrets | Self::Worker(_) => Exit::Refused,
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(error) => write!(
                f,
                "the module cannot be run: {error}; `make build` makes a command that has it built in"
            ),
            Self::NoGate => f.write_str(
                "the configuration is that of a cluster's gate, which only a proxy has; give that of \
                 the gate in front of the routes",
            ),
            Self::SeveralSecrets => f.write_str(
                "--secret-file holds one secret, and the rings of the configuration name several \
                 variables; set those instead",
            ),
            Self::Worker(StartError::Failed(failure)) => {
                write!(f, "{failure}; if a longer --deadline does not help, report this")
            }
            Self::Worker(StartError::Refused(log)) => {
                let said = log.last().map_or("and does not say why", |(_, line)| line);
                write!(f, "the module refuses the configuration: {}; report this", sentence(said))
            }
        }
    }
}
