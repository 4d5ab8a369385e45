//! A module, compiled and held against what the host offers.

#![allow(unsafe_code)]

use std::fmt;
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Engine, EngineWeak, InstancePre, Linker};

use vkey::host::Rules;

use super::state::State;
use super::{calls, wasi};

/// How exact a deadline is.
const TICK: Duration = Duration::from_millis(10);

/// The export that says which ABI a module speaks.
const ABI: &str = "proxy_abi_version_0_2_1";

/// What one VM may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may take over a callback, or over callbacks together; rounded up to 10 ms.
    pub deadline: Duration,
    /// The most memory it may have, in bytes.
    pub memory_bytes: usize,
}

/// A compiled module. Clones share it.
#[derive(Clone)]
pub struct Module {
    pub(super) instance: InstancePre<State>,
    pub(super) limits: Limits,
}

/// What `precompile` has made of a module.
#[derive(Clone, Copy)]
pub struct Precompiled(&'static [u8]);

/// The modules that a command carries: hosts call different callbacks.
#[derive(Clone, Copy)]
pub struct BuiltIn {
    /// `vkey.wasm`.
    pub module: Precompiled,
    /// `vkey-nginx.wasm`.
    pub nginx: Precompiled,
}

/// The bytes are no module that this host can run.
#[derive(Debug)]
pub enum Unusable {
    /// There are none: the command was built without the module.
    Absent,
    /// They are no valid WebAssembly, or were compiled for another machine.
    Invalid(String),
    /// It is another kind of module.
    NotProxyWasm,
    /// It asks for something that this host does not have, or in another form.
    Import(String),
}

impl BuiltIn {
    /// The module for a host of these rules.
    pub fn of(self, rules: Rules) -> Precompiled {
        if rules == Rules::Nginx { self.nginx } else { self.module }
    }
}

impl Default for Limits {
    /// One second and 128 MiB: what a configuration of a hundred thousand tenants takes, each with a rate, and
    /// many times what others take.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(1), memory_bytes: 128 * 1024 * 1024 }
    }
}

impl Limits {
    /// The deadline of a callback in ticks. The first may be over at once.
    pub(super) fn ticks(self) -> u64 {
        let ticks = self.deadline.as_nanos().div_ceil(TICK.as_nanos());
        u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
    }
}

// === impl Precompiled ===

impl Precompiled {
    /// Code that was compiled ahead of time. None at all stands for a module that is not there.
    ///
    /// # Safety
    ///
    /// It is run as it is: the bytes must be what `precompile` of this version has returned, or none.
    pub const unsafe fn new(code: &'static [u8]) -> Self {
        Self(code)
    }
}

/// Compiles a module ahead of time, for every machine of this kind.
///
/// # Errors
///
/// [`Unusable`] for what is no valid WebAssembly.
#[cfg(feature = "compiler")]
pub fn precompile(wasm: &[u8]) -> Result<Vec<u8>, Unusable> {
    let compiled = engine().and_then(|engine| engine.precompile_module(wasm));
    compiled.map_err(invalid)
}

// === impl Module ===

impl Module {
    /// Loads a module that was compiled ahead of time.
    ///
    /// # Errors
    ///
    /// [`Unusable`] for what is no module of proxy-wasm ABI 0.2.1, asks for more than this host has, or
    /// was compiled for another machine.
    pub fn load(Precompiled(code): Precompiled, limits: Limits) -> Result<Self, Unusable> {
        if code.is_empty() {
            return Err(Unusable::Absent);
        }
        let engine = engine().map_err(invalid)?;
        // SAFETY: whoever made the `Precompiled` vouches for its bytes.
        let module = unsafe { wasmtime::Module::deserialize(&engine, code) };
        Self::link(&module.map_err(invalid)?, limits)
    }

    /// Compiles a module, which takes a while.
    ///
    /// # Errors
    ///
    /// [`Unusable`] for what is no module of proxy-wasm ABI 0.2.1, or asks for more than this host has.
    #[cfg(feature = "compiler")]
    pub fn compile(wasm: &[u8], limits: Limits) -> Result<Self, Unusable> {
        let module = engine().and_then(|engine| wasmtime::Module::new(&engine, wasm));
        Self::link(&module.map_err(invalid)?, limits)
    }

    fn link(module: &wasmtime::Module, limits: Limits) -> Result<Self, Unusable> {
        if module.get_export(ABI).is_none() {
            return Err(Unusable::NotProxyWasm);
        }
        let import = |error: wasmtime::Error| Unusable::Import(format!("{error:#}"));
        let engine = module.engine();
        let mut linker = Linker::new(engine);
        calls::link(&mut linker).and_then(|()| wasi::link(&mut linker)).map_err(import)?;
        let instance = linker.instantiate_pre(module).map_err(import)?;
        let clock = engine.weak();
        thread::spawn(move || tick(&clock));
        Ok(Self { instance, limits })
    }
}

/// What code is compiled by and run on: both have to be of one configuration. The target is named, so
/// that code does not need a processor like the one it was compiled on.
fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true).target(env!("VKEY_TARGET"))?;
    Engine::new(&config)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped by")]
fn invalid(error: wasmtime::Error) -> Unusable {
    Unusable::Invalid(format!("{error:#}"))
}

/// Moves the clock of deadlines on for as long as there is a module.
fn tick(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        thread::sleep(TICK);
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not built in"),
            Self::Invalid(error) => write!(f, "it is no code for this machine: {error}"),
            Self::NotProxyWasm => write!(f, "it does not export {ABI}"),
            Self::Import(error) => write!(f, "it asks for what this host does not have: {error}"),
        }
    }
}
