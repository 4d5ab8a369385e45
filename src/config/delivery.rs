//! Which provider credentials do not go out, and why: a diagnosis of configurations under a policy.
//!
//! It knows no connections. What it reports for a host holds for every request for that host, or for every one without
//! TLS.

use std::fmt;

use crate::access::canonical_host;
use crate::access::restriction::HostPattern;
use crate::host::Dialect;
use crate::time::rfc3339;
use crate::upstream_tls::{Demand, Policy, PolicyRule, Unlisted, UpstreamHost, UpstreamPattern};

use super::{
    Config, CredentialConfig, Grant, NamedConfig, RoleConfig, UpstreamConfig, UpstreamTls,
};

/// A provider credential that does not go to a host, or only under a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// Its name. A credential in front has none: its place in the configuration, e.g. `forward.credentials[0]`.
    pub credential: String,
    /// The host or the pattern; `None` if the cause concerns all hosts.
    pub host: Option<String>,
    /// Why.
    pub cause: Cause,
}

/// Why a credential does not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its `plaintext` has ended at this time, Unix seconds: as [`Cause::TlsOnly`].
    Ended(u64),
    /// In front, its `plaintext` holds only where the cluster has an upstream gate.
    GateOnly,
    /// nginx has no upstream gates and shows nothing of connections.
    Nginx,
    /// The gate of the listener does not name it.
    NotGranted,
    /// No upstream gate holds it.
    NotHeld,
    /// The gate of the listener names it for other hosts than the upstream gate holds it for.
    OtherHosts,
    /// The policy skips the host until this time, Unix seconds.
    Skipped(u64),
    /// In front, and no rule is for the host: only with the stamp of the policy.
    StampOnly,
    /// No rule is for the host: only over verified TLS.
    TlsOnly,
    /// The host can be read in more than one way, so no certificate is for it.
    Unreadable,
    /// It has a `plaintext`, which is without effect: a rule says that the host is verified.
    Verified,
}

/// What the policy asks for the hosts of a pattern.
#[derive(Clone, Copy)]
enum Asked {
    Nothing,
    Skip(u64),
    Unreadable,
    Verified,
}

/// Who attaches a credential.
#[derive(Clone, Copy)]
enum Holder {
    /// The gate of a listener, before routing.
    Front { is_nginx: bool },
    /// The gate of a cluster.
    Gate,
}

/// Hindrances under a policy and the rules of a configuration.
struct Diagnosis<'a> {
    policy: &'a Policy,
    tighten: &'a [PolicyRule],
    now_secs: u64,
    hindrances: Vec<Hindrance>,
}

// === impl Cause ===

impl Cause {
    /// Whether the credential never goes to the host, whatever the connection.
    pub fn is_final(self) -> bool {
        match self {
            Self::Nginx
            | Self::NotGranted
            | Self::NotHeld
            | Self::OtherHosts
            | Self::Skipped(_)
            | Self::Unreadable => true,
            Self::Ended(_) | Self::GateOnly | Self::StampOnly | Self::TlsOnly | Self::Verified => {
                false
            }
        }
    }
}

// === impl Hindrance ===

impl Hindrance {
    /// Whether the credential never goes to the host, whatever the connection.
    pub fn is_final(&self) -> bool {
        self.cause.is_final()
    }

    /// Without TLS, a credential no longer goes out, because its `plaintext` has ended at that time, Unix seconds.
    pub fn ended(credential: &str, until_secs: u64) -> Self {
        Self::new(credential, None, Cause::Ended(until_secs))
    }

    fn new(credential: &str, host: Option<String>, cause: Cause) -> Self {
        Self { credential: credential.to_owned(), host, cause }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason(), self.remedy())
    }
}

impl Hindrance {
    /// Which credential, and why.
    pub fn reason(&self) -> String {
        let host = self.host.as_deref().unwrap_or("its hosts");
        let why = match self.cause {
            Cause::Ended(until_secs) => format!(
                "its plaintext ended at {}, so without TLS requests for {host} are refused \
                 (upstream_unproven)",
                rfc3339(until_secs)
            ),
            Cause::GateOnly => format!(
                "in front, its plaintext for {host} holds only in clusters with an upstream gate; responses \
                 of others are withheld (upstream_plaintext)"
            ),
            Cause::Nginx => format!(
                "nginx has no upstream gates and shows nothing of connections, so requests for {host} \
                 are refused (upstream_unproven)"
            ),
            Cause::NotGranted => NOT_GRANTED.to_owned(),
            Cause::NotHeld => NOT_HELD.to_owned(),
            Cause::OtherHosts => OTHER_HOSTS.to_owned(),
            Cause::Skipped(until_secs) => format!(
                "the policy skips {host} until {}, and a host that is skipped gets no credential",
                rfc3339(until_secs)
            ),
            Cause::StampOnly => format!(
                "no rule of the policy is for {host}, so requests for it are refused \
                 (upstream_unproven) unless the cluster carries the stamp and speaks TLS"
            ),
            Cause::TlsOnly => format!(
                "no rule of the policy is for {host}, so without TLS every request that may have it is \
                 refused (upstream_plaintext)"
            ),
            Cause::Unreadable => format!(
                "{host} can be read in more than one way, so no certificate is for it and requests are \
                 refused (upstream_name)"
            ),
            Cause::Verified => format!(
                "its plaintext has no effect for {host}, because the policy verifies connections to it"
            ),
        };
        format!("credential {}: {why}", self.credential)
    }

    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self.cause {
            Cause::Ended(_) => "serve TLS there, or set a later until",
            Cause::GateOnly => {
                "add the upstream gate to the cluster, or let it hold the credential"
            }
            Cause::Nginx => "remove the credential, or use Envoy",
            Cause::NotGranted => "add its name there",
            Cause::NotHeld => "add it to credentials of the gate of the cluster",
            Cause::OtherHosts => "give both the same hosts",
            Cause::Skipped(_) => "remove insecure_skip_verify from the policy",
            Cause::StampOnly => {
                "render the cluster with `vkey tls render`, or give the credential plaintext"
            }
            Cause::TlsOnly => {
                "serve TLS with a certificate for the host, or give the credential plaintext"
            }
            Cause::Unreadable => "write another host",
            Cause::Verified => "remove plaintext",
        }
    }
}

const NOT_GRANTED: &str =
    "forward.credentials of the gate in the listener does not name it, so no request gets it";

const NOT_HELD: &str = "no upstream gate holds it, so requests go on without it";

const OTHER_HOSTS: &str = "forward.credentials names it for other hosts than the upstream gate holds it for, so \
    no request gets it";

// === the configurations ===

impl RoleConfig {
    /// The hindrances that this configuration shows alone.
    pub fn hindrances(&self, policy: &Policy, now_secs: u64) -> Vec<Hindrance> {
        match self {
            Self::Gate(config) => config.hindrances(policy, now_secs),
            Self::UpstreamTls(config) => config.hindrances(policy, now_secs),
        }
    }
}

impl Config {
    /// The hindrances of the credentials that the gate of the listener holds or names.
    pub fn hindrances(&self, policy: &Policy, now_secs: u64) -> Vec<Hindrance> {
        let settings = self.settings();
        let is_nginx = settings.dialect == Dialect::Nginx;
        let mut diagnosis = Diagnosis::new(policy, &settings.upstream_tls, now_secs);
        for grant in settings.grants.iter().filter(|_| is_nginx) {
            diagnosis.add(&grant.name, None, Cause::Nginx);
        }
        for credential in &self.credentials {
            let holder = Holder::Front { is_nginx };
            diagnosis.check(&credential.place, credential, &credential.hosts, holder);
        }
        diagnosis.hindrances
    }
}

impl UpstreamConfig {
    /// The hindrances of the credentials that an upstream gate holds.
    pub fn hindrances(&self, policy: &Policy, now_secs: u64) -> Vec<Hindrance> {
        let mut diagnosis = Diagnosis::new(policy, &self.upstream_tls, now_secs);
        for NamedConfig { name, credential } in &self.credentials {
            diagnosis.check(name, credential, &credential.hosts, Holder::Gate);
        }
        diagnosis.hindrances
    }
}

/// The hindrances between the gate of a listener and the upstream gates of its clusters.
pub fn upstream_hindrances(front: &Config, gates: &[UpstreamConfig]) -> Vec<Hindrance> {
    let grants = &front.settings().grants;
    let held = || gates.iter().flat_map(|gate| &gate.credentials);
    let hindered = |grant: &Grant| {
        let named = || held().filter(|named| named.name == grant.name);
        let shared = named().any(|named| may_share(grant, &named.credential));
        let cause = if named().next().is_none() { Cause::NotHeld } else { Cause::OtherHosts };
        (!shared).then(|| Hindrance::new(&grant.name, None, cause))
    };
    let mut hindrances: Vec<_> = grants.iter().filter_map(hindered).collect();
    for named in held().filter(|named| grants.iter().all(|grant| grant.name != named.name)) {
        let hindrance = Hindrance::new(&named.name, None, Cause::NotGranted);
        if !hindrances.contains(&hindrance) {
            hindrances.push(hindrance);
        }
    }
    hindrances
}

/// The hindrances of the credentials that a request for an authority may have. Without `gates`, those that upstream gates
/// hold are unknown.
pub fn request_hindrances(
    front: &Config,
    gates: &[UpstreamConfig],
    policy: &Policy,
    authority: &[u8],
    now_secs: u64,
) -> Vec<Hindrance> {
    let Some(name) = canonical_host(authority) else { return Vec::new() };
    let host = [HostPattern::Exact(name.clone().into_owned())];
    let is_for = |hosts: &[HostPattern]| hosts.iter().any(|pattern| pattern.matches(&name));
    let settings = front.settings();
    let is_nginx = settings.dialect == Dialect::Nginx;
    let mut hindrances = Vec::new();
    if let Some(held) = front.credentials.iter().find(|credential| is_for(&credential.hosts)) {
        let mut diagnosis = Diagnosis::new(policy, &settings.upstream_tls, now_secs);
        diagnosis.check(&held.place, held, &host, Holder::Front { is_nginx });
        hindrances.extend(diagnosis.hindrances);
    }
    for grant in &settings.grants {
        if !grant.hosts.as_ref().is_none_or(|hosts| is_for(hosts)) {
            continue;
        }
        if is_nginx {
            hindrances.push(Hindrance::new(&grant.name, None, Cause::Nginx));
            continue;
        }
        let mut held =
            gates.iter().flat_map(|gate| gate.credentials.iter().map(move |c| (gate, c)));
        let held = held.find(|(_, c)| c.name == grant.name && is_for(&c.credential.hosts));
        if let Some((gate, NamedConfig { name, credential })) = held {
            let mut diagnosis = Diagnosis::new(policy, &gate.upstream_tls, now_secs);
            diagnosis.check(name, credential, &host, Holder::Gate);
            hindrances.extend(diagnosis.hindrances);
        }
    }
    hindrances
}

/// Whether some host is of both. Patterns that may share one count as if they did.
fn may_share(grant: &Grant, held: &CredentialConfig) -> bool {
    let overlap = |one: &HostPattern, other: &HostPattern| {
        let pair = UpstreamPattern::of(one).zip(UpstreamPattern::of(other));
        one == other || pair.is_some_and(|(one, other)| one.overlaps(&other))
    };
    let shares = |one: &HostPattern| held.hosts.iter().any(|other| overlap(one, other));
    grant.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(shares))
}

// === impl Diagnosis ===

impl<'a> Diagnosis<'a> {
    fn new(policy: &'a Policy, added: &'a UpstreamTls, now_secs: u64) -> Self {
        Self { policy, tighten: &added.tighten, now_secs, hindrances: Vec::new() }
    }

    fn add(&mut self, credential: &str, host: Option<String>, cause: Cause) {
        self.hindrances.push(Hindrance::new(credential, host, cause));
    }

    /// Checks a credential at these hosts.
    fn check(
        &mut self,
        name: &str,
        credential: &CredentialConfig,
        hosts: &[HostPattern],
        holder: Holder,
    ) {
        for host in hosts {
            let asked = self.asked(host);
            let cause = match holder {
                Holder::Gate => credential.cause(asked, self.now_secs),
                Holder::Front { is_nginx } => {
                    credential.cause_in_front(asked, is_nginx, self.now_secs)
                }
            };
            if let Some(cause) = cause {
                self.add(name, Some(host.to_string()), cause);
            }
        }
    }

    /// What the policy asks for the hosts of a pattern: for a suffix, nothing only if no rule is for one of its hosts.
    fn asked(&self, host: &HostPattern) -> Asked {
        let Some(pattern) = UpstreamPattern::of(host) else { return Asked::Unreadable };
        let HostPattern::Exact(name) = host else {
            let rules = self.policy.upstreams().iter().chain(self.tighten).map(|rule| &rule.host);
            let mut listed = self.policy.known_hosts().iter().chain(rules);
            let verifies = listed.any(|listed| listed.overlaps(&pattern))
                || self.policy.unlisted() == Unlisted::Verify;
            return if verifies { Asked::Verified } else { Asked::Nothing };
        };
        let host = UpstreamHost::parse_attempt(name.as_bytes());
        match self.policy.demand(self.tighten, &host, self.now_secs) {
            Demand::Skip(skip) => Asked::Skip(skip.until_secs),
            Demand::Unlisted => Asked::Nothing,
            Demand::Verify(_) => Asked::Verified,
        }
    }
}

// === impl CredentialConfig ===

impl CredentialConfig {
    /// Why the gate of a cluster does not attach it.
    fn cause(&self, asked: Asked, now_secs: u64) -> Option<Cause> {
        match asked {
            Asked::Unreadable => Some(Cause::Unreadable),
            Asked::Skip(until_secs) => Some(Cause::Skipped(until_secs)),
            Asked::Verified => self.plaintext.as_ref().map(|_| Cause::Verified),
            Asked::Nothing => match &self.plaintext {
                None => Some(Cause::TlsOnly),
                Some(plaintext) if plaintext.is_in_force(now_secs) => None,
                Some(plaintext) => Some(Cause::Ended(plaintext.until_secs)),
            },
        }
    }

    /// Why requests do not go on with it from the gate of the listener.
    fn cause_in_front(&self, asked: Asked, is_nginx: bool, now_secs: u64) -> Option<Cause> {
        match (asked, self.cause(Asked::Nothing, now_secs)) {
            (Asked::Unreadable, _) => Some(Cause::Unreadable),
            // A host that is skipped gets it: nothing is checked after it was attached.
            (Asked::Skip(_), _) => None,
            (Asked::Verified | Asked::Nothing, _) if is_nginx => Some(Cause::Nginx),
            (Asked::Nothing, None) => Some(Cause::GateOnly),
            (Asked::Nothing, Some(Cause::TlsOnly)) => Some(Cause::StampOnly),
            (Asked::Nothing, cause) => cause,
            (Asked::Verified, _) => self.plaintext.as_ref().map(|_| Cause::Verified),
        }
    }
}
