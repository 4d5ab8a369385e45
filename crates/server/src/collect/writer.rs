//! The one writer of the store.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::clock;
use crate::store::{Batch, Store, StoreError};

/// The batches that may wait for the writer.
const CAPACITY: usize = 8;

/// The most items of one transaction, unless one batch has more.
const MAX_ITEMS: usize = 4000;

/// How often old records are deleted, if there is anything to delete.
const PRUNE_EVERY: Duration = Duration::from_millis(200);

/// How often it is looked whether something is too much or is missing for too long, also while nothing comes.
const EVALUATE_EVERY: Duration = Duration::from_secs(1);

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
    /// Writes until all sources have ended. What they have sent is written then. Between batches it deletes old records
    /// and raises alerts.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. What was not written is read again by the next collector, as far as it came from files.
    pub fn run(mut self) -> Result<(), StoreError> {
        let timer =
            Builder::new_current_thread().enable_time().build().map_err(StoreError::Timer)?;
        let (mut pruned, mut evaluated) = (clock::instant(), clock::instant());
        while let Some(batches) = self.receive(&timer) {
            if !batches.is_empty() {
                self.store.push(&batches)?;
            }
            if pruned.elapsed() >= PRUNE_EVERY {
                while self.store.prune(clock::now_secs())? > 0 {}
                pruned = clock::instant();
            }
            if evaluated.elapsed() >= EVALUATE_EVERY {
                self.store.evaluate(clock::now_secs())?;
                evaluated = clock::instant();
            }
        }
        self.store.evaluate(clock::now_secs())?;
        Ok(())
    }

    /// The batches that wait, or that come soon: none after a second. `None` if all sources have ended.
    fn receive(&mut self, timer: &Runtime) -> Option<Vec<Batch>> {
        let next = timer.block_on(async { timeout(EVALUATE_EVERY, self.from.recv()).await });
        let Ok(batch) = next else { return Some(Vec::new()) };
        let batch = batch?;
        let mut items = batch.items.len();
        let mut batches = vec![batch];
        while items < MAX_ITEMS
            && let Ok(batch) = self.from.try_recv()
        {
            items += batch.items.len();
            batches.push(batch);
        }
        Some(batches)
    }
}
