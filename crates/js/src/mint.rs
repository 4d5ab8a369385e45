//! `mint`: mints a key with the secret of a ring.

use vkey::access::restriction::Slashes;
use vkey::issuing::{CannotMint, Review, check_restriction, expiry, valid};
use vkey::json::{Integers, Invalid, Json, Node};
use vkey::key::claims::Claims;
use vkey::key::keyring::{Ring, RingState, Rotation, Secret};
use vkey::time::parse_duration;
use wasm_bindgen::prelude::*;
use zeroize::Zeroizing;

use super::NAMES;
use super::attenuate::{check, read_caveats, slashes};
use super::edge::{error, json, now_secs, random_id, read, string};

/// How the key is signed.
struct Signing {
    ring: String,
    rotation: Option<Rotation>,
    now_secs: u64,
    slashes: Slashes,
    caveats: Json,
}

const DURATION: &str = "a duration in whole seconds, e.g. 90s, 15m, 1h or 30d";

/// A key that the ring with this secret signs, as `vkey mint` makes it.
///
/// # Errors
///
/// What the command refuses. How hard the secret is to guess is not estimated, only obvious patterns are refused.
#[wasm_bindgen(skip_typescript)]
pub fn mint(secret: &JsValue, claims: &JsValue, options: &JsValue) -> Result<String, JsValue> {
    let secret = Zeroizing::new(string("secret", secret)?);
    let Signing { ring, rotation, now_secs, slashes, caveats } =
        read("options", options, Signing::read)?;
    let caveats = read_caveats(&caveats, slashes)?;
    let claims = read_claims(&json("claims", claims)?, now_secs, slashes)?;
    let secret = Secret::parse_unguessable(&secret).map_err(|weak| error(weak.to_string()))?;
    let ring = Ring::new(&ring, &secret, RingState::Active, rotation);
    let ring = ring.ok_or_else(|| error(RING))?;
    let mut review = Review::default();
    let life = now_secs.max(claims.nbf.unwrap_or(0))..claims.exp;
    if let Some(only) = &claims.only {
        review.restriction(NAMES.only, only, &life);
    }
    review.caveats(&NAMES, &caveats, &life);
    check(review)?;
    vkey::issuing::mint(ring, &claims, &caveats, now_secs).map_err(|cannot| refused(&cannot))
}

const RING: &str = "options: ring: expected 1 to 32 of a-z 0-9 -, not starting with -";

impl Signing {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members =
            node.members(&["ring", "interval", "caveats", "now", "keepEscapedSlashes"])?;
        let caveats = members.get("caveats").map(|list| list.value().clone());
        Ok(Self {
            ring: members.require("ring")?.string()?.to_owned(),
            rotation: members.read("interval", |node| {
                // How long a signing key is accepted is set in the gate.
                let rotation = Rotation::new(duration(node)?, u64::MAX, false);
                rotation.map_err(|_| node.expected(DURATION))
            })?,
            now_secs: now_secs(&members)?,
            slashes: slashes(&members)?,
            caveats: caveats.unwrap_or(Json::Array(Vec::new())),
        })
    }
}

/// The claims, validated like in the gate.
fn read_claims(json: &Json, now_secs: u64, slashes: Slashes) -> Result<Claims, JsValue> {
    let root = json.root(Integers::Digits);
    let of = |invalid: Invalid| refused(&CannotMint::Claims(invalid));
    let members = root
        .members(&["tenant", "lifetime", "tier", "sub", "aud", "nbf", "jti", "only", "meta"])
        .map_err(of)?;
    let text = |name| members.read(name, |node| node.string().map(str::to_owned)).map_err(of);
    let object = |name| members.get(name).map(|node| node.value().clone());
    let lifetime = members.require("lifetime").and_then(|node| duration(&node)).map_err(of)?;
    let nbf = members.read("nbf", Node::time).map_err(of)?;
    let only = object(NAMES.only);
    if let Some(only) = &only {
        let checked = check_restriction(only, slashes);
        checked.map_err(|problem| super::edge::invalid(NAMES.only, &problem))?;
    }
    let aud = members.read("aud", |node| node.list(|item| item.string().map(str::to_owned)));
    let claims = Claims {
        jti: text("jti")?.map_or_else(random_id, Ok)?,
        tenant: text("tenant")?.ok_or_else(|| of(root.missing("tenant")))?,
        sub: text("sub")?,
        tier: text("tier")?,
        iat: now_secs,
        exp: expiry(now_secs, lifetime, nbf).map_err(|cannot| refused(&cannot))?,
        nbf,
        aud: aud.map_err(of)?.map(<[String]>::into_vec).filter(|aud| !aud.is_empty()),
        only,
        meta: object(NAMES.meta),
    };
    valid(&claims).map_err(|cannot| refused(&cannot))
}

fn duration(node: &Node<'_>) -> Result<u64, Invalid> {
    let secs = parse_duration(node.string()?).filter(|secs| *secs > 0);
    secs.ok_or_else(|| node.expected(DURATION))
}

fn refused(cannot: &CannotMint) -> JsValue {
    error(cannot.sentence(&NAMES))
}
