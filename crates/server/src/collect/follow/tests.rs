//! Whatever a writer, a rotation and kills do: each record is in the store once.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::samples::Lines;
use crate::store::{Filter, FindingRow, Reader, Retention, Store};

const RETENTION: Retention = Retention { max_records: 1_000_000, max_age_secs: None };

/// The batches that are sent without one being taken.
const ROOM: usize = 64;

/// A log with its writer, and a collector of it.
struct Scene {
    folder: TempDir,
    path: PathBuf,
    writer: File,
    /// A time for each write, because those of a file system are coarse.
    now: u64,
    lines: Lines,
    written: Vec<String>,
    /// What is wrapped around the lines: parts of CRI lines.
    is_cri: bool,
    /// Parts that were not written yet.
    parts: VecDeque<String>,
    /// What the last line lacks.
    unended: String,
    collector: Option<Collector>,
}

struct Collector {
    store: Store,
    follower: Follower,
    sent: mpsc::Receiver<Batch>,
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8),
    /// The next line is written up to its middle.
    WriteHalf,
    /// The file gets another name. The writer writes this number of lines before it opens the new one.
    Rename(u8),
    CopyTruncate,
    /// Of the rotated files.
    Compress(u8),
    Poll(u8),
    /// Batches are sent, some are stored, and the collector is killed and started again.
    Kill {
        sent: u8,
        stored: u8,
    },
}

// === impl Collector ===

impl Collector {
    fn new(folder: &Path, path: &Path) -> Self {
        let store = Store::open(&folder.join("store"), RETENTION).unwrap();
        let positions = store.positions(path.to_str().unwrap()).unwrap();
        let reader = LineReader::new(vec![Lines::key()], None);
        let (to, sent) = mpsc::channel(ROOM);
        let mut follower = Follower::new(path.to_owned(), positions, reader, to);
        follower.grace = Duration::ZERO;
        follower.max_lines = 3;
        Self { store, follower, sent }
    }

    /// Whether there was anything.
    fn poll(&mut self) -> bool {
        match self.follower.poll() {
            Ok(is_new) => is_new,
            Err(Halt::Failed(error)) => panic!("{error}"),
            Err(Halt::Ended) => panic!("the receiver is there"),
        }
    }

    /// Stores what was sent, one batch in a transaction.
    fn save(&mut self, most: usize) {
        for _ in 0..most {
            let Ok(batch) = self.sent.try_recv() else { return };
            self.store.push(&[batch]).unwrap();
        }
    }

    fn finish(&mut self) {
        while self.poll() {
            self.save(ROOM);
        }
    }
}

// === impl Scene ===

impl Scene {
    fn new(lines: Lines, is_cri: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let writer = open(&path);
        let mut collector = Collector::new(folder.path(), &path);
        collector.poll();
        collector.save(ROOM);
        let collector = Some(collector);
        let (written, parts) = (Vec::new(), VecDeque::new());
        let unended = String::new();
        Self { folder, path, writer, now: 0, lines, written, is_cri, parts, unended, collector }
    }

    fn collector(&mut self) -> &mut Collector {
        self.collector.as_mut().unwrap()
    }

    fn append(&mut self, text: &str) {
        self.now += 1;
        self.writer.write_all(text.as_bytes()).unwrap();
        self.writer.set_modified(UNIX_EPOCH + Duration::from_secs(self.now)).unwrap();
    }

    /// The next line of the log.
    fn line(&mut self) -> String {
        if let Some(part) = self.parts.pop_front() {
            return part;
        }
        let line = self.lines.next();
        self.written.push(line.clone());
        if !self.is_cri {
            return line + "\n";
        }
        let (one, rest) = line.split_at(line.len() / 3);
        let (two, three) = rest.split_at(rest.len() / 2);
        let time = self.written.len();
        self.parts = VecDeque::from([
            format!("{time}b stdout P {two}\n"),
            format!("{time}c stderr F something else\n"),
            format!("{time}d stdout F {three}\n"),
        ]);
        format!("{time}a stdout P {one}\n")
    }

    fn write(&mut self, lines: u8) {
        let end = std::mem::take(&mut self.unended);
        self.append(&end);
        for _ in 0..lines {
            let line = self.line();
            self.append(&line);
        }
    }

    fn rotated(&self) -> Vec<PathBuf> {
        (1..)
            .map(|number| self.name(number))
            .map_while(|path| path.exists().then_some(path))
            .collect()
    }

    /// The name of a rotated file, compressed or not.
    fn name(&self, number: usize) -> PathBuf {
        let packed = self.folder.path().join(format!("a.log.{number}.gz"));
        if packed.exists() { packed } else { self.folder.path().join(format!("a.log.{number}")) }
    }

    fn make_room(&self) {
        let files = self.rotated();
        for (index, path) in files.iter().enumerate().rev() {
            let packed = if path.extension().is_some_and(|end| end == "gz") { ".gz" } else { "" };
            let next = self.folder.path().join(format!("a.log.{}{packed}", index + 2));
            fs::rename(path, next).unwrap();
        }
    }

    fn compress(&self, number: usize) {
        let files = self.rotated();
        let Some(path) = files.get(number) else { return };
        if path.extension().is_some_and(|end| end == "gz") {
            return;
        }
        let text = fs::read(path).unwrap();
        let packed = PathBuf::from(format!("{}.gz", path.display()));
        let mut encoder = GzEncoder::new(File::create(&packed).unwrap(), Compression::fast());
        encoder.write_all(&text).unwrap();
        encoder
            .finish()
            .unwrap()
            .set_modified(path.metadata().unwrap().modified().unwrap())
            .unwrap();
        fs::remove_file(path).unwrap();
    }

    fn kill(&mut self, sent: u8, stored: u8) {
        for _ in 0..sent {
            self.collector().poll();
        }
        self.collector().save(usize::from(stored));
        self.collector = None;
        self.collector = Some(Collector::new(self.folder.path(), &self.path));
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Write(lines) => self.write(lines),
            Step::WriteHalf => {
                self.write(0);
                let line = self.line();
                let (half, rest) = line.split_at(line.len() / 2);
                self.append(half);
                self.unended = rest.to_owned();
            }
            Step::Rename(lines) => {
                self.make_room();
                fs::rename(&self.path, self.folder.path().join("a.log.1")).unwrap();
                if lines > 2 {
                    self.collector().poll();
                    self.collector().save(ROOM);
                }
                self.write(lines);
                self.writer = open(&self.path);
            }
            // Half a line is lost by it, whoever reads.
            Step::CopyTruncate => {
                self.write(0);
                self.make_room();
                let copy = self.folder.path().join("a.log.1");
                fs::copy(&self.path, &copy).unwrap();
                let copy = File::options().append(true).open(copy).unwrap();
                copy.set_modified(UNIX_EPOCH + Duration::from_secs(self.now)).unwrap();
                self.writer.set_len(0).unwrap();
            }
            Step::Compress(number) => self.compress(usize::from(number)),
            Step::Poll(times) => {
                for _ in 0..times {
                    self.collector().poll();
                    self.collector().save(ROOM);
                }
            }
            Step::Kill { sent, stored } => self.kill(sent, stored),
        }
    }

    /// The lines in the store, in the order of their times, and what does not verify.
    fn stored(&mut self) -> (Vec<String>, Vec<FindingRow>) {
        self.collector().finish();
        let reader = Reader::open(&self.folder.path().join("store")).unwrap();
        let found = reader.records(&Filter { limit: 1_000_000, ..Filter::default() }).unwrap();
        let lines = found.records.into_iter().rev().map(|record| record.line).collect();
        (lines, reader.findings(100).unwrap())
    }

    #[track_caller]
    fn check(&mut self) {
        let parts = self.parts.len();
        self.write(u8::try_from(parts).unwrap());
        let (lines, findings) = self.stored();
        assert_eq!(findings, []);
        assert_eq!(lines, self.written);
    }
}

fn open(path: &Path) -> File {
    File::options().append(true).create(true).open(path).unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u8..9).prop_map(Step::Write),
        1 => Just(Step::WriteHalf),
        2 => (0_u8..6).prop_map(Step::Rename),
        2 => Just(Step::CopyTruncate),
        2 => (0_u8..4).prop_map(Step::Compress),
        4 => (0_u8..4).prop_map(Step::Poll),
        2 => (0_u8..8, 0_u8..8).prop_map(|(sent, stored)| Step::Kill { sent, stored }),
    ]
}

/// A follower of a path with a store beside it, and the lines that come into the store.
fn taken(path: &Path, prepare: impl FnOnce(Follower) -> Follower) -> Vec<String> {
    let folder = path.parent().unwrap();
    let mut collector = Collector::new(folder, path);
    collector.follower = prepare(collector.follower);
    collector.finish();
    drop(collector);
    stored(folder)
}

fn stored(folder: &Path) -> Vec<String> {
    let reader = Reader::open(&folder.join("store")).unwrap();
    let found = reader.records(&Filter { limit: 1000, ..Filter::default() }).unwrap();
    found.records.into_iter().rev().map(|record| record.line).collect()
}

/// Writes the next lines into a file. Returns them.
fn write(path: &Path, lines: &mut Lines, count: usize) -> Vec<String> {
    let written: Vec<String> = (0..count).map(|_| lines.next()).collect();
    let mut file = open(path);
    file.write_all((written.join("\n") + "\n").as_bytes()).unwrap();
    written
}

#[test]
fn what_was_rotated_before_the_first_start_is_not_read_and_what_is_rotated_later_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut lines) = (folder.path().join("a.log"), Lines::unchained());
    let name = |number: u8| folder.path().join(format!("a.log.{number}"));
    write(&name(1), &mut lines, 2);
    assert_eq!(taken(&path, |follower| follower), [""; 0], "it waits for the file");
    let mut written = write(&path, &mut lines, 2);
    assert_eq!(taken(&path, |follower| follower), written);
    // While nobody looks it is rotated twice, and the file that is known is deleted.
    fs::rename(&path, name(2)).unwrap();
    fs::rename(name(1), name(3)).unwrap();
    fs::remove_file(name(2)).unwrap();
    written.extend(write(&name(1), &mut lines, 2));
    written.extend(write(&path, &mut lines, 2));
    // The clock went back in between.
    File::options().append(true).open(name(1)).unwrap().set_modified(UNIX_EPOCH).unwrap();
    assert_eq!(taken(&path, |follower| follower), written);
}

#[test]
fn a_link_is_followed_to_the_file_that_rotates() {
    let folder = tempfile::tempdir().unwrap();
    let pod = folder.path().join("pod");
    fs::create_dir(&pod).unwrap();
    let (target, link) = (pod.join("0.log"), folder.path().join("x.log"));
    std::os::unix::fs::symlink("pod/0.log", &link).unwrap();
    let mut lines = Lines::unchained();
    let mut written = write(&target, &mut lines, 2);
    assert_eq!(taken(&link, |follower| follower), written);
    written.extend(write(&target, &mut lines, 2));
    fs::rename(&target, pod.join("0.log.20260131-120000")).unwrap();
    written.extend(write(&target, &mut lines, 2));
    assert_eq!(taken(&link, |follower| follower), written);
}

#[test]
fn a_log_that_is_followed_by_itself_is_no_rotated_file_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("a.log"), folder.path().join("a.log.2"));
    assert_eq!(taken(&path, |follower| follower), [""; 0]);
    let mut lines = Lines::unchained();
    let written = write(&path, &mut lines, 2);
    write(&other, &mut lines, 2);
    let beside = |follower: Follower| follower.beside(std::slice::from_ref(&other));
    assert_eq!(taken(&path, beside), written);
}

#[test]
fn a_writer_that_opens_the_new_file_late_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut lines) = (folder.path().join("a.log"), Lines::unchained());
    let mut written = write(&path, &mut lines, 1);
    let mut collector = Collector::new(folder.path(), &path);
    collector.finish();
    let old = folder.path().join("a.log.1");
    fs::rename(&path, &old).unwrap();
    // There is no successor, so it is not closed, however long it is quiet.
    collector.finish();
    written.extend(write(&old, &mut lines, 1));
    collector.finish();
    written.extend(write(&path, &mut lines, 1));
    collector.finish();
    assert_eq!(collector.follower.open.len(), 1);
    // It was closed, and grows once more: the next rotation finds that.
    written.extend(write(&old, &mut lines, 1));
    fs::rename(&path, folder.path().join("a.log.0")).unwrap();
    written.extend(write(&path, &mut lines, 1));
    collector.finish();
    drop(collector);
    assert_eq!(stored(folder.path()).len(), written.len());
}

#[test]
fn the_last_line_of_a_rotated_file_may_lack_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut lines) = (folder.path().join("a.log"), Lines::unchained());
    let mut written = write(&path, &mut lines, 1);
    written.push(lines.next());
    open(&path).write_all(written[1].as_bytes()).unwrap();
    assert_eq!(taken(&path, |follower| follower), written[..1], "its end may come");
    fs::rename(&path, folder.path().join("a.log.1")).unwrap();
    assert_eq!(taken(&path, |follower| follower), written[..1]);
    written.extend(write(&path, &mut lines, 1));
    assert_eq!(taken(&path, |follower| follower), written);
}

#[test]
fn a_damaged_file_is_named_once_and_the_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut lines) = (folder.path().join("a.log"), Lines::chained("a"));
    let mut collector = Collector::new(folder.path(), &path);
    collector.finish();
    let all: Vec<String> = (0..400).map(|_| lines.next()).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all((all.join("\n") + "\n").as_bytes()).unwrap();
    let whole = encoder.finish().unwrap();
    let packed = folder.path().join("a.log.1.gz");
    fs::write(&packed, &whole[..whole.len() / 2]).unwrap();
    let mut written = write(&path, &mut lines, 2);
    collector.finish();
    let reader = Reader::open(&folder.path().join("store")).unwrap();
    let findings = reader.findings(10).unwrap();
    assert_eq!((findings.len(), findings[0].kind.as_str()), (1, "unreadable"));
    assert!(findings[0].text.contains("cannot be read from byte"), "{}", findings[0].text);
    // The rest of it comes, e.g. because it was still being copied.
    fs::write(&packed, &whole).unwrap();
    fs::rename(&path, folder.path().join("a.log.2")).unwrap();
    written.extend(write(&path, &mut lines, 1));
    collector.finish();
    let found = reader.records(&Filter { limit: 1000, ..Filter::default() }).unwrap();
    let found: BTreeSet<String> = found.records.into_iter().map(|record| record.line).collect();
    assert_eq!(found, BTreeSet::from_iter(all.into_iter().chain(written)));
    assert_eq!(reader.findings(10).unwrap().len(), 1);
}

#[test]
fn few_files_are_open_at_once_however_many_were_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut lines) = (folder.path().join("a.log"), Lines::unchained());
    let mut collector = Collector::new(folder.path(), &path);
    collector.finish();
    let mut written = Vec::new();
    for number in 0..3 * MAX_OPEN as u64 {
        let path = folder.path().join(format!("a.log.{:03}", 999 - number));
        written.extend(write(&path, &mut lines, 2));
        let time = UNIX_EPOCH + Duration::from_secs(number);
        File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    }
    written.extend(write(&path, &mut lines, 2));
    while collector.poll() {
        assert!(collector.follower.open.len() <= MAX_OPEN);
        collector.save(ROOM);
    }
    drop(collector);
    assert_eq!(stored(folder.path()), written);
}

#[test]
fn what_cannot_be_followed_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = |path: PathBuf| {
        let (to, _sent) = mpsc::channel(ROOM);
        let reader = LineReader::new(Vec::new(), None);
        let follower = Follower::new(path, Vec::new(), reader, to);
        follower.run(&AtomicBool::new(true)).map_err(|error| error.to_string())
    };
    let path = folder.path().join("folder");
    fs::create_dir(&path).unwrap();
    let error = run(path.clone()).unwrap_err();
    assert_eq!(error, format!("{} cannot be followed: it is no regular file", path.display()));
    assert!(run(folder.path().join("none/a.log")).unwrap_err().contains("cannot be followed"));
    assert_eq!(run(folder.path().join("a.log")), Ok(()), "it may come");
}

#[test]
fn a_follower_ends_with_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    write(&path, &mut Lines::unchained(), 1);
    let (to, sent) = mpsc::channel(1);
    drop(sent);
    let reader = LineReader::new(Vec::new(), None);
    Follower::new(path, Vec::new(), reader, to).run(&AtomicBool::new(false)).unwrap();
}

/// Long lines make small batches: a thousand of the longest would be a gigabyte.
#[test]
fn a_batch_is_bounded_in_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut lines) = (folder.path().join("a.log"), Lines::unchained());
    let long = "x".repeat(MAX_BATCH_BYTES / 2);
    for _ in 0..8 {
        let line = lines.next();
        open(&path).write_all(format!("{long} {line}\n").as_bytes()).unwrap();
    }
    let mut collector = Collector::new(folder.path(), &path);
    collector.follower.max_lines = MAX_BATCH_LINES;
    while collector.poll() {}
    while let Ok(batch) = collector.sent.try_recv() {
        assert!(batch.items.len() <= 2, "{}", batch.items.len());
    }
}

/// The file that was truncated has another name when the collector looks.
#[test]
fn a_copy_is_read_although_the_truncated_file_is_still_open() {
    let mut scene = Scene::new(Lines::unchained(), false);
    for step in [Step::Write(7), Step::Poll(1), Step::CopyTruncate, Step::Rename(0)] {
        scene.take(&step);
    }
    scene.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_is_lost_and_nothing_doubled(
        steps in proptest::collection::vec(step(), 1..30),
        is_chained: bool,
        is_cri: bool,
    ) {
        let lines = if is_chained { Lines::chained("a") } else { Lines::unchained() };
        let mut scene = Scene::new(lines, is_cri);
        for step in &steps {
            scene.take(step);
        }
        scene.check();
    }
}
