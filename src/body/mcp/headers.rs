//! What the headers say about a message. Since 2026-07-28 they repeat what its body says, for proxies.

use crate::body::base64::Decoder;
use crate::body::json::Unreadable;

use super::{Arguments, Message, MessageKind, ObjectKind};

/// The headers of a request that repeat its body: `mcp-protocol-version`, `mcp-method` and `mcp-name`.
#[derive(Clone, Debug, Default)]
pub struct Mirrors<'a> {
    revision: Field<'a>,
    method: Field<'a>,
    name: Field<'a>,
}

/// A header.
#[derive(Clone, Debug, Default)]
struct Field<'a> {
    /// The value, without white space around it.
    value: Option<&'a [u8]>,
    is_repeated: bool,
}

/// The rules that a message follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Era {
    /// Those of the revisions before 2026-07-28, in which a client initializes a session.
    Legacy,
    /// Those of 2026-07-28. Later revisions are taken to keep them.
    Modern,
}

/// What a request does by its HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `POST`: its body is a message.
    Message,
    /// `GET`: it opens a stream of messages from the server, or resumes one.
    Stream,
    /// `DELETE`: it ends a session.
    Close,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The body cannot be read.
    Unreadable(Unreadable),
    /// The headers and the body say different things: HTTP 400, JSON-RPC code -32020.
    HeaderMismatch,
    /// A request of 2026-07-28 does not say in `params._meta` of which revision it is: HTTP 400, JSON-RPC code -32602.
    InvalidParams,
    /// A request to subscribe or unsubscribe names no resource: HTTP 404, JSON-RPC code -32601.
    MethodNotFound,
    /// MCP does not use the HTTP method, in that revision or in any, or the request asks for another protocol: HTTP 405.
    HttpMethod,
}

// === impl Fault ===

impl Fault {
    /// The HTTP status and the code of JSON-RPC that say so, if the specification has a code for it.
    pub fn status_and_code(self) -> Option<(u16, i32)> {
        match self {
            Self::Unreadable(_) => None,
            Self::HeaderMismatch => Some((400, -32020)),
            Self::InvalidParams => Some((400, -32602)),
            Self::MethodNotFound => Some((404, -32601)),
            Self::HttpMethod => Some((405, -32601)),
        }
    }
}

/// The first revision of [`Era::Modern`]. Revisions are dates, so that later ones are greater as texts.
const FIRST_MODERN: &[u8] = b"2026-07-28";

// === impl Mirrors ===

impl<'a> Mirrors<'a> {
    /// What these headers say, their names in lower case.
    pub fn read(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut mirrors = Self::default();
        headers.into_iter().for_each(|(name, value)| mirrors.add(name, value));
        mirrors
    }

    /// The revision, if it is text.
    pub fn revision(&self) -> Option<&'a str> {
        str::from_utf8(self.revision.value()?).ok()
    }

    /// Adds a header, its name in lower case. Others than the three are ignored.
    pub fn add(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"mcp-protocol-version" => self.revision.add(value),
            b"mcp-method" => self.method.add(value),
            b"mcp-name" => self.name.add(value),
            _ => {}
        }
    }

    /// The rules that a message follows, if the headers and the message say the same.
    ///
    /// # Errors
    ///
    /// [`Fault::Unreadable`], [`Fault::HeaderMismatch`], [`Fault::InvalidParams`] or [`Fault::MethodNotFound`], the
    /// first of them that applies.
    pub fn check(&self, message: &Message) -> Result<Era, Fault> {
        let revision = message.revision.as_deref().filter(|_| message.has_meta_revision);
        let revision = revision.map(str::as_bytes);
        let era = Era::of(self.revision.value()).max(Era::of(revision));
        let is_modern_request = era == Era::Modern && message.kind == MessageKind::Request;
        if era == Era::Modern && message.kind == MessageKind::Response {
            return Err(Fault::Unreadable(Unreadable::NotRpc));
        }
        let is_same = self.revision_is(revision, era)
            && self.method_is(message, is_modern_request)
            && self.name_is(message, is_modern_request);
        if !is_same {
            return Err(Fault::HeaderMismatch);
        }
        if is_modern_request && revision.is_none() {
            return Err(Fault::InvalidParams);
        }
        match &*message.method {
            "resources/subscribe" | "resources/unsubscribe" if message.object.is_none() => {
                Err(Fault::MethodNotFound)
            }
            _ => Ok(era),
        }
    }

    /// The message, as far as these headers say it: since 2026-07-28 all that decides but the id, the arguments of a tool
    /// and the objects of a few methods. `None` for an earlier revision, for such a method, and if a header is missing or
    /// repeated.
    pub fn message(&self) -> Option<Message> {
        let text = |field: &Field<'_>| {
            let value = field.value().filter(|_| !field.is_repeated)?;
            str::from_utf8(value).ok().map(Box::<str>::from)
        };
        let revision = text(&self.revision)?;
        let method = text(&self.method)?;
        if Era::of(Some(revision.as_bytes())) == Era::Legacy {
            return None;
        }
        let kind = match &*method {
            "tools/call" => Some(ObjectKind::Tool),
            "prompts/get" => Some(ObjectKind::Prompt),
            "resources/read" => Some(ObjectKind::Resource),
            "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "server/discover" => None,
            method if method.starts_with("notifications/") => None,
            _ => return None,
        };
        let name = || self.name.value().filter(|_| !self.name.is_repeated);
        let named = |kind| Some((kind, [decoded(name()?)?].into()));
        let object = match kind {
            Some(kind) => Some(named(kind)?),
            None => None,
        };
        let is_notification = method.starts_with("notifications/");
        Some(Message {
            kind: if is_notification { MessageKind::Notification } else { MessageKind::Request },
            method,
            id: None,
            object,
            revision: Some(revision),
            has_meta_revision: true,
            arguments: Arguments::default(),
        })
    }

    fn revision_is(&self, in_body: Option<&[u8]>, era: Era) -> bool {
        let is_same = match (self.revision.value(), in_body) {
            (None, _) => era == Era::Legacy,
            (Some(_), None) => true,
            (Some(header), Some(body)) => header == body,
        };
        is_same && !self.revision.is_repeated
    }

    fn method_is(&self, message: &Message, is_needed: bool) -> bool {
        let is_same = match self.method.value() {
            None => !is_needed,
            Some(header) => {
                message.kind != MessageKind::Response && header == message.method.as_bytes()
            }
        };
        is_same && !self.method.is_repeated
    }

    /// The header is needed if the specification says so. It also does for tasks (SEP-2663), but clients leave it out
    /// there.
    fn name_is(&self, message: &Message, is_modern_request: bool) -> bool {
        let is_same = match (self.name.value(), &message.object) {
            (None, _) => {
                let method = &*message.method;
                let is_named = matches!(method, "tools/call" | "prompts/get" | "resources/read");
                !(is_modern_request && is_named)
            }
            (Some(_), None) => false,
            (Some(header), Some((_, names))) => names.iter().all(|name| is_name(header, name)),
        };
        is_same && !self.name.is_repeated
    }
}

// === impl Field ===

impl<'a> Field<'a> {
    fn add(&mut self, value: &'a [u8]) {
        self.is_repeated |= self.value.is_some();
        self.value = Some(value.trim_ascii());
    }

    fn value(&self) -> Option<&'a [u8]> {
        self.value
    }
}

// === impl Era ===

impl Era {
    /// Of a revision. Without one it is the era in which the revision need not be said.
    fn of(revision: Option<&[u8]>) -> Self {
        match revision {
            Some(revision) if revision >= FIRST_MODERN => Self::Modern,
            _ => Self::Legacy,
        }
    }
}

// === impl Purpose ===

impl Purpose {
    /// Of a request with an HTTP method. `mirrors`: what its headers say.
    ///
    /// # Errors
    ///
    /// [`Fault::HttpMethod`] for other methods, and for all but `POST` since 2026-07-28; [`Fault::HeaderMismatch`] if
    /// the revision is not certain.
    pub fn of<'a>(method: &str, mirrors: impl FnOnce() -> Mirrors<'a>) -> Result<Self, Fault> {
        let purpose = match method {
            "POST" => return Ok(Self::Message),
            "GET" => Self::Stream,
            "DELETE" => Self::Close,
            _ => return Err(Fault::HttpMethod),
        };
        let Mirrors { revision, .. } = mirrors();
        match Era::of(revision.value()) {
            _ if revision.is_repeated => Err(Fault::HeaderMismatch),
            Era::Legacy => Ok(purpose),
            Era::Modern => Err(Fault::HttpMethod),
        }
    }
}

/// Whether a header has this name, as it is or in base64 between markers, which have one spelling.
fn is_name(header: &[u8], name: &str) -> bool {
    decoded(header).is_some_and(|said| *said == *name)
}

/// The name in a header: as it is, or in base64 between markers.
fn decoded(header: &[u8]) -> Option<Box<str>> {
    let encoded = header.strip_prefix(b"=?base64?").and_then(|text| text.strip_suffix(b"?="));
    let Some(encoded) = encoded else { return str::from_utf8(header).ok().map(Box::from) };
    let mut decoder = Decoder::default();
    let mut bytes = Vec::new();
    let is_decoded = decoder.decode(encoded, &mut bytes).is_ok() && decoder.is_complete();
    let name = String::from_utf8(bytes).ok().filter(|_| is_decoded && is_canonical(encoded))?;
    Some(name.into())
}

/// Whether the bits of the last character that are not used are 0 (RFC 4648, section 3.5).
fn is_canonical(base64: &[u8]) -> bool {
    match base64 {
        [.., last, b'=', b'='] => b"AQgw".contains(last),
        [.., last, b'='] => b"AEIMQUYcgkosw048".contains(last),
        _ => true,
    }
}
