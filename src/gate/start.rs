//! When the counts in shared data began, and what a proxy says once.

use std::cell::Cell;

use crate::host::{Host, RecordStore};
use crate::record::{Name, Record, take};

/// When the counts of this proxy began, as one root context knows it.
#[derive(Default)]
pub(super) struct Start(Cell<Option<u64>>);

/// What the workers share. It lives as long as the counts: until the proxy ends, or the module gets another `vm_id`.
#[derive(Clone, Copy)]
struct Shared {
    /// Unix seconds; 0 if no worker knew the time.
    since_secs: u64,
    /// A worker has logged that no cluster has an upstream gate.
    has_warned: bool,
}

impl Start {
    /// When the counts began, Unix seconds. The first worker that asks writes it. `None` if nothing is counted, or the
    /// time is not known.
    pub(super) fn since_secs<H: Host>(
        &self,
        store: &RecordStore<'_, H>,
        now_secs: Option<u64>,
    ) -> Option<u64> {
        if self.0.get().is_none() && store.is_available() {
            let begin = |shared: &mut Shared| {
                if shared.since_secs == 0 {
                    shared.since_secs = now_secs.unwrap_or(0);
                }
                shared.since_secs
            };
            self.0.set(store.update(&name(), begin).ok().filter(|since_secs| *since_secs > 0));
        }
        self.0.get()
    }
}

/// Whether the caller is the first to warn. On a host without shared data everyone is.
pub(super) fn is_first_to_warn<H: Host>(store: &RecordStore<'_, H>) -> bool {
    let warn = |shared: &mut Shared| !std::mem::replace(&mut shared.has_warned, true);
    !store.is_available() || store.update(&name(), warn).unwrap_or(true)
}

fn name() -> Name {
    Name::new("h", "start")
}

impl Record for Shared {
    const VERSION: u8 = 15;

    fn fresh() -> Self {
        Self { since_secs: 0, has_warned: false }
    }

    fn write(&self, record: &mut Vec<u8>) {
        record.extend_from_slice(&self.since_secs.to_le_bytes());
        record.push(u8::from(self.has_warned));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let since_secs = take(bytes).map(u64::from_le_bytes)?;
        let [has_warned] = take(bytes)?;
        Some(Self { since_secs, has_warned: has_warned != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{MemoryHost, MemoryStore, Rules};

    #[test]
    fn all_workers_share_the_beginning_and_one_warns() {
        let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        let store = RecordStore::new(&host, Rules::Envoy);
        assert!(is_first_to_warn(&store));
        assert_eq!(Start::default().since_secs(&store, None), None);
        assert_eq!(Start::default().since_secs(&store, Some(7)), Some(7));
        assert_eq!(Start::default().since_secs(&store, Some(9)), Some(7));
        assert!(!is_first_to_warn(&store));
        let bare = RecordStore::new(&host, Rules::Bare);
        assert_eq!(Start::default().since_secs(&bare, Some(9)), None);
        assert!(is_first_to_warn(&bare) && is_first_to_warn(&bare));
    }
}
