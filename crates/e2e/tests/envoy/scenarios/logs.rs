//! What Envoy wrote, by the name of the listener that it is about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use vkey::host::Level;

use super::listeners::names_in;
use crate::scenario::Log;

/// How Envoy starts what a module logs; the name and the VM's id follow.
const FROM_MODULE: &str = "] wasm log ";

/// How Envoy says that it does not take listeners of an update.
const REJECTED: &str = "Error adding/updating listener(s)";

const LEVELS: [(&str, Level); 6] = [
    ("trace", Level::Trace),
    ("debug", Level::Debug),
    ("info", Level::Info),
    ("warning", Level::Warn),
    ("error", Level::Error),
    ("critical", Level::Critical),
];

/// Both logs of one Envoy.
pub(crate) struct Logs(Mutex<Unread>);

struct Unread {
    access: Tail,
    proxy: Tail,
    /// A line of the access log for each request that is over.
    ends: BTreeMap<String, VecDeque<Value>>,
    /// What modules wrote.
    lines: BTreeMap<String, Log>,
    rejected: BTreeSet<String>,
    /// Whether the line above began to name listeners that were rejected.
    rejecting: bool,
}

impl Logs {
    pub(crate) fn new(access: PathBuf, proxy: PathBuf) -> Self {
        Self(Mutex::new(Unread {
            access: Tail::new(access),
            proxy: Tail::new(proxy),
            ends: BTreeMap::new(),
            lines: BTreeMap::new(),
            rejected: BTreeSet::new(),
            rejecting: false,
        }))
    }

    /// The end of the oldest request of a listener that was not asked for yet.
    pub(crate) fn end(&self, name: &str) -> Option<Value> {
        self.read(|unread| unread.ends.get_mut(name)?.pop_front())
    }

    /// What the module wrote since this was asked last.
    pub(crate) fn lines(&self, name: &str) -> Log {
        self.read(|unread| unread.lines.remove(name)).unwrap_or_default()
    }

    pub(crate) fn is_rejected(&self, name: &str) -> bool {
        self.read(|unread| unread.rejected.contains(name))
    }

    fn read<T>(&self, ask: impl FnOnce(&mut Unread) -> T) -> T {
        let mut unread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // In this order: a request's audit line is written before its end.
        for line in unread.access.lines().expect("the access log") {
            let end: Value = serde_json::from_str(&line).expect("a line of the access log");
            let name = end["listener"].as_str().expect("a name").to_owned();
            unread.ends.entry(name).or_default().push_back(end);
        }
        for line in unread.proxy.lines().expect("the proxy's log") {
            unread.sort_in(&line);
        }
        ask(&mut unread)
    }
}

impl Unread {
    fn sort_in(&mut self, line: &str) {
        if let Some((name, level, text)) = from_module(line) {
            self.lines.entry(name.to_owned()).or_default().push((level, text.to_owned()));
            return;
        }
        // One update may have several, each on a line of its own.
        self.rejecting = line.contains(REJECTED) || (self.rejecting && !line.starts_with('['));
        if self.rejecting {
            self.rejected.extend(names_in(line));
        }
    }
}

/// `[time][thread][level][wasm] [source] wasm log vkey NAME: text`
fn from_module(line: &str) -> Option<(&str, Level, &str)> {
    let (head, rest) = line.split_once(FROM_MODULE)?;
    let (of, text) = rest.split_once(": ")?;
    let word = head.split(['[', ']']).filter(|word| !word.is_empty()).nth(2)?;
    let (_, level) = LEVELS.iter().find(|(name, _)| *name == word)?;
    Some((of.rsplit(' ').next()?, *level, text))
}

/// The complete lines of a file that grows.
struct Tail {
    path: PathBuf,
    read: u64,
    rest: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self { path, read: 0, rest: Vec::new() }
    }

    fn lines(&mut self) -> io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        file.seek(SeekFrom::Start(self.read))?;
        self.read += u64::try_from(file.read_to_end(&mut self.rest)?).expect("a length");
        let complete = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text: Vec<u8> = self.rest.drain(..complete).collect();
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }
}
