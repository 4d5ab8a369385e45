//! The gate: what the module does with the callbacks of a host.

mod admission;
mod body;
mod budgets;
mod cluster;
mod ending;
mod followed;
mod hold;
mod holding;
mod lists;
mod look;
mod meter;
mod metrics;
mod plugin;
mod request;
mod reserve;
mod resets;
mod response;
mod revocations;
mod seal;
mod secrets;
mod sessions;
mod splice;
mod start;
mod ticker;
mod trail;
mod upstream;
mod usage;
mod waiting;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use crate::access::cidr::parse_address;
use crate::body::response::End;
use crate::config::{AuditSettings, Plan, Settings, UpstreamTls, default_key_sources};
use crate::decision::DenyReason;
use crate::engine::Engine;
use crate::exchange::{Exchange, Handovers, Pending, Refund, Seen};
use crate::headers::RequestHead;
use crate::host::rules::FoundRules;
use crate::host::view::HostView;
use crate::host::{
    Action, Dialect, Host, HostError, Level, Property, number_property, text_property,
};
use crate::reply::{RATE_LIMIT, REQUEST_ID, Reply, reply};
use crate::upstream_tls::Policy;

use self::budgets::Budgets;
use self::ending::Common;
use self::followed::Followed;
use self::holding::Holding;
use self::look::Look;
use self::meter::read_response;
use self::metrics::Metrics;
use self::request::Next;
use self::resets::Resets;
use self::response::Withheld;
use self::revocations::Revocations;
use self::secrets::Secrets;
use self::start::Start;
use self::ticker::Ticker;
use self::trail::Trail;
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
    secrets: Secrets,
    followed: Followed,
    /// A cluster has an upstream gate.
    has_gates: Cell<bool>,
    /// The host has no filter state that access loggers could print.
    lacks_filter_state: Cell<bool>,
    /// The id of the plan; empty if there is none.
    plan: Rc<str>,
    /// What all records have in common, asked for once.
    common: OnceCell<Common>,
    /// The log has the warning that clients choose their addresses.
    warned: Cell<bool>,
    /// The chain of the records, if there is an audit secret.
    trail: Option<Trail>,
    holding: Holding,
    budgets: Budgets,
    ticker: Ticker,
    /// When held requests were looked at, Unix nanoseconds.
    looked_ns: Cell<u64>,
    /// The longest request body that is held, in bytes.
    max_body_bytes: u64,
    /// A rate-limit filter behind the seal enforces limits of the whole cluster.
    has_cluster_limits: bool,
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
    pub fn open(mut plan: Plan, policy: Policy) -> Self {
        let Settings { audit, body, dialect, limits, upstream_tls, .. } = &plan.settings;
        Self {
            audit: audit.clone(),
            rules: FoundRules::new(*dialect),
            metrics: Metrics::new(&plan.settings),
            resets: Resets::default(),
            start: Start::default(),
            upstreams: Upstreams::new(policy, upstream_tls),
            revocations: Revocations::default(),
            secrets: Secrets::new(&plan.filter_states),
            followed: Followed::default(),
            has_gates: Cell::new(false),
            lacks_filter_state: Cell::new(false),
            plan: Rc::clone(&plan.id),
            max_body_bytes: body.max_bytes,
            has_cluster_limits: limits.of_cluster,
            holding: Holding::default(),
            budgets: Budgets::new(plan.ledger.take()),
            ticker: Ticker::default(),
            looked_ns: Cell::new(0),
            engine: Some(RefCell::new(Engine::new(plan))),
            common: OnceCell::new(),
            warned: Cell::new(false),
            trail: None,
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
            secrets: Secrets::default(),
            followed: Followed::default(),
            has_gates: Cell::new(false),
            lacks_filter_state: Cell::new(false),
            upstreams: Upstreams::new(policy, &UpstreamTls::default()),
            plan: Rc::from(""),
            max_body_bytes: 0,
            has_cluster_limits: false,
            holding: Holding::default(),
            budgets: Budgets::default(),
            ticker: Ticker::default(),
            looked_ns: Cell::new(0),
            common: OnceCell::new(),
            warned: Cell::new(false),
            trail: None,
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
        opening: Opening,
    ) -> Action {
        if matches!(exchange, Exchange::Done) {
            return Action::Pause;
        }
        let next = self.look(host, Look::Headers);
        self.act(host, exchange, next, opening)
    }

    /// Forwards a request, replies to it, or holds it.
    fn act(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        next: Next,
        opening: Opening,
    ) -> Action {
        match next {
            Next::Forward(request, pending) => {
                let host = &self.view(host);
                let is_settled = pending.metering.is_none();
                let is_final =
                    is_settled && self.prints_records(host) && self.is_final(host, &request);
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
            Next::Hold(held) => self.hold(host, exchange, held, opening),
            Next::Wait(waiting) => self.wait(host, exchange, waiting, opening.context),
        }
    }

    /// Whether a part of a request's body may pass. Hosts also call this while the headers are held, and treat a
    /// missing callback as consent. `bytes`: see [`Exchange::receive_body`]. `is_last`: it ends the request.
    pub fn on_request_body(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        bytes: u64,
        is_last: bool,
    ) -> Action {
        exchange.receive_body(bytes);
        if let Exchange::Held(_) = exchange {
            return self.read_held(host, exchange, bytes, is_last);
        }
        match exchange.forwarded() {
            None => Action::Pause,
            Some(request) if bytes > 0 && request.is_preflight() => {
                self.refuse_rest(&self.view(host), exchange, DenyReason::KeyMissing)
            }
            Some(_) => Action::Continue,
        }
    }

    /// Removes from the trailers of a forwarded request what must not reach the upstream. Decides on a held one.
    pub fn on_request_trailers(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        match exchange {
            Exchange::Held(_) => return self.end_held(host, exchange),
            Exchange::Waiting(_) => return self.end_waiting(host, exchange),
            _ => {}
        }
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
        let refusal = exchange.decided().map(|decided| decided.seen().refusal());
        send(host, exchange, reply(reason, refusal.unwrap_or_default()))
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
            Exchange::Metered(request, metering) => {
                (request, Pending { metering: Some(metering), ..Pending::default() })
            }
            Exchange::Filtered(request, filtering) => {
                (request, Pending { filtering: Some(filtering), ..Pending::default() })
            }
            // The request has ended: nothing could record why its response is withheld.
            Exchange::Done => {
                *exchange = Exchange::Done;
                return Action::Pause;
            }
            other @ (Exchange::Unseen
            | Exchange::Held(_)
            | Exchange::Waiting(_)
            | Exchange::Decided(_)) => {
                *exchange = other;
                return Action::Continue;
            }
        };
        let is_final = request.decided().is_recorded();
        let refused = if is_final { None } else { self.refused_by_cluster(host, &request) };
        let check = || if is_final { None } else { self.check_response(host, &mut request) };
        let withheld = refused.or_else(check);
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
        let begin_filtering = |filtering| self.begin_filtering(host, filtering);
        *exchange = match (pending.metering, pending.filtering.and_then(begin_filtering)) {
            (Some(metering), _) => Exchange::Metered(request, self.begin_metering(host, metering)),
            (None, Some(filtering)) => Exchange::Filtered(request, filtering),
            (None, None) => Exchange::Responded(request),
        };
        if let Some(rate_limit) = &pending.rate_limit {
            show(host, RATE_LIMIT, rate_limit);
        }
        Action::Continue
    }

    /// Reads a part of a response's body, if its usage is charged. `bytes`: how much the host shows. `is_last`: it ends the
    /// response.
    pub fn on_response_body(
        &self,
        host: &impl Host,
        exchange: &mut Exchange,
        bytes: u64,
        is_last: bool,
    ) -> Action {
        match exchange {
            Exchange::Metered(_, metering) => {
                read_response(host, metering, bytes, is_last);
                if is_last {
                    self.settle_usage(&self.view(host), exchange, End::Complete);
                }
                Action::Continue
            }
            Exchange::Filtered(_, filtering) => {
                self.filter_body(&self.view(host), filtering, bytes, is_last)
            }
            Exchange::Done => Action::Pause,
            _ => Action::Continue,
        }
    }

    /// Ends a response that ends by trailers.
    pub fn on_response_trailers(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        match exchange {
            Exchange::Filtered(_, filtering) => self.end_filtering(&self.view(host), filtering),
            Exchange::Done => Action::Pause,
            _ => Action::Continue,
        }
    }
}

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
