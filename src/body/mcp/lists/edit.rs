//! Changes to a document.

use std::ops::Range;

/// A change to a document: what stands in place of some of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The bytes that go. An empty range is a place between two bytes.
    pub range: Range<usize>,
    /// What stands there instead; empty where something is only removed.
    pub text: &'static str,
}

// === impl Edit ===

impl Edit {
    /// The document with these edits, which are in the order of their ranges and do not overlap.
    pub fn apply(edits: &[Self], document: &[u8]) -> Vec<u8> {
        let mut edited = Vec::with_capacity(document.len());
        let mut from = 0;
        for Self { range, text } in edits {
            edited.extend_from_slice(document.get(from..range.start).unwrap_or_default());
            edited.extend_from_slice(text.as_bytes());
            from = range.end;
        }
        edited.extend_from_slice(document.get(from..).unwrap_or_default());
        edited
    }
}
