//! `vkey inspect`: shows the content of a key, unverified.

use vkey::access::restriction::{Restriction, Slashes, refuse_mistakes};
use vkey::json::{Integers, Invalid, Json};
use vkey::key::claims::Claims;

use super::error::Error;
use super::exit::Exit;
use super::input::KeyArgs;
use super::key_flaw;
use super::output::{Output, OutputError};
use super::text::pretty;
use super::time::rfc3339;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    key: KeyArgs,
}

/// Runs `vkey inspect`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let key = args.key.read(out)?;
    let unverified = key_flaw::read(&key)?;
    let (claims, caveats) = unverified.untrusted_content();
    out.line("NOT VERIFIED: anyone can write what follows; `vkey explain` checks it")?;
    let kid = unverified.kid();
    out.line(format_args!("kid         {kid} (ring {}, epoch {})", kid.ring(), kid.epoch()))?;
    let mut understood = show_claims(claims, out)?;
    for (index, caveat) in caveats.enumerate() {
        let name = format!("caveat {}", index + 1);
        show(&name, caveat, out)?;
        let restriction = Restriction::parse(caveat);
        understood &= note(&name, &restriction, out);
        if let (Ok(restriction), Ok(json)) = (restriction, Json::parse(caveat)) {
            show_restriction(&name, &restriction, &json, out)?;
        }
    }
    Ok(match understood {
        true => Exit::Success,
        false => Exit::Refused,
    })
}

/// Prints the claims. Returns whether a gate would understand them.
fn show_claims(text: &[u8], out: &mut Output) -> Result<bool, OutputError> {
    let claims = Claims::parse(text);
    if let Ok(claims) = &claims {
        show_times(claims, out)?;
    }
    show("claims", text, out)?;
    let understood = note("claims", &claims, out);
    let Some(only) = claims.ok().and_then(|claims| claims.only) else {
        return Ok(understood);
    };
    let restriction = Restriction::read(&only.root(Integers::Digits));
    let understood = note("only", &restriction, out) && understood;
    if let Ok(restriction) = restriction {
        show_restriction("only", &restriction, &only, out)?;
    }
    Ok(understood)
}

fn show_times(claims: &Claims, out: &mut Output) -> Result<(), OutputError> {
    out.line(format_args!("issued      {}", rfc3339(claims.iat)))?;
    show_span(claims.nbf, Some(claims.exp), "", out)
}

/// Prints what a person cannot see in a restriction's JSON: its times as dates, and the parts that no request
/// can match.
fn show_restriction(
    name: &str,
    restriction: &Restriction,
    json: &Json,
    out: &mut Output,
) -> Result<(), OutputError> {
    let of = format!("  ({name})");
    show_span(restriction.nbf_secs(), restriction.exp_secs(), &of, out)?;
    for (index, alternative) in restriction.alternatives().iter().enumerate() {
        let of = format!("  ({name}, any_of[{index}])");
        show_span(alternative.nbf_secs(), alternative.exp_secs(), &of, out)?;
    }
    if let Err(invalid) = refuse_mistakes(&json.root(Integers::Digits), Slashes::Found) {
        out.note(format_args!("{name}: {invalid}; no request can match it"));
    }
    Ok(())
}

fn show_span(
    nbf: Option<u64>,
    exp: Option<u64>,
    of: &str,
    out: &mut Output,
) -> Result<(), OutputError> {
    if let Some(nbf) = nbf {
        out.line(format_args!("not before  {}{of}", rfc3339(nbf)))?;
    }
    exp.map_or(Ok(()), |exp| out.line(format_args!("expires     {}{of}", rfc3339(exp))))
}

fn show(name: &str, text: &[u8], out: &mut Output) -> Result<(), OutputError> {
    match Json::parse(text) {
        Ok(json) => out.line(format_args!("{name}\n{}", pretty(&json))),
        Err(_) => out.line(format_args!("{name}\n(not JSON)")),
    }
}

/// Returns whether a gate would understand what was read; if not, prints why.
fn note<T>(name: &str, read: &Result<T, Invalid>, out: &mut Output) -> bool {
    if let Err(invalid) = read {
        out.note(format_args!("{name}: {invalid}; a gate refuses the key"));
    }
    read.is_ok()
}
