//! The lists of MCP servers: a client sees what its key may use.

use std::ops::Range;

use crate::body::Dialect;
use crate::body::mcp::ObjectKind;
use crate::body::mcp::lists::{Asked, Blocked, Cause, Edit, Filter, Handling, Head};
use crate::bytes::same_bytes;
use crate::decision::DenyReason;
use crate::exchange::Filtering;
use crate::host::{Action, Body, Host, HostError, Level};
use crate::reply::{Refusal, Rpc, reply};

use super::holding::MAX_PART_BYTES;
use super::{Gate, show};

/// No cache may show what one key sees to another (RFC 9111, section 5.2.2).
const CACHE_CONTROL: (&str, &str) = ("cache-control", "private, no-store");

const JSON: (&str, &str) = ("content-type", "application/json");

const CONTENT_TYPE: &[u8] = b"content-type";
const CONTENT_ENCODING: &[u8] = b"content-encoding";

/// What goes on of a response.
enum Passed {
    /// The piece as it is.
    Same,
    /// Other bytes in its place.
    Instead(Vec<u8>),
}

/// What the host shows of a response that is filtered.
struct Piece<'a, H, S> {
    host: &'a H,
    filter: &'a mut Filter,
    /// Whether the client may see an object.
    sees: S,
    /// The bytes that were not read, in all that the host shows.
    new_bytes: Range<u64>,
    is_last: bool,
}

impl Gate {
    /// Begins to filter a response. Returns `None` if it passes as it is.
    pub(super) fn begin_filtering(
        &self,
        host: &impl Host,
        mut filtering: Box<Filtering>,
    ) -> Option<Box<Filtering>> {
        let head = read_head(host, filtering.asked)?;
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow().ok());
        let Some(engine) = engine else {
            // Without a filter, an error takes the place of the body.
            return Some(filtering);
        };
        let body = &engine.settings().body;
        let max_bytes = usize::try_from(body.max_list_bytes).unwrap_or(usize::MAX);
        let Filtering { asked, is_modern, .. } = *filtering;
        if asked != Asked::Other {
            let (name, value) = CACHE_CONTROL;
            show(host, name, value);
        }
        let filter = Filter::new(asked, is_modern, &head, max_bytes, body.limits());
        if filter.handling() == Handling::Pass {
            return None;
        }
        let remove = |name| _ = host.remove_response_header(name);
        // What comes is shorter, or an error in JSON.
        remove("content-length");
        if filter.handling() != Handling::Watch {
            ["etag", "content-digest", "repr-digest", "digest"].into_iter().for_each(remove);
        }
        if filter.is_refused() {
            remove("content-encoding");
            let (name, value) = JSON;
            show(host, name, value);
        }
        filtering.filter = Some(filter);
        Some(filtering)
    }

    /// Filters a part of a response. `bytes`: how much the host shows: all that it holds.
    pub(super) fn filter_body(
        &self,
        host: &impl Host,
        filtering: &mut Filtering,
        bytes: u64,
        is_last: bool,
    ) -> Action {
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow().ok());
        let Some(engine) = engine else {
            return self.cut(host, filtering, bytes, None);
        };
        let Filtering { viewer, filter: Some(filter), read_bytes, is_cut: false, .. } = filtering
        else {
            return self.cut(host, filtering, bytes, None);
        };
        let is_held = filter.handling() == Handling::Hold;
        // At the end a host may show nothing more.
        let new_bytes = *read_bytes..bytes.max(*read_bytes);
        let end = new_bytes.end;
        let piece = Piece { host, filter, sees: viewer.sees(&engine), new_bytes, is_last };
        let filtered = if is_held { piece.hold() } else { piece.replace() };
        if is_held || matches!(filtered, Ok(None)) {
            *read_bytes = end;
        }
        match filtered {
            Ok(None) => Action::Pause,
            Ok(Some(Passed::Same)) => Action::Continue,
            Ok(Some(Passed::Instead(body))) => replace(host, filtering, bytes, &body),
            Err(blocked) => self.cut(host, filtering, bytes, blocked),
        }
    }

    /// Ends a response that ends by trailers.
    pub(super) fn end_filtering(&self, host: &impl Host, filtering: &mut Filtering) -> Action {
        let bytes = filtering.read_bytes;
        match filtering.handling() {
            // The host still holds what it could not replace.
            None => Action::Pause,
            Some(Handling::Hold) if !filtering.is_cut => {
                self.filter_body(host, filtering, bytes, true)
            }
            Some(Handling::Replace) if bytes > 0 => self.filter_body(host, filtering, bytes, true),
            Some(_) => Action::Continue,
        }
    }

    /// Ends a response of which nothing more may reach the client. An error takes the place of the message that is not
    /// readable, if nothing of that has gone on.
    #[cold]
    fn cut(
        &self,
        host: &impl Host,
        filtering: &mut Filtering,
        bytes: u64,
        blocked: Option<Blocked>,
    ) -> Action {
        let is_stream = filtering.handling() == Some(Handling::Replace);
        let mut body = Vec::new();
        if !std::mem::replace(&mut filtering.is_cut, true) {
            let cause = blocked.as_ref().map(|blocked| blocked.cause);
            host.log(Level::Warn, &["vkey: a list is withheld: ", words(cause)].concat());
            self.metrics.count_blocked_list(host);
            let (before, id, is_torn) = match blocked {
                Some(Blocked { before, id, is_torn, .. }) => (before, id, is_torn),
                None => (Vec::new(), None, false),
            };
            body = before;
            if !is_torn {
                let error = error(id);
                let (begin, end) = if is_stream { ("data: ", "\n\n") } else { ("", "") };
                body.extend_from_slice([begin, &error, end].concat().as_bytes());
            }
        }
        replace(host, filtering, bytes, &body)
    }
}

/// Reads as much of the head of a response as decides whether it passes as it is; `None` if it does.
fn read_head(host: &impl Host, asked: Asked) -> Option<Head> {
    let content_type = host.response_header(CONTENT_TYPE);
    if asked.passes(content_type.as_deref().unwrap_or_default()) {
        return None;
    }
    // Only the body of a response that should have a list depends on it.
    let status = (asked != Asked::Other).then(|| host.response_status()).flatten();
    let status = status.and_then(|status| u16::try_from(status).ok());
    let mut head = Head::new(status.unwrap_or(0));
    let encoding = host.response_header(CONTENT_ENCODING);
    for (name, value) in [(CONTENT_TYPE, content_type), (CONTENT_ENCODING, encoding)] {
        if let Some(value) = value {
            head.add(name, &value);
        }
    }
    Some(head)
}

// === impl Piece ===

impl<H: Host, S: Fn(ObjectKind, &str) -> bool> Piece<'_, H, S> {
    /// Reads what is new. `pass` is called with each part, and with what may go on in its place.
    fn read(&mut self, mut pass: impl FnMut(&[u8], &[u8])) -> Result<(), Option<Blocked>> {
        let Range { start: mut read, end } = self.new_bytes;
        while read < end {
            let part = part(self.host, read, end).ok_or(None)?;
            read = read.saturating_add(u64::try_from(part.len()).unwrap_or(0));
            let passed = self.filter.feed(&part, &self.sees).map_err(Some)?;
            pass(&part, &passed);
        }
        Ok(())
    }

    /// Reads more of a body that the host holds; at its end, what goes on of it. `None`: the host holds on.
    fn hold(mut self) -> Result<Option<Passed>, Option<Blocked>> {
        self.read(|_, _| ())?;
        if !self.is_last {
            return Ok(None);
        }
        let edits = self.filter.finish(&self.sees).map_err(Some)?.edits;
        if edits.is_empty() {
            return Ok(Some(Passed::Same));
        }
        let bytes = self.new_bytes.end;
        let mut body = Vec::new();
        while u64::try_from(body.len()).unwrap_or(u64::MAX) < bytes {
            let read = u64::try_from(body.len()).unwrap_or(u64::MAX);
            body.extend_from_slice(&part(self.host, read, bytes).ok_or(None)?);
        }
        Ok(Some(Passed::Instead(Edit::apply(&edits, &body))))
    }

    /// Reads a piece of a stream, and says what goes on in its place. `None`: the host holds on, because it may be no
    /// stream.
    fn replace(mut self) -> Result<Option<Passed>, Option<Blocked>> {
        let mut passed = Vec::new();
        let mut is_same = self.new_bytes.start == 0;
        let read = self.read(|part, piece| {
            is_same &= same_bytes(piece, part);
            passed.extend_from_slice(piece);
        });
        if let Err(blocked) = read {
            let with_passed = |blocked: Blocked| {
                let before = [passed, blocked.before].concat();
                Blocked { before, ..blocked }
            };
            return Err(blocked.map(with_passed));
        }
        if !self.is_last && self.filter.is_undecided() {
            // Trailers may end it, and then only what the host holds can be replaced.
            return Ok(None);
        }
        if self.is_last {
            let mut rest = self.filter.finish(&self.sees).map_err(Some)?.rest;
            is_same &= rest.is_empty();
            passed.append(&mut rest);
        }
        Ok(Some(if is_same { Passed::Same } else { Passed::Instead(passed) }))
    }
}

/// The part of a response body from `start`; `None` if the host contradicts itself.
fn part(host: &impl Host, start: u64, end: u64) -> Option<Vec<u8>> {
    let max_len = usize::try_from(end.checked_sub(start)?).unwrap_or(usize::MAX);
    let max_len = max_len.min(MAX_PART_BYTES);
    let part = host.body(Body::Response, usize::try_from(start).ok()?, max_len)?;
    (1..=max_len).contains(&part.len()).then_some(part)
}

/// Replaces what the host shows of a response. If the host cannot do so, nothing of it goes on.
fn replace(host: &impl Host, filtering: &mut Filtering, bytes: u64, body: &[u8]) -> Action {
    let bytes = bytes.max(filtering.read_bytes);
    let len = usize::try_from(bytes).unwrap_or(usize::MAX);
    let Err(HostError(status)) = host.set_body(Body::Response, 0, len, body) else {
        // From here on it holds nothing.
        filtering.read_bytes = 0;
        return Action::Continue;
    };
    let text =
        format!("vkey: a response is kept back: it could not be filtered: host status {status}");
    host.log(Level::Error, &text);
    filtering.is_cut = true;
    filtering.filter = None;
    Action::Pause
}

/// The error in place of a list that cannot be judged: 502, because the server is at fault.
fn error(id: Option<Box<[u8]>>) -> String {
    let rpc = Some(Box::new(Rpc { id, fault: Some((502, 502)), ..Rpc::default() }));
    let dialect = Dialect::JsonRpc;
    let refusal = Refusal { dialect, rpc, message: Some(WITHHELD), ..Refusal::default() };
    reply(DenyReason::BodyUnreadable, refusal).body.into_owned()
}

const WITHHELD: &str = "the response may have a list, and the gate cannot read it";

fn words(cause: Option<Cause>) -> &'static str {
    match cause {
        Some(Cause::Unreadable(unreadable)) => unreadable.message(),
        Some(Cause::TooLarge) => "it is larger than body.max_list_bytes",
        Some(Cause::Unasked) => "the request does not ask for one",
        None => "the host does not show the response",
    }
}
