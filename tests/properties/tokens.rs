//! Tokens and money of one key, reserved and settled in any order.

use vkey::limits::quota::{Period, Quota, QuotaScope, Unit};
use vkey::limits::tally::{Reservation, Tally};
use vkey::limits::{Amounts, Charge, Child, ChildId, Limit, Origin, Scope};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const HOUR_NS: u64 = 3_600_000_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// Reserves tokens for a request of one of the keys.
    Reserve(usize, u64),
    /// The open request at that place ends, and has used this number of tokens.
    Settle(Index, u64),
    /// The open request at that place is refused.
    GiveBack(Index),
    /// Another module overwrites the record.
    Lose,
    Wait(u64),
}

/// A request that has not ended.
struct Open {
    key: usize,
    reservation: Reservation,
    amounts: Amounts,
    /// Its record is still there.
    is_kept: bool,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_usize, 0..60_u64).prop_map(|(key, tokens)| Step::Reserve(key, tokens)),
        4 => (any::<Index>(), 0..200_u64).prop_map(|(at, actual)| Step::Settle(at, actual)),
        1 => any::<Index>().prop_map(Step::GiveBack),
        1 => Just(Step::Lose),
        2 => (0..30 * HOUR_NS).prop_map(Step::Wait),
    ]
}

fn amounts(tokens: u64) -> Amounts {
    Amounts { tokens, cost_micro_usd: tokens * 3 / 2 }
}

/// The charges of a key, and of three that are narrowed from it.
fn charges(key: usize) -> Vec<Charge> {
    let quota =
        |unit, limit, per| Limit::Quota(Quota { unit, limit, per, scope: QuotaScope::Proxy });
    let child = |number: u8| {
        let (id, exp_secs) = (ChildId([number; 16]), u64::MAX);
        (Origin::Caveat(1), Scope::Child(Child { id, exp_secs, family: None }))
    };
    let charge = |(origin, scope), limit| Charge { origin, scope, limit };
    let of_tier = (Origin::Tier, Scope::Tier);
    let tier = [
        charge(of_tier, quota(Unit::Tokens, 400, Period::Total)),
        charge(of_tier, quota(Unit::CostMicroUsd, 150, Period::Hour)),
        charge(of_tier, quota(Unit::Requests, 9, Period::Day)),
    ];
    let own = match key {
        1 => vec![charge(child(1), quota(Unit::Tokens, 50, Period::Minute))],
        2 => vec![charge(child(2), quota(Unit::Tokens, 90, Period::Day))],
        3 => vec![charge(child(3), quota(Unit::CostMicroUsd, 60, Period::Total))],
        _ => Vec::new(),
    };
    tier.into_iter().chain(own).collect()
}

/// What is used of every limit of all keys.
fn all_used(tally: &Tally, now_ns: u64) -> Vec<(Charge, u64)> {
    let all = Vec::from_iter((0..4).flat_map(charges));
    let used = tally.allowances(&all, now_ns).into_iter().map(|allowance| allowance.used);
    all.into_iter().zip(used).collect()
}

fn unit(charge: &Charge) -> Unit {
    match charge.limit {
        Limit::Quota(quota) => quota.unit,
        Limit::Rate(_) => Unit::Requests,
    }
}

proptest! {
    #![proptest_config(config())]

    /// Nobody gets in without room, nothing is refunded beyond a reservation, nothing is charged beyond what was used, and
    /// others are charged nothing. What is used in all is what the responses used, and what open requests reserved.
    #[test]
    fn tokens_are_neither_lost_nor_gained(steps in vec(step(), 1..80)) {
        let (mut tally, mut now_ns) = (Tally::default(), 1_000 * HOUR_NS);
        let mut open: Vec<Open> = Vec::new();
        let (mut settled, mut was_lost) = (0, false);
        for step in steps {
            let before = all_used(&tally, now_ns);
            let (of, least, most) = match step {
                Step::Wait(ns) => {
                    now_ns += ns;
                    continue;
                }
                Step::Lose => {
                    (tally, settled, was_lost) = (Tally::default(), 0, true);
                    open.iter_mut().for_each(|open| open.is_kept = false);
                    // A record that begins anew does so later.
                    now_ns += 1;
                    continue;
                }
                Step::Reserve(key, tokens) => {
                    let Ok(reservation) = tally.reserve(&charges(key), &amounts(tokens), now_ns)
                    else {
                        prop_assert_eq!(all_used(&tally, now_ns), before);
                        continue;
                    };
                    for allowance in tally.allowances(&charges(key), now_ns) {
                        // Debt bars only those that need some of it.
                        let is_over = allowance.used > allowance.limit;
                        prop_assert!(!is_over || tokens == 0, "{allowance:?}");
                    }
                    let amounts = amounts(tokens);
                    open.push(Open { key, reservation, amounts, is_kept: true });
                    (key, Amounts::default(), amounts)
                }
                Step::Settle(at, actual) if !open.is_empty() => {
                    let Open { key, reservation, amounts: reserved, .. } =
                        open.swap_remove(at.index(open.len()));
                    let actual = amounts(actual);
                    tally.settle(&charges(key), &reservation, (&reserved, &actual), now_ns);
                    settled += actual.tokens;
                    (key, reserved, actual)
                }
                Step::GiveBack(at) if !open.is_empty() => {
                    let Open { key, reservation, amounts: reserved, .. } =
                        open.swap_remove(at.index(open.len()));
                    tally.give_back(&charges(key), &reservation, &reserved);
                    (key, reserved, Amounts::default())
                }
                Step::Settle(..) | Step::GiveBack(_) => continue,
            };
            let after = all_used(&tally, now_ns);
            for ((charge, was), (_, is)) in before.into_iter().zip(after) {
                let unit = unit(&charge);
                match charges(of).contains(&charge) {
                    true => {
                        prop_assert!(is + least.of(unit) >= was, "{charge:?}: {was}, then {is}");
                        prop_assert!(is <= was + most.of(unit), "{charge:?}: {was}, then {is}");
                    }
                    false => prop_assert_eq!(is, was),
                }
            }
            let total = all_used(&tally, now_ns)[0].1;
            let reserved: u64 =
                open.iter().filter(|open| open.is_kept).map(|open| open.amounts.tokens).sum();
            prop_assert_eq!(total, settled + reserved, "{}", was_lost);
        }
    }
}
