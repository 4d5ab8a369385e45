//! Upstream TLS: what a connection to an upstream must show before a request is sent over it.
//!
//! A [`Policy`] is the file compiled in, an [`EffectivePolicy`] the file and what a configuration
//! adds. It yields a [`Demand`] for a host, and [`Requirement::evaluate`] compares that with what a
//! [`Connection`] shows. The [`Stamp`] of a cluster says that its configuration was rendered from
//! the policy, which vouches for what hosts do not show.

mod carried;
mod certificate;
mod host;
mod known;
mod policy;
mod stamp;
mod status;

pub use carried::Carried;
pub use certificate::{is_first_name, name_proof};
pub use host::{UpstreamHost, UpstreamPattern};
pub use policy::{EffectivePolicy, Policy, PolicyRule, Skip, TlsVersion, Unlisted};
pub use stamp::Stamp;
pub use status::{RefusalScope, UpstreamStatus, upstream_status_name};

use crate::decision::DenyReason;

/// What the policy asks of the connection to a host.
#[derive(Clone, Debug)]
pub enum Demand<'a> {
    /// Nothing, until the day of the exception ends.
    Skip(&'a Skip),
    /// Nothing: no rule is for the host.
    Unlisted,
    /// Everything in the requirement.
    Verify(Requirement<'a>),
}

/// What a connection must show, besides a certificate for the host's name.
#[derive(Clone, Debug)]
pub struct Requirement<'a> {
    /// The lowest version of TLS.
    pub min_version: TlsVersion,
    /// Sets of SHA-256 digests; the digest of the upstream's certificate must be in each.
    pub pins: Vec<&'a [String]>,
    /// Whether the proxy must have a client certificate for the connection.
    pub client_certificate: bool,
}

/// What a host shows of the connection to an upstream. Only what the policy needs is called,
/// because each method costs a host call.
pub trait Connection {
    /// Whether the connection is up, its handshake done.
    fn is_up(&self) -> bool;

    /// The version of TLS; `None` for plaintext, before the handshake, and if the host does not
    /// show it.
    fn tls_version(&self) -> Option<TlsVersion>;

    /// SHA-256 of the upstream's certificate in lower-case hexadecimal digits; `None` if not shown.
    fn certificate_digest(&self) -> Option<String>;

    /// Whether the upstream's certificate is valid for the name of a host.
    fn name_proof(&self, host: &UpstreamHost<'_>) -> NameProof;

    /// Whether the proxy has a client certificate for the connection.
    fn has_client_certificate(&self) -> bool;
}

/// Whether a certificate is valid for a name, as far as the host shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameProof {
    /// It is.
    Matches,
    /// Its first name differs; the others are not shown.
    FirstDiffers,
    /// It is not.
    Differs,
    /// No name is shown.
    NotShown,
}

/// The result of checking the connection to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no TLS. No rule of the policy is for the host, and the `plaintext` of the credential allows that for a
    /// while.
    Plaintext,
    /// It breaks the policy.
    Refused(DenyReason),
    /// It was not verified: the policy skips the upstream for a while.
    Skip,
    /// The host does not show all that the policy asks for; the cluster's stamp vouches for it.
    Stamped,
    /// No rule of the policy is for the host.
    Unlisted,
    /// It shows all that the policy asks for.
    Verified,
}

// === impl Demand ===

impl Demand<'_> {
    /// Whether the policy covers the host: by a rule, even one that skips the check, or because it verifies unlisted
    /// hosts too.
    pub fn is_covered(&self) -> bool {
        !matches!(self, Self::Unlisted)
    }

    /// Whether the connection is verified.
    pub fn is_verified(&self) -> bool {
        matches!(self, Self::Verify(_))
    }
}

// === impl Requirement ===

impl<'a> Requirement<'a> {
    fn new(min_version: TlsVersion) -> Self {
        Self { min_version, pins: Vec::new(), client_certificate: false }
    }

    /// Adds what a rule asks for.
    fn add(&mut self, rule: &'a PolicyRule) {
        self.min_version = rule.min_version.map_or(self.min_version, |v| v.max(self.min_version));
        self.client_certificate |= rule.client_certificate;
        if !rule.pins.is_empty() {
            self.pins.push(&rule.pins);
        }
    }

    /// Checks the connection to a host. `None` while there is nothing to check: the connection is
    /// not up, or this host shows none. `stamped`: the cluster has the policy's [`Stamp`].
    pub fn evaluate(
        &self,
        host: &UpstreamHost<'_>,
        connection: &impl Connection,
        stamped: bool,
    ) -> Option<Verdict> {
        let version = connection.tls_version();
        if version.is_none() && !connection.is_up() {
            return None;
        }
        // The host cannot be read, so no certificate can be valid for it.
        if *host == UpstreamHost::Unreadable {
            return Some(Verdict::Refused(DenyReason::UpstreamName));
        }
        let Some(version) = version else {
            return Some(Verdict::Refused(DenyReason::UpstreamPlaintext));
        };
        if version < self.min_version {
            return Some(Verdict::Refused(DenyReason::UpstreamVersion));
        }
        let pins = self.check_pins(connection, stamped);
        let proof = pins.and_then(|pins| Ok(pins.min(check_name(host, connection, stamped)?)));
        Some(match proof {
            Err(reason) => Verdict::Refused(reason),
            Ok(_) if self.client_certificate && !connection.has_client_certificate() => {
                Verdict::Refused(DenyReason::UpstreamClientCert)
            }
            // Last, because a wrong value is a better reason than a hidden one.
            Ok(Proof::None) => Verdict::Refused(DenyReason::UpstreamUnproven),
            Ok(Proof::Vouched) => Verdict::Stamped,
            Ok(Proof::Shown) => Verdict::Verified,
        })
    }

    fn check_pins(&self, connection: &impl Connection, stamped: bool) -> Result<Proof, DenyReason> {
        if self.pins.is_empty() {
            return Ok(Proof::Shown);
        }
        match connection.certificate_digest() {
            Some(digest) if self.pins.iter().all(|pins| pins.contains(&digest)) => Ok(Proof::Shown),
            Some(_) => Err(DenyReason::UpstreamPin),
            None => Ok(Proof::of_hidden(stamped)),
        }
    }
}

/// How a point was proven, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Proof {
    None,
    Vouched,
    Shown,
}

// === impl Proof ===

impl Proof {
    /// The stamp vouches for what is not shown.
    fn of_hidden(stamped: bool) -> Self {
        if stamped { Self::Vouched } else { Self::None }
    }
}

fn check_name(
    host: &UpstreamHost<'_>,
    connection: &impl Connection,
    stamped: bool,
) -> Result<Proof, DenyReason> {
    match connection.name_proof(host) {
        NameProof::Matches => Ok(Proof::Shown),
        NameProof::FirstDiffers if stamped => Ok(Proof::Vouched),
        NameProof::FirstDiffers | NameProof::Differs => Err(DenyReason::UpstreamName),
        NameProof::NotShown => Ok(Proof::of_hidden(stamped)),
    }
}

// === impl Verdict ===

impl Verdict {
    /// The word in audit lines and metrics; the reason's code for a refusal.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Refused(reason) => reason.code(),
            Self::Skip => "skip",
            Self::Stamped => "stamped",
            Self::Unlisted => "unlisted",
            Self::Verified => "verified",
        }
    }

    /// The verdict of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        let plain = [Self::Plaintext, Self::Skip, Self::Stamped, Self::Unlisted, Self::Verified];
        plain.into_iter().find(|verdict| verdict.word() == word).or_else(|| {
            let reason = DenyReason::from_code(word)?;
            let of_gate = reason == DenyReason::NotReady
                || reason.class() == crate::decision::DenyClass::Upstream;
            of_gate.then_some(Self::Refused(reason))
        })
    }

    /// The reason, if the request is refused.
    pub fn refusal(self) -> Option<DenyReason> {
        match self {
            Self::Refused(reason) => Some(reason),
            Self::Plaintext | Self::Skip | Self::Stamped | Self::Unlisted | Self::Verified => None,
        }
    }
}

#[cfg(test)]
mod tests;
