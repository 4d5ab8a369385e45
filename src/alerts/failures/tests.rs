use super::*;
use crate::json::{Integers, Json};
use crate::record::{NotThisRecord, Writer, decode, encode};

/// Three failures in 100 s raise an alert and block for `block_secs`.
fn rules(block_secs: u64) -> FailureRules {
    FailureRules { threshold: 3, window_secs: 100, block_secs }
}

fn source(text: &str) -> Source {
    source_network(text.parse().unwrap())
}

/// Distinct sources, in no order that means anything.
fn numbered(number: u32) -> Source {
    source_network(IpAddr::V4(Ipv4Addr::from_bits(number)))
}

const COUNTED: FailureOutcome = FailureOutcome { alert: false, blocked_until_secs: None };
const ALERT: FailureOutcome = FailureOutcome { alert: true, blocked_until_secs: None };

fn blocked(until_secs: u64) -> FailureOutcome {
    FailureOutcome { alert: false, blocked_until_secs: Some(until_secs) }
}

/// Failures of one source, each as (time, outcome).
#[track_caller]
fn check(rules: &FailureRules, steps: &[(u64, FailureOutcome)]) {
    let mut shard = Shard::default();
    for (now_secs, outcome) in steps {
        assert_eq!(shard.fail(numbered(1), *now_secs, rules), *outcome, "at {now_secs}");
    }
}

fn sources(shard: &Shard) -> Vec<Source> {
    let mut sources: Vec<Source> = shard.slots.iter().flatten().map(|e| e.source).collect();
    sources.sort();
    sources
}

// === rules ===

fn read(text: &str) -> Result<FailureRules, String> {
    let json = Json::parse(text.as_bytes()).unwrap();
    FailureRules::read(&json.root(Integers::Whole)).map_err(|invalid| invalid.to_string())
}

#[test]
fn every_rule_has_a_default() {
    let default = FailureRules { threshold: 5, window_secs: 300, block_secs: 0 };
    assert_eq!(read("{}"), Ok(default));
    assert_eq!(
        read(r#"{"threshold": 1000000, "window": "24h", "block_for": "1d"}"#),
        Ok(FailureRules { threshold: 1_000_000, window_secs: 86_400, block_secs: 86_400 })
    );
    assert_eq!(
        read(r#"{"threshold": 1, "window": "1s", "block_for": "0s"}"#),
        Ok(FailureRules { threshold: 1, window_secs: 1, block_secs: 0 })
    );
}

#[test]
fn rules_out_of_range_are_refused() {
    let duration = "expected a duration in whole seconds, e.g. 90s, 15m, 168h or 30d";
    for (text, error) in [
        ("[]", "expected an object".to_owned()),
        (
            r#"{"limit": 1}"#,
            "limit: unknown member (known here: threshold, window, block_for)".into(),
        ),
        (r#"{"threshold": 0}"#, "threshold: expected 1 to 1000000".into()),
        (r#"{"threshold": -1}"#, "threshold: expected 1 to 1000000".into()),
        (r#"{"threshold": 1.5}"#, "threshold: expected 1 to 1000000".into()),
        (r#"{"threshold": 18446744073709551616}"#, "threshold: expected 1 to 1000000".into()),
        (r#"{"threshold": 1000001}"#, "threshold: expected 1 to 1000000".into()),
        (r#"{"threshold": 4294967297}"#, "threshold: expected 1 to 1000000".into()),
        (r#"{"window": "0s"}"#, "window: expected 1s to 24h".into()),
        (r#"{"window": "86401s"}"#, "window: expected 1s to 24h".into()),
        (r#"{"window": "1500ms"}"#, format!("window: {duration}")),
        (r#"{"block_for": "25h"}"#, "block_for: expected at most 24h".into()),
        (r#"{"block_for": 60}"#, "block_for: expected a string".into()),
    ] {
        assert_eq!(read(text), Err(error), "{text}");
    }
}

// === sources ===

#[test]
fn a_source_is_what_one_client_can_choose_from() {
    assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
    assert_ne!(source("192.0.2.7"), source("192.0.2.8"));
    assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::"));
    assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    assert_ne!(source("0.0.0.0"), source("::"));
    assert_ne!(source("0.0.0.0"), Source::UNKNOWN);
    assert_ne!(source("::"), Source::UNKNOWN);
}

#[test]
fn a_source_is_named_in_the_log() {
    assert_eq!(source("::ffff:192.0.2.7").to_string(), "192.0.2.7");
    assert_eq!(source("2001:db8:1:2:3::4").to_string(), "2001:db8:1:2::/64");
    assert_eq!(source("::1").to_string(), "::/64");
    assert_eq!(Source::UNKNOWN.to_string(), "an unknown address");
}

#[test]
fn sources_spread_over_all_shards() {
    let mut counts = [0; SHARDS as usize];
    for number in 0..6_400 {
        counts[usize::from(numbered(number).shard_number())] += 1;
        let v6 = Ipv6Addr::from_bits(u128::from(number) << 64);
        counts[usize::from(source_network(v6.into()).shard_number())] += 1;
    }
    assert!(counts.iter().all(|count| (100..300).contains(count)), "{counts:?}");
}

// === windows and blocks ===

#[test]
fn the_threshold_raises_one_alert_in_a_window() {
    check(&rules(0), &[(10, COUNTED), (10, COUNTED), (109, ALERT), (109, COUNTED), (109, COUNTED)]);
}

#[test]
fn a_window_ends_to_the_second() {
    let rules = rules(0);
    check(&rules, &[(10, COUNTED), (11, COUNTED), (110, COUNTED), (111, COUNTED), (112, ALERT)]);
    check(
        &rules,
        &[(0, COUNTED), (0, COUNTED), (0, ALERT), (100, COUNTED), (101, COUNTED), (102, ALERT)],
    );
}

#[test]
fn the_first_failure_can_be_the_alert() {
    let rules = FailureRules { threshold: 1, ..rules(60) };
    check(&rules, &[(5, ALERT), (5, blocked(65)), (65, ALERT)]);
}

#[test]
fn a_block_is_neither_prolonged_nor_counted() {
    check(
        &rules(60),
        &[
            (10, COUNTED),
            (20, COUNTED),
            (30, ALERT),
            (30, blocked(90)),
            (89, blocked(90)),
            (90, COUNTED), // the window of 10 would last until 110
            (91, COUNTED),
            (92, ALERT),
            (93, blocked(152)),
        ],
    );
}

#[test]
fn a_block_outlasts_its_window() {
    check(
        &rules(500),
        &[(0, COUNTED), (1, COUNTED), (2, ALERT), (300, blocked(502)), (502, COUNTED)],
    );
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let back = &[(1_000, COUNTED), (0, COUNTED), (1_000, ALERT), (0, COUNTED), (1_099, COUNTED)];
    check(&rules(0), back);
    check(
        &rules(60),
        &[
            (1_000, COUNTED),
            (1_000, COUNTED),
            (1_000, ALERT),
            (0, blocked(1_060)),
            (1_059, blocked(1_060)),
        ],
    );
}

#[test]
fn the_end_of_time_is_nothing_special() {
    let rules = FailureRules { threshold: 1, window_secs: u64::MAX, block_secs: u64::MAX };
    check(&rules, &[(u64::MAX - 1, ALERT), (u64::MAX - 1, blocked(u64::MAX)), (u64::MAX, ALERT)]);
}

#[test]
fn counts_stop_at_their_maximum() {
    let mut shard = Shard::default();
    let rules = FailureRules { threshold: u32::MAX, ..rules(0) };
    shard.fail(numbered(1), 0, &rules);
    shard.slots[0].as_mut().unwrap().failures = u32::MAX - 1;
    assert_eq!(shard.fail(numbered(1), 0, &rules), ALERT);
    assert_eq!(shard.fail(numbered(1), 0, &rules), COUNTED);
    assert_eq!(shard.slots[0].unwrap().failures, u32::MAX);
}

#[test]
fn a_threshold_lowered_meanwhile_is_noticed_once() {
    let mut shard = Shard::default();
    let before = FailureRules { threshold: 100, ..rules(0) };
    for _ in 0..50 {
        assert_eq!(shard.fail(numbered(1), 0, &before), COUNTED);
    }
    assert_eq!(shard.fail(numbered(1), 1, &rules(0)), ALERT);
    assert_eq!(shard.fail(numbered(1), 2, &rules(0)), COUNTED);
}

#[test]
fn rules_that_block_nobody_lift_a_block() {
    let mut shard = Shard::default();
    for outcome in [COUNTED, COUNTED, ALERT, blocked(60)] {
        assert_eq!(shard.fail(numbered(1), 0, &rules(60)), outcome);
    }
    assert_eq!(shard.fail(numbered(1), 1, &rules(0)), COUNTED);
}

// === eviction ===

/// A shard whose places are taken: the source `n` failed `failures[n]` times, from the second `n` on.
fn full(failures: [u32; WAYS], rules: &FailureRules) -> Shard {
    let mut shard = Shard::default();
    for (number, failures) in (0..).zip(failures) {
        for _ in 0..failures {
            shard.fail(numbered(number), number.into(), rules);
        }
    }
    shard
}

/// A source that is not known takes the place of the source `evicted`.
#[track_caller]
fn check_evicted(mut shard: Shard, now_secs: u64, rules: &FailureRules, evicted: u32) {
    shard.fail(numbered(99), now_secs, rules);
    let mut expected: Vec<Source> = (0..8).filter(|n| *n != evicted).map(numbered).collect();
    expected.push(numbered(99));
    assert_eq!(sources(&shard), expected);
}

#[test]
fn empty_places_are_taken_first() {
    let mut shard = Shard::default();
    for number in 0..8 {
        shard.fail(numbered(number), u64::from(number) * 1_000, &rules(0));
    }
    assert_eq!(sources(&shard), (0..8).map(numbered).collect::<Vec<_>>());
}

#[test]
fn what_is_over_is_forgotten_first() {
    check_evicted(full([2, 1, 1, 1, 1, 1, 1, 1], &rules(0)), 100, &rules(0), 0);
    // The block of 3 is over; the windows of the others are not.
    check_evicted(full([2, 2, 2, 3, 1, 1, 1, 1], &rules(10)), 13, &rules(10), 3);
    // The window of 0 is over, its block is not.
    check_evicted(full([3, 1, 1, 1, 1, 1, 1, 1], &rules(500)), 101, &rules(500), 1);
}

#[test]
fn then_the_fewest_failures_are_and_the_oldest_of_them() {
    check_evicted(full([3, 2, 2, 1, 2, 1, 2, 2], &rules(0)), 9, &rules(0), 3);
    check_evicted(full([2, 2, 2, 2, 2, 2, 2, 2], &rules(0)), 9, &rules(0), 0);
    check_evicted(full([3, 3, 3, 3, 3, 3, 3, 2], &rules(60)), 9, &rules(60), 7);
}

#[test]
fn then_the_block_that_ends_first() {
    check_evicted(full([3; WAYS], &rules(60)), 9, &rules(60), 0);
}

#[test]
fn many_sources_do_not_displace_a_persistent_one() {
    let (mut shard, rules) = (Shard::default(), FailureRules { threshold: 50, ..rules(0) });
    let mut alerts = 0;
    for number in 0..50 {
        alerts += u32::from(shard.fail(Source::UNKNOWN, 1, &rules).alert);
        for other in 0..20 {
            shard.fail(numbered(number * 20 + other), 1, &rules);
            alerts += u32::from(shard.fail(Source::UNKNOWN, 1, &rules).alert);
        }
    }
    assert_eq!(alerts, 1);
}

// === the record ===

/// Bytes of a record, whatever is in it.
const RECORD_BYTES: usize = 254;

fn encoded(shard: &Shard) -> Vec<u8> {
    encode(&shard_name(0), shard)
}

fn decoded(record: &[u8]) -> Result<Shard, NotThisRecord> {
    decode(&shard_name(0), record)
}

#[test]
fn a_shard_reads_what_it_wrote() {
    let mut shard = full([3, 1, 2, 3, 1, 1, 1, 1], &rules(60));
    shard.fail(Source::UNKNOWN, 5, &rules(60));
    shard.fail(source("2001:db8::1"), 5, &rules(60));
    assert_eq!(encoded(&shard).len(), RECORD_BYTES);
    assert_eq!(decoded(&encoded(&shard)), Ok(shard));
    let empty = Shard::default();
    for number in 0..SHARDS {
        assert_eq!(encode(&shard_name(number), &empty).len(), RECORD_BYTES);
    }
    assert_eq!(decoded(&encoded(&empty)), Ok(empty));
}

#[test]
fn the_layout_stays_as_it_is() {
    let mut shard = Shard::default();
    shard.fail(source("192.0.2.7"), 0x0102, &FailureRules { threshold: 1, ..rules(1) });
    let entry = [
        &[4][..],
        &[7, 2, 0, 192, 0, 0, 0, 0],
        &[2, 1, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0],
        &[1],
        &[3, 1, 0, 0, 0, 0, 0, 0],
    ];
    let mut content = Vec::new();
    shard.write(&mut Writer::over(&mut content));
    assert_eq!(content[..ENTRY_BYTES], entry.concat());
    assert!(content[ENTRY_BYTES..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_record_of_another_shard_is_foreign() {
    let other = decode::<Shard>(&shard_name(2), &encoded(&Shard::default()));
    assert_eq!(other, Err(NotThisRecord::Foreign));
}

#[test]
fn a_genuine_checksum_makes_no_shard() {
    let mut content = Vec::new();
    full([3; WAYS], &rules(60)).write(&mut Writer::over(&mut content));
    assert!(Shard::read(&mut &*content).is_some());
    // Of the second entry: family, an IPv4 address of more than four bytes, whether alerted.
    for (index, byte) in [(30, 0), (30, 2), (30, 1), (35, 1), (51, 2)] {
        let mut changed = content.clone();
        changed[index] = byte;
        assert_eq!(Shard::read(&mut &*changed), None, "byte {index}");
    }
    assert_eq!(Shard::read(&mut &content[1..]), None);
}

// === properties ===

#[cfg(not(target_arch = "wasm32"))]
mod properties {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_source() -> impl Strategy<Value = Source> {
        let address = any::<Option<IpAddr>>();
        address.prop_map(|address| address.map_or(Source::UNKNOWN, source_network))
    }

    fn any_rules() -> impl Strategy<Value = FailureRules> {
        (1..6_u32, 1..60_u64, prop_oneof![Just(0), 1..90_u64]).prop_map(
            |(threshold, window_secs, block_secs)| FailureRules {
                threshold,
                window_secs,
                block_secs,
            },
        )
    }

    /// Failures of the sources below `sources`, at a clock that mostly goes forward.
    fn failures(sources: u32) -> impl Strategy<Value = Vec<(u32, u64)>> {
        let step = prop_oneof![8 => 0..10_i64, 1 => 0..200_i64, 1 => -100..0_i64];
        vec((0..sources, step), 1..200).prop_map(|steps| {
            let mut now_secs = 1_000_i64;
            let mut tick = |step: i64| {
                now_secs = (now_secs + step).max(0);
                now_secs.unsigned_abs()
            };
            steps.into_iter().map(|(source, step)| (source, tick(step))).collect()
        })
    }

    /// The definition, with memory without end: the failures of the window, and the block.
    #[derive(Default)]
    struct Model {
        window: Vec<u64>,
        blocked_until_secs: Option<u64>,
    }

    impl Model {
        fn fail(&mut self, now_secs: u64, rules: &FailureRules) -> FailureOutcome {
            if let Some(until_secs) = self.blocked_until_secs {
                if now_secs < until_secs {
                    return blocked(until_secs);
                }
                *self = Self::default();
            }
            if self.window.first().is_some_and(|first| now_secs >= first + rules.window_secs) {
                self.window.clear();
            }
            self.window.push(now_secs);
            let alert = self.window.len() == rules.threshold as usize;
            if alert && rules.block_secs > 0 {
                let latest_secs = now_secs.max(self.window[0]);
                self.blocked_until_secs = Some(latest_secs + rules.block_secs);
            }
            if alert { ALERT } else { COUNTED }
        }
    }

    proptest! {
        #[test]
        fn a_shard_with_room_does_as_defined(rules in any_rules(), failures in failures(8)) {
            let (mut shard, mut models) = (Shard::default(), BTreeMap::<u32, Model>::new());
            for (source, now_secs) in failures {
                let expected = models.entry(source).or_default().fail(now_secs, &rules);
                prop_assert_eq!(shard.fail(numbered(source), now_secs, &rules), expected);
            }
        }

        #[test]
        fn a_window_has_one_alert_and_a_block_is_none(rules in any_rules(), failures in failures(20)) {
            let (mut shard, mut alerted) = (Shard::default(), BTreeSet::new());
            for (source, now_secs) in failures {
                let source = numbered(source);
                let failure = shard.fail(source, now_secs, &rules);
                let remembered: BTreeMap<Source, u64> =
                    shard.slots.iter().flatten().map(|e| (e.source, e.since_secs)).collect();
                prop_assert_eq!(remembered.len(), shard.slots.iter().flatten().count());
                prop_assert!(remembered.contains_key(&source));
                alerted.retain(|(source, _)| remembered.contains_key(source));
                if failure.alert {
                    prop_assert!(alerted.insert((source, remembered[&source])));
                }
                prop_assert!(!failure.alert || failure.blocked_until_secs.is_none());
                prop_assert!(failure.blocked_until_secs.is_none_or(|until| now_secs < until));
            }
        }

        #[test]
        fn a_shard_of_any_history_reads_what_it_wrote(
            threshold: u32,
            window_secs: u64,
            block_secs: u64,
            failures in vec((any_source(), any::<u64>()), 0..30),
        ) {
            let rules = FailureRules { threshold, window_secs, block_secs };
            let mut shard = Shard::default();
            for (source, now_secs) in failures {
                prop_assert!(source.shard_number() < SHARDS);
                shard.fail(source, now_secs, &rules);
                let record = encoded(&shard);
                prop_assert_eq!(record.len(), RECORD_BYTES);
                prop_assert_eq!(decoded(&record), Ok(shard.clone()));
            }
        }

        #[test]
        fn any_bytes_are_a_shard_or_refused(
            bytes in vec(any::<u8>(), 0..300),
            entries in vec((0..8_u8, vec(0..3_u8, ENTRY_BYTES - 1)), WAYS),
            now_secs: u64,
        ) {
            _ = Shard::read(&mut &*bytes);
            let entries = entries.into_iter().flat_map(|(family, rest)| {
                let empty = [vec![0], vec![0; ENTRY_BYTES - 1]];
                if family == 0 { empty.concat() } else { [vec![family], rest].concat() }
            });
            let content: Vec<u8> = entries.collect();
            if let Some(mut shard) = Shard::read(&mut &*content) {
                let mut again = Vec::new();
                shard.write(&mut Writer::over(&mut again));
                prop_assert_eq!(again, content);
                shard.fail(Source::UNKNOWN, now_secs, &rules(60));
            }
        }
    }
}
