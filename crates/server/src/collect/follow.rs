//! Follows a file through rotation.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::files::{FileError, FileLine, Generation, rotated};
use super::{Inlet, LineReader};
use crate::Unwrapper;
use crate::clock;
use crate::store::{Batch, Item, Position};

/// How often a file is looked at when it has nothing new.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How long a file that was renamed is read on: its writer may not have opened the new one yet.
const GRACE: Duration = Duration::from_secs(30);

/// The most lines of a batch.
const MAX_LINES: usize = 1000;

/// Follows a file, and those that had its name before, from where they were read to.
pub struct Follower {
    path: PathBuf,
    reader: LineReader,
    to: Inlet,
    /// The files that are read, the oldest first. The last one is that of the path, if there is one.
    open: Vec<Open>,
    /// How far files were read, by fingerprint: also those that are not open any more.
    known: BTreeMap<[u8; 32], Position>,
}

struct Open {
    generation: Generation,
    unwrapper: Unwrapper,
    /// When it grew last, if it has another name by now.
    renamed: Option<Instant>,
}

/// The receiver of batches is gone: the collector ends.
struct Ended;

// === impl Follower ===

impl Follower {
    /// A follower that goes on at these positions. A file that has none is read from its beginning.
    pub fn new(path: PathBuf, positions: Vec<Position>, reader: LineReader, to: Inlet) -> Self {
        let known =
            positions.into_iter().map(|position| (position.fingerprint, position)).collect();
        Self { path, reader, to, open: Vec::new(), known }
    }

    /// Follows until `stop` is set or the writer has ended. Then all that is in the files has been sent.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the folder or a file cannot be read. A file that is not there yet is waited for.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), FileError> {
        loop {
            let is_stopping = stop.load(Ordering::Relaxed);
            match self.poll().map_err(|error| FileError { path: self.path.clone(), error })? {
                Err(Ended) => return Ok(()),
                Ok(false) if is_stopping => return Ok(()),
                Ok(false) => thread::sleep(POLL_EVERY),
                Ok(true) => {}
            }
        }
    }

    /// Reads what is new in all files. Returns whether there was anything.
    fn poll(&mut self) -> io::Result<Result<bool, Ended>> {
        let current = self.open.last().filter(|last| last.renamed.is_none());
        if !current.is_some_and(|current| current.generation.is_at(&self.path)) {
            self.look_for_files()?;
        }
        let mut is_new = false;
        let mut index = 0;
        while index < self.open.len() {
            let batch = match self.read(index) {
                Ok(batch) => batch,
                Err(error) if self.is_current(index) => return Err(error),
                Err(error) => Some(self.give_up(index, &error)),
            };
            match batch {
                None => index += 1,
                Some(batch) => {
                    is_new = true;
                    if self.to.blocking_send(batch).is_err() {
                        return Ok(Err(Ended));
                    }
                }
            }
        }
        Ok(Ok(is_new))
    }

    /// Opens the files that have the path's name now, or had it before and were not read to their end.
    fn look_for_files(&mut self) -> io::Result<()> {
        self.open.retain_mut(|open| {
            let is_truncated = open.renamed.is_none() && open.generation.is_same_file(&self.path);
            open.renamed.get_or_insert_with(clock::instant);
            // What the file had is in a copy, if anywhere.
            !is_truncated
        });
        // At the first start, what was rotated away before is not read.
        let mut is_later = false;
        for path in rotated(&self.path)? {
            let is_path = path == self.path;
            let generation = match Generation::open(&path) {
                Ok(Some(generation)) => generation,
                // Rotation goes on while it is looked at.
                Ok(None) => continue,
                Err(error) if is_path && error.kind() != io::ErrorKind::NotFound => {
                    return Err(error);
                }
                Err(_) => continue,
            };
            let known = self.known.get(&generation.fingerprint());
            is_later |= known.is_some();
            let is_read = known.is_some_and(|position| position.is_done);
            if !is_read && (is_path || is_later) {
                self.open(generation, is_path)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, mut generation: Generation, is_path: bool) -> io::Result<()> {
        let fingerprint = generation.fingerprint();
        let is_open = |open: &Open| open.generation.fingerprint() == fingerprint;
        if let Some(index) = self.open.iter().position(is_open) {
            // It was renamed and has its name again.
            if is_path {
                let mut open = self.open.remove(index);
                open.renamed = None;
                self.open.push(open);
            }
            return Ok(());
        }
        let mut unwrapper = Unwrapper::default();
        if let Some(position) = self.known.get(&fingerprint) {
            generation.skip(position.offset)?;
            unwrapper = Unwrapper::resume(&position.pending);
        }
        let renamed = (!is_path).then(clock::instant);
        self.open.push(Open { generation, unwrapper, renamed });
        Ok(())
    }

    /// Takes what is new in a file. `None` if there is nothing; then a file that grows no more is closed.
    fn read(&mut self, index: usize) -> io::Result<Option<Batch>> {
        let Some(open) = self.open.get_mut(index) else { return Ok(None) };
        let (mut items, mut lines) = (Vec::new(), 0);
        while lines < MAX_LINES
            && let Some(line) = open.generation.next_line()?
        {
            lines += 1;
            items.extend(open.item(&self.reader, line));
        }
        let is_over = lines == 0 && open.renamed.is_some_and(|since| since.elapsed() >= GRACE);
        if is_over {
            let last = open.generation.last_line();
            items.extend(last.and_then(|line| open.item(&self.reader, line)));
        }
        if lines == 0 && !is_over {
            return Ok(None);
        }
        if open.renamed.is_some() {
            open.renamed = Some(clock::instant());
        }
        let position = open.position(&self.path, is_over);
        self.known.insert(position.fingerprint, position.clone());
        if is_over {
            self.open.remove(index);
        }
        Ok(Some(Batch { items, position: Some(position) }))
    }

    fn is_current(&self, index: usize) -> bool {
        self.open.get(index).is_some_and(|open| open.renamed.is_none())
    }

    /// Closes a file that was rotated away and cannot be read, e.g. because it is compressed and cut.
    fn give_up(&mut self, index: usize, error: &io::Error) -> Batch {
        let open = self.open.remove(index);
        let position = open.position(&self.path, true);
        self.known.insert(position.fingerprint, position.clone());
        let path = self.path.display();
        let text = format!(
            "a rotated file of {path} cannot be read from byte {}: {error}",
            position.offset
        );
        Batch { items: vec![Item::Finding("unreadable", text)], position: Some(position) }
    }
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
