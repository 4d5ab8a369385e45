//! Writes a stream on its own thread, so that a stream without a reader never blocks others without a bound.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::super::output::write_whole;
use super::error::AuditError;
use super::lock;

/// The most bytes of droppable lines that are queued, for each kind.
const MOST_WAITING: usize = 64 * 1024;

/// A destination of lines.
pub(super) trait Target: Send + 'static {
    /// Writes a whole line, including its end.
    ///
    /// # Errors
    ///
    /// The error, for the user.
    fn write_line(&mut self, line: &[u8]) -> Result<(), AuditError>;
}

/// Kinds of lines that may be dropped if the stream has no reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The server's standard error.
    Server,
    /// Notes and the module's log.
    Note,
}

/// Writes lines in order.
pub(super) struct Writer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Line>,
    /// How many lines were ever queued.
    added: u64,
    /// How many of them were written; the next one is being written.
    written: u64,
    /// The number of the last line that must be written.
    last_required: u64,
    /// The queued bytes, of each kind.
    bytes: [usize; 2],
    /// The lines dropped since that was last reported, of each kind.
    dropped: [u64; 2],
    failure: Option<AuditError>,
}

struct Line {
    bytes: Vec<u8>,
    /// `None` if the line must be written.
    kind: Option<Kind>,
}

// === impl Writer ===

impl Writer {
    /// Starts writing to a target.
    pub(super) fn start(to: impl Target) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::Builder::new().spawn(move || writer.write_all(to))?;
        Ok(Self(shared))
    }

    /// Queues a line, unless too much is queued already.
    pub(super) fn offer(&self, kind: Kind, line: Vec<u8>) {
        lock(&self.0.queue).offer(kind, line);
        self.0.changed.notify_all();
    }

    /// Queues a line, and waits up to `patience` until it is written.
    ///
    /// # Errors
    ///
    /// [`AuditError`] if the target fails, or accepts nothing for so long.
    pub(super) fn require(&self, line: Vec<u8>, patience: Duration) -> Result<(), AuditError> {
        let mut queue = lock(&self.0.queue);
        queue.add(Line { bytes: line, kind: None });
        let number = queue.added;
        queue.last_required = number;
        self.0.changed.notify_all();
        self.0.wait(queue, number, patience)
    }

    /// Waits until all required lines are written.
    ///
    /// # Errors
    ///
    /// As with [`Self::require`].
    pub(super) fn settle(&self, patience: Duration) -> Result<(), AuditError> {
        let queue = lock(&self.0.queue);
        let last = queue.last_required;
        self.0.wait(queue, last, patience)
    }

    /// Waits until all lines are written, up to `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let queue = lock(&self.0.queue);
        let last = queue.added;
        _ = self.0.wait(queue, last, patience);
    }
}

// === impl Shared ===

impl Shared {
    /// Waits until this number of lines is written.
    fn wait(
        &self,
        queue: MutexGuard<'_, Queue>,
        number: u64,
        patience: Duration,
    ) -> Result<(), AuditError> {
        let goes_on = |queue: &mut Queue| queue.failure.is_none() && queue.written < number;
        let waited = self.changed.wait_timeout_while(queue, patience, goes_on);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &queue.failure {
            _ if queue.written >= number => Ok(()),
            Some(failure) => Err(failure.clone()),
            None => Err(AuditError::Unread(patience)),
        }
    }

    /// Writes lines as they come, until the target fails. Holds no lock while writing.
    fn write_all(&self, mut to: impl Target) {
        loop {
            let queue = lock(&self.queue);
            let waited = self.changed.wait_while(queue, |queue| queue.waiting.is_empty());
            let next = waited.unwrap_or_else(PoisonError::into_inner).next();
            let written = next.map_or(Ok(()), |line| to.write_line(&line));
            let mut queue = lock(&self.queue);
            match written {
                Ok(()) => queue.written = queue.written.saturating_add(1),
                Err(error) => queue.failure = Some(error),
            }
            queue.report_dropped();
            let failed = queue.failure.is_some();
            drop(queue);
            self.changed.notify_all();
            if failed {
                return;
            }
        }
    }
}

// === impl Queue ===

impl Queue {
    fn offer(&mut self, kind: Kind, line: Vec<u8>) {
        let is_full = self
            .bytes_of(kind)
            .is_none_or(|bytes| *bytes > 0 && *bytes + line.len() > MOST_WAITING);
        if !is_full && self.failure.is_none() {
            self.add(Line { bytes: line, kind: Some(kind) });
        } else if let Some(dropped) = self.dropped.get_mut(kind as usize) {
            *dropped = dropped.saturating_add(1);
        }
    }

    fn add(&mut self, line: Line) {
        self.count(&line, usize::saturating_add);
        self.added = self.added.saturating_add(1);
        self.waiting.push_back(line);
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let line = self.waiting.pop_front()?;
        self.count(&line, usize::saturating_sub);
        Some(line.bytes)
    }

    fn count(&mut self, line: &Line, change: fn(usize, usize) -> usize) {
        if let Some(bytes) = line.kind.and_then(|kind| self.bytes_of(kind)) {
            *bytes = change(*bytes, line.bytes.len());
        }
    }

    fn bytes_of(&mut self, kind: Kind) -> Option<&mut usize> {
        self.bytes.get_mut(kind as usize)
    }

    /// Reports what was dropped, once the stream has a reader again.
    fn report_dropped(&mut self) {
        let [server, notes] = self.dropped;
        if self.failure.is_none() && self.waiting.is_empty() && (server, notes) != (0, 0) {
            self.dropped = [0, 0];
            let text = format!(
                "vkey: nobody read standard error: {server} lines of the server's and {notes} notes were dropped\n"
            );
            self.add(Line { bytes: text.into_bytes(), kind: Some(Kind::Note) });
        }
    }
}

impl Target for File {
    /// Writes to standard error.
    fn write_line(&mut self, line: &[u8]) -> Result<(), AuditError> {
        write_whole(self, line).map_err(AuditError::Stderr)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    /// A target that accepts a line for each permit.
    struct Slow {
        permits: Receiver<Result<(), AuditError>>,
        taken: Sender<String>,
    }

    impl Target for Slow {
        fn write_line(&mut self, line: &[u8]) -> Result<(), AuditError> {
            self.permits.recv().unwrap_or(Ok(()))?;
            _ = self.taken.send(String::from_utf8(line.to_vec()).unwrap());
            Ok(())
        }
    }

    fn slow() -> (Writer, Sender<Result<(), AuditError>>, Receiver<String>) {
        let (permits, taken) = (channel(), channel());
        let writer = Writer::start(Slow { permits: permits.1, taken: taken.0 }).unwrap();
        (writer, permits.0, taken.1)
    }

    #[test]
    fn waiting_for_a_required_line_has_a_bound() {
        let (writer, permits, taken) = slow();
        let unread = writer.require(b"one\n".to_vec(), SOON);
        assert!(matches!(unread, Err(AuditError::Unread(SOON))), "{unread:?}");
        assert!(matches!(writer.settle(SOON), Err(AuditError::Unread(SOON))));
        permits.send(Ok(())).unwrap();
        permits.send(Ok(())).unwrap();
        writer.require(b"two\n".to_vec(), LONG).unwrap();
        writer.settle(LONG).unwrap();
        assert_eq!(taken.try_iter().collect::<String>(), "one\ntwo\n");
        // Droppable lines may remain unwritten.
        writer.offer(Kind::Note, b"three\n".to_vec());
        writer.settle(LONG).unwrap();
        writer.flush(SOON);
        permits.send(Ok(())).unwrap();
        writer.flush(LONG);
        assert_eq!(taken.try_iter().collect::<String>(), "three\n");
    }

    #[test]
    fn a_target_that_fails_ends_the_wait() {
        let (writer, permits, _taken) = slow();
        permits.send(Err(AuditError::Link)).unwrap();
        for _ in 0..2 {
            let failed = writer.require(b"one\n".to_vec(), LONG);
            assert!(matches!(failed, Err(AuditError::Link)), "{failed:?}");
        }
        assert!(matches!(writer.settle(LONG), Err(AuditError::Link)));
        writer.flush(LONG);
    }

    #[test]
    fn lines_without_a_reader_are_dropped_and_counted() {
        let (writer, permits, taken) = slow();
        let line = |length: usize| format!("{}\n", "x".repeat(length - 1)).into_bytes();
        for _ in 0..4 {
            writer.offer(Kind::Server, line(MOST_WAITING));
        }
        writer.offer(Kind::Note, b"a note\n".to_vec());
        drop(permits);
        let mut lines = Vec::new();
        while !lines.iter().any(|line: &String| line.contains("dropped")) {
            lines.push(taken.recv_timeout(LONG).unwrap());
        }
        // One line may be in progress while another one is queued.
        let (passed, rest) = lines.split_at(lines.len() - 2);
        assert!((1..=2).contains(&passed.len()), "{}", passed.len());
        assert_eq!(rest[0], "a note\n");
        let batch = format!("{} lines of the server's and 0 notes were dropped", 4 - passed.len());
        assert!(rest[1].contains(&batch), "{}", rest[1]);
    }
}
