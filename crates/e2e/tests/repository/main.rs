//! The repository as a whole: the documents, the order of the sources, the built module as a file, what is deployed.
#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "in a test a panic is the report, and make names the files"
)]

mod bench;
mod bench_core;
#[path = "../../benches/envoy/callgrind.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod callgrind;
mod documents;
mod floor;
#[path = "../../benches/envoy/functions.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod functions;
mod istio;
mod layers;
#[path = "../../benches/envoy/machine.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod machine;
mod module;
#[path = "../../benches/envoy/pieces.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod pieces;
#[path = "../../benches/envoy/process.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod process;
mod prometheus;
mod sdk;
mod secrets;
#[path = "../../benches/envoy/stats.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod stats;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../benches/envoy/table.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod table;
#[path = "../../benches/envoy/tally.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod tally;
#[path = "../../benches/envoy/targets.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod targets;
mod words;
#[path = "../../benches/envoy/wrk.rs"]
#[allow(dead_code, reason = "the rest is for the benchmark itself")]
mod wrk;

use std::fs;

use support::root;

/// A file of the checkout.
fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
