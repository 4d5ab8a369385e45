//! `vkey tls lint`: finds Envoy clusters that violate the policy, and listeners and routes that defeat it.

mod authorities;
mod cluster;
mod cluster_limits;
mod context;
mod credentials;
mod delivery;
mod edge;
mod endpoints;
mod finding;
mod graph;
mod hosts;
mod invalid;
mod managers;
mod names;
mod no_endpoints;
mod outsiders;
mod overrides;
mod place;
mod plugin;
mod proxy_config;
mod refused;
mod report;
mod routes;
mod seal;
mod socket;
mod socket_match;
mod source;
mod spelling;
mod stripped;
mod switched_off;
mod trust;
mod ungated;
mod unread;
mod upstream_gate;
mod upstream_gates;
mod wiring;

use serde_json::Value;

use vkey::json::Json;
use vkey::upstream_tls::Policy;

use super::super::error::Error;
use super::super::exit::Exit;
use super::super::input::InputError;
use super::super::output::Output;
use super::super::text::ascii;
use super::super::time;
use super::admin::AdminArgs;
use super::policy::PolicyArgs;
use finding::LintRule;
pub(crate) use report::Chain;
use report::Report;
pub(crate) use seal::SEAL;
use source::{Input, Source};

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// An Envoy configuration, in YAML or JSON: a bootstrap, a discovery response, clusters, or a
    /// /config_dump (- is standard input); or the URL of a running Envoy's admin interface. Several
    /// are read as parts of one configuration
    #[arg(value_name = "FILE|URL", value_parser = Source::parse, required_unless_present = "rules")]
    sources: Vec<Source>,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// Evaluate as of this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    now: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// List the rules that lint checks, and do nothing else
    #[arg(long, conflicts_with = "sources")]
    rules: bool,
}

/// Each code has one meaning, so that a script can tell findings from an input without any configuration.
const AFTER_HELP: &str = "\
Exit codes: 0 no findings; 1 findings, or an input that cannot be parsed; 2 invalid arguments; \
3 a file, the network or the system failed; 4 no configuration found: no cluster, and no listener \
with the module. Notes are not findings.";

/// Runs `vkey tls lint`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    if args.rules {
        return list_rules(args.json, out);
    }
    let stdin_count = args.sources.iter().filter(|source| source.is_stdin()).count();
    if stdin_count.saturating_add(args.policy.stdin_count()) > 1 && stdin_count > 0 {
        return Err(InputError::StdinTwice.into());
    }
    let inputs = Input::read_all(&args.sources, &args.admin)?;
    let (policy, config) = args.policy.read_with_config()?;
    let report = Report::new(&inputs, &policy, config.as_ref(), time::now(args.now)?);
    let report = report.map_err(|why| Input::unsuitable(&inputs, &why))?;
    if args.json {
        out.line(report.to_json())?;
    } else {
        report.print(out)?;
    }
    Ok(if report.is_clean() { Exit::Success } else { Exit::Refused })
}

/// Whether a filter by itself refuses every request that the module has not allowed.
pub(crate) fn is_seal(filter: &Value) -> bool {
    seal::is_seal(filter, &plugin::Extensions::default())
}

/// What is wrong with the filter chains that have the module or a seal, in documents of one configuration. Each document
/// has a name. `None`: no listener in them has the module.
pub(crate) fn chains(
    documents: impl IntoIterator<Item = (String, Value)>,
    policy: &Policy,
    now_secs: u64,
) -> Option<Vec<Chain>> {
    let input = |(name, document)| Input::of_document(name, document);
    let inputs = Vec::from_iter(documents.into_iter().map(input));
    let policy = vkey::upstream_tls::EffectivePolicy::new(policy.clone(), Box::default());
    Report::new(&inputs, &policy, None, now_secs).ok()?.chains()
}

fn list_rules(is_json: bool, out: &mut Output) -> Result<Exit, Error> {
    if is_json {
        let rules = LintRule::ALL.iter().map(|rule| rule.to_json()).collect();
        out.line(ascii(&Json::object([("rules", Json::Array(rules))])))?;
        return Ok(Exit::Success);
    }
    let line = |rule: &LintRule| {
        let severity = rule.severity().word();
        out.line(format_args!("{:<27}{severity:<9}{}", rule.id(), rule.about()))
    };
    LintRule::ALL.iter().try_for_each(line)?;
    Ok(Exit::Success)
}
