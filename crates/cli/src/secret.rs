//! `vkey secret`: random secrets for rings, and random ids.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use vkey::key::keyring::MIN_SECRET_BYTES;

use super::error::{Error, Failure};
use super::exit::Exit;
use super::output::Output;
use super::private::OutArgs;

/// The length of a key's random id: 96 bits, so that ids do not collide wherever keys are minted.
const ID_BYTES: usize = 12;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a new secret of 32 random bytes; store it where the proxy gets its environment from
    New(OutArgs),
}

/// The system returned no random bytes.
#[derive(Debug)]
pub(super) struct NoRandomness(getrandom::Error);

/// Runs `vkey secret`.
pub(super) fn run(command: &Command, out: &mut Output) -> Result<Exit, Error> {
    match command {
        Command::New(args) => {
            args.write(&*fresh()?, out)?;
            Ok(Exit::Success)
        }
    }
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
