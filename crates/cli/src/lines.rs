//! Lines of a stream that may be anything: each of a bounded length.
//!
//! A byte order mark before the first of them is no part of it: programs on .NET begin their output with one,
//! and a reader may skip it (RFC 8259, section 8.1).

use std::io::{self, BufRead, ErrorKind};

/// A line as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it, with its line end; only the last line of a stream may have none.
    Whole(Vec<u8>),
    /// It was longer than may be, and is skipped.
    TooLong,
}

/// The byte order mark in UTF-8.
const MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// The lines of a stream.
pub(super) struct Lines<R> {
    from: R,
    /// Nothing has been read yet.
    at_start: bool,
    /// The most bytes of a line, its end not counted.
    max_bytes: usize,
}

impl<R: BufRead> Lines<R> {
    /// The lines of a stream, each of up to `max_bytes` before its end.
    pub(super) fn new(from: R, max_bytes: usize) -> Self {
        Self { from, at_start: true, max_bytes }
    }

    /// The next line; `None` at the end of the stream. No more is held in memory than a line may be long.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        self.next_or(|_| ())
    }

    /// The next line; one that is too long is shown to `skipped` in pieces.
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

    /// Skips the byte order mark at the start; what looks like one and is none is handed back.
    fn skip_mark(&mut self) -> io::Result<Vec<u8>> {
        let mut skipped = Vec::new();
        if !std::mem::take(&mut self.at_start) {
            return Ok(skipped);
        }
        for byte in MARK {
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

/// What is there to be read. A read that a signal interrupts is tried again.
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
    fn lines_are_whole_in_whatever_pieces_they_arrive() {
        let text = "a\n\nlonger\r\né\nlast";
        let expected = ["a\n", "\n", "longer\r\n", "é\n", "last"].map(whole);
        for piece in 1..=text.len() {
            assert_eq!(lines(text.as_bytes(), piece, 7), expected, "{piece}");
        }
        assert_eq!(lines(b"", 4, 7), []);
        assert_eq!(lines(b"a\n", 4, 7), [whole("a\n")]);
    }

    #[test]
    fn a_byte_order_mark_at_the_start_is_no_part_of_the_first_line() {
        for piece in 1..=8 {
            let read = |text: &[u8]| lines(text, piece, 4);
            assert_eq!(read(b"\xef\xbb\xbf1234\nb"), [whole("1234\n"), whole("b")], "{piece}");
            assert_eq!(read(b"\xef\xbb\xbf"), []);
            assert_eq!(read(b"\xef\xbb\xbf12345"), [Line::TooLong]);
            // Once, whole, and nowhere else.
            let marks = b"\xef\xbb\xbf\xef\xbb\xbf\n\xef\xbb\xbf\n";
            assert_eq!(read(marks), [whole("\u{feff}\n"), whole("\u{feff}\n")]);
            assert_eq!(read(b"\xef\xbba\n"), [Line::Whole(b"\xef\xbba\n".into())]);
            assert_eq!(read(b"\xef"), [Line::Whole(b"\xef".into())]);
        }
    }

    #[test]
    fn what_is_skipped_is_shown() {
        for piece in 1..=10 {
            let text = &b"ab\n123456789\ncd"[..];
            let mut lines = Lines::new(BufReader::with_capacity(piece, text), 4);
            let mut skipped = Vec::new();
            while lines.next_or(|bytes| skipped.extend_from_slice(bytes)).unwrap().is_some() {}
            assert_eq!(skipped, b"123456789", "{piece}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_no_other() {
        let text = b"1234567\n12345678\nab\n123456789";
        let expected = [whole("1234567\n"), Line::TooLong, whole("ab\n"), Line::TooLong];
        for piece in 1..=text.len() {
            assert_eq!(lines(text, piece, 7), expected, "{piece}");
        }
    }
}
