//! The callbacks that the module exports, in place of the SDK's dispatcher.
//!
//! The SDK's panics if a host names a context that it did not announce, announces one twice, or calls back from inside
//! a host call. Hosts do so, and a panic takes down every stream of the worker. Here a context that the host did not
//! announce denies, as one of a root that is not configured does, and a callback from inside a host call holds the
//! stream.
//!
//! When the module is built, `vkey_on_X` takes the place of the SDK's `proxy_on_X`. What has no such function here is
//! not exported (`tools/link-wasm.mjs`).

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm::traits::{HttpContext, RootContext};
use proxy_wasm::types::Action;
use vkey::host;

use crate::contexts::{Root, Stream};

// nginx numbers root contexts and streams apart: the id of a stream may be that of a root context too. No map is
// borrowed while a context runs, so a host may call back from inside.
thread_local! {
    static ROOTS: RefCell<BTreeMap<u32, Rc<RefCell<Root>>>> = const { RefCell::new(BTreeMap::new()) };
    static STREAMS: RefCell<BTreeMap<u32, Rc<RefCell<Stream>>>> = const { RefCell::new(BTreeMap::new()) };
}

// === callbacks ===

#[unsafe(no_mangle)]
extern "C" fn vkey_on_context_create(id: u32, root_id: u32) {
    if root_id == 0 {
        find_root(id);
    } else {
        create_stream(id, root_id);
    }
}

/// Never `false`: Envoy lets requests pass unfiltered if a worker does not start.
#[unsafe(no_mangle)]
extern "C" fn vkey_on_vm_start(_root_id: u32, _len: usize) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_configure(root_id: u32, len: usize) -> bool {
    let root = find_root(root_id);
    root.try_borrow_mut().is_ok_and(|mut root| root.on_configure(len))
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_tick(root_id: u32) {
    let root = find_root(root_id);
    if let Ok(root) = root.try_borrow() {
        root.tick(tick_stream);
    }
}

/// Takes the response to a call. The host has its headers and its body until this returns.
#[cfg(not(feature = "nginx"))]
#[unsafe(no_mangle)]
extern "C" fn vkey_on_http_call_response(
    root_id: u32,
    number: u32,
    _headers: usize,
    len: usize,
    _trailers: usize,
) {
    let root = find_root(root_id);
    if let Ok(root) = root.try_borrow() {
        root.on_call_response(number, len, tick_stream);
    }
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_request_headers(id: u32, count: usize, end_of_stream: bool) -> Action {
    act(id, |stream| stream.on_http_request_headers(count, end_of_stream))
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_request_body(id: u32, len: usize, end_of_stream: bool) -> Action {
    act(id, |stream| stream.on_http_request_body(len, end_of_stream))
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_request_trailers(id: u32, count: usize) -> Action {
    act(id, |stream| stream.on_http_request_trailers(count))
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_response_headers(id: u32, count: usize, end_of_stream: bool) -> Action {
    act(id, |stream| stream.on_http_response_headers(count, end_of_stream))
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_response_body(id: u32, len: usize, end_of_stream: bool) -> Action {
    act(id, |stream| stream.on_http_response_body(len, end_of_stream))
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_response_trailers(id: u32, count: usize) -> Action {
    act(id, |stream| stream.on_http_response_trailers(count))
}

/// nginx calls this at the end of a request, whether it is exported or not.
#[cfg(feature = "nginx")]
#[unsafe(no_mangle)]
extern "C" fn vkey_on_done(_id: u32) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_log(id: u32) {
    act(id, |stream| {
        stream.on_log();
        Action::Continue
    });
}

#[unsafe(no_mangle)]
extern "C" fn vkey_on_delete(id: u32) {
    let stream = STREAMS.with_borrow_mut(|streams| streams.remove(&id));
    if stream.is_none() {
        let root = ROOTS.with_borrow_mut(|roots| roots.remove(&id));
        if let Some(root) = root.as_ref().and_then(|root| root.try_borrow().ok()) {
            root.on_delete();
        }
    }
}

// === contexts ===

/// A root context. One that the host did not announce is not configured.
fn find_root(id: u32) -> Rc<RefCell<Root>> {
    ROOTS.with_borrow_mut(|roots| {
        Rc::clone(roots.entry(id).or_insert_with(|| Rc::new(RefCell::new(Root::new(id)))))
    })
}

fn create_stream(id: u32, root_id: u32) -> Rc<RefCell<Stream>> {
    let root = ROOTS.with_borrow(|roots| roots.get(&root_id).cloned());
    let stream = root.as_ref().and_then(|root| Some(root.try_borrow().ok()?.create_stream(id)));
    let stream = stream.unwrap_or_else(|| Root::new(root_id).create_stream(id));
    let stream = Rc::new(RefCell::new(stream));
    STREAMS.with_borrow_mut(|streams| streams.insert(id, Rc::clone(&stream)));
    stream
}

/// Looks at a request outside its own callbacks.
fn tick_stream(id: u32) -> host::Action {
    let stream = STREAMS.with_borrow(|streams| streams.get(&id).cloned());
    let ticked = stream.and_then(|stream| Some(stream.try_borrow_mut().ok()?.on_tick()));
    ticked.unwrap_or(host::Action::Continue)
}

/// Calls a stream. One that the host did not announce is denied like any other under a root that is not configured.
fn act(id: u32, callback: impl FnOnce(&mut Stream) -> Action) -> Action {
    let stream = STREAMS.with_borrow(|streams| streams.get(&id).cloned());
    let stream = stream.unwrap_or_else(|| create_stream(id, 0));
    stream.try_borrow_mut().map_or(Action::Pause, |mut stream| callback(&mut stream))
}
