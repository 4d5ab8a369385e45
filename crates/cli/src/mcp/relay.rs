//! The threads of a session: its two directions, and the watchdog.

use std::io::{self, BufRead as _, BufReader, Read, Stdin, stdin};
use std::process::{ChildStderr, ChildStdout};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use vkey::body::json::Limits;

use super::super::error::Error;
use super::super::input::{InputProblem, Place};
use super::super::lines::{Line, Lines};
use super::super::text::escape_line;
use super::activity::Activity;
use super::id::Id;
use super::line_ends::escaped;
use super::message::{Content, ServerLine};
use super::refusal::{self, BAD_GATEWAY, GATEWAY_TIMEOUT, INVALID_REQUEST};
use super::scan::Scan;
use super::session::{Overdue, Received, ResponseVerdict, Verdict};
use super::stdio_proxy::{Event, StdioProxy};

/// The size of a read buffer.
const BUFFER_BYTES: usize = 64 * 1024;

/// The longest piece of the server's standard error that is forwarded at once.
const MAX_PIECE_BYTES: u64 = 8 * 1024;

/// The message for the client if the server has ended.
pub(super) const GONE: &str = "the server has ended without a response";

// === from the client ===

/// Forwards the client's messages until standard input ends.
pub(super) fn from_client(proxy: &StdioProxy, max_bytes: usize) {
    let reader = BufReader::with_capacity(BUFFER_BYTES, stdin());
    let event = match pass_messages(proxy, Lines::new(reader, max_bytes), max_bytes) {
        Ok(()) => Event::ClientDone,
        Err(error) => Event::Failed(error),
    };
    // In this order, so that the server's end counts as a consequence.
    proxy.report(event);
    proxy.end_input();
}

fn pass_messages(
    proxy: &StdioProxy,
    mut lines: Lines<BufReader<Stdin>>,
    max_bytes: usize,
) -> Result<(), Error> {
    let unreadable = |error| Place::Stdin.error(InputProblem::Io(error));
    let limits = proxy.session.limits();
    loop {
        let mut scan = Scan::default();
        let Some(line) = lines.next_or(|piece| scan.feed(piece)).map_err(unreadable)? else {
            return Ok(());
        };
        let line = match &line {
            Line::Whole(line) if line.trim_ascii().is_empty() => continue,
            Line::Whole(line) => Some(&**line),
            Line::TooLong => None,
        };
        let received = match line.map(without_end) {
            Some(body) => received(body, limits),
            None => {
                let content =
                    Content::InvalidMessage(format!("longer than {max_bytes} bytes").into());
                Received { body: None, content, message: None, scan }
            }
        };
        if !pass_message(proxy, line, &received)? {
            return Ok(());
        }
    }
}

fn received(body: &[u8], limits: Limits) -> Received<'_> {
    let (content, message) = Content::read(body, limits);
    let scan = match content {
        Content::InvalidJson(_) | Content::InvalidMessage(_) => Scan::of(body),
        _ => Scan::default(),
    };
    Received { body: Some(body), content, message, scan }
}

/// Evaluates a line and forwards it, or replies to it; `false` if the client is gone.
fn pass_message(
    proxy: &StdioProxy,
    line: Option<&[u8]>,
    message: &Received<'_>,
) -> Result<bool, Error> {
    let verdict = proxy.session.evaluate(message)?;
    if let Err(error) = proxy.sink.check() {
        if let (Verdict::Refuse(_), Content::Request(id, _)) = (&verdict, &message.content) {
            proxy.send_to_client(&refusal::of_failure(id));
        }
        return Err(error.into());
    }
    match (verdict, line) {
        (Verdict::Forward, Some(line)) => Ok(send(proxy, line, &message.content)?),
        (Verdict::Forward, None) => Ok(true),
        (Verdict::Refuse(refused), _) => {
            // A server that no longer reads needs no response.
            refused.server.iter().for_each(|answer| _ = proxy.send_to_server(answer));
            Ok(refused.client.is_none_or(|answer| proxy.send_to_client(&answer)))
        }
    }
}

/// Sends a message to the server. If it has ended, a request gets an error.
fn send(proxy: &StdioProxy, line: &[u8], content: &Content) -> Result<bool, Error> {
    if proxy.send_to_server(&escaped(line)).is_ok() {
        return Ok(true);
    }
    match content {
        Content::Request(id, _) => proxy.end(id, BAD_GATEWAY, "server_gone", GONE),
        _ => Ok(true),
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

// === from the server ===

/// Forwards the server's messages until its output ends.
pub(super) fn from_server(proxy: &StdioProxy, output: ChildStdout, max_bytes: usize) {
    let heard = Heard { from: output, activity: Arc::clone(&proxy.activity) };
    let reader = BufReader::with_capacity(BUFFER_BYTES, heard);
    if let Err(error) = pass_responses(proxy, Lines::new(reader, max_bytes), max_bytes) {
        proxy.report(Event::Failed(error));
    }
    // The rest of its output is discarded.
    proxy.report(Event::ServerDone);
}

fn pass_responses(
    proxy: &StdioProxy,
    mut lines: Lines<BufReader<Heard>>,
    max_bytes: usize,
) -> Result<(), Error> {
    loop {
        let mut scan = Scan::default();
        let passed = match lines.next_or(|piece| scan.feed(piece)) {
            Ok(Some(Line::Whole(line))) => pass_response(proxy, line)?,
            Ok(Some(Line::TooLong)) => {
                let problem = format!(
                    "the server's message is longer than {max_bytes} bytes (--max-bytes allows more)"
                );
                drop_message(proxy, &scan, "answer_too_large", &problem)?
            }
            // A read error counts as the end.
            Ok(None) | Err(_) => return Ok(()),
        };
        if !passed {
            return Ok(());
        }
    }
}

/// Forwards a line of the server; `false` if the client is gone.
fn pass_response(proxy: &StdioProxy, mut line: Vec<u8>) -> Result<bool, Error> {
    let _passing = proxy.activity.pass();
    let Ok(read) = ServerLine::read(&line) else {
        return drop_line(proxy, &line);
    };
    let verdict = match read {
        ServerLine::Response(id) => {
            let verdict = proxy.session.response(&id, without_end(&line))?;
            proxy.sink.check().inspect_err(|_| {
                proxy.send_to_client(&refusal::of_failure(&id));
            })?;
            verdict
        }
        ServerLine::Request(id) => {
            proxy.session.record_server_request(id);
            ResponseVerdict::Pass
        }
        ServerLine::Progress(token) => {
            proxy.session.progress(&token);
            ResponseVerdict::Pass
        }
        ServerLine::Other => ResponseVerdict::Pass,
        ServerLine::Ambiguous(id) => {
            let problem = "the server's message has a reserved member twice or in another case, or both a method and a result";
            return replace_response(proxy, id.as_ref(), "answer_ambiguous", problem);
        }
    };
    proxy.sink.check()?;
    match verdict {
        ResponseVerdict::Pass if !line.ends_with(b"\n") => line.push(b'\n'),
        ResponseVerdict::Pass => {}
        ResponseVerdict::Instead(other) => line = other,
        ResponseVerdict::Late => return Ok(true),
    }
    Ok(proxy.send_to_client(&line))
}

/// Drops a line of the server that is not a message. Prints it, unless a request waits for it.
fn drop_line(proxy: &StdioProxy, line: &[u8]) -> Result<bool, Error> {
    let scan = Scan::of(line);
    if scan.answered().or(scan.request()).is_some() {
        let problem = "the server's message is not JSON";
        return drop_message(proxy, &scan, "answer_unreadable", problem);
    }
    if !line.trim_ascii().is_empty() {
        let line = String::from_utf8_lossy(line);
        let note =
            "the server has written a line to its standard output that is not a message; dropped";
        proxy.sink.note(format_args!("{note}: {}", escape_line(line.trim())));
    }
    Ok(true)
}

/// Drops a line of the server that cannot be read. A request that it was to answer gets an error, and so does
/// a request of the server.
fn drop_message(proxy: &StdioProxy, scan: &Scan, code: &str, problem: &str) -> Result<bool, Error> {
    if let Some(id) = scan.request() {
        // The server may be waiting until we read more, so this must not wait for it.
        proxy.try_send_to_server(&refusal::error(Some(id), INVALID_REQUEST, problem));
    }
    replace_response(proxy, scan.answered(), code, problem)
}

/// Drops a line of the server. If it has an id, that request gets an error instead.
fn replace_response(
    proxy: &StdioProxy,
    id: Option<&Id>,
    code: &str,
    problem: &str,
) -> Result<bool, Error> {
    proxy.sink.note(format_args!("{problem}; dropped"));
    id.map_or(Ok(true), |id| proxy.end(id, BAD_GATEWAY, code, problem))
}

/// The server's output. Every read records that the server is alive.
struct Heard {
    from: ChildStdout,
    activity: Arc<Activity>,
}

impl Read for Heard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer);
        self.activity.hear();
        read
    }
}

/// Forwards the server's standard error by lines, until it ends. It is always read, even if our standard
/// error has no reader.
pub(super) fn from_server_stderr(proxy: &StdioProxy, errors: ChildStderr) {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, errors);
    loop {
        let mut line = Vec::new();
        // A read error counts as the end.
        let read = reader.by_ref().take(MAX_PIECE_BYTES).read_until(b'\n', &mut line);
        if read.is_ok_and(|bytes| bytes > 0) {
            // An audit line starts on a new line.
            line.extend((!line.ends_with(b"\n")).then_some(b'\n'));
            proxy.sink.pass_on(line);
        } else {
            return proxy.report(Event::ServerQuiet);
        }
    }
}

// === the watchdog ===

/// How long requests may wait.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Without any sign of the server about the request.
    pub(super) timeout: Duration,
    /// For the response, even if the server reports progress.
    pub(super) max_time: Duration,
}

/// Ends requests that exceed their time, and reports a server that has stopped reading and a client that is
/// gone.
pub(super) fn watch(proxy: &StdioProxy, bounds: Bounds) {
    let Bounds { timeout, max_time } = bounds;
    let least = timeout.min(max_time);
    let pause = (least / 8).clamp(Duration::from_millis(10), Duration::from_millis(250));
    loop {
        if client_has_gone(proxy, pause) {
            return proxy.report(Event::ClientGone);
        }
        if let Some((silent, stuck)) = proxy.activity.stuck()
            && let Some((_, bound)) =
                [(silent, timeout), (stuck, max_time)].into_iter().find(|(time, most)| time >= most)
        {
            return proxy.report(Event::ServerStuck(bound));
        }
        for (id, overdue) in proxy.session.overdue(timeout, max_time) {
            if let Err(error) = end_overdue(proxy, &id, overdue, bounds) {
                return proxy.report(Event::Failed(error));
            }
        }
    }
}

fn end_overdue(
    proxy: &StdioProxy,
    id: &Id,
    overdue: Overdue,
    bounds: Bounds,
) -> Result<bool, Error> {
    let Bounds { timeout, max_time } = bounds;
    let (code, problem) = match overdue {
        Overdue::Timeout => {
            ("timeout", format!("the server has sent nothing about the request for {timeout:?}"))
        }
        Overdue::MaxTime => {
            ("max_time", format!("the server has not responded within {max_time:?}"))
        }
    };
    // First, so that the server has it before whatever the client does about the error.
    proxy.cancel(id);
    // And this before the client can end the session because of the error.
    proxy.report(Event::RequestOverdue);
    proxy.end(id, GATEWAY_TIMEOUT, code, &problem)
}

/// Whether standard output has no reader any more; if it has one, takes as long as `pause`.
fn client_has_gone(proxy: &StdioProxy, pause: Duration) -> bool {
    let pause = Timespec::try_from(pause).unwrap_or_default();
    let mut polled = [PollFd::new(&proxy.client_end, PollFlags::empty())];
    if poll(&mut polled, Some(&pause)).is_err() {
        sleep(Duration::from_millis(10));
        return false;
    }
    polled.iter().any(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}
