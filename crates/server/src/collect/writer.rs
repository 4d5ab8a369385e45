//! The one writer of the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock;
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
    /// Writes until all sources have ended, or `is_closing` is set and a batch wakes it. What they have sent is written
    /// then.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. What was not written is read again by the next collector, as far as it came from files.
    pub fn run(mut self, is_closing: &AtomicBool) -> Result<(), StoreError> {
        let mut pruned = clock::instant();
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
            if is_closing.load(Ordering::Relaxed) && self.from.is_empty() {
                return Ok(());
            }
            if pruned.elapsed() >= PRUNE_EVERY {
                while self.store.prune(clock::now_secs())? > 0 {}
                pruned = clock::instant();
            }
        }
        Ok(())
    }
}
