use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;
use vkey::audit::Entry;

use super::*;
use crate::samples::Lines;

const ALL: Retention = Retention { max_records: 1_000_000, max_age_secs: None };

/// A store in a folder of its own.
struct Scene {
    folder: TempDir,
    store: Option<Store>,
}

// === impl Scene ===

impl Scene {
    fn new(retention: Retention) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Some(Store::open(&folder.path().join("store"), retention).unwrap());
        Self { folder, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn restart(&mut self) {
        self.store = None;
        self.store = Some(Store::open(&self.path(), ALL).unwrap());
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path()).unwrap()
    }

    fn push(&mut self, items: Vec<Item>) -> u64 {
        self.store().push(&[Batch { items, position: None }]).unwrap()
    }

    fn found(&self, filter: &Filter) -> Vec<StoredRecord> {
        self.reader().records(&Filter { limit: 100_000, ..filter.clone() }).unwrap().records
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.reader().counters().unwrap();
        counters.into_iter().find(|(found, _)| found == name).map_or(0, |(_, count)| count)
    }
}

fn record(ts_micros: u64) -> Record {
    Record { ts_micros, decision: "allow", line: "{}".to_owned(), ..Record::default() }
}

fn item(record: Record) -> Item {
    Item::Record(Box::new(record))
}

/// The item of a line, as a source makes it.
fn read(line: &str) -> Item {
    crate::collect::LineReader::new(vec![Lines::key()], None).read(line)
}

fn anchor(line: &str) -> Anchor {
    match Entry::parse(line).unwrap() {
        Entry::Anchor(anchor) => anchor,
        Entry::Line(_) => panic!("it is an anchor"),
    }
}

// === the file ===

#[test]
fn nobody_else_reads_any_file_of_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let mut store = Store::open(&path, ALL).unwrap();
    store.push(&[Batch { items: vec![item(record(1))], position: None }]).unwrap();
    let mut names = Vec::new();
    for entry in folder.path().read_dir().unwrap() {
        let entry = entry.unwrap();
        let rights = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(rights, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["store", "store-shm", "store-wal", "store.lock"]);
}

#[test]
fn a_store_has_one_writer() {
    let mut scene = Scene::new(ALL);
    let path = scene.path();
    let error = Store::open(&path, ALL).err().unwrap();
    assert!(matches!(error, StoreError::Locked(_)));
    assert!(error.to_string().contains("another `vkey serve` has the store"), "{error}");
    scene.store = None;
    assert!(Store::open(&path, ALL).is_ok(), "the lock ends with its holder");
}

#[test]
fn what_is_no_store_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fs::write(&path, "no database, but long enough to be one".repeat(100)).unwrap();
    for error in [Store::open(&path, ALL).err().unwrap(), Reader::open(&path).err().unwrap()] {
        assert!(matches!(error, StoreError::Foreign), "{error:?}");
    }
    let missing = Store::open(&folder.path().join("none/store"), ALL).err().unwrap();
    assert!(matches!(missing, StoreError::File(..)), "{missing:?}");
}

#[test]
fn a_damaged_store_is_an_error_that_says_so() {
    let mut scene = Scene::new(ALL);
    scene.push((0..1000).map(|number| item(record(number))).collect());
    scene.store = None;
    let mut bytes = fs::read(scene.path()).unwrap();
    for byte in bytes.iter_mut().skip(4096) {
        *byte ^= 0x5a;
    }
    fs::write(scene.path(), bytes).unwrap();
    let error = Store::open(&scene.path(), ALL).and_then(|mut store| {
        store.push(&[Batch { items: vec![item(record(1))], position: None }])
    });
    assert!(matches!(error, Err(StoreError::Damaged)), "{error:?}");
}

// === once ===

#[test]
fn a_record_with_a_place_is_stored_once_over_restarts_and_pruning() {
    let mut scene = Scene::new(ALL);
    let mut lines = Lines::chained("a");
    let items: Vec<Item> = (0..20).map(|_| read(&lines.next())).collect();
    assert_eq!(scene.push(items[..10].to_vec()), 10);
    assert_eq!(scene.push(items[5..15].to_vec()), 5);
    scene.restart();
    scene.store().retention = Retention { max_records: 3, max_age_secs: None };
    while scene.store().prune(0).unwrap() > 0 {}
    assert_eq!(scene.push(items.clone()), 5);
    assert_eq!((scene.counter("records"), scene.counter("doubled")), (20, 20));
    assert_eq!(scene.counter("pruned"), 12);
    assert_eq!(scene.reader().total(0).unwrap().requests, 20);
}

#[test]
fn what_was_not_written_is_taken_again() {
    let mut scene = Scene::new(ALL);
    let mut lines = Lines::chained("a");
    let items: Vec<Item> = (0..4).map(|_| read(&lines.next())).collect();
    scene.push(items[..1].to_vec());
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON records WHEN NEW.seq = 2 BEGIN SELECT raise(ABORT, 'no'); END";
    scene.store().db.execute_batch(fail).unwrap();
    let position = Position {
        path: "a.log".to_owned(),
        fingerprint: [7; 32],
        offset: 9,
        pending: String::new(),
        is_done: false,
    };
    let batch = Batch { items: items.clone(), position: Some(position.clone()) };
    let failed = scene.store().push(std::slice::from_ref(&batch));
    assert!(failed.unwrap_err().to_string().contains("the store reports: no"));
    assert_eq!(scene.found(&Filter::default()).len(), 1, "not even those before it");
    assert_eq!(scene.store().positions("a.log").unwrap(), []);
    assert_eq!(scene.reader().chains().unwrap()[0].verified, 1);
    scene.store().db.execute_batch("DROP TRIGGER fail").unwrap();
    assert_eq!(scene.store().push(&[batch]).unwrap(), 3);
    assert_eq!(scene.store().positions("a.log").unwrap(), [position]);
    assert_eq!(scene.reader().chains().unwrap()[0].verified, 4);
    assert_eq!(scene.reader().total(0).unwrap().requests, 4);
}

#[test]
fn positions_are_kept_by_path_and_are_bounded() {
    let mut scene = Scene::new(ALL);
    let position = |number: u64, path: &str| {
        let mut fingerprint = [0; 32];
        fingerprint[..8].copy_from_slice(&number.to_le_bytes());
        let offset = if number == 0 { i64::MAX.unsigned_abs() } else { number };
        let path = path.to_owned();
        Position { path, fingerprint, offset, pending: String::new(), is_done: number == 0 }
    };
    let batches: Vec<Batch> = (0..4200)
        .map(|number| Batch { items: vec![], position: Some(position(number, "a")) })
        .chain([Batch { items: vec![], position: Some(position(1, "a.log")) }])
        .collect();
    scene.store().push(&batches).unwrap();
    let kept = scene.store().positions("a").unwrap();
    assert!((4096..4096 + 64).contains(&kept.len()), "{}", kept.len());
    assert!(kept.contains(&position(0, "a")), "that of a file that is never read");
    assert!(kept.contains(&position(4199, "a")));
    assert_eq!(scene.store().positions("a.log").unwrap(), [position(1, "a.log")]);
}

// === retention ===

#[test]
fn old_records_go_by_number_and_by_age_and_totals_and_anchors_stay() {
    let mut scene = Scene::new(Retention { max_records: 10, max_age_secs: Some(100) });
    let mut lines = Lines::chained("a");
    scene.push((0..30).map(|_| read(&lines.next())).collect());
    scene.push(vec![read(&lines.anchor(false))]);
    scene.push((0..5).map(|number| item(record(1_000_000_000 + number))).collect());
    assert_eq!(scene.store().prune(50).unwrap(), 25, "the oldest, until there are ten");
    assert_eq!(scene.found(&Filter::default()).len(), 10);
    assert_eq!(scene.store().prune(50).unwrap(), 0);
    assert_eq!(scene.store().prune(1050).unwrap(), 5, "those of before 950 s");
    assert!(scene.found(&Filter::default()).iter().all(|record| record.ts_micros >= 950_000_000));
    assert_eq!(scene.store().prune(2000).unwrap(), 5);
    assert_eq!(scene.counter("pruned"), 35);
    assert_eq!(scene.reader().total(0).unwrap().requests, 35);
    let chain = &scene.reader().chains().unwrap()[0];
    assert_eq!((chain.verified, chain.anchored), (30, Some(30)));
    let anchors: i64 =
        scene.store().db.query_row("SELECT count(*) FROM anchors", (), |row| row.get(0)).unwrap();
    assert_eq!(anchors, 1);
}

#[test]
fn findings_are_bounded_and_counted() {
    let mut scene = Scene::new(ALL);
    let long = "\u{1f511}".repeat(10_000);
    let finding = |number: u64| Item::Finding("unreadable", format!("{number} {long}"));
    scene.push((0..1100).map(finding).collect());
    let found = scene.reader().findings(5000).unwrap();
    assert_eq!((found.len(), scene.counter("findings.unreadable")), (1000, 1100));
    assert!(found[0].text.starts_with("1099 ") && found[0].text.len() <= 2048);
}

// === totals ===

const NAMES: [Option<&str>; 3] = [None, Some("a"), Some("b")];

fn any_record() -> impl Strategy<Value = Record> {
    let name = || (0_usize..3).prop_map(|index| NAMES[index].map(str::to_owned));
    let amounts = (0_u64..3, 0_u64..1000, 0_u64..1000, any::<bool>());
    (name(), name(), name(), name(), 0_u64..50, amounts).prop_map(
        |(tenant, key, model, tool, hours, (kind, input, output, is_failed))| Record {
            ts_micros: hours * 3_600_000_000 + 5,
            decision: if kind == 0 { "deny" } else { "allow" },
            reason: (kind == 0).then_some("path"),
            is_failed: is_failed || kind == 0,
            tokens: (kind == 1).then_some(TokenCounts { input, output, total: input + output }),
            cost: (kind == 1).then_some(output),
            tenant,
            key,
            model,
            tool,
            line: "{}".to_owned(),
            ..Record::default()
        },
    )
}

fn add(usage: &mut Usage, record: &Record) {
    let tokens = record.tokens.unwrap_or_default();
    usage.requests += 1;
    usage.failed += u64::from(record.is_failed);
    usage.refused += u64::from(record.is_refused());
    usage.tokens_in += tokens.input;
    usage.tokens_out += tokens.output;
    usage.tokens += tokens.total;
    usage.cost += record.cost.unwrap_or(0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn totals_are_the_sums_of_the_records(
        pushes in proptest::collection::vec(proptest::collection::vec(any_record(), 0..12), 1..8),
    ) {
        let mut scene = Scene::new(Retention { max_records: 5, max_age_secs: None });
        let (mut by_tool, mut by_hour) = (BTreeMap::new(), BTreeMap::new());
        let (mut total, mut of_a) = (Usage::default(), Usage::default());
        for records in pushes {
            for record in &records {
                let tool = record.tool.clone().unwrap_or_default();
                add(by_tool.entry(tool).or_default(), record);
                add(by_hour.entry(record.ts_micros / 3_600_000_000).or_default(), record);
                add(&mut total, record);
                if record.tenant.as_deref() == Some("a") && record.ts_micros >= 86_400_000_000 {
                    add(&mut of_a, record);
                }
            }
            scene.push(records.into_iter().map(item).collect());
            scene.store().prune(0).unwrap();
        }
        let reader = scene.reader();
        let all = UsageFilter { limit: 100, ..UsageFilter::default() };
        let found: BTreeMap<String, Usage> = reader
            .usage(By::Tool, &all)
            .unwrap()
            .into_iter()
            .map(|row| (row.name, row.usage))
            .collect();
        prop_assert_eq!(found, by_tool);
        prop_assert_eq!(reader.total(0).unwrap(), total);
        let filter = UsageFilter { tenant: Some("a".to_owned()), from_day: Some(1), ..all };
        let days = reader.usage(By::Day, &filter).unwrap();
        let sum = |member: fn(&Usage) -> u64| days.iter().map(|row| member(&row.usage)).sum::<u64>();
        prop_assert_eq!(sum(|usage| usage.requests), of_a.requests);
        prop_assert_eq!(sum(|usage| usage.tokens_in), of_a.tokens_in);
        let hours = reader.hours(0).unwrap();
        prop_assert_eq!(hours.len(), by_hour.len());
        for hour in hours {
            let sums = &by_hour[&hour.hour];
            prop_assert_eq!((hour.requests, hour.refused, hour.cost), (sums.requests, sums.refused, sums.cost));
        }
    }
}

#[test]
fn the_groups_of_a_day_are_bounded_and_those_that_are_there_go_on() {
    let mut scene = Scene::new(ALL);
    let of_model = |model: String| item(Record { model: Some(model), ..record(1) });
    scene.push(vec![of_model("first".to_owned())]);
    let fill = "WITH RECURSIVE n (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < 99998)
        INSERT INTO days SELECT 0, '', '', 'm' || x, '', '', '', 0, 0, 0, 0, 0, 0, 0 FROM n";
    scene.store().db.execute_batch(fill).unwrap();
    scene.push((0..50).map(|number| of_model(format!("new{number}"))).collect());
    scene.push(vec![of_model("first".to_owned())]);
    let groups: i64 =
        scene.store().db.query_row("SELECT count(*) FROM days", (), |row| row.get(0)).unwrap();
    assert_eq!(groups, 100_001, "one more for the others");
    let of = |model: &str| {
        let filter =
            UsageFilter { model: Some(model.to_owned()), limit: 9, ..UsageFilter::default() };
        scene
            .reader()
            .usage(By::Model, &filter)
            .unwrap()
            .first()
            .map_or(0, |row| row.usage.requests)
    };
    assert_eq!((of("first"), of("(other)")), (2, 49));
    assert_eq!(scene.reader().total(0).unwrap().requests, 52);
}

// === questions ===

#[test]
fn a_cursor_goes_through_all_records_once_also_where_times_are_equal() {
    let mut scene = Scene::new(ALL);
    let number = |number: u64| Some(number.to_string());
    let items = (0..100).map(|n| item(Record { request_id: number(n), ..record(n / 17) }));
    scene.push(items.collect());
    for limit in [1, 7, 100, 1000] {
        let mut filter = Filter { limit, ..Filter::default() };
        let (mut seen, mut last) = (BTreeSet::new(), u64::MAX);
        loop {
            let found = scene.reader().records(&filter).unwrap();
            assert!(found.records.len() as u64 <= limit);
            for record in found.records {
                assert!(record.ts_micros <= last, "the latest come first");
                last = record.ts_micros;
                let id = record.request_id.unwrap();
                assert!(id == "x" || seen.insert(id));
            }
            let Some(cursor) = found.next else { break };
            filter.cursor = Cursor::parse(&cursor.to_string());
            assert_eq!(filter.cursor, Some(cursor));
            // What comes meanwhile is later, and not part of it.
            scene.push(vec![item(Record { request_id: Some("x".to_owned()), ..record(1000) })]);
        }
        assert_eq!(seen.len(), 100);
    }
    for text in ["", "-1", "+1", "1-", "1-2", "x", "1 ", "99999999999999999999"] {
        assert_eq!(Cursor::parse(text), None, "{text}");
    }
}

/// Texts that mean something to SQL, to patterns or to careless code.
fn hostile() -> Vec<String> {
    let parts = [
        "'",
        "\"",
        "' OR 1=1 --",
        "; DROP TABLE records;",
        "%",
        "_",
        "*",
        "\0",
        "\\",
        "?1",
        "NULL",
        "a",
        "A",
        "\u{e9}",
        "e\u{301}",
        "\u{10ffff}",
        "\u{d7ff}",
        "<script>",
        "\n",
        " ",
    ];
    let mut texts: Vec<String> = vec![String::new(), "x".repeat(100_000)];
    for (one, first) in parts.iter().enumerate() {
        texts.push((*first).to_owned());
        texts.extend(parts.iter().skip(one % 6).map(|second| format!("{first}{second}")));
    }
    texts.sort();
    texts.dedup();
    texts
}

type Asked = fn(&mut Filter) -> &mut Option<String>;
type Answered = fn(&StoredRecord) -> &Option<String>;

#[test]
fn each_filter_finds_exactly_what_is_equal() {
    let texts = hostile();
    assert!(texts.len() >= 300, "{}", texts.len());
    let mut scene = Scene::new(ALL);
    let items = (0..).zip(&texts).map(|(ts, text)| {
        let text = Some(text.clone());
        item(Record {
            tenant: text.clone(),
            key: text.clone(),
            user: text.clone(),
            model: text.clone(),
            tool: text.clone(),
            method: text.clone(),
            path: text.clone(),
            request_id: text,
            ..record(ts)
        })
    });
    scene.push(items.collect());
    let reader = scene.reader();
    let members: [(Asked, Answered); 7] = [
        (|filter| &mut filter.tenant, |record| &record.tenant),
        (|filter| &mut filter.key, |record| &record.key),
        (|filter| &mut filter.user, |record| &record.user),
        (|filter| &mut filter.model, |record| &record.model),
        (|filter| &mut filter.tool, |record| &record.tool),
        (|filter| &mut filter.method, |record| &record.method),
        (|filter| &mut filter.request_id, |record| &record.request_id),
    ];
    for (ts, text) in (0_u64..).zip(&texts) {
        for (asked, answered) in members {
            let mut filter = Filter { limit: 10, ..Filter::default() };
            *asked(&mut filter) = Some(text.clone());
            let found = reader.records(&filter).unwrap();
            let times: Vec<u64> = found.records.iter().map(|record| record.ts_micros).collect();
            assert_eq!(times, [ts], "{text:?}");
            assert_eq!(answered(&found.records[0]).as_ref(), Some(text));
        }
        let filter = Filter { path: Some(text.clone()), limit: 1000, ..Filter::default() };
        let found = reader.records(&filter).unwrap().records;
        let expected: Vec<&String> = match text.strip_suffix('*') {
            None => vec![text],
            Some(prefix) => texts.iter().rev().filter(|path| path.starts_with(prefix)).collect(),
        };
        let paths: Vec<&String> = found.iter().filter_map(|record| record.path.as_ref()).collect();
        assert_eq!(paths, expected, "{text:?}");
        let none = Filter { reason: Some(text.clone()), limit: 10, ..Filter::default() };
        assert_eq!(reader.records(&none).unwrap().records, []);
    }
}

#[test]
fn filters_are_all_to_be_met() {
    let mut scene = Scene::new(ALL);
    let items = (0_u64..64).map(|bits| {
        let is = |bit: u64| bits & (1 << bit) != 0;
        item(Record {
            is_failed: is(0),
            tenant: is(1).then(|| "t".to_owned()),
            user: is(2).then(|| "admin".to_owned()),
            code: is(3).then_some(500),
            anomaly: is(4).then(|| "new_source".to_owned()),
            reason: is(5).then_some("path"),
            ..record(bits)
        })
    });
    scene.push(items.collect());
    let text = |text: &str| Some(text.to_owned());
    for bits in 0_u64..64 {
        let is = |bit: u64| bits & (1 << bit) != 0;
        let filter = Filter {
            status: is(0).then_some(Status::Failed),
            tenant: if is(1) { text("t") } else { None },
            user: if is(2) { text("admin") } else { None },
            code: is(3).then_some(500),
            anomalies: is(4),
            reason: if is(5) { text("path") } else { None },
            from_micros: Some(8),
            to_micros: Some(60),
            ..Filter::default()
        };
        let found: Vec<u64> = scene.found(&filter).iter().map(|record| record.ts_micros).collect();
        let expected: Vec<u64> = (8..60).rev().filter(|number| number & bits == bits).collect();
        assert_eq!(found, expected, "{bits:b}");
    }
    let success = Filter { status: Some(Status::Success), ..Filter::default() };
    assert_eq!(scene.found(&success).len(), 32);
}

// === chains ===

#[test]
fn what_is_missing_of_a_chain_is_named() {
    let missing = |taken: &dyn Fn(u64) -> bool, is_anchored: bool| {
        let mut scene = Scene::new(ALL);
        let mut lines = Lines::chained("a");
        let items: Vec<Item> = (0..10).map(|_| read(&lines.next())).collect();
        let mut items: Vec<Item> =
            (0..).zip(items).filter(|(seq, _)| taken(*seq)).map(|(_, item)| item).collect();
        if is_anchored {
            items.push(read(&lines.anchor(true)));
        }
        scene.push(items);
        let chain = scene.reader().chains().unwrap().remove(0);
        let gaps: Vec<_> = chain.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
        assert_eq!(scene.reader().findings(9).unwrap(), []);
        (gaps, chain.missing, chain.verified, chain.records, chain.is_closed)
    };
    assert_eq!(missing(&|_| true, true), (vec![], 0, 10, 10, true));
    assert_eq!(missing(&|_| true, false), (vec![], 0, 10, 10, false));
    assert_eq!(missing(&|seq| seq >= 2, true), (vec![(0, 1)], 2, 0, 10, true));
    let middle = missing(&|seq| seq != 3 && seq != 5 && seq != 6, true);
    assert_eq!(middle, (vec![(3, 3), (5, 6)], 3, 3, 10, true));
    assert_eq!(missing(&|seq| seq < 8, true), (vec![(8, 9)], 2, 8, 10, true));
    assert_eq!(missing(&|seq| seq < 8, false), (vec![], 0, 8, 8, false), "nobody can know");
    assert_eq!(missing(&|_| false, true), (vec![(0, 9)], 10, 0, 10, true));
}

#[test]
fn a_gap_is_filled_later() {
    let mut scene = Scene::new(ALL);
    let mut lines = Lines::chained("a");
    let items: Vec<Item> = (0..10).map(|_| read(&lines.next())).collect();
    scene.push(items.iter().step_by(2).cloned().collect());
    assert_eq!(scene.reader().chains().unwrap()[0].missing, 4);
    scene.restart();
    assert_eq!(scene.push(items), 5);
    let chain = scene.reader().chains().unwrap().remove(0);
    assert_eq!((chain.missing, chain.verified, chain.gaps), (0, 10, vec![]));
    assert_eq!(scene.reader().findings(9).unwrap(), []);
}

/// Only who has the audit key, or nobody to check it, makes such.
#[test]
fn records_and_anchors_that_contradict_are_named_in_any_order() {
    let kinds = |items: Vec<Item>| {
        let mut scene = Scene::new(ALL);
        for item in items {
            scene.push(vec![item]);
        }
        let findings = scene.reader().findings(9).unwrap();
        findings.into_iter().map(|finding| (finding.kind, finding.seq)).collect::<Vec<_>>()
    };
    let contradiction = |seq| vec![("contradiction".to_owned(), Some(seq))];
    let mut lines = Lines::chained("a");
    let records: Vec<Item> = (0..4).map(|_| read(&lines.next())).collect();
    let line = lines.anchor(false);
    let good = anchor(&line);
    let of = |anchor: &Anchor| Item::Anchor(Box::new(anchor.clone()), line.clone());
    let bad = Anchor { last: "other".to_owned(), ..good.clone() };
    let earlier = Anchor { records: 2, ..bad.clone() };
    let with = |more: Item, at: usize| {
        let mut items = records.clone();
        items.insert(at, more);
        items
    };
    for at in 0..=4 {
        assert_eq!(kinds(with(of(&good), at)), [], "{at}");
        assert_eq!(kinds(with(of(&bad), at)), contradiction(3), "{at}");
        assert_eq!(kinds(with(of(&earlier), at)), contradiction(1), "{at}");
    }
    assert_eq!(kinds(vec![of(&good), of(&bad)]), contradiction(3), "two anchors");
    assert_eq!(kinds(vec![of(&good), of(&Anchor { is_end: true, ..good.clone() })]), []);
    let Item::Record(mut other) = records[1].clone() else { panic!("it is a record") };
    other.link.as_mut().unwrap().mac = "other".to_owned();
    assert_eq!(kinds(with(Item::Record(other), 4)), contradiction(1), "two records");
    let Item::Record(mut far) = records[1].clone() else { panic!("it is a record") };
    far.link.as_mut().unwrap().seq = u64::MAX;
    let far = vec![Item::Record(far.clone()), Item::Record(far)];
    assert_eq!(kinds(far).len(), 2, "and the store goes on");
}

#[test]
fn very_many_gaps_take_no_memory_and_are_counted() {
    let mut scene = Scene::new(ALL);
    let place = |seq: u64| Place {
        chain: "c".to_owned(),
        seq,
        prev: "p".to_owned(),
        mac: "m".to_owned(),
        host: None,
    };
    let of = |seq: u64| item(Record { link: Some(place(seq)), ..record(seq) });
    scene.push((0..2000).map(|number| of(number * 2 + 1)).collect());
    let chain = scene.reader().chains().unwrap().remove(0);
    assert_eq!((chain.missing, chain.gaps.len(), chain.verified), (2000, 100, 0));
    assert_eq!(chain.gaps[99], Gap { first: 198, last: 198 });
}
