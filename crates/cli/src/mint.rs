//! `vkey mint`: a fresh key.

use std::fmt;

use vkey::access::restriction::Slashes;
use vkey::config::{Config, Settings, UnlistedTenants};
use vkey::decision::DenyReason;
use vkey::json::{Invalid, Json};
use vkey::key::Key;
use vkey::key::claims::Claims;
use vkey::key::keyring::{Keyring, Ring};
use vkey::key::token::{self, Kid, MAX_TOKEN_BYTES, Unverified};

use super::attenuate::{attenuate, check_restriction, outlived, read_caveats};
use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::InputError;
use super::output::Output;
use super::private::OutArgs;
use super::ring::{Chosen, RingArgs, RingError};
use super::{secret, time};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    ring: RingArgs,
    #[command(flatten)]
    claims: ClaimsArgs,
    /// Narrow the key by a caveat, JSON; may be repeated
    #[arg(long, value_name = "JSON")]
    caveat: Vec<String>,
    /// Without a configuration: take %2F in globs over paths, since the key's tier keeps it, as its
    /// `escaped_slashes` says
    #[arg(long, conflicts_with = "config")]
    keep_escaped_slashes: bool,
    /// Mint as if it were this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    now: Option<u64>,
    #[command(flatten)]
    out: OutArgs,
}

/// What the key is to say.
#[derive(clap::Args)]
struct ClaimsArgs {
    /// The tenant the key belongs to
    #[arg(long)]
    tenant: String,
    /// How long the key is valid, as 1h or 30d
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    lifetime: u64,
    /// The tier that judges the key; `default` when not given
    #[arg(long)]
    tier: Option<String>,
    /// The app, user or agent the key is given to
    #[arg(long)]
    sub: Option<String>,
    /// Whom the key is for; may be repeated
    #[arg(long)]
    aud: Vec<String>,
    /// When the key becomes valid, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    not_before: Option<u64>,
    /// The key's id; random when not given
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    /// What the key is limited to, a restriction in JSON
    #[arg(long, value_name = "JSON")]
    only: Option<String>,
    /// Carried for people, a JSON object; decides nothing
    #[arg(long, value_name = "JSON")]
    meta: Option<String>,
}

/// Why a key cannot be minted.
#[derive(Debug)]
pub(super) enum MintError {
    /// The claims that were asked for are invalid.
    Claims(Invalid),
    /// The key is longer than any gate reads.
    KeyTooLong,
    /// The key would never be valid, or for longer than there are dates.
    Lifetime,
    /// The minted key does not verify.
    SelfCheck(DenyReason),
}

/// Runs `vkey mint`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let now_secs = time::now(args.now)?;
    // What is wrong whatever the tier is said before a secret is asked for.
    let claims = args.claims.read(now_secs)?;
    let caveats = read_caveats(&args.caveat, Slashes::Kept)?;
    let Chosen { ring, config } = args.ring.choose(&claims.tenant)?;
    let settings = config.as_ref().map(Config::settings);
    args.check_slashes(Slashes::written(match settings {
        Some(settings) => settings.keeps_escaped_slashes(claims.tier()),
        None => args.keep_escaped_slashes,
    }))?;
    let mut notes = notes(&claims, settings, ring.end_of_life(now_secs));
    notes.extend(outlived(&claims, &caveats, now_secs));
    let key = mint(ring, &claims, &caveats, now_secs)?;
    args.out.write(&key, out)?;
    let expires = time::rfc3339(claims.exp);
    out.note(format_args!("minted {}, expires {expires}", claims.jti));
    for note in notes {
        out.note(format_args!("note: {note}"));
    }
    Ok(Exit::Success)
}

impl Args {
    /// Checks globs by what the key's tier makes of escaped slashes.
    fn check_slashes(&self, slashes: Slashes) -> Result<(), Error> {
        let only = self.claims.only.as_deref().map(|only| read_only(only, slashes));
        only.transpose()?;
        read_caveats(&self.caveat, slashes)?;
        Ok(())
    }
}

impl ClaimsArgs {
    /// The claims, as the gate will read them, with globs as any tier may take them.
    fn read(&self, now_secs: u64) -> Result<Claims, Error> {
        let exp = now_secs.saturating_add(self.lifetime);
        if exp > time::LAST || self.not_before.is_some_and(|nbf| nbf >= exp) {
            return Err(MintError::Lifetime.into());
        }
        let meta = self.meta.as_deref().map(|text| read_json("--meta", text));
        let claims = Claims {
            jti: self.jti.clone().map_or_else(secret::random_id, Ok)?,
            tenant: self.tenant.clone(),
            sub: self.sub.clone(),
            tier: self.tier.clone(),
            iat: now_secs,
            exp,
            nbf: self.not_before,
            aud: Some(self.aud.clone()).filter(|aud| !aud.is_empty()),
            only: self.only.as_deref().map(|only| read_only(only, Slashes::Kept)).transpose()?,
            meta: meta.transpose()?,
        };
        Ok(valid(&claims)?)
    }
}

/// The claims, as the gate will read them.
pub(super) fn valid(claims: &Claims) -> Result<Claims, MintError> {
    Claims::parse(claims.to_json().to_string().as_bytes()).map_err(MintError::Claims)
}

/// Signs, and makes sure of the key as the gate would before anyone sees it.
pub(super) fn mint(
    ring: Ring,
    claims: &Claims,
    caveats: &[Json],
    now_secs: u64,
) -> Result<String, Error> {
    let kid = ring.kid_at(now_secs).ok_or_else(|| RingError::None(Vec::new()))?;
    let text = claims.to_json().to_string();
    let key = token::mint(&ring.signing_key(&kid), &kid, text.as_bytes());
    if key.len() > MAX_TOKEN_BYTES {
        return Err(MintError::KeyTooLong.into());
    }
    let key = attenuate(key, caveats)?;
    verify(&key, &kid, ring, claims).map(|()| key)
}

fn verify(key: &str, kid: &Kid, ring: Ring, claims: &Claims) -> Result<(), Error> {
    let unverified = Unverified::parse(key.as_bytes()).map_err(|_| InputError::NotAKey)?;
    let keyring = Keyring::new(vec![ring], 0);
    let verified = Key::verify(unverified, &keyring).map_err(MintError::SelfCheck)?;
    if verified.claims() == claims && verified.kid() == kid {
        Ok(())
    } else {
        Err(MintError::SelfCheck(DenyReason::KeyMalformed).into())
    }
}

fn read_only(text: &str, slashes: Slashes) -> Result<Json, InputError> {
    let json = read_json("--only", text)?;
    match check_restriction(&json, slashes) {
        Ok(()) => Ok(json),
        Err(invalid) => Err(InputError::Option { option: "--only", number: None, invalid }),
    }
}

fn read_json(option: &'static str, text: &str) -> Result<Json, InputError> {
    let json = Json::parse(text.as_bytes());
    json.map_err(|invalid| InputError::Option { option, number: None, invalid })
}

/// Why the gate will, as things stand, refuse the key or refuse it early.
fn notes(claims: &Claims, settings: Option<&Settings>, end_of_life: Option<u64>) -> Vec<String> {
    let mut notes = Vec::new();
    let of_configuration = settings.map(|settings| refusals(claims, settings));
    notes.extend(of_configuration.into_iter().flatten().map(str::to_owned));
    match (settings, end_of_life) {
        (None, Some(_)) => notes.push(
            "the ring rotates: a gate refuses the key once its signing key is older than the \
             gate's max_age"
                .to_owned(),
        ),
        (Some(_), Some(end)) if end < claims.exp => notes.push(format!(
            "the ring rotates: the key is refused from {} on, before it expires; mint keys with a \
             shorter --lifetime, or set a longer max_age",
            time::rfc3339(end)
        )),
        _ => {}
    }
    notes
}

fn refusals(claims: &Claims, settings: &Settings) -> impl Iterator<Item = &'static str> {
    let tenant_unlisted = settings.unlisted_tenants == UnlistedTenants::Deny
        && !settings.tenants.contains_key(&claims.tenant);
    let for_another = |audience: &String| {
        let aud = claims.aud.as_ref();
        !aud.is_some_and(|aud| aud.contains(audience))
    };
    let refusals = [
        (!settings.has_tier(claims.tier()), "the configuration has no such tier"),
        (tenant_unlisted, "the configuration does not list the tenant"),
        (settings.audience.as_ref().is_some_and(for_another), "--aud lacks the gate's audience"),
        (settings.revoked.covers(claims), "the configuration revokes such a key"),
    ];
    refusals.into_iter().filter(|(holds, _)| *holds).map(|(_, text)| text)
}

impl Failure for MintError {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claims(invalid) => {
                write!(f, "invalid claims: {invalid}; change the option of that name")
            }
            Self::KeyTooLong => write!(
                f,
                "the key would be longer than {MAX_TOKEN_BYTES} bytes; shorten --only, --caveat or \
                 --meta"
            ),
            Self::Lifetime => f.write_str(
                "no key can live like this; let --lifetime end after --not-before and before the \
                 year 10000",
            ),
            Self::SelfCheck(reason) => write!(
                f,
                "the minted key does not verify ({reason}) and is not printed; report this"
            ),
        }
    }
}
