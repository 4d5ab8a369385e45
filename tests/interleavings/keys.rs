//! Keys, and the limits of their tiers and tenants.

use vkey::key::keyring::{Ring, RingState, Secret};
use vkey::key::token::{Kid, Unverified, mint};

pub(crate) const SECRET: &str = "Interleavings-1-all-of-them";

/// A year, for limits that do not recover during a test.
const SLOW: &str = r#""per": "365d""#;

pub(crate) fn ring() -> (Ring, Kid) {
    let secret = Secret::parse(SECRET).unwrap();
    let ring = Ring::new("main", &secret, RingState::Active, None).unwrap();
    let kid = ring.kid_at(0).unwrap();
    (ring, kid)
}

pub(crate) fn token(jti: &str) -> String {
    token_of(jti, "nobody")
}

/// A key whose `sub` says how many tokens a response uses.
pub(crate) fn using(jti: &str, tokens: u64) -> String {
    token_of(jti, &tokens.to_string())
}

fn token_of(jti: &str, sub: &str) -> String {
    let (ring, kid) = ring();
    let claims = format!(
        r#"{{"jti":"{jti}","tenant":"acme","sub":"{sub}","iat":1780000000,"exp":1900000000}}"#
    );
    mint(&ring.signing_key(&kid).unwrap(), &kid, claims.as_bytes())
}

pub(crate) fn child(jti: &str, caveat: &str) -> String {
    let token = token(jti);
    Unverified::parse(token.as_bytes()).unwrap().attenuate(caveat.as_bytes()).unwrap()
}

pub(crate) fn rate(requests: u32) -> String {
    format!(r#""rate": {{"requests": {requests}, {SLOW}}}"#)
}

pub(crate) fn quota(requests: u32) -> String {
    format!(r#""quotas": [{{"requests": {requests}, "per": "total"}}]"#)
}

pub(crate) fn tokens_a_day(tokens: u64) -> String {
    format!(r#""quotas": [{{"tokens": {tokens}, "per": "day"}}]"#)
}

pub(crate) fn micro_usd_a_day(micro_usd: u64) -> String {
    format!(r#""quotas": [{{"cost_usd": "0.{micro_usd:06}", "per": "day"}}]"#)
}

pub(crate) fn of_tier(limit: &str) -> String {
    format!(r#""tiers": {{"default": {{{limit}}}}}"#)
}

pub(crate) fn of_both(tier: &str, tenant: &str) -> String {
    format!(r#"{}, "tenants": {{"acme": {{{tenant}}}}}"#, of_tier(tier))
}
