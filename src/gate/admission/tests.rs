//! What a request comes to in both cells, one request at a time.

use std::cell::{Cell as Counter, RefCell};
use std::collections::BTreeSet;

use crate::config::Config;
use crate::host::{HostError, MemoryStore, Rules, WriteError};
use crate::key::Key;
use crate::key::keyring::{Ring, RingState, Secret};
use crate::key::token::{Unverified, mint};
use crate::limits::cell::tenant_name;
use crate::time::NANOS_PER_SEC;

use super::*;

const SECRET: &str = "Admission-1-counts-and-limits";

const NOW_NS: u64 = 1_790_000_000 * NANOS_PER_SEC;

fn engine(members: &str) -> Engine {
    let config = format!(r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}], {members}}}"#);
    let config = Config::parse(config.as_bytes()).unwrap();
    Engine::new(config.compile(|_| Some(SECRET.to_owned())).unwrap())
}

fn key(engine: &Engine, jti: &str) -> KnownKey {
    let secret = Secret::parse(SECRET).unwrap();
    let ring = Ring::new("main", &secret, RingState::Active, None).unwrap();
    let kid = ring.kid_at(0).unwrap();
    let claims = format!(r#"{{"jti":"{jti}","tenant":"acme","iat":1780000000,"exp":1900000000}}"#);
    let token = mint(&ring.signing_key(&kid).unwrap(), &kid, claims.as_bytes());
    let keyring = crate::key::keyring::Keyring::new(vec![ring], 0);
    engine.prepare(Key::verify(Unverified::parse(token.as_bytes()).unwrap(), &keyring).unwrap())
}

/// Shared data that records the name of each record that is read or written.
struct Recorded<'a> {
    store: &'a MemoryStore,
    names: RefCell<Vec<String>>,
}

impl SharedData for Recorded<'_> {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.names.borrow_mut().push(name.to_owned());
        self.store.shared_data(name)
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        self.names.borrow_mut().push(name.to_owned());
        self.store.set_shared_data(name, record, cas)
    }
}

/// Admits requests until one is refused; how many got in, and why no more did.
fn fill(shared: &MemoryStore, engine: &Engine, key: &KnownKey) -> (u32, DenyReason) {
    for number in 0..1_000 {
        let store = RecordStore::new(shared, shared.rules());
        let admission = Admission::new(&store, engine, key, None, NOW_NS);
        if let Decision::Deny(reason) = admission.admit(Decision::Allow).decision {
            return (number, reason);
        }
    }
    panic!("no limit")
}

fn remaining(shared: &MemoryStore, key: &KnownKey) -> Vec<u64> {
    let store = RecordStore::new(shared, shared.rules());
    let cell: Cell = store.read(key.cell_name()).unwrap();
    let allowances = cell.tally().allowances(key.charges(), NOW_NS);
    allowances.iter().map(Allowance::remaining).collect()
}

#[test]
fn what_the_tenant_refuses_is_charged_to_no_key() {
    let shared = MemoryStore::new(Rules::Envoy);
    let engine = engine(
        r#""tiers": {"default": {"rate": {"requests": 9, "per": "1h"},
                                 "quotas": [{"requests": 9, "per": "total"}]}},
           "tenants": {"acme": {"quotas": [{"requests": 3, "per": "day"}]}}"#,
    );
    assert_eq!(fill(&shared, &engine, &key(&engine, "a")), (3, DenyReason::TenantQuota));
    assert_eq!(remaining(&shared, &key(&engine, "a")), [6, 6]);
    assert_eq!(fill(&shared, &engine, &key(&engine, "b")), (0, DenyReason::TenantQuota));
    assert_eq!(remaining(&shared, &key(&engine, "b")), [9, 9]);
}

#[test]
fn what_is_taken_back_is_charged_to_nobody() {
    let shared = MemoryStore::new(Rules::Nginx);
    let engine = engine(
        r#""tiers": {"default": {"quotas": [{"requests": 1, "per": "total"}]}},
           "tenants": {"acme": {"rate": {"requests": 1, "per": "1h"}}}"#,
    );
    let key = key(&engine, "a");
    let store = RecordStore::new(&shared, shared.rules());
    let admission = Admission::new(&store, &engine, &key, None, NOW_NS);
    for _ in 0..3 {
        let admitted = admission.admit(Decision::Allow);
        assert_eq!(admitted.decision, Decision::Allow);
        admission
            .withdraw(&admitted.reservations, DenyReason::NotReady, Refund::Everything)
            .unwrap();
    }
    assert_eq!(fill(&shared, &engine, &key).0, 1);
}

/// The key has its charge back already when the tenant only writes down that it has no room.
#[test]
fn nothing_is_given_back_twice() {
    let shared = MemoryStore::new(Rules::Envoy);
    let engine = engine(
        r#""mode": "shadow",
           "tiers": {"default": {"quotas": [{"requests": 9, "per": "total"}]}},
           "tenants": {"acme": {"quotas": [{"requests": 1, "per": "total"}]}}"#,
    );
    let key = key(&engine, "a");
    let store = RecordStore::new(&shared, shared.rules());
    let admission = Admission::new(&store, &engine, &key, None, NOW_NS);
    assert_eq!(admission.admit(Decision::Allow).decision, Decision::Allow);
    let shadowed = admission.admit(Decision::Allow);
    assert_eq!(shadowed.decision, Decision::Shadow(DenyReason::TenantQuota));
    assert_eq!(remaining(&shared, &key), [8]);
    admission.withdraw(&shadowed.reservations, DenyReason::NotReady, Refund::Everything).unwrap();
    assert_eq!(remaining(&shared, &key), [8]);
}

/// A configuration that comes into force finds what was used under the one before, whichever limits it
/// changes.
#[test]
fn a_new_configuration_refills_nothing() {
    let tier = |limits: &str| engine(&format!(r#""tiers": {{"default": {{{limits}}}}}"#));
    let quota = r#""quotas": [{"requests": 5, "per": "total"}]"#;
    let shared = MemoryStore::new(Rules::Envoy);
    let fill = |engine: &Engine| fill(&shared, engine, &key(engine, "a"));
    assert_eq!(fill(&tier(quota)).0, 5);
    assert_eq!(fill(&tier(quota)).0, 0);
    let with_rate = format!(r#"{quota}, "rate": {{"requests": 3, "per": "1h"}}"#);
    assert_eq!(fill(&tier(&with_rate)).0, 0);
    let more =
        r#""quotas": [{"requests": 7, "per": "total"}], "rate": {"requests": 9, "per": "1h"}"#;
    assert_eq!(fill(&tier(more)), (2, DenyReason::Quota));
    // Not even one under which there are no limits: it counts, and forgets nothing.
    let none = tier("");
    let key = key(&none, "a");
    let store = RecordStore::new(&shared, shared.rules());
    let admission = Admission::new(&store, &none, &key, None, NOW_NS);
    assert_eq!(admission.admit(Decision::Allow).decision, Decision::Allow);
    assert_eq!(fill(&tier(quota)).0, 0);
}

/// Whatever becomes of a request, and whatever limits its key has.
#[test]
fn a_tenant_without_limits_has_no_cell() {
    let quota = r#"{"quotas": [{"requests": 1, "per": "total"}]}"#;
    let of_key = ["vkey/k/acme/a"];
    for (members, cells) in [
        (r#""tenants": {}"#.to_owned(), &of_key as &[_]),
        (r#""tenants": {"acme": {}}"#.to_owned(), &of_key),
        (format!(r#""tiers": {{"default": {quota}}}"#), &of_key),
        (format!(r#""tenants": {{"globex": {quota}}}"#), &of_key),
        (format!(r#""tenants": {{"acme": {quota}}}"#), &["vkey/k/acme/a", "vkey/t/acme"]),
    ] {
        let shared = MemoryStore::new(Rules::Envoy);
        let recorded = Recorded { store: &shared, names: RefCell::default() };
        let engine = engine(&members);
        let key = key(&engine, "a");
        let store = RecordStore::new(&recorded, shared.rules());
        let admission = Admission::new(&store, &engine, &key, None, NOW_NS);
        let first = admission.admit(Decision::Allow);
        let path = DenyReason::Path;
        for decision in [Decision::Allow, Decision::Deny(path), Decision::Shadow(path)] {
            admission.admit(decision);
        }
        admission.withdraw(&first.reservations, DenyReason::NotReady, Refund::Everything).unwrap();
        let called = recorded.names.into_inner();
        let called = BTreeSet::from_iter(called.iter().map(String::as_str));
        assert_eq!(Vec::from_iter(called), cells, "{members}");
    }
}

/// The cell stays as it was while there are no limits, and is used again with the next.
#[test]
fn a_tenant_whose_limits_return_has_used_what_it_had() {
    let tenant = |limits: &str| engine(&format!(r#""tenants": {{"acme": {{{limits}}}}}"#));
    let quota = r#""quotas": [{"requests": 2, "per": "total"}]"#;
    let shared = MemoryStore::new(Rules::Envoy);
    let fill = |engine: &Engine| fill(&shared, engine, &key(engine, "a"));
    assert_eq!(fill(&tenant(quota)), (2, DenyReason::TenantQuota));
    let none = tenant("");
    let key = key(&none, "a");
    let store = RecordStore::new(&shared, shared.rules());
    let cell = |store: &RecordStore<'_, _>| store.read::<Cell>(&tenant_name("acme")).unwrap();
    let before = cell(&store);
    let admission = Admission::new(&store, &none, &key, None, NOW_NS);
    assert_eq!(admission.admit(Decision::Allow).decision, Decision::Allow);
    assert_eq!(cell(&store), before);
    assert_eq!(fill(&tenant(quota)), (0, DenyReason::TenantQuota));
    assert_eq!((before.seen(), cell(&store).seen()), (3, 4));
}

#[test]
fn allowances_are_worked_out_only_for_responses_that_show_them() {
    for (headers, allowed) in [("always", 2), ("refused", 0), ("never", 0)] {
        let shared = MemoryStore::new(Rules::Envoy);
        let engine = engine(&format!(
            r#""limits": {{"headers": "{headers}"}},
               "tiers": {{"default": {{"quotas": [{{"requests": 9, "per": "total"}}]}}}},
               "tenants": {{"acme": {{"quotas": [{{"requests": 1, "per": "total"}}]}}}}"#
        ));
        let key = key(&engine, "a");
        let store = RecordStore::new(&shared, shared.rules());
        let admission = Admission::new(&store, &engine, &key, None, NOW_NS);
        let count = |decision| admission.admit(decision).allowances.len();
        // The message of a refusal names the limit.
        let counts =
            [Decision::Allow, Decision::Allow, Decision::Deny(DenyReason::Path)].map(count);
        assert_eq!(counts, [allowed, 2, 0], "{headers}");
    }
}

#[test]
fn a_host_without_counts_lets_nothing_limited_in() {
    let shared = MemoryStore::new(Rules::Bare);
    let decide = |engine: &Engine, decision| {
        let key = key(engine, "a");
        let store = RecordStore::new(&shared, Rules::Bare);
        Admission::new(&store, engine, &key, None, NOW_NS).admit(decision).decision
    };
    let limit = r#"{"rate": {"requests": 1, "per": "1h"}}"#;
    let not_ready = Decision::Deny(DenyReason::NotReady);
    for limited in [
        engine(&format!(r#""tiers": {{"default": {limit}}}"#)),
        engine(&format!(r#""tenants": {{"acme": {limit}}}"#)),
    ] {
        assert_eq!(decide(&limited, Decision::Allow), not_ready);
        let path = Decision::Deny(DenyReason::Path);
        assert_eq!(decide(&limited, path), path);
    }
    assert_eq!(decide(&engine(r#""tiers": {}"#), Decision::Allow), Decision::Allow);
}

fn amounts(tokens: u64) -> Amounts {
    Amounts { tokens, cost_micro_usd: 2 * tokens }
}

/// What is used of the limits of a key and of its tenant.
fn used(store: &RecordStore<'_, MemoryStore>, key: &KnownKey, now_ns: u64) -> Vec<u64> {
    let of = |name, charges| -> Vec<Allowance> {
        store.read::<Cell>(name).unwrap().tally().allowances(charges, now_ns)
    };
    let of_tenant = key.tenant_cell_name().map(|name| of(name, key.tenant_charges()));
    let all = of(key.cell_name(), key.charges()).into_iter().chain(of_tenant.into_iter().flatten());
    all.map(|allowance| allowance.used).collect()
}

const TOKENS_AND_MONEY: &str = r#"
    "tiers": {"default": {"quotas": [{"requests": 9, "per": "day"}, {"tokens": 100, "per": "month"}]}},
    "tenants": {"acme": {"quotas": [{"tokens": 150, "per": "day"}, {"cost_usd": "0.000200", "per": "total"}]}}"#;

#[test]
fn tokens_and_money_are_reserved_and_settled_in_both_cells() {
    let shared = MemoryStore::new(Rules::Envoy);
    let engine = engine(TOKENS_AND_MONEY);
    let store = RecordStore::new(&shared, shared.rules());
    let [a, b] = ["a", "b"].map(|jti| key(&engine, jti));
    let admission = |key| Admission::new(&store, &engine, key, None, NOW_NS);
    let admit = |key, tokens| admission(key).with_amounts(amounts(tokens)).admit(Decision::Allow);
    let first = admit(&a, 60);
    assert_eq!((first.decision, used(&store, &a, NOW_NS)), (Decision::Allow, vec![1, 60, 60, 120]));
    // The tenant has 150 tokens, and money for 100.
    let refused = admit(&b, 41);
    assert_eq!(refused.decision, Decision::Deny(DenyReason::TenantQuota));
    assert_eq!(used(&store, &b, NOW_NS), [0, 0, 60, 120]);
    let exceeded = refused.exceeded.unwrap();
    assert_eq!(exceeded.until_ns, None);
    assert_eq!(refused.reservations.amounts, amounts(41));
    let of_key = admit(&a, 41);
    assert_eq!(of_key.decision, Decision::Deny(DenyReason::Quota));
    let second = admit(&b, 40);
    assert_eq!(
        (second.decision, used(&store, &b, NOW_NS)),
        (Decision::Allow, vec![1, 40, 100, 200])
    );
    admission(&a).settle(&first.reservations, amounts(15)).unwrap();
    assert_eq!(used(&store, &a, NOW_NS), [1, 15, 55, 110]);
    admission(&b).settle(&second.reservations, Amounts { tokens: 45, cost_micro_usd: 80 }).unwrap();
    assert_eq!(used(&store, &b, NOW_NS), [1, 45, 60, 110]);
    // What is refused after all is charged to nobody.
    let third = admit(&a, 10);
    let refund = (DenyReason::NotReady, Refund::Everything);
    admission(&a).withdraw(&third.reservations, refund.0, refund.1).unwrap();
    assert_eq!(used(&store, &a, NOW_NS), [1, 15, 60, 110]);
}

#[test]
fn a_request_without_tokens_needs_no_room_for_them() {
    let shared = MemoryStore::new(Rules::Envoy);
    let engine = engine(TOKENS_AND_MONEY);
    let store = RecordStore::new(&shared, shared.rules());
    let key = key(&engine, "a");
    let admission =
        |tokens| Admission::new(&store, &engine, &key, None, NOW_NS).with_amounts(amounts(tokens));
    assert_eq!(admission(100).admit(Decision::Allow).decision, Decision::Allow);
    assert_eq!(admission(1).admit(Decision::Allow).decision, Decision::Deny(DenyReason::Quota));
    let without = admission(0).admit(Decision::Allow);
    assert_eq!(without.decision, Decision::Allow);
    // The fields are about requests, and the counts about everything.
    let allowances: Vec<_> = without.allowances.iter().map(|a| a.name.to_string()).collect();
    let names =
        ["tier_requests_day", "tier_tokens_month", "tenant_tokens_day", "tenant_cost_total"];
    assert_eq!(allowances, names);
    let field = crate::limits::allowance::rate_limit_field(&without.allowances).unwrap();
    assert!(field.starts_with("\"tier_requests_day\";r=7;t=") && !field.contains(','), "{field}");
}

/// Shared data that refuses to write a record of this name.
struct Stuck<'a> {
    store: &'a MemoryStore,
    name: &'static str,
    reads: Counter<u32>,
}

impl SharedData for Stuck<'_> {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.reads.set(self.reads.get() + 1);
        self.store.shared_data(name)
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        match name == self.name {
            true => Err(WriteError::CasMismatch),
            false => self.store.set_shared_data(name, record, cas),
        }
    }
}

#[test]
fn what_cannot_be_settled_stays_reserved() {
    for (stuck, expected) in [
        ("vkey/k/acme/a", vec![1, 60, 15, 30]),
        ("vkey/t/acme", vec![1, 15, 60, 120]),
        ("", vec![1, 15, 15, 30]),
    ] {
        let shared = MemoryStore::new(Rules::Envoy);
        let engine = engine(TOKENS_AND_MONEY);
        let key = key(&engine, "a");
        let store = RecordStore::new(&shared, shared.rules());
        let admission = Admission::new(&store, &engine, &key, None, NOW_NS);
        let admitted = admission.with_amounts(amounts(60)).admit(Decision::Allow);
        let stuck = Stuck { store: &shared, name: stuck, reads: Counter::new(0) };
        let failing = RecordStore::new(&stuck, shared.rules());
        let admission = Admission::new(&failing, &engine, &key, None, NOW_NS);
        // There is nothing to write.
        admission.settle(&admitted.reservations, amounts(60)).unwrap();
        assert_eq!(stuck.reads.get(), 0);
        let settled = admission.settle(&admitted.reservations, amounts(15));
        assert_eq!(settled.is_err(), !stuck.name.is_empty());
        assert_eq!(used(&store, &key, NOW_NS), expected, "{}", stuck.name);
    }
}

/// A request that ends in the next month, under a configuration that has changed in between.
#[test]
fn a_request_is_settled_by_the_limits_that_it_was_admitted_under() {
    let shared = MemoryStore::new(Rules::Nginx);
    let store = RecordStore::new(&shared, shared.rules());
    let old = engine(TOKENS_AND_MONEY);
    let key_of = |engine: &Engine| key(engine, "a");
    let old_key = key_of(&old);
    let admission = Admission::new(&store, &old, &old_key, None, NOW_NS);
    let [first, second] = [40, 50].map(|tokens| {
        let admission = Admission::new(&store, &old, &old_key, None, NOW_NS);
        admission.with_amounts(amounts(tokens)).admit(Decision::Allow)
    });
    let new = engine(
        r#""tiers": {"default": {"quotas": [{"tokens": 20, "per": "month"}, {"cost_usd": "1", "per": "total"}]}}"#,
    );
    let new_key = key_of(&new);
    assert_eq!(used(&store, &new_key, NOW_NS), [90, 0]);
    admission.settle(&first.reservations, amounts(10)).unwrap();
    assert_eq!(used(&store, &new_key, NOW_NS), [60, 0]);
    let next_month = NOW_NS + 31 * 86_400 * NANOS_PER_SEC;
    let late = Admission::new(&store, &old, &old_key, None, next_month);
    late.settle(&second.reservations, amounts(63)).unwrap();
    assert_eq!(used(&store, &new_key, next_month), [13, 0]);
    assert_eq!(used(&store, &old_key, next_month), [0, 13, 13, 146]);
}

#[test]
fn what_no_limit_was_charged_for_is_not_settled() {
    let shared = MemoryStore::new(Rules::Envoy);
    let engine = engine(&format!(r#""mode": "shadow", {TOKENS_AND_MONEY}"#));
    let key = key(&engine, "a");
    let store = RecordStore::new(&shared, shared.rules());
    let admission =
        |tokens| Admission::new(&store, &engine, &key, None, NOW_NS).with_amounts(amounts(tokens));
    let shadowed = admission(101).admit(Decision::Allow);
    assert_eq!(shadowed.decision, Decision::Shadow(DenyReason::Quota));
    let free = admission(5).free_of_charge().admit(Decision::Allow);
    for admitted in [shadowed, free] {
        admission(0).settle(&admitted.reservations, amounts(50)).unwrap();
        assert_eq!(used(&store, &key, NOW_NS), [0; 4]);
    }
}
