//! HTTP contexts: one for each request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use vkey::exchange::Exchange;
use vkey::gate::{Gate, Plugin};
use vkey::host::Action;

use crate::hostcalls::ProxyHost;

thread_local! {
    static REQUESTS: RefCell<BTreeMap<u32, Rc<Http>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A request and the plugin it is under.
pub(crate) struct Http {
    plugin: Rc<Plugin>,
    exchange: RefCell<Exchange>,
}

/// Starts a request.
pub(crate) fn create(id: u32, plugin: Rc<Plugin>) -> Rc<Http> {
    let http = Rc::new(Http::new(plugin));
    REQUESTS.with_borrow_mut(|requests| requests.insert(id, Rc::clone(&http)));
    http
}

/// The request of a context. One that the host never announced is denied like any other.
pub(crate) fn find(id: u32) -> Rc<Http> {
    // The map is not borrowed while the host is called, so a host may call back from inside.
    let found = REQUESTS.with_borrow(|requests| requests.get(&id).cloned());
    found.unwrap_or_else(|| create(id, crate::contexts::plugin(0)))
}

/// Forgets a request; `false` if the context is not a request.
pub(crate) fn delete(id: u32) -> bool {
    REQUESTS.with_borrow_mut(|requests| requests.remove(&id)).is_some()
}

impl Http {
    /// Decides on the request. A host that calls back from inside a host call finds it held.
    pub(crate) fn on_request_headers(&self) -> Action {
        self.act(|gate, exchange| gate.on_request_headers(&ProxyHost, exchange))
    }

    /// Holds the body of a request that was not let through, also where its answer failed, and refuses that of
    /// a preflight.
    pub(crate) fn on_request_body(&self, bytes: usize) -> Action {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.act(|gate, exchange| gate.on_request_body(&ProxyHost, exchange, bytes))
    }

    /// Cleans the trailers of a request that was let through, and holds those of any other.
    pub(crate) fn on_request_trailers(&self) -> Action {
        self.act(|gate, exchange| gate.on_request_trailers(&ProxyHost, exchange))
    }

    /// Judges where the answer comes from, and adds what the client is told with it.
    pub(crate) fn on_response_headers(&self) -> Action {
        self.act(|gate, exchange| gate.on_response_headers(&ProxyHost, exchange))
    }

    /// Writes the request's audit line.
    pub(crate) fn on_log(&self) {
        self.act(|gate, exchange| {
            gate.on_log(&ProxyHost, exchange);
            Action::Continue
        });
    }

    fn new(plugin: Rc<Plugin>) -> Self {
        Self { plugin, exchange: RefCell::default() }
    }

    fn act(&self, act: impl FnOnce(&Gate, &mut Exchange) -> Action) -> Action {
        match (&*self.plugin, self.exchange.try_borrow_mut()) {
            (Plugin::Gate(gate), Ok(mut exchange)) => act(gate, &mut exchange),
            _ => Action::Pause,
        }
    }
}
