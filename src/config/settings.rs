//! Settings: the part of a configuration that holds no secret.

use std::collections::BTreeMap;

use crate::access::cidr::Cidr;
use crate::access::restriction::{HostPattern, Restriction};
use crate::alerts::anomaly::Sensitivity;
use crate::alerts::failures::FailureRules;
use crate::audit::Mask;
use crate::decision::Mode;
use crate::headers::{ForeignCredentials, KeySource};
use crate::host::{Dialect, Level};
use crate::key::revocations::Revoked;
use crate::limits::Limits;
use crate::upstream_tls::PolicyRule;

/// The part of a configuration that holds no secret.
#[derive(Debug)]
pub struct Settings {
    /// What a key's `aud` must contain.
    pub audience: Option<String>,
    /// Where keys are looked for, in order.
    pub key_sources: Vec<KeySource>,
    /// What becomes of credentials beside the key that are no keys of this gate.
    pub foreign_credentials: ForeignCredentials,
    /// What the keys of a tier may do.
    pub tiers: BTreeMap<String, Tier>,
    /// What the keys of a tenant may do.
    pub tenants: BTreeMap<String, Tenant>,
    /// Whether keys of tenants that are not listed are good.
    pub unlisted_tenants: UnlistedTenants,
    /// What was revoked.
    pub revoked: Revoked,
    /// Whether the upstream is told who calls.
    pub identity_headers: bool,
    /// The provider credentials that requests may have, which the gates of clusters hold.
    pub grants: Box<[Grant]>,
    /// Rules about client addresses.
    pub client: ClientRules,
    /// When failed authentications of a source are reported, where they are.
    pub auth_failures: Option<FailureRules>,
    /// How much about the use of a key has to be unusual to be reported, where it is.
    pub sensitivity: Option<Sensitivity>,
    /// What is added to the upstream-TLS policy.
    pub upstream_tls: UpstreamTls,
    /// The path of the usage answer, in canonical form.
    pub usage_path: String,
    /// How audit lines are written.
    pub audit: AuditSettings,
    /// Whether preflights go on, which have no key.
    pub passes_preflights: bool,
    /// Whether CONNECT and upgrades go on.
    pub upgrades: bool,
    /// The host's rules for shared data.
    pub dialect: Dialect,
    /// Whether denials of access and limits are enforced.
    pub mode: Mode,
}

/// A provider credential that requests may have. The gate of a cluster holds it, and attaches it to what
/// goes to the credential's own hosts.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The name of the credential.
    pub name: String,
    /// The hosts that a client has to name to have it; any where absent.
    pub hosts: Option<Box<[HostPattern]>>,
}

/// What the keys of a tier may do.
#[derive(Clone, Debug, Default)]
pub struct Tier {
    /// What each key is limited to.
    pub only: Restriction,
    /// How much each key may use.
    pub limits: Limits,
    /// Whether an escaped slash in a path is a character of its segment.
    pub keeps_escaped_slashes: bool,
    /// Whether a key may ask for the usage of others.
    pub usage_of_others: bool,
}

/// What the keys of a tenant may do.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    /// What each key is limited to.
    pub only: Restriction,
    /// How much all keys together may use.
    pub limits: Limits,
}

/// Whether keys of tenants that are not listed are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlistedTenants {
    /// They are good.
    Allow,
    /// They are refused.
    Deny,
}

/// Rules about client addresses that hold for every key.
#[derive(Clone, Debug, Default)]
pub struct ClientRules {
    /// How many entries of `x-forwarded-for`, from its end, were written by proxies that are
    /// trusted; the client is the first of them. 0: the header counts for nothing.
    pub trusted_hops: u64,
    /// The networks clients may come from; all where absent.
    pub allow: Option<Box<[Cidr]>>,
    /// The networks clients may not come from.
    pub deny: Box<[Cidr]>,
}

/// How audit lines are written.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Where they go.
    pub sink: Sink,
    /// The level in the proxy's log.
    pub level: Level,
    /// What they do not show.
    pub mask: Mask,
}

/// Where audit lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Filter state, from where the proxy's access loggers print them.
    AccessLog,
    /// The proxy's own log.
    Log,
}

/// What a configuration adds to the policy that is compiled in.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Whether every cluster has to carry the policy's stamp.
    pub require_stamp: bool,
    /// Whether a cluster for hosts that the policy verifies has to have a gate.
    pub require_gate: bool,
    /// Further rules, which only tighten.
    pub tighten: Box<[PolicyRule]>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { require_stamp: false, require_gate: true, tighten: Box::default() }
    }
}

// === impl Settings ===

impl Settings {
    /// Whether there is such a tier. The tier `default` exists without being listed, and limits
    /// nothing.
    pub fn has_tier(&self, name: &str) -> bool {
        self.tiers.contains_key(name) || name == crate::key::claims::DEFAULT_TIER
    }

    /// Whether an escaped slash in a path is a character of its segment for the keys of a tier.
    pub fn keeps_escaped_slashes(&self, tier: &str) -> bool {
        self.tiers.get(tier).is_some_and(|tier| tier.keeps_escaped_slashes)
    }
}
