//! The proxy-wasm module: a translation between a host's callbacks and [`vkey::gate::Plugin`].
//!
//! Contexts and types are those of the proxy-wasm SDK. `contexts` has the contexts, `callbacks` calls them, and
//! `hostcalls` has the host calls. The last two are not the SDK's, because the SDK's panic on what real hosts do.

#![allow(missing_docs, reason = "the one public function is that of the SDK's macro")]

mod callbacks;
mod contexts;
#[cfg(feature = "faults")]
mod faults;
mod hostcalls;

proxy_wasm::main! {{}}
