//! Messages, and the reader of them.

use crate::body::Declared;
use crate::body::json::{Limits, Scanner, Span, Unreadable};

use super::reader::Parts;
use super::{Arguments, ObjectKind, Wanted};

/// A message from a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What kind of message it is.
    pub kind: MessageKind,
    /// The method, at least one byte; empty for a response.
    pub method: Box<str>,
    /// The id, exactly as it was sent, with the quotes of a text: at most [`MAX_ID_BYTES`]. A notification has none.
    pub id: Option<Box<[u8]>>,
    /// What the request names. `None`: its method names nothing. A request to listen may also name nothing, and so may
    /// one to subscribe or unsubscribe, which [`super::Mirrors::check`] refuses.
    pub object: Option<Objects>,
    /// The revision of MCP that the message says it is of, or that a request to initialize asks for.
    pub revision: Option<Box<str>>,
    /// Whether `params._meta` has the revision, as it must since 2026-07-28.
    pub has_meta_revision: bool,
    /// What was looked for in the arguments of a call of a tool; for any other message as if nothing had been.
    pub arguments: Arguments,
}

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A request, which has an id.
    Request,
    /// A notification: `notifications/…`, without an id.
    Notification,
    /// The response to a request of the server.
    Response,
}

/// What a request names: objects of one kind, at least one, none with an empty name.
pub type Objects = (ObjectKind, Box<[Box<str>]>);

/// The longest id, in bytes, with the quotes of a text.
pub const MAX_ID_BYTES: usize = 256;

/// The most objects that a request may name.
pub const MAX_OBJECTS: usize = 256;

/// Reads a message from a client, piece by piece. How it is cut makes no difference.
#[derive(Debug)]
pub struct MessageReader {
    scanner: Scanner,
    parts: Parts,
    id: IdBytes,
}

/// Copies the bytes of the id. The scanner tells where they were only after it has read them.
#[derive(Debug, Default)]
struct IdBytes {
    /// The last bytes that were read, as many as an id may have.
    recent: Vec<u8>,
    /// The number of bytes that were read.
    offset: u64,
    id: Option<Box<[u8]>>,
}

// === impl MessageReader ===

impl MessageReader {
    /// A reader for the body of a request. `wanted`: what to look for in the arguments of a call.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Encoded`] or [`Unreadable::UndeclaredType`] if the headers do not declare plain JSON.
    pub fn new(wanted: Wanted, declared: Declared, limits: Limits) -> Result<Self, Unreadable> {
        declared.check()?;
        let scanner = Scanner::new(limits);
        Ok(Self { scanner, parts: Parts::new(wanted), id: IdBytes::default() })
    }

    /// Reads the next bytes.
    ///
    /// # Errors
    ///
    /// Why the body cannot be read.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.scanner.feed(bytes, &mut self.parts)?;
        self.id.read(bytes, self.parts.id);
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// As [`MessageReader::feed`], and if the body has not ended, is not a message, or what it asks for is not known for
    /// certain.
    pub fn finish(mut self) -> Result<Message, Unreadable> {
        self.scanner.finish(&mut self.parts)?;
        self.parts.into_message(self.id.id)
    }
}

// === impl IdBytes ===

impl IdBytes {
    /// `at`: where the id is, once it has ended in `bytes` or right before them.
    fn read(&mut self, bytes: &[u8], at: Option<Span>) {
        if self.id.is_some() {
            return;
        }
        if let Some(span) = at {
            let first = self.offset - self.recent.len() as u64;
            let skipped = usize::try_from(span.start - first).unwrap_or(usize::MAX);
            let len = usize::try_from(span.end - span.start).unwrap_or_default();
            let known = self.recent.iter().chain(bytes);
            self.id = Some(known.skip(skipped).take(len).copied().collect());
            self.recent = Vec::new();
            return;
        }
        let last = bytes.len().saturating_sub(MAX_ID_BYTES);
        let last = bytes.get(last..).unwrap_or_default();
        let excess = (self.recent.len() + last.len()).saturating_sub(MAX_ID_BYTES);
        self.recent.drain(..excess.min(self.recent.len()));
        self.recent.extend_from_slice(last);
        self.offset += bytes.len() as u64;
    }
}
