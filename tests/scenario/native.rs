//! The library itself, over the host in memory.

use std::cell::Cell;
use std::collections::BTreeMap;

use vkey::config::{Dialect, Level};
use vkey::decision::Reply;
use vkey::exchange::Exchange;
use vkey::headers::Headers;
use vkey::host::{
    Action, Gate, Host, HostError, MemoryHost, MemoryStore, MetricKind, Plugin, Property,
    SharedData, WriteError,
};
use vkey::upstream_tls::Policy;

use super::format::{HostKind, Outcome};
use super::text::{POLICY, bytes};
use super::upstream::Shown;
use super::{Configured, Machine, Observed, Sent};

pub(crate) struct Native {
    config: Vec<u8>,
    env: BTreeMap<String, String>,
    store: MemoryStore,
    contended: bool,
    gates: BTreeMap<u64, Gate>,
}

impl Native {
    pub(crate) fn new(config: Vec<u8>, env: BTreeMap<String, String>, host: HostKind) -> Self {
        let dialect = match host {
            HostKind::Rules(dialect) => dialect,
            HostKind::Contended => Dialect::Envoy,
        };
        Self {
            config,
            env,
            store: MemoryStore::new(dialect),
            contended: host == HostKind::Contended,
            gates: BTreeMap::new(),
        }
    }

    fn host(&self) -> TestHost {
        let memory = MemoryHost::new(self.store.clone());
        TestHost { memory, contended: self.contended, replies: Cell::new(0) }
    }
}

fn policy() -> Policy {
    Policy::parse(POLICY).unwrap()
}

impl Machine for Native {
    fn configure(&mut self, worker: u64) -> Configured {
        let host = self.host();
        let environment = |name: &str| self.env.get(name).cloned();
        let configured = Plugin::configure(&self.config, policy(), environment, &host);
        let log = host.memory.log.take();
        let outcome = match configured {
            Err(_) => Outcome::Refused,
            Ok(_) if log.iter().any(|(level, _)| *level == Level::Error) => Outcome::Closed,
            Ok(_) => Outcome::Open,
        };
        // A host that was refused a configuration and has no other must not let anything through.
        let plugin = configured.unwrap_or_else(|_| Plugin::closed(policy()));
        let Plugin::Gate(gate) = plugin else { panic!("a scenario is about the gate") };
        self.gates.insert(worker, *gate);
        Configured { outcome, log }
    }

    fn request(&mut self, worker: u64, request: &Sent) -> Observed {
        let host = self.host();
        let memory = &host.memory;
        let clock = |ns| memory.now_ns.set((!request.faults.no_clock).then_some(ns));
        clock(request.now_ns);
        let shown = (!request.faults.no_headers).then(|| request.headers.clone());
        memory.headers.replace(shown);
        memory.failing_edits.set(request.faults.failing_edits.map(HostError));
        memory.show(Property::SourceAddress, request.source.as_deref());
        memory.show(Property::PeerCertificateDigest, request.client_cert.as_deref());
        memory.reveal(request.upstream.of_cluster());

        let gate = &self.gates[&worker];
        let mut exchange = Exchange::default();
        let action =
            (!request.faults.never_shown).then(|| gate.on_request_headers(&host, &mut exchange));
        let forwarded = action.map(|action| action == Action::Continue);
        for bytes in &request.ending.body {
            Gate::on_request_body(&mut exchange, *bytes);
        }
        let upstream = memory.headers.borrow().clone().unwrap_or_default();
        clock(request.now_ns + request.ending.after_ns);
        memory.end(request);
        if forwarded == Some(true) {
            memory.reveal(request.upstream.of_connection());
            let reached = request.upstream.is_reached().then_some("192.0.2.80:443");
            memory.show(Property::UpstreamAddress, request.ending.upstream.as_deref().or(reached));
        }
        let answered = gate.on_response_headers(&host, &mut exchange);
        memory.rewrite(request.upstream.authority.as_deref());
        let reply = memory.reply.borrow().clone();
        memory.status.set(reply.as_ref().map(|reply| reply.status.into()).or(memory.status.get()));
        gate.on_log(&host, &mut exchange);
        let first = memory.written();
        gate.on_log(&host, &mut exchange);
        Observed {
            forwarded,
            withheld: answered == Action::Pause,
            reply,
            replies: host.replies.get(),
            upstream,
            answer: memory.response_headers.take(),
            wrote_twice: first != memory.written(),
            filter_state: memory.filter_state.take(),
            log: memory.log.take(),
        }
    }

    fn store(&self) -> Option<&MemoryStore> {
        Some(&self.store)
    }
}

/// What a test does with the host in memory.
trait Show {
    fn show(&self, property: Property, value: Option<&str>);
    fn reveal(&self, shown: Shown);
    fn rewrite(&self, authority: Option<&str>);
    fn end(&self, request: &Sent);
    fn written(&self) -> (usize, BTreeMap<String, String>);
}

impl Show for MemoryHost {
    fn show(&self, property: Property, value: Option<&str>) {
        let value = value.map(|value| (property.path(), value.as_bytes().to_vec()));
        self.properties.borrow_mut().extend(value);
    }

    fn reveal(&self, shown: Shown) {
        let shown = shown.into_iter().map(|(property, bytes)| (property.path(), bytes));
        self.properties.borrow_mut().extend(shown);
    }

    fn rewrite(&self, authority: Option<&str>) {
        if let (Some(headers), Some(authority)) = (self.headers.borrow_mut().as_mut(), authority) {
            headers.retain(|(name, _)| name != b":authority");
            headers.push((b":authority".to_vec(), bytes(authority)));
        }
    }

    /// Numbers are eight bytes, as Envoy writes them.
    fn end(&self, request: &Sent) {
        let ending = &request.ending;
        self.status.set(ending.status);
        for (property, value) in [
            (Property::RequestTotalSize, ending.bytes_in),
            (Property::ResponseTotalSize, ending.bytes_out),
        ] {
            let value = value.map(|value| (property.path(), value.to_le_bytes().to_vec()));
            self.properties.borrow_mut().extend(value);
        }
        self.show(Property::UpstreamAddress, ending.upstream.as_deref());
    }

    fn written(&self) -> (usize, BTreeMap<String, String>) {
        (self.log.borrow().len(), self.filter_state.borrow().clone())
    }
}

/// The host in memory, or one whose shared data another worker always writes first.
struct TestHost {
    memory: MemoryHost,
    contended: bool,
    /// How often it was told to answer.
    replies: Cell<u32>,
}

impl SharedData for TestHost {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.memory.shared_data(name)
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        if self.contended {
            return Err(WriteError::CasMismatch);
        }
        self.memory.set_shared_data(name, record, cas)
    }
}

impl Host for TestHost {
    fn now_ns(&self) -> Option<u64> {
        self.memory.now_ns()
    }

    fn request_headers(&self) -> Option<Headers> {
        self.memory.request_headers()
    }

    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError> {
        self.memory.remove_request_header(name)
    }

    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.memory.add_request_header(name, value)
    }

    fn authority(&self) -> Option<Vec<u8>> {
        self.memory.authority()
    }

    fn response_status(&self) -> Option<u64> {
        self.memory.response_status()
    }

    fn resume_request(&self) -> Result<(), HostError> {
        self.memory.resume_request()
    }

    fn enter(&self, context: u32) -> Result<(), HostError> {
        self.memory.enter(context)
    }

    fn set_tick_period(&self, millis: u32) -> Result<(), HostError> {
        self.memory.set_tick_period(millis)
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        self.memory.property(property)
    }

    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError> {
        self.memory.set_filter_state(key, value)
    }

    fn send_reply(&self, reply: &Reply) -> Result<(), HostError> {
        self.replies.set(self.replies.get() + 1);
        self.memory.send_reply(reply)
    }

    fn set_response_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.memory.set_response_header(name, value)
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        self.memory.define_metric(kind, name)
    }

    fn increment_metric(&self, metric: u32, by: u32) -> Result<(), HostError> {
        self.memory.increment_metric(metric, by)
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), HostError> {
        self.memory.record_metric(metric, value)
    }

    fn log(&self, level: Level, text: &str) {
        self.memory.log(level, text);
    }
}
