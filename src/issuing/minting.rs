//! Mints a key, and verifies it like the gate before anyone sees it.

use crate::decision::DenyReason;
use crate::json::{Invalid, Json};
use crate::key::Key;
use crate::key::claims::Claims;
use crate::key::keyring::{Keyring, Ring};
use crate::key::token::{self, Kid, MAX_TOKEN_BYTES, Unverified};
use crate::time::LAST_SECS;

use super::names::Names;
use super::narrowing::{CannotNarrow, narrow};

/// Why a key cannot be minted.
#[derive(Debug)]
pub enum CannotMint {
    /// The claims are invalid.
    Claims(Invalid),
    /// The key is longer than gates accept.
    KeyTooLong,
    /// The key would never be valid, or beyond the last representable date.
    Lifetime,
    /// The key cannot have the caveats.
    Narrow(CannotNarrow),
    /// The minted key does not verify.
    SelfCheck(DenyReason),
}

/// The first second at which a key with this lifetime, in seconds, is no longer valid.
///
/// # Errors
///
/// [`CannotMint::Lifetime`]
pub fn expiry(now_secs: u64, lifetime: u64, nbf: Option<u64>) -> Result<u64, CannotMint> {
    let exp = now_secs.saturating_add(lifetime);
    if exp > LAST_SECS || nbf.is_some_and(|nbf| nbf >= exp) {
        return Err(CannotMint::Lifetime);
    }
    Ok(exp)
}

/// Validates claims like the gate.
///
/// # Errors
///
/// [`CannotMint::Claims`]
pub fn valid(claims: &Claims) -> Result<Claims, CannotMint> {
    Claims::parse(claims.to_json().to_string().as_bytes()).map_err(CannotMint::Claims)
}

/// Signs a key, and verifies it like the gate before anyone sees it.
///
/// # Errors
///
/// [`CannotMint`]
pub fn mint(
    ring: Ring,
    claims: &Claims,
    caveats: &[Json],
    now_secs: u64,
) -> Result<String, CannotMint> {
    let unsigned = CannotMint::SelfCheck(DenyReason::KeyUnknown);
    let kid = ring.kid_at(now_secs).ok_or(unsigned)?;
    let text = claims.to_json().to_string();
    let signing_key = ring.signing_key(&kid).map_err(CannotMint::SelfCheck)?;
    let key = token::mint(&signing_key, &kid, text.as_bytes());
    if key.len() > MAX_TOKEN_BYTES {
        return Err(CannotMint::KeyTooLong);
    }
    let key = narrow(key, caveats).map_err(CannotMint::Narrow)?;
    verify(&key, &kid, ring, claims).map(|()| key)
}

fn verify(key: &str, kid: &Kid, ring: Ring, claims: &Claims) -> Result<(), CannotMint> {
    let malformed = CannotMint::SelfCheck(DenyReason::KeyMalformed);
    let Ok(unverified) = Unverified::parse(key.as_bytes()) else { return Err(malformed) };
    let keyring = Keyring::new(vec![ring], 0);
    let verified = Key::verify(unverified, &keyring).map_err(CannotMint::SelfCheck)?;
    if verified.claims() == claims && verified.kid() == kid { Ok(()) } else { Err(malformed) }
}

impl CannotMint {
    /// The sentence for a person who writes the parts of a key under these names.
    pub fn sentence(&self, names: &Names) -> String {
        let Names { only, caveat, meta, lifetime, not_before, kind } = names;
        match self {
            Self::Claims(invalid) => {
                format!("invalid claims: {invalid}; change the {kind} of that name")
            }
            Self::KeyTooLong => format!(
                "the key would be longer than {MAX_TOKEN_BYTES} bytes; shorten {only}, {caveat} or {meta}"
            ),
            Self::Lifetime => format!(
                "invalid lifetime; {lifetime} must end after {not_before} and before the year 10000"
            ),
            Self::Narrow(cannot) => cannot.sentence(names),
            Self::SelfCheck(reason) => {
                format!("the minted key does not verify ({reason}) and is not printed; report this")
            }
        }
    }
}
