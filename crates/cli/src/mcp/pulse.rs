//! When the server was last heard of, and the clocks of a session.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::super::time::Stopwatch;
use super::lock;

/// Times of a session, each counted from its start.
///
/// There are two clocks. One is the machine's. The server's stands still while a line of its is on the way to the
/// client, who may take nothing: as long as that lasts, the server can be neither heard nor blamed.
pub(super) struct Pulse {
    start: Stopwatch,
    /// The server has written something, in milliseconds of its clock.
    heard: AtomicU64,
    /// It has taken something of what it is sent, in milliseconds of its clock.
    taken: AtomicU64,
    /// It is being sent something.
    sending: AtomicBool,
    pauses: Mutex<Pauses>,
}

/// How long the server's clock has stood still.
#[derive(Default)]
struct Pauses {
    over: Duration,
    since: Option<Duration>,
}

impl Pulse {
    pub(super) fn start() -> Self {
        Self {
            start: Stopwatch::start(),
            heard: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            sending: AtomicBool::new(false),
            pauses: Mutex::default(),
        }
    }

    /// How long the session has been.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The same by the server's clock.
    pub(super) fn server_now(&self) -> Duration {
        let pauses = lock(&self.pauses);
        let now = pauses.since.unwrap_or_else(|| self.now());
        now.saturating_sub(pauses.over)
    }

    /// The server has written something.
    pub(super) fn hear(&self) {
        self.heard.store(self.millis(), Ordering::Relaxed);
    }

    /// The server is sent something, or has taken a part of it.
    pub(super) fn send(&self) {
        self.taken.store(self.millis(), Ordering::Relaxed);
        self.sending.store(true, Ordering::Release);
    }

    /// The server has taken all.
    pub(super) fn sent(&self) {
        self.sending.store(false, Ordering::Release);
    }

    /// A line of the server's is on its way to the client, until the guard is dropped.
    pub(super) fn pass(&self) -> Passing<'_> {
        let mut pauses = lock(&self.pauses);
        pauses.since = Some(self.now());
        Passing(self)
    }

    /// Whether such a line is still on its way.
    pub(super) fn is_passing(&self) -> bool {
        lock(&self.pauses).since.is_some()
    }

    /// For how long the server has neither taken anything of what it is sent nor said anything, and for how
    /// long it has taken nothing, both by its clock; `None` when it is sent nothing.
    pub(super) fn stuck(&self) -> Option<(Duration, Duration)> {
        let sending = self.sending.load(Ordering::Acquire);
        let at = |time: &AtomicU64| Duration::from_millis(time.load(Ordering::Relaxed));
        let (now, taken, heard) = (self.server_now(), at(&self.taken), at(&self.heard));
        sending.then(|| (now.saturating_sub(taken.max(heard)), now.saturating_sub(taken)))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.server_now().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A line is on its way to the client.
pub(super) struct Passing<'a>(&'a Pulse);

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let mut pauses = lock(&self.0.pauses);
        if let Some(since) = pauses.since.take() {
            pauses.over = pauses.over.saturating_add(self.0.now().saturating_sub(since));
        }
    }
}
