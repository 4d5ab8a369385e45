//! The cache of signing keys.

use std::rc::Rc;

use crate::decision::DenyReason;
use crate::key::keyring::Ring;
use crate::key::mac::SigningKey;
use crate::key::token::Kid;

/// Derived signing keys by kid. Only those of a few epochs are in use at a time.
#[derive(Default)]
pub(super) struct SigningKeys(Vec<(Rc<Kid>, SigningKey)>);

/// The most signing keys that are cached. When the cache is full, it is cleared.
const MAX_SIGNING_KEYS: usize = 8;

impl SigningKeys {
    /// The signing key of a ring for one of its kids, and that kid, which keys share.
    ///
    /// # Errors
    ///
    /// As [`Ring::signing_key`].
    pub(super) fn get(
        &mut self,
        ring: &Ring,
        kid: &Kid,
    ) -> Result<&(Rc<Kid>, SigningKey), DenyReason> {
        let Self(keys) = self;
        let index = match keys.iter().position(|(cached, _)| **cached == *kid) {
            Some(index) => index,
            None => {
                let derived = ring.signing_key(kid)?;
                if keys.len() >= MAX_SIGNING_KEYS {
                    keys.clear();
                }
                keys.push((Rc::new(kid.clone()), derived));
                keys.len() - 1
            }
        };
        keys.get(index).ok_or(DenyReason::NotReady)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::keyring::{RingState, Rotation, Secret};

    #[test]
    fn a_signing_key_does_not_depend_on_earlier_lookups() {
        let secret = Secret::parse("Sample-Secret-1-never-deploy").unwrap();
        let rotation = Rotation::new(10, 100, false).ok();
        let ring = |name| Ring::new(name, &secret, RingState::Active, rotation).unwrap();
        let mut keys = SigningKeys::default();
        for epoch in [1, 1, 2, 1, 3, 4, 5, 6, 7, 8, 1, 2, 5, 5] {
            for ring in [ring("main"), ring("other")] {
                let kid = Kid::new(ring.name(), epoch).unwrap();
                let expected = ring.signing_key(&kid).unwrap().sign(&[b"text"]);
                assert!(
                    keys.get(&ring, &kid).unwrap().1.sign(&[b"text"]).matches(&expected),
                    "{kid}"
                );
                assert!(keys.0.len() <= MAX_SIGNING_KEYS);
            }
        }
    }
}
