//! The gate: what the module does with the callbacks of a host.

mod admission;
mod ending;
mod followed;
mod metrics;
mod plugin;
mod request;
mod resets;
mod response;
mod revocations;
mod seal;
mod sessions;
mod start;
mod upstream;
mod usage;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use crate::access::cidr::parse_address;
use crate::config::{AuditSettings, Plan, Settings, UpstreamTls, default_key_sources};
use crate::decision::{Decision, DenyReason};
use crate::engine::Engine;
use crate::exchange::{Decided, Evaluation, Exchange, Handovers, Pending, Refund, Request, Seen};
use crate::headers::RequestHead;
use crate::host::rules::FoundRules;
use crate::host::view::HostView;
use crate::host::{
    Action, Dialect, Host, HostError, Level, Property, RecordStore, number_property, text_property,
};
use crate::reply::{RATE_LIMIT, REQUEST_ID, Refusal, Reply, reply};
use crate::upstream_tls::Policy;

use self::ending::Common;
use self::followed::Followed;
use self::metrics::Metrics;
use self::request::{Next, RequestGate, refuse, reply_to};
use self::resets::Resets;
use self::response::Withheld;
use self::revocations::Revocations;
use self::start::Start;
use self::upstream::verdicts::Upstreams;

pub use admission::{Admission, Admitted};
pub use plugin::{Plugin, Refused};
pub use sessions::end_session;
pub use upstream::verdicts::NO_UPSTREAM_GATE;
pub use upstream::{Attempt, UpstreamGate};

/// What a root context holds: an engine, or a denial for everything.
pub struct Gate {
    engine: Option<RefCell<Engine>>,
    audit: AuditSettings,
    rules: FoundRules,
    metrics: Metrics,
    resets: Resets,
    start: Start,
    upstreams: Upstreams,
    revocations: Revocations,
    followed: Followed,
    /// A cluster has an upstream gate.
    has_gates: Cell<bool>,
    /// The host has no filter state that access loggers could print.
    lacks_filter_state: Cell<bool>,
    /// The id of the plan; empty if there is none.
    plan: Rc<str>,
    /// What all records have in common, asked for once.
    common: OnceCell<Common>,
    /// Whether the host provides MCP calls, asked for once.
    shows_calls: OnceCell<bool>,
    /// The log has the warning that clients choose their addresses.
    warned: Cell<bool>,
}

/// What a host says when it shows the headers of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// The id of the request's context.
    pub context: u32,
    /// Whether the headers are all of the request.
    pub is_whole: bool,
}

// === impl Gate ===

impl Gate {
    /// A gate for a plan and a policy.
    pub fn open(plan: Plan, policy: Policy) -> Self {
        let Settings { audit, dialect, upstream_tls, .. } = &plan.settings;
        Self {
            audit: audit.clone(),
            rules: FoundRules::new(*dialect),
            metrics: Metrics::new(&plan.settings),
            resets: Resets::default(),
            start: Start::default(),
            upstreams: Upstreams::new(policy, upstream_tls),
            revocations: Revocations::default(),
            followed: Followed::default(),
            has_gates: Cell::new(false),
            lacks_filter_state: Cell::new(false),
            plan: Rc::clone(&plan.id),
            engine: Some(RefCell::new(Engine::new(plan))),
            common: OnceCell::new(),
            shows_calls: OnceCell::new(),
            warned: Cell::new(false),
        }
    }

    /// A gate that denies everything.
    pub fn closed(audit: AuditSettings, policy: Policy) -> Self {
        Self {
            engine: None,
            audit,
            rules: FoundRules::new(Dialect::Bare),
            metrics: Metrics::default(),
            resets: Resets::default(),
            start: Start::default(),
            revocations: Revocations::default(),
            followed: Followed::default(),
            has_gates: Cell::new(false),
            lacks_filter_state: Cell::new(false),
            upstreams: Upstreams::new(policy, &UpstreamTls::default()),
            plan: Rc::from(""),
            common: OnceCell::new(),
            shows_calls: OnceCell::new(),
            warned: Cell::new(false),
        }
    }

    /// Shares the handovers of the VM.
    pub fn share(&mut self, handovers: &Rc<Handovers>) {
        self.upstreams.share(handovers);
    }

    /// The host under the rules that are known by now.
    fn view<'a, H: Host>(&self, host: &'a H) -> HostView<'a, H> {
        HostView::new(host, self.rules.known())
    }

    /// Decides on a request and acts on it. If a host shows a request twice, the second decision holds, and is counted
    /// too. A request that has ended is held: its audit line is written.
    pub fn on_request_headers(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        _opening: Opening,
    ) -> Action {
        if matches!(exchange, Exchange::Done) {
            return Action::Pause;
        }
        // A host that calls back from inside a host call finds the engine in use.
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow_mut().ok());
        let next = match engine {
            Some(mut engine) => {
                let usable = self.rules.of(host).is_ok();
                self.decide(&mut engine, &self.view(host), usable)
            }
            None => reply_to(observe(&self.view(host)), DenyReason::NotReady),
        };
        match next {
            Next::Forward(request, pending) => {
                let host = &self.view(host);
                let is_final = self.prints_records(host) && self.is_final(host, &request);
                *exchange = Exchange::Forwarded(request, pending);
                if is_final {
                    self.settle(host, exchange);
                }
                Action::Continue
            }
            Next::Reply(decided, reply) => {
                *exchange = Exchange::Decided(decided);
                self.settle(&self.view(host), exchange);
                send(host, exchange, reply)
            }
        }
    }

    /// Whether a part of a request's body may pass. Hosts also call this while the headers are held, and treat a
    /// missing callback as consent. `bytes`: see [`Exchange::receive_body`].
    pub fn on_request_body(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        bytes: u64,
        _is_last: bool,
    ) -> Action {
        exchange.receive_body(bytes);
        match exchange.forwarded() {
            None => Action::Pause,
            Some(request) if bytes > 0 && request.is_preflight() => {
                self.refuse_rest(&self.view(host), exchange, DenyReason::KeyMissing)
            }
            Some(_) => Action::Continue,
        }
    }

    /// Removes from the trailers of a forwarded request what must not reach the upstream.
    pub fn on_request_trailers(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        let Some(request) = exchange.forwarded() else {
            return Action::Pause;
        };
        let host = &self.view(host);
        if request.is_preflight() {
            return self.refuse_rest(host, exchange, DenyReason::KeyMissing);
        }
        if self.clean_trailers(host).is_some() {
            return Action::Continue;
        }
        self.refuse_rest(host, exchange, DenyReason::NotReady)
    }

    /// Refuses the rest of a request whose headers were forwarded. The headers were sent, so the request stays charged.
    /// A preflight has no body, but in HTTP/2 its headers do not show that one follows; it would reach the upstream
    /// without a key.
    #[cold]
    fn refuse_rest(&self, host: &impl Host, exchange: &mut Exchange, reason: DenyReason) -> Action {
        exchange.refuse(|request| self.refuse(host, request, reason, Refund::Nothing));
        self.settle(host, exchange);
        send(host, exchange, reply(reason, Refusal::default()))
    }

    /// `None` if a trailer may be left that must not reach the upstream.
    fn clean_trailers(&self, host: &impl Host) -> Option<()> {
        let engine = self.engine.as_ref()?.try_borrow().ok()?;
        let trailers = host.request_trailers()?;
        let read = RequestHead::read(&trailers, &engine.settings().key_sources);
        let names = read.unforwardable_trailers(&|text| engine.may_be_key(text));
        names.into_iter().try_for_each(|name| host.remove_request_trailer(name)).ok()
    }

    /// Withholds a response whose connection breaks the policy. Adds `RateLimit` to any other. Nothing is checked for a
    /// request whose record is final.
    pub fn on_response_headers(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        let host = &self.view(host);
        let (mut request, pending) = match std::mem::take(exchange) {
            Exchange::Forwarded(request, pending) => (request, pending),
            Exchange::Responded(request) => (request, Pending::default()),
            // The request has ended: nothing could record why its response is withheld.
            Exchange::Done => {
                *exchange = Exchange::Done;
                return Action::Pause;
            }
            other @ (Exchange::Unseen | Exchange::Decided(_)) => {
                *exchange = other;
                return Action::Continue;
            }
        };
        let is_final = request.decided().is_recorded();
        let withheld = if is_final { None } else { self.check_response(host, &mut request) };
        if let Some(Withheld { reason, refund, reply }) = withheld {
            *exchange = Exchange::Decided(self.refuse(host, request, reason, refund));
            self.settle(host, exchange);
            return match reply {
                Some(reply) => send(host, exchange, reply),
                None => name_request(host, exchange),
            };
        }
        if pending.may_open_session {
            self.record_session(host, request.decided());
        }
        *exchange = Exchange::Responded(request);
        if let Some(rate_limit) = &pending.rate_limit {
            show(host, RATE_LIMIT, rate_limit);
        }
        Action::Continue
    }

    /// Whether a part of a response's body may pass. `bytes`: how much the host shows.
    pub fn on_response_body(
        &self,
        _host: &impl Host,
        exchange: &mut Exchange,
        _bytes: u64,
        _is_last: bool,
    ) -> Action {
        match exchange {
            Exchange::Done => Action::Pause,
            _ => Action::Continue,
        }
    }

    /// Decides on a request, counts it and edits it. `usable`: the rules of the host are known.
    fn decide(&self, engine: &mut Engine, host: &impl Host, usable: bool) -> Next {
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
        let mcp = self.mcp_call(host);
        let request = Request { head: &head, peer: &peer, writes_line, now_ns, mcp };
        let (seen, evaluation) = Seen::evaluate(engine, &request, || client_cert(host));
        let gate = RequestGate {
            host,
            store: RecordStore::new(host, host.rules()),
            metrics: &self.metrics,
            start: &self.start,
            upstreams: &self.upstreams,
            engine,
            head: &head,
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

    /// The MCP call of the message, if the host provides it. Proxies do not, and are asked once: a property costs as
    /// much as deciding.
    fn mcp_call(&self, host: &impl Host) -> Option<String> {
        if host.is_nginx() || self.shows_calls.get() == Some(&false) {
            return None;
        }
        let call = text_property(host, Property::McpCall);
        _ = self.shows_calls.set(call.is_some());
        call.filter(|call| call != NO_CALL)
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

/// The property of a message that is not a call.
const NO_CALL: &str = "-";

const CLAIMED_ADDRESS: &str = "vkey: the proxy takes the client's address from x-forwarded-for, which \
    clients write themselves: rules about addresses do not hold; set use_remote_address: true, or name \
    the proxies in front by client.trusted_hops";

/// Replies in place of the upstream.
fn send(host: &impl Host, exchange: &Exchange, reply: Reply) -> Action {
    let reply = reply.with_request_id(request_id(exchange));
    if let Err(HostError(status)) = host.send_reply(&reply) {
        let text = format!("vkey: could not send a reply: host status {status}");
        host.log(Level::Error, &text);
    }
    Action::Pause
}

/// Adds the id of the request to the refusal of an upstream gate, which does not know it.
fn name_request(host: &impl Host, exchange: &Exchange) -> Action {
    if let Some(id) = request_id(exchange) {
        show(host, REQUEST_ID, id);
    }
    Action::Continue
}

fn request_id(exchange: &Exchange) -> Option<&str> {
    exchange.decided().and_then(|decided| decided.seen().request_id())
}

/// Adds a header to the response. If the host cannot, the response still passes.
fn show(host: &impl Host, name: &str, value: &str) {
    if let Err(HostError(status)) = host.set_response_header(name, value) {
        let text = format!("vkey: could not set the response header {name}: host status {status}");
        host.log(Level::Debug, &text);
    }
}

/// What a request shows of itself, if it is not evaluated.
fn observe(host: &impl Host) -> Box<Seen> {
    let headers = host.request_headers().unwrap_or_default();
    // Key sources are needed to mask keys.
    let head = RequestHead::read(&headers, &default_key_sources());
    // An unconfigured module may be an upstream filter, which must not read this property.
    let attempt = number_property(host, Property::UpstreamAttempt).unwrap_or(0);
    let peer = (attempt == 0).then(|| host.property(Property::SourceAddress)).flatten();
    Seen::new(&head, peer.as_deref().and_then(parse_address), host.now_ns().unwrap_or(0))
}

fn client_cert(host: &impl Host) -> Option<String> {
    let digest = text_property(host, Property::PeerCertificateDigest)?;
    Some(digest.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
