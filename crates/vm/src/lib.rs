//! The embedded host: runs the built module (proxy-wasm ABI 0.2.1) on wasmtime, without a proxy.
//!
//! A [`Module`] is compiled once, ahead of time. A [`Vm`] is one instance of it, whose host calls a [`MemoryHost`]
//! answers: one for each context, all over the same shared data. A [`Worker`] takes requests through a
//! VM, and makes a new one when that has failed.
//!
//! What a module may not do ends its VM with a [`Failure`]: trap, exit, run past its [`Limits`]. A host
//! call with wrong arguments is answered with a status, as the specification has it.
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
pub use module::{BuiltIn, Limits, Module, Precompiled, Unusable};
pub use worker::{Answer, Ended, Opened, Setup, StartError, Worker};
