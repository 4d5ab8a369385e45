//! The gate: what the module does with the callbacks of a host.

use std::cell::{OnceCell, RefCell};

use crate::cell::Cell;
use crate::cidr::parse_address;
use crate::config::{AuditSettings, Config, Dialect, Level, Plan, Sink};
use crate::decision::{Decision, DenyClass, DenyReason, Reply, reply};
use crate::engine::Engine;
use crate::exchange::{Edits, Ending, Exchange, Judgement, Request, Verdict};
use crate::headers::RequestHead;
use crate::json::Invalid;
use crate::key::Key;
use crate::usage;

use super::{CellStore, Host, HostError, NotCounted, Property, number};

/// The filter state that holds the audit line, as set; Envoy puts `wasm.` before it.
const AUDIT_STATE: &str = "vkey.audit";

/// The filter state that lets a request through the seal behind the module: see the README.
const SEAL_STATE: &str = "vkey.decision";
const SEAL_VALUE: &str = "allow";

/// What a root context holds: an engine, or a denial for everything.
pub struct Gate {
    engine: Option<RefCell<Engine>>,
    audit: AuditSettings,
    dialect: Dialect,
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

/// A request that is judged, while the host still shows it.
struct Judged<'a, H> {
    host: &'a H,
    engine: &'a Engine,
    head: &'a RequestHead<'a>,
    key: &'a Key,
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
                Ok(Self::open(plan))
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
            engine: Some(RefCell::new(Engine::new(plan))),
            node: OnceCell::new(),
        }
    }

    /// A gate that denies everything.
    pub fn closed(audit: AuditSettings) -> Self {
        Self { engine: None, audit, dialect: Dialect::Bare, node: OnceCell::new() }
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
        let Judgement { key, verdict } = exchange.judge(engine, &request, client_cert);
        let cells = CellStore::new(host, self.dialect);
        match (verdict, key) {
            (Verdict::ShowUsage, Some(key)) => Err(show_usage(&cells, &key, exchange)),
            (Verdict::Decide(decision), Some(key)) => {
                let decision = count(&cells, &key, decision);
                exchange.conclude(decision);
                if let Decision::Deny(reason) = decision {
                    return Err(reply(reason));
                }
                let forwarded = Judged { host, engine, head: &head, key: &key }.forward();
                forwarded.map(|()| exchange.forward()).map_err(|_| {
                    // It was counted as allowed, and is not.
                    let take_back = |cell: &mut Cell| cell.take_back(DenyClass::Unavailable);
                    if let Err(error) = cells.update(&key.claims().jti, take_back) {
                        host.log(Level::Error, &format!("vkey: a count is one too high: {error}"));
                    }
                    deny(exchange, DenyReason::NotReady)
                })
            }
            (Verdict::Decide(Decision::Deny(reason)), None) => Err(deny(exchange, reason)),
            (_, None) => Err(deny(exchange, DenyReason::NotReady)),
        }
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

// === impl Judged ===

impl<H: Host> Judged<'_, H> {
    /// Sends the request on without anything private of the client's. The seal is set last, so that
    /// a request with one is a request that is whole.
    fn forward(&self) -> Result<(), HostError> {
        let edits = Edits::forward(self.engine, self.key, self.head);
        for name in edits.remove {
            self.host.remove_request_header(name)?;
        }
        if let Some((name, value)) = edits.replace {
            self.host.remove_request_header(name.as_bytes())?;
            self.host.add_request_header(name, value)?;
        }
        for (name, value) in edits.add {
            self.host.add_request_header(name, &value)?;
        }
        self.seal();
        Ok(())
    }

    /// Where the host keeps no filter state there is no seal behind the module either; where there is
    /// one, it refuses what lacks it.
    fn seal(&self) {
        if let Err(HostError(status)) = self.host.set_filter_state(SEAL_STATE, SEAL_VALUE) {
            self.host.log(Level::Debug, &format!("vkey: no filter state: status {status}"));
        }
    }
}

fn deny(exchange: &mut Exchange, reason: DenyReason) -> Reply {
    exchange.conclude(Decision::Deny(reason));
    reply(reason)
}

/// Counts a decision, which is then the one that was counted: what is not counted is refused, and says
/// so, whatever else was decided.
fn count(cells: &CellStore<'_, impl Host>, key: &Key, decision: Decision) -> Decision {
    match cells.update(&key.claims().jti, |cell| cell.count(decision)) {
        Ok(()) => decision,
        Err(not_counted) => Decision::Deny(not_counted.into()),
    }
}

fn show_usage(cells: &CellStore<'_, impl Host>, key: &Key, exchange: &mut Exchange) -> Reply {
    let cell = match cells.counts() {
        true => cells.read(&key.claims().jti),
        false => Err(NotCounted::HostRefuses),
    };
    match cell {
        Ok(cell) => {
            exchange.conclude(Decision::Allow);
            Reply::ok(usage::answer(key, &cell), "usage")
        }
        Err(not_counted) => deny(exchange, not_counted.into()),
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
