//! Where the secrets of a configuration's rings come from.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use vkey::config::{NotReady, RingConfig};
use vkey::key::keyring::{InvalidSecret, Secret};

use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::{self, InputError, Place};
use super::strength::{self, Guessable, GuessableSecret};

/// A file in place of an environment variable.
#[derive(clap::Args)]
pub(super) struct SecretFileArgs {
    /// Read the ring's secret, or its signing key, from a file, not from the variable that the configuration names
    #[arg(long, value_name = "PATH")]
    secret_file: Option<PathBuf>,
}

/// The environment of a command, in which a file may stand for the variable of the rings.
pub(super) struct RingEnvironment {
    /// The name of the variable, or the key of the filter state, that is replaced, and its value.
    replaced: Option<(String, Zeroizing<String>)>,
    /// Whether the command has `--secret-file`.
    has_option: bool,
}

/// One secret is given, but the rings name several variables.
#[derive(Debug)]
struct SeveralSecrets;

/// The secret cannot be used.
#[derive(Debug)]
struct UnusableSecret(InvalidSecret);

impl SecretFileArgs {
    /// The file, if one is named.
    pub(super) fn place(&self) -> Option<Place> {
        self.secret_file.as_deref().map(|path| Place::file("--secret-file", path))
    }

    /// Whether the secret is read from standard input.
    pub(super) fn is_stdin(&self) -> bool {
        matches!(self.place(), Some(Place::Stdin))
    }
}

impl RingEnvironment {
    /// The environment alone, for a command that has no `--secret-file`.
    pub(super) fn of_process() -> Self {
        Self { replaced: None, has_option: false }
    }

    /// The environment of a command that has `--secret-file`. If a place is given, it holds the secret or the signing
    /// key, which all rings must share.
    pub(super) fn read(rings: &[RingConfig], place: Option<&Place>) -> Result<Self, Error> {
        let replaced = place.map(|place| read_secret_of(rings, place)).transpose()?;
        Ok(Self { replaced, has_option: true })
    }

    /// The value of a variable; `None` if it is unset or not text.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        match &self.replaced {
            Some((variable, text)) if variable == name => Some(text.to_string()),
            _ => input::environment(name),
        }
    }

    /// The error for what is missing here.
    pub(super) fn lacks(&self, not_ready: NotReady) -> InputError {
        match self.has_option && not_ready.is_unset_secret() {
            true => InputError::SecretUnset(not_ready),
            false => InputError::NotReady(not_ready),
        }
    }
}

/// Reads the secret of a ring. Returns its text too.
pub(super) fn read_secret(place: &Place) -> Result<(Zeroizing<String>, Secret), Error> {
    let text = place.read_line()?;
    let secret = Secret::parse_unguessable(&text).map_err(UnusableSecret)?;
    strength::check(&text)
        .map_err(|Guessable { bits }| GuessableSecret { origin: place.origin(), bits })?;
    Ok((text, secret))
}

/// Reads the secret or the signing key, which all rings must share. Returns the name of the variable or the key of the filter state, and the text.
fn read_secret_of(
    rings: &[RingConfig],
    place: &Place,
) -> Result<(String, Zeroizing<String>), Error> {
    let mut sources = rings.iter().flat_map(RingConfig::sources);
    let source = sources.next().unwrap_or_default();
    if sources.any(|other| other != source) {
        return Err(SeveralSecrets.into());
    }
    let (text, _) = read_secret(place)?;
    Ok((source.to_owned(), text))
}

impl Failure for UnusableSecret {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for UnusableSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Failure for SeveralSecrets {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for SeveralSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "--secret-file holds one secret, but the rings of the configuration name several variables; set those \
             instead",
        )
    }
}
