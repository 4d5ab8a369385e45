//! The policy file: which upstreams are verified, and how.

use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

use crate::access::restriction::HostPattern;
use crate::digest::{is_sha256_hex, sha256_hex};
use crate::json::{Integers, Invalid, Json, Members, Node};

use super::known::KnownHosts;
use super::{Demand, Requirement, UpstreamHost, UpstreamPattern};

/// The fewest pins of an upstream: one in use, and one in reserve.
const MIN_PINS: usize = 2;

const SECS_PER_DAY: u64 = 86_400;

/// A TLS version. Versions are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TlsVersion {
    /// SSL, or an unknown version: lower than any that a policy can require.
    Unknown,
    V1_0,
    V1_1,
    V1_2,
    V1_3,
}

/// The policy file that was compiled in. Nothing at run time weakens it.
#[derive(Clone, Debug)]
pub struct Policy {
    digest: String,
    min_version: TlsVersion,
    unlisted: Unlisted,
    known_hosts: KnownHosts,
    upstreams: Box<[PolicyRule]>,
}

/// How hosts that the file does not list are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// They are logged as unlisted, and get no provider credential.
    Observe,
    /// They are verified like all other hosts.
    Verify,
}

/// Requirements for the connections to some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// The hosts that it is for.
    pub host: UpstreamPattern,
    /// The lowest TLS version; the default of the file if absent.
    pub min_version: Option<TlsVersion>,
    /// SHA-256 of the accepted certificates, hexadecimal digits; if empty, any certificate.
    pub pins: Box<[String]>,
    /// Whether the proxy must have a client certificate for the connection.
    pub client_certificate: bool,
    /// The exception from verification, if there is one.
    pub skip: Option<Skip>,
}

/// An exception until a certain day: of a rule of the policy, or the `plaintext` of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Why.
    pub reason: String,
    /// Who is responsible.
    pub owner: String,
    /// The end of its last day in UTC, Unix seconds. From then on, the exception no longer holds.
    pub until_secs: u64,
}

/// The policy in force: the file, and the rules that a configuration adds. Added rules never allow a
/// connection that the file refuses.
#[derive(Clone, Debug)]
pub struct EffectivePolicy {
    file: Policy,
    tighten: Rc<[PolicyRule]>,
}

// === impl TlsVersion ===

impl TlsVersion {
    /// Every version that a policy can require, oldest first.
    pub const ALL: [Self; 4] = [Self::V1_0, Self::V1_1, Self::V1_2, Self::V1_3];

    /// The lowest version for known hosts (RFC 8996 deprecates older ones).
    pub const KNOWN_HOST_FLOOR: Self = Self::V1_2;

    /// Parses a version as proxies spell it: like in policies, but also `TLSv1` for 1.0.
    pub fn parse(text: &str) -> Self {
        let text = if text == "TLSv1" { "TLSv1.0" } else { text };
        let known = Self::ALL.into_iter().find(|version| version.as_str() == text);
        known.unwrap_or(Self::Unknown)
    }

    /// The spelling in a policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::V1_0 => "TLSv1.0",
            Self::V1_1 => "TLSv1.1",
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        }
    }

    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        node.choice(&Self::ALL.map(|version| (version.as_str(), version)))
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Policy ===

impl Policy {
    /// Parses a policy file: see docs/upstream-tls.md.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the member and what belongs there.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let json = Json::parse(text)?;
        let root = json.root(Integers::Digits);
        let members = root.members(&["version", "default", "known_hosts", "upstreams"])?;
        let version = members.require("version")?;
        if version.integer()? != 1 {
            return Err(version.expected("version 1"));
        }
        let default = members.require("default")?;
        let (min_version, unlisted) = read_default(&default)?;
        let known_hosts = members.require("known_hosts")?.list(UpstreamPattern::read)?;
        let upstreams = members.read("upstreams", |node| read_upstreams(node, &known_hosts))?;
        Ok(Self {
            digest: sha256_hex(text),
            min_version,
            unlisted,
            known_hosts: KnownHosts::new(known_hosts),
            upstreams: upstreams.unwrap_or_default(),
        })
    }

    /// The policy that treats every host as a known one and requires TLS 1.3. It is used if the required
    /// file is missing.
    pub fn strictest() -> Self {
        Self {
            digest: sha256_hex(b""),
            min_version: TlsVersion::V1_3,
            unlisted: Unlisted::Verify,
            known_hosts: KnownHosts::new(Box::new([UpstreamPattern::Any])),
            upstreams: Box::default(),
        }
    }

    /// SHA-256 of the file's bytes, hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The lowest TLS version, if no rule specifies another.
    pub fn min_version(&self) -> TlsVersion {
        self.min_version
    }

    /// How unlisted hosts are treated.
    pub fn unlisted(&self) -> Unlisted {
        self.unlisted
    }

    /// The hosts that, with their subdomains, always require verification and at least TLS 1.2.
    pub fn known_hosts(&self) -> &[UpstreamPattern] {
        self.known_hosts.patterns()
    }

    /// The rules for other hosts, and additional rules for known hosts.
    pub fn upstreams(&self) -> &[PolicyRule] {
        &self.upstreams
    }

    /// Whether a host is a known one, or could be parsed as one.
    pub fn knows(&self, host: &UpstreamHost<'_>) -> bool {
        *host == UpstreamHost::Unreadable || self.known_hosts.cover(host)
    }

    /// The known host that a pattern for hosts may match, in words; `None` if there is none.
    pub fn known_overlap(&self, pattern: &HostPattern) -> Option<String> {
        self.known_hosts.overlap(pattern)
    }

    /// The requirement for a connection to a host at this time, under the file and these rules of a configuration.
    pub fn demand<'a>(
        &'a self,
        tighten: &'a [PolicyRule],
        host: &UpstreamHost<'_>,
        now_secs: u64,
    ) -> Demand<'a> {
        let known = self.knows(host);
        let rule = self.rule(host);
        let tighten = || tighten.iter().filter(|rule| rule.host.matches(host));
        if !known && tighten().next().is_none() {
            match rule {
                None if self.unlisted == Unlisted::Observe => return Demand::Unlisted,
                Some(PolicyRule { skip: Some(skip), .. }) if skip.is_in_force(now_secs) => {
                    return Demand::Skip(skip);
                }
                _ => {}
            }
        }
        let own = rule.and_then(|rule| rule.min_version).unwrap_or(self.min_version);
        let floor = if known { TlsVersion::KNOWN_HOST_FLOOR } else { own };
        let mut requirement = Requirement::new(own.max(floor));
        for rule in rule.into_iter().chain(tighten()) {
            requirement.add(rule);
        }
        Demand::Verify(requirement)
    }

    /// The rule for a host: the narrowest that matches.
    fn rule(&self, host: &UpstreamHost<'_>) -> Option<&PolicyRule> {
        let matching = self.upstreams.iter().filter(|rule| rule.host.matches(host));
        matching.max_by_key(|rule| rule.host.narrowness())
    }
}

fn read_default(node: &Node<'_>) -> Result<(TlsVersion, Unlisted), Invalid> {
    let unlisted = [("observe", Unlisted::Observe), ("verify", Unlisted::Verify)];
    let members = node.members(&["min_version", "unlisted"])?;
    let min_version = TlsVersion::read(&members.require("min_version")?)?;
    let unlisted = members.read("unlisted", |node| node.choice(&unlisted))?;
    Ok((min_version, unlisted.unwrap_or(Unlisted::Verify)))
}

fn read_upstreams(
    node: &Node<'_>,
    known: &[UpstreamPattern],
) -> Result<Box<[PolicyRule]>, Invalid> {
    let (mut rules, mut hosts) = (Vec::new(), BTreeSet::new());
    for item in node.items()? {
        let rule = PolicyRule::read(&item)?;
        if !hosts.insert(rule.host.to_string()) {
            return Err(item.unusable("an earlier rule already applies to this host"));
        }
        refuse_exceptions_of_known(&item, &rule, known)?;
        rules.push(rule);
    }
    Ok(rules.into())
}

/// Rejects a rule that would weaken the requirements for a known host.
fn refuse_exceptions_of_known(
    node: &Node<'_>,
    rule: &PolicyRule,
    known: &[UpstreamPattern],
) -> Result<(), Invalid> {
    let Some(known) = known.iter().find(|known| known.overlaps(&rule.host)) else {
        return Ok(());
    };
    let members = node.open_members()?;
    if let Some(skip) = members.get("insecure_skip_verify") {
        return Err(skip.unusable(format!("{known} is a known host, which is always verified")));
    }
    match members.get("min_version") {
        Some(version) if rule.min_version < Some(TlsVersion::KNOWN_HOST_FLOOR) => {
            Err(version.unusable(format!("{known} is a known host, which speaks TLSv1.2 or later")))
        }
        _ => Ok(()),
    }
}

// === impl PolicyRule ===

impl PolicyRule {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let known = ["host", "min_version", "pins", "client_certificate", "insecure_skip_verify"];
        let members = node.members(&known)?;
        let skip = members.read("insecure_skip_verify", Skip::read)?;
        Self::read_members(&members, UpstreamPattern::read, skip)
    }

    /// Reads a rule of a configuration, which can only tighten: it has no exceptions, and `*` matches every
    /// host.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the member and what belongs there.
    pub fn read_tightening(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["host", "min_version", "pins", "client_certificate"])?;
        Self::read_members(&members, UpstreamPattern::read_any, None)
    }

    fn read_members(
        members: &Members<'_>,
        host: fn(&Node<'_>) -> Result<UpstreamPattern, Invalid>,
        skip: Option<Skip>,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            host: host(&members.require("host")?)?,
            min_version: members.read("min_version", TlsVersion::read)?,
            pins: members.read("pins", read_pins)?.unwrap_or_default(),
            client_certificate: members.read("client_certificate", Node::bool)?.unwrap_or(false),
            skip,
        })
    }
}

fn read_pins(node: &Node<'_>) -> Result<Box<[String]>, Invalid> {
    let (mut pins, mut earlier) = (Vec::new(), BTreeSet::new());
    for item in node.items()? {
        // Pins are compared as text, so only one spelling is allowed.
        let lower = |hex: &&str| is_sha256_hex(hex) && !hex.bytes().any(|b| b.is_ascii_uppercase());
        let digest = item.string()?.strip_prefix("sha256:").filter(lower);
        let expected =
            "sha256: and the 64 lower-case hexadecimal digits of a certificate's SHA-256";
        let digest = digest.ok_or_else(|| item.expected(expected))?;
        if !earlier.insert(digest.to_owned()) {
            return Err(item.unusable("an earlier pin is the same"));
        }
        pins.push(digest.to_owned());
    }
    if pins.len() < MIN_PINS {
        return Err(node.expected("at least two pins, one of them in reserve"));
    }
    Ok(pins.into())
}

// === impl Skip ===

impl Skip {
    /// Whether the exception is in force at that time.
    pub fn is_in_force(&self, now_secs: u64) -> bool {
        now_secs < self.until_secs
    }

    /// Reads an exception: a reason, an owner and the last day.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the member and what belongs there.
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["reason", "owner", "until"])?;
        let text = |name| {
            let node = members.require(name)?;
            match node.string()?.trim() {
                "" => Err(node.expected("a text")),
                text => Ok(text.to_owned()),
            }
        };
        Ok(Self {
            reason: text("reason")?,
            owner: text("owner")?,
            until_secs: end_of_day(&members.require("until")?)?,
        })
    }
}

fn end_of_day(node: &Node<'_>) -> Result<u64, Invalid> {
    let midnight = humantime::parse_rfc3339(&format!("{}T00:00:00Z", node.string()?)).ok();
    let since_epoch = midnight.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let start = since_epoch.map(|since| since.as_secs());
    start
        .and_then(|start| start.checked_add(SECS_PER_DAY))
        .ok_or_else(|| node.expected("a day, e.g. 2027-03-31"))
}

// === impl EffectivePolicy ===

impl EffectivePolicy {
    /// The file, tightened by the rules of a configuration.
    pub fn new(file: Policy, tighten: Box<[PolicyRule]>) -> Self {
        Self { file, tighten: tighten.into() }
    }

    /// The file, without the rules of the configuration.
    pub fn file(&self) -> &Policy {
        &self.file
    }

    /// The rules of the configuration.
    pub fn tighten(&self) -> &[PolicyRule] {
        &self.tighten
    }

    /// The same rules, to keep.
    pub fn shared_rules(&self) -> Rc<[PolicyRule]> {
        Rc::clone(&self.tighten)
    }

    /// The requirement for a connection if no rule requires more.
    pub fn default_requirement(&self) -> Requirement<'_> {
        Requirement::new(self.file.min_version)
    }

    /// The requirement for a connection to a host at this time.
    pub fn demand(&self, host: &UpstreamHost<'_>, now_secs: u64) -> Demand<'_> {
        self.file.demand(&self.tighten, host, now_secs)
    }
}

#[cfg(test)]
mod tests;
