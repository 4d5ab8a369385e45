//! Scenarios: conversations with a host, as data. `testdata/README.md` describes the format.
//!
//! [`mod@format`], [`step`] and [`upstream`] read a file, [`keys`] mints its keys, a [`Machine`] holds the
//! conversation, [`check`] compares the results, and [`tally`] adds up the audit lines. Only the machine
//! depends on what the module runs on.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]

pub(crate) mod body;
pub(crate) mod check;
mod expect;
mod fields;
pub(crate) mod folder;
pub(crate) mod format;
mod forwarded;
pub(crate) mod keys;
pub(crate) mod memory;
pub(crate) mod native;
pub(crate) mod run;
mod secrecy;
pub(crate) mod step;
mod tally;
pub(crate) mod text;
mod times;
pub(crate) mod upstream;

use std::collections::BTreeMap;

use vkey::host::Level;
use vkey::host::{HeaderList, MemoryStore};
use vkey::reply::Reply;

use format::Outcome;
use step::{Ending, Faults, Part, Trailers};
use upstream::Upstream;

/// What a scenario runs on: the library, the built module, or a proxy.
pub(crate) trait Machine {
    /// Configures a worker.
    fn configure(&mut self, worker: u64) -> Configured;

    /// Announces what to measure for the next request, and the name of its step. Only the bench uses it
    /// (`benches/core`).
    fn announce(&mut self, _step: &str, _parts: &[Part]) {}

    /// Sends one request and waits for its end.
    fn request(&mut self, worker: u64, request: &Sent) -> Observed;

    /// The start time, Unix seconds, such that a step `at` seconds after it happens now; `None` if the
    /// machine sets its clock instead.
    fn start(&self, _at: i64) -> Option<u64> {
        None
    }

    /// Whether requests are made at exactly the times in the scenario.
    fn pins_clock(&self) -> bool {
        true
    }

    /// The shared data and the metrics of all workers, if they can be inspected.
    fn store(&self) -> Option<&MemoryStore>;

    /// The forwarded trailers of the last request, if they can be inspected.
    fn trailers(&self) -> Option<&HeaderList> {
        None
    }
}

/// The result of a configuration.
pub(crate) struct Configured {
    pub(crate) outcome: Outcome,
    pub(crate) log: Log,
}

/// Log lines of a proxy.
pub(crate) type Log = Vec<(Level, String)>;

/// Whether the log of a configuration says that everything is denied.
pub(crate) fn is_closed(log: &Log) -> bool {
    let closes = |text: &str| text.contains("every request is refused");
    log.iter().any(|(level, text)| *level == Level::Error && closes(text))
}

/// A request with every placeholder filled.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) now_ns: u64,
    pub(crate) headers: HeaderList,
    /// The parts of the body.
    pub(crate) body: Vec<Vec<u8>>,
    pub(crate) unfinished: bool,
    pub(crate) trailers: Trailers,
    pub(crate) source: Option<String>,
    pub(crate) client_cert: Option<String>,
    pub(crate) faults: Faults,
    pub(crate) ending: Ending,
    /// The parts of the body of the upstream's response.
    pub(crate) response: Vec<Vec<u8>>,
    pub(crate) upstream: Upstream,
}

/// The result of a request.
#[derive(Clone, Default)]
pub(crate) struct Observed {
    /// Whether the request was forwarded; `None` if the module did not see it.
    pub(crate) forwarded: Option<bool>,
    /// Whether the upstream's response was withheld from the client.
    pub(crate) withheld: bool,
    /// The module's local reply.
    pub(crate) reply: Option<Reply>,
    /// The number of local replies.
    pub(crate) replies: u32,
    /// The headers of the forwarded request.
    pub(crate) upstream: HeaderList,
    /// The body that the upstream has received.
    pub(crate) upstream_body: Vec<u8>,
    /// The body that the client has received, unless the module replied.
    pub(crate) response_body: Vec<u8>,
    /// The headers that the module added to the response.
    pub(crate) response_headers: BTreeMap<String, String>,
    pub(crate) filter_state: BTreeMap<String, String>,
    pub(crate) log: Log,
    /// What the host knows of the end, for its access log.
    pub(crate) outcome: vkey::audit::Outcome<'static>,
    /// Whether the host's second report of the request's end changed anything.
    pub(crate) wrote_twice: bool,
}
