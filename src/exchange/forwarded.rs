//! A request on its way to the upstream, with its reservations.

use std::rc::Rc;

use crate::decision::{Decision, DenyReason};
use crate::engine::KnownKey;
use crate::limits::Amounts;
use crate::limits::tally::Reservation;
use crate::upstream_tls::{Carried, UpstreamHost, Verdict};

use super::decided::{Decided, Usage};
use super::filtering::Filtering;
use super::handover::Handover;
use super::metering::Metering;

/// A forwarded request. Nothing is left for the module to change about it.
#[derive(Debug)]
pub struct Forwarded {
    decided: Decided,
    route: Route,
    /// `None` for a request without a key. Boxed, because the request passes from phase to phase.
    reservations: Option<Box<Reservations>>,
    handover: Option<Rc<Handover>>,
    is_settled: bool,
}

/// What to do with the response.
#[derive(Debug, Default)]
pub struct Pending {
    /// The `RateLimit` header of the response.
    pub rate_limit: Option<String>,
    /// The response may open an MCP session, which its key may end for free.
    pub may_open_session: bool,
    /// What is settled at the end of the response.
    pub metering: Option<Box<Metering>>,
    /// What a client sees of the lists of the response.
    pub filtering: Option<Box<Filtering>>,
}

/// What an admitted request reserved, for a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservations {
    /// The decision that it was counted as.
    pub decision: Decision,
    /// What it reserved of the limits of its key.
    pub key: Option<Reservation>,
    /// What it reserved of the limits of its tenant.
    pub tenant: Option<Reservation>,
    /// The tokens and the money that it reserved of both.
    pub amounts: Amounts,
}

impl Reservations {
    /// Whether anything was reserved.
    pub fn is_charged(&self) -> bool {
        self.key.is_some() || self.tenant.is_some()
    }
}

/// What is refunded to a request that is refused after it was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refund {
    /// All of it: no byte of the request has left.
    Everything,
    /// Nothing: what was sent is paid for.
    Nothing,
}

/// What the route of a request was checked against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The authority that the client named, if connections to it are checked.
    pub upstream: Option<UpstreamHost<'static>>,
    /// The name of the cluster, if the verdict depends on it.
    pub cluster: Option<String>,
    /// Whether the policy verifies the upstream.
    pub verified: bool,
    /// Whether the cluster must carry the policy's stamp.
    pub needs_stamp: bool,
    /// The provider's credential that was attached before the route was taken.
    pub attached: Carried,
    /// Whether a verdict on the connection, or on the body of the request, may still come.
    pub awaits_verdict: bool,
}

impl Forwarded {
    /// A request of a key.
    pub fn for_key(decided: Decided, route: Route, reservations: Reservations) -> Self {
        let reservations = Some(Box::new(reservations));
        Self { decided, route, reservations, handover: None, is_settled: false }
    }

    /// A request that needs no key: a preflight, or a public one.
    pub fn without_key(decided: Decided, route: Route) -> Self {
        Self { decided, route, reservations: None, handover: None, is_settled: false }
    }

    /// The request, with what the gate of its cluster hands over.
    #[must_use]
    pub fn with_handover(self, handover: Option<Rc<Handover>>) -> Self {
        Self { handover, ..self }
    }

    /// What the gate of its cluster hands over, if that may be in the same VM.
    pub fn handover(&self) -> Option<&Handover> {
        self.handover.as_deref()
    }

    /// The request with its decision.
    pub fn decided(&self) -> &Decided {
        &self.decided
    }

    /// What the route was checked against.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Whether this is the preflight of a browser.
    pub fn is_preflight(&self) -> bool {
        self.decided.decision() == Decision::Preflight
    }

    /// Records the verdict on the connection to the upstream.
    pub fn set_verdict(&mut self, verdict: Verdict) {
        self.decided.set_verdict(verdict);
    }

    /// Takes what it reserved, and its key, to settle them, once. Afterwards nothing is left to refund, but it can still
    /// be counted as refused.
    pub fn settle(&mut self) -> Option<(Rc<KnownKey>, Reservations)> {
        if std::mem::replace(&mut self.is_settled, true) {
            return None;
        }
        let open = self.reservations.as_deref_mut()?;
        let settled = open.clone();
        (open.key, open.tenant) = (None, None);
        Some((Rc::clone(self.decided.key()?), settled))
    }

    /// Whether what it used took the place of what it had reserved.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Records what the response used.
    pub fn set_usage(&mut self, usage: Usage) {
        self.decided.set_usage(usage);
    }

    /// Refuses the request after all. Returns its key and its reservations, for the refund.
    pub fn refuse(self, reason: DenyReason) -> (Decided, Option<(Rc<KnownKey>, Reservations)>) {
        let reservations = self.reservations.map(|reservations| *reservations);
        let reserved = self.decided.key().cloned().zip(reservations);
        (self.decided.refused(reason), reserved)
    }

    pub(super) fn set_recorded(&mut self) {
        self.decided.set_recorded();
    }

    pub(super) fn pass_body(&mut self, bytes: u64) {
        self.decided.pass_body(bytes);
    }
}
