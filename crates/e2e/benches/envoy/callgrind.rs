//! A process under callgrind, which counts the instructions that it executes.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::process::Command;

use crate::support::TempDir;

/// What callgrind calls the object of code of which it does not know the file.
const NO_FILE: &str = "???";

/// How long vgdb waits for an answer of the process, which may be compiling.
const PATIENCE: &str = "--cmd-time-out=120";

/// Instructions in user space, of all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) all: u64,
    /// Those in code that is in no file: what V8 has compiled.
    pub(crate) compiled: u64,
}

/// Where one process under callgrind leaves what it counts. To be dropped after the process.
pub(crate) struct Callgrind {
    files: TempDir,
}

/// Names that are told once and have a number from then on (Callgrind Format Specification in the
/// manual of Valgrind).
type Names<'a> = BTreeMap<&'a str, &'a str>;

/// Where the lines of a dump are.
#[derive(Default)]
struct Place<'a> {
    objects: Names<'a>,
    functions: Names<'a>,
    object: &'a str,
    function: &'a str,
}

// === impl Callgrind ===

impl Callgrind {
    pub(crate) fn new() -> Self {
        Self { files: TempDir::new("bench-callgrind") }
    }

    /// The command that becomes the process. It counts nothing until it is told to.
    pub(crate) fn command(&self) -> Vec<String> {
        let out = format!("--callgrind-out-file={}", self.files.file("out").display());
        let words = ["valgrind", "--tool=callgrind", "--smc-check=all-non-file"].map(str::to_owned);
        words.into_iter().chain(["--instr-atstart=no".to_owned(), out, self.pipes()]).collect()
    }

    /// Begins to count.
    ///
    /// # Errors
    ///
    /// What vgdb says when it does not reach the process; so with the others.
    pub(crate) fn start(&self, pid: u32) -> Result<(), String> {
        self.tell(pid, &["instrumentation", "on"])
    }

    /// Begins again with zero.
    pub(crate) fn zero(&self, pid: u32) -> Result<(), String> {
        self.tell(pid, &["zero"])
    }

    /// What was counted since then; once for each process.
    pub(crate) fn read(&self, pid: u32) -> Result<Count, String> {
        self.tell(pid, &["dump"])?;
        let read = |path| fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"));
        let dump = read(self.files.file("out.1"))?;
        parse(&dump, &mapped_files(&read(format!("/proc/{pid}/maps").into())?))
    }

    /// vgdb and the process find each other here, and by the names that they take from an
    /// environment, which is empty for both.
    fn pipes(&self) -> String {
        format!("--vgdb-prefix={}", self.files.file("vgdb").display())
    }

    fn tell(&self, pid: u32, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "vgdb", PATIENCE, &self.pipes()]);
        command.arg(format!("--pid={pid}")).args(words).env_clear();
        let output = command.output().map_err(|error| format!("vgdb cannot be run: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("callgrind does not obey `{}`: {text}", words.join(" ")))
    }
}

/// Reads a dump: the cost of each line of each function. `files` are the addresses where a file is
/// mapped, since for callgrind the code in some sections of Envoy is in no file either.
///
/// # Errors
///
/// When there is no total, or the costs are not what it says.
pub(crate) fn parse(text: &str, files: &[Range<u64>]) -> Result<Count, String> {
    let mut place = Place::default();
    let mut count = Count { all: 0, compiled: 0 };
    let (mut total, mut is_call) = (None, false);
    for line in text.lines() {
        if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // The line after a call is what the called one took, which stands there as well.
            let instructions = if is_call { 0 } else { cost(line)? };
            is_call = false;
            count.all += instructions;
            count.compiled += if place.is_compiled(files) { instructions } else { 0 };
        } else if let Some(sum) = line.strip_prefix("totals:") {
            total = sum.trim().parse::<u64>().ok();
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if let Some((key, value)) = line.split_once('=') {
            place.go(key, value);
        }
    }
    match total {
        Some(total) if total == count.all => Ok(count),
        _ => Err(format!("{} instructions add up to another total: {total:?}", count.all)),
    }
}

/// The second number of a line; the first one says where it is.
fn cost(line: &str) -> Result<u64, String> {
    let cost = line.split_whitespace().nth(1).unwrap_or("0");
    cost.parse().map_err(|error| format!("not a cost of callgrind: {line}: {error}"))
}

/// The addresses in `/proc/PID/maps` where a file is mapped, or something else that has a name.
pub(crate) fn mapped_files(maps: &str) -> Vec<Range<u64>> {
    let named = maps.lines().filter(|line| line.split_whitespace().nth(5).is_some());
    let ranges = named.filter_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let address = |digits| u64::from_str_radix(digits, 16).ok();
        Some(address(start)?..address(end)?)
    });
    ranges.collect()
}

// === impl Place ===

impl<'a> Place<'a> {
    /// Follows a line such as `fn=(3) name`, or `cfn=` of a function that is called.
    fn go(&mut self, key: &str, value: &'a str) {
        match key {
            "ob" => self.object = name(value, &mut self.objects),
            "fn" => self.function = name(value, &mut self.functions),
            "cob" => _ = name(value, &mut self.objects),
            "cfn" => _ = name(value, &mut self.functions),
            _ => {}
        }
    }

    /// A function without a name is called by its address, `0x04c0ffee`.
    fn is_compiled(&self, files: &[Range<u64>]) -> bool {
        let digits = self.function.strip_prefix("0x");
        let address = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let Some(address) = address.filter(|_| self.object == NO_FILE) else { return false };
        !files.iter().any(|file| file.contains(&address))
    }
}

/// The name in `(3) name`, or the one that `(3)` was given before.
fn name<'a>(value: &'a str, names: &mut Names<'a>) -> &'a str {
    let Some((number, name)) = value.split_once(')') else { return value };
    match name.trim() {
        "" => names.get(number).copied().unwrap_or_default(),
        name => {
            names.insert(number, name);
            name
        }
    }
}
