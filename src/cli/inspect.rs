//! `vkey inspect`: what a key says, which nobody vouches for.

use crate::caveat::Restriction;
use crate::claims::Claims;
use crate::json::{Integers, Invalid, Json};
use crate::token::Unverified;

use super::error::{Error, Exit};
use super::input::KeyArgs;
use super::output::{Output, pretty};
use super::time::rfc3339;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
}

/// Runs `vkey inspect`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let key = args.key.read(out)?;
    let unverified = Unverified::parse(key.as_bytes()).map_err(|_| Error::Malformed)?;
    let (claims, caveats) = unverified.untrusted_content();
    out.line("NOT VERIFIED: anyone can write what follows; `vkey explain` checks it")?;
    let kid = unverified.kid();
    out.line(format_args!("kid         {kid} (ring {}, epoch {})", kid.ring(), kid.epoch()))?;
    let mut understood = show_claims(claims, out)?;
    for (index, caveat) in caveats.enumerate() {
        let name = format!("caveat {}", index + 1);
        show(&name, caveat, out)?;
        understood &= note(&name, &Restriction::parse(caveat), out);
    }
    Ok(match understood {
        true => Exit::Success,
        false => Exit::Refused,
    })
}

/// Shows the claims; whether a gate would understand them.
fn show_claims(text: &[u8], out: &mut Output) -> Result<bool, Error> {
    let claims = Claims::parse(text);
    if let Ok(claims) = &claims {
        show_times(claims, out)?;
    }
    show("claims", text, out)?;
    let understood = note("claims", &claims, out);
    let only = claims.ok().and_then(|claims| claims.only);
    let restricts = |only: Json| Restriction::read(&only.root(Integers::Digits));
    Ok(understood && only.map(restricts).is_none_or(|read| note("only", &read, out)))
}

fn show_times(claims: &Claims, out: &mut Output) -> Result<(), Error> {
    out.line(format_args!("issued      {}", rfc3339(claims.iat)))?;
    if let Some(nbf) = claims.nbf {
        out.line(format_args!("not before  {}", rfc3339(nbf)))?;
    }
    out.line(format_args!("expires     {}", rfc3339(claims.exp)))
}

fn show(name: &str, text: &[u8], out: &mut Output) -> Result<(), Error> {
    match Json::parse(text) {
        Ok(json) => out.line(format_args!("{name}\n{}", pretty(&json))),
        Err(_) => out.line(format_args!("{name}\n(not JSON)")),
    }
}

/// Whether a gate would understand what was read; if not, a person is told why.
fn note<T>(name: &str, read: &Result<T, Invalid>, out: &mut Output) -> bool {
    if let Err(invalid) = read {
        out.note(format_args!("{name}: {invalid}; a gate refuses the key"));
    }
    read.is_ok()
}
