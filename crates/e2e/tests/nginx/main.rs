//! The shipped `examples/nginx/nginx.conf`: on a plain nginx without the module's directives, and on an
//! nginx with WasmX as it is, where there is one.

#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "in a test a panic is the report, and JSON literals read better without a sign"
)]
#![allow(clippy::disallowed_methods, reason = "a deadline on a real process needs a real clock")]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "the tests on Envoy use the rest")]
#[path = "../envoy/keys.rs"]
mod keys;

mod config;
mod http2;
mod lines;
mod plain;
mod process;
mod upstream;
mod wasmx;
