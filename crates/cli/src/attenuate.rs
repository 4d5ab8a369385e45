//! `vkey attenuate`: narrows a key without a secret.

use clap::ArgGroup;

use vkey::access::restriction::Slashes;
use vkey::issuing::{KeyFlaw, OPTIONS, Review, check_restriction, narrow, restrictions};
use vkey::json::{Invalid, Json};
use vkey::key::claims::Claims;

use super::error::Error;
use super::exit::Exit;
use super::input::{InputError, KeyArgs};
use super::output::Output;
use super::private::KeyOutArgs;
use super::review;
use super::time;
use super::uses::UseArgs;

#[derive(clap::Args)]
#[command(group = ArgGroup::new("to").args(["caveat", "models", "tools"]).required(true).multiple(true))]
pub(super) struct Args {
    /// What to narrow the key to, a restriction in JSON; may be repeated
    #[arg(long, value_name = "JSON")]
    caveat: Vec<String>,
    #[command(flatten)]
    uses: UseArgs,
    /// Accept %2F in path globs: the key's tier keeps it (`escaped_slashes`)
    #[arg(long)]
    keep_escaped_slashes: bool,
    /// Narrow as of this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    now: Option<u64>,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    out: KeyOutArgs,
}

/// Runs `vkey attenuate`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let caveats = read_caveats(&args.caveat, Slashes::written(args.keep_escaped_slashes))?;
    let used = args.uses.restriction()?;
    let key = args.key.read(out)?;
    let narrowed = narrow(key.as_str().to_owned(), &caveats)?;
    let narrowed = narrow(narrowed, used.as_slice())?;
    let mut review = Review::default();
    let earlier = restrictions(&KeyFlaw::read(&key)?);
    review.narrowings(&OPTIONS, &caveats, &earlier);
    used.iter().for_each(|used| review.narrowing(args.uses.options(), used, &earlier));
    // Only the new caveats: the restriction in the claims cannot be changed here.
    if let Ok(claims) = Claims::parse(KeyFlaw::read(&key)?.untrusted_content().0) {
        let now_secs = time::now(args.now)?;
        if let Some(valid) = review.life(&claims, now_secs) {
            review.caveats(&OPTIONS, &caveats, &valid);
            used.iter().for_each(|used| review.restriction(args.uses.options(), used, &valid));
        }
    }
    review::check(&mut review, args.out.force)?;
    args.out.write(&narrowed, out)?;
    review::print(&review, out);
    Ok(Exit::Success)
}

/// Reads the caveats of `--caveat`. Rejects those that a gate would not understand.
pub(super) fn read_caveats(texts: &[String], slashes: Slashes) -> Result<Vec<Json>, InputError> {
    let read = |(index, text): (usize, &String)| {
        let number = Some(index + 1);
        read_caveat(text, slashes).map_err(|invalid| InputError::Option {
            option: "--caveat",
            number,
            invalid,
        })
    };
    texts.iter().enumerate().map(read).collect()
}

fn read_caveat(text: &str, slashes: Slashes) -> Result<Json, Invalid> {
    let json = Json::parse(text.as_bytes())?;
    check_restriction(&json, slashes)?;
    Ok(json)
}
