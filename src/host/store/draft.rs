//! The content of a record on its way through the loops of the store.

use crate::record::{Name, NotThisRecord, Record, decode_over, overwrite};

/// The content of a record while it is read and changed. The loops and their host calls see it through this trait, so
/// they are compiled once, not for each kind of record.
pub(super) trait Content {
    /// Reads it from a record. Without a valid one, there is none.
    fn read(&mut self, record: &[u8]) -> Result<(), NotThisRecord>;

    /// Forgets it, because the record does not exist.
    fn forget(&mut self);

    /// Changes it. It begins as a fresh one.
    fn change(&mut self);

    /// Encodes it, or a fresh one, in the memory of a record. Returns whether that differed.
    fn overwrite(&self, record: &mut Vec<u8>) -> bool;
}

/// A change of a kind of record. Not a closure, because a pointer to one needs its code twice: as `FnMut` and as `FnOnce`.
pub(super) trait Change<R> {
    fn apply(&mut self, content: &mut R);
}

/// A change and the result of its last call.
pub(super) struct Changing<C, T> {
    change: C,
    pub(super) result: Option<T>,
}

/// The content of a kind of record, and what changes it.
pub(super) struct Draft<'a, R> {
    pub(super) name: &'a Name,
    /// Boxed, because cells are large, and move from a snapshot to an update.
    pub(super) content: Option<Box<R>>,
    pub(super) change: Option<&'a mut dyn Change<R>>,
}

impl<R, T, C: FnMut(&mut R) -> T> Change<R> for Changing<C, T> {
    fn apply(&mut self, content: &mut R) {
        self.result = Some((self.change)(content));
    }
}

impl<C, T> Changing<C, T> {
    pub(super) fn new(change: C) -> Self {
        Self { change, result: None }
    }
}

impl<'a, R> Draft<'a, R> {
    /// A draft that nothing changes.
    pub(super) fn new(name: &'a Name) -> Self {
        Self { name, content: None, change: None }
    }
}

impl<R: Record> Content for Draft<'_, R> {
    fn read(&mut self, record: &[u8]) -> Result<(), NotThisRecord> {
        let content = self.content.insert(Box::new(R::fresh()));
        let read = decode_over(self.name, record, &mut **content);
        if read.is_err() {
            self.content = None;
        }
        read
    }

    fn forget(&mut self) {
        self.content = None;
    }

    fn change(&mut self) {
        let content = self.content.get_or_insert_with(|| Box::new(R::fresh()));
        if let Some(change) = &mut self.change {
            change.apply(content);
        }
    }

    fn overwrite(&self, record: &mut Vec<u8>) -> bool {
        match &self.content {
            Some(content) => overwrite(self.name, &**content, record),
            None => overwrite(self.name, &R::fresh(), record),
        }
    }
}
