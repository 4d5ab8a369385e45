//! What collects audit lines: files that are followed, standard input, and Envoy's access log service.
//!
//! Each source reads by itself and sends what it took to one writer. The way there has room for a few batches, so a
//! source waits when the writer is behind, and nothing grows.

mod access_log_service;
mod files;
mod follow;
mod lines;
mod pipe;
mod writer;

pub use access_log_service::access_log_service;
pub use files::FileError;
pub use follow::Follower;
pub use lines::LineReader;
pub use pipe::read_pipe;
pub use writer::{Inlet, Writer, inlet};

/// The most lines of a batch.
const MAX_BATCH_LINES: usize = 1000;

/// The bytes of lines after which a batch ends: lines can be a thousand times as long as usual.
const MAX_BATCH_BYTES: usize = 1 << 20;
