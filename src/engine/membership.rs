//! The tiers and tenants of a plan, with what each of their keys needs of them.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::access::restriction::Restriction;
use crate::config::{Settings, Tenant, Tier, UnlistedTenants};
use crate::key::claims::DEFAULT_TIER;
use crate::limits::cell::tenant_name;
use crate::limits::{Charge, Origin, Scope};
use crate::record::Name;

/// What a plan says of the keys of a tier.
#[derive(Debug, Default)]
pub(super) struct TierRules {
    /// The name of the tier.
    pub(super) name: Box<str>,
    /// Whether there is such a tier.
    pub(super) exists: bool,
    /// What restricts each key, if the configuration lists the tier.
    pub(super) only: Option<Restriction>,
    /// The charges for one request, in the key's cell.
    pub(super) charges: Box<[Charge]>,
    /// Whether an escaped slash in a path is part of its segment, instead of ambiguous.
    pub(super) keeps_escaped_slashes: bool,
    /// Whether a key may request the usage of others.
    pub(super) sees_others: bool,
}

/// What a plan says of the keys of a tenant.
#[derive(Debug, Default)]
pub(super) struct TenantRules {
    /// The name of the tenant's cell; `None` without limits.
    pub(super) cell_name: Option<Name>,
    /// Whether its keys are accepted.
    pub(super) is_accepted: bool,
    /// What restricts each key, if the configuration lists the tenant.
    pub(super) only: Option<Restriction>,
    /// The charges for one request, in the tenant's cell.
    pub(super) charges: Box<[Charge]>,
}

/// The tiers and tenants of a plan. Keys share them.
pub(super) struct Memberships {
    tiers: BTreeMap<Box<str>, Rc<TierRules>>,
    tenants: BTreeMap<Box<str>, Rc<TenantRules>>,
    /// The rules of all other tenants.
    unlisted: Rc<TenantRules>,
}

impl Memberships {
    /// Those of a configuration. The tier `default` always exists.
    pub(super) fn new(settings: &Settings) -> Self {
        let default = TierRules { exists: true, ..TierRules::unlisted(DEFAULT_TIER) };
        // One by one: collecting sorts them first, which takes kilobytes of code.
        let (mut tiers, mut tenants) = (BTreeMap::new(), BTreeMap::new());
        tiers.insert(DEFAULT_TIER.into(), Rc::new(default));
        for (name, tier) in &settings.tiers {
            tiers.insert(name.as_str().into(), Rc::new(TierRules::listed(name, tier)));
        }
        for (name, tenant) in &settings.tenants {
            tenants.insert(name.as_str().into(), Rc::new(TenantRules::listed(name, tenant)));
        }
        let is_accepted = settings.unlisted_tenants == UnlistedTenants::Allow;
        let unlisted = Rc::new(TenantRules { is_accepted, ..TenantRules::default() });
        Self { tiers, tenants, unlisted }
    }

    /// The rules of a tier, if it exists.
    pub(super) fn tier(&self, name: &str) -> Option<&Rc<TierRules>> {
        self.tiers.get(name)
    }

    /// The rules of a tenant.
    pub(super) fn tenant(&self, name: &str) -> &Rc<TenantRules> {
        self.tenants.get(name).unwrap_or(&self.unlisted)
    }
}

impl TierRules {
    /// A tier without rules.
    pub(super) fn unlisted(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    fn listed(name: &str, tier: &Tier) -> Self {
        Self {
            name: name.into(),
            exists: true,
            only: Some(tier.only.clone()),
            charges: tier.limits.charges(Origin::Tier, Scope::Tier).collect(),
            keeps_escaped_slashes: tier.keeps_escaped_slashes,
            sees_others: tier.usage_of_others,
        }
    }
}

impl TenantRules {
    fn listed(name: &str, tenant: &Tenant) -> Self {
        Self {
            cell_name: (!tenant.limits.is_empty()).then(|| tenant_name(name)),
            is_accepted: true,
            only: Some(tenant.only.clone()),
            charges: tenant.limits.charges(Origin::Tenant, Scope::Tenant).collect(),
        }
    }
}
