//! `bench-body`: how fast bodies are read natively, in MB/s, one line for each kind. `bench-body names` prints the kinds.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark has a clock, and prints what it says"
)]

use std::time::{Duration, Instant};

use vkey_bench_body::{Job, prepare, run};

/// How long a kind is measured each time, and how often. The fastest counts: all else is the machine.
const ROUND: Duration = Duration::from_millis(100);
const ROUNDS: usize = 7;

fn main() {
    let is_names = std::env::args().nth(1).is_some_and(|argument| argument == "names");
    for (index, job) in Job::ALL.into_iter().enumerate() {
        if is_names {
            println!("{job:?}");
        } else {
            println!("{job:?} {:.0}", megabytes_per_sec(index));
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a speed is not exact")]
fn megabytes_per_sec(job: usize) -> f64 {
    let len = prepare(job);
    assert_eq!(run(job, 1), 1, "{:?} cannot be read", Job::ALL.get(job));
    let speed = |_| {
        let started = Instant::now();
        let mut bytes = 0;
        while started.elapsed() < ROUND {
            bytes += len * run(job, 1);
        }
        bytes as f64 / started.elapsed().as_secs_f64() / 1e6
    };
    (0..ROUNDS).map(speed).fold(0.0, f64::max)
}
