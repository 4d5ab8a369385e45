//! When the server was last heard of.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::super::time::Stopwatch;

/// Times of a session, each counted from its start.
pub(super) struct Pulse {
    start: Stopwatch,
    /// The server has written something, in milliseconds.
    heard: AtomicU64,
    /// It has taken something of what it is sent, in milliseconds.
    taken: AtomicU64,
    /// It is being sent something.
    sending: AtomicBool,
    /// The client is being sent something: as long as it does not take that, the server can be neither
    /// heard nor blamed.
    passing: AtomicBool,
}

impl Pulse {
    pub(super) fn start() -> Self {
        Self {
            start: Stopwatch::start(),
            heard: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            sending: AtomicBool::new(false),
            passing: AtomicBool::new(false),
        }
    }

    /// How long the session has been.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
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

    /// The client is sent something of the server's, or has taken it.
    pub(super) fn pass(&self, passing: bool) {
        self.hear();
        self.passing.store(passing, Ordering::Release);
    }

    /// When the server was last heard of.
    pub(super) fn heard(&self) -> Duration {
        if self.passing.load(Ordering::Acquire) {
            self.hear();
        }
        Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// Since when the server neither takes what it is sent nor says anything; `None` when it is sent
    /// nothing.
    pub(super) fn stuck_since(&self) -> Option<Duration> {
        let sending = self.sending.load(Ordering::Acquire);
        let taken = Duration::from_millis(self.taken.load(Ordering::Relaxed));
        sending.then(|| self.heard().max(taken))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }
}
