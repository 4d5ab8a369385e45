//! The gate: what the module does with the callbacks of a host.

mod admission;
mod metrics;
mod plugin;
mod request;
mod resets;
mod response;
mod revocations;
mod sessions;
mod upstream;
mod usage;

use std::cell::{Cell, OnceCell, RefCell};

use crate::access::cidr::parse_address;
use crate::config::{
    AuditSettings, Config, Plan, Settings, Sink, UpstreamTls, default_key_sources,
};
use crate::decision::DenyReason;
use crate::engine::Engine;
use crate::exchange::{Ending, Exchange, Judgement, Refund, Request};
use crate::headers::RequestHead;
use crate::host::rules::FoundRules;
use crate::host::view::HostView;
use crate::host::{
    Action, Dialect, FilterState, Host, HostError, Level, Property, RecordStore, Rules,
    number_property, text_property,
};
use crate::key::revocations::RevocationList;
use crate::limits::allowance::RateLimitFields;
use crate::reply::{Refusal, Reply, reply};
use crate::upstream_tls::Policy;

use self::metrics::Metrics;
use self::request::{Judged, deny};
use self::resets::Resets;
use self::revocations::Revocations;
use self::upstream::verdicts::Upstreams;

pub use admission::{Admission, Admitted};
pub use plugin::{Plugin, Refused};
pub use sessions::end_session;
pub use upstream::{Attempt, UpstreamGate};

/// What a root context holds: an engine, or a denial for everything.
pub struct Gate {
    engine: Option<RefCell<Engine>>,
    audit: AuditSettings,
    rules: FoundRules,
    metrics: Metrics,
    resets: Resets,
    upstreams: Upstreams,
    revocations: Revocations,
    /// The id of the proxy's node, asked for once.
    node: OnceCell<String>,
    /// Whether it was said that clients choose their addresses.
    warned: Cell<bool>,
}

// === impl Gate ===

impl Gate {
    /// A gate by a configuration, and the policy that is compiled in. One whose secrets are missing or
    /// unusable denies everything with [`DenyReason::NotReady`].
    pub fn configure(
        config: Config,
        policy: Policy,
        environment: impl Fn(&str) -> Option<String>,
        host: &impl Host,
    ) -> Self {
        let audit = config.audit().clone();
        match config.compile(environment) {
            Ok(plan) => {
                host.log(Level::Info, &format!("vkey: plan {} is in force", plan.id));
                let revocations = plan.settings.revoked.version;
                let list = RevocationList::new(&plan.settings.revoked);
                let gate = Self::open(plan, policy);
                gate.publish(host, &list);
                gate.metrics.show_revocations(host, revocations.unwrap_or(0));
                gate.metrics.show_policy(host, gate.upstreams.digest());
                let reading = HostView::new(host, gate.rules.for_reading());
                gate.upstreams.explain(&reading, gate.rules.names_nginx());
                gate
            }
            Err(not_ready) => {
                let text = format!(
                    "vkey: not ready, every request is refused: {not_ready}; variables reach the \
                     module through the proxy (Envoy: host_env_keys)"
                );
                host.log(Level::Error, &text);
                Self::closed(audit, policy)
            }
        }
    }

    /// A gate that decides by a plan and a policy.
    pub fn open(plan: Plan, policy: Policy) -> Self {
        let Settings { audit, dialect, upstream_tls, .. } = &plan.settings;
        Self {
            audit: audit.clone(),
            rules: FoundRules::new(*dialect),
            metrics: Metrics::new(&plan.settings),
            resets: Resets::default(),
            upstreams: Upstreams::new(policy, upstream_tls),
            revocations: Revocations::default(),
            engine: Some(RefCell::new(Engine::new(plan))),
            node: OnceCell::new(),
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
            revocations: Revocations::default(),
            upstreams: Upstreams::new(policy, &UpstreamTls::default()),
            node: OnceCell::new(),
            warned: Cell::new(false),
        }
    }

    /// The host as the gate sees it from now on.
    fn view<'a, H: Host>(&self, host: &'a H) -> HostView<'a, H> {
        HostView::new(host, self.rules.known())
    }

    /// Tells all workers of a list of revocations that has a version.
    fn publish(&self, host: &impl Host, list: &RevocationList) {
        if list.version() > 0 && self.rules.at_start(host).is_some() {
            Revocations::publish(&self.view(host), list);
        }
    }

    /// Decides on a request and acts on it.
    pub fn on_request_headers(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        // A host that calls back from inside a host call finds the engine in use.
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow_mut().ok());
        let answer = match engine {
            Some(mut engine) => {
                let usable = self.rules.of(host).is_ok();
                self.decide(&mut engine, &self.view(host), exchange, usable)
            }
            None => {
                observe(&self.view(host), exchange);
                Err(deny(exchange, DenyReason::NotReady))
            }
        };
        match answer {
            Ok(()) => Action::Continue,
            Err(reply) => answer_with(host, &reply),
        }
    }

    /// Whether a request's body may go on. Hosts ask also while the headers are held, and take a
    /// callback that is missing for consent.
    /// `bytes`: see [`Exchange::receive_body`].
    pub fn on_request_body(&self, host: &impl Host, exchange: &mut Exchange, bytes: u64) -> Action {
        exchange.receive_body(bytes);
        if bytes > 0 && exchange.is_preflight() {
            return self.refuse_rest(&self.view(host), exchange, DenyReason::KeyMissing);
        }
        if exchange.is_forwarded() { Action::Continue } else { Action::Pause }
    }

    /// Removes from the trailers of a request that goes on what must not reach the upstream.
    pub fn on_request_trailers(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        if !exchange.is_forwarded() {
            return Action::Pause;
        }
        let host = &self.view(host);
        if exchange.is_preflight() {
            return self.refuse_rest(host, exchange, DenyReason::KeyMissing);
        }
        if self.clean_trailers(host).is_some() {
            return Action::Continue;
        }
        self.refuse_rest(host, exchange, DenyReason::NotReady)
    }

    /// Refuses what follows the headers of a request that was let in. They have left, so it stays charged.
    /// HTTP/2 does not say beforehand that a preflight has a body, and none has: it would reach the upstream
    /// without a key.
    #[cold]
    fn refuse_rest(&self, host: &impl Host, exchange: &mut Exchange, reason: DenyReason) -> Action {
        self.refuse(host, exchange, reason, Refund::Nothing);
        answer_with(host, &reply(reason, Refusal::default()))
    }

    /// `None` where something may be left that must not reach the upstream.
    fn clean_trailers(&self, host: &impl Host) -> Option<()> {
        let engine = self.engine.as_ref()?.try_borrow().ok()?;
        let trailers = host.request_trailers()?;
        let read = RequestHead::read(&trailers, &engine.settings().key_sources);
        let names = read.unforwardable_trailers(&|text| engine.may_be_key(text));
        names.into_iter().try_for_each(|name| host.remove_request_trailer(name)).ok()
    }

    /// Withholds a response that came over a connection that breaks the policy, and tells the client its
    /// limits with any other.
    pub fn on_response_headers(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        let host = &self.view(host);
        exchange.answer();
        if exchange.is_forwarded()
            && let Some(reply) = self.judge_response(host, exchange)
        {
            return answer_with(host, &reply);
        }
        self.remember_session(host, exchange);
        let fields = exchange.take_fields().map(RateLimitFields::into_headers);
        for (name, value) in fields.into_iter().flatten() {
            // A host that cannot is no reason to withhold the answer.
            if let Err(HostError(status)) = host.set_response_header(name, &value) {
                host.log(
                    Level::Debug,
                    &format!(
                        "vkey: could not set the response header {name}: host status {status}"
                    ),
                );
            }
        }
        Action::Continue
    }

    /// Writes the audit line of a request that has ended. Hosts also end requests that they never
    /// showed.
    pub fn on_log(&self, host: &impl Host, exchange: &mut Exchange) {
        let host = &self.view(host);
        // Reading a property costs as much as deciding. What was shown is counted already, and what was
        // refused here has no upstream.
        let received = exchange.received_bytes();
        if !exchange.is_observed() {
            observe(host, exchange);
        }
        let left = exchange.is_forwarded() || exchange.verdict().is_some();
        let upstream = left.then(|| text_property(host, Property::UpstreamAddress)).flatten();
        // Without an upstream there is nothing to judge. Of hosts without shared data it is not known
        // whether they show one.
        let reached = upstream.is_some() || host.rules() == Rules::Bare;
        if reached && exchange.is_forwarded() && exchange.verdict().is_none() {
            self.judge_late(host, exchange);
        }
        let ending = Ending {
            status: host.response_status(),
            bytes_in: received.or_else(|| number_property(host, Property::RequestTotalSize)),
            bytes_out: number_property(host, Property::ResponseTotalSize),
            upstream,
            now_ns: host.now_ns(),
        };
        let policy = self.upstreams.digest();
        let max_bytes = host.max_line_bytes();
        let line = exchange.finish(&ending, self.node(host), policy, &self.audit.mask, max_bytes);
        if let Some(line) = line {
            self.write(host, &line);
            self.metrics.count(host, &exchange.outcome());
        }
    }

    /// Lets a request on its way, or says how it is answered. `usable`: the rules of the host are known.
    fn decide(
        &self,
        engine: &mut Engine,
        host: &impl Host,
        exchange: &mut Exchange,
        usable: bool,
    ) -> Result<(), Reply> {
        let (clock, headers) = (host.now_ns(), host.request_headers());
        let Some((now_ns, headers)) = clock.zip(headers) else {
            let what = if clock.is_none() { "clock" } else { "request headers" };
            host.log(
                Level::Error,
                &["vkey: a request is refused: the host shows no ", what].concat(),
            );
            observe(host, exchange);
            return Err(deny(exchange, DenyReason::NotReady));
        };
        self.revocations.refresh(host, engine, (&self.metrics, &self.resets), now_ns);
        if engine.is_outdated() {
            self.metrics.count_outdated(host);
        }
        let Settings { key_sources, foreign_credentials, .. } = engine.settings();
        let is_own = |text: &[u8]| engine.is_own(text);
        let head = RequestHead::read(&headers, key_sources);
        let head = head.without_foreign(*foreign_credentials, key_sources, is_own);
        let peer = engine.trusts_peers().then(|| host.property(Property::SourceAddress)).flatten();
        self.warn_of_claimed_address(host, peer.as_deref());
        let peer = peer.as_deref().and_then(parse_address);
        let request = Request { head: &head, peer, now_ns };
        let client_cert = || client_cert(host);
        let judgement = exchange.judge(engine, &request, client_cert);
        let judged = Judged {
            host,
            store: RecordStore::new(host, host.rules()),
            metrics: &self.metrics,
            upstreams: &self.upstreams,
            engine,
            head: &head,
            now_ns,
        };
        let answer = match judgement {
            Judgement::Stranger(_) => judged.conclude(judgement, exchange),
            _ if !usable => Err(deny(exchange, DenyReason::NotReady)),
            _ => judged.conclude(judgement, exchange),
        };
        self.metrics.count_retries(host, judged.store.retries());
        self.resets.report(host, &judged.store);
        answer
    }

    /// Warns once of a proxy that takes the client's word for its address: an address that Envoy read from
    /// `x-forwarded-for` has port 0, which no connection has. nginx shows no port.
    fn warn_of_claimed_address(&self, host: &impl Host, peer: Option<&[u8]>) {
        let claimed = !host.is_nginx() && peer.is_some_and(|peer| peer.ends_with(b":0"));
        if claimed && !self.warned.replace(true) {
            host.log(Level::Warn, CLAIMED_ADDRESS);
        }
    }

    fn write(&self, host: &impl Host, line: &str) {
        let shown = match self.audit.sink {
            Sink::AccessLog => host.set_filter_state(FilterState::Audit.key(), line).is_ok(),
            Sink::Log => false,
        };
        // A line that the access loggers cannot get is not lost.
        if !shown {
            host.log(self.audit.level, line);
        }
    }

    fn node(&self, host: &impl Host) -> Option<&str> {
        // The host is not called inside the cell's own initialisation: it may call back.
        if self.node.get().is_none() {
            _ = self.node.set(text_property(host, Property::NodeId)?);
        }
        self.node.get().map(String::as_str)
    }
}

const CLAIMED_ADDRESS: &str = "vkey: the proxy takes the client's address from x-forwarded-for, which \
    clients write themselves: rules about addresses do not hold; set use_remote_address: true, or name \
    the proxies in front by client.trusted_hops";

/// Answers in the place of the upstream.
fn answer_with(host: &impl Host, reply: &Reply) -> Action {
    if let Err(HostError(status)) = host.send_reply(reply) {
        let text = format!("vkey: the host did not send a reply: status {status}");
        host.log(Level::Error, &text);
    }
    Action::Pause
}

/// Records what a request shows that is not judged.
fn observe(host: &impl Host, exchange: &mut Exchange) {
    let headers = host.request_headers().unwrap_or_default();
    // For the keys in it, which are not printed.
    let head = RequestHead::read(&headers, &default_key_sources());
    // Without a configuration it may be that this is an upstream filter, which must not ask.
    let attempt = number_property(host, Property::UpstreamAttempt).unwrap_or(0);
    let peer = (attempt == 0).then(|| host.property(Property::SourceAddress)).flatten();
    exchange.observe(&head, peer.as_deref().and_then(parse_address), host.now_ns().unwrap_or(0));
}

fn client_cert(host: &impl Host) -> Option<String> {
    let digest = text_property(host, Property::PeerCertificateDigest)?;
    Some(digest.to_ascii_lowercase())
}
