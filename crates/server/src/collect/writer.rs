//! The one writer of the store.

use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{now, now_secs};
use crate::store::{Batch, Store, StoreError};

/// The batches that may wait for the writer.
const CAPACITY: usize = 16;

/// The most items of one transaction, unless one batch has more.
const MAX_ITEMS: usize = 10_000;

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
        let timer =
            Builder::new_current_thread().enable_time().build().map_err(StoreError::Timer)?;
        let (mut pruned, mut wait) = (None, Duration::ZERO);
        loop {
            let next = timer.block_on(async { timeout(wait, self.from.recv()).await });
            match next {
                Ok(None) => return Ok(()),
                Ok(Some(batch)) => self.write(batch)?,
                // Records become too old also when none come.
                Err(_) => {}
            }
            if pruned.is_none_or(|pruned: Instant| pruned.elapsed() >= PRUNE_EVERY) {
                let is_more = self.store.prune(now_secs())? > 0;
                pruned = (!is_more).then(now);
                wait = if is_more { Duration::ZERO } else { PRUNE_EVERY };
            }
        }
    }

    /// Writes a batch, and those that have come after it.
    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        let mut items = batch.items.len();
        let mut batches = vec![batch];
        while items < MAX_ITEMS
            && batches.len() < CAPACITY
            && let Ok(batch) = self.from.try_recv()
        {
            items += batch.items.len();
            batches.push(batch);
        }
        self.store.push(&batches).map(drop)
    }
}
