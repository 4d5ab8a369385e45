//! The gate of the listener at the response: which connection it came over, and what follows where that
//! breaks the policy.

use std::cell::OnceCell;

use crate::decision::{Decision, DenyReason};
use crate::exchange::{Exchange, Refund};
use crate::host::{Host, RecordStore};
use crate::reply::{Refusal, Reply, reply};
use crate::upstream_tls::{Scope, UpstreamHost, Verdict};

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
    /// Judges the connection that a response came over; the reply where the response is withheld. Where
    /// the cluster has a gate, that has judged. It does not know the rules that only this configuration
    /// adds.
    pub(super) fn judge_response(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
    ) -> Option<Reply> {
        let gated = Gated::of(host);
        if let Gated::Refused(Refused { reason, sent }) = gated {
            let refund = if sent { Refund::Nothing } else { Refund::Everything };
            exchange.judge_upstream(Verdict::Refused(reason));
            self.refuse(host, exchange, reason, refund);
            return None;
        }
        let clock = OnceCell::new();
        let now_secs = || *clock.get_or_init(|| now_secs(host.now_ns()));
        let refused = self.judge_taken_route(host, exchange, &gated, now_secs);
        let conclusion = match refused {
            Some(reason) => Conclusion::refused(reason),
            None => match self.judge_connection(host, exchange, &gated, now_secs)? {
                Judgement::Settled(verdict) => {
                    exchange.judge_upstream(verdict);
                    return None;
                }
                Judgement::Concluded(conclusion) => conclusion,
            },
        };
        // Where the gate of the cluster let the request go, it is the name alone that is wrong, which the
        // client has chosen: nobody else is refused for it.
        let in_front = exchange.route().is_some_and(|route| route.in_front);
        let by_name = refused.is_none() && matches!(gated, Gated::Passed(_)) && !in_front;
        let scope = if by_name { Scope::Host } else { Scope::Judged };
        self.record(host, exchange, &conclusion, scope, now_secs());
        exchange.judge_upstream(conclusion.verdict);
        let reason = conclusion.verdict.refusal()?;
        self.refuse(host, exchange, reason, Refund::Nothing);
        Some(reply(reason, Refusal::default()))
    }

    /// Why the route that the request took in the end should not have been taken.
    fn judge_taken_route(
        &self,
        host: &impl Host,
        exchange: &Exchange,
        gated: &Gated,
        now_secs: impl Fn() -> u64,
    ) -> Option<DenyReason> {
        let route = exchange.route()?;
        // The gate of a cluster has judged its own connection, but asks for a stamp only where it is told to.
        if matches!(gated, Gated::Passed(_)) && !route.needs_stamp {
            return None;
        }
        // What was judged by no cluster can have no other.
        route.cluster.as_ref()?;
        let named = named_upstream(exchange);
        let refused = self.upstreams.judge_taken_route(host, route, &named, now_secs());
        if matches!(gated, Gated::No) && !is_own_answer(host) {
            self.upstreams.miss_gate(host, Some(route), &named, Scope::Judged, now_secs());
        }
        refused
    }

    fn judge_connection(
        &self,
        host: &impl Host,
        exchange: &Exchange,
        gated: &Gated,
        now_secs: impl Fn() -> u64,
    ) -> Option<Judgement> {
        let upstream = exchange.route().and_then(|route| route.upstream.as_ref());
        let in_front = exchange.route().is_some_and(|route| route.in_front);
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

    /// Judges the connection of a request that has ended by the host that it was sent for in the end,
    /// which is not judged before where nothing was known to depend on it. What breaks the policy is
    /// recorded, and its cluster refused.
    pub(super) fn judge_late(&self, host: &impl Host, exchange: &mut Exchange) {
        if !exchange.is_answered() {
            // The client did not wait. What the gate of the cluster made of it, if it came so far, holds.
            match Gated::of(host) {
                Gated::Passed(verdict) => return exchange.judge_upstream(verdict),
                Gated::Refused(Refused { reason, .. }) => {
                    return exchange.judge_upstream(Verdict::Refused(reason));
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
        let in_front = exchange.route().is_some_and(|route| route.in_front);
        let conclusion = self.upstreams.judge_ended(host, &upstream, in_front, now_secs);
        let Some(conclusion) = conclusion else {
            return;
        };
        // A route that asks for another host does so whatever the client names.
        let rewritten = named_upstream(exchange) != upstream;
        let scope = if rewritten { Scope::Every } else { Scope::Judged };
        self.record(host, exchange, &conclusion, scope, now_secs);
        self.upstreams.miss_gate(host, exchange.route(), &upstream, scope, now_secs);
        exchange.judge_upstream(conclusion.verdict);
    }

    /// Records what was judged after the request had left, and which requests are refused for it.
    fn record(
        &self,
        host: &impl Host,
        exchange: &Exchange,
        conclusion: &Conclusion,
        scope: Scope,
        now_secs: u64,
    ) {
        let named = named_upstream(exchange);
        let withheld = conclusion.verdict.refusal().map(|_| (&named, scope));
        self.upstreams.record(host, &self.metrics, conclusion, withheld, now_secs);
    }

    /// Counts a request that was let in as refused.
    pub(super) fn refuse(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        reason: DenyReason,
        refund: Refund,
    ) {
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow().ok());
        // Where the engine is in use, the request stays counted as it was, and is refused all the same.
        if let Some(engine) = engine {
            let store = RecordStore::new(host, host.rules());
            let now_ns = host.now_ns().unwrap_or(0);
            withdraw(&store, host, &engine, exchange, (reason, refund), now_ns);
            self.metrics.count_retries(host, store.retries());
            self.resets.report(host, &store);
        }
        exchange.conclude(Decision::Deny(reason));
    }
}

/// What the connection of a response comes to.
enum Judgement {
    /// The gate of the cluster has concluded.
    Settled(Verdict),
    /// The conclusion is this gate's own.
    Concluded(Conclusion),
}

/// The host that the client named.
fn named_upstream(exchange: &Exchange) -> UpstreamHost<'_> {
    UpstreamHost::parse(exchange.authority().unwrap_or_default().as_bytes())
}
