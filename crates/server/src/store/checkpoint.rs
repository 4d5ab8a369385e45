//! Writes the log of SQLite into the store, beside the writer.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, connect};

/// After how many records the log is written into the store: the more, the more of its pages are the same.
const EVERY: u64 = 8_192;

/// A thread that does it. It ends with this value.
pub(super) struct Checkpoints {
    asked: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    records: u64,
}

impl Checkpoints {
    pub(super) fn new(path: &Path) -> Result<Self, StoreError> {
        let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let (asked, asks) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || run(&db, &asks))
            .map_err(|error| StoreError::File(path.to_owned(), error))?;
        Ok(Self { asked: Some(asked), thread: Some(thread), records: 0 })
    }

    /// Says that records were written.
    pub(super) fn written(&mut self, records: u64) {
        self.records = self.records.saturating_add(records);
        if self.records >= EVERY {
            self.records = 0;
            // A request that still waits asks for the same.
            _ = self.asked.as_ref().map(|asked| asked.try_send(()));
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.asked = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// What fails here is done by the writer, when the log is longer.
fn run(db: &Connection, asks: &Receiver<()>) {
    while asks.recv().is_ok() {
        _ = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
    }
}
