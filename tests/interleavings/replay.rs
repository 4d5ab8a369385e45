//! One step of one worker.

use std::cell::{Cell as Place, RefCell};
use std::panic::resume_unwind;

use vkey::host::{HostError, MemoryStore, SharedData, WriteError};
use vkey::limits::cell::{Cell, key_name};
use vkey::record::encode;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    Read(String, Option<(Vec<u8>, u32)>),
    Written,
    Mismatch,
}

/// The shared data as a worker meets it that is run again.
pub(crate) struct Replay<'a> {
    pub(crate) store: &'a MemoryStore,
    pub(crate) answers: &'a [Answer],
    pub(crate) given: Place<usize>,
    pub(crate) fresh: RefCell<Option<Answer>>,
    /// Every `cas` that is never issued becomes 0.
    pub(crate) create_with_zero: bool,
    /// What is put in the place of garbage overwrites whatever is there.
    pub(crate) reset_with_zero: bool,
}

/// The worker has come as far as it can in this step.
pub(crate) struct Suspended;

impl Replay<'_> {
    fn answer(&self, call: impl FnOnce() -> Answer) -> Answer {
        let index = self.given.replace(self.given.get() + 1);
        if let Some(answer) = self.answers.get(index) {
            return answer.clone();
        }
        if self.fresh.borrow().is_some() {
            // Without the hook that would print a message.
            resume_unwind(Box::new(Suspended));
        }
        let answer = call();
        *self.fresh.borrow_mut() = Some(answer.clone());
        answer
    }
}

impl SharedData for Replay<'_> {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        let read = || Answer::Read(name.to_owned(), self.store.shared_data(name).unwrap());
        match self.answer(read) {
            Answer::Read(_, record) => Ok(record),
            answer => panic!("{answer:?} for a read"),
        }
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        let resets = record == encode(&key_name("acme", "k"), &Cell::default());
        let overwrites =
            (self.create_with_zero && cas == u32::MAX) || (self.reset_with_zero && resets);
        let cas = if overwrites { 0 } else { cas };
        let write = || match self.store.set_shared_data(name, record, cas) {
            Ok(()) => Answer::Written,
            Err(WriteError::CasMismatch) => Answer::Mismatch,
            Err(error) => panic!("{error:?}"),
        };
        match self.answer(write) {
            Answer::Written => Ok(()),
            Answer::Mismatch => Err(WriteError::CasMismatch),
            answer => panic!("{answer:?} for a write"),
        }
    }
}
