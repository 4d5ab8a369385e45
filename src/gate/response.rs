//! The gate at the response: which connection it came over, and what happens if that connection breaks the policy.

use std::cell::OnceCell;

use crate::decision::{Decision, DenyReason};
use crate::exchange::{Asked, Decided, Forwarded, Refund, Response};
use crate::host::{Host, RecordStore};
use crate::reply::{Reply, reply};
use crate::upstream_tls::{RefusalScope, UpstreamHost, Verdict};

use super::request::withdraw;
use super::upstream::connection::{is_local_reply, is_up};
use super::upstream::state::{GateVerdict, Refused};
use super::upstream::verdicts::{Conclusion, now_secs};
use super::{Admission, Gate};

/// The verdict of the upstream gate on the connection that a response came over.
enum Gated {
    /// There is no upstream gate, or it has checked nothing.
    No,
    /// It has checked another connection: parallel attempts share one verdict.
    Elsewhere,
    /// It forwarded the request.
    Passed(Verdict),
    /// It refused the request and replied.
    Refused(Refused),
}

/// Why a response is withheld.
pub(super) struct Withheld {
    pub(super) reason: DenyReason,
    pub(super) refund: Refund,
    /// `None` if the upstream gate has replied.
    pub(super) reply: Option<Reply>,
}

impl Gated {
    fn of(host: &impl Host, request: &Forwarded) -> Self {
        let handover = request.handover();
        if let Some(verdict) = handover.and_then(|handover| handover.response(|r| r.verdict)) {
            return Self::Passed(verdict);
        }
        match GateVerdict::of(host, handover) {
            None => Self::No,
            Some(GateVerdict::Refused(refused)) => Self::Refused(refused),
            Some(GateVerdict::Passed { verdict, place }) if place.is_shown(host) => {
                Self::Passed(verdict)
            }
            Some(GateVerdict::Passed { .. }) => Self::Elsewhere,
        }
    }
}

impl Gate {
    /// Checks the connection that a response came over, and records the verdict. If the cluster has an upstream gate,
    /// that has checked the connection already, but not by the rules that this configuration adds.
    pub(super) fn check_response(
        &self,
        host: &impl Host,
        request: &mut Forwarded,
    ) -> Option<Withheld> {
        let gated = Gated::of(host, request);
        if !matches!(gated, Gated::No) {
            self.has_gates.set(true);
        }
        if let Gated::Refused(Refused { reason, sent }) = gated {
            let refund = if sent { Refund::Nothing } else { Refund::Everything };
            request.set_verdict(Verdict::Refused(reason));
            return Some(Withheld { reason, refund, reply: None });
        }
        let clock = OnceCell::new();
        let now_secs = || *clock.get_or_init(|| now_secs(host.now_ns()));
        let refused = self.check_taken_route(host, request, &gated, now_secs);
        let conclusion = match refused {
            Some(reason) => Conclusion::refused(reason),
            None => match self.check_connection(host, request, &gated, now_secs)? {
                Checked::Settled(verdict) => {
                    request.set_verdict(verdict);
                    return None;
                }
                Checked::Concluded(conclusion) => conclusion,
            },
        };
        // If the upstream gate forwarded the request, only the name is wrong. The client chose that name, so nobody
        // else is refused for it.
        let by_name = refused.is_none()
            && matches!(gated, Gated::Passed(_))
            && !request.route().attached.is_credential();
        let scope = if by_name { RefusalScope::Host } else { RefusalScope::Checked };
        self.record(host, request, &conclusion, scope, now_secs());
        request.set_verdict(conclusion.verdict);
        let reason = conclusion.verdict.refusal()?;
        let reply = Some(reply(reason, request.decided().seen().refusal()));
        Some(Withheld { reason, refund: Refund::Nothing, reply })
    }

    /// Why the request should not have taken the route that it took.
    fn check_taken_route(
        &self,
        host: &impl Host,
        request: &Forwarded,
        gated: &Gated,
        now_secs: impl Fn() -> u64,
    ) -> Option<DenyReason> {
        let route = request.route();
        // An upstream gate has checked its own connection, but requires a stamp only if its configuration says so.
        if matches!(gated, Gated::Passed(_)) && !route.needs_stamp {
            return None;
        }
        // A verdict that depends on no cluster holds for every cluster.
        route.cluster.as_ref()?;
        let named = named_upstream(request);
        let refused = self.upstreams.check_taken_route(host, route, &named, now_secs());
        if matches!(gated, Gated::No) && !is_local_reply(host) {
            self.upstreams.record_missing_gate(
                host,
                route,
                &named,
                RefusalScope::Checked,
                now_secs(),
            );
        }
        refused
    }

    fn check_connection(
        &self,
        host: &impl Host,
        request: &Forwarded,
        gated: &Gated,
        now_secs: impl Fn() -> u64,
    ) -> Option<Checked> {
        let route = request.route();
        let (upstream, attached) = (route.upstream.as_ref(), route.attached);
        if let Some(verdict) = upstream.and_then(|upstream| self.settled(request, upstream)) {
            return Some(Checked::Settled(verdict));
        }
        let tightened = || upstream.is_some_and(|upstream| self.upstreams.tightens(upstream));
        // A route may have named another host, and only the upstream gate sees to which one the request was sent. So without
        // it a credential has no exception.
        let check = |upstream| {
            let attached = attached.elsewhere();
            let conclusion = self.upstreams.check_ungated(host, upstream, attached, now_secs());
            conclusion.map(Checked::Concluded)
        };
        match *gated {
            Gated::No | Gated::Elsewhere | Gated::Refused(_) => check(upstream?),
            // A credential that was attached before routing is for the authority that the client named. The upstream
            // gate has checked the authority that was sent.
            Gated::Passed(verdict) if attached.is_credential() => {
                let refuses = |checked: &Conclusion| checked.verdict.refusal().is_some();
                let conclusion =
                    self.upstreams.check_ungated(host, upstream?, attached, now_secs());
                let refused = conclusion.filter(refuses);
                Some(refused.map_or(Checked::Settled(verdict), Checked::Concluded))
            }
            Gated::Passed(Verdict::Unlisted | Verdict::Skip | Verdict::Plaintext)
                if tightened() =>
            {
                check(upstream?)
            }
            Gated::Passed(verdict) => {
                let proven = matches!(verdict, Verdict::Verified | Verdict::Stamped);
                let again = |upstream| self.upstreams.check_again(host, upstream, now_secs());
                let refused = upstream.filter(|_| proven).and_then(again);
                Some(refused.map_or(Checked::Settled(verdict), Checked::Concluded))
            }
        }
    }

    /// The verdict of the upstream gate, if it has checked the connection of the response by the same rules for the host
    /// that the client named.
    fn settled(&self, request: &Forwarded, named: &UpstreamHost<'_>) -> Option<Verdict> {
        let settled = |response: &Response| {
            self.upstreams.is_settled(response, named).then_some(response.verdict)
        };
        request.handover()?.response(settled).flatten()
    }

    /// Checks the connection of a request that has ended, by the authority that was sent upstream. It is not checked
    /// earlier if nothing was known to depend on it. A connection that breaks the policy is recorded, and its cluster
    /// refused. `has_response`: a response came before the end.
    pub(super) fn check_late(&self, host: &impl Host, request: &mut Forwarded, has_response: bool) {
        if !has_response {
            // The client did not wait. If the upstream gate has a verdict, that holds.
            match Gated::of(host, request) {
                Gated::Passed(verdict) => return request.set_verdict(verdict),
                Gated::Refused(Refused { reason, .. }) => {
                    return request.set_verdict(Verdict::Refused(reason));
                }
                Gated::No | Gated::Elsewhere if !is_up(host) => return,
                Gated::No | Gated::Elsewhere => {}
            }
        }
        let Some(authority) = host.authority() else {
            return;
        };
        let now_secs = now_secs(host.now_ns());
        let upstream = UpstreamHost::parse(&authority);
        // A route that rewrites the authority does so for every client.
        let rewritten = named_upstream(request) != upstream;
        let attached = request.route().attached.elsewhere();
        let conclusion = self.upstreams.check_ended(host, &upstream, attached, now_secs);
        let Some(conclusion) = conclusion else {
            return;
        };
        let scope = if rewritten { RefusalScope::Every } else { RefusalScope::Checked };
        self.record(host, request, &conclusion, scope, now_secs);
        self.upstreams.record_missing_gate(host, request.route(), &upstream, scope, now_secs);
        request.set_verdict(conclusion.verdict);
    }

    /// Records a verdict reached after the request was sent, and which further requests are refused for it.
    fn record(
        &self,
        host: &impl Host,
        request: &Forwarded,
        conclusion: &Conclusion,
        scope: RefusalScope,
        now_secs: u64,
    ) {
        let named = named_upstream(request);
        let withheld = conclusion.verdict.refusal().map(|_| (&named, scope));
        self.upstreams.record(host, &self.metrics, conclusion, withheld, now_secs);
    }

    /// Refuses a request whose body was not read to its end, and counts that.
    pub(super) fn count_held(&self, host: &impl Host, asked: Asked, reason: DenyReason) -> Decided {
        let Asked { seen, key, .. } = asked;
        let decision = Decision::Deny(reason);
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow().ok());
        // If the engine is in use, the request is refused without being counted.
        let Some(engine) = engine else {
            return Decided::with_key(seen, key, decision);
        };
        let store = RecordStore::new(host, host.rules());
        let now_ns = host.now_ns().unwrap_or(0);
        let source = seen.source();
        let admitted = Admission::new(&store, &engine, &key, source, now_ns).admit(decision);
        self.metrics.count_retries(host, store.retries());
        self.resets.report(host, &store);
        Decided::with_key(seen, key, admitted.decision).counted(None, admitted.anomaly)
    }

    /// Refuses a forwarded request, and counts it as refused.
    pub(super) fn refuse(
        &self,
        host: &impl Host,
        request: Forwarded,
        reason: DenyReason,
        refund: Refund,
    ) -> Decided {
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow().ok());
        // If the engine is in use, the request is refused, but stays counted as it was.
        let Some(engine) = engine else {
            return request.refuse(reason).0;
        };
        let store = RecordStore::new(host, host.rules());
        let now_ns = host.now_ns().unwrap_or(0);
        let is_open = !request.is_settled();
        let decided = withdraw(&store, host, &engine, request, (reason, refund), now_ns);
        if let Some(key) = decided.key() {
            self.watch_budgets(host, key);
        }
        let tenant = decided.key().map(|key| key.tenant());
        let charged = decided.charged().filter(|_| is_open);
        if let Some((tenant, (usage, micro_usd))) = tenant.zip(charged) {
            self.metrics.count_usage(host, tenant, &usage, micro_usd);
        }
        self.metrics.count_retries(host, store.retries());
        self.resets.report(host, &store);
        decided
    }
}

/// The result of checking the connection of a response.
enum Checked {
    /// The upstream gate has a verdict.
    Settled(Verdict),
    /// This gate has checked the connection.
    Concluded(Conclusion),
}

/// The authority that the client named.
fn named_upstream(request: &Forwarded) -> UpstreamHost<'_> {
    let authority = request.decided().seen().authority();
    UpstreamHost::parse(authority.unwrap_or_default().as_bytes())
}
