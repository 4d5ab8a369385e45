//! What the system lets others see of the process.

use std::io;

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Keeps processes of the same user from reading our environment and memory, and both out of core
/// files.
pub(super) fn keep_private() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Only the current limit: a program that we start may want core files of its own.
    let none = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    Ok(setrlimit(Resource::Core, none)?)
}
