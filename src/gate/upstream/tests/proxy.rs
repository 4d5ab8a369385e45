//! A proxy whose contexts each show a connection of their own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::headers::Headers;
use crate::host::{
    Body, FilterState, Host, HostError, Level, MemoryHost, MemoryStore, MetricKind, Property,
    Rules, SharedData, WriteError,
};
use crate::reply::Reply;
use crate::upstream_tls::Stamp;

/// The context of the configuration.
pub(in crate::gate) const ROOT: u32 = 1_000;

/// The certificates of the good.
pub(in crate::gate) const PIN: &str =
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(in crate::gate) const SPARE: &str =
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// What a context shows.
#[derive(Clone, Default)]
pub(in crate::gate) struct Facts {
    authority: String,
    properties: BTreeMap<&'static str, Vec<u8>>,
}

#[derive(Default)]
struct Context {
    facts: Facts,
    state: Option<String>,
    /// Headers that were set, in the order of their names.
    headers: BTreeMap<String, String>,
    replies: Vec<Reply>,
    resumed: u32,
}

/// It counts what it is asked and told. Being asked for what makes Envoy crash is a failure.
pub(in crate::gate) struct Proxy {
    pub(in crate::gate) memory: MemoryHost,
    contexts: RefCell<BTreeMap<u32, Context>>,
    current: Cell<u32>,
    /// The properties that were asked for, in their order.
    pub(in crate::gate) asked: RefCell<Vec<Property>>,
    /// The periods of the tick, and the context they were set from.
    pub(in crate::gate) ticks: RefCell<Vec<(u32, u32)>>,
    /// How often shared data was read.
    pub(in crate::gate) reads: Cell<u32>,
    /// It takes neither replies nor filter state.
    pub(in crate::gate) mute: Cell<bool>,
    /// Changes of the request fail with this status, where one is set.
    pub(in crate::gate) edits: Cell<Option<HostError>>,
}

// === impl Facts ===

impl Facts {
    /// A good connection to the one known host.
    pub(in crate::gate) fn good() -> Self {
        Self::of("api.openai.com")
    }

    /// A good connection to a host.
    pub(in crate::gate) fn of(host: &str) -> Self {
        Self::connecting(host)
            .with(Property::UpstreamLocalAddress, "192.0.2.1:40001")
            .version("TLSv1.3")
            .digest(PIN)
            .name(host)
    }

    /// A connection that is not up yet; its cluster is named after the host's first label.
    pub(in crate::gate) fn connecting(host: &str) -> Self {
        let cluster = host.split('.').next().unwrap();
        let facts = Self { authority: host.to_owned(), ..Self::default() };
        facts.cluster(cluster).with(Property::FilterState(FilterState::Decision), "allow")
    }

    /// A copy of a request, which has no filter state.
    pub(in crate::gate) fn mirrored(self) -> Self {
        let copy = format!("{}-shadow", self.authority);
        self.without(Property::FilterState(FilterState::Decision)).authority(&copy)
    }

    pub(in crate::gate) fn credential(self) -> Self {
        self.grants("+attached")
    }

    /// What the gate of the listener says of credentials.
    pub(in crate::gate) fn grants(self, words: &str) -> Self {
        self.with(Property::FilterState(FilterState::Credentials), words)
    }

    /// What an earlier attempt of the same request came to.
    pub(in crate::gate) fn after(self, verdict: &str) -> Self {
        self.with(Property::FilterState(FilterState::Upstream), verdict)
    }

    /// Another end of the proxy's.
    pub(in crate::gate) fn from(self, address: &str) -> Self {
        self.with(Property::UpstreamLocalAddress, address)
    }

    pub(in crate::gate) fn plaintext() -> Self {
        Self::good().unencrypted()
    }

    pub(in crate::gate) fn unencrypted(self) -> Self {
        self.without(Property::UpstreamTlsVersion).undigested().nameless()
    }

    pub(in crate::gate) fn cluster(self, name: &str) -> Self {
        self.with(Property::ClusterName, name)
    }

    pub(in crate::gate) fn authority(self, authority: &str) -> Self {
        Self { authority: authority.to_owned(), ..self }
    }

    pub(in crate::gate) fn version(self, version: &str) -> Self {
        self.with(Property::UpstreamTlsVersion, version)
    }

    pub(in crate::gate) fn digest(self, digest: &str) -> Self {
        self.with(Property::UpstreamCertificateDigest, digest)
    }

    pub(in crate::gate) fn undigested(self) -> Self {
        self.without(Property::UpstreamCertificateDigest)
    }

    /// The first of the certificate's names.
    pub(in crate::gate) fn name(self, name: &str) -> Self {
        self.with(Property::UpstreamDnsName, name)
    }

    pub(in crate::gate) fn nameless(self) -> Self {
        self.without(Property::UpstreamDnsName)
    }

    pub(in crate::gate) fn own_certificate(self, shown_as: Property) -> Self {
        self.with(shown_as, "gateway")
    }

    pub(in crate::gate) fn stamp(mut self, metadata: Vec<u8>) -> Self {
        self.properties.insert(Property::ClusterMetadata.path(), metadata);
        self
    }

    fn with(mut self, property: Property, text: &str) -> Self {
        self.properties.insert(property.path(), text.as_bytes().to_vec());
        self
    }

    fn without(mut self, property: Property) -> Self {
        self.properties.remove(property.path());
        self
    }
}

/// The metadata of a cluster with a stamp.
pub(in crate::gate) fn stamp(policy: &str, hosts: &[&str]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let len = bytes.len();
        // Two bytes for every length: what is longer than it needs to be is as good.
        let low = u8::try_from(len & 0x7f).unwrap() | 0x80;
        [&[number << 3 | 2, low, u8::try_from(len >> 7).unwrap()], bytes].concat()
    };
    let entry =
        |key: &str, value: &[u8]| field(1, &[field(1, key.as_bytes()), field(2, value)].concat());
    let text = |text: &str| field(3, text.as_bytes());
    let hosts: Vec<u8> = hosts.iter().flat_map(|host| field(1, &text(host))).collect();
    let own = [entry(Stamp::POLICY, &text(policy)), entry(Stamp::HOSTS, &field(6, &hosts))];
    entry(Stamp::NAMESPACE, &own.concat())
}

// === impl Proxy ===

impl Default for Proxy {
    fn default() -> Self {
        Self {
            memory: MemoryHost::new(MemoryStore::new(Rules::Envoy)),
            contexts: RefCell::default(),
            current: Cell::new(ROOT),
            asked: RefCell::default(),
            ticks: RefCell::default(),
            reads: Cell::new(0),
            mute: Cell::new(false),
            edits: Cell::new(None),
        }
    }
}

impl Proxy {
    /// Shows a context, which is the one that calls are about from here on.
    pub(in crate::gate) fn show(&self, id: u32, facts: Facts) {
        self.contexts.borrow_mut().entry(id).or_default().facts = facts;
        self.current.set(id);
    }

    /// The verdict's word, the number of replies, and how often the request was let go on.
    pub(in crate::gate) fn outcome(&self, id: u32) -> (Option<String>, u32, u32) {
        let contexts = self.contexts.borrow();
        let context = &contexts[&id];
        let replies = u32::try_from(context.replies.len()).unwrap();
        let word = context.state.as_ref().map(|state| state.split(' ').next().unwrap().to_owned());
        (word, replies, context.resumed)
    }

    /// The whole verdict.
    pub(in crate::gate) fn state(&self, id: u32) -> Option<String> {
        self.contexts.borrow()[&id].state.clone()
    }

    /// A header of the attempt.
    pub(in crate::gate) fn header(&self, id: u32, name: &str) -> Option<String> {
        self.contexts.borrow()[&id].headers.get(name).cloned()
    }

    /// Gives an attempt a header that was there before the gate saw it.
    pub(in crate::gate) fn give(&self, id: u32, name: &str, value: &str) {
        let mut contexts = self.contexts.borrow_mut();
        let headers = &mut contexts.entry(id).or_default().headers;
        headers.insert(name.to_owned(), value.to_owned());
    }

    pub(in crate::gate) fn reply(&self, id: u32) -> Reply {
        self.contexts.borrow()[&id].replies[0].clone()
    }

    pub(in crate::gate) fn metric(&self, name: &str) -> Option<u64> {
        self.memory.store().metric(name)
    }

    fn here<T>(&self, act: impl FnOnce(&mut Context) -> T) -> T {
        act(self.contexts.borrow_mut().entry(self.current.get()).or_default())
    }
}

impl SharedData for Proxy {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.reads.set(self.reads.get() + 1);
        self.memory.shared_data(name)
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        self.memory.set_shared_data(name, record, cas)
    }
}

impl Host for Proxy {
    fn now_ns(&self) -> Option<u64> {
        self.memory.now_ns()
    }

    fn request_headers(&self) -> Option<Headers> {
        panic!("the gate of a cluster reads no headers")
    }

    fn request_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        assert_eq!(name, b":authority");
        self.here(|context| Some(context.facts.authority.clone().into_bytes()))
    }

    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError> {
        self.edits.get().map_or(Ok(()), Err)?;
        let name = std::str::from_utf8(name).unwrap();
        self.here(|context| _ = context.headers.remove(name));
        Ok(())
    }

    fn set_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.edits.get().map_or(Ok(()), Err)?;
        self.here(|context| _ = context.headers.insert(name.to_owned(), value.to_owned()));
        Ok(())
    }

    fn request_trailers(&self) -> Option<Headers> {
        panic!("the gate of a cluster reads no trailers")
    }

    fn remove_request_trailer(&self, name: &[u8]) -> Result<(), HostError> {
        panic!("a trailer is removed: {name:?}")
    }

    fn add_request_header(&self, name: &str, _: &str) -> Result<(), HostError> {
        panic!("a header is added: {name}")
    }

    fn body(&self, body: Body, _: usize, _: usize) -> Option<Vec<u8>> {
        panic!("a body is read: {body:?}")
    }

    fn set_body(&self, body: Body, _: usize, _: usize, _: &[u8]) -> Result<(), HostError> {
        panic!("a body is changed: {body:?}")
    }

    fn remove_response_header(&self, name: &str) -> Result<(), HostError> {
        panic!("a header of the response is removed: {name}")
    }

    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        panic!("a header of the response is read: {name:?}")
    }

    fn filter_state(&self, path: &str) -> Option<Vec<u8>> {
        self.here(|context| context.facts.properties.get(path).cloned())
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        // Envoy crashes when an upstream filter asks for it on a mirrored request.
        assert_ne!(property, Property::SourceAddress);
        self.asked.borrow_mut().push(property);
        self.here(|context| context.facts.properties.get(property.path()).cloned())
    }

    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError> {
        assert_eq!(key, "vkey.upstream");
        if self.mute.get() {
            return Err(HostError(1));
        }
        self.here(|context| context.state = Some(value.to_owned()));
        Ok(())
    }

    fn send_reply(&self, reply: &Reply) -> Result<(), HostError> {
        if self.mute.get() {
            return Err(HostError(1));
        }
        self.here(|context| context.replies.push(reply.clone()));
        Ok(())
    }

    fn resume_request(&self) -> Result<(), HostError> {
        self.memory.resume_request()?;
        self.here(|context| context.resumed += 1);
        Ok(())
    }

    fn enter(&self, context: u32) -> Result<(), HostError> {
        self.memory.enter(context)?;
        self.current.set(context);
        Ok(())
    }

    fn set_tick_period(&self, millis: u32) -> Result<(), HostError> {
        self.ticks.borrow_mut().push((self.current.get(), millis));
        self.memory.set_tick_period(millis)
    }

    fn set_response_header(&self, name: &str, _: &str) -> Result<(), HostError> {
        panic!("a header of the answer is set: {name}")
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        self.memory.define_metric(kind, name)
    }

    fn increment_metric(&self, metric: u32, by: u32) -> Result<(), HostError> {
        self.memory.increment_metric(metric, by)
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), HostError> {
        self.memory.record_metric(metric, value)
    }

    fn metric(&self, metric: u32) -> Result<u64, HostError> {
        self.memory.metric(metric)
    }

    fn log(&self, level: Level, text: &str) {
        self.memory.log(level, text);
    }
}
