use super::*;
use crate::limits::Origin;
use crate::limits::gcra::Rate;
use crate::limits::{CHILD_ID_BYTES, ChildId, FamilyId};
use crate::record::{Record as _, Writer};

const SEC: u64 = crate::time::NANOS_PER_SEC;
const DAY: u64 = 86_400 * SEC;

fn charge(origin: Origin, scope: Scope, limit: Limit) -> Charge {
    Charge { origin, scope, limit, amount: 1 }
}

fn per_hour(requests: u32) -> Limit {
    Limit::Rate(Rate::new(requests, 3600, requests).unwrap())
}

fn a_day(limit: u64) -> Limit {
    Limit::Quota(Quota { unit: Unit::Requests, limit, per: Period::Day })
}

fn in_all(limit: u64) -> Limit {
    Limit::Quota(Quota { unit: Unit::Requests, limit, per: Period::Total })
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
fn let_in(ledger: &mut Ledger, charges: &[Charge], now_ns: u64, tries: u32) -> u32 {
    (0..tries).map(|_| u32::from(ledger.reserve(charges, now_ns).is_ok())).sum()
}

#[test]
fn all_limits_are_charged_or_none() {
    let mut ledger = Ledger::default();
    let charges = [of_tier(per_hour(5)), of_tier(a_day(2))];
    assert_eq!(let_in(&mut ledger, &charges, 0, 10), 2);
    let left: Vec<u64> = ledger.allowances(&charges, 0).iter().map(|a| a.remaining).collect();
    assert_eq!(left, [3, 0]);
}

#[test]
fn the_limit_that_has_room_last_is_named() {
    let mut ledger = Ledger::default();
    for charges in
        [[of_tier(per_hour(1)), of_tier(a_day(1))], [of_tier(a_day(1)), of_tier(per_hour(1))]]
    {
        let_in(&mut ledger, &charges, 0, 1);
        let exceeded = ledger.reserve(&charges, 0).unwrap_err();
        assert_eq!((exceeded.reason, exceeded.until_ns), (DenyReason::Quota, Some(DAY)));
        let kind = Kind::Quota(Unit::Requests, Period::Day);
        let name = LimitName { origin: Origin::Tier, kind };
        assert_eq!(exceeded.exhausted, Exhausted::Limit(name));
    }
    let never = [of_tier(per_hour(1)), of_tier(in_all(0))];
    assert_eq!(ledger.reserve(&never, 0).unwrap_err().until_ns, None);
}

#[test]
fn what_is_given_back_was_never_charged() {
    let mut ledger = Ledger::default();
    let charges = [of_tier(per_hour(3)), of_tier(a_day(3)), of_child(1, in_all(3))];
    let_in(&mut ledger, &charges, 7, 1);
    let mut before = ledger.clone();
    let reservation = ledger.reserve(&charges, 7).unwrap();
    assert_ne!(ledger, before);
    ledger.give_back(&charges, &reservation);
    before.undone += 1;
    assert_eq!(ledger, before);
}

#[test]
fn a_clock_that_goes_back_opens_nothing() {
    let mut ledger = Ledger::default();
    let charges = [of_tier(per_hour(2)), of_tier(a_day(2))];
    assert_eq!(let_in(&mut ledger, &charges, 5 * DAY, 5), 2);
    for now_ns in [4 * DAY, 0, 5 * DAY] {
        assert_eq!(let_in(&mut ledger, &charges, now_ns, 5), 0, "{now_ns}");
    }
    assert_eq!(let_in(&mut ledger, &charges, 6 * DAY, 5), 2);
}

/// Something else moved the clock on; what was full by the earlier time is not full again.
#[test]
fn what_was_forgotten_stays_so_when_the_clock_goes_back() {
    let mut ledger = Ledger::default();
    assert_eq!(let_in(&mut ledger, &[of_tier(per_hour(2))], 0, 5), 2);
    assert_eq!(let_in(&mut ledger, &[of_tier(a_day(9))], 2 * 3600 * SEC, 1), 1);
    assert_eq!(let_in(&mut ledger, &[of_tier(per_hour(2))], 0, 5), 2);
    assert_eq!(let_in(&mut ledger, &[of_tier(per_hour(2))], 2 * 3600 * SEC, 5), 0);
}

#[test]
fn children_have_their_own_and_share_their_parents() {
    let mut ledger = Ledger::default();
    let of = |number| [of_tier(in_all(10)), of_child(number, in_all(4))];
    assert_eq!(let_in(&mut ledger, &of(1), 0, 9), 4);
    assert_eq!(let_in(&mut ledger, &of(2), 0, 9), 4);
    assert_eq!(let_in(&mut ledger, &of(3), 0, 9), 2);
    assert_eq!(let_in(&mut ledger, &[of_tier(in_all(10))], 0, 9), 0);
}

#[test]
fn a_full_table_refuses_and_forgets_nothing() {
    let mut ledger = Ledger::default();
    for number in 0..MAX_CHILD_LIMITS / 2 {
        let charges = [of_child(number, per_hour(1)), of_child(number, a_day(3))];
        assert_eq!(let_in(&mut ledger, &charges, 0, 9), 1);
    }
    let one_more = [of_tier(in_all(9)), of_child(99, a_day(1))];
    let exceeded = ledger.reserve(&one_more, 0).unwrap_err();
    let hour = 3600 * SEC;
    assert_eq!((exceeded.reason, exceeded.until_ns), (DenyReason::ChildQuota, Some(hour)));
    assert_eq!(exceeded.exhausted, Exhausted::ChildLimits);
    // The parent goes on, and those that are in use are as used as before.
    assert_eq!(let_in(&mut ledger, &[of_tier(in_all(9))], 0, 1), 1);
    for number in 0..MAX_CHILD_LIMITS / 2 {
        let charges = [of_child(number, a_day(3))];
        assert_eq!(ledger.allowances(&charges, 0)[0].remaining, 2, "{number}");
    }
    // What has come back takes no room.
    assert_eq!(let_in(&mut ledger, &one_more, hour, 9), 1);
    assert_eq!(let_in(&mut ledger, &[of_child(0, a_day(3))], hour, 9), 2);
}

#[test]
fn a_child_that_needs_more_room_than_there_is_takes_none() {
    let mut ledger = Ledger::default();
    for number in 1..MAX_CHILD_LIMITS {
        let_in(&mut ledger, &[of_child(number, a_day(1))], 0, 1);
    }
    let two = [of_child(99, a_day(1)), of_child(99, per_hour(1))];
    assert_eq!(let_in(&mut ledger, &two, 0, 1), 0);
    assert_eq!(let_in(&mut ledger, &two[..1], 0, 1), 1);
}

/// A worker whose clock is a little behind is refused by the tenant when another has charged the key
/// already. While the key is busy, nothing of its charge is lost.
#[test]
fn what_is_given_back_late_was_never_charged_to_a_busy_rate() {
    let per_second = Limit::Rate(Rate::new(1000, 1, 100).unwrap());
    let charges = [of_tier(per_second)];
    let mut ledger = Ledger::default();
    let_in(&mut ledger, &charges, 0, 50);
    let mut without = ledger.clone();
    let held = ledger.reserve(&charges, 0).unwrap();
    let later = 5 * SEC / 1000;
    for ledger in [&mut ledger, &mut without] {
        let_in(ledger, &charges, later, 3);
    }
    ledger.give_back(&charges, &held);
    assert_eq!(ledger.allowances(&charges, later), without.allowances(&charges, later));
}

/// The backlog that the second left behind was partly the first's, which has been taken back already.
#[test]
fn what_is_given_back_after_another_is_not_given_back_twice() {
    let charges = [of_tier(per_hour(2))];
    let mut ledger = Ledger::default();
    let first = ledger.reserve(&charges, 0).unwrap();
    let second = ledger.reserve(&charges, 1).unwrap();
    ledger.give_back(&charges, &first);
    let later = 40 * 60 * SEC;
    let mut without = Ledger::default();
    for ledger in [&mut ledger, &mut without] {
        assert_eq!(let_in(ledger, &charges, later, 1), 1);
    }
    ledger.give_back(&charges, &second);
    assert_eq!(ledger.allowances(&charges, later), without.allowances(&charges, later));
}

#[test]
fn a_child_that_is_over_takes_no_room_and_gets_no_more() {
    let mut ledger = Ledger::default();
    let of = |number| [charge(Origin::Caveat(1), child_until(number, 600), in_all(9))];
    for number in 0..MAX_CHILD_LIMITS {
        assert_eq!(let_in(&mut ledger, &of(number), 0, 1), 1);
    }
    let exceeded = ledger.reserve(&[of_child(99, in_all(9))], 0).unwrap_err();
    assert_eq!(exceeded.until_ns, Some(600 * SEC));
    assert_eq!(let_in(&mut ledger, &[of_child(99, in_all(9))], 600 * SEC, 1), 1);
    assert_eq!(ledger.quotas.len(), 1);
    // By a clock that went back it is good again; what it used is forgotten all the same.
    let exceeded = ledger.reserve(&of(1), 599 * SEC).unwrap_err();
    assert_eq!(exceeded.reason, DenyReason::KeyExpired);
}

#[test]
fn a_child_is_told_when_all_the_places_it_lacks_are_free() {
    let mut ledger = Ledger::default();
    for number in 0..MAX_CHILD_LIMITS {
        let until = if number < 2 { 100 * (number as u64 + 1) } else { 900 };
        let charges = [charge(Origin::Caveat(1), child_until(number, until), in_all(9))];
        let_in(&mut ledger, &charges, 0, 1);
    }
    let two = [of_child(99, in_all(9)), of_child(99, per_hour(1))];
    assert_eq!(ledger.reserve(&two, 0).unwrap_err().until_ns, Some(200 * SEC));
    assert_eq!(ledger.reserve(&two[..1], 0).unwrap_err().until_ns, Some(100 * SEC));
}

#[test]
fn a_narrowed_key_takes_no_places_of_others() {
    let mut ledger = Ledger::default();
    let later = |family, number| [of_later(family, number, in_all(9))];
    let try_all = |ledger: &mut Ledger, family: u8, first: usize| -> u32 {
        (first..first + 100).map(|number| let_in(ledger, &later(family, number), 0, 1)).sum()
    };
    // Whoever holds a narrowed key makes as many children of it as they like.
    assert_eq!(try_all(&mut ledger, 1, 1_000), 16);
    assert_eq!(try_all(&mut ledger, 2, 2_000), 16);
    assert_eq!(try_all(&mut ledger, 3, 3_000), 0);
    // Those that are in use go on, and the first caveats have all the rest.
    assert_eq!(let_in(&mut ledger, &later(1, 1_000), 0, 1), 1);
    let firsts = (0..100).map(|number| let_in(&mut ledger, &[of_child(number, in_all(9))], 0, 1));
    assert_eq!(firsts.sum::<u32>(), 32);
}

#[test]
fn a_family_is_told_when_its_own_places_are_free() {
    let mut ledger = Ledger::default();
    for number in 0..MAX_FAMILY_LIMITS {
        assert_eq!(let_in(&mut ledger, &[of_later(1, number, a_day(1))], 0, 1), 1);
    }
    let one_more = |family| [of_child(99, in_all(9)), of_later(family, 99, in_all(9))];
    let exceeded = ledger.reserve(&one_more(1), 0).unwrap_err();
    let expected = (DenyReason::ChildQuota, Exhausted::ChildLimits, Some(DAY));
    assert_eq!((exceeded.reason, exceeded.exhausted, exceeded.until_ns), expected);
    assert_eq!(let_in(&mut ledger, &one_more(2), 0, 1), 1);
    assert_eq!(let_in(&mut ledger, &one_more(1), DAY, 1), 1);
}

#[test]
fn what_can_never_have_a_place_is_told_no_time() {
    let many: Vec<_> = (0..=MAX_FAMILY_LIMITS).map(|n| of_later(1, n, a_day(1))).collect();
    assert_eq!(Ledger::default().reserve(&many, 0).unwrap_err().until_ns, None);
}

#[test]
fn a_refused_request_does_not_move_the_clock() {
    let mut ledger = Ledger::default();
    let never = [of_tier(in_all(0))];
    assert!(ledger.reserve(&never, 900 * DAY).is_err());
    assert_eq!(let_in(&mut ledger, &[of_tier(a_day(5))], DAY, 1), 1);
    assert_eq!(let_in(&mut ledger, &[of_tier(a_day(5))], 2 * DAY, 9), 5);
}

#[test]
fn what_nothing_is_left_of_takes_no_room() {
    let mut ledger = Ledger::default();
    let charges = [of_tier(per_hour(2)), of_tier(a_day(2)), of_child(1, per_hour(1))];
    let_in(&mut ledger, &charges, 0, 1);
    assert_eq!((ledger.rates.len(), ledger.quotas.len()), (2, 1));
    let_in(&mut ledger, &[], DAY, 1);
    assert_eq!((ledger.rates.len(), ledger.quotas.len()), (0, 0));
}

#[test]
fn debt_takes_room_until_it_is_paid() {
    let spent = Spent { window: 0, used: 150, over: 50 };
    let used = QuotaUse { scope: Scope::Tier, unit: Unit::Tokens, per: Period::Day, spent };
    assert_eq!(used.end_ns(), u64::MAX);
    let settled = QuotaUse { spent: Spent { over: 0, ..spent }, ..used };
    assert_eq!(settled.end_ns(), DAY);
}

#[test]
fn a_ledger_reads_what_it_wrote() {
    let mut ledger = Ledger::default();
    let quotas = Unit::ALL.into_iter().flat_map(|unit| Period::ALL.map(|per| (unit, per)));
    let mut charges: Vec<Charge> =
        quotas.map(|(unit, per)| of_tier(Limit::Quota(Quota { unit, limit: 9, per }))).collect();
    charges.push(charge(Origin::Only, Scope::Only, Limit::Rate(Rate::new(7, 1, 3).unwrap())));
    charges.push(charge(Origin::Tenant, Scope::Tenant, per_hour(3)));
    charges.push(of_child(5, per_hour(3)));
    charges.push(of_later(7, 6, per_hour(3)));
    ledger.reserve(&charges, 12_345 * DAY).unwrap();
    let mut record = Vec::new();
    ledger.write(&mut Writer::over(&mut record));
    let read = |bytes: &mut &[u8]| {
        let mut ledger = Ledger::default();
        ledger.read_over(bytes).map(|()| ledger)
    };
    let mut bytes = &*record;
    assert_eq!(read(&mut bytes), Some(ledger));
    assert!(bytes.is_empty());
    for len in 0..record.len() {
        assert_eq!(read(&mut &record[..len]), None, "{len} bytes");
    }
}

/// Nobody grows a cell without bound, whatever limits they make up.
#[test]
fn a_cell_has_a_largest_size() {
    let mut cell = crate::limits::cell::Cell::fresh();
    let later = (0..1_000).map(|n: usize| of_later(u8::try_from(n / 20).unwrap(), n, in_all(1)));
    for charge in later.chain((1_000..2_000).map(|number| of_child(number, in_all(1)))) {
        cell.count(
            crate::decision::Decision::Allow,
            &[charge],
            None,
            0,
            crate::decision::Mode::Enforce,
        );
    }
    let mut record = Vec::new();
    cell.write(&mut Writer::over(&mut record));
    assert_eq!(
        record.len(),
        7 * 8 + 8 + 4 + 1 + 1 + 64 * (1 + 16 + 8 + 2 + 4 + 8) + 32 * 8 + 1 + 1
    );
}
