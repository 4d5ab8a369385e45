//! Accounts in a Redis, which several servers may share.
//!
//! Each account is one value, `vkey:ledger:{NAME}:WINDOW`. What one name has is changed together, and only if nobody has
//! changed it since it was read: each change gives the name another version. The braces keep what belongs to a name on one
//! node (Redis cluster specification, "Hash tags").

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, Connection, ConnectionLike as _, IntoConnectionInfo as _, Pipeline, RedisResult,
    TlsCertificates,
};

use crate::certificates::certificates;
use crate::ledger::RedisOptions;
use crate::ledger::account::Account;
use crate::ledger::book::{Book, Source, Taken};
use crate::ledger::error::LedgerError;
use crate::ledger::orders::{Posted, first_kept, kept_until_secs};
use crate::ledger::scarcity::{MAX_SCARCE, SCARCE_FOR};

use super::{MAX_NAMES, Store, all, read, write};

/// How long the Redis may take for a connection, and for each read and write.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often accounts are read again because another server has changed them. Of servers that meet, one gets through.
const MAX_ROUNDS: u64 = 48;

/// The longest pause between two of these rounds, in milliseconds.
const MAX_PAUSE_MS: u64 = 8;

/// The windows after that of an order for which a name may have an account.
const AHEAD: u32 = 2;

/// The names of the accounts that are scarce, each with the time of the Redis, in milliseconds.
const SCARCE_KEY: &str = "vkey:ledger:scarce";

/// Writes accounts of a name, if its version is the one that was read.
/// KEYS: the version, the windows, the accounts. ARGV: the version that was read, the new one, when both may be forgotten;
/// then for each account its window, its text, and when it may be forgotten. 0 is never.
const CHANGE: &str = "
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
local function keep(key, secs)
  if secs ~= '0' then redis.call('EXPIREAT', key, secs) end
end
for i = 3, #KEYS do
  local at = 4 + (i - 3) * 3
  redis.call('SET', KEYS[i], ARGV[at + 1])
  keep(KEYS[i], ARGV[at + 2])
  redis.call('ZADD', KEYS[2], ARGV[at], ARGV[at])
end
redis.call('SET', KEYS[1], ARGV[2])
keep(KEYS[1], ARGV[3])
keep(KEYS[2], ARGV[3])
return 1";

/// Adds scarce accounts, and returns all. ARGV: for how long they are, in milliseconds; how many are returned; the names.
const EXCHANGE: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now, ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[1])
return redis.call('ZREVRANGE', KEYS[1], 0, ARGV[2] - 1)";

/// A ledger in a Redis.
pub(in crate::ledger) struct Redis {
    client: Client,
    connection: Option<Connection>,
}

/// Which orders are for each name.
type Names = BTreeMap<String, Vec<usize>>;

/// What becomes of the orders for one name.
struct Draft {
    name: String,
    version: String,
    book: Book,
    taken: Vec<(usize, Result<Taken, LedgerError>)>,
}

// === impl Redis ===

impl Redis {
    /// Opens a ledger. The Redis must be there.
    pub(in crate::ledger) fn open(options: &RedisOptions) -> Result<Self, LedgerError> {
        let mut redis = Self { client: client(options)?, connection: None };
        redis.ask(|connection| redis::cmd("PING").exec(connection).map_err(LedgerError::from))?;
        Ok(redis)
    }

    /// Does something that can be repeated. A connection that was closed meanwhile is replaced once.
    fn ask<T>(
        &mut self,
        mut question: impl FnMut(&mut Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        if let Some(mut connection) = self.connection.take() {
            match question(&mut connection) {
                Err(LedgerError::Unreachable(_)) if !connection.is_open() => {}
                answered => return self.keep(connection, answered),
            }
        }
        let mut connection = self.connect()?;
        let answered = question(&mut connection);
        self.keep(connection, answered)
    }

    /// Keeps a connection, unless its next response may be to an earlier question.
    fn keep<T>(
        &mut self,
        connection: Connection,
        answered: Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        if !matches!(answered, Err(LedgerError::Unreachable(_) | LedgerError::Redis(_))) {
            self.connection = Some(connection);
        }
        answered
    }

    fn connect(&self) -> Result<Connection, LedgerError> {
        let connection = self.client.get_connection_with_timeout(TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        Ok(connection)
    }

    fn try_take(
        &mut self,
        orders: &[Posted],
        now_secs: u64,
    ) -> Result<Vec<Result<Taken, LedgerError>>, LedgerError> {
        let mut taken = all(orders, &LedgerError::Contended);
        let mut names = Names::new();
        for (index, posted) in orders.iter().enumerate() {
            names.entry(posted.account.to_string()).or_default().push(index);
        }
        for number in 0..MAX_ROUNDS {
            if names.is_empty() {
                break;
            }
            pause(number)?;
            let done = self.ask(|connection| round(connection, orders, &names, now_secs))?;
            for draft in done {
                names.remove(&draft.name);
                for (index, result) in draft.taken {
                    if let Some(place) = taken.get_mut(index) {
                        *place = result;
                    }
                }
            }
        }
        Ok(taken)
    }
}

impl Store for Redis {
    fn take(&mut self, orders: &[Posted], now_secs: u64) -> Vec<Result<Taken, LedgerError>> {
        if orders.is_empty() {
            return Vec::new();
        }
        self.try_take(orders, now_secs).unwrap_or_else(|error| all(orders, &error))
    }

    fn exchange(&mut self, scarce: &[String]) -> Result<Vec<String>, LedgerError> {
        let millis = u64::try_from(SCARCE_FOR.as_millis()).unwrap_or(u64::MAX);
        self.ask(|connection| {
            let mut script = redis::cmd("EVAL");
            script.arg(EXCHANGE).arg(1).arg(SCARCE_KEY).arg(millis).arg(MAX_SCARCE).arg(scarce);
            Ok(script.query(connection)?)
        })
    }

    fn accounts(&mut self, of: &[(String, u32)]) -> Result<Vec<Option<Account>>, LedgerError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for (name, window) in of {
            pipe.cmd("GET").arg(account_key(name, *window));
        }
        let texts = self.ask(|connection| Ok(pipe.query::<Vec<Option<String>>>(connection)?))?;
        let accounts = of
            .iter()
            .zip(texts)
            .map(|((name, _), text)| text.map(|text| read(name, &text)).transpose());
        accounts.collect()
    }

    fn names(&mut self, tenant: &str, now_secs: u64) -> Result<Vec<String>, LedgerError> {
        self.ask(|connection| {
            let mut range = redis::cmd("ZRANGEBYSCORE");
            range.arg(names_key(tenant)).arg(now_secs).arg("+inf");
            range.arg("LIMIT").arg(0).arg(2 * MAX_NAMES);
            Ok(range.query(connection)?)
        })
    }

    fn prune(&mut self, _: u64) -> Result<(), LedgerError> {
        // Each account has its own time to live.
        Ok(())
    }
}

/// The client of a URL.
fn client(options: &RedisOptions) -> Result<Client, LedgerError> {
    let url = redis::parse_redis_url(&options.url).ok_or(LedgerError::Url)?;
    let is_encrypted = match url.scheme() {
        "rediss" => true,
        "redis" => false,
        _ => return Err(LedgerError::Url),
    };
    if url.fragment().is_some() {
        return Err(LedgerError::Url);
    }
    let host = url.host_str().ok_or(LedgerError::Url)?;
    if !is_encrypted && !is_loopback(host) && !options.allow_cleartext {
        return Err(LedgerError::Cleartext);
    }
    let info = url.into_connection_info().map_err(|_| LedgerError::Url)?;
    // A long command must not wait for a confirmation of its first part.
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    if !is_encrypted {
        return Client::open(info).map_err(|_| LedgerError::Url);
    }
    if options.authorities.as_deref().is_some_and(|pem| certificates(pem).is_none()) {
        return Err(LedgerError::Authorities);
    }
    // Another part of the process may have done it.
    _ = rustls::crypto::ring::default_provider().install_default();
    let root_cert = options.authorities.clone();
    let client = Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert });
    client.map_err(|_| LedgerError::Authorities)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
}

/// Takes the orders for some names. Returns those that are written; the others were changed meanwhile.
fn round(
    connection: &mut Connection,
    orders: &[Posted],
    names: &Names,
    now_secs: u64,
) -> Result<Vec<Draft>, LedgerError> {
    let drafts = drafts(connection, orders, names, now_secs)?;
    let mut pipe = redis::pipe();
    let mut is_written = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        is_written.push(draft.add_to(&mut pipe, now_secs)?);
    }
    let replies: Vec<u8> =
        if is_written.contains(&true) { pipe.query(connection)? } else { Vec::new() };
    let mut replies = replies.into_iter();
    let drafts = drafts.into_iter().zip(is_written);
    let done = drafts.filter(|(_, is_written)| !is_written || replies.next() == Some(1));
    Ok(done.map(|(draft, _)| draft).collect())
}

/// Reads the accounts of some names, and takes the orders for them.
fn drafts(
    connection: &mut Connection,
    orders: &[Posted],
    names: &Names,
    now_secs: u64,
) -> Result<Vec<Draft>, LedgerError> {
    let windows_of = |indices: &[usize]| -> BTreeSet<u32> {
        indices
            .iter()
            .filter_map(|index| orders.get(*index))
            .map(|posted| posted.order.window)
            .collect()
    };
    let mut pipe = redis::pipe();
    for (name, indices) in names {
        // The version first: what is changed after it is noticed.
        pipe.cmd("GET").arg(version_key(name));
        for window in windows_of(indices) {
            pipe.cmd("GET").arg(account_key(name, window));
        }
    }
    let mut texts = pipe.query::<Vec<Option<String>>>(connection)?.into_iter();
    let mut drafts = Vec::with_capacity(names.len());
    for (name, indices) in names {
        let version = texts.next().flatten().unwrap_or_default();
        let known = windows_of(indices).into_iter().map(|window| (window, texts.next().flatten()));
        let mut values = Values { connection, known: known.collect() };
        let (mut book, mut taken) = (Book::default(), Vec::new());
        for index in indices {
            let Some(posted) = orders.get(*index) else { continue };
            match book.take(&mut values, posted, now_secs) {
                result @ (Ok(_) | Err(LedgerError::Damaged(_))) => taken.push((*index, result)),
                Err(error) => return Err(error),
            }
        }
        drafts.push(Draft { name: name.clone(), version, book, taken });
    }
    Ok(drafts)
}

// === impl Draft ===

impl Draft {
    /// Adds the command that writes it. Returns whether there is one.
    fn add_to(&self, pipe: &mut Pipeline, now_secs: u64) -> Result<bool, LedgerError> {
        let changed: Vec<_> = self.book.changed().collect();
        let Some((_, last, page)) = changed.last() else { return Ok(false) };
        let last = page.per.window(now_secs).max(*last).saturating_add(AHEAD);
        let until = kept_until_secs(page.per, last);
        if changed.iter().any(|(_, _, page)| page.is_new) {
            let tenant = self.name.split('/').nth(1).unwrap_or_default();
            let names = names_key(tenant);
            let score = until.map_or_else(|| "+inf".to_owned(), |secs| secs.to_string());
            pipe.cmd("ZADD").arg(&names).arg(score).arg(&self.name).ignore();
            pipe.cmd("ZREMRANGEBYSCORE").arg(&names).arg("-inf").arg(now_secs).ignore();
            if let Some(first) = first_kept(page.per, now_secs) {
                let forgotten = pipe.cmd("ZREMRANGEBYSCORE").arg(windows_key(&self.name));
                forgotten.arg("-inf").arg(format!("({first}")).ignore();
            }
        }
        pipe.cmd("EVAL").arg(CHANGE).arg(changed.len().saturating_add(2));
        pipe.arg(version_key(&self.name)).arg(windows_key(&self.name));
        for (name, window, _) in &changed {
            pipe.arg(account_key(name, *window));
        }
        pipe.arg(&self.version).arg(new_version()?).arg(until.unwrap_or(0));
        for (name, window, page) in &changed {
            let until = kept_until_secs(page.per, *window).unwrap_or(0);
            pipe.arg(*window).arg(write(name, &page.account)?).arg(until);
        }
        Ok(true)
    }
}

fn new_version() -> Result<String, LedgerError> {
    Ok(format!("{:016x}", random()?))
}

/// Waits before a round, for a random time, so that servers do not meet again and again.
fn pause(round: u64) -> Result<(), LedgerError> {
    if let longest @ 1.. = round.min(MAX_PAUSE_MS) {
        thread::sleep(Duration::from_micros(random()? % (longest * 1000)));
    }
    Ok(())
}

fn random() -> Result<u64, LedgerError> {
    getrandom::u64().map_err(|error| LedgerError::System(error.to_string()))
}

fn version_key(name: &str) -> String {
    format!("vkey:ledger:{{{name}}}:version")
}

fn windows_key(name: &str) -> String {
    format!("vkey:ledger:{{{name}}}:windows")
}

fn account_key(name: &str, window: u32) -> String {
    format!("vkey:ledger:{{{name}}}:{window}")
}

fn names_key(tenant: &str) -> String {
    format!("vkey:ledger:names:{tenant}")
}

/// The values of one name.
struct Values<'a> {
    connection: &'a mut Connection,
    /// Those that were read with the version.
    known: BTreeMap<u32, Option<String>>,
}

impl Values<'_> {
    fn window(
        &mut self,
        command: &str,
        name: &str,
        from: &str,
        to: &str,
    ) -> RedisResult<Option<u32>> {
        let mut range = redis::cmd(command);
        range.arg(windows_key(name)).arg(from).arg(to).arg("LIMIT").arg(0).arg(1);
        Ok(range.query::<Vec<u32>>(self.connection)?.first().copied())
    }
}

impl Source for Values<'_> {
    fn account(&mut self, name: &str, window: u32) -> Result<Option<Account>, LedgerError> {
        let text = match self.known.get(&window) {
            Some(text) => text.clone(),
            None => redis::cmd("GET").arg(account_key(name, window)).query(self.connection)?,
        };
        text.map(|text| read(name, &text)).transpose()
    }

    fn earlier(&mut self, name: &str, window: u32) -> Result<Option<u32>, LedgerError> {
        Ok(self.window("ZREVRANGEBYSCORE", name, &format!("({window}"), "-inf")?)
    }

    fn later(&mut self, name: &str, window: u32) -> Result<Option<u32>, LedgerError> {
        Ok(self.window("ZRANGEBYSCORE", name, &format!("({window}"), "+inf")?)
    }
}
