//! One step of one worker.

use std::cell::{Cell as Place, RefCell};
use std::panic::resume_unwind;

use vkey::host::{HostError, MemoryStore, SharedData, WriteError};
use vkey::limits::cell::{Cell, key_name};
use vkey::record::encode;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CallResult {
    Read(String, Option<(Vec<u8>, u32)>),
    Written,
    Mismatch,
}

/// The shared data for a worker that runs again.
pub(crate) struct Replay<'a> {
    pub(crate) store: &'a MemoryStore,
    pub(crate) results: &'a [CallResult],
    pub(crate) given: Place<usize>,
    pub(crate) fresh: RefCell<Option<CallResult>>,
    /// Whether every `cas` that is never issued is replaced by 0.
    pub(crate) create_with_zero: bool,
    /// Whether resetting garbage overwrites any record.
    pub(crate) reset_with_zero: bool,
}

/// Unwinds a worker that has finished its step.
pub(crate) struct Suspended;

impl Replay<'_> {
    fn result(&self, call: impl FnOnce() -> CallResult) -> CallResult {
        let index = self.given.replace(self.given.get() + 1);
        if let Some(result) = self.results.get(index) {
            return result.clone();
        }
        if self.fresh.borrow().is_some() {
            // Bypasses the panic hook, which would print a message.
            resume_unwind(Box::new(Suspended));
        }
        let result = call();
        *self.fresh.borrow_mut() = Some(result.clone());
        result
    }
}

impl SharedData for Replay<'_> {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        let read = || CallResult::Read(name.to_owned(), self.store.shared_data(name).unwrap());
        match self.result(read) {
            CallResult::Read(_, record) => Ok(record),
            other => panic!("{other:?} for a read"),
        }
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        let resets = record == encode(&key_name("acme", "k"), &Cell::default());
        let overwrites =
            (self.create_with_zero && cas == u32::MAX) || (self.reset_with_zero && resets);
        let cas = if overwrites { 0 } else { cas };
        let write = || match self.store.set_shared_data(name, record, cas) {
            Ok(()) => CallResult::Written,
            Err(WriteError::CasMismatch) => CallResult::Mismatch,
            Err(error) => panic!("{error:?}"),
        };
        match self.result(write) {
            CallResult::Written => Ok(()),
            CallResult::Mismatch => Err(WriteError::CasMismatch),
            other => panic!("{other:?} for a write"),
        }
    }
}
