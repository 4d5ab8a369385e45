//! A request that waits for the first lease of a budget, and the calls and ticks that end its wait.

use crate::engine::KnownKey;
use crate::exchange::{Exchange, Waiting};
use crate::host::{Action, Host};

use super::budgets::WAIT_MILLIS;
use super::holding::Unread;
use super::look::Look;
use super::request::Next;
use super::{Gate, Opening};

// === impl Gate ===

impl Gate {
    /// Holds a request until its first lease has come.
    pub(super) fn wait(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        waiting: Box<Waiting>,
        context: u32,
    ) -> Action {
        let view = &self.view(host);
        let now_ns = host.now_ns().unwrap_or(0);
        let is_ordered = self.budgets.order_for(view, &self.metrics, &waiting, now_ns);
        let is_ticking = self.ticker.hasten(host, WAIT_MILLIS).is_ok();
        self.budgets.watch(view, &self.ticker, &waiting.asked.key, false);
        if !is_ordered || !is_ticking {
            return self.look_again(host, exchange, waiting, false);
        }
        self.budgets.add_waiting(context, &waiting.asked.key);
        *exchange = Exchange::Waiting(waiting);
        Action::Pause
    }

    /// Looks at a request that waits, outside its own callbacks: [`Action::Pause`] if it still waits.
    pub(super) fn look_at_waiting(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        waiting: Box<Waiting>,
    ) -> Action {
        let (view, now_ns) = (&self.view(host), host.now_ns().unwrap_or(u64::MAX));
        if self.budgets.still_waits(view, &waiting, now_ns) {
            *exchange = Exchange::Waiting(waiting);
            return Action::Pause;
        }
        let may_wait = now_ns < waiting.until_ns;
        if !may_wait {
            self.budgets.give_up(view, &waiting.asked.key);
        }
        if self.look_again(host, exchange, waiting, may_wait) == Action::Continue {
            self.resume(host, exchange);
        }
        match exchange {
            Exchange::Waiting(_) => Action::Pause,
            _ => Action::Continue,
        }
    }

    /// Watches the budgets of a key that were settled: the ledger must be told.
    pub(super) fn watch_budgets(&self, host: &impl Host, key: &KnownKey) {
        if key.has_budgets() {
            self.budgets.watch(host, &self.ticker, key, false);
        }
    }

    /// Cleans the trailers of a request that waits.
    pub(super) fn end_waiting(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        if self.clean_trailers(&self.view(host)).is_some() {
            return Action::Pause;
        }
        match std::mem::take(exchange) {
            Exchange::Waiting(waiting) => {
                let unread = Unread::NotReady;
                self.act_unread(host, exchange, waiting.asked, unread)
            }
            other => {
                *exchange = other;
                Action::Pause
            }
        }
    }

    fn look_again(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        waiting: Box<Waiting>,
        may_wait: bool,
    ) -> Action {
        let Waiting { asked, body, until_ns, .. } = *waiting;
        match self.look(host, Look::Again { asked, body: body.as_ref(), may_wait }) {
            Next::Wait(again) => {
                *exchange = Exchange::Waiting(Box::new(Waiting { body, until_ns, ..*again }));
                Action::Pause
            }
            // Its body has come: nothing would end that.
            Next::Hold(held) => self.act_unread(host, exchange, held.give_up(), Unread::NotReady),
            next => self.act(host, exchange, next, Opening::default()),
        }
    }

    /// Takes the response to a call of this root context, of `bytes`; `root` is its context. `act` calls
    /// [`Gate::on_tick`] for the request of a context.
    pub fn on_call_response(
        &self,
        host: &impl Host,
        root: u32,
        (number, bytes): (u32, usize),
        act: impl Fn(u32) -> Action,
    ) {
        let cells = self.budgets.respond(&self.view(host), &self.metrics, number, bytes);
        let is_concerned = |key: &KnownKey| {
            let tenant = key.tenant_cell_name();
            cells.iter().any(|cell| cell == key.cell_name() || Some(cell) == tenant)
        };
        self.wake(host, is_concerned, act);
        _ = host.enter(root);
    }

    /// Looks at the requests that wait for a lease and are concerned.
    fn wake(
        &self,
        host: &impl Host,
        is_concerned: impl Fn(&KnownKey) -> bool,
        act: impl Fn(u32) -> Action,
    ) {
        self.budgets.retain_waiting(|context, key| {
            !is_concerned(key) || host.enter(context).is_ok() && act(context) == Action::Pause
        });
    }

    /// Does what the budgets need of a tick. Returns how often it is needed, in milliseconds.
    pub(super) fn tick_budgets(
        &self,
        host: &impl Host,
        root: u32,
        act: impl Fn(u32) -> Action,
    ) -> u32 {
        if self.budgets.has_ledger() {
            let now_ns = host.now_ns().unwrap_or(0);
            if self.budgets.is_time_to_look(now_ns) {
                // Another worker may have got what they wait for.
                self.wake(host, |_| true, act);
                _ = host.enter(root);
            }
            self.budgets.tick(&self.view(host), &self.metrics, now_ns);
        }
        self.budgets.tick_millis()
    }
}
