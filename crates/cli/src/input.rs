//! Reads keys, secrets and configurations from standard input, a file or the environment.

use std::env::{self, VarError};
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::mem::take;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use vkey::config::NotReady;
use vkey::json::Invalid;

use super::error::Failure;
use super::exit::Exit;
use super::output::Output;

/// The longest key or secret that is read: many times a valid one, so that errors are about the content, and
/// short enough to hold whatever is piped in.
const MAX_TEXT_BYTES: u64 = 64 * 1024;

/// Where to read the key from: standard input unless an option says otherwise.
#[derive(clap::Args)]
#[group(multiple = false)]
pub(super) struct KeyArgs {
    /// Read the key from a file (- is standard input, the default)
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
    /// Read the key from an environment variable
    #[arg(long, value_name = "NAME", value_parser = variable_name)]
    key_env: Option<String>,
}

/// Where to read from.
pub(super) enum Place {
    /// A file, and the option that names it.
    File(&'static str, PathBuf),
    /// Standard input.
    Stdin,
    /// An environment variable, and the option that names it.
    Variable(&'static str, String),
}

/// Why an input of a command cannot be used.
#[derive(Debug)]
pub(super) enum InputError {
    /// A configuration that the command made is invalid.
    Config(Invalid),
    /// The configuration is not that of an upstream gate.
    NotAnUpstreamGate,
    /// An environment variable that the configuration names is missing or unusable.
    NotReady(NotReady),
    /// The environment variable of a secret is not set, and a file could stand for it.
    SecretUnset(NotReady),
    /// The JSON of an option is invalid.
    Option {
        /// The option.
        option: &'static str,
        /// Its position, from 1, if it can be repeated.
        number: Option<usize>,
        /// The error.
        invalid: Invalid,
    },
    /// Two inputs would both be read from standard input.
    StdinTwice,
    /// The input cannot be read, or its content is not what it should be.
    Unusable(Origin, InputProblem),
}

/// Where an input came from, as error messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An environment variable that the configuration names.
    Configured(String),
    /// A file.
    File(&'static str),
    /// Standard input.
    Stdin,
    /// An environment variable.
    Variable(&'static str),
}

/// Why an input cannot be used.
#[derive(Debug)]
pub(super) enum InputProblem {
    /// It is empty.
    Empty,
    /// It cannot be read.
    Io(io::Error),
    /// The file does not exist, and its name looks like an address.
    NoFile(io::Error),
    /// It contains no certificate.
    NoCertificate,
    /// It is not UTF-8.
    NotUtf8,
    /// It is longer than this limit, in bytes.
    TooLong(u64),
    /// The variable is not set.
    Unset,
}

// === impl KeyArgs ===

impl KeyArgs {
    /// Where to read the key from.
    pub(super) fn place(&self) -> Place {
        match (&self.key_file, &self.key_env) {
            (Some(path), _) => Place::file("--key-file", path),
            (None, Some(name)) => Place::Variable("--key-env", name.clone()),
            (None, None) => Place::Stdin,
        }
    }

    /// Reads the key. Prompts at a terminal.
    pub(super) fn read(&self, out: &mut Output) -> Result<Zeroizing<String>, InputError> {
        let place = self.place();
        if matches!(place, Place::Stdin) && io::stdin().is_terminal() {
            out.note("reading the key from standard input");
        }
        place.read_line()
    }
}

// === impl Place ===

impl Place {
    /// The place for a path; `-` is standard input.
    pub(super) fn file(option: &'static str, path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::File(option, path.to_owned()) }
    }

    /// Reads one line of text, without its line end. A variable is taken unchanged, like in the module.
    pub(super) fn read_line(&self) -> Result<Zeroizing<String>, InputError> {
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

    /// Reads everything; an error if it is longer than `max` bytes.
    pub(super) fn read_bytes(&self, max: u64) -> Result<Zeroizing<Vec<u8>>, InputError> {
        let read = match self {
            Self::File(_, path) => {
                File::open(path).map_err(InputProblem::Io).and_then(|file| read_bounded(file, max))
            }
            Self::Stdin => read_bounded(io::stdin().lock(), max),
            Self::Variable(_, name) => variable(name).map(|text| text.into_bytes().into()),
        };
        read.map_err(|problem| self.error(problem))
    }

    /// The error for an input from here.
    pub(super) fn error(&self, problem: InputProblem) -> InputError {
        InputError::Unusable(self.origin(), problem)
    }

    /// The name of this place in errors.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::File(option, _) => Origin::File(option),
            Self::Stdin => Origin::Stdin,
            Self::Variable(option, _) => Origin::Variable(option),
        }
    }
}

/// Checks that those variables of a configuration which are set hold text.
pub(super) fn check_variables<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), InputError> {
    for name in names {
        if let Err(problem @ InputProblem::NotUtf8) = variable(name) {
            return Err(InputError::Unusable(Origin::Configured(name.to_owned()), problem));
        }
    }
    Ok(())
}

/// The value of an environment variable; `None` if it is unset or not text.
pub(super) fn environment(name: &str) -> Option<String> {
    variable(name).ok()
}

/// Parses an argument that names an environment variable.
pub(super) fn variable_name(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !text.is_empty() && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("expected the name of an environment variable, not its value")
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
    // Reserves enough for a whole key or secret, so that no copy is left behind when the buffer grows.
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

impl Failure for InputError {
    fn exit(&self) -> Exit {
        match self {
            Self::StdinTwice => Exit::Usage,
            Self::NotReady(_) | Self::SecretUnset(_) => Exit::Environment,
            Self::Unusable(
                _,
                InputProblem::Io(_) | InputProblem::NoFile(_) | InputProblem::Unset,
            ) => Exit::Environment,
            Self::Config(_)
            | Self::NotAnUpstreamGate
            | Self::Option { .. }
            | Self::Unusable(..) => Exit::Refused,
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(invalid) => write!(f, "invalid configuration: {invalid}"),
            Self::NotAnUpstreamGate => f.write_str(
                "--upstream-gate names the configuration of a gate in a listener; expected one with \
                 {\"role\": \"upstream_tls\"}",
            ),
            Self::NotReady(not_ready) if not_ready.is_filter_state() => {
                write!(f, "{not_ready}; name a variable in a configuration for this command")
            }
            Self::SecretUnset(not_ready) if not_ready.is_filter_state() => {
                write!(f, "{not_ready}; name a file with the secret with --secret-file or --ring-secret-file")
            }
            Self::NotReady(not_ready) => {
                write!(f, "{not_ready}; this command takes it from its own environment")
            }
            Self::SecretUnset(not_ready) => {
                write!(f, "{not_ready}; export it, or name a file with the secret with --secret-file")
            }
            Self::Option { option, number: None, invalid } => write!(f, "{option}: {invalid}"),
            Self::Option { option, number: Some(number), invalid } => {
                write!(f, "{option} {number}: {invalid}")
            }
            Self::StdinTwice => f.write_str(
                "two inputs cannot both be read from standard input; put one into a file",
            ),
            Self::Unusable(origin, problem) => write_problem(f, origin, problem),
        }
    }
}

fn write_problem(
    f: &mut fmt::Formatter<'_>,
    origin: &Origin,
    problem: &InputProblem,
) -> fmt::Result {
    match problem {
        InputProblem::Empty => write!(f, "{origin} is empty; expected one line of text"),
        InputProblem::Io(error) => write!(f, "{origin} cannot be read: {error}; check the path"),
        InputProblem::NoFile(error) => write!(
            f,
            "{origin} cannot be read: {error}; if it is an admin interface, write http:// or https:// \
             before its address"
        ),
        InputProblem::NoCertificate => {
            write!(f, "{origin} contains no PEM certificate; expected that of the authority")
        }
        InputProblem::NotUtf8 => write!(f, "{origin} is not UTF-8 text; check its content"),
        InputProblem::TooLong(max) => {
            write!(f, "{origin} is longer than {max} bytes; check its content")
        }
        InputProblem::Unset => write!(f, "{origin} is not set; export it"),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(name) => write!(f, "environment variable {name}"),
            Self::File(option) => write!(f, "the file named by {option}"),
            Self::Stdin => f.write_str("standard input"),
            Self::Variable(option) => write!(f, "the environment variable named by {option}"),
        }
    }
}
