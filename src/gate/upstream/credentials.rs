//! Provider credentials at the upstream gate: attached only to an attempt whose connection was checked.

use crate::access::canonical_host;
use crate::config::NamedCredential;
use crate::exchange::{ATTACHED, plaintext_until};
use crate::host::{FilterState, Host, HostError, Property};
use crate::upstream_tls::{Carried, UpstreamHost, Verdict};

#[cfg(doc)]
use super::turn::Turn;

/// The credentials of one upstream gate.
#[derive(Default)]
pub(in crate::gate) struct Credentials(Vec<NamedCredential>);

/// A credential that an attempt may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gate) struct Granted {
    index: usize,
    /// What it asks of the connection.
    pub(in crate::gate) carried: Carried,
}

impl Credentials {
    pub(in crate::gate) fn new(credentials: Vec<NamedCredential>) -> Self {
        Self(credentials)
    }

    /// The credential that an attempt may have: one that the gate has granted, for the authority that is sent.
    /// `words`: see [`Turn::words`].
    pub(in crate::gate) fn grant(&self, words: Option<&str>, authority: &[u8]) -> Option<Granted> {
        if self.0.is_empty() {
            return None;
        }
        let name = canonical_host(authority)?;
        let meant = |held: &&NamedCredential| held.credential.is_for(&name);
        let index = self.0.iter().position(|held| meant(&held) && grants(words, held))?;
        let until_secs = self.0.get(index)?.credential.plaintext_until_secs;
        Some(Granted { index, carried: Carried::Credential(until_secs) })
    }

    /// The credential of an attempt, if its `plaintext` has ended.
    pub(in crate::gate) fn ended(
        &self,
        granted: Granted,
        now_secs: u64,
    ) -> Option<&NamedCredential> {
        self.0.get(granted.index).filter(|_| granted.carried.has_expired(now_secs))
    }

    /// Attaches a credential to an attempt with this verdict, and replaces the header that is there. The headers of
    /// other granted credentials are removed, because the attempts of a request share one header map.
    ///
    /// # Errors
    ///
    /// [`HostError`] if the attempt may carry a credential that it must not.
    pub(in crate::gate) fn attach(
        &self,
        host: &impl Host,
        words: Option<&str>,
        grant: Option<Granted>,
        verdict: Verdict,
    ) -> Result<(), HostError> {
        let fit = matches!(verdict, Verdict::Verified | Verdict::Stamped | Verdict::Plaintext);
        let held = grant.filter(|_| fit).and_then(|granted| self.0.get(granted.index));
        let attached = held.map(|held| &held.credential);
        if let Some(credential) = attached {
            host.set_request_header(&credential.header, &credential.value)?;
        }
        let kept = attached.map(|credential| credential.header.as_str());
        let others = |held: &&NamedCredential| Some(held.credential.header.as_str()) != kept;
        for held in self.0.iter().filter(|held| others(held) && grants(words, held)) {
            host.remove_request_header(held.credential.header.as_bytes())?;
        }
        Ok(())
    }
}

/// What was attached to an attempt before routing. A mirrored request shows no decision of its gate, and may carry what
/// the original carries.
pub(in crate::gate) fn attached(
    host: &impl Host,
    words: Option<&str>,
    upstream: &UpstreamHost<'_>,
) -> Carried {
    let Some(words) = words else {
        let decision = host.property(Property::FilterState(FilterState::Decision));
        return decision.map_or(Carried::VERIFIED_ONLY, |_| Carried::Nothing);
    };
    if !words.split(' ').any(|word| word == ATTACHED) {
        return Carried::Nothing;
    }
    let until_secs = words.split(' ').find_map(|word| plaintext_until(word, upstream));
    Carried::Credential(until_secs.unwrap_or(0))
}

fn grants(words: Option<&str>, held: &NamedCredential) -> bool {
    words.is_some_and(|words| words.split(' ').any(|word| word == held.name))
}
