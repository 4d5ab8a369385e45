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

/// How often it is checked which requests are still open, and whether the client reads.
const POLL: Duration = Duration::from_millis(50);

/// A session, from its start to its end.
pub(super) struct Shutdown {
    proxy: Arc<StdioProxy>,
    server: Server,
    inbox: Receiver<Event>,
    grace: Duration,
    /// How long the client may take to read a line after the end of its input.
    timeout: Duration,
    /// The server process has ended.
    ended: bool,
    /// All of its standard output was forwarded.
    done: bool,
    /// All of its standard error was forwarded.
    quiet: bool,
    client_gone: bool,
    /// The requests that got no response in time, since the session began to end.
    overdue: usize,
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
        (grace, timeout): (Duration, Duration),
    ) -> Self {
        let (ended, done, quiet, client_gone, overdue, failure) = Default::default();
        Self {
            proxy,
            server,
            inbox,
            grace,
            timeout,
            ended,
            done,
            quiet,
            client_gone,
            overdue,
            failure,
        }
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
        match self.await_responses().and_then(|()| self.end_server()) {
            Err(Interrupted(signal)) => self.die(signal),
            Ok((status, by_itself)) => self.conclude(by_server, status, by_itself),
        }
    }

    /// Waits while the server may still respond to requests that are open. The watchdog ends those that wait too
    /// long.
    fn await_responses(&mut self) -> Result<(), Interrupted> {
        while !self.is_over() && !self.proxy.session.open().is_empty() {
            self.await_event(POLL)?;
        }
        Ok(())
    }

    /// Whether no more responses can come, or be delivered.
    fn is_over(&self) -> bool {
        let passing = self.proxy.activity.passing_for();
        let is_unread = passing.is_some_and(|passing| passing >= self.timeout);
        self.ended || self.done || self.client_gone || self.failure.is_some() || is_unread
    }

    /// Ends the server: waits for it, then signals it, then kills it. Returns its status, and whether it
    /// ended by itself.
    fn end_server(&mut self) -> Result<(Option<ExitStatus>, bool), Interrupted> {
        self.await_output(self.grace)?;
        let by_itself = self.ended;
        if !(self.ended && self.done) {
            self.server.ask_to_end();
            self.await_output(self.grace)?;
        }
        let status = self.server.end().ok();
        self.ended = true;
        // The rest of what is in its pipes.
        self.await_output(FINAL_WRITE_LIMIT)?;
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
        let unread = !self.done && self.proxy.activity.passing_for().is_some();
        if unread {
            self.proxy.sink.note("the client has not read everything that the server wrote");
        }
        let status = status.filter(|_| by_itself);
        let unanswered = unanswered.saturating_add(self.overdue);
        let badly = status.is_some_and(|status| !status.success());
        let note = match status {
            _ if !by_itself => {
                Some("the server did not end by itself and was terminated".to_owned())
            }
            Some(status) if by_server || badly || unanswered > 0 => {
                Some(format!("the server has ended: {status}"))
            }
            _ => None,
        };
        if let Some(note) = note {
            let note = format_args!("{note}; requests without a response: {unanswered}");
            self.proxy.sink.note(note);
        }
        let early = by_server && !by_itself;
        Ok(if badly || early || unread || unanswered > 0 { Exit::Refused } else { Exit::Success })
    }

    /// Ends the server, then this process by the same signal.
    fn die(mut self, signal: i32) -> Result<Exit, Error> {
        self.server.ask_to_end();
        self.wait(SIGNALLED_GRACE, |session| session.ended && session.done).ok();
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
                // The client has its error, and goes on.
                Event::RequestOverdue => {}
                event => return Some(event),
            }
        }
    }

    /// Waits until the server has ended and its standard output is forwarded. Time does not count while the client is
    /// slow to read a line.
    fn await_output(&mut self, most: Duration) -> Result<(), Interrupted> {
        let mut left = most;
        while !(self.ended && self.done || left.is_zero()) {
            let waiting = Stopwatch::start();
            self.await_event(left.min(POLL))?;
            let passing = self.proxy.activity.passing_for();
            let is_slow = passing.is_some_and(|passing| (POLL..self.timeout).contains(&passing));
            if !is_slow {
                left = left.saturating_sub(waiting.elapsed());
            }
        }
        Ok(())
    }

    /// Waits until the server has ended and all of its output is forwarded.
    fn await_all(&mut self, most: Duration) -> Result<(), Interrupted> {
        self.wait(most, |session| session.ended && session.done && session.quiet)
    }

    fn wait(&mut self, most: Duration, is_over: fn(&Self) -> bool) -> Result<(), Interrupted> {
        let waiting = Stopwatch::start();
        while !is_over(self) {
            let left = most.saturating_sub(waiting.elapsed());
            if left.is_zero() {
                break;
            }
            self.await_event(left)?;
        }
        Ok(())
    }

    /// Waits for an event, at most for so long.
    fn await_event(&mut self, most: Duration) -> Result<(), Interrupted> {
        self.inbox.recv_timeout(most).map_or(Ok(()), |event| self.note(event))
    }

    fn note(&mut self, event: Event) -> Result<(), Interrupted> {
        match event {
            Event::ServerEnded => self.ended = true,
            Event::ServerDone => self.done = true,
            Event::ServerQuiet => self.quiet = true,
            Event::ClientGone => self.client_gone = true,
            Event::Failed(failure) => self.failure = self.failure.take().or(Some(failure)),
            Event::Signal(signal) => return Err(Interrupted(signal)),
            Event::RequestOverdue => self.overdue = self.overdue.saturating_add(1),
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
