//! `vkey usage`: asks a running gate for the counts of a key, or a ledger for the budgets of a tenant.

use std::path::{Path, PathBuf};

use ureq::tls::{PemItem, RootCerts, parse_pem};

use vkey::issuing::KeyFlaw;
use vkey::json::Json;
use vkey::key::claims::is_id;

use super::accounts::{Accounts, MAX_ACCOUNTS_BYTES};
use super::client::{Client, ClientError, InsecureConnection, MAX_USAGE_BYTES};
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

/// The longest timeout, in seconds.
const MAX_TIMEOUT_SECS: u64 = 3600;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The gate's usage endpoint; the path defaults to that of https://gw.example/.vkey/usage
    #[arg(long, value_name = "URL", value_parser = Url::parse, required_unless_present = "ledger")]
    url: Option<Url>,
    /// Show the budgets of a tenant and its keys instead, as the ledger of this `vkey serve` has them
    #[arg(long, value_name = "URL", value_parser = Url::parse_ledger, conflicts_with = "url", requires = "tenant")]
    ledger: Option<Url>,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Trust only the authorities in this PEM file; by default those of the web
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Allow http to other machines, which exposes the key to everyone on the network path
    #[arg(long)]
    allow_http: bool,
    /// The timeout for the response, 1s to 1h
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: u64,
    /// Print the response, one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    key: KeyArgs,
}

/// Whose counts to ask for: those of the key itself, unless an option says otherwise.
#[derive(clap::Args)]
struct SubjectArgs {
    /// Ask for the counts of the key with this id, of --tenant; the gate decides who may
    #[arg(long, value_name = "ID", value_parser = id, requires = "tenant")]
    jti: Option<String>,
    /// Ask for the counts of a tenant, or of one of its keys; the gate decides who may
    #[arg(long, value_name = "ID", value_parser = id)]
    tenant: Option<String>,
}

/// Runs `vkey usage`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let Args { ca, timeout, .. } = args;
    let url = match (&args.url, &args.ledger) {
        (Some(url), _) | (None, Some(url)) => url,
        // The parser of arguments has checked it.
        (None, None) => return Ok(Exit::Usage),
    };
    if !url.is_encrypted() && !url.is_loopback() && !args.allow_http {
        return Err(InsecureConnection::Cleartext.into());
    }
    if !url.is_encrypted() && ca.is_some() {
        return Err(InsecureConnection::CaForHttp.into());
    }
    let roots = ca.as_deref().map_or(Ok(RootCerts::WebPki), |path| read_roots("--ca", path))?;
    let key = args.key.read(out)?;
    // Only a key may be sent: anything else may be a misplaced secret.
    KeyFlaw::read(&key).map_err(|_| KeyFlaw::Form)?;
    let max_bytes = if args.ledger.is_some() { MAX_ACCOUNTS_BYTES } else { MAX_USAGE_BYTES };
    let client = Client { timeout_secs: *timeout, max_bytes, roots };
    let query = args.subject.query();
    if args.ledger.is_some() {
        let body = client.ask_ledger(&url.with_query(&query), &key)?;
        show_accounts(&body, args.json, out)?;
        return Ok(Exit::Success);
    }
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

fn show_accounts(body: &[u8], json: bool, out: &mut Output) -> Result<(), Error> {
    let read = Json::parse(body).and_then(|response| Ok((Accounts::read(&response)?, response)));
    let (accounts, response) = read.map_err(ClientError::not_accounts)?;
    if json {
        out.line(ascii(&response))?;
    } else {
        out.text(accounts)?;
    }
    Ok(())
}

/// Reads the authorities of an option.
pub(super) fn read_roots(option: &'static str, path: &Path) -> Result<RootCerts, InputError> {
    let place = Place::File(option, path.to_owned());
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

pub(super) fn id(text: &str) -> Result<String, &'static str> {
    if is_id(text) { Ok(text.to_owned()) } else { Err("expected 1 to 64 of A-Z a-z 0-9 _ -") }
}

/// Parses a timeout, in seconds.
pub(super) fn timeout(text: &str) -> Result<u64, &'static str> {
    let secs = time::parse_duration(text).ok().filter(|secs| *secs <= MAX_TIMEOUT_SECS);
    secs.ok_or("expected a duration in whole seconds up to 1h, e.g. 10s or 1m")
}
