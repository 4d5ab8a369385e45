//! Protects the process from others of the same user.

use std::{fmt, io};

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::Failure;
use super::exit::Exit;

/// The process could not be protected.
#[derive(Debug)]
pub(super) struct NotPrivate(io::Error);

/// Keeps processes of the same user from reading our environment and memory, and keeps both out of core
/// dumps.
pub(super) fn keep_private() -> Result<(), NotPrivate> {
    let not_private = |errno: rustix::io::Errno| NotPrivate(errno.into());
    #[cfg(target_os = "linux")]
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(not_private)?;
    // Only the soft limit: a program that we start may want core dumps.
    let none = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    setrlimit(Resource::Core, none).map_err(not_private)
}

impl Failure for NotPrivate {
    fn exit(&self) -> Exit {
        Exit::Environment
    }
}

impl fmt::Display for NotPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot keep other processes from reading the memory of this one: {}", self.0)
    }
}
