//! Requests that reserve tokens and money, and settle them.

use vkey::decision::Decision;
use vkey::engine::{Engine, KnownKey};
use vkey::exchange::Reservations;
use vkey::gate::Admission;
use vkey::host::{MemoryStore, RecordStore};
use vkey::limits::allowance::Allowance;
use vkey::limits::cell::{Cell, tenant_name};
use vkey::limits::quota::Unit;
use vkey::limits::{Amounts, Charge, Kind};
use vkey::record::Name;

use super::replay::Replay;
use super::search::{NOW_NS, Search};
use super::work::{RESERVED, cell_name};

const DAY_NS: u64 = 86_400_000_000_000;

/// A search over requests that settle what they use.
pub(crate) fn settled(config: &str, keys: &[String]) -> Search {
    let mut search = Search::new(config, keys, 0);
    (search.work, search.expect) = (admit_and_settle, expect_settled);
    search
}

/// What the response to a request with a key uses. Two micro-USD a token.
fn used_by(key: &KnownKey) -> Amounts {
    let tokens = key.sub().and_then(|sub| sub.parse().ok()).unwrap_or(6);
    Amounts { tokens, cost_micro_usd: 2 * tokens }
}

/// Admits a request, and ends it if it was allowed.
fn admit_then(
    (store, engine, key): (&RecordStore<'_, Replay<'_>>, &Engine, &KnownKey),
    amounts: Amounts,
    now_ns: u64,
    end: impl FnOnce(&Reservations),
) -> Decision {
    let admission = Admission::new(store, engine, key, None, now_ns).with_amounts(amounts);
    let admitted = admission.admit(Decision::Allow);
    if admitted.decision.forwards() {
        end(&admitted.reservations);
    }
    admitted.decision
}

pub(crate) fn admit_and_settle(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    admit_then((store, engine, key), RESERVED, now_ns, |reserved| {
        let admission = Admission::new(store, engine, key, None, now_ns);
        admission.settle(reserved, used_by(key)).unwrap();
    })
}

/// The same, with a response that ends a day later.
pub(crate) fn admit_and_settle_late(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    admit_then((store, engine, key), RESERVED, now_ns, |reserved| {
        let admission = Admission::new(store, engine, key, None, now_ns + DAY_NS);
        admission.settle(reserved, used_by(key)).unwrap();
    })
}

/// Settling with the mistake of writing what an earlier read makes of it.
pub(crate) fn read_then_settle(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    admit_then((store, engine, key), RESERVED, now_ns, |reserved| {
        let mut settled: Cell = store.read(&cell_name(key)).unwrap();
        let amounts = (&RESERVED, &used_by(key));
        settled.settle(key.charges(), reserved.key.as_ref().unwrap(), amounts, now_ns);
        store.update(&cell_name(key), |cell: &mut Cell| *cell = settled.clone()).unwrap();
    })
}

/// Settling with the mistake of doing it again.
pub(crate) fn settle_twice(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    admit_then((store, engine, key), RESERVED, now_ns, |reserved| {
        let admission = Admission::new(store, engine, key, None, now_ns);
        admission.settle(reserved, used_by(key)).unwrap();
        admission.settle(reserved, used_by(key)).unwrap();
    })
}

/// Settling with the mistake of charging at the end alone.
pub(crate) fn settle_without_reservation(
    store: &RecordStore<'_, Replay<'_>>,
    engine: &Engine,
    key: &KnownKey,
    now_ns: u64,
) -> Decision {
    admit_then((store, engine, key), Amounts::default(), now_ns, |reserved| {
        let admission = Admission::new(store, engine, key, None, now_ns);
        admission.settle(reserved, used_by(key)).unwrap();
    })
}

/// What was used of each quota is the sum of what the responses used, and the next window begins with what is above the
/// limit.
pub(crate) fn expect_settled(
    search: &Search,
    store: &MemoryStore,
    decisions: &[Decision],
) -> Vec<String> {
    let mut problems = Vec::new();
    if !search.count_cells(store, decisions) {
        problems.push("the counts are not those of the decisions".to_owned());
    }
    if !decisions.iter().any(|decision| decision.forwards()) {
        problems.push("nobody got in".to_owned());
    }
    for (allowance, used) in quotas(search, store, decisions, NOW_NS, |used, _| used) {
        if allowance.used != used {
            problems.push(format!("what is used is not what was settled: {allowance:?}, {used}"));
        }
    }
    for (allowance, used) in quotas(search, store, decisions, NOW_NS + DAY_NS, |used, _| used) {
        if allowance.used != used.saturating_sub(allowance.limit) {
            problems.push(format!("the debt is not what was used too much: {allowance:?}, {used}"));
        }
    }
    problems
}

/// What is used on the next day is at most what the responses used, and at least what they used above their
/// reservations. Which of the two depends on whether another one had ended when they began.
pub(crate) fn expect_settled_late(
    search: &Search,
    store: &MemoryStore,
    decisions: &[Decision],
) -> Vec<String> {
    let beyond = |used: u64, reserved: u64| used.saturating_sub(reserved);
    let most = quotas(search, store, decisions, NOW_NS + DAY_NS, |used, _| used);
    let least = quotas(search, store, decisions, NOW_NS + DAY_NS, beyond);
    let bounds = most.into_iter().zip(least);
    let wrong = bounds
        .filter(|((allowance, most), (_, least))| !(*least..=*most).contains(&allowance.used));
    wrong.map(|wrong| format!("what is used is not what was used too much: {wrong:?}")).collect()
}

/// Each quota of tokens or money at some time, with the sum of what the allowed requests that were charged to it count.
/// `count` takes what a response used and what was reserved for it.
fn quotas(
    search: &Search,
    store: &MemoryStore,
    decisions: &[Decision],
    at_ns: u64,
    count: fn(u64, u64) -> u64,
) -> Vec<(Allowance, u64)> {
    let records = RecordStore::new(store, search.host);
    let charges = |key: &KnownKey| -> Vec<(Name, Charge)> {
        let own = key.charges().iter().map(|charge| (cell_name(key), *charge));
        let name = || tenant_name(key.tenant());
        own.chain(key.tenant_charges().iter().map(|charge| (name(), *charge))).collect()
    };
    let mut found = Vec::new();
    for (name, charge) in search.keys.iter().flat_map(|key| charges(key)) {
        let Kind::Quota(unit @ (Unit::Tokens | Unit::CostMicroUsd), _) = charge.limit.kind() else {
            continue;
        };
        let shares = |key: &KnownKey| {
            charges(key).iter().any(|(other, of)| *other == name && of.scope == charge.scope)
        };
        let allowed = search.keys.iter().zip(decisions).filter(|(_, d)| d.forwards());
        let counted = allowed.filter(|(key, _)| shares(key));
        let sum = counted.map(|(key, _)| count(used_by(key).of(unit), RESERVED.of(unit))).sum();
        let cell: Cell = records.read(&name).unwrap();
        found.extend(cell.tally().allowances(&[charge], at_ns).into_iter().map(|a| (a, sum)));
    }
    found
}
