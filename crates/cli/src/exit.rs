//! What the command exits with.

use std::process::ExitCode;

/// What the command exits with. Scripts depend on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// Done; in `explain`: allowed.
    Success = 0,
    /// In `explain`: denied. An input or an answer was read and is not acceptable.
    Refused = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// A file, the environment, the network or the system fails.
    Environment = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
