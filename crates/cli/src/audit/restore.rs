//! `vkey audit restore`: puts a backup in the place of the store of `vkey serve`.

use std::fmt;
use std::path::{Path, PathBuf};

use vkey_server::store::{Behind, Contradiction, RestoreError, StoreError, restore};

use super::backup::shown;
use super::store::StoreFailure;
use crate::error::{Error, Failure};
use crate::exit::Exit;
use crate::output::Output;
use crate::text::{escape_line, escape_word};

const AFTER_HELP: &str = "\
Stop `vkey serve` first. Nothing is restored if the store, or another copy that --copy names, has seen an anchor that \
counts records which the backup lacks. A restore that is killed leaves the old store or the new one.

Exit codes: 0 success; 1 the backup is behind another copy, not a store, or damaged; 2 invalid usage; 3 a file or the \
system failed, or another process has the store open.";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The backup
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// The store to replace, or to make
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// Another store or backup, whose anchors must not be ahead of the backup; repeat it for more
    #[arg(long, value_name = "FILE")]
    copy: Vec<PathBuf>,
}

/// Why nothing was restored.
#[derive(Debug)]
enum NotRestored {
    Same,
    InUse,
    /// The file that is in the way.
    Beside(PathBuf),
    /// The store that would be replaced cannot be read.
    Replaced(StoreFailure),
    /// A copy cannot be read. The number counts the copies from 1.
    Copy(usize, StoreFailure),
}

/// Runs `vkey audit restore`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    match restore(&args.from, &args.store, &args.copy) {
        Ok(content) => {
            out.note(format_args!("the store holds {} again", shown(content)));
            Ok(Exit::Success)
        }
        Err(RestoreError::Behind(chains)) => {
            out.note("nothing was restored: the backup is behind another copy");
            for behind in &chains {
                out.note(args.behind_line(behind));
            }
            Ok(Exit::Refused)
        }
        Err(RestoreError::Contradiction(found)) => {
            out.note("nothing was restored: the backup contradicts another copy");
            out.note(args.contradiction_line(&found));
            Ok(Exit::Refused)
        }
        Err(error) => Err(args.failure(error)),
    }
}

// === impl Args ===

impl Args {
    fn behind_line(&self, behind: &Behind) -> String {
        let Behind { copy, chain, anchored, lacking, first } = behind;
        let copy = self.name(copy);
        format!(
            "chain {}: {copy} has seen an anchor for {anchored} records, and the backup lacks {lacking} of them; the \
             first is record {first}",
            escape_word(chain)
        )
    }

    fn contradiction_line(&self, found: &Contradiction) -> String {
        let Contradiction { copy, chain, records } = found;
        let copy = self.name(copy);
        format!(
            "chain {}: the anchors for {records} records differ between the backup and {copy}; `vkey audit verify` \
             says which of their logs verifies",
            escape_word(chain)
        )
    }

    /// The copy, or the store that would be replaced.
    fn name(&self, copy: &Path) -> String {
        match self.copy.iter().any(|path| path == copy) {
            true => escape_line(&copy.to_string_lossy()),
            false => "the store".to_owned(),
        }
    }

    fn failure(&self, error: RestoreError) -> Error {
        let store = |error| StoreFailure::new("the file named by --store", error);
        match error {
            RestoreError::Store(error) => store(error).into(),
            RestoreError::Backup(error) => StoreFailure::new("the backup", error).into(),
            RestoreError::Same => NotRestored::Same.into(),
            RestoreError::InUse => NotRestored::InUse.into(),
            RestoreError::Beside(path) => NotRestored::Beside(path).into(),
            RestoreError::Replaced(error) => NotRestored::Replaced(store(error)).into(),
            RestoreError::Copy(path, error) => self.copy_failure(&path, error).into(),
            RestoreError::Behind(_) | RestoreError::Contradiction(_) => {
                store(StoreError::Damaged).into()
            }
        }
    }

    fn copy_failure(&self, path: &Path, error: StoreError) -> NotRestored {
        let index = self.copy.iter().position(|copy| copy == path).unwrap_or(0);
        NotRestored::Copy(index + 1, StoreFailure::new("the file", error))
    }
}

// === impl NotRestored ===

impl Failure for NotRestored {
    fn exit(&self) -> Exit {
        match self {
            Self::Same => Exit::Usage,
            Self::InUse | Self::Beside(_) => Exit::Environment,
            Self::Replaced(failure) | Self::Copy(_, failure) => failure.exit(),
        }
    }
}

impl fmt::Display for NotRestored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => f.write_str("the backup and the store are one file"),
            Self::InUse => f.write_str(
                "another process reads the store that would be replaced; wait until it has ended",
            ),
            Self::Beside(path) => write!(
                f,
                "{} is there, and belongs to another store; move it to that store, or delete it",
                escape_line(&path.to_string_lossy())
            ),
            Self::Replaced(failure) => write!(
                f,
                "{failure}; which anchors it has seen is not known, so move it away, with the files -wal and -shm \
                 beside it, to restore without it"
            ),
            Self::Copy(number, failure) => write!(f, "--copy {number}: {failure}"),
        }
    }
}
