//! `explain`: what a key by itself says of one request.

mod report;
mod request;

use vkey::access::CanonicalPath;
use vkey::body::mcp::Arguments;
use vkey::config::DEFAULT_CLOCK_SKEW_SECS;
use vkey::decision::DenyReason;
use vkey::engine::check_method;
use vkey::issuing::KeyFlaw;
use vkey::json::{Invalid, Node};
use vkey::key::KeyRestrictions;
use vkey::key::claims::Claims;
use vkey::key::keyring::{Ring, RingState, Secret};
use vkey::key::token::Unverified;
use wasm_bindgen::prelude::*;
use zeroize::Zeroizing;

use super::edge::{error, now_secs, read, string};
use report::Report;
use request::{Known, Request};

/// What is known apart from key and request.
struct Options {
    now_secs: u64,
    secret: Option<Zeroizing<String>>,
    keeps_slashes: bool,
}

/// Whether a key allows a request: its times, `only` and its caveats, as `vkey explain` shows them. What a configuration
/// adds is not known here.
///
/// # Errors
///
/// If the arguments are not what they should be. A key that is refused is no error.
#[wasm_bindgen(skip_typescript)]
pub fn explain(key: &JsValue, request: &JsValue, options: &JsValue) -> Result<JsValue, JsValue> {
    let options = read("options", options, Options::read)?;
    let request = read("request", request, Request::read)?;
    let key = string("key", key)?;
    let mut report = Report::new(options.now_secs);
    if let Some(content) = open(&key, &options, &mut report)? {
        evaluate(&content, &request, &options, &mut report);
    }
    Ok(super::edge::value(&report.into_json()))
}

impl Options {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["now", "secret", "keepEscapedSlashes"])?;
        let secret = members.read("secret", |node| node.string().map(str::to_owned))?;
        Ok(Self {
            now_secs: now_secs(&members)?,
            secret: secret.map(Zeroizing::new),
            keeps_slashes: members.read("keepEscapedSlashes", Node::bool)?.unwrap_or(false),
        })
    }
}

/// The content of a key.
struct Content {
    claims: Claims,
    /// `None` if one is not understood.
    restrictions: Option<KeyRestrictions>,
}

/// Reads a key, and verifies it if the secret is given. `None` if it is refused.
fn open(key: &str, options: &Options, report: &mut Report) -> Result<Option<Content>, JsValue> {
    let unverified = match KeyFlaw::read(key) {
        Ok(unverified) => unverified,
        Err(flaw) => {
            report.refuse_form(&flaw);
            return Ok(None);
        }
    };
    let kid = unverified.kid().clone();
    let caveats_len = unverified.caveats_len();
    let (claims, restrictions, is_verified) = match &options.secret {
        None => {
            let (claims, caveats) = unverified.untrusted_content();
            let caveats = Vec::from_iter(caveats);
            let (claims, restrictions) = contents(claims, &caveats);
            (claims, restrictions, false)
        }
        Some(secret) => match verify(unverified, secret)? {
            None => {
                report.push("key", Err(DenyReason::KeySignature));
                return Ok(None);
            }
            Some((claims, restrictions)) => (claims, restrictions, true),
        },
    };
    match claims {
        Ok(claims) => {
            report.open(&kid, &claims, caveats_len, is_verified);
            Ok(Some(Content { claims, restrictions }))
        }
        Err(invalid) => {
            report.refuse_form(&KeyFlaw::Claims(invalid));
            Ok(None)
        }
    }
}

type Contents = (Result<Claims, Invalid>, Option<KeyRestrictions>);

/// The content of a key whose tag is that of the secret; `None` if it is not.
fn verify(key: Unverified<'_>, secret: &str) -> Result<Option<Contents>, JsValue> {
    let secret = Secret::parse_unguessable(secret).map_err(|weak| error(weak.to_string()))?;
    let kid = key.kid().clone();
    let ring = Ring::new(kid.ring(), &secret, RingState::Active, None);
    let signing_key = ring.and_then(|ring| ring.signing_key(&kid).ok());
    let verified = signing_key.and_then(|signing_key| key.verify(&signing_key).ok());
    Ok(verified.map(|verified| {
        let caveats = Vec::from_iter(verified.caveats());
        contents(verified.claims(), &caveats)
    }))
}

fn contents(claims: &[u8], caveats: &[&[u8]]) -> Contents {
    let claims = Claims::parse(claims);
    let restrictions = claims.as_ref().ok();
    let restrictions =
        restrictions.and_then(|claims| KeyRestrictions::open(claims, caveats.iter().copied()));
    (claims, restrictions)
}

fn evaluate(content: &Content, request: &Request, options: &Options, report: &mut Report) {
    let now_secs = options.now_secs;
    report.push("validity", validity(content, now_secs));
    let path = match options.keeps_slashes {
        true => CanonicalPath::parse_keeping_slashes(request.path.as_bytes()),
        false => CanonicalPath::parse(request.path.as_bytes()),
    };
    let Ok(path) = path else { return report.push("path", Err(DenyReason::PathAmbiguous)) };
    if let Err(reason) = check_method(&request.method) {
        report.push("method", Err(reason));
    }
    let Some(restrictions) = &content.restrictions else { return };
    let unmet = Arguments::new(Vec::new(), None);
    let known = Known::of(request, &unmet);
    let accesses = known.iter().map(|called| request.access(now_secs, &path, called));
    let accesses = Vec::from_iter(accesses);
    if accesses.iter().any(|access| restrictions.exceeds_glob_steps(access)) {
        report.push("globs", Err(DenyReason::CaveatUnsupported));
    }
    for (origin, restriction) in restrictions.iter() {
        let refusals = accesses.iter().map(|access| restriction.prohibits(access));
        report.push_known(&origin.to_string(), refusals, known.lacks);
    }
}

/// The times of a key, and whether all of it is understood.
fn validity(content: &Content, now_secs: u64) -> Result<(), DenyReason> {
    let Content { claims, restrictions } = content;
    let restrictions = restrictions.as_ref().ok_or(DenyReason::CaveatUnsupported)?;
    let start = claims.iat.saturating_sub(DEFAULT_CLOCK_SKEW_SECS).max(claims.nbf.unwrap_or(0));
    if now_secs < start {
        return Err(DenyReason::KeyNotYetValid);
    }
    if now_secs >= claims.exp {
        return Err(DenyReason::KeyExpired);
    }
    let mut times = restrictions.iter();
    times.find_map(|(_, only)| only.prohibits_time(now_secs)).map_or(Ok(()), Err)
}
