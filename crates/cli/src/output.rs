//! The one writer of the command.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Stderr, Stdout, Write};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, poll};

use super::error::Failure;
use super::exit::Exit;

/// Standard output for results, standard error for what a person should know. Nothing else of the
/// command writes to either.
pub(super) struct Output {
    out: BufWriter<Stdout>,
    err: Stderr,
    /// The reader has seen enough: whatever follows goes nowhere, and the verdict stays what it is.
    closed: bool,
}

/// Standard output cannot be written.
#[derive(Debug)]
pub(super) struct OutputError(pub(super) io::Error);

impl Output {
    /// The streams of the process.
    pub(super) fn standard() -> Self {
        Self { out: BufWriter::new(io::stdout()), err: io::stderr(), closed: false }
    }

    /// Writes a line of the result.
    pub(super) fn line(&mut self, text: impl fmt::Display) -> Result<(), OutputError> {
        self.write(|out| writeln!(out, "{text}"))
    }

    /// Writes what ends its own lines.
    pub(super) fn text(&mut self, text: impl fmt::Display) -> Result<(), OutputError> {
        self.write(|out| write!(out, "{text}"))
    }

    /// Writes to standard error. When even that fails there is nobody left to tell.
    pub(super) fn note(&mut self, text: impl fmt::Display) {
        _ = writeln!(self.err, "vkey: {text}");
    }

    /// Whether the reader has gone.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Standard output as a file of its own, for a protocol: nothing is kept back, and whoever waits for
    /// its reader keeps nobody else from ending the process.
    pub(super) fn protocol() -> io::Result<File> {
        Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
    }

    /// Standard error as a file of its own, which may be waited for without keeping [`Self::note`] back.
    pub(super) fn diagnostics() -> io::Result<File> {
        Ok(io::stderr().as_fd().try_clone_to_owned()?.into())
    }

    /// Hands everything over to the reader.
    pub(super) fn finish(&mut self) -> Result<(), OutputError> {
        self.write(BufWriter::flush)
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        if self.closed {
            return Ok(());
        }
        match write(&mut self.out) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.closed = true,
            written => written.map_err(OutputError)?,
        }
        Ok(())
    }
}

/// Writes all to a stream, however long that takes. Whoever shares it may have made it non-blocking, for us too.
pub(super) fn write_whole(mut to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Interrupted or not, it is tried again.
                _ = poll(&mut [PollFd::new(to, PollFlags::OUT)], None);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Failure for OutputError {
    fn exit(&self) -> Exit {
        Exit::Environment
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;

    #[test]
    fn a_stream_that_is_not_blocking_takes_all() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        // More than any pipe holds.
        let text = "x".repeat(3 << 20);
        let read = std::thread::spawn(move || io::read_to_string(&mut reader).unwrap());
        write_whole(&writer, text.as_bytes()).unwrap();
        drop(writer);
        assert!(read.join().unwrap() == text);
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        let gone = write_whole(&writer, b"x").map_err(|error| error.kind());
        assert_eq!(gone, Err(ErrorKind::BrokenPipe));
    }
}
