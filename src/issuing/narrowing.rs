//! Narrows a key without a secret.

use crate::access::restriction::{Restriction, Slashes, refuse_mistakes};
use crate::json::{Integers, Invalid, Json};
use crate::key::claims::Claims;
use crate::key::token::{CannotAttenuate, Unverified};
use crate::limits::tally::MAX_FAMILY_LIMITS;

use super::flaw::KeyFlaw;
use super::names::Names;
use super::review::only_of;

/// Why a key cannot be narrowed.
#[derive(Debug)]
pub enum CannotNarrow {
    /// The key format forbids it.
    Bound(CannotAttenuate),
    /// It is not a key.
    Flawed(KeyFlaw),
    /// The caveats of the key set more limits than a gate counts.
    TooManyLimits,
}

/// Appends the caveats in order.
///
/// # Errors
///
/// [`CannotNarrow`]
pub fn narrow(key: String, caveats: &[Json]) -> Result<String, CannotNarrow> {
    let narrowed = caveats.iter().try_fold(key, |key, caveat| {
        let text = caveat.to_string();
        KeyFlaw::read(&key)?.attenuate(text.as_bytes()).map_err(CannotNarrow::Bound)
    })?;
    if later_limits_len(&KeyFlaw::read(&narrowed)?) > MAX_FAMILY_LIMITS {
        return Err(CannotNarrow::TooManyLimits);
    }
    Ok(narrowed)
}

/// Checks that JSON is a restriction that gates understand and that some request can match.
///
/// # Errors
///
/// [`Invalid`] names the member.
pub fn check_restriction(json: &Json, slashes: Slashes) -> Result<(), Invalid> {
    let root = json.root(Integers::Digits);
    Restriction::read(&root)?;
    refuse_mistakes(&root, slashes)
}

/// The restrictions of a key in its claims and its caveats. Those that cannot be parsed are left out.
pub fn restrictions(key: &Unverified<'_>) -> Vec<Restriction> {
    let (claims, caveats) = key.untrusted_content();
    let only = Claims::parse(claims).ok().and_then(|claims| only_of(&claims));
    only.into_iter().chain(caveats.filter_map(|text| Restriction::parse(text).ok())).collect()
}

/// How many limits the caveats after the first set. Caveats that cannot be parsed set none.
fn later_limits_len(key: &Unverified<'_>) -> usize {
    let (_, caveats) = key.untrusted_content();
    let restrictions = caveats.skip(1).filter_map(|text| Restriction::parse(text).ok());
    restrictions.map(|restriction| restriction.limits().iter().count()).sum()
}

impl CannotNarrow {
    /// The sentence for a person who writes the parts of a key under these names.
    pub fn sentence(&self, names: &Names) -> String {
        let only = names.only;
        match self {
            Self::Flawed(flaw) => flaw.to_string(),
            Self::Bound(cannot @ CannotAttenuate::Jwt) => {
                format!("the key cannot be narrowed: {cannot}")
            }
            Self::Bound(cannot) => format!(
                "the key cannot be narrowed: {cannot}; shorten it, or mint a key with it in {only}"
            ),
            Self::TooManyLimits => format!(
                "the caveats after the first would set more than {MAX_FAMILY_LIMITS} limits: every \
                 gate would refuse the key; set fewer, or mint a key with them in {only}"
            ),
        }
    }
}

impl From<KeyFlaw> for CannotNarrow {
    fn from(flaw: KeyFlaw) -> Self {
        Self::Flawed(flaw)
    }
}
