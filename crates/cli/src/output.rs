//! The command's standard output and standard error.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Stderr, Stdout, Write};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, poll};

use super::error::Failure;
use super::exit::Exit;

/// Writes results to standard output, and notes to standard error. Nothing else in the command writes to
/// either.
pub(super) struct Output {
    out: BufWriter<Stdout>,
    err: Stderr,
    /// Whether the reader closed standard output. Further output is dropped, and the exit code stays the
    /// same.
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

    /// Writes text that includes its line ends.
    pub(super) fn text(&mut self, text: impl fmt::Display) -> Result<(), OutputError> {
        self.write(|out| write!(out, "{text}"))
    }

    /// Writes a note to standard error. If that fails, there is nowhere to report it.
    pub(super) fn note(&mut self, text: impl fmt::Display) {
        _ = writeln!(self.err, "vkey: {text}");
    }

    /// Whether the reader closed standard output.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Standard output as a separate unbuffered file, for a protocol. A thread that waits for its reader does
    /// not keep others from ending the process.
    pub(super) fn protocol() -> io::Result<File> {
        Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
    }

    /// Standard error as a separate file. Waiting for it does not delay [`Self::note`].
    pub(super) fn diagnostics() -> io::Result<File> {
        Ok(io::stderr().as_fd().try_clone_to_owned()?.into())
    }

    /// Flushes standard output.
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

/// Writes everything to a stream, however long that takes. Another process that shares the stream may have
/// made it non-blocking for us too.
pub(super) fn write_whole(mut to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Retries, whether or not it was interrupted.
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
    fn everything_is_written_to_a_non_blocking_stream() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        // More than a pipe holds.
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
