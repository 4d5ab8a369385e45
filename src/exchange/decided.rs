//! A request with its decision, and its audit record.

use std::borrow::Cow;
use std::rc::Rc;

use crate::alerts::anomaly::Anomaly;
use crate::audit::AuditRecord;
use crate::decision::{Decision, DenyReason};
use crate::key::Key;
use crate::key::claims::Claims;
use crate::limits::ledger::{Exceeded, Exhausted};
use crate::upstream_tls::Verdict;

use super::seen::Seen;

/// A request with its decision. If it was not forwarded, nothing of it reaches an upstream.
#[derive(Debug)]
pub struct Decided {
    seen: Box<Seen>,
    key: Option<Rc<Key>>,
    decision: Decision,
    exceeded: Option<Exceeded>,
    anomaly: Option<Anomaly>,
    verdict: Option<Verdict>,
}

/// What a request came to, for the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome<'a> {
    /// The decision; `None` if the module never saw the request.
    pub decision: Option<Decision>,
    /// The tenant of the key, if one was verified.
    pub tenant: Option<&'a str>,
    /// The limit that had no room.
    pub exhausted: Option<Exhausted>,
    /// What is unusual about the use of the key.
    pub anomaly: Option<Anomaly>,
}

/// What the host knows of a request that has ended.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// The HTTP status that the client received.
    pub status: Option<u64>,
    /// Bytes received from the client.
    pub bytes_in: Option<u64>,
    /// Bytes sent to the client.
    pub bytes_out: Option<u64>,
    /// The address of the upstream.
    pub upstream: Option<String>,
    /// Unix nanoseconds.
    pub now_ns: Option<u64>,
}

impl Decided {
    /// A request for which no key was verified.
    pub fn without_key(seen: Box<Seen>, decision: Decision) -> Self {
        Self { seen, key: None, decision, exceeded: None, anomaly: None, verdict: None }
    }

    /// A request with a verified key, valid or not.
    pub fn with_key(seen: Box<Seen>, key: Rc<Key>, decision: Decision) -> Self {
        Self { key: Some(key), ..Self::without_key(seen, decision) }
    }

    /// The same request, with the limit that had no room and what is unusual about the use of its key.
    #[must_use]
    pub fn counted(self, exceeded: Option<Exceeded>, anomaly: Option<Anomaly>) -> Self {
        Self { exceeded, anomaly, ..self }
    }

    /// The same request, with the verdict on its upstream.
    #[must_use]
    pub fn with_verdict(self, verdict: Option<Verdict>) -> Self {
        Self { verdict, ..self }
    }

    /// The same request, refused.
    #[must_use]
    pub fn refused(self, reason: DenyReason) -> Self {
        Self { decision: Decision::Deny(reason), ..self }
    }

    /// What the request said of itself.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The verified key.
    pub fn key(&self) -> Option<&Rc<Key>> {
        self.key.as_ref()
    }

    /// The final decision.
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// The verdict on the connection to the upstream.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    pub(super) fn set_verdict(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }

    pub(super) fn hold_body(&mut self, bytes: u64) {
        self.seen.hold_body(bytes);
    }

    pub(super) fn pass_body(&mut self, bytes: u64) {
        self.seen.pass_body(bytes);
    }

    /// What the request came to.
    pub fn outcome(&self) -> Outcome<'_> {
        Outcome {
            decision: Some(self.decision),
            tenant: self.key.as_ref().map(|key| key.claims().tenant.as_str()),
            exhausted: self.exceeded.map(|exceeded| exceeded.exhausted),
            anomaly: self.anomaly,
        }
    }

    /// The audit record of the request when it has ended.
    pub fn record<'a>(&'a self, ending: &'a Ending) -> AuditRecord<'a> {
        let claims = self.key.as_ref().map(|key| key.claims());
        let claim = |text: fn(&Claims) -> Option<&str>| claims.and_then(text).map(Cow::Borrowed);
        AuditRecord {
            decision: Some(self.decision),
            kid: self.key.as_ref().map(|key| Cow::Borrowed(key.kid().as_str())),
            jti: claim(|claims| Some(&claims.jti)),
            tenant: claim(|claims| Some(&claims.tenant)),
            sub: claim(|claims| claims.sub.as_deref()),
            tier: claim(|claims| Some(claims.tier())),
            caveats: self.key.as_ref().and_then(|key| key.caveats_len().try_into().ok()),
            tls_verdict: self.verdict.map(|verdict| Cow::Borrowed(verdict.word())),
            anomaly: self.anomaly.map(|anomaly| Cow::Borrowed(anomaly.word())),
            ..ending.record(&self.seen)
        }
    }
}

impl Ending {
    /// The audit record of a request that ended and was never decided.
    pub fn record<'a>(&'a self, seen: &'a Seen) -> AuditRecord<'a> {
        AuditRecord {
            status: self.status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_ns: self.now_ns.map(|now_ns| now_ns.saturating_sub(seen.at_ns())),
            upstream: self.upstream.as_deref().map(Cow::Borrowed),
            ..seen.record()
        }
    }
}
