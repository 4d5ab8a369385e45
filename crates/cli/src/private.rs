//! Files that hold keys and secrets.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use tempfile::Builder;

use super::error::{Error, Failure};
use super::exit::Exit;
use super::output::Output;

/// Where a key or a secret goes.
#[derive(clap::Args)]
pub(super) struct OutArgs {
    /// Write to a new file that only its owner can read, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file of --out if it exists
    #[arg(long, requires = "out")]
    force: bool,
}

/// Why a file cannot be created.
#[derive(Debug)]
pub(super) enum CannotCreate {
    /// There is one already.
    Exists,
    /// The system denies it.
    Io(ErrorKind),
    /// There is something else of that name: a link, a directory, a device.
    NoFile,
}

/// A file cannot be created.
#[derive(Debug)]
pub(super) struct CreateError {
    /// What the file is called.
    pub(super) what: &'static str,
    /// Why.
    pub(super) problem: CannotCreate,
}

impl OutArgs {
    /// Writes one line: a key or a secret.
    pub(super) fn write(&self, line: impl fmt::Display, out: &mut Output) -> Result<(), Error> {
        match &self.out {
            Some(path) if path != Path::new("-") => {
                let line = zeroize::Zeroizing::new(format!("{line}\n"));
                create(path, line.as_bytes(), self.force)
                    .map_err(|problem| CreateError { what: "the file named by --out", problem })?;
            }
            _ => out.line(line)?,
        }
        Ok(())
    }
}

/// Creates a file that only its owner can read. It is there as a whole or not at all, and replaces
/// another only by `force`. Links are neither followed nor replaced.
pub(super) fn create(path: &Path, content: &[u8], force: bool) -> Result<(), CannotCreate> {
    check(path, force)?;
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let mut file = Builder::new().prefix(".vkey-").tempfile_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
    match kept {
        Ok(_) => Ok(()),
        Err(lost) if lost.error.kind() == ErrorKind::AlreadyExists => Err(CannotCreate::Exists),
        Err(lost) => Err(lost.error.into()),
    }
}

/// Makes sure that a file may be created, as far as that can be told before.
pub(super) fn check(path: &Path, force: bool) -> Result<(), CannotCreate> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(CannotCreate::NoFile),
        Ok(_) if !force => Err(CannotCreate::Exists),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

impl From<io::Error> for CannotCreate {
    /// Keeps the kind alone: the texts of some errors quote the path.
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl fmt::Display for CannotCreate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("exists; choose another name, or replace it with --force"),
            Self::Io(kind) => write!(f, "cannot be written: {kind}; check its directory"),
            Self::NoFile => f.write_str("is a link, a directory or a device; name a regular file"),
        }
    }
}

impl Failure for CreateError {
    fn exit(&self) -> Exit {
        Exit::Environment
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.problem)
    }
}
