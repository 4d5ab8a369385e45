//! `vkey tls`: the upstream-TLS policy, what proxies are configured by, and what Envoy makes of it.

mod admin;
mod document;
mod error;
mod lint;
mod policy;
mod render;
mod show;
mod status;
mod upstream_status;

use super::error::Error;
use super::exit::Exit;
use super::output::Output;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Name each cluster of an Envoy that breaks the policy, why, and what to write instead
    Lint(lint::Args),
    /// Write the proxy configuration of a list of upstreams that satisfies the policy
    Render(render::Args),
    /// Show the policy in force
    Show(show::Args),
    /// Show how a running Envoy judges its upstreams
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
