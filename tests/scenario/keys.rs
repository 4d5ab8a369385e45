//! Mints the keys of a scenario: with the library if possible, otherwise by hand.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use vkey::json::Json;
use vkey::key::mac::SigningKey;
use vkey::key::token::{Kid, Unverified, mint};

use super::format::{ConfigSpec, Edit, KeyKind, Minted, Scenario, Variant, merged};
use super::text::{Meaning, env_value, shifted, signing_key};

/// The text of every key, by name. A key may be made from earlier ones.
pub(crate) fn mint_all(
    scenario: &Scenario,
    variant: &Variant,
    env: &BTreeMap<String, String>,
    start: u64,
) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for (name, spec) in &scenario.keys {
        for n in 1..=spec.count.unwrap_or(1) {
            let name = spec.count.map_or(name.clone(), |_| format!("{name} {n}"));
            let meaning = Meaning { start, n, env, keys: &keys };
            let key = match &spec.kind {
                KeyKind::Minted(minted) => minted.mint(&name, variant, &meaning),
                KeyKind::Edited(of, edits) => edited(&meaning, of, edits),
            };
            keys.insert(name, key);
        }
    }
    keys
}

impl Minted {
    fn mint(&self, name: &str, variant: &Variant, meaning: &Meaning<'_>) -> String {
        let ring = Ring::of(variant, &self.ring);
        let minted_at = shifted(meaning.start, self.minted_at);
        let epoch = ring.interval_secs.and_then(|interval| minted_at.checked_div(interval));
        let epoch = u32::try_from(epoch.unwrap_or(0)).expect("an epoch");
        let kid = Kid::new(&self.ring, self.epoch.unwrap_or(epoch)).expect("a ring's name");
        let secret = match &self.secret {
            Some(secret) => env_value(secret),
            None => meaning.env[&ring.variable.expect("the ring has a secret")].clone(),
        };
        let key = signing_key(&secret, &kid);
        let claims = self.claims(name, minted_at, meaning);
        if let Some(patch) = &self.jwt {
            return jwt(&key, &header(&kid, patch, meaning), &claims);
        }
        let token = mint(&SigningKey::new(&key), &kid, claims.as_bytes());
        let attenuate = |token: String, caveat| attenuated(&token, caveat, meaning);
        self.caveats.iter().fold(token, attenuate)
    }

    /// Claims that are a string are signed unchanged.
    fn claims(&self, name: &str, minted_at: u64, meaning: &Meaning<'_>) -> String {
        let usual = Json::object([
            ("jti", name.replace(' ', "_").as_str().into()),
            ("tenant", "acme".into()),
            ("iat", minted_at.into()),
            ("exp", (minted_at + 3600).into()),
        ]);
        json_text(&merged(&usual, &self.claims), meaning)
    }
}

/// A ring in the configuration of a scenario, valid or not.
#[derive(Default)]
struct Ring {
    variable: Option<String>,
    interval_secs: Option<u64>,
}

impl Ring {
    fn of(variant: &Variant, name: &str) -> Self {
        let ConfigSpec::Object(config) = &variant.config else {
            return Self::default();
        };
        let Some(Json::Array(rings)) = config.get("keyring") else {
            return Self::default();
        };
        let text = |ring: &Json, member| ring.get(member).and_then(Json::as_str).map(str::to_owned);
        let named = |ring: &&Json| text(ring, "name").as_deref() == Some(name);
        let Some(ring) = rings.iter().find(named) else {
            return Self::default();
        };
        let variable = text(ring, "secret").unwrap_or_default();
        let variable = variable.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let interval = ring.get("rotation").and_then(|rotation| text(rotation, "interval"));
        Self {
            variable: variable.map(str::to_owned),
            interval_secs: interval.map(|interval| {
                humantime::parse_duration(&interval).expect("a duration").as_secs()
            }),
        }
    }
}

/// The header of a JWT. A string is used unchanged.
fn header(kid: &Kid, patch: &Json, meaning: &Meaning<'_>) -> String {
    let usual = Json::object([
        ("alg", "HS256".into()),
        ("kid", kid.to_string().as_str().into()),
        ("typ", "JWT".into()),
    ]);
    json_text(&merged(&usual, patch), meaning)
}

fn jwt(key: &[u8], header: &str, claims: &str) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = format!("{header}.{claims}");
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(signed.as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{tag}")
}

/// A caveat that is a string is signed unchanged.
fn attenuated(token: &str, caveat: &Json, meaning: &Meaning<'_>) -> String {
    let caveat = json_text(caveat, meaning);
    let unverified = Unverified::parse(token.as_bytes()).expect("a key to attenuate");
    unverified.attenuate(caveat.as_bytes()).expect("room for a caveat")
}

fn json_text(json: &Json, meaning: &Meaning<'_>) -> String {
    match json {
        Json::String(text) => meaning.fill(text),
        json => meaning.fill_json(json).to_string(),
    }
}

fn edited(meaning: &Meaning<'_>, of: &str, edits: &[Edit]) -> String {
    let of = meaning.fill(of);
    let key = meaning.keys.get(&of).unwrap_or_else(|| panic!("no key {of} above"));
    edits.iter().fold(key.clone(), |key, edit| edit.apply(key, meaning))
}

impl Edit {
    fn apply(&self, mut key: String, meaning: &Meaning<'_>) -> String {
        if let Self::Caveat(caveat) = self {
            return attenuated(&key, caveat, meaning);
        }
        let mut segments: Vec<String> = key.split('.').map(str::to_owned).collect();
        let index = |at: i64, len: usize| {
            let from = if at < 0 { len } else { 0 };
            from.checked_add_signed(isize::try_from(at).expect("small")).expect("a segment")
        };
        let len = segments.len();
        match self {
            Self::Append(text) => return key + &meaning.fill(text),
            Self::Truncate(chars) => {
                key.truncate(key.len() - chars);
                return key;
            }
            Self::Drop(at) => _ = segments.remove(index(*at, len)),
            Self::Flip(at) => flip(&mut segments[index(*at, len)]),
            Self::Insert(at, text) => segments.insert(index(*at, len), meaning.fill(text)),
            Self::Replace(at, text) => segments[index(*at, len)] = meaning.fill(text),
            Self::Splice(at, from) => {
                let other: Vec<&str> = meaning.keys[from].split('.').collect();
                segments[index(*at, len)] = other[index(*at, other.len())].to_owned();
            }
            Self::Swap(one, other) => segments.swap(index(*one, len), index(*other, len)),
            Self::Caveat(_) => {}
        }
        segments.join(".")
    }
}

/// Changes the first character of a segment to another one of its alphabet.
fn flip(segment: &mut String) {
    let other = if segment.starts_with('A') { "B" } else { "A" };
    segment.replace_range(..1, other);
}
