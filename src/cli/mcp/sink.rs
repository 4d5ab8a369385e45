//! Where everything goes that is not the protocol: audit lines, the module's log, and notes.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

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
    /// Why an audit line could not be written.
    failure: Mutex<Option<io::Error>>,
}

impl Sink {
    /// Appends audit lines to a file, if there is one.
    pub(super) fn open(audit: Option<&Path>, least: Level) -> Result<Self, Error> {
        let audit = audit.map(open_audit).transpose()?.map(Mutex::new);
        let (out, failure) = (Mutex::new(Output::standard()), Mutex::default());
        Ok(Self { audit, least, out, failure })
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

    /// Makes sure that all audit lines are written: nothing goes on without.
    pub(super) fn check(&self) -> Result<(), Error> {
        // It stays: each direction asks.
        lock(&self.failure).as_ref().map_or(Ok(()), |error| {
            let code = error.raw_os_error().map(io::Error::from_raw_os_error);
            Err(Error::Audit(code.unwrap_or_else(|| error.kind().into())))
        })
    }

    fn audit(&self, line: &str) {
        let Some(file) = &self.audit else {
            return lock(&self.out).audit(line);
        };
        if let Err(error) = lock(file).write_all(format!("{line}\n").as_bytes()) {
            lock(&self.failure).get_or_insert(error);
        }
    }
}

/// Opens the file for audit lines. Whoever can put a link in its place could have them appended to any
/// file of ours.
fn open_audit(path: &Path) -> Result<File, Error> {
    let flags =
        OFlags::APPEND | OFlags::CLOEXEC | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::WRONLY;
    // The lines say who asks for what, and from where.
    let file = open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match errno {
        Errno::LOOP => Error::AuditLink,
        errno => Error::Audit(errno.into()),
    })?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(Error::Audit)?;
    if metadata.is_file() && metadata.nlink() > 1 {
        return Err(Error::AuditLink);
    }
    Ok(file)
}
