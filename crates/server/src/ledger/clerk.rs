//! The clerk: a thread that takes the orders of all requests that wait, together, and one that reads accounts.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use vkey::ledger::{AccountName, Owner};
use vkey::limits::lease::Receipt;
use vkey::limits::quota::Period;

use crate::clock::{instant, now_secs};

use super::account::Sums;
use super::book::Taken;
use super::error::LedgerError;
use super::measures::{Counts, LedgerMeasures};
use super::orders::Posted;
use super::scarcity::Scarcity;
use super::store::Store;

/// The most requests that wait.
const MAX_WAITING: usize = 1024;

/// The most orders that are committed together, unless one request has more.
const MAX_TOGETHER: usize = 2048;

/// The most accounts of a listing.
const MAX_LISTED: usize = 1000;

/// How often old accounts are deleted.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// How often a failure that goes on is reported.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Says that the ledger fails.
pub type Report = Box<dyn Fn(&LedgerError) + Send>;

/// The ledger, as the server speaks to it.
#[derive(Clone)]
pub struct Ledger {
    orders: SyncSender<Request>,
    questions: SyncSender<Asked>,
    counts: Counts,
}

/// The receipts of a request, in the order of its orders, and what else its proxy must know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipted {
    /// The receipts.
    pub receipts: Vec<Receipt>,
    /// The accounts of which others want more than the ledger has.
    pub scarce: Vec<String>,
}

/// The sums of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The account.
    pub account: AccountName,
    /// The window.
    pub window: u32,
    /// The sums.
    pub sums: Sums,
}

/// Accounts, and whether there are more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The accounts.
    pub statements: Vec<Statement>,
    /// Whether there are more.
    pub has_more: bool,
}

struct Request {
    orders: Box<[Posted]>,
    reply: oneshot::Sender<Result<Receipted, LedgerError>>,
}

/// Which accounts are asked for.
enum Which {
    One(AccountName, Option<u32>),
    OfTenant(String, Option<String>),
}

struct Asked {
    which: Which,
    reply: oneshot::Sender<Result<Listing, LedgerError>>,
}

// === impl Ledger ===

impl Ledger {
    /// Starts the threads, which end with the last ledger.
    pub(super) fn start(
        writer: impl Store,
        mut reader: impl Store,
        report: Report,
    ) -> Result<Self, LedgerError> {
        let counts = Counts::default();
        let (orders, waiting) = sync_channel(MAX_WAITING);
        let (questions, asked) = sync_channel::<Asked>(MAX_WAITING);
        let mut clerk = Clerk {
            store: writer,
            scarcity: Scarcity::default(),
            counts: counts.clone(),
            failures: Failures { report, reported: None },
            pruned: instant(),
        };
        spawn("ledger", move || clerk.run(&waiting))?;
        spawn("ledger-reader", move || {
            while let Ok(Asked { which, reply }) = asked.recv() {
                // Who asked may have left.
                _ = reply.send(list(&mut reader, which, now_secs()));
            }
        })?;
        Ok(Self { orders, questions, counts })
    }

    /// Takes orders. What is returned is durable.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if the ledger cannot be written. Then some of the orders may be taken, and all can be repeated.
    pub async fn take(&self, orders: Box<[Posted]>) -> Result<Receipted, LedgerError> {
        let (reply, receipted) = oneshot::channel();
        send(&self.orders, Request { orders, reply })?;
        receipted.await.unwrap_or(Err(LedgerError::Ending))
    }

    /// An account, in the present window unless another is named.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if the ledger cannot be read.
    pub async fn account(
        &self,
        name: AccountName,
        window: Option<u32>,
    ) -> Result<Option<Statement>, LedgerError> {
        Ok(self.ask(Which::One(name, window)).await?.statements.pop())
    }

    /// The accounts of a tenant in their present windows: its own and those of its keys, or those of one key.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if the ledger cannot be read.
    pub async fn accounts(
        &self,
        tenant: String,
        jti: Option<String>,
    ) -> Result<Listing, LedgerError> {
        self.ask(Which::OfTenant(tenant, jti)).await
    }

    /// What it has counted since it was opened.
    pub fn measures(&self) -> LedgerMeasures {
        self.counts.get()
    }

    async fn ask(&self, which: Which) -> Result<Listing, LedgerError> {
        let (reply, listing) = oneshot::channel();
        send(&self.questions, Asked { which, reply })?;
        listing.await.unwrap_or(Err(LedgerError::Ending))
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), LedgerError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).map_err(|error| LedgerError::System(error.to_string()))
}

fn send<T>(to: &SyncSender<T>, what: T) -> Result<(), LedgerError> {
    to.try_send(what).map_err(|error| match error {
        TrySendError::Full(_) => LedgerError::Overloaded,
        TrySendError::Disconnected(_) => LedgerError::Ending,
    })
}

/// The receipts of a request. An order that failed has none, unless all failed.
fn receipts(results: Vec<Result<Taken, LedgerError>>) -> Result<Vec<Receipt>, LedgerError> {
    let (mut receipts, mut failed) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(taken) => receipts.push(taken.receipt),
            Err(error) => failed = Some(error),
        }
    }
    failed.filter(|_| receipts.is_empty()).map_or(Ok(receipts), Err)
}

/// Who takes orders.
struct Clerk<S> {
    store: S,
    scarcity: Scarcity,
    counts: Counts,
    failures: Failures,
    pruned: Instant,
}

impl<S: Store> Clerk<S> {
    fn run(&mut self, waiting: &Receiver<Request>) {
        while let Ok(first) = waiting.recv() {
            let mut requests = vec![first];
            let mut count = 0;
            while count < MAX_TOGETHER
                && let Ok(next) = waiting.try_recv()
            {
                count += next.orders.len();
                requests.push(next);
            }
            self.answer(requests);
            if self.pruned.elapsed() >= PRUNE_EVERY {
                self.pruned = instant();
                let pruned = self.store.prune(now_secs());
                self.failures.note(pruned.as_ref().err());
            }
        }
    }

    fn answer(&mut self, requests: Vec<Request>) {
        let orders: Vec<Posted> =
            requests.iter().flat_map(|request| request.orders.iter().cloned()).collect();
        let taken = self.store.take(&orders, now_secs());
        self.failures.note(taken.iter().find_map(|result| result.as_ref().err()));
        for (posted, taken) in orders.iter().zip(&taken) {
            if let Ok(taken) = taken {
                self.count(posted, taken);
            }
        }
        let scarce = self.scarce();
        let mut taken = taken.into_iter();
        for Request { orders, reply } in requests {
            // All of them, also after an error: the next request has its own.
            let results: Vec<_> = taken.by_ref().take(orders.len()).collect();
            let receipted = receipts(results);
            let receipted =
                receipted.map(|receipts| Receipted { receipts, scarce: scarce.clone() });
            if let Err(error) = &receipted {
                self.counts.error(error);
            }
            // Who asked may have left.
            _ = reply.send(receipted);
        }
    }

    fn count(&mut self, posted: &Posted, taken: &Taken) {
        let wants = posted.order.wanted.want > 0;
        self.counts.order(posted.account.unit, wants, taken.granted);
        if taken.is_scarce {
            self.scarcity.add(posted.account.to_string(), instant());
        }
    }

    /// The scarce accounts. If other servers cannot be asked, those of this one.
    fn scarce(&mut self) -> Vec<String> {
        let now = instant();
        if let Some(news) = self.scarcity.news(now) {
            match self.store.exchange(&news) {
                Ok(names) => self.scarcity.hear(names),
                Err(error) => self.failures.note(Some(&error)),
            }
        }
        self.scarcity.names(now)
    }
}

/// Failures of the store, as they are reported: the first at once.
struct Failures {
    report: Report,
    reported: Option<Instant>,
}

impl Failures {
    fn note(&mut self, error: Option<&LedgerError>) {
        let Some(error) = error else { return };
        let is_due = self.reported.is_none_or(|reported| reported.elapsed() >= REPORT_EVERY);
        if is_due {
            self.reported = Some(instant());
            (self.report)(error);
        }
    }
}

fn list(store: &mut impl Store, which: Which, now_secs: u64) -> Result<Listing, LedgerError> {
    let mut names = match which {
        Which::One(name, window) => {
            let window = window.unwrap_or_else(|| name.per.window(now_secs));
            return statements(store, vec![(name, window)]);
        }
        Which::OfTenant(tenant, jti) => names(store, &tenant, jti.as_deref(), now_secs)?,
    };
    names.sort();
    let mut listing = Listing::default();
    // A name may have no account in its present window.
    for some in names.chunks(MAX_LISTED) {
        let found = statements(store, some.to_vec())?.statements;
        listing.statements.extend(found);
        if listing.statements.len() > MAX_LISTED {
            listing.has_more = true;
            listing.statements.truncate(MAX_LISTED);
            break;
        }
    }
    Ok(listing)
}

/// The names of a tenant, each with its present window.
fn names(
    store: &mut impl Store,
    tenant: &str,
    jti: Option<&str>,
    now_secs: u64,
) -> Result<Vec<(AccountName, u32)>, LedgerError> {
    let names = store.names(tenant, now_secs)?;
    let names = names.iter().filter_map(|name| AccountName::parse(name));
    let is_of = |name: &AccountName| match (&name.owner, jti) {
        (Owner::Key { jti, .. }, Some(wanted)) => jti == wanted,
        (Owner::Tenant { .. }, Some(_)) => false,
        (_, None) => true,
    };
    let window = |per: Period| per.window(now_secs);
    Ok(names.filter(is_of).map(|name| (name.clone(), window(name.per))).collect())
}

fn statements(store: &mut impl Store, of: Vec<(AccountName, u32)>) -> Result<Listing, LedgerError> {
    let keys: Vec<_> = of.iter().map(|(name, window)| (name.to_string(), *window)).collect();
    let accounts = store.accounts(&keys)?;
    let found = of.into_iter().zip(accounts).filter_map(|((account, window), found)| {
        Some(Statement { account, window, sums: found?.sums() })
    });
    Ok(Listing { statements: found.collect(), has_more: false })
}
