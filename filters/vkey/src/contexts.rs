//! The contexts: a root for each configuration of the plugin, and under it a request, or an attempt of one to reach an
//! upstream.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::Action;
use vkey::exchange::{Exchange, Handovers};
use vkey::gate::{Attempt, Gate, Opening, Plugin, UpstreamGate};
use vkey::host;
use vkey::upstream_tls::Policy;

use crate::hostcalls::{ProxyHost, environment, plugin_configuration};

/// The upstream-TLS policy, which the build has checked.
const POLICY: &[u8] = include_bytes!(env!("VKEY_UPSTREAM_TLS_POLICY"));

thread_local! {
    /// What the gates of clusters hand over to the gates of listeners, in this VM.
    static HANDOVERS: Rc<Handovers> = Rc::default();
}

/// A root context. One that is not configured denies everything.
pub(crate) struct Root {
    id: u32,
    plugin: Option<Rc<Plugin>>,
    attempts: Rc<Attempts>,
}

/// A stream under a root context.
pub(crate) enum Stream {
    Request(Request),
    Upstream(Upstream),
}

/// A request.
pub(crate) struct Request {
    id: u32,
    plugin: Rc<Plugin>,
    exchange: Exchange,
}

/// An attempt of a request to reach an upstream.
pub(crate) struct Upstream {
    id: u32,
    held: Rc<Held>,
    attempts: Rc<Attempts>,
}

/// The attempts under a root context, which its tick polls.
type Attempts = RefCell<BTreeMap<u32, Rc<Held>>>;

/// What the tick needs of an attempt. Its plugin is a [`Plugin::UpstreamGate`].
struct Held {
    plugin: Rc<Plugin>,
    attempt: RefCell<Attempt>,
}

// === impl Root ===

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, plugin: None, attempts: Rc::default() }
    }

    /// Takes the place of [`RootContext::create_http_context`], whose trait objects carry all host calls of the SDK
    /// into the module, with their panics and with imports that not every host has.
    pub(crate) fn create_stream(&self, id: u32) -> Stream {
        let plugin = self.plugin.clone().unwrap_or_else(|| Rc::new(Plugin::closed(policy())));
        match &*plugin {
            Plugin::Gate(_) => Stream::Request(Request::new(id, plugin)),
            Plugin::UpstreamGate(_) => Stream::Upstream(Upstream::new(id, plugin, &self.attempts)),
        }
    }
}

impl Context for Root {}

impl RootContext for Root {
    /// Puts a configuration in force. `false` only for a text that is invalid on every worker: if workers
    /// disagree, Envoy lets requests pass unfiltered.
    fn on_configure(&mut self, len: usize) -> bool {
        #[cfg(feature = "faults")]
        if !crate::faults::configure() {
            return false;
        }
        let text = plugin_configuration(len);
        let Ok(mut plugin) = Plugin::configure(&text, policy(), environment, &ProxyHost) else {
            return false;
        };
        _ = HANDOVERS.try_with(|handovers| plugin.share(handovers));
        self.plugin = Some(Rc::new(plugin));
        true
    }
}

impl Root {
    /// Ends the chain of audit records.
    pub(crate) fn on_delete(&self) {
        if let Some(Plugin::Gate(gate)) = self.plugin.as_deref() {
            gate.on_delete(&ProxyHost);
        }
    }

    /// Polls the attempts that wait, and the requests that are watched, which `tick` calls.
    pub(crate) fn tick(&self, tick: impl Fn(u32) -> host::Action) {
        match self.plugin.as_deref() {
            None => {}
            Some(Plugin::Gate(gate)) => gate.tick(&ProxyHost, self.id, tick),
            Some(Plugin::UpstreamGate(gate)) => gate.tick(&ProxyHost, self.id, |id| {
                // The map is not borrowed while the host is called.
                let held = self.attempts.try_borrow().ok().and_then(|all| all.get(&id).cloned());
                held.map_or(host::Action::Continue, |held| held.on_tick())
            }),
        }
    }
}

#[cfg(not(feature = "nginx"))]
impl Root {
    /// Takes the response to a call. `tick` is called for the requests that wait for it.
    pub(crate) fn on_call_response(
        &self,
        number: u32,
        len: usize,
        tick: impl Fn(u32) -> host::Action,
    ) {
        if let Some(Plugin::Gate(gate)) = self.plugin.as_deref() {
            gate.on_call_response(&ProxyHost, self.id, (number, len), tick);
        }
    }
}

fn policy() -> Policy {
    Policy::parse(POLICY).unwrap_or_else(|_| Policy::strictest())
}

// === impl Stream ===

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Request(request) => request.on_http_request_headers(count, end_of_stream),
            Self::Upstream(upstream) => upstream.on_http_request_headers(count, end_of_stream),
        }
    }

    fn on_http_request_body(&mut self, len: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Request(request) => request.on_http_request_body(len, end_of_stream),
            Self::Upstream(upstream) => upstream.on_http_request_body(len, end_of_stream),
        }
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        match self {
            Self::Request(request) => request.on_http_request_trailers(count),
            Self::Upstream(upstream) => upstream.on_http_request_trailers(count),
        }
    }

    fn on_http_response_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Request(request) => request.on_http_response_headers(count, end_of_stream),
            Self::Upstream(upstream) => upstream.on_http_response_headers(count, end_of_stream),
        }
    }

    fn on_http_response_body(&mut self, len: usize, end_of_stream: bool) -> Action {
        match self {
            Self::Request(request) => request.on_http_response_body(len, end_of_stream),
            Self::Upstream(_) => Action::Continue,
        }
    }

    fn on_http_response_trailers(&mut self, count: usize) -> Action {
        match self {
            Self::Request(request) => request.on_http_response_trailers(count),
            Self::Upstream(_) => Action::Continue,
        }
    }

    fn on_log(&mut self) {
        match self {
            Self::Request(request) => request.on_log(),
            Self::Upstream(upstream) => upstream.on_log(),
        }
    }
}

impl Stream {
    /// Looks at a request that is watched. An attempt to reach an upstream is polled by its root.
    pub(crate) fn on_tick(&mut self) -> host::Action {
        match self {
            Self::Request(request) => request.on_tick(),
            Self::Upstream(_) => host::Action::Continue,
        }
    }
}

// === impl Request ===

impl Context for Request {}

impl HttpContext for Request {
    /// Decides on the request, or holds it until its body has been read.
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let opening = Opening { context: self.id, is_whole: end_of_stream };
        self.act(|gate, exchange| gate.on_request_headers(&ProxyHost, exchange, opening))
    }

    /// Reads the body of a request whose decision depends on it. Holds that of a request that was not forwarded, also if
    /// its reply failed, and refuses that of a preflight.
    fn on_http_request_body(&mut self, len: usize, end_of_stream: bool) -> Action {
        self.act(|gate, exchange| {
            gate.on_request_body(&ProxyHost, exchange, bytes(len), end_of_stream)
        })
    }

    /// Cleans the trailers of a request that was forwarded, and holds those of any other. Trailers end a body that
    /// is held: without this callback the host would forward all of it.
    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.act(|gate, exchange| gate.on_request_trailers(&ProxyHost, exchange))
    }

    /// Checks the connection of the response, and adds the rate-limit headers.
    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.act(|gate, exchange| gate.on_response_headers(&ProxyHost, exchange))
    }

    /// Reads the body of a response whose usage is charged, and filters one with lists.
    fn on_http_response_body(&mut self, len: usize, end_of_stream: bool) -> Action {
        self.act(|gate, exchange| {
            gate.on_response_body(&ProxyHost, exchange, bytes(len), end_of_stream)
        })
    }

    /// Filters the lists of a response that is held. Without this callback the host would let it go on as it is.
    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.act(|gate, exchange| gate.on_response_trailers(&ProxyHost, exchange))
    }

    /// Writes the request's audit line.
    fn on_log(&mut self) {
        self.act(|gate, exchange| {
            gate.on_log(&ProxyHost, exchange);
            host::Action::Continue
        });
    }
}

impl Request {
    fn new(id: u32, plugin: Rc<Plugin>) -> Self {
        Self { id, plugin, exchange: Exchange::default() }
    }

    fn on_tick(&mut self) -> host::Action {
        match &*self.plugin {
            Plugin::Gate(gate) => gate.on_tick(&ProxyHost, &mut self.exchange),
            Plugin::UpstreamGate(_) => host::Action::Continue,
        }
    }

    fn act(&mut self, act: impl FnOnce(&Gate, &mut Exchange) -> host::Action) -> Action {
        match &*self.plugin {
            Plugin::Gate(gate) => action(act(gate, &mut self.exchange)),
            Plugin::UpstreamGate(_) => Action::Pause,
        }
    }
}

// === impl Upstream ===

impl Context for Upstream {}

impl HttpContext for Upstream {
    /// Checks the attempt, or holds it.
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let id = self.id;
        action(self.held.act(|gate, attempt| gate.on_request_headers(&ProxyHost, id, attempt)))
    }

    /// Holds the body of an attempt that was not forwarded.
    fn on_http_request_body(&mut self, _len: usize, _end_of_stream: bool) -> Action {
        action(self.held.act(|_, attempt| UpstreamGate::on_request_body(attempt)))
    }

    /// Holds the trailers of such an attempt too, because they end a body.
    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        action(self.held.act(|_, attempt| UpstreamGate::on_request_body(attempt)))
    }

    /// Compares the connection of the response.
    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        action(self.held.act(|gate, attempt| gate.on_response_headers(&ProxyHost, attempt)))
    }
}

impl Upstream {
    fn new(id: u32, plugin: Rc<Plugin>, attempts: &Rc<Attempts>) -> Self {
        let held = Rc::new(Held { plugin, attempt: RefCell::default() });
        if let Ok(mut attempts) = attempts.try_borrow_mut() {
            attempts.insert(id, Rc::clone(&held));
        }
        Self { id, held, attempts: Rc::clone(attempts) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Ok(mut attempts) = self.attempts.try_borrow_mut()
            && attempts.get(&self.id).is_some_and(|held| Rc::ptr_eq(held, &self.held))
        {
            // An attempt that was announced again has taken its place already, and may wait under the same id.
            attempts.remove(&self.id);
            if let Some(gate) = self.held.gate() {
                gate.forget(self.id);
            }
        }
    }
}

impl Held {
    fn on_tick(&self) -> host::Action {
        self.act(|gate, attempt| gate.on_tick(&ProxyHost, attempt))
    }

    fn act(&self, act: impl FnOnce(&UpstreamGate, &mut Attempt) -> host::Action) -> host::Action {
        let attempt = self.attempt.try_borrow_mut().ok();
        let acted = self.gate().zip(attempt).map(|(gate, mut attempt)| act(gate, &mut attempt));
        acted.unwrap_or(host::Action::Pause)
    }

    fn gate(&self) -> Option<&UpstreamGate> {
        match &*self.plugin {
            Plugin::UpstreamGate(gate) => Some(gate),
            Plugin::Gate(_) => None,
        }
    }
}

fn bytes(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn action(action: host::Action) -> Action {
    match action {
        host::Action::Continue => Action::Continue,
        host::Action::Pause => Action::Pause,
    }
}
