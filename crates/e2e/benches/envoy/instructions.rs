//! How many instructions a request takes: each case in an Envoy of its own.
//!
//! Instructions hardly depend on what else the machine does, so there is nothing to repeat.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use crate::callgrind::{Callgrind, Dump};
use crate::calls::Server;
use crate::cases::{Ask, Case, Credential, Group, Proxy};
use crate::client::Client;
use crate::functions::{self, Names};
use crate::groups;
use crate::keys::Issuer;
use crate::pieces::{FEW, MANY, Streamed};
use crate::provider::Provider;
use crate::proxy;
use crate::start::wait_until_idle;
use crate::streams::Streams;
use crate::support::Envoy;
use crate::table::Table;
use crate::tally::Tally;

/// After this many requests V8 has found out what to compile with care; 20 000 give the same counts.
const WARM_UP: usize = 3000;

/// How many cases are counted at a time. One does not disturb the other, since no time is measured.
const AT_A_TIME: usize = 2;

/// How many requests are sent.
struct Effort {
    /// After V8 has compiled what it will. These meet the new code.
    settle: usize,
    /// Until callgrind has seen all code that there is.
    first_counted: usize,
    counted: u32,
}

const REQUESTS: Effort = Effort { settle: 200, first_counted: 100, counted: 1000 };

/// A stream of many pieces takes as much as fifty requests.
const STREAMS: Effort = Effort { settle: 50, first_counted: 20, counted: 100 };

/// All that was counted.
pub(crate) struct Counted {
    pub(crate) tallies: Vec<Tally>,
    pub(crate) streamed: Vec<Streamed>,
}

/// An Envoy under callgrind, with one listener, and its client.
struct Run<'a> {
    client: Client<'a>,
    envoy: Envoy,
    callgrind: Callgrind,
    case: &'a Case,
}

/// Where the requests come from and where they go.
struct Peers<'a> {
    issuer: &'a Issuer,
    provider: Provider,
    streams: Streams,
    server: Server,
}

/// Counts the cases that are wanted, and says which one it has begun.
///
/// # Errors
///
/// Names the case and says what was wrong: an answer of another status than wanted, an Envoy that
/// does not serve, a tool that cannot be run. Also when no case is wanted.
pub(crate) fn measure(
    issuer: &Issuer,
    wanted: &str,
    say: impl Fn(&str) + Sync,
) -> Result<Counted, String> {
    let peers = Peers::new(issuer);
    let (requests, streams) = (peers.requests(wanted), peers.streams(wanted));
    if requests.is_none() && streams.is_none() {
        return Err(format!("no case that is counted has `{wanted}` in its id"));
    }
    let tallies = requests.map(|group| {
        let tallies = each(&group, &say, |plan, case| tally(&peers, plan, case))?;
        peers.provider.check(&group).map(|()| tallies)
    });
    let streamed = streams
        .map(|group| each(&group, &say, |plan, case| stream(&peers, plan, case)))
        .transpose()?;
    Ok(Counted {
        tallies: tallies.transpose()?.unwrap_or_default(),
        streamed: streamed.unwrap_or_default(),
    })
}

/// Counts one case, and says which functions of the module its instructions are in. Of streams, that with many pieces.
///
/// # Errors
///
/// As [`measure`], and when the names of the functions cannot be read.
pub(crate) fn profile(issuer: &Issuer, id: &str, module: &Path) -> Result<Table, String> {
    let names = Names::of_module(module)?;
    let peers = Peers::new(issuer);
    let groups: Vec<_> = [peers.requests(id), peers.streams(id)].into_iter().flatten().collect();
    let case = groups.iter().find_map(|group| {
        let case = group.cases.iter().find(|case| case.id == id)?;
        group.proxies.first().map(|plan| (plan, case))
    });
    let (plan, case) = case.ok_or_else(|| format!("no case that is counted is called `{id}`"))?;
    let mut run = Run::start(&peers, plan, case)?;
    let (ask, effort) = match case.request.chat {
        Some(_) => (of_pieces(&case.request, MANY), STREAMS),
        None => (case.request.clone(), REQUESTS),
    };
    let dump = run.count(&ask, &effort)?;
    Ok(functions::table(&dump, &names, effort.counted))
}

/// Does something with each case of a group, some at a time, and gives the results in their order.
fn each<T: Send>(
    group: &Group,
    say: &(impl Fn(&str) + Sync),
    count: impl Fn(&Proxy, &Case) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let plan = group.proxies.first().ok_or("the cases have no proxy")?;
    let (order, next) = (longest_first(&group.cases), AtomicUsize::new(0));
    let some = || {
        let mut results = Vec::new();
        while let Some((begun, (number, case))) = take(&next, &order) {
            say(&format!("{} of {}, {}", begun + 1, order.len(), case.id));
            let result = count(plan, case).map_err(|error| format!("{}: {error}", case.id));
            if result.is_err() {
                next.store(order.len(), Ordering::Relaxed);
            }
            results.push((number, result));
        }
        results
    };
    let results: BTreeMap<_, _> = thread::scope(|scope| {
        let threads = [(); AT_A_TIME].map(|()| scope.spawn(some));
        let join =
            |thread: ScopedJoinHandle<'_, _>| thread.join().expect("counting does not panic");
        threads.map(join).into_iter().flatten().collect()
    });
    results.into_values().collect()
}

/// The cases with their numbers. The one with the most keys begins, so that nothing waits for it at the end.
fn longest_first(cases: &[Case]) -> Vec<(usize, &Case)> {
    let mut order: Vec<_> = cases.iter().enumerate().collect();
    order.sort_by_key(|(_, case)| Reverse(warm_up(case)));
    order
}

/// The next item that no thread has taken, with its number.
fn take<T: Copy>(next: &AtomicUsize, items: &[T]) -> Option<(usize, T)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    items.get(number).map(|item| (number, *item))
}

fn tally(peers: &Peers<'_>, plan: &Proxy, case: &Case) -> Result<Tally, String> {
    let count = Run::start(peers, plan, case)?.count(&case.request, &REQUESTS)?.count;
    let Case { id, title, base, noop, .. } = *case;
    Ok(Tally { id, title, base, noop, requests: REQUESTS.counted, count })
}

fn stream(peers: &Peers<'_>, plan: &Proxy, case: &Case) -> Result<Streamed, String> {
    let mut run = Run::start(peers, plan, case)?;
    let [few, many] = [FEW, MANY].map(|pieces| {
        let count = run.count(&of_pieces(&case.request, pieces), &STREAMS)?.count;
        Ok::<_, String>(per_request(count.all, &STREAMS))
    });
    run.client.check_charge(&case.request)?;
    Ok(Streamed { id: case.id, title: case.title, few: few?, many: many? })
}

/// The same with this number of pieces.
fn of_pieces(ask: &Ask, pieces: u32) -> Ask {
    let mut ask = ask.clone();
    if let Some(chat) = &mut ask.chat {
        chat.pieces = pieces as usize;
    }
    ask
}

#[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
fn per_request(instructions: u64, effort: &Effort) -> f64 {
    instructions as f64 / f64::from(effort.counted)
}

/// The proxy with the listener of that case.
fn only(plan: &Proxy, case: &Case) -> Proxy {
    let listeners = plan.listeners.iter().filter(|(name, _)| *name == case.listener);
    // Callgrind runs one thread at a time, so one core would do.
    Proxy { workers: plan.workers, cpus: "0,1", listeners: listeners.cloned().collect() }
}

/// Each key of a limited number is shown once.
fn warm_up(case: &Case) -> usize {
    match case.request.credential {
        Credential::Many(count) => count.max(WARM_UP),
        _ => WARM_UP,
    }
}

// === impl Peers ===

impl<'a> Peers<'a> {
    fn new(issuer: &'a Issuer) -> Self {
        Self {
            issuer,
            provider: Provider::start(),
            streams: Streams::start(),
            server: Server::start(),
        }
    }

    fn requests(&self, wanted: &str) -> Option<Group> {
        groups::one_worker(self.issuer, &self.provider, &self.server, wanted)
    }

    fn streams(&self, wanted: &str) -> Option<Group> {
        groups::streams(self.issuer, &self.streams).only(wanted)
    }
}

// === impl Run ===

impl<'a> Run<'a> {
    /// Starts it, shows that the case does what it is for, and sends its request until V8 knows it.
    fn start(peers: &'a Peers<'_>, plan: &Proxy, case: &'a Case) -> Result<Self, String> {
        let callgrind = Callgrind::new();
        let command = callgrind.command();
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        let envoy = proxy::start_under(&command, &only(plan, case), &peers.issuer.secret)?;
        let mut client = Client::new(peers.issuer, &peers.streams, &envoy, case);
        for (ask, status) in &case.checks {
            client.send(ask, *status)?;
        }
        client.repeat(&case.request, case.expected, warm_up(case))?;
        Ok(Self { client, envoy, callgrind, case })
    }

    /// Counts requests.
    fn count(&mut self, ask: &Ask, effort: &Effort) -> Result<Dump, String> {
        let Self { client, envoy, callgrind, case } = self;
        let mut repeat = |times| client.repeat(ask, case.expected, times);
        wait_until_idle(envoy.pid())?;
        repeat(effort.settle)?;
        callgrind.start(envoy.pid())?;
        repeat(effort.first_counted)?;
        callgrind.zero(envoy.pid())?;
        repeat(effort.counted as usize)?;
        callgrind.read(envoy.pid())
    }
}
