//! `vkey run`: evaluates requests, given as JSON lines, with the module itself.

use std::io::{BufReader, Stdin, stdin};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use vkey::host::Level;
use vkey_vm::{BuiltIn, Worker};

use super::embedded::{EmbeddedHost, HostArgs, LogLevel, show_log};
use super::error::Error;
use super::exit::Exit;
use super::input::{InputProblem, Place};
use super::lines::{Line, Lines};
use super::output::Output;
use super::ring_secret::RingEnvironment;
use super::time::Stopwatch;

#[cfg(test)]
mod agreement;
mod body;
mod evaluator;
mod fields;
mod line_result;
mod request;

use evaluator::Evaluator;
use line_result::{LineResult, Summary};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    host: HostArgs,
    /// How many VMs share the requests, round-robin, with one shared data store
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// The longest line in bytes
    #[arg(long, value_name = "BYTES", default_value = "1048576", value_parser = clap::value_parser!(u32).range(1..))]
    max_line_bytes: u32,
    /// The lowest level of the module's log that goes to standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warn)]
    log_level: LogLevel,
}

/// How many lines may wait for a worker, and how many results for the reader. Beyond that, reading stops.
const WAITING: usize = 16;

/// A line, and its number from 1.
type Numbered = (u64, Line);

/// The result of a line. An error ends the run.
type EvaluatedLine = Result<LineResult, Error>;

/// Runs `vkey run`.
pub(super) fn run(args: &Args, modules: BuiltIn, out: &mut Output) -> Result<Exit, Error> {
    let starting = Stopwatch::start();
    let config = args.host.read_config()?;
    let host = Arc::new(args.host.load(modules, config, |_| Ok(RingEnvironment::of_process()))?);
    let mut workers = (0..args.workers).map(|_| host.worker()).collect::<Result<Vec<_>, _>>()?;
    let log = workers.first_mut().map(Worker::take_log).unwrap_or_default();
    let least = args.log_level.into();
    show_log(&log, least, out);
    out.note(format_args!("ready in {:.1?}, workers: {}", starting.elapsed(), workers.len()));
    let (lines, results): (Vec<_>, Vec<_>) =
        workers.into_iter().map(|worker| spawn(&host, worker, args.max_line_bytes)).unzip();
    let max_bytes = usize::try_from(args.max_line_bytes).unwrap_or(usize::MAX);
    let reader = Lines::new(BufReader::with_capacity(64 * 1024, stdin()), max_bytes);
    let reader = thread::spawn(move || hand_out(reader, &lines));
    let summary = collect(&results, least, out)?;
    if out.is_closed() {
        // Nobody reads the remaining results, and the input may never end.
        return Ok(summary.exit());
    }
    if let Ok(Err(error)) = reader.join() {
        return Err(Place::Stdin.error(InputProblem::Io(error)).into());
    }
    out.note(format_args!("{summary} in {:.1?}", starting.elapsed()));
    Ok(summary.exit())
}

/// Starts a worker's thread. Returns its input and output channels.
fn spawn(
    host: &Arc<EmbeddedHost>,
    worker: Worker,
    max_line_bytes: u32,
) -> (SyncSender<Numbered>, Receiver<EvaluatedLine>) {
    let (line_sender, line_receiver) = sync_channel::<Numbered>(WAITING);
    let (sender, receiver) = sync_channel(WAITING);
    let mut evaluator = Evaluator::new(Arc::clone(host), worker, max_line_bytes);
    thread::spawn(move || {
        for (number, line) in line_receiver {
            if sender.send(evaluator.evaluate(number, line)).is_err() {
                break;
            }
        }
    });
    (line_sender, receiver)
}

/// Distributes lines round-robin, so that taking results round-robin restores their order.
fn hand_out(
    mut lines: Lines<BufReader<Stdin>>,
    workers: &[SyncSender<Numbered>],
) -> std::io::Result<()> {
    let mut turns = workers.iter().cycle();
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        if matches!(&line, Line::Whole(line) if line.trim_ascii().is_empty()) {
            continue;
        }
        let taken = turns.next().map(|worker| worker.send((number, line)));
        if !matches!(taken, Some(Ok(()))) {
            break;
        }
    }
    Ok(())
}

/// Takes results round-robin and writes them, until there are no more or nobody reads them.
fn collect(
    results: &[Receiver<EvaluatedLine>],
    least: Level,
    out: &mut Output,
) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    for worker in results.iter().cycle() {
        let line = match worker.try_recv() {
            Err(TryRecvError::Empty) => {
                // Flush before waiting, so that the reader has everything.
                out.finish()?;
                worker.recv().ok()
            }
            line => line.ok(),
        };
        let Some(line) = line else {
            break;
        };
        let result = line?;
        show_log(&result.log, least, out);
        out.line(&result.text)?;
        summary.add(result.outcome);
        if out.is_closed() {
            break;
        }
    }
    out.finish()?;
    Ok(summary)
}
