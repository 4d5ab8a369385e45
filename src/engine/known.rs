//! A verified key, with everything that a plan makes of it and that does not depend on a request.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use crate::access::Access;
use crate::access::restriction::{ArgumentNeeds, Restriction};
use crate::audit::AuditRecord;
use crate::body::Declared;
use crate::body::json::{Limits, Unreadable};
use crate::body::mcp::{self, MessageReader};
use crate::config::Plan;
use crate::decision::DenyReason;
use crate::glob::Globs;
use crate::key::claims::Claims;
use crate::key::keyring::{Keyring, RingState};
use crate::key::revocations::KeyId;
use crate::key::token::Kid;
use crate::key::{Key, KeyParts, KeyRestrictions};
use crate::limits::cell::key_name;
use crate::limits::{Charge, Measured, Origin};
use crate::record::Name;

use super::StageResult;
use super::membership::{Memberships, TenantRules, TierRules};

/// A verified key under one plan. A worker remembers a hundred thousand of them, so it is small: what keys have in common
/// is shared, and its tenant and its id are parts of the name of its cell.
#[derive(Debug)]
pub struct KnownKey {
    cell_name: Name,
    /// The `sub`, followed by its value as a header if that differs.
    sub: Option<Box<str>>,
    /// Its members of an audit record.
    members: Box<str>,
    kid: Rc<Kid>,
    tier: Rc<TierRules>,
    tenant: Rc<TenantRules>,
    /// What most keys do not have: restrictions of their own.
    own: Option<Box<OwnRules>>,
    iat_secs: u64,
    /// The first second at which the claims are valid, the clock skew included.
    start_secs: u64,
    /// The first second at which the claims are no longer valid.
    exp_secs: u64,
    /// Times at which nothing about the key depends on the time: [`KnownKey::standing`] is its validity.
    steady_secs: Range<u64>,
    /// The validity of the key apart from the time and newer revocations.
    standing: StageResult,
    caveats_len: u8,
    tenant_bytes: u8,
    jti_bytes: u8,
    sub_bytes: u16,
    needs_client_cert: bool,
    restricts_target: bool,
    restricts_models: bool,
    restricts_mcp: bool,
    measured: Measured,
    has_budgets: bool,
}

/// The restrictions of a key, and all of its charges.
#[derive(Debug)]
struct OwnRules {
    restrictions: KeyRestrictions,
    charges: Box<[Charge]>,
}

impl KnownKey {
    /// What a plan makes of a verified key.
    pub(super) fn new(key: Key, plan: &Plan, memberships: &Memberships) -> Self {
        let KeyParts { kid, claims, caveats_len, restrictions } = key.into_parts();
        let start_secs = claims.iat.saturating_sub(plan.keyring.clock_skew_secs());
        let start_secs = start_secs.max(claims.nbf.unwrap_or(0));
        let tier = memberships.tier(claims.tier()).map(Rc::clone);
        let tier = tier.unwrap_or_else(|| Rc::new(TierRules::unlisted(claims.tier())));
        let standing = standing(plan, &kid, &claims, restrictions.is_some());
        let own = restrictions.filter(|restrictions| !restrictions.is_empty());
        let mut key = Self {
            cell_name: key_name(&claims.tenant, &claims.jti),
            sub: claims.sub.as_deref().map(with_header_text),
            members: Box::default(),
            tenant: Rc::clone(memberships.tenant(&claims.tenant)),
            own: own.map(|restrictions| Box::new(OwnRules::new(restrictions, &tier))),
            kid,
            tier,
            iat_secs: claims.iat,
            start_secs,
            exp_secs: claims.exp,
            steady_secs: 0..0,
            standing,
            // The format limits all of these.
            caveats_len: u8::try_from(caveats_len).unwrap_or(u8::MAX),
            tenant_bytes: u8::try_from(claims.tenant.len()).unwrap_or(u8::MAX),
            jti_bytes: u8::try_from(claims.jti.len()).unwrap_or(u8::MAX),
            sub_bytes: claims.sub.map_or(0, |sub| u16::try_from(sub.len()).unwrap_or(u16::MAX)),
            needs_client_cert: false,
            restricts_target: false,
            restricts_models: false,
            restricts_mcp: false,
            measured: Measured::default(),
            has_budgets: false,
        };
        key.needs_client_cert = key.any_restriction(Restriction::needs_client_cert);
        key.restricts_target = key.any_restriction(Restriction::restricts_target);
        key.restricts_models = key.any_restriction(Restriction::restricts_models);
        key.restricts_mcp = key.any_restriction(Restriction::restricts_mcp);
        if key.argument_needs().is_excessive() {
            key.standing = Err(DenyReason::CaveatUnsupported);
        }
        let [own, of_tenant] = [key.charges(), key.tenant_charges()].map(Measured::of);
        key.measured = own.or(of_tenant);
        let mut charges = key.charges().iter().chain(key.tenant_charges());
        key.has_budgets = charges.any(|charge| charge.shared_quota().is_some());
        key.steady_secs = key.steady_secs(&plan.keyring);
        key.members = key.record().key_members(&plan.settings.audit.mask).into();
        key
    }

    /// The id: what is counted, revoked and audited.
    pub fn jti(&self) -> &str {
        let name = self.cell_name.as_str();
        name.len().checked_sub(self.jti_bytes.into()).and_then(|at| name.get(at..)).unwrap_or("")
    }

    /// The tenant.
    pub fn tenant(&self) -> &str {
        let name = self.cell_name.as_str();
        // A `/` is between the two.
        let end = name.len().checked_sub(usize::from(self.jti_bytes) + 1);
        let start = end.and_then(|end| end.checked_sub(self.tenant_bytes.into()));
        start.zip(end).and_then(|(start, end)| name.get(start..end)).unwrap_or("")
    }

    /// The app, user or agent that the key was given to.
    pub fn sub(&self) -> Option<&str> {
        self.sub.as_deref()?.get(..self.sub_bytes.into())
    }

    /// The `sub` as the value of a header. `%` and everything but visible ASCII is percent-encoded (RFC 3986, section
    /// 2.1), so no value can end the header or be confused with another.
    pub fn sub_header(&self) -> Option<&str> {
        let text = self.sub.as_deref()?;
        let encoded = text.get(self.sub_bytes.into()..).filter(|encoded| !encoded.is_empty());
        Some(encoded.unwrap_or(text))
    }

    /// The name of its tier.
    pub fn tier(&self) -> &str {
        &self.tier.name
    }

    /// The kid of the signing key.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The number of caveats.
    pub fn caveats_len(&self) -> u8 {
        self.caveats_len
    }

    /// What an audit record says of it.
    pub fn record(&self) -> AuditRecord<'_> {
        AuditRecord {
            kid: Some(Cow::Borrowed(self.kid.as_str())),
            jti: Some(Cow::Borrowed(self.jti())),
            tenant: Some(Cow::Borrowed(self.tenant())),
            sub: self.sub().map(Cow::Borrowed),
            tier: Some(Cow::Borrowed(self.tier())),
            caveats: Some(self.caveats_len.into()),
            ..AuditRecord::default()
        }
    }

    /// The same in its final bytes: see [`AuditRecord::key_members`].
    pub fn members(&self) -> &str {
        &self.members
    }

    /// The name of its cell.
    pub fn cell_name(&self) -> &Name {
        &self.cell_name
    }

    /// The name of its tenant's cell; `None` for a tenant without limits, which has none.
    pub fn tenant_cell_name(&self) -> Option<&Name> {
        self.tenant.cell_name.as_ref()
    }

    /// The charges for one request, in the key's cell.
    pub fn charges(&self) -> &[Charge] {
        self.own.as_ref().map_or(&self.tier.charges, |own| &own.charges)
    }

    /// The charges for one request, in the tenant's cell.
    pub fn tenant_charges(&self) -> &[Charge] {
        &self.tenant.charges
    }

    /// Everything that restricts it: its tier, its tenant, its claims, its caveats. If one of its own is not understood,
    /// none of its own; it is then never valid.
    pub fn restrictions(&self) -> impl Iterator<Item = (Origin, &Restriction)> {
        let tier = self.tier.only.as_ref().map(|only| (Origin::Tier, only));
        let tenant = self.tenant.only.as_ref().map(|only| (Origin::Tenant, only));
        tier.into_iter().chain(tenant).chain(self.own_restrictions())
    }

    /// Whether its globs take too many steps for an access: see [`KeyRestrictions::exceeds_glob_steps`].
    pub fn exceeds_glob_steps(&self, access: &Access<'_>) -> bool {
        self.own.as_ref().is_some_and(|own| own.restrictions.exceeds_glob_steps(access))
    }

    /// The first second at which it is no longer valid, by its claims and its caveats.
    pub fn exp_secs(&self) -> u64 {
        let restricted = self.own_restrictions().filter_map(|(_, only)| only.exp_secs());
        restricted.fold(self.exp_secs, u64::min)
    }

    /// Whether its tier exists and its tenant is accepted.
    pub fn is_member(&self) -> bool {
        self.tier.exists && self.tenant.is_accepted
    }

    /// Whether it may request the usage of others.
    pub fn sees_others(&self) -> bool {
        self.tier.sees_others
    }

    /// Whether an escaped slash in a path is part of its segment, instead of ambiguous.
    pub fn keeps_escaped_slashes(&self) -> bool {
        self.tier.keeps_escaped_slashes
    }

    /// Whether the client certificate is needed to decide on it.
    pub fn needs_client_cert(&self) -> bool {
        self.needs_client_cert
    }

    /// Whether a rule restricts the method, path or host of its requests.
    pub fn restricts_target(&self) -> bool {
        self.restricts_target
    }

    /// Whether the models that a request names decide on it.
    pub fn restricts_models(&self) -> bool {
        self.restricts_models
    }

    /// Whether a rule restricts its MCP calls.
    pub fn restricts_mcp(&self) -> bool {
        self.restricts_mcp
    }

    /// What its restrictions need to know of the arguments of an MCP call.
    pub fn argument_needs(&self) -> ArgumentNeeds {
        let mut needs = ArgumentNeeds::default();
        if self.restricts_mcp {
            self.restrictions().for_each(|(_, restriction)| restriction.add_needs(&mut needs));
        }
        needs
    }

    /// The reader of a message of MCP that is sent with it. It looks for what its restrictions need of the arguments.
    ///
    /// # Errors
    ///
    /// As [`MessageReader::new`].
    pub fn message_reader(
        &self,
        declared: Declared,
        limits: Limits,
    ) -> Result<MessageReader, Unreadable> {
        let needs = self.argument_needs();
        // A key that wants more than can be found was refused. Without what it wants, its conditions do not hold.
        let wanted = mcp::Wanted::new(&needs.pointers, needs.names).unwrap_or_default();
        MessageReader::new(wanted, declared, limits)
    }

    /// What of its requests is limited, besides their number.
    pub fn measured(&self) -> Measured {
        self.measured
    }

    /// Whether proxies share one of its quotas or of its tenant's.
    pub fn has_budgets(&self) -> bool {
        self.has_budgets
    }

    /// Whether the body of a request may decide on it.
    pub fn depends_on_bodies(&self) -> bool {
        self.restricts_models || self.restricts_mcp || self.measured.any()
    }

    /// Checks the MCP servers that a request tells the provider to call: the provider calls them past this gate, so a
    /// key whose MCP calls are restricted may only name servers that the configuration allows (`llm.hosted_mcp`).
    ///
    /// # Errors
    ///
    /// [`DenyReason::McpCall`] if one of them is not allowed.
    pub fn check_hosted_mcp(&self, servers: &[Box<str>], allowed: &Globs) -> StageResult {
        if !self.restricts_mcp || servers.iter().all(|server| allowed.matches(server)) {
            Ok(())
        } else {
            Err(DenyReason::McpCall)
        }
    }

    /// Approximate memory, in bytes, without what is shared.
    pub(super) fn footprint(&self) -> usize {
        let sub = self.sub.as_ref().map_or(0, |sub| allocated(sub.len()));
        let own = self.own.as_ref().map_or(0, |own| own.footprint());
        // Keys of tiers that do not exist share none.
        let unshared = || allocated(size_of::<TierRules>()) + allocated(self.tier.name.len());
        let tier = if self.tier.exists { 0 } else { unshared() };
        let counts = 2 * size_of::<usize>();
        let texts = allocated(self.cell_name.as_str().len()) + allocated(self.members.len());
        allocated(counts + size_of::<Self>()) + texts + sub + own + tier
    }

    /// What a revocation names it by.
    pub(super) fn key_id(&self) -> KeyId<'_> {
        KeyId { tenant: self.tenant(), jti: self.jti(), iat: self.iat_secs }
    }

    /// Checks everything but newer revocations: the epoch, that all caveats are supported, the times of claims and
    /// caveats, the state of the ring, the audience and the plan's revocations.
    ///
    /// # Errors
    ///
    /// The reason why the key is not valid.
    pub(super) fn check(&self, keyring: &Keyring, now_secs: u64) -> StageResult {
        if self.steady_secs.contains(&now_secs) {
            return self.standing;
        }
        // First, as for a key that is not remembered: the reason must not depend on that.
        keyring.check_epoch(&self.kid, now_secs)?;
        if self.standing == Err(DenyReason::CaveatUnsupported) {
            return self.standing;
        }
        // `[start, exp)` is half-open.
        if now_secs < self.start_secs {
            return Err(DenyReason::KeyNotYetValid);
        }
        if now_secs >= self.exp_secs {
            return Err(DenyReason::KeyExpired);
        }
        let mut own = self.own_restrictions();
        own.find_map(|(_, only)| only.prohibits_time(now_secs)).map_or(self.standing, Err)
    }

    fn own_restrictions(&self) -> impl Iterator<Item = (Origin, &Restriction)> {
        self.own.iter().flat_map(|own| own.restrictions.iter())
    }

    fn any_restriction(&self, is_such: fn(&Restriction) -> bool) -> bool {
        self.restrictions().any(|(_, restriction)| is_such(restriction))
    }

    /// Times at which the epoch, the claims and all caveats are valid. Empty if alternatives depend on the time: these
    /// times may have gaps.
    fn steady_secs(&self, keyring: &Keyring) -> Range<u64> {
        let epoch = keyring.epoch_span(&self.kid);
        let mut steady = epoch.start.max(self.start_secs)..epoch.end.min(self.exp_secs);
        for (_, only) in self.own_restrictions() {
            let mut alternatives = only.alternatives().iter();
            if alternatives.any(|other| other.nbf_secs().is_some() || other.exp_secs().is_some()) {
                return 0..0;
            }
            steady.start = steady.start.max(only.nbf_secs().unwrap_or(0));
            steady.end = steady.end.min(only.exp_secs().unwrap_or(u64::MAX));
        }
        steady
    }
}

impl OwnRules {
    fn new(restrictions: KeyRestrictions, tier: &TierRules) -> Self {
        let charges = tier.charges.iter().copied().chain(restrictions.charges()).collect();
        Self { restrictions, charges }
    }

    fn footprint(&self) -> usize {
        allocated(size_of::<Self>())
            + self.restrictions.footprint()
            + allocated(size_of_val(&*self.charges))
    }
}

/// What an allocation takes in the module: its allocator (dlmalloc, on 32 bits) adds 4 bytes and rounds up to 8, at
/// least 16.
pub(super) fn allocated(bytes: usize) -> usize {
    bytes.saturating_add(4).next_multiple_of(8).max(16)
}

/// The validity of a key apart from the time: that all restrictions are understood, the state of the ring, the audience
/// and the plan's revocations.
fn standing(plan: &Plan, kid: &Kid, claims: &Claims, is_supported: bool) -> StageResult {
    if !is_supported {
        return Err(DenyReason::CaveatUnsupported);
    }
    match plan.keyring.ring(kid)?.state() {
        RingState::Revoked => return Err(DenyReason::KeyRevoked),
        RingState::Active | RingState::Retiring => {}
    }
    if let Some(audience) = &plan.settings.audience
        && !claims.aud.as_ref().is_some_and(|aud| aud.contains(audience))
    {
        return Err(DenyReason::KeyAudience);
    }
    let is_revoked = plan.settings.revoked.covers(&claims.key_id());
    if is_revoked { Err(DenyReason::KeyRevoked) } else { Ok(()) }
}

/// A text, followed by its percent-encoded form if that differs.
fn with_header_text(text: &str) -> Box<str> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    let mut both = text.to_owned();
    if text.bytes().all(plain) {
        return both.into();
    }
    for byte in text.bytes() {
        if plain(byte) {
            both.push(char::from(byte));
        } else {
            both.push_str(&format!("%{byte:02X}"));
        }
    }
    both.into()
}

#[cfg(test)]
mod tests;
