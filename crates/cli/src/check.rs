//! `vkey config`: checks plugin configurations, and writes them for Envoy.

use std::collections::BTreeSet;
use std::fmt;

use vkey::alerts::failures::FailureRules;
use vkey::config::{
    Config, Hindrance, LimitSettings, NotReady, RingConfig, RoleConfig, Settings, Sink,
    UnlistedTenants, UpstreamConfig, UpstreamTls,
};
use vkey::decision::Mode;
use vkey::headers::ForeignCredentials;
use vkey::host::Dialect;
use vkey::json::Json;
use vkey::key::keyring::RingState;
use vkey::key::revocations::Revoked;
use vkey::key::token::Kid;
use vkey::limits::Limits;
use vkey::limits::allowance::LimitHeaders;

use super::ai;
use super::bodies;
use super::calls;
use super::config_file::{ConfigFile, ConfigSource};
use super::delivery::{Delivery, DeliveryArgs};
use super::deployment::{Around, Deployment};
use super::ecds;
use super::error::{Error, Failure};
use super::exit::Exit;
use super::input;
use super::limits::text;
use super::output::Output;
use super::plugins::{Flag, Plugin};
use super::strength;
use super::text::{counted, escape_sentence, escape_word, quoted};
use super::time::{self, format_duration, rfc3339};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Check plugin configurations and summarize them
    Check(CheckArgs),
    /// Print the file by which a running Envoy gets the plugin configuration (ECDS)
    Envoy(ecds::Args),
}

#[derive(clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("input").required(true).multiple(false))]
pub(super) struct CheckArgs {
    /// The plugin configuration, or the configuration of a proxy with it, in JSON or YAML: of Envoy, a
    /// discovery response, a /config_dump, a WasmPlugin, EnvoyFilter or EnvoyExtensionPolicy, or
    /// nginx.conf (- is standard input). All plugin configurations in it are checked; with FILE#NAME only
    /// those of the listener, object or plugin of that name
    #[arg(value_name = "FILE", group = "input")]
    file: Option<ConfigFile>,
    /// The same, as an option
    #[arg(long, value_name = "FILE", group = "input")]
    config: Option<ConfigFile>,
    /// FILE has objects of Kubernetes, or configuration of Envoy: also check the seal around each gate, what happens
    /// when the module fails, that a digest pins it, and that no secret is in the file
    #[arg(long)]
    kubernetes: bool,
    /// Also check the environment variables it names, in this command's environment
    #[arg(long)]
    env: bool,
    #[command(flatten)]
    delivery: DeliveryArgs,
}

/// The configuration, or a part of it, cannot take effect in the environment that it was checked against.
#[derive(Debug)]
struct EnvironmentNotReady(NotReady);

/// A provider credential of the configuration can never go out.
#[derive(Debug)]
struct StuckCredential;

/// What a check shows of a configuration.
struct Inspection {
    summary: Vec<String>,
    /// The rings that are not ready in the environment.
    unready: Vec<NotReady>,
    /// The provider credentials that do not go out, or only under a condition.
    hindrances: Vec<Hindrance>,
}

/// Runs `vkey config`.
pub(super) fn run(command: &Command, out: &mut Output) -> Result<Exit, Error> {
    match command {
        Command::Check(args) => check(args, out),
        Command::Envoy(args) => ecds::run(args, out),
    }
}

/// Checks each configuration of the file. All but the last error become notes.
fn check(args: &CheckArgs, out: &mut Output) -> Result<Exit, Error> {
    // clap passes exactly one of the two.
    let file = args.file.as_ref().or(args.config.as_ref()).cloned().unwrap_or_default();
    args.delivery.check_stdin(usize::from(file.is_stdin()))?;
    let (source, documents) =
        if args.kubernetes { file.read_deployed()? } else { (file.read()?, Vec::new()) };
    let gates = match source.upstream_gates() {
        // Those that are invalid are reported with all others.
        Err(_) if args.kubernetes => Vec::new(),
        gates => gates?,
    };
    let delivery = args.delivery.read()?.with_gates(gates).with_granted(source.granted());
    let now_secs = time::now(None)?;
    let mut deployment = args
        .kubernetes
        .then(|| Deployment::new(&documents, &source, delivery.own_policy(), now_secs));
    if let Some(unread) = deployment.as_ref().and_then(Deployment::unread) {
        out.note(format_args!("note: {}", escape_sentence(&unread)));
    }
    for place in source.others() {
        out.note(format_args!("note: {} is taken for another module", escape_sentence(place)));
    }
    let mut errors = Vec::new();
    let mut shown: Vec<&Plugin> = Vec::new();
    for plugin in source.chosen()? {
        // Another environment may have other variables.
        let is_same = |earlier: &&&Plugin| {
            let same_notes = plugin.is_upstream_gate() || earlier.is_held_like(plugin);
            earlier.text == plugin.text
                && same_notes
                && (!args.env || earlier.environment == plugin.environment)
        };
        let same = shown.iter().find(is_same);
        let around = deployment.as_mut().map(|deployment| deployment.around(plugin));
        let is_good = around.as_ref().is_none_or(|around| around.is_good);
        let (faults, others) =
            around.map_or_else(Default::default, |Around { faults, notes, .. }| (faults, notes));
        let faults = faults.iter().map(|flag| source.misdeployed(&flag.place, &flag.text).into());
        match (inspect(&source, plugin, args.env, &delivery), same) {
            (Ok(_), Some(same)) => {
                out.line(heading(plugin))?;
                out.line(format_args!("same as      {}", escape_sentence(&same.place)))?;
                others.iter().try_for_each(|note| out.line(note_line(note)))?;
            }
            (Ok(Inspection { summary, unready, hindrances }), None) => {
                let heading = (!plugin.place.is_empty()).then(|| heading(plugin));
                heading.iter().chain(&summary).try_for_each(|line| out.line(line))?;
                let notes = hindrances.iter().map(|hindrance| format!("note         {hindrance}"));
                Vec::from_iter(notes).iter().try_for_each(|note| out.line(note))?;
                others.iter().try_for_each(|note| out.line(note_line(note)))?;
                let is_stuck = hindrances.iter().any(Hindrance::is_final);
                if is_stuck {
                    errors.push(StuckCredential.into());
                } else if unready.is_empty() && is_good {
                    out.line("ok")?;
                }
                errors.extend(unready.into_iter().map(|ring| EnvironmentNotReady(ring).into()));
                shown.push(plugin);
            }
            (Err(error), _) => errors.push(error),
        }
        errors.extend(faults);
    }
    let rest = deployment.as_ref().map(Deployment::rest).unwrap_or_default();
    errors.extend(rest.iter().map(|flag| source.misdeployed(&flag.place, &flag.text).into()));
    let Some(last) = errors.pop() else {
        return Ok(Exit::Success);
    };
    errors.into_iter().for_each(|error| out.note(error));
    Err(last)
}

/// A note about the deployment at a place.
fn note_line(flag: &Flag) -> String {
    format!("note         {}: {}", escape_sentence(&flag.place), escape_sentence(&flag.text))
}

/// Where a configuration is.
fn heading(plugin: &Plugin) -> String {
    let name =
        plugin.names.first().map_or_else(String::new, |name| format!("{}: ", escape_word(name)));
    format!("plugin       {name}{}", escape_sentence(&plugin.place))
}

/// Checks one configuration, and summarizes it.
fn inspect(
    source: &ConfigSource,
    plugin: &Plugin,
    env: bool,
    delivery: &Delivery,
) -> Result<Inspection, Error> {
    let environment = |name: &str| match &plugin.environment {
        Some(handed) if handed.literal.contains_key(name) => {
            handed.literal.get(name).map(|value| value.to_string())
        }
        _ => input::environment(name),
    };
    let (role, now_secs) = (source.parse(plugin)?, time::now(None)?);
    let hindrances =
        delivery.check(&role, now_secs).map_err(|invalid| source.invalid(plugin, invalid))?;
    match role {
        RoleConfig::UpstreamTls(config) => {
            source.check_handed_over(plugin, config.variables())?;
            if env {
                config.credentials(environment).map_err(EnvironmentNotReady)?;
            }
            Ok(Inspection { summary: upstream_summary(&config), unready: Vec::new(), hindrances })
        }
        RoleConfig::Gate(config) => {
            source.check_handed_over(plugin, config.variables())?;
            let json = plugin.json().map_err(|invalid| source.invalid(plugin, invalid))?;
            let notes = notes(plugin, config.settings(), &json);
            let mut summary = summary(&config, &json, now_secs);
            summary.extend(notes.iter().map(|note| format!("note         {note}")));
            let inspection = Inspection { summary, unready: Vec::new(), hindrances };
            if env { inspection.in_environment(*config, environment) } else { Ok(inspection) }
        }
    }
}

impl Inspection {
    /// Adds which rings are ready in an environment.
    fn in_environment(
        mut self,
        config: Config,
        environment: impl Fn(&str) -> Option<String> + Copy,
    ) -> Result<Self, Error> {
        input::check_variables(config.variables())?;
        strength::check_rings(config.rings(), environment)?;
        let plan = config.compile(environment).map_err(EnvironmentNotReady)?;
        let state = |ready| if ready { "ready" } else { "not ready, its keys are refused" };
        let readiness = |(name, ready)| format!("readiness    {name}: {}", state(ready));
        self.summary.extend(plan.keyring.rings().map(readiness));
        let (states, unready): (Vec<_>, Vec<_>) =
            plan.unready.into_iter().partition(NotReady::is_filter_state);
        self.summary.extend(states.iter().map(|state| format!("note         {state}")));
        Ok(Self { unready, ..self })
    }
}

fn summary(config: &Config, json: &Json, now_secs: u64) -> Vec<String> {
    let settings = config.settings();
    let mut lines: Vec<String> = config.rings().iter().map(ring).collect();
    lines.extend(config.rings().iter().filter_map(|ring| signing_now(ring, now_secs)));
    lines.push(format!("tiers        {}", listed(settings.tiers.keys())));
    lines.push(format!("tenants      {}", tenants(settings)));
    lines.extend(revoked(&settings.revoked));
    lines.extend(limits(settings));
    lines.extend(cluster_limits(settings.limits));
    lines.extend(limit_headers(settings.limits.headers));
    lines.extend(ai::summary(settings));
    lines.extend(calls::summary(settings, json));
    lines.extend(watched(settings));
    lines.extend(upstream_tls(&settings.upstream_tls));
    lines.push(format!("key sources  {}", key_sources(settings)));
    lines.extend(foreign(settings.foreign_credentials));
    lines.push(format!("audit        {}", sink(settings.audit.sink)));
    lines.extend(variables(config.variables()));
    lines
}

/// What most likely is a mistake in the configuration of a gate, or in how the proxy runs it.
fn notes(plugin: &Plugin, settings: &Settings, json: &Json) -> Vec<String> {
    let mut notes = ai::notes(settings);
    notes.extend(calls::notes(settings, json));
    notes.extend(bodies::notes(settings, plugin));
    notes
}

/// The summary of an upstream gate's configuration.
fn upstream_summary(config: &UpstreamConfig) -> Vec<String> {
    let mut lines = vec!["role         upstream_tls: an upstream gate".to_owned()];
    lines.extend(upstream_tls(&config.upstream_tls));
    lines.push(format!("deadline     {}", format_duration(config.deadline_secs)));
    lines.extend(variables(config.variables()));
    lines
}

/// The variables that the module needs, if any.
fn variables<'a>(named: impl Iterator<Item = &'a str>) -> Option<String> {
    let names = Vec::from_iter(BTreeSet::from_iter(named));
    (!names.is_empty()).then(|| format!("environment  {}", names.join(", ")))
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

/// The kid under which a rotating ring mints now, and until when.
fn signing_now(ring: &RingConfig, now_secs: u64) -> Option<String> {
    let rotation = ring.rotation().filter(|_| ring.state() == RingState::Active)?;
    let epoch = rotation.epoch_at(now_secs);
    let kid = Kid::new(ring.name(), epoch)?;
    let end = rfc3339(rotation.start_of(epoch.saturating_add(1)));
    Some(format!("signs now    {}: {kid}, until {end}", ring.name()))
}

fn tenants(settings: &Settings) -> String {
    let others = match settings.unlisted_tenants {
        UnlistedTenants::Allow => "allowed",
        UnlistedTenants::Deny => "denied",
    };
    format!("{} (others are {others})", listed(settings.tenants.keys()))
}

/// How many keys are revoked, and of how many tenants all keys up to a time.
fn revoked(revoked: &Revoked) -> Option<String> {
    let Revoked { version, keys, tenants } = revoked;
    let is_empty = version.is_none() && keys.is_empty() && tenants.is_empty();
    let version =
        version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
    let counts = [counted(keys.len(), "key"), counted(tenants.len(), "tenant")].join(", ");
    (!is_empty).then(|| format!("revoked      {version}: {counts}"))
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

/// Whether the rate-limit filter behind the seal has more limits.
fn cluster_limits(limits: LimitSettings) -> Option<String> {
    let text = "limits       of the whole cluster: those of the rate-limit filter behind the seal";
    limits.of_cluster.then(|| text.to_owned())
}

/// Which responses have headers about limits, unless all have.
fn limit_headers(headers: LimitHeaders) -> Option<String> {
    let shown = match headers {
        LimitHeaders::Always => return None,
        LimitHeaders::Refused => "only with refusals",
        LimitHeaders::Never => "never",
    };
    Some(format!("headers      about limits: {shown}"))
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
    let public = settings.public.len();
    let public = (public > 0).then(|| format!("public       {public} rules: no key is needed"));
    let mode = shadow.then(|| "mode         shadow".to_owned());
    let failures = settings.auth_failures.as_ref().map(failures);
    [usage, failures, anomalies, preflights, public, mode].into_iter().flatten()
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

impl Failure for StuckCredential {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for StuckCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not ok: a provider credential can never go out; the notes above say why")
    }
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
