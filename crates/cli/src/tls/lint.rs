//! `vkey tls lint`: finds Envoy clusters that violate the policy, and listeners and routes that defeat it.

mod authorities;
mod cluster;
mod context;
mod credentials;
mod edge;
mod finding;
mod graph;
mod hosts;
mod managers;
mod names;
mod overrides;
mod place;
mod plugin;
mod proxy_config;
mod report;
mod routes;
mod seal;
mod socket;
mod stripped;
mod trust;
mod ungated;
mod upstream_gate;
mod upstream_gates;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use zeroize::Zeroizing;

use vkey::json::Json;

use super::super::error::Error;
use super::super::exit::Exit;
use super::super::input::{InputError, InputProblem, Place};
use super::super::output::Output;
use super::super::text::ascii;
use super::super::time;
use super::admin::{AdminArgs, AdminUrl};
use super::document::{self, DocumentError, MAX_DOCUMENT_BYTES};
use super::error::{InputKind, TlsError};
use super::policy::PolicyArgs;
use finding::LintRule;
use proxy_config::InvalidConfig;
use report::Report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// An Envoy configuration, in YAML or JSON: a bootstrap, a discovery response, clusters, or a
    /// /config_dump (- is standard input); or the URL of a running Envoy's admin interface
    #[arg(value_name = "FILE|URL", value_parser = Source::parse, required_unless_present = "rules")]
    source: Option<Source>,
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
    #[arg(long, conflicts_with = "source")]
    rules: bool,
}

/// Where to read the configuration from.
#[derive(Clone)]
enum Source {
    Admin(AdminUrl),
    File(PathBuf),
}

/// Runs `vkey tls lint`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let Some(source) = &args.source else {
        return list_rules(args.json, out);
    };
    if source.is_stdin() && args.policy.stdin_count() > 0 {
        return Err(InputError::StdinTwice.into());
    }
    let documents = [source.read(&args.admin)?];
    let policy = args.policy.read()?;
    let report = Report::new(&documents, &policy, time::now(args.now)?);
    let report = report.map_err(|unsuitable| source.error(&unsuitable))?;
    if args.json {
        out.line(report.to_json())?;
    } else {
        report.print(out)?;
    }
    Ok(if report.is_clean() { Exit::Success } else { Exit::Refused })
}

fn list_rules(is_json: bool, out: &mut Output) -> Result<Exit, Error> {
    if is_json {
        let rules = LintRule::ALL.iter().map(|rule| rule.to_json()).collect();
        out.line(ascii(&Json::object([("rules", Json::Array(rules))])))?;
        return Ok(Exit::Success);
    }
    let line = |rule: &LintRule| out.line(format_args!("{:<27}{}", rule.id(), rule.about()));
    LintRule::ALL.iter().try_for_each(line)?;
    Ok(Exit::Success)
}

impl Source {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match AdminUrl::is_url(text) {
            true => AdminUrl::parse(text).map(Self::Admin),
            false => Ok(Self::File(PathBuf::from(text))),
        }
    }

    fn is_stdin(&self) -> bool {
        matches!(self, Self::File(path) if path.as_os_str() == "-")
    }

    fn given(&self) -> InputKind {
        match self {
            Self::Admin(_) => InputKind::Response,
            Self::File(_) => InputKind::Input,
        }
    }

    fn error(&self, unsuitable: &InvalidConfig) -> TlsError {
        match unsuitable {
            InvalidConfig::Empty => TlsError::NoClusters(self.given()),
            InvalidConfig::NotEnvoy => TlsError::NoEnvoyConfiguration(self.given()),
            InvalidConfig::TooMuch => TlsError::Document(self.given(), DocumentError::too_much()),
        }
    }

    fn read(&self, admin: &AdminArgs) -> Result<Value, Error> {
        let text = match self {
            Self::Admin(url) => admin.ask(url, &url.config_dump(), MAX_DOCUMENT_BYTES)?.into(),
            Self::File(path) => read_file(path)?,
        };
        let read = document::parse(&text);
        Ok(read.map_err(|unreadable| TlsError::Document(self.given(), unreadable))?)
    }
}

/// Reads a file. If it does not exist and looks like an address, the error says how to write a URL.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, InputError> {
    let read = Place::file("FILE", path).read_bytes(MAX_DOCUMENT_BYTES);
    let may_be_address = path.to_string_lossy().contains(':');
    read.map_err(|error| match error {
        InputError::Unusable(origin, InputProblem::Io(error))
            if may_be_address && error.kind() == ErrorKind::NotFound =>
        {
            InputError::Unusable(origin, InputProblem::NoFile(error))
        }
        error => error,
    })
}
