//! `vkey audit verify`: verifies the chains of audit records.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::json;
use vkey::audit::AuditKey;
use vkey::time::rfc3339;
use vkey_server::{
    ChainSummary, Finding, LogLine, Logs, Place as LogPlace, Report, Trail, Unwrapper, open,
};

use super::secrets::{self, SecretArgs};
use crate::error::{Error, Failure};
use crate::exit::Exit;
use crate::input::{InputError, variable_name};
use crate::output::{Output, OutputError};
use crate::text::{counted, escape_line, escape_word};

const AFTER_HELP: &str = "\
Logs may be access logs, a proxy's own log, and logs of Kubernetes or Docker with either in them, compressed by gzip or \
not, of any number of workers and proxies, in any order. Other lines are skipped.

A chain shows what is missing before its last record. What is missing after it shows only by an anchor, which the gate \
writes to the proxy's own log: name that log too.

Exit codes: 0 every chain verifies; 1 something is missing, added, moved or changed; 2 invalid usage; 3 a log, the \
environment or the system failed; 4 no log has a record with a place in a chain.";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The logs (- is standard input)
    #[arg(value_name = "FILE", required = true)]
    logs: Vec<PathBuf>,
    /// Read the audit secret from an environment variable [default: VKEY_AUDIT_SECRET]; repeat it for earlier secrets
    #[arg(long, value_name = "NAME", value_parser = variable_name)]
    secret_env: Vec<String>,
    /// Read the audit secret from a file; repeat it for earlier secrets
    #[arg(long, value_name = "PATH")]
    secret_file: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Why the trail cannot be verified.
#[derive(Debug)]
enum VerifyError {
    /// A log cannot be read. The number counts the logs from 1.
    Log(usize, io::Error),
}

/// Runs `vkey audit verify`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let is_stdin = |path: &PathBuf| path.as_path() == Path::new("-");
    if args.logs.iter().chain(&args.secret_file).filter(|path| is_stdin(path)).count() > 1 {
        return Err(InputError::StdinTwice.into());
    }
    let mut trail = Trail::new(args.keys()?);
    for (number, path) in (1..).zip(&args.logs) {
        read(path, &mut trail).map_err(|error| VerifyError::Log(number, error))?;
    }
    let report = trail.finish();
    match args.json {
        true => out.line(as_json(&report))?,
        false => show(&report, out)?,
    }
    Ok(match (report.is_good(), report.is_empty()) {
        (false, _) => Exit::Refused,
        (true, true) => Exit::Undecided,
        (true, false) => Exit::Success,
    })
}

/// Takes the audit lines of a log.
fn read(path: &Path, trail: &mut Trail) -> io::Result<()> {
    let (mut logs, name) = match path == Path::new("-") {
        true => (open(io::stdin())?, Rc::from("standard input")),
        false => (open(File::open(path)?)?, Rc::from(&*escape_line(&path.to_string_lossy()))),
    };
    trail.begin_log();
    push_lines(&mut logs, &name, trail)
}

fn push_lines(logs: &mut Logs, name: &Rc<str>, trail: &mut Trail) -> io::Result<()> {
    let (mut unwrapper, mut number) = (Unwrapper::default(), 0);
    while let Some(line) = logs.next_line()? {
        number += 1;
        match line {
            LogLine::TooLong => trail.skip_long(),
            LogLine::Text(text) => {
                if let Some(line) = unwrapper.unwrap(&text) {
                    trail.push(LogPlace::new(name, number), &line);
                }
            }
        }
    }
    Ok(())
}

fn show(report: &Report, out: &mut Output) -> Result<(), OutputError> {
    for chain in &report.chains {
        out.line(chain_line(chain))?;
    }
    for finding in &report.findings {
        out.line(escape_line(&finding.to_string()))?;
    }
    if report.more_findings > 0 {
        out.line(format_args!("{} more findings are not shown", report.more_findings))?;
    }
    let (records, anchors) = (things(report.verified, "record"), things(report.anchors, "anchor"));
    out.line(format_args!("verified {records} and {anchors}"))?;
    for (count, thing, what) in [
        (report.unchained, "record", "without a place in a chain: the gate had no audit.secret"),
        (report.unseen, "line", "of requests that no gate saw"),
        (report.too_long, "line", "skipped: longer than 1 MiB"),
    ] {
        if count > 0 {
            out.note(format_args!("{} {what}", things(count, thing)));
        }
    }
    if report.is_empty() {
        out.note("no log has a record with a place in a chain; is audit.secret set in the gate?");
    }
    Ok(())
}

fn things(count: u64, thing: &str) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), thing)
}

fn chain_line(chain: &ChainSummary) -> String {
    let of =
        chain.host.as_deref().map_or(String::new(), |host| format!(" of {}", escape_word(host)));
    let records = match chain.records {
        0 => "no record".to_owned(),
        1 => "record 0".to_owned(),
        records => format!("records 0 to {}", records - 1),
    };
    let times = chain.times.map_or(String::new(), |(first, last)| {
        format!(", {} to {}", rfc3339(first / 1_000_000), rfc3339(last / 1_000_000))
    });
    let open = "open: whether later records are missing cannot be known";
    let end = match (chain.is_closed, chain.anchored) {
        (true, _) => "closed by an anchor".to_owned(),
        (false, Some(anchored)) => format!("{open}; the last anchor counts {anchored}"),
        (false, None) => format!("{open}; no anchor"),
    };
    format!("chain {}{of}: {records}{times}; {end}", escape_word(&chain.id))
}

fn as_json(report: &Report) -> serde_json::Value {
    let chains = report.chains.iter().map(|chain| {
        let (first, last) = chain.times.unzip();
        let totals = &chain.totals;
        json!({
            "chain": chain.id,
            "host": chain.host,
            "records": chain.records,
            "first_ts": first.map(|micros| rfc3339(micros / 1_000_000)),
            "last_ts": last.map(|micros| rfc3339(micros / 1_000_000)),
            "anchored": chain.anchored,
            "closed": chain.is_closed,
            "allow": totals.allow,
            "deny": totals.deny,
            "preflight": totals.preflight,
            "public": totals.public,
            "shadow": totals.shadow,
            "tokens": totals.tokens,
            "cost": totals.cost,
        })
    });
    let findings = report.findings.iter().map(|finding: &Finding| {
        json!({
            "kind": finding.word(),
            "text": finding.to_string(),
            "log": finding.place().map(|place| &*place.log),
            "line": finding.place().map(|place| place.line),
            "chain": finding.span().map(|span| &span.chain),
            "first": finding.span().map(|span| span.first),
            "last": finding.span().map(|span| span.last),
        })
    });
    json!({
        "verified": report.verified,
        "anchors": report.anchors,
        "unchained": report.unchained,
        "unseen": report.unseen,
        "too_long": report.too_long,
        "chains": chains.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
        "more_findings": report.more_findings,
    })
}

// === impl Args ===

impl Args {
    fn keys(&self) -> Result<Vec<AuditKey>, Error> {
        let secrets = SecretArgs {
            names: ("--secret-env", "--secret-file"),
            variables: &self.secret_env,
            files: &self.secret_file,
        };
        if self.secret_env.is_empty() && self.secret_file.is_empty() {
            return Ok(vec![secrets::default_key()?]);
        }
        secrets.keys()
    }
}

// === impl VerifyError ===

impl Failure for VerifyError {
    fn exit(&self) -> Exit {
        match self {
            Self::Log(..) => Exit::Environment,
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(number, error) => {
                write!(f, "log {number} cannot be read: {error}; check the path")
            }
        }
    }
}
