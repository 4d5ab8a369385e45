//! A look at a request: at its headers, or at its headers again with its body.

use std::net::IpAddr;

use crate::access::CanonicalPath;
use crate::access::cidr::parse_address;
use crate::audit::mcp_member;
use crate::body::mcp::{Message, MessageKind};
use crate::config::Settings;
use crate::decision::{Decision, DenyReason};
use crate::engine::Engine;
use crate::exchange::{Content, Decided, Evaluation, ReadBody, Request, Seen};
use crate::headers::RequestHead;
use crate::host::{Host, Level, Property, RecordStore};

use super::holding::Unread;
use super::request::{Next, RequestGate, refuse, reply_to};
use super::{Gate, client_cert, observe};

/// What is looked at.
#[derive(Clone, Copy)]
pub(super) enum Look<'a> {
    /// The headers.
    Headers,
    /// The headers again, with the body, and what the first look has seen.
    Body(&'a Seen, &'a ReadBody),
    /// The headers again, with what the first look has seen, and why the body is not read.
    Unread(&'a Seen, Unread),
}

const CLAIMED_ADDRESS: &str = "vkey: the proxy takes the client's address from x-forwarded-for, which \
    clients write themselves: rules about addresses do not hold; set use_remote_address: true, or name \
    the proxies in front by client.trusted_hops";

/// The message of a request whose headers are trusted to say what its body says.
fn said_by_headers(engine: &Engine, head: &RequestHead<'_>, look: Look<'_>) -> Option<ReadBody> {
    let is_first = matches!(look, Look::Headers);
    let message = is_first.then(|| engine.said_by_headers(head)).flatten()?;
    Some(ReadBody { content: Content::Mcp(message), bytes: 0 })
}

/// The call of a message, as in an audit line.
fn shown_call(engine: &Engine, head: &RequestHead<'_>, message: &Message) -> Option<String> {
    if message.kind == MessageKind::Response {
        return None;
    }
    let target = head.target.unwrap_or_default();
    let path =
        CanonicalPath::parse(target).or_else(|_| CanonicalPath::parse_keeping_slashes(target));
    let path = path.ok()?;
    let target = engine.mcp_server(&path)?;
    let said = head.fields().find(|(name, _)| *name == b"mcp-protocol-version");
    let said = said.and_then(|(_, revision)| str::from_utf8(revision).ok());
    Some(mcp_member(&target.call(message), message.revision.as_deref().or(said)))
}

impl<'a> Look<'a> {
    fn body(self) -> Option<&'a ReadBody> {
        match self {
            Self::Headers | Self::Unread(..) => None,
            Self::Body(_, body) => Some(body),
        }
    }

    /// What the first look has seen, and why the body is not read.
    fn earlier(self) -> (Option<&'a Seen>, Option<Unread>) {
        match self {
            Self::Headers => (None, None),
            Self::Body(seen, _) => (Some(seen), None),
            Self::Unread(seen, unread) => (Some(seen), Some(unread)),
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
        if engine.is_outdated() {
            self.metrics.count_outdated(host);
        }
        let Settings { key_sources, foreign_credentials, .. } = engine.settings();
        let is_own = |text: &[u8]| engine.is_own(text);
        let head = RequestHead::read(&headers, key_sources);
        let head = head.without_foreign(*foreign_credentials, key_sources, is_own);
        let peer = || self.peer(host);
        let writes_line = !self.prints_records(host) || self.lacks_filter_state.get();
        let said = said_by_headers(engine, &head, look);
        let body = look.body().or(said.as_ref());
        let content = body.map(|body| &body.content);
        let message = content.and_then(Content::message);
        let mcp = message.and_then(|message| shown_call(engine, &head, message));
        let request = Request { head: &head, peer: &peer, writes_line, now_ns, mcp, body: content };
        let (mut seen, evaluation) = Seen::evaluate(engine, &request, || client_cert(host));
        let (earlier, unread) = look.earlier();
        if let Some(earlier) = earlier {
            seen.follow(earlier);
        }
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
            now_ns,
        };
        self.show_counts_since(host, Some(now_ns));
        let next = match evaluation {
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
