use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;
use vkey::decision::DenyReason;

use super::*;
use crate::store::{
    Batch, By, Item, Place, Reader, Record, Retention, Store, TokenCounts, UsageFilter,
};

/// The samples of a text in the format of Prometheus, by name and labels. Panics at what is not of that format
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
fn samples(text: &str) -> BTreeMap<String, u64> {
    assert!(text.ends_with('\n'));
    let (mut found, mut family) = (BTreeMap::new(), None);
    let is_name = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !name.is_empty()
    };
    let lines = Vec::from_iter(text.lines());
    for (index, line) in lines.iter().enumerate() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && help.len() > 10, "{line}");
            let next = lines[index + 1].strip_prefix("# TYPE ").unwrap();
            let (typed, kind) = next.split_once(' ').unwrap();
            assert_eq!(typed, name);
            assert_eq!(kind, if name.ends_with("_total") { "counter" } else { "gauge" });
            family = Some(name);
        } else if !line.starts_with("# TYPE ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            assert_eq!(Some(name), family, "{line}");
            let labels = labels.strip_suffix('}').unwrap();
            let is_label = |label: &str| {
                let (name, value) = label.split_once("=\"").unwrap();
                is_name(name) && value.strip_suffix('"').is_some_and(is_name)
            };
            assert!(labels.is_empty() || labels.split(',').all(is_label), "{line}");
            assert!(found.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
    }
    found
}

fn open(folder: &TempDir) -> (Store, Reader) {
    let path = folder.path().join("store");
    let retention = Retention { max_records: 5, max_age_secs: None };
    let store = Store::open(&path, retention).unwrap();
    (store, Reader::open(&path).unwrap())
}

fn read(reader: &Reader) -> BTreeMap<String, u64> {
    samples(&render(&reader.measures(1_796_000_000).unwrap(), None))
}

/// The sum over all labels of a metric.
fn sum(samples: &BTreeMap<String, u64>, name: &str) -> u64 {
    let prefix = format!("{name}{{");
    samples.iter().filter(|(sample, _)| sample.starts_with(&prefix)).map(|(_, value)| value).sum()
}

fn any_record() -> impl Strategy<Value = Record> {
    let reason = prop_oneof![
        Just(None),
        proptest::sample::select(DenyReason::ALL).prop_map(|reason| Some(reason.code())),
    ];
    let tokens = proptest::option::of((0..1_000_000_u64, 0..1_000_000_u64, 0..1_000_000_u64));
    // Times of some days, which are rows of their own.
    let tenant = proptest::option::of(".{0,20}");
    (
        0..400_000_000_000_u64,
        reason,
        any::<bool>(),
        tokens,
        proptest::option::of(0..9_999_u64),
        tenant,
    )
        .prop_map(|(ts_micros, reason, is_error, tokens, cost, tenant)| Record {
            ts_micros,
            decision: if reason.is_some() { "deny" } else { "allow" },
            reason,
            is_failed: is_error || reason.is_some(),
            tokens: tokens.map(|(input, output, total)| TokenCounts { input, output, total }),
            cost,
            tenant,
            line: "{}".to_owned(),
            ..Record::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn metrics_are_what_the_usage_endpoint_says(
        batches in proptest::collection::vec(proptest::collection::vec(any_record(), 0..8), 0..4),
    ) {
        let folder = TempDir::new().unwrap();
        let (mut store, reader) = open(&folder);
        for records in &batches {
            let items = records.iter().map(|record| Item::Record(Box::new(record.clone())));
            store.push(&[Batch { items: items.collect(), position: None }]).unwrap();
            store.prune(0).unwrap();
        }
        let (total, samples) = (reader.total(0).unwrap(), read(&reader));
        prop_assert_eq!(total.requests, batches.iter().map(|records| records.len() as u64).sum::<u64>());
        prop_assert_eq!(samples["vkey_audit_records_total"], total.requests);
        prop_assert_eq!(sum(&samples, "vkey_audit_requests_total"), total.requests);
        prop_assert_eq!(samples["vkey_audit_refused_total"], total.refused);
        prop_assert_eq!(samples["vkey_audit_failed_total"], total.failed);
        prop_assert_eq!(samples["vkey_audit_tokens_total"], total.tokens);
        prop_assert_eq!(samples["vkey_audit_input_tokens_total"], total.tokens_in);
        prop_assert_eq!(samples["vkey_audit_output_tokens_total"], total.tokens_out);
        prop_assert_eq!(samples["vkey_audit_cost_microusd_total"], total.cost);
        let filter = UsageFilter { limit: 100, ..UsageFilter::default() };
        for row in reader.usage(By::Reason, &filter).unwrap() {
            let reason = if row.name.is_empty() { "none" } else { &row.name };
            let sample = format!("vkey_audit_requests_total{{reason=\"{reason}\"}}");
            prop_assert_eq!(samples.get(&sample).copied(), Some(row.usage.requests));
        }
    }
}

#[test]
fn every_series_of_an_empty_store_is_there_and_0() {
    let folder = TempDir::new().unwrap();
    let (_store, reader) = open(&folder);
    let samples = read(&reader);
    assert!(samples.values().all(|value| *value == 0));
    // All but those by reason, which begin with the first request.
    assert_eq!(samples.len(), COUNTERS.len() + FINDINGS.len() + AlertKind::ALL.len() + 4);
}

#[test]
fn chains_findings_alerts_and_deliveries_are_counted() {
    let folder = TempDir::new().unwrap();
    let (mut store, reader) = open(&folder);
    let now = 1_796_000_000;
    let linked = |chain: &str, seq: u64| {
        let (chain, mac) = (chain.to_owned(), String::new());
        let link = Place { chain, seq, prev: String::new(), mac, host: None };
        let ts_micros = now * 1_000_000 + seq;
        Item::Record(Box::new(Record { ts_micros, link: Some(link), ..Record::default() }))
    };
    let anchor = vkey::audit::Anchor {
        chain: "closed".to_owned(),
        ts_micros: 1,
        host: None,
        records: 3,
        last: String::new(),
        totals: vkey::audit::Totals::default(),
        plan: String::new(),
        is_end: true,
    };
    let mut items = vec![Item::Anchor(Box::new(anchor), String::new()), linked("closed", 0)];
    items.extend([0, 1, 1, 4, 9].map(|seq| linked("open", seq)));
    for kind in FINDINGS {
        items.push(Item::Finding(kind, "<\"\n".to_owned()));
    }
    items.extend([Item::Counted("too_long"), Item::Counted("alert_deliveries_failed")]);
    store.push_at(&[Batch { items, position: None }], now).unwrap();
    store.push_at(&[Batch { items: vec![Item::Delivered(1)], position: None }], now).unwrap();
    while store.prune(now).unwrap() > 0 {}
    let samples = read(&reader);
    for (name, value) in [
        ("vkey_audit_records_total", 5),
        ("vkey_audit_doubled_total", 1),
        ("vkey_audit_anchors_total", 1),
        ("vkey_audit_too_long_total", 1),
        ("vkey_audit_missing_records", 2 + 6),
        ("vkey_audit_open_chains", 1),
        ("vkey_audit_last_record_timestamp_seconds", now),
        ("vkey_audit_alerts_total{kind=\"chain\"}", 4),
        ("vkey_audit_alerts_delivered_total", 1),
        ("vkey_audit_alerts_undelivered", 3),
        ("vkey_audit_alert_deliveries_failed_total", 1),
        ("vkey_audit_findings_total{kind=\"changed\"}", 1),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

/// Every finding that the collector makes has its series.
#[test]
fn findings_of_every_kind_are_shown() {
    let folder = TempDir::new().unwrap();
    let (mut store, reader) = open(&folder);
    let items = FINDINGS.map(|kind| Item::Finding(kind, String::new())).into();
    store.push(&[Batch { items, position: None }]).unwrap();
    let samples = read(&reader);
    let counters = reader.counters().unwrap();
    let findings: u64 =
        counters.iter().filter(|(name, _)| name.starts_with("findings.")).map(|(_, n)| n).sum();
    assert_eq!(sum(&samples, "vkey_audit_findings_total"), findings);
}

#[test]
fn nothing_that_a_line_chooses_is_a_label() {
    let folder = TempDir::new().unwrap();
    let (mut store, reader) = open(&folder);
    let hostile = "x\"} 1\nvkey_audit_records_total 666\n#";
    let record = Record {
        tenant: Some(hostile.to_owned()),
        key: Some(hostile.to_owned()),
        model: Some(hostile.to_owned()),
        anomaly: Some(hostile.to_owned()),
        verdict: Some(hostile.to_owned()),
        ..Record::default()
    };
    store.push(&[Batch { items: vec![Item::Record(Box::new(record))], position: None }]).unwrap();
    let text = render(&reader.measures(0).unwrap(), None);
    assert_eq!(samples(&text)["vkey_audit_records_total"], 1);
    assert!(!text.contains("666"));
}

#[test]
fn counts_that_are_too_great_stay_at_the_greatest() {
    let folder = TempDir::new().unwrap();
    let (mut store, reader) = open(&folder);
    let huge = |seq: u64, day: u64| {
        let link = Place {
            chain: format!("c{day}"),
            seq,
            prev: String::new(),
            mac: String::new(),
            host: None,
        };
        let ts_micros = day * 86_400_000_000;
        let cost = Some(u64::MAX);
        Item::Record(Box::new(Record { ts_micros, cost, link: Some(link), ..Record::default() }))
    };
    let (last, most) = (u64::MAX >> 2, i64::MAX.cast_unsigned());
    for day in 0..3 {
        let items = vec![huge(last, day), huge(last - 2, day)];
        store.push(&[Batch { items, position: None }]).unwrap();
    }
    let samples = read(&reader);
    assert_eq!(samples["vkey_audit_cost_microusd_total"], most);
    assert_eq!(samples["vkey_audit_missing_records"], most);
}
