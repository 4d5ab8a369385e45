//! Where the secrets of a configuration's rings come from.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use vkey::config::{NotReady, RingConfig};
use vkey::key::keyring::{InvalidSecret, Secret};
use vkey::key::token::is_ring_name;

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
    /// Read the secret of the ring with this name from a file; repeatable
    #[arg(long, value_name = "RING=PATH", value_parser = ring_file, conflicts_with = "secret_file")]
    ring_secret_file: Vec<(String, PathBuf)>,
}

/// The environment of a command, in which a file may stand for the variable of the rings.
pub(super) struct RingEnvironment {
    /// What is replaced, as [`RingConfig::sources`] names it, and the values.
    replaced: Vec<(String, Zeroizing<String>)>,
    /// Whether the command has `--secret-file`.
    has_option: bool,
}

/// One secret is given, but the rings have several.
#[derive(Debug)]
struct SeveralSecrets;

/// There is no ring with the name of `--ring-secret-file`, of those that the command needs.
#[derive(Debug)]
struct NoSuchRing(Vec<String>);

/// The secret cannot be used.
#[derive(Debug)]
struct UnusableSecret(InvalidSecret);

impl SecretFileArgs {
    /// The file, if one is named.
    pub(super) fn place(&self) -> Option<Place> {
        self.secret_file.as_deref().map(|path| Place::file("--secret-file", path))
    }

    /// Whether a secret is read from standard input.
    pub(super) fn is_stdin(&self) -> bool {
        let is_stdin = |path: &PathBuf| path.as_os_str() == "-";
        matches!(self.place(), Some(Place::Stdin))
            || self.ring_secret_file.iter().any(|(_, path)| is_stdin(path))
    }
}

impl RingEnvironment {
    /// The environment alone, for a command that has no `--secret-file`.
    pub(super) fn of_process() -> Self {
        Self { replaced: Vec::new(), has_option: false }
    }

    /// The environment of a command that has `--secret-file`. That file holds the secret or the signing key, which all
    /// rings must share.
    pub(super) fn read(rings: &[RingConfig], files: &SecretFileArgs) -> Result<Self, Error> {
        let shared = files.place().map(|place| read_secret_of(rings, &place));
        let mut replaced = Vec::from_iter(shared.transpose()?);
        for (name, path) in &files.ring_secret_file {
            let ring = rings.iter().find(|ring| ring.name() == name);
            let names = || rings.iter().map(|ring| ring.name().to_owned()).collect();
            let ring = ring.ok_or_else(|| NoSuchRing(names()))?;
            let place = Place::file("--ring-secret-file", path);
            replaced.push(read_secret_of(std::slice::from_ref(ring), &place)?);
        }
        Ok(Self { replaced, has_option: true })
    }

    /// The value of a source of a ring; `None` if it is unset or not text.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let replaced = self.replaced.iter().find(|(source, _)| source == name);
        replaced.map_or_else(|| input::environment(name), |(_, text)| Some(text.to_string()))
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

/// Reads the secret or the signing key, which all rings must share. Returns their source, as [`RingConfig::sources`]
/// names it, and the text.
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
            "--secret-file holds one secret, but the rings of the configuration have several; name a file for each with \
             --ring-secret-file, or set the variables",
        )
    }
}

/// A ring and a file.
fn ring_file(text: &str) -> Result<(String, PathBuf), &'static str> {
    match text.split_once('=') {
        Some((ring, path)) if is_ring_name(ring) && !path.is_empty() => {
            Ok((ring.to_owned(), path.into()))
        }
        _ => Err("expected the name of a ring, = and a path, e.g. main=/etc/vkey/secrets/main"),
    }
}

impl Failure for NoSuchRing {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for NoSuchRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(names) = self;
        write!(
            f,
            "--ring-secret-file names a ring that is not needed here; expected one of {}",
            names.join(", ")
        )
    }
}
