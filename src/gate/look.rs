//! A look at a request: at its headers, or at its headers again with its body.

use std::net::IpAddr;

use crate::access::cidr::parse_address;
use crate::config::Settings;
use crate::decision::{Decision, DenyReason};
use crate::engine::Engine;
use crate::exchange::{Asked, Content, Decided, Evaluation, ReadBody, Request, Seen};
use crate::headers::RequestHead;
use crate::host::{Host, Level, Property, RecordStore};

use super::holding::Unread;
use super::request::{Next, RequestGate, refuse, reply_to};
use super::{Gate, client_cert, observe};

/// What is looked at.
pub(super) enum Look<'a> {
    /// The headers.
    Headers,
    /// The headers again, after the first look, with the body.
    Body(Asked, &'a ReadBody),
    /// The headers again, after the first look, and why the body is not read.
    Unread(Asked, Unread),
    /// The request again, which has waited for a lease, and whether it may wait longer.
    Again { asked: Asked, body: Option<&'a ReadBody>, may_wait: bool },
}

const CLAIMED_ADDRESS: &str = "vkey: the proxy takes the client's address from x-forwarded-for, which \
    clients write themselves: rules about addresses do not hold; set use_remote_address: true, or name \
    the proxies in front by client.trusted_hops";

/// The message of a request whose headers are trusted to say what its body says.
fn said_by_headers(engine: &Engine, head: &RequestHead<'_>) -> Option<ReadBody> {
    let message = engine.said_by_headers(head)?;
    Some(ReadBody { content: Content::Mcp(message), bytes: 0 })
}

impl<'a> Look<'a> {
    /// Whether the request may wait for a lease.
    fn may_wait(&self) -> bool {
        match self {
            Self::Headers | Self::Body(..) => true,
            Self::Unread(..) => false,
            Self::Again { may_wait, .. } => *may_wait,
        }
    }

    /// What the first look has seen, the body, and why the body is not read.
    fn parts(self) -> (Option<Asked>, Option<&'a ReadBody>, Option<Unread>) {
        match self {
            Self::Headers => (None, None, None),
            Self::Body(asked, body) => (Some(asked), Some(body), None),
            Self::Unread(asked, unread) => (Some(asked), None, Some(unread)),
            Self::Again { asked, body, .. } => (Some(asked), body, None),
        }
    }
}

impl Gate {
    /// Decides on a request, counts it and edits it, or finds that its body must be read first.
    pub(super) fn look(&self, host: &impl Host, look: Look<'_>) -> Next {
        // A host that calls back from inside a host call finds the engine in use.
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow_mut().ok());
        match engine {
            Some(mut engine) => {
                let usable = self.rules.of(host).is_ok();
                self.decide(&mut engine, &self.view(host), look, usable)
            }
            None => reply_to(observe(&self.view(host)), DenyReason::NotReady),
        }
    }

    /// `usable`: the rules of the host are known.
    fn decide(&self, engine: &mut Engine, host: &impl Host, look: Look<'_>, usable: bool) -> Next {
        let (clock, headers) = (host.now_ns(), host.request_headers());
        let Some((now_ns, headers)) = clock.zip(headers) else {
            let what = if clock.is_none() { "clock" } else { "request headers" };
            host.log(
                Level::Error,
                &["vkey: a request is refused: the host shows no ", what].concat(),
            );
            return reply_to(observe(host), DenyReason::NotReady);
        };
        self.revocations.refresh(host, engine, (&self.metrics, &self.resets), now_ns);
        self.secrets.refresh(host, engine, (&self.metrics, usable), now_ns);
        if engine.is_outdated() {
            self.metrics.count_outdated(host);
        }
        let Settings { key_sources, foreign_credentials, .. } = engine.settings();
        let is_own = |text: &[u8]| engine.is_own(text);
        let head = RequestHead::read(&headers, key_sources);
        let head = head.without_foreign(*foreign_credentials, key_sources, is_own);
        let deadline_ns = self.budgets.deadline_ns().filter(|_| look.may_wait());
        let (asked, body, unread) = look.parts();
        let earlier = asked.map(|asked| asked.look_again(&headers));
        // The other end of a connection stays the same.
        let known_peer = earlier.as_ref().map(|earlier| earlier.seen.peer());
        let peer = || known_peer.unwrap_or_else(|| self.peer(host));
        let writes_line = !self.prints_records(host) || self.lacks_filter_state.get();
        let is_unread = body.is_none() && unread.is_none();
        let said = is_unread.then(|| said_by_headers(engine, &head)).flatten();
        let body = body.or(said.as_ref());
        let content = body.map(|body| &body.content);
        let request = Request { head: &head, peer: &peer, writes_line, now_ns, body: content };
        let (seen, evaluation) = Seen::evaluate(engine, &request, earlier, || client_cert(host));
        let gate = RequestGate {
            host,
            store: RecordStore::new(host, host.rules()),
            metrics: &self.metrics,
            start: &self.start,
            upstreams: &self.upstreams,
            holding: &self.holding,
            engine,
            head: &head,
            body,
            unread,
            budgets: &self.budgets,
            ticker: &self.ticker,
            wait_until_ns: deadline_ns.map(|deadline_ns| now_ns.saturating_add(deadline_ns)),
            now_ns,
        };
        self.show_counts_since(host, Some(now_ns));
        let mut next = match evaluation {
            Evaluation::Known { key, .. } if !usable => {
                let decision = Decision::Deny(DenyReason::NotReady);
                refuse(Decided::with_key(seen, key, decision), DenyReason::NotReady)
            }
            Evaluation::Keyless(_) | Evaluation::Readiness if !usable => {
                reply_to(seen, DenyReason::NotReady)
            }
            evaluation => gate.conclude(seen, evaluation),
        };
        self.metrics.count_retries(host, gate.store.retries());
        self.resets.report(host, &gate.store);
        match &mut next {
            Next::Hold(held) => held.keep(headers),
            Next::Wait(waiting) => waiting.asked.keep(headers),
            Next::Forward(..) | Next::Reply(..) => {}
        }
        next
    }

    /// The address of the other end of the connection.
    fn peer(&self, host: &impl Host) -> Option<IpAddr> {
        let peer = host.property(Property::SourceAddress);
        self.warn_of_claimed_address(host, peer.as_deref());
        peer.as_deref().and_then(parse_address)
    }

    /// Warns once if the proxy takes the client's address from `x-forwarded-for`: Envoy then shows port 0, which no
    /// connection has. nginx shows no port.
    fn warn_of_claimed_address(&self, host: &impl Host, peer: Option<&[u8]>) {
        let claimed = !host.is_nginx() && peer.is_some_and(|peer| peer.ends_with(b":0"));
        if claimed && !self.warned.replace(true) {
            host.log(Level::Warn, CLAIMED_ADDRESS);
        }
    }
}
