//! The gate: what the module does with the callbacks of a host.

use std::cell::{OnceCell, RefCell};

use crate::allowance::RateLimitFields;
use crate::cidr::parse_address;
use crate::config::{AuditSettings, Config, Dialect, Level, Plan, Sink};
use crate::decision::{DenyReason, Reply};
use crate::engine::Engine;
use crate::exchange::{Ending, Exchange, Request};
use crate::headers::RequestHead;
use crate::json::Invalid;

use super::judged::{Judged, deny};
use super::metrics::Metrics;
use super::{Host, HostError, Property, RecordStore, number};

/// The filter state that holds the audit line, as set; Envoy puts `wasm.` before it.
const AUDIT_STATE: &str = "vkey.audit";

/// What a root context holds: an engine, or a denial for everything.
pub struct Gate {
    engine: Option<RefCell<Engine>>,
    audit: AuditSettings,
    dialect: Dialect,
    metrics: Metrics,
    /// The id of the proxy's node, asked for once.
    node: OnceCell<String>,
}

/// The configuration cannot be put in force anywhere: the host should keep the one it has.
#[derive(Debug)]
pub struct Refused(pub Invalid);

/// What the host does next with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Continue,
    /// It was answered.
    Pause,
}

// === impl Gate ===

impl Gate {
    /// A gate by a configuration: a function of the text and the environment alone, because a host
    /// that gets different answers from its workers lets requests pass unfiltered.
    ///
    /// No configuration, and one whose secrets are missing or unusable, make a gate that denies
    /// everything with [`DenyReason::NotReady`].
    ///
    /// # Errors
    ///
    /// [`Refused`] for a text that is no configuration, whatever the environment.
    pub fn configure(
        text: &[u8],
        environment: impl Fn(&str) -> Option<String>,
        host: &impl Host,
    ) -> Result<Self, Refused> {
        if text.trim_ascii().is_empty() {
            host.log(Level::Error, "vkey: no configuration: every request is refused");
            return Ok(Self::closed(AuditSettings::default()));
        }
        let config = Config::parse(text).map_err(|invalid| {
            host.log(Level::Error, &format!("vkey: configuration refused: {invalid}"));
            Refused(invalid)
        })?;
        let audit = config.audit().clone();
        match config.compile(environment) {
            Ok(plan) => {
                host.log(Level::Info, &format!("vkey: plan {} is in force", plan.id));
                let revocations = plan.settings.revoked.version;
                let gate = Self::open(plan);
                gate.metrics.show_revocations(host, revocations.unwrap_or(0));
                Ok(gate)
            }
            Err(not_ready) => {
                let text = format!(
                    "vkey: not ready, every request is refused: {not_ready}; variables reach the \
                     module through the proxy (Envoy: host_env_keys)"
                );
                host.log(Level::Error, &text);
                Ok(Self::closed(audit))
            }
        }
    }

    /// A gate that decides by a plan.
    pub fn open(plan: Plan) -> Self {
        Self {
            audit: plan.settings.audit.clone(),
            dialect: plan.settings.dialect,
            metrics: Metrics::new(&plan.settings),
            engine: Some(RefCell::new(Engine::new(plan))),
            node: OnceCell::new(),
        }
    }

    /// A gate that denies everything.
    pub fn closed(audit: AuditSettings) -> Self {
        Self {
            engine: None,
            audit,
            dialect: Dialect::Bare,
            metrics: Metrics::default(),
            node: OnceCell::new(),
        }
    }

    /// Decides on a request and acts on it.
    pub fn on_request_headers(&self, host: &impl Host, exchange: &mut Exchange) -> Action {
        // A host that calls back from inside a host call finds the engine in use.
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow_mut().ok());
        let answer = match engine {
            Some(mut engine) => self.admit(&mut engine, host, exchange),
            None => {
                observe(host, exchange);
                Err(deny(exchange, DenyReason::NotReady))
            }
        };
        let Err(reply) = answer else {
            return Action::Continue;
        };
        if let Err(HostError(status)) = host.send_reply(&reply) {
            host.log(
                Level::Error,
                &format!("vkey: the host did not send a reply: status {status}"),
            );
        }
        Action::Pause
    }

    /// Whether a request's body may go on. Hosts ask also while the headers are held, and take a
    /// callback that is missing for consent.
    pub fn on_request_body(exchange: &Exchange) -> Action {
        if exchange.is_forwarded() { Action::Continue } else { Action::Pause }
    }

    /// Tells a client of its limits, with whatever the answer is.
    pub fn on_response_headers(host: &impl Host, exchange: &mut Exchange) {
        let fields = exchange.take_fields().map(RateLimitFields::into_headers);
        for (name, value) in fields.into_iter().flatten() {
            // A host that cannot is no reason to withhold the answer.
            if let Err(HostError(status)) = host.set_response_header(name, &value) {
                host.log(Level::Debug, &format!("vkey: no header {name}: status {status}"));
            }
        }
    }

    /// Writes the audit line of a request that has ended. Hosts also end requests that they never
    /// showed.
    pub fn on_log(&self, host: &impl Host, exchange: &mut Exchange) {
        if !exchange.is_observed() {
            observe(host, exchange);
        }
        // Reading a property costs as much as deciding, and what was refused has no upstream.
        let forwarded = exchange.is_forwarded().then_some(());
        let ending = Ending {
            status: host.response_status(),
            bytes_in: number_property(host, Property::RequestTotalSize),
            bytes_out: number_property(host, Property::ResponseTotalSize),
            upstream: forwarded.and_then(|()| text_property(host, Property::UpstreamAddress)),
            now_ns: host.now_ns(),
        };
        if let Some(line) = exchange.finish(&ending, self.node(host), &self.audit.mask) {
            self.write(host, &line);
            self.metrics.count(host, &exchange.outcome());
        }
    }

    /// Lets a request on its way, or says how it is answered.
    fn admit(
        &self,
        engine: &mut Engine,
        host: &impl Host,
        exchange: &mut Exchange,
    ) -> Result<(), Reply> {
        let Some((now_ns, headers)) = host.now_ns().zip(host.request_headers()) else {
            observe(host, exchange);
            return Err(deny(exchange, DenyReason::NotReady));
        };
        let head = RequestHead::read(&headers, &engine.settings().key_sources);
        let peer = host.property(Property::SourceAddress);
        let peer = peer.as_deref().and_then(parse_address);
        let request = Request { head: &head, peer, now_ns };
        let client_cert = || client_cert(host);
        let judgement = exchange.judge(engine, &request, client_cert);
        let judged = Judged {
            host,
            store: RecordStore::new(host, self.dialect),
            metrics: &self.metrics,
            engine,
            head: &head,
            now_ns,
        };
        let answer = judged.conclude(judgement, exchange);
        self.metrics.count_retries(host, judged.store.retries());
        answer
    }

    fn write(&self, host: &impl Host, line: &str) {
        let shown = match self.audit.sink {
            Sink::AccessLog => host.set_filter_state(AUDIT_STATE, line).is_ok(),
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

/// Takes down what a request shows that is not judged.
fn observe(host: &impl Host, exchange: &mut Exchange) {
    let headers = host.request_headers().unwrap_or_default();
    let head = RequestHead::read(&headers, &[]);
    let peer = host.property(Property::SourceAddress);
    exchange.observe(&head, peer.as_deref().and_then(parse_address), host.now_ns().unwrap_or(0));
}

fn client_cert(host: &impl Host) -> Option<String> {
    let digest = text_property(host, Property::PeerCertificateDigest)?;
    Some(digest.to_ascii_lowercase())
}

fn text_property(host: &impl Host, property: Property) -> Option<String> {
    String::from_utf8(host.property(property)?).ok()
}

fn number_property(host: &impl Host, property: Property) -> Option<u64> {
    number(&host.property(property)?)
}
