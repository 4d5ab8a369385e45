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
use super::stdio_proxy::{Event, StdioProxy};

/// The time limit for writes at the end: their reader may have stopped.
pub(super) const FINAL_WRITE_LIMIT: Duration = Duration::from_secs(1);

/// How long the server may take to end after we received a signal.
const SIGNALLED_GRACE: Duration = Duration::from_millis(500);

/// A session, from its start to its end.
pub(super) struct Shutdown {
    proxy: Arc<StdioProxy>,
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

impl Shutdown {
    pub(super) fn new(
        proxy: Arc<StdioProxy>,
        server: Server,
        inbox: Receiver<Event>,
        grace: Duration,
    ) -> Self {
        let (ended, done, quiet, client_gone, failure) = (false, false, false, false, None);
        Self { proxy, server, inbox, grace, ended, done, quiet, client_gone, failure }
    }

    /// Waits until something ends the session, and then ends it.
    pub(super) fn run(mut self) -> Result<Exit, Error> {
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
            self.await_all(FINAL_WRITE_LIMIT).ok();
            self.end_open(!is_stuck).ok();
            return Err(failure);
        }
        self.proxy.close_server();
        match self.end_server() {
            Err(Interrupted(signal)) => self.die(signal),
            Ok((status, by_itself)) => self.conclude(by_server, status, by_itself),
        }
    }

    /// Ends the server: waits for it, then signals it, then kills it. Returns its status, and whether it
    /// ended by itself.
    fn end_server(&mut self) -> Result<(Option<ExitStatus>, bool), Interrupted> {
        self.await_both(self.grace)?;
        let by_itself = self.ended;
        if !(self.ended && self.done) {
            self.server.ask_to_end();
            self.await_both(self.grace)?;
        }
        let status = self.server.end().ok();
        self.ended = true;
        // The rest of what is in its pipes.
        self.await_all(FINAL_WRITE_LIMIT)?;
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
        let unanswered = self.end_open(failure.is_some());
        if let Some(failure) = failure {
            return Err(failure);
        }
        let unanswered = unanswered?;
        // The audit lines of open requests are written last.
        self.proxy.sink.settle(FINAL_WRITE_LIMIT)?;
        if self.client_gone {
            return Ok(Exit::Success);
        }
        let unread = !self.done && self.proxy.activity.is_passing();
        if unread {
            self.proxy.sink.note("the client has not read everything that the server wrote");
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
        note.into_iter().for_each(|note| self.proxy.sink.note(note));
        let badly = status.is_some_and(|status| !status.success());
        let early = by_server && (unanswered > 0 || !by_itself);
        Ok(if badly || early || unread { Exit::Refused } else { Exit::Success })
    }

    /// Ends the server, then this process by the same signal.
    fn die(mut self, signal: i32) -> Result<Exit, Error> {
        self.server.ask_to_end();
        self.await_both(SIGNALLED_GRACE).ok();
        _ = self.server.end();
        self.await_all(SIGNALLED_GRACE).ok();
        self.with_time_limit(end_silently);
        self.proxy.sink.flush(SIGNALLED_GRACE);
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
    fn end_open(&self, gate_failed: bool) -> Result<usize, AuditError> {
        let (client_gone, open) = (self.client_gone, self.proxy.session.open().len());
        let (status, code, why) = if gate_failed {
            (UNAVAILABLE, GATE_FAILED, FAILED)
        } else {
            (BAD_GATEWAY, "server_gone", GONE)
        };
        let told = self.with_time_limit(move |proxy| {
            let ids = proxy.session.open();
            let end = |id: &&Id| match client_gone {
                true => proxy.session.end(id, None).is_ok(),
                false => proxy.end(id, status, code, why).is_ok(),
            };
            let ended = ids.iter().filter(end).count();
            // Another thread that ended a request holds this lock until the client has its error.
            drop(lock(&proxy.client));
            ended
        });
        let ended = told.or_else(|| self.with_time_limit(end_silently).map(|_| open));
        ended.ok_or(AuditError::Unread(FINAL_WRITE_LIMIT))
    }

    /// Runs `act`, which may block on a reader, with a time limit; `None` if it is not done in time.
    fn with_time_limit(
        &self,
        act: impl FnOnce(&StdioProxy) -> usize + Send + 'static,
    ) -> Option<usize> {
        let proxy = Arc::clone(&self.proxy);
        let (sender, receiver) = channel();
        let spawned = thread::Builder::new().spawn(move || sender.send(act(&proxy)));
        spawned.ok().and_then(|_| receiver.recv_timeout(FINAL_WRITE_LIMIT).ok())
    }
}

/// Ends the open requests without telling the client. Returns how many there were.
fn end_silently(proxy: &StdioProxy) -> usize {
    let ids = proxy.session.open();
    ids.iter().filter(|id| proxy.session.end(id, None).is_ok()).count()
}
