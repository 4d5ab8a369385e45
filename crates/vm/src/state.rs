//! What a VM's host keeps for it.

use std::collections::BTreeMap;

use wasmtime::{Memory, ResourceLimiter, TypedFunc};

use vkey::host::MemoryHost;

/// The host's side of one VM.
pub(super) struct State {
    /// The hosts of the contexts that are open.
    pub(super) hosts: BTreeMap<u32, MemoryHost>,
    /// The context that host calls are about.
    pub(super) current: u32,
    /// The plugin's configuration.
    pub(super) configuration: Vec<u8>,
    /// The environment variables that the module sees, each `NAME=value` with a NUL behind it.
    pub(super) environment: Vec<Vec<u8>>,
    /// The ways into the module's memory, once there is an instance.
    pub(super) guest: Option<(Memory, TypedFunc<u32, u32>)>,
    /// The most memory that the module may have, in bytes.
    max_memory_bytes: usize,
    /// It wanted more.
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

    /// The host of the context that the module is called for.
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

    /// A table holds the functions that are called by pointer; no program grows it much.
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
