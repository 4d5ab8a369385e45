//! The embedded host: runs the built module (proxy-wasm ABI 0.2.1) on wasmtime, without a proxy.
//!
//! A [`Module`] is compiled once, ahead of time. A [`Vm`] is one instance of it. Each context has its own
//! [`MemoryHost`], which handles its host calls; all of them share one store. A [`Worker`] runs requests
//! through a VM, and replaces the VM after a failure.
//!
//! A module that traps, exits or exceeds its [`Limits`] ends its VM with a [`Failure`]. A host call with
//! invalid arguments returns a status, as the specification says.
//!
//! [`MemoryHost`]: vkey::host::MemoryHost

mod calls;
mod guest;
mod instance;
mod module;
mod state;
mod wasi;
mod worker;

pub use instance::{ContextId, Failure, Vm};
#[cfg(feature = "compiler")]
pub use module::precompile;
pub use module::{BuiltIn, Limits, Module, ModuleError, Precompiled};
pub use worker::{Closed, Opened, Response, Setup, StartError, UpstreamResponse, Worker};
