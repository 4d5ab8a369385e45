//! `vkey tls status`: shows the state of the upstreams of a running Envoy.

use super::super::error::Error;
use super::super::exit::Exit;
use super::super::output::Output;
use super::super::text::ascii;
use super::super::time;
use super::admin::{AdminArgs, AdminUrl};
use super::document;
use super::error::TlsError;
use super::upstream_status::UpstreamStates;

/// The longest response that is read: some thousand upstreams.
const MAX_STATS_BYTES: u64 = 8 * 1024 * 1024;

/// The endpoint, filtered to the metrics of upstreams.
const STATS: &str = "/stats?format=json&filter=vkey_upstream_tls_";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The admin interface of a running Envoy, e.g. http://127.0.0.1:9901
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
    let states = UpstreamStates::read(&answer).ok_or(TlsError::NoStats)?;
    if args.json {
        out.line(ascii(&states.to_json()))?;
    } else {
        states.lines(now_secs).iter().try_for_each(|line| out.line(line))?;
        if states.is_empty() {
            out.line("no upstream has been checked yet")?;
        }
    }
    Ok(if states.is_any_failing() { Exit::Refused } else { Exit::Success })
}
