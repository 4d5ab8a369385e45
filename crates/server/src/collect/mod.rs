//! What collects audit lines: files that are followed, standard input, and Envoy's access log service.
//!
//! Each source reads by itself and sends what it took to one writer. The way there has room for a few batches, so a
//! source waits when the writer is behind, and nothing grows.

mod files;
mod follow;
mod lines;
mod pipe;
mod writer;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use files::FileError;
pub use follow::Follower;
pub use lines::LineReader;
pub use pipe::read_pipe;
pub use writer::{Inlet, Writer, inlet};

/// The most lines of a batch.
const MAX_BATCH_LINES: usize = 1000;

/// The bytes of lines after which a batch ends: lines can be a thousand times as long as usual.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// The time that has passed is told by this clock.
#[expect(clippy::disallowed_methods, reason = "the edge where the collector reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The time, Unix seconds.
#[expect(clippy::disallowed_methods, reason = "the edge where the collector reads the clock")]
fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
