//! The library as a machine.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::take;

use vkey::exchange::Exchange;
use vkey::gate::{Gate, Opening, Plugin};
use vkey::host::{Action, MemoryHost};
use vkey::upstream_tls::Policy;

use super::Log;
use super::memory::{Callbacks, Request};
use super::text::POLICY;

/// The context of the gate.
const ROOT: u32 = 1;

/// The context of every request: there is one at a time.
const CONTEXT: u32 = 2;

/// A worker.
pub(crate) struct Native {
    gate: Gate,
}

struct NativeRequest<'a> {
    gate: &'a Gate,
    exchange: Exchange,
    host: MemoryHost,
}

fn policy() -> Policy {
    Policy::parse(POLICY).unwrap()
}

impl Callbacks for Native {
    fn configure(
        config: &[u8],
        env: &BTreeMap<String, String>,
        host: MemoryHost,
    ) -> (Self, bool, Log) {
        let environment = |name: &str| env.get(name).cloned();
        let configured = Plugin::configure(config, policy(), environment, &host);
        let accepted = configured.is_ok();
        // After a rejected configuration, a host without an earlier one must refuse everything.
        let plugin = configured.unwrap_or_else(|_| Plugin::closed(policy()));
        let Plugin::Gate(gate) = plugin else { panic!("a scenario is about the gate") };
        (Self { gate: *gate }, accepted, host.log.take())
    }

    fn with_request<T>(
        &mut self,
        host: MemoryHost,
        act: impl FnOnce(&mut dyn Request) -> T,
    ) -> (T, MemoryHost) {
        let mut request = NativeRequest { gate: &self.gate, exchange: Exchange::default(), host };
        let done = act(&mut request);
        (done, request.host)
    }
}

impl Request for NativeRequest<'_> {
    fn host(&self) -> &MemoryHost {
        &self.host
    }

    fn on_headers(&mut self, is_whole: bool) -> Action {
        let opening = Opening { context: CONTEXT, is_whole };
        self.gate.on_request_headers(&self.host, &mut self.exchange, opening)
    }

    fn on_body(&mut self, bytes: u64, is_last: bool) -> Action {
        self.gate.on_request_body(&self.host, &mut self.exchange, bytes, is_last)
    }

    fn on_trailers(&mut self) -> Action {
        self.gate.on_request_trailers(&self.host, &mut self.exchange)
    }

    fn on_response_headers(&mut self) -> Action {
        self.gate.on_response_headers(&self.host, &mut self.exchange)
    }

    fn on_response_body(&mut self, bytes: u64, is_last: bool) -> Action {
        self.gate.on_response_body(&self.host, &mut self.exchange, bytes, is_last)
    }

    fn on_tick(&mut self) {
        let exchange = RefCell::new(take(&mut self.exchange));
        self.gate
            .tick(&self.host, ROOT, |_| self.gate.on_tick(&self.host, &mut exchange.borrow_mut()));
        self.exchange = exchange.into_inner();
    }

    fn on_log(&mut self) {
        self.gate.on_log(&self.host, &mut self.exchange);
    }
}
