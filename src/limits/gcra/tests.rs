use super::*;
use crate::json::{Integers, Json};

const SEC: u64 = NANOS_PER_SEC;

/// Some time in 2026.
const START: u64 = 1_790_000_000 * SEC;

fn rate(requests: u32, per_secs: u64, burst: u32) -> Rate {
    Rate::new(requests, per_secs, burst).unwrap()
}

/// How many of `tries` requests are let in at a moment.
fn let_in(rate: &Rate, tat: &mut Tat, now_ns: u64, tries: u32) -> u32 {
    (0..tries).map(|_| u32::from(admit(rate, tat, now_ns))).sum()
}

fn held(at_ns: u64, tat: Option<Tat>) -> RateReservation {
    RateReservation { at_ns, tat }
}

fn admit(rate: &Rate, tat: &mut Tat, now_ns: u64) -> bool {
    let admitted = rate.reserve(*tat, now_ns);
    *tat = admitted.unwrap_or(*tat);
    admitted.is_ok()
}

#[test]
fn at_first_the_burst_and_then_the_rate() {
    let rate = rate(7, 1, 5);
    let mut tat = Tat::default();
    assert_eq!(let_in(&rate, &mut tat, START, 100), 5);
    // Seven in each second, for a second that 7 does not divide.
    for tick in 1..=7_000 {
        let now_ns = START + tick * SEC / 7 + 1;
        assert_eq!(let_in(&rate, &mut tat, now_ns, 3), 1, "tick {tick}");
    }
    assert_eq!(tat.ceil_ns(), START + 1_000 * SEC + 5 * SEC / 7 + 1);
}

#[test]
fn a_refusal_says_when() {
    let rate = rate(3, 1, 1);
    let mut tat = Tat::default();
    assert!(admit(&rate, &mut tat, START));
    let until_ns = rate.reserve(tat, START).unwrap_err();
    assert_eq!(until_ns, START + 333_333_334);
    assert_eq!(rate.reserve(tat, until_ns - 1), Err(until_ns));
    assert!(rate.reserve(tat, until_ns).is_ok());
}

#[test]
fn what_remains_is_what_would_be_let_in() {
    let rate = rate(10, 1, 20);
    let mut tat = Tat::default();
    assert_eq!(rate.remaining(tat, START), 20);
    let_in(&rate, &mut tat, START, 15);
    assert_eq!(rate.remaining(tat, START), 5);
    assert_eq!(rate.remaining(tat, START + SEC), 15);
    assert_eq!(rate.remaining(tat, START + 10 * SEC), 20);
    assert_eq!(rate.policy(), (20, 2));
}

#[test]
fn taken_back_at_once_it_leaves_no_trace() {
    for used in 0..5 {
        let rate = rate(7, 3, 5);
        let mut tat = Tat::default();
        let_in(&rate, &mut tat, START, used);
        let before = rate.remaining(tat, START);
        let reserved = rate.reserve(tat, START).unwrap();
        let back = rate.give_back(reserved, &held(START, Some(reserved)), START);
        assert_eq!(rate.remaining(back, START), before);
        assert_eq!(
            rate.backlog(back, 0).max(rate.ticks(START)),
            rate.backlog(tat, 0).max(rate.ticks(START))
        );
    }
}

/// The bucket drained while the request was held: another came into the room that its own had left.
/// Giving back the whole would let one more in than the rate allows.
#[test]
fn taken_back_late_it_gives_back_what_has_not_drained() {
    let rate = rate(1, 10, 2);
    let reserved = rate.reserve(Tat::default(), START).unwrap();
    let now_ns = START + 10 * SEC;
    let other = rate.reserve(reserved, now_ns).unwrap();
    let back = rate.give_back(other, &held(START, Some(reserved)), now_ns);
    assert_eq!(back, other);
    let halfway = rate.give_back(reserved, &held(START, Some(reserved)), START + 5 * SEC);
    assert_eq!(halfway.ns, START + 5 * SEC);
}

/// While the backlog is longer than an interval all of it is given back, however late.
#[test]
fn taken_back_from_a_busy_rate_it_gives_back_all() {
    let rate = rate(1000, 1, 100);
    let mut tat = Tat::default();
    let_in(&rate, &mut tat, START, 50);
    let without = tat;
    tat = rate.reserve(tat, START).unwrap();
    let reserved = held(START, Some(tat));
    let now_ns = START + 20 * SEC / 1000;
    let_in(&rate, &mut tat, now_ns, 10);
    let back = rate.give_back(tat, &reserved, now_ns);
    let mut expected = without;
    let_in(&rate, &mut expected, now_ns, 10);
    assert_eq!(back, expected);
    let another_came_before = RateReservation { tat: None, ..reserved };
    assert_eq!(rate.give_back(tat, &another_came_before, now_ns), tat);
}

#[test]
fn a_policy_is_the_rate_in_whole_seconds() {
    assert_eq!(rate(100, 1, 200).policy(), (200, 2));
    assert_eq!(rate(100, 1, 1).policy(), (100, 1));
    assert_eq!(rate(6000, 60, 1).policy(), (6000, 60));
    assert_eq!(rate(100, 1, 110).policy(), (100, 1));
    assert_eq!(rate(1, 3600, 3).policy(), (3, 10_800));
}

#[test]
fn a_changed_rate_keeps_the_backlog() {
    let mut tat = Tat::default();
    let slow = rate(1, 60, 3);
    assert_eq!(let_in(&slow, &mut tat, START, 10), 3);
    // The backlog is three minutes, whatever the rate is now.
    assert_eq!(rate(2, 60, 3).reserve(tat, START), Err(START + 120 * SEC));
    assert_eq!(let_in(&rate(1, 60, 4), &mut tat, START, 10), 1);
}

#[test]
fn the_end_of_time_is_no_trap() {
    let rate = rate(1_000_000_000, MAX_PER_SECS, 1_000_000_000);
    for now_ns in [0, 1, u64::MAX - 1, u64::MAX] {
        for ns in [0, u64::MAX] {
            let tat = Tat { ns, fraction: u32::MAX };
            _ = rate.reserve(tat, now_ns).map(|tat| rate.remaining(tat, now_ns));
            _ = rate.give_back(tat, &held(now_ns, Some(tat)), now_ns);
        }
    }
}

/// At the end of the clock a rate runs out, and is never free.
#[test]
fn the_end_of_time_is_no_allowance() {
    let rate = rate(1, 60, 3);
    for now_ns in [u64::MAX, u64::MAX - SEC, u64::MAX - 59 * SEC] {
        let mut tat = Tat::default();
        assert_eq!(let_in(&rate, &mut tat, now_ns, 10), 0, "{now_ns}");
        assert_eq!(rate.reserve(tat, now_ns), Err(u64::MAX));
    }
    let mut tat = Tat::default();
    assert_eq!(let_in(&rate, &mut tat, u64::MAX - 130 * SEC, 10), 2);
    assert_eq!(let_in(&rate, &mut tat, u64::MAX - 121 * SEC, 10), 0);
}

#[track_caller]
fn check(text: &str, expected: Result<Rate, &str>) {
    let json = Json::parse(text.as_bytes()).unwrap();
    let read = Rate::read(&json.root(Integers::Whole)).map_err(|invalid| invalid.to_string());
    assert_eq!(read, expected.map_err(str::to_owned));
}

#[test]
fn a_rate_is_read() {
    check(r#"{"requests": 100, "per": "1s", "burst": 200}"#, Ok(rate(100, 1, 200)));
    check(r#"{"requests": 5.0, "per": "1h"}"#, Ok(rate(5, 3600, 5)));
    for wrong in ["0", "1000000001", "-1", "1.5", "18446744073709551616", "\"1\""] {
        let rate = format!(r#"{{"requests": {wrong}, "per": "1s"}}"#);
        check(&rate, Err("requests: expected 1 to 1000000000"));
    }
    check(r#"{"requests": 1, "per": "1s", "burst": 0}"#, Err("burst: expected 1 to 1000000000"));
    check(r#"{"requests": 1, "per": "0s"}"#, Err("per: expected 1s to 366d"));
    check(r#"{"requests": 1, "per": "367d"}"#, Err("per: expected 1s to 366d"));
    check(
        r#"{"requests": 1, "per": "366d", "burst": 2}"#,
        Err("expected a burst that comes back within 366 days"),
    );
    check(r#"{"requests": 1}"#, Err("per: missing"));
    check(
        r#"{"requests": 1, "per": "day"}"#,
        Err("per: expected a duration in whole seconds, e.g. 90s, 15m, 168h or 30d"),
    );
}

#[cfg(not(target_arch = "wasm32"))]
mod properties {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_rate() -> impl Strategy<Value = Rate> {
        (1..50_u32, 1..5_u64, 1..20_u32)
            .prop_map(|(requests, per_secs, burst)| Rate::new(requests, per_secs, burst).unwrap())
    }

    /// Steps of the clock, forward and back.
    fn schedule() -> impl Strategy<Value = Vec<i64>> {
        let second = i64::try_from(SEC).unwrap();
        vec(prop_oneof![4 => Just(0), 4 => 0..second, 1 => 0..5 * second, 1 => -second..0], 1..200)
    }

    /// The definition without rounding: a bucket of `burst` drops that drains at the rate, kept in
    /// ticks as a level and the time it was last looked at.
    struct Bucket {
        level: u128,
        at_ns: u64,
    }

    impl Bucket {
        fn admit(&mut self, rate: &Rate, now_ns: u64) -> bool {
            self.level = self.level.saturating_sub(rate.ticks(now_ns - self.at_ns));
            self.at_ns = now_ns;
            let fits = self.level + rate.interval() <= rate.capacity();
            self.level += if fits { rate.interval() } else { 0 };
            fits
        }
    }

    proptest! {
        #[test]
        fn it_lets_in_what_the_bucket_does(rate in any_rate(), steps in vec(0..2 * SEC, 1..200)) {
            let (mut tat, mut now_ns) = (Tat::default(), START);
            let mut bucket = Bucket { level: 0, at_ns: START };
            for step in steps {
                now_ns += step;
                prop_assert_eq!(admit(&rate, &mut tat, now_ns), bucket.admit(&rate, now_ns));
            }
        }

        /// However the clock jumps, no more get in than a clock that stood at its latest would give.
        #[test]
        fn a_clock_that_goes_back_gains_nothing(rate in any_rate(), steps in schedule()) {
            let (mut tat, mut monotone) = (Tat::default(), Tat::default());
            let (mut now_ns, mut latest_ns) = (START, START);
            let (mut jumping, mut steady) = (0, 0);
            for step in [0].into_iter().chain(steps) {
                now_ns = now_ns.saturating_add_signed(step);
                latest_ns = latest_ns.max(now_ns);
                jumping += u32::from(admit(&rate, &mut tat, now_ns));
                steady += u32::from(admit(&rate, &mut monotone, latest_ns));
                prop_assert!(jumping <= steady);
            }
        }

        #[test]
        fn a_refusal_ends_when_it_says(rate in any_rate(), steps in vec(0..SEC, 1..100)) {
            let (mut tat, mut now_ns) = (Tat::default(), START);
            for step in steps {
                now_ns += step;
                if let Err(until_ns) = rate.reserve(tat, now_ns) {
                    prop_assert!(until_ns > now_ns);
                    prop_assert!(rate.reserve(tat, until_ns).is_ok());
                    prop_assert!(rate.reserve(tat, until_ns - 1).is_err());
                } else {
                    admit(&rate, &mut tat, now_ns);
                }
            }
        }

        /// Requests that are taken back, each some time after it was let in, never let more in than a
        /// world in which they had not been asked for; and when they are taken back at once, no fewer.
        #[test]
        fn what_is_taken_back_never_gains(
            rate in any_rate(),
            steps in vec((0..SEC, any::<bool>(), 0..4_usize), 1..100),
            at_once: bool,
        ) {
            let (mut tat, mut without) = (Tat::default(), Tat::default());
            let mut now_ns = START;
            let mut open: Vec<RateReservation> = Vec::new();
            for (step, keep, index) in steps {
                now_ns += step;
                if index < open.len() && !keep {
                    tat = rate.give_back(tat, &open.remove(index), now_ns);
                    // The others do not know what this has changed.
                    open.iter_mut().for_each(|other| other.tat = None);
                }
                if keep {
                    let admitted = admit(&rate, &mut tat, now_ns);
                    // What is let in here would have been let in there, where less was asked for.
                    prop_assert!(!admitted || admit(&rate, &mut without, now_ns));
                } else if admit(&rate, &mut tat, now_ns) {
                    if at_once {
                        tat = rate.give_back(tat, &held(now_ns, Some(tat)), now_ns);
                    } else {
                        open.push(held(now_ns, Some(tat)));
                    }
                }
                if at_once {
                    prop_assert_eq!(rate.remaining(tat, now_ns), rate.remaining(without, now_ns));
                }
            }
        }
    }
}

/// In 64 bits as in 128.
#[test]
fn numbers_are_divided_as_their_length_requires() {
    let word = u128::from(u64::MAX);
    for (number, divisor) in
        [(7, 2), (word, 10), (word + 1, 10), (7, word + 1), (word << 40, 1 << 50)]
    {
        let expected = (number / divisor, number % divisor);
        let (quotient, rest) = divided(number, divisor);
        assert_eq!((u128::from(quotient), u128::from(rest)), expected, "{number} / {divisor}");
    }
    assert_eq!(divided(u128::MAX, 1), (u64::MAX, 0));
}
