//! Files of lines that grow, and are renamed, copied, compressed and truncated.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// What a gzip file begins with (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The most bytes of a first line that a file is known by.
const MAX_HEAD_BYTES: u64 = 4096;

/// The longest line that is read, in bytes.
const MAX_LINE_BYTES: usize = 1 << 20;

/// What is read at once.
const BUFFER_BYTES: usize = 1 << 16;

/// The most rotated files of one path that are looked at.
const MAX_ROTATED: usize = 1000;

/// The digits of a date.
const DATE_DIGITS: usize = 8;

/// One of the files that a path named, now or before.
pub(super) struct Generation {
    text: Text,
    head: Head,
    /// Its state when it was opened.
    state: FileState,
    /// The bytes that were read, up to the end of a line.
    offset: u64,
    /// The bytes before `offset` that are still to be skipped, if the file is compressed.
    behind: u64,
    /// A part of a line that has no end yet.
    part: Vec<u8>,
    /// The bytes before `part` of a line that is too long to be kept.
    dropped: u64,
}

/// A line of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileLine {
    /// The text. What is not UTF-8 is replaced by U+FFFD.
    Text(String),
    /// The line is longer than 1 MiB. It was skipped.
    TooLong,
}

impl FileLine {
    /// The bytes of the text.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::TooLong => 0,
        }
    }
}

/// What tells a file, and its present state, from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileState {
    device: u64,
    inode: u64,
    /// When it was last written, renamed or linked.
    changed: (i64, i64),
}

/// Why a file cannot be followed.
#[derive(Debug)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

enum Text {
    Plain(BufReader<File>),
    Gzip(BufReader<MultiGzDecoder<BufReader<File>>>),
}

/// The first line that has something in it, or its beginning.
struct Head {
    /// The bytes before it.
    at: u64,
    line: Vec<u8>,
}

// === impl Generation ===

impl Generation {
    /// Opens a file at its beginning. `None` if it has no complete line yet, by which it could be known.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or it is no regular file: a pipe could not be read twice.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        // What is no regular file is not opened: that of a pipe waits for its writer.
        let kind = path.metadata()?.file_type();
        if !kind.is_file() {
            let is_folder = kind.is_dir();
            let error = if is_folder { ErrorKind::IsADirectory } else { ErrorKind::InvalidInput };
            return Err(io::Error::new(error, "it is no regular file"));
        }
        let mut file = File::open(path)?;
        let state = FileState::new(&file.metadata()?);
        let mut magic = [0; 2];
        let is_gzip = file.read(&mut magic)? == magic.len() && magic == GZIP;
        file.rewind()?;
        let head = match is_gzip {
            false => Head::read(&mut BufReader::new(&file))?,
            true => Head::read(&mut BufReader::new(MultiGzDecoder::new(BufReader::new(&file))))?,
        };
        file.rewind()?;
        let text = match is_gzip {
            false => Text::Plain(BufReader::with_capacity(BUFFER_BYTES, file)),
            true => Text::Gzip(BufReader::new(MultiGzDecoder::new(BufReader::new(file)))),
        };
        let part = Vec::new();
        let generation = |head| Self { text, head, state, offset: 0, behind: 0, part, dropped: 0 };
        Ok(head.map(generation))
    }

    /// What the file is known by: the SHA-256 of its first line.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.head.line).into()
    }

    /// Its state when it was opened.
    pub(super) fn state(&self) -> FileState {
        self.state
    }

    /// The bytes that were read, up to the end of a line.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes that are in the file; `None` if it is compressed.
    pub(super) fn len(&self) -> Option<u64> {
        self.plain().and_then(|file| file.metadata().ok()).map(|found| found.len())
    }

    /// Goes on after what was read before.
    pub(super) fn resume(&mut self, offset: u64) -> io::Result<()> {
        self.offset = offset;
        match &mut self.text {
            Text::Plain(file) => file.seek(SeekFrom::Start(offset)).map(drop),
            Text::Gzip(_) => {
                self.behind = offset;
                Ok(())
            }
        }
    }

    /// Whether a path still names this file, and it has not been truncated.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        self.is_same_file(path) && self.is_intact()
    }

    /// Whether a path names this file, whatever it has in it now.
    pub(super) fn is_same_file(&self, path: &Path) -> bool {
        FileState::of(path).is_ok_and(|found| found.is_same_file(&self.state))
    }

    /// Whether what was read is still in the file. If not, it was truncated, and what is at the offset now is something
    /// else.
    pub(super) fn is_intact(&self) -> bool {
        let Some(file) = self.plain() else { return true };
        let mut head = vec![0; self.head.line.len()];
        let has_head = file.read_exact_at(&mut head, self.head.at).is_ok();
        has_head && head == self.head.line && self.len() >= Some(self.offset)
    }

    /// The next line that is complete; `None` if there is none yet.
    pub(super) fn next_line(&mut self) -> io::Result<Option<FileLine>> {
        self.skip_read()?;
        loop {
            if self.part.is_empty() && self.dropped == 0 {
                // A writer that does not append leaves a hole in a file that was truncated.
                self.offset += skip_while(self.text.reader(), |byte| byte == 0)?;
            }
            let limit = (MAX_LINE_BYTES + 1 - self.part.len()) as u64;
            let read = self.text.reader().take(limit).read_until(b'\n', &mut self.part)?;
            if read == 0 {
                return Ok(None);
            }
            if self.part.last() == Some(&b'\n') {
                return Ok(Some(self.end_line()));
            }
            if self.part.len() <= MAX_LINE_BYTES {
                return Ok(None);
            }
            self.dropped += self.part.len() as u64;
            self.part.clear();
        }
    }

    /// The last line of a file that grows no more, although it has no end.
    pub(super) fn last_line(&mut self) -> Option<FileLine> {
        let is_there = !self.part.is_empty() || self.dropped > 0;
        is_there.then(|| self.end_line())
    }

    fn end_line(&mut self) -> FileLine {
        let dropped = std::mem::take(&mut self.dropped);
        self.offset += dropped + self.part.len() as u64;
        let text = String::from_utf8_lossy(&self.part);
        let line = match dropped {
            0 => FileLine::Text(text.trim_end_matches(['\n', '\r']).to_owned()),
            _ => FileLine::TooLong,
        };
        self.part.clear();
        line
    }

    fn skip_read(&mut self) -> io::Result<()> {
        while self.behind > 0 {
            let skipped = io::copy(&mut self.text.reader().take(self.behind), &mut io::sink())?;
            if skipped == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.behind -= skipped;
        }
        Ok(())
    }

    fn plain(&self) -> Option<&File> {
        match &self.text {
            Text::Plain(file) => Some(file.get_ref()),
            Text::Gzip(_) => None,
        }
    }
}

// === impl Text ===

impl Text {
    fn reader(&mut self) -> &mut dyn BufRead {
        match self {
            Self::Plain(file) => file,
            Self::Gzip(text) => text,
        }
    }
}

// === impl Head ===

impl Head {
    /// `None` if there is no such line, or it is not complete.
    fn read(from: &mut dyn BufRead) -> io::Result<Option<Self>> {
        let at = skip_while(from, |byte| matches!(byte, 0 | b'\r' | b'\n'))?;
        let mut line = Vec::new();
        from.take(MAX_HEAD_BYTES).read_until(b'\n', &mut line)?;
        let is_known = line.last() == Some(&b'\n') || line.len() as u64 == MAX_HEAD_BYTES;
        Ok(is_known.then_some(Self { at, line }))
    }
}

/// Skips bytes. Returns how many.
fn skip_while(from: &mut dyn BufRead, skips: impl Fn(u8) -> bool) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let found = from.fill_buf()?;
        let count = found.iter().take_while(|byte| skips(**byte)).count();
        if count == 0 {
            return Ok(skipped);
        }
        from.consume(count);
        skipped += count as u64;
    }
}

// === impl FileState ===

impl FileState {
    /// The state of the file of a path.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        path.metadata().map(|found| Self::new(&found))
    }

    fn new(found: &Metadata) -> Self {
        let changed = (found.ctime(), found.ctime_nsec());
        Self { device: found.dev(), inode: found.ino(), changed }
    }

    /// Whether both are states of one file.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The files that had a path's name before they were rotated, the oldest first, at most the latest 1000. They are beside
/// the file that the path names, also if that is a link.
pub(super) fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let target = target(path);
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = target.file_name().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        let other = entry.file_name();
        if !is_rotated(name, other.as_encoded_bytes()) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            found.push((metadata.modified()?, folder.join(other)));
        }
    }
    found.sort();
    let excess = found.len().saturating_sub(MAX_ROTATED);
    Ok(found.into_iter().skip(excess).map(|(_, path)| path).collect())
}

/// The file that a path names, also if it is not there.
fn target(path: &Path) -> PathBuf {
    if let Ok(target) = path.canonicalize() {
        return target;
    }
    match (path.read_link(), path.parent()) {
        (Ok(link), Some(folder)) => folder.join(link),
        _ => path.to_owned(),
    }
}

/// Whether a name is one that rotation gives to a file: `NAME.1`, `NAME-20260131`, `NAME.20260131-120000`, `NAME.old`, or
/// `STEM-2026-01-31T12-00-00.EXTENSION`; each of them also with `.gz`.
fn is_rotated(name: &[u8], other: &[u8]) -> bool {
    let (plain, is_gzip) = match other.strip_suffix(b".gz") {
        Some(plain) => (plain, true),
        None => (other, false),
    };
    if let Some(suffix) = plain.strip_prefix(name) {
        let is_number = digits_of(suffix).is_some_and(|digits| digits > 0);
        return is_number || suffix == b".old" || (suffix.is_empty() && is_gzip);
    }
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.') else { return false };
    let (stem, extension) = name.split_at(dot);
    let inner = plain.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    // A number alone is rather that of another log.
    inner.and_then(digits_of).is_some_and(|digits| digits >= DATE_DIGITS)
}

/// The number of digits in a suffix of numbers, dates and times; `None` if it is something else.
fn digits_of(suffix: &[u8]) -> Option<usize> {
    let is_begun = matches!(suffix.first(), Some(b'.' | b'-'));
    let is_time = |byte: &u8| {
        byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'T' | b'Z')
    };
    let digits = suffix.iter().filter(|byte| byte.is_ascii_digit()).count();
    (is_begun && suffix.iter().all(is_time)).then_some(digits)
}

// === impl FileError ===

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be followed: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for FileError {}

#[cfg(test)]
mod tests;
