//! The `vkey` command: mints keys, narrows them, explains what the gate makes of them, asks a gate
//! what it has counted for one, holds upstreams against the TLS policy, judges requests by the module
//! itself, and stands as a gate in front of an MCP server.
//!
//! Secrets and keys come from standard input, a file or the environment, never from an argument:
//! every user of a machine can read the arguments of its processes. What was typed is not repeated
//! in an error either, since it may be a secret in the wrong place; errors name the option.
//!
//! Exit codes: 0 done, or allowed; 1 denied, or an input or an answer that is refused; 2 wrong
//! usage; 3 a file, the environment, the network or the system fails. A reader that closes standard
//! output early is no failure.

mod attenuate;
mod check;
mod client;
mod counts;
mod embedded;
mod error;
mod exit;
mod explain;
mod input;
mod inspect;
mod limits;
mod lines;
mod mcp;
mod mint;
mod misuse;
mod output;
mod private;
mod process;
mod report;
mod ring;
mod run;
mod secret;
mod strength;
mod text;
mod time;
mod tls;
mod url;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use vkey_vm::BuiltIn;

use error::Error;
use exit::Exit;
use output::Output;

/// Virtual keys for AI and MCP traffic: mint them, narrow them, explain what a gate makes of them.
#[derive(Parser)]
#[command(name = "vkey", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Secrets and keys come from standard input, a file or the environment, never from an argument.

Exit codes: 0 done, or allowed; 1 denied, or an input or an answer that is refused; \
2 wrong usage; 3 a file, the environment, the network or the system fails.";

#[derive(Subcommand)]
enum Command {
    /// Make secrets that rings sign with
    #[command(subcommand)]
    Secret(secret::Command),
    /// Mint a key; it goes to standard output, what is to be known about it to standard error
    Mint(Box<mint::Args>),
    /// Narrow a key by caveats, without any secret; the narrowed key goes to standard output
    Attenuate(attenuate::Args),
    /// Show what a key says, without verifying any of it
    Inspect(inspect::Args),
    /// Decide on one access as the gate would, and show the verdict of each rule
    Explain(Box<explain::Args>),
    /// Look at plugin configurations
    #[command(subcommand)]
    Config(check::Command),
    /// Look at the upstream-TLS policy, and at how proxies keep it
    #[command(subcommand)]
    Tls(tls::Command),
    /// Ask a running gate for a key's counts and allowances
    Usage(Box<usage::Args>),
    /// Judge requests, JSON lines on standard input, by the module itself; a line of result for each
    Run(run::Args),
    /// Stand between an MCP client and the MCP server that a command starts, and judge each message
    Mcp(Box<mcp::Args>),
}

/// Runs the command by the arguments of the process; `modules` are what its embedded host runs.
pub fn main(modules: BuiltIn) -> ExitCode {
    let mut out = Output::standard();
    let done = match Cli::try_parse() {
        Ok(cli) => {
            run(&cli.command, modules, &mut out).and_then(|exit| Ok(out.finish().map(|()| exit)?))
        }
        Err(error) => return misuse::report(error, &mut out).into(),
    };
    let exit = done.unwrap_or_else(|error| {
        out.note(&error);
        error.exit()
    });
    exit.into()
}

fn run(command: &Command, modules: BuiltIn, out: &mut Output) -> Result<Exit, Error> {
    process::keep_private()?;
    match command {
        Command::Secret(command) => secret::run(command, out),
        Command::Mint(args) => mint::run(args, out),
        Command::Attenuate(args) => attenuate::run(args, out),
        Command::Inspect(args) => inspect::run(args, out),
        Command::Explain(args) => explain::run(args, out),
        Command::Config(command) => check::run(command, out),
        Command::Tls(command) => tls::run(command, out),
        Command::Usage(args) => usage::run(args, out),
        Command::Run(args) => run::run(args, modules, out),
        Command::Mcp(args) => mcp::run(args, modules, out),
    }
}
