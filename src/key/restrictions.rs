//! What a key is restricted to, by `only` of its claims and by its caveats.

use sha2::{Digest, Sha256};

use crate::access::Access;
use crate::access::restriction::{GlobWords, MAX_GLOB_STEPS, Restriction};
use crate::json::Integers;
use crate::key::claims::Claims;
use crate::limits::ledger::MAX_FAMILY_LIMITS;
use crate::limits::{Charge, Child, ChildId, FamilyId, Origin, Scope};

/// The restrictions that a key carries, all of which are understood.
#[derive(Debug)]
pub struct KeyRestrictions {
    only: Option<Box<Restriction>>,
    caveats: Box<[Caveat]>,
    glob_words: GlobWords,
}

/// A caveat, and the child that its limits count.
#[derive(Debug)]
struct Caveat {
    restriction: Restriction,
    child: Child,
}

impl KeyRestrictions {
    /// Reads the restrictions of claims and caveats. `None` if something is not understood or cannot be enforced.
    pub(super) fn open<'t>(claims: &Claims, texts: impl Iterator<Item = &'t [u8]>) -> Option<Self> {
        let only = claims.only.as_ref().map(|only| Restriction::read(&only.root(Integers::Digits)));
        let only = only.transpose().ok()?;
        let mut lineage = Lineage::default();
        let mut caveats = Vec::new();
        for text in texts {
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
        let mut all = only.iter().chain(caveats.iter().map(|caveat| &caveat.restriction));
        if all.any(|restriction| restriction.limits().needs_body()) {
            return None;
        }
        let only = only.map(Box::new);
        let mut opened = Self { only, caveats: caveats.into(), glob_words: GlobWords::default() };
        let words = opened.iter().map(|(_, restriction)| restriction.glob_words());
        opened.glob_words = words.fold(GlobWords::default(), GlobWords::plus);
        Some(opened)
    }

    /// Whether nothing is restricted.
    pub fn is_empty(&self) -> bool {
        self.only.is_none() && self.caveats.is_empty()
    }

    /// Each restriction.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, &Restriction)> {
        let caveats = self.caveats.iter().enumerate();
        let caveats = caveats.map(|(i, caveat)| (Origin::Caveat(i + 1), &caveat.restriction));
        self.only.as_deref().map(|only| (Origin::Only, only)).into_iter().chain(caveats)
    }

    /// Whether the globs take more than [`MAX_GLOB_STEPS`] for an access.
    pub fn exceeds_glob_steps(&self, access: &Access<'_>) -> bool {
        self.glob_words.steps(access) > MAX_GLOB_STEPS
    }

    /// The charges of one request by the limits that the key carries. A child is charged to the
    /// limits of all its ancestors too, so it can never exceed them.
    pub fn charges(&self) -> impl Iterator<Item = Charge> {
        let only = self.only.iter().map(|only| only.limits());
        let only = only.flat_map(|limits| limits.charges(Origin::Only, Scope::Only));
        only.chain(self.caveats.iter().enumerate().flat_map(|(index, caveat)| {
            let (origin, scope) = (Origin::Caveat(index + 1), Scope::Child(caveat.child));
            caveat.restriction.limits().charges(origin, scope)
        }))
    }

    /// Approximate heap memory, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        let restrictions = self.iter().map(|(_, restriction)| restriction.footprint());
        restrictions.sum::<usize>() + self.caveats.len() * size_of::<Child>()
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
