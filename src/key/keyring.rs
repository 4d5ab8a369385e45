//! The keyring: rings, their secrets, and the epochs of a ring that are valid at a given time.
//!
//! A rotating ring changes its signing key every `interval`, at the same second on every proxy and
//! every minter, because the epoch is a function of the time alone. A key lives at least
//! `max_age - interval` (minted in the last second of its epoch) and at most `max_age` (minted in the
//! first).

mod rotation;
mod secret;
mod signing_key;

pub use rotation::{InvalidRotation, Rotation};
pub use secret::{InvalidSecret, MIN_DISTINCT_BYTES, MIN_SECRET_BYTES, MIN_SECRET_CHARS, Secret};

use std::ops::Range;

use crate::decision::DenyReason;
use crate::key::mac::{RootKey, SigningKey, Tag};
use crate::key::token::{Kid, is_ring_name};

/// The state of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingState {
    /// Mints and verifies.
    Active,
    /// Verifies.
    Retiring,
    /// Identifies the keys it signed, and refuses them.
    Revoked,
}

/// A named secret and its rule of rotation.
pub struct Ring {
    name: Box<str>,
    signer: Signer,
    state: RingState,
    rotation: Option<Rotation>,
    tenants: Option<Box<[String]>>,
}

/// Where a ring has its signing keys from. It has no `Debug`.
pub enum Signer {
    /// They are derived from its secret.
    Root(RootKey),
    /// It has those of these epochs, and no secret. `None` for one that is missing.
    Epochs(Vec<(u32, Option<Secret>)>),
    /// Nothing: the secret is missing or unusable.
    Missing,
}

/// The rings of a configuration.
#[derive(Default)]
pub struct Keyring {
    rings: Vec<Ring>,
    clock_skew_secs: u64,
}

// === impl Ring ===

impl Ring {
    /// A ring; `None` when its name is not `[a-z0-9][a-z0-9-]{0,31}`.
    pub fn new(
        name: &str,
        secret: &Secret,
        state: RingState,
        rotation: Option<Rotation>,
    ) -> Option<Self> {
        Self::with_signer(name, Signer::new(Some(secret)), state, rotation)
    }

    /// A ring whose secret may be missing, or that has the signing keys of some epochs in place of it. What is missing
    /// refuses what it signed. `None` as in [`Ring::new`].
    pub fn with_signer(
        name: &str,
        signer: Signer,
        state: RingState,
        rotation: Option<Rotation>,
    ) -> Option<Self> {
        let ring = || Self { name: name.into(), signer, state, rotation, tenants: None };
        is_ring_name(name).then(ring)
    }

    /// Limits the ring to keys of these tenants; `None` for all.
    #[must_use]
    pub fn with_tenants(self, tenants: Option<Box<[String]>>) -> Self {
        Self { tenants, ..self }
    }

    /// Whether it signs keys of a tenant.
    pub fn signs_for(&self, tenant: &str) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.iter().any(|name| name == tenant))
    }

    /// The name, the first part of its keys' kids.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the ring is still good for.
    pub fn state(&self) -> RingState {
        self.state
    }

    /// Whether expired keys are still identified; always in a ring that does not rotate.
    pub fn keeps_expired(&self) -> bool {
        self.rotation.is_none_or(|rotation| rotation.keep_expired)
    }

    /// The kid to mint under at a time.
    pub fn kid_at(&self, now_secs: u64) -> Option<Kid> {
        let epoch = self.rotation.map_or(0, |rotation| rotation.epoch_at(now_secs));
        Kid::new(&self.name, epoch)
    }

    /// The first second at which keys minted at a time are refused whatever they claim; `None` when
    /// the ring does not rotate.
    pub fn end_of_life(&self, now_secs: u64) -> Option<u64> {
        self.rotation.map(|rotation| rotation.end_of(rotation.epoch_at(now_secs)))
    }

    /// Whether the ring has its secret, or at least one signing key.
    pub fn is_ready(&self) -> bool {
        match &self.signer {
            Signer::Root(_) => true,
            Signer::Epochs(keys) => keys.iter().any(|(_, key)| key.is_some()),
            Signer::Missing => false,
        }
    }

    /// Whether the ring has a signing key whose epoch is valid at a time.
    fn signs_at(&self, now_secs: u64) -> bool {
        let is_valid = |epoch: u32| {
            self.rotation.is_none_or(|rotation| {
                (rotation.start_of(epoch)..rotation.end_of(epoch)).contains(&now_secs)
            })
        };
        match &self.signer {
            Signer::Root(_) => true,
            Signer::Epochs(keys) => {
                keys.iter().any(|(epoch, key)| key.is_some() && is_valid(*epoch))
            }
            Signer::Missing => false,
        }
    }

    /// Checks that the ring has the signing key of a kid.
    ///
    /// # Errors
    ///
    /// [`DenyReason::NotReady`] if its secret or this signing key is missing; [`DenyReason::KeyUnknown`] if it has
    /// signing keys of other epochs only.
    pub fn check_kid(&self, kid: &Kid) -> Result<(), DenyReason> {
        match &self.signer {
            Signer::Root(_) => Ok(()),
            Signer::Epochs(keys) => key_of(keys, kid).map(drop),
            Signer::Missing => Err(DenyReason::NotReady),
        }
    }

    /// The signing key of an epoch.
    ///
    /// # Errors
    ///
    /// As [`Ring::check_kid`].
    pub fn signing_key(&self, kid: &Kid) -> Result<SigningKey, DenyReason> {
        match &self.signer {
            Signer::Root(root) => Ok(root.derive(kid.as_str())),
            Signer::Epochs(keys) => key_of(keys, kid).map(|key| SigningKey::new(&key.0)),
            Signer::Missing => Err(DenyReason::NotReady),
        }
    }
}

// === impl Signer ===

impl Signer {
    /// All signing keys of a secret.
    pub fn new(secret: Option<&Secret>) -> Self {
        secret.map_or(Self::Missing, |secret| Self::Root(secret.extract()))
    }

    fn derive_seed(&self) -> Option<Tag> {
        match self {
            Self::Root(root) => Some(root.derive_bytes(SEED)),
            Self::Epochs(keys) => {
                let key = keys.iter().find_map(|(_, key)| key.as_ref())?;
                Some(SigningKey::new(&key.0).sign(&[SEED.as_bytes()]))
            }
            Self::Missing => None,
        }
    }
}

/// The message whose tag is the seed of hashes. No token and no kid has a space.
const SEED: &str = "seed of hashes";

fn key_of<'a>(keys: &'a [(u32, Option<Secret>)], kid: &Kid) -> Result<&'a Secret, DenyReason> {
    let named = keys.iter().find(|(epoch, _)| *epoch == kid.epoch());
    let (_, key) = named.ok_or(DenyReason::KeyUnknown)?;
    key.as_ref().ok_or(DenyReason::NotReady)
}

// === impl Keyring ===

impl Keyring {
    /// A keyring. Of two rings with one name the first is found.
    pub fn new(rings: Vec<Ring>, clock_skew_secs: u64) -> Self {
        Self { rings, clock_skew_secs }
    }

    /// Gives a ring another signer. `false` if there is no such ring.
    pub fn set_signer(&mut self, ring: &str, signer: Signer) -> bool {
        let ring = self.rings.iter_mut().find(|found| &*found.name == ring);
        ring.map(|ring| ring.signer = signer).is_some()
    }

    /// The rings in their order: the name of each, and whether it is ready.
    pub fn rings(&self) -> impl Iterator<Item = (&str, bool)> {
        self.rings.iter().map(|ring| (ring.name(), ring.is_ready()))
    }

    /// Whether at least one ring is ready. Without one no key can be verified.
    pub fn is_ready(&self) -> bool {
        self.rings.iter().any(Ring::is_ready)
    }

    /// Whether a key can be valid at a time: a ring that is not revoked has a signing key whose epoch is valid.
    pub fn accepts_keys(&self, now_secs: u64) -> bool {
        self.rings.iter().any(|ring| ring.state() != RingState::Revoked && ring.signs_at(now_secs))
    }

    /// The ring that signs under a kid, ready or not.
    ///
    /// # Errors
    ///
    /// [`DenyReason::KeyUnknown`] when there is none, or the ring does not have such an epoch.
    pub fn ring(&self, kid: &Kid) -> Result<&Ring, DenyReason> {
        let named = self.rings.iter().find(|ring| &*ring.name == kid.ring());
        let ring = named.ok_or(DenyReason::KeyUnknown)?;
        if ring.rotation.is_none() && kid.epoch() != 0 {
            return Err(DenyReason::KeyUnknown);
        }
        Ok(ring)
    }

    /// When the epoch of a kid is valid by [`Keyring::check_epoch`], in Unix seconds. Empty if there is no such epoch.
    pub fn epoch_span(&self, kid: &Kid) -> Range<u64> {
        let valid = |rotation: Rotation| {
            let start = rotation.start_of(kid.epoch()).saturating_sub(self.clock_skew_secs);
            start..rotation.end_of(kid.epoch())
        };
        match self.ring(kid) {
            Ok(ring) => ring.rotation.map_or(0..u64::MAX, valid),
            Err(_) => 0..0,
        }
    }

    /// Checks that a kid's epoch is valid at a time.
    ///
    /// # Errors
    ///
    /// [`DenyReason::KeyNotYetValid`] before the epoch starts, [`DenyReason::KeyRetired`] once it has
    /// aged out, and as [`Keyring::ring`].
    pub fn check_epoch(&self, kid: &Kid, now_secs: u64) -> Result<(), DenyReason> {
        let Some(rotation) = self.ring(kid)?.rotation else {
            return Ok(());
        };
        if now_secs.saturating_add(self.clock_skew_secs) < rotation.start_of(kid.epoch()) {
            Err(DenyReason::KeyNotYetValid)
        } else if now_secs >= rotation.end_of(kid.epoch()) {
            Err(DenyReason::KeyRetired)
        } else {
            Ok(())
        }
    }

    /// Two odd numbers that only holders of a secret know, for hashing what strangers choose. All 0 if no secret is known.
    pub(crate) fn hash_seed(&self) -> [u64; 2] {
        let seed = self.rings.iter().find_map(|ring| ring.signer.derive_seed());
        let mut numbers = seed.iter().flat_map(|seed| seed.expose().as_chunks().0);
        [(); 2].map(|()| numbers.next().map_or(0, |bytes| u64::from_le_bytes(*bytes) | 1))
    }

    /// How far another machine's clock may be ahead of this one.
    pub fn clock_skew_secs(&self) -> u64 {
        self.clock_skew_secs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_judged_to_the_second() {
        let secret = Secret::parse("Sample-Secret-1-never-deploy").unwrap();
        let rotation = Rotation::new(10, 25, true).unwrap();
        let ring = Ring::new("main", &secret, RingState::Active, Some(rotation)).unwrap();
        let keyring = Keyring::new(vec![ring], 5);
        let kid = Kid::new("main", 3).unwrap();
        let check = |now| keyring.check_epoch(&kid, now);
        assert_eq!(check(24), Err(DenyReason::KeyNotYetValid));
        assert_eq!(check(25), Ok(()));
        assert_eq!(check(54), Ok(()));
        assert_eq!(check(55), Err(DenyReason::KeyRetired));
        assert_eq!(keyring.epoch_span(&kid), 25..55);
        assert_eq!(keyring.epoch_span(&Kid::new("other", 0).unwrap()), 0..0);
    }

    #[test]
    fn a_ring_without_its_secret_is_found_and_signs_nothing() {
        let secret = Secret::parse("Sample-Secret-1-never-deploy").unwrap();
        let main = || Ring::new("main", &secret, RingState::Active, None).unwrap();
        let unready = |name| Ring::with_signer(name, Signer::Missing, RingState::Active, None);
        let spare = || unready("spare").unwrap();
        assert!(unready("-").is_none());
        let keyring = Keyring::new(vec![spare(), main()], 0);
        assert!(keyring.is_ready());
        assert_eq!(Vec::from_iter(keyring.rings()), [("spare", false), ("main", true)]);
        let kid = spare().kid_at(0).unwrap();
        let found = keyring.ring(&kid).ok().unwrap();
        assert_eq!(found.check_kid(&kid), Err(DenyReason::NotReady));
        assert_eq!(found.signing_key(&kid).err(), Some(DenyReason::NotReady));
        let other_epoch = Kid::new("spare", 1).unwrap();
        assert_eq!(keyring.ring(&other_epoch).err(), Some(DenyReason::KeyUnknown));
        assert!(!Keyring::new(vec![spare()], 0).is_ready());
    }

    #[test]
    fn a_ring_of_single_signing_keys_has_no_other_epoch() {
        let secret = Secret::parse("Sample-Secret-1-never-deploy").unwrap();
        let rotation = Rotation::new(10, 100, true).ok();
        let root = Ring::new("main", &secret, RingState::Active, rotation).unwrap();
        let [one, two, three] = [1, 2, 3].map(|epoch| Kid::new("main", epoch).unwrap());
        let of = |epochs: Vec<(u32, Option<Secret>)>| {
            let signer = Signer::Epochs(epochs);
            Ring::with_signer("main", signer, RingState::Active, rotation).unwrap()
        };
        let ring = of(vec![(1, Secret::parse(&secret.derive(&one)).ok()), (2, None)]);
        let tag = |ring: &Ring| ring.signing_key(&one).unwrap().sign(&[b"text"]);
        assert!(tag(&ring).matches(&tag(&root)));
        for (kid, refused) in [(two, DenyReason::NotReady), (three, DenyReason::KeyUnknown)] {
            assert_eq!(ring.check_kid(&kid), Err(refused));
            assert_eq!(ring.signing_key(&kid).err(), Some(refused));
        }
        assert!(ring.is_ready());
        assert!(!of(vec![(2, None)]).is_ready());
    }
}
