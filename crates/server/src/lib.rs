//! Reads audit trails as proxies, Kubernetes and Docker write them, verifies their chains, and collects and serves them.
//!
//! [`open`] reads a log, compressed or not. An [`Unwrapper`] finds the audit lines in it. A [`Trail`] verifies them,
//! from any number of logs and workers, in any order of the logs. A [`server`] collects what [`collect`] reads into a
//! [`store`], and serves what [`web`] answers.

pub mod alerts;
mod certificates;
pub mod client;
mod clock;
pub mod collect;
mod findings;
pub mod gate;
pub mod ledger;
mod logs;
pub mod metrics;
#[cfg(test)]
mod samples;
pub mod server;
pub mod store;
mod trail;
mod unwrapper;
pub mod web;

pub use findings::{Finding, Place, Span};
pub use logs::{LogLine, Logs, open};
pub use trail::{ChainSummary, Report, Trail};
pub use unwrapper::Unwrapper;
