//! HTTP contexts: one for each request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use vkey::exchange::Exchange;
use vkey::host::{Action, Gate};

use crate::host::ProxyHost;

thread_local! {
    static REQUESTS: RefCell<BTreeMap<u32, Rc<Http>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A request and the gate it is under.
pub(crate) struct Http {
    gate: Rc<Gate>,
    exchange: RefCell<Exchange>,
}

/// Starts a request under a root context.
pub(crate) fn create(id: u32, root_id: u32) -> Rc<Http> {
    let http = Rc::new(Http { gate: crate::root::gate(root_id), exchange: RefCell::default() });
    REQUESTS.with_borrow_mut(|requests| requests.insert(id, Rc::clone(&http)));
    http
}

/// Decides on a request. One that the host never announced is denied like any other.
pub(crate) fn on_request_headers(id: u32) -> Action {
    let http = find(id).unwrap_or_else(|| create(id, 0));
    match http.exchange.try_borrow_mut() {
        Ok(mut exchange) => http.gate.on_request_headers(&ProxyHost, &mut exchange),
        Err(_) => Action::Pause,
    }
}

/// Holds the body of a request that was not let through, also where its answer failed.
pub(crate) fn on_request_body(id: u32) -> Action {
    let http = find(id).unwrap_or_else(unannounced);
    http.exchange.try_borrow().map_or(Action::Pause, |exchange| Gate::on_request_body(&exchange))
}

/// Adds what a client is told with its answer.
pub(crate) fn on_response_headers(id: u32) {
    let http = find(id).unwrap_or_else(unannounced);
    if let Ok(mut exchange) = http.exchange.try_borrow_mut() {
        Gate::on_response_headers(&ProxyHost, &mut exchange);
    }
}

/// Writes a request's audit line.
pub(crate) fn on_log(id: u32) {
    let http = find(id).unwrap_or_else(unannounced);
    if let Ok(mut exchange) = http.exchange.try_borrow_mut() {
        http.gate.on_log(&ProxyHost, &mut exchange);
    }
}

/// Forgets a request.
pub(crate) fn delete(id: u32) {
    REQUESTS.with_borrow_mut(|requests| requests.remove(&id));
}

/// The map is not borrowed while the host is called, so a host may call back from inside.
fn find(id: u32) -> Option<Rc<Http>> {
    REQUESTS.with_borrow(|requests| requests.get(&id).cloned())
}

fn unannounced() -> Rc<Http> {
    Rc::new(Http { gate: crate::root::gate(0), exchange: RefCell::default() })
}
