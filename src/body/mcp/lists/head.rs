//! What is known of a response before its body.

use crate::body::Declared;
use crate::body::json::Unreadable;

/// What the response answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A request for a list.
    List,
    /// `server/discover`. What a server can do is not a list, but a cache must not share it either.
    Discover,
    /// A `GET`, whose stream has the messages of the server, and may repeat earlier responses.
    Stream,
    /// Any other message. No list may be in the response.
    Other,
}

/// The status and the header fields of a response that tell how to read its body.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    status: u16,
    content_type: Declared,
    content_encoding: Declared,
    is_stream: bool,
    may_be_json: bool,
}

const EVENT_STREAM: &[u8] = b"text/event-stream";
const JSON: &[u8] = b"application/json";

/// Whether a client may take a response for one of a media type. Some clients look for its name anywhere in the value.
fn may_be(media_type: &[u8], content_type: &[u8]) -> bool {
    let is_name = |part: &[u8]| part.eq_ignore_ascii_case(media_type);
    content_type.windows(media_type.len()).any(is_name)
}

// === impl Asked ===

impl Asked {
    /// What a request with this JSON-RPC method asks for.
    pub fn by(method: &str) -> Self {
        match method {
            "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
                Self::List
            }
            "server/discover" => Self::Discover,
            _ => Self::Other,
        }
    }

    /// Whether a response of a media type passes as it is, whatever else its head says.
    pub fn passes(self, content_type: &[u8]) -> bool {
        self == Self::Other && ![EVENT_STREAM, JSON].iter().any(|name| may_be(name, content_type))
    }
}

// === impl Head ===

impl Head {
    /// A head without header fields. The status is 0 if it is not known.
    pub fn new(status: u16) -> Self {
        let nothing = Declared::default();
        Self {
            status,
            content_type: nothing,
            content_encoding: nothing,
            is_stream: false,
            may_be_json: false,
        }
    }

    /// Adds a header field, its name in lower case. Others than `content-type` and `content-encoding` are ignored.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"content-type" => {
                self.content_type.add(name, value);
                self.is_stream |= may_be(EVENT_STREAM, value);
                self.may_be_json |= may_be(JSON, value);
            }
            b"content-encoding" => self.content_encoding.add(name, value),
            _ => {}
        }
    }

    /// Whether a client may read the body as server-sent events.
    pub(super) fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Whether a client may read the body as JSON.
    pub(super) fn may_be_json(&self) -> bool {
        self.may_be_json
    }

    /// Whether the body is declared as JSON in UTF-8.
    pub(super) fn is_json(&self) -> bool {
        self.content_type.check().is_ok()
    }

    pub(super) fn is_encoded(&self) -> bool {
        self.content_encoding.check() == Err(Unreadable::Encoded)
    }

    /// Whether the status is that of an error or a redirection. No client reads the body of such a response as a
    /// message unless that is JSON.
    pub(super) fn is_failure(&self) -> bool {
        !matches!(self.status, 0 | 200..=299)
    }
}
