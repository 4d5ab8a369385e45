//! Keys, secrets and configurations from where they may come: standard input, a file, the
//! environment.

use std::env::{self, VarError};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::mem::take;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{Config, RoleConfig};

use super::error::{Error, InputProblem, Origin};
use super::output::Output;

/// The longest key or secret that is read: many times what is valid, so that the error is about the
/// content, and little enough to be held whatever is piped in.
const MAX_TEXT_BYTES: u64 = 64 * 1024;

/// The longest configuration that is read. It may list each revoked key.
const MAX_CONFIG_BYTES: u64 = 8 * 1024 * 1024;

/// The option that names a configuration.
const CONFIG: &str = "--config";

/// Where the key is read from; standard input unless an option says otherwise.
#[derive(clap::Args)]
#[group(multiple = false)]
pub(super) struct KeyArgs {
    /// Read the key from a file (- is standard input, where it is read from by default)
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
    /// Read the key from an environment variable
    #[arg(long, value_name = "NAME", value_parser = variable_name)]
    key_env: Option<String>,
}

/// A place to read from.
pub(super) enum Place {
    /// A file, and the option that names it.
    File(&'static str, PathBuf),
    /// Standard input.
    Stdin,
    /// An environment variable, and the option that names it.
    Variable(&'static str, String),
}

// === impl KeyArgs ===

impl KeyArgs {
    /// Where the key is.
    pub(super) fn place(&self) -> Place {
        match (&self.key_file, &self.key_env) {
            (Some(path), _) => Place::file("--key-file", path),
            (None, Some(name)) => Place::Variable("--key-env", name.clone()),
            (None, None) => Place::Stdin,
        }
    }

    /// Reads the key. A person at a terminal is told what is waited for.
    pub(super) fn read(&self, out: &mut Output) -> Result<Zeroizing<String>, Error> {
        let place = self.place();
        if matches!(place, Place::Stdin) && io::stdin().is_terminal() {
            out.note("reading the key from standard input");
        }
        place.read_line()
    }
}

// === impl Place ===

impl Place {
    /// The file of a path; `-` is standard input.
    pub(super) fn file(option: &'static str, path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::File(option, path.to_owned()) }
    }

    /// Reads a text on one line, without its line end. Content of a variable is taken as it is, as
    /// the module takes it.
    pub(super) fn read_line(&self) -> Result<Zeroizing<String>, Error> {
        let mut bytes = self.read_bytes(MAX_TEXT_BYTES)?;
        if !matches!(self, Self::Variable(..)) {
            strip_line_end(&mut bytes);
        }
        if bytes.is_empty() {
            return Err(self.error(InputProblem::Empty));
        }
        match String::from_utf8(take(&mut *bytes)) {
            Ok(text) => Ok(Zeroizing::new(text)),
            Err(not_utf8) => {
                drop(Zeroizing::new(not_utf8.into_bytes()));
                Err(self.error(InputProblem::NotUtf8))
            }
        }
    }

    /// Reads all of it, if it is not longer than `max`.
    pub(super) fn read_bytes(&self, max: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
        let read = match self {
            Self::File(_, path) => {
                File::open(path).map_err(InputProblem::Io).and_then(|file| read_bounded(file, max))
            }
            Self::Stdin => read_bounded(io::stdin().lock(), max),
            Self::Variable(_, name) => variable(name).map(|text| text.into_bytes().into()),
        };
        read.map_err(|problem| self.error(problem))
    }

    /// The error that what is here cannot be used.
    pub(super) fn error(&self, problem: InputProblem) -> Error {
        let origin = match self {
            Self::File(option, _) => Origin::File(option),
            Self::Stdin => Origin::Stdin,
            Self::Variable(option, _) => Origin::Variable(option),
        };
        Error::Input(origin, problem)
    }
}

/// Reads a configuration; `-` is standard input.
pub(super) fn config(path: &Path) -> Result<Config, Error> {
    let text = Place::file(CONFIG, path).read_bytes(MAX_CONFIG_BYTES)?;
    Config::parse(&text).map_err(Error::Config)
}

/// Reads a configuration of either role, and its text; `-` is standard input.
pub(super) fn role_config(path: &Path) -> Result<(Vec<u8>, RoleConfig), Error> {
    let mut text = Place::file(CONFIG, path).read_bytes(MAX_CONFIG_BYTES)?;
    let config = RoleConfig::parse(&text).map_err(Error::Config)?;
    Ok((take(&mut *text), config))
}

/// Makes sure that the variables a configuration names hold text, as far as they are set.
pub(super) fn check_variables<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    for name in names {
        if let Err(problem @ InputProblem::NotUtf8) = variable(name) {
            return Err(Error::Input(Origin::Configured(name.to_owned()), problem));
        }
    }
    Ok(())
}

/// The value of a variable that a configuration names; none where it is not text.
pub(super) fn environment(name: &str) -> Option<String> {
    variable(name).ok()
}

/// Reads an argument that names an environment variable.
pub(super) fn variable_name(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !text.is_empty() && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("expected the name of an environment variable, not what it holds")
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge where the command reads its environment")]
fn variable(name: &str) -> Result<String, InputProblem> {
    env::var(name).map_err(|error| match error {
        VarError::NotPresent => InputProblem::Unset,
        VarError::NotUnicode(_) => InputProblem::NotUtf8,
    })
}

fn read_bounded(from: impl Read, max: u64) -> Result<Zeroizing<Vec<u8>>, InputProblem> {
    // With room for a whole key or secret from the start, no copy of it is left behind in memory.
    let room = usize::try_from(MAX_TEXT_BYTES).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let mut bounded = from.take(max + 1);
    bounded.read_to_end(&mut bytes).map_err(InputProblem::Io)?;
    if bounded.limit() == 0 { Err(InputProblem::TooLong(max)) } else { Ok(bytes) }
}

fn strip_line_end(bytes: &mut Vec<u8>) {
    if bytes.pop_if(|byte| *byte == b'\n').is_some() {
        bytes.pop_if(|byte| *byte == b'\r');
    }
}
