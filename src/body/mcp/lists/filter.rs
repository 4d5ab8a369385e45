//! Filters the lists of a response.

use std::borrow::Cow;
use std::fmt;

use super::blocked::{Blocked, Cause};
use super::document::Document;
use super::edit::Edit;
use super::events::Stream;
use super::head::{Asked, Head};
use super::reading::Allows;
use crate::body::json::{Limits, Unreadable};

/// Filters the lists of a response as it comes.
pub struct Filter {
    handling: Handling,
    body: Body,
    document: Document,
    max_bytes: usize,
    blocked: Option<Blocked>,
}

/// What has to be done with the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It passes as it is, and need not be fed.
    Pass,
    /// Nothing of it may pass before its end. Then it passes with the edits of [`Filter::finish`].
    Hold,
    /// What [`Filter::feed`] returns passes instead of each piece, and at the end what [`Filter::finish`] returns.
    Replace,
    /// The same, but it returns each piece as it is, until a list begins that the request does not ask for.
    Watch,
}

/// The end of a response that may reach the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// What has to be changed in a body that was held.
    pub edits: Vec<Edit>,
    /// The rest of a body whose pieces were replaced.
    pub rest: Vec<u8>,
}

/// What a body is.
enum Body {
    /// Nothing that is read.
    Unread,
    /// What may have a list but cannot be read, unless it is empty.
    Refused(Unreadable),
    /// JSON, and its length, that the host holds.
    Json(usize),
    /// What is declared as a stream of events, but is white space so far or JSON.
    Held { bytes: Vec<u8>, is_json: bool },
    /// Server-sent events.
    Events(Box<Stream>),
    /// JSON of which no list is expected, and whether a piece of it has passed.
    Watched { has_begun: bool },
}

// === impl Filter ===

impl Filter {
    /// Reads a response to what was asked. `is_modern` tells that the revision of the protocol is 2026-07-28 or later:
    /// there, a list says who may share it. At most `max_bytes` of a response are held, or of one event of a stream, and
    /// the messages are within `limits`.
    pub fn new(
        asked: Asked,
        is_modern: bool,
        head: &Head,
        max_bytes: usize,
        limits: Limits,
    ) -> Self {
        let body = Body::new(asked, head, max_bytes);
        let handling = match body {
            Body::Unread => Handling::Pass,
            Body::Refused(_) | Body::Json(_) => Handling::Hold,
            Body::Held { .. } | Body::Events(_) => Handling::Replace,
            Body::Watched { .. } => Handling::Watch,
        };
        let document = Document::new(asked, is_modern, limits);
        Self { handling, body, document, max_bytes, blocked: None }
    }

    /// What has to be done with the body.
    pub fn handling(&self) -> Handling {
        self.handling
    }

    /// Whether nothing but an empty body passes.
    pub fn is_refused(&self) -> bool {
        matches!(self.body, Body::Refused(_))
    }

    /// Whether nothing of the body goes on before it ends or turns out to be a stream.
    pub fn is_undecided(&self) -> bool {
        matches!(self.body, Body::Held { .. })
    }

    /// The number of items that were removed from lists so far.
    pub fn removed(&self) -> u32 {
        self.document.reading.removed
    }

    /// Reads the next bytes of the body. `allows` tells whether the caller may use an object of a kind and name; a
    /// template of resources goes by the text of its URI template. Returns what may reach the client now. How the body
    /// is cut makes no difference to the sum.
    ///
    /// # Errors
    ///
    /// [`Blocked`] if no more of the response may reach the client. It stays so.
    pub fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        allows: Allows<'_>,
    ) -> Result<Cow<'a, [u8]>, Blocked> {
        self.check()?;
        if let Body::Unread = self.body {
            return Ok(Cow::Borrowed(bytes));
        }
        let result = self.read(bytes, allows);
        let passed = self.passed(result)?;
        Ok(if self.handling == Handling::Watch { Cow::Borrowed(bytes) } else { Cow::Owned(passed) })
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// [`Blocked`] if it must not reach the client.
    pub fn finish(&mut self, allows: Allows<'_>) -> Result<Finished, Blocked> {
        self.check()?;
        let result = self.end(allows);
        let mut edits = Vec::new();
        let result = result.map(|found| edits = found);
        let mut rest = self.passed(result)?;
        if let Body::Held { bytes, .. } = &self.body {
            rest = Edit::apply(&std::mem::take(&mut edits), bytes);
        }
        Ok(Finished { edits, rest })
    }

    fn check(&self) -> Result<(), Blocked> {
        self.blocked.clone().map_or(Ok(()), Err)
    }

    /// What of a stream goes on to the client after something was read.
    fn passed(&mut self, result: Result<(), Cause>) -> Result<Vec<u8>, Blocked> {
        let (passed, is_torn) = match &mut self.body {
            Body::Events(stream) => (std::mem::take(&mut stream.passed), stream.is_torn()),
            Body::Watched { has_begun } => (Vec::new(), *has_begun),
            _ => (Vec::new(), false),
        };
        let Err(cause) = result else { return Ok(passed) };
        let id = self.document.reading.id.take();
        let blocked = Blocked { cause, id, before: Vec::new(), is_torn };
        self.blocked = Some(blocked.clone());
        // What was held is of no use any more.
        self.body = Body::Unread;
        Err(Blocked { before: passed, ..blocked })
    }

    fn read(&mut self, bytes: &[u8], allows: Allows<'_>) -> Result<(), Cause> {
        match &mut self.body {
            Body::Refused(cause) if !bytes.is_empty() => return Err((*cause).into()),
            Body::Unread | Body::Refused(_) => {}
            Body::Json(len) => {
                *len = len.saturating_add(bytes.len());
                bound(*len, self.max_bytes)?;
                self.document.feed(bytes, allows)?;
            }
            Body::Held { bytes: held, is_json: true } => {
                held.extend_from_slice(bytes);
                bound(held.len(), self.max_bytes)?;
                self.document.feed(bytes, allows)?;
            }
            Body::Held { .. } => self.recognise(bytes, allows)?,
            Body::Watched { .. } => self.watch(bytes, allows)?,
            Body::Events(stream) => stream.feed(bytes, &mut self.document, allows)?,
        }
        Ok(())
    }

    /// Looks for a list in JSON that should have none.
    fn watch(&mut self, bytes: &[u8], allows: Allows<'_>) -> Result<(), Cause> {
        let read = self.document.feed(bytes, allows);
        if self.document.reading.is_list {
            return Err(Cause::Unasked);
        }
        // What is not JSON is no list.
        self.body = if read.is_ok() { Body::Watched { has_begun: true } } else { Body::Unread };
        Ok(())
    }

    /// Recognises what is declared as a stream of events by its first byte. Servers declare JSON so too.
    fn recognise(&mut self, bytes: &[u8], allows: Allows<'_>) -> Result<(), Cause> {
        let Body::Held { bytes: held, is_json } = &mut self.body else { return Ok(()) };
        held.extend_from_slice(bytes);
        match bytes.iter().find(|byte| !is_blank(**byte)) {
            None => bound(held.len(), self.max_bytes),
            Some(b'{' | b'[') => {
                *is_json = true;
                bound(held.len(), self.max_bytes)?;
                Ok(self.document.feed(held, allows)?)
            }
            Some(_) => {
                let held = std::mem::take(held);
                let mut stream = Box::new(Stream::new(self.max_bytes));
                let result = stream.feed(&held, &mut self.document, allows);
                self.body = Body::Events(stream);
                result
            }
        }
    }

    /// Ends the body. Returns what has to be changed in JSON.
    fn end(&mut self, allows: Allows<'_>) -> Result<Vec<Edit>, Cause> {
        match &mut self.body {
            Body::Json(_) | Body::Held { is_json: true, .. } => Ok(self.document.finish(allows)?),
            Body::Events(stream) => {
                stream.finish(&mut self.document, allows)?;
                Ok(Vec::new())
            }
            Body::Unread | Body::Refused(_) | Body::Held { .. } | Body::Watched { .. } => {
                Ok(Vec::new())
            }
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is held is not for logs.
        f.debug_struct("Filter").field("handling", &self.handling).finish_non_exhaustive()
    }
}

// === impl Body ===

impl Body {
    /// What a body is, by the head of its response.
    fn new(asked: Asked, head: &Head, max_bytes: usize) -> Self {
        let (is_other, is_encoded) = (asked == Asked::Other, head.is_encoded());
        match (head.is_stream(), head.is_json()) {
            (true, _) if is_encoded => Self::Refused(Unreadable::Encoded),
            (true, _) if is_other => Self::Events(Box::new(Stream::new(max_bytes))),
            (true, _) => Self::Held { bytes: Vec::new(), is_json: false },
            _ if is_other && !head.may_be_json() => Self::Unread,
            _ if is_other && !is_encoded => Self::Watched { has_begun: false },
            (false, true) if !is_encoded => Self::Json(0),
            (false, false) if head.is_failure() => Self::Unread,
            _ if is_encoded => Self::Refused(Unreadable::Encoded),
            _ => Self::Refused(Unreadable::UndeclaredType),
        }
    }
}

fn bound(len: usize, max_bytes: usize) -> Result<(), Cause> {
    if len > max_bytes { Err(Cause::TooLarge) } else { Ok(()) }
}

/// White space, and what a byte order mark consists of.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0xEF | 0xBB | 0xBF)
}
