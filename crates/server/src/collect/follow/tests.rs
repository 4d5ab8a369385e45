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
    /// The file gets another name. The writer writes so many lines before it opens the new one.
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
