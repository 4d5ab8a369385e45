//! What the gate costs on a real Envoy, beside Envoy's own filters: `make bench`.
//!
//! Every case is a listener that answers by itself, apart from those about an upstream. A load
//! generator on another core keeps it busy, and what counts is the CPU time that the process of Envoy
//! uses per request. The cases are measured by turns, in rounds; what a case adds is over a listener
//! without filters in the same round.
//!
//! On a machine that has other work, times are worth little. With `--count`, what counts is how many
//! instructions Envoy executes per request, under callgrind: nearly the same on a busy machine.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on stops, and its output is what it is for"
)]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod callgrind;
mod calls;
mod cases;
mod client;
mod filters;
mod functions;
mod groups;
mod instructions;
mod keys;
mod machine;
mod pieces;
mod plot;
mod process;
mod provider;
mod proxy;
mod report;
mod rounds;
mod start;
mod stats;
mod streams;
mod summary;
mod supply;
mod table;
mod tally;
mod targets;
mod wrk;

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::instructions::Counted;
use crate::keys::Issuer;
use crate::machine::Machine;
use crate::provider::Provider;
use crate::rounds::Effort;
use crate::start::Start;
use crate::summary::Summary;
use crate::support::artefact;
use crate::table::Table;
use crate::targets::{Piece, Target};

/// Measures what a request costs on a real Envoy, with and without the gate.
#[derive(Parser)]
struct Arguments {
    /// How often each case is measured
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// For how many seconds each time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only the cases with this in their id, and those they are compared with; `start` is one too
    #[arg(long, default_value = "")]
    cases: String,
    /// One round of a second: shows that everything works, and little else
    #[arg(long)]
    quick: bool,
    /// A target that is missed is a failure
    #[arg(long)]
    strict: bool,
    /// Instructions in the place of times; the cases of one worker, those that tell most if none
    /// are named
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "quick"])]
    count: bool,
    /// Where the module's own instructions go in this case: by function
    #[arg(long, value_name = "CASE", requires = "count", conflicts_with_all = ["cases", "strict"])]
    profile: Option<String>,
    /// As `cargo bench` calls it; nothing is measured without this
    #[arg(long, hide = true)]
    bench: bool,
}

/// All that was measured.
#[derive(Default)]
struct Results {
    groups: Vec<Summary>,
    starts: Vec<Start>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        // `cargo test --all-targets` comes by here.
        return ExitCode::SUCCESS;
    }
    let variables = ["VKEY_TEST_WASM", "VKEY_BENCH_FLOOR", "VKEY_BENCH_NOOP"];
    let machine = Machine::look(&artefact("VKEY_TEST_ENVOY"), variables.map(artefact));
    match run(&arguments, &machine) {
        Ok(missed) if missed && arguments.strict => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints and writes; says whether a target was missed.
fn run(arguments: &Arguments, machine: &Machine) -> Result<bool, String> {
    println!("{machine}\n");
    if let Some(case) = &arguments.profile {
        let module = artefact("VKEY_TEST_WASM");
        println!("{}", instructions::profile(&Issuer::new(), case, &module)?);
        return Ok(false);
    }
    if arguments.count {
        return count(arguments, machine);
    }
    let results = measure(arguments, machine)?;
    let cost = |group: &str, case: &str| {
        results.groups.iter().find(|summary| summary.name == group)?.cost(case)
    };
    let missed = judged(&targets::judge(&targets::TIMES, cost, machine.module_bytes));
    let folder = folder();
    write(&folder, &results, machine).map_err(|error| format!("{}: {error}", folder.display()))?;
    println!("\ntables, CSV and plot are in {}", folder.display());
    Ok(missed)
}

/// Prints the targets; says whether one was missed.
fn judged(targets: &[Target]) -> bool {
    for target in targets {
        println!("{target}");
    }
    targets.iter().any(|target| !target.is_met())
}

/// Counts, prints and writes; says whether a target was missed.
fn count(arguments: &Arguments, machine: &Machine) -> Result<bool, String> {
    let counted = instructions::measure(&Issuer::new(), &arguments.cases, say("count"));
    done();
    let counted = counted?;
    let Counted { tallies, streamed } = &counted;
    let piece = Piece { bytes: streams::EVENT.len() };
    if !tallies.is_empty() {
        println!("{}", tally::table(tallies));
    }
    if !streamed.is_empty() {
        println!("{}", pieces::table(streamed, &piece));
    }
    let cost = |_: &str, case: &str| tally::cost(tallies, case);
    let mut targets = targets::judge(&targets::INSTRUCTIONS, cost, machine.module_bytes);
    targets.extend(targets::judge_pieces(&piece, |case| pieces::added(streamed, case)));
    let missed = judged(&targets);
    let folder = folder();
    let written = write_counted(&folder, &counted, &piece, machine);
    written.map_err(|error| format!("{}: {error}", folder.display()))?;
    println!("\ntables and CSV are in {}", folder.display());
    Ok(missed)
}

/// Writes the tables that have rows.
fn write_counted(
    folder: &Path,
    Counted { tallies, streamed }: &Counted,
    piece: &Piece,
    machine: &Machine,
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let write = |name: &str, table: &Table, csv: String| {
        let markdown = format!("{machine}.\n\n{}", table.markdown()).replace("; ", ";\n");
        fs::write(folder.join(name).with_extension("md"), markdown)?;
        fs::write(folder.join(name).with_extension("csv"), csv)
    };
    let machine = machine.to_string();
    if !tallies.is_empty() {
        write("instructions", &tally::table(tallies), tally::csv(tallies, &machine))?;
    }
    if !streamed.is_empty() {
        write("streams", &pieces::table(streamed, piece), pieces::csv(streamed, &machine))?;
    }
    Ok(())
}

fn measure(arguments: &Arguments, machine: &Machine) -> Result<Results, String> {
    let mut effort = Effort { rounds: arguments.rounds.into(), secs: arguments.seconds };
    if arguments.quick {
        effort = Effort { rounds: 1, secs: 1 };
    }
    let issuer = Issuer::new();
    let mut results = Results::default();
    let provider = Provider::start();
    for group in groups::all(&issuer, &provider, &arguments.cases) {
        let rows = rounds::measure(&issuer, &group, effort, say(group.name));
        done();
        let summary = Summary::new(&group, &rows?);
        provider.check(&group)?;
        println!("{}\n\n{}", summary.title, report::group(&summary));
        let idle = summary.idle();
        if !idle.is_empty() {
            println!(
                "Envoy was not kept busy, so the machine has other work: {}\n",
                idle.join(" ")
            );
        }
        results.groups.push(summary);
    }
    if "start".contains(&arguments.cases) {
        let starts = start::measure(&issuer.secret, effort.rounds + 1, say("start"));
        done();
        results.starts = starts?;
        println!("Start and memory\n\n{}", report::start(&results.starts, machine));
    }
    Ok(results)
}

fn write(folder: &Path, results: &Results, machine: &Machine) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut markdown = format!("{machine}.\n").replace("; ", ";\n");
    for summary in &results.groups {
        markdown.push_str(&format!(
            "\n{}:\n\n{}",
            summary.title,
            report::group(summary).markdown()
        ));
    }
    if !results.starts.is_empty() {
        let table = report::start(&results.starts, machine).markdown();
        markdown.push_str(&format!("\nStart and memory:\n\n{table}"));
        fs::write(folder.join("start.csv"), report::start_csv(&results.starts, machine))?;
    }
    fs::write(folder.join("envoy.md"), markdown)?;
    fs::write(folder.join("envoy.csv"), report::csv(&results.groups, machine))?;
    match results.groups.iter().find(|summary| summary.name == "filters") {
        Some(summary) => {
            plot::draw(&folder.join("envoy.svg"), summary, machine).map_err(io::Error::other)
        }
        None => Ok(()),
    }
}

/// `target/bench`.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}

/// Shows on a terminal what is being done.
fn say(group: &str) -> impl Fn(&str) {
    let shown = io::stderr().is_terminal();
    move |text| {
        if shown {
            eprint!("\r\x1b[K{group}: {text}");
        }
    }
}

fn done() {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
