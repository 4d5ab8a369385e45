//! What a key is restricted to, by `only` of its claims and by its caveats.

use sha2::{Digest, Sha256};

use crate::access::Access;
use crate::access::restriction::{GlobWords, MAX_GLOB_STEPS, Restriction};
use crate::json::Integers;
use crate::key::claims::Claims;
use crate::limits::tally::MAX_FAMILY_LIMITS;
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
    pub fn open<'t>(
        claims: &Claims,
        texts: impl Iterator<Item = &'t [u8]> + Clone,
    ) -> Option<Self> {
        let only = claims.only.as_ref().map(|only| Restriction::read(&only.root(Integers::Digits)));
        let only = only.transpose().ok()?;
        let mut lineage = Lineage::new(texts.clone());
        let mut caveats = Vec::new();
        for text in texts {
            let restriction = Restriction::parse(text).ok()?;
            let child = lineage.descend(&restriction)?;
            caveats.push(Caveat { restriction, child });
        }
        // A key whose limits can never all be in use at the same time could never be allowed.
        let limits =
            caveats.iter().skip(1).map(|caveat| caveat.restriction.limits().iter().count());
        if limits.sum::<usize>() > MAX_FAMILY_LIMITS {
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

/// Computes the identity of children, caveat by caveat. Nothing is hashed before a caveat with limits, because only
/// limits need it.
struct Lineage<I> {
    /// The caveats that are not hashed yet.
    texts: I,
    /// How many of them are to be hashed.
    ahead: usize,
    digest: Sha256,
    exp_secs: u64,
    /// The digest of the first caveat, once it is hashed.
    first: Option<Sha256>,
    family: Option<FamilyId>,
    is_narrowed: bool,
}

impl<'t, I: Iterator<Item = &'t [u8]>> Lineage<I> {
    fn new(texts: I) -> Self {
        Self {
            texts,
            ahead: 0,
            digest: Sha256::new(),
            exp_secs: u64::MAX,
            first: None,
            family: None,
            is_narrowed: false,
        }
    }

    /// Adds a caveat, and returns the child. `None` if the length overflows.
    fn descend(&mut self, restriction: &Restriction) -> Option<Child> {
        self.ahead += 1;
        self.exp_secs = self.exp_secs.min(restriction.exp_secs().unwrap_or(u64::MAX));
        let mut child = Child { id: ChildId::default(), exp_secs: self.exp_secs, family: None };
        if !restriction.limits().is_empty() {
            self.hash()?;
            child.id = child_id(&self.digest);
            if self.is_narrowed {
                let first = self.first.as_ref()?;
                child.family = Some(*self.family.get_or_insert_with(|| child_id(first).family()));
            }
        }
        self.is_narrowed = true;
        Some(child)
    }

    /// Hashes the caveats up to the current one.
    fn hash(&mut self) -> Option<()> {
        for text in self.texts.by_ref().take(std::mem::take(&mut self.ahead)) {
            self.digest.update(u64::try_from(text.len()).ok()?.to_le_bytes());
            self.digest.update(text);
            if self.first.is_none() {
                self.first = Some(self.digest.clone());
            }
        }
        Some(())
    }
}

fn child_id(digest: &Sha256) -> ChildId {
    ChildId::from_digest(&digest.clone().finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest of caveats, each with its length.
    fn digest(texts: &[&[u8]]) -> ChildId {
        let mut digest = Sha256::new();
        for text in texts {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        }
        child_id(&digest)
    }

    /// Records of limits are found by it, so it must not change.
    #[test]
    fn a_child_is_identified_by_all_caveats_up_to_the_one_that_sets_its_limits() {
        let rate = br#"{"rate":{"requests":1,"per":"1h"}}"#.as_slice();
        let quota = br#"{"exp":9,"quotas":[{"requests":1,"per":"day"}]}"#.as_slice();
        let (plain, end) = (br#"{"methods":["GET"]}"#.as_slice(), br#"{"exp":7}"#.as_slice());
        let claims = Claims::parse(br#"{"jti":"k","tenant":"t","iat":1,"exp":2}"#).unwrap();
        let children = |texts: &[&'static [u8]]| -> Vec<Child> {
            let opened = KeyRestrictions::open(&claims, texts.iter().copied()).unwrap();
            opened
                .charges()
                .filter_map(|charge| match charge.scope {
                    Scope::Child(child) => Some(child),
                    _ => None,
                })
                .collect()
        };
        let child = |texts: &[&[u8]], exp_secs| {
            let family = (texts.len() > 1).then(|| digest(&texts[..1]).family());
            Child { id: digest(texts), exp_secs, family }
        };
        assert_eq!(children(&[rate]), [child(&[rate], u64::MAX)]);
        assert_eq!(
            children(&[plain, end, rate, plain, quota]),
            [child(&[plain, end, rate], 7), child(&[plain, end, rate, plain, quota], 7)]
        );
        assert_eq!(children(&[quota, rate]), [child(&[quota], 9), child(&[quota, rate], 9)]);
        assert_eq!(children(&[plain, end]), []);
    }
}
