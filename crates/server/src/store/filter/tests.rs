use proptest::prelude::*;
use tempfile::TempDir;

use super::super::{Batch, Found, Item, Reader, Record, Retention, Store, StoredRecord};
use super::*;

const ALL: Retention = Retention { max_records: 1_000_000, max_age_secs: None };

struct Scene {
    _folder: TempDir,
    store: Store,
    reader: Reader,
}

// === impl Scene ===

impl Scene {
    fn new(records: impl IntoIterator<Item = Record>, retention: Retention) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let mut store = Store::open(&path, retention).unwrap();
        let items = records.into_iter().map(|record| Item::Record(Box::new(record))).collect();
        store.push(&[Batch { items, position: None }]).unwrap();
        Self { _folder: folder, store, reader: Reader::open(&path).unwrap() }
    }

    /// The ids of the requests that a plan finds.
    fn found(&self, filter: &Filter, plan: &Plan) -> Vec<String> {
        let (sql, values) = filter.sql(plan);
        let mut rows = self.reader.db.prepare(&sql).unwrap();
        let rows = rows.query_map(params_from_iter(values), |row| row.get("request_id"));
        let found: Result<Vec<String>, _> = rows.unwrap().collect();
        found.unwrap()
    }

    fn plan(&self, filter: &Filter) -> Plan {
        filter.plan(&self.reader.db).unwrap()
    }

    fn count(&self, sql: &str) -> i64 {
        self.reader.db.query_row(sql, (), |row| row.get(0)).unwrap()
    }
}

fn record(ts_micros: u64) -> Record {
    Record { ts_micros, decision: "allow", line: "{}".to_owned(), ..Record::default() }
}

fn name() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[ab]".prop_map(String::from))
}

fn path() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("/[ab]{0,3}".prop_map(String::from))
}

prop_compose! {
    fn any_record()(
        ts in 0_u64..20,
        is_failed in any::<bool>(),
        tenant in name(),
        model in name(),
        path in path(),
        code in proptest::option::of(200_u64..203),
        has_anomaly in any::<bool>(),
    ) -> Record {
        let anomaly = has_anomaly.then(|| "new_source".to_owned());
        Record { is_failed, tenant, model, path, code, anomaly, ..record(ts) }
    }
}

prop_compose! {
    fn any_filter()(
        status in proptest::option::of(prop_oneof![Just(Status::Success), Just(Status::Failed)]),
        tenant in name(),
        model in name(),
        path in path(),
        is_prefix in any::<bool>(),
        code in proptest::option::of(200_u64..203),
        anomalies in any::<bool>(),
        from_micros in proptest::option::of(0_u64..20),
        to_micros in proptest::option::of(0_u64..20),
        limit in 1_u64..100,
    ) -> Filter {
        let path = path.map(|path| if is_prefix { path + "*" } else { path });
        let rest = Filter::default();
        Filter { status, tenant, model, path, code, anomalies, from_micros, to_micros, limit, ..rest }
    }
}

/// Whether a filter lets a record through, as its members are documented.
fn lets_through(filter: &Filter, record: &Record) -> bool {
    let has = |asked: &Option<String>, found: &Option<String>| asked.is_none() || asked == found;
    let is_path = match (&filter.path, &record.path) {
        (None, _) => true,
        (Some(asked), Some(path)) => match asked.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => asked == path,
        },
        (Some(_), None) => false,
    };
    let is_status = filter.status.is_none_or(|asked| (asked == Status::Failed) == record.is_failed);
    is_path
        && is_status
        && has(&filter.tenant, &record.tenant)
        && has(&filter.model, &record.model)
        && filter.code.is_none_or(|code| record.code == Some(code))
        && (!filter.anomalies || record.anomaly.is_some())
        && filter.from_micros.is_none_or(|from| record.ts_micros >= from)
        && filter.to_micros.is_none_or(|to| record.ts_micros < to)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_plan_finds_what_the_filter_lets_through(
        records in proptest::collection::vec(any_record(), 0..60),
        filters in proptest::collection::vec(any_filter(), 1..40),
    ) {
        let with_id = |(number, record): (usize, Record)| {
            Record { request_id: Some(number.to_string()), ..record }
        };
        let mut records: Vec<Record> = records.into_iter().enumerate().map(with_id).collect();
        let scene = Scene::new(records.clone(), ALL);
        // Those of one time are in the order in which they came.
        records.sort_by_key(|record| record.ts_micros);
        for filter in filters {
            let expected: Vec<String> = records
                .iter()
                .rev()
                .filter(|record| lets_through(&filter, record))
                .take(usize::try_from(filter.limit).unwrap() + 1)
                .filter_map(|record| record.request_id.clone())
                .collect();
            let words = filter.words();
            let plans = [
                Some(Plan::Times),
                (!words.is_empty()).then_some(Plan::Words(words)),
                filter.path_prefix().is_some().then_some(Plan::Paths),
            ];
            for plan in plans.into_iter().flatten() {
                prop_assert_eq!(&scene.found(&filter, &plan), &expected, "{:?} {:?}", plan, filter);
            }
        }
    }
}

#[test]
fn the_plan_is_the_one_that_reads_the_fewest_records() {
    let path = |path: &str| Some(path.to_owned());
    let many = (0..10_001).map(|number| Record { path: path("/many/x"), ..record(number) });
    let few = (0..10_000).map(|number| Record { path: path("/few"), ..record(number) });
    let scene = Scene::new(many.chain(few), ALL);
    let filter = |text: &str| Filter { path: path(text), limit: 50, ..Filter::default() };
    assert_eq!(scene.plan(&filter("/few*")), Plan::Paths);
    assert_eq!(scene.plan(&filter("/many*")), Plan::Times);
    assert_eq!(scene.plan(&filter("*")), Plan::Times);
    let whole = filter("/many/x");
    assert_eq!(scene.plan(&whole), Plan::Words(whole.words()));
    let failed = Filter { status: Some(Status::Failed), ..filter("/many*") };
    assert_eq!(scene.plan(&failed), Plan::Words(vec![words::failed(true)]));
    assert_eq!(scene.plan(&Filter::default()), Plan::Times);
}

#[test]
fn values_that_share_a_word_are_told_apart() {
    let record = Record { tenant: Some("a".to_owned()), ..record(1) };
    let mut scene = Scene::new([record], ALL);
    let words = word(Column::Tenant, "b");
    scene.store.db.execute("INSERT INTO words (rowid, text) VALUES (5, ?1)", [&words]).unwrap();
    let insert = "INSERT INTO records (id, failed, decision, tenant, request_id, line) VALUES (5, 0, '', 'c', 'x', '{}')";
    scene.store.db.execute(insert, ()).unwrap();
    scene.store.prune(0).unwrap();
    let filter = Filter { tenant: Some("b".to_owned()), limit: 9, ..Filter::default() };
    assert_eq!(scene.reader.records(&filter).unwrap().records, [] as [StoredRecord; 0]);
    let of_c = Filter { tenant: Some("c".to_owned()), ..filter };
    assert_eq!(scene.found(&of_c, &Plan::Words(vec![words])), ["x"]);
}

#[test]
fn the_words_of_deleted_records_are_deleted() {
    let records = (0..50).map(|number| Record { tenant: Some("a".to_owned()), ..record(number) });
    let retention = Retention { max_records: 5, max_age_secs: None };
    let mut scene = Scene::new(records, retention);
    assert_eq!(scene.store.prune(0).unwrap(), 45);
    let filter = Filter { tenant: Some("a".to_owned()), limit: 100, ..Filter::default() };
    let Found { records, next } = scene.reader.records(&filter).unwrap();
    assert_eq!((records.len(), next), (5, None));
    let word = word(Column::Tenant, "a");
    assert_eq!(scene.count(&format!("SELECT count(*) FROM words WHERE words MATCH '{word}'")), 5);
    let check = "INSERT INTO words (words) VALUES ('integrity-check')";
    scene.store.db.execute(check, ()).unwrap();
}

#[test]
fn more_records_of_one_microsecond_than_an_id_tells_apart_keep_their_order() {
    let records = (0_u64..3000).map(|number| {
        let ts = if number == 2999 { 8 } else { 7 };
        Record { request_id: Some(number.to_string()), ..record(ts) }
    });
    let late = [u64::MAX, u64::MAX, 1 << 60]
        .map(|ts| Record { request_id: Some("late".to_owned()), ..record(ts) });
    let scene = Scene::new(records.chain(late), ALL);
    let filter = Filter { limit: 5000, ..Filter::default() };
    let found = scene.reader.records(&filter).unwrap().records;
    let ids: Vec<&str> = found.iter().filter_map(|record| record.request_id.as_deref()).collect();
    assert_eq!(ids.get(..3), Some(["late"; 3].as_slice()));
    let expected: Vec<String> = (0..3000).rev().map(|number| number.to_string()).collect();
    assert_eq!(ids.get(3..).unwrap(), expected);
    assert_eq!(found.last().unwrap().ts_micros, 7);
}

#[test]
fn a_question_ends_when_it_may_not_go_on() {
    let mut scene = Scene::new((0..20_000).map(record), ALL);
    scene.reader.interrupt_when(|| true).unwrap();
    let all = Filter { limit: u64::MAX, ..Filter::default() };
    let error = scene.reader.records(&all).unwrap_err();
    assert!(matches!(error, StoreError::Interrupted), "{error:?}");
    scene.reader.interrupt_when(|| false).unwrap();
    assert_eq!(scene.reader.records(&all).unwrap().records.len(), 20_000);
}
