//! Files of lines that grow, and are renamed, copied, compressed and truncated.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// What a gzip file begins with (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The most bytes of a first line that a file is known by.
const MAX_FINGERPRINT_BYTES: u64 = 4096;

/// The longest line that is read, in bytes.
const MAX_LINE_BYTES: usize = 1 << 20;

/// One of the files that a path named, now or before.
pub(super) struct Generation {
    from: Box<dyn Source>,
    fingerprint: [u8; 32],
    /// The bytes that were read, up to the end of a line.
    offset: u64,
    /// A part of a line that has no end yet.
    part: Vec<u8>,
    /// Whether the line that has no end yet is too long to be kept.
    is_too_long: bool,
    /// The device and the file on it; `None` if it is compressed.
    inode: Option<(u64, u64)>,
}

/// A line of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileLine {
    /// The text. What is not UTF-8 is replaced by U+FFFD.
    Text(String),
    /// The line is longer than 1 MiB. It was skipped.
    TooLong,
}

/// Why a file cannot be followed.
#[derive(Debug)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

trait Source: BufRead + Send {}
impl<T: BufRead + Send> Source for T {}

// === impl Generation ===

impl Generation {
    /// Opens a file at its beginning. `None` if it has no complete line yet, by which it could be known.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let Some((file, fingerprint)) = identify(path)? else { return Ok(None) };
        let generation = |from, inode| Self {
            from,
            fingerprint,
            offset: 0,
            part: Vec::new(),
            is_too_long: false,
            inode,
        };
        Ok(Some(match file {
            Opened::Plain(file) => {
                let inode = inode(&file)?;
                generation(Box::new(BufReader::with_capacity(1 << 16, file)), Some(inode))
            }
            Opened::Gzip(text) => generation(Box::new(BufReader::new(text)), None),
        }))
    }

    /// What the file is known by.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// The bytes that were read, up to the end of a line.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Skips what was read before.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        io::copy(&mut self.from.by_ref().take(bytes), &mut io::sink())?;
        self.offset = bytes;
        Ok(())
    }

    /// Whether a path still names this file, and it has not been truncated.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let is_long_enough = || path.metadata().is_ok_and(|found| found.len() >= self.offset);
        let first = || identify(path).ok().flatten().map(|(_, fingerprint)| fingerprint);
        self.is_same_file(path) && is_long_enough() && first() == Some(self.fingerprint)
    }

    /// Whether a path names this file, whatever it has in it now.
    pub(super) fn is_same_file(&self, path: &Path) -> bool {
        let found = path.metadata().ok().map(|found| (found.dev(), found.ino()));
        found.is_some() && found == self.inode
    }

    /// The next line that is complete; `None` if there is none yet.
    pub(super) fn next_line(&mut self) -> io::Result<Option<FileLine>> {
        loop {
            let limit = (MAX_LINE_BYTES + 1 - self.part.len()) as u64;
            let read = self.from.by_ref().take(limit).read_until(b'\n', &mut self.part)?;
            if read == 0 {
                return Ok(None);
            }
            let is_ended = self.part.last() == Some(&b'\n');
            if !is_ended && self.part.len() <= MAX_LINE_BYTES {
                return Ok(None);
            }
            self.offset += self.part.len() as u64;
            let too_long = std::mem::replace(&mut self.is_too_long, !is_ended);
            let line = self.take_part();
            match (is_ended, too_long) {
                (true, false) => return Ok(Some(line)),
                (true, true) => return Ok(Some(FileLine::TooLong)),
                (false, _) => {}
            }
        }
    }

    /// The last line of a file that grows no more, although it has no end.
    pub(super) fn last_line(&mut self) -> Option<FileLine> {
        if self.part.is_empty() {
            return None;
        }
        self.offset += self.part.len() as u64;
        let line = self.take_part();
        Some(if self.is_too_long { FileLine::TooLong } else { line })
    }

    fn take_part(&mut self) -> FileLine {
        let text = String::from_utf8_lossy(&self.part);
        let line = FileLine::Text(text.trim_end_matches(['\n', '\r']).to_owned());
        self.part.clear();
        line
    }
}

/// A file, from its beginning.
enum Opened {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

/// Opens a file, and finds what it is known by; `None` if its first line is not complete.
fn identify(path: &Path) -> io::Result<Option<(Opened, [u8; 32])>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    let is_gzip = file.read(&mut magic)? == magic.len() && magic == GZIP;
    file.rewind()?;
    let first = match is_gzip {
        false => first_line(&mut BufReader::new(&file))?,
        true => first_line(&mut BufReader::new(MultiGzDecoder::new(BufReader::new(&file))))?,
    };
    file.seek(SeekFrom::Start(0))?;
    let opened = match is_gzip {
        false => Opened::Plain(file),
        true => Opened::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(file)))),
    };
    Ok(first.map(|line| (opened, Sha256::digest(line).into())))
}

/// The first line, or its beginning; `None` if it is not complete.
fn first_line(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(MAX_FINGERPRINT_BYTES).read_until(b'\n', &mut line)?;
    let is_known = line.last() == Some(&b'\n') || line.len() as u64 == MAX_FINGERPRINT_BYTES;
    Ok(is_known.then_some(line))
}

fn inode(file: &File) -> io::Result<(u64, u64)> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
}

/// The files beside a path whose names begin with its name, as rotated ones do, the oldest first. The path itself comes
/// last.
pub(super) fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        let other = entry.file_name();
        let suffix = other.as_encoded_bytes().strip_prefix(name);
        let is_rotated = suffix.is_some_and(|suffix| matches!(suffix.first(), Some(b'.' | b'-')));
        let Ok(metadata) = entry.metadata() else { continue };
        if is_rotated && metadata.is_file() {
            found.push((metadata.modified()?, folder.join(other)));
        }
    }
    found.sort();
    let paths = found.into_iter().map(|(_, path)| path);
    Ok(paths.chain([path.to_owned()]).collect())
}

// === impl FileError ===

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be followed: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for FileError {}
