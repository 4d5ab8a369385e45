//! A judged request, while the host still shows it: counted and limited, and then sent on or answered.

use crate::alerts::failures::{Failure, FailureRules, Shard, Source, source_network};
use crate::decision::{Decision, DenyReason};
use crate::engine::Engine;
use crate::exchange::{Charged, Course, Edits, Exchange, Judgement, Refund};
use crate::headers::RequestHead;
use crate::host::{FilterState, Host, HostError, Level, NotCounted, RecordStore};
use crate::key::Key;
use crate::limits::allowance::RateLimitFields;
use crate::limits::ledger::Exceeded;
use crate::reply::{Refusal, Reply, reply};
use crate::time::secs;
use crate::upstream_tls::{UpstreamHost, Verdict};

use super::metrics::Metrics;
use super::sessions::ends_own_session;
use super::upstream::verdicts::Upstreams;
use super::{Admission, Admitted};

/// What the seal asks for.
const SEAL_VALUE: &str = "allow";

const NO_SEAL_VARIABLE: &str = "vkey: nginx has no variable for the seal, so nothing is let through: add \
    `map '' $vkey_decision { default ''; }` to the http block";

/// A request and what it is concluded with.
pub(super) struct Judged<'a, H> {
    pub(super) host: &'a H,
    pub(super) store: RecordStore<'a, H>,
    pub(super) metrics: &'a Metrics,
    pub(super) upstreams: &'a Upstreams,
    pub(super) engine: &'a Engine,
    pub(super) head: &'a RequestHead<'a>,
    pub(super) now_ns: u64,
}

impl<H: Host> Judged<'_, H> {
    /// Lets the request on its way, or says how it is answered.
    pub(super) fn conclude(
        &self,
        judgement: Judgement,
        exchange: &mut Exchange,
    ) -> Result<(), Reply> {
        match judgement {
            Judgement::Known { key, course: Course::Decide { decision, message } } => {
                self.count_and_forward(&key, decision, message, exchange)
            }
            Judgement::Known { key, course: Course::ShowUsage(subject) } => {
                Err(self.show_usage(&key, &subject, exchange))
            }
            Judgement::Preflight => self.pass_preflight(exchange),
            Judgement::Stranger(reason) => Err(self.refuse_stranger(reason, exchange)),
        }
    }

    // === requests of a key ===

    /// Counts the request and sends it on, or says how it is answered: with `message` where it was refused
    /// before.
    fn count_and_forward(
        &self,
        key: &Key,
        decision: Decision,
        message: Option<&'static str>,
        exchange: &mut Exchange,
    ) -> Result<(), Reply> {
        // What is refused needs no edits.
        let edits = || Edits::forward(self.engine, key, self.head);
        let decision = self.judge_route(self.judge_edits(edits, decision), exchange);
        let source = exchange.source();
        let mut admission = Admission::new(&self.store, self.engine, key, source, self.now_ns);
        if admission.is_limited()
            && ends_own_session(&self.store, key, self.head, exchange, decision)
        {
            admission = admission.free_of_charge();
        }
        let admitted = admission.admit(decision);
        log_miscount(self.host, admitted.miscounted);
        exchange.exceed(admitted.exceeded);
        exchange.mark(admitted.anomaly);
        exchange.conclude(admitted.decision);
        if let Decision::Deny(reason) = admitted.decision {
            let message = message.or_else(|| self.words_of_host(decision));
            let message = message.filter(|_| admitted.decision == decision);
            return Err(reply(reason, Refusal { message, ..self.refusal(key, &admitted) }));
        }
        if self.forward(edits()).is_err() {
            // It was counted as allowed, and is not.
            let reason = DenyReason::NotReady;
            let withdrawn = admission.withdraw(&admitted.charged, reason, Refund::Everything);
            log_miscount(self.host, withdrawn.err());
            return Err(deny(exchange, reason));
        }
        if admitted.charged.is_charged() && self.head.may_open_session() {
            exchange.await_session();
        }
        exchange.forward(RateLimitFields::new(&admitted.allowances), admitted.charged);
        Ok(())
    }

    /// The decision, unless the request cannot go on without what must not: nginx changes the first header of
    /// a name alone.
    fn judge_edits<'e>(&self, edits: impl Fn() -> Edits<'e>, decision: Decision) -> Decision {
        let unfit = || self.head.is_flawed() || self.head.doubles_any(&edits().changed());
        match decision.forwards() && self.host.is_nginx() && unfit() {
            true => Decision::Deny(DenyReason::HeaderMismatch),
            false => decision,
        }
    }

    /// The decision, unless nothing may be sent on the request's route.
    #[inline(never)]
    fn judge_route(&self, decision: Decision, exchange: &mut Exchange) -> Decision {
        if !decision.forwards() {
            return decision;
        }
        let upstream = UpstreamHost::parse(self.head.authority.unwrap_or_default());
        let now_secs = secs(self.now_ns);
        let in_front = self.engine.credential(self.head.authority).is_some();
        let judged = match self.gives_to_nobody() {
            true => Err(DenyReason::UpstreamUnproven),
            false => self.upstreams.judge_route(self.host, &upstream, in_front, now_secs),
        };
        match judged {
            Ok(route) => {
                exchange.take_route(route);
                decision
            }
            Err(reason) => {
                exchange.judge_upstream(Verdict::Refused(reason));
                Decision::Deny(reason)
            }
        }
    }

    /// What a person is told where no certificate can be for the host: none was looked at.
    #[cold]
    fn words_of_host(&self, decision: Decision) -> Option<&'static str> {
        let authority = self.head.authority.unwrap_or_default();
        let is_unreadable = || UpstreamHost::parse(authority) == UpstreamHost::Unreadable;
        (decision == Decision::Deny(DenyReason::UpstreamName) && is_unreadable())
            .then_some("the host is absent or can be read in more than one way, so that no certificate is for it")
    }

    /// Whether the request may have a credential that only the gate of a cluster sets, on nginx, which has no
    /// such gates.
    fn gives_to_nobody(&self) -> bool {
        self.host.is_nginx() && self.engine.granted(self.head.authority).next().is_some()
    }

    fn refusal(&self, key: &Key, admitted: &Admitted) -> Refusal {
        let expires_in_secs = key.exp_secs().saturating_sub(secs(self.now_ns));
        let refusal = |exceeded: &Exceeded| {
            Refusal::exceeded(exceeded, &admitted.allowances, self.now_ns, expires_in_secs)
        };
        admitted.exceeded.as_ref().map(refusal).unwrap_or_default()
    }

    /// Sends the request on without anything private of the client's. The seal is set last, so that
    /// a request with one is a request that is whole.
    #[inline(never)]
    fn forward(&self, edits: Edits<'_>) -> Result<(), HostError> {
        self.edit(edits).and_then(|()| self.seal()).inspect_err(|HostError(status)| {
            let text = format!("vkey: a request could not be made fit to go on: status {status}");
            self.host.log(Level::Error, &text);
        })
    }

    fn edit(&self, edits: Edits<'_>) -> Result<(), HostError> {
        for name in edits.remove {
            self.host.remove_request_header(name)?;
        }
        for (name, list) in edits.shorten {
            self.host.set_request_header(name, &list)?;
        }
        if !edits.credentials.is_empty() {
            self.host
                .set_filter_state(FilterState::Credentials.key(), &edits.credentials.join(" "))?;
        }
        if let Some((name, value)) = edits.replace {
            self.host.set_request_header(name, value)?;
        }
        for (name, value) in edits.add {
            self.host.add_request_header(name, &value)?;
        }
        Ok(())
    }

    /// Where the host keeps no filter state there is no seal behind the module either; where there is
    /// one, it refuses what lacks it. On nginx the variable is a line of the configuration that can be
    /// forgotten.
    fn seal(&self) -> Result<(), HostError> {
        let set = self.host.set_filter_state(FilterState::Decision.key(), SEAL_VALUE);
        match set {
            Err(_) if self.host.is_nginx() => {
                self.host.log(Level::Error, NO_SEAL_VARIABLE);
                set
            }
            Err(HostError(status)) => {
                self.host.log(
                    Level::Debug,
                    &format!("vkey: could not set the filter state: host status {status}"),
                );
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    // === requests of nobody ===

    /// Sends a preflight on. It has no key, so nothing is counted.
    #[cold]
    fn pass_preflight(&self, exchange: &mut Exchange) -> Result<(), Reply> {
        let edits = || Edits::preflight(self.head);
        let decision = self.judge_route(self.judge_edits(edits, Decision::Preflight), exchange);
        if let Decision::Deny(reason) = decision {
            return Err(deny(exchange, reason));
        }
        if self.forward(edits()).is_err() {
            return Err(deny(exchange, DenyReason::NotReady));
        }
        exchange.conclude(decision);
        exchange.forward(None, Charged { decision, key: None, tenant: None });
        Ok(())
    }

    // === requests of strangers ===

    /// Refuses a request that no key was verified for. Where keys that are not valid are counted by
    /// source, one of a source that is blocked is told to wait.
    fn refuse_stranger(&self, reason: DenyReason, exchange: &mut Exchange) -> Reply {
        let rules = self.engine.settings().auth_failures;
        let rules = rules.filter(|_| self.store.counts() && reason.is_failed_authentication());
        let blocked = rules.and_then(|rules| {
            let until_secs = self.count_failure(&rules, exchange)?;
            Some(Refusal::blocked(&rules, until_secs.saturating_sub(secs(self.now_ns))))
        });
        let Some(refusal) = blocked else {
            return deny(exchange, reason);
        };
        exchange.conclude(Decision::Deny(DenyReason::SourceBlocked));
        reply(DenyReason::SourceBlocked, refusal)
    }

    /// Counts a failed authentication against its source; until when that is blocked. A failure that
    /// cannot be counted blocks nobody: the request is refused all the same.
    fn count_failure(&self, rules: &FailureRules, exchange: &Exchange) -> Option<u64> {
        let source = exchange.source().map_or(Source::UNKNOWN, source_network);
        let fail = |shard: &mut Shard| shard.fail(source, secs(self.now_ns), rules);
        let Failure { alert, blocked_until_secs } =
            self.store.update(&source.shard(), fail).unwrap_or_default();
        if alert {
            let FailureRules { threshold, window_secs, .. } = rules;
            let text = format!(
                "vkey: {threshold} failed authentications from {source} within {window_secs} s"
            );
            self.metrics.count_auth_alert(self.host);
            self.host.log(Level::Warn, &text);
        }
        blocked_until_secs
    }
}

/// Counts a request that was let in as refused for a reason, with that refund.
pub(super) fn withdraw<H: Host>(
    store: &RecordStore<'_, H>,
    host: &H,
    engine: &Engine,
    exchange: &mut Exchange,
    (reason, refund): (DenyReason, Refund),
    now_ns: u64,
) {
    let source = exchange.source();
    let Some((key, charged)) = exchange.take_charged() else {
        return;
    };
    let admission = Admission::new(store, engine, &key, source, now_ns);
    log_miscount(host, admission.withdraw(&charged, reason, refund).err());
}

fn log_miscount(host: &impl Host, not_counted: Option<NotCounted>) {
    if let Some(not_counted) = not_counted {
        host.log(Level::Error, &format!("vkey: could not roll back a count: {not_counted}"));
    }
}

/// Concludes a request with a denial, and says how it is answered.
pub(super) fn deny(exchange: &mut Exchange, reason: DenyReason) -> Reply {
    exchange.conclude(Decision::Deny(reason));
    reply(reason, Refusal::default())
}
