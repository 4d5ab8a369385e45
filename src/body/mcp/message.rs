//! Messages from clients.

use super::{Arguments, ObjectKind};

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
