//! `vkey mint`: mints a key.

use std::fmt;
use std::path::PathBuf;

use vkey::access::restriction::Slashes;
use vkey::config::{Config, Settings, UnlistedTenants};
use vkey::decision::Mode;
use vkey::issuing::{OPTIONS, Review, check_restriction, expiry, mint, only_of, valid};
use vkey::json::Json;
use vkey::key::claims::Claims;

use super::attenuate::read_caveats;
use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::InputError;
use super::output::Output;
use super::private::KeyOutArgs;
use super::register::Entry;
use super::review;
use super::ring::{RingArgs, RingError, SelectedRing};
use super::uses::UseArgs;
use super::{secret, time};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    ring: RingArgs,
    #[command(flatten)]
    claims: ClaimsArgs,
    /// Narrow the key by a caveat, a restriction in JSON; may be repeated
    #[arg(long, value_name = "JSON")]
    caveat: Vec<String>,
    /// Without a configuration: accept %2F in path globs, because the key's tier keeps it (`escaped_slashes`)
    #[arg(long, conflicts_with = "config")]
    keep_escaped_slashes: bool,
    /// Mint as of this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    now: Option<u64>,
    #[command(flatten)]
    out: KeyOutArgs,
    /// First append a line to this file that says whose the key is, without the key: see `vkey keys`
    #[arg(long, value_name = "FILE")]
    register: Option<PathBuf>,
}

/// The claims of the key.
#[derive(clap::Args)]
struct ClaimsArgs {
    /// The tenant the key belongs to
    #[arg(long)]
    tenant: String,
    /// How long the key is valid, e.g. 1h or 30d
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    lifetime: u64,
    /// The tier of the key; `default` if absent
    #[arg(long)]
    tier: Option<String>,
    /// The app, user or agent that gets the key
    #[arg(long)]
    sub: Option<String>,
    /// An audience of the key; may be repeated
    #[arg(long)]
    aud: Vec<String>,
    /// When the key becomes valid, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    not_before: Option<u64>,
    /// The key's id; random if absent
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    /// What the key is limited to, a restriction in JSON. Not with --models or --tools, which write it; to narrow what
    /// these allow, add a --caveat
    #[arg(long, value_name = "JSON", conflicts_with_all = ["models", "tools"])]
    only: Option<String>,
    #[command(flatten)]
    uses: UseArgs,
    /// A JSON object with notes for people; does not affect decisions
    #[arg(long, value_name = "JSON")]
    meta: Option<String>,
}

/// Why a key cannot be minted.
#[derive(Debug)]
pub(super) enum MintError {
    /// The key would replace the register.
    RegisterIsOut,
}

/// Runs `vkey mint`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    if args.register.as_deref().is_some_and(|register| args.out.names(register)) {
        return Err(MintError::RegisterIsOut.into());
    }
    let now_secs = time::now(args.now)?;
    // Reports errors that do not depend on the tier before asking for a secret.
    let claims = args.claims.read(now_secs)?;
    let caveats = read_caveats(&args.caveat, Slashes::Kept)?;
    let SelectedRing { ring, config } =
        args.ring.choose(&claims.tenant, now_secs, args.out.force)?;
    let settings = config.as_ref().map(Config::settings);
    args.check_slashes(Slashes::written(match settings {
        Some(settings) => settings.keeps_escaped_slashes(claims.tier()),
        None => args.keep_escaped_slashes,
    }))?;
    let mut review = reviewed(&claims, args.claims.option(), &caveats, settings, now_secs);
    if !ring.signs_for(&claims.tenant) {
        review.refuse(RingError::NotSigned { ring: ring.name().to_owned() }.to_string());
    }
    review::check(&mut review, args.out.force)?;
    let note = rotation_note(&claims, settings.is_some(), ring.end_of_life(now_secs));
    let ring = ring.with_tenants(None);
    let key = mint(ring, &claims, &caveats, now_secs)?;
    if let Some(path) = &args.register {
        // The register shall not name keys that were never written.
        args.out.check()?;
        Entry::of(&key, &claims)?.append_to(path)?;
    }
    args.out.write(&key, out)?;
    let expires = time::rfc3339(claims.exp);
    out.note(format_args!("minted {}, expires {expires}", claims.jti));
    if let Some(note) = note {
        out.note(format_args!("note: {note}"));
    }
    review::print(&review, out);
    Ok(Exit::Success)
}

impl Args {
    /// Checks globs under the tier's rule for escaped slashes.
    fn check_slashes(&self, slashes: Slashes) -> Result<(), Error> {
        let only = self.claims.only.as_deref().map(|only| read_only(only, slashes));
        only.transpose()?;
        read_caveats(&self.caveat, slashes)?;
        Ok(())
    }
}

impl ClaimsArgs {
    /// The options that `only` is read from, for messages.
    fn option(&self) -> &'static str {
        if self.only.is_some() { "--only" } else { self.uses.options() }
    }

    /// The claims, parsed like in the gate, with globs that some tier accepts.
    fn read(&self, now_secs: u64) -> Result<Claims, Error> {
        let exp = expiry(now_secs, self.lifetime, self.not_before)?;
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
            only: match &self.only {
                Some(only) => Some(read_only(only, Slashes::Kept)?),
                None => self.uses.restriction()?,
            },
            meta: meta.transpose()?,
        };
        Ok(valid(&claims)?)
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

/// Reviews the key for the gate with this configuration.
/// `option`: what `claims.only` was read from.
fn reviewed(
    claims: &Claims,
    option: &str,
    caveats: &[Json],
    settings: Option<&Settings>,
    now_secs: u64,
) -> Review {
    let mut review = review::review_for(settings);
    if let Some(settings) = settings {
        // The shadow mode only records what is forbidden.
        let is_shadow = settings.mode == Mode::Shadow;
        for (holds, is_forbidden, reason) in refusals(claims, settings) {
            match holds {
                true if is_shadow && is_forbidden => review.warn(reason),
                true => review.refuse(reason),
                false => {}
            }
        }
    }
    let valid = now_secs.max(claims.nbf.unwrap_or(0))..claims.exp;
    if let Some(only) = &claims.only {
        review.restriction(option, only, &valid);
    }
    review.caveats(&OPTIONS, caveats, &valid);
    review.narrowings(&OPTIONS, caveats, only_of(claims).as_slice());
    review
}

/// Why the gate refuses the key before it expires, if its ring rotates.
fn rotation_note(claims: &Claims, is_configured: bool, end_of_life: Option<u64>) -> Option<String> {
    match (is_configured, end_of_life?) {
        (false, _) => Some(
            "the ring rotates: a gate refuses the key once its signing key is older than the \
             gate's max_age"
                .to_owned(),
        ),
        (true, end) if end < claims.exp => Some(format!(
            "the ring rotates: the key is refused from {} on, before it expires; mint keys with a \
             shorter --lifetime, or set a longer max_age",
            time::rfc3339(end)
        )),
        (true, _) => None,
    }
}

/// Reasons why the gate with this configuration refuses every request with the key: whether each holds, whether it
/// is about what a valid key may do, and the reason.
fn refusals(claims: &Claims, settings: &Settings) -> [(bool, bool, &'static str); 4] {
    let tenant_unlisted = settings.unlisted_tenants == UnlistedTenants::Deny
        && !settings.tenants.contains_key(&claims.tenant);
    let for_another = |audience: &String| {
        let aud = claims.aud.as_ref();
        !aud.is_some_and(|aud| aud.contains(audience))
    };
    [
        (
            !settings.has_tier(claims.tier()),
            true,
            "the configuration has no such tier; choose another --tier, or add it to tiers",
        ),
        (
            tenant_unlisted,
            true,
            "the configuration does not list the tenant; choose another --tenant, or add it to tenants",
        ),
        (
            settings.audience.as_ref().is_some_and(for_another),
            false,
            "--aud does not include the gate's audience; add it",
        ),
        (
            settings.revoked.covers(&claims.key_id()),
            false,
            "the configuration revokes such a key; choose another --jti, or remove it from revoked",
        ),
    ]
}

impl Failure for MintError {
    fn exit(&self) -> Exit {
        match self {
            Self::RegisterIsOut => Exit::Usage,
        }
    }
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RegisterIsOut => f.write_str(
                "--register and --out name the same file, so the key would replace the register; \
                 choose another file for one of them",
            ),
        }
    }
}
