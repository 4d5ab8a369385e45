//! The built `vkey` command, end to end: what it prints, what it exits with, and what it never shows.
#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]

mod agreement;
mod audit;
mod audit_store;
mod config;
mod config_notes;
mod crd;
mod ecds;
mod explain;
mod explain_body;
mod explain_message;
mod filter_states;
mod harness;
mod inputs;
mod kubernetes;
mod ledger;
mod mcp;
mod mint;
mod mistakes;
#[path = "../../../e2e/tests/support/page.rs"]
mod page;
mod pages;
mod private;
#[path = "../../../server/tests/support/redis_server.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod redis_server;
mod register;
mod run;
mod serve;
mod signing_keys;
mod sources;
mod streams;
mod tls;
mod tls_lint;
mod tls_render;
mod usage;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use harness::{Vkey, secret};

#[test]
fn secrets_are_random_and_long() {
    let (one, two) = (secret(), secret());
    assert_ne!(one, two);
    let bytes = STANDARD.decode(one.strip_prefix("base64:").expect("the prefix")).expect("base64");
    assert_eq!(bytes.len(), 32);
}

#[test]
fn help_documents_the_exit_codes() {
    let done = Vkey::new(&["--help"]).ok();
    assert!(done.out.contains("Exit codes: 0 success") && done.err.is_empty());
    assert!(Vkey::new(&["--version"]).ok().out.starts_with("vkey "));
    assert_eq!(Vkey::new(&[]).run().code, 2);
}
