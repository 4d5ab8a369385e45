//! The scenarios of `testdata/scenarios` and of `testdata/bench` on the built module in the embedded host.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]

#[path = "../../../tests/scenario/mod.rs"]
#[allow(dead_code, reason = "the rest is for other machines")]
mod scenario;
mod wasm;

use std::collections::BTreeMap;

use scenario::Machine;
use scenario::body::bytewise;
use scenario::folder::{all_hold, all_with_bodies_hold};
use scenario::format::HostKind;
use scenario::memory::InMemory;
use vkey::host::Action;

fn wasm(config: Vec<u8>, env: BTreeMap<String, String>, host: HostKind) -> Box<dyn Machine> {
    Box::new(InMemory::<wasm::Wasm>::new(config, env, host))
}

#[test]
fn every_scenario_holds_on_the_module_in_the_embedded_host() {
    all_hold("wasm", &wasm);
}

#[test]
fn how_a_body_is_cut_makes_no_difference() {
    all_with_bodies_hold("wasm", &|config, env, host| {
        Box::new(InMemory::<wasm::Wasm>::new(config, env, host).cutting(bytewise))
            as Box<dyn Machine>
    });
}

/// nginx must not get the module that lacks the callbacks it calls: nothing reaches an upstream, and the
/// embedded host fails like nginx.
#[test]
fn a_module_without_nginxs_callbacks_forwards_nothing() {
    let (mut vm, id) = wasm::wrong_module_on_nginx();
    let log = vm.root().unwrap().log.take();
    assert!(log.iter().any(|(_, line)| line.contains("load vkey-nginx.wasm")), "{log:?}");
    let refused = vm.on_request_headers(id, true).unwrap();
    assert_eq!(refused, Action::Pause);
    let host = vm.host(id).unwrap();
    assert_eq!(host.reply.borrow().as_ref().unwrap().status, 503);
    let ended = vm.on_log(id).unwrap_err().to_string();
    assert!(ended.contains("proxy_on_done"), "{ended}");
}
