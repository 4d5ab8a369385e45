//! The plugin configuration: read strictly, then compiled into an immutable plan.
//!
//! [`Config::parse`] depends on the bytes alone, so its errors can be found before the configuration is
//! deployed. [`Config::compile`] needs the environment, which contains the secrets. Its errors are found
//! only in the running proxy, so the gate must then deny everything.

mod delivery;
mod forward;
mod header;
mod ledger;
mod llm;
mod mcp;
mod public;
mod read;
mod ring;
mod settings;
mod template;

use std::fmt;
use std::rc::Rc;

use crate::access::restriction::HostPattern;
use crate::audit::AuditKey;
use crate::digest::sha256_hex;
use crate::host::Dialect;
use crate::json::{Integers, Invalid, Json};
use crate::key::keyring::{InvalidSecret, Keyring, Secret};
use crate::key::token::Kid;
use crate::upstream_tls::{Policy, Skip};
pub use delivery::{Cause, Hindrance, request_hindrances, upstream_hindrances};
use ledger::LedgerConfig;
pub use ledger::LedgerService;
pub use llm::{BodySettings, Formats, LlmRoute, LlmRules, LlmSettings};
pub use mcp::{McpServer, McpSettings};
pub use read::DEFAULT_CLOCK_SKEW_SECS;
pub(crate) use read::default_key_sources;
pub use ring::RingConfig;
pub use settings::{
    AuditSettings, ClientRules, Grant, LimitSettings, Settings, Sink, Tenant, Tier,
    UnlistedTenants, UpstreamTls,
};
use template::{Template, Variable};

/// The path of the usage reply, unless configured.
pub const DEFAULT_USAGE_PATH: &str = "/.vkey/usage";

/// The path of the readiness reply, unless configured.
pub const DEFAULT_READY_PATH: &str = "/.vkey/ready";

const KNOWN_HOST: &str =
    " is a known host, which is never plaintext; remove plaintext or that host";

/// The number of hexadecimal digits of the configuration's digest in the id of a plan.
const PLAN_DIGITS: usize = 12;

/// A valid configuration, in which secrets are still names of environment variables.
#[derive(Debug)]
pub struct Config {
    settings: Settings,
    rings: Vec<RingConfig>,
    credentials: Vec<CredentialConfig>,
    ledger: Option<LedgerConfig>,
    clock_skew_secs: u64,
    digest: String,
}

/// The configuration of either role of the module.
#[derive(Debug)]
pub enum RoleConfig {
    /// The gate in the listener, which decides on keys.
    Gate(Box<Config>),
    /// The upstream gate, which decides on connections.
    UpstreamTls(UpstreamConfig),
}

/// The configuration of the module as an upstream filter: `{"role": "upstream_tls"}`.
#[derive(Debug)]
pub struct UpstreamConfig {
    /// Rules that tighten the policy.
    pub upstream_tls: UpstreamTls,
    /// The host's rules for shared data.
    pub dialect: Dialect,
    /// How long a request waits for its connection, seconds.
    pub deadline_secs: u64,
    credentials: Vec<NamedConfig>,
}

/// A provider credential of an upstream gate. It has no `Debug`, because it contains a secret.
pub struct NamedCredential {
    /// The name by which the listener's gate grants it to requests.
    pub name: String,
    /// The header, and the hosts that it is for.
    pub credential: UpstreamCredential,
}

/// A compiled configuration.
pub struct Plan {
    /// Everything that is not secret.
    pub settings: Settings,
    /// The rings.
    pub keyring: Keyring,
    /// What the rings lack: an entry for each secret and each signing key that is missing or unusable.
    pub unready: Vec<NotReady>,
    /// The provider credentials that the listener's gate attaches, by the host that the client names.
    pub credentials: Vec<UpstreamCredential>,
    /// The ledger of the budgets that proxies share.
    pub ledger: Option<LedgerService>,
    /// The rings whose secret is in a filter state: the name of each, and the key of the state.
    pub filter_states: Vec<(String, String)>,
    /// The id of the configuration in audit lines: the first digits of its SHA-256, and, if its revocations
    /// have a version, `/` and that version.
    pub id: Rc<str>,
}

/// A provider credential. It has no `Debug`, because it contains a secret.
pub struct UpstreamCredential {
    /// The hosts that it is for.
    pub hosts: Box<[HostPattern]>,
    /// The name of the header, in lower case.
    pub header: String,
    /// The value of the header.
    pub value: zeroize::Zeroizing<String>,
    /// Until when it may go without TLS to those hosts that no rule of the policy is for, Unix seconds; 0: never.
    pub plaintext_until_secs: u64,
}

/// Why a valid configuration, or a part of it, cannot be used in this environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// The part; `None` for all of the configuration.
    part: Option<Part>,
    variable: String,
    cause: NotReadyCause,
}

/// The part of a configuration that an environment variable is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// The secret of a ring.
    Ring(String),
    /// A single signing key.
    Key(Kid),
}

/// What is wrong with an environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReadyCause {
    /// It contains characters that are invalid in a header, or begins or ends with a space.
    HeaderValue,
    /// It is no variable, but a filter state, which only a gate with requests can read.
    FilterState,
    /// It contains no usable secret.
    Secret(InvalidSecret),
    /// It is unset or empty.
    Unset,
}

/// A credential of an upstream gate, whose value is still a template.
#[derive(Debug)]
struct NamedConfig {
    name: String,
    credential: CredentialConfig,
}

#[derive(Debug)]
struct CredentialConfig {
    /// Where it stands in the configuration, e.g. `credentials[0]`.
    place: String,
    plaintext: Option<Skip>,
    hosts: Box<[HostPattern]>,
    header: String,
    value: Template,
}

// === impl RoleConfig ===

impl RoleConfig {
    /// Parses the configuration of either role.
    ///
    /// # Errors
    ///
    /// As [`Config::parse`].
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        read::role(text)
    }

    /// Checks the configuration against the policy that is compiled in.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names a `plaintext` that would be for a known host.
    pub fn check_policy(&self, policy: &Policy) -> Result<(), Invalid> {
        match self {
            Self::Gate(config) => config.check_policy(policy),
            Self::UpstreamTls(config) => config.check_policy(policy),
        }
    }
}

// === impl UpstreamConfig ===

impl UpstreamConfig {
    /// The credentials, with their secrets filled in. `environment` returns the value of a variable.
    ///
    /// # Errors
    ///
    /// As [`Config::compile`].
    pub fn credentials(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<NamedCredential>, NotReady> {
        let mut credentials = Vec::new();
        for NamedConfig { name, credential } in &self.credentials {
            let credential = credential.compile(&environment)?;
            credentials.push(NamedCredential { name: name.clone(), credential });
        }
        Ok(credentials)
    }

    /// As [`RoleConfig::check_policy`].
    ///
    /// # Errors
    ///
    /// As [`RoleConfig::check_policy`].
    pub fn check_policy(&self, policy: &Policy) -> Result<(), Invalid> {
        self.credentials.iter().try_for_each(|named| named.credential.check_policy(policy))
    }

    /// The environment variables that the configuration names.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.credentials.iter().flat_map(|named| named.credential.value.variables())
    }
}

// === impl Config ===

impl Config {
    /// Parses a configuration: one JSON object, see docs/configuration.md.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the member and what belongs there.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let json = Json::parse(text)?;
        read::config(&json.root(Integers::Whole), text)
    }

    /// Fills in the secrets. `environment` returns the value of a variable. A ring whose secret is missing or
    /// unusable is not ready; the others are. If none is, nothing can be allowed: see [`Plan::ready`].
    ///
    /// # Errors
    ///
    /// [`NotReady`] names the variable of a credential that is unset or unusable, but never its value.
    pub fn compile(self, environment: impl Fn(&str) -> Option<String>) -> Result<Plan, NotReady> {
        let (mut rings, mut unready) = (Vec::with_capacity(self.rings.len()), Vec::new());
        for ring in &self.rings {
            let (ring, lacks) = ring.compile(&environment);
            rings.extend(ring);
            unready.extend(lacks);
        }
        let mut credentials = Vec::new();
        for credential in &self.credentials {
            credentials.push(credential.compile(&environment)?);
        }
        let state =
            |ring: &RingConfig| Some((ring.name().to_owned(), ring.filter_state()?.to_owned()));
        let ledger = self.ledger.map(|ledger| ledger.compile(&environment)).transpose()?;
        Ok(Plan {
            ledger,
            filter_states: self.rings.iter().filter_map(state).collect(),
            id: plan_id(&self.digest, self.settings.revoked.version).into(),
            keyring: Keyring::new(rings, self.clock_skew_secs),
            unready,
            credentials,
            settings: self.settings,
        })
    }

    /// The key of the chain of audit records; `None` without an audit secret.
    ///
    /// # Errors
    ///
    /// [`NotReady`] names the variable that is unset or holds no usable secret.
    pub fn audit_key(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<AuditKey>, NotReady> {
        let Some(variable) = &self.audit().secret else { return Ok(None) };
        let text = variable.value(environment)?;
        let secret = Secret::parse_unguessable(&text)
            .map_err(|invalid| variable.not_ready(NotReadyCause::Secret(invalid)))?;
        Ok(Some(AuditKey::new(&secret)))
    }

    /// As [`RoleConfig::check_policy`].
    ///
    /// # Errors
    ///
    /// As [`RoleConfig::check_policy`].
    pub fn check_policy(&self, policy: &Policy) -> Result<(), Invalid> {
        self.credentials.iter().try_for_each(|credential| credential.check_policy(policy))
    }

    /// How audit lines are written.
    pub fn audit(&self) -> &AuditSettings {
        &self.settings.audit
    }

    /// How far another machine's clock may be ahead of the gate's, in seconds.
    pub fn clock_skew_secs(&self) -> u64 {
        self.clock_skew_secs
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
        let secrets = self.rings.iter().flat_map(RingConfig::variables);
        let audit = self.audit().secret.iter().map(Variable::name);
        let ledger = self.ledger.iter().flat_map(LedgerConfig::variables);
        secrets
            .chain(audit)
            .chain(ledger)
            .chain(self.credentials.iter().flat_map(|credential| credential.value.variables()))
    }

    fn new(
        settings: Settings,
        rings: Vec<RingConfig>,
        credentials: Vec<CredentialConfig>,
        ledger: Option<LedgerConfig>,
        clock_skew_secs: u64,
        text: &[u8],
    ) -> Self {
        let digest = sha256_hex(text);
        Self { settings, rings, credentials, ledger, clock_skew_secs, digest }
    }
}

impl CredentialConfig {
    fn check_policy(&self, policy: &Policy) -> Result<(), Invalid> {
        let checked = if self.plaintext.is_some() { &*self.hosts } else { &[] };
        for host in checked {
            if let Some(known) = policy.known_overlap(host) {
                let place = [&*self.place, ".plaintext"].concat();
                let reason = [&*known, KNOWN_HOST].concat();
                return Err(Invalid::unusable(&place, reason));
            }
        }
        Ok(())
    }

    fn compile(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<UpstreamCredential, NotReady> {
        let (hosts, header) = (self.hosts.clone(), self.header.clone());
        let plaintext_until_secs = self.plaintext.as_ref().map_or(0, |skip| skip.until_secs);
        let value = self.value.fill(environment)?;
        Ok(UpstreamCredential { hosts, header, value, plaintext_until_secs })
    }
}

// === impl Plan ===

impl Plan {
    /// The plan, if at least one of its rings is ready.
    ///
    /// # Errors
    ///
    /// What the first ring lacks.
    pub fn ready(self) -> Result<Self, NotReady> {
        match self.unready.first() {
            Some(not_ready) if !self.keyring.is_ready() => Err(not_ready.clone()),
            _ => Ok(self),
        }
    }
}

// === impl UpstreamCredential ===

impl UpstreamCredential {
    /// Whether it is for a host, which must be in canonical form.
    pub fn is_for(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

// === impl NotReady ===

impl NotReady {
    /// The environment variable.
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// Whether the signing key of a kid is missing for this reason, if the problem is one of its ring.
    pub fn concerns(&self, kid: &Kid) -> bool {
        match &self.part {
            None | Some(Part::Ring(_)) => true,
            Some(Part::Key(of)) => of == kid,
        }
    }

    /// Whether the variable of a secret or of a signing key is unset or empty, or a filter state that is not known.
    pub fn is_unset_secret(&self) -> bool {
        self.part.is_some() && self.cause == NotReadyCause::Unset || self.is_filter_state()
    }

    /// Whether the secret is in a filter state.
    pub fn is_filter_state(&self) -> bool {
        self.cause == NotReadyCause::FilterState
    }

    fn of(self, part: Part) -> Self {
        Self { part: Some(part), ..self }
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = &self.variable;
        match &self.part {
            Some(Part::Ring(ring)) => write!(f, "ring {ring}: ")?,
            Some(Part::Key(kid)) => write!(f, "signing key {kid}: ")?,
            None => {}
        }
        match self.cause {
            NotReadyCause::HeaderValue => write!(
                f,
                "environment variable {variable} holds characters that a header cannot carry, or begins or \
                 ends with a space"
            ),
            NotReadyCause::FilterState => {
                write!(f, "the secret is in the filter state {variable}, which only a proxy has")
            }
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

#[cfg(test)]
mod tests;
