//! The sessions of browsers. The cookie holds a random id; the key stays in the memory of the server.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// The longest session, in seconds. Every request of it is decided anew with the key.
pub(super) const MAX_SECS: u64 = 12 * 3600;

/// The most sessions. The one that ends first makes room.
const MAX_SESSIONS: usize = 1000;

/// The sessions, by the SHA-256 of their ids.
#[derive(Default)]
pub(super) struct Sessions {
    sessions: HashMap<[u8; 32], Session>,
}

struct Session {
    credential: String,
    ends_secs: u64,
}

impl Sessions {
    /// Begins a session. Returns its id; `None` if the system has no random numbers.
    pub(super) fn begin(&mut self, credential: String, ends_secs: u64) -> Option<String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).ok()?;
        let id = BASE64_URL_SAFE_NO_PAD.encode(random);
        if self.sessions.len() >= MAX_SESSIONS {
            let first = self.sessions.iter().min_by_key(|(_, session)| session.ends_secs);
            let first = first.map(|(id, _)| *id);
            first.and_then(|id| self.sessions.remove(&id));
        }
        self.sessions.insert(digest(&id), Session { credential, ends_secs });
        Some(id)
    }

    /// The key of a session that has not ended.
    pub(super) fn credential(&self, id: &str, now_secs: u64) -> Option<String> {
        let session = self.sessions.get(&digest(id))?;
        (now_secs < session.ends_secs).then(|| session.credential.clone())
    }

    /// Ends a session.
    pub(super) fn end(&mut self, id: &str) {
        self.sessions.remove(&digest(id));
    }
}

/// The table is searched by a digest, so how long that takes says nothing about an id.
fn digest(id: &str) -> [u8; 32] {
    Sha256::digest(id).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_is_over_or_ended() {
        let mut sessions = Sessions::default();
        let id = sessions.begin("key".to_owned(), 100).unwrap();
        assert_eq!(sessions.credential(&id, 99).as_deref(), Some("key"));
        assert_eq!(sessions.credential(&id, 100), None);
        assert_eq!(sessions.credential("", 0), None);
        sessions.end(&id);
        assert_eq!(sessions.credential(&id, 0), None);
    }

    #[test]
    fn the_number_of_sessions_is_bounded() {
        let mut sessions = Sessions::default();
        let first = sessions.begin("first".to_owned(), 1).unwrap();
        let ids: Vec<_> =
            (0..MAX_SESSIONS).map(|_| sessions.begin("key".to_owned(), 2).unwrap()).collect();
        assert_eq!(sessions.sessions.len(), MAX_SESSIONS);
        assert_eq!(sessions.credential(&first, 0), None);
        assert!(ids.iter().all(|id| sessions.credential(id, 0).is_some()));
    }
}
