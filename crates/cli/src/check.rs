//! `vkey config`: checks plugin configurations.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use vkey::alerts::failures::FailureRules;
use vkey::config::{
    Config, NotReady, RingConfig, RoleConfig, Settings, Sink, UnlistedTenants, UpstreamConfig,
    UpstreamTls,
};
use vkey::decision::Mode;
use vkey::headers::ForeignCredentials;
use vkey::host::Dialect;
use vkey::json::Json;
use vkey::key::keyring::RingState;
use vkey::key::token::Kid;
use vkey::limits::Limits;

use super::error::{Error, Failure};
use super::exit::Exit;
use super::input;
use super::limits::text;
use super::output::Output;
use super::strength;
use super::text::ascii;
use super::time::format_duration;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Check a configuration and summarize it
    Check(Args),
}

#[derive(clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("input").required(true).multiple(false))]
pub(super) struct Args {
    /// The plugin configuration (- is standard input)
    #[arg(value_name = "FILE", group = "input")]
    file: Option<PathBuf>,
    /// The same, as an option
    #[arg(long, value_name = "FILE", group = "input")]
    config: Option<PathBuf>,
    /// Also check the environment variables it names, in this command's environment
    #[arg(long)]
    env: bool,
}

/// The configuration, or a part of it, cannot take effect in the environment that it was checked against.
#[derive(Debug)]
struct EnvironmentNotReady(NotReady);

/// Runs `vkey config`.
pub(super) fn run(command: &Command, out: &mut Output) -> Result<Exit, Error> {
    let Command::Check(Args { file, config, env }) = command;
    // clap passes exactly one of the two.
    let path = file.as_ref().or(config.as_ref()).cloned().unwrap_or_default();
    let lines = match input::role_config(&path)?.1 {
        RoleConfig::UpstreamTls(config) => upstream_summary(&config),
        RoleConfig::Gate(config) if *env => return check_environment(*config, out),
        RoleConfig::Gate(config) => summary(&config),
    };
    lines.iter().try_for_each(|line| out.line(line))?;
    out.line("ok")?;
    Ok(Exit::Success)
}

/// Also says which rings are ready in this environment.
fn check_environment(config: Config, out: &mut Output) -> Result<Exit, Error> {
    input::check_variables(config.variables())?;
    strength::check_rings(config.rings(), input::environment)?;
    let mut lines = summary(&config);
    let plan = config.compile(input::environment).map_err(EnvironmentNotReady)?;
    let state = |ready| if ready { "ready" } else { "not ready, its keys are refused" };
    let readiness = |(name, ready)| format!("readiness    {name}: {}", state(ready));
    lines.extend(plan.keyring.rings().map(readiness));
    lines.iter().try_for_each(|line| out.line(line))?;
    let mut problems = plan.unready.into_iter().map(EnvironmentNotReady);
    let Some(last) = problems.next_back() else {
        out.line("ok")?;
        return Ok(Exit::Success);
    };
    problems.for_each(|problem| out.note(problem));
    Err(last.into())
}

fn summary(config: &Config) -> Vec<String> {
    let settings = config.settings();
    let variables: BTreeSet<&str> = config.variables().collect();
    let mut lines: Vec<String> = config.rings().iter().map(ring).collect();
    lines.push(format!("tiers        {}", listed(settings.tiers.keys())));
    lines.push(format!("tenants      {}", tenants(settings)));
    lines.extend(limits(settings));
    lines.extend(watched(settings));
    lines.extend(upstream_tls(&settings.upstream_tls));
    lines.push(format!("key sources  {}", key_sources(settings)));
    lines.extend(foreign(settings.foreign_credentials));
    lines.push(format!("audit        {}", sink(settings.audit.sink)));
    lines.push(format!("environment  {}", Vec::from_iter(variables).join(", ")));
    lines
}

/// The summary of an upstream gate's configuration.
fn upstream_summary(config: &UpstreamConfig) -> Vec<String> {
    let mut lines = vec!["role         upstream_tls: an upstream gate".to_owned()];
    lines.extend(upstream_tls(&config.upstream_tls));
    lines.push(format!("deadline     {}", format_duration(config.deadline_secs)));
    lines
}

/// What the configuration adds to the policy that is compiled in.
fn upstream_tls(added: &UpstreamTls) -> Option<String> {
    let hosts = Vec::from_iter(added.tighten.iter().map(|rule| rule.host.to_string()));
    let tightened = (!hosts.is_empty()).then(|| format!("tightened for {}", hosts.join(", ")));
    let stamp = added.require_stamp.then(|| "every cluster needs the stamp".to_owned());
    let parts = Vec::from_iter([stamp, tightened].into_iter().flatten());
    (!parts.is_empty()).then(|| format!("upstream     {}", parts.join("; ")))
}

fn ring(ring: &RingConfig) -> String {
    let state = match ring.state() {
        RingState::Active => "active",
        RingState::Retiring => "retiring",
        RingState::Revoked => "revoked",
    };
    let rotation = ring.rotation().map_or("does not rotate".to_owned(), |rotation| {
        let interval = format_duration(rotation.interval_secs());
        let max_age = format_duration(rotation.max_age_secs());
        format!("a new signing key every {interval}, each accepted for {max_age}")
    });
    let keys = ring.kids().map(|kids| Vec::from_iter(kids.map(Kid::as_str)).join(", "));
    let keys = keys.map(|kids| format!(", with the signing keys {kids} alone"));
    let tenants = ring.tenants().map(|tenants| format!(", for {}", listed(tenants.iter())));
    let [keys, tenants] = [keys, tenants].map(Option::unwrap_or_default);
    format!("ring         {}: {state}, {rotation}{keys}{tenants}", ring.name())
}

fn tenants(settings: &Settings) -> String {
    let others = match settings.unlisted_tenants {
        UnlistedTenants::Allow => "allowed",
        UnlistedTenants::Deny => "denied",
    };
    format!("{} (others are {others})", listed(settings.tenants.keys()))
}

/// A line for each tier and tenant that has limits. A host without shared data denies requests that have
/// limits.
fn limits(settings: &Settings) -> Vec<String> {
    let tiers = settings.tiers.iter().map(|(name, tier)| ("tier", name, &tier.limits));
    let tenants = settings.tenants.iter().map(|(name, tenant)| ("tenant", name, &tenant.limits));
    let limited = tiers.chain(tenants).filter(|(.., limits)| !limits.is_empty());
    let line = |(kind, name, limits): (&str, &String, &Limits)| {
        let limits = Vec::from_iter(limits.iter().map(|limit| text(&limit)));
        format!("limits       {kind} {}: {}", quoted(name), limits.join("; "))
    };
    let mut lines = Vec::from_iter(limited.map(line));
    if settings.dialect == Dialect::Bare && !lines.is_empty() {
        lines.push("host         bare: what has limits is refused".to_owned());
    }
    lines
}

/// The remaining settings about the use of keys.
fn watched(settings: &Settings) -> impl Iterator<Item = String> {
    let seeing = settings.tiers.iter().filter(|(_, tier)| tier.usage_of_others);
    let seeing = Vec::from_iter(seeing.map(|(name, _)| name));
    let usage = (!seeing.is_empty())
        .then(|| format!("usage        tiers that see others: {}", listed(seeing.into_iter())));
    let anomalies = settings.sensitivity.map(|level| format!("anomalies    {}", level.word()));
    let shadow = settings.mode == Mode::Shadow;
    let preflights = settings.allows_preflights;
    let preflights = preflights.then(|| "preflights   pass without a key".to_owned());
    let mode = shadow.then(|| "mode         shadow".to_owned());
    let failures = settings.auth_failures.as_ref().map(failures);
    [usage, failures, anomalies, preflights, mode].into_iter().flatten()
}

fn failures(rules: &FailureRules) -> String {
    let FailureRules { threshold, window_secs, block_secs } = *rules;
    let blocked = match block_secs {
        0 => "not blocked".to_owned(),
        secs => format!("blocked for {}", format_duration(secs)),
    };
    let window = format_duration(window_secs);
    format!("failures     {threshold} in {window} from one source are reported, {blocked}")
}

fn key_sources(settings: &Settings) -> String {
    let sources =
        settings.key_sources.iter().map(|source| match (&source.scheme, &source.item_prefix) {
            (Some(scheme), _) => format!("{} ({scheme})", source.header),
            (None, Some(prefix)) => format!("{} (items {prefix}…)", source.header),
            (None, None) => source.header.clone(),
        });
    Vec::from_iter(sources).join(", ")
}

/// How other credentials are handled, unless by default.
fn foreign(rule: ForeignCredentials) -> Option<String> {
    let word = match rule {
        ForeignCredentials::Refuse => return None,
        ForeignCredentials::Drop => "removed",
        ForeignCredentials::Forward => "forwarded to the upstream",
    };
    Some(format!("foreign      credentials beside the key are {word}"))
}

fn sink(sink: Sink) -> &'static str {
    match sink {
        Sink::AccessLog => "to the proxy's access loggers",
        Sink::Log => "to the proxy's log",
    }
}

/// Names are data, so they are shown as JSON strings.
fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names = Vec::from_iter(names.map(|name| quoted(name)));
    if names.is_empty() { "none listed".to_owned() } else { names.join(", ") }
}

fn quoted(name: &str) -> String {
    ascii(&Json::from(name))
}

impl Failure for EnvironmentNotReady {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for EnvironmentNotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; this command takes it from its own environment", self.0)
    }
}
