//! The gate: what the module does with the callbacks of a host.

use std::cell::{OnceCell, RefCell};

use crate::allowance::RateLimitFields;
use crate::cell::{Cell, key_name, tenant_name};
use crate::cidr::parse_address;
use crate::claims::Claims;
use crate::config::{AuditSettings, Config, Dialect, Level, Plan, Sink};
use crate::decision::{Decision, DenyClass, DenyReason, Refusal, Reply, reply};
use crate::engine::Engine;
use crate::exchange::{Edits, Ending, Exchange, Judgement, Request, Verdict};
use crate::failures::{Failure, FailureRules, Shard, Source, source_network};
use crate::headers::RequestHead;
use crate::json::Invalid;
use crate::key::Key;
use crate::ledger::Exceeded;
use crate::usage::{self, Account, Subject};

use super::metrics::Metrics;
use super::{Admission, Admitted, Host, HostError, NotCounted, Property, RecordStore, number};

const NANOS_PER_SEC: u64 = 1_000_000_000;

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
        let Judgement { key, verdict } = exchange.judge(engine, &request, client_cert);
        let store = RecordStore::new(host, self.dialect);
        let answer = match (verdict, key) {
            (Verdict::ShowUsage(subject), Some(key)) => {
                Err(show_usage(&store, engine, &key, &subject, exchange, now_ns))
            }
            (Verdict::Decide(decision), Some(key)) => {
                let judged = Judged { host, engine, head: &head, key: &key };
                judged.admit(&store, decision, exchange, now_ns)
            }
            (Verdict::Decide(Decision::Deny(reason)), None) => {
                let rules = engine.settings().auth_failures;
                Err(self.refuse_stranger(&store, host, rules, exchange, reason, now_ns))
            }
            (_, None) => Err(deny(exchange, DenyReason::NotReady)),
        };
        self.metrics.count_retries(host, store.retries());
        answer
    }

    /// Refuses a request that no key was verified for, and counts it against its source. A source that
    /// is blocked is told to wait: it never had a good key in its hands here, and whoever has one is
    /// not asked where from.
    fn refuse_stranger<H: Host>(
        &self,
        store: &RecordStore<'_, H>,
        host: &H,
        rules: Option<FailureRules>,
        exchange: &mut Exchange,
        reason: DenyReason,
        now_ns: u64,
    ) -> Reply {
        let now_secs = now_ns / NANOS_PER_SEC;
        let Some(rules) = rules.filter(|_| store.counts() && reason.is_failed_authentication())
        else {
            return deny(exchange, reason);
        };
        let source = exchange.source().map_or(Source::UNKNOWN, source_network);
        let fail = |shard: &mut Shard| shard.fail(source, now_secs, &rules);
        // A failure that cannot be counted is refused all the same.
        let Failure { alert, blocked_until_secs } =
            store.update(&source.shard(), fail).unwrap_or_default();
        if alert {
            self.metrics.count_auth_alert(host);
            let FailureRules { threshold, window_secs, .. } = rules;
            let text = format!(
                "vkey: {threshold} keys that are not valid came from {source} within {window_secs} s"
            );
            host.log(Level::Warn, &text);
        }
        let Some(until_secs) = blocked_until_secs else {
            return deny(exchange, reason);
        };
        exchange.conclude(Decision::Deny(DenyReason::SourceBlocked));
        reply(DenyReason::SourceBlocked, &Refusal::blocked(until_secs.saturating_sub(now_secs)))
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
    /// Counts the request and sends it on, or says how it is answered.
    fn admit(
        &self,
        store: &RecordStore<'_, H>,
        decision: Decision,
        exchange: &mut Exchange,
        now_ns: u64,
    ) -> Result<(), Reply> {
        let source = exchange.source();
        let admission = Admission::new(store, self.engine, self.key, source, now_ns);
        let admitted = admission.admit(decision);
        if let Some(not_counted) = admitted.miscounted {
            self.log_miscount(not_counted);
        }
        let fields = RateLimitFields::new(&admitted.allowances);
        exchange.limit(admitted.exceeded.map(|exceeded| exceeded.name), fields);
        exchange.mark(admitted.anomaly);
        exchange.conclude(admitted.decision);
        if let Decision::Deny(reason) = admitted.decision {
            return Err(reply(reason, &self.refusal(&admitted, now_ns)));
        }
        self.forward().map(|()| exchange.forward()).map_err(|_| {
            // It was counted as allowed, and is not.
            if let Err(not_counted) = admission.take_back(&admitted, DenyClass::Unavailable) {
                self.log_miscount(not_counted);
            }
            deny(exchange, DenyReason::NotReady)
        })
    }

    fn refusal(&self, admitted: &Admitted, now_ns: u64) -> Refusal {
        let expires_in_secs = self.key.claims().exp.saturating_sub(now_ns / NANOS_PER_SEC);
        let refusal = |exceeded: &Exceeded| {
            Refusal::exceeded(exceeded, &admitted.allowances, now_ns, expires_in_secs)
        };
        admitted.exceeded.as_ref().map(refusal).unwrap_or_default()
    }

    fn log_miscount(&self, not_counted: NotCounted) {
        self.host.log(Level::Error, &format!("vkey: a count is one too high: {not_counted}"));
    }

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
    reply(reason, &Refusal::default())
}

fn show_usage(
    store: &RecordStore<'_, impl Host>,
    engine: &Engine,
    key: &Key,
    subject: &Subject,
    exchange: &mut Exchange,
    now_ns: u64,
) -> Reply {
    match usage_answer(store, engine, key, subject, now_ns) {
        Ok(answer) => {
            exchange.conclude(Decision::Allow);
            Reply::ok(answer, "usage")
        }
        Err(not_counted) => deny(exchange, not_counted.into()),
    }
}

/// The limits of a key are known as far as its tier sets them, unless it is the one that asks.
fn usage_answer(
    store: &RecordStore<'_, impl Host>,
    engine: &Engine,
    key: &Key,
    subject: &Subject,
    now_ns: u64,
) -> Result<String, NotCounted> {
    let tenant_allowances = |tenant: &str, cell: &Cell| {
        cell.ledger().allowances(&engine.tenant_charges(tenant), now_ns)
    };
    match subject {
        Subject::Own => {
            let Claims { jti, tenant, .. } = key.claims();
            let tier = Some(key.claims().tier());
            let cell: Cell = store.read(&key_name(jti))?;
            let of_tenant: Cell = store.read(&tenant_name(tenant))?;
            let mut allowances = cell.ledger().allowances(&engine.key_charges(key), now_ns);
            allowances.extend(tenant_allowances(tenant, &of_tenant));
            let account = Account { jti: Some(jti), tenant: Some(tenant), tier };
            Ok(usage::answer(&account, &cell, &allowances))
        }
        Subject::Key(jti) => {
            let cell: Cell = store.read(&key_name(jti))?;
            let tenant = cell.holder().map(|holder| &*holder.tenant);
            let tier = cell.holder().map(|holder| &*holder.tier);
            let charges = tier.map(|tier| engine.tier_charges(tier)).unwrap_or_default();
            let allowances = cell.ledger().allowances(&charges, now_ns);
            let account = Account { jti: Some(jti), tenant, tier };
            Ok(usage::answer(&account, &cell, &allowances))
        }
        Subject::Tenant(tenant) => {
            let cell: Cell = store.read(&tenant_name(tenant))?;
            let account = Account { tenant: Some(tenant), ..Account::default() };
            Ok(usage::answer(&account, &cell, &tenant_allowances(tenant, &cell)))
        }
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
