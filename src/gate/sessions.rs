//! MCP sessions at the gate: a client can end a session that a counted request opened, even with its limits exhausted.

use crate::decision::Decision;
use crate::engine::KnownKey;
use crate::exchange::{Decided, Seen};
use crate::headers::{RequestHead, SESSION};
use crate::host::{Host, RecordStore, SharedData, Snapshot};
use crate::limits::sessions::{SessionId, Sessions, sessions_name};

use super::Gate;

/// Whether a request ends a session that its key opened. The session is then removed. If that cannot be determined, the
/// request is an ordinary one.
pub(super) fn ends_own_session<S: SharedData + ?Sized>(
    store: &RecordStore<'_, S>,
    key: &KnownKey,
    head: &RequestHead<'_>,
    seen: &Seen,
    decision: Decision,
) -> bool {
    if decision != Decision::Allow || !store.is_available() {
        return false;
    }
    let id = head.ended_session().and_then(|id| seen.session(id));
    id.is_some_and(|id| end_session(store, key, id))
}

/// Removes a session of a key. Returns whether it was open. If several requests end a session at once, exactly one gets
/// `true`.
pub fn end_session<S: SharedData + ?Sized>(
    store: &RecordStore<'_, S>,
    key: &KnownKey,
    id: SessionId,
) -> bool {
    let name = sessions_name(key.tenant(), key.jti());
    // An unknown session creates no record.
    let look = store.snapshot(&name).ok();
    let look =
        look.filter(|look: &Snapshot<'_, Sessions>| look.content().is_some_and(|s| s.holds(id)));
    look.is_some_and(|look| {
        store.update_from(Some(look), &name, |sessions| sessions.end(id)).unwrap_or(false)
    })
}

impl Gate {
    /// Records the session that the response to a charged request opens. Ending a session that could not be recorded is
    /// an ordinary request.
    pub(super) fn record_session(&self, host: &impl Host, request: &Decided) {
        let id = host.response_header(SESSION);
        let id = id.and_then(|id| request.seen().session(&id));
        let Some((key, id)) = request.key().zip(id) else {
            return;
        };
        let store = RecordStore::new(host, host.rules());
        let name = sessions_name(key.tenant(), key.jti());
        _ = store.update(&name, |sessions: &mut Sessions| sessions.open(id));
        self.metrics.count_retries(host, store.retries());
        self.resets.report(host, &store);
    }
}
