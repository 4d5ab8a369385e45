//! Follows a file through rotation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::files::{FileError, FileLine, FileState, Generation, rotated};
use super::{Inlet, LineReader, MAX_BATCH_BYTES, MAX_BATCH_LINES};
use crate::Unwrapper;
use crate::clock;
use crate::store::{Batch, Item, Position};

/// How often a file is looked at when it has nothing new.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How long a file that was renamed is read on: its writer may not have opened the new one yet.
const GRACE: Duration = Duration::from_secs(30);

/// How long is read on after `stop`, if there is always more.
const STOP_AFTER: Duration = Duration::from_secs(5);

/// The most files of one path that are open at once.
const MAX_OPEN: usize = 16;

/// The most positions that are known of one path.
const MAX_KNOWN: usize = 2000;

/// The position of no file. It says that the path is followed, so that rotated files that nobody knows are new.
const FOLLOWED: [u8; 32] = [0; 32];

/// Follows a file, and those that had its name before, from where they were read to.
///
/// A file is known by its first line, whatever its name, and also when it is copied or compressed with gzip. So the
/// first lines of two files must differ, as those with a time do. `is_rotated` says which names rotation
/// gives. What was rotated away before the path is followed for the first time is not read.
pub struct Follower {
    path: PathBuf,
    reader: LineReader,
    to: Inlet,
    /// Files that are followed by themselves, although they have names of rotated ones.
    others: Vec<PathBuf>,
    /// The files that are read, the oldest first. The last one is that of the path, if there is one.
    open: Vec<Open>,
    /// How far files were read, by fingerprint: also those that are not open any more.
    known: BTreeMap<[u8; 32], Known>,
    /// The rotated files that had nothing to read in this state, and what they are known by.
    settled: BTreeMap<FileState, Option<[u8; 32]>>,
    /// Compressed files that were reported as unreadable.
    given_up: BTreeSet<[u8; 32]>,
    looks: u64,
    /// Whether there may be more files to open than were opened.
    is_unsettled: bool,
    grace: Duration,
    max_lines: usize,
}

struct Known {
    position: Position,
    /// When its file was last there, as a number of looks.
    seen: u64,
}

struct Open {
    generation: Generation,
    unwrapper: Unwrapper,
    /// When it grew last, if it has another name by now.
    renamed: Option<Instant>,
    /// Whether nothing of it was taken, now or before.
    is_fresh: bool,
}

/// Why following ends.
enum Halt {
    /// The receiver of batches is gone: the collector ends.
    Ended,
    Failed(io::Error),
}

// === impl Follower ===

impl Follower {
    /// A follower that goes on at these positions. A file that has none is read from its beginning.
    pub fn new(path: PathBuf, positions: Vec<Position>, reader: LineReader, to: Inlet) -> Self {
        let known = |position: Position| (position.fingerprint, Known { position, seen: 0 });
        Self {
            path,
            reader,
            to,
            others: Vec::new(),
            open: Vec::new(),
            known: positions.into_iter().map(known).collect(),
            settled: BTreeMap::new(),
            given_up: BTreeSet::new(),
            looks: 0,
            is_unsettled: false,
            grace: GRACE,
            max_lines: MAX_BATCH_LINES,
        }
    }

    /// Leaves files alone that are followed by themselves, although they have names of rotated ones: `a.log.2` beside
    /// `a.log`.
    #[must_use]
    pub fn beside(mut self, others: &[PathBuf]) -> Self {
        self.others = others.to_vec();
        self
    }

    /// Follows until `stop` is set or the writer has ended. Then all that is in the files has been sent, unless their
    /// writers are so fast that there was more for five seconds.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the folder or a file cannot be read. A file that is not there yet is waited for.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), FileError> {
        let mut stopping: Option<Instant> = None;
        loop {
            if stop.load(Ordering::Relaxed) {
                stopping.get_or_insert_with(clock::instant);
            }
            let is_new = match self.poll() {
                Ok(is_new) => is_new,
                Err(Halt::Ended) => return Ok(()),
                Err(Halt::Failed(error)) => {
                    return Err(FileError { path: self.path, error });
                }
            };
            match stopping {
                Some(since) if !is_new || since.elapsed() >= STOP_AFTER => return Ok(()),
                None if !is_new => thread::sleep(POLL_EVERY),
                _ => {}
            }
        }
    }

    /// Takes what is new, a batch at most. Returns whether there was anything.
    fn poll(&mut self) -> Result<bool, Halt> {
        let is_current = self.current().is_some_and(|open| open.generation.is_at(&self.path));
        if !is_current {
            self.retire();
        }
        let mut is_new = false;
        if !is_current || self.is_unsettled {
            for batch in self.look()? {
                self.send(batch)?;
                is_new = true;
            }
        }
        match self.next_batch()? {
            None => Ok(is_new),
            Some(batch) => self.send(batch).map(|()| true),
        }
    }

    fn send(&self, batch: Batch) -> Result<(), Halt> {
        self.to.blocking_send(batch).map_err(|_| Halt::Ended)
    }

    fn current(&self) -> Option<&Open> {
        self.open.last().filter(|last| last.renamed.is_none())
    }

    /// Notes that the path names another file by now, or that a file was truncated.
    fn retire(&mut self) {
        let mut index = 0;
        while let Some(open) = self.open.get_mut(index) {
            open.renamed.get_or_insert_with(clock::instant);
            match open.generation.is_intact() {
                true => index += 1,
                false => self.drop_truncated(index),
            }
        }
    }

    /// Closes a file that was truncated. What it had is in a copy, if anywhere.
    fn drop_truncated(&mut self, index: usize) {
        let fingerprint = Some(self.open.remove(index).generation.fingerprint());
        self.settled.retain(|_, settled| *settled != fingerprint);
        self.is_unsettled = true;
    }

    /// Opens the files that have the path's name now, or had it before and were not read to their end. Returns what is
    /// to be noted of the others.
    fn look(&mut self) -> io::Result<Vec<Batch>> {
        self.looks += 1;
        let is_first = self.known.is_empty();
        let before = std::mem::take(&mut self.settled);
        let (mut notes, mut last) = (Vec::new(), None);
        self.is_unsettled = false;
        let rotated = match rotated(&self.path) {
            Err(error) if is_short_of_descriptors(&error) => {
                self.settled = before;
                self.is_unsettled = true;
                return Ok(notes);
            }
            rotated => rotated?,
        };
        for path in rotated {
            let is_other = self.others.iter().any(|other| is_same_path(other, &path));
            // Rotation goes on while it is looked at.
            let Ok(state) = FileState::of(&path) else { continue };
            if is_other {
                continue;
            }
            if let Some(fingerprint) = before.get(&state) {
                self.settle(state, *fingerprint);
                last = fingerprint.or(last);
                continue;
            }
            if self.open.len() >= MAX_OPEN {
                self.is_unsettled = true;
                return Ok(notes);
            }
            let generation = match Generation::open(&path) {
                Ok(Some(generation)) => generation,
                Ok(None) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    self.settle(state, None);
                    notes.push(unreadable(&path, &error));
                    continue;
                }
            };
            let fingerprint = generation.fingerprint();
            self.settle(generation.state(), Some(fingerprint));
            if is_first {
                notes.push(self.note(Position { offset: u64::MAX, ..self.begun(fingerprint) }));
            } else if self.is_to_be_read(&generation) {
                self.open(generation, last, false)?;
            }
            last = Some(fingerprint);
        }
        self.look_at_path(last)?;
        // A file that was renamed meanwhile may have been missed.
        let is_same = self.settled.len() == before.len()
            && self.settled.keys().zip(before.keys()).all(|(now, then)| now.is_same_file(then));
        self.is_unsettled = !is_same;
        if is_first {
            notes.push(self.note(self.begun(FOLLOWED)));
        }
        self.forget_gone();
        Ok(notes)
    }

    /// Notes that a rotated file is known in this state.
    fn settle(&mut self, state: FileState, fingerprint: Option<[u8; 32]>) {
        self.settled.insert(state, fingerprint);
        if let Some(known) = fingerprint.and_then(|fingerprint| self.known.get_mut(&fingerprint)) {
            known.seen = self.looks;
        }
    }

    /// Whether a rotated file has something that was not read.
    fn is_to_be_read(&self, generation: &Generation) -> bool {
        let fingerprint = generation.fingerprint();
        if self.open.iter().any(|open| open.generation.fingerprint() == fingerprint) {
            return false;
        }
        let known = self.known.get(&fingerprint).filter(|known| known.position.is_done);
        known.is_none_or(|known| generation.len() > Some(known.position.offset))
    }

    /// Opens the file of the path, if it is there and has a line.
    fn look_at_path(&mut self, before: Option<[u8; 32]>) -> io::Result<()> {
        if self.current().is_some() || self.open.len() >= MAX_OPEN {
            return Ok(());
        }
        let generation = match Generation::open(&self.path) {
            Ok(Some(generation)) => generation,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if is_short_of_descriptors(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let fingerprint = generation.fingerprint();
        let is_open = |open: &Open| open.generation.fingerprint() == fingerprint;
        if let Some(index) = self.open.iter().position(is_open) {
            let mut open = self.open.remove(index);
            if open.generation.state().is_same_file(&generation.state()) {
                // It was renamed and has its name again.
                open.renamed = None;
                self.open.push(open);
                return Ok(());
            }
        }
        self.open(generation, before, true)
    }

    fn open(
        &mut self,
        mut generation: Generation,
        before: Option<[u8; 32]>,
        is_path: bool,
    ) -> io::Result<()> {
        let known = self.known.get(&generation.fingerprint()).map(|known| &known.position);
        let is_fresh = known.is_none();
        let mut unwrapper = Unwrapper::default();
        match known {
            // A copy may still grow. The file itself was truncated, and begins like before.
            Some(known) if is_path && generation.len().is_some_and(|len| len < known.offset) => {}
            Some(known) => {
                generation.resume(known.offset)?;
                unwrapper = Unwrapper::resume(&known.pending);
            }
            None => {
                let before = before.and_then(|before| self.known.get(&before));
                if let Some(before) = before.filter(|before| before.position.is_done) {
                    unwrapper = Unwrapper::resume(&before.position.pending);
                }
            }
        }
        let renamed = (!is_path).then(clock::instant);
        let index = self.open.len() - usize::from(self.current().is_some());
        self.open.insert(index, Open { generation, unwrapper, renamed, is_fresh });
        Ok(())
    }

    /// What is new in the oldest file that has something new.
    fn next_batch(&mut self) -> io::Result<Option<Batch>> {
        let mut index = 0;
        while index < self.open.len() {
            let len = self.open.len();
            match self.read(index) {
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => index += usize::from(self.open.len() == len),
                Err(error) if self.is_current(index) => return Err(error),
                Err(error) => return Ok(Some(self.give_up(index, &error))),
            }
        }
        Ok(None)
    }

    /// Takes what is new in a file. `None` if there is nothing; then a file that grows no more is closed.
    fn read(&mut self, index: usize) -> io::Result<Option<Batch>> {
        self.hand_over(index);
        let is_over = self.is_over(index);
        let Some(open) = self.open.get_mut(index) else { return Ok(None) };
        let (mut items, mut lines, mut bytes) = (Vec::new(), 0, 0);
        while lines < self.max_lines
            && bytes < MAX_BATCH_BYTES
            && let Some(line) = open.generation.next_line()?
        {
            lines += 1;
            bytes += line.len();
            items.extend(open.item(&self.reader, line));
        }
        let is_over = is_over && lines == 0;
        if is_over {
            let last = open.generation.last_line();
            items.extend(last.and_then(|line| open.item(&self.reader, line)));
        }
        if lines == 0 && !is_over {
            return Ok(None);
        }
        if !open.generation.is_intact() {
            // It was truncated while it was read, and what was read may be of both.
            self.drop_truncated(index);
            return Ok(None);
        }
        open.is_fresh = false;
        if open.renamed.is_some() {
            open.renamed = Some(clock::instant());
        }
        let position = open.position(&self.path, is_over);
        if is_over {
            self.hand_over(index + 1);
            self.open.remove(index);
        }
        Ok(Some(Batch { items, ..self.note(position) }))
    }

    /// Lets a file go on with the line that the one before it has begun: both runtimes rotate between parts of a line.
    fn hand_over(&mut self, index: usize) {
        let Some((before, [open, ..])) = self.open.split_at_mut_checked(index) else { return };
        if open.is_fresh
            && let Some(before) = before.last().map(|before| before.unwrapper.pending())
            && !before.is_empty()
        {
            open.unwrapper = Unwrapper::resume(&before);
        }
    }

    /// Whether a file is closed when it has nothing new. One without a successor is not: its writer may have it open.
    fn is_over(&self, index: usize) -> bool {
        let Some(open) = self.open.get(index) else { return false };
        let successors = self.open.len() - index - 1;
        let is_quiet = open.renamed.is_some_and(|since| since.elapsed() >= self.grace);
        let is_final = open.generation.len().is_none() || successors > 1;
        open.renamed.is_some() && (is_final || (successors > 0 && is_quiet))
    }

    fn is_current(&self, index: usize) -> bool {
        self.open.get(index).is_some_and(|open| open.renamed.is_none())
    }

    /// Closes a file that was rotated away and cannot be read, e.g. because it is compressed and cut. One that is cut may
    /// be complete later.
    fn give_up(&mut self, index: usize, error: &io::Error) -> Batch {
        let open = self.open.remove(index);
        let fingerprint = open.generation.fingerprint();
        let position = match self.known.get(&fingerprint) {
            Some(known) => known.position.clone(),
            None => self.begun(fingerprint),
        };
        let is_done = error.kind() != ErrorKind::UnexpectedEof;
        let path = self.path.display();
        let offset = position.offset;
        let text = format!("a rotated file of {path} cannot be read from byte {offset}: {error}");
        let is_new = self.given_up.insert(fingerprint);
        let items = is_new.then_some(Item::Finding("unreadable", text));
        let note = self.note(Position { is_done, ..position });
        Batch { items: items.into_iter().collect(), ..note }
    }

    /// Remembers a position.
    fn note(&mut self, position: Position) -> Batch {
        let known = Known { position: position.clone(), seen: self.looks };
        self.known.insert(position.fingerprint, known);
        Batch { items: Vec::new(), position: Some(position) }
    }

    /// The position of a file of which nothing is to be read.
    fn begun(&self, fingerprint: [u8; 32]) -> Position {
        let path = self.path.to_string_lossy().into_owned();
        Position { path, fingerprint, offset: 0, pending: String::new(), is_done: true }
    }

    /// Forgets files that are not there any more, if they are many.
    fn forget_gone(&mut self) {
        if self.known.len() > MAX_KNOWN {
            let open =
                BTreeSet::from_iter(self.open.iter().map(|open| open.generation.fingerprint()));
            let looks = self.looks;
            self.known.retain(|fingerprint, known| {
                known.seen == looks || open.contains(fingerprint) || *fingerprint == FOLLOWED
            });
            self.given_up.clear();
        }
    }
}

/// Whether there may be room for one more file later: the process or the system has too many open.
fn is_short_of_descriptors(error: &io::Error) -> bool {
    let limits = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    limits.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

// === impl Open ===

impl Open {
    fn item(&mut self, reader: &LineReader, line: FileLine) -> Option<Item> {
        match line {
            FileLine::TooLong => Some(Item::Counted("too_long")),
            FileLine::Text(text) => self.unwrapper.unwrap(&text).map(|line| reader.read(&line)),
        }
    }

    fn position(&self, path: &Path, is_done: bool) -> Position {
        Position {
            path: path.to_string_lossy().into_owned(),
            fingerprint: self.generation.fingerprint(),
            offset: self.generation.offset(),
            pending: self.unwrapper.pending(),
            is_done,
        }
    }
}

// === impl Halt ===

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Whether two paths name one file, with the same name.
fn is_same_path(one: &Path, other: &Path) -> bool {
    one.file_name() == other.file_name()
        && one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

fn unreadable(path: &Path, error: &io::Error) -> Batch {
    let text = format!("{} cannot be read: {error}", path.display());
    Batch { items: vec![Item::Finding("unreadable", text)], position: None }
}

#[cfg(test)]
mod tests;
