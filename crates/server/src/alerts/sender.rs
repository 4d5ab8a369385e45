//! Delivers alerts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::WeakSender;

use super::backoff::Backoff;
use super::receiver::Receiver;
use crate::client::ClientError;
use crate::clock::now_secs;
use crate::collect::Inlet;
use crate::store::{Alert, Batch, Item, Reader, StoreError};

/// How often it is looked for alerts, and whether to stop.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// The most ids that are remembered: as many alerts as a store has.
const MAX_TAKEN: usize = 1000;

/// Delivers the alerts of a store to a receiver.
pub struct Sender {
    reader: Reader,
    receiver: Receiver,
    /// The way to the writer. It does not keep the writer waiting for more.
    to: WeakSender<Batch>,
    backoff: Backoff,
    /// The alert that was tried last; 0 before the first of a round.
    last: i64,
    /// Whether an alert was refused in this round.
    has_refused: bool,
    /// The alerts that were taken. The writer may not have written it yet.
    taken: BTreeSet<i64>,
}

// === impl Sender ===

impl Sender {
    /// A sender of the alerts in a store that is open for writing, through the way to its writer.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn new(store: &Path, receiver: Receiver, to: &Inlet) -> Result<Self, StoreError> {
        let (reader, to) = (Reader::open(store)?, to.downgrade());
        let (backoff, taken) = (Backoff::default(), BTreeSet::new());
        Ok(Self { reader, receiver, to, backoff, last: 0, has_refused: false, taken })
    }

    /// Waits this long, at first, for a receiver that is away.
    #[cfg(test)]
    pub(super) fn waiting(self, first: Duration) -> Self {
        Self { backoff: Backoff::new(first), ..self }
    }

    /// Delivers until `stop` is set or the writer has ended. An alert that is not taken is tried again after the others,
    /// and a wait. If it is refused, the others do not wait for it.
    /// `report` gets the first failure after a delivery; the counter `alert_deliveries_failed` has all of them.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn run(
        mut self,
        stop: &AtomicBool,
        mut report: impl FnMut(&ClientError),
    ) -> Result<(), StoreError> {
        let mut is_failing = false;
        while !stop.load(Ordering::Relaxed) {
            let Some(alert) = self.next()? else {
                if self.to.upgrade().is_none() {
                    return Ok(());
                }
                self.end_round(stop);
                continue;
            };
            let delivered = self.receiver.deliver(&alert);
            let item = match &delivered {
                Ok(()) => Item::Delivered(alert.id),
                Err(_) => Item::Counted("alert_deliveries_failed"),
            };
            if !self.write(item) {
                return Ok(());
            }
            match &delivered {
                Ok(()) => self.take(alert.id),
                Err(error) if !is_failing => report(error),
                Err(_) => {}
            }
            is_failing = delivered.is_err();
            match delivered {
                Ok(()) => {}
                Err(error) if error.is_refusal() => self.has_refused = true,
                Err(_) => self.wait(stop),
            }
        }
        Ok(())
    }

    /// The next alert of this round that was not taken.
    fn next(&mut self) -> Result<Option<Alert>, StoreError> {
        while let Some(alert) = self.reader.undelivered_alert(self.last, now_secs())? {
            self.last = alert.id;
            if !self.taken.contains(&alert.id) {
                return Ok(Some(alert));
            }
        }
        Ok(None)
    }

    /// Begins again with the first alert.
    fn end_round(&mut self, stop: &AtomicBool) {
        self.last = 0;
        if std::mem::take(&mut self.has_refused) {
            self.wait(stop);
        } else {
            thread::sleep(POLL_EVERY);
        }
    }

    /// Waits after a failure: the longer, the more there were since the last delivery.
    fn wait(&mut self, stop: &AtomicBool) {
        sleep(self.backoff.next(getrandom::u32().unwrap_or(u32::MAX)), stop);
    }

    fn take(&mut self, id: i64) {
        self.backoff.reset();
        self.taken.insert(id);
        if self.taken.len() > MAX_TAKEN {
            self.taken.pop_first();
        }
    }

    /// Has something written. Returns whether the writer is still there.
    fn write(&self, item: Item) -> bool {
        let batch = Batch { items: vec![item], position: None };
        self.to.upgrade().is_some_and(|to| to.blocking_send(batch).is_ok())
    }
}

/// Waits, unless `stop` is set.
fn sleep(wait: Duration, stop: &AtomicBool) {
    let mut left = wait;
    while !left.is_zero() && !stop.load(Ordering::Relaxed) {
        let step = left.min(POLL_EVERY);
        thread::sleep(step);
        left -= step;
    }
}
