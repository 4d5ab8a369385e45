//! The embedded host for `run` and `mcp`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use vkey::audit::{Line, Mask, Outcome};
use vkey::config::{Config, NotReady, Plan, RingConfig};
use vkey::decision::{Decision, DenyReason};
use vkey::engine::Engine;
use vkey::gate::NO_UPSTREAM_GATE;
use vkey::headers::KeySource;
use vkey::host::{FilterState, Level};
use vkey::host::{Host as _, MemoryHost, MemoryStore, Rules};
use vkey_vm::{BuiltIn, Limits, Module, ModuleError, Opened, Response, Setup, StartError, Worker};

use super::config_file::ConfigFile;
use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::{self, InputError};
use super::output::Output;
use super::plugins::Plugin;
use super::ring_secret::RingEnvironment;
use super::strength;
use super::text::escape_sentence;
use super::time::{self, Clock, ClockError};

/// How the module is hosted.
#[derive(clap::Args)]
pub(super) struct HostArgs {
    /// The plugin configuration, or the configuration of a proxy with it (FILE#NAME if there are several);
    /// the module sees the environment variables that it names
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<ConfigFile>,
    /// The host to emulate; bare: one without shared data
    #[arg(long, value_name = "HOST", value_enum, default_value_t = HostKind::Envoy)]
    host: HostKind,
    /// Stop the clock at this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse_ns)]
    now: Option<u64>,
    /// The module's time limit for a request, and again for its end
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = deadline)]
    deadline: Duration,
}

/// The hosts that can be emulated.
#[derive(Clone, Copy, clap::ValueEnum)]
enum HostKind {
    Envoy,
    Nginx,
    Bare,
}

/// The module, ready to start on workers.
pub(super) struct EmbeddedHost {
    module: Module,
    setup: Arc<Setup>,
    pub(super) clock: Clock,
    /// The environment variables that hold the secrets of rings.
    pub(super) ring_variables: Vec<String>,
    /// Where the module first looks for a key.
    key_source: Option<KeySource>,
}

/// The levels of the module's log.
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
    /// The built-in module cannot be run.
    Module(ModuleError),
    /// The module is not ready to decide; its last error.
    NotReady(String),
    /// The module does not start.
    Worker(StartError),
}

/// The module's judgement of a request that nothing counts.
pub(super) struct Uncounted {
    /// The audit line of the request.
    pub(super) audit: Option<String>,
    decision: Decision,
    /// The module's last error, if it is not ready.
    error: Option<String>,
}

impl HostArgs {
    /// Whether the configuration is read from standard input.
    pub(super) fn reads_stdin(&self) -> bool {
        self.config.as_ref().is_some_and(ConfigFile::is_stdin)
    }

    /// Reads the configuration: its text, and what it says.
    pub(super) fn read_config(&self) -> Result<(Plugin, Config), Error> {
        // Standard input carries what the commands evaluate.
        if self.reads_stdin() {
            return Err(InputError::StdinTwice.into());
        }
        // It is absent only in `mcp --setup`, which starts no module.
        self.config.clone().unwrap_or_default().gate()
    }

    /// Loads the built-in module for the host, with a configuration. One under which the module would deny every request is
    /// an error here. `environment` returns where the secrets of rings come from.
    pub(super) fn load(
        &self,
        modules: BuiltIn,
        (plugin, config): (Plugin, Config),
        environment: impl FnOnce(&[RingConfig]) -> Result<RingEnvironment, Error>,
    ) -> Result<EmbeddedHost, Error> {
        let environment = environment(config.rings())?;
        input::check_variables(config.variables())?;
        strength::check_rings(config.rings(), |name| environment.value(name))?;
        // The embedded host has no other filter that sets a state.
        let variable =
            |name: &str| (!name.contains('\0')).then(|| environment.value(name)).flatten();
        let limits = Limits { deadline: self.deadline, ..Limits::default() };
        let module =
            Module::load(modules.of(self.host.into()), limits).map_err(HostError::Module)?;
        let host = self.host(module, plugin.text.to_vec(), config, variable);
        Ok(host.map_err(|not_ready| environment.lacks(not_ready))?)
    }

    /// Makes a host of a loaded module and a configuration; `configuration` is its text.
    pub(super) fn host(
        &self,
        module: Module,
        configuration: Vec<u8>,
        config: Config,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<EmbeddedHost, NotReady> {
        let variables: Vec<String> = config.variables().map(str::to_owned).collect();
        let ring_variables = config.rings().iter().flat_map(RingConfig::variables);
        let ring_variables = ring_variables.map(str::to_owned).collect();
        let plan = config.compile(&environment).and_then(Plan::ready)?;
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
    /// A host of another module, with the clock at 1970.
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

    /// An engine that decides like the module, to explain a decision; `None` if its plan is not ready.
    pub(super) fn engine(&self) -> Option<Engine> {
        let Setup { configuration, environment, .. } = &*self.setup;
        let value = |name: &str| {
            let found = environment.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let plan = Config::parse(configuration).ok()?.compile(value).ok()?;
        plan.ready().ok().map(Engine::new)
    }

    /// The module's judgement of a request that nothing counts: a worker with a store of its own decides.
    pub(super) fn decide_uncounted(
        &self,
        show: impl FnOnce(&MemoryHost),
    ) -> Result<Uncounted, Error> {
        let setup = Setup {
            configuration: self.setup.configuration.clone(),
            environment: self.setup.environment.clone(),
            store: MemoryStore::new(self.setup.store.rules()),
        };
        let host = MemoryHost::new(setup.store.clone());
        let now_ns = self.clock.now_ns()?;
        host.now_ns.set(Some(now_ns));
        show(&host);
        let failed = |failure| HostError::Worker(StartError::Failed(failure));
        let mut worker = Worker::start(self.module.clone(), Arc::new(setup), now_ns)
            .map_err(HostError::Worker)?;
        let (Opened::Forwarded(context) | Opened::Held(context)) =
            worker.open(host).map_err(failed)?;
        let response = Response { now_ns, ..Response::default() };
        let closed = worker.close(context, &response).map_err(failed)?;
        let audit = closed.as_ref().and_then(|closed| take_audit_line(&closed.host));
        // A request without a decision is refused.
        let decision = audit.as_deref().and_then(decision_in);
        let decision = decision.unwrap_or(Decision::Deny(DenyReason::NotReady));
        let mut log = worker.take_log();
        log.extend(closed.map(|closed| closed.host.log.take()).unwrap_or_default());
        let error = log.into_iter().rfind(|(level, _)| *level as u32 >= Level::Error as u32);
        Ok(Uncounted { audit, decision, error: error.map(|(_, line)| line) })
    }

    /// A host for one request, at the current time.
    pub(super) fn request(&self) -> Result<MemoryHost, ClockError> {
        let host = MemoryHost::new(self.setup.store.clone());
        host.now_ns.set(Some(self.clock.now_ns()?));
        Ok(host)
    }

    /// The header in which a client sends a key.
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

impl Uncounted {
    /// The decision; an error if the module says that it is not ready.
    pub(super) fn decision(self) -> Result<Decision, Error> {
        match (self.decision, self.error) {
            (Decision::Deny(DenyReason::NotReady), Some(line)) => {
                Err(HostError::NotReady(line).into())
            }
            (decision, _) => Ok(decision),
        }
    }
}

/// The decision in an audit line.
pub(super) fn decision_in(line: &str) -> Option<Decision> {
    Line::parse(line).ok()?.record?.decision
}

/// Takes the audit line out of the log of a request: no other line of the module begins like it. If access loggers are
/// to print the record, the line is that record with what this host knows of the outcome.
pub(super) fn take_audit_line(host: &MemoryHost) -> Option<String> {
    const START: &str = "{\"vkey\":";
    let mut log = host.log.borrow_mut();
    let logged = log.iter().position(|(_, line)| line.starts_with(START));
    let logged = logged.map(|index| log.remove(index).1);
    let record = || host.filter_state.borrow_mut().remove(FilterState::Audit.key());
    logged.or_else(|| {
        let record = record()?;
        Some(Line::splice(&record, &outcome(host, &record), &Mask::default()))
    })
}

/// What the host knows of the end of a request that has a record.
fn outcome(host: &MemoryHost, record: &str) -> Outcome<'static> {
    let line = Line::parse(&Line::splice(record, &Outcome::default(), &Mask::default()));
    let ts_micros = line.ok().and_then(|line| line.record).map(|record| record.ts_micros);
    let since_ns =
        |start_micros: u64| Some(host.now_ns()?.saturating_sub(start_micros.saturating_mul(1_000)));
    Outcome {
        start_micros: ts_micros,
        status: host.response_status(),
        duration_ns: ts_micros.and_then(since_ns),
        ..Outcome::default()
    }
}

/// Prints the module's log lines of at least this level.
pub(super) fn show_log(log: &[(Level, String)], least: Level, out: &mut Output) {
    shown_log(log, least).for_each(|note| out.note(note));
}

/// The module's log lines of at least this level, as notes. This host has no clusters, so a warning about them says
/// nothing.
pub(super) fn shown_log(log: &[(Level, String)], least: Level) -> impl Iterator<Item = String> {
    let is_shown = move |(level, line): &&(Level, String)| {
        *level as u32 >= least as u32 && line != NO_UPSTREAM_GATE
    };
    let shown = log.iter().filter(is_shown);
    shown.map(|(level, line)| {
        // The module's lines begin with the name that ours get too.
        let line = line.strip_prefix("vkey: ").unwrap_or(line);
        format!("{}: {}", level.name(), escape_sentence(line))
    })
}

fn deadline(text: &str) -> Result<Duration, &'static str> {
    const MOST: Duration = Duration::from_secs(3600);
    let duration = time::parse_wait(text);
    let duration = duration.filter(|duration| !duration.is_zero() && *duration <= MOST);
    duration.ok_or("expected a duration up to 1h, e.g. 500ms or 2s")
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
            Self::NotReady(_) | Self::Worker(_) => Exit::Refused,
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(error) => write!(
                f,
                "the module cannot be run: {error}; `make build` builds a command that contains it"
            ),
            Self::NotReady(said) => {
                let said = said.strip_prefix("vkey: ").unwrap_or(said);
                write!(f, "the module is not ready: {}", escape_sentence(said))
            }
            Self::Worker(StartError::Failed(failure)) => {
                write!(f, "{failure}; if a longer --deadline does not help, report this")
            }
            Self::Worker(StartError::Refused(log)) => {
                let said = log.last().map_or("no reason given", |(_, line)| line);
                write!(
                    f,
                    "the module rejects the configuration: {}; report this",
                    escape_sentence(said)
                )
            }
        }
    }
}
