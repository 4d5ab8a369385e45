//! An in-memory host: shared data with the rules of real hosts, and one request at a time.

mod body;
mod nginx;
mod store;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use crate::headers::Headers;
use crate::host::Level;
use crate::reply::Reply;

use super::{
    Body, Host, HostError, MetricKind, Property, Rules, ServiceCall, SharedData, WriteError,
    probe_name,
};

pub use body::{Arrived, MemoryBody};
pub use store::MemoryStore;

/// Headers by name and value, in their order.
pub type HeaderList = Vec<(Vec<u8>, Vec<u8>)>;

/// One worker of an in-memory host. Tests set what the host provides, and read what the module did.
pub struct MemoryHost {
    store: MemoryStore,
    /// The clock, Unix nanoseconds; `None` for a host without a clock.
    pub now_ns: Cell<Option<u64>>,
    /// The headers of the request; `None` for a host that does not provide them.
    pub headers: RefCell<Option<HeaderList>>,
    /// The indices of removed headers, on nginx, where removing only hides them.
    hidden: RefCell<BTreeSet<usize>>,
    /// Why the worker crashed, if it did.
    pub crashed: Cell<Option<&'static str>>,
    /// The trailers of the request; `None` if there are none.
    pub trailers: RefCell<Option<HeaderList>>,
    /// The status of the response, if there is one.
    pub status: Cell<Option<u64>>,
    /// The properties that the host provides, by path.
    pub properties: RefCell<BTreeMap<Cow<'static, str>, Vec<u8>>>,
    /// How many properties were read.
    pub property_reads: Cell<u64>,
    /// The filter states that were set.
    pub filter_state: RefCell<BTreeMap<String, String>>,
    /// The body of the request.
    pub request_body: MemoryBody,
    /// The body of the response.
    pub response_body: MemoryBody,
    /// The last local reply.
    pub reply: RefCell<Option<Reply>>,
    /// The number of local replies.
    pub replies: Cell<u32>,
    /// The headers of the response, including those that the module set.
    pub response_headers: RefCell<BTreeMap<String, String>>,
    /// The names of the defined metrics, one for each definition.
    pub defined: RefCell<Vec<String>>,
    /// The log lines.
    pub log: RefCell<Vec<(Level, String)>>,
    /// Whether a paused request was resumed.
    pub resumed: Cell<bool>,
    /// The tick period of the root context, in milliseconds; 0: off.
    pub tick_millis: Cell<u32>,
    /// Contexts that no longer exist.
    pub gone: RefCell<Vec<u32>>,
    /// Whether the nginx configuration defines the seal variable.
    pub seal_variable: Cell<bool>,
    /// If set, host calls that change the request fail with this status.
    pub failing_edits: Cell<Option<HostError>>,
    /// Whether filter states cannot be set.
    pub lacks_filter_state: Cell<bool>,
    /// Whether calls to services are made.
    pub makes_calls: Cell<bool>,
    /// The bodies of these calls; the number of a call is its place, counted from 1.
    pub calls: RefCell<Vec<String>>,
    /// The status of the response to the last call, if one came.
    pub call_status: Cell<Option<u16>>,
    /// The body of that response.
    pub call_response: MemoryBody,
    /// Whether another worker always writes the records of requests first.
    pub contended: Cell<bool>,
}

// === impl MemoryHost ===

impl MemoryHost {
    /// A worker without a request. Other workers may share the store.
    pub fn new(store: MemoryStore) -> Self {
        Self {
            store,
            now_ns: Cell::new(Some(0)),
            headers: RefCell::new(Some(Vec::new())),
            hidden: RefCell::default(),
            crashed: Cell::new(None),
            trailers: RefCell::default(),
            status: Cell::new(None),
            properties: RefCell::default(),
            property_reads: Cell::new(0),
            filter_state: RefCell::default(),
            request_body: MemoryBody::default(),
            response_body: MemoryBody::default(),
            reply: RefCell::default(),
            replies: Cell::new(0),
            response_headers: RefCell::default(),
            defined: RefCell::default(),
            log: RefCell::default(),
            resumed: Cell::new(false),
            tick_millis: Cell::new(0),
            gone: RefCell::default(),
            seal_variable: Cell::new(true),
            failing_edits: Cell::new(None),
            lacks_filter_state: Cell::new(false),
            makes_calls: Cell::new(false),
            calls: RefCell::default(),
            call_status: Cell::new(None),
            call_response: MemoryBody::default(),
            contended: Cell::new(false),
        }
    }

    /// The shared data and the metrics.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Provides a property, by its path.
    pub fn show(&self, path: impl Into<Cow<'static, str>>, value: impl Into<Vec<u8>>) {
        self.properties.borrow_mut().insert(path.into(), value.into());
    }

    /// A property by its path, with the parts joined by NUL; `None` if it is absent or empty.
    pub fn property_at(&self, path: &str) -> Option<Vec<u8>> {
        if self.is_nginx() { self.nginx_property(path) } else { self.shown_property(path) }
    }

    /// The serialised map of the request headers, and its length as the host reports it; `None` for a host
    /// that does not provide them.
    pub fn header_pairs(&self) -> Option<(Vec<u8>, usize)> {
        let headers = self.headers.borrow();
        let headers = headers.as_ref()?;
        let hidden = self.hidden.borrow();
        Some(match self.is_nginx() {
            true => nginx::pairs(headers, |place| hidden.contains(&place)),
            false => {
                let pairs = Headers::to_pairs(headers);
                let size = pairs.len();
                (pairs, size)
            }
        })
    }

    /// The serialised map of the request trailers; `None` if there are none.
    pub fn trailer_pairs(&self) -> Option<Vec<u8>> {
        if self.is_nginx() {
            self.crashed.set(Some("nginx has no trailers"));
            return None;
        }
        Some(Headers::to_pairs(self.trailers.borrow().as_deref()?))
    }

    /// The headers that reach the upstream. nginx omits empty ones if its configuration lists the headers
    /// to forward.
    pub fn sent_headers(&self) -> HeaderList {
        let mut headers = self.headers.borrow().clone().unwrap_or_default();
        headers.retain(|(_, value)| !self.is_nginx() || !value.is_empty());
        headers
    }

    fn body_of(&self, body: Body) -> &MemoryBody {
        match body {
            Body::Request => &self.request_body,
            Body::Response => &self.response_body,
            Body::CallResponse => &self.call_response,
        }
    }

    fn shown_property(&self, path: &str) -> Option<Vec<u8>> {
        self.properties.borrow().get(path).filter(|value| !value.is_empty()).cloned()
    }

    fn nginx_property(&self, path: &str) -> Option<Vec<u8>> {
        match path {
            "upstream\0address" => {
                self.crashed.set(Some("nginx has no upstream whose address could be read"));
                None
            }
            "ngx\0upstream_addr" => self.shown_property("upstream\0address"),
            "source\0address" => self.shown_property(path).map(|at| nginx::address(&at)),
            "ngx\0body_bytes_sent" => {
                let number = self
                    .shown_property("response\0size")?
                    .try_into()
                    .map(u64::from_le_bytes)
                    .ok()?;
                Some(number.to_string().into_bytes())
            }
            path if nginx::knows(path) => nginx::property(self.headers.borrow().as_ref()?, path),
            path => {
                self.log(Level::Error, &nginx::not_found(path));
                None
            }
        }
    }

    /// The index of the first visible header of that name.
    fn place_of(&self, headers: &HeaderList, name: &[u8]) -> Option<usize> {
        let hidden = self.hidden.borrow();
        let mut named =
            headers.iter().enumerate().filter(|(_, (n, _))| n.eq_ignore_ascii_case(name));
        named.find(|(place, _)| !hidden.contains(place)).map(|(place, _)| place)
    }

    fn edit(
        &self,
        map: &RefCell<Option<HeaderList>>,
        act: impl FnOnce(&mut HeaderList),
    ) -> Result<(), HostError> {
        if let Some(error) = self.failing_edits.get() {
            return Err(error);
        }
        map.borrow_mut().as_mut().map(act).ok_or(HostError::UNIMPLEMENTED)
    }
}

impl SharedData for MemoryHost {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.store.shared_data(name)
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        if self.contended.get() && name != probe_name().as_str() {
            return Err(WriteError::CasMismatch);
        }
        self.store.set_shared_data(name, record, cas)
    }
}

impl Host for MemoryHost {
    fn rules(&self) -> Rules {
        self.store.rules()
    }

    fn now_ns(&self) -> Option<u64> {
        let step_ns = if self.is_nginx() { 1_000_000 } else { 1 };
        self.now_ns.get().map(|now_ns| now_ns - now_ns % step_ns)
    }

    fn request_headers(&self) -> Option<Headers> {
        let (mut pairs, size) = self.header_pairs()?;
        pairs.resize(size, 0);
        Headers::from_pairs(pairs).ok()
    }

    fn request_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        let headers = self.headers.borrow();
        let headers = headers.as_ref()?;
        if self.is_nginx() && name.starts_with(b":") {
            return nginx::pseudo_header(headers, name);
        }
        if self.is_nginx() && name.eq_ignore_ascii_case(b"host") {
            return nginx::property(headers, "ngx\0http_host");
        }
        headers.get(self.place_of(headers, name)?).map(|(_, value)| value.clone())
    }

    fn request_trailers(&self) -> Option<Headers> {
        Headers::from_pairs(self.trailer_pairs()?).ok()
    }

    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError> {
        self.edit(&self.headers, |headers| {
            if !self.is_nginx() {
                return remove(headers, name);
            }
            while let Some(place) = self.place_of(headers, name) {
                self.hidden.borrow_mut().insert(place);
            }
        })
    }

    fn set_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.edit(&self.headers, |headers| {
            let place = self.place_of(headers, name.as_bytes()).filter(|_| self.is_nginx());
            if let Some((_, found)) = place.and_then(|place| headers.get_mut(place)) {
                *found = value.into();
                return;
            }
            if !self.is_nginx() {
                remove(headers, name.as_bytes());
            }
            headers.push((name.into(), value.into()));
        })
    }

    fn remove_request_trailer(&self, name: &[u8]) -> Result<(), HostError> {
        self.edit(&self.trailers, |trailers| remove(trailers, name))
    }

    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.edit(&self.headers, |headers| headers.push((name.into(), value.into())))
    }

    fn body(&self, body: Body, start: usize, max_len: usize) -> Option<Vec<u8>> {
        self.body_of(body).read(start, max_len)
    }

    fn set_body(
        &self,
        body: Body,
        start: usize,
        len: usize,
        bytes: &[u8],
    ) -> Result<(), HostError> {
        self.failing_edits.get().map_or(Ok(()), Err)?;
        self.body_of(body).set(start, len, bytes)
    }

    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        if name == b":status" {
            return Some(self.status.get()?.to_string().into_bytes());
        }
        let headers = self.response_headers.borrow();
        headers.get(std::str::from_utf8(name).ok()?).map(|value| value.clone().into_bytes())
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        self.property_reads.set(self.property_reads.get().saturating_add(1));
        self.property_at(property.path())
    }

    fn filter_state(&self, path: &str) -> Option<Vec<u8>> {
        self.property_reads.set(self.property_reads.get().saturating_add(1));
        self.property_at(path).filter(|value| !value.is_empty())
    }

    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError> {
        if self.is_nginx() && (key != nginx::SEAL_VARIABLE || !self.seal_variable.get()) {
            self.log(Level::Error, &nginx::not_found(key));
            return Err(HostError::NOT_FOUND);
        }
        if self.lacks_filter_state.get() {
            return Err(HostError::NOT_FOUND);
        }
        self.filter_state.borrow_mut().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn send_reply(&self, reply: &Reply) -> Result<(), HostError> {
        self.replies.set(self.replies.get().saturating_add(1));
        if self.is_nginx() && self.replies.get() > 1 {
            self.crashed.set(Some("nginx has sent a response already"));
        }
        self.reply.replace(Some(reply.clone()));
        Ok(())
    }

    fn resume_request(&self) -> Result<(), HostError> {
        self.failing_edits.get().map_or(Ok(()), Err)?;
        self.resumed.set(true);
        Ok(())
    }

    fn enter(&self, context: u32) -> Result<(), HostError> {
        if self.gone.borrow().contains(&context) { Err(HostError::NOT_FOUND) } else { Ok(()) }
    }

    fn post(&self, call: &ServiceCall<'_>) -> Result<u32, HostError> {
        if !self.makes_calls.get() {
            return Err(HostError::BAD_ARGUMENT);
        }
        let mut calls = self.calls.borrow_mut();
        calls.push(String::from_utf8_lossy(call.body).into_owned());
        Ok(u32::try_from(calls.len()).unwrap_or(u32::MAX))
    }

    fn call_status(&self) -> Option<u16> {
        self.call_status.get()
    }

    fn set_tick_period(&self, millis: u32) -> Result<(), HostError> {
        self.failing_edits.get().map_or(Ok(()), Err)?;
        self.tick_millis.set(millis);
        Ok(())
    }

    fn remove_response_header(&self, name: &str) -> Result<(), HostError> {
        self.response_headers.borrow_mut().remove(name);
        Ok(())
    }

    fn set_response_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.response_headers.borrow_mut().insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        self.defined.borrow_mut().push(name.to_owned());
        self.store.define_metric(kind, name)
    }

    fn increment_metric(&self, metric: u32, by: u32) -> Result<(), HostError> {
        self.store.change_metric(metric, MetricKind::Counter, |value| value + u64::from(by))
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), HostError> {
        self.store.change_metric(metric, MetricKind::Gauge, |_| value)
    }

    fn metric(&self, metric: u32) -> Result<u64, HostError> {
        self.store.metric_value(metric)
    }

    fn log(&self, level: Level, text: &str) {
        let text = if self.is_nginx() { nginx::log_line(text) } else { text };
        self.log.borrow_mut().push((level, text.to_owned()));
    }
}

fn remove(headers: &mut HeaderList, name: &[u8]) {
    headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
}
