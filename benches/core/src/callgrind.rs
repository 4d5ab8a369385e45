//! Runs this program under callgrind and reads the counts.

use std::env::consts::ARCH;
use std::env::current_exe;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Failure;
use crate::meter::{DUMP, TOGGLES};
use crate::profile::Profile;
use crate::table::Table;

/// The argument of a run under callgrind.
pub(crate) const INSIDE: &str = "under-callgrind";

/// Measures all scenarios of a folder. Writes their profiles into another one, which is emptied first.
pub(crate) fn measure(scenarios: &Path, profiles: &Path) -> Result<Table, Failure> {
    if profiles.exists() {
        fs::remove_dir_all(profiles)?;
    }
    fs::create_dir_all(profiles)?;
    let dumps = profiles.join("dump");
    let mut table = Table::parse(&run(scenarios, &dumps)?)?;
    for (row, number) in table.rows.iter_mut().zip(1..) {
        let dump = format!("{}.{number}", dumps.display());
        let text = fs::read_to_string(&dump).map_err(|error| format!("{dump}: {error}"))?;
        let profile = Profile::read(&text).ok_or_else(|| format!("{dump}: nothing was counted"))?;
        row.instructions = profile.total();
        // Functions that were called before counting began have 0 calls. callgrind_annotate would then
        // attribute their cost to the caller.
        let shown = text.replace("\ncalls=0 ", "\ncalls=1 ");
        fs::write(profiles.join(row.scenario.replace('/', ".")), shown)?;
        fs::remove_file(&dump)?;
    }
    // The counts at the end of the program.
    fs::remove_file(dumps)?;
    table.counted_on = format!("{}, {}", machine(), tools()?);
    Ok(table)
}

/// The output of the run: a table without instructions.
fn run(scenarios: &Path, dumps: &Path) -> Result<String, Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", dumps.display()))
        .args(TOGGLES.map(|function| format!("--toggle-collect={function}")))
        .arg(format!("--dump-before={DUMP}"))
        .arg(current_exe()?)
        .args([INSIDE.as_ref(), scenarios])
        // The environment is on the stack, so its size affects alignment.
        .env_clear()
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("under callgrind: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The instruction set. The C library copies and compares with the widest instructions.
fn machine() -> String {
    #[cfg(target_arch = "x86_64")]
    let wide = if std::arch::is_x86_feature_detected!("avx2") { " with AVX2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let wide = "";
    format!("{ARCH}{wide}")
}

/// The tools, on which the counts depend too.
fn tools() -> Result<String, Failure> {
    let mut tools = Vec::new();
    for (program, argument, words) in [
        ("rustc", "--version", 2),
        ("valgrind", "--version", 1),
        ("getconf", "GNU_LIBC_VERSION", 2),
    ] {
        let output = Command::new(program).arg(argument).output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        let text = String::from_utf8(output.stdout)?;
        tools.push(text.split_whitespace().take(words).collect::<Vec<_>>().join(" "));
    }
    Ok(tools.join(", "))
}
