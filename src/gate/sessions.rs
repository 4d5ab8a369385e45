//! MCP sessions at the gate: one that a counted request has opened can be ended whatever is used up.

use crate::decision::Decision;
use crate::exchange::{Decided, Seen};
use crate::headers::{RequestHead, SESSION};
use crate::host::{Host, RecordStore, SharedData, Snapshot};
use crate::key::Key;
use crate::limits::sessions::{SessionId, Sessions, sessions_name};

use super::Gate;

/// Whether a request ends a session that its key has opened; from then on it has not. Where that cannot be told
/// the request is one as any other.
pub(super) fn ends_own_session<S: SharedData + ?Sized>(
    store: &RecordStore<'_, S>,
    key: &Key,
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

/// Forgets a session of a key; whether it was open. Of all who end one at once, one has ended it.
pub fn end_session<S: SharedData + ?Sized>(
    store: &RecordStore<'_, S>,
    key: &Key,
    id: SessionId,
) -> bool {
    let claims = key.claims();
    let name = sessions_name(&claims.tenant, &claims.jti);
    // A session that is not there makes no record.
    let look = store.snapshot(&name).ok();
    let look =
        look.filter(|look: &Snapshot<'_, Sessions>| look.content().is_some_and(|s| s.holds(id)));
    look.is_some_and(|look| {
        store.update_from(Some(look), &name, |sessions| sessions.end(id)).unwrap_or(false)
    })
}

impl Gate {
    /// Records the session that the response to a charged request opens. A session that cannot be recorded takes
    /// an ordinary request to end.
    pub(super) fn record_session(&self, host: &impl Host, request: &Decided) {
        let id = host.response_header(SESSION);
        let id = id.and_then(|id| request.seen().session(&id));
        let Some((key, id)) = request.key().zip(id) else {
            return;
        };
        let claims = key.claims();
        let store = RecordStore::new(host, host.rules());
        let name = sessions_name(&claims.tenant, &claims.jti);
        _ = store.update(&name, |sessions: &mut Sessions| sessions.open(id));
        self.metrics.count_retries(host, store.retries());
        self.resets.report(host, &store);
    }
}
