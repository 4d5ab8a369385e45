//! The machine of the bench: the library on the in-memory host. Measures the parts that a step names.

use std::collections::BTreeMap;
use std::rc::Rc;

use vkey::config::Config;
use vkey::engine::Engine;
use vkey::exchange::Exchange;
use vkey::gate::{Gate, Opening, Plugin};
use vkey::host::Level;
use vkey::host::Rules;
use vkey::host::{Action, MemoryHost, MemoryStore, Property};
use vkey::upstream_tls::Policy;

use crate::host::CountedHost;
use crate::meter::Meter;
use crate::parts::Parts;
use crate::scenario::format::{HostKind, Outcome};
use crate::scenario::step::Part;
use crate::scenario::text::POLICY;
use crate::scenario::{Configured, Machine, Observed, Sent};

pub(crate) struct Measured {
    /// The name of the scenario file.
    file: String,
    config: Vec<u8>,
    env: BTreeMap<String, String>,
    store: MemoryStore,
    meter: Rc<Meter>,
    gates: BTreeMap<u64, Gate>,
    /// What to measure for the next request.
    next: Option<Announced>,
}

struct Announced {
    step: String,
    parts: Vec<Part>,
}

impl Measured {
    pub(crate) fn new(
        file: &str,
        config: Vec<u8>,
        env: BTreeMap<String, String>,
        host: HostKind,
        meter: Rc<Meter>,
    ) -> Self {
        let HostKind::Rules(rules @ Rules::Envoy) = host else {
            panic!("{file}: a scenario of the bench must have \"host\": \"envoy\"");
        };
        let store = MemoryStore::new(rules);
        let file = file.to_owned();
        Self { file, config, env, store, meter, gates: BTreeMap::new(), next: None }
    }

    /// A new engine with the configuration.
    fn engine(&self) -> Engine {
        let config = Config::parse(&self.config).expect("a configuration in force");
        Engine::new(config.compile(|name| self.env.get(name).cloned()).expect("its secrets"))
    }

    fn measure_parts(&self, announced: &Announced, sent: &Sent) {
        let parts = Parts { sent, store: &self.store, meter: &self.meter };
        for part in announced.parts.iter().filter(|part| **part != Part::Request) {
            parts.measure(*part, self.engine(), self.name(announced, *part));
        }
    }

    /// `FILE/STEP/PART`.
    fn name(&self, announced: &Announced, part: Part) -> String {
        let name = format!("{}/{}/{}", self.file, announced.step, part.word());
        let plain = |c: char| c.is_ascii_alphanumeric() || "-./".contains(c);
        assert!(name.chars().all(plain), "{name}: expected letters, digits and - only");
        name
    }
}

impl Machine for Measured {
    fn configure(&mut self, worker: u64) -> Configured {
        let memory = MemoryHost::new(self.store.clone());
        let environment = |name: &str| self.env.get(name).cloned();
        let policy = Policy::parse(POLICY).expect("the policy");
        let Ok(Plugin::Gate(gate)) = Plugin::configure(&self.config, policy, environment, &memory)
        else {
            panic!("{}: a scenario of the bench must configure a gate", self.file);
        };
        self.gates.insert(worker, *gate);
        let log = memory.log.take();
        let closed = log.iter().any(|(level, _)| *level == Level::Error);
        Configured { outcome: if closed { Outcome::Closed } else { Outcome::Open }, log }
    }

    fn announce(&mut self, step: &str, parts: &[Part]) {
        self.next = Some(Announced { step: step.to_owned(), parts: parts.to_vec() });
    }

    fn request(&mut self, worker: u64, sent: &Sent) -> Observed {
        let announced = self.next.take();
        if let Some(announced) = &announced {
            self.measure_parts(announced, sent);
        }
        let whole = announced.filter(|announced| announced.parts.contains(&Part::Request));
        let host = CountedHost::new(MemoryHost::new(self.store.clone()), &self.meter);
        let observed =
            run_request(&self.gates[&worker], &host, sent, whole.is_some().then_some(&*self.meter));
        if let Some(whole) = whole {
            self.meter.end(self.name(&whole, Part::Request), host.calls());
        }
        observed
    }

    fn store(&self) -> Option<&MemoryStore> {
        Some(&self.store)
    }
}

/// Makes all callbacks of a request, counted if there is a meter.
fn run_request(gate: &Gate, host: &CountedHost, sent: &Sent, meter: Option<&Meter>) -> Observed {
    let memory = &host.memory;
    show(memory, sent);
    let mut exchange = Exchange::default();
    let action =
        counted_by(meter, || gate.on_request_headers(host, &mut exchange, Opening::default()));
    let upstream = memory.headers.borrow().clone().unwrap_or_default();
    respond(memory, sent, action == Action::Continue);
    let action_on_response = counted_by(meter, || gate.on_response_headers(host, &mut exchange));
    end(memory);
    counted_by(meter, || {
        gate.on_log(host, &mut exchange);
        drop(exchange);
    });
    let reply = memory.reply.take();
    Observed {
        // The bench sends no bodies.
        upstream_body: Vec::new(),
        response_body: Vec::new(),
        forwarded: Some(action == Action::Continue),
        withheld: action_on_response == Action::Pause,
        replies: u32::from(reply.is_some()),
        reply,
        upstream,
        response_headers: memory.response_headers.take(),
        wrote_twice: false,
        outcome: vkey::audit::Outcome { status: memory.status.get(), ..Default::default() },
        filter_state: memory.filter_state.take(),
        log: memory.log.take(),
    }
}

fn counted_by<T>(meter: Option<&Meter>, act: impl FnOnce() -> T) -> T {
    match meter {
        Some(meter) => meter.count(act),
        None => act(),
    }
}

/// Sets what the host provides with the request.
fn show(memory: &MemoryHost, sent: &Sent) {
    memory.now_ns.set(Some(sent.now_ns));
    memory.headers.replace(Some(sent.headers.clone()));
    let known = [
        (Property::SourceAddress, &sent.source),
        (Property::PeerCertificateDigest, &sent.client_cert),
    ];
    let known = known.into_iter().filter_map(|(property, text)| Some((property, text.clone()?)));
    set(memory, known.map(|(property, text)| (property, text.into_bytes())));
    set(memory, sent.upstream.of_cluster());
    set(memory, [(Property::NodeId, b"gw-1".to_vec())]);
}

/// Sets what the host provides with the response.
fn respond(memory: &MemoryHost, sent: &Sent, forwarded: bool) {
    let ending = &sent.ending;
    memory.now_ns.set(Some(sent.now_ns + ending.after_ns));
    memory.status.set(ending.status);
    if forwarded {
        set(memory, sent.upstream.of_connection());
        rewrite(memory, sent.upstream.authority.as_deref());
    }
    let address = ending.upstream.clone().map(|text| (Property::UpstreamAddress, text.into()));
    set(memory, address);
    let size = ending.bytes_out.map(|size| (Property::ResponseSize, size.to_le_bytes().to_vec()));
    set(memory, size);
}

/// Sets what the host provides at the end: the client gets the local reply, if there is one.
fn end(memory: &MemoryHost) {
    if let Some(reply) = &*memory.reply.borrow() {
        memory.status.set(Some(reply.status.into()));
    }
}

/// Replaces the authority by that of the route.
fn rewrite(memory: &MemoryHost, authority: Option<&str>) {
    if let (Some(headers), Some(authority)) = (memory.headers.borrow_mut().as_mut(), authority) {
        headers.retain(|(name, _)| name != b":authority");
        headers.push((b":authority".to_vec(), authority.into()));
    }
}

fn set(memory: &MemoryHost, shown: impl IntoIterator<Item = (Property, Vec<u8>)>) {
    let shown = shown.into_iter().map(|(property, bytes)| (property.path().into(), bytes));
    memory.properties.borrow_mut().extend(shown);
}
