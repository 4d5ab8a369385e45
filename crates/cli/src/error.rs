//! Why the command cannot do what it is told.

use std::fmt;

use super::exit::Exit;

/// The errors of one command, or of one thing that commands share. The texts name options and members,
/// and quote nothing that was typed or read: it may be a secret in the wrong place.
pub(super) trait Failure: fmt::Debug + fmt::Display + Send {
    /// What the command exits with.
    fn exit(&self) -> Exit;
}

/// Any failure: what a command returns, and the top level prints.
#[derive(Debug)]
pub(super) struct Error(Box<dyn Failure>);

impl Error {
    /// What the command exits with.
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
