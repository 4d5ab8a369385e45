//! The MCP sessions that a key has opened, so that ending one costs nothing.
//!
//! A request ends a session (MCP, "Session Management": `DELETE` with `Mcp-Session-Id`). A client
//! that has used up its limit should still be able to send it. Each session that a counted request
//! opened makes one such request free, so naming other sessions gives a key no free requests.

use crate::digest::sha256;
use crate::record::{Name, Record, Writer, take};

/// The most sessions that are remembered of a key. A further one replaces the oldest, which then
/// costs an ordinary request to end.
pub const MAX_SESSIONS: usize = 32;

/// The longest session id that is read, in bytes. The specification sets no limit; servers use UUIDs and JWTs.
pub const MAX_ID_BYTES: usize = 4096;

/// The sessions that one key has opened and not ended, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    open: Vec<SessionId>,
}

/// A session at its endpoint, as the first 64 bits of a SHA-256, because ids are secrets of client
/// and server. A collision changes which `DELETE` is free, not how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId([u8; 8]);

/// The name of the record of a key's sessions.
pub fn sessions_name(tenant: &str, jti: &str) -> Name {
    Name::within("s", tenant, jti)
}

// === impl Sessions ===

impl Sessions {
    /// Remembers a session that was opened.
    pub fn open(&mut self, id: SessionId) {
        self.end(id);
        if self.open.len() >= MAX_SESSIONS {
            self.open.remove(0);
        }
        self.open.push(id);
    }

    /// Whether the session is open.
    pub fn holds(&self, id: SessionId) -> bool {
        self.open.contains(&id)
    }

    /// Forgets a session, and returns whether it was open.
    pub fn end(&mut self, id: SessionId) -> bool {
        let was_open = self.holds(id);
        self.open.retain(|open| *open != id);
        was_open
    }
}

/// The number of sessions, and each of them in 8 bytes.
impl Record for Sessions {
    const VERSION: u8 = 14;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Writer<'_>) {
        record.put([u8::try_from(self.open.len()).unwrap_or(u8::MAX)]);
        for SessionId(digest) in &self.open {
            record.put(*digest);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let [count] = take(bytes)?;
        let count = Some(usize::from(count)).filter(|count| *count <= MAX_SESSIONS)?;
        let open = (0..count).map(|_| take(bytes).map(SessionId)).collect::<Option<_>>()?;
        Some(Self { open })
    }
}

// === impl SessionId ===

impl SessionId {
    /// Reads the value of `Mcp-Session-Id`: visible ASCII, 1 to [`MAX_ID_BYTES`] bytes (MCP, "Session
    /// Management"). `host` and `path` are those of the request: at another endpoint the id names no session.
    pub fn parse(value: &[u8], host: &str, path: &str) -> Option<Self> {
        let is_short = (1..=MAX_ID_BYTES).contains(&value.len());
        if !is_short || !value.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        // Neither an id nor an authority contains a space.
        let named = [value, host.as_bytes(), path.as_bytes()].join(&b' ');
        sha256(&named).first_chunk().copied().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use crate::record::{decode, encode};

    use super::{MAX_ID_BYTES, MAX_SESSIONS, SessionId, Sessions, sessions_name};

    fn id(number: usize) -> SessionId {
        parse(&number.to_string()).unwrap()
    }

    fn parse(value: &str) -> Option<SessionId> {
        SessionId::parse(value.as_bytes(), "gw.example", "/mcp")
    }

    #[test]
    fn a_session_that_was_opened_ends_once() {
        let mut sessions = Sessions::default();
        assert!(!sessions.end(id(1)));
        sessions.open(id(1));
        sessions.open(id(2));
        sessions.open(id(1));
        assert!(sessions.holds(id(1)) && !sessions.holds(id(3)));
        assert_eq!([1, 1, 2, 2].map(|number| sessions.end(id(number))), [true, false, true, false]);
    }

    #[test]
    fn the_oldest_session_is_forgotten_first() {
        let mut sessions = Sessions::default();
        (0..=MAX_SESSIONS).for_each(|number| sessions.open(id(number)));
        assert_eq!(
            [0, 1, MAX_SESSIONS].map(|number| sessions.holds(id(number))),
            [false, true, true]
        );
    }

    #[test]
    fn a_record_reads_back_at_every_size() {
        let name = sessions_name("acme", "k1");
        let mut sessions = Sessions::default();
        for number in 0..=MAX_SESSIONS {
            assert_eq!(decode(&name, &encode(&name, &sessions)), Ok(sessions.clone()));
            sessions.open(id(number));
        }
    }

    #[test]
    fn an_id_is_visible_ascii() {
        for good in ["a", "!~", &"x".repeat(MAX_ID_BYTES)] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in ["", "a b", "a\u{7f}", "\u{e9}", &"x".repeat(MAX_ID_BYTES + 1)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_id_names_a_session_at_one_endpoint() {
        let at = |host, path| SessionId::parse(b"1", host, path).unwrap();
        let ids = [at("a", "/b"), at("b", "/b"), at("a", "/c"), at("a/", "b")];
        for (number, id) in ids.iter().enumerate() {
            assert!(!ids[..number].contains(id), "{number}");
        }
    }
}
