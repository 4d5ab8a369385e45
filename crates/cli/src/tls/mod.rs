//! `vkey tls`: shows the upstream-TLS policy, checks and renders proxy configuration, and shows Envoy's
//! state.

mod admin;
mod error;
mod lint;
mod policy;
mod render;
mod show;
mod status;
mod upstream_status;

pub(super) use lint::{Chain, SEAL, chains, is_seal};
pub(super) use policy::policy_file;

use super::document;
use super::error::Error;
use super::exit::Exit;
use super::output::Output;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the Envoy clusters that violate the policy, with the reason and the fix
    Lint(lint::Args),
    /// Render proxy configuration for a list of upstreams that satisfies the policy
    Render(render::Args),
    /// Show the policy in force
    Show(show::Args),
    /// Show the state of the upstreams of a running Envoy
    Status(status::Args),
}

/// Runs `vkey tls`.
pub(super) fn run(command: &Command, out: &mut Output) -> Result<Exit, Error> {
    match command {
        Command::Lint(args) => lint::run(args, out),
        Command::Render(args) => render::run(args, out),
        Command::Show(args) => show::run(args, out),
        Command::Status(args) => status::run(args, out),
    }
}
