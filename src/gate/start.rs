//! When the counts in shared data began.

use std::cell::Cell;

use crate::host::{Host, RecordStore};
use crate::record::{Name, Record, take};

/// When the counts of this proxy began, as one root context knows it.
#[derive(Default)]
pub(super) struct Start {
    since_secs: Cell<Option<u64>>,
    is_asked: Cell<bool>,
}

/// What the workers share. It lives as long as the counts: until the proxy ends, or the module gets another `vm_id`.
#[derive(Clone, Copy)]
struct Shared {
    /// Unix seconds; 0 if no worker has asked.
    since_secs: u64,
}

impl Start {
    /// Whether nobody has asked when the counts began.
    pub(super) fn is_unasked(&self) -> bool {
        !self.is_asked.get()
    }

    /// When the counts began, Unix seconds. The first worker that asks writes it. `None` if nothing is counted.
    pub(super) fn since_secs<H: Host>(
        &self,
        store: &RecordStore<'_, H>,
        now_secs: u64,
    ) -> Option<u64> {
        if self.since_secs.get().is_none() && store.is_available() {
            self.is_asked.set(true);
            let begin = |shared: &mut Shared| {
                if shared.since_secs == 0 {
                    shared.since_secs = now_secs;
                }
                shared.since_secs
            };
            self.since_secs.set(store.update(&name(), begin).ok());
        }
        self.since_secs.get()
    }
}

fn name() -> Name {
    Name::new("h", "start")
}

impl Record for Shared {
    const VERSION: u8 = 16;

    fn fresh() -> Self {
        Self { since_secs: 0 }
    }

    fn write(&self, record: &mut Vec<u8>) {
        record.extend_from_slice(&self.since_secs.to_le_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let since_secs = take(bytes).map(u64::from_le_bytes)?;
        Some(Self { since_secs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{MemoryHost, MemoryStore, Rules};

    #[test]
    fn all_workers_share_the_beginning() {
        let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        let store = RecordStore::new(&host, Rules::Envoy);
        assert_eq!(Start::default().since_secs(&store, 7), Some(7));
        assert_eq!(Start::default().since_secs(&store, 9), Some(7));
        let bare = RecordStore::new(&host, Rules::Bare);
        assert_eq!(Start::default().since_secs(&bare, 9), None);
    }
}
