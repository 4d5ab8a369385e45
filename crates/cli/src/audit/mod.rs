//! `vkey audit`: reads audit trails.

mod secrets;
mod verify;

pub(super) use secrets::SecretArgs;

use super::error::Error;
use super::exit::Exit;
use super::output::Output;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Verify the chains of audit records in logs, and name what is missing, added, moved or changed
    Verify(verify::Args),
}

/// Runs `vkey audit`.
pub(super) fn run(command: &Command, out: &mut Output) -> Result<Exit, Error> {
    match command {
        Command::Verify(args) => verify::run(args, out),
    }
}
