//! The one writer of the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::clock;
use crate::store::{Batch, Store, StoreError};

/// The batches that may wait for the writer.
const CAPACITY: usize = 16;

/// The most items of one transaction, unless one batch has more.
const MAX_ITEMS: usize = 10_000;

/// How often old records are deleted, if there is anything to delete.
const PRUNE_EVERY: Duration = Duration::from_millis(200);

/// How often it is looked whether anything is to be alerted.
const EVALUATE_EVERY: Duration = Duration::from_secs(1);

/// How long the writer goes on when the collector ends and batches still come.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Where sources send what they took.
pub type Inlet = mpsc::Sender<Batch>;

/// Writes what sources send, until there are none. Between batches it deletes old records and raises alerts.
pub struct Writer {
    store: Store,
    from: mpsc::Receiver<Batch>,
    evaluated: Instant,
}

/// The way to a writer.
pub fn inlet(store: Store) -> (Inlet, Writer) {
    let (to, from) = mpsc::channel(CAPACITY);
    (to, Writer { store, from, evaluated: clock::instant() })
}

// === impl Writer ===

impl Writer {
    /// Writes until all sources have ended, or until `is_closing` is set and nothing waits. What they have sent is
    /// written then.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. What was not written is read again by the next collector, as far as it came from files.
    pub fn run(mut self, is_closing: &AtomicBool) -> Result<(), StoreError> {
        let timer =
            Builder::new_current_thread().enable_time().build().map_err(StoreError::Timer)?;
        let (mut pruned, mut wait, mut closing) = (None, Duration::ZERO, None);
        loop {
            match timer.block_on(async { timeout(wait, self.from.recv()).await }) {
                Ok(None) => break,
                Ok(Some(batch)) => self.write(batch)?,
                Err(_) if closing.is_some() => break,
                // Records become too old also when none come.
                Err(_) => {}
            }
            if is_closing.load(Ordering::Relaxed) {
                let since: Instant = *closing.get_or_insert_with(clock::instant);
                // A pipe may never end.
                if since.elapsed() >= CLOSE_WITHIN {
                    break;
                }
            }
            if pruned.is_none_or(|pruned: Instant| pruned.elapsed() >= PRUNE_EVERY) {
                let is_more = patient(|| self.store.prune(clock::now_secs()))? > 0;
                pruned = (!is_more).then(clock::instant);
                wait = if is_more { Duration::ZERO } else { PRUNE_EVERY };
            }
            if self.evaluated.elapsed() >= EVALUATE_EVERY {
                self.evaluate()?;
            }
        }
        self.evaluate()
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
        patient(|| self.store.push(&batches)).map(drop)
    }

    fn evaluate(&mut self) -> Result<(), StoreError> {
        self.evaluated = clock::instant();
        patient(|| self.store.evaluate(clock::now_secs())).map(drop)
    }
}

/// Tries again while another process has the store: each try waits for it already.
fn patient<T>(mut write: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    loop {
        match write() {
            Err(StoreError::Busy) => {}
            done => return done,
        }
    }
}
