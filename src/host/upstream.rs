//! The gate of a cluster: the module as an upstream filter.
//!
//! It holds each attempt of a request until the connection it will go over can be judged, and lets no
//! byte of it leave before. On a pooled connection that is at once; on a new one a tick looks for the
//! end of the handshake, and runs only while something waits.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::config::{Level, UpstreamConfig};
use crate::decision::{DenyReason, Refusal, reply};
use crate::time::nanos;
use crate::upstream_tls::{Policy, Verdict};

use super::connection::{Fingerprint, is_up};
use super::metrics::Metrics;
use super::upstreams::now_secs;
use super::upstreams::{Conclusion, Upstreams};
use super::{Action, Host, HostError};

/// The filter state that tells the gate of the request what its connection was judged as.
const VERDICT_STATE: &str = "vkey.upstream";

/// How often the tick looks for connections that came up.
const TICK_MILLIS: u32 = 1;

/// How many attempts one tick concludes; the next one goes on. Envoy acts when the tick has ended, on the
/// next attempt from within the callbacks of the one before: some dozens use up the stack of the VM.
const MAX_CONCLUDED: usize = 8;

/// What a root context of the role `upstream_tls` holds.
pub struct UpstreamGate {
    upstreams: Upstreams,
    deadline_ns: u64,
    metrics: Metrics,
    waiting: RefCell<BTreeSet<u32>>,
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
    /// It went on. A connection that was judged has a fingerprint.
    Released(Option<Fingerprint>),
    Refused,
}

// === impl UpstreamGate ===

impl UpstreamGate {
    /// A gate by the policy that is compiled in and a configuration.
    pub fn new(policy: Policy, config: &UpstreamConfig, host: &impl Host) -> Self {
        let upstreams = Upstreams::new(policy, &config.upstream_tls, config.dialect);
        let metrics = Metrics::default();
        upstreams.announce(host);
        metrics.show_policy(host, upstreams.digest());
        Self {
            upstreams,
            deadline_ns: nanos(config.deadline_secs),
            metrics,
            waiting: RefCell::default(),
        }
    }

    /// Judges an attempt, or holds it until that is possible. `context` is its id.
    pub fn on_request_headers(
        &self,
        host: &impl Host,
        context: u32,
        attempt: &mut Attempt,
    ) -> Action {
        let now_ns = host.now_ns();
        let now_secs = now_secs(now_ns);
        if let Some(conclusion) = self.upstreams.judge_attempt(host, now_secs) {
            return self.conclude(host, attempt, conclusion, now_secs);
        }
        *attempt = Attempt(State::Waiting { since_ns: now_ns.unwrap_or(0) });
        if self.wait(host, context) {
            return Action::Pause;
        }
        // Nobody would ever look at it again.
        self.forget(context);
        self.conclude(host, attempt, Conclusion::refused(DenyReason::UpstreamUnproven), now_secs)
    }

    /// Holds the body of an attempt that was not let through.
    pub fn on_request_body(attempt: &Attempt) -> Action {
        match attempt.0 {
            State::Released(_) => Action::Continue,
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
        if self.waiting.try_borrow().is_ok_and(|waiting| waiting.is_empty()) {
            // A tick that goes on finds nothing to do.
            _ = host.enter(root).and_then(|()| host.set_tick_period(0));
        }
    }

    /// Looks at an attempt that waits: [`Action::Pause`] when it still does.
    pub fn on_tick(&self, host: &impl Host, attempt: &mut Attempt) -> Action {
        let State::Waiting { since_ns } = attempt.0 else {
            return Action::Continue;
        };
        let now_ns = host.now_ns();
        let waited_ns = now_ns.unwrap_or(u64::MAX).saturating_sub(since_ns);
        let late = waited_ns >= self.deadline_ns;
        // Nearly every look at one that waits finds it waiting, and there may be a thousand.
        if !late && !is_up(host) {
            return Action::Pause;
        }
        let now_secs = now_secs(now_ns);
        let overdue = || late.then(|| Conclusion::refused(DenyReason::UpstreamUnproven));
        let judged = self.upstreams.judge_attempt(host, now_secs).or_else(overdue);
        let Some(conclusion) = judged else {
            return Action::Pause;
        };
        // Exactly one action for each attempt: Envoy crashes on a second reply.
        if self.conclude(host, attempt, conclusion, now_secs) == Action::Continue
            && let Err(HostError(status)) = host.resume_request()
        {
            host.log(Level::Error, &format!("vkey: a request is held for good: status {status}"));
        }
        Action::Continue
    }

    /// Compares the connection that the answer came over with the one that was judged.
    pub fn on_response_headers(&self, host: &impl Host, attempt: &mut Attempt) -> Action {
        let State::Released(Some(before)) = &attempt.0 else {
            return Action::Continue;
        };
        if self.upstreams.fingerprint(host) == *before {
            return Action::Continue;
        }
        // Whatever it is, it is not what the request was let go over.
        let reason = DenyReason::UpstreamUnproven;
        let now_secs = now_secs(host.now_ns());
        let conclusion = Conclusion::refused(reason);
        self.upstreams.take_down(host, &self.metrics, &conclusion, true, now_secs);
        self.refuse(host, attempt, reason)
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
        let ticks = !waiting.is_empty();
        waiting.insert(context);
        drop(waiting);
        ticks || host.set_tick_period(TICK_MILLIS).is_ok()
    }

    fn conclude(
        &self,
        host: &impl Host,
        attempt: &mut Attempt,
        conclusion: Conclusion,
        now_secs: u64,
    ) -> Action {
        self.upstreams.take_down(host, &self.metrics, &conclusion, false, now_secs);
        let Conclusion { verdict, fingerprint, .. } = conclusion;
        if let Verdict::Refused(reason) = verdict {
            return self.refuse(host, attempt, reason);
        }
        *attempt = Attempt(State::Released(fingerprint));
        tell(host, verdict);
        Action::Continue
    }

    fn refuse(&self, host: &impl Host, attempt: &mut Attempt, reason: DenyReason) -> Action {
        *attempt = Attempt(State::Refused);
        tell(host, Verdict::Refused(reason));
        if let Err(HostError(status)) = host.send_reply(&reply(reason, Refusal::default())) {
            let text = format!("vkey: the host did not send a reply: status {status}");
            host.log(Level::Error, &text);
        }
        Action::Pause
    }
}

/// Tells the gate of the request. A host without filter state has no such gate that could ask.
fn tell(host: &impl Host, verdict: Verdict) {
    if let Err(HostError(status)) = host.set_filter_state(VERDICT_STATE, verdict.word()) {
        host.log(Level::Debug, &format!("vkey: no filter state: status {status}"));
    }
}

#[cfg(test)]
mod tests;
