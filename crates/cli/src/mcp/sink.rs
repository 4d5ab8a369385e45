//! Writes everything but the protocol: audit lines, the module's log, notes, and the server's standard error.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use vkey::host::Level;

use super::super::embedded::shown_log;
use super::super::error::Error;
use super::super::output::Output;
use super::error::{AuditError, McpError};
use super::lock;
use super::writer::{Kind, Target, Writer};

/// The module's warning about clusters. There are none on standard input and output.
const NO_CLUSTER: &str = "upstream TLS: no cluster has the module as its upstream filter";

/// What to write about a message, collected so that it is written without holding a lock.
#[derive(Default)]
pub(super) struct LogBatch {
    pub(super) audit: Vec<String>,
    pub(super) log: Vec<(Level, String)>,
    pub(super) notes: Vec<String>,
}

impl LogBatch {
    /// Appends more messages.
    pub(super) fn append(&mut self, mut more: Self) {
        self.audit.append(&mut more.audit);
        self.log.append(&mut more.log);
        self.notes.append(&mut more.notes);
    }
}

/// The audit file, if any, and standard error.
pub(super) struct Sink {
    audit: Option<Writer>,
    stderr: Writer,
    /// How long to wait for the reader of standard error, or of the pipe that the audit file is.
    patience: Duration,
    /// The lowest level of the module's log that is written.
    least: Level,
    /// Why an audit line could not be written.
    failure: Mutex<Option<AuditError>>,
}

/// A file that audit lines are appended to, by name.
struct AuditFile {
    path: PathBuf,
    /// `None` before the first line: opening a pipe waits for its reader.
    file: Option<File>,
}

// === impl Sink ===

impl Sink {
    /// Opens the sink. Audit lines go to a file, if one is named.
    pub(super) fn open(
        audit: Option<&Path>,
        patience: Duration,
        least: Level,
    ) -> Result<Self, Error> {
        let audit =
            audit.map(|path| Writer::start(AuditFile { path: path.to_owned(), file: None }));
        let audit = audit.transpose().map_err(McpError::System)?;
        let stderr = Output::diagnostics().and_then(Writer::start).map_err(McpError::System)?;
        let sink = Self { audit, stderr, patience, least, failure: Mutex::default() };
        sink.reopen()?;
        Ok(sink)
    }

    /// Writes the messages.
    pub(super) fn show(&self, batch: &LogBatch) {
        batch.audit.iter().for_each(|line| self.audit(line));
        let notes = shown_log(&batch.log, self.least);
        notes.filter(|note| !note.contains(NO_CLUSTER)).for_each(|note| self.note(note));
        batch.notes.iter().for_each(|note| self.note(note));
    }

    /// Writes a note, if standard error has a reader.
    pub(super) fn note(&self, text: impl fmt::Display) {
        self.stderr.offer(Kind::Note, format!("vkey: {text}\n").into_bytes());
    }

    /// Forwards a line of the server's standard error, if ours has a reader.
    pub(super) fn pass_on(&self, line: Vec<u8>) {
        self.stderr.offer(Kind::Server, line);
    }

    /// Checks that all audit lines so far were written. Without that, nothing is forwarded.
    pub(super) fn check(&self) -> Result<(), AuditError> {
        // The error stays, because both directions ask.
        lock(&self.failure).as_ref().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Waits until all audit lines are written, including those that other threads wait for.
    pub(super) fn settle(&self, patience: Duration) -> Result<(), AuditError> {
        self.check().and_then(|()| self.audit_writer().settle(patience))
    }

    /// Waits a moment for the rest to be written.
    pub(super) fn flush(&self, patience: Duration) {
        self.stderr.flush(patience);
    }

    /// Reopens the audit file under its name.
    pub(super) fn reopen(&self) -> Result<(), AuditError> {
        let Some(audit) = &self.audit else {
            return Ok(());
        };
        audit.require(Vec::new(), self.patience).inspect_err(|error| self.fail(error.clone()))
    }

    fn audit(&self, line: &str) {
        let line = format!("{line}\n").into_bytes();
        if self.check().is_err() {
            // After a failure nothing is forwarded, so there is no need to wait again.
            if self.audit.is_none() {
                self.stderr.offer(Kind::Note, line);
            }
        } else if let Err(error) = self.audit_writer().require(line, self.patience) {
            self.fail(error);
        }
    }

    fn audit_writer(&self) -> &Writer {
        self.audit.as_ref().unwrap_or(&self.stderr)
    }

    fn fail(&self, error: AuditError) {
        lock(&self.failure).get_or_insert(error);
    }
}

// === impl AuditFile ===

impl AuditFile {
    /// The file that has the name now.
    fn named(&mut self) -> Result<&mut File, AuditError> {
        let open = match self.file.take() {
            Some(file) if !self.has_moved(&file).map_err(AuditError::File)? => file,
            _ => open_audit(&self.path)?,
        };
        Ok(self.file.insert(open))
    }

    fn has_moved(&self, file: &File) -> io::Result<bool> {
        let open = file.metadata()?;
        Ok(!fs::symlink_metadata(&self.path).is_ok_and(|named| is_same(&named, &open)))
    }
}

impl Target for AuditFile {
    /// Appends to the file that has the name now: log rotation renames or removes the old one.
    fn write_line(&mut self, line: &[u8]) -> Result<(), AuditError> {
        self.named()?.write_all(line).map_err(AuditError::File)
    }
}

/// Opens the audit file, and makes sure that lines begin on a new line. Refuses links: a link placed there
/// could append the lines to any file of ours.
fn open_audit(path: &Path) -> Result<File, AuditError> {
    let flags =
        OFlags::APPEND | OFlags::CLOEXEC | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::WRONLY;
    // The lines contain who asks for what, and from where.
    let file = open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match errno {
        Errno::LOOP => AuditError::Link,
        errno => AuditError::File(errno.into()),
    })?;
    let mut file = File::from(file);
    let metadata = file.metadata().map_err(AuditError::File)?;
    if metadata.is_file() && metadata.nlink() > 1 {
        return Err(AuditError::Link);
    }
    // If the file may be appended to but not read, it is assumed to end in a whole line.
    if metadata.is_file() && is_cut(path, &metadata).unwrap_or(false) {
        file.write_all(b"\n").map_err(AuditError::File)?;
    }
    Ok(file)
}

/// Whether the last line of the file is cut off, e.g. because the disk was full.
fn is_cut(path: &Path, appended_to: &Metadata) -> io::Result<bool> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::RDONLY;
    let file = File::from(open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    let mut last = [b'\n'];
    if is_same(&metadata, appended_to) && metadata.len() > 0 {
        file.read_exact_at(&mut last, metadata.len() - 1)?;
    }
    Ok(last != [b'\n'])
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
