//! What a worker does with its request: like the library, or with a mistake.

use vkey::decision::{Decision, DenyReason};
use vkey::engine::{Engine, KnownKey};
use vkey::exchange::Refund;
use vkey::gate::{Admission, end_session};
use vkey::host::RecordStore;
use vkey::limits::Amounts;
use vkey::limits::cell::{Cell, key_name, tenant_name};
use vkey::limits::sessions::{SessionId, Sessions, sessions_name};
use vkey::record::Name;

use super::replay::Replay;

/// The code that a worker runs for its request, over some shared data.
pub(crate) type Work = fn(&RecordStore<'_, Replay<'_>>, &Engine, &KnownKey, u64) -> Decision;

/// What each request reserves.
pub(crate) const RESERVED: Amounts = Amounts { tokens: 10, cost_micro_usd: 20 };

pub(crate) fn admit(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    let admission = Admission::new(store, engine, key, None, now_ns).with_amounts(RESERVED);
    admission.admit(Decision::Allow).decision
}

/// The refusal of a request that was sent, and so stays charged.
pub(crate) const SENT: DenyReason = DenyReason::UpstreamPin;

/// Admission, and then a refusal before the request is forwarded, or after it was sent.
pub(crate) fn admit_and_withdraw(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    let admission = Admission::new(store, engine, key, None, now_ns).with_amounts(RESERVED);
    let admitted = admission.admit(Decision::Allow);
    let (reason, refund) = match key.jti() {
        "taken_back" => (DenyReason::NotReady, Refund::Everything),
        "sent" => (SENT, Refund::Nothing),
        _ => return admitted.decision,
    };
    if !admitted.decision.forwards() {
        return admitted.decision;
    }
    admission.withdraw(&admitted.reservations, reason, refund).unwrap();
    Decision::Deny(reason)
}

pub(crate) fn session() -> SessionId {
    SessionId::parse(b"s-1", "gw.example", "/mcp").unwrap()
}

/// The end of a session, which is free if the key has opened it.
pub(crate) fn end(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    end_once(store, engine, key, now_ns, end_session(store, key, session()))
}

/// The same, with the mistake of deciding by a read before the session ends.
pub(crate) fn read_then_end(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    let name = sessions_name(key.tenant(), key.jti());
    let is_open = store.read::<Sessions>(&name).unwrap().holds(session());
    if is_open {
        store.update(&name, |sessions: &mut Sessions| sessions.end(session())).unwrap();
    }
    end_once(store, engine, key, now_ns, is_open)
}

pub(crate) fn end_once(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
    is_free: bool,
) -> Decision {
    let admission = Admission::new(store, engine, key, None, now_ns);
    let admission = if is_free { admission.free_of_charge() } else { admission };
    admission.admit(Decision::Allow).decision
}

pub(crate) fn cell_name(key: &KnownKey) -> Name {
    key_name(key.tenant(), key.jti())
}

/// Admission with the mistake of deciding by a read before the loop.
pub(crate) fn check_then_count(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    let charges = key.charges();
    let name = cell_name(key);
    let mode = engine.settings().mode;
    let mut before: Cell = store.read(&name).unwrap();
    let decision =
        before.count(Decision::Allow, charges, &Amounts::default(), None, now_ns, mode).decision;
    let count = |cell: &mut Cell| {
        let charges = if decision.forwards() { charges } else { &[] };
        _ = cell.count(decision, charges, &Amounts::default(), None, now_ns, mode);
    };
    store.update(&name, count).unwrap();
    decision
}

/// Admission with the mistake of not refunding the key after the tenant's refusal.
pub(crate) fn keep_the_charge(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    let mode = engine.settings().mode;
    let [of_key, of_tenant] =
        [(cell_name(key), key.charges()), (tenant_name(key.tenant()), key.tenant_charges())].map(
            |(name, charges)| {
                let count = |cell: &mut Cell| {
                    cell.count(Decision::Allow, charges, &Amounts::default(), None, now_ns, mode)
                        .decision
                };
                store.update(&name, count).unwrap()
            },
        );
    if of_key.forwards() { of_tenant } else { of_key }
}
