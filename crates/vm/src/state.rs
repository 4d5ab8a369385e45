//! The host side of one VM: the state that host calls read and change.

use std::collections::BTreeMap;

use wasmtime::{Memory, ResourceLimiter, TypedFunc};

use vkey::host::MemoryHost;

/// The host side of one VM.
pub(super) struct State {
    /// The hosts of the open contexts, by context id.
    pub(super) hosts: BTreeMap<u32, MemoryHost>,
    /// The context that host calls apply to.
    pub(super) current: u32,
    /// The plugin's configuration.
    pub(super) configuration: Vec<u8>,
    /// The environment variables that the module sees, each as `NAME=value` with a trailing NUL.
    pub(super) environment: Vec<Vec<u8>>,
    /// The module's memory and its allocator, set once it is instantiated.
    pub(super) guest: Option<(Memory, TypedFunc<u32, u32>)>,
    /// The module's memory limit, in bytes.
    max_memory_bytes: usize,
    /// Whether the module was refused more memory.
    pub(super) wanted_more_memory: bool,
}

impl State {
    /// A host without contexts.
    pub(super) fn new(environment: &[(String, String)], max_memory_bytes: usize) -> Self {
        let entry = |(name, value): &(String, String)| format!("{name}={value}\0").into_bytes();
        Self {
            hosts: BTreeMap::new(),
            current: 0,
            configuration: Vec::new(),
            environment: environment.iter().map(entry).collect(),
            guest: None,
            max_memory_bytes,
            wanted_more_memory: false,
        }
    }

    /// The host of the context that host calls apply to.
    pub(super) fn host(&self) -> Option<&MemoryHost> {
        self.hosts.get(&self.current)
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= self.max_memory_bytes;
        self.wanted_more_memory |= !allowed;
        Ok(allowed)
    }

    /// A table holds the functions that are called by pointer. No real program grows it much.
    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        const MAX_ELEMENTS: usize = 100_000;
        Ok(desired <= MAX_ELEMENTS)
    }
}
