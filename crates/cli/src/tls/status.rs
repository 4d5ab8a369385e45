//! `vkey tls status`: how a running Envoy judges its upstreams.

use super::super::error::Error;
use super::super::exit::Exit;
use super::super::output::Output;
use super::super::text::ascii;
use super::super::time;
use super::admin::{AdminArgs, AdminUrl};
use super::document;
use super::error::TlsError;
use super::upstream_status::Standings;

/// The longest answer that is read: some thousand upstreams.
const MAX_STATS_BYTES: u64 = 8 * 1024 * 1024;

/// The metrics of upstreams, and no others.
const STATS: &str = "/stats?format=json&filter=vkey_upstream_tls_";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The admin interface of a running Envoy, as http://127.0.0.1:9901
    #[arg(value_parser = AdminUrl::parse_base)]
    url: AdminUrl,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `vkey tls status`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let now_secs = time::now(None)?;
    let answer = args.admin.ask(&args.url, &args.url.target(STATS), MAX_STATS_BYTES)?;
    let answer = document::parse(&answer).map_err(TlsError::Stats)?;
    let standings = Standings::read(&answer).ok_or(TlsError::NoStats)?;
    if args.json {
        out.line(ascii(&standings.to_json()))?;
    } else {
        standings.lines(now_secs).iter().try_for_each(|line| out.line(line))?;
        if standings.is_empty() {
            out.line("no upstream has been judged yet")?;
        }
    }
    Ok(if standings.is_any_failing() { Exit::Refused } else { Exit::Success })
}
