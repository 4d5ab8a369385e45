//! A host that records which host calls the module makes.

use std::cell::RefCell;

use crate::headers::Headers;
use crate::host::{
    Body, Host, HostError, Level, MemoryHost, MetricKind, Property, Rules, SharedData, WriteError,
};
use crate::reply::Reply;

/// An in-memory host, with the names of the calls to it.
pub(super) struct RecordedHost {
    pub(super) memory: MemoryHost,
    calls: RefCell<Vec<&'static str>>,
    /// If set, filter states cannot be set.
    pub(super) lacks_filter_state: bool,
    /// If set, a paused request cannot be resumed.
    pub(super) fails_to_resume: bool,
    /// If set, no body can be changed.
    pub(super) fails_to_set_body: bool,
}

impl RecordedHost {
    pub(super) fn new(memory: MemoryHost) -> Self {
        Self {
            memory,
            calls: RefCell::default(),
            lacks_filter_state: false,
            fails_to_resume: false,
            fails_to_set_body: false,
        }
    }

    /// The calls since the last time.
    pub(super) fn take_calls(&self) -> Vec<&'static str> {
        self.calls.take()
    }

    fn call<T>(&self, name: &'static str, act: impl FnOnce(&MemoryHost) -> T) -> T {
        self.calls.borrow_mut().push(name);
        act(&self.memory)
    }
}

impl SharedData for RecordedHost {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.call("shared_data", |host| host.shared_data(name))
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        self.call("set_shared_data", |host| host.set_shared_data(name, record, cas))
    }
}

impl Host for RecordedHost {
    /// As in the module for Envoy.
    const SERVES_NGINX: bool = false;

    /// Not a host call.
    fn rules(&self) -> Rules {
        self.memory.rules()
    }

    fn now_ns(&self) -> Option<u64> {
        self.call("now_ns", Host::now_ns)
    }

    fn request_headers(&self) -> Option<Headers> {
        self.call("request_headers", Host::request_headers)
    }

    fn request_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.call("request_header", |host| host.request_header(name))
    }

    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError> {
        self.call("remove_request_header", |host| host.remove_request_header(name))
    }

    fn set_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.call("set_request_header", |host| host.set_request_header(name, value))
    }

    fn request_trailers(&self) -> Option<Headers> {
        self.call("request_trailers", Host::request_trailers)
    }

    fn remove_request_trailer(&self, name: &[u8]) -> Result<(), HostError> {
        self.call("remove_request_trailer", |host| host.remove_request_trailer(name))
    }

    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.call("add_request_header", |host| host.add_request_header(name, value))
    }

    fn body(&self, body: Body, start: usize, max_len: usize) -> Option<Vec<u8>> {
        self.call("body", |host| host.body(body, start, max_len))
    }

    fn set_body(
        &self,
        body: Body,
        start: usize,
        len: usize,
        bytes: &[u8],
    ) -> Result<(), HostError> {
        if self.fails_to_set_body {
            return Err(HostError::INTERNAL_FAILURE);
        }
        self.call("set_body", |host| host.set_body(body, start, len, bytes))
    }

    fn remove_response_header(&self, name: &str) -> Result<(), HostError> {
        self.call("remove_response_header", |host| host.remove_response_header(name))
    }

    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.call("response_header", |host| host.response_header(name))
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        self.call("property", |host| host.property(property))
    }

    fn filter_state(&self, path: &str) -> Option<Vec<u8>> {
        self.call("filter_state", |host| host.filter_state(path))
    }

    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError> {
        if self.lacks_filter_state {
            return self.call("set_filter_state", |_| Err(HostError::UNIMPLEMENTED));
        }
        self.call("set_filter_state", |host| host.set_filter_state(key, value))
    }

    fn send_reply(&self, reply: &Reply) -> Result<(), HostError> {
        self.call("send_reply", |host| host.send_reply(reply))
    }

    fn resume_request(&self) -> Result<(), HostError> {
        if self.fails_to_resume {
            return Err(HostError::INTERNAL_FAILURE);
        }
        self.call("resume_request", Host::resume_request)
    }

    fn enter(&self, context: u32) -> Result<(), HostError> {
        self.call("enter", |host| host.enter(context))
    }

    fn set_tick_period(&self, millis: u32) -> Result<(), HostError> {
        self.call("set_tick_period", |host| host.set_tick_period(millis))
    }

    fn set_response_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.call("set_response_header", |host| host.set_response_header(name, value))
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        self.call("define_metric", |host| host.define_metric(kind, name))
    }

    fn increment_metric(&self, metric: u32, by: u32) -> Result<(), HostError> {
        self.call("increment_metric", |host| host.increment_metric(metric, by))
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), HostError> {
        self.call("record_metric", |host| host.record_metric(metric, value))
    }

    fn metric(&self, metric: u32) -> Result<u64, HostError> {
        self.call("metric", |host| host.metric(metric))
    }

    fn log(&self, level: Level, text: &str) {
        self.call("log", |host| host.log(level, text));
    }
}
