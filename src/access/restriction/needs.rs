//! What conditions need to know of the arguments of a call.

use crate::body::mcp::Pointer;

/// The most pointers into the arguments that the conditions of a key, its tier and its tenant may have together. A key
/// with more is refused.
pub const MAX_POINTERS: usize = 64;

/// What of the arguments of a tool some conditions depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgumentNeeds {
    /// The values at these pointers, each of which is there once.
    pub pointers: Vec<Pointer>,
    /// The names of the arguments.
    pub names: bool,
}

// === impl ArgumentNeeds ===

impl ArgumentNeeds {
    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty() && !self.names
    }

    /// Whether more is needed than a key may need.
    pub fn is_excessive(&self) -> bool {
        self.pointers.len() > MAX_POINTERS
    }

    /// Adds a pointer, if it is not there, nor more than too many.
    pub(super) fn add(&mut self, pointer: &Pointer) {
        if !self.is_excessive() && !self.pointers.contains(pointer) {
            self.pointers.push(pointer.clone());
        }
    }
}
