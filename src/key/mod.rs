//! The verified key: claims and restrictions that the ring's own tag vouches for.

pub mod claims;
pub mod keyring;
pub mod mac;
mod restrictions;
pub mod revocations;
pub mod token;

use std::rc::Rc;

use crate::decision::DenyReason;
use crate::json::Invalid;
use crate::key::claims::Claims;
use crate::key::keyring::{Keyring, Ring};
use crate::key::mac::SigningKey;
use crate::key::token::{Kid, Unverified, Verified};
pub use restrictions::KeyRestrictions;

/// A verified key. Only [`Key::verify`] makes one, so its tag was checked.
#[derive(Debug)]
pub struct Key {
    kid: Rc<Kid>,
    claims: Claims,
    caveats_len: usize,
    /// `None` if one is not understood.
    restrictions: Option<KeyRestrictions>,
}

/// What a verified key is made of.
pub(crate) struct KeyParts {
    /// The kid of the signing key.
    pub(crate) kid: Rc<Kid>,
    /// The claims.
    pub(crate) claims: Claims,
    /// The number of caveats.
    pub(crate) caveats_len: usize,
    /// The restrictions of claims and caveats; `None` if one is not understood.
    pub(crate) restrictions: Option<KeyRestrictions>,
}

impl Key {
    /// Verifies a token against a keyring, and then parses its content. This decides only that the
    /// key is genuine, not that it is valid now.
    ///
    /// # Errors
    ///
    /// [`DenyReason::KeyUnknown`], also if the ring does not sign for the key's tenant;
    /// [`DenyReason::NotReady`] if the ring lacks its secret; [`DenyReason::KeySignature`];
    /// [`DenyReason::KeyMalformed`] for a valid tag over invalid claims.
    pub fn verify(token: Unverified<'_>, keyring: &Keyring) -> Result<Self, DenyReason> {
        let ring = keyring.ring(token.kid())?;
        let signing_key = ring.signing_key(token.kid())?;
        let kid = Rc::new(token.kid().clone());
        Self::verify_by(token, ring, &signing_key, kid)
    }

    /// [`Key::verify`] by the ring and the signing key of the token's kid, which keys may share.
    ///
    /// # Errors
    ///
    /// Those of [`Key::verify`].
    pub(crate) fn verify_by(
        token: Unverified<'_>,
        ring: &Ring,
        signing_key: &SigningKey,
        kid: Rc<Kid>,
    ) -> Result<Self, DenyReason> {
        let verified = token.verify(signing_key).map_err(|_| DenyReason::KeySignature)?;
        let key = Self::open(&verified, kid).map_err(|_| DenyReason::KeyMalformed)?;
        // The secret of a ring for one tenant must not make a key of another: such a
        // key is not identified, and has no cell.
        if ring.signs_for(&key.claims.tenant) { Ok(key) } else { Err(DenyReason::KeyUnknown) }
    }

    /// The claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The kid of the signing key.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// What it is made of.
    pub(crate) fn into_parts(self) -> KeyParts {
        let Self { kid, claims, caveats_len, restrictions } = self;
        KeyParts { kid, claims, caveats_len, restrictions }
    }

    fn open(verified: &Verified, kid: Rc<Kid>) -> Result<Self, Invalid> {
        let claims = Claims::parse(verified.claims())?;
        Ok(Self {
            kid,
            caveats_len: verified.caveats().count(),
            restrictions: KeyRestrictions::open(&claims, verified.caveats()),
            claims,
        })
    }
}
