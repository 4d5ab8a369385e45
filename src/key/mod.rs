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

/// A verified key. Made by [`Key::verify`] alone, so whoever holds one knows that its tag was
/// checked.
#[derive(Debug)]
pub struct Key {
    kid: Kid,
    claims: Claims,
    claims_bytes: usize,
    caveats_len: usize,
    restrictions: Restrictions,
    glob_words: GlobWords,
}

/// What a key carries, where all of it is understood.
#[derive(Debug)]
enum Restrictions {
    Understood { only: Option<Box<Restriction>>, caveats: Box<[Caveat]> },
    Unsupported,
}

/// A caveat, and whom its limits count.
#[derive(Debug)]
struct Caveat {
    restriction: Restriction,
    child: Child,
}

impl Key {
    /// Verifies a token against a keyring, and only then reads what it says. Nothing is decided but
    /// that the key is genuine: see [`Key::judge`].
    ///
    /// # Errors
    ///
    /// [`DenyReason::KeyUnknown`], also where the ring does not sign for the key's tenant,
    /// [`DenyReason::KeySignature`], and [`DenyReason::KeyMalformed`] for a genuine tag over what are no
    /// claims.
    pub fn verify(token: Unverified<'_>, keyring: &Keyring) -> Result<Self, DenyReason> {
        let ring = keyring.ring(token.kid())?;
        let signing_key = ring.signing_key(token.kid());
        Self::verify_by(token, ring, &signing_key)
    }

    /// [`Key::verify`] by the ring and the signing key that the token's kid names.
    ///
    /// # Errors
    ///
    /// As there.
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

    /// What the key says of itself.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Names the signing key the token was made with.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// How many caveats were added to the key.
    pub fn caveats_len(&self) -> usize {
        self.caveats_len
    }

    /// The first second at which the key is no longer valid, by its claims and its caveats.
    pub fn exp_secs(&self) -> u64 {
        let restricted = self.restrictions().filter_map(|(_, restriction)| restriction.exp_secs());
        restricted.fold(self.claims.exp, u64::min)
    }

    /// The restrictions the key carries. None when one is not understood, in which case
    /// [`Key::judge`] refuses the key.
    pub fn restrictions(&self) -> impl Iterator<Item = (Origin, &Restriction)> {
        let (only, caveats) = match &self.restrictions {
            Restrictions::Understood { only, caveats } => (only.as_deref(), &**caveats),
            Restrictions::Unsupported => (None, [].as_slice()),
        };
        let caveats = caveats.iter().enumerate();
        let caveats = caveats.map(|(i, caveat)| (Origin::Caveat(i + 1), &caveat.restriction));
        only.map(|only| (Origin::Only, only)).into_iter().chain(caveats)
    }

    /// Whether the globs that the key carries take more steps for an access than a request is worth.
    pub fn exceeds_glob_steps(&self, access: &Access<'_>) -> bool {
        self.glob_words.steps(access) > MAX_GLOB_STEPS
    }

    /// What one request of the key is charged with by the limits it carries. What was attenuated from
    /// a key counts against every limit on its way, so children never pass their parents.
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

    /// About how many bytes the key takes in memory. Texts take what they are written in; what is kept as
    /// it was read may take a [`Json`] for every two bytes.
    pub(crate) fn footprint(&self) -> usize {
        let kept_as_read = self.claims.only.is_some() || self.claims.meta.is_some();
        let json = if kept_as_read { self.claims_bytes / 2 * size_of::<Json>() } else { 0 };
        let claims = self.claims_bytes + json;
        let restrictions = self.restrictions().map(|(_, restriction)| restriction.footprint());
        size_of::<Self>() + claims + restrictions.sum::<usize>()
    }

    /// Whether the key itself is good at a time: everything about it that a request has no part in.
    /// Repeated on every request, since all of it depends on the time.
    ///
    /// # Errors
    ///
    /// The reason for which it is not.
    pub fn check(&self, keyring: &Keyring, now_secs: u64) -> Result<(), DenyReason> {
        // First, as where the key is seen for the first time: what is said of it must not depend on that.
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

    /// `[not before, exp)` is half-open. The skew is for the minter's clock, so it excuses `iat`; an
    /// explicit `nbf` is meant to the second.
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
    /// `None` when there is something that is not understood, or cannot be enforced.
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
        // What could never all be in use at one time could never be let through either.
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

/// Tells the children of a key apart, caveat by caveat.
struct Lineage {
    digest: Sha256,
    exp_secs: u64,
    /// The digest of the first caveat, once there is another.
    first: Option<Sha256>,
    family: Option<FamilyId>,
}

impl Lineage {
    /// The child by one caveat more; `None` where its length cannot be counted.
    fn descend(&mut self, text: &[u8], restriction: &Restriction) -> Option<Child> {
        self.digest.update(u64::try_from(text.len()).ok()?.to_le_bytes());
        self.digest.update(text);
        self.exp_secs = self.exp_secs.min(restriction.exp_secs().unwrap_or(u64::MAX));
        let mut child = Child { id: ChildId::default(), exp_secs: self.exp_secs, family: None };
        // Only a limit has to know whom it counts.
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
