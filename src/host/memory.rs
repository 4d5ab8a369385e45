//! The one host that lives in memory: shared data with the rules of real hosts, and one request at a
//! time in front of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Dialect, Level};
use crate::decision::Reply;
use crate::headers::Headers;
use crate::record::crc32;

use super::{Host, HostError, MetricKind, Property, SharedData, WriteError};

/// `Unimplemented`, as hosts answer calls they do not have.
const UNIMPLEMENTED: HostError = HostError(12);

/// `NotFound`.
const NOT_FOUND: HostError = HostError(1);

/// Shared data and metrics in memory, for all workers that hold a clone.
///
/// - [`Dialect::Envoy`] (and [`Dialect::Auto`], which is no rule of a host): `cas` 0 always writes;
///   another value must be that of a present record, and an absent record is stored whatever it is;
///   values come from one counter over all records.
/// - [`Dialect::Nginx`]: `cas` must be the record's own, which is 0 when it is absent; values count from
///   1 for each record; records are found by the CRC-32 of their name alone.
/// - [`Dialect::Bare`]: every call fails.
#[derive(Clone)]
pub struct MemoryStore {
    dialect: Dialect,
    records: Arc<Mutex<Records>>,
}

#[derive(Clone, Default)]
struct Records {
    by_name: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
    metrics: Vec<(MetricKind, String, u64)>,
}

/// Headers by name and value, in their order.
pub type HeaderList = Vec<(Vec<u8>, Vec<u8>)>;

/// A worker's view of a host in memory. Tests set what the request shows and read what was done.
pub struct MemoryHost {
    store: MemoryStore,
    /// Unix nanoseconds; `None` for a host without a clock.
    pub now_ns: Cell<Option<u64>>,
    /// The request's headers; `None` for a host that does not show them.
    pub headers: RefCell<Option<HeaderList>>,
    /// The status of the answer, where there is one.
    pub status: Cell<Option<u64>>,
    /// The properties that are known.
    pub properties: RefCell<BTreeMap<&'static str, Vec<u8>>>,
    /// Filter state that was set.
    pub filter_state: RefCell<BTreeMap<String, String>>,
    /// The reply that was sent.
    pub reply: RefCell<Option<Reply>>,
    /// Headers that were set on the answer.
    pub response_headers: RefCell<BTreeMap<String, String>>,
    /// The names of the metrics that were defined here, each as often as it was.
    pub defined: RefCell<Vec<String>>,
    /// Lines of the log.
    pub log: RefCell<Vec<(Level, String)>>,
    /// Whether a request that was held went on.
    pub resumed: Cell<bool>,
    /// How often the root context is called back, in milliseconds; 0: never.
    pub tick_millis: Cell<u32>,
    /// Contexts that there are no more.
    pub gone: RefCell<Vec<u32>>,
    /// Host calls that change the request fail with this status, where one is set.
    pub failing_edits: Cell<Option<HostError>>,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// Empty shared data under the rules of `dialect`.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, records: Arc::default() }
    }

    /// A copy that shares nothing with this one.
    pub fn fork(&self) -> Self {
        let records = self.with(|records| records.clone());
        Self { dialect: self.dialect, records: Arc::new(Mutex::new(records)) }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.with(|records| records.by_name.len())
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the records take, their names included.
    pub fn bytes(&self) -> usize {
        let bytes = |(name, (record, _)): (&Vec<u8>, &(Vec<u8>, u32))| name.len() + record.len();
        self.with(|records| records.by_name.iter().map(bytes).sum())
    }

    /// The value of a metric; `None` when nobody defined it.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.with(|records| {
            let found = records.metrics.iter().find(|(_, defined, _)| defined == name);
            found.map(|(_, _, value)| *value)
        })
    }

    /// The metrics that were defined, by name.
    pub fn metrics(&self) -> BTreeMap<String, u64> {
        self.with(|records| {
            records.metrics.iter().map(|(_, name, value)| (name.clone(), *value)).collect()
        })
    }

    /// Metrics of one name share a value, though each definition has a number of its own on a real
    /// host.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        if self.dialect == Dialect::Bare {
            return Err(UNIMPLEMENTED);
        }
        self.with(|records| {
            let defined = records.metrics.iter().position(|(_, defined, _)| defined == name);
            let index = defined.unwrap_or(records.metrics.len());
            if defined.is_none() {
                records.metrics.push((kind, name.to_owned(), 0));
            }
            u32::try_from(index).map_err(|_| UNIMPLEMENTED)
        })
    }

    fn change_metric(
        &self,
        metric: u32,
        kind: MetricKind,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<(), HostError> {
        self.with(|records| {
            let index = usize::try_from(metric).map_err(|_| NOT_FOUND)?;
            let (found, _, value) = records.metrics.get_mut(index).ok_or(NOT_FOUND)?;
            if *found != kind {
                return Err(NOT_FOUND);
            }
            *value = change(*value);
            Ok(())
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Records) -> T) -> T {
        act(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn index(&self, name: &str) -> Vec<u8> {
        match self.dialect {
            Dialect::Nginx => crc32(name.as_bytes()).to_le_bytes().to_vec(),
            _ => name.as_bytes().to_vec(),
        }
    }
}

impl SharedData for MemoryStore {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        if self.dialect == Dialect::Bare {
            return Err(UNIMPLEMENTED);
        }
        Ok(self.with(|records| records.by_name.get(&self.index(name)).cloned()))
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        if self.dialect == Dialect::Bare {
            return Err(WriteError::Host(UNIMPLEMENTED));
        }
        let index = self.index(name);
        self.with(|records| {
            let present = records.by_name.get(&index).map(|(_, cas)| *cas);
            let nginx = self.dialect == Dialect::Nginx;
            let fits = match present {
                Some(present) => cas == present || (cas == 0 && !nginx),
                None => cas == 0 || !nginx,
            };
            if !fits {
                return Err(WriteError::CasMismatch);
            }
            let issued = if nginx { present.unwrap_or(0) } else { records.last_cas };
            // 0 has a meaning of its own and is skipped when the counter wraps.
            let issued = issued.wrapping_add(1).max(1);
            records.last_cas = issued;
            records.by_name.insert(index, (record.to_vec(), issued));
            Ok(())
        })
    }
}

// === impl MemoryHost ===

impl MemoryHost {
    /// A worker without a request, over shared data that other workers may hold too.
    pub fn new(store: MemoryStore) -> Self {
        Self {
            store,
            now_ns: Cell::new(Some(0)),
            headers: RefCell::new(Some(Vec::new())),
            status: Cell::new(None),
            properties: RefCell::default(),
            filter_state: RefCell::default(),
            reply: RefCell::default(),
            response_headers: RefCell::default(),
            defined: RefCell::default(),
            log: RefCell::default(),
            resumed: Cell::new(false),
            tick_millis: Cell::new(0),
            gone: RefCell::default(),
            failing_edits: Cell::new(None),
        }
    }

    /// The shared data and the metrics.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    fn edit(&self, act: impl FnOnce(&mut HeaderList)) -> Result<(), HostError> {
        if let Some(error) = self.failing_edits.get() {
            return Err(error);
        }
        self.headers.borrow_mut().as_mut().map(act).ok_or(UNIMPLEMENTED)
    }
}

impl SharedData for MemoryHost {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.store.shared_data(name)
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        self.store.set_shared_data(name, record, cas)
    }
}

impl Host for MemoryHost {
    fn now_ns(&self) -> Option<u64> {
        self.now_ns.get()
    }

    fn request_headers(&self) -> Option<Headers> {
        let headers = self.headers.borrow();
        Headers::from_pairs(Headers::to_pairs(headers.as_deref()?)).ok()
    }

    fn authority(&self) -> Option<Vec<u8>> {
        let headers = self.headers.borrow();
        let authority = |(name, _): &&(Vec<u8>, Vec<u8>)| name == b":authority";
        headers.as_ref()?.iter().find(authority).map(|(_, value)| value.clone())
    }

    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError> {
        self.edit(|headers| headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name)))
    }

    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.edit(|headers| headers.push((name.into(), value.into())))
    }

    fn response_status(&self) -> Option<u64> {
        self.status.get()
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        self.properties.borrow().get(property.path()).filter(|value| !value.is_empty()).cloned()
    }

    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError> {
        self.filter_state.borrow_mut().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn send_reply(&self, reply: &Reply) -> Result<(), HostError> {
        *self.reply.borrow_mut() = Some(reply.clone());
        Ok(())
    }

    fn resume_request(&self) -> Result<(), HostError> {
        self.failing_edits.get().map_or(Ok(()), Err)?;
        self.resumed.set(true);
        Ok(())
    }

    fn enter(&self, context: u32) -> Result<(), HostError> {
        if self.gone.borrow().contains(&context) { Err(NOT_FOUND) } else { Ok(()) }
    }

    fn set_tick_period(&self, millis: u32) -> Result<(), HostError> {
        self.failing_edits.get().map_or(Ok(()), Err)?;
        self.tick_millis.set(millis);
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

    fn log(&self, level: Level, text: &str) {
        self.log.borrow_mut().push((level, text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISMATCH: Result<(), WriteError> = Err(WriteError::CasMismatch);

    fn cas(store: &MemoryStore, name: &str) -> Option<u32> {
        let record = store.shared_data(name).unwrap();
        record.map(|(_, cas)| cas)
    }

    #[test]
    fn envoy_creates_by_any_value_and_overwrites_by_0() {
        let store = MemoryStore::new(Dialect::Envoy);
        assert_eq!(store.shared_data("a"), Ok(None));
        assert_eq!(store.set_shared_data("a", b"1", 0), Ok(()));
        assert_eq!(store.set_shared_data("b", b"2", u32::MAX), Ok(()));
        assert_eq!(store.set_shared_data("c", b"3", 7), Ok(()));
        assert_eq!(store.set_shared_data("a", b"4", 0), Ok(()));
        assert_eq!(store.shared_data("a"), Ok(Some((b"4".to_vec(), 4))));
        assert_eq!(store.len(), 3);
    }

    #[test]
    fn envoy_compares_every_other_value() {
        let store = MemoryStore::new(Dialect::Envoy);
        store.set_shared_data("a", b"1", 0).unwrap();
        store.set_shared_data("b", b"1", 0).unwrap();
        for wrong in [2, 3, u32::MAX] {
            assert_eq!(store.set_shared_data("a", b"2", wrong), MISMATCH, "{wrong}");
        }
        assert_eq!(store.set_shared_data("a", b"2", 1), Ok(()));
        assert_eq!(store.set_shared_data("a", b"3", 1), MISMATCH);
        assert_eq!(store.shared_data("a"), Ok(Some((b"2".to_vec(), 3))));
    }

    #[test]
    fn envoy_issues_values_from_one_counter_that_skips_0() {
        let store = MemoryStore::new(Dialect::Envoy);
        store.with(|records| records.last_cas = u32::MAX - 1);
        store.set_shared_data("a", b"1", 0).unwrap();
        store.set_shared_data("b", b"1", 0).unwrap();
        assert_eq!((cas(&store, "a"), cas(&store, "b")), (Some(u32::MAX), Some(1)));
    }

    #[test]
    fn nginx_creates_by_0_alone_and_never_overwrites_by_it() {
        let store = MemoryStore::new(Dialect::Nginx);
        for wrong in [1, u32::MAX] {
            assert_eq!(store.set_shared_data("a", b"1", wrong), MISMATCH, "{wrong}");
        }
        assert_eq!(store.shared_data("a"), Ok(None));
        assert_eq!(store.set_shared_data("a", b"1", 0), Ok(()));
        assert_eq!(store.set_shared_data("a", b"2", 0), MISMATCH);
        assert_eq!(store.shared_data("a"), Ok(Some((b"1".to_vec(), 1))));
    }

    #[test]
    fn nginx_counts_the_writes_of_each_record() {
        let store = MemoryStore::new(Dialect::Nginx);
        store.set_shared_data("a", b"1", 0).unwrap();
        store.set_shared_data("b", b"1", 0).unwrap();
        assert_eq!(store.set_shared_data("a", b"2", 1), Ok(()));
        assert_eq!(store.set_shared_data("a", b"3", 1), MISMATCH);
        assert_eq!((cas(&store, "a"), cas(&store, "b")), (Some(2), Some(1)));
    }

    /// Found by trying: CRC-32 is linear, so there are as many such names as anyone likes.
    #[test]
    fn nginx_takes_names_of_one_checksum_for_one() {
        let (one, other) = ("vkey/k/k_dDeEhO", "vkey/k/k_2nav2x");
        for (dialect, records) in [(Dialect::Nginx, 1), (Dialect::Envoy, 2)] {
            let store = MemoryStore::new(dialect);
            store.set_shared_data(one, b"1", 0).unwrap();
            let found = cas(&store, other);
            store.set_shared_data(other, b"2", found.unwrap_or(0)).unwrap();
            assert_eq!((found.is_some(), store.len()), (records == 1, records));
        }
    }

    #[test]
    fn a_bare_host_has_no_shared_data() {
        let store = MemoryStore::new(Dialect::Bare);
        assert_eq!(store.shared_data("a"), Err(UNIMPLEMENTED));
        let refused = Err(WriteError::Host(UNIMPLEMENTED));
        assert_eq!(store.set_shared_data("a", b"1", 0), refused);
        assert!(store.is_empty());
    }
}
