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

mod documents;
mod istio;
mod layers;
mod module;
mod secrets;
