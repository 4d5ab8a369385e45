//! Runs this program under callgrind and reads what it counted.

use std::env::consts::ARCH;
use std::env::current_exe;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Failure;
use crate::meter::{DUMP, TOGGLES};
use crate::profile::Profile;
use crate::table::Table;

/// The argument that says that callgrind is there.
pub(crate) const INSIDE: &str = "under-callgrind";

/// Measures all scenarios of a folder; their profiles go to another, which is emptied first.
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
        // What was called before counting began counts as never called, and callgrind_annotate then takes
        // its cost for the caller's own.
        let shown = text.replace("\ncalls=0 ", "\ncalls=1 ");
        fs::write(profiles.join(row.scenario.replace('/', ".")), shown)?;
        fs::remove_file(&dump)?;
    }
    // What was left when the program ended.
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
        // The environment lies on the stack, and where that begins decides what is aligned.
        .env_clear()
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("under callgrind: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// What instructions there are. The C library copies and compares with the widest.
fn machine() -> String {
    #[cfg(target_arch = "x86_64")]
    let wide = if std::arch::is_x86_feature_detected!("avx2") { " with AVX2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let wide = "";
    format!("{ARCH}{wide}")
}

/// What decides besides how many of them are taken.
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
