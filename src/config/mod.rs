//! The plugin configuration: read strictly, then compiled into an immutable plan.
//!
//! [`Config::parse`] is a function of the bytes alone, and what it refuses can be refused before the
//! configuration is in force. [`Config::compile`] needs the environment, where the secrets are; what
//! it refuses is found only where the configuration runs, so that must then deny everything.

mod read;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use crate::anomaly::Sensitivity;
use crate::audit::Mask;
use crate::caveat::{HostPattern, Restriction};
use crate::cidr::Cidr;
use crate::failures::FailureRules;
use crate::json::{Integers, Invalid, Json};
use crate::keyring::{InvalidSecret, Keyring, Ring, RingState, Rotation, Secret};
use crate::limit::Limits;
use crate::mac::sha256_hex;
use crate::upstream_tls::Rule;
use template::{Template, Variable};

/// Where the usage answer is, unless configured.
pub const DEFAULT_USAGE_PATH: &str = "/.vkey/usage";

/// Hexadecimal digits of the configuration's digest that name a plan.
const PLAN_DIGITS: usize = 12;

/// A configuration of the right form, its secrets still names of environment variables.
#[derive(Debug)]
pub struct Config {
    settings: Settings,
    rings: Vec<RingConfig>,
    credentials: Vec<CredentialConfig>,
    clock_skew_secs: u64,
    digest: String,
}

/// What a plugin configuration makes of the module.
#[derive(Debug)]
pub enum RoleConfig {
    /// The gate in front of the routes, which decides on keys.
    Gate(Box<Config>),
    /// The gate of a cluster, which decides on connections.
    UpstreamTls(UpstreamConfig),
}

/// The configuration of the module as an upstream filter: `{"role": "upstream_tls"}`.
#[derive(Debug)]
pub struct UpstreamConfig {
    /// What is added to the policy.
    pub upstream_tls: UpstreamTls,
    /// The host's rules for shared data.
    pub dialect: Dialect,
    /// How long a request waits for its connection.
    pub deadline_secs: u64,
}

/// What a configuration adds to the policy that is compiled in.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// Whether every cluster has to carry the policy's stamp.
    pub require_stamp: bool,
    /// Further rules, which only tighten.
    pub tighten: Box<[Rule]>,
}

/// A compiled configuration.
pub struct Plan {
    /// Everything that is no secret.
    pub settings: Settings,
    /// The rings.
    pub keyring: Keyring,
    /// What to put in the place of a virtual key, by host.
    pub credentials: Vec<Credential>,
    /// Names the configuration in audit lines: the beginning of its SHA-256, and behind a `/` the
    /// version of its revocations where it has one.
    pub id: Rc<str>,
}

/// The part of a configuration that holds no secret.
#[derive(Debug)]
pub struct Settings {
    /// What a key's `aud` must contain.
    pub audience: Option<String>,
    /// Where keys are looked for, in order.
    pub key_sources: Vec<KeySource>,
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
    /// Whether CONNECT and upgrades go on.
    pub upgrades: bool,
    /// The host's rules for shared data.
    pub dialect: Dialect,
    /// Whether denials of access and limits are enforced.
    pub mode: Mode,
}

/// What the keys of a tier may do.
#[derive(Clone, Debug, Default)]
pub struct Tier {
    /// What each key is limited to.
    pub only: Restriction,
    /// How much each key may use.
    pub limits: Limits,
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
    /// Ids of keys; what was attenuated from them is revoked with them.
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

/// A provider credential that takes the place of the virtual key. It has no `Debug`.
pub struct Credential {
    /// The hosts it is for.
    pub hosts: Box<[HostPattern]>,
    /// The header it goes in, in lower case.
    pub header: String,
    /// The value of the header.
    pub value: zeroize::Zeroizing<String>,
}

/// Why a well-formed configuration cannot be put in force here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    variable: String,
    cause: NotReadyCause,
}

/// What is wrong with an environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReadyCause {
    /// It holds what no header can.
    HeaderValue,
    /// It holds no usable secret.
    Secret(InvalidSecret),
    /// It is not set, or empty.
    Unset,
}

/// A ring of a configuration, its secret still the name of an environment variable.
#[derive(Debug)]
pub struct RingConfig {
    name: String,
    secret: Variable,
    state: RingState,
    rotation: Option<Rotation>,
}

#[derive(Debug)]
struct CredentialConfig {
    hosts: Box<[HostPattern]>,
    header: String,
    value: Template,
}

// === impl RoleConfig ===

impl RoleConfig {
    /// Reads the configuration of either role.
    ///
    /// # Errors
    ///
    /// As [`Config::parse`].
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        read::role(text)
    }
}

// === impl Config ===

impl Config {
    /// Reads a configuration: one JSON object, see the table in the README.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the member and what belongs there.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let json = Json::parse(text)?;
        read::config(&json.root(Integers::Whole), text)
    }

    /// Puts the secrets in their places. `environment` gives the value of a variable.
    ///
    /// # Errors
    ///
    /// [`NotReady`] names the variable that is unset or unusable; never its value.
    pub fn compile(self, environment: impl Fn(&str) -> Option<String>) -> Result<Plan, NotReady> {
        let mut rings = Vec::with_capacity(self.rings.len());
        for ring in &self.rings {
            rings.extend(ring.compile(&environment)?);
        }
        let credentials = self.credentials.into_iter().map(|c| c.compile(&environment));
        Ok(Plan {
            id: plan_id(&self.digest, self.settings.revoked.version).into(),
            keyring: Keyring::new(rings, self.clock_skew_secs),
            credentials: credentials.collect::<Result<_, _>>()?,
            settings: self.settings,
        })
    }

    /// How audit lines are written.
    pub fn audit(&self) -> &AuditSettings {
        &self.settings.audit
    }

    /// Everything but the rings and the provider credentials.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The rings, in their order.
    pub fn rings(&self) -> &[RingConfig] {
        &self.rings
    }

    /// The environment variables that the configuration names.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let secrets = self.rings.iter().map(|ring| ring.secret.name());
        secrets.chain(self.credentials.iter().flat_map(|credential| credential.value.variables()))
    }

    fn new(
        settings: Settings,
        rings: Vec<RingConfig>,
        credentials: Vec<CredentialConfig>,
        clock_skew_secs: u64,
        text: &[u8],
    ) -> Self {
        Self { settings, rings, credentials, clock_skew_secs, digest: sha256_hex(text) }
    }
}

impl RingConfig {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The environment variable that holds the secret.
    pub fn variable(&self) -> &str {
        self.secret.name()
    }

    /// What the ring is still good for.
    pub fn state(&self) -> RingState {
        self.state
    }

    /// How the signing key changes with time, where it does.
    pub fn rotation(&self) -> Option<Rotation> {
        self.rotation
    }

    /// Puts the secret in its place; `None` for a name that no ring can have, which
    /// [`Config::parse`] refuses.
    ///
    /// # Errors
    ///
    /// As [`Config::compile`].
    pub fn compile(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Ring>, NotReady> {
        let text = self.secret.value(environment)?;
        let secret = Secret::parse_unpublished(&text)
            .map_err(|invalid| self.secret.not_ready(NotReadyCause::Secret(invalid)))?;
        Ok(Ring::new(&self.name, &secret, self.state, self.rotation))
    }
}

impl CredentialConfig {
    fn compile(self, environment: impl Fn(&str) -> Option<String>) -> Result<Credential, NotReady> {
        let value = self.value.fill(environment)?;
        Ok(Credential { hosts: self.hosts, header: self.header, value })
    }
}

// === impl Settings ===

impl Settings {
    /// Whether there is such a tier. The tier `default` exists without being listed, and limits
    /// nothing.
    pub fn has_tier(&self, name: &str) -> bool {
        self.tiers.contains_key(name) || name == crate::claims::DEFAULT_TIER
    }
}

// === impl KeySource ===

impl KeySource {
    /// The credential in a header's value, where it holds one of this source. Schemes have no case
    /// (RFC 9110, section 11.1).
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
        self.keys.contains(&claims.jti) || issued_before.is_some_and(|time| claims.iat < *time)
    }
}

// === impl NotReady ===

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = &self.variable;
        match self.cause {
            NotReadyCause::HeaderValue => write!(
                f,
                "environment variable {variable} holds characters that a header cannot carry"
            ),
            NotReadyCause::Secret(invalid) => {
                write!(f, "environment variable {variable}: {invalid}")
            }
            NotReadyCause::Unset => {
                write!(f, "environment variable {variable} is not set or empty")
            }
        }
    }
}

impl std::error::Error for NotReady {}

fn plan_id(digest: &str, revoked_version: Option<u64>) -> String {
    let short = digest.get(..PLAN_DIGITS).unwrap_or(digest);
    match revoked_version {
        Some(version) => format!("{short}/{version}"),
        None => short.to_owned(),
    }
}
