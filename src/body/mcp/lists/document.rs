//! A message, and the scanner that reads it.

use super::edit::Edit;
use super::head::Asked;
use super::reading::{Allows, Judge, Reading};
use crate::body::json::{Limits, Scanner, Unreadable};

/// Reads one message after the other.
#[derive(Debug)]
pub(super) struct Document {
    scanner: Scanner,
    pub(super) reading: Reading,
}

// === impl Document ===

impl Document {
    pub(super) fn new(asked: Asked, is_modern: bool, limits: Limits) -> Self {
        Self { scanner: Scanner::new(limits), reading: Reading::new(asked, is_modern) }
    }

    /// Reads more of the message.
    pub(super) fn feed(&mut self, bytes: &[u8], allows: Allows<'_>) -> Result<(), Unreadable> {
        let mut judge = Judge { reading: &mut self.reading, allows };
        self.scanner.feed(bytes, &mut judge)
    }

    /// Ends the message. Returns what has to be changed in it.
    pub(super) fn finish(&mut self, allows: Allows<'_>) -> Result<Vec<Edit>, Unreadable> {
        let mut judge = Judge { reading: &mut self.reading, allows };
        match self.scanner.finish(&mut judge) {
            Ok(()) => Ok(std::mem::take(&mut self.reading.edits)),
            // Nothing is no list.
            Err(Unreadable::Empty) => Ok(Vec::new()),
            Err(cause) => Err(cause),
        }
    }

    /// Begins another message.
    pub(super) fn reset(&mut self) {
        self.scanner.reset();
        self.reading.reset();
    }
}
