//! The clocks of a session, and the server's last activity.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::super::time::Stopwatch;
use super::lock;

/// Times of a session, each counted from its start.
///
/// There are two clocks. One is the machine's. The server's clock stops while a line of the server is being
/// written to the client, who may not be reading: until that is done, the server cannot be heard, so it is
/// not to blame.
pub(super) struct Activity {
    start: Stopwatch,
    /// When the server last wrote something, in milliseconds of its clock.
    heard: AtomicU64,
    /// When the server last read something, in milliseconds of its clock.
    taken: AtomicU64,
    /// Whether something is being written to the server.
    sending: AtomicBool,
    pauses: Mutex<Pauses>,
}

/// How long the server's clock has been stopped.
#[derive(Default)]
struct Pauses {
    over: Duration,
    since: Option<Duration>,
}

impl Activity {
    pub(super) fn start() -> Self {
        Self {
            start: Stopwatch::start(),
            heard: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            sending: AtomicBool::new(false),
            pauses: Mutex::default(),
        }
    }

    /// The time since the start of the session.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The same on the server's clock.
    pub(super) fn server_now(&self) -> Duration {
        let pauses = lock(&self.pauses);
        let now = pauses.since.unwrap_or_else(|| self.now());
        now.saturating_sub(pauses.over)
    }

    /// Records that the server wrote something.
    pub(super) fn hear(&self) {
        self.heard.store(self.millis(), Ordering::Relaxed);
    }

    /// Records that something is being written to the server, or that it read a part.
    pub(super) fn send(&self) {
        self.taken.store(self.millis(), Ordering::Relaxed);
        self.sending.store(true, Ordering::Release);
    }

    /// Records that the server read everything.
    pub(super) fn sent(&self) {
        self.sending.store(false, Ordering::Release);
    }

    /// Stops the server's clock while a line of the server is written to the client, until the guard is
    /// dropped.
    pub(super) fn pass(&self) -> Passing<'_> {
        let mut pauses = lock(&self.pauses);
        pauses.since = Some(self.now());
        Passing(self)
    }

    /// How long the line has been waiting that is being written to the client, if one is.
    pub(super) fn passing_for(&self) -> Option<Duration> {
        let since = lock(&self.pauses).since?;
        Some(self.now().saturating_sub(since))
    }

    /// How long the server has neither read nor written anything, and how long it has read nothing, both on
    /// its clock; `None` if nothing is being written to it.
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

/// A line is being written to the client.
pub(super) struct Passing<'a>(&'a Activity);

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let mut pauses = lock(&self.0.pauses);
        if let Some(since) = pauses.since.take() {
            pauses.over = pauses.over.saturating_add(self.0.now().saturating_sub(since));
        }
    }
}
