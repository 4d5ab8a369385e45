//! Keys and JWTs, minted by the library and signed by secrets that exist for one run only.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use vkey::digest::sha256_hex;
use vkey::key::keyring::{Ring, RingState, Rotation, Secret};
use vkey::key::mac::SigningKey;
use vkey::key::token::{Kid, Unverified, mint};

/// The variable of Envoy's environment that holds the secret, as `envoy.yaml` names it.
pub(crate) const VARIABLE: &str = "VKEY_MAIN_SECRET";

/// What signs the JWTs that Envoy's own filter verifies.
pub(crate) const ISSUER: &str = "vkey-bench";

const DAY: u64 = 86_400;

/// Mints keys of the ring that `envoy.yaml` has.
pub(crate) struct Issuer {
    pub(crate) secret: String,
    kid: Kid,
    signing: SigningKey,
    now_secs: u64,
}

/// What a key says.
#[derive(Clone)]
pub(crate) struct Claims {
    pub(crate) jti: String,
    pub(crate) tenant: String,
    pub(crate) tier: Option<&'static str>,
    pub(crate) caveats: usize,
}

// === impl Issuer ===

impl Issuer {
    /// One with a secret of its own.
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        let unique = format!("{} {}", std::process::id(), now.as_nanos());
        let secret = format!("A-{}", sha256_hex(unique.as_bytes()));
        let parsed = Secret::parse(&secret).expect("a secret that is strong enough");
        let rotation = Rotation::new(7 * DAY, 30 * DAY, true).expect("the rotation of envoy.yaml");
        let ring = Ring::new("main", &parsed, RingState::Active, Some(rotation));
        let ring = ring.expect("the name of a ring");
        let now_secs = now.as_secs();
        let kid = ring.kid_at(now_secs).expect("an epoch");
        Self { secret, signing: ring.signing_key(&kid).expect("a secret"), kid, now_secs }
    }

    /// A key, valid for two hours.
    pub(crate) fn key(&self, claims: &Claims) -> String {
        let mut key = mint(&self.signing, &self.kid, self.content(claims).to_string().as_bytes());
        for number in 0..claims.caveats {
            let unverified = Unverified::parse(key.as_bytes()).expect("a key");
            key = unverified
                .attenuate(caveat(number, self.now_secs).as_bytes())
                .expect("room for it");
        }
        key
    }

    /// A JWT with the claims of a key, as Envoy's own filter verifies it.
    pub(crate) fn jwt(&self, claims: &Claims) -> String {
        let mut content = self.content(claims);
        content["iss"] = json!(ISSUER);
        let header = json!({"alg": "HS256", "kid": "bench", "typ": "JWT"});
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&content));
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any length");
        mac.update(signed.as_bytes());
        let tag = mac.finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// The keys that Envoy's own filter verifies JWTs with.
    pub(crate) fn jwks(&self) -> String {
        let secret = URL_SAFE_NO_PAD.encode(&self.secret);
        let key = json!({"kty": "oct", "alg": "HS256", "kid": "bench", "k": secret});
        json!({"keys": [key]}).to_string()
    }

    fn content(&self, claims: &Claims) -> Value {
        let mut content = json!({
            "jti": claims.jti, "tenant": claims.tenant, "sub": "bench",
            "iat": self.now_secs, "exp": self.now_secs + 7200,
        });
        if let Some(tier) = claims.tier {
            content["tier"] = json!(tier);
        }
        content
    }
}

// === impl Claims ===

impl Claims {
    /// A key of a tenant, with a usual id: 18 characters.
    pub(crate) fn new(tenant: String, number: usize) -> Self {
        Self { jti: format!("k_{number:016x}"), tenant, tier: None, caveats: 0 }
    }
}

/// One of the caveats that people add: it holds for every request of the benchmark.
fn caveat(number: usize, now_secs: u64) -> String {
    let restriction = match number % 4 {
        0 => json!({"methods": ["GET", "POST"]}),
        1 => json!({"paths": ["/v1/models", "/v1/chat/*"]}),
        2 => json!({"exp": now_secs + 3600}),
        _ => json!({"sources": ["127.0.0.0/8", "10.0.0.0/8"]}),
    };
    restriction.to_string()
}

/// The key with another tag.
pub(crate) fn broken(key: &str) -> String {
    let (body, tag) = key.rsplit_once('.').expect("a key has a tag");
    // The first character has no stray bits, so the tag stays one.
    let other = if tag.starts_with('A') { 'B' } else { 'A' };
    format!("{body}.{other}{}", tag.get(1..).unwrap_or_default())
}
