//! Keys for the tests, signed by a secret that exists for one run only.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use vkey::audit::{AuditRecord, Line};
use vkey::digest::sha256_hex;
use vkey::key::keyring::{Ring, RingState, Rotation, Secret};
use vkey::key::mac::hkdf_sha256;
use vkey::key::token::{Unverified, mint};

use crate::support::{Envoy, Options};

/// The environment variable that the tests' configurations name.
pub(crate) const VARIABLE: &str = "VKEY_MAIN_SECRET";

/// Mints keys of one ring.
pub(crate) struct Minter {
    ring: Ring,
    pub(crate) secret: String,
}

impl Minter {
    /// A ring with a secret of its own.
    pub(crate) fn new(name: &str, rotation: Option<Rotation>) -> Self {
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let secret = sha256_hex(format!("{name} {} {now_ns}", std::process::id()).as_bytes());
        Self::with_secret(name, rotation, format!("A-{secret}"))
    }

    fn with_secret(name: &str, rotation: Option<Rotation>, secret: String) -> Self {
        let parsed = Secret::parse(&secret).unwrap();
        let ring = Ring::new(name, &parsed, RingState::Active, rotation).unwrap();
        Self { ring, secret }
    }

    /// Another ring over the same secret.
    pub(crate) fn beside(&self, name: &str, rotation: Option<Rotation>) -> Self {
        Self::with_secret(name, rotation, self.secret.clone())
    }

    /// A key of tenant acme, valid for an hour unless `claims` say otherwise.
    pub(crate) fn key(&self, jti: &str, claims: Value) -> String {
        self.key_at(now_secs(), jti, claims)
    }

    /// A key minted at a time.
    pub(crate) fn key_at(&self, now_secs: u64, jti: &str, claims: Value) -> String {
        let mut all = json!({
            "jti": jti, "tenant": "acme", "iat": now_secs, "exp": now_secs + 3600,
        });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let kid = self.ring.kid_at(now_secs).unwrap();
        mint(&self.ring.signing_key(&kid).unwrap(), &kid, all.to_string().as_bytes())
    }
}

impl Minter {
    /// The same as [`Minter::key`] in the form of a JWT.
    pub(crate) fn jwt(&self, jti: &str, claims: Value) -> String {
        let key = self.key(jti, claims);
        let mut segments = key.split('.').skip(1);
        let (kid, claims) = (segments.next().unwrap(), segments.next().unwrap());
        let mut signing_key = [0; 32];
        let secret = self.secret.as_bytes();
        hkdf_sha256(b"vkey.v1", secret, kid.as_bytes(), &mut signing_key).unwrap();
        let header = json!({"alg": "HS256", "kid": kid, "typ": "JWT"}).to_string();
        let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header));
        let mut mac = Hmac::<Sha256>::new_from_slice(&signing_key).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

/// The key with one caveat more.
pub(crate) fn attenuate(key: &str, caveat: &Value) -> String {
    Unverified::parse(key.as_bytes()).unwrap().attenuate(caveat.to_string().as_bytes()).unwrap()
}

/// The shipped `envoy.yaml` with a plugin configuration of the test's own, completed.
pub(crate) fn options(label: &str, minter: &Minter, plugin: Value) -> Options {
    Options::new(label).plugin(complete(plugin)).env(VARIABLE, &minter.secret)
}

/// A plugin configuration; where they are missing, with the ring `main` for a keyring and the audit
/// lines in the access log.
pub(crate) fn complete(mut plugin: Value) -> String {
    if plugin.get("keyring").is_none() {
        plugin["keyring"] = json!([{"name": "main", "secret": format!("${{{VARIABLE}}}")}]);
    }
    if plugin.get("audit").is_none() {
        plugin["audit"] = json!({"sink": "access_log"});
    }
    plugin.to_string()
}

/// The audit lines, once all of them are there and no more come.
pub(crate) fn audit_lines(envoy: &Envoy, count: usize) -> Vec<Line<'static>> {
    envoy.wait_for_access_log(count);
    envoy.stop();
    let lines = envoy.access_log();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines.iter().map(|line| Line::parse(line).expect(line)).collect()
}

/// The records in the audit lines; an empty one in the line of a request that the module never saw.
pub(crate) fn records(envoy: &Envoy, count: usize) -> Vec<AuditRecord<'static>> {
    let lines = audit_lines(envoy, count).into_iter();
    lines.map(|line| line.record.unwrap_or_default()).collect()
}

pub(crate) fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
