//! Reads lines of bounded length from an untrusted stream.
//!
//! A byte order mark at the start is skipped (RFC 8259, section 8.1 allows that): programs on .NET begin
//! their output with one.

use std::io::{self, BufRead, ErrorKind};

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A whole line with its line end, which only the last line may lack.
    Whole(Vec<u8>),
    /// The line was longer than the limit, and was skipped.
    TooLong,
}

/// The byte order mark in UTF-8.
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// The lines of a stream.
pub(super) struct Lines<R> {
    from: R,
    /// Whether nothing has been read yet.
    at_start: bool,
    /// The longest line in bytes, without its end.
    max_bytes: usize,
}

impl<R: BufRead> Lines<R> {
    /// Reads lines of up to `max_bytes` each, without their ends.
    pub(super) fn new(from: R, max_bytes: usize) -> Self {
        Self { from, at_start: true, max_bytes }
    }

    /// The next line; `None` at the end of the stream. Holds at most one line in memory.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        self.next_or(|_| ())
    }

    /// The next line. One that is too long is passed to `skipped` in pieces.
    pub(super) fn next_or(&mut self, mut skipped: impl FnMut(&[u8])) -> io::Result<Option<Line>> {
        let (mut line, mut too_long) = (self.skip_mark()?, false);
        loop {
            let part = fill(&mut self.from)?;
            let end = part.iter().position(|byte| *byte == b'\n');
            let content = part.get(..end.unwrap_or(part.len())).unwrap_or_default();
            let taken = content.len() + usize::from(end.is_some());
            too_long |= line.len() + content.len() > self.max_bytes;
            match too_long {
                true => {
                    skipped(&std::mem::take(&mut line));
                    skipped(content);
                }
                false => line.extend(part.iter().take(taken)),
            }
            self.from.consume(taken);
            if taken == 0 || end.is_some() {
                break;
            }
        }
        Ok(match (too_long, line.is_empty()) {
            (true, _) => Some(Line::TooLong),
            (false, true) => None,
            (false, false) => Some(Line::Whole(line)),
        })
    }

    /// Skips a byte order mark at the start. Returns bytes that only looked like the start of one.
    fn skip_mark(&mut self) -> io::Result<Vec<u8>> {
        let mut skipped = Vec::new();
        if !std::mem::take(&mut self.at_start) {
            return Ok(skipped);
        }
        for byte in BYTE_ORDER_MARK {
            if fill(&mut self.from)?.first() != Some(&byte) {
                return Ok(skipped);
            }
            self.from.consume(1);
            skipped.push(byte);
        }
        skipped.clear();
        Ok(skipped)
    }
}

/// The buffered bytes, after reading more if there are none. Retries when a signal interrupts.
fn fill(from: &mut impl BufRead) -> io::Result<&[u8]> {
    while from.fill_buf().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
    from.fill_buf()
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// The lines of a text that arrives in pieces of `piece` bytes.
    fn lines(text: &[u8], piece: usize, max_bytes: usize) -> Vec<Line> {
        let mut lines = Lines::new(BufReader::with_capacity(piece, text), max_bytes);
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.into())
    }

    #[test]
    fn lines_are_whole_however_they_are_split_into_reads() {
        let text = "a\n\nlonger\r\né\nlast";
        let expected = ["a\n", "\n", "longer\r\n", "é\n", "last"].map(whole);
        for piece in 1..=text.len() {
            assert_eq!(lines(text.as_bytes(), piece, 7), expected, "{piece}");
        }
        assert_eq!(lines(b"", 4, 7), []);
        assert_eq!(lines(b"a\n", 4, 7), [whole("a\n")]);
    }

    #[test]
    fn a_byte_order_mark_at_the_start_is_not_part_of_the_first_line() {
        for piece in 1..=8 {
            let read = |text: &[u8]| lines(text, piece, 4);
            assert_eq!(read(b"\xef\xbb\xbf1234\nb"), [whole("1234\n"), whole("b")], "{piece}");
            assert_eq!(read(b"\xef\xbb\xbf"), []);
            assert_eq!(read(b"\xef\xbb\xbf12345"), [Line::TooLong]);
            // Only once, only if complete, and only at the start.
            let marks = b"\xef\xbb\xbf\xef\xbb\xbf\n\xef\xbb\xbf\n";
            assert_eq!(read(marks), [whole("\u{feff}\n"), whole("\u{feff}\n")]);
            assert_eq!(read(b"\xef\xbba\n"), [Line::Whole(b"\xef\xbba\n".into())]);
            assert_eq!(read(b"\xef"), [Line::Whole(b"\xef".into())]);
        }
    }

    #[test]
    fn skipped_bytes_are_passed_on() {
        for piece in 1..=10 {
            let text = &b"ab\n123456789\ncd"[..];
            let mut lines = Lines::new(BufReader::with_capacity(piece, text), 4);
            let mut skipped = Vec::new();
            while lines.next_or(|bytes| skipped.extend_from_slice(bytes)).unwrap().is_some() {}
            assert_eq!(skipped, b"123456789", "{piece}");
        }
    }

    #[test]
    fn only_a_line_that_is_too_long_is_skipped() {
        let text = b"1234567\n12345678\nab\n123456789";
        let expected = [whole("1234567\n"), Line::TooLong, whole("ab\n"), Line::TooLong];
        for piece in 1..=text.len() {
            assert_eq!(lines(text, piece, 7), expected, "{piece}");
        }
    }
}
