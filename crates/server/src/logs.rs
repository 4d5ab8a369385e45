//! Logs: files of lines, compressed or not.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// What a gzip file begins with (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The longest line that is read, in bytes: many times the longest audit line, wrapped twice.
const MAX_LINE_BYTES: usize = 1 << 20;

/// A log, line by line. It holds one line at a time.
pub struct Logs {
    from: BufReader<Box<dyn Read>>,
    line: Vec<u8>,
}

/// A line of a log, without its line end.
#[derive(Debug, PartialEq, Eq)]
pub enum LogLine<'a> {
    /// The text. What is not UTF-8 is replaced by U+FFFD.
    Text(std::borrow::Cow<'a, str>),
    /// The line is longer than 1 MiB. It was skipped.
    TooLong,
}

/// Opens a log. Gzip is recognised by its first bytes.
///
/// # Errors
///
/// The first bytes cannot be read.
pub fn open(from: impl Read + 'static) -> io::Result<Logs> {
    let mut from = BufReader::new(from);
    Ok(match from.fill_buf()?.starts_with(&GZIP) {
        true => Logs::new(MultiGzDecoder::new(from)),
        false => Logs::new(from),
    })
}

impl Logs {
    /// A log that is not compressed.
    pub fn new(from: impl Read + 'static) -> Self {
        Self { from: BufReader::new(Box::new(from)), line: Vec::new() }
    }

    /// Whether the next line is there already, so that reading it does not wait.
    pub fn has_line(&self) -> bool {
        self.from.buffer().contains(&b'\n')
    }

    /// The next line; `None` at the end. The last one may lack its line end.
    ///
    /// # Errors
    ///
    /// The log cannot be read, or is no gzip after all.
    pub fn next_line(&mut self) -> io::Result<Option<LogLine<'_>>> {
        self.line.clear();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        if self.from.by_ref().take(limit).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if self.line.pop_if(|byte| *byte == b'\n').is_some() {
            self.line.pop_if(|byte| *byte == b'\r');
        } else if self.line.len() > MAX_LINE_BYTES {
            self.line.clear();
            self.from.skip_until(b'\n')?;
            return Ok(Some(LogLine::TooLong));
        }
        Ok(Some(LogLine::Text(String::from_utf8_lossy(&self.line))))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut logs = open(io::Cursor::new(bytes.to_vec())).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = logs.next_line().unwrap() {
            lines.push(match line {
                LogLine::Text(text) => text.into_owned(),
                LogLine::TooLong => "(too long)".to_owned(),
            });
        }
        lines
    }

    #[test]
    fn lines_end_as_they_like() {
        assert_eq!(lines(b"a\r\nb\n\nc"), ["a", "b", "", "c"]);
        assert_eq!(lines(b""), [""; 0]);
        assert_eq!(lines(b"\xff\n"), ["\u{fffd}"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_alone() {
        for (len, expected) in [(MAX_LINE_BYTES, None), (MAX_LINE_BYTES + 1, Some("(too long)"))] {
            let long = vec![b'x'; len];
            let text = [b"a\n", long.as_slice(), b"\nb\n"].concat();
            let found = lines(&text);
            assert_eq!((found.len(), &*found[0], &*found[2]), (3, "a", "b"));
            assert_eq!(found[1].len() == len, expected.is_none());
            let at_end = lines(&long);
            assert_eq!((at_end.len(), at_end[0].len() == len), (1, expected.is_none()));
        }
    }

    #[test]
    fn compressed_files_are_read_too_and_a_cut_one_is_an_error() {
        let member = |text: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        // Several members are one file (RFC 1952, section 2.2), as appending to a compressed log makes them.
        assert_eq!(lines(&[member(b"a\nb\n"), member(b"c\n")].concat()), ["a", "b", "c"]);
        let whole = member(b"a line\n");
        let mut logs = open(io::Cursor::new(whole[..whole.len() - 4].to_vec())).unwrap();
        assert!((0..3).any(|_| logs.next_line().is_err()));
    }
}
