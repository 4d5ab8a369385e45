//! Reads audit lines from a pipe.

use std::io::{self, Read};

use super::{Inlet, LineReader};
use crate::store::{Batch, Item};
use crate::{LogLine, Logs, Unwrapper};

/// The most lines of a batch.
const MAX_LINES: usize = 1000;

/// Reads a pipe to its end. A batch is sent when it is full or nothing more is there at once.
///
/// # Errors
///
/// The pipe cannot be read.
pub fn read_pipe(from: impl Read + 'static, reader: &LineReader, to: &Inlet) -> io::Result<()> {
    let mut lines = Logs::new(from);
    let mut unwrapper = Unwrapper::default();
    let mut batch = Batch::default();
    loop {
        let item = match lines.next_line()? {
            None => break,
            Some(LogLine::TooLong) => Some(Item::Counted("too_long")),
            Some(LogLine::Text(text)) => unwrapper.unwrap(&text).map(|line| reader.read(&line)),
        };
        batch.items.extend(item);
        let is_full = batch.items.len() >= MAX_LINES;
        if is_full || (!batch.items.is_empty() && !lines.has_line()) {
            let batch = std::mem::take(&mut batch);
            if to.blocking_send(batch).is_err() {
                return Ok(());
            }
        }
    }
    if !batch.items.is_empty() {
        // The writer has ended with an error, which it reports.
        let _ = to.blocking_send(batch);
    }
    Ok(())
}
