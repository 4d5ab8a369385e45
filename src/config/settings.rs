//! Settings: the part of a configuration that holds no secret.

use std::collections::{BTreeMap, BTreeSet};

use crate::anomaly::Sensitivity;
use crate::audit::Mask;
use crate::caveat::{HostPattern, Restriction};
use crate::cidr::Cidr;
use crate::failures::FailureRules;
use crate::limit::Limits;
use crate::upstream_tls::Rule;

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

/// A header that may carry a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// The name, in lower case.
    pub header: String,
    /// The authentication scheme before the key (RFC 9110, section 11.1).
    pub scheme: Option<String>,
    /// The header is a list, and the key an item of it behind this prefix: a WebSocket subprotocol, which is
    /// all that a page can send besides the address (RFC 6455, section 11.3.4). Never with a scheme.
    pub item_prefix: Option<String>,
}

/// What becomes of credentials that are no keys of this gate, where a request carries them in key sources
/// beside a key that is. A request without such a key is refused whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignCredentials {
    /// The request is refused.
    Refuse,
    /// They are removed, as the key is.
    Drop,
    /// They go on to the upstream, and the key is removed.
    Forward,
}

/// Whether keys of tenants that are not listed are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlistedTenants {
    /// They are good.
    Allow,
    /// They are refused.
    Deny,
}

/// What was revoked before its time.
#[derive(Clone, Debug, Default)]
pub struct Revoked {
    /// The number of this list, so that a rollback shows.
    pub version: Option<u64>,
    /// Keys: an id is that of whichever tenant's key, and [`revoked_key`] writes that of one tenant. What
    /// was attenuated from them is revoked with them.
    pub keys: BTreeSet<String>,
    /// By tenant: keys minted before this second are revoked.
    pub tenants: BTreeMap<String, u64>,
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

/// A level of the proxy's log. The numbers are the ABI's (proxy-wasm 0.2.1, `proxy_log`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
}

impl Level {
    /// Every level, in the order of its number.
    pub const ALL: [Self; 6] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Critical];

    /// The level of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|level| *level as u32 == number)
    }

    /// The name in configurations and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// The host's rules for shared data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Found out at the first write, without a risk on hosts of either rule.
    Auto,
    /// No shared data: nothing is counted.
    Bare,
    /// An absent record is created by a compare-and-swap value that is never issued.
    Envoy,
    /// An absent record is created by the compare-and-swap value 0.
    Nginx,
}

/// Whether denials of access and limits are enforced. Authentication always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are written down, and the request goes on.
    Shadow,
}

/// What a configuration adds to the policy that is compiled in.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Whether every cluster has to carry the policy's stamp.
    pub require_stamp: bool,
    /// Whether a cluster for hosts that the policy verifies has to have a gate.
    pub require_gate: bool,
    /// Further rules, which only tighten.
    pub tighten: Box<[Rule]>,
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
        self.tiers.contains_key(name) || name == crate::claims::DEFAULT_TIER
    }

    /// Whether an escaped slash in a path is a character of its segment for the keys of a tier.
    pub fn keeps_escaped_slashes(&self, tier: &str) -> bool {
        self.tiers.get(tier).is_some_and(|tier| tier.keeps_escaped_slashes)
    }
}

// === impl KeySource ===

impl KeySource {
    /// The credential of an item of a list, which has no spaces around it.
    pub fn credential_of_item<'a>(&self, item: &'a [u8]) -> Option<&'a [u8]> {
        let prefix = self.item_prefix.as_ref()?.as_bytes();
        item.strip_prefix(prefix).filter(|credential| !credential.is_empty())
    }

    /// The credential in a header's value that is no list, where it holds one of this source. Schemes have
    /// no case (RFC 9110, section 11.1).
    pub fn credential<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let value = value.trim_ascii();
        let Some(scheme) = &self.scheme else {
            return Some(value).filter(|value| !value.is_empty());
        };
        let (head, rest) = value.split_at_checked(scheme.len())?;
        let credential = rest.strip_prefix(b" ")?.trim_ascii_start();
        (head.eq_ignore_ascii_case(scheme.as_bytes()) && !credential.is_empty())
            .then_some(credential)
    }
}

// === impl Revoked ===

impl Revoked {
    /// Whether a key is among what was revoked.
    pub fn covers(&self, claims: &crate::claims::Claims) -> bool {
        let issued_before = self.tenants.get(&claims.tenant);
        covers_key(claims, self.keys.is_empty(), &|key| self.keys.contains(key))
            || issued_before.is_some_and(|time| claims.iat < *time)
    }
}

/// A revoked key of one tenant as one text: the tenant, a `/` and the key's id. No id has a `/`.
pub fn revoked_key(tenant: &str, jti: &str) -> String {
    [tenant, "/", jti].concat()
}

/// Whether a list of revoked keys has the key of these claims.
#[inline(never)] // once, not for each kind of list
pub(crate) fn covers_key(
    claims: &crate::claims::Claims,
    is_empty: bool,
    has: &dyn Fn(&str) -> bool,
) -> bool {
    !is_empty && (has(&claims.jti) || has(&revoked_key(&claims.tenant, &claims.jti)))
}
