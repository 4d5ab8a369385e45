//! `vkey attenuate`: narrows a key without a secret.

use std::fmt;

use clap::ArgGroup;

use vkey::access::restriction::{Restriction, Slashes};
use vkey::json::{Invalid, Json};
use vkey::key::claims::Claims;
use vkey::key::token::{CannotAttenuate, Unverified};
use vkey::limits::ledger::MAX_FAMILY_LIMITS;

use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::{InputError, KeyArgs};
use super::key_flaw;
use super::output::Output;
use super::private::KeyOutArgs;
use super::review::{Review, only_of};
use super::time;
use super::uses::{UseArgs, check_restriction};

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

/// Why a key cannot be narrowed.
#[derive(Debug)]
pub(super) enum AttenuateError {
    /// The key format forbids it.
    Bound(CannotAttenuate),
    /// The caveats of the key set more limits than a gate counts.
    TooManyLimits,
}

/// Runs `vkey attenuate`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let caveats = read_caveats(&args.caveat, Slashes::written(args.keep_escaped_slashes))?;
    let used = args.uses.restriction()?;
    let key = args.key.read(out)?;
    let narrowed = attenuate(key.as_str().to_owned(), &caveats)?;
    let narrowed = attenuate(narrowed, used.as_slice())?;
    let mut review = Review::default();
    let earlier = restrictions(&key_flaw::read(&key)?);
    review.narrowings(&caveats, &earlier);
    used.iter().for_each(|used| review.narrowing(args.uses.options(), used, &earlier));
    // Only the new caveats: the restriction in the claims cannot be changed here.
    if let Ok(claims) = Claims::parse(key_flaw::read(&key)?.untrusted_content().0) {
        let now_secs = time::now(args.now)?;
        let start = now_secs.max(claims.iat).max(claims.nbf.unwrap_or(0));
        match claims.exp <= now_secs {
            true => review.refuse("the key has expired; mint another"),
            false => {
                let valid = start..claims.exp;
                review.caveats(&caveats, &valid);
                used.iter().for_each(|used| review.restriction(args.uses.options(), used, &valid));
            }
        }
    }
    review.check(args.out.force)?;
    args.out.write(&narrowed, out)?;
    review.print(out);
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

/// Appends the caveats in order.
pub(super) fn attenuate(key: String, caveats: &[Json]) -> Result<String, Error> {
    let narrowed = caveats.iter().try_fold(key, |key, caveat| {
        let text = caveat.to_string();
        let narrowed =
            key_flaw::read(&key)?.attenuate(text.as_bytes()).map_err(AttenuateError::Bound)?;
        Ok::<_, Error>(narrowed)
    })?;
    if later_limits_len(&key_flaw::read(&narrowed)?) > MAX_FAMILY_LIMITS {
        return Err(AttenuateError::TooManyLimits.into());
    }
    Ok(narrowed)
}

fn read_caveat(text: &str, slashes: Slashes) -> Result<Json, Invalid> {
    let json = Json::parse(text.as_bytes())?;
    check_restriction(&json, slashes)?;
    Ok(json)
}

/// The restrictions of a key in its claims and its caveats. Those that cannot be parsed are left out.
fn restrictions(key: &Unverified<'_>) -> Vec<Restriction> {
    let (claims, caveats) = key.untrusted_content();
    let only = Claims::parse(claims).ok().and_then(|claims| only_of(&claims));
    only.into_iter().chain(caveats.filter_map(|text| Restriction::parse(text).ok())).collect()
}

/// How many limits the caveats after the first set. Caveats that cannot be parsed set none.
fn later_limits_len(key: &Unverified<'_>) -> usize {
    let (_, caveats) = key.untrusted_content();
    let restrictions = caveats.skip(1).filter_map(|text| Restriction::parse(text).ok());
    restrictions.map(|restriction| restriction.limits().iter().count()).sum()
}

impl Failure for AttenuateError {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for AttenuateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound(cannot @ CannotAttenuate::Jwt) => {
                write!(f, "the key cannot be narrowed: {cannot}")
            }
            Self::Bound(cannot) => write!(
                f,
                "the key cannot be narrowed: {cannot}; shorten it, or mint a key with it in --only"
            ),
            Self::TooManyLimits => write!(
                f,
                "the caveats after the first would set more than {MAX_FAMILY_LIMITS} limits: every \
                 gate would refuse the key; set fewer, or mint a key with them in --only"
            ),
        }
    }
}
