//! Shared data and metrics of an in-memory host.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::{HostError, MetricKind, Rules, SharedData, WriteError};
use crate::record::crc32;

/// Shared data and metrics in memory. All clones share them.
///
/// - [`Rules::Envoy`]: `cas` 0 always writes. Any other value must be that of the record, if it is present;
///   an absent record is stored for any value. All records take their values from one counter.
/// - [`Rules::Nginx`]: `cas` must be the value of the record, which is 0 if it is absent. Each record
///   counts its values from 1. Records are found by the CRC-32 of their name alone.
/// - [`Rules::Bare`]: every call fails.
#[derive(Clone)]
pub struct MemoryStore {
    rules: Rules,
    records: Arc<Mutex<Records>>,
}

#[derive(Clone, Default)]
struct Records {
    by_name: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
    metrics: Vec<(MetricKind, String, u64)>,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// Empty shared data that follows `rules`.
    pub fn new(rules: Rules) -> Self {
        Self { rules, records: Arc::default() }
    }

    /// The rules of the host.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// A separate copy.
    pub fn fork(&self) -> Self {
        let records = self.with(|records| records.clone());
        Self { rules: self.rules, records: Arc::new(Mutex::new(records)) }
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.with(|records| records.by_name.len())
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of all records and their names, in bytes.
    pub fn bytes(&self) -> usize {
        let bytes = |(name, (record, _)): (&Vec<u8>, &(Vec<u8>, u32))| name.len() + record.len();
        self.with(|records| records.by_name.iter().map(bytes).sum())
    }

    /// The value of a metric; `None` if it was not defined.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.with(|records| {
            let found = records.metrics.iter().find(|(_, defined, _)| defined == name);
            found.map(|(_, _, value)| *value)
        })
    }

    /// All defined metrics, by name.
    pub fn metrics(&self) -> BTreeMap<String, u64> {
        self.with(|records| {
            records.metrics.iter().map(|(_, name, value)| (name.clone(), *value)).collect()
        })
    }

    /// Metrics of one name share a value, although real hosts return a new id for each definition.
    pub(super) fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        if self.rules == Rules::Bare {
            return Err(HostError::UNIMPLEMENTED);
        }
        self.with(|records| {
            let defined = records.metrics.iter().position(|(_, defined, _)| defined == name);
            let index = defined.unwrap_or(records.metrics.len());
            if defined.is_none() {
                records.metrics.push((kind, name.to_owned(), 0));
            }
            u32::try_from(index).map_err(|_| HostError::UNIMPLEMENTED)
        })
    }

    pub(super) fn change_metric(
        &self,
        metric: u32,
        kind: MetricKind,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<(), HostError> {
        self.with(|records| {
            let index = usize::try_from(metric).map_err(|_| HostError::NOT_FOUND)?;
            let (found, _, value) = records.metrics.get_mut(index).ok_or(HostError::NOT_FOUND)?;
            if *found != kind {
                return Err(HostError::NOT_FOUND);
            }
            *value = change(*value);
            Ok(())
        })
    }

    pub(super) fn metric_value(&self, metric: u32) -> Result<u64, HostError> {
        self.with(|records| {
            let index = usize::try_from(metric).map_err(|_| HostError::NOT_FOUND)?;
            records.metrics.get(index).map(|(_, _, value)| *value).ok_or(HostError::NOT_FOUND)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Records) -> T) -> T {
        act(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn index(&self, name: &str) -> Vec<u8> {
        match self.rules {
            Rules::Nginx => crc32(name.as_bytes()).to_le_bytes().to_vec(),
            _ => name.as_bytes().to_vec(),
        }
    }
}

impl SharedData for MemoryStore {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        if self.rules == Rules::Bare {
            return Err(HostError::UNIMPLEMENTED);
        }
        Ok(self.with(|records| records.by_name.get(&self.index(name)).cloned()))
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        if self.rules == Rules::Bare {
            return Err(WriteError::Host(HostError::UNIMPLEMENTED));
        }
        let index = self.index(name);
        self.with(|records| {
            let present = records.by_name.get(&index).map(|(_, cas)| *cas);
            let nginx = self.rules == Rules::Nginx;
            let fits = match present {
                Some(present) => cas == present || (cas == 0 && !nginx),
                None => cas == 0 || !nginx,
            };
            if !fits {
                return Err(WriteError::CasMismatch);
            }
            let issued = if nginx { present.unwrap_or(0) } else { records.last_cas };
            // 0 has a special meaning, so the counter skips it when it wraps.
            let issued = issued.wrapping_add(1).max(1);
            records.last_cas = issued;
            records.by_name.insert(index, (record.to_vec(), issued));
            Ok(())
        })
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
    fn envoy_creates_with_any_value_and_overwrites_with_0() {
        let store = MemoryStore::new(Rules::Envoy);
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
        let store = MemoryStore::new(Rules::Envoy);
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
        let store = MemoryStore::new(Rules::Envoy);
        store.with(|records| records.last_cas = u32::MAX - 1);
        store.set_shared_data("a", b"1", 0).unwrap();
        store.set_shared_data("b", b"1", 0).unwrap();
        assert_eq!((cas(&store, "a"), cas(&store, "b")), (Some(u32::MAX), Some(1)));
    }

    #[test]
    fn nginx_creates_only_with_0_and_never_overwrites_with_it() {
        let store = MemoryStore::new(Rules::Nginx);
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
        let store = MemoryStore::new(Rules::Nginx);
        store.set_shared_data("a", b"1", 0).unwrap();
        store.set_shared_data("b", b"1", 0).unwrap();
        assert_eq!(store.set_shared_data("a", b"2", 1), Ok(()));
        assert_eq!(store.set_shared_data("a", b"3", 1), MISMATCH);
        assert_eq!((cas(&store, "a"), cas(&store, "b")), (Some(2), Some(1)));
    }

    /// Found by search. CRC-32 is linear, so such names are easy to find.
    #[test]
    fn nginx_confuses_names_with_the_same_checksum() {
        let (one, other) = ("vkey/k/acme/k_dDeEhO", "vkey/k/acme/k_2nav2x");
        for (rules, records) in [(Rules::Nginx, 1), (Rules::Envoy, 2)] {
            let store = MemoryStore::new(rules);
            store.set_shared_data(one, b"1", 0).unwrap();
            let found = cas(&store, other);
            store.set_shared_data(other, b"2", found.unwrap_or(0)).unwrap();
            assert_eq!((found.is_some(), store.len()), (records == 1, records));
        }
    }

    #[test]
    fn a_bare_host_has_no_shared_data() {
        let store = MemoryStore::new(Rules::Bare);
        assert_eq!(store.shared_data("a"), Err(HostError::UNIMPLEMENTED));
        let refused = Err(WriteError::Host(HostError::UNIMPLEMENTED));
        assert_eq!(store.set_shared_data("a", b"1", 0), refused);
        assert!(store.is_empty());
    }
}
