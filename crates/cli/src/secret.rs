//! `vkey secret`: secrets of rings, and other randomness.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use vkey::key::keyring::MIN_SECRET_BYTES;

use super::error::{Error, Failure};
use super::exit::Exit;
use super::output::Output;
use super::private::OutArgs;

/// Bytes of a key's random id: 96 bits, so that keys minted anywhere do not meet.
const ID_BYTES: usize = 12;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a fresh secret of 32 random bytes; put it where the proxy's environment comes from
    New(OutArgs),
}

/// The system has no random bytes for us.
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

/// A secret that no ring has.
pub(super) fn fresh() -> Result<Zeroizing<String>, NoRandomness> {
    let secret = random::<MIN_SECRET_BYTES>()?;
    let text = Zeroizing::new(STANDARD.encode(secret.as_slice()));
    Ok(Zeroizing::new(format!("base64:{}", *text)))
}

/// A key's id that no other key has.
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
