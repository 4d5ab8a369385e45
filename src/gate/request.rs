//! A request that the engine has evaluated: it is counted and limited, and then forwarded or answered.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use crate::alerts::failures::{FailureOutcome, FailureRules, Shard, Source, source_network};
use crate::body::mcp::Purpose;
use crate::decision::{Decision, DenyClass, DenyReason};
use crate::engine::{Engine, KnownKey, Reading, Reserve};
use crate::exchange::{
    Asked, Decided, Edits, Evaluation, Forwarded, Handover, Held, Pending, ReadBody, Refund, Route,
    Seen, Step, Waiting,
};
use crate::headers::RequestHead;
use crate::host::{FilterState, Host, HostError, Level, NotCounted, RecordStore};
use crate::limits::allowance::{LimitHeaders, rate_limit_field};
use crate::limits::tally::Exceeded;
use crate::reply::{Refusal, Reply, reply};
use crate::time::secs;
use crate::upstream_tls::{Carried, UpstreamHost, Verdict};

use super::budgets::Budgets;
use super::holding::{Holding, Unread};
use super::metrics::Metrics;
use super::reserve::{Priced, Words, reserved_usage};
use super::seal::seal;
use super::sessions::ends_own_session;
use super::start::Start;
use super::ticker::Ticker;
use super::upstream::verdicts::Upstreams;
use super::{Admission, Admitted};

/// What happens to a request after its headers were evaluated.
pub(super) enum Next {
    /// It goes to the upstream.
    Forward(Forwarded, Pending),
    /// The module answers it.
    Reply(Decided, Reply),
    /// Its body must be read first.
    Hold(Box<Held>),
    /// It waits for the first lease of a budget.
    Wait(Box<Waiting>),
}

/// The decision before limits, with the route that the request is to take, or why it takes none.
struct Clearance {
    decision: Decision,
    route: Result<Route, DenyReason>,
    verdict: Option<Verdict>,
}

impl Clearance {
    /// The request has no route.
    fn refused(reason: DenyReason) -> Self {
        let verdict = Some(Verdict::Refused(reason));
        Self { decision: Decision::Deny(reason), route: Err(reason), verdict }
    }
}

/// A request, with everything that concludes it.
pub(super) struct RequestGate<'a, H> {
    pub(super) host: &'a H,
    pub(super) store: RecordStore<'a, H>,
    pub(super) metrics: &'a Metrics,
    pub(super) start: &'a Start,
    pub(super) upstreams: &'a Upstreams,
    pub(super) holding: &'a Holding,
    pub(super) engine: &'a Engine,
    pub(super) head: &'a RequestHead<'a>,
    /// The body, if it was read.
    pub(super) body: Option<&'a ReadBody>,
    /// Why the body is not read, if that is known.
    pub(super) unread: Option<Unread>,
    pub(super) budgets: &'a Budgets,
    pub(super) ticker: &'a Ticker,
    /// Until when it may wait for a lease, Unix nanoseconds; `None` if it may not.
    pub(super) wait_until_ns: Option<u64>,
    pub(super) now_ns: u64,
}

impl<H: Host> RequestGate<'_, H> {
    /// Counts and edits a request, or refuses it.
    pub(super) fn conclude(&self, seen: Box<Seen>, evaluation: Evaluation) -> Next {
        match evaluation {
            Evaluation::Known {
                key,
                step: Step::Decide { decision, .. },
                reading: Reading::Body(target),
            } if decision.forwards() => self.hold_ai(Asked::new(seen, key), decision, *target),
            // The reply to a message needs its id, even if the message is refused whatever it says.
            Evaluation::Known {
                key,
                step: Step::Decide { decision, .. },
                reading: Reading::Mcp(target),
            } if target.purpose == Ok(Purpose::Message) && may_be_answered(decision) => {
                self.hold_message(Asked::new(seen, key), decision)
            }
            Evaluation::Known { key, step: Step::Decide { decision, message, .. }, .. } => {
                self.count_and_forward(seen, &key, decision, Words { message, detail: None })
            }
            Evaluation::Known { key, step: Step::ShowUsage(subject), .. } => {
                self.show_usage(seen, key, &subject)
            }
            Evaluation::Keyless(keyless) => self.forward_without_key(seen, keyless.decision()),
            Evaluation::Readiness => self.show_readiness(seen),
            Evaluation::Stranger { reason, is_counted } => {
                self.refuse_stranger(seen, reason, is_counted)
            }
        }
    }

    // === requests of a key ===

    /// `words` explain an earlier refusal to a person.
    pub(super) fn count_and_forward(
        &self,
        mut seen: Box<Seen>,
        key: &Rc<KnownKey>,
        decision: Decision,
        words: Words,
    ) -> Next {
        // A refused request needs no edits.
        let edits = || Edits::forward(self.engine, key, self.head);
        let Priced { decision, words, reserve, unpriced } = self.priced(key, decision, words);
        if let Some((facts, index)) = self.facts().zip(unpriced) {
            seen.refuse_model(self.head, facts, index);
        }
        let explained = decision.reason();
        let Clearance { decision, route, verdict } = self.clear(decision, edits);
        let amounts = reserve.as_ref().map(Reserve::amounts).unwrap_or_default();
        let admission = self.admission(&seen, key, decision).with_amounts(amounts);
        let admitted = match self.wait_until_ns {
            None => admission.admit(decision),
            Some(until_ns) => match admission.admit_or_wait(decision) {
                Some(admitted) => admitted,
                None => {
                    let asked = Asked::new(seen, Rc::clone(key));
                    let waiting = Waiting { asked, body: None, amounts, until_ns };
                    return Next::Wait(Box::new(waiting));
                }
            },
        };
        if key.has_budgets() {
            self.budgets.watch(self.host, self.ticker, key, admitted.leases.is_low);
        }
        log_miscount(self.host, admitted.miscounted);
        let decided = Decided::with_key(seen, Rc::clone(key), admitted.decision)
            .counted(admitted.exceeded, admitted.anomaly)
            .charged_locally(admitted.leases.is_local && admitted.decision.forwards())
            .with_usage(reserve.as_ref().map(reserved_usage))
            .with_verdict(verdict);
        let route = match (admitted.decision, route) {
            (Decision::Deny(reason), _) | (_, Err(reason)) => {
                let mut refusal = self.refusal(key, &admitted);
                // The words are about the earlier refusal.
                if explained == Some(reason) {
                    let model = || decided.seen().refused_model().map(str::to_owned);
                    refusal.explanation = words.detail.or_else(model).or(refusal.explanation);
                    refusal.message = words.message.or(refusal.message);
                }
                refusal.message = refusal.message.or_else(|| self.words_of_host(decision));
                let Refusal { dialect, rpc, .. } = decided.seen().refusal();
                return Next::Reply(decided, reply(reason, Refusal { dialect, rpc, ..refusal }));
            }
            (_, Ok(route)) => route,
        };
        let (rate_limit, reservations) =
            (rate_limit_field(&admitted.allowances), admitted.reservations);
        let may_open_session = reservations.is_charged() && self.head.may_open_session();
        let mut edits = edits();
        let handover = self.hand_over(&route, &mut edits);
        let request = Forwarded::for_key(decided, route, reservations).with_handover(handover);
        let filtering = self.filtering(&request, key);
        if self.forward(edits, reserve.is_some() || filtering.is_some()).is_err() {
            // The count says allowed, but the request is not.
            let why = (DenyReason::NotReady, Refund::Everything);
            let decided = withdraw(&self.store, self.host, self.engine, request, why, self.now_ns);
            return refuse(decided, DenyReason::NotReady);
        }
        let metering = reserve.as_ref().and_then(|reserve| self.metering(reserve));
        Next::Forward(request, Pending { rate_limit, may_open_session, metering, filtering })
    }

    /// Opens the handover of a request on which the gate of its cluster may have a say.
    fn hand_over(&self, route: &Route, edits: &mut Edits<'_>) -> Option<Rc<Handover>> {
        let concerned = route.upstream.is_some() || !edits.credentials.is_empty();
        let open = || self.upstreams.hand_over(self.now_ns);
        let handover = concerned.then(open).flatten()?;
        edits.credentials.push(Cow::Owned(handover.word()));
        Some(handover)
    }

    /// The admission of a request. One that ends a session of its own key is free.
    fn admission<'k>(
        &'k self,
        seen: &Seen,
        key: &'k KnownKey,
        decision: Decision,
    ) -> Admission<'k, H> {
        let admission = Admission::new(&self.store, self.engine, key, seen.source(), self.now_ns);
        let is_free =
            admission.is_limited() && ends_own_session(&self.store, key, self.head, seen, decision);
        if is_free { admission.free_of_charge() } else { admission }
    }

    /// Checks the edits and the route of a request that its key and its access allow.
    fn clear<'e>(&self, decision: Decision, edits: impl Fn() -> Edits<'e>) -> Clearance {
        match self.check_edits(edits, decision) {
            Decision::Deny(reason) => {
                Clearance { decision: Decision::Deny(reason), route: Err(reason), verdict: None }
            }
            decision if decision.has_key() && self.gives_to_nobody() => {
                Clearance::refused(DenyReason::UpstreamUnproven)
            }
            decision => match self.check_route(self.attached(decision)) {
                Ok(mut route) => {
                    route.awaits_verdict |= self.may_change(decision);
                    Clearance { decision, route: Ok(route), verdict: None }
                }
                Err(reason) => Clearance::refused(reason),
            },
        }
    }

    /// Whether a forwarded request may still get another decision: a preflight for its body, a request that may
    /// have a credential by its upstream gate, and one that limits of the whole cluster may refuse.
    fn may_change(&self, decision: Decision) -> bool {
        decision == Decision::Preflight
            || self.engine.settings().limits.of_cluster
            || self.engine.granted(self.head.authority).next().is_some()
    }

    /// Denies a request from which the host cannot remove everything that must not reach the upstream: nginx changes
    /// only the first header of a name.
    fn check_edits<'e>(&self, edits: impl Fn() -> Edits<'e>, decision: Decision) -> Decision {
        let unfit = || self.head.is_flawed() || self.head.doubles_any(&edits().changed());
        match decision.forwards() && self.host.is_nginx() && unfit() {
            true => Decision::Deny(DenyReason::HeaderMismatch),
            false => decision,
        }
    }

    /// The route of the request, or why nothing may be sent on it.
    #[inline(never)]
    fn check_route(&self, attached: Carried) -> Result<Route, DenyReason> {
        let authority = self.head.authority.unwrap_or_default();
        let now_secs = secs(self.now_ns);
        let route = self.upstreams.route(self.host, authority, attached, now_secs);
        if let (Err(_), Some(until_secs)) = (&route, attached.until_secs())
            && attached.has_expired(now_secs)
        {
            self.upstreams.warn_of_end(self.host, "in forward.credentials", until_secs);
        }
        route
    }

    /// The credential that is attached to a request with this decision. nginx has no upstream gate that could judge where it
    /// goes.
    fn attached(&self, decision: Decision) -> Carried {
        match decision {
            Decision::Preflight | Decision::Public => Carried::Nothing,
            Decision::Allow | Decision::Deny(_) | Decision::Shadow(_) => {
                let attached = self.engine.attached(self.head.authority);
                if self.host.is_nginx() { attached.elsewhere() } else { attached }
            }
        }
    }

    /// The message for an authority that no certificate can match. No certificate was checked.
    #[cold]
    fn words_of_host(&self, decision: Decision) -> Option<&'static str> {
        let authority = self.head.authority.unwrap_or_default();
        let is_unreadable = || UpstreamHost::parse(authority) == UpstreamHost::Unreadable;
        (decision == Decision::Deny(DenyReason::UpstreamName) && is_unreadable())
            .then_some("the host is absent or can be read in more than one way, so that no certificate is for it")
    }

    /// Whether the request may have a credential that only an upstream gate attaches. nginx has no upstream gates.
    fn gives_to_nobody(&self) -> bool {
        self.host.is_nginx() && self.engine.granted(self.head.authority).next().is_some()
    }

    fn refusal(&self, key: &KnownKey, admitted: &Admitted) -> Refusal {
        let expires_in_secs = key.exp_secs().saturating_sub(secs(self.now_ns));
        let refusal = |exceeded: &Exceeded| {
            let reserved = &admitted.reservations.amounts;
            Refusal::exceeded(
                exceeded, reserved, &admitted.allowances, self.now_ns, expires_in_secs,
            )
        };
        self.shown(admitted.exceeded.as_ref().map(refusal).unwrap_or_default())
    }

    /// A refusal with only the headers that the configuration wants.
    fn shown(&self, refusal: Refusal) -> Refusal {
        match self.engine.settings().limits.headers {
            LimitHeaders::Always | LimitHeaders::Refused => refusal,
            LimitHeaders::Never => Refusal { fields: None, ..refusal },
        }
    }

    /// Removes everything private of the client's, and sets the seal. The seal is set last, so a sealed request has all
    /// its edits.
    #[inline(never)]
    fn forward(&self, edits: Edits<'_>, is_read: bool) -> Result<(), HostError> {
        let edited = self.edit(edits);
        let edited = edited.and_then(|()| if is_read { self.edit_for_reading() } else { Ok(()) });
        edited.and_then(|()| seal(self.host)).inspect_err(|HostError(status)| {
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
        if let Some(key) = edits.caller {
            self.host.set_filter_state(FilterState::Key.key(), key.jti())?;
            self.host.set_filter_state(FilterState::Tenant.key(), key.tenant())?;
        }
        if let Some((name, value)) = edits.replace {
            self.host.set_request_header(name, value)?;
        }
        for (name, value) in edits.add {
            self.host.add_request_header(name, &value)?;
        }
        Ok(())
    }

    // === requests of nobody ===

    /// Forwards a request that needs no key, so nothing is counted.
    #[cold]
    fn forward_without_key(&self, seen: Box<Seen>, decision: Decision) -> Next {
        // Without a key, no credential of the client's is one that may stay beside it.
        let head = self.head.read_again(&self.engine.settings().key_sources);
        let edits = || Edits::without_key(&head);
        let Clearance { decision, route, verdict } = self.clear(decision, edits);
        let decided = Decided::without_key(seen, decision).with_verdict(verdict);
        match route {
            Ok(route) if self.forward(edits(), false).is_ok() => {
                Next::Forward(Forwarded::without_key(decided, route), Pending::default())
            }
            Ok(_) => refuse(decided, DenyReason::NotReady),
            Err(reason) => refuse(decided, reason),
        }
    }

    /// Replies whether the gate is ready, and says nothing else.
    #[cold]
    fn show_readiness(&self, seen: Box<Seen>) -> Next {
        if !self.engine.keyring().accepts_keys(secs(self.now_ns)) {
            return reply_to(seen, DenyReason::NotReady);
        }
        let decided = Decided::without_key(seen, Decision::Public);
        Next::Reply(decided, Reply::ok(r#"{"ready":true}"#, "vkey_ready"))
    }

    // === requests of strangers ===

    /// Refuses a request for which no key was verified. If that is counted for its source, a source that is blocked is
    /// told to wait.
    fn refuse_stranger(&self, seen: Box<Seen>, reason: DenyReason, is_counted: bool) -> Next {
        let rules = self.engine.settings().auth_failures;
        let rules = rules.filter(|_| is_counted && self.store.is_available());
        let blocked = rules.and_then(|rules| {
            let until_secs = self.count_failure(&rules, seen.source())?;
            let secs = until_secs.saturating_sub(secs(self.now_ns));
            Some(self.shown(Refusal::blocked(&rules, secs)))
        });
        let Some(refusal) = blocked else {
            return reply_to(seen, reason);
        };
        let Refusal { dialect, rpc, .. } = seen.refusal();
        let refusal = Refusal { dialect, rpc, ..refusal };
        let decision = Decision::Deny(DenyReason::SourceBlocked);
        Next::Reply(Decided::without_key(seen, decision), reply(DenyReason::SourceBlocked, refusal))
    }

    /// Counts a failed authentication against its source. Returns until when the source is blocked. A failure that
    /// cannot be counted blocks nobody; the request is refused anyway.
    fn count_failure(&self, rules: &FailureRules, source: Option<IpAddr>) -> Option<u64> {
        let source = source.map_or(Source::UNKNOWN, source_network);
        let fail = |shard: &mut Shard| shard.fail(source, secs(self.now_ns), rules);
        let FailureOutcome { alert, blocked_until_secs } =
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

/// Whether a reply to a message with this decision says what its id is.
fn may_be_answered(decision: Decision) -> bool {
    decision.reason().is_none_or(|reason| reason.class() != DenyClass::Unauthenticated)
}

/// Refuses a forwarded request, and counts it as refused.
pub(super) fn withdraw<H: Host>(
    store: &RecordStore<'_, H>,
    host: &H,
    engine: &Engine,
    request: Forwarded,
    (reason, refund): (DenyReason, Refund),
    now_ns: u64,
) -> Decided {
    let is_open = !request.is_settled();
    let (mut decided, reserved) = request.refuse(reason);
    if let Some((key, reservations)) = reserved {
        if is_open && refund == Refund::Nothing {
            decided.keep_charged(reservations.amounts.cost_micro_usd);
        }
        let admission = Admission::new(store, engine, &key, decided.seen().source(), now_ns);
        log_miscount(host, admission.withdraw(&reservations, reason, refund).err());
    }
    decided
}

pub(super) fn log_miscount(host: &impl Host, not_counted: Option<NotCounted>) {
    if let Some(not_counted) = not_counted {
        host.log(Level::Error, &format!("vkey: could not roll back a count: {not_counted}"));
    }
}

/// Refuses a request for which no key was verified.
pub(super) fn reply_to(seen: Box<Seen>, reason: DenyReason) -> Next {
    refuse(Decided::without_key(seen, Decision::Deny(reason)), reason)
}

/// Refuses a request, whatever was decided before.
pub(super) fn refuse(decided: Decided, reason: DenyReason) -> Next {
    let refusal = decided.seen().refusal();
    Next::Reply(decided.refused(reason), reply(reason, refusal))
}
