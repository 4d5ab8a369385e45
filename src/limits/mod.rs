//! Limits: a rate and quotas that a tier, a tenant, a key or a caveat sets.

pub mod allowance;
pub mod cell;
pub mod gcra;
pub mod lease;
mod money;
pub mod price;
pub mod quota;
pub mod sessions;
pub mod tally;

use std::fmt;
use std::num::NonZeroU64;

use crate::decision::DenyReason;
use crate::json::decimal::push_decimal;
use crate::json::{Invalid, Members, Node};
use crate::limits::gcra::Rate;
use crate::limits::quota::{Period, Quota, Unit};

/// Where a restriction comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The key's tier.
    Tier,
    /// The key's tenant.
    Tenant,
    /// `only` of the key's claims.
    Only,
    /// A caveat, counted from 1.
    Caveat(usize),
}

/// Bytes of a [`ChildId`].
pub const CHILD_ID_BYTES: usize = 16;

/// The limits that one origin sets; none by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    rate: Option<Rate>,
    quotas: Box<[Quota]>,
}

/// A single limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A rate: requests over time.
    Rate(Rate),
    /// A quota: an amount per window.
    Quota(Quota),
}

/// What identifies a limit within its scope. The numbers are not part of it: use stays recorded
/// when a configuration changes the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The rate.
    Rate,
    /// The quota of this unit and period.
    Quota(Unit, Period),
}

/// Whose use a limit counts, within one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The key's, by its tier.
    Tier,
    /// The key's, by its claims.
    Only,
    /// The tenant's.
    Tenant,
    /// All keys attenuated from the key with the same caveats.
    Child(Child),
}

/// The keys attenuated from a key with the same caveats, up to the one that sets a limit. It stays
/// the same if the key is minted again under another kid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// A digest of these caveats.
    pub id: ChildId,
    /// The first Unix second from which the caveats allow nothing; [`u64::MAX`] if they set no end.
    pub exp_secs: u64,
    /// The family, if there is more than one caveat: all children with the same first caveat.
    pub family: Option<FamilyId>,
}

/// The first [`CHILD_ID_BYTES`] bytes of a SHA-256 over the caveats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildId(pub [u8; CHILD_ID_BYTES]);

/// All children of a key with the same first caveat. Only the holder of the key itself can start a
/// family; the holder of a narrowed key cannot leave the family it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyId(NonZeroU64);

/// A limit that a request is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Who set the limit.
    pub origin: Origin,
    /// Whose use it counts.
    pub scope: Scope,
    /// The limit.
    pub limit: Limit,
}

/// What a request reserves or uses, besides being one request. A quota of which it has 0 is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Tokens.
    pub tokens: u64,
    /// Money, in micro-USD.
    pub cost_micro_usd: u64,
}

/// Whether some limits count more than requests, so that they need the bodies of request and response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// There is a quota of tokens.
    pub tokens: bool,
    /// There is a quota of money.
    pub cost: bool,
}

/// The name of a limit, e.g. `tier_rate` or `caveat_2_requests_day`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LimitName {
    /// Who set the limit; `Caveat(0)` is any caveat.
    pub origin: Origin,
    /// Which of the origin's limits it is.
    pub kind: Kind,
}

// === impl Limits ===

impl Limits {
    /// The members of an object that set limits.
    pub const MEMBERS: [&'static str; 2] = ["rate", "quotas"];

    /// Reads the two members; an absent one sets no limit.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a member of the wrong type, an empty list of quotas, or two quotas with the
    /// same unit and period.
    pub fn read(members: &Members<'_>) -> Result<Self, Invalid> {
        Self::read_with(members, Quota::read)
    }

    /// As [`Limits::read`], in a configuration, where proxies may share quotas.
    ///
    /// # Errors
    ///
    /// As [`Limits::read`].
    pub fn read_shareable(members: &Members<'_>) -> Result<Self, Invalid> {
        Self::read_with(members, Quota::read_shareable)
    }

    fn read_with(
        members: &Members<'_>,
        read: fn(&Node<'_>) -> Result<Quota, Invalid>,
    ) -> Result<Self, Invalid> {
        let quotas = members.read("quotas", |node| {
            let quotas = node.list(read)?;
            let twice = quotas.iter().enumerate().any(|(index, quota)| {
                let same = |other: &Quota| (other.unit, other.per) == (quota.unit, quota.per);
                quotas.iter().skip(index + 1).any(same)
            });
            match twice {
                // An empty list would limit nothing, which nobody who writes one means.
                _ if quotas.is_empty() => Err(node.expected("at least one quota")),
                true => Err(node.unusable("two quotas of one unit and period; keep one")),
                false => Ok(quotas),
            }
        });
        Ok(Self { rate: members.read("rate", Rate::read)?, quotas: quotas?.unwrap_or_default() })
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.rate.is_none() && self.quotas.is_empty()
    }

    /// Each limit.
    pub fn iter(&self) -> impl Iterator<Item = Limit> {
        let quotas = self.quotas.iter().copied().map(Limit::Quota);
        self.rate.map(Limit::Rate).into_iter().chain(quotas)
    }

    /// Whether proxies share one of its quotas.
    pub fn is_shared(&self) -> bool {
        self.quotas.iter().any(Quota::is_shared)
    }

    /// What is measured for them.
    pub fn measured(&self) -> Measured {
        self.iter().fold(Measured::default(), Measured::with)
    }

    /// Approximate heap memory of the limits, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        size_of_val(&*self.quotas)
    }

    /// The charges of one request.
    pub fn charges(&self, origin: Origin, scope: Scope) -> impl Iterator<Item = Charge> {
        self.iter().map(move |limit| Charge { origin, scope, limit })
    }
}

// === impl Limit ===

impl Limit {
    /// What identifies the limit within its scope.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Rate(_) => Kind::Rate,
            Self::Quota(quota) => Kind::Quota(quota.unit, quota.per),
        }
    }
}

// === impl Amounts ===

impl Amounts {
    /// The amount in a unit.
    pub fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => 1,
            Unit::Tokens => self.tokens,
            Unit::CostMicroUsd => self.cost_micro_usd,
        }
    }
}

// === impl Measured ===

impl Measured {
    /// What is measured for charges.
    pub fn of(charges: &[Charge]) -> Self {
        charges.iter().map(|charge| charge.limit).fold(Self::default(), Self::with)
    }

    /// Whether anything is measured.
    pub fn any(self) -> bool {
        self.tokens || self.cost
    }

    /// What is measured here or there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { tokens: self.tokens || other.tokens, cost: self.cost || other.cost }
    }

    fn with(self, limit: Limit) -> Self {
        match limit.kind() {
            Kind::Rate | Kind::Quota(Unit::Requests, _) => self,
            Kind::Quota(Unit::Tokens, _) => Self { tokens: true, ..self },
            Kind::Quota(Unit::CostMicroUsd, _) => Self { cost: true, ..self },
        }
    }
}

// === impl ChildId ===

impl ChildId {
    /// Truncates a SHA-256. What is left is long enough to resist collisions.
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        Self(digest.first_chunk().copied().unwrap_or_default())
    }

    /// The family of the child with only the first caveat.
    pub fn family(self) -> FamilyId {
        FamilyId::from_bits(self.0.first_chunk().copied().map_or(0, u64::from_le_bytes))
    }
}

// === impl FamilyId ===

impl FamilyId {
    /// The family of a number. The lowest bit is always set, so no family is 0.
    pub fn from_bits(bits: u64) -> Self {
        Self(NonZeroU64::MIN | bits)
    }

    /// The number.
    pub fn bits(self) -> u64 {
        self.0.get()
    }
}

// === impl Charge ===

impl Charge {
    /// The name of the limit.
    pub fn name(&self) -> LimitName {
        LimitName { origin: self.origin, kind: self.limit.kind() }
    }

    /// Whether a request with these amounts uses any of the limit.
    fn takes(&self, amounts: &Amounts) -> bool {
        match self.limit.kind() {
            Kind::Rate => true,
            Kind::Quota(unit, _) => amounts.of(unit) > 0,
        }
    }

    /// Whether a request with these amounts reserves more tokens or money than the limit ever has.
    pub fn never_admits(&self, amounts: &Amounts) -> bool {
        matches!(
            self.limit,
            Limit::Quota(quota) if quota.unit != Unit::Requests && amounts.of(quota.unit) > quota.limit
        )
    }

    /// The quota, if proxies share it.
    pub fn shared_quota(&self) -> Option<&Quota> {
        match &self.limit {
            Limit::Quota(quota) if quota.is_shared() => Some(quota),
            Limit::Quota(_) | Limit::Rate(_) => None,
        }
    }

    /// The deny reason if the limit has no room for the request.
    pub fn reason(&self) -> DenyReason {
        match (self.origin, self.limit) {
            (Origin::Tier | Origin::Only, Limit::Rate(_)) => DenyReason::Rate,
            (Origin::Tier | Origin::Only, Limit::Quota(_)) => DenyReason::Quota,
            (Origin::Tenant, Limit::Rate(_)) => DenyReason::TenantRate,
            (Origin::Tenant, Limit::Quota(_)) => DenyReason::TenantQuota,
            (Origin::Caveat(_), Limit::Rate(_)) => DenyReason::ChildRate,
            (Origin::Caveat(_), Limit::Quota(_)) => DenyReason::ChildQuota,
        }
    }
}

// === names ===

impl LimitName {
    /// Appends the name. Formatting it takes several times as long.
    pub(crate) fn push_to(&self, text: &mut String) {
        text.push_str(match self.origin {
            Origin::Tier => "tier_",
            Origin::Tenant => "tenant_",
            Origin::Only => "only_",
            Origin::Caveat(_) => "caveat_",
        });
        if let Origin::Caveat(number @ 1..) = self.origin {
            push_decimal(text, u64::try_from(number).unwrap_or(u64::MAX));
            text.push('_');
        }
        match self.kind {
            Kind::Rate => text.push_str("rate"),
            Kind::Quota(unit, per) => {
                text.push_str(unit.name());
                text.push('_');
                text.push_str(per.name());
            }
        }
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.push_to(&mut text);
        f.write_str(&text)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tier => f.write_str("tier"),
            Self::Tenant => f.write_str("tenant"),
            Self::Only => f.write_str("only"),
            Self::Caveat(number) => write!(f, "caveat {number}"),
        }
    }
}
