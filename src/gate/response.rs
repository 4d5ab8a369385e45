//! The gate of the listener at the response: which connection it came over, and what follows if that breaks the
//! policy.

use std::cell::OnceCell;

use crate::decision::DenyReason;
use crate::exchange::{Decided, Forwarded, Refund};
use crate::host::{Host, RecordStore};
use crate::reply::{Refusal, Reply, reply};
use crate::upstream_tls::{RefusalScope, UpstreamHost, Verdict};

use super::Gate;
use super::request::withdraw;
use super::upstream::connection::{connection_id, is_own_answer, is_up};
use super::upstream::state::{GateVerdict, Refused};
use super::upstream::verdicts::{Conclusion, now_secs};

/// What the gate of the cluster made of the connection that a response came over.
enum Gated {
    /// There is no gate, or it did not get to judge.
    No,
    /// It has judged another connection: attempts that run side by side share its verdict.
    Elsewhere,
    /// It let the request go.
    Passed(Verdict),
    /// It answered itself.
    Refused(Refused),
}

/// Why a response is withheld.
pub(super) struct Withheld {
    pub(super) reason: DenyReason,
    pub(super) refund: Refund,
    /// `None` if the gate of the cluster has replied.
    pub(super) reply: Option<Reply>,
}

impl Gated {
    fn of(host: &impl Host) -> Self {
        match GateVerdict::of(host) {
            None => Self::No,
            Some(GateVerdict::Refused(refused)) => Self::Refused(refused),
            Some(GateVerdict::Passed { verdict, address }) if address == connection_id(host) => {
                Self::Passed(verdict)
            }
            Some(GateVerdict::Passed { .. }) => Self::Elsewhere,
        }
    }
}

impl Gate {
    /// Judges the connection that a response came over, and records the verdict. If the cluster has a gate, that
    /// has judged. It does not know the rules that only this configuration adds.
    pub(super) fn judge_response(
        &self,
        host: &impl Host,
        request: &mut Forwarded,
    ) -> Option<Withheld> {
        let gated = Gated::of(host);
        if let Gated::Refused(Refused { reason, sent }) = gated {
            let refund = if sent { Refund::Nothing } else { Refund::Everything };
            request.set_verdict(Verdict::Refused(reason));
            return Some(Withheld { reason, refund, reply: None });
        }
        let clock = OnceCell::new();
        let now_secs = || *clock.get_or_init(|| now_secs(host.now_ns()));
        let refused = self.judge_taken_route(host, request, &gated, now_secs);
        let conclusion = match refused {
            Some(reason) => Conclusion::refused(reason),
            None => match self.judge_connection(host, request, &gated, now_secs)? {
                Judgement::Settled(verdict) => {
                    request.set_verdict(verdict);
                    return None;
                }
                Judgement::Concluded(conclusion) => conclusion,
            },
        };
        // If the gate of the cluster let the request pass, only the name is wrong, which the client has chosen:
        // nobody else is refused for it.
        let by_name =
            refused.is_none() && matches!(gated, Gated::Passed(_)) && !request.route().in_front;
        let scope = if by_name { RefusalScope::Host } else { RefusalScope::Checked };
        self.record(host, request, &conclusion, scope, now_secs());
        request.set_verdict(conclusion.verdict);
        let reason = conclusion.verdict.refusal()?;
        let reply = Some(reply(reason, Refusal::default()));
        Some(Withheld { reason, refund: Refund::Nothing, reply })
    }

    /// Why the route that the request took in the end should not have been taken.
    fn judge_taken_route(
        &self,
        host: &impl Host,
        request: &Forwarded,
        gated: &Gated,
        now_secs: impl Fn() -> u64,
    ) -> Option<DenyReason> {
        let route = request.route();
        // The gate of a cluster has judged its own connection, but asks for a stamp only where it is told to.
        if matches!(gated, Gated::Passed(_)) && !route.needs_stamp {
            return None;
        }
        // What was judged by no cluster can have no other.
        route.cluster.as_ref()?;
        let named = named_upstream(request);
        let refused = self.upstreams.judge_taken_route(host, route, &named, now_secs());
        if matches!(gated, Gated::No) && !is_own_answer(host) {
            self.upstreams.miss_gate(host, route, &named, RefusalScope::Checked, now_secs());
        }
        refused
    }

    fn judge_connection(
        &self,
        host: &impl Host,
        request: &Forwarded,
        gated: &Gated,
        now_secs: impl Fn() -> u64,
    ) -> Option<Judgement> {
        let route = request.route();
        let (upstream, in_front) = (route.upstream.as_ref(), route.in_front);
        let tightened = || upstream.is_some_and(|upstream| self.upstreams.tightens(upstream));
        let judge = |upstream| {
            let conclusion = self.upstreams.judge_answer(host, upstream, in_front, now_secs());
            conclusion.map(Judgement::Concluded)
        };
        match *gated {
            Gated::No | Gated::Elsewhere | Gated::Refused(_) => judge(upstream?),
            // A credential that was attached in front is for the host that the client named, and the gate has
            // judged for the one that was asked in the end.
            Gated::Passed(verdict) if in_front => {
                let refuses = |judged: &Conclusion| judged.verdict.refusal().is_some();
                let conclusion = self.upstreams.judge_answer(host, upstream?, in_front, now_secs());
                let refused = conclusion.filter(refuses);
                Some(refused.map_or(Judgement::Settled(verdict), Judgement::Concluded))
            }
            Gated::Passed(Verdict::Unlisted | Verdict::Skip) if tightened() => judge(upstream?),
            Gated::Passed(verdict) => {
                let proven = matches!(verdict, Verdict::Verified | Verdict::Stamped);
                let again = |upstream| self.upstreams.judge_again(host, upstream, now_secs());
                let refused = upstream.filter(|_| proven).and_then(again);
                Some(refused.map_or(Judgement::Settled(verdict), Judgement::Concluded))
            }
        }
    }

    /// Judges the connection of a request that has ended by the authority that it was sent for in the end. That
    /// is not judged before if nothing was known to depend on it. A connection that breaks the policy is
    /// recorded, and its cluster refused. `has_response`: a response came before the end.
    pub(super) fn judge_late(&self, host: &impl Host, request: &mut Forwarded, has_response: bool) {
        if !has_response {
            // The client did not wait. What the gate of the cluster made of it, if it came so far, holds.
            match Gated::of(host) {
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
        let in_front = request.route().in_front;
        let conclusion = self.upstreams.judge_ended(host, &upstream, in_front, now_secs);
        let Some(conclusion) = conclusion else {
            return;
        };
        // A route that asks for another host does so whatever the client names.
        let rewritten = named_upstream(request) != upstream;
        let scope = if rewritten { RefusalScope::Every } else { RefusalScope::Checked };
        self.record(host, request, &conclusion, scope, now_secs);
        self.upstreams.miss_gate(host, request.route(), &upstream, scope, now_secs);
        request.set_verdict(conclusion.verdict);
    }

    /// Records what was judged after the request had left, and which requests are refused for it.
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

    /// Refuses a forwarded request, and counts it as refused.
    pub(super) fn refuse(
        &self,
        host: &impl Host,
        request: Forwarded,
        reason: DenyReason,
        refund: Refund,
    ) -> Decided {
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow().ok());
        // If the engine is in use, the request stays counted as it was, and is refused all the same.
        let Some(engine) = engine else {
            return request.refuse(reason).0;
        };
        let store = RecordStore::new(host, host.rules());
        let now_ns = host.now_ns().unwrap_or(0);
        let decided = withdraw(&store, host, &engine, request, (reason, refund), now_ns);
        self.metrics.count_retries(host, store.retries());
        self.resets.report(host, &store);
        decided
    }
}

/// What the connection of a response comes to.
enum Judgement {
    /// The gate of the cluster has concluded.
    Settled(Verdict),
    /// The conclusion is this gate's own.
    Concluded(Conclusion),
}

/// The authority that the client named.
fn named_upstream(request: &Forwarded) -> UpstreamHost<'_> {
    let authority = request.decided().seen().authority();
    UpstreamHost::parse(authority.unwrap_or_default().as_bytes())
}
