//! The one writer of the store.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use crate::store::{Batch, Store, StoreError};

/// The batches that may wait for the writer.
const CAPACITY: usize = 8;

/// The most items of one transaction, unless one batch has more.
const MAX_ITEMS: usize = 4000;

/// How often old records are deleted, if there is anything to delete.
const PRUNE_EVERY: Duration = Duration::from_millis(200);

/// Where sources send what they took.
pub type Inlet = mpsc::Sender<Batch>;

/// Writes what sources send, until there are none.
pub struct Writer {
    store: Store,
    from: mpsc::Receiver<Batch>,
}

/// The way to a writer.
pub fn inlet(store: Store) -> (Inlet, Writer) {
    let (to, from) = mpsc::channel(CAPACITY);
    (to, Writer { store, from })
}

// === impl Writer ===

impl Writer {
    /// Writes until all sources have ended. What they have sent is written then.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. What was not written is read again by the next collector, as far as it came from files.
    pub fn run(mut self) -> Result<(), StoreError> {
        let mut pruned = Instant::now();
        while let Some(batch) = self.from.blocking_recv() {
            let mut items = batch.items.len();
            let mut batches = vec![batch];
            while items < MAX_ITEMS
                && let Ok(batch) = self.from.try_recv()
            {
                items += batch.items.len();
                batches.push(batch);
            }
            self.store.push(&batches)?;
            if pruned.elapsed() >= PRUNE_EVERY {
                while self.store.prune(now_secs())? > 0 {}
                pruned = Instant::now();
            }
        }
        Ok(())
    }
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
