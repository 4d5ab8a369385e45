//! What raises an alert, and what does not.

use tempfile::TempDir;

use super::super::{
    Batch, Item, Place, Reader, Record, Retention, Store, StoreError, Thresholds, schema,
};
use super::{AlertKind, Connection, Occurrence, counters, latest, raise};

const NOW: u64 = 1_796_000_000;
const HOUR: u64 = 3600;

/// A store in a folder of its own.
struct Bench {
    folder: TempDir,
    store: Store,
}

fn open(folder: &TempDir) -> Store {
    let retention = Retention { max_records: 100_000, max_age_secs: None };
    Store::open(&folder.path().join("store"), retention).unwrap()
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut store = open(&folder);
        store.evaluate(NOW - 10 * HOUR).unwrap();
        Self { store, folder }
    }

    fn with(set: &[&str]) -> Self {
        let mut bench = Self::new();
        bench.set(set);
        bench
    }

    fn set(&mut self, set: &[&str]) {
        let mut thresholds = Thresholds::default();
        set.iter().for_each(|text| thresholds.set(text).unwrap());
        self.store.set_thresholds(thresholds);
    }

    fn reopen(self, set: &[&str]) -> Self {
        let Self { folder, store } = self;
        drop(store);
        let mut bench = Self { store: open(&folder), folder };
        bench.set(set);
        bench
    }

    fn push(&mut self, items: impl IntoIterator<Item = Item>, now_secs: u64) {
        let batch = Batch { items: items.into_iter().collect(), position: None };
        self.store.push_at(&[batch], now_secs).unwrap();
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.folder.path().join("store")).unwrap()
    }

    /// The alerts, the first one first: cause and count.
    fn alerts(&self) -> Vec<(String, u64)> {
        let alerts = self.reader().alerts(2000).unwrap().into_iter().rev();
        alerts.map(|alert| (alert.cause, alert.count)).collect()
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.reader().counters().unwrap();
        counters.into_iter().find(|(known, _)| known == name).map_or(0, |(_, value)| value)
    }
}

fn record(at_secs: u64) -> Record {
    let line = "{}".to_owned();
    Record { ts_micros: at_secs * 1_000_000, decision: "allow", line, ..Record::default() }
}

fn refused(at_secs: u64, reason: &'static str) -> Item {
    let record = Record {
        decision: "deny",
        reason: Some(reason),
        is_failed: true,
        code: Some(403),
        ..record(at_secs)
    };
    Item::Record(Box::new(record))
}

fn failed(at_secs: u64) -> Item {
    Item::Record(Box::new(Record { is_failed: true, code: Some(500), ..record(at_secs) }))
}

fn unusual(at_secs: u64, word: &str, tenant: &str, key: &str) -> Item {
    Item::Record(Box::new(Record {
        anomaly: Some(word.to_owned()),
        tenant: Some(tenant.to_owned()),
        key: Some(key.to_owned()),
        ..record(at_secs)
    }))
}

fn linked(at_secs: u64, chain: &str, seq: u64) -> Item {
    let mac = |seq: u64| format!("m{seq}");
    let prev = seq.checked_sub(1).map(mac).unwrap_or_default();
    let link = Place { chain: chain.to_owned(), seq, prev, mac: mac(seq), host: None };
    Item::Record(Box::new(Record { link: Some(link), ..record(at_secs) }))
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect()
}

#[test]
fn refusals_and_errors_are_alerts_from_their_threshold_on() {
    let set = ["authentication=3", "refusals=2", "errors=4", "window=5m"];
    type Make = fn(u64) -> Item;
    let cases: [(&str, u64, Make); 5] = [
        ("authentication", 3, |at| refused(at, "key_signature")),
        ("authentication", 3, |at| refused(at, "source_blocked")),
        ("refusals", 2, |at| refused(at, "rate")),
        ("refusals", 2, |at| refused(at, "key_missing")),
        ("errors", 4, failed),
    ];
    for (cause, threshold, make) in cases {
        let mut bench = Bench::with(&set);
        bench.push((1..threshold).map(|number| make(NOW - number)), NOW);
        bench.store.evaluate(NOW).unwrap();
        assert_eq!(bench.alerts(), [], "{cause} below its threshold");
        bench.push([make(NOW)], NOW);
        assert_eq!(bench.store.evaluate(NOW).unwrap(), 1);
        assert_eq!(bench.alerts(), pairs(&[(cause, threshold)]));
        assert_eq!(bench.counter(&format!("alerts.{cause}")), 1);
    }
}

#[test]
fn requests_that_succeed_raise_nothing_and_neither_does_a_threshold_of_0() {
    let mut bench = Bench::with(&["authentication=0", "refusals=0", "errors=0"]);
    let allowed = (0..100).map(|_| Item::Record(Box::new(record(NOW))));
    bench.push(allowed, NOW);
    bench.push((0..100).flat_map(|_| [refused(NOW, "rate"), failed(NOW)]), NOW);
    bench.push((0..100).map(|_| refused(NOW, "key_unknown")), NOW);
    bench.store.evaluate(NOW).unwrap();
    assert_eq!(bench.alerts(), []);
}

#[test]
fn what_is_spread_over_more_than_a_window_is_no_alert() {
    let mut bench = Bench::with(&["errors=3", "window=5m"]);
    for at in [NOW, NOW + 200, NOW + 301] {
        bench.push([failed(at)], at);
        bench.store.evaluate(at).unwrap();
    }
    assert_eq!(bench.alerts(), []);
    bench.push([failed(NOW + 302)], NOW + 302);
    bench.store.evaluate(NOW + 302).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("errors", 3)]));
}

#[test]
fn a_cause_is_one_alert_within_its_time_and_another_one_after_it() {
    let mut bench = Bench::with(&["errors=2", "window=5m", "repeat=1h"]);
    bench.push([failed(NOW), failed(NOW)], NOW);
    bench.store.evaluate(NOW).unwrap();
    for now in [NOW + 1, NOW + 2, NOW + 3] {
        bench.store.evaluate(now).unwrap();
    }
    assert_eq!(bench.alerts(), pairs(&[("errors", 2)]), "the same requests count once");
    let later = NOW + HOUR - 1;
    bench.push([failed(later), failed(later), failed(later)], later);
    bench.store.evaluate(later).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("errors", 5)]));
    let alert = bench.reader().alerts(1).unwrap().remove(0);
    assert_eq!((alert.first_at_secs, alert.last_at_secs), (NOW, later));
    bench.store.evaluate(NOW + HOUR).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("errors", 5), ("errors", 3)]));
    assert_eq!(bench.counter("alerts.errors"), 2);
}

#[test]
fn an_alert_that_was_delivered_is_not_repeated_by_what_adds_to_it() {
    let mut bench = Bench::with(&["repeat=1h"]);
    bench.push([unusual(NOW, "rate", "acme", "k")], NOW);
    let alert = bench.reader().undelivered_alert(0, NOW).unwrap().unwrap();
    bench.push([Item::Delivered(alert.id)], NOW + 1);
    bench.push([unusual(NOW + 2, "rate", "acme", "k")], NOW + 2);
    assert_eq!(bench.alerts(), pairs(&[("anomaly:rate:acme:k", 2)]));
    assert_eq!(bench.reader().undelivered_alert(0, NOW + 2).unwrap(), None);
    assert_eq!(bench.reader().alerts(1).unwrap()[0].delivered_at_secs, Some(NOW + 1));
    bench.push([Item::Delivered(alert.id), Item::Delivered(999)], NOW + 9);
    assert_eq!(bench.reader().alerts(1).unwrap()[0].delivered_at_secs, Some(NOW + 1));
    assert_eq!(bench.counter("alerts_delivered"), 1);
}

#[test]
fn each_anomaly_of_each_key_is_a_cause() {
    let mut bench = Bench::new();
    bench.push(
        [
            unusual(NOW, "rate", "acme", "k1"),
            unusual(NOW, "rate", "acme", "k2"),
            unusual(NOW, "source", "acme", "k1"),
            unusual(NOW, "rate", "other", "k1"),
            unusual(NOW, "rate", "acme", "k1"),
            unusual(NOW, "something else", "acme", "k1"),
        ],
        NOW,
    );
    let expected = [
        ("anomaly:rate:acme:k1", 2),
        ("anomaly:rate:acme:k2", 1),
        ("anomaly:rate:other:k1", 1),
        ("anomaly:source:acme:k1", 1),
    ];
    assert_eq!(bench.alerts(), pairs(&expected));
    let alert = bench.reader().alerts(10).unwrap().pop().unwrap();
    assert_eq!(
        (alert.kind.as_str(), alert.tenant.as_deref(), alert.key.as_deref()),
        ("anomaly", Some("acme"), Some("k1"))
    );
    assert_eq!(alert.text, "unusual use of key k1 of tenant acme: far more requests than usual");
}

#[test]
fn an_id_cannot_pretend_to_be_another_or_leave_its_line() {
    let mut bench = Bench::new();
    bench.push(
        [
            unusual(NOW, "rate", "a:b", "c"),
            unusual(NOW, "rate", "a", "b:c"),
            unusual(NOW, "rate", "\n\u{1b}[2J\u{202e}\"", &"k".repeat(500)),
        ],
        NOW,
    );
    let alerts = bench.alerts();
    assert_eq!(alerts.len(), 3);
    for (cause, _) in alerts {
        assert!(cause.bytes().all(|byte| byte.is_ascii_graphic()), "{cause}");
        assert!(cause.len() < 150, "{cause}");
    }
}

#[test]
fn a_flood_of_causes_becomes_one() {
    let mut bench = Bench::new();
    bench.push((0..500).map(|key| unusual(NOW, "rate", "t", &format!("k{key}"))), NOW);
    bench.push((0..500).map(|key| unusual(NOW, "rate", "t", &format!("k{key}"))), NOW + 1);
    let alerts = bench.alerts();
    assert_eq!(alerts.len(), 101);
    assert_eq!(alerts.last(), Some(&("anomaly:others".to_owned(), 800)));
    assert_eq!(bench.counter("alerts.anomaly"), 101);
    let later = NOW + HOUR + 2;
    bench.push([unusual(later, "rate", "t", "k499")], later);
    assert_eq!(bench.alerts().last().unwrap().0, "anomaly:rate:t:k499");
}

#[test]
fn a_refused_upstream_is_an_alert_with_its_reason() {
    let mut bench = Bench::new();
    bench.push([refused(NOW, "upstream_pin"), refused(NOW, "upstream_pin")], NOW);
    bench.push([refused(NOW, "upstream_name"), refused(NOW, "path")], NOW);
    let expected = [("upstream_tls:upstream_pin", 2), ("upstream_tls:upstream_name", 1)];
    assert_eq!(bench.alerts(), pairs(&expected));
}

#[test]
fn findings_of_each_kind_are_an_alert_that_shows_nothing_of_the_line() {
    let mut bench = Bench::new();
    let changed = |text: &str| Item::Finding("changed", text.to_owned());
    bench.push([changed("SECRET"), changed("SECRET")], NOW);
    bench.push([Item::Finding("unreadable", "SECRET".to_owned()), changed("SECRET")], NOW + 1);
    let unlinked = linked(NOW - 1000 * HOUR, "c", 5);
    let mut next = linked(NOW - 1000 * HOUR, "c", 6);
    if let Item::Record(record) = &mut next {
        record.link.as_mut().unwrap().prev = "other".to_owned();
    }
    bench.push([unlinked, next], NOW + 2);
    let expected = [("chain:changed", 3), ("chain:unreadable", 1), ("chain:unlinked", 1)];
    assert_eq!(bench.alerts(), pairs(&expected));
    let texts = bench.reader().alerts(10).unwrap().into_iter().map(|alert| alert.text);
    assert!(texts.into_iter().all(|text| !text.contains("SECRET")));
    // What was counted before is not counted again after a start.
    let mut bench = bench.reopen(&[]);
    bench.push([changed("x")], NOW + 3);
    assert_eq!(bench.alerts()[0], ("chain:changed".to_owned(), 4));
}

#[test]
fn more_findings_than_are_kept_are_all_counted() {
    let mut bench = Bench::new();
    bench.push((0..1500).map(|_| Item::Finding("changed", String::new())), NOW);
    assert_eq!(bench.alerts(), pairs(&[("chain:changed", 1500)]));
}

#[test]
fn records_that_are_missing_for_too_long_are_an_alert_once() {
    let mut bench = Bench::with(&["missing=2m"]);
    bench.push([0, 1, 4, 5, 9].map(|seq| linked(NOW, "c", seq)), NOW);
    for now in [NOW, NOW + 60, NOW + 119] {
        bench.store.evaluate(now).unwrap();
    }
    assert_eq!(bench.alerts(), [], "another source may have them");
    bench.push([linked(NOW, "c", 2)], NOW + 119);
    bench.store.evaluate(NOW + 120).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("missing", 4)]));
    let text = bench.reader().alerts(1).unwrap().remove(0).text;
    assert_eq!(text, "4 records of chain c are missing, the first is 3");
    // They stay missing, and are not reported again after a start or in the next hour.
    let mut bench = bench.reopen(&["missing=2m"]);
    for step in 1..40 {
        let now = NOW + step * 200;
        bench.push([linked(now, "c", 9 + step)], now);
        bench.store.evaluate(now).unwrap();
    }
    assert_eq!(bench.alerts(), pairs(&[("missing", 4)]));
}

#[test]
fn what_is_filled_in_time_is_no_alert_and_what_is_missing_later_is_another_one() {
    let mut bench = Bench::with(&["missing=2m", "repeat=1h"]);
    let mut next = 0;
    // At every look some record is missing, and never the same for two minutes.
    for step in 0..20 {
        let now = NOW + step * 100;
        bench.push([linked(now, "c", next + 1), linked(now, "c", next + 3)], now);
        bench.store.evaluate(now).unwrap();
        bench.push([linked(now, "c", next), linked(now, "c", next + 2)], now + 99);
        next += 4;
    }
    assert_eq!(bench.alerts(), []);
    let now = NOW + 2000;
    bench.push([linked(now, "c", next + 1)], now);
    bench.store.evaluate(now + 120).unwrap();
    bench.store.evaluate(now + 240).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("missing", 1)]));
    // Filled, and as many others missing.
    bench.push([linked(now, "c", next), linked(now + 300, "c", next + 3)], now + 300);
    bench.store.evaluate(now + 360).unwrap();
    bench.store.evaluate(now + 480).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("missing", 2)]));
}

#[test]
fn an_end_that_an_anchor_counts_is_missing_too() {
    let mut bench = Bench::with(&["missing=2m"]);
    let anchor = vkey::audit::Anchor {
        chain: "c".to_owned(),
        ts_micros: NOW * 1_000_000,
        host: None,
        records: 7,
        last: "m6".to_owned(),
        totals: vkey::audit::Totals::default(),
        plan: String::new(),
        is_end: true,
    };
    bench.push([linked(NOW, "c", 0), Item::Anchor(Box::new(anchor), String::new())], NOW);
    bench.store.evaluate(NOW).unwrap();
    bench.store.evaluate(NOW + 120).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("missing", 6)]));
}

#[test]
fn a_collector_that_reads_old_files_raises_nothing_about_them() {
    let mut bench = Bench::with(&["authentication=1", "refusals=1", "errors=1", "missing=1s"]);
    let old = NOW - 7 * 24 * HOUR;
    let items = [
        refused(old, "key_unknown"),
        refused(old, "upstream_pin"),
        refused(old, "rate"),
        failed(old),
        unusual(old, "rate", "acme", "k"),
        linked(old, "c", 7),
    ];
    bench.push(items, NOW);
    for now in NOW..NOW + 10 {
        bench.store.evaluate(now).unwrap();
    }
    assert_eq!(bench.alerts(), []);
    assert_eq!(bench.reader().chains().unwrap()[0].missing, 7, "it is seen all the same");
    let mut bench = bench.reopen(&["authentication=1", "refusals=1", "errors=1"]);
    bench.store.evaluate(NOW + 10).unwrap();
    assert_eq!(bench.alerts(), []);
}

#[test]
fn old_records_do_not_add_to_an_alert() {
    let mut bench = Bench::with(&["errors=2", "window=5m"]);
    bench.push([failed(NOW), failed(NOW)], NOW);
    bench.store.evaluate(NOW).unwrap();
    bench.push([failed(NOW - 300), failed(NOW - HOUR)], NOW);
    bench.store.evaluate(NOW + 1).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("errors", 2)]));
    bench.push([failed(NOW - 298)], NOW + 1);
    bench.store.evaluate(NOW + 1).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("errors", 3)]));
}

#[test]
fn a_clock_that_is_ahead_does_not_hide_failures() {
    let mut bench = Bench::with(&["errors=2"]);
    bench.push([failed(NOW + 9 * HOUR), failed(u64::MAX / 1_000_000)], NOW);
    bench.store.evaluate(NOW).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("errors", 2)]));
}

#[test]
fn failures_count_across_a_restart_and_doubled_records_do_not() {
    let set = ["errors=3"];
    let mut bench = Bench::with(&set);
    bench.push([failed(NOW), failed(NOW)], NOW);
    let mut bench = bench.reopen(&set);
    bench.store.evaluate(NOW + 1).unwrap();
    assert_eq!(bench.alerts(), []);
    bench.push([failed(NOW + 1)], NOW + 1);
    bench.store.evaluate(NOW + 1).unwrap();
    assert_eq!(bench.alerts(), pairs(&[("errors", 3)]));
    let doubled = |at| match linked(at, "c", 0) {
        Item::Record(mut record) => {
            record.anomaly = Some("rate".to_owned());
            Item::Record(record)
        }
        item => item,
    };
    bench.push([doubled(NOW), doubled(NOW), doubled(NOW)], NOW);
    assert_eq!(bench.alerts().last().unwrap().1, 1);
}

#[test]
fn the_latest_alerts_are_kept() {
    let mut db = Connection::open_in_memory().unwrap();
    schema::migrate(&mut db).unwrap();
    let text = String::new();
    let occurrence =
        Occurrence { kind: AlertKind::Errors, detail: String::new(), key: None, count: 1, text };
    for step in 0..1010 {
        assert!(raise(&db, &occurrence, NOW + step * 2, 1).unwrap());
    }
    let alerts = latest(&db, 2000).unwrap();
    assert_eq!((alerts.len(), alerts[0].id, alerts[999].id), (1000, 1010, 11));
    assert_eq!(latest(&db, 3).unwrap().len(), 3);
    assert_eq!(counters::all(&db).unwrap(), [("alerts.errors".to_owned(), 1010)]);
}

#[test]
fn what_nobody_took_for_a_day_is_delivered_no_more() {
    let mut bench = Bench::new();
    bench.push([unusual(NOW, "rate", "t", "k")], NOW);
    let reader = bench.reader();
    let waits = |now| reader.undelivered_alert(0, now).unwrap().is_some();
    assert_eq!((waits(NOW + 24 * HOUR), waits(NOW + 24 * HOUR + 1)), (true, false));
    assert_eq!(reader.undelivered_alerts(NOW).unwrap(), 1);
    assert_eq!(reader.undelivered_alerts(NOW + 25 * HOUR).unwrap(), 0);
}

#[test]
fn a_transaction_that_is_undone_raises_nothing() -> Result<(), StoreError> {
    let mut bench = Bench::with(&["errors=1"]);
    let db = Connection::open(bench.folder.path().join("store"))?;
    db.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON records WHEN NEW.line = 'full'
         BEGIN SELECT RAISE(ABORT, 'full'); END;",
    )?;
    let full = Item::Record(Box::new(Record { line: "full".to_owned(), ..record(NOW) }));
    let items = vec![failed(NOW), unusual(NOW, "rate", "t", "k"), full];
    assert!(bench.store.push_at(&[Batch { items, position: None }], NOW).is_err());
    bench.store.evaluate(NOW)?;
    assert_eq!(bench.alerts(), []);
    Ok(())
}
