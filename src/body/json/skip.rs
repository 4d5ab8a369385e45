//! Skipping an object or array of which only the end matters.

use super::words::plain_bytes;

/// How far an object or array has been read whose opening bracket is behind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Skip {
    /// How many more are open inside of it.
    depth: u64,
    is_in_string: bool,
    /// Whether the last byte was a backslash in a string.
    is_escaped: bool,
}

// === impl Skip ===

impl Skip {
    /// Skips to the end of it, and removes what was read from `bytes`. Returns whether the end has come. Brackets of both
    /// kinds count alike.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> bool {
        let mut rest = *bytes;
        loop {
            if self.is_in_string && !self.is_escaped {
                rest = rest.get(plain_bytes(rest).0..).unwrap_or_default();
            }
            let Some((byte, after)) = rest.split_first() else { break };
            rest = after;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_in_string => self.is_escaped = true,
                b'"' => self.is_in_string = !self.is_in_string,
                b'{' | b'[' if !self.is_in_string => self.depth += 1,
                b'}' | b']' if !self.is_in_string => {
                    let Some(depth) = self.depth.checked_sub(1) else {
                        *bytes = rest;
                        return true;
                    };
                    self.depth = depth;
                }
                _ => {}
            }
        }
        *bytes = rest;
        false
    }
}
