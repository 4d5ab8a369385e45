use smallvec::smallvec;

use super::*;
use crate::json::{Integers, Json};

use Sensitivity::{High, Low, Medium};

/// The start of a window.
const START: u64 = 1_790_000_100;

/// A request from the usual network, `windows` windows after the start.
fn request(windows: u64) -> Observation {
    let source = Some("192.0.2.7".parse().unwrap());
    Observation { source, refused: false, now_secs: START + windows * WINDOW_SECS }
}

fn from(source: &str, windows: u64) -> Observation {
    Observation { source: Some(source.parse().unwrap()), ..request(windows) }
}

/// What is unusual about `count` such requests.
fn observe(
    watch: &mut Watch,
    seen: Observation,
    count: u32,
    sensitivity: Sensitivity,
) -> Vec<Anomaly> {
    (0..count).filter_map(|_| watch.observe(&seen, sensitivity)).collect()
}

/// A key that made `count` requests in each of `windows` windows, without an alert.
#[track_caller]
fn steady(windows: u64, count: u32, sensitivity: Sensitivity) -> Watch {
    let mut watch = Watch::default();
    for window in 0..windows {
        assert_eq!(observe(&mut watch, request(window), count, sensitivity), [], "window {window}");
    }
    watch
}

#[track_caller]
fn roundtrip(watch: &Watch) {
    let mut record = Vec::new();
    watch.write(&mut Writer::over(&mut record));
    assert!(record.len() <= Watch::MAX_BYTES);
    record.push(7);
    let mut input = &*record;
    assert_eq!(Watch::read(&mut input).as_ref(), Some(watch));
    assert_eq!(input, [7]);
}

// === configuration ===

#[test]
fn a_sensitivity_is_read_strictly() {
    let read = |text: &str| {
        let json = Json::parse(text.as_bytes()).unwrap();
        Sensitivity::read(&json.root(Integers::Whole)).map_err(|invalid| invalid.to_string())
    };
    for sensitivity in Sensitivity::ALL {
        let text = format!(r#"{{"sensitivity": "{}"}}"#, sensitivity.word());
        assert_eq!(read(&text), Ok(sensitivity));
    }
    for (text, error) in [
        ("{}", "sensitivity: missing"),
        (r#""low""#, "expected an object"),
        (r#"{"sensitivity": "Low"}"#, "sensitivity: expected one of low, medium, high"),
        (r#"{"sensitivity": 1}"#, "sensitivity: expected a string"),
        (r#"{"sensitivity": "low", "x": 1}"#, "x: unknown member (known here: sensitivity)"),
    ] {
        assert_eq!(read(text), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn anomalies_have_their_names() {
    assert_eq!(Anomaly::ALL.map(Anomaly::word), ["rate", "source", "refusals"]);
}

// === rate ===

#[test]
fn a_burst_is_unusual_from_the_first_request_too_many() {
    for (sensitivity, windows, usual) in [(Low, 12, 100), (Medium, 6, 100), (High, 3, 100)] {
        let mut watch = steady(windows, usual, sensitivity);
        let most = usual * sensitivity.thresholds().rate_factor;
        assert_eq!(observe(&mut watch, request(windows), most, sensitivity), []);
        assert_eq!(watch.observe(&request(windows), sensitivity), Some(Anomaly::Rate));
        assert_eq!(observe(&mut watch, request(windows), 10 * most, sensitivity), []);
    }
}

#[test]
fn few_requests_are_never_a_burst() {
    for sensitivity in Sensitivity::ALL {
        let mut watch = steady(20, 1, sensitivity);
        let enough = sensitivity.thresholds().rate_requests;
        assert_eq!(observe(&mut watch, request(20), enough - 1, sensitivity), []);
        assert_eq!(watch.observe(&request(20), sensitivity), Some(Anomaly::Rate));
    }
}

#[test]
fn the_mean_has_to_be_known() {
    for sensitivity in Sensitivity::ALL {
        let windows = u64::from(sensitivity.thresholds().rate_windows);
        let mut watch = steady(windows - 1, 1, sensitivity);
        assert_eq!(observe(&mut watch, request(windows - 1), 5_000, sensitivity), []);
        let mut watch = steady(windows, 1, sensitivity);
        assert_eq!(observe(&mut watch, request(windows), 5_000, sensitivity), [Anomaly::Rate]);
    }
}

#[test]
fn a_first_window_seen_the_end_of_does_no_harm() {
    for sensitivity in Sensitivity::ALL {
        let mut watch = steady(1, 1, sensitivity);
        for window in 1..100 {
            assert_eq!(observe(&mut watch, request(window), 200, sensitivity), []);
        }
    }
}

#[test]
fn a_burst_that_stays_becomes_usual() {
    let mut watch = steady(8, 100, Medium);
    let mut alerts = vec![];
    for window in 8..20 {
        alerts.push(observe(&mut watch, request(window), 600, Medium).len());
    }
    assert_eq!(alerts, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_mean_is_weighted_by_an_eighth_after_eight_windows() {
    let mut watch = steady(8, 80, Low);
    watch.observe(&request(8), Low);
    assert_eq!((watch.windows, watch.mean), (8, 80 * 256));
    watch.observe(&request(9), Low);
    assert_eq!((watch.windows, watch.mean), (9, (7 * 80 + 1) * 256 / 8));
}

#[test]
fn idle_windows_count_as_none() {
    let mut one_by_one = steady(10, 300, Low);
    let mut at_once = one_by_one.clone();
    for _ in 0..20 {
        one_by_one.close(if one_by_one.windows == 9 { 300 } else { 0 });
    }
    at_once.enter(START / WINDOW_SECS + 29);
    assert_eq!((at_once.windows, at_once.mean), (one_by_one.windows, one_by_one.mean));
    at_once.enter(u64::MAX);
    assert_eq!((at_once.windows, at_once.mean), (u8::MAX, 0));
}

#[test]
fn every_mean_is_gone_after_the_most_idle_windows() {
    let mut watch = steady(1, 1, Low);
    watch.mean = u64::MAX;
    watch.windows = u8::MAX;
    watch.enter(watch.window + 2 + MAX_IDLE_WINDOWS);
    assert_eq!(watch.mean, 0);
}

// === source ===

#[test]
fn another_network_is_unusual_once_the_key_was_used() {
    for sensitivity in Sensitivity::ALL {
        let before = sensitivity.thresholds().source_requests;
        let mut watch = Watch::default();
        observe(&mut watch, request(0), before - 1, sensitivity);
        assert_eq!(watch.observe(&from("198.51.100.1", 0), sensitivity), None);
        assert_eq!(watch.observe(&from("203.0.113.1", 0), sensitivity), Some(Anomaly::Source));
    }
}

#[test]
fn networks_are_told_apart_by_24_and_48_bits() {
    let mut watch = Watch::default();
    observe(&mut watch, request(0), 10, High);
    let mut window = 0;
    let mut seen = |source| {
        window += 1;
        watch.observe(&from(source, window), High).is_some()
    };
    assert!(!seen("192.0.2.255"));
    assert!(!seen("::ffff:192.0.2.1"));
    assert!(seen("192.0.3.0"));
    assert!(seen("2001:db8:1::1"));
    assert!(!seen("2001:db8:1:ffff::1"));
    assert!(seen("2001:db8:2::1"));
    assert!(seen("c000:0200::"));
}

#[test]
fn the_last_eight_networks_are_known() {
    let mut watch = Watch::default();
    let network = |number: usize| format!("10.0.{number}.1");
    for number in 0..NETWORKS {
        observe(&mut watch, from(&network(number), 0), 2, High);
    }
    roundtrip(&watch);
    // The one used longest ago is used again, so that the second is now that.
    assert_eq!(watch.observe(&from(&network(0), 1), High), None);
    assert_eq!(watch.observe(&from(&network(8), 2), High), Some(Anomaly::Source));
    assert_eq!(watch.observe(&from(&network(0), 3), High), None);
    assert_eq!(watch.observe(&from(&network(2), 3), High), None);
    assert_eq!(watch.observe(&from(&network(1), 3), High), Some(Anomaly::Source));
}

#[test]
fn an_unknown_address_is_nowhere_else() {
    let mut watch = steady(1, 20, High);
    let unknown = Observation { source: None, ..request(1) };
    assert_eq!(watch.observe(&unknown, High), None);
    assert_eq!(watch.networks.len(), 1);
}

// === refusals ===

#[test]
fn many_refusals_are_unusual() {
    for (sensitivity, refused, requests) in [(Low, 45, 50), (Medium, 10, 20), (High, 3, 10)] {
        let outcome = |refused, requests| {
            let mut watch = Watch::default();
            let refusal = Observation { refused: true, ..request(0) };
            let mut alerts = observe(&mut watch, refusal, refused, sensitivity);
            alerts.extend(observe(&mut watch, request(0), requests - refused, sensitivity));
            alerts
        };
        assert_eq!(outcome(refused, requests - 1), []);
        assert_eq!(outcome(refused - 1, requests), []);
        assert_eq!(outcome(refused, requests), [Anomaly::Refusals]);
        assert_eq!(outcome(requests, requests), [Anomaly::Refusals]);
        assert_eq!(outcome(10 * requests, 10 * requests), [Anomaly::Refusals]);
    }
}

// === windows ===

#[test]
fn of_several_anomalies_the_first_is_reported() {
    let refusal = |source, window| Observation { refused: true, ..from(source, window) };
    let mut watch = steady(3, 1, High);
    watch.enter(START / WINDOW_SECS + 3);
    watch.requests = 49;
    watch.refused = 49;
    watch.total = 52;
    let mut without_rate = watch.clone();
    without_rate.windows = 2;
    assert_eq!(watch.observe(&refusal("10.0.0.1", 3), High), Some(Anomaly::Rate));
    assert_eq!(without_rate.observe(&refusal("10.0.0.1", 3), High), Some(Anomaly::Source));
}

#[test]
fn the_next_window_can_have_its_alert() {
    let mut watch = steady(1, 20, High);
    assert_eq!(watch.observe(&from("10.0.0.1", 1), High), Some(Anomaly::Source));
    assert_eq!(watch.observe(&from("10.0.1.1", 1), High), None);
    assert_eq!(watch.observe(&from("10.0.2.1", 2), High), Some(Anomaly::Source));
}

#[test]
fn windows_follow_the_clock_to_the_second() {
    let mut watch = steady(1, 1, High);
    let at = |now_secs| Observation { now_secs, ..request(0) };
    watch.observe(&at(START + WINDOW_SECS - 1), High);
    assert_eq!((watch.requests, watch.windows), (2, 0));
    watch.observe(&at(START + WINDOW_SECS), High);
    assert_eq!((watch.requests, watch.windows), (1, 1));
}

#[test]
fn a_clock_that_goes_back_counts_into_the_latest_window() {
    let mut watch = steady(3, 20, High);
    assert_eq!(watch.observe(&from("10.0.0.1", 3), High), Some(Anomaly::Source));
    for window in [2, 0, 3, 1] {
        assert_eq!(watch.observe(&from(&format!("10.0.{window}.9"), window), High), None);
    }
    let past = Observation { now_secs: 0, ..request(0) };
    assert_eq!(watch.observe(&past, High), None);
    assert_eq!((watch.window, watch.requests, watch.windows), (START / WINDOW_SECS + 3, 6, 3));
}

#[test]
fn counts_stop_at_their_maximum() {
    let mut watch = steady(1, 1, Low);
    watch.requests = u32::MAX;
    watch.refused = u32::MAX;
    watch.total = u32::MAX;
    let refusal = Observation { refused: true, ..request(0) };
    assert_eq!(watch.observe(&refusal, Low), Some(Anomaly::Refusals));
    roundtrip(&watch);
    watch.enter(u64::MAX);
    roundtrip(&watch);
}

// === the record ===

#[test]
fn the_layout_stays_as_it_is() {
    let watch = Watch {
        window: 0x0102,
        requests: 3,
        refused: 2,
        alerted: true,
        windows: 5,
        mean: 6,
        total: 7,
        networks: smallvec![0x0A0B_0C0D],
    };
    let mut record = vec![];
    watch.write(&mut Writer::over(&mut record));
    let parts = [
        &[0x81][..],
        &[2, 1, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0],
        &[2, 0, 0, 0],
        &[5],
        &[6, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 0],
        &[0x0D, 0x0C, 0x0B, 0x0A],
    ];
    assert_eq!(record, parts.concat());
    roundtrip(&watch);
    roundtrip(&Watch::default());
    const { assert!(Watch::MAX_BYTES <= 64) };
}

#[test]
fn what_is_no_watch_is_refused() {
    let mut record = vec![];
    steady(2, 9, Low).write(&mut Writer::over(&mut record));
    for len in 0..record.len() {
        assert_eq!(Watch::read(&mut &record[..len]), None, "{len} bytes");
    }
    // Nine networks, an unknown flag, more refused than requested, more requested than in all.
    for (index, byte) in [(0, 9), (0, 0x41), (13, 10), (9, 19)] {
        let mut changed = record.clone();
        changed[index] = byte;
        changed.extend([0; 64]);
        assert_eq!(Watch::read(&mut &*changed), None, "byte {index}");
    }
}

// === properties ===

#[cfg(not(target_arch = "wasm32"))]
mod properties {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Requests at a clock that mostly goes forward.
    fn traffic() -> impl Strategy<Value = Vec<Observation>> {
        let step = prop_oneof![20 => 0..30_i64, 1 => 0..5_000_i64, 1 => -1_000..0_i64];
        let source = prop_oneof![9 => (0..3_u8).prop_map(Some), 1 => any::<Option<u8>>()];
        let request = (step, source, any::<bool>(), 1..40_usize);
        vec(request, 1..100).prop_map(|requests| {
            let mut now_secs = 100_000_i64;
            let mut tick = |step: i64| {
                now_secs = (now_secs + step).max(0);
                now_secs.unsigned_abs()
            };
            let mut traffic = vec![];
            for (step, source, refused, times) in requests {
                let source = source.map(|number| IpAddr::from([10, 0, number, 1]));
                let seen = Observation { source, refused, now_secs: tick(step) };
                traffic.extend(std::iter::repeat_n(seen, times));
            }
            traffic
        })
    }

    fn sensitivity() -> impl Strategy<Value = Sensitivity> {
        select(&Sensitivity::ALL[..])
    }

    proptest! {
        #[test]
        fn a_window_has_one_alert(traffic in traffic(), sensitivity in sensitivity()) {
            let (mut watch, mut alerted, mut latest) = (Watch::default(), BTreeSet::new(), 0);
            for seen in traffic {
                latest = latest.max(seen.now_secs / WINDOW_SECS);
                if watch.observe(&seen, sensitivity).is_some() {
                    prop_assert!(alerted.insert(latest));
                }
                prop_assert_eq!(watch.window, latest);
                prop_assert!(watch.networks.len() <= NETWORKS);
            }
        }

        #[test]
        fn a_watch_of_any_history_reads_what_it_wrote(
            traffic in traffic(),
            sensitivity in sensitivity(),
            leap: u64,
        ) {
            let mut watch = Watch::default();
            for seen in traffic {
                watch.observe(&seen, sensitivity);
            }
            roundtrip(&watch);
            watch.observe(&Observation { source: None, refused: true, now_secs: leap }, sensitivity);
            roundtrip(&watch);
        }

        #[test]
        fn any_bytes_are_a_watch_or_refused(
            bytes in vec(any::<u8>(), 0..80),
            head in 0..10_u8,
            leap: u64,
            sensitivity in sensitivity(),
        ) {
            let likely = [&[head], &*bytes].concat();
            for bytes in [&*bytes, &*likely] {
                let mut rest = bytes;
                let Some(mut watch) = Watch::read(&mut rest) else { continue };
                let mut again = vec![];
                watch.write(&mut Writer::over(&mut again));
                again.extend_from_slice(rest);
                prop_assert_eq!(&*again, bytes);
                let source = Some(IpAddr::from([10, 0, 0, 1]));
                watch.observe(&Observation { source, refused: true, now_secs: leap }, sensitivity);
                roundtrip(&watch);
            }
        }

        #[test]
        fn steady_traffic_is_usual(
            first in 1..400_u32,
            count in 1..400_u32,
            sensitivity in sensitivity(),
        ) {
            let mut watch = Watch::default();
            observe(&mut watch, request(0), first.min(count), sensitivity);
            for window in 1..20 {
                prop_assert_eq!(observe(&mut watch, request(window), count, sensitivity), []);
            }
        }

        #[test]
        fn networks_that_return_are_usual(order in vec(0..8_u8, 1..200), sensitivity in sensitivity()) {
            let mut watch = Watch::default();
            for number in 0..8 {
                watch.observe(&from(&format!("10.0.{number}.1"), 0), sensitivity);
            }
            observe(&mut watch, from("10.0.0.1", 0), 1_000, sensitivity);
            for (window, number) in (1..).zip(order) {
                let seen = from(&format!("10.0.{number}.1"), window);
                prop_assert_eq!(watch.observe(&seen, sensitivity), None);
            }
        }
    }
}
