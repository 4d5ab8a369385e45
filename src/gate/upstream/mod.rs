//! The gate of a cluster: the module as an upstream filter.
//!
//! It holds each attempt of a request until the connection it will go over can be judged, and lets no
//! byte of it leave before. On a pooled connection that is at once; on a new one a tick looks for the
//! end of the handshake, and runs only while something waits.

pub(super) mod connection;
pub(super) mod credentials;
mod standings;
pub(super) mod state;
pub(super) mod verdicts;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use crate::config::UpstreamConfig;
use crate::decision::DenyReason;
use crate::gate::metrics::Metrics;
use crate::host::rules::FoundRules;
use crate::host::view::HostView;
use crate::host::{Action, Host, HostError, Level, Property, Rules, UnknownRules, number_property};
use crate::reply::{Refusal, reply};
use crate::time::nanos;
use crate::upstream_tls::{Policy, RefusalScope, Verdict};

use self::connection::{connection_id, is_up};
use self::credentials::Credentials;
use self::state::{GateVerdict, Refused};
use self::verdicts::{Conclusion, Passage, Upstreams, now_secs};

/// How often the tick looks for connections that came up.
const TICK_MILLIS: u32 = 1;

/// How often it looks when it has found none for a while: a handshake that took so long is not spoilt by
/// a few milliseconds more, and a thousand that wait are looked at each time.
const SLOW_TICK_MILLIS: u32 = 10;

/// How many looks in vain are a while: longer than the handshake with an upstream far away, which is not
/// to wait for a slow look.
const FAST_TICKS: u32 = 250;

/// How many attempts one tick concludes; the next one goes on. Envoy acts when the tick has ended, on the
/// next attempt from within the callbacks of the one before: some dozens use up the stack of the VM.
const MAX_CONCLUDED: usize = 8;

/// What a root context of the role `upstream_tls` holds.
pub struct UpstreamGate {
    rules: FoundRules,
    upstreams: Upstreams,
    /// `None` where a secret is missing: every attempt is refused.
    credentials: Option<Credentials>,
    deadline_ns: u64,
    metrics: Metrics,
    waiting: RefCell<BTreeSet<u32>>,
    /// Looks in vain since something was found or began to wait.
    idle_ticks: Cell<u32>,
}

/// One attempt of a request, on its way to one upstream.
#[derive(Debug, Default)]
pub struct Attempt(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    /// Its connection is not up yet.
    Waiting {
        since_ns: u64,
    },
    /// It went on. A connection that was judged is compared with the response's.
    Released {
        passage: Option<Passage>,
        address: String,
    },
    Refused,
}

// === impl UpstreamGate ===

impl UpstreamGate {
    /// A gate by the policy that is compiled in and a configuration. One whose secrets are missing or
    /// unusable refuses everything with [`DenyReason::NotReady`].
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
        let upstreams = Upstreams::new(policy, &config.upstream_tls);
        let metrics = Metrics::default();
        if let Some(rules) = rules.at_start(host) {
            upstreams.announce(&HostView::new(host, rules));
        }
        metrics.show_policy(host, upstreams.digest());
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

    /// Judges an attempt, or holds it until that is possible. `context` is its id.
    pub fn on_request_headers(
        &self,
        host: &impl Host,
        context: u32,
        attempt: &mut Attempt,
    ) -> Action {
        // Shared data that cannot be used for now is no reason: it only keeps what became known.
        let found = self.rules.of(host);
        let host = &self.view(host);
        let usable =
            matches!(found, Ok(Rules::Envoy | Rules::Bare) | Err(UnknownRules::Unreadable(_)));
        let Some(credentials) = self.credentials.as_ref().filter(|_| usable) else {
            return self.refuse(host, attempt, DenyReason::NotReady);
        };
        let now_ns = host.now_ns();
        let now_secs = now_secs(now_ns);
        if let Some(conclusion) = self.judge(host, credentials, now_secs) {
            return self.conclude(host, credentials, attempt, conclusion, now_secs);
        }
        *attempt = Attempt(State::Waiting { since_ns: now_ns.unwrap_or(0) });
        if self.wait(host, context) {
            return Action::Pause;
        }
        // Nobody would ever look at it again.
        self.forget(context);
        let conclusion = Conclusion::refused(DenyReason::UpstreamUnproven);
        self.conclude(host, credentials, attempt, conclusion, now_secs)
    }

    fn view<'a, H: Host>(&self, host: &'a H) -> HostView<'a, H> {
        HostView::new(host, self.rules.known())
    }

    fn judge(
        &self,
        host: &impl Host,
        credentials: &Credentials,
        now_secs: u64,
    ) -> Option<Conclusion> {
        let grant = |authority: &[u8]| credentials.grant(host, authority);
        self.upstreams.judge_attempt(host, grant, now_secs)
    }

    /// Holds the body of an attempt that was not let through.
    pub fn on_request_body(attempt: &Attempt) -> Action {
        match attempt.0 {
            State::Released { .. } => Action::Continue,
            State::New | State::Waiting { .. } | State::Refused => Action::Pause,
        }
    }

    /// Looks at all attempts that wait. `act` calls [`UpstreamGate::on_tick`] for the attempt of a
    /// context; `root` is the context of this gate.
    pub fn tick(&self, host: &impl Host, root: u32, act: impl Fn(u32) -> Action) {
        let waiting: Vec<u32> =
            self.waiting.try_borrow().map(|w| w.iter().copied().collect()).unwrap_or_default();
        let mut concluded = 0;
        for context in waiting {
            // One that is gone, or whose host does not know it any more, waits no longer.
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
            // A tick that goes on as it was finds what there is, or nothing to do.
            _ = host.enter(root).and_then(|()| host.set_tick_period(period));
        }
    }

    /// Looks at an attempt that waits: [`Action::Pause`] when it still does.
    pub fn on_tick(&self, host: &impl Host, attempt: &mut Attempt) -> Action {
        let host = &self.view(host);
        let (State::Waiting { since_ns }, Some(credentials)) = (&attempt.0, &self.credentials)
        else {
            return Action::Continue;
        };
        let now_ns = host.now_ns();
        let waited_ns = now_ns.unwrap_or(u64::MAX).saturating_sub(*since_ns);
        let late = waited_ns >= self.deadline_ns;
        // Nearly every look at one that waits finds it waiting, and there may be a thousand.
        if !late && !is_up(host) {
            return Action::Pause;
        }
        let now_secs = now_secs(now_ns);
        let overdue = || late.then(|| Conclusion::refused(DenyReason::UpstreamUnproven));
        let judged = self.judge(host, credentials, now_secs).or_else(overdue);
        let Some(conclusion) = judged else {
            return Action::Pause;
        };
        // Exactly one action for each attempt: Envoy crashes on a second reply.
        if self.conclude(host, credentials, attempt, conclusion, now_secs) == Action::Continue
            && let Err(HostError(status)) = host.resume_request()
        {
            host.log(Level::Error, &format!("vkey: a request was not resumed: status {status}"));
            self.refuse(host, attempt, DenyReason::NotReady);
        }
        Action::Continue
    }

    /// Compares the connection that the response came over with the one that was judged.
    pub fn on_response_headers(&self, host: &impl Host, attempt: &mut Attempt) -> Action {
        let host = &self.view(host);
        let State::Released { passage: Some(passage), address } = &attempt.0 else {
            return Action::Continue;
        };
        let Passage { fingerprint, upstream } = passage;
        if self.upstreams.fingerprint(host) == *fingerprint {
            return Action::Continue;
        }
        // Of attempts that run side by side (hedging), Envoy shows the last one's connection to all.
        if connection_id(host) != *address {
            return Action::Continue;
        }
        // Whatever it is, it is not what the request was let go over.
        let reason = DenyReason::UpstreamUnproven;
        let now_secs = now_secs(host.now_ns());
        let conclusion = Conclusion::refused(reason);
        let withheld = Some((upstream, RefusalScope::Checked));
        self.upstreams.record(host, &self.metrics, &conclusion, withheld, now_secs);
        self.answer(host, attempt, Refused { reason, sent: true })
    }

    /// Forgets an attempt that has ended.
    pub fn forget(&self, context: u32) {
        if let Ok(mut waiting) = self.waiting.try_borrow_mut() {
            waiting.remove(&context);
        }
    }

    /// Has the tick look at an attempt; `false` where there is none.
    fn wait(&self, host: &impl Host, context: u32) -> bool {
        let Ok(mut waiting) = self.waiting.try_borrow_mut() else {
            return false;
        };
        let ticks = !waiting.is_empty() && self.idle_ticks.get() < FAST_TICKS;
        waiting.insert(context);
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
            return self.refuse(host, attempt, reason);
        }
        if credentials.attach(host, grant, verdict).is_err() {
            return self.refuse(host, attempt, DenyReason::NotReady);
        }
        GateVerdict::Passed { verdict, address: address.clone() }.tell(host);
        *attempt = Attempt(State::Released { passage, address });
        Action::Continue
    }

    /// Refuses an attempt of which nothing has left. An earlier attempt of the same request may have.
    fn refuse(&self, host: &impl Host, attempt: &mut Attempt, reason: DenyReason) -> Action {
        // An earlier attempt to a cluster without a gate leaves no verdict.
        let later = || number_property(host, Property::UpstreamAttempt).is_some_and(|n| n > 1);
        let sent = GateVerdict::of(host).map_or_else(later, |earlier| earlier.is_sent());
        self.answer(host, attempt, Refused { reason, sent })
    }

    fn answer(&self, host: &impl Host, attempt: &mut Attempt, refused: Refused) -> Action {
        *attempt = Attempt(State::Refused);
        GateVerdict::Refused(refused).tell(host);
        if let Err(HostError(status)) = host.send_reply(&reply(refused.reason, Refusal::default()))
        {
            let text = format!("vkey: the host did not send a reply: status {status}");
            host.log(Level::Error, &text);
        }
        Action::Pause
    }
}

#[cfg(test)]
mod tests;
