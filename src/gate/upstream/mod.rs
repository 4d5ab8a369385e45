//! The upstream gate: the module as an upstream filter of a cluster.
//!
//! It holds each attempt of a request until its connection can be checked, and sends no byte before. A pooled
//! connection is checked at once. For a new one, a tick polls for the end of the handshake; it runs only while an
//! attempt waits.

mod attempts;
mod clusters;
pub(super) mod connection;
pub(super) mod credentials;
mod notices;
mod refusals;
pub(super) mod state;
mod statuses;
mod turn;
pub(super) mod verdicts;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::config::{NamedCredential, UpstreamConfig};
use crate::decision::DenyReason;
use crate::exchange::Handovers;
use crate::gate::metrics::Metrics;
use crate::host::rules::FoundRules;
use crate::host::view::HostView;
use crate::host::{Action, Host, HostError, Level, Property, Rules, UnknownRules, number_property};
use crate::reply::{Refusal, reply};
use crate::time::nanos;
use crate::upstream_tls::{Policy, RefusalScope, Verdict};

use self::connection::{connection_id, is_up};
use self::credentials::Credentials;
use self::state::{GateVerdict, Place, Refused};
use self::turn::Turn;
use self::verdicts::{Conclusion, Passage, Upstreams, now_secs};

/// How often the tick polls for connections that are up, in milliseconds.
const TICK_MILLIS: u32 = 1;

/// The slower period, after a while without results. A few milliseconds more do not matter to a slow handshake, and a
/// thousand attempts may be polled each time.
const SLOW_TICK_MILLIS: u32 = 10;

/// How many ticks without a result make it slow: longer than the handshake with a distant upstream, which must not wait
/// for a slow tick.
const FAST_TICKS: u32 = 250;

/// How many attempts one tick concludes. The next tick continues. Envoy acts after the tick, on each attempt from
/// within the callbacks of the one before, and a few dozen exhaust the stack of the VM.
const MAX_CONCLUDED: usize = 8;

/// What a root context of the role `upstream_tls` holds.
pub struct UpstreamGate {
    rules: FoundRules,
    upstreams: Upstreams,
    /// `None` if a secret is missing: every attempt is refused.
    credentials: Option<Credentials>,
    deadline_ns: u64,
    metrics: Metrics,
    /// The contexts of the attempts that wait, in ascending order.
    waiting: RefCell<Vec<u32>>,
    /// Ticks without a result since an attempt was concluded or began to wait.
    idle_ticks: Cell<u32>,
}

/// One attempt of a request, on its way to one upstream.
#[derive(Debug, Default)]
pub struct Attempt {
    state: State,
    turn: Turn,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    /// Its connection is not up yet.
    Waiting {
        since_ns: u64,
    },
    /// It was sent. A connection that was checked is compared with that of the response.
    Released {
        verdict: Verdict,
        passage: Option<Passage>,
        address: String,
    },
    Refused,
}

// === impl UpstreamGate ===

impl UpstreamGate {
    /// An upstream gate for the compiled-in policy and a configuration. If secrets are missing or unusable, it refuses
    /// everything with [`DenyReason::NotReady`].
    pub fn new(
        policy: Policy,
        config: &UpstreamConfig,
        environment: impl Fn(&str) -> Option<String>,
        host: &impl Host,
    ) -> Self {
        let credentials = config.credentials(environment).map_err(|not_ready| {
            let text = format!(
                "vkey: not ready, the gate of the cluster refuses every request: {not_ready}; \
                 variables reach the module through the proxy (Envoy: host_env_keys)"
            );
            host.log(Level::Error, &text);
        });
        let rules = FoundRules::new(config.dialect);
        let hindrances = config.hindrances(&policy, now_secs(host.now_ns()));
        let upstreams = Upstreams::new(policy, &config.upstream_tls);
        let metrics = Metrics::default();
        if let Ok(Some(rules)) = rules.at_start(host) {
            upstreams.announce(&HostView::new(host, rules));
        }
        upstreams.warn_of(&HostView::new(host, rules.known()), &hindrances);
        metrics.show_policy(host, upstreams.digest());
        metrics.show_upstream_gate(host);
        Self {
            rules,
            upstreams,
            credentials: credentials.ok().map(Credentials::new),
            deadline_ns: nanos(config.deadline_secs),
            metrics,
            waiting: RefCell::default(),
            idle_ticks: Cell::new(0),
        }
    }

    /// Shares the handovers of the VM, whose gates of listeners use them from here on.
    pub fn share(&mut self, handovers: &Rc<Handovers>) {
        handovers.add_gate();
        self.upstreams.share(handovers);
    }

    /// Checks an attempt, or holds it until that is possible. `context` is its id.
    pub fn on_request_headers(
        &self,
        host: &impl Host,
        context: u32,
        attempt: &mut Attempt,
    ) -> Action {
        // Shared data that is unavailable for now is no reason to refuse: it only holds verdicts.
        let found = self.rules.of(host);
        let host = &self.view(host);
        let usable =
            matches!(found, Ok(Rules::Envoy | Rules::Bare) | Err(UnknownRules::Unreadable(_)));
        let Some(credentials) = self.credentials.as_ref().filter(|_| usable) else {
            return self.refuse(host, attempt, DenyReason::NotReady);
        };
        let now_ns = host.now_ns();
        let now_secs = now_secs(now_ns);
        attempt.turn = Turn::begin(host, self.upstreams.handovers());
        if let Some(conclusion) = self.check(host, credentials, &attempt.turn, now_secs) {
            return self.conclude(host, credentials, attempt, conclusion, now_secs);
        }
        attempt.turn.wait();
        attempt.state = State::Waiting { since_ns: now_ns.unwrap_or(0) };
        if self.wait(host, context) {
            return Action::Pause;
        }
        // No tick would ever conclude it.
        self.forget(context);
        let conclusion = Conclusion::refused(DenyReason::UpstreamUnproven);
        self.conclude(host, credentials, attempt, conclusion, now_secs)
    }

    fn view<'a, H: Host>(&self, host: &'a H) -> HostView<'a, H> {
        HostView::new(host, self.rules.known())
    }

    fn check(
        &self,
        host: &impl Host,
        credentials: &Credentials,
        turn: &Turn,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let grant = |authority: &[u8]| credentials.grant(turn.words(), authority);
        self.upstreams.check_attempt(host, turn, grant, now_secs)
    }

    /// Holds the body of an attempt that was not sent.
    pub fn on_request_body(attempt: &Attempt) -> Action {
        match attempt.state {
            State::Released { .. } => Action::Continue,
            State::New | State::Waiting { .. } | State::Refused => Action::Pause,
        }
    }

    /// Polls all attempts that wait. `act` calls [`UpstreamGate::on_tick`] for the attempt of a context; `root` is the
    /// context of this gate.
    pub fn tick(&self, host: &impl Host, root: u32, act: impl Fn(u32) -> Action) {
        let waiting = self.waiting.try_borrow().map(|waiting| waiting.clone()).unwrap_or_default();
        let mut concluded = 0;
        for context in waiting {
            // An attempt that has ended, or that the host no longer knows, waits no longer.
            let entered = host.enter(context).is_ok();
            if !entered || act(context) == Action::Continue {
                self.forget(context);
                concluded += 1;
            }
            if concluded == MAX_CONCLUDED {
                break;
            }
        }
        let idle = if concluded > 0 { 0 } else { self.idle_ticks.get().saturating_add(1) };
        let was_slow = self.idle_ticks.replace(idle) >= FAST_TICKS;
        let period = if self.waiting.try_borrow().is_ok_and(|waiting| waiting.is_empty()) {
            Some(0)
        } else if idle == FAST_TICKS {
            Some(SLOW_TICK_MILLIS)
        } else {
            (idle == 0 && was_slow).then_some(TICK_MILLIS)
        };
        if let Some(period) = period {
            // If the period cannot be changed, the tick continues at the old one.
            _ = host.enter(root).and_then(|()| host.set_tick_period(period));
        }
    }

    /// Polls an attempt that waits: [`Action::Pause`] if it still does.
    pub fn on_tick(&self, host: &impl Host, attempt: &mut Attempt) -> Action {
        let host = &self.view(host);
        let (State::Waiting { since_ns }, Some(credentials)) = (&attempt.state, &self.credentials)
        else {
            return Action::Continue;
        };
        let now_ns = host.now_ns();
        let waited_ns = now_ns.unwrap_or(u64::MAX).saturating_sub(*since_ns);
        let late = waited_ns >= self.deadline_ns;
        // Of parallel attempts (hedging), the host shows the connection of the last one to all.
        let is_shown = attempt.turn.is_last() != Some(false);
        // Almost every poll finds the attempt still waiting, and there may be a thousand attempts.
        let is_ready = is_shown && is_up(host);
        if !late && !is_ready {
            return Action::Pause;
        }
        let now_secs = now_secs(now_ns);
        let overdue = || late.then(|| Conclusion::refused(DenyReason::UpstreamUnproven));
        let check = || self.check(host, credentials, &attempt.turn, now_secs);
        let conclusion = is_shown.then(check).flatten().or_else(overdue);
        let Some(conclusion) = conclusion else {
            return Action::Pause;
        };
        // Exactly one action for each attempt: Envoy crashes on a second reply.
        if self.conclude(host, credentials, attempt, conclusion, now_secs) == Action::Continue
            && let Err(HostError(status)) = host.resume_request()
        {
            host.log(
                Level::Error,
                &format!("vkey: could not resume a request: host status {status}"),
            );
            self.refuse(host, attempt, DenyReason::NotReady);
        }
        Action::Continue
    }

    /// Compares the connection that the response came over with the one that was judged, and tells the gate of the
    /// listener.
    pub fn on_response_headers(&self, host: &impl Host, attempt: &mut Attempt) -> Action {
        let host = &self.view(host);
        let State::Released { verdict, passage, address } = &mut attempt.state else {
            return Action::Continue;
        };
        if let Some(passage) = passage
            && !self.is_confirmed(host, &attempt.turn, passage, address)
        {
            // Whatever this connection is, it is not the one that was checked.
            let reason = DenyReason::UpstreamUnproven;
            let now_secs = now_secs(host.now_ns());
            let conclusion = Conclusion::refused(reason);
            let withheld = Some((&passage.upstream, RefusalScope::Checked));
            self.upstreams.record(host, &self.metrics, &conclusion, withheld, now_secs);
            return self.answer(host, attempt, Refused { reason, sent: true });
        }
        let upstream = passage.take().map(|passage| passage.upstream);
        attempt.turn.respond(|| self.upstreams.response(*verdict, upstream));
        Action::Continue
    }

    /// Whether the host shows no other connection for this attempt than the one that was judged. For parallel attempts
    /// (hedging), Envoy shows the connection of the last one to all. What it shows to an attempt that has just begun is of
    /// that attempt; what it showed to one that waited may have been of another.
    fn is_confirmed(
        &self,
        host: &impl Host,
        turn: &Turn,
        passage: &Passage,
        address: &str,
    ) -> bool {
        let is_last = turn.is_last();
        is_last == Some(false)
            || self.upstreams.is_same(host, passage, !turn.has_waited())
            || (is_last.is_none() && connection_id(host) != address)
    }

    /// Forgets an attempt that has ended.
    pub fn forget(&self, context: u32) {
        if let Ok(mut waiting) = self.waiting.try_borrow_mut()
            && let Ok(place) = waiting.binary_search(&context)
        {
            waiting.remove(place);
        }
    }

    /// Adds an attempt to those that the tick polls. Returns `false` if there is no tick.
    fn wait(&self, host: &impl Host, context: u32) -> bool {
        let Ok(mut waiting) = self.waiting.try_borrow_mut() else {
            return false;
        };
        let ticks = !waiting.is_empty() && self.idle_ticks.get() < FAST_TICKS;
        if let Err(place) = waiting.binary_search(&context) {
            waiting.insert(place, context);
        }
        drop(waiting);
        self.idle_ticks.set(0);
        ticks || host.set_tick_period(TICK_MILLIS).is_ok()
    }

    fn conclude(
        &self,
        host: &impl Host,
        credentials: &Credentials,
        attempt: &mut Attempt,
        conclusion: Conclusion,
        now_secs: u64,
    ) -> Action {
        self.upstreams.record(host, &self.metrics, &conclusion, None, now_secs);
        let Conclusion { verdict, passage, address, grant, .. } = conclusion;
        if let Verdict::Refused(reason) = verdict {
            let unproven = grant.filter(|_| reason == DenyReason::UpstreamUnproven);
            let ended = unproven.and_then(|granted| credentials.ended(granted, now_secs));
            if let Some(NamedCredential { name, credential }) = ended {
                self.upstreams.warn_of_end(host, name, credential.plaintext_until_secs);
            }
            return self.refuse(host, attempt, reason);
        }
        if credentials.attach(host, attempt.turn.words(), grant, verdict).is_err() {
            return self.refuse(host, attempt, DenyReason::NotReady);
        }
        let place = Place::Address(address.clone());
        GateVerdict::Passed { verdict, place }.tell(host, &attempt.turn);
        attempt.state = State::Released { verdict, passage, address };
        Action::Continue
    }

    /// Refuses an attempt of which nothing was sent. An earlier attempt of the request may have been sent.
    fn refuse(&self, host: &impl Host, attempt: &mut Attempt, reason: DenyReason) -> Action {
        // An earlier attempt to a cluster without an upstream gate leaves no verdict.
        let later = || number_property(host, Property::UpstreamAttempt).is_some_and(|n| n > 1);
        let earlier = GateVerdict::of(host, attempt.turn.handover());
        let sent = earlier.map_or_else(later, |earlier| earlier.is_sent());
        self.answer(host, attempt, Refused { reason, sent })
    }

    fn answer(&self, host: &impl Host, attempt: &mut Attempt, refused: Refused) -> Action {
        attempt.state = State::Refused;
        GateVerdict::Refused(refused).tell(host, &attempt.turn);
        if let Err(HostError(status)) = host.send_reply(&reply(refused.reason, Refusal::default()))
        {
            let text = format!("vkey: could not send a reply: host status {status}");
            host.log(Level::Error, &text);
        }
        Action::Pause
    }
}

#[cfg(test)]
mod tests;
