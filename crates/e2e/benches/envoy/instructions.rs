//! How many instructions a request takes: each case in an Envoy of its own.
//!
//! Instructions hardly depend on what else the machine does, so there is nothing to repeat.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use crate::callgrind::{Callgrind, Dump};
use crate::cases::{Ask, Case, Credential, Proxy};
use crate::functions::{self, Names};
use crate::groups;
use crate::keys::Issuer;
use crate::provider::Provider;
use crate::proxy;
use crate::start::wait_until_idle;
use crate::supply::Supply;
use crate::support::{Connection, Envoy, Request, Response};
use crate::table::Table;
use crate::tally::Tally;

/// After this many requests V8 has found out what to compile with care; 20 000 give the same counts.
const WARM_UP: usize = 3000;

/// So many cases at a time. One does not disturb the other, since no time is measured.
const AT_A_TIME: usize = 2;

/// Then it has done so, and these meet the new code.
const SETTLE: usize = 200;

/// Until callgrind has seen all code that there is.
const FIRST_COUNTED: usize = 100;

/// Counted.
const REQUESTS: u32 = 1000;

/// How often the client goes on waiting where it gave up otherwise: callgrind makes Envoy slow.
const LONG_WAITS: usize = 20;

/// A client on one connection.
struct Client<'a> {
    supply: Supply<'a>,
    connection: Connection,
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
) -> Result<Vec<Tally>, String> {
    let provider = Provider::start();
    let group = groups::one_worker(issuer, &provider, wanted);
    let group = group.ok_or_else(|| format!("no case of one worker has `{wanted}` in its id"))?;
    let plan = group.proxies.first().ok_or("the cases have no proxy")?;
    let (order, next) = (longest_first(&group.cases), AtomicUsize::new(0));
    let some = || {
        let mut tallies = Vec::new();
        while let Some((begun, (number, case))) = take(&next, &order) {
            say(&format!("{} of {}, {}", begun + 1, order.len(), case.id));
            let tally = tally(issuer, plan, case);
            if tally.is_err() {
                next.store(order.len(), Ordering::Relaxed);
            }
            tallies.push((number, tally));
        }
        tallies
    };
    let tallies: BTreeMap<_, _> = thread::scope(|scope| {
        let threads = [(); AT_A_TIME].map(|()| scope.spawn(some));
        let join =
            |thread: ScopedJoinHandle<'_, _>| thread.join().expect("counting does not panic");
        threads.map(join).into_iter().flatten().collect()
    });
    let tallies: Result<_, String> = tallies.into_values().collect();
    let tallies: Vec<_> = tallies?;
    provider.check(&group).map(|()| tallies)
}

/// Counts one case, and says which functions of the module its instructions are in.
///
/// # Errors
///
/// As [`measure`], and when the names of the functions cannot be read.
pub(crate) fn profile(issuer: &Issuer, id: &str, module: &Path) -> Result<Table, String> {
    let names = Names::of_module(module)?;
    let provider = Provider::start();
    let group = groups::one_worker(issuer, &provider, id);
    let case = group.as_ref().and_then(|group| group.cases.iter().find(|case| case.id == id));
    let (case, plan) = case
        .zip(group.as_ref().and_then(|group| group.proxies.first()))
        .ok_or_else(|| format!("no case of one worker is called `{id}`"))?;
    let dump = count(issuer, &only(plan, case), case)?;
    eprintln!("TOTAL {:?}", dump.count);
    Ok(functions::table(&dump, &names, REQUESTS))
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

fn tally(issuer: &Issuer, plan: &Proxy, case: &Case) -> Result<Tally, String> {
    let dump = count(issuer, &only(plan, case), case);
    let count = dump.map_err(|error| format!("{}: {error}", case.id))?.count;
    let Case { id, title, base, noop, .. } = *case;
    Ok(Tally { id, title, base, noop, requests: REQUESTS, count })
}

/// The proxy with the listener of that case.
fn only(plan: &Proxy, case: &Case) -> Proxy {
    let listeners = plan.listeners.iter().filter(|(name, _)| *name == case.listener);
    // Callgrind runs one thread at a time, so one core would do.
    Proxy { workers: plan.workers, cpus: "0,1", listeners: listeners.cloned().collect() }
}

/// Shows that the case does what it is for, and counts its requests.
fn count(issuer: &Issuer, plan: &Proxy, case: &Case) -> Result<Dump, String> {
    let callgrind = Callgrind::new();
    let command = callgrind.command();
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let envoy = proxy::start_under(&command, plan, &issuer.secret)?;
    let mut client = Client::new(issuer, &envoy, case);
    for (ask, status) in &case.checks {
        client.send(ask, *status)?;
    }
    client.repeat(case, warm_up(case))?;
    wait_until_idle(envoy.pid())?;
    client.repeat(case, SETTLE)?;
    callgrind.start(envoy.pid())?;
    client.repeat(case, FIRST_COUNTED)?;
    callgrind.zero(envoy.pid())?;
    client.repeat(case, REQUESTS as usize)?;
    callgrind.read(envoy.pid())
}

/// Each key of a limited number is shown once.
fn warm_up(case: &Case) -> usize {
    match case.request.credential {
        Credential::Many(count) => count.max(WARM_UP),
        _ => WARM_UP,
    }
}

// === impl Client ===

impl<'a> Client<'a> {
    fn new(issuer: &'a Issuer, envoy: &Envoy, case: &Case) -> Self {
        let connection = Connection::open(envoy.listener(case.listener));
        Self { supply: Supply::new(issuer), connection }
    }

    /// One request, whose answer must have that status.
    fn send(&mut self, ask: &Ask, expected: u16) -> Result<(), String> {
        let request = self.supply.request(ask);
        let answer = self.answer(&request).map_err(|error| error.to_string())?;
        if answer.status == expected {
            return Ok(());
        }
        let (path, status, text) = (ask.path, answer.status, answer.text());
        Err(format!("{path} is answered with {status} and not {expected}: {text}"))
    }

    /// The first answer waits until the worker has made its VM.
    fn answer(&mut self, request: &Request) -> io::Result<Response> {
        let mut answer = self.connection.try_send(request);
        for _ in 0..LONG_WAITS {
            match answer {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    answer = self.connection.read_response();
                }
                answer => return answer,
            }
        }
        answer
    }

    fn repeat(&mut self, case: &Case, times: usize) -> Result<(), String> {
        (0..times).try_for_each(|_| self.send(&case.request, case.expected))
    }
}
