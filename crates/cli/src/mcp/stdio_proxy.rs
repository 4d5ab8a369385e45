//! What both directions of a session share: the client's and the server's stream, each under its own lock.

use std::fs::File;
use std::io::{self, Write as _};
use std::process::ChildStdin;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::error::Error;
use super::super::output::{OutputError, write_whole};
use super::activity::Activity;
use super::id::Id;
use super::lock;
use super::refusal;
use super::session::Session;
use super::sink::Sink;

/// The most bytes that are written to the server at once.
const PIECE_BYTES: usize = 16 * 1024;

/// A write of up to this size to a pipe is atomic (POSIX, `PIPE_BUF`).
const ATOMIC_BYTES: usize = 4096;

/// Events that end a session.
#[derive(Debug)]
pub(super) enum Event {
    /// The client closed standard input.
    ClientDone,
    /// Standard output has no reader.
    ClientGone,
    /// A failure of this command.
    Failed(Error),
    /// A request got no response in time. The client has an error instead.
    RequestOverdue,
    /// The server process ended.
    ServerEnded,
    /// The server closed its standard output.
    ServerDone,
    /// The server closed its standard error.
    ServerQuiet,
    /// The server has read nothing for this long.
    ServerStuck(Duration),
    /// A termination signal.
    Signal(i32),
}

/// The two streams of a session, and what both directions need.
pub(super) struct StdioProxy {
    pub(super) session: Session,
    pub(super) sink: Arc<Sink>,
    pub(super) activity: Arc<Activity>,
    pub(super) events: Sender<Event>,
    /// Standard output.
    pub(super) client: Mutex<File>,
    /// A duplicate of it, to poll while it is written to.
    pub(super) client_end: File,
    /// The server's standard input, until it is closed.
    pub(super) server: Mutex<Option<ChildStdin>>,
}

impl StdioProxy {
    /// Reports an event. It is lost if the session has already ended.
    pub(super) fn report(&self, event: Event) {
        _ = self.events.send(event);
    }

    /// Sends the client a line; `false` if it has no reader.
    pub(super) fn send_to_client(&self, line: &[u8]) -> bool {
        self.write(&mut lock(&self.client), line)
    }

    /// Ends a request without the server and sends the client the error; `false` if it has no reader. One
    /// lock covers both, so that when no request is open, everything has been written.
    pub(super) fn end(&self, id: &Id, status: u16, code: &str, why: &str) -> Result<bool, Error> {
        let mut client = lock(&self.client);
        let ended = self.session.end(id, Some(status))?;
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
    pub(super) fn send_to_server(&self, line: &[u8]) -> io::Result<()> {
        let mut server = lock(&self.server);
        let pipe = server.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut write = |piece: &[u8]| {
            self.activity.send();
            pipe.write_all(piece)
        };
        let mut written = line.chunks(PIECE_BYTES).try_for_each(&mut write);
        if !line.ends_with(b"\n") {
            // Without the line end, the server would wait for more.
            written = written.and_then(|()| write(b"\n"));
        }
        self.activity.sent();
        if written.is_err() {
            *server = None;
        }
        written
    }

    /// Tells the server that a request was cancelled, if it can be written at once.
    pub(super) fn cancel(&self, id: &Id) {
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\
             \"params\":{{\"requestId\":{id},\"reason\":\"timed out\"}}}}\n"
        );
        self.try_send_to_server(line.as_bytes());
    }

    /// Sends the server a short line, if it can be written at once.
    pub(super) fn try_send_to_server(&self, line: &[u8]) {
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

    /// Closes the server's standard input after what is being written to it.
    pub(super) fn end_input(&self) {
        *lock(&self.server) = None;
    }

    /// Closes the server's standard input, unless something is being written to it.
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
