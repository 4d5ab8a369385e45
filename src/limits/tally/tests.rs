use super::*;
use crate::limits::Origin;
use crate::limits::gcra::Rate;
use crate::limits::quota::QuotaScope;
use crate::limits::{CHILD_ID_BYTES, ChildId, FamilyId};
use crate::record::{Record as _, Writer};

const NO: &Amounts = &Amounts { tokens: 0, cost_micro_usd: 0 };

const SEC: u64 = crate::time::NANOS_PER_SEC;
const DAY: u64 = 86_400 * SEC;

fn charge(origin: Origin, scope: Scope, limit: Limit) -> Charge {
    Charge { origin, scope, limit }
}

fn per_hour(requests: u32) -> Limit {
    Limit::Rate(Rate::new(requests, 3600, requests).unwrap())
}

fn a_day(limit: u64) -> Limit {
    Limit::Quota(Quota { unit: Unit::Requests, limit, per: Period::Day, scope: QuotaScope::Proxy })
}

fn in_all(limit: u64) -> Limit {
    Limit::Quota(Quota {
        unit: Unit::Requests,
        limit,
        per: Period::Total,
        scope: QuotaScope::Proxy,
    })
}

fn of_tier(limit: Limit) -> Charge {
    charge(Origin::Tier, Scope::Tier, limit)
}

fn child(number: usize) -> Scope {
    child_until(number, u64::MAX)
}

fn child_until(number: usize, exp_secs: u64) -> Scope {
    let mut id = [0; CHILD_ID_BYTES];
    id[..8].copy_from_slice(&number.to_le_bytes());
    Scope::Child(Child { id: ChildId(id), exp_secs, family: None })
}

/// A child by a caveat after the first one of a family.
fn of_later(family: u8, number: usize, limit: Limit) -> Charge {
    let Scope::Child(child) = child(number) else { panic!() };
    let family = Some(FamilyId::from_bits(u64::from(family) << 8));
    charge(Origin::Caveat(2), Scope::Child(Child { family, ..child }), limit)
}

fn of_child(number: usize, limit: Limit) -> Charge {
    charge(Origin::Caveat(1), child(number), limit)
}

/// How many of `tries` requests are let in.
fn let_in(tally: &mut Tally, charges: &[Charge], now_ns: u64, tries: u32) -> u32 {
    (0..tries).map(|_| u32::from(tally.reserve(charges, NO, now_ns).is_ok())).sum()
}

#[test]
fn all_limits_are_charged_or_none() {
    let mut tally = Tally::default();
    let charges = [of_tier(per_hour(5)), of_tier(a_day(2))];
    assert_eq!(let_in(&mut tally, &charges, 0, 10), 2);
    let left: Vec<u64> = tally.allowances(&charges, 0).iter().map(Allowance::remaining).collect();
    assert_eq!(left, [3, 0]);
}

#[test]
fn the_limit_that_has_room_last_is_named() {
    let mut tally = Tally::default();
    for charges in
        [[of_tier(per_hour(1)), of_tier(a_day(1))], [of_tier(a_day(1)), of_tier(per_hour(1))]]
    {
        let_in(&mut tally, &charges, 0, 1);
        let exceeded = tally.reserve(&charges, NO, 0).unwrap_err();
        assert_eq!((exceeded.reason, exceeded.until_ns), (DenyReason::Quota, Some(DAY)));
        let kind = Kind::Quota(Unit::Requests, Period::Day);
        let name = LimitName { origin: Origin::Tier, kind };
        assert_eq!(exceeded.exhausted, Exhausted::Limit(name));
    }
    let never = [of_tier(per_hour(1)), of_tier(in_all(0))];
    assert_eq!(tally.reserve(&never, NO, 0).unwrap_err().until_ns, None);
}

#[test]
fn what_is_given_back_was_never_charged() {
    let mut tally = Tally::default();
    let charges = [of_tier(per_hour(3)), of_tier(a_day(3)), of_child(1, in_all(3))];
    let_in(&mut tally, &charges, 7, 1);
    let mut before = tally.clone();
    let reservation = tally.reserve(&charges, NO, 7).unwrap();
    assert_ne!(tally, before);
    tally.give_back(&charges, &reservation, NO);
    before.undone += 1;
    assert_eq!(tally, before);
}

#[test]
fn a_clock_that_goes_back_opens_nothing() {
    let mut tally = Tally::default();
    let charges = [of_tier(per_hour(2)), of_tier(a_day(2))];
    assert_eq!(let_in(&mut tally, &charges, 5 * DAY, 5), 2);
    for now_ns in [4 * DAY, 0, 5 * DAY] {
        assert_eq!(let_in(&mut tally, &charges, now_ns, 5), 0, "{now_ns}");
    }
    assert_eq!(let_in(&mut tally, &charges, 6 * DAY, 5), 2);
}

/// Something else moved the clock on; what was full by the earlier time is not full again.
#[test]
fn what_was_forgotten_stays_so_when_the_clock_goes_back() {
    let mut tally = Tally::default();
    assert_eq!(let_in(&mut tally, &[of_tier(per_hour(2))], 0, 5), 2);
    assert_eq!(let_in(&mut tally, &[of_tier(a_day(9))], 2 * 3600 * SEC, 1), 1);
    assert_eq!(let_in(&mut tally, &[of_tier(per_hour(2))], 0, 5), 2);
    assert_eq!(let_in(&mut tally, &[of_tier(per_hour(2))], 2 * 3600 * SEC, 5), 0);
}

#[test]
fn children_have_their_own_and_share_their_parents() {
    let mut tally = Tally::default();
    let of = |number| [of_tier(in_all(10)), of_child(number, in_all(4))];
    assert_eq!(let_in(&mut tally, &of(1), 0, 9), 4);
    assert_eq!(let_in(&mut tally, &of(2), 0, 9), 4);
    assert_eq!(let_in(&mut tally, &of(3), 0, 9), 2);
    assert_eq!(let_in(&mut tally, &[of_tier(in_all(10))], 0, 9), 0);
}

#[test]
fn a_full_table_refuses_and_forgets_nothing() {
    let mut tally = Tally::default();
    for number in 0..MAX_CHILD_LIMITS / 2 {
        let charges = [of_child(number, per_hour(1)), of_child(number, a_day(3))];
        assert_eq!(let_in(&mut tally, &charges, 0, 9), 1);
    }
    let one_more = [of_tier(in_all(9)), of_child(99, a_day(1))];
    let exceeded = tally.reserve(&one_more, NO, 0).unwrap_err();
    let hour = 3600 * SEC;
    assert_eq!((exceeded.reason, exceeded.until_ns), (DenyReason::ChildQuota, Some(hour)));
    assert_eq!(exceeded.exhausted, Exhausted::ChildLimits);
    // The parent goes on, and those that are in use are as used as before.
    assert_eq!(let_in(&mut tally, &[of_tier(in_all(9))], 0, 1), 1);
    for number in 0..MAX_CHILD_LIMITS / 2 {
        let charges = [of_child(number, a_day(3))];
        assert_eq!(tally.allowances(&charges, 0)[0].remaining(), 2, "{number}");
    }
    // What has come back takes no room.
    assert_eq!(let_in(&mut tally, &one_more, hour, 9), 1);
    assert_eq!(let_in(&mut tally, &[of_child(0, a_day(3))], hour, 9), 2);
}

#[test]
fn a_child_that_needs_more_room_than_there_is_takes_none() {
    let mut tally = Tally::default();
    for number in 1..MAX_CHILD_LIMITS {
        let_in(&mut tally, &[of_child(number, a_day(1))], 0, 1);
    }
    let two = [of_child(99, a_day(1)), of_child(99, per_hour(1))];
    assert_eq!(let_in(&mut tally, &two, 0, 1), 0);
    assert_eq!(let_in(&mut tally, &two[..1], 0, 1), 1);
}

/// A worker whose clock is a little behind is refused by the tenant when another has charged the key
/// already. While the key is busy, nothing of its charge is lost.
#[test]
fn what_is_given_back_late_was_never_charged_to_a_busy_rate() {
    let per_second = Limit::Rate(Rate::new(1000, 1, 100).unwrap());
    let charges = [of_tier(per_second)];
    let mut tally = Tally::default();
    let_in(&mut tally, &charges, 0, 50);
    let mut without = tally.clone();
    let held = tally.reserve(&charges, NO, 0).unwrap();
    let later = 5 * SEC / 1000;
    for tally in [&mut tally, &mut without] {
        let_in(tally, &charges, later, 3);
    }
    tally.give_back(&charges, &held, NO);
    assert_eq!(tally.allowances(&charges, later), without.allowances(&charges, later));
}

/// The backlog that the second left behind was partly the first's, which has been taken back already.
#[test]
fn what_is_given_back_after_another_is_not_given_back_twice() {
    let charges = [of_tier(per_hour(2))];
    let mut tally = Tally::default();
    let first = tally.reserve(&charges, NO, 0).unwrap();
    let second = tally.reserve(&charges, NO, 1).unwrap();
    tally.give_back(&charges, &first, NO);
    let later = 40 * 60 * SEC;
    let mut without = Tally::default();
    for tally in [&mut tally, &mut without] {
        assert_eq!(let_in(tally, &charges, later, 1), 1);
    }
    tally.give_back(&charges, &second, NO);
    assert_eq!(tally.allowances(&charges, later), without.allowances(&charges, later));
}

#[test]
fn a_child_that_is_over_takes_no_room_and_gets_no_more() {
    let mut tally = Tally::default();
    let of = |number| [charge(Origin::Caveat(1), child_until(number, 600), in_all(9))];
    for number in 0..MAX_CHILD_LIMITS {
        assert_eq!(let_in(&mut tally, &of(number), 0, 1), 1);
    }
    let exceeded = tally.reserve(&[of_child(99, in_all(9))], NO, 0).unwrap_err();
    assert_eq!(exceeded.until_ns, Some(600 * SEC));
    assert_eq!(let_in(&mut tally, &[of_child(99, in_all(9))], 600 * SEC, 1), 1);
    assert_eq!(tally.quotas.len(), 1);
    // By a clock that went back it is good again; what it used is forgotten all the same.
    let exceeded = tally.reserve(&of(1), NO, 599 * SEC).unwrap_err();
    assert_eq!(exceeded.reason, DenyReason::KeyExpired);
}

#[test]
fn a_child_is_told_when_all_the_places_it_lacks_are_free() {
    let mut tally = Tally::default();
    for number in 0..MAX_CHILD_LIMITS {
        let until = if number < 2 { 100 * (number as u64 + 1) } else { 900 };
        let charges = [charge(Origin::Caveat(1), child_until(number, until), in_all(9))];
        let_in(&mut tally, &charges, 0, 1);
    }
    let two = [of_child(99, in_all(9)), of_child(99, per_hour(1))];
    assert_eq!(tally.reserve(&two, NO, 0).unwrap_err().until_ns, Some(200 * SEC));
    assert_eq!(tally.reserve(&two[..1], NO, 0).unwrap_err().until_ns, Some(100 * SEC));
}

#[test]
fn a_narrowed_key_takes_no_places_of_others() {
    let mut tally = Tally::default();
    let later = |family, number| [of_later(family, number, in_all(9))];
    let try_all = |tally: &mut Tally, family: u8, first: usize| -> u32 {
        (first..first + 100).map(|number| let_in(tally, &later(family, number), 0, 1)).sum()
    };
    // Whoever holds a narrowed key makes as many children of it as they like.
    assert_eq!(try_all(&mut tally, 1, 1_000), 16);
    assert_eq!(try_all(&mut tally, 2, 2_000), 16);
    assert_eq!(try_all(&mut tally, 3, 3_000), 0);
    // Those that are in use go on, and the first caveats have all the rest.
    assert_eq!(let_in(&mut tally, &later(1, 1_000), 0, 1), 1);
    let firsts = (0..100).map(|number| let_in(&mut tally, &[of_child(number, in_all(9))], 0, 1));
    assert_eq!(firsts.sum::<u32>(), 32);
}

#[test]
fn a_family_is_told_when_its_own_places_are_free() {
    let mut tally = Tally::default();
    for number in 0..MAX_FAMILY_LIMITS {
        assert_eq!(let_in(&mut tally, &[of_later(1, number, a_day(1))], 0, 1), 1);
    }
    let one_more = |family| [of_child(99, in_all(9)), of_later(family, 99, in_all(9))];
    let exceeded = tally.reserve(&one_more(1), NO, 0).unwrap_err();
    let expected = (DenyReason::ChildQuota, Exhausted::ChildLimits, Some(DAY));
    assert_eq!((exceeded.reason, exceeded.exhausted, exceeded.until_ns), expected);
    assert_eq!(let_in(&mut tally, &one_more(2), 0, 1), 1);
    assert_eq!(let_in(&mut tally, &one_more(1), DAY, 1), 1);
}

#[test]
fn what_can_never_have_a_place_is_told_no_time() {
    let many: Vec<_> = (0..=MAX_FAMILY_LIMITS).map(|n| of_later(1, n, a_day(1))).collect();
    assert_eq!(Tally::default().reserve(&many, NO, 0).unwrap_err().until_ns, None);
}

#[test]
fn a_refused_request_does_not_move_the_clock() {
    let mut tally = Tally::default();
    let never = [of_tier(in_all(0))];
    assert!(tally.reserve(&never, NO, 900 * DAY).is_err());
    assert_eq!(let_in(&mut tally, &[of_tier(a_day(5))], DAY, 1), 1);
    assert_eq!(let_in(&mut tally, &[of_tier(a_day(5))], 2 * DAY, 9), 5);
}

#[test]
fn what_nothing_is_left_of_takes_no_room() {
    let mut tally = Tally::default();
    let charges = [of_tier(per_hour(2)), of_tier(a_day(2)), of_child(1, per_hour(1))];
    let_in(&mut tally, &charges, 0, 1);
    assert_eq!((tally.rates.len(), tally.quotas.len()), (2, 1));
    let_in(&mut tally, &[], DAY, 1);
    assert_eq!((tally.rates.len(), tally.quotas.len()), (0, 0));
}

#[test]
fn debt_takes_room_until_it_is_paid() {
    let spent = Spent { window: 0, used: 150, over: 50, entry: 7 };
    let (scope, unit, per) = (Scope::Tier, Unit::Tokens, Period::Day);
    let used = QuotaUse { scope, unit, per, spent };
    assert_eq!(used.end_ns(), u64::MAX);
    let settled = QuotaUse { spent: Spent { over: 0, ..spent }, ..used };
    assert_eq!(settled.end_ns(), DAY);
}

#[test]
fn a_tally_reads_what_it_wrote() {
    let mut tally = Tally::default();
    let quotas = Unit::ALL.into_iter().flat_map(|unit| Period::ALL.map(|per| (unit, per)));
    let mut charges: Vec<Charge> = quotas
        .map(|(unit, per)| {
            of_tier(Limit::Quota(Quota { unit, limit: 9, per, scope: QuotaScope::Proxy }))
        })
        .collect();
    charges.push(charge(Origin::Only, Scope::Only, Limit::Rate(Rate::new(7, 1, 3).unwrap())));
    charges.push(charge(Origin::Tenant, Scope::Tenant, per_hour(3)));
    charges.push(of_child(5, per_hour(3)));
    charges.push(of_later(7, 6, per_hour(3)));
    let reserved = reserve(&mut tally, &charges, &amounts(3), 12_345 * DAY);
    settle(&mut tally, &charges, &reserved, &amounts(11), 12_345 * DAY);
    assert_eq!(tally.quotas.len(), charges.len() - 4);
    let mut record = Vec::new();
    tally.write(&mut Writer::over(&mut record));
    let read = |bytes: &mut &[u8]| {
        let mut tally = Tally::default();
        tally.read_over(bytes).map(|()| tally)
    };
    let mut bytes = &*record;
    assert_eq!(read(&mut bytes), Some(tally));
    assert!(bytes.is_empty());
    for len in 0..record.len() {
        assert_eq!(read(&mut &record[..len]), None, "{len} bytes");
    }
}

fn amounts(tokens: u64) -> Amounts {
    Amounts { tokens, cost_micro_usd: 3 * tokens }
}

fn tokens(limit: u64, per: Period) -> Limit {
    Limit::Quota(Quota { unit: Unit::Tokens, limit, per, scope: QuotaScope::Proxy })
}

fn cost(limit: u64, per: Period) -> Limit {
    Limit::Quota(Quota { unit: Unit::CostMicroUsd, limit, per, scope: QuotaScope::Proxy })
}

/// What a request reserved, and how much.
type Reserved = (Reservation, Amounts);

fn reserve(tally: &mut Tally, charges: &[Charge], amounts: &Amounts, now_ns: u64) -> Reserved {
    (tally.reserve(charges, amounts, now_ns).unwrap(), *amounts)
}

fn settle(tally: &mut Tally, charges: &[Charge], of: &Reserved, actual: &Amounts, now_ns: u64) {
    tally.settle(charges, &of.0, (&of.1, actual), now_ns);
}

fn used(tally: &Tally, charges: &[Charge], now_ns: u64) -> Vec<u64> {
    tally.allowances(charges, now_ns).iter().map(|allowance| allowance.used).collect()
}

#[test]
fn each_quota_is_charged_in_its_unit() {
    let mut tally = Tally::default();
    let charges = [
        of_tier(a_day(9)),
        of_tier(tokens(100, Period::Day)),
        of_tier(cost(1_000, Period::Month)),
        of_child(1, tokens(100, Period::Total)),
    ];
    let reserved = reserve(&mut tally, &charges, &amounts(40), 5);
    assert_eq!(used(&tally, &charges, 5), [1, 40, 120, 40]);
    settle(&mut tally, &charges, &reserved, &Amounts { tokens: 25, cost_micro_usd: 130 }, 6);
    assert_eq!(used(&tally, &charges, 6), [1, 25, 130, 25]);
    let again = reserve(&mut tally, &charges, &amounts(75), 7);
    assert_eq!(used(&tally, &charges, 7), [2, 100, 355, 100]);
    tally.give_back(&charges, &again.0, &again.1);
    assert_eq!(used(&tally, &charges, 7), [1, 25, 130, 25]);
}

#[test]
fn a_quota_is_left_alone_by_what_has_nothing_of_it() {
    let mut tally = Tally::default();
    let full =
        [of_tier(tokens(0, Period::Day)), of_child(1, cost(0, Period::Total)), of_tier(a_day(2))];
    let reserved = reserve(&mut tally, &full, NO, 0);
    assert_eq!(tally.quotas.len(), 1);
    settle(&mut tally, &full, &reserved, NO, 0);
    tally.give_back(&full, &reserved.0, &reserved.1);
    assert_eq!((tally.quotas.len(), used(&tally, &full, 0)), (0, vec![0; 3]));
    assert_eq!(let_in(&mut tally, &full, 0, 9), 2);
    let exceeded = tally.reserve(&full, &amounts(1), 0).unwrap_err();
    assert_eq!((exceeded.reason, exceeded.until_ns), (DenyReason::Quota, None));
}

/// Others have all places for the limits of children.
#[test]
fn a_child_with_no_tokens_takes_no_place() {
    let mut tally = Tally::default();
    for number in 0..MAX_CHILD_LIMITS {
        let_in(&mut tally, &[of_child(number, a_day(1))], 0, 1);
    }
    let child = [of_child(99, tokens(9, Period::Day))];
    let reserved = reserve(&mut tally, &child, NO, 0);
    let exceeded = tally.reserve(&child, &amounts(1), 0).unwrap_err();
    assert_eq!((exceeded.exhausted, exceeded.until_ns), (Exhausted::ChildLimits, Some(DAY)));
    // Nor does it get one when it used some all the same.
    settle(&mut tally, &child, &reserved, &amounts(1), 0);
    assert_eq!((tally.quotas.len(), used(&tally, &child, 0)), (MAX_CHILD_LIMITS, vec![0]));
    settle(&mut tally, &child, &reserved, &amounts(1), DAY);
    assert_eq!((tally.quotas.len(), used(&tally, &child, DAY)), (1, vec![1]));
}

/// The window of each has ended, and others have taken their places.
#[test]
fn what_children_used_late_needs_places_too() {
    let mut tally = Tally::default();
    let of = |number| [of_child(number, tokens(9, Period::Day))];
    let reserve = |tally: &mut Tally, numbers: std::ops::Range<usize>, now_ns| {
        Vec::from_iter(numbers.map(|number| reserve(tally, &of(number), &amounts(2), now_ns)))
    };
    let early = reserve(&mut tally, 0..MAX_CHILD_LIMITS, 0);
    let late = reserve(&mut tally, 100..100 + MAX_CHILD_LIMITS - 1, DAY);
    for (number, reserved) in early.iter().enumerate() {
        settle(&mut tally, &of(number), reserved, &amounts(5), DAY);
    }
    // The first has the last place.
    assert_eq!(tally.quotas.len(), MAX_CHILD_LIMITS);
    assert_eq!([0, 1].map(|number| used(&tally, &of(number), DAY)), [[3], [0]]);
    for (number, reserved) in late.iter().enumerate() {
        settle(&mut tally, &of(100 + number), reserved, &amounts(1), DAY);
        assert_eq!(used(&tally, &of(100 + number), DAY), [1]);
    }
}

#[test]
fn the_quota_without_room_is_named() {
    let mut tally = Tally::default();
    let charges = [of_tier(tokens(100, Period::Day)), of_tier(cost(1_000, Period::Month))];
    reserve(&mut tally, &charges, &amounts(90), 0);
    let of = |kind, until_ns| {
        let exhausted = Exhausted::Limit(LimitName { origin: Origin::Tier, kind });
        Exceeded { reason: DenyReason::Quota, exhausted, until_ns }
    };
    let day = Kind::Quota(Unit::Tokens, Period::Day);
    let reserve = |tokens, cost_micro_usd| {
        tally.clone().reserve(&charges, &Amounts { tokens, cost_micro_usd }, 0).unwrap_err()
    };
    assert_eq!(reserve(11, 5), of(day, Some(DAY)));
    assert_eq!(reserve(101, 5), of(day, None));
    let month = Kind::Quota(Unit::CostMicroUsd, Period::Month);
    assert_eq!(reserve(11, 731), of(month, Some(31 * DAY)));
}

#[test]
fn what_is_used_beyond_a_reservation_is_owed_to_later_windows() {
    let mut tally = Tally::default();
    let charges = [of_tier(tokens(100, Period::Day)), of_tier(a_day(9))];
    let reserved = reserve(&mut tally, &charges, &amounts(60), 0);
    let other = reserve(&mut tally, &charges, &amounts(40), 0);
    settle(&mut tally, &charges, &reserved, &amounts(260), 1);
    assert_eq!(used(&tally, &charges, 1), [300, 2]);
    settle(&mut tally, &charges, &other, &amounts(10), 2);
    assert_eq!(used(&tally, &charges, 2), [270, 2]);
    assert_eq!([1, 2, 3].map(|day| used(&tally, &charges, day * DAY)[0]), [170, 70, 0]);
    // Whoever needs none does not have to wait.
    assert_eq!(let_in(&mut tally.clone(), &charges, 3, 9), 7);
    let until = |tokens| tally.clone().reserve(&charges, &amounts(tokens), 3).unwrap_err().until_ns;
    assert_eq!((until(30), until(31), until(101)), (Some(2 * DAY), Some(3 * DAY), None));
}

#[test]
fn a_reservation_of_a_window_that_has_ended_is_not_refunded() {
    let charges = [of_tier(tokens(100, Period::Day)), of_tier(tokens(900, Period::Total))];
    for (actual, expected) in [(0, [0, 0]), (30, [0, 30]), (50, [0, 50]), (80, [30, 80])] {
        let mut tally = Tally::default();
        let reserved = reserve(&mut tally, &charges, &amounts(50), DAY - 1);
        settle(&mut tally, &charges, &reserved, &amounts(actual), DAY);
        assert_eq!(used(&tally, &charges, DAY), expected, "{actual}");
        // Not even by a clock that went back.
        assert_eq!(used(&tally, &charges, 0), expected, "{actual}");
    }
}

/// Another module has overwritten the record, and it began anew.
#[test]
fn nothing_is_refunded_from_a_record_that_was_lost() {
    let charges = [of_tier(tokens(100, Period::Day)), of_child(1, cost(900, Period::Total))];
    let mut before = Tally::default();
    let lost = reserve(&mut before, &charges, &amounts(50), 5);
    let lost_too = reserve(&mut before, &charges, &amounts(20), 6);
    let mut tally = Tally::default();
    let kept = reserve(&mut tally, &charges, &amounts(30), 7);
    settle(&mut tally, &charges, &lost, &amounts(10), 8);
    assert_eq!(used(&tally, &charges, 8), [40, 120]);
    tally.give_back(&charges, &lost_too.0, &lost_too.1);
    assert_eq!(used(&tally, &charges, 8), [40, 120]);
    settle(&mut tally, &charges, &kept, NO, 9);
    assert_eq!(used(&tally, &charges, 9), [10, 30]);
    // Nobody else has used it by then.
    let mut tally = Tally::default();
    settle(&mut tally, &charges, &lost, &amounts(10), 8);
    assert_eq!(used(&tally, &charges, 8), [10, 30]);
}

/// A child that ended while its request was open, and one whose quota no configuration has any more.
#[test]
fn what_is_settled_for_nobody_is_nothing() {
    let mut tally = Tally::default();
    let child = [charge(Origin::Caveat(1), child_until(1, 600), tokens(9, Period::Total))];
    let reserved = reserve(&mut tally, &child, &amounts(9), 0);
    settle(&mut tally, &child, &reserved, &amounts(20), 600 * SEC);
    assert_eq!(tally.quotas.len(), 0);
    let of_old = [of_tier(tokens(9, Period::Day)), of_tier(a_day(3))];
    let reserved = reserve(&mut tally, &of_old, &amounts(9), DAY);
    let of_new = [of_tier(a_day(3)), of_tier(cost(9, Period::Month)), of_tier(per_hour(2))];
    settle(&mut tally, &of_new, &reserved, &amounts(0), DAY);
    assert_eq!(used(&tally, &of_new, DAY), [1, 0, 0]);
    assert_eq!(used(&tally, &of_old, DAY), [9, 1]);
    settle(&mut tally, &[], &reserved, &amounts(0), DAY);
    settle(&mut tally, &of_old, &reserved, &amounts(4), DAY);
    assert_eq!(used(&tally, &of_old, DAY), [4, 1]);
}

/// Nobody grows a cell without bound, whatever limits they make up.
#[test]
fn a_cell_has_a_largest_size() {
    let mut cell = crate::limits::cell::Cell::fresh();
    let limit = tokens(1, Period::Total);
    let later = (0..1_000).map(|n: usize| of_later(u8::try_from(n / 20).unwrap(), n, limit));
    for charge in later.chain((1_000..2_000).map(|number| of_child(number, limit))) {
        cell.count(
            crate::decision::Decision::Allow,
            &[charge],
            &amounts(1),
            None,
            0,
            crate::decision::Mode::Enforce,
        );
    }
    let mut record = Vec::new();
    cell.write(&mut Writer::over(&mut record));
    assert_eq!(
        record.len(),
        7 * 8 + 8 + 4 + 1 + 1 + 64 * (1 + 16 + 8 + 2 + 4 + 8 + 8 + 4) + 32 * 8 + 1 + 1
    );
}
