//! Random keys: valid ones, and ones with an error.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use vkey::key::mac::{SigningKey, hkdf_sha256};
use vkey::key::token::{Kid, Unverified, mint};

use super::draw::Draw;
use super::gates::{AUDIENCE, Gate, LEAKED, RINGS, Ring, TENANTS, TIERS, secret};
use super::restrictions::{BORDERS_SECS, Place, START_SECS, limits, restriction};

/// The last second that hosts can report, in nanoseconds. A line with a later time is invalid.
const LAST_SECS: u64 = u64::MAX / 1_000_000_000;

/// A key, and its content for reports of differences.
pub(super) struct DrawnKey {
    pub(super) text: String,
    pub(super) kid: String,
    pub(super) claims: String,
    pub(super) caveats: Vec<String>,
    pub(super) minted_secs: u64,
    /// Times at which the decision about it changes.
    pub(super) borders_secs: Vec<u64>,
}

impl DrawnKey {
    pub(super) fn draw(draw: &mut Draw, gate: &Gate, number: usize) -> Self {
        let minted_secs =
            draw.usual(75, START_SECS, &[START_SECS - 100, START_SECS + 1, START_SECS - 86_400]);
        let ring = gate.rings[draw.below(gate.rings.len())];
        let ring = draw.usual(75, gate.rings[0], &[ring]);
        let epoch = epoch(draw, &ring, minted_secs);
        let name = draw.usual(97, ring.name, &RINGS);
        let kid = Kid::new(name, epoch).expect("the name of a ring");
        let claims = claims(draw, number, minted_secs);
        let mut borders_secs = BORDERS_SECS.to_vec();
        borders_secs.extend(["nbf", "exp", "iat"].iter().filter_map(|name| claims[name].as_u64()));
        if let Some((interval, max_age)) = ring.rotation {
            let start = u64::from(epoch) * interval;
            let early = start.saturating_sub(gate.clock_skew_secs);
            borders_secs.extend([start, early, start + max_age, start + interval]);
        }
        borders_secs.extend([minted_secs.saturating_sub(gate.clock_skew_secs), LAST_SECS - 1]);
        borders_secs.retain(|secs| *secs < LAST_SECS);
        let claims = spoiled(draw, claims);
        let mut key = Self {
            text: String::new(),
            kid: kid.to_string(),
            claims,
            caveats: Vec::new(),
            minted_secs,
            borders_secs,
        };
        key.sign(draw, &kid);
        key.tamper(draw);
        key
    }

    /// A valid key of the first ring, which does not rotate, with a restriction in its claims.
    pub(super) fn with_only(only: &Value) -> Self {
        let kid = Kid::new(RINGS[0], 0).expect("the name of a ring");
        let (minted_secs, exp) = (START_SECS, START_SECS + 3600);
        let claims =
            json!({"jti": "k_0", "tenant": "acme", "iat": minted_secs, "exp": exp, "only": only});
        let claims = claims.to_string();
        let signing_key = SigningKey::new(&signing_key(kid.ring(), &kid));
        let text = mint(&signing_key, &kid, claims.as_bytes());
        let (caveats, borders_secs) = (Vec::new(), Vec::new());
        Self { text, kid: kid.to_string(), claims, caveats, minted_secs, borders_secs }
    }

    fn sign(&mut self, draw: &mut Draw, kid: &Kid) {
        let ring = draw.usual(98, kid.ring(), &["another"]);
        let signing_key = signing_key(ring, kid);
        if draw.percent(15) {
            self.text = jwt(draw, &signing_key, kid, &self.claims);
            return;
        }
        self.text = mint(&SigningKey::new(&signing_key), kid, self.claims.as_bytes());
        for _ in 0..draw.usual(50, 0, &[1, 2, 3, 4]) {
            let caveat = caveat(draw);
            let unverified = Unverified::parse(self.text.as_bytes()).expect("a key");
            self.text = unverified.attenuate(caveat.as_bytes()).expect("room");
            self.caveats.push(caveat);
        }
    }

    /// Changes the text of some keys.
    fn tamper(&mut self, draw: &mut Draw) {
        if draw.percent(95) {
            return;
        }
        let at = draw.below(self.text.len());
        let byte = draw.one(b"AZaz09-_.=+ ");
        let (head, tail) = self.text.split_at(at);
        self.text = match draw.below(10) {
            0 => head.to_owned(),
            1 => tail.to_owned(),
            2 => format!("{head}{}{}", char::from(byte), tail.get(1..).unwrap_or_default()),
            3 => format!("{head}{}{tail}", char::from(byte)),
            4 => format!("{}{}", self.text, draw.one(&["=", ".", "A", " ", "\t", ".e30"])),
            5 => format!("{}{}", draw.one(&["Bearer ", "vk1.", " ", ".", "vk"]), self.text),
            6 => self.text.to_ascii_uppercase(),
            7 => draw
                .one(&["vk1", "garbage", "vk1.main-0.e30.", "a.b.c", "\u{43a}\u{43b}", "..."])
                .to_owned(),
            // Removes a caveat or the claims.
            8 => self
                .text
                .splitn(4, '.')
                .enumerate()
                .filter(|(i, _)| *i != 2)
                .map(|(_, part)| part)
                .collect::<Vec<_>>()
                .join("."),
            _ => self.text.replace(&self.kid, &format!("{}0", self.kid)),
        };
    }
}

/// The signing key for a kid; for an unknown ring, a key that no ring has.
fn signing_key(ring: &str, kid: &Kid) -> [u8; 32] {
    let (_, secret) = secret(ring);
    let mut key = [0; 32];
    hkdf_sha256(b"vkey.v1", secret.as_bytes(), kid.as_str().as_bytes(), &mut key)
        .expect("one block");
    key
}

/// A JWT (RFC 7515). No other command of this project makes one.
fn jwt(draw: &mut Draw, key: &[u8], kid: &Kid, claims: &str) -> String {
    let kid = kid.as_str();
    let header = match draw.below(20) {
        0 => json!({"alg": "none", "kid": kid}),
        1 => json!({"alg": "HS256"}),
        2 => json!({"alg": "HS256", "kid": kid, "crit": ["exp"]}),
        3..10 => json!({"alg": "HS256", "kid": kid}),
        _ => json!({"typ": "JWT", "alg": "HS256", "kid": kid}),
    };
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let body = format!("{}.{}", encode(&header.to_string()), encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(body.as_bytes());
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn epoch(draw: &mut Draw, ring: &Ring, minted_secs: u64) -> u32 {
    let epoch = ring.rotation.map_or(0, |(interval, _)| minted_secs / interval);
    let epoch = u32::try_from(epoch).expect("few epochs");
    draw.usual(
        92,
        epoch,
        &[0, 1, epoch + 1, epoch.saturating_sub(1), epoch.saturating_sub(5), u32::MAX],
    )
}

fn claims(draw: &mut Draw, number: usize, minted_secs: u64) -> Value {
    let jti = format!("k_{number}");
    let life_secs = draw.usual(80, 3600, &[0, 1, 60, 864_000, 4_000_000_000]);
    let mut claims = json!({
        "jti": draw.usual(94, jti.as_str(), &LEAKED),
        "tenant": draw.usual(60, TENANTS[0], &TENANTS),
        "iat": minted_secs,
        "exp": minted_secs + life_secs,
    });
    let mut add = |percent, draw: &mut Draw, name, value: fn(&mut Draw) -> Value| {
        if draw.percent(percent) {
            claims[name] = value(draw);
        }
    };
    add(50, draw, "tier", |draw| {
        let tier = draw.one(&TIERS);
        json!(draw.usual(96, tier, &["default", "platinum", ""]))
    });
    add(92, draw, "aud", |draw| match draw.below(20) {
        0 => json!("other.example"),
        1 => json!([]),
        2 => json!(["a", "b", AUDIENCE]),
        3..10 => json!([AUDIENCE]),
        _ => json!(AUDIENCE),
    });
    add(25, draw, "only", only);
    add(10, draw, "nbf", |draw| json!(draw.usual(60, START_SECS, &BORDERS_SECS)));
    add(20, draw, "sub", |draw| json!(draw.one(&["billing", "a \"b\"", "\u{e9}\u{1f511}"])));
    add(5, draw, "meta", |_| json!({"note": "x"}));
    claims
}

/// A restriction for a key; one in fifty cannot be understood.
fn only(draw: &mut Draw) -> Value {
    let mut only = restriction(draw, Place::Key);
    let members = only.as_object_mut().expect("an object");
    if draw.percent(15) {
        members.extend(limits(draw));
    }
    if draw.percent(2) {
        members.insert("phase_of_moon".to_owned(), json!("full"));
    }
    only
}

/// A caveat; one in fifty cannot be understood.
fn caveat(draw: &mut Draw) -> String {
    let unsupported = [
        "{\"phase_of_moon\":\"full\"}",
        "[]",
        "{",
        "{\"methods\":\"POST\"}",
        "{\"any_of\":[{\"any_of\":[]}]}",
        "{\"nbf\":1.5}",
    ];
    if draw.percent(2) { draw.one(&unsupported).to_owned() } else { only(draw).to_string() }
}

/// The text of claims, a few of them invalid.
fn spoiled(draw: &mut Draw, mut claims: Value) -> String {
    if draw.percent(98) {
        return claims.to_string();
    }
    match draw.below(6) {
        0 => claims["future"] = json!(1),
        1 => claims["tenant"] = json!("no id"),
        2 => claims["exp"] = json!("tomorrow"),
        3 => claims["iat"] = json!(-1),
        4 => claims["only"] = json!([]),
        _ => return claims.to_string().replacen('{', "{\"jti\":\"twice\",", 1),
    }
    claims.to_string()
}
