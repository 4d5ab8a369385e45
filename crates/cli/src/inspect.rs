//! `vkey inspect`: shows the content of a key, unverified.

use vkey::issuing::{Inspection, KeyFlaw};

use super::error::Error;
use super::exit::Exit;
use super::input::KeyArgs;
use super::output::Output;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
}

/// Runs `vkey inspect`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let key = args.key.read(out)?;
    let inspection = Inspection::of(&KeyFlaw::read(&key)?);
    out.line("NOT VERIFIED: anyone can write what follows; `vkey explain` checks it")?;
    inspection.lines.iter().try_for_each(|line| out.line(line))?;
    inspection.notes.iter().for_each(|note| out.note(note));
    Ok(match inspection.is_understood {
        true => Exit::Success,
        false => Exit::Refused,
    })
}
