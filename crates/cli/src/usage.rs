//! `vkey usage`: what a running gate has counted for a key.

use std::path::{Path, PathBuf};

use ureq::tls::{PemItem, RootCerts, parse_pem};

use vkey::json::Json;
use vkey::key::claims::is_id;
use vkey::key::token::Unverified;

use super::client::{Client, ClientError, MAX_USAGE_BYTES, NotAsked};
use super::counts::Counts;
use super::error::Error;
use super::exit::Exit;
use super::input::{InputError, InputProblem, KeyArgs, Place};
use super::output::Output;
use super::text::ascii;
use super::time;
use super::url::Url;

/// The longest file of authorities that is read: several times that of a whole system.
const MAX_CA_BYTES: u64 = 1024 * 1024;

/// The longest that can be waited for an answer, seconds.
const MAX_TIMEOUT_SECS: u64 = 3600;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Where the gate answers, as https://gw.example/.vkey/usage, which is also the path when the
    /// URL has none
    #[arg(long, value_name = "URL", value_parser = Url::parse)]
    url: Url,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Trust the authorities in this file, PEM, and no others; by default those of the web
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Allow http to other machines, where everybody on the way can read the key
    #[arg(long)]
    allow_http: bool,
    /// How long the answer may take, 1s to 1h
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: u64,
    /// Print the gate's answer, one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    key: KeyArgs,
}

/// Whose counts are asked for; those of the key itself unless an option says otherwise.
#[derive(clap::Args)]
struct SubjectArgs {
    /// Ask for the counts of another key, that of --tenant with this id; the gate decides who may
    #[arg(long, value_name = "ID", value_parser = id, requires = "tenant")]
    jti: Option<String>,
    /// Ask for the counts of a tenant, or of a key of it; the gate decides who may
    #[arg(long, value_name = "ID", value_parser = id)]
    tenant: Option<String>,
}

/// Runs `vkey usage`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let Args { url, ca, timeout, .. } = args;
    if !url.is_encrypted() && !url.is_loopback() && !args.allow_http {
        return Err(NotAsked::Cleartext.into());
    }
    if !url.is_encrypted() && ca.is_some() {
        return Err(NotAsked::CaForHttp.into());
    }
    let roots = ca.as_deref().map_or(Ok(RootCerts::WebPki), read_roots)?;
    let key = args.key.read(out)?;
    // What is no key must not leave this machine: it may be a secret in the wrong place.
    Unverified::parse(key.as_bytes()).map_err(|_| InputError::NotAKey)?;
    let client = Client { timeout_secs: *timeout, max_bytes: MAX_USAGE_BYTES, roots };
    let query = args.subject.query();
    let error = |error: ClientError| if query.is_empty() { error } else { error.of_others() };
    let body = client.ask(&url.with_query(&query), &key).map_err(error)?;
    show(&body, args.json, out)?;
    Ok(Exit::Success)
}

impl SubjectArgs {
    fn query(&self) -> Vec<(&'static str, &str)> {
        let members = [("jti", &self.jti), ("tenant", &self.tenant)].into_iter();
        members.filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

fn show(body: &[u8], json: bool, out: &mut Output) -> Result<(), Error> {
    let read = Json::parse(body).and_then(|answer| Ok((Counts::read(&answer)?, answer)));
    let (counts, answer) = read.map_err(ClientError::not_usage)?;
    if json {
        out.line(ascii(&answer))?;
    } else {
        out.text(counts)?;
    }
    Ok(())
}

/// Reads the authorities of `--ca`.
pub(super) fn read_roots(path: &Path) -> Result<RootCerts, InputError> {
    let place = Place::File("--ca", path.to_owned());
    let text = place.read_bytes(MAX_CA_BYTES)?;
    let items: Result<Vec<_>, _> = parse_pem(&text).collect();
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    let found: Vec<_> = items.into_iter().flatten().filter_map(certificate).collect();
    let none = || place.error(InputProblem::NoCertificate);
    if found.is_empty() { Err(none()) } else { Ok(RootCerts::from(found)) }
}

fn id(text: &str) -> Result<String, &'static str> {
    if is_id(text) { Ok(text.to_owned()) } else { Err("expected 1 to 64 of A-Z a-z 0-9 _ -") }
}

/// Reads how long an answer may take.
pub(super) fn timeout(text: &str) -> Result<u64, &'static str> {
    let secs = time::parse_duration(text).ok().filter(|secs| *secs <= MAX_TIMEOUT_SECS);
    secs.ok_or("expected a duration in whole seconds up to 1h, as 10s or 1m")
}
