//! A compiled module, checked against what this host provides.

#![allow(unsafe_code)]

use std::fmt;
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Engine, EngineWeak, InstancePre, Linker};

use vkey::host::Rules;

use super::state::State;
use super::{calls, wasi};

/// The resolution of deadlines.
const TICK: Duration = Duration::from_millis(10);

/// The export that names the ABI version of a module.
const ABI: &str = "proxy_abi_version_0_2_1";

/// The limits of one VM.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time for one callback, or for several that share a deadline; rounded up to 10 ms.
    pub deadline: Duration,
    /// The memory limit, in bytes.
    pub memory_bytes: usize,
}

/// A compiled and linked module. Clones share the code.
#[derive(Clone)]
pub struct Module {
    pub(super) instance: InstancePre<State>,
    pub(super) limits: Limits,
}

/// The output of `precompile`.
#[derive(Clone, Copy)]
pub struct Precompiled(&'static [u8]);

/// The modules built into a command. There are two, because hosts call different callbacks.
#[derive(Clone, Copy)]
pub struct BuiltIn {
    /// `vkey.wasm`.
    pub module: Precompiled,
    /// `vkey-nginx.wasm`.
    pub nginx: Precompiled,
}

/// Why bytes are not a module that this host can run.
#[derive(Debug)]
pub enum ModuleError {
    /// They are empty: the command was built without the module.
    Absent,
    /// They are not valid WebAssembly, or were compiled for another machine.
    Invalid(String),
    /// The module does not export the ABI version.
    NotProxyWasm,
    /// The module imports something that this host lacks, or with another signature.
    Import(String),
}

impl BuiltIn {
    /// The module for a host of these rules.
    pub fn of(self, rules: Rules) -> Precompiled {
        if rules == Rules::Nginx { self.nginx } else { self.module }
    }
}

impl Default for Limits {
    /// One second and 128 MiB: enough for a configuration of 100 000 tenants that each have a rate, and many
    /// times what others need.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(1), memory_bytes: 128 * 1024 * 1024 }
    }
}

impl Limits {
    /// The deadline in ticks, plus one: the first tick may come at once.
    pub(super) fn ticks(self) -> u64 {
        let ticks = self.deadline.as_nanos().div_ceil(TICK.as_nanos());
        u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
    }
}

// === impl Precompiled ===

impl Precompiled {
    /// Code that was compiled ahead of time. It is empty if there is no module.
    ///
    /// # Safety
    ///
    /// The code is executed unchecked: the bytes must be empty, or the output of `precompile` of this
    /// version.
    pub const unsafe fn new(code: &'static [u8]) -> Self {
        Self(code)
    }
}

/// Compiles a module ahead of time, for every machine of this kind.
///
/// # Errors
///
/// [`ModuleError`] if the bytes are not valid WebAssembly.
#[cfg(feature = "compiler")]
pub fn precompile(wasm: &[u8]) -> Result<Vec<u8>, ModuleError> {
    let compiled = engine().and_then(|engine| engine.precompile_module(wasm));
    compiled.map_err(invalid)
}

// === impl Module ===

impl Module {
    /// Loads a module that was compiled ahead of time.
    ///
    /// # Errors
    ///
    /// [`ModuleError`] if the code is not a module of proxy-wasm ABI 0.2.1, imports more than this host
    /// provides, or was compiled for another machine.
    pub fn load(Precompiled(code): Precompiled, limits: Limits) -> Result<Self, ModuleError> {
        if code.is_empty() {
            return Err(ModuleError::Absent);
        }
        let engine = engine().map_err(invalid)?;
        // SAFETY: `Precompiled::new` requires its caller to vouch for the bytes.
        let module = unsafe { wasmtime::Module::deserialize(&engine, code) };
        Self::link(&module.map_err(invalid)?, limits)
    }

    /// Compiles a module. This is slow.
    ///
    /// # Errors
    ///
    /// [`ModuleError`] if the bytes are not a module of proxy-wasm ABI 0.2.1, or import more than this host
    /// provides.
    #[cfg(feature = "compiler")]
    pub fn compile(wasm: &[u8], limits: Limits) -> Result<Self, ModuleError> {
        let module = engine().and_then(|engine| wasmtime::Module::new(&engine, wasm));
        Self::link(&module.map_err(invalid)?, limits)
    }

    fn link(module: &wasmtime::Module, limits: Limits) -> Result<Self, ModuleError> {
        if module.get_export(ABI).is_none() {
            return Err(ModuleError::NotProxyWasm);
        }
        let import = |error: wasmtime::Error| ModuleError::Import(format!("{error:#}"));
        let engine = module.engine();
        let mut linker = Linker::new(engine);
        calls::link(&mut linker).and_then(|()| wasi::link(&mut linker)).map_err(import)?;
        let instance = linker.instantiate_pre(module).map_err(import)?;
        let clock = engine.weak();
        thread::spawn(move || tick(&clock));
        Ok(Self { instance, limits })
    }
}

/// The engine that compiles and runs code; both sides must have the same configuration. The target is
/// explicit, so that the code does not depend on the features of the processor it was compiled on.
fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true).target(env!("VKEY_TARGET"))?;
    Engine::new(&config)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped by")]
fn invalid(error: wasmtime::Error) -> ModuleError {
    ModuleError::Invalid(format!("{error:#}"))
}

/// Advances the engine's epoch, which deadlines count, as long as there is a module.
fn tick(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        thread::sleep(TICK);
    }
}

impl fmt::Display for ModuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not built in"),
            Self::Invalid(error) => write!(f, "it is not valid code for this machine: {error}"),
            Self::NotProxyWasm => write!(f, "it does not export {ABI}"),
            Self::Import(error) => write!(f, "it imports what this host does not provide: {error}"),
        }
    }
}
