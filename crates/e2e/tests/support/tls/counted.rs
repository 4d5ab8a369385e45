//! The bytes of a connection, recorded.

use std::io::{self, Read, Write};

use super::upstream::Shared;

/// Counts and keeps what is read.
pub(super) struct Counted<'a, S> {
    pub(super) stream: S,
    pub(super) shared: &'a Shared,
}

impl<S: Read> Read for Counted<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.shared.received(u64::try_from(count).expect("a number"));
        self.shared.keep(&buffer[..count]);
        Ok(count)
    }
}

impl<S: Write> Write for Counted<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
