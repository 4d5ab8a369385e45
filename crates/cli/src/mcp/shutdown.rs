//! The end of a session. Every path ends the server.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::super::error::Error;
use super::super::exit::Exit;
use super::super::time::Stopwatch;
use super::child::Server;
use super::error::{AuditError, McpError};
use super::id::Id;
use super::lock;
use super::refusal::{BAD_GATEWAY, FAILED, GATE_FAILED, UNAVAILABLE};
use super::relay::GONE;
use super::stdio_proxy::{Bridge, Event};

/// The time limit for writes at the end: their reader may have stopped.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the server may take to end after we received a signal.
const HASTE: Duration = Duration::from_millis(500);

/// A session, from its start to its end.
pub(super) struct Session {
    bridge: Arc<Bridge>,
    server: Server,
    inbox: Receiver<Event>,
    grace: Duration,
    /// The server process has ended.
    ended: bool,
    /// All of its standard output was forwarded.
    done: bool,
    /// All of its standard error was forwarded.
    quiet: bool,
    client_gone: bool,
    /// The first failure of this command.
    failure: Option<Error>,
}

/// A signal arrived while waiting for something else.
struct Interrupted(i32);

impl Session {
    pub(super) fn new(
        bridge: Arc<Bridge>,
        server: Server,
        inbox: Receiver<Event>,
        grace: Duration,
    ) -> Self {
        let (ended, done, quiet, client_gone, failure) = (false, false, false, false, None);
        Self { bridge, server, inbox, grace, ended, done, quiet, client_gone, failure }
    }

    /// Waits until something ends the session, and then ends it.
    pub(super) fn conduct(mut self) -> Result<Exit, Error> {
        let Some(event) = self.first_event() else {
            return Ok(Exit::Environment);
        };
        let by_server = matches!(event, Event::ServerEnded | Event::ServerDone);
        let is_stuck = matches!(event, Event::ServerStuck(_));
        if let Event::ServerStuck(silent) = event {
            self.failure = Some(McpError::ServerStuck(silent).into());
        }
        if let Err(Interrupted(signal)) = self.note(event) {
            return self.die(signal);
        }
        if let Some(failure) = self.failure.take() {
            _ = self.server.end();
            self.await_all(LAST_WORDS).ok();
            self.answer_open(!is_stuck).ok();
            return Err(failure);
        }
        self.bridge.close_server();
        match self.wind_down() {
            Err(Interrupted(signal)) => self.die(signal),
            Ok((status, by_itself)) => self.conclude(by_server, status, by_itself),
        }
    }

    /// Ends the server: waits for it, then signals it, then kills it. Returns its status, and whether it
    /// ended by itself.
    fn wind_down(&mut self) -> Result<(Option<ExitStatus>, bool), Interrupted> {
        self.await_both(self.grace)?;
        let by_itself = self.ended;
        if !(self.ended && self.done) {
            self.server.ask_to_end();
            self.await_both(self.grace)?;
        }
        let status = self.server.end().ok();
        self.ended = true;
        // The rest of what is in its pipes.
        self.await_all(LAST_WORDS)?;
        Ok((status, by_itself))
    }

    /// Chooses the exit code, and reports what went wrong.
    fn conclude(
        mut self,
        by_server: bool,
        status: Option<ExitStatus>,
        by_itself: bool,
    ) -> Result<Exit, Error> {
        let failure = self.failure.take();
        let unanswered = self.answer_open(failure.is_some());
        if let Some(failure) = failure {
            return Err(failure);
        }
        let unanswered = unanswered?;
        // The audit lines of open requests are written last.
        self.bridge.sink.settle(LAST_WORDS)?;
        if self.client_gone {
            return Ok(Exit::Success);
        }
        let unread = !self.done && self.bridge.pulse.is_passing();
        if unread {
            self.bridge.sink.note("the client has not read everything that the server wrote");
        }
        let status = status.filter(|_| by_itself);
        let note = match status {
            _ if !by_itself => {
                Some("the server did not end by itself and was terminated".to_owned())
            }
            Some(status) if by_server || !status.success() => {
                Some(format!("the server has ended: {status}; {unanswered} requests were open"))
            }
            _ => None,
        };
        note.into_iter().for_each(|note| self.bridge.sink.note(note));
        let badly = status.is_some_and(|status| !status.success());
        let early = by_server && (unanswered > 0 || !by_itself);
        Ok(if badly || early || unread { Exit::Refused } else { Exit::Success })
    }

    /// Ends the server, then this process by the same signal.
    fn die(mut self, signal: i32) -> Result<Exit, Error> {
        self.server.ask_to_end();
        self.await_both(HASTE).ok();
        _ = self.server.end();
        self.await_all(HASTE).ok();
        self.last_words(end_untold);
        self.bridge.sink.flush(HASTE);
        _ = signal_hook::low_level::emulate_default_handler(signal);
        Ok(Exit::Environment)
    }

    /// The first event that ends the session.
    fn first_event(&mut self) -> Option<Event> {
        loop {
            match self.inbox.recv().ok()? {
                // A server may close its standard error and continue.
                Event::ServerQuiet => self.quiet = true,
                event => return Some(event),
            }
        }
    }

    /// Waits until the server has ended and its standard output is forwarded.
    fn await_both(&mut self, most: Duration) -> Result<(), Interrupted> {
        self.wait(most, |session| session.ended && session.done)
    }

    /// Waits until the server has ended and all of its output is forwarded.
    fn await_all(&mut self, most: Duration) -> Result<(), Interrupted> {
        self.wait(most, |session| session.ended && session.done && session.quiet)
    }

    fn wait(&mut self, most: Duration, is_over: fn(&Self) -> bool) -> Result<(), Interrupted> {
        let waiting = Stopwatch::start();
        while !is_over(self) {
            let left = most.saturating_sub(waiting.elapsed());
            match self.inbox.recv_timeout(left) {
                Ok(event) => self.note(event)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn note(&mut self, event: Event) -> Result<(), Interrupted> {
        match event {
            Event::ServerEnded => self.ended = true,
            Event::ServerDone => self.done = true,
            Event::ServerQuiet => self.quiet = true,
            Event::ClientGone => self.client_gone = true,
            Event::Failed(failure) => self.failure = self.failure.take().or(Some(failure)),
            Event::Signal(signal) => return Err(Interrupted(signal)),
            Event::ClientDone | Event::ServerStuck(_) => {}
        }
        Ok(())
    }

    /// Ends the open requests without the server, with an error that depends on whether the gate failed.
    /// Returns how many there were. Requests whose error the client does not read in time still get their
    /// audit lines.
    ///
    /// # Errors
    ///
    /// [`AuditError::Unread`] if the audit lines cannot be written in time.
    fn answer_open(&self, gate_failed: bool) -> Result<usize, AuditError> {
        let (client_gone, open) = (self.client_gone, self.bridge.gate.open().len());
        let (status, code, why) = if gate_failed {
            (UNAVAILABLE, GATE_FAILED, FAILED)
        } else {
            (BAD_GATEWAY, "server_gone", GONE)
        };
        let told = self.last_words(move |bridge| {
            let ids = bridge.gate.open();
            let end = |id: &&Id| match client_gone {
                true => bridge.gate.end(id, None).is_ok(),
                false => bridge.end(id, status, code, why).is_ok(),
            };
            let ended = ids.iter().filter(end).count();
            // Another thread that ended a request holds this lock until the client has its error.
            drop(lock(&bridge.client));
            ended
        });
        let ended = told.or_else(|| self.last_words(end_untold).map(|_| open));
        ended.ok_or(AuditError::Unread(LAST_WORDS))
    }

    /// Runs `act`, which may block on a reader, with a time limit; `None` if it is not done in time.
    fn last_words(&self, act: impl FnOnce(&Bridge) -> usize + Send + 'static) -> Option<usize> {
        let bridge = Arc::clone(&self.bridge);
        let (sender, receiver) = channel();
        let spawned = thread::Builder::new().spawn(move || sender.send(act(&bridge)));
        spawned.ok().and_then(|_| receiver.recv_timeout(LAST_WORDS).ok())
    }
}

/// Ends the open requests without telling the client. Returns how many there were.
fn end_untold(bridge: &Bridge) -> usize {
    let ids = bridge.gate.open();
    ids.iter().filter(|id| bridge.gate.end(id, None).is_ok()).count()
}
