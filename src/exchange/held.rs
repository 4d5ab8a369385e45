//! A request whose headers are held until its body has been read.

use std::fmt;
use std::rc::Rc;

use crate::body::json::Unreadable;
use crate::body::mcp::MessageReader;
use crate::body::request::RequestReader;
use crate::engine::KnownKey;
use crate::headers::Headers;

use super::content::Content;
use super::seen::{Earlier, Seen};

/// A request that its key, its headers and its path allow, and whose body decides the rest. Nothing of it has been sent or
/// counted.
#[derive(Debug)]
pub struct Held {
    asked: Asked,
    reader: BodyReader,
    /// How much of the body was read, in bytes.
    read_bytes: u64,
    /// Whether the host has called back about the body.
    has_come: bool,
    /// What the host showed as the size of the request when it was held, if it must still prove that it shows bodies.
    shown_bytes: Option<u64>,
    /// How often it was found that more has come than the host calls back about.
    looks: u32,
}

/// Reads the body of a held request.
#[derive(Debug)]
pub enum BodyReader {
    /// That of an AI request.
    Ai(Box<RequestReader>),
    /// That of a message of MCP.
    Mcp(Box<MessageReader>),
}

/// What is known of a held request without its body.
pub struct Asked {
    /// What it said of itself.
    pub seen: Box<Seen>,
    /// Its key.
    pub key: Rc<KnownKey>,
    /// Its headers, once they are kept. They are not for logs.
    headers: Headers,
    /// The id of its context, once it is held.
    pub context: u32,
}

/// What a body says, once all of it was read.
#[derive(Debug)]
pub struct ReadBody {
    /// What it says.
    pub content: Content,
    /// Its size in bytes.
    pub bytes: u64,
}

// === impl Asked ===

impl Asked {
    /// A request of a key.
    pub fn new(seen: Box<Seen>, key: Rc<KnownKey>) -> Self {
        Self { seen, key, headers: Headers::default(), context: 0 }
    }

    /// Keeps the headers that were judged.
    pub fn keep(&mut self, headers: Headers) {
        self.headers = headers;
    }

    /// What is known of the request if its headers are these now. A filter before this one may have changed them.
    pub fn look_again(self, headers: &Headers) -> Earlier {
        Earlier { seen: self.seen, has_same_headers: self.headers == *headers }
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("seen", &self.seen).finish_non_exhaustive()
    }
}

// === impl Held ===

impl Held {
    /// Holds a request. `shown_bytes`: the size of the request as the host shows it, if the host must still prove that it
    /// shows the bodies of held requests.
    pub fn new(asked: Asked, reader: BodyReader) -> Self {
        Self { asked, reader, read_bytes: 0, has_come: false, shown_bytes: None, looks: 0 }
    }

    /// Keeps the headers that were judged.
    pub fn keep(&mut self, headers: Headers) {
        self.asked.keep(headers);
    }

    /// Remembers the context of the request.
    pub fn set_context(&mut self, context: u32) {
        self.asked.context = context;
    }

    /// Watches whether the host shows the body. `shown_bytes`: the size of the request, as the host shows it now.
    pub fn watch(&mut self, shown_bytes: u64) {
        self.shown_bytes = Some(shown_bytes);
    }

    /// Whether the host has called back about the body.
    pub fn has_come(&self) -> bool {
        self.has_come
    }

    /// Looks whether more of the request has come than the host calls back about. `shown_bytes`: as in [`Held::watch`].
    /// Returns how often that was found.
    pub fn look(&mut self, shown_bytes: u64) -> u32 {
        if !self.has_come && self.shown_bytes.is_some_and(|before| shown_bytes > before) {
            self.looks = self.looks.saturating_add(1);
        }
        self.looks
    }

    /// How much of the body was read, in bytes.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Records that the host has called back about the body, of which it holds this much.
    pub(super) fn receive(&mut self, bytes: u64) {
        self.has_come = true;
        self.asked.seen.hold_body(bytes);
    }

    /// Reads the next part of the body.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] as soon as it is known that the body cannot be read.
    pub fn feed(&mut self, part: &[u8]) -> Result<(), Unreadable> {
        let bytes = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.read_bytes = self.read_bytes.saturating_add(bytes);
        match &mut self.reader {
            BodyReader::Ai(reader) => reader.feed(part),
            BodyReader::Mcp(reader) => reader.feed(part),
        }
    }

    /// The name of the known member at which the body cannot be read, if it is one.
    pub fn member(&self) -> Option<&'static str> {
        match &self.reader {
            BodyReader::Ai(reader) => reader.member(),
            BodyReader::Mcp(_) => None,
        }
    }

    /// Ends the body. Returns the request, and what its body says.
    pub fn finish(self) -> (Asked, Result<ReadBody, Unreadable>) {
        let bytes = self.read_bytes;
        let content = match self.reader {
            BodyReader::Ai(reader) => reader.finish().map(Content::Ai),
            BodyReader::Mcp(reader) => reader.finish().map(Content::Mcp),
        };
        (self.asked, content.map(|content| ReadBody { content, bytes }))
    }

    /// The request without its body, which is not read further.
    pub fn give_up(self) -> Asked {
        self.asked
    }
}
