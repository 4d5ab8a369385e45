//! The one host that lives in memory: shared data with the rules of real hosts, and one request at a
//! time in front of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cell::crc32;
use crate::config::{Dialect, Level};
use crate::decision::Reply;
use crate::headers::Headers;

use super::{Host, HostError, Property, SharedData, WriteError};

/// `Unimplemented`, as hosts answer calls they do not have.
const UNIMPLEMENTED: HostError = HostError(12);

/// Shared data in memory, for all workers that hold a clone.
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

#[derive(Default)]
struct Records {
    by_name: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
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
    /// The properties that are known.
    pub properties: RefCell<BTreeMap<&'static str, Vec<u8>>>,
    /// Filter state that was set.
    pub filter_state: RefCell<BTreeMap<String, String>>,
    /// The reply that was sent.
    pub reply: RefCell<Option<Reply>>,
    /// Lines of the log.
    pub log: RefCell<Vec<(Level, String)>>,
    /// Host calls that change the request fail with this status, where one is set.
    pub failing_edits: Cell<Option<HostError>>,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// Empty shared data under the rules of `dialect`.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            records: Arc::default(),
        }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.with(|records| records.by_name.len())
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
            let issued = if nginx {
                present.unwrap_or(0)
            } else {
                records.last_cas
            };
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
            properties: RefCell::default(),
            filter_state: RefCell::default(),
            reply: RefCell::default(),
            log: RefCell::default(),
            failing_edits: Cell::new(None),
        }
    }

    fn edit(&self, act: impl FnOnce(&mut HeaderList)) -> Result<(), HostError> {
        if let Some(error) = self.failing_edits.get() {
            return Err(error);
        }
        self.headers
            .borrow_mut()
            .as_mut()
            .map(act)
            .ok_or(UNIMPLEMENTED)
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

    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError> {
        self.edit(|headers| headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name)))
    }

    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.edit(|headers| headers.push((name.into(), value.into())))
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        self.properties
            .borrow()
            .get(property.path())
            .filter(|value| !value.is_empty())
            .cloned()
    }

    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError> {
        self.filter_state
            .borrow_mut()
            .insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn send_reply(&self, reply: &Reply) -> Result<(), HostError> {
        *self.reply.borrow_mut() = Some(reply.clone());
        Ok(())
    }

    fn log(&self, level: Level, text: &str) {
        self.log.borrow_mut().push((level, text.to_owned()));
    }
}
