//! The verified key: claims and restrictions that the ring's own tag vouches for.

pub mod claims;
pub mod keyring;
pub mod mac;
pub mod revocations;
pub mod token;

use sha2::{Digest, Sha256};

use crate::access::Access;
use crate::access::restriction::{GlobWords, MAX_GLOB_STEPS, Restriction};
use crate::decision::DenyReason;
use crate::json::{Integers, Invalid, Json};
use crate::key::claims::Claims;
use crate::key::keyring::{Keyring, Ring, RingState};
use crate::key::mac::SigningKey;
use crate::key::token::{Kid, Unverified, Verified};
use crate::limits::Origin;
use crate::limits::ledger::MAX_FAMILY_LIMITS;
use crate::limits::{Charge, Child, ChildId, FamilyId, Limits, Scope};

/// A verified key. Only [`Key::verify`] makes one, so its tag was checked.
#[derive(Debug)]
pub struct Key {
    kid: Kid,
    claims: Claims,
    claims_bytes: usize,
    caveats_len: usize,
    restrictions: Restrictions,
    glob_words: GlobWords,
}

/// The restrictions that a key carries.
#[derive(Debug)]
enum Restrictions {
    Understood { only: Option<Box<Restriction>>, caveats: Box<[Caveat]> },
    Unsupported,
}

/// A caveat, and the child that its limits count.
#[derive(Debug)]
struct Caveat {
    restriction: Restriction,
    child: Child,
}

impl Key {
    /// Verifies a token against a keyring, and then parses its content. This decides only that the
    /// key is genuine: see [`Key::check`].
    ///
    /// # Errors
    ///
    /// [`DenyReason::KeyUnknown`], also if the ring does not sign for the key's tenant;
    /// [`DenyReason::NotReady`] if the ring lacks its secret; [`DenyReason::KeySignature`];
    /// [`DenyReason::KeyMalformed`] for a valid tag over invalid claims.
    pub fn verify(token: Unverified<'_>, keyring: &Keyring) -> Result<Self, DenyReason> {
        let ring = keyring.ring(token.kid())?;
        let signing_key = ring.signing_key(token.kid())?;
        Self::verify_by(token, ring, &signing_key)
    }

    /// [`Key::verify`] by the ring and the signing key that the token's kid names.
    ///
    /// # Errors
    ///
    /// Those of [`Key::verify`].
    pub(crate) fn verify_by(
        token: Unverified<'_>,
        ring: &Ring,
        signing_key: &SigningKey,
    ) -> Result<Self, DenyReason> {
        let verified = token.verify(signing_key).map_err(|_| DenyReason::KeySignature)?;
        let key = Self::open(&verified).map_err(|_| DenyReason::KeyMalformed)?;
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

    /// The number of caveats.
    pub fn caveats_len(&self) -> usize {
        self.caveats_len
    }

    /// The first second at which the key is no longer valid, by its claims and its caveats.
    pub fn exp_secs(&self) -> u64 {
        let restricted = self.restrictions().filter_map(|(_, restriction)| restriction.exp_secs());
        restricted.fold(self.claims.exp, u64::min)
    }

    /// The restrictions of the key. Empty if one is not understood; [`Key::check`] then refuses the
    /// key.
    pub fn restrictions(&self) -> impl Iterator<Item = (Origin, &Restriction)> {
        let (only, caveats) = match &self.restrictions {
            Restrictions::Understood { only, caveats } => (only.as_deref(), &**caveats),
            Restrictions::Unsupported => (None, [].as_slice()),
        };
        let caveats = caveats.iter().enumerate();
        let caveats = caveats.map(|(i, caveat)| (Origin::Caveat(i + 1), &caveat.restriction));
        only.map(|only| (Origin::Only, only)).into_iter().chain(caveats)
    }

    /// Whether the key's globs take more than [`MAX_GLOB_STEPS`] for an access.
    pub fn exceeds_glob_steps(&self, access: &Access<'_>) -> bool {
        self.glob_words.steps(access) > MAX_GLOB_STEPS
    }

    /// The charges of one request by the limits that the key carries. A child is charged to the
    /// limits of all its ancestors too, so it can never exceed them.
    pub fn charges(&self) -> impl Iterator<Item = Charge> {
        let (only, caveats) = match &self.restrictions {
            Restrictions::Understood { only, caveats } => (only.as_deref(), &**caveats),
            Restrictions::Unsupported => (None, [].as_slice()),
        };
        let only = only.into_iter().flat_map(|o| o.limits().charges(Origin::Only, Scope::Only));
        only.chain(caveats.iter().enumerate().flat_map(|(index, caveat)| {
            let (origin, scope) = (Origin::Caveat(index + 1), Scope::Child(caveat.child));
            caveat.restriction.limits().charges(origin, scope)
        }))
    }

    /// Approximate memory of the key, in bytes. Unparsed JSON may take a [`Json`] for every two
    /// bytes of text.
    pub(crate) fn footprint(&self) -> usize {
        let kept_as_read = self.claims.only.is_some() || self.claims.meta.is_some();
        let json = if kept_as_read { self.claims_bytes / 2 * size_of::<Json>() } else { 0 };
        let claims = self.claims_bytes + json;
        let restrictions = self.restrictions().map(|(_, restriction)| restriction.footprint());
        size_of::<Self>() + claims + restrictions.sum::<usize>()
    }

    /// Checks the epoch, the times of claims and caveats, that all caveats are supported, and the state of the ring.
    /// Audience and revocation are the engine's. It depends on the time, so it is repeated for every request.
    ///
    /// # Errors
    ///
    /// The reason why the key is not valid.
    pub fn check(&self, keyring: &Keyring, now_secs: u64) -> Result<(), DenyReason> {
        // First, as for a key that is not in the cache: the reason must not depend on the cache.
        keyring.check_epoch(&self.kid, now_secs)?;
        if matches!(self.restrictions, Restrictions::Unsupported) {
            return Err(DenyReason::CaveatUnsupported);
        }
        self.check_times(keyring.clock_skew_secs(), now_secs)?;
        let prohibits_time =
            |(_, restriction): (_, &Restriction)| restriction.prohibits_time(now_secs);
        if let Some(reason) = self.restrictions().find_map(prohibits_time) {
            return Err(reason);
        }
        match keyring.ring(&self.kid)?.state() {
            RingState::Revoked => Err(DenyReason::KeyRevoked),
            RingState::Active | RingState::Retiring => Ok(()),
        }
    }

    fn open(verified: &Verified) -> Result<Self, Invalid> {
        let claims = Claims::parse(verified.claims())?;
        let mut key = Self {
            kid: verified.kid().clone(),
            claims_bytes: verified.claims().len(),
            caveats_len: verified.caveats().count(),
            restrictions: Restrictions::open(&claims, verified)
                .unwrap_or(Restrictions::Unsupported),
            claims,
            glob_words: GlobWords::default(),
        };
        let words = key.restrictions().map(|(_, restriction)| restriction.glob_words());
        key.glob_words = words.fold(GlobWords::default(), GlobWords::plus);
        Ok(key)
    }

    /// `[not before, exp)` is half-open. The skew allows for the minter's clock, so it applies to
    /// `iat`. An explicit `nbf` is exact.
    fn check_times(&self, clock_skew_secs: u64, now_secs: u64) -> Result<(), DenyReason> {
        let early = self.claims.iat > now_secs.saturating_add(clock_skew_secs);
        if early || self.claims.nbf.is_some_and(|nbf| now_secs < nbf) {
            Err(DenyReason::KeyNotYetValid)
        } else if now_secs >= self.claims.exp {
            Err(DenyReason::KeyExpired)
        } else {
            Ok(())
        }
    }
}

impl Restrictions {
    /// `None` if something is not understood or cannot be enforced.
    fn open(claims: &Claims, verified: &Verified) -> Option<Self> {
        let only = claims.only.as_ref().map(|only| Restriction::read(&only.root(Integers::Digits)));
        let only = only.transpose().ok()?;
        let mut lineage = Lineage::default();
        let mut caveats = Vec::new();
        for text in verified.caveats() {
            let restriction = Restriction::parse(text).ok()?;
            let child = lineage.descend(text, &restriction)?;
            caveats.push(Caveat { restriction, child });
        }
        // A key whose limits can never all be in use at the same time could never be allowed.
        let limits =
            caveats.iter().skip(1).map(|caveat| caveat.restriction.limits().iter().count());
        if limits.sum::<usize>() > MAX_FAMILY_LIMITS {
            return None;
        }
        let all = only.iter().chain(caveats.iter().map(|caveat| &caveat.restriction));
        let understood = !all.map(Restriction::limits).any(Limits::needs_body);
        understood.then(|| Self::Understood { only: only.map(Box::new), caveats: caveats.into() })
    }
}

/// Computes the identity of children, caveat by caveat.
struct Lineage {
    digest: Sha256,
    exp_secs: u64,
    /// The digest of the first caveat, once there is another.
    first: Option<Sha256>,
    family: Option<FamilyId>,
}

impl Lineage {
    /// Adds a caveat, and returns the child. `None` if the length overflows.
    fn descend(&mut self, text: &[u8], restriction: &Restriction) -> Option<Child> {
        self.digest.update(u64::try_from(text.len()).ok()?.to_le_bytes());
        self.digest.update(text);
        self.exp_secs = self.exp_secs.min(restriction.exp_secs().unwrap_or(u64::MAX));
        let mut child = Child { id: ChildId::default(), exp_secs: self.exp_secs, family: None };
        // Only limits need the id.
        if !restriction.limits().is_empty() {
            child.id = child_id(&self.digest);
            child.family = self
                .first
                .as_ref()
                .map(|first| *self.family.get_or_insert_with(|| child_id(first).family()));
        }
        if self.first.is_none() {
            self.first = Some(self.digest.clone());
        }
        Some(child)
    }
}

impl Default for Lineage {
    fn default() -> Self {
        Self { digest: Sha256::new(), exp_secs: u64::MAX, first: None, family: None }
    }
}

fn child_id(digest: &Sha256) -> ChildId {
    ChildId::from_digest(&digest.clone().finalize().into())
}
