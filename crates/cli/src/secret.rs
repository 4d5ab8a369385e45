//! `vkey secret`: secrets of rings, their signing keys, and random ids.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use vkey::key::keyring::MIN_SECRET_BYTES;
use vkey::key::token::Kid;

use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::{Place, variable_name};
use super::output::Output;
use super::private::OutArgs;
use super::ring_secret::read_secret;

/// The length of a key's random id: 96 bits, so that ids do not collide wherever keys are minted.
const ID_BYTES: usize = 12;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a new secret of 32 random bytes; store it where the proxy gets its environment from
    New(OutArgs),
    /// Derive the signing key of one kid from the secret of its ring, for a machine that must not have the secret
    Derive(DeriveArgs),
}

/// What to derive, and from what.
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct DeriveArgs {
    /// The kid of the signing key: the name of the ring and the epoch, e.g. main-2969; main-0 if it does not rotate
    #[arg(long, value_name = "KID", value_parser = kid)]
    kid: Kid,
    /// The environment variable that holds the ring's secret
    #[arg(long, value_name = "NAME", value_parser = variable_name, conflicts_with = "secret_file")]
    secret_env: Option<String>,
    /// The file that holds the ring's secret (- is standard input, the default)
    #[arg(long, value_name = "PATH")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
}

/// The system returned no random bytes.
#[derive(Debug)]
pub(super) struct NoRandomness(getrandom::Error);

/// Runs `vkey secret`.
pub(super) fn run(command: &Command, out: &mut Output) -> Result<Exit, Error> {
    match command {
        Command::New(args) => {
            args.write(&*fresh()?, out)?;
        }
        Command::Derive(args) => {
            let (_, secret) = read_secret(&args.place())?;
            args.out.write(&*secret.derive(&args.kid), out)?;
        }
    }
    Ok(Exit::Success)
}

impl DeriveArgs {
    fn place(&self) -> Place {
        match (&self.secret_file, &self.secret_env) {
            (Some(path), _) => Place::file("--secret-file", path),
            (None, Some(name)) => Place::Variable("--secret-env", name.clone()),
            (None, None) => Place::Stdin,
        }
    }
}

fn kid(text: &str) -> Result<Kid, &'static str> {
    Kid::parse(text.as_bytes())
        .map_err(|_| "expected the name of a ring, - and an epoch, e.g. main-2969")
}

/// A new secret.
pub(super) fn fresh() -> Result<Zeroizing<String>, NoRandomness> {
    let secret = random::<MIN_SECRET_BYTES>()?;
    let text = Zeroizing::new(STANDARD.encode(secret.as_slice()));
    Ok(Zeroizing::new(format!("base64:{}", *text)))
}

/// A new key id.
pub(super) fn random_id() -> Result<String, NoRandomness> {
    let bytes = random::<ID_BYTES>()?;
    Ok(format!("k_{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

impl Failure for NoRandomness {
    fn exit(&self) -> Exit {
        Exit::Environment
    }
}

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read random bytes: {}", self.0)
    }
}
