//! Why a response must not reach the client.

use crate::body::json::Unreadable;

/// A response that must not reach the client, because it may have a list that cannot be filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// What is wrong with it.
    pub cause: Cause,
    /// The id of the message, as it was sent, at most 514 bytes. `None` if it has none, if its text has escapes, or if
    /// it comes after what is wrong. In a response to a request it is that of the request.
    pub id: Option<Box<[u8]>>,
    /// What of the last piece is before this message of a stream, and may still reach the client.
    pub before: Vec<u8>,
    /// Whether a part of this message has reached the client. Then the stream must break off: nothing can stand in its
    /// place.
    pub is_torn: bool,
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It cannot be read.
    Unreadable(Unreadable),
    /// It is larger than what may be held.
    TooLarge,
    /// It has a list that the request does not ask for.
    Unasked,
}

// === impl Cause ===

impl From<Unreadable> for Cause {
    fn from(cause: Unreadable) -> Self {
        Self::Unreadable(cause)
    }
}
