//! A body on its way through the in-memory host.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::host::HostError;

/// A body that comes in parts. Like Envoy, the host shows a part by itself if what came before has gone on, and
/// otherwise together with all that it holds.
#[derive(Debug, Default)]
pub struct MemoryBody {
    coming: RefCell<VecDeque<Vec<u8>>>,
    shown: RefCell<Vec<u8>>,
    passed: RefCell<Vec<u8>>,
}

/// A part has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// How many bytes the host shows now.
    pub bytes: usize,
    /// Whether no part follows.
    pub is_last: bool,
}

impl MemoryBody {
    /// Adds a part that is to come.
    pub fn push(&self, part: impl Into<Vec<u8>>) {
        self.coming.borrow_mut().push_back(part.into());
    }

    /// Whether no part is to come.
    pub fn has_come(&self) -> bool {
        self.coming.borrow().is_empty()
    }

    /// Shows the next part; `None` if there is none.
    pub fn arrive(&self) -> Option<Arrived> {
        let mut part = self.coming.borrow_mut().pop_front()?;
        let mut shown = self.shown.borrow_mut();
        shown.append(&mut part);
        Some(Arrived { bytes: shown.len(), is_last: self.has_come() })
    }

    /// Lets go on what the host shows.
    pub fn pass(&self) {
        self.passed.borrow_mut().append(&mut self.shown.borrow_mut());
    }

    /// What has gone on.
    pub fn passed(&self) -> Vec<u8> {
        self.passed.borrow().clone()
    }

    /// How much has gone on.
    pub fn passed_bytes(&self) -> usize {
        self.passed.borrow().len()
    }

    /// Forgets all of it.
    pub fn clear(&self) {
        self.coming.borrow_mut().clear();
        self.shown.replace(Vec::new());
        self.passed.replace(Vec::new());
    }

    /// The bytes from `start`, at most `max_len`.
    pub(super) fn read(&self, start: usize, max_len: usize) -> Option<Vec<u8>> {
        let shown = self.shown.borrow();
        let rest = shown.get(start..)?;
        Some(rest.get(..max_len).unwrap_or(rest).to_vec())
    }

    /// Follows the rules of Envoy, which replaces nothing in the middle.
    pub(super) fn set(&self, start: usize, len: usize, bytes: &[u8]) -> Result<(), HostError> {
        let mut shown = self.shown.borrow_mut();
        if start == 0 {
            let len = len.min(shown.len());
            shown.splice(..len, bytes.iter().copied());
        } else if start >= shown.len() {
            shown.extend_from_slice(bytes);
        } else {
            return Err(HostError::BAD_ARGUMENT);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(parts: &[&str]) -> MemoryBody {
        let body = MemoryBody::default();
        parts.iter().for_each(|part| body.push(*part));
        body
    }

    #[test]
    fn what_is_held_is_shown_together() {
        let body = body(&["ab", "cd", "e"]);
        assert_eq!(body.arrive(), Some(Arrived { bytes: 2, is_last: false }));
        assert_eq!(body.arrive(), Some(Arrived { bytes: 4, is_last: false }));
        assert_eq!(body.read(1, 2), Some(b"bc".to_vec()));
        assert_eq!((body.read(3, 9), body.read(4, 1)), (Some(b"d".to_vec()), Some(Vec::new())));
        assert_eq!(body.read(5, 1), None);
        body.pass();
        assert_eq!(body.arrive(), Some(Arrived { bytes: 1, is_last: true }));
        assert_eq!((body.read(0, 9), body.passed()), (Some(b"e".to_vec()), b"abcd".to_vec()));
        assert_eq!(body.arrive(), None);
    }

    /// Envoy: `source/extensions/common/wasm/context.cc`, `Buffer::copyFrom`.
    #[test]
    fn a_body_is_changed_at_its_ends_only() {
        let body = body(&["abcd"]);
        body.arrive();
        assert_eq!(body.set(1, 1, b"x"), Err(HostError::BAD_ARGUMENT));
        assert_eq!(body.set(0, 2, b"AB-"), Ok(()));
        assert_eq!(body.set(9, 0, b"e"), Ok(()));
        assert_eq!(body.set(0, 0, b"<"), Ok(()));
        assert_eq!(body.read(0, 99), Some(b"<AB-cde".to_vec()));
        assert_eq!(body.set(0, 99, b""), Ok(()));
        assert_eq!(body.read(0, 99), Some(Vec::new()));
    }
}
