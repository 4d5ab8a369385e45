//! `vkey tls lint`: clusters of an Envoy that break the policy.

mod finding;
mod gate;
mod hosts;
mod judge;
mod names;
mod overrides;
mod scene;
mod socket;
mod trust;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use zeroize::Zeroizing;

use crate::json::Json;

use super::super::error::{Error, Exit, Given, InputProblem};
use super::super::input::Place;
use super::super::output::{Output, ascii, sentence, word};
use super::super::time;
use super::admin::{AdminArgs, AdminUrl};
use super::document::{self, MAX_DOCUMENT_BYTES, Unreadable};
use super::policy::PolicyArgs;
use finding::{Finding, Note, Rule};
use scene::Scene;

/// The most hosts of clusters that are looked at: each route to a cluster may name thousands.
const MAX_NAMES: usize = 500_000;

#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// An Envoy configuration, in YAML or JSON: a bootstrap, a discovery answer, clusters, or a
    /// /config_dump (- is standard input); or the URL of a running Envoy's admin interface
    #[arg(value_name = "FILE|URL", value_parser = Source::parse, required_unless_present = "rules")]
    source: Option<Source>,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// Judge as if it were this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    now: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// List what lint finds, and do nothing else
    #[arg(long, conflicts_with = "source")]
    rules: bool,
}

/// Where the configuration comes from.
#[derive(Clone)]
enum Source {
    Admin(AdminUrl),
    File(PathBuf),
}

/// What came of a whole configuration.
#[derive(Default)]
struct Report {
    digest: String,
    looked_at: usize,
    judged: usize,
    findings: Vec<Finding>,
    notes: Vec<Note>,
}

/// Runs `vkey tls lint`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let Some(source) = &args.source else {
        return list_rules(args.json, out);
    };
    if source.is_stdin() && args.policy.stdin_count() > 0 {
        return Err(Error::StdinTwice);
    }
    let report = Report::new(&source.read(&args.admin)?, source.given(), args)?;
    if args.json {
        out.line(report.to_json())?;
    } else {
        report.print(out)?;
    }
    Ok(if report.findings.is_empty() { Exit::Success } else { Exit::Refused })
}

fn list_rules(is_json: bool, out: &mut Output) -> Result<Exit, Error> {
    if is_json {
        let rules = Rule::ALL.iter().map(|rule| rule.to_json()).collect();
        out.line(ascii(&Json::object([("rules", Json::Array(rules))])))?;
        return Ok(Exit::Success);
    }
    let line = |rule: &Rule| out.line(format_args!("{:<27}{}", rule.id(), rule.about()));
    Rule::ALL.iter().try_for_each(line).map(|()| Exit::Success)
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

    fn given(&self) -> Given {
        match self {
            Self::Admin(_) => Given::Answer,
            Self::File(_) => Given::Input,
        }
    }

    fn read(&self, admin: &AdminArgs) -> Result<Value, Error> {
        let text = match self {
            Self::Admin(url) => admin.ask(url, &url.config_dump(), MAX_DOCUMENT_BYTES)?.into(),
            Self::File(path) => read_file(path)?,
        };
        document::parse(&text).map_err(|unreadable| Error::Document(self.given(), unreadable))
    }
}

/// Reads a file. What looks like an address, and is no file, may be meant as one.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let read = Place::file("FILE", path).read_bytes(MAX_DOCUMENT_BYTES);
    let may_be_address = path.to_string_lossy().contains(':');
    read.map_err(|error| match error {
        Error::Input(origin, InputProblem::Io(error))
            if may_be_address && error.kind() == ErrorKind::NotFound =>
        {
            Error::Input(origin, InputProblem::NoFile(error))
        }
        error => error,
    })
}

impl Report {
    fn new(document: &Value, given: Given, args: &Args) -> Result<Self, Error> {
        let policy = args.policy.read()?;
        let now_secs = time::now(args.now)?;
        let scene = Scene::new(document).ok_or(Error::NoEnvoyConfiguration(given))?;
        if scene.clusters.is_empty() {
            return Err(Error::NoClusters(given));
        }
        let mut report = Self {
            digest: policy.file().digest().to_owned(),
            looked_at: scene.clusters.len(),
            notes: gate::seal_notes(document),
            ..Self::default()
        };
        let mut names = 0;
        for cluster in &scene.clusters {
            let judged = judge::judge(cluster, &scene, &policy, now_secs);
            names += judged.names;
            if names > MAX_NAMES {
                return Err(Error::Document(given, Unreadable::too_much()));
            }
            report.judged += usize::from(judged.is_judged);
            report.findings.extend(judged.findings);
            report.notes.extend(judged.notes);
        }
        Ok(report)
    }

    fn print(&self, out: &mut Output) -> Result<(), Error> {
        for Finding { cluster, host, rule, reason, fix } in &self.findings {
            out.line(format_args!("{}: {} for {}", word(cluster), rule.id(), word(host)))?;
            out.line(format_args!("  {}", sentence(reason)))?;
            out.line(format_args!("  fix: {}", sentence(fix)))?;
        }
        for Note { place, text } in &self.notes {
            out.line(format_args!("note: {}: {}", word(place), sentence(text)))?;
        }
        let clusters = counted(self.looked_at, "cluster");
        let findings = counted(self.findings.len(), "finding");
        out.line(format_args!("{clusters}, {} for judged hosts, {findings}", self.judged))
    }

    fn to_json(&self) -> String {
        let count = |count: usize| u64::try_from(count).map_or(Json::Null, Json::from);
        ascii(&Json::object([
            ("policy", self.digest.as_str().into()),
            ("clusters", count(self.looked_at)),
            ("judged", count(self.judged)),
            ("findings", Json::Array(self.findings.iter().map(Finding::to_json).collect())),
            ("notes", Json::Array(self.notes.iter().map(Note::to_json).collect())),
        ]))
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
