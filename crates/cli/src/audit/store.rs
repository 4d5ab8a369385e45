//! Why a store cannot be used, as the commands say it.

use std::fmt;

use vkey_server::store::StoreError;

use crate::error::Failure;
use crate::exit::Exit;
use crate::text::escape_sentence;

/// A store cannot be used.
#[derive(Debug)]
pub(crate) struct StoreFailure {
    /// What messages call its file.
    what: &'static str,
    error: StoreError,
}

// === impl StoreFailure ===

impl StoreFailure {
    /// The failure to use a file.
    pub(crate) fn new(what: &'static str, error: StoreError) -> Self {
        Self { what, error }
    }
}

impl Failure for StoreFailure {
    fn exit(&self) -> Exit {
        match &self.error {
            StoreError::Newer | StoreError::Older | StoreError::Damaged | StoreError::Foreign => {
                Exit::Refused
            }
            StoreError::File(..)
            | StoreError::Locked(_)
            | StoreError::Busy
            | StoreError::Interrupted
            | StoreError::Timer(_)
            | StoreError::Sqlite(_) => Exit::Environment,
        }
    }
}

impl fmt::Display for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what;
        match &self.error {
            // The path was typed, and may be anything.
            StoreError::File(_, error) => {
                write!(f, "{what} cannot be used: {error}; check the path")
            }
            error => write!(f, "{what}: {}", escape_sentence(&error.to_string())),
        }
    }
}
