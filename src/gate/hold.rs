//! A request whose body decides: its headers are held, its body is read as it comes, and then it is decided on.

use crate::decision::DenyReason;
use crate::exchange::{Asked, Exchange, Held};
use crate::host::{Action, Body, Host, HostError, Level, Property, number_property};

use super::holding::{LOOK_NS, MAX_LOOKS, MAX_PART_BYTES, NOT_SHOWN, TICK_MILLIS, Unread};
use super::look::Look;
use super::request::Next;
use super::{Gate, Opening};

impl Gate {
    /// Holds a request. One without a body is decided on at once.
    pub(super) fn hold(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        mut held: Box<Held>,
        opening: Opening,
    ) -> Action {
        held.set_context(opening.context);
        if opening.is_whole {
            return self.finish_held(host, exchange, *held);
        }
        self.holding.watch(&self.view(host), &self.ticker, &mut held, opening.context);
        *exchange = Exchange::Held(held);
        Action::Pause
    }

    /// Reads what has come of the body of a held request, and decides if that is all of it. `bytes`: how much the host
    /// holds.
    pub(super) fn read_held(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        bytes: u64,
        is_last: bool,
    ) -> Action {
        let Exchange::Held(mut held) = std::mem::take(exchange) else {
            return Action::Pause;
        };
        self.holding.prove();
        match read_new(host, &mut held, bytes, self.max_body_bytes) {
            Err(unread) => self.act_unread(host, exchange, held.give_up(), unread),
            Ok(()) if is_last => self.finish_held(host, exchange, *held),
            Ok(()) => {
                *exchange = Exchange::Held(held);
                Action::Pause
            }
        }
    }

    /// Decides on a held request whose trailers have come, which end its body.
    pub(super) fn end_held(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        let Exchange::Held(held) = std::mem::take(exchange) else {
            return Action::Pause;
        };
        if self.clean_trailers(&self.view(host)).is_none() {
            return self.act_unread(host, exchange, held.give_up(), Unread::NotReady);
        }
        self.finish_held(host, exchange, *held)
    }

    /// Decides on a request whose body has come to its end.
    fn finish_held(&self, host: &impl Host, exchange: &mut Exchange, held: Held) -> Action {
        match held.finish() {
            (asked, Ok(body)) => {
                let opening = Opening { context: asked.context, is_whole: true };
                match self.look(host, Look::Body(asked, &body)) {
                    Next::Wait(mut waiting) => {
                        waiting.body = Some(body);
                        self.wait(host, exchange, waiting, opening.context)
                    }
                    next => self.act(host, exchange, next, opening),
                }
            }
            (asked, Err(unreadable)) => {
                self.act_unread(host, exchange, asked, Unread::Unreadable(unreadable, None))
            }
        }
    }

    /// Decides on a request whose body is not read to its end.
    #[cold]
    pub(super) fn act_unread(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        asked: Asked,
        unread: Unread,
    ) -> Action {
        let next = self.look(host, Look::Unread(asked, unread));
        self.act(host, exchange, next, Opening::default())
    }

    /// Looks at all requests that are watched. `act` calls [`Gate::on_tick`] for the request of a context; `root` is the
    /// context of this gate.
    pub fn tick(&self, host: &impl Host, root: u32, act: impl Fn(u32) -> Action) {
        let now_ns = host.now_ns().unwrap_or(0);
        let stays = |context| host.enter(context).is_ok() && act(context) == Action::Pause;
        // Budgets may need the tick more often.
        let is_due = self.ticker.millis() >= TICK_MILLIS
            || now_ns.saturating_sub(self.looked_ns.get()) >= LOOK_NS;
        if is_due {
            self.looked_ns.set(now_ns);
        }
        let holds = if is_due { !self.holding.retain(stays) } else { self.holding.watches() };
        let millis = self.tick_budgets(host, root, &act);
        if host.enter(root).is_ok() {
            self.ticker.set(host, if holds && millis == 0 { TICK_MILLIS } else { millis });
        }
    }

    /// Refuses a request that is watched if the host keeps its body back: [`Action::Pause`] if it is not known yet.
    pub fn on_tick(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        match std::mem::take(exchange) {
            Exchange::Held(mut held) if !held.has_come() => {
                let bytes = number_property(host, Property::RequestTotalSize).unwrap_or(0);
                if held.look(bytes) < MAX_LOOKS {
                    *exchange = Exchange::Held(held);
                    return Action::Pause;
                }
                self.holding.fail(host);
                let unread = Unread::NotHeld(NOT_SHOWN);
                if self.act_unread(host, exchange, held.give_up(), unread) == Action::Continue {
                    self.resume(host, exchange);
                }
            }
            Exchange::Waiting(waiting) => return self.look_at_waiting(host, exchange, waiting),
            other => *exchange = other,
        }
        Action::Continue
    }

    /// Lets go on a request outside its own callbacks.
    #[cold]
    pub(super) fn resume(&self, host: &impl Host, exchange: &mut Exchange) {
        if let Err(HostError(status)) = host.resume_request() {
            let text = format!("vkey: a request could not be resumed: host status {status}");
            host.log(Level::Error, &text);
            self.refuse_rest(&self.view(host), exchange, DenyReason::NotReady);
        }
    }
}

/// Reads what is new of a body.
fn read_new(host: &impl Host, held: &mut Held, bytes: u64, max_bytes: u64) -> Result<(), Unread> {
    if bytes > max_bytes {
        return Err(Unread::TooLarge);
    }
    while held.read_bytes() != bytes {
        let part = next_part(host, held.read_bytes(), bytes).ok_or_else(|| {
            host.log(Level::Error, "vkey: a request is refused: the host does not show its body");
            Unread::NotReady
        })?;
        let read = held.feed(&part);
        read.map_err(|unreadable| Unread::Unreadable(unreadable, held.member()))?;
    }
    Ok(())
}

/// The part of a request body from `start`; `None` if the host contradicts itself.
fn next_part(host: &impl Host, start: u64, end: u64) -> Option<Vec<u8>> {
    let max_len = usize::try_from(end.checked_sub(start)?).unwrap_or(usize::MAX);
    let max_len = max_len.min(MAX_PART_BYTES);
    let part = host.body(Body::Request, usize::try_from(start).ok()?, max_len)?;
    (1..=max_len).contains(&part.len()).then_some(part)
}
