use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;
use vkey::audit::{Anchor, Totals};

use super::*;
use crate::store::{Batch, Filter, Item, Place, Record, Retention, Store};

const RETENTION: Retention = Retention { max_records: 1_000_000, max_age_secs: None };

fn record(chain: &str, seq: u64) -> Item {
    let mac = |seq: u64| format!("m{seq}");
    Item::Record(Box::new(Record {
        ts_micros: 1_790_000_000_000_000 + seq,
        decision: "allow",
        link: Some(Place {
            chain: chain.to_owned(),
            seq,
            prev: seq.checked_sub(1).map(mac).unwrap_or_default(),
            mac: mac(seq),
            host: None,
        }),
        line: format!("{chain} {seq} {}", "x".repeat(900)),
        ..Record::default()
    }))
}

fn anchor(chain: &str, records: u64) -> Item {
    let anchor = Anchor {
        chain: chain.to_owned(),
        ts_micros: 1_790_000_000_000_000,
        host: None,
        records,
        last: records.checked_sub(1).map(|last| format!("m{last}")).unwrap_or_default(),
        totals: Totals::default(),
        plan: String::new(),
        is_end: false,
    };
    Item::Anchor(Box::new(anchor), format!("anchor {records}"))
}

/// A folder with a store `a` of these items, and paths in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn with(items: impl IntoIterator<Item = Item>) -> Self {
        let folder = Self::new();
        folder.push("a", items);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn push(&self, store: &str, items: impl IntoIterator<Item = Item>) {
        let items = items.into_iter().collect();
        let mut store = Store::open(&self.path(store), RETENTION).unwrap();
        store.push(&[Batch { items, position: None }]).unwrap();
    }

    fn backup(&self, from: &str, to: &str) -> Content {
        backup(&self.path(from), &self.path(to)).unwrap()
    }

    fn restore(&self, from: &str, to: &str) -> Result<Content, RestoreError> {
        restore(&self.path(from), &self.path(to), &[])
    }

    #[track_caller]
    fn refused(&self, from: &str, to: &str, copies: &[&str]) -> RestoreError {
        let before = self.files();
        let copies: Vec<_> = copies.iter().map(|copy| self.path(copy)).collect();
        let error = restore(&self.path(from), &self.path(to), &copies).unwrap_err();
        assert_eq!(self.files(), before, "{error}");
        error
    }

    /// The files, without locks and the shared memory of readers, with what they hold.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap());
        let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
        let kept = named.filter(|(name, path)| path.is_file() && !name.ends_with(".lock"));
        let mut files: Vec<_> = kept.map(|(name, path)| (name, fs::read(path).unwrap())).collect();
        files.sort();
        files
    }

    fn lines(&self, store: &str) -> Vec<String> {
        let reader = Reader::open(&self.path(store)).unwrap();
        let found = reader.records(&Filter { limit: 10_000, ..Filter::default() }).unwrap();
        let mut lines: Vec<String> = found.records.into_iter().map(|record| record.line).collect();
        lines.reverse();
        lines
    }
}

fn some(range: std::ops::Range<u64>) -> impl Iterator<Item = Item> {
    range.map(|seq| record("c", seq))
}

#[test]
fn a_backup_is_one_private_file_with_what_the_store_holds() {
    let folder = Folder::with(some(0..5).chain([record("d", 0), anchor("c", 5)]));
    let content = folder.backup("a", "b");
    assert_eq!(content, Content { records: 6, chains: 2 });
    assert_eq!(folder.lines("b"), folder.lines("a"));
    let file = fs::read(folder.path("b")).unwrap();
    assert_eq!(file[18..20], [1, 1], "no WAL belongs to it");
    assert_eq!(fs::metadata(folder.path("b")).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = folder.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b"], "no other file is left");
}

#[test]
fn a_backup_whose_anchor_is_for_other_records_is_refused() {
    let folder = Folder::with(some(0..5).chain([anchor("c", 5)]));
    folder.backup("a", "b");
    let Item::Anchor(mut other, line) = anchor("c", 5) else { panic!("it is an anchor") };
    other.last = "other".to_owned();
    folder.push("d", some(0..4).chain([Item::Anchor(other, line)]));
    for copies in [&[][..], &["d"]] {
        let store = if copies.is_empty() { "d" } else { "a" };
        let error = folder.refused("b", store, copies);
        let RestoreError::Contradiction(found) = &error else { panic!("{error}") };
        let expected = (folder.path("d"), "c", 5);
        assert_eq!((found.copy.clone(), found.chain.as_str(), found.records), expected);
    }
}

#[test]
fn a_backup_beside_a_writer_is_the_store_at_one_moment() {
    let folder = Folder::with(some(0..1000));
    let mut store = Store::open(&folder.path("a"), RETENTION).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut seq = 1000;
            while !is_done.load(Ordering::Relaxed) {
                let items = some(seq..seq + 3).collect();
                store.push(&[Batch { items, position: None }]).unwrap();
                seq += 3;
            }
            seq
        });
        let mut before = 0;
        for number in 0..5 {
            let name = format!("b{number}");
            let records = folder.backup("a", &name).records;
            let reader = Reader::open(&folder.path(&name)).unwrap();
            assert_eq!(reader.total(0).unwrap().requests, records);
            let chain = reader.chains().unwrap().remove(0);
            assert_eq!((chain.verified, chain.missing), (records, 0));
            assert!(records >= before && records % 3 == 1, "{records}");
            before = records;
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > before, "it wrote all the time");
    });
}

#[test]
fn a_backup_replaces_nothing_and_leaves_nothing_if_it_fails() {
    let folder = Folder::with(some(0..2));
    fs::write(folder.path("taken"), "mine").unwrap();
    symlink(folder.path("nowhere"), folder.path("link")).unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    fs::write(folder.path("text"), "x".repeat(5000)).unwrap();
    fs::write(folder.path("empty"), "").unwrap();
    let before = folder.files();
    for (from, to) in [
        ("a", "taken"),
        ("a", "link"),
        ("a", "folder"),
        ("a", "a"),
        ("a", "missing/b"),
        ("missing", "b"),
        ("folder", "b"),
    ] {
        let error = backup(&folder.path(from), &folder.path(to)).unwrap_err();
        assert!(matches!(error, StoreError::File(..)), "{from} {to}: {error}");
    }
    for from in ["text", "empty"] {
        let error = backup(&folder.path(from), &folder.path("b")).unwrap_err();
        assert!(matches!(error, StoreError::Foreign), "{from}: {error}");
    }
    assert_eq!(folder.files(), before);
}

#[test]
fn a_name_that_is_taken_during_a_backup_is_kept() {
    let folder = Folder::with(some(0..2));
    let part = Part::of(&folder.path("b")).unwrap();
    fs::write(folder.path("b"), "mine").unwrap();
    assert!(part.keep_as_new(&folder.path("b")).is_err());
    assert_eq!(fs::read(folder.path("b")).unwrap(), b"mine");
    assert_eq!(folder.files().len(), 2);
}

#[test]
fn a_restored_store_is_the_backup_and_goes_on() {
    let folder = Folder::with(some(0..3));
    folder.backup("a", "b");
    folder.push("a", some(3..5));
    assert_eq!(folder.restore("b", "a").unwrap(), Content { records: 3, chains: 1 });
    assert_eq!(folder.lines("a"), folder.lines("b"));
    // What came after the backup is taken again.
    folder.push("a", some(0..6));
    assert_eq!(folder.lines("a").len(), 6);
    // A store that is not there is made.
    folder.restore("b", "new").unwrap();
    assert_eq!(folder.lines("new").len(), 3);
    let rights = fs::metadata(folder.path("new")).unwrap().permissions();
    assert_eq!(rights.mode() & 0o777, 0o600);
}

/// A store whose last process was killed: what it wrote last is in its log only.
fn kill_writer(folder: &Folder, items: impl IntoIterator<Item = Item>) {
    let mut store = Store::open(&folder.path("w"), RETENTION).unwrap();
    store.push(&[Batch { items: items.into_iter().collect(), position: None }]).unwrap();
    for suffix in ["", "-wal"] {
        let [from, to] = ["w", "a"].map(|name| folder.path(&format!("{name}{suffix}")));
        fs::copy(from, to).unwrap();
    }
    drop(store);
    fs::remove_file(folder.path("w")).unwrap();
}

#[test]
fn whoever_is_killed_during_a_restore_leaves_the_old_store_or_the_new_one() {
    for steps in 0..4 {
        let folder = Folder::new();
        folder.push("n", [record("new", 0)]);
        folder.backup("n", "b");
        kill_writer(&folder, some(0..3));
        let store = folder.path("a");
        let log = fs::read(folder.path("a-wal")).unwrap();
        assert!(!log.is_empty());
        let part = Part::of(&store).unwrap();
        if steps > 0 {
            fill(&part, &folder.path("b"), &store, &[]).unwrap();
            // A reader that was killed meanwhile leaves a log too.
            fs::write(folder.path("a-wal"), &log).unwrap();
        }
        if steps > 1 {
            settle(&store).unwrap();
            assert_eq!(files::left_beside(&store), None);
        }
        if steps > 2 {
            part.replace(&store).unwrap();
        } else {
            std::mem::forget(part);
        }
        let expected = if steps > 2 { vec![record("new", 0)] } else { some(0..3).collect() };
        let line = |item| match item {
            Item::Record(record) => record.line,
            _ => String::new(),
        };
        let expected: Vec<String> = expected.into_iter().map(line).collect();
        assert_eq!(folder.lines("a"), expected, "{steps}");
        // Both can be written, and restored again.
        folder.push("a", [record("later", 0)]);
        folder.restore("b", "a").unwrap();
        assert_eq!(folder.lines("a"), folder.lines("b"), "{steps}");
    }
}

#[test]
fn a_restore_does_not_go_behind_an_anchor() {
    let folder = Folder::with(some(0..3));
    folder.backup("a", "b");
    folder.push("a", some(3..5).chain([record("d", 0), record("e", 0)]));
    folder.backup("a", "later");
    // Records that no anchor counts may be lost.
    folder.restore("b", "a").unwrap();
    folder.push("later", [anchor("c", 4), anchor("d", 1)]);
    folder.push("other", [anchor("c", 7)]);
    let of = |name: &str, chain: &str, anchored, lacking, first| Behind {
        copy: folder.path(name),
        chain: chain.to_owned(),
        anchored,
        lacking,
        first,
    };
    let behind = |error| match error {
        RestoreError::Behind(behind) => behind,
        error => panic!("{error}"),
    };
    let by_later = [of("later", "c", 4, 1, 3), of("later", "d", 1, 1, 0)];
    assert_eq!(behind(folder.refused("b", "a", &["later"])), by_later);
    assert_eq!(behind(folder.refused("b", "later", &[])), by_later);
    assert_eq!(behind(folder.refused("b", "new", &["later"])), by_later);
    let error = folder.refused("b", "a", &["other", "later"]);
    let text = format!(
        "the backup is behind another copy, so nothing was restored; {} has seen an anchor for 7 records of chain c, \
         and the backup lacks 4 of them, the first is record 3; ",
        folder.path("other").display()
    );
    assert!(error.to_string().starts_with(&text), "{error}");
    assert_eq!(behind(error).len(), 3);
    // With the records, or with the news that they exist, it is not behind.
    folder.push("b", [record("d", 0), record("c", 3)]);
    folder.restore("b", "a").unwrap();
    folder.restore("b", "later").unwrap();
}

#[test]
fn the_anchors_of_all_chains_count() {
    let chains = |range: std::ops::Range<u64>| range.map(|number| record(&format!("c{number}"), 0));
    let folder = Folder::with(chains(0..1100));
    folder.backup("a", "b");
    // Those that are not anchored, and those that the backup has, are no reason.
    folder.push("a", [anchor("c0", 1), anchor("c1099", 1)]);
    folder.restore("b", "a").unwrap();
    folder.push("a", [anchor("c0", 2), anchor("c1099", 2)]);
    let RestoreError::Behind(behind) = folder.refused("b", "a", &[]) else { panic!() };
    assert_eq!(behind.len(), 2);
}

#[test]
fn deleted_records_are_held_and_gaps_that_both_have_are_known() {
    let folder = Folder::with(some(0..10).chain(some(20..30)).chain([anchor("c", 30)]));
    let retention = Retention { max_records: 1, max_age_secs: None };
    let mut store = Store::open(&folder.path("a"), retention).unwrap();
    assert!(store.prune(0).unwrap() > 0);
    drop(store);
    assert_eq!(folder.backup("a", "b"), Content { records: 1, chains: 1 });
    folder.restore("b", "a").unwrap();
    // One of those that are missing came late.
    folder.push("a", [record("c", 15)]);
    let RestoreError::Behind(behind) = folder.refused("b", "a", &[]) else { panic!() };
    assert_eq!((behind[0].lacking, behind[0].first), (1, 15));
}

proptest! {
    #[test]
    fn what_a_backup_lacks_is_what_sets_say(
        has in proptest::collection::btree_set(0_u64..12, 0..12), has_anchor in 0_u64..14,
        seen in proptest::collection::btree_set(0_u64..12, 0..12), anchored in 0_u64..14,
    ) {
        let held = |records: &BTreeSet<u64>, anchored| {
            let mut spans: Vec<(u64, u64)> = Vec::new();
            for &seq in records {
                match spans.last_mut() {
                    Some((_, last)) if *last + 1 == seq => *last = seq,
                    _ => spans.push((seq, seq)),
                }
            }
            Held { spans, anchored }
        };
        let known = has.last().map_or(0, |last| last + 1).max(has_anchor);
        let lacking: Vec<u64> = (0..anchored)
            .filter(|seq| !has.contains(seq) && (*seq >= known || seen.contains(seq)))
            .collect();
        let expected = lacking.first().map(|first| (*first, lacking.len() as u64));
        prop_assert_eq!(held(&has, has_anchor).lacks(&held(&seen, anchored)), expected);
    }
}

#[test]
fn what_is_no_backup_is_refused() {
    let folder = Folder::with(some(0..300));
    folder.backup("a", "b");
    let mut damaged = fs::read(folder.path("b")).unwrap();
    damaged[40_000..60_000].fill(0xff);
    fs::write(folder.path("damaged"), &damaged).unwrap();
    fs::write(folder.path("short"), &damaged[..8192]).unwrap();
    fs::write(folder.path("text"), "x".repeat(5000)).unwrap();
    fs::write(folder.path("empty"), "").unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    let other = Connection::open(folder.path("foreign")).unwrap();
    other.execute_batch("CREATE TABLE x (y); PRAGMA user_version = 1").unwrap();
    fs::copy(folder.path("b"), folder.path("newer")).unwrap();
    let newer = Connection::open(folder.path("newer")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop((other, newer));
    let kind = |error: &StoreError| match error {
        StoreError::File(..) => "file",
        StoreError::Newer => "newer",
        StoreError::Foreign => "foreign",
        StoreError::Damaged => "damaged",
        _ => "other",
    };
    for (from, expected) in [
        ("damaged", "damaged"),
        ("short", "damaged"),
        ("text", "foreign"),
        ("empty", "foreign"),
        ("foreign", "foreign"),
        ("newer", "newer"),
        ("folder", "file"),
        ("missing", "file"),
    ] {
        match folder.refused(from, "a", &[]) {
            RestoreError::Backup(error) => assert_eq!(kind(&error), expected, "{from}"),
            error => panic!("{from}: {error}"),
        }
        // As another copy it is named, because it may have seen an anchor.
        if !matches!(from, "damaged" | "short") {
            let error = folder.refused("b", "a", &[from]);
            assert!(matches!(&error, RestoreError::Copy(path, _) if *path == folder.path(from)));
            if from != "empty" && from != "missing" {
                let error = folder.refused("b", from, &[]);
                let is_named = matches!(&error, RestoreError::Replaced(_) | RestoreError::Store(_));
                assert!(is_named, "{from}: {error}");
            }
        }
    }
    assert!(matches!(folder.refused("a", "a", &[]), RestoreError::Same));
    folder.restore("b", "empty").unwrap();
}

#[test]
fn a_store_that_is_in_use_is_not_replaced() {
    let folder = Folder::with(some(0..3));
    folder.backup("a", "b");
    symlink(folder.path("a"), folder.path("link")).unwrap();
    let store = Store::open(&folder.path("link"), RETENTION).unwrap();
    for name in ["a", "link"] {
        let error = folder.restore("b", name).unwrap_err();
        assert!(matches!(error, RestoreError::Store(StoreError::Locked(_))), "{error}");
    }
    drop(store);
    // A reader of a store that is written has its log open.
    folder.push("a", some(3..4));
    let reader = Reader::open(&folder.path("a")).unwrap();
    reader.db.execute_batch("BEGIN; SELECT count(*) FROM records").unwrap();
    assert!(matches!(folder.restore("b", "a").unwrap_err(), RestoreError::InUse));
    assert_eq!(folder.lines("a").len(), 4);
    drop(reader);
    folder.restore("b", "a").unwrap();
    assert_eq!(folder.lines("a").len(), 3);
}

#[test]
fn a_link_stays_and_leads_to_the_restored_store() {
    let folder = Folder::with(some(0..3));
    folder.backup("a", "b");
    folder.push("a", some(3..4));
    symlink("a", folder.path("link")).unwrap();
    assert!(matches!(folder.refused("a", "link", &[]), RestoreError::Same));
    folder.restore("b", "link").unwrap();
    assert!(fs::symlink_metadata(folder.path("link")).unwrap().is_symlink());
    assert_eq!(folder.lines("a").len(), 3);
    symlink("nowhere", folder.path("dead")).unwrap();
    assert!(matches!(folder.refused("b", "dead", &[]), RestoreError::Store(_)));
}

#[test]
fn the_log_of_a_store_that_was_moved_away_is_not_taken_for_the_new_ones() {
    for suffix in ["-wal", "-shm", "-journal"] {
        let folder = Folder::with(some(0..1));
        folder.backup("a", "b");
        let left = folder.path(&format!("new{suffix}"));
        fs::write(&left, "records").unwrap();
        let error = folder.refused("b", "new", &[]);
        assert!(matches!(&error, RestoreError::Beside(path) if *path == left), "{error}");
    }
}

#[test]
fn the_owner_of_a_store_keeps_it() {
    let folder = Folder::with(some(0..1));
    folder.backup("a", "b");
    let store = folder.path("a");
    if std::os::unix::fs::chown(&store, Some(12_345), None).is_err() {
        return; // Only root can give a file away.
    }
    folder.restore("b", "a").unwrap();
    assert_eq!(fs::metadata(&store).unwrap().uid(), 12_345);
}
