//! A host whose calls are counted, but not its own work.

use std::cell::RefCell;
use std::rc::Rc;

use vkey::headers::Headers;
use vkey::host::Level;
use vkey::host::{
    Body, Host, HostError, MemoryHost, MetricKind, Property, Rules, SharedData, WriteError,
};
use vkey::reply::Reply;

use crate::meter::Meter;

/// A kind of host call, in the order of [`Call::NAMES`].
#[derive(Clone, Copy)]
pub(crate) enum Call {
    Clock,
    HeaderRead,
    HeaderEdit,
    Body,
    Property,
    SharedRead,
    SharedWrite,
    FilterState,
    Metric,
    Log,
    Reply,
    Other,
}

/// The number of calls of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls([u64; Call::COUNT]);

/// The in-memory host, with counted calls.
pub(crate) struct CountedHost {
    pub(crate) memory: MemoryHost,
    meter: Rc<Meter>,
    calls: RefCell<Calls>,
}

impl Call {
    pub(crate) const COUNT: usize = 12;

    /// The names in tables.
    pub(crate) const NAMES: [&str; Self::COUNT] = [
        "clock", "header_read", "header_edit", "body", "property", "shared_read", "shared_write",
        "filter_state", "metric", "log", "reply", "other",
    ];
}

impl Calls {
    /// The number of calls of each kind, in order.
    pub(crate) fn each(&self) -> [u64; Call::COUNT] {
        self.0
    }
}

impl CountedHost {
    pub(crate) fn new(memory: MemoryHost, meter: &Rc<Meter>) -> Self {
        Self { memory, meter: Rc::clone(meter), calls: RefCell::default() }
    }

    pub(crate) fn calls(&self) -> Calls {
        *self.calls.borrow()
    }

    /// Counts a host call and pauses counting instructions during it.
    fn call<T>(&self, call: Call, act: impl FnOnce(&MemoryHost) -> T) -> T {
        self.meter.pause(|| {
            self.calls.borrow_mut().0[call as usize] += 1;
            act(&self.memory)
        })
    }
}

impl SharedData for CountedHost {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.call(Call::SharedRead, |host| host.shared_data(name))
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        self.call(Call::SharedWrite, |host| host.set_shared_data(name, record, cas))
    }
}

impl Host for CountedHost {
    /// Not a host call.
    fn rules(&self) -> Rules {
        self.memory.rules()
    }

    fn now_ns(&self) -> Option<u64> {
        self.call(Call::Clock, Host::now_ns)
    }

    /// Only parsing is counted: the host serialises the map.
    fn request_headers(&self) -> Option<Headers> {
        let (pairs, _) = self.call(Call::HeaderRead, MemoryHost::header_pairs)?;
        Headers::from_pairs(pairs).ok()
    }

    fn request_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.call(Call::HeaderRead, |host| host.request_header(name))
    }

    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError> {
        self.call(Call::HeaderEdit, |host| host.remove_request_header(name))
    }

    fn set_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.call(Call::HeaderEdit, |host| host.set_request_header(name, value))
    }

    fn request_trailers(&self) -> Option<Headers> {
        self.call(Call::HeaderRead, Host::request_trailers)
    }

    fn remove_request_trailer(&self, name: &[u8]) -> Result<(), HostError> {
        self.call(Call::HeaderEdit, |host| host.remove_request_trailer(name))
    }

    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.call(Call::HeaderEdit, |host| host.add_request_header(name, value))
    }

    fn body(&self, body: Body, start: usize, max_len: usize) -> Option<Vec<u8>> {
        self.call(Call::Body, |host| host.body(body, start, max_len))
    }

    fn set_body(
        &self,
        body: Body,
        start: usize,
        len: usize,
        bytes: &[u8],
    ) -> Result<(), HostError> {
        self.call(Call::Body, |host| host.set_body(body, start, len, bytes))
    }

    fn remove_response_header(&self, name: &str) -> Result<(), HostError> {
        self.call(Call::HeaderEdit, |host| host.remove_response_header(name))
    }

    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.call(Call::HeaderRead, |host| host.response_header(name))
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        self.call(Call::Property, |host| host.property(property))
    }

    fn filter_state(&self, path: &str) -> Option<Vec<u8>> {
        self.call(Call::Property, |host| host.filter_state(path))
    }

    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError> {
        self.call(Call::FilterState, |host| host.set_filter_state(key, value))
    }

    fn send_reply(&self, reply: &Reply) -> Result<(), HostError> {
        self.call(Call::Reply, |host| host.send_reply(reply))
    }

    fn resume_request(&self) -> Result<(), HostError> {
        self.call(Call::Other, Host::resume_request)
    }

    fn enter(&self, context: u32) -> Result<(), HostError> {
        self.call(Call::Other, |host| host.enter(context))
    }

    fn set_tick_period(&self, millis: u32) -> Result<(), HostError> {
        self.call(Call::Other, |host| host.set_tick_period(millis))
    }

    fn set_response_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.call(Call::HeaderEdit, |host| host.set_response_header(name, value))
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        self.call(Call::Metric, |host| host.define_metric(kind, name))
    }

    fn increment_metric(&self, metric: u32, by: u32) -> Result<(), HostError> {
        self.call(Call::Metric, |host| host.increment_metric(metric, by))
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), HostError> {
        self.call(Call::Metric, |host| host.record_metric(metric, value))
    }

    fn metric(&self, metric: u32) -> Result<u64, HostError> {
        self.call(Call::Metric, |host| host.metric(metric))
    }

    fn log(&self, level: Level, text: &str) {
        self.call(Call::Log, |host| host.log(level, text));
    }
}
