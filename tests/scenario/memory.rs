//! Machines on the in-memory host: the library or the built module, with the same callbacks.

use std::collections::BTreeMap;

use vkey::audit::Outcome;
use vkey::host::{
    Action, Arrived, HeaderList, HostError, MemoryHost, MemoryStore, Property, Rules,
};

use super::body::Recut;
use super::format::{self, HostKind};
use super::run::USUAL_START;
use super::step::{Cut, Trailers};
use super::text::bytes;
use super::upstream::Shown;
use super::{Configured, Log, Machine, Observed, Sent, is_closed};

/// The size of a request before its body, in bytes.
const HELD_BYTES: u64 = 300;

/// How often a request that is held is looked at, at the most.
const MAX_TICKS: usize = 100;

/// The callbacks of one worker.
pub(crate) trait Callbacks: Sized {
    /// Configures the worker; `false` if the configuration is rejected. The worker then denies everything.
    fn configure(
        config: &[u8],
        env: &BTreeMap<String, String>,
        host: MemoryHost,
    ) -> (Self, bool, Log);

    /// Calls `act` with one request, on which it makes the callbacks.
    fn with_request<T>(
        &mut self,
        host: MemoryHost,
        act: impl FnOnce(&mut dyn Request) -> T,
    ) -> (T, MemoryHost);
}

/// The callbacks of one request.
pub(crate) trait Request {
    fn host(&self) -> &MemoryHost;
    fn on_headers(&mut self, is_whole: bool) -> Action;
    fn on_body(&mut self, bytes: u64, is_last: bool) -> Action;
    fn on_trailers(&mut self) -> Action;
    fn on_response_headers(&mut self) -> Action;
    fn on_response_body(&mut self, bytes: u64, is_last: bool) -> Action;
    fn on_tick(&mut self);
    fn on_log(&mut self);
}

/// Workers over one store.
pub(crate) struct InMemory<C> {
    config: Vec<u8>,
    env: BTreeMap<String, String>,
    store: MemoryStore,
    contended: bool,
    workers: BTreeMap<u64, C>,
    trailers: HeaderList,
    /// How bodies are cut; `None`: as the file says.
    recut: Option<Recut>,
}

impl<C: Callbacks> InMemory<C> {
    pub(crate) fn new(config: Vec<u8>, env: BTreeMap<String, String>, host: HostKind) -> Self {
        let rules = match host {
            HostKind::Rules(rules) => rules,
            HostKind::Contended => Rules::Envoy,
        };
        Self {
            config,
            env,
            store: MemoryStore::new(rules),
            contended: host == HostKind::Contended,
            workers: BTreeMap::new(),
            trailers: Vec::new(),
            recut: None,
        }
    }

    /// The same machine, on which bodies come in other parts.
    pub(crate) fn cutting(self, recut: Recut) -> Self {
        Self { recut: Some(recut), ..self }
    }

    /// The request, with its bodies in the parts in which they come here.
    fn recut(&self, sent: &Sent) -> Sent {
        let mut sent = sent.clone();
        if let Some(recut) = self.recut {
            for body in [&mut sent.body, &mut sent.response] {
                if !body.is_empty() {
                    *body = recut(&body.concat());
                }
            }
        }
        sent
    }

    fn host(&self) -> MemoryHost {
        let host = MemoryHost::new(self.store.clone());
        host.contended.set(self.contended);
        host
    }
}

impl<C: Callbacks> Machine for InMemory<C> {
    fn configure(&mut self, worker: u64) -> Configured {
        let host = self.host();
        host.now_ns.set(Some(USUAL_START * 1_000_000_000));
        let (callbacks, accepted, log) = C::configure(&self.config, &self.env, host);
        self.workers.insert(worker, callbacks);
        let outcome = match accepted {
            false => format::Outcome::Refused,
            true if is_closed(&log) => format::Outcome::Closed,
            true => format::Outcome::Open,
        };
        Configured { outcome, log }
    }

    fn request(&mut self, worker: u64, sent: &Sent) -> Observed {
        let (host, sent) = (self.host(), &self.recut(sent));
        host.begin(sent);
        let worker = self.workers.get_mut(&worker).expect("a worker that was configured");
        let (mut observed, host) = worker.with_request(host, |request| converse(request, sent));
        observed.replies = host.replies.get();
        observed.response_headers = host.response_headers.take();
        observed.response_headers.retain(|name, _| !sent.ending.headers.contains_key(name));
        observed.filter_state = host.filter_state.take();
        observed.outcome = outcome(&host, sent);
        // On nginx, the seal is a variable.
        if let Some(seal) = observed.filter_state.remove("ngx\0vkey_decision") {
            observed.filter_state.insert("vkey.decision".to_owned(), seal);
        }
        assert_eq!(host.crashed.get(), None, "a worker of nginx has ended");
        observed.log = host.log.take();
        self.trailers = host.trailers.take().unwrap_or_default();
        observed
    }

    fn store(&self) -> Option<&MemoryStore> {
        Some(&self.store)
    }

    fn trailers(&self) -> Option<&HeaderList> {
        Some(&self.trailers)
    }
}

/// Makes all callbacks of a request, like a host.
fn converse(request: &mut dyn Request, sent: &Sent) -> Observed {
    // nginx provides no trailers, and forwards none.
    let nginx = request.host().store().rules() == Rules::Nginx;
    let has_trailers = sent.trailers != Trailers::Absent && !nginx;
    let passage = pass_request(request, sent, has_trailers);
    let host = request.host();
    if nginx {
        host.trailers.replace(None);
    }
    let forwarded = passage.action.map(|action| action == Action::Continue);
    let upstream = host.sent_headers();
    if forwarded == Some(true) {
        host.rewrite(sent.upstream.authority.as_deref());
    }
    host.end(sent, forwarded == Some(true));
    let action = request.on_response_headers();
    let withheld = action == Action::Pause || (forwarded == Some(true) && passage.is_stopped);
    pass_response(request, sent, forwarded == Some(true) && !withheld);
    let host = request.host();
    let reply = host.reply.borrow().clone();
    host.status.set(reply.as_ref().map(|reply| reply.status.into()).or(host.status.get()));
    request.on_log();
    let first = request.host().written();
    request.on_log();
    let host = request.host();
    Observed {
        forwarded,
        withheld,
        reply,
        replies: 0,
        upstream,
        upstream_body: host.request_body.passed(),
        response_body: host.response_body.passed(),
        response_headers: BTreeMap::new(),
        wrote_twice: first != host.written(),
        filter_state: BTreeMap::new(),
        log: Vec::new(),
        outcome: Outcome::default(),
    }
}

/// How a request has passed.
struct Passage {
    /// What was done with its headers; `None` if the module did not see them.
    action: Option<Action>,
    /// Whether its rest was stopped after they were forwarded.
    is_stopped: bool,
}

impl Passage {
    /// What the module said about a part after the headers: it lets go on what is held, or stops what has gone on.
    fn add(&mut self, action: Action) {
        match (self.action, action) {
            (Some(Action::Pause), Action::Continue) => self.action = Some(Action::Continue),
            (Some(Action::Continue), Action::Pause) => self.is_stopped = true,
            _ => {}
        }
    }
}

/// Passes the headers, the body and the trailers of a request.
fn pass_request(request: &mut dyn Request, sent: &Sent, has_trailers: bool) -> Passage {
    let sizes = &sent.ending.body;
    let is_whole = sent.body.is_empty() && sizes.is_empty() && !has_trailers && !sent.unfinished;
    let action = (!sent.faults.never_shown).then(|| request.on_headers(is_whole));
    let mut passage = Passage { action, is_stopped: false };
    let is_held = action == Some(Action::Pause) && request.host().reply.borrow().is_none();
    if is_held && sent.faults.keeps_bodies {
        let bytes = HELD_BYTES + u64::try_from(sent.body.concat().len()).expect("a size");
        request.host().show(Property::RequestTotalSize.path(), bytes.to_le_bytes());
        let is_decided = |host: &MemoryHost| host.resumed.get() || host.reply.borrow().is_some();
        for _ in 0..MAX_TICKS {
            if !is_decided(request.host()) {
                request.on_tick();
            }
        }
        if !request.host().resumed.get() {
            return passage;
        }
        passage.action = Some(Action::Continue);
    }
    for bytes in sizes {
        passage.add(request.on_body(*bytes, false));
    }
    sent.body.iter().for_each(|part| request.host().request_body.push(part.as_slice()));
    while let Some(Arrived { bytes, is_last }) = request.host().request_body.arrive() {
        let bytes = u64::try_from(bytes).expect("a size");
        let action = request.on_body(bytes, is_last && !has_trailers && !sent.unfinished);
        passage.add(action);
        if action == Action::Continue {
            request.host().request_body.pass();
        }
    }
    if has_trailers {
        let action = request.on_trailers();
        passage.add(action);
        if action == Action::Continue {
            request.host().request_body.pass();
        }
    }
    passage
}

/// Passes the body of the response. `is_upstreams`: it is that of the upstream.
fn pass_response(request: &mut dyn Request, sent: &Sent, is_upstreams: bool) {
    let parts = sent.response.iter().filter(|_| is_upstreams);
    parts.for_each(|part| request.host().response_body.push(part.as_slice()));
    let is_cut = sent.ending.cut.is_some();
    let mut is_over = is_cut;
    while let Some(Arrived { bytes, is_last }) = request.host().response_body.arrive() {
        is_over |= is_last;
        let bytes = u64::try_from(bytes).expect("a size");
        if request.on_response_body(bytes, is_last && !is_cut) == Action::Continue {
            request.host().response_body.pass();
        }
    }
    if !is_over {
        request.on_response_body(0, true);
        request.host().response_body.pass();
    }
}

/// What the access log of the host prints.
fn outcome(host: &MemoryHost, sent: &Sent) -> Outcome<'static> {
    let properties = host.properties.borrow();
    let upstream = properties.get(Property::UpstreamAddress.path());
    Outcome {
        start_micros: Some(sent.now_ns / 1_000),
        status: host.status.get(),
        bytes_in: Some(bytes_in(sent)),
        bytes_out: sent.ending.bytes_out,
        duration_ns: Some(sent.ending.after_ns),
        upstream: upstream.map(|bytes| String::from_utf8_lossy(bytes).into_owned().into()),
        ..Outcome::default()
    }
}

/// How much of a body has come.
fn bytes_in(sent: &Sent) -> u64 {
    let body: usize = sent.body.iter().map(Vec::len).sum();
    sent.ending.body.iter().sum::<u64>() + u64::try_from(body).expect("a size")
}

/// Test operations on the in-memory host.
trait Stage {
    fn begin(&self, sent: &Sent);
    fn end(&self, sent: &Sent, forwarded: bool);
    fn show_cut(&self, cut: Option<Cut>, has_response: bool);
    fn rewrite(&self, authority: Option<&str>);
    fn set_clock(&self, sent: &Sent, now_ns: u64);
    fn show_text(&self, property: Property, value: Option<&str>);
    fn reveal(&self, shown: Shown);
    fn written(&self) -> (usize, BTreeMap<String, String>);
}

impl Stage for MemoryHost {
    fn begin(&self, sent: &Sent) {
        self.set_clock(sent, sent.now_ns);
        self.headers.replace((!sent.faults.no_headers).then(|| sent.headers.clone()));
        if let Trailers::Shown(trailers) = &sent.trailers {
            let trailer = |(name, value): &(String, String)| (bytes(name), bytes(value));
            self.trailers.replace(Some(trailers.iter().map(trailer).collect()));
        }
        self.failing_edits.set(sent.faults.failing_edits.map(HostError));
        self.show_text(Property::SourceAddress, sent.source.as_deref());
        self.show_text(Property::PeerCertificateDigest, sent.client_cert.as_deref());
        if sent.faults.keeps_bodies {
            self.show(Property::RequestTotalSize.path(), HELD_BYTES.to_le_bytes());
        }
        self.reveal(sent.upstream.of_cluster());
    }

    /// Numbers are eight bytes, like those of Envoy.
    fn end(&self, sent: &Sent, forwarded: bool) {
        let ending = &sent.ending;
        self.set_clock(sent, sent.now_ns + ending.after_ns);
        self.status.set(ending.status);
        if let Some(bytes) = ending.bytes_out {
            self.show(Property::ResponseSize.path(), bytes.to_le_bytes());
        }
        self.show_text(Property::UpstreamAddress, ending.upstream.as_deref());
        if forwarded {
            self.response_headers.replace(ending.headers.clone());
            self.reveal(sent.upstream.of_connection());
            let reached = sent.upstream.is_reached().then_some("192.0.2.80:443");
            self.show_text(Property::UpstreamAddress, ending.upstream.as_deref().or(reached));
            self.show_cut(ending.cut, !sent.response.is_empty());
        }
    }

    /// Shows how the response ends, as Envoy does.
    fn show_cut(&self, cut: Option<Cut>, has_response: bool) {
        let details = match cut {
            None if !has_response => return,
            None => "via_upstream",
            Some(Cut::Client) => "downstream_remote_disconnect",
            Some(Cut::Upstream) => "upstream_reset_after_response_started{connection_termination}",
            Some(Cut::ProxyBefore) => "upstream_reset_before_response_started{connection_failure}",
            Some(Cut::ProxyAfter) => "response_timeout",
        };
        self.show(Property::ResponseCodeDetails.path(), details);
        if cut != Some(Cut::ProxyBefore) {
            self.show(Property::UpstreamLocalAddress.path(), "192.0.2.1:4711");
        }
    }

    fn rewrite(&self, authority: Option<&str>) {
        if let (Some(headers), Some(authority)) = (self.headers.borrow_mut().as_mut(), authority) {
            headers.retain(|(name, _)| name != b":authority");
            headers.push((b":authority".to_vec(), bytes(authority)));
        }
    }

    fn set_clock(&self, sent: &Sent, now_ns: u64) {
        self.now_ns.set((!sent.faults.no_clock).then_some(now_ns));
    }

    fn show_text(&self, property: Property, value: Option<&str>) {
        if let Some(value) = value {
            self.show(property.path(), value);
        }
    }

    fn reveal(&self, shown: Shown) {
        for (property, bytes) in shown {
            self.show(property.path(), bytes);
        }
    }

    fn written(&self) -> (usize, BTreeMap<String, String>) {
        (self.log.borrow().len(), self.filter_state.borrow().clone())
    }
}
