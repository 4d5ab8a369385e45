//! The engine: one plan, and every decision under it.

mod cache;
mod flood;
mod forged;
mod known;
mod membership;
mod reading;
mod refused_models;
mod signing_keys;
mod stages;
mod upstream;

use std::fmt;
use std::iter::once_with;
use std::net::IpAddr;
use std::rc::Rc;

use crate::access::restriction::Restriction;
use crate::access::{Access, canonical_host, exact_host};
use crate::body::mcp::ObjectKind;
use crate::config::{ClientRules, Plan, Settings, UpstreamCredential};
use crate::decision::DenyReason;
use crate::headers::RequestHead;
use crate::key::Key;
use crate::key::keyring::{Keyring, Secret, Signer};
use crate::key::revocations::Newer;
use crate::key::token::{Kid, Unverified, jwt_kid};
use crate::limits::{Charge, Origin};
use cache::VerifiedKeys;
use flood::Flood;
use forged::ForgedTokens;
pub use known::KnownKey;
use membership::Memberships;
pub use reading::{BodyRefusal, McpTarget, NOT_ON_NGINX, Reading, Reserve};
pub use refused_models::RefusedModels;
use signing_keys::SigningKeys;
pub use stages::{Question, Stage, StageResult, check_method};

/// Decides on requests under one plan. Its only state is a cache of verified keys and signing keys, newer
/// revocations, and secrets that came after the plan.
pub struct Engine {
    plan: Plan,
    memberships: Memberships,
    verified: VerifiedKeys,
    signing_keys: SigningKeys,
    newer_revocations: Newer,
    forged: ForgedTokens,
    flood: Flood,
}

/// The sender of a request.
#[derive(Debug)]
pub enum Identity {
    /// A key was verified.
    Known {
        /// The key, valid or not.
        key: Rc<KnownKey>,
        /// Whether it is valid now.
        validity: StageResult,
    },
    /// Verification failed, or the key aged out and its ring does not keep expired keys.
    Stranger(DenyReason),
}

/// A rule that an access is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRule {
    /// The tier and the tenant must be known.
    Membership,
    /// The plan's rules about client addresses.
    Address,
    /// The limit on the cost of a key's globs.
    Globs,
    /// A restriction.
    Restriction(Origin),
}

impl Engine {
    /// An engine that has seen no key yet.
    pub fn new(plan: Plan) -> Self {
        Self {
            memberships: Memberships::new(&plan.settings),
            verified: VerifiedKeys::new(&plan.keyring),
            plan,
            signing_keys: SigningKeys::default(),
            newer_revocations: Newer::None,
            forged: ForgedTokens::default(),
            flood: Flood::default(),
        }
    }

    /// The part of the plan that contains no secrets.
    pub fn settings(&self) -> &Settings {
        &self.plan.settings
    }

    /// The rings.
    pub fn keyring(&self) -> &Keyring {
        &self.plan.keyring
    }

    /// The id of the plan in audit lines.
    pub fn plan_id(&self) -> &Rc<str> {
        &self.plan.id
    }

    /// Gives a ring another secret, or none. What was verified with the earlier one is forgotten.
    pub fn set_secret(&mut self, ring: &str, secret: Option<&Secret>) {
        if self.plan.keyring.set_signer(ring, Signer::new(secret)) {
            self.verified = VerifiedKeys::new(&self.plan.keyring);
            self.signing_keys = SigningKeys::default();
            self.forged = ForgedTokens::default();
        }
    }

    /// Adds revocations that are newer than the plan's own.
    pub fn set_newer_revocations(&mut self, newer: Newer) {
        self.newer_revocations = newer;
    }

    /// Whether the proxy has seen newer revocations than the plan's own.
    pub fn is_outdated(&self) -> bool {
        self.newer_revocations != Newer::None
    }

    /// Identifies the sender of a request.
    pub fn identify_sender(&mut self, head: &RequestHead<'_>, now_secs: u64) -> Identity {
        match head.credential() {
            Ok(credential) => self.identify(credential, now_secs),
            // Headers that are not shown may still contain a key.
            Err(_) if head.is_flawed() => Identity::Stranger(DenyReason::HeaderMismatch),
            Err(DenyReason::KeyMissing) if head.line_holds_key(&|text| self.may_be_key(text)) => {
                Identity::Stranger(DenyReason::KeyInUrl)
            }
            Err(reason) => Identity::Stranger(reason),
        }
    }

    /// Identifies the holder of a credential and checks the key: signature, times, audience, revocation.
    /// Verified keys are cached, but everything that depends on the time is checked on every call.
    pub fn identify(&mut self, credential: &[u8], now_secs: u64) -> Identity {
        let key = match self.verify(credential, now_secs) {
            Ok(key) => key,
            Err(reason) => return Identity::Stranger(reason),
        };
        let validity = self.check_key(&key, now_secs);
        let too_old = matches!(validity, Err(DenyReason::KeyExpired | DenyReason::KeyRetired));
        let keeps = |ring: &crate::key::keyring::Ring| ring.keeps_expired();
        if too_old && !self.plan.keyring.ring(key.kid()).is_ok_and(keeps) {
            return Identity::Stranger(DenyReason::KeyRetired);
        }
        Identity::Known { key, validity }
    }

    /// Checks whether a key allows an access: tier, addresses, method, host, path, certificate, model, MCP
    /// call.
    ///
    /// # Errors
    ///
    /// The first reason for a refusal.
    pub fn authorize(&self, key: &KnownKey, access: &Access<'_>) -> Result<(), DenyReason> {
        self.verdicts(key, access).try_for_each(|(_, verdict)| verdict)
    }

    /// Whether an object is shown in a list: whether the key allows the call that uses it, as far as names decide.
    /// `access`: as the access of that call.
    pub fn shows(&self, key: &KnownKey, access: &Access<'_>, kind: ObjectKind, name: &str) -> bool {
        access.shows(kind, name, |access| self.authorize(key, access).is_ok())
    }

    /// Whether a request is forwarded without a key. That is for preflights, if the plan allows them, from
    /// addresses that keys may be used from, unless they contain a stray key.
    #[cold]
    pub fn allows_preflight(
        &self,
        head: &RequestHead<'_>,
        source: impl FnOnce() -> Option<IpAddr>,
    ) -> bool {
        let is_key = |text: &[u8]| self.may_be_key(text);
        self.plan.settings.allows_preflights
            && head.is_preflight()
            && self.check_address(source()).is_ok()
            && !head.line_holds_key(&is_key)
            && !head.holds_stray_key(&is_key)
    }

    /// Whether the configuration makes a request public: it is forwarded without a key. Addresses that keys may not be
    /// used from are refused here too, and so is a key where it cannot be removed.
    pub fn is_public<'a>(
        &self,
        head: &RequestHead<'_>,
        access: impl FnOnce() -> Access<'a>,
    ) -> bool {
        if self.plan.settings.public.is_empty() {
            return false;
        }
        let access = access();
        let is_key = |text: &[u8]| self.may_be_key(text);
        self.plan.settings.public.iter().any(|rule| rule.prohibits(&access).is_none())
            && !self.asks_for_usage(&access)
            && self.check_address(access.source).is_ok()
            && !head.upgrades
            && !head.line_holds_key(&is_key)
            && !head.holds_stray_key(&is_key)
    }

    /// The rules of [`Engine::authorize`] with their results; the first refusal decides.
    pub fn verdicts<'a>(
        &'a self,
        key: &'a KnownKey,
        access: &'a Access<'a>,
    ) -> impl Iterator<Item = (AccessRule, StageResult)> {
        self.evaluate(key, access, |_, restriction, access| restriction.prohibits(access))
    }

    /// Like [`Engine::verdicts`], for a request for usage. The `only` rules of tiers and tenants are about
    /// upstream requests, so they do not restrict it. Caveats do: the counts are those of the whole key,
    /// and a caveat that does not allow the path is not meant to reveal them.
    pub fn usage_verdicts<'a>(
        &'a self,
        key: &'a KnownKey,
        access: &'a Access<'a>,
    ) -> impl Iterator<Item = (AccessRule, StageResult)> {
        self.evaluate(key, access, |origin, restriction, access| match origin {
            Origin::Caveat(_) => restriction.prohibits_request(access),
            Origin::Tier | Origin::Tenant | Origin::Only => restriction.prohibits_client(access),
        })
    }

    /// The charges for one request of any key of a tier, in the key's cell.
    pub fn tier_charges(&self, tier: &str) -> &[Charge] {
        self.memberships.tier(tier).map_or(&[], |tier| &tier.charges)
    }

    /// The charges for one request of a tenant's key, in the tenant's cell.
    pub fn tenant_charges(&self, tenant: &str) -> &[Charge] {
        &self.memberships.tenant(tenant).charges
    }

    /// What the plan makes of a verified key.
    pub fn prepare(&self, key: Key) -> KnownKey {
        KnownKey::new(key, &self.plan, &self.memberships)
    }

    /// Whether a text could be a key: it begins like one, or is a JWT that names one of the rings. It need
    /// not be valid.
    pub fn may_be_key(&self, text: &[u8]) -> bool {
        match text.strip_prefix(b"vk1.") {
            Some(rest) => {
                let kid = rest.split(|byte| *byte == b'.').next();
                kid.is_some_and(|kid| Kid::parse(kid).is_ok())
            }
            None => Unverified::parse(text)
                .is_ok_and(|unverified| self.plan.keyring.ring(unverified.kid()).is_ok()),
        }
    }

    /// Whether a credential has the form of a key of this gate: it begins like one, or is a JWT that names
    /// one of the rings, even if it is truncated or invalid. No other credential can be a key.
    pub fn is_own(&self, credential: &[u8]) -> bool {
        let names_ring = |kid: Kid| self.plan.keyring.ring(&kid).is_ok();
        credential.starts_with(b"vk1.") || jwt_kid(credential).is_some_and(names_ring)
    }

    /// Whether a failure to authenticate is counted for the source of the request. Every failure is if sources are blocked;
    /// if they only raise alerts, some of a flood are.
    pub fn counts_failure(&mut self, reason: DenyReason, now_secs: u64) -> bool {
        let rules = self.plan.settings.auth_failures.filter(|_| reason.is_failed_authentication());
        rules.is_some_and(|rules| rules.block_secs > 0 || self.flood.counts_next(now_secs))
    }

    /// The provider credential that the listener's gate attaches for the host of an authority.
    pub fn credential(&self, authority: Option<&[u8]>) -> Option<&UpstreamCredential> {
        if self.plan.credentials.is_empty() {
            return None;
        }
        let host = canonical_host(authority?)?;
        self.plan.credentials.iter().find(|credential| credential.is_for(&host))
    }

    /// The names of the credentials that the upstream gate may attach to a request for an authority.
    pub fn granted<'a>(&'a self, authority: Option<&'a [u8]>) -> impl Iterator<Item = &'a str> {
        self.plan.settings.grants.iter().filter_map(move |grant| {
            let Some(hosts) = &grant.hosts else {
                return Some(grant.name.as_str());
            };
            let host = authority.and_then(exact_host)?;
            hosts.iter().any(|pattern| pattern.matches(host)).then_some(grant.name.as_str())
        })
    }

    /// Whether a credential depends on the host of this authority, but the host is not spelled in canonical
    /// form. A proxy may take such a spelling for another host.
    pub fn misspells_host(&self, authority: Option<&[u8]>) -> bool {
        let restricted = self.plan.settings.grants.iter().any(|grant| grant.hosts.is_some());
        if self.plan.credentials.is_empty() && !restricted {
            return false;
        }
        let authority = authority.unwrap_or_default();
        exact_host(authority).is_none()
            && canonical_host(authority).is_some_and(|host| {
                let grants = self.plan.settings.grants.iter().filter_map(|g| g.hosts.as_ref());
                let held = self.plan.credentials.iter().map(|credential| &credential.hosts);
                grants.chain(held).flatten().any(|pattern| pattern.matches(&host))
            })
    }

    /// Verifies a token, or finds it in the cache. Keys of rings that are not ready and epochs that cannot be
    /// valid are refused before any MAC is computed.
    fn verify(&mut self, token: &[u8], now_secs: u64) -> Result<Rc<KnownKey>, DenyReason> {
        if let Some(key) = self.verified.get(token) {
            return Ok(Rc::clone(key));
        }
        if self.forged.contains(token, now_secs) {
            return Err(DenyReason::KeySignature);
        }
        let keyring = &self.plan.keyring;
        let unverified = Unverified::parse(token).map_err(|_| DenyReason::KeyMalformed)?;
        let ring = keyring.ring(unverified.kid())?;
        ring.check_kid(unverified.kid())?;
        match keyring.check_epoch(unverified.kid(), now_secs) {
            Err(DenyReason::KeyRetired) if ring.keeps_expired() => {}
            verdict => verdict?,
        }
        let (kid, signing_key) = self.signing_keys.get(ring, unverified.kid())?;
        let key = Key::verify_by(unverified, ring, signing_key, Rc::clone(kid));
        if matches!(key, Err(DenyReason::KeySignature)) {
            self.forged.insert(token, now_secs);
        }
        let key = key?;
        let key = Rc::new(self.prepare(key));
        self.verified.insert(token, Rc::clone(&key));
        Ok(key)
    }

    fn check_key(&self, key: &KnownKey, now_secs: u64) -> Result<(), DenyReason> {
        key.check(&self.plan.keyring, now_secs)?;
        match &self.newer_revocations {
            Newer::None => Ok(()),
            Newer::List(list) if list.covers(&key.key_id()) => Err(DenyReason::KeyRevoked),
            Newer::List(_) => Ok(()),
            Newer::Unknown => Err(DenyReason::NotReady),
        }
    }

    /// The rules in order. Each is evaluated when the iterator reaches it.
    fn evaluate<'a>(
        &'a self,
        key: &'a KnownKey,
        access: &'a Access<'a>,
        prohibits: fn(Origin, &Restriction, &Access<'a>) -> Option<DenyReason>,
    ) -> impl Iterator<Item = (AccessRule, StageResult)> {
        let membership = once_with(move || (AccessRule::Membership, check_membership(key)));
        let address = once_with(|| (AccessRule::Address, self.check_address(access.source)));
        let too_dear = (AccessRule::Globs, Err(DenyReason::CaveatUnsupported));
        let globs = once_with(move || key.exceeds_glob_steps(access).then_some(too_dear)).flatten();
        let restrictions = key.restrictions().map(move |(origin, restriction)| {
            let verdict = prohibits(origin, restriction, access).map_or(Ok(()), Err);
            (AccessRule::Restriction(origin), verdict)
        });
        membership.chain(address).chain(globs).chain(restrictions)
    }

    fn check_address(&self, source: Option<IpAddr>) -> Result<(), DenyReason> {
        let ClientRules { allow, deny, .. } = &self.plan.settings.client;
        let inside =
            |cidr: &crate::access::cidr::Cidr| source.is_some_and(|source| cidr.contains(source));
        let allowed = allow.as_ref().is_none_or(|networks| networks.iter().any(inside));
        // An unknown address could be one of the denied ones.
        let denied = !deny.is_empty() && (source.is_none() || deny.iter().any(inside));
        if allowed && !denied { Ok(()) } else { Err(DenyReason::Source) }
    }
}

fn check_membership(key: &KnownKey) -> Result<(), DenyReason> {
    if key.is_member() { Ok(()) } else { Err(DenyReason::TierUnknown) }
}

// === impl AccessRule ===

impl fmt::Display for AccessRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Membership => f.write_str("membership"),
            Self::Address => f.write_str("address"),
            Self::Globs => f.write_str("globs"),
            Self::Restriction(origin) => origin.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
