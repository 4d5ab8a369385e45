//! Counts the cost of a request in the library: instructions, allocations and host calls.
//!
//! Runs the scenarios of `testdata/bench` under callgrind, and counts each part that their steps name.
//! `tools/bench-core.sh` starts it. CONTRIBUTING.md, "Counting instructions", explains what is counted.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot be measured ends the measurement"
)]

mod allocator;
mod callgrind;
mod comparison;
mod host;
mod machine;
mod meter;
mod parts;
mod profile;
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../../../tests/scenario/mod.rs"]
mod scenario;
mod table;

use std::error::Error;
use std::fs;
use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use comparison::Comparison;
use host::Call;
use machine::Measured;
use meter::Meter;
use profile::Profile;
use scenario::format::Scenario;
use table::{Row, Table};

/// An error that ends the program.
type Failure = Box<dyn Error>;

const USAGE: &str = "usage: bench-core count SCENARIOS FOLDER | show TABLE | check BASELINE TABLE \
                     | compare BASE TABLE | profile FILE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match *arguments {
        ["count", scenarios, folder] => count(Path::new(scenarios), Path::new(folder)),
        ["show", table] => show(Path::new(table)),
        ["check", baseline, table] => check(Path::new(baseline), Path::new(table)),
        ["compare", base, table] => compare(Path::new(base), Path::new(table)),
        ["profile", file] => show_profile(Path::new(file)),
        [callgrind::INSIDE, scenarios] => run(Path::new(scenarios)),
        _ => {
            _ = writeln!(stderr(), "{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|failure| {
        _ = writeln!(stderr(), "bench-core: {failure}");
        ExitCode::from(3)
    })
}

/// Counts all scenarios of a folder. Writes `core.csv` and a folder of profiles into another one.
fn count(scenarios: &Path, folder: &Path) -> Result<ExitCode, Failure> {
    let table = callgrind::measure(scenarios, &folder.join("core"))?;
    let file = folder.join("core.csv");
    fs::write(&file, table.to_csv()).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows all counts.
fn show(table: &Path) -> Result<ExitCode, Failure> {
    write!(stdout(), "{}", read_table(table)?.to_text())?;
    Ok(ExitCode::SUCCESS)
}

/// Compares with the baseline, and fails if a cost rose too much.
fn check(baseline: &Path, table: &Path) -> Result<ExitCode, Failure> {
    let (baseline, table) = (read_table(baseline)?, read_table(table)?);
    let comparison = Comparison::new(&baseline, &table);
    write!(stdout(), "{}", comparison.to_text())?;
    if !comparison.is_of_one_machine() {
        writeln!(
            stdout(),
            "bench-core: not checked, because the baseline was counted on another kind of machine"
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let problems = comparison.problems();
    for problem in &problems {
        writeln!(stderr(), "bench-core: {problem}")?;
    }
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        stderr(),
        "bench-core: if this is intended, run make bench-core ACCEPT=1 and commit the baseline"
    )?;
    Ok(ExitCode::FAILURE)
}

/// Shows the changes between two tables, in Markdown.
fn compare(base: &Path, table: &Path) -> Result<ExitCode, Failure> {
    let (base, table) = (read_table(base)?, read_table(table)?);
    write!(stdout(), "{}", Comparison::new(&base, &table).to_markdown())?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the functions in which a scenario spends its instructions.
fn show_profile(file: &Path) -> Result<ExitCode, Failure> {
    let text = read(file)?;
    let profile = Profile::read(&text).ok_or_else(|| format!("{}: no profile", file.display()))?;
    write!(stdout(), "{}", profile.to_text())?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the scenarios. Prints a table without instructions, which the caller adds.
fn run(scenarios: &Path) -> Result<ExitCode, Failure> {
    let meter = Rc::new(Meter::default());
    for file in files(scenarios)? {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let scenario = Scenario::read(read(&file)?.as_bytes())
            .map_err(|invalid| format!("{}: {invalid}", file.display()))?;
        let meter = Rc::clone(&meter);
        let problems = scenario::run::run(&scenario, &move |config, env, host| {
            Box::new(Measured::new(&name, config, env, host, Rc::clone(&meter)))
        });
        if !problems.is_empty() {
            return Err(format!("{}:\n{}", file.display(), problems.join("\n")).into());
        }
    }
    let rows = meter.rows().into_iter().map(|counted| Row {
        scenario: counted.scenario,
        instructions: 0,
        allocations: counted.allocations,
        calls: counted.calls.each().to_vec(),
    });
    let kinds = Call::NAMES.map(str::to_owned).to_vec();
    let table = Table { counted_on: String::new(), kinds, rows: rows.collect() };
    write!(stdout(), "{}", table.to_csv())?;
    Ok(ExitCode::SUCCESS)
}

/// The scenarios of a folder, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, Failure>>()?;
    files.sort();
    Ok(files)
}

fn read_table(file: &Path) -> Result<Table, Failure> {
    let table = Table::parse(&read(file)?);
    Ok(table.map_err(|invalid| format!("{}: {invalid}", file.display()))?)
}

fn read(file: &Path) -> Result<String, Failure> {
    Ok(fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?)
}
