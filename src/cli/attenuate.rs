//! `vkey attenuate`: a key narrowed by whoever holds it.

use crate::caveat::Restriction;
use crate::json::{Integers, Invalid, Json};
use crate::token::Unverified;

use super::error::{Error, Exit};
use super::input::KeyArgs;
use super::output::Output;

#[derive(clap::Args)]
pub(super) struct Args {
    /// What the key is to be narrowed to, a restriction in JSON; may be repeated
    #[arg(long, value_name = "JSON", required = true)]
    caveat: Vec<String>,
    #[command(flatten)]
    key: KeyArgs,
}

/// Runs `vkey attenuate`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let caveats = read_caveats(&args.caveat)?;
    let key = args.key.read(out)?;
    let narrowed = attenuate(key.as_str().to_owned(), &caveats)?;
    out.line(&narrowed)?;
    Ok(Exit::Success)
}

/// Reads the caveats of `--caveat`, none of which a gate may fail to understand.
pub(super) fn read_caveats(texts: &[String]) -> Result<Vec<Json>, Error> {
    let read = |(index, text): (usize, &String)| {
        let number = Some(index + 1);
        read_caveat(text).map_err(|invalid| Error::Json { option: "--caveat", number, invalid })
    };
    texts.iter().enumerate().map(read).collect()
}

/// Adds the caveats in their order.
pub(super) fn attenuate(key: String, caveats: &[Json]) -> Result<String, Error> {
    caveats.iter().try_fold(key, |key, caveat| {
        let unverified = Unverified::parse(key.as_bytes()).map_err(|_| Error::Malformed)?;
        let text = caveat.to_string();
        unverified.attenuate(text.as_bytes()).map_err(Error::Attenuate)
    })
}

fn read_caveat(text: &str) -> Result<Json, Invalid> {
    let json = Json::parse(text.as_bytes())?;
    Restriction::read(&json.root(Integers::Digits))?;
    Ok(json)
}
