use super::*;
use crate::json::{Integers, Json};

/// Seconds of a time in UTC.
#[track_caller]
fn utc(text: &str) -> u64 {
    let time = humantime::parse_rfc3339(&format!("{text}Z")).unwrap();
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[track_caller]
fn check_window(per: Period, inside: &str, start: &str, end: &str) {
    let window = per.window(utc(inside));
    assert_eq!(per.start_secs(window), Some(utc(start)), "{inside}");
    assert_eq!(per.end_secs(window), Some(utc(end)), "{inside}");
    for edge in [utc(start), utc(end) - 1] {
        assert_eq!(per.window(edge), window, "{inside}");
    }
    assert_eq!(per.window(utc(end)), window + 1, "{inside}");
    assert!(utc(start) == 0 || per.window(utc(start) - 1) == window - 1, "{inside}");
}

#[test]
fn windows_begin_on_the_calendar_in_utc() {
    use Period::{Day, Hour, Minute, Month, Week};
    check_window(Minute, "2026-11-21T23:59:59", "2026-11-21T23:59:00", "2026-11-22T00:00:00");
    check_window(Hour, "2026-11-21T23:30:00", "2026-11-21T23:00:00", "2026-11-22T00:00:00");
    check_window(Day, "2026-12-31T12:00:00", "2026-12-31T00:00:00", "2027-01-01T00:00:00");
    // 2026-11-22 is a Sunday.
    check_window(Week, "2026-11-22T23:59:59", "2026-11-16T00:00:00", "2026-11-23T00:00:00");
    check_window(Week, "2026-11-23T00:00:00", "2026-11-23T00:00:00", "2026-11-30T00:00:00");
    check_window(Month, "2026-11-22T00:00:00", "2026-11-01T00:00:00", "2026-12-01T00:00:00");
    check_window(Month, "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00");
    check_window(Month, "2028-02-29T12:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00");
    check_window(Month, "2100-02-28T12:00:00", "2100-02-01T00:00:00", "2100-03-01T00:00:00");
    check_window(Month, "2000-02-29T00:00:00", "2000-02-01T00:00:00", "2000-03-01T00:00:00");
    check_window(Month, "1970-01-31T00:00:00", "1970-01-01T00:00:00", "1970-02-01T00:00:00");
}

#[test]
fn months_follow_each_other_for_three_centuries() {
    let mut day = 0;
    for month in 0..12 * 300 {
        assert_eq!(months(day), month);
        let next = days_before_month(month + 1);
        assert!((28..=31).contains(&(next - day)), "month {month}");
        assert_eq!(months(next - 1), month);
        day = next;
    }
    assert_eq!(day * SECS_PER_DAY, utc("2270-01-01T00:00:00"));
}

#[test]
fn one_window_has_no_bounds() {
    assert_eq!((Period::Total.window(0), Period::Total.window(u64::MAX)), (0, 0));
    assert_eq!((Period::Total.start_secs(0), Period::Total.end_secs(0)), (None, None));
}

#[test]
fn the_end_of_time_is_no_trap() {
    for per in Period::ALL {
        let quota = Quota { unit: Unit::Tokens, limit: u64::MAX, per, scope: QuotaScope::Proxy };
        for spent in
            [0, u64::MAX].map(|used| Spent { window: u32::MAX, used, over: used, entry: 0 })
        {
            for now_secs in [0, u64::MAX / 1_000_000_000, u64::MAX] {
                _ = quota.reserve(spent, u64::MAX, now_secs);
                let reserved = QuotaReservation { amount: u64::MAX, at_secs: now_secs };
                _ = quota.settle(spent, reserved, u64::MAX, now_secs);
            }
        }
    }
}

const DAY: u64 = SECS_PER_DAY;

fn daily(unit: Unit, limit: u64) -> Quota {
    Quota { unit, limit, per: Period::Day, scope: QuotaScope::Proxy }
}

#[test]
fn a_window_has_its_limit_and_the_next_one_too() {
    let quota = daily(Unit::Requests, 2);
    let first = quota.reserve(Spent::default(), 1, 10).unwrap();
    let second = quota.reserve(first, 1, DAY - 1).unwrap();
    assert_eq!(quota.reserve(second, 1, DAY - 1), Err(Some(DAY)));
    assert_eq!(quota.reserve(second, 1, DAY), Ok(Spent { window: 1, used: 1, over: 0, entry: 0 }));
}

#[test]
fn a_clock_that_goes_back_opens_no_earlier_window() {
    let quota = daily(Unit::Requests, 1);
    let spent = quota.reserve(Spent::default(), 1, 5 * DAY).unwrap();
    assert_eq!(quota.reserve(spent, 1, 4 * DAY), Err(Some(6 * DAY)));
    assert_eq!(quota.reserve(spent, 1, 5 * DAY), Err(Some(6 * DAY)));
}

#[test]
fn nothing_ever_fits_into_nothing() {
    assert_eq!(daily(Unit::Requests, 0).reserve(Spent::default(), 1, 0), Err(None));
    assert_eq!(daily(Unit::Tokens, 5).reserve(Spent::default(), 6, 0), Err(None));
    let total =
        Quota { unit: Unit::Requests, limit: 1, per: Period::Total, scope: QuotaScope::Proxy };
    let spent = total.reserve(Spent::default(), 1, 0).unwrap();
    assert_eq!(total.reserve(spent, 1, u64::MAX), Err(None));
}

#[test]
fn what_is_settled_takes_the_place_of_what_was_reserved() {
    let quota = daily(Unit::Tokens, 1000);
    let reserved = QuotaReservation { amount: 300, at_secs: 10 };
    let spent = quota.reserve(Spent::default(), 300, 10).unwrap();
    let less = quota.settle(spent, reserved, 100, 20);
    assert_eq!(less, Spent { window: 0, used: 100, over: 0, entry: 0 });
    let more = quota.settle(spent, reserved, 1250, 20);
    assert_eq!(more, Spent { window: 0, used: 1250, over: 250, entry: 0 });
}

#[test]
fn debt_is_paid_off_window_by_window() {
    let quota = daily(Unit::Tokens, 100);
    let spent = Spent { window: 0, used: 350, over: 250, entry: 0 };
    let used = |days: u64| quota.roll(spent, days * DAY).used;
    assert_eq!([0, 1, 2, 3, 4].map(used), [350, 250, 150, 50, 0]);
    let step_by_step = quota.roll(quota.roll(spent, DAY), 2 * DAY);
    assert_eq!(step_by_step, quota.roll(spent, 2 * DAY));
    assert_eq!(quota.reserve(spent, 50, 10), Err(Some(3 * DAY)));
    assert_eq!(quota.reserve(spent, 51, 10), Err(Some(4 * DAY)));
    assert!(quota.reserve(spent, 50, 3 * DAY).is_ok());
    assert!(quota.reserve(spent, 51, 3 * DAY).is_err());
}

/// What was let in under a higher limit is no debt under a lower one.
#[test]
fn a_lower_limit_makes_no_debt() {
    let spent = Spent { window: 0, used: 800, over: 0, entry: 0 };
    let reserved = QuotaReservation { amount: 400, at_secs: 10 };
    let lowered = daily(Unit::Tokens, 100);
    assert_eq!(lowered.settle(spent, reserved, 400, 20), spent);
    let more = lowered.settle(spent, reserved, 450, 20);
    assert_eq!(more, Spent { window: 0, used: 850, over: 50, entry: 0 });
}

#[test]
fn requests_make_no_debt() {
    let spent = Spent { window: 0, used: 900, over: 0, entry: 0 };
    let reserved = QuotaReservation { amount: 1, at_secs: 10 };
    let lowered = daily(Unit::Requests, 10).settle(spent, reserved, 0, 20);
    assert_eq!(lowered, Spent { window: 0, used: 899, over: 0, entry: 0 });
}

#[test]
fn a_reservation_that_outlives_its_window_counts_once() {
    let quota = daily(Unit::Tokens, 1000);
    let reserved = QuotaReservation { amount: 300, at_secs: 10 };
    let spent = quota.reserve(Spent::default(), 300, 10).unwrap();
    // What was not used is over with its window; what was used beyond is used now.
    assert_eq!(
        quota.settle(spent, reserved, 100, DAY),
        Spent { window: 1, used: 0, over: 0, entry: 0 }
    );
    assert_eq!(
        quota.settle(spent, reserved, 450, DAY),
        Spent { window: 1, used: 150, over: 0, entry: 0 }
    );
}

#[track_caller]
fn check(text: &str, expected: Result<(Unit, u64, Period), &str>) {
    let json = Json::parse(text.as_bytes()).unwrap();
    let read = Quota::read(&json.root(Integers::Whole)).map_err(|invalid| invalid.to_string());
    let expected =
        expected.map(|(unit, limit, per)| Quota { unit, limit, per, scope: QuotaScope::Proxy });
    assert_eq!(read, expected.map_err(str::to_owned));
}

#[test]
fn a_quota_is_read() {
    check(r#"{"requests": 100.0, "per": "day"}"#, Ok((Unit::Requests, 100, Period::Day)));
    check(r#"{"tokens": 0, "per": "total"}"#, Ok((Unit::Tokens, 0, Period::Total)));
    for (text, micros) in
        [("250.00", 250_000_000), ("0.000001", 1), ("7", 7_000_000), ("1.5", 1_500_000)]
    {
        let text = format!(r#"{{"cost_usd": "{text}", "per": "month"}}"#);
        check(&text, Ok((Unit::CostMicroUsd, micros, Period::Month)));
    }
    let dollars =
        "cost_usd: expected an amount as text, e.g. \"250.00\", with at most six decimals";
    for wrong in [
        "250.0",
        r#""""#,
        r#"".5""#,
        r#""1.""#,
        r#""-1""#,
        r#""1.0000001""#,
        r#""1e3""#,
        r#""18446744073710""#,
    ] {
        check(&format!(r#"{{"cost_usd": {wrong}, "per": "day"}}"#), Err(dollars));
    }
    check(
        r#"{"requests": 1, "tokens": 1, "per": "day"}"#,
        Err("expected one of requests, tokens, cost_usd"),
    );
    check(r#"{"per": "day"}"#, Err("expected one of requests, tokens, cost_usd"));
    check(r#"{"requests": 1}"#, Err("per: missing"));
    check(
        r#"{"requests": 1, "per": "year"}"#,
        Err("per: expected one of minute, hour, day, week, month, total"),
    );
}

#[cfg(not(target_arch = "wasm32"))]
mod properties {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(u64),
        /// The answer of the request at that place reports its use.
        Settle(usize, u64),
        /// The client of the request at that place goes away.
        Disconnect(usize),
        Wait(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..300_u64).prop_map(Step::Reserve),
            3 => (0..8_usize, 0..800_u64).prop_map(|(index, actual)| Step::Settle(index, actual)),
            1 => (0..8_usize).prop_map(Step::Disconnect),
            2 => (0..DAY).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Every token is charged once and stays charged: what is used in a window is what was carried
        /// into it, reserved in it and not yet settled, settled in it, or used beyond an earlier
        /// reservation; and a window carries on what it used past its limit by settling.
        #[test]
        fn tokens_are_conserved(limit in 1..2_000_u64, steps in vec(any_step(), 1..120)) {
            let quota = daily(Unit::Tokens, limit);
            let (mut spent, mut now_secs) = (Spent::default(), 0);
            let mut open: Vec<QuotaReservation> = Vec::new();
            let (mut expected, mut over) = (0_u64, 0_u64);
            for step in steps {
                match step {
                    Step::Wait(secs) => {
                        let passed = (now_secs + secs) / DAY - now_secs / DAY;
                        now_secs += secs;
                        for _ in 0..passed {
                            expected = over;
                            over = expected.saturating_sub(limit);
                        }
                    }
                    Step::Reserve(amount) => {
                        let reserved = quota.reserve(spent, amount, now_secs);
                        prop_assert_eq!(reserved.is_ok(), expected + amount <= limit);
                        if let Ok(next) = reserved {
                            spent = next;
                            expected += amount;
                            open.push(QuotaReservation { amount, at_secs: now_secs });
                        }
                    }
                    Step::Settle(index, actual) if index < open.len() => {
                        let reserved = open.remove(index);
                        spent = quota.settle(spent, reserved, actual, now_secs);
                        if reserved.at_secs / DAY == now_secs / DAY {
                            expected = expected - reserved.amount + actual;
                        } else {
                            expected += actual.saturating_sub(reserved.amount);
                        }
                        over = expected.saturating_sub(limit);
                    }
                    // It keeps its reservation.
                    Step::Disconnect(index) if index < open.len() => _ = open.remove(index),
                    Step::Settle(..) | Step::Disconnect(_) => {}
                }
                prop_assert_eq!(quota.roll(spent, now_secs).used, expected);
            }
        }

        #[test]
        fn requests_never_pass_the_limit(limit in 0..20_u64, waits in vec(0..DAY / 3, 1..200)) {
            let quota = daily(Unit::Requests, limit);
            let (mut spent, mut now_secs) = (Spent::default(), 0);
            let mut let_in = std::collections::BTreeMap::<u64, u64>::new();
            for wait in waits {
                now_secs += wait;
                let counted = let_in.entry(now_secs / DAY).or_default();
                match quota.reserve(spent, 1, now_secs) {
                    Ok(next) => (spent, *counted) = (next, *counted + 1),
                    Err(_) => prop_assert_eq!(*counted, limit),
                }
                prop_assert!(*counted <= limit);
            }
        }
    }
}
