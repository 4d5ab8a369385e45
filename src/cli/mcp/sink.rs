//! Where everything goes that is not the protocol: audit lines, the module's log, and notes.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Level;

use super::super::embedded::show_log;
use super::super::error::Error;
use super::super::output::Output;
use super::lock;

/// What there is to say of a message, once nobody is kept waiting by it.
#[derive(Default)]
pub(super) struct Said {
    pub(super) audit: Vec<String>,
    pub(super) log: Vec<(Level, String)>,
    pub(super) notes: Vec<String>,
}

/// A file for audit lines, or standard error, where the rest goes.
pub(super) struct Sink {
    audit: Option<Mutex<File>>,
    /// The least of the module's log that is shown.
    least: Level,
    out: Mutex<Output>,
    /// An audit line could not be written.
    failed: AtomicBool,
}

impl Sink {
    /// Appends audit lines to a file, if there is one.
    pub(super) fn open(audit: Option<&Path>, least: Level) -> Result<Self, Error> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let audit = audit.map(open).transpose().map_err(Error::Audit)?.map(Mutex::new);
        let (out, failed) = (Mutex::new(Output::standard()), AtomicBool::new(false));
        Ok(Self { audit, least, out, failed })
    }

    /// Writes what there is to say.
    pub(super) fn show(&self, said: &Said) {
        for line in &said.audit {
            self.audit(line);
        }
        let mut out = lock(&self.out);
        show_log(&said.log, self.least, &mut out);
        said.notes.iter().for_each(|note| out.note(note));
    }

    /// Tells a person.
    pub(super) fn note(&self, text: impl fmt::Display) {
        lock(&self.out).note(text);
    }

    /// Whether audit lines are missing.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn audit(&self, line: &str) {
        let Some(file) = &self.audit else {
            return lock(&self.out).audit(line);
        };
        let written = lock(file).write_all(format!("{line}\n").as_bytes());
        if let Err(error) = written
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            self.note(Error::Audit(error));
        }
    }
}
