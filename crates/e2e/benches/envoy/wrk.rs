//! The load generator: wrk, on a core of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::support::root;

/// Kept open by each load.
const CONNECTIONS: &str = "32";

/// What stands for the key in a header of a load that has another key each time.
const PLACE: &str = "Bearer @key@";

/// What the script says when it needs another key and has none, as part of the error.
pub(crate) const NO_KEY_LEFT: &str = "no key is left that was not seen";

/// What is sent.
pub(crate) struct Load {
    pub(crate) path: &'static str,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) keys: Option<KeyFile>,
}

/// Where the keys are read.
pub(crate) struct KeyFile {
    pub(crate) file: PathBuf,
    /// The byte to begin at.
    pub(crate) offset: usize,
    /// Whether it goes on at the beginning when it is through.
    pub(crate) again: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// Those that were not answered with 2xx or 3xx.
    pub(crate) refused: u64,
}

// === impl Outcome ===

impl Outcome {
    /// How many answers had another status; of those below 400 and of those from there on, wrk tells
    /// only which of the two they are.
    pub(crate) fn other_than(&self, status: u16) -> u64 {
        if status < 400 { self.refused } else { self.requests - self.refused }
    }
}

/// Sends requests for that many seconds, from that core, each as soon as its connection has its
/// answer.
///
/// # Errors
///
/// What wrk says when it fails, or when a connection does.
pub(crate) fn run(load: &Load, to: SocketAddr, secs: u64, cpu: &str) -> Result<Outcome, String> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", cpu, "wrk", "-t1", "-c", CONNECTIONS]);
    command.arg(format!("-d{secs}s"));
    for (name, value) in &load.headers {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    if load.keys.is_some() {
        command.arg("-H").arg(format!("authorization: {PLACE}"));
        command.arg("-s").arg(script());
    }
    command.arg(format!("http://{to}{}", load.path));
    if let Some(keys) = &load.keys {
        command.arg("--").arg(&keys.file).arg(keys.offset.to_string());
        command.arg(if keys.again { "again" } else { "once" });
    }
    let output = command.output().map_err(|error| format!("wrk cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("wrk failed: {}{text}", String::from_utf8_lossy(&output.stderr)));
    }
    parse(&text)
}

fn script() -> PathBuf {
    root().join("crates/e2e/benches/envoy/keys.lua")
}

/// Reads what wrk prints at the end.
pub(crate) fn parse(text: &str) -> Result<Outcome, String> {
    let lines = || text.lines().map(str::trim);
    if let Some(errors) = lines().find(|line| line.starts_with("Socket errors:")) {
        return Err(format!("connections failed: {errors}"));
    }
    let requests = lines().find_map(|line| line.split_once(" requests in ")?.0.parse().ok());
    let refused = lines().find_map(|line| line.strip_prefix("Non-2xx or 3xx responses: "));
    let refused = refused.map_or(Ok(0), str::parse);
    match (requests, refused) {
        (Some(0), _) => Err(format!("no request was answered:\n{text}")),
        (Some(requests), Ok(refused)) => Ok(Outcome { requests, refused }),
        _ => Err(format!("not what wrk prints:\n{text}")),
    }
}
