//! Machines on the in-memory host: the library or the built module, with the same callbacks.

use std::collections::BTreeMap;

use vkey::audit::Outcome;
use vkey::host::{Action, HeaderList, HostError, MemoryHost, MemoryStore, Property, Rules};

use super::format::{self, HostKind};
use super::run::USUAL_START;
use super::step::Trailers;
use super::text::bytes;
use super::upstream::Shown;
use super::{Configured, Log, Machine, Observed, Sent, is_closed};

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
        }
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
        let host = self.host();
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
    let action = (!sent.faults.never_shown).then(|| request.on_headers(false));
    let forwarded = action.map(|action| action == Action::Continue);
    let mut refused = false;
    for bytes in &sent.ending.body {
        refused |= request.on_body(*bytes, false) == Action::Pause;
    }
    // nginx provides no trailers, and forwards none.
    let nginx = request.host().store().rules() == Rules::Nginx;
    let ends = sent.trailers != Trailers::Absent && !nginx;
    let stopped = (ends && request.on_trailers() == Action::Pause) || refused;
    let host = request.host();
    if nginx {
        host.trailers.replace(None);
    }
    let upstream = host.sent_headers();
    if forwarded == Some(true) {
        host.rewrite(sent.upstream.authority.as_deref());
    }
    host.end(sent, forwarded == Some(true));
    let action = request.on_response_headers();
    request.on_response_body(0, true);
    let host = request.host();
    let reply = host.reply.borrow().clone();
    host.status.set(reply.as_ref().map(|reply| reply.status.into()).or(host.status.get()));
    request.on_log();
    let first = request.host().written();
    request.on_log();
    Observed {
        forwarded,
        withheld: action == Action::Pause || (forwarded == Some(true) && stopped),
        reply,
        replies: 0,
        upstream,
        response_headers: BTreeMap::new(),
        wrote_twice: first != request.host().written(),
        filter_state: BTreeMap::new(),
        log: Vec::new(),
        outcome: Outcome::default(),
    }
}

/// What the access log of the host prints.
fn outcome(host: &MemoryHost, sent: &Sent) -> Outcome<'static> {
    let properties = host.properties.borrow();
    let upstream = properties.get(Property::UpstreamAddress.path());
    Outcome {
        start_micros: Some(sent.now_ns / 1_000),
        status: host.status.get(),
        bytes_in: Some(sent.ending.body.iter().sum()),
        bytes_out: sent.ending.bytes_out,
        duration_ns: Some(sent.ending.after_ns),
        upstream: upstream.map(|bytes| String::from_utf8_lossy(bytes).into_owned().into()),
        ..Outcome::default()
    }
}

/// Test operations on the in-memory host.
trait Stage {
    fn begin(&self, sent: &Sent);
    fn end(&self, sent: &Sent, forwarded: bool);
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
