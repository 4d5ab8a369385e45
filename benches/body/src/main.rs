//! `bench-body`: how fast bodies are read natively, in MB/s, one line for each kind.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark has a clock, and prints"
)]

use std::time::{Duration, Instant};

use vkey_bench_body::{Job, prepare, run};

/// How long each kind is read. The fastest reading counts, because what slows another down is the machine.
const DURATION: Duration = Duration::from_secs(1);

fn main() {
    for (index, job) in Job::ALL.into_iter().enumerate() {
        println!("{job:?} {:.0}", megabytes_per_sec(index));
    }
}

#[allow(clippy::cast_precision_loss, reason = "a speed is not exact")]
fn megabytes_per_sec(job: usize) -> f64 {
    let len = prepare(job);
    let begun = Instant::now();
    let mut fastest = Duration::MAX;
    while begun.elapsed() < DURATION {
        let started = Instant::now();
        assert_eq!(run(job, 1), 1, "{:?} cannot be read", Job::ALL.get(job));
        fastest = fastest.min(started.elapsed());
    }
    len as f64 / fastest.as_secs_f64() / 1e6
}
