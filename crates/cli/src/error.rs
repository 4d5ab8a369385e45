//! The error that every command returns.

use std::fmt;

use vkey::issuing::{CannotMint, CannotNarrow, KeyFlaw, OPTIONS};

use super::exit::Exit;

/// The errors of one command, or of one part that commands share. Messages name options, members, and files
/// that exist. They quote nothing else that was typed or read, because it may be a misplaced secret.
pub(super) trait Failure: fmt::Debug + fmt::Display + Send {
    /// The exit code.
    fn exit(&self) -> Exit;
}

/// Any failure: commands return it, and `main` prints it.
#[derive(Debug)]
pub(super) struct Error(Box<dyn Failure>);

impl Error {
    /// The exit code.
    pub(super) fn exit(&self) -> Exit {
        self.0.exit()
    }
}

impl<F: Failure + 'static> From<F> for Error {
    fn from(failure: F) -> Self {
        Self(Box::new(failure))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Failure for KeyFlaw {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

/// A key cannot be minted or narrowed. It names the options of the command.
#[derive(Debug)]
struct Refused(String);

impl Failure for Refused {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<CannotNarrow> for Error {
    fn from(cannot: CannotNarrow) -> Self {
        Refused(cannot.sentence(&OPTIONS)).into()
    }
}

impl From<CannotMint> for Error {
    fn from(cannot: CannotMint) -> Self {
        Refused(cannot.sentence(&OPTIONS)).into()
    }
}
