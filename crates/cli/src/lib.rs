//! The `vkey` command: mints and attenuates keys, explains a gate's decisions, asks a gate for the counts of
//! a key, checks proxy configuration against the TLS policy, evaluates requests with the module itself, and
//! runs as a gate for an MCP server.
//!
//! Secrets and keys come from standard input, a file or the environment, never from an argument: every user
//! of a machine can read the arguments of its processes. Errors do not repeat what was typed either, because
//! it may be a misplaced secret; they name the option, or the file once it was read.
//!
//! Exit codes: 0 success, or allowed; 1 denied, or an input or a response that is not acceptable; 2 invalid
//! usage; 3 a file, the environment, the network or the system failed; 4 undecided without a body (`explain`), or
//! nothing to check (`tls lint`, `audit verify`). If the reader closes standard output early, that is not a failure.

mod accounts;
mod ai;
mod attenuate;
mod audit;
mod bodies;
mod calls;
mod check;
mod client;
mod config_file;
mod counts;
mod delivery;
mod deployment;
mod document;
mod ecds;
mod embedded;
mod error;
mod evaluated;
mod exit;
mod explain;
mod input;
mod inspect;
mod keys;
mod ledger;
mod limits;
mod lines;
mod mcp;
mod mint;
mod named_message;
mod output;
mod overlap;
mod plugins;
mod private;
mod process;
mod register;
mod report;
mod request_body;
mod review;
mod ring;
mod ring_secret;
mod run;
mod secret;
mod serve;
mod strength;
mod text;
mod time;
mod tls;
mod url;
mod usage;
mod usage_error;
mod uses;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use vkey_vm::BuiltIn;

use error::Error;
use exit::Exit;
use output::Output;

/// Virtual keys for AI and MCP traffic: mint them, narrow them, explain how a gate decides.
#[derive(Parser)]
#[command(name = "vkey", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Secrets and keys come from standard input, a file or the environment, never from an argument.

Exit codes: 0 success, or allowed; 1 denied, or an input or a response that is not acceptable; \
2 invalid usage; 3 a file, the environment, the network or the system failed; \
4 undecided without a body (explain), or nothing to check (tls lint, audit verify).";

#[derive(Subcommand)]
enum Command {
    /// Make secrets for rings to sign with
    #[command(subcommand)]
    Secret(secret::Command),
    /// Mint a key; prints it to standard output, and notes about it to standard error
    Mint(Box<mint::Args>),
    /// List the keys that were minted into a register (`mint --register`), and whether they are still valid
    Keys(keys::Args),
    /// Narrow a key by caveats, without a secret; prints the narrowed key to standard output
    Attenuate(attenuate::Args),
    /// Show the content of a key, without verifying it
    Inspect(inspect::Args),
    /// Evaluate one access like the gate, and show the result of each rule
    Explain(Box<explain::Args>),
    /// Check plugin configurations
    #[command(subcommand)]
    Config(check::Command),
    /// Show the upstream-TLS policy, and check proxies against it
    #[command(subcommand)]
    Tls(tls::Command),
    /// Ask a running gate for a key's counts and allowances
    Usage(Box<usage::Args>),
    /// Evaluate requests, JSON lines on standard input, with the module itself; prints one result per line
    Run(run::Args),
    /// Verify audit trails, and query, back up and restore the store that they are collected in
    #[command(subcommand)]
    Audit(audit::Command),
    /// Collect audit trails, and serve a page and an API about them
    Serve(Box<serve::Args>),
    /// Run as a gate between an MCP client and an MCP server that the command starts
    Mcp(Box<mcp::Args>),
}

/// Runs the command with the arguments of the process; the embedded host runs `modules`.
pub fn main(modules: BuiltIn) -> ExitCode {
    let mut out = Output::standard();
    let done = match Cli::try_parse() {
        Ok(cli) => {
            run(&cli.command, modules, &mut out).and_then(|exit| Ok(out.finish().map(|()| exit)?))
        }
        Err(error) => return usage_error::report(error, &mut out).into(),
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
        Command::Keys(args) => keys::run(args, out),
        Command::Attenuate(args) => attenuate::run(args, out),
        Command::Inspect(args) => inspect::run(args, out),
        Command::Explain(args) => explain::run(args, out),
        Command::Config(command) => check::run(command, out),
        Command::Tls(command) => tls::run(command, out),
        Command::Usage(args) => usage::run(args, out),
        Command::Audit(command) => audit::run(command, out),
        Command::Serve(args) => serve::run(args, out),
        Command::Run(args) => run::run(args, modules, out),
        Command::Mcp(args) => mcp::run(args, modules, out),
    }
}
