//! `vkey audit`: reads audit trails, and the store that `vkey serve` collects them in.

mod backup;
mod query;
mod restore;
mod secrets;
mod store;
mod verify;

pub(super) use secrets::SecretArgs;
pub(super) use store::StoreFailure;

use super::error::Error;
use super::exit::Exit;
use super::output::Output;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Verify the chains of audit records in logs, and name what is missing, added, moved or changed
    Verify(verify::Args),
    /// Print records of the store of `vkey serve`, the latest first
    Query(Box<query::Args>),
    /// Copy the store of `vkey serve` into a new file, while it may collect
    Backup(backup::Args),
    /// Put a backup in the place of a store, unless another copy has seen anchors for what the backup lacks
    Restore(restore::Args),
}

/// Runs `vkey audit`.
pub(super) fn run(command: &Command, out: &mut Output) -> Result<Exit, Error> {
    match command {
        Command::Verify(args) => verify::run(args, out),
        Command::Query(args) => query::run(args, out),
        Command::Backup(args) => backup::run(args, out),
        Command::Restore(args) => restore::run(args, out),
    }
}
