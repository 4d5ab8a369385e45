//! Upstream contexts: one for each attempt of a request to reach an upstream.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use vkey::gate::{Attempt, Plugin, UpstreamGate};
use vkey::host::Action;

use crate::hostcalls::ProxyHost;

thread_local! {
    static ATTEMPTS: RefCell<BTreeMap<u32, Rc<Upstream>>> = const { RefCell::new(BTreeMap::new()) };
}

/// An attempt and the plugin it is under, which is a [`Plugin::UpstreamGate`].
pub(crate) struct Upstream {
    plugin: Rc<Plugin>,
    attempt: RefCell<Attempt>,
}

/// Starts an attempt.
pub(crate) fn create(id: u32, plugin: Rc<Plugin>) {
    let upstream = Rc::new(Upstream { plugin, attempt: RefCell::default() });
    ATTEMPTS.with_borrow_mut(|attempts| attempts.insert(id, upstream));
}

/// The attempt of a context; `None` where it is none.
pub(crate) fn find(id: u32) -> Option<Rc<Upstream>> {
    ATTEMPTS.with_borrow(|attempts| attempts.get(&id).cloned())
}

/// Looks at the attempts that wait under a root context.
pub(crate) fn on_tick(root_id: u32) {
    if let Plugin::UpstreamGate(gate) = &*crate::contexts::plugin(root_id) {
        gate.tick(&ProxyHost, root_id, |id| find(id).map_or(Action::Continue, |u| u.on_tick()));
    }
}

/// Forgets an attempt; `false` if the context is not an attempt.
pub(crate) fn delete(id: u32) -> bool {
    let upstream = ATTEMPTS.with_borrow_mut(|attempts| attempts.remove(&id));
    if let Some(gate) = upstream.as_ref().and_then(|upstream| upstream.gate()) {
        gate.forget(id);
    }
    upstream.is_some()
}

impl Upstream {
    /// Judges the attempt, or holds it. A host that calls back from inside a host call finds it held.
    pub(crate) fn on_request_headers(&self, id: u32) -> Action {
        self.act(|gate, attempt| gate.on_request_headers(&ProxyHost, id, attempt))
    }

    /// Holds the body of an attempt that was not let through.
    pub(crate) fn on_request_body(&self) -> Action {
        self.act(|_, attempt| UpstreamGate::on_request_body(attempt))
    }

    /// Compares the connection of the answer.
    pub(crate) fn on_response_headers(&self) -> Action {
        self.act(|gate, attempt| gate.on_response_headers(&ProxyHost, attempt))
    }

    fn on_tick(&self) -> Action {
        self.act(|gate, attempt| gate.on_tick(&ProxyHost, attempt))
    }

    fn act(&self, act: impl FnOnce(&UpstreamGate, &mut Attempt) -> Action) -> Action {
        let attempt = self.attempt.try_borrow_mut().ok();
        let acted = self.gate().zip(attempt).map(|(gate, mut attempt)| act(gate, &mut attempt));
        acted.unwrap_or(Action::Pause)
    }

    fn gate(&self) -> Option<&UpstreamGate> {
        match &*self.plugin {
            Plugin::UpstreamGate(gate) => Some(gate),
            Plugin::Gate(_) => None,
        }
    }
}
