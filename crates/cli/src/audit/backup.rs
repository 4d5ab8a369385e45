//! `vkey audit backup`: copies the store of `vkey serve`.

use std::fmt;
use std::io;
use std::path::PathBuf;

use vkey_server::store::{Content, StoreError, backup};

use super::store::StoreFailure;
use crate::error::{Error, Failure};
use crate::exit::Exit;
use crate::output::Output;
use crate::text::counted;

const AFTER_HELP: &str = "\
The backup is the store at one moment: `vkey serve` may write meanwhile. It is one new file, which only its owner can \
read. A backup that was killed leaves a file whose name begins like that of the backup and ends in .part; delete it.

Exit codes: 0 success; 1 the file is not a store, or damaged; 2 invalid usage; 3 a file or the system failed.";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The store
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// The new file
    #[arg(value_name = "TO")]
    to: PathBuf,
}

/// The new file has the name of another one.
#[derive(Debug)]
struct Taken;

/// Runs `vkey audit backup`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let content = backup(&args.store, &args.to).map_err(|error| args.failure(error))?;
    out.note(format_args!("the backup holds {}", shown(content)));
    Ok(Exit::Success)
}

/// What a store holds, in words.
pub(super) fn shown(content: Content) -> String {
    let things = |count, thing| counted(usize::try_from(count).unwrap_or(usize::MAX), thing);
    format!("{} of {}", things(content.records, "record"), things(content.chains, "chain"))
}

// === impl Args ===

impl Args {
    fn failure(&self, error: StoreError) -> Error {
        match &error {
            StoreError::File(path, cause) if *path == self.to => match cause.kind() {
                io::ErrorKind::AlreadyExists => Taken.into(),
                _ => StoreFailure::new("the new file", error).into(),
            },
            _ => StoreFailure::new("the file named by --store", error).into(),
        }
    }
}

// === impl Taken ===

impl Failure for Taken {
    fn exit(&self) -> Exit {
        Exit::Environment
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the new file is there already; a backup replaces nothing, so name another one")
    }
}
