//! A process under callgrind, which counts the instructions that it executes.

use std::cell::Cell;
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

/// What a dump says.
#[derive(Debug)]
pub(crate) struct Dump {
    pub(crate) count: Count,
    /// The functions that V8 has compiled, by the address at which they are called.
    pub(crate) code: BTreeMap<u64, Code>,
    /// Where code is that is in no file.
    pub(crate) code_spaces: Vec<Range<u64>>,
}

/// What a function did, without those that it called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) instructions: u64,
    /// How often it was called.
    pub(crate) calls: u64,
}

/// Where one process under callgrind leaves what it counts. To be dropped after the process.
pub(crate) struct Callgrind {
    files: TempDir,
    /// How many dumps there are.
    dumps: Cell<u32>,
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
    /// What the next line calls.
    called: (&'a str, &'a str),
}

// === impl Callgrind ===

impl Callgrind {
    pub(crate) fn new() -> Self {
        Self { files: TempDir::new("bench-callgrind"), dumps: Cell::new(0) }
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

    /// What was counted since then.
    pub(crate) fn read(&self, pid: u32) -> Result<Dump, String> {
        self.tell(pid, &["dump"])?;
        self.dumps.set(self.dumps.get() + 1);
        let read = |path| fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"));
        let dump = read(self.files.file(&format!("out.{}", self.dumps.get())))?;
        let maps = read(format!("/proc/{pid}/maps").into())?;
        let dump = parse(&dump, &mapped_files(&maps))?;
        Ok(Dump { code_spaces: code_spaces(&maps), ..dump })
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
pub(crate) fn parse(text: &str, files: &[Range<u64>]) -> Result<Dump, String> {
    let mut place = Place::default();
    let mut all = 0;
    let mut code: BTreeMap<u64, Code> = BTreeMap::new();
    let (mut total, mut is_call) = (None, false);
    for line in text.lines() {
        if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // The line after a call is what the called one took, which stands there as well.
            let instructions = if is_call { 0 } else { cost(line)? };
            is_call = false;
            all += instructions;
            if let Some(address) = compiled((place.object, place.function), files) {
                code.entry(address).or_default().instructions += instructions;
            }
        } else if let Some(sum) = line.strip_prefix("totals:") {
            total = sum.trim().parse::<u64>().ok();
        } else if let Some(calls) = line.strip_prefix("calls=") {
            is_call = true;
            if let Some(address) = compiled(place.called, files) {
                code.entry(address).or_default().calls += number(calls)?;
            }
            place.called.0 = place.object;
        } else if let Some((key, value)) = line.split_once('=') {
            place.go(key, value);
        }
    }
    let count = Count { all, compiled: code.values().map(|code| code.instructions).sum() };
    match total {
        Some(total) if total == all => Ok(Dump { count, code, code_spaces: Vec::new() }),
        _ => Err(format!("{all} instructions add up to another total: {total:?}")),
    }
}

/// The address of a function that V8 has compiled. It has no name and is called by its address, `0x04c0ffee`.
fn compiled((object, function): (&str, &str), files: &[Range<u64>]) -> Option<u64> {
    let digits = function.strip_prefix("0x").filter(|_| object == NO_FILE)?;
    let address = u64::from_str_radix(digits, 16).ok()?;
    (!files.iter().any(|file| file.contains(&address))).then_some(address)
}

/// The first number of a text.
fn number(text: &str) -> Result<u64, String> {
    let number = text.split_whitespace().next().unwrap_or_default();
    number.parse().map_err(|error| format!("not a number of callgrind: {text}: {error}"))
}

/// The second number of a line; the first one says where it is.
fn cost(line: &str) -> Result<u64, String> {
    let cost = line.split_whitespace().nth(1).unwrap_or("0");
    cost.parse().map_err(|error| format!("not a cost of callgrind: {line}: {error}"))
}

/// The addresses in `/proc/PID/maps` where a file is mapped, or something else that has a name.
pub(crate) fn mapped_files(maps: &str) -> Vec<Range<u64>> {
    maps.lines().filter(|line| is_named(line)).filter_map(range).collect()
}

/// Those where code is mapped that has no name.
fn code_spaces(maps: &str) -> Vec<Range<u64>> {
    let is_code = |line: &&str| line.split_whitespace().nth(1).is_some_and(|of| of.contains('x'));
    maps.lines().filter(is_code).filter(|line| !is_named(line)).filter_map(range).collect()
}

fn is_named(mapping: &str) -> bool {
    mapping.split_whitespace().nth(5).is_some()
}

/// The addresses of a line of `/proc/PID/maps`.
fn range(mapping: &str) -> Option<Range<u64>> {
    let (start, end) = mapping.split_once(' ')?.0.split_once('-')?;
    let address = |digits| u64::from_str_radix(digits, 16).ok();
    Some(address(start)?..address(end)?)
}

// === impl Place ===

impl<'a> Place<'a> {
    /// Follows a line such as `fn=(3) name`, or `cfn=` of a function that is called: in the same object, if no `cob=` comes
    /// before.
    fn go(&mut self, key: &str, value: &'a str) {
        match key {
            "ob" => {
                self.object = name(value, &mut self.objects);
                self.called.0 = self.object;
            }
            "fn" => self.function = name(value, &mut self.functions),
            "cob" => self.called.0 = name(value, &mut self.objects),
            "cfn" => self.called.1 = name(value, &mut self.functions),
            _ => {}
        }
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
