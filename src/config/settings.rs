//! Settings: the part of a configuration that contains no secrets.

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
use crate::limits::allowance::LimitHeaders;
use crate::upstream_tls::PolicyRule;

use super::llm::{BodySettings, LlmSettings};
use super::mcp::McpSettings;
use super::template::Variable;

/// The part of a configuration that contains no secrets.
#[derive(Debug)]
pub struct Settings {
    /// The audience that a key's `aud` must contain.
    pub audience: Option<String>,
    /// The headers that are searched for keys, in order.
    pub key_sources: Vec<KeySource>,
    /// What happens to other credentials than keys of this gate.
    pub foreign_credentials: ForeignCredentials,
    /// Rules for the keys of a tier.
    pub tiers: BTreeMap<String, Tier>,
    /// Rules for the keys of a tenant.
    pub tenants: BTreeMap<String, Tenant>,
    /// Whether keys of unlisted tenants are accepted.
    pub unlisted_tenants: UnlistedTenants,
    /// Revoked keys and tenants.
    pub revoked: Revoked,
    /// Whether forwarded requests get headers that identify the caller.
    pub identity_headers: bool,
    /// The provider credentials that upstream gates may attach to requests.
    pub grants: Box<[Grant]>,
    /// How limits are shown, and which others there are.
    pub limits: LimitSettings,
    /// Rules about client addresses.
    pub client: ClientRules,
    /// When failed authentications of a source are reported, if they are.
    pub auth_failures: Option<FailureRules>,
    /// How unusual the use of a key must be to be reported, if it is.
    pub sensitivity: Option<Sensitivity>,
    /// How much of a body is read.
    pub body: BodySettings,
    /// How AI requests are recognised, read and priced.
    pub llm: LlmSettings,
    /// Which requests are messages of MCP, and how they are refused.
    pub mcp: McpSettings,
    /// Rules that tighten the upstream-TLS policy.
    pub upstream_tls: UpstreamTls,
    /// The path of the usage reply, in canonical form.
    pub usage_path: String,
    /// The path of the readiness reply, in canonical form.
    pub ready_path: String,
    /// Which requests need no key: those for which one of these holds.
    pub public: Box<[Restriction]>,
    /// How audit lines are written.
    pub audit: AuditSettings,
    /// Whether preflights, which have no key, are forwarded.
    pub allows_preflights: bool,
    /// Whether CONNECT and upgrades are forwarded.
    pub upgrades: bool,
    /// The host's rules for shared data.
    pub dialect: Dialect,
    /// Whether denials of access and limits are enforced.
    pub mode: Mode,
}

/// A provider credential that requests may get. The upstream gate holds it, and attaches it to requests for
/// the credential's own hosts.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The name of the credential.
    pub name: String,
    /// The hosts that a request must be for; any if absent.
    pub hosts: Option<Box<[HostPattern]>>,
}

/// How limits are shown, and which others there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Which responses have headers about limits.
    pub headers: LimitHeaders,
    /// Whether a rate-limit filter behind the seal enforces limits of the whole cluster.
    pub of_cluster: bool,
}

/// Rules for the keys of a tier.
#[derive(Clone, Debug, Default)]
pub struct Tier {
    /// Restrictions for each key.
    pub only: Restriction,
    /// Limits for each key.
    pub limits: Limits,
    /// Whether an escaped slash in a path is part of its segment, instead of ambiguous.
    pub keeps_escaped_slashes: bool,
    /// Whether a key may request the usage of others.
    pub usage_of_others: bool,
}

/// Rules for the keys of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    /// Restrictions for each key.
    pub only: Restriction,
    /// Limits for all keys together.
    pub limits: Limits,
}

/// Whether keys of unlisted tenants are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlistedTenants {
    /// They are accepted.
    Allow,
    /// They are refused.
    Deny,
}

/// Rules about client addresses, for every key.
#[derive(Clone, Debug, Default)]
pub struct ClientRules {
    /// How many entries of `x-forwarded-for`, from its end, were written by trusted proxies. The first of
    /// these is the client. 0: the header is ignored.
    pub trusted_hops: u64,
    /// Networks that clients may use; all if absent.
    pub allow: Option<Box<[Cidr]>>,
    /// Networks that clients may not use.
    pub deny: Box<[Cidr]>,
}

/// How audit lines are written.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Where they go.
    pub sink: Sink,
    /// The level in the proxy's log.
    pub level: Level,
    /// The members that are masked.
    pub mask: Mask,
    /// The secret of the chain that the records form; without one, they form none.
    pub(super) secret: Option<Variable>,
    /// The number of records between two anchors of the chain.
    pub anchor_every: u64,
}

/// Where audit lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Filter state, which the proxy's access loggers print.
    AccessLog,
    /// The proxy's own log.
    Log,
}

/// What a configuration adds to the compiled-in policy.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Whether every cluster must have the policy's stamp.
    pub require_stamp: bool,
    /// Whether a cluster for hosts that the policy verifies must have an upstream gate.
    pub require_gate: bool,
    /// Additional rules, which can only tighten.
    pub tighten: Box<[PolicyRule]>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { require_stamp: false, require_gate: true, tighten: Box::default() }
    }
}

// === impl Settings ===

impl Settings {
    /// Whether the tier exists. The tier `default` always does; unless it is listed, it has no limits.
    pub fn has_tier(&self, name: &str) -> bool {
        self.tiers.contains_key(name) || name == crate::key::claims::DEFAULT_TIER
    }

    /// Whether proxies share a quota of a tier or a tenant.
    pub fn has_shared_quotas(&self) -> bool {
        let tiers = self.tiers.values().map(|tier| &tier.limits);
        tiers.chain(self.tenants.values().map(|tenant| &tenant.limits)).any(Limits::is_shared)
    }

    /// Whether an escaped slash in a path is part of its segment for the keys of a tier.
    pub fn keeps_escaped_slashes(&self, tier: &str) -> bool {
        self.tiers.get(tier).is_some_and(|tier| tier.keeps_escaped_slashes)
    }
}
