//! The proxy-wasm module: a translation between a host's callbacks and [`vkey::gate::Plugin`].
//!
//! `host` is the whole boundary: the host calls, and the callbacks that the module exports. It exports
//! no more than it needs, because each export is a call into the VM for every request. `root`, `http`
//! and `upstream` keep the contexts.

mod contexts;
#[cfg(feature = "faults")]
mod faults;
mod hostcalls;
mod http;
mod upstream;
