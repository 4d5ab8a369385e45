//! The two directions of a session, and the watch over its silence. Each is a thread's work.

use std::io::{self, BufReader, Read, Stdin, stdin};
use std::process::ChildStdout;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::error::{Error, InputProblem, Origin};
use super::super::lines::{Line, Lines};
use super::super::output::shown;
use super::bridge::{Bridge, Event};
use super::gate::{Passage, Received, Verdict};
use super::message::{Content, Id, ServerLine};
use super::pulse::Pulse;
use super::refusal::{BAD_GATEWAY, GATEWAY_TIMEOUT};
use super::scan::Scan;

/// How much is read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a client is told when the server is no more.
pub(super) const GONE: &str = "the server has gone without an answer";

// === from the client ===

/// Passes the client's messages on, until there are no more.
pub(super) fn from_client(bridge: &Bridge, max_bytes: usize) {
    let reader = BufReader::with_capacity(BUFFER_BYTES, stdin());
    let event = match pass_messages(bridge, Lines::new(reader, max_bytes), max_bytes) {
        Ok(()) => Event::ClientDone,
        Err(error) => Event::Failed(error),
    };
    // In this order: a server ends because of it, and not by itself.
    bridge.report(event);
    bridge.close_server();
}

fn pass_messages(
    bridge: &Bridge,
    mut lines: Lines<BufReader<Stdin>>,
    max_bytes: usize,
) -> Result<(), Error> {
    let unreadable = |error| Error::Input(Origin::Stdin, InputProblem::Io(error));
    while let Some(line) = lines.next().map_err(unreadable)? {
        let line = match &line {
            Line::Whole(line) if line.trim_ascii().is_empty() => continue,
            Line::Whole(line) => Some(&**line),
            Line::TooLong => None,
        };
        if !pass_message(bridge, line, max_bytes)? {
            break;
        }
    }
    Ok(())
}

/// Judges a line and passes it on, or answers it; `false` when the client has gone.
fn pass_message(bridge: &Bridge, line: Option<&[u8]>, max_bytes: usize) -> Result<bool, Error> {
    let body = line.map(without_end);
    let content = match body {
        Some(body) => Content::read(body),
        None => Content::NoMessage(format!("longer than {max_bytes} bytes").into()),
    };
    let message = Received { body, content };
    let verdict = bridge.gate.judge(&message)?;
    bridge.sink.check()?;
    match (verdict, line) {
        (Verdict::Forward, Some(line)) => Ok(send(bridge, line, &message.content)?),
        (Verdict::Refuse(Some(answer)), _) => Ok(bridge.tell_client(&answer)),
        _ => Ok(true),
    }
}

/// Sends a message to the server; when that takes none, a request is answered in its place.
fn send(bridge: &Bridge, line: &[u8], content: &Content) -> Result<bool, Error> {
    if bridge.tell_server(line).is_ok() {
        return Ok(true);
    }
    match content {
        Content::Request(id, _) => bridge.end(id, BAD_GATEWAY, "server_gone", GONE),
        _ => Ok(true),
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

// === from the server ===

/// Passes the server's messages on, until there are no more.
pub(super) fn from_server(bridge: &Bridge, output: ChildStdout, max_bytes: usize) {
    let heard = Heard { from: output, pulse: Arc::clone(&bridge.pulse) };
    let reader = BufReader::with_capacity(BUFFER_BYTES, heard);
    let event = match pass_answers(bridge, Lines::new(reader, max_bytes), max_bytes) {
        Ok(()) => Event::ServerDone,
        Err(error) => Event::Failed(error),
    };
    bridge.report(event);
}

fn pass_answers(
    bridge: &Bridge,
    mut lines: Lines<BufReader<Heard>>,
    max_bytes: usize,
) -> Result<(), Error> {
    loop {
        let mut scan = Scan::default();
        let passed = match lines.next_or(|piece| scan.feed(piece)) {
            Ok(Some(Line::Whole(line))) => pass_answer(bridge, line)?,
            Ok(Some(Line::TooLong)) => {
                let problem = format!(
                    "the server's message is longer than {max_bytes} bytes (--max-bytes allows more)"
                );
                replace_answer(bridge, scan.answered().as_ref(), "answer_too_large", &problem)?
            }
            // What cannot be read is at its end.
            Ok(None) | Err(_) => return Ok(()),
        };
        if !passed {
            return Ok(());
        }
    }
}

/// Passes a line of the server on; `false` when the client has gone.
fn pass_answer(bridge: &Bridge, mut line: Vec<u8>) -> Result<bool, Error> {
    let Ok(read) = ServerLine::read(&line) else {
        if !line.trim_ascii().is_empty() {
            let line = String::from_utf8_lossy(&line);
            let note = "the server has written what is no message to its standard output; dropped";
            bridge.sink.note(format_args!("{note}: {}", shown(line.trim())));
        }
        return Ok(true);
    };
    let passage = match read {
        ServerLine::Answer(id) => bridge.gate.answer(&id, &line)?,
        ServerLine::Other => Passage::Pass,
        ServerLine::Ambiguous(id) => {
            let problem =
                "a reserved member of the server's message is there twice or in another case";
            return replace_answer(bridge, id.as_ref(), "answer_ambiguous", problem);
        }
    };
    bridge.sink.check()?;
    match passage {
        Passage::Pass if !line.ends_with(b"\n") => line.push(b'\n'),
        Passage::Pass => {}
        Passage::Withheld(other) => line = other,
        Passage::Late => return Ok(true),
    }
    bridge.pulse.pass(true);
    let passed = bridge.tell_client(&line);
    bridge.pulse.pass(false);
    Ok(passed)
}

/// Drops a line of the server, and answers the request in its place where the line has an id.
fn replace_answer(
    bridge: &Bridge,
    id: Option<&Id>,
    code: &str,
    problem: &str,
) -> Result<bool, Error> {
    bridge.sink.note(format_args!("{problem}; dropped"));
    id.map_or(Ok(true), |id| bridge.end(id, BAD_GATEWAY, code, problem))
}

/// The server's output; every piece of it tells that the server lives.
struct Heard {
    from: ChildStdout,
    pulse: Arc<Pulse>,
}

impl Read for Heard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer);
        self.pulse.hear();
        read
    }
}

// === the watch ===

/// Ends requests that the server leaves without an answer in silence for longer than `timeout`, and reports
/// a server that takes nothing, and a client that has gone.
pub(super) fn watch(bridge: &Bridge, timeout: Duration) {
    let pause = (timeout / 8).clamp(Duration::from_millis(10), Duration::from_millis(250));
    loop {
        if client_has_gone(bridge, pause) {
            return bridge.report(Event::ClientGone);
        }
        let now = bridge.pulse.now();
        let is_over = |since: Duration| now.saturating_sub(since) >= timeout;
        if bridge.pulse.stuck_since().is_some_and(is_over) {
            return bridge.report(Event::ServerStuck);
        }
        let heard = bridge.pulse.heard();
        if !is_over(heard) {
            continue;
        }
        for id in bridge.gate.open(is_over) {
            let problem = format!("the server has been silent for {timeout:?}");
            // First, so that it is there before whatever the client makes of the error.
            bridge.cancel(&id);
            if let Err(error) = bridge.end(&id, GATEWAY_TIMEOUT, "timeout", &problem) {
                return bridge.report(Event::Failed(error));
            }
        }
    }
}

/// Whether nobody reads standard output any more; otherwise it takes as long as `pause`.
fn client_has_gone(bridge: &Bridge, pause: Duration) -> bool {
    let pause = Timespec::try_from(pause).unwrap_or_default();
    let mut polled = [PollFd::new(&bridge.client_end, PollFlags::empty())];
    if poll(&mut polled, Some(&pause)).is_err() {
        sleep(Duration::from_millis(10));
        return false;
    }
    polled.iter().any(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}
