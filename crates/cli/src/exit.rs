//! Exit codes.

use std::process::ExitCode;

/// An exit code. Scripts depend on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// Success; in `explain`: allowed.
    Success = 0,
    /// In `explain`: denied. Elsewhere: an input or a response was read and is not acceptable.
    Refused = 1,
    /// The arguments are invalid.
    Usage = 2,
    /// A file, the environment, the network or the system failed.
    Environment = 3,
    /// The input lacks what decides. In `explain`: the body. In `tls lint`: a configuration to check. In `audit
    /// verify`: a chain.
    Undecided = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
