//! Reads audit lines from a pipe.

use std::io::{self, Read};

use super::{Inlet, LineReader, MAX_BATCH_BYTES, MAX_BATCH_LINES};
use crate::store::{Batch, Item};
use crate::{LogLine, Logs, Unwrapper};

/// Reads a pipe to its end. A batch is sent when it is full or nothing more is there at once.
///
/// # Errors
///
/// The pipe cannot be read.
pub fn read_pipe(from: impl Read + 'static, reader: &LineReader, to: &Inlet) -> io::Result<()> {
    let mut lines = Logs::new(from);
    let mut unwrapper = Unwrapper::default();
    let (mut batch, mut bytes) = (Batch::default(), 0);
    loop {
        let item = match lines.next_line()? {
            None => break,
            Some(LogLine::TooLong) => Some(Item::Counted("too_long")),
            Some(LogLine::Text(text)) => {
                bytes += text.len();
                unwrapper.unwrap(&text).map(|line| reader.read(&line))
            }
        };
        batch.items.extend(item);
        let is_full = batch.items.len() >= MAX_BATCH_LINES || bytes >= MAX_BATCH_BYTES;
        if !batch.items.is_empty() && (is_full || !lines.has_line()) {
            let batch = std::mem::take(&mut batch);
            bytes = 0;
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
