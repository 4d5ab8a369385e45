//! Reads bodies of different kinds, for `make bench-body`. The module of the same code is built like that of the gate.

pub mod bodies;
mod jobs;

pub use jobs::Job;

use std::sync::OnceLock;

static BODIES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();

/// Makes the body of a job, and returns its length in bytes.
#[allow(unsafe_code, reason = "a function that Node calls has a name of its own")]
#[unsafe(no_mangle)]
pub extern "C" fn prepare(job: usize) -> usize {
    body(job).len()
}

/// Reads the body of a job that many times. Returns how often it could be read.
#[allow(unsafe_code, reason = "a function that Node calls has a name of its own")]
#[unsafe(no_mangle)]
pub extern "C" fn run(job: usize, times: usize) -> usize {
    let Some(kind) = Job::ALL.get(job) else { return 0 };
    let body = body(job);
    (0..times).filter(|_| kind.run(body)).count()
}

fn body(job: usize) -> &'static [u8] {
    let bodies = BODIES.get_or_init(|| Job::ALL.iter().map(|job| job.body()).collect());
    bodies.get(job).map(Vec::as_slice).unwrap_or_default()
}
