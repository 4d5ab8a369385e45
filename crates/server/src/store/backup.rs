//! Backups of a store, and how they are put back.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::files::{self, Part};
use super::{Gap, Reader, StoreError, connect, lock, schema, unsigned};

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The number of records, without those that were deleted because of their age or number.
    pub records: u64,
    /// The number of chains.
    pub chains: u64,
}

/// Why a backup is not put back. The store is as it was then.
#[derive(Debug)]
pub enum RestoreError {
    /// The new store cannot be written, or a collector has the store open.
    Store(StoreError),
    /// The backup cannot be used.
    Backup(StoreError),
    /// The backup is the store.
    Same,
    /// The store that would be replaced cannot be read, so nobody knows which anchors it has seen.
    Replaced(StoreError),
    /// Another process reads the store that would be replaced.
    InUse,
    /// A part of another store has the name of a part of the store.
    Beside(PathBuf),
    /// Another copy cannot be read.
    Copy(PathBuf, StoreError),
    /// Other copies have seen anchors for records that the backup lacks.
    Behind(Vec<Behind>),
    /// An anchor that another copy has seen is not that of the backup.
    Contradiction(Contradiction),
}

/// An anchor that counts as many records in a backup and in another copy, and is for different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The other copy.
    pub copy: PathBuf,
    /// The id of the chain.
    pub chain: String,
    /// The number of records that the anchor counts.
    pub records: u64,
}

/// A chain of which a backup lacks records, although another copy has seen an anchor that counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The other copy.
    pub copy: PathBuf,
    /// The id of the chain.
    pub chain: String,
    /// The number of records that an anchor in the copy counts.
    pub anchored: u64,
    /// How many of them the backup lacks.
    pub lacking: u64,
    /// The number of the first of those.
    pub first: u64,
}

/// What a store has of a chain. Deleted records count: their places are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    /// The numbers of consecutive records, first and last, in order, and never adjacent.
    spans: Vec<(u64, u64)>,
    /// The number of records that its last anchor counts.
    anchored: u64,
}

/// Copies a store into a new file, as it is at one moment, while a collector may write. Also a store of an earlier
/// version, which is not changed.
///
/// # Errors
///
/// [`StoreError`], also if the file is there already. Then there is no new file.
pub fn backup(store: &Path, to: &Path) -> Result<Content, StoreError> {
    let from = Reader::open_earlier(store)?;
    let file = |error| StoreError::File(to.to_owned(), error);
    if files::is_taken(to) {
        return Err(file(std::io::ErrorKind::AlreadyExists.into()));
    }
    let part = Part::of(to).map_err(file)?;
    let content = content(&copy(&from.db, &part)?)?;
    part.keep_as_new(to).map_err(file)?;
    Ok(content)
}

/// Puts a backup in the place of a store, which no other process may have open. A backup of an earlier version is
/// brought forward. Other copies, and the store that is replaced, must not have seen an anchor for records that the
/// backup lacks.
///
/// # Errors
///
/// [`RestoreError`]
pub fn restore(from: &Path, store: &Path, copies: &[PathBuf]) -> Result<Content, RestoreError> {
    let file = |error| RestoreError::Store(StoreError::File(store.to_owned(), error));
    // The files beside a store have the name that a link leads to.
    let store = files::resolve(store).map_err(file)?;
    let _lock = lock(&store).map_err(RestoreError::Store)?;
    if files::is_same(from, &store) {
        return Err(RestoreError::Same);
    }
    let part = Part::of(&store).map_err(file)?;
    let content = fill(&part, from, &store, copies)?;
    settle(&store)?;
    part.replace(&store).map_err(file)?;
    Ok(content)
}

/// Copies a backup, and compares the copy with the others.
fn fill(
    part: &Part,
    from: &Path,
    store: &Path,
    copies: &[PathBuf],
) -> Result<Content, RestoreError> {
    let from = Reader::open_earlier(from).map_err(RestoreError::Backup)?;
    let mut new = copy(&from.db, part).map_err(RestoreError::of_copying)?;
    schema::migrate(&mut new).map_err(RestoreError::of_copying)?;
    let mut behind = Vec::new();
    let mut check = |copy: &Connection, path: &Path| {
        behind.extend(compare(&new, copy, path)?);
        contradiction(&new, copy, path)
    };
    let mut contradictions = Vec::new();
    if holds_anything(store) {
        let seen = Reader::open_earlier(store).and_then(|old| check(&old.db, store));
        contradictions.push(seen.map_err(RestoreError::Replaced)?);
    }
    for path in copies {
        let seen = Reader::open_earlier(path).and_then(|copy| check(&copy.db, path));
        contradictions.push(seen.map_err(|error| RestoreError::Copy(path.clone(), error))?);
    }
    if let Some(contradiction) = contradictions.into_iter().flatten().next() {
        return Err(RestoreError::Contradiction(contradiction));
    }
    if !behind.is_empty() {
        return Err(RestoreError::Behind(behind));
    }
    content(&new).map_err(RestoreError::of_copying)
}

/// Copies a store as it is at one moment into an empty file, and checks the copy.
fn copy(from: &Connection, part: &Part) -> Result<Connection, StoreError> {
    let mut to = connect(part.path(), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // In one step. Between steps the collector writes, and then a copy begins anew.
    match Backup::new(from, &mut to)?.step(-1)? {
        StepResult::Done => {}
        _ => return Err(StoreError::Busy),
    }
    // One file, without a log beside it.
    if journal_mode(&to)? != "delete" {
        return Err(StoreError::Busy);
    }
    let found: String = to.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
    if found == "ok" { Ok(to) } else { Err(StoreError::Damaged) }
}

/// Writes all of a store into its one file, so that another one can take its place at once. Whoever is killed in between
/// leaves the old store or the new one: nothing is beside the new one that belongs to the old one.
fn settle(store: &Path) -> Result<(), RestoreError> {
    if holds_anything(store) {
        let old = connect(store, OpenFlags::SQLITE_OPEN_READ_WRITE);
        match old.and_then(|old| journal_mode(&old)) {
            Ok(mode) if mode == "delete" => {}
            Ok(_) | Err(StoreError::Busy) => return Err(RestoreError::InUse),
            Err(error) => return Err(RestoreError::Replaced(error)),
        }
    }
    if let Some(path) = files::left_beside(store) {
        return Err(RestoreError::Beside(path));
    }
    // The disk must not see the new name before it sees that the log of the old store is gone.
    files::sync_folder(store)
        .map_err(|error| RestoreError::Store(StoreError::File(store.to_owned(), error)))
}

/// Switches to a journal that exists during a write only, and returns the mode that holds.
fn journal_mode(db: &Connection) -> Result<String, StoreError> {
    Ok(db.query_row("PRAGMA journal_mode = DELETE", (), |row| row.get(0))?)
}

fn holds_anything(store: &Path) -> bool {
    fs::metadata(store).is_ok_and(|file| file.len() > 0)
}

fn content(db: &Connection) -> Result<Content, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM chains)";
    Ok(db.query_row(sql, (), |row| {
        Ok(Content { records: unsigned(row.get(0)?), chains: unsigned(row.get(1)?) })
    })?)
}

/// The chains of which a backup lacks records that an anchor in a copy counts.
fn compare(backup: &Connection, copy: &Connection, path: &Path) -> Result<Vec<Behind>, StoreError> {
    let mut names =
        copy.prepare("SELECT name FROM chains WHERE anchored IS NOT NULL ORDER BY first_ts, name")?;
    let mut behind = Vec::new();
    for name in names.query_map((), |row| row.get::<_, String>(0))? {
        let chain = name?;
        let (has, seen) = (Held::read(backup, &chain)?, Held::read(copy, &chain)?);
        if let Some((first, lacking)) = has.lacks(&seen) {
            let (copy, anchored) = (path.to_owned(), seen.anchored);
            behind.push(Behind { copy, chain, anchored, lacking, first });
        }
    }
    Ok(behind)
}

/// The first anchor of a copy that counts other records than that of a backup for as many.
fn contradiction(
    backup: &Connection,
    copy: &Connection,
    path: &Path,
) -> Result<Option<Contradiction>, StoreError> {
    let mut seen = copy.prepare(
        "SELECT name, records, last FROM anchors JOIN chains ON id = chain ORDER BY name, records",
    )?;
    let mut has = backup.prepare(
        "SELECT 1 FROM anchors JOIN chains ON id = chain WHERE name = ?1 AND records = ?2 AND last <> ?3",
    )?;
    let mut rows = seen.query(())?;
    while let Some(row) = rows.next()? {
        let (chain, records): (String, i64) = (row.get(0)?, row.get(1)?);
        if has.exists((&chain, records, row.get::<_, String>(2)?))? {
            let (copy, records) = (path.to_owned(), unsigned(records));
            return Ok(Some(Contradiction { copy, chain, records }));
        }
    }
    Ok(None)
}

// === impl Held ===

impl Held {
    /// What a store has of a chain; nothing if it does not know it.
    fn read(db: &Connection, chain: &str) -> Result<Self, StoreError> {
        let row = db
            .prepare_cached("SELECT id, anchored FROM chains WHERE name = ?1")?
            .query_row([chain], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((id, anchored)) = row else { return Ok(Self::default()) };
        let (id, anchored): (i64, Option<i64>) = (id, anchored);
        let mut spans =
            db.prepare_cached("SELECT first, last FROM spans WHERE chain = ?1 ORDER BY first")?;
        let spans =
            spans.query_map([id], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))?;
        let spans = spans.collect::<Result<_, _>>()?;
        Ok(Self { spans, anchored: unsigned(anchored.unwrap_or(0)) })
    }

    /// The number of records that the chain is known to have.
    fn known(&self) -> u64 {
        let next = self.spans.last().map_or(0, |(_, last)| last.saturating_add(1));
        next.max(self.anchored)
    }

    /// The records before `end` that are missing.
    fn gaps(&self, end: u64) -> impl Iterator<Item = Gap> {
        let ends = self.spans.iter().map(|(_, last)| last.saturating_add(1));
        let firsts = self.spans.iter().map(|(first, _)| *first);
        let starts = std::iter::once(0).chain(ends);
        starts
            .zip(firsts.chain([end]))
            .filter_map(move |(from, to)| Gap::between(from, to.min(end)))
    }

    /// The first of the records that an anchor in another copy counts and this one lacks, and how many there are. What
    /// both lack does not count, if this one knows that it is missing.
    fn lacks(&self, seen: &Self) -> Option<(u64, u64)> {
        let known = self.known();
        let both =
            seen.spans.iter().map(|(first, last)| (*first, (*last).min(known.saturating_sub(1))));
        let both = both.filter(|(first, _)| *first < known);
        // Of records after those that this one knows of, it does not even know that they are missing.
        let later = Gap::between(known, seen.anchored).map(|gap| (gap.first, gap.last));
        let mut counted = both.chain(later).peekable();
        let mut lacking = None;
        for gap in self.gaps(seen.anchored) {
            while let Some((first, last)) = counted.peek().copied() {
                if let Some(common) = Gap::between(first.max(gap.first), last.min(gap.last) + 1) {
                    let (_, count) = lacking.get_or_insert((common.first, 0));
                    *count += common.last - common.first + 1;
                }
                if last > gap.last {
                    break;
                }
                counted.next();
            }
        }
        lacking
    }
}

// === impl RestoreError ===

impl RestoreError {
    /// A copy shows what is wrong with the backup, and fails for want of room too.
    fn of_copying(error: StoreError) -> Self {
        match error {
            StoreError::Damaged | StoreError::Foreign | StoreError::Newer => Self::Backup(error),
            error => Self::Store(error),
        }
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Backup(error) => write!(f, "the backup cannot be used: {error}"),
            Self::Same => f.write_str("the backup is the store itself"),
            Self::Replaced(error) => write!(
                f,
                "the store that would be replaced cannot be read, so the anchors that it has seen are not known: \
                 {error}; move it away, with the files -wal and -shm beside it, to restore without it"
            ),
            Self::InUse => f.write_str(
                "another process reads the store that would be replaced; wait until it has ended",
            ),
            Self::Beside(path) => write!(
                f,
                "{} is there, and belongs to another store; move it to that store, or delete it",
                path.display()
            ),
            Self::Copy(path, error) => {
                write!(f, "the copy {} cannot be used: {error}", path.display())
            }
            Self::Behind(chains) => {
                f.write_str("the backup is behind another copy, so nothing was restored")?;
                chains.iter().try_for_each(|behind| write!(f, "; {behind}"))
            }
            Self::Contradiction(Contradiction { copy, chain, records }) => write!(
                f,
                "the backup contradicts {}: their anchors for {records} records of chain {chain} differ",
                copy.display()
            ),
        }
    }
}

impl std::error::Error for RestoreError {}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { copy, chain, anchored, lacking, first } = self;
        let copy = copy.display();
        write!(
            f,
            "{copy} has seen an anchor for {anchored} records of chain {chain}, and the backup lacks {lacking} of them, \
             the first is record {first}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;
    use tempfile::TempDir;
    use vkey::audit::{Anchor, Totals};

    use super::super::{Batch, Filter, Item, Place, Record, Retention, Store};
    use super::*;

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
            let named =
                entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
            let kept = named.filter(|(name, path)| path.is_file() && !name.ends_with(".lock"));
            let mut files: Vec<_> =
                kept.map(|(name, path)| (name, fs::read(path).unwrap())).collect();
            files.sort();
            files
        }

        fn lines(&self, store: &str) -> Vec<String> {
            let reader = Reader::open(&self.path(store)).unwrap();
            let found = reader.records(&Filter { limit: 10_000, ..Filter::default() }).unwrap();
            let mut lines: Vec<String> =
                found.records.into_iter().map(|record| record.line).collect();
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
        let Item::Anchor(mut other, line) = anchor("c", 5) else { unreachable!() };
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
        let chains =
            |range: std::ops::Range<u64>| range.map(|number| record(&format!("c{number}"), 0));
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
                assert!(
                    matches!(&error, RestoreError::Copy(path, _) if *path == folder.path(from))
                );
                if from != "empty" && from != "missing" {
                    let error = folder.refused("b", from, &[]);
                    let is_named =
                        matches!(&error, RestoreError::Replaced(_) | RestoreError::Store(_));
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
}
