//! A request with its decision, and its audit record.

use std::borrow::Cow;
use std::rc::Rc;

use crate::alerts::anomaly::Anomaly;
use crate::audit::{Amounts, AuditRecord, Mask, Prepared, TokenSource, Tokens};
use crate::body::TokenUsage;
use crate::body::mcp::MethodClass;
use crate::decision::{Decision, DenyReason};
use crate::engine::KnownKey;
use crate::limits::tally::{Exceeded, Exhausted};
use crate::upstream_tls::Verdict;

use super::seen::Seen;

/// A request with its decision. If it was not forwarded, nothing of it reaches an upstream.
#[derive(Debug)]
pub struct Decided {
    seen: Box<Seen>,
    key: Option<Rc<KnownKey>>,
    decision: Decision,
    exceeded: Option<Exceeded>,
    anomaly: Option<Anomaly>,
    is_local: bool,
    verdict: Option<Verdict>,
    /// Boxed, because most requests have none.
    usage: Option<Box<Usage>>,
    is_recorded: bool,
}

/// What a request used of an AI service, as an audit line says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The model that the response names, if that is another one than was asked for.
    pub served: Option<Box<str>>,
    /// The tokens.
    pub tokens: Option<Tokens>,
    /// What they cost, micro-USD; `None` without a price.
    pub micro_usd: Option<u64>,
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
    /// Whether it was charged to what is left to this proxy while the ledger does not respond.
    pub is_local: bool,
    /// What kind of method the MCP call of the request has.
    pub mcp: Option<MethodClass>,
}

impl Decided {
    /// A request for which no key was verified.
    pub fn without_key(seen: Box<Seen>, decision: Decision) -> Self {
        Self {
            seen,
            key: None,
            decision,
            exceeded: None,
            anomaly: None,
            is_local: false,
            verdict: None,
            usage: None,
            is_recorded: false,
        }
    }

    /// A request with a verified key, valid or not.
    pub fn with_key(seen: Box<Seen>, key: Rc<KnownKey>, decision: Decision) -> Self {
        Self { key: Some(key), ..Self::without_key(seen, decision) }
    }

    /// The same request, with the limit that had no room and what is unusual about the use of its key.
    #[must_use]
    pub fn counted(self, exceeded: Option<Exceeded>, anomaly: Option<Anomaly>) -> Self {
        Self { exceeded, anomaly, ..self }
    }

    /// The same request, charged to what is left to this proxy while the ledger does not respond, or not.
    #[must_use]
    pub fn charged_locally(self, is_local: bool) -> Self {
        Self { is_local, ..self }
    }

    /// The same request, with the verdict on its upstream.
    #[must_use]
    pub fn with_verdict(self, verdict: Option<Verdict>) -> Self {
        Self { verdict, ..self }
    }

    /// The same request, with what it would have used.
    #[must_use]
    pub fn with_usage(self, usage: Option<Usage>) -> Self {
        Self { usage: usage.map(Box::new), ..self }
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
    pub fn key(&self) -> Option<&Rc<KnownKey>> {
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

    /// Whether the access loggers have the record of the request, and it is counted.
    pub fn is_recorded(&self) -> bool {
        self.is_recorded
    }

    pub(super) fn set_recorded(&mut self) {
        self.is_recorded = true;
    }

    pub(super) fn set_usage(&mut self, usage: Usage) {
        self.usage = Some(Box::new(usage));
    }

    /// Records that what the request reserved stays charged.
    pub fn keep_charged(&mut self, micro_usd: u64) {
        if let Some(usage) = &mut self.usage {
            usage.micro_usd = usage.micro_usd.map(|_| micro_usd);
            if let Some(tokens) = &mut usage.tokens {
                tokens.source = TokenSource::Reserved;
            }
        }
    }

    /// What its record adds to the totals of a chain.
    pub fn amounts(&self) -> Amounts {
        let charged = self.charged();
        Amounts {
            decision: Some(self.decision),
            tokens: charged.map_or(0, |(usage, _)| usage.total),
            cost: charged.and_then(|(_, micro_usd)| micro_usd).unwrap_or(0),
        }
    }

    /// The tokens that it was charged, and their cost in micro-USD.
    pub fn charged(&self) -> Option<(TokenUsage, Option<u64>)> {
        let usage = self.usage.as_deref()?;
        let tokens = usage.tokens.filter(|tokens| tokens.source != TokenSource::Nothing)?;
        Some((tokens.usage, usage.micro_usd))
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
            tenant: self.key.as_ref().map(|key| key.tenant()),
            exhausted: self.exceeded.map(|exceeded| exceeded.exhausted),
            anomaly: self.anomaly,
            is_local: self.is_local,
            mcp: self.seen.method_class(),
        }
    }

    /// The audit record of the request, as far as it is known by now.
    #[inline(never)] // once, for requests that end early and at their end
    pub fn record(&self) -> AuditRecord<'_> {
        let key = self.key.as_deref().map(KnownKey::record).unwrap_or_default();
        let AuditRecord { kid, jti, tenant, sub, tier, caveats, .. } = key;
        AuditRecord { kid, jti, tenant, sub, tier, caveats, ..self.record_of_request() }
    }

    /// The record in its final bytes. `prepared`: what it shares with those of other requests.
    pub fn written_record(&self, prepared: Prepared<'_>, mask: &Mask) -> String {
        let key = self.key.as_ref().map(|key| key.members());
        self.record_of_request().write_prepared(&Prepared { key, ..prepared }, mask)
    }

    /// The record without the members of the key.
    fn record_of_request(&self) -> AuditRecord<'_> {
        let usage = self.usage.as_deref();
        // Records are large: this one is completed in place.
        let mut record = self.seen.record();
        record.decision = Some(self.decision);
        record.tls_verdict = self.verdict.map(|verdict| Cow::Borrowed(verdict.word()));
        record.anomaly = self.anomaly.map(|anomaly| Cow::Borrowed(anomaly.word()));
        record.is_local = self.is_local;
        record.model = self.seen.model(usage.and_then(|usage| usage.served.as_deref()));
        record.tokens = usage.and_then(|usage| usage.tokens);
        record.cost = usage.and_then(|usage| usage.micro_usd);
        record
    }
}
