//! What both directions of a session stand on: the two ends that are written to, each under a lock of
//! its own.

use std::fs::File;
use std::io::{self, Write as _};
use std::process::ChildStdin;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::error::Error;
use super::super::output::{OutputError, write_whole};
use super::gate::Gate;
use super::id::Id;
use super::lock;
use super::pulse::Pulse;
use super::refusal;
use super::sink::Sink;

/// How much the server is sent at once.
const PIECE_BYTES: usize = 16 * 1024;

/// What a pipe takes whole or not at all, wherever it says that it takes anything (POSIX, `PIPE_BUF`).
const ATOMIC_BYTES: usize = 4096;

/// What ends a session.
#[derive(Debug)]
pub(super) enum Event {
    /// The client has closed standard input.
    ClientDone,
    /// Nobody reads standard output.
    ClientGone,
    /// Something of our own fails.
    Failed(Error),
    /// The server has ended.
    ServerEnded,
    /// The server has closed its standard output.
    ServerDone,
    /// The server has closed its standard error.
    ServerQuiet,
    /// The server has taken nothing of what it is sent for so long.
    ServerStuck(Duration),
    /// A signal to end.
    Signal(i32),
}

/// A session.
pub(super) struct Bridge {
    pub(super) gate: Gate,
    pub(super) sink: Arc<Sink>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) events: Sender<Event>,
    /// Standard output.
    pub(super) client: Mutex<File>,
    /// The same, to be looked at while it is written to.
    pub(super) client_end: File,
    /// The server's standard input, until it is closed.
    pub(super) server: Mutex<Option<ChildStdin>>,
}

impl Bridge {
    /// Reports what ends the session. Nobody listens any more when it has ended already.
    pub(super) fn report(&self, event: Event) {
        _ = self.events.send(event);
    }

    /// Sends the client a line; `false` when nobody reads it.
    pub(super) fn tell_client(&self, line: &[u8]) -> bool {
        self.write(&mut lock(&self.client), line)
    }

    /// Ends a request in the server's place and tells the client; `false` when nobody reads that. Both
    /// under one lock, so that whoever finds nothing open at the end can tell when all is written.
    pub(super) fn end(&self, id: &Id, status: u16, code: &str, why: &str) -> Result<bool, Error> {
        let mut client = lock(&self.client);
        let ended = self.gate.end(id, Some(status))?;
        Ok(!ended || self.write(&mut client, &refusal::of_host(id, status, code, why)))
    }

    fn write(&self, client: &mut File, line: &[u8]) -> bool {
        let Err(error) = write_whole(client, line) else {
            return true;
        };
        self.report(match error.kind() {
            io::ErrorKind::BrokenPipe => Event::ClientGone,
            _ => Event::Failed(OutputError(error).into()),
        });
        false
    }

    /// Sends the server a line.
    pub(super) fn tell_server(&self, line: &[u8]) -> io::Result<()> {
        let mut server = lock(&self.server);
        let pipe = server.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut write = |piece: &[u8]| {
            self.pulse.send();
            pipe.write_all(piece)
        };
        let mut written = line.chunks(PIECE_BYTES).try_for_each(&mut write);
        if !line.ends_with(b"\n") {
            // It would wait for more.
            written = written.and_then(|()| write(b"\n"));
        }
        self.pulse.sent();
        if written.is_err() {
            *server = None;
        }
        written
    }

    /// Tells the server that nobody waits for an answer any more, if it takes that at once.
    pub(super) fn cancel(&self, id: &Id) {
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\
             \"params\":{{\"requestId\":{id},\"reason\":\"timed out\"}}}}\n"
        );
        self.offer_server(line.as_bytes());
    }

    /// Sends the server a short line, if it takes that at once.
    pub(super) fn offer_server(&self, line: &[u8]) {
        let Ok(mut server) = self.server.try_lock() else {
            return;
        };
        if let Some(pipe) = server.as_mut()
            && line.len() <= ATOMIC_BYTES
            && is_ready(pipe)
        {
            _ = pipe.write_all(line);
        }
    }

    /// Closes the server's standard input, unless it is being written to.
    pub(super) fn close_server(&self) {
        if let Ok(mut server) = self.server.try_lock() {
            *server = None;
        }
    }
}

fn is_ready(pipe: &ChildStdin) -> bool {
    let mut polled = [PollFd::new(pipe, PollFlags::OUT)];
    let ready = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    ready.is_ok() && polled.iter().all(|fd| fd.revents() == PollFlags::OUT)
}
