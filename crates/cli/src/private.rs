//! Files for keys and secrets.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::Builder;

use super::error::{Error, Failure};
use super::exit::Exit;
use super::output::Output;

/// Where to write a secret.
#[derive(clap::Args)]
pub(super) struct OutArgs {
    /// Write to a new file that only its owner can read, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file of --out if it exists
    #[arg(long, requires = "out")]
    force: bool,
}

/// Where to write a key, and whether to write one that gates would refuse.
#[derive(clap::Args)]
pub(super) struct KeyOutArgs {
    /// Write to a new file that only its owner can read, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file of --out if it exists, and write the key even if every request with it would be refused
    #[arg(long)]
    pub(super) force: bool,
}

/// Why a file cannot be created.
#[derive(Debug)]
pub(super) enum CannotCreate {
    /// A file of that name exists.
    Exists,
    /// The system refused.
    Io(ErrorKind),
    /// The name belongs to something other than a regular file: a link, a directory or a device.
    NoFile,
}

/// A file could not be created.
#[derive(Debug)]
pub(super) struct CreateError {
    /// What error messages call the file.
    pub(super) what: &'static str,
    /// The cause.
    pub(super) problem: CannotCreate,
}

impl OutArgs {
    /// The file that will be replaced, if there is one.
    pub(super) fn replaced(&self) -> Option<&Path> {
        let path = self.out.as_deref().filter(|path| self.force && *path != Path::new("-"))?;
        fs::symlink_metadata(path).is_ok_and(|found| found.is_file()).then_some(path)
    }

    /// Writes one line with a secret.
    pub(super) fn write(&self, line: impl fmt::Display, out: &mut Output) -> Result<(), Error> {
        write(self.out.as_deref(), self.force, line, out)
    }
}

impl KeyOutArgs {
    /// Whether this file is written, by whatever path it is named.
    pub(super) fn names(&self, path: &Path) -> bool {
        let out = self.out.as_deref().filter(|out| *out != Path::new("-"));
        out.is_some_and(|out| is_same_file(out, path))
    }

    /// Checks in advance whether the key can be written, as far as possible.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.out.as_deref().filter(|path| *path != Path::new("-")) {
            Some(path) => Ok(check(path, self.force).map_err(at_out)?),
            None => Ok(()),
        }
    }

    /// Writes one line with a key.
    pub(super) fn write(&self, line: impl fmt::Display, out: &mut Output) -> Result<(), Error> {
        write(self.out.as_deref(), self.force, line, out)
    }
}

fn write(
    path: Option<&Path>,
    force: bool,
    line: impl fmt::Display,
    out: &mut Output,
) -> Result<(), Error> {
    match path {
        Some(path) if path != Path::new("-") => {
            let line = zeroize::Zeroizing::new(format!("{line}\n"));
            create(path, line.as_bytes(), force).map_err(at_out)?;
        }
        _ => out.line(line)?,
    }
    Ok(())
}

/// Whether two paths name one file, which need not exist yet.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        Some((id(folder.unwrap_or(Path::new(".")))?, path.file_name()?.to_owned()))
    };
    let is_same_place = || place(one).is_some_and(|found| place(other) == Some(found));
    one == other || is_same_place() || id(one).is_some_and(|found| id(other) == Some(found))
}

fn at_out(problem: CannotCreate) -> CreateError {
    CreateError { what: "the file named by --out", problem }
}

/// Creates a file that only its owner can read, atomically. Replaces an existing file only with `force`.
/// Never follows or replaces links.
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

/// Checks in advance whether a file can be created, as far as possible.
pub(super) fn check(path: &Path, force: bool) -> Result<(), CannotCreate> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(CannotCreate::NoFile),
        Ok(_) if !force => Err(CannotCreate::Exists),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

impl From<io::Error> for CannotCreate {
    /// Keeps only the kind: some error texts quote the path.
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl fmt::Display for CannotCreate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => {
                f.write_str("exists; choose another name, or use --force to replace it")
            }
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
