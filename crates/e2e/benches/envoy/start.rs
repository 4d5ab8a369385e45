//! What a module takes before the first request: time to start, and memory.

use std::iter;
use std::thread;
use std::time::{Duration, Instant};

use crate::cases::Proxy;
use crate::filters::{Chain, Gate};
use crate::process::{cpu_ns, resident_bytes};
use crate::proxy;
use crate::stats::Spread;
use crate::support::{Connection, Envoy, Request};

/// The workers with which memory is compared: what they have more is four times one worker's.
const MANY_WORKERS: u32 = 5;

/// So many that the kernel gives some of them to each worker.
const CONNECTIONS: usize = 64;

/// A process is idle that uses less CPU time than this in that time.
const IDLE_NS: u64 = 5_000_000;
const WATCHED: Duration = Duration::from_millis(200);
const WATCHES: usize = 300;

const LISTENER: &str = "only";

/// What Envoy takes with a module, or without one.
pub(crate) struct Start {
    pub(crate) title: &'static str,
    /// From the start of the process until its listeners are open, with one worker.
    pub(crate) ms: Spread,
    /// What of it is the module's; `None` without one.
    pub(crate) added_ms: Option<f64>,
    /// Memory with one worker.
    pub(crate) mib: Spread,
    /// Memory that the module takes in each worker; `None` without one.
    pub(crate) worker_mib: Option<f64>,
}

/// What one kind of Envoy took each time.
struct Taken {
    title: &'static str,
    ms: Vec<f64>,
    mib: Vec<f64>,
    many_mib: Vec<f64>,
}

impl Taken {
    fn new(title: &'static str) -> Self {
        Self { title, ms: Vec::new(), mib: Vec::new(), many_mib: Vec::new() }
    }

    /// The memory of each worker but the first.
    fn worker_mib(&self) -> Option<f64> {
        let more = Spread::of(&self.many_mib)?.median - Spread::of(&self.mib)?.median;
        Some(more / f64::from(MANY_WORKERS - 1))
    }
}

/// Starts Envoys with no module, with the one that does nothing and with the gate, by turns.
///
/// # Errors
///
/// When an Envoy does not serve.
pub(crate) fn measure(
    secret: &str,
    times: usize,
    say: impl Fn(&str),
) -> Result<Vec<Start>, String> {
    let kinds = [
        ("no module", Chain::bare()),
        ("no-op module on the SDK", Chain::noop("noop")),
        ("vkey, everything on", Chain::gate(Gate::Everything, "gate")),
    ];
    let mut taken: Vec<_> = kinds.iter().map(|(title, _)| Taken::new(title)).collect();
    for time in 1..=times {
        for (taken, (title, chain)) in taken.iter_mut().zip(&kinds) {
            say(&format!("round {time} of {times}, {title}"));
            let (ms, mib) = take(chain, 1, secret)?;
            taken.ms.push(ms);
            taken.mib.push(mib);
            let (_, mib) = take(chain, MANY_WORKERS, secret)?;
            taken.many_mib.push(mib);
        }
    }
    compare(&taken).ok_or_else(|| "nothing was started".to_owned())
}

/// Starts an Envoy: how long it takes, and how much memory it has when it is done with that.
fn take(chain: &Chain, workers: u32, secret: &str) -> Result<(f64, f64), String> {
    let plan = Proxy { workers, cpus: "0,1", listeners: vec![(LISTENER, chain.clone())] };
    let start = Instant::now();
    let envoy = proxy::start(&plan, secret)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    reach_all_workers(&envoy)?;
    wait_until_idle(envoy.pid())?;
    let bytes = resident_bytes(envoy.pid()).map_err(|error| error.to_string())?;
    Ok((ms, as_mib(bytes)))
}

/// A worker makes its VM after the listeners are open. One request on each of many connections comes
/// to each worker, which answers when it is done.
fn reach_all_workers(envoy: &Envoy) -> Result<(), String> {
    let open = || Connection::open(envoy.listener(LISTENER));
    let mut connections: Vec<_> = iter::repeat_with(open).take(CONNECTIONS).collect();
    for connection in &mut connections {
        let sent = connection.try_send(&Request::new("GET", "/v1/models"));
        sent.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Code goes on being compiled in the background for a while, in memory that is freed afterwards.
///
/// # Errors
///
/// When the process is gone, or busy for a minute.
pub(crate) fn wait_until_idle(pid: u32) -> Result<(), String> {
    let mut before = 0;
    for _ in 0..WATCHES {
        let now = cpu_ns(pid).map_err(|error| error.to_string())?;
        if now - before < IDLE_NS {
            return Ok(());
        }
        before = now;
        thread::sleep(WATCHED);
    }
    Err("Envoy without a request is still busy after a minute".to_owned())
}

/// The first is that without a module.
fn compare(taken: &[Taken]) -> Option<Vec<Start>> {
    let none = taken.first()?;
    let starts = taken.iter().enumerate().map(|(number, taken)| {
        let [ms, none_ms] = [Spread::of(&taken.ms)?, Spread::of(&none.ms)?];
        let worker_mib = taken.worker_mib()? - none.worker_mib()?;
        Some(Start {
            title: taken.title,
            ms,
            added_ms: (number > 0).then_some(ms.median - none_ms.median),
            mib: Spread::of(&taken.mib)?,
            worker_mib: (number > 0).then_some(worker_mib),
        })
    });
    starts.collect()
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn as_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
