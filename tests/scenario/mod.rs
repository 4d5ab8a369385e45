//! Scenarios: conversations with a host, written down as data. The format is described in
//! `testdata/README.md`.
//!
//! [`format`], [`step`] and [`upstream`] read a file, [`keys`] mints what it asks for, a [`Machine`] holds the conversation,
//! [`check`] compares, and [`tally`] adds up what the audit lines say. Only a machine knows what the module runs on.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]

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

/// What a scenario runs on: the library itself, the built module, a proxy.
pub(crate) trait Machine {
    /// Puts the configuration in force on a worker.
    fn configure(&mut self, worker: u64) -> Configured;

    /// Says what is to be measured of the request that comes next, and the name of its step. Only the bench
    /// does (`benches/core`).
    fn announce(&mut self, _step: &str, _parts: &[Part]) {}

    /// Sends one request and sees it through to its end.
    fn request(&mut self, worker: u64, request: &Sent) -> Observed;

    /// The time of the start for a step that many seconds after it, Unix seconds, where every step begins
    /// at the present; `None` where the start stays what it was.
    fn start(&self, _at: i64) -> Option<u64> {
        None
    }

    /// Whether requests are made at the times that a scenario says, to the nanosecond.
    fn pins_clock(&self) -> bool {
        true
    }

    /// The shared data and the metrics of all workers, where they can be looked into.
    fn store(&self) -> Option<&MemoryStore>;

    /// The trailers of the last request as they would go on, where they can be looked into.
    fn trailers(&self) -> Option<&HeaderList> {
        None
    }
}

/// What became of a configuration.
pub(crate) struct Configured {
    pub(crate) outcome: Outcome,
    pub(crate) log: Log,
}

/// Lines of a proxy's log.
pub(crate) type Log = Vec<(Level, String)>;

/// A request with every placeholder filled.
pub(crate) struct Sent {
    pub(crate) now_ns: u64,
    pub(crate) headers: HeaderList,
    pub(crate) trailers: Trailers,
    pub(crate) source: Option<String>,
    pub(crate) client_cert: Option<String>,
    pub(crate) faults: Faults,
    pub(crate) ending: Ending,
    pub(crate) upstream: Upstream,
}

/// What a request led to.
#[derive(Clone, Default)]
pub(crate) struct Observed {
    /// Whether the request went on; `None` when the module was not asked.
    pub(crate) forwarded: Option<bool>,
    /// Whether the upstream's answer was kept from the client.
    pub(crate) withheld: bool,
    /// The module's own answer.
    pub(crate) reply: Option<Reply>,
    /// How often it answered.
    pub(crate) replies: u32,
    /// The request's headers as they would go on.
    pub(crate) upstream: HeaderList,
    /// The headers that the module put on the answer.
    pub(crate) answer: BTreeMap<String, String>,
    pub(crate) filter_state: BTreeMap<String, String>,
    pub(crate) log: Log,
    /// Whether the host's second report of the request's end changed anything.
    pub(crate) wrote_twice: bool,
}
