//! Both stores do the same.

use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;

use rusqlite::Connection;
use tempfile::TempDir;
use zeroize::Zeroizing;

use vkey::ledger::AccountName;
use vkey::limits::lease::{Order, Receipt, Wanted};
use vkey::limits::quota::Period;

use super::redis_server::RedisServer;
use super::{Redis, Sqlite, Store};
use crate::ledger::RedisOptions;
use crate::ledger::account::Sums;
use crate::ledger::book::Taken;
use crate::ledger::error::LedgerError;
use crate::ledger::orders::Posted;

/// The first second of a day, late enough that nothing expires in a test.
const NOW: u64 = 40_000 * 86_400;

const NAME: &str = "tenant/acme/requests/day";

const LIMIT: u64 = 10;

/// What a store is in.
struct Site {
    folder: TempDir,
    redis: Option<RedisServer>,
}

impl Site {
    fn sqlite() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), redis: None }
    }

    fn redis() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = RedisServer::start(folder.path(), &[]);
        Self { folder, redis: Some(redis) }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ledger.db")
    }

    fn open(&self) -> Box<dyn Store> {
        match &self.redis {
            None => Box::new(Sqlite::open(&self.file()).unwrap()),
            Some(redis) => Box::new(Redis::open(&options(&redis.url())).unwrap()),
        }
    }

    /// Makes an account unreadable.
    fn damage(&self, name: &str, window: u32) {
        match &self.redis {
            None => {
                let db = Connection::open(self.file()).unwrap();
                let set = "UPDATE accounts SET state = '{' WHERE name = ?1 AND window = ?2";
                assert_eq!(db.execute(set, (name, window)), Ok(1));
            }
            Some(redis) => {
                let key = format!("vkey:ledger:{{{name}}}:{window}");
                redis::cmd("SET").arg(key).arg("{").exec(&mut connection(redis)).unwrap();
            }
        }
    }
}

/// Runs a test with each store.
fn with_each(test: impl Fn(&Site)) {
    test(&Site::sqlite());
    test(&Site::redis());
}

fn options(url: &str) -> RedisOptions {
    let url = Zeroizing::new(url.to_owned());
    RedisOptions { url, authorities: None, allow_cleartext: false }
}

fn connection(server: &RedisServer) -> redis::Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

/// An order for a day, counted from the present one.
fn order(lease: u64, number: u32, day: u32, granted: u64, used: u64, want: u64) -> Order {
    let window = Period::Day.window(NOW) + day;
    let wanted = Wanted { need: want.min(1), want };
    Order { lease, number, window, limit: LIMIT, granted, used, wanted }
}

fn posted(name: &str, order: Order) -> Posted {
    Posted { account: AccountName::parse(name).unwrap(), order }
}

fn take(store: &mut dyn Store, order: Order) -> Taken {
    let mut taken = store.take(&[posted(NAME, order)], NOW);
    assert_eq!(taken.len(), 1);
    taken.remove(0).unwrap()
}

fn receipt(store: &mut dyn Store, order: Order) -> Receipt {
    take(store, order).receipt
}

fn sums(store: &mut dyn Store, day: u32) -> Sums {
    let window = Period::Day.window(NOW) + day;
    let mut accounts = store.accounts(&[(NAME.to_owned(), window)]).unwrap();
    accounts.remove(0).unwrap().sums()
}

#[test]
fn an_order_that_comes_again_gets_the_same_receipt_also_later() {
    with_each(|site| {
        let mut store = site.open();
        let first = take(&mut *store, order(1, 1, 0, 0, 0, 2));
        assert_eq!((first.receipt.granted, first.receipt.left), (2, 8));
        assert_eq!(first.granted, Some(2));
        let other = take(&mut *store, order(2, 1, 0, 0, 0, 8));
        assert_eq!(
            (other.receipt.granted, other.receipt.left),
            (2, 6),
            "a quarter of what is left"
        );
        let again = take(&mut *store, order(1, 1, 0, 0, 0, 2));
        assert_eq!((again.receipt, again.granted), (first.receipt, None));
        let both = [posted(NAME, order(3, 1, 0, 0, 0, 1)), posted(NAME, order(3, 1, 0, 0, 0, 1))];
        let both: Vec<_> = store.take(&both, NOW).into_iter().map(|taken| taken.unwrap()).collect();
        assert_eq!(both[0].receipt, both[1].receipt, "in one request too");
        drop(store);
        let mut store = site.open();
        assert_eq!(receipt(&mut *store, order(1, 1, 0, 0, 0, 2)), first.receipt);
        assert_eq!(sums(&mut *store, 0).held, 5);
    });
}

#[test]
fn no_more_is_granted_than_there_is() {
    with_each(|site| {
        let mut store = site.open();
        let orders: Vec<_> = (1..=40).map(|id| posted(NAME, order(id, 1, 0, 0, 0, 3))).collect();
        let taken = store.take(&orders, NOW);
        let granted: Vec<u64> =
            taken.iter().map(|taken| taken.as_ref().unwrap().receipt.granted).collect();
        assert_eq!(granted.iter().sum::<u64>(), LIMIT, "{granted:?}");
        assert!(taken.last().unwrap().as_ref().unwrap().is_scarce);
        assert_eq!(sums(&mut *store, 0).left, 0);
    });
}

#[test]
fn an_account_is_scarce_only_if_others_can_spare_something_in_the_present_window() {
    with_each(|site| {
        let mut store = site.open();
        assert!(!take(&mut *store, order(1, 1, 0, 0, 0, 1)).is_scarce, "there is enough");
        take(&mut *store, order(1, 2, 0, 10, 9, 0));
        assert!(take(&mut *store, order(2, 1, 0, 0, 0, 1)).is_scarce);
        assert!(!take(&mut *store, order(1, 3, 0, 10, 9, 1)).is_scarce, "others have nothing");
        take(&mut *store, order(1, 4, 0, 10, 10, 0));
        assert!(!take(&mut *store, order(2, 2, 0, 0, 0, 1)).is_scarce, "all is spent");
        let late = NOW + 86_400;
        take(&mut *store, order(1, 5, 0, 10, 9, 0));
        let taken = store.take(&[posted(NAME, order(2, 3, 0, 0, 0, 1))], late);
        assert!(!taken[0].as_ref().unwrap().is_scarce, "the window has ended");
    });
}

#[test]
fn what_a_window_spends_above_its_budget_is_the_debt_of_the_next() {
    with_each(|site| {
        let mut store = site.open();
        take(&mut *store, order(1, 1, 0, 0, 35, 0));
        assert_eq!(receipt(&mut *store, order(2, 1, 1, 0, 0, 1)).granted, 0);
        assert_eq!(sums(&mut *store, 1).used, 25);
        take(&mut *store, order(3, 1, 4, 0, 0, 0));
        assert_eq!(
            sums(&mut *store, 4).used,
            0,
            "two whole windows have paid 20, and the first 10"
        );
        take(&mut *store, order(1, 2, 0, 0, 55, 0));
        assert_eq!(sums(&mut *store, 1).used, 45, "a late order");
        assert_eq!(sums(&mut *store, 4).used, 15, "and what follows from it");
        take(&mut *store, order(1, 1, 0, 0, 35, 0));
        assert_eq!(sums(&mut *store, 1).used, 45, "an older order changes nothing");
        take(&mut *store, order(4, 1, 2, 0, 0, 0));
        let used = [2, 4].map(|day| sums(&mut *store, day).used);
        assert_eq!(used, [35, 15], "a window that is made late pays too");
        take(&mut *store, order(1, 3, 0, 0, 8, 0));
        let used = [1, 2, 4].map(|day| sums(&mut *store, day).used);
        assert_eq!(used, [0, 0, 0], "what a proxy gives back late is no debt");
    });
}

#[test]
fn debt_is_carried_within_one_request_too() {
    with_each(|site| {
        let mut store = site.open();
        let orders = [
            posted(NAME, order(2, 1, 1, 0, 0, 1)),
            posted(NAME, order(1, 1, 0, 0, 18, 0)),
            posted(NAME, order(2, 2, 1, 1, 0, 8)),
        ];
        let taken = store.take(&orders, NOW);
        assert_eq!(taken[2].as_ref().unwrap().receipt.granted, 2, "1 of 10 is left, of which 1");
        assert_eq!(sums(&mut *store, 1).used, 8);
    });
}

#[test]
fn a_total_has_one_account_for_ever() {
    with_each(|site| {
        let mut store = site.open();
        let name = "key/acme/k/tokens/total";
        let order = Order { window: 0, ..order(1, 1, 0, 0, 13, 0) };
        assert!(store.take(&[posted(name, order)], NOW)[0].is_ok());
        store.prune(u64::MAX).unwrap();
        let accounts = store.accounts(&[(name.to_owned(), 0)]).unwrap();
        assert_eq!(accounts[0].as_ref().unwrap().sums().used, 13);
    });
}

#[test]
fn the_names_of_a_tenant_are_its_own_and_those_of_its_keys() {
    with_each(|site| {
        let mut store = site.open();
        let names =
            ["key/acme/k-1/cost/day", "key/acme/k/tokens/day", "key/acme2/k/tokens/day", NAME];
        let orders = names.map(|name| posted(name, order(1, 1, 0, 0, 0, 1)));
        assert!(store.take(&orders, NOW).iter().all(Result::is_ok));
        let mut found = store.names("acme", NOW).unwrap();
        found.sort();
        assert_eq!(found, [names[0], names[1], names[3]]);
        assert_eq!(store.names("acm", NOW), Ok(Vec::new()));
        let none = store.accounts(&[(NAME.to_owned(), 0)]).unwrap();
        assert_eq!(none, [None]);
    });
}

#[test]
fn an_account_that_cannot_be_read_concerns_nobody_else() {
    with_each(|site| {
        let mut store = site.open();
        let other = "tenant/globex/requests/day";
        let orders = |number| {
            let order = order(1, number, 0, 0, 0, 1);
            [posted(NAME, order), posted(other, order)]
        };
        assert!(store.take(&orders(1), NOW).iter().all(Result::is_ok));
        site.damage(NAME, Period::Day.window(NOW));
        let taken = store.take(&orders(2), NOW);
        assert_eq!(taken[0], Err(LedgerError::Damaged(NAME.to_owned())));
        assert!(taken[1].is_ok());
    });
}

/// Clients of their own order one unit after the other. The file is for one process, so its clients take turns.
#[test]
fn clients_at_the_same_time_never_get_more_than_the_budget() {
    const CLIENTS: u64 = 4;
    const BUDGET: u64 = 200;
    let spend = |store: &mut dyn Store, id: u64| {
        let mut granted = 0;
        for number in 1.. {
            let order = Order { limit: BUDGET, ..order(id, number, 0, granted, granted, 1) };
            let receipt = receipt(store, order);
            if receipt.granted == granted {
                break;
            }
            granted = receipt.granted;
        }
        granted
    };
    let site = Site::redis();
    let start = Arc::new(Barrier::new(CLIENTS.try_into().unwrap()));
    let clients = (1..=CLIENTS).map(|id| {
        let (mut store, start) = (site.open(), Arc::clone(&start));
        thread::spawn(move || {
            start.wait();
            spend(&mut *store, id)
        })
    });
    let clients: Vec<_> = clients.collect();
    let granted: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(granted, BUDGET);
    let site = Site::sqlite();
    let mut store = site.open();
    let granted: u64 = (1..=CLIENTS).map(|id| spend(&mut *store, id)).sum();
    assert_eq!(granted, BUDGET);
}

// === a file ===

#[test]
fn a_file_of_others_is_refused_and_left_as_it_is() {
    let site = Site::sqlite();
    let db = Connection::open(site.file()).unwrap();
    db.execute_batch("CREATE TABLE notes (x); PRAGMA user_version = 1;").unwrap();
    drop(db);
    let before = std::fs::read(site.file()).unwrap();
    assert_eq!(Sqlite::open(&site.file()).err(), Some(LedgerError::Foreign));
    assert_eq!(std::fs::read(site.file()).unwrap(), before);
    std::fs::write(
        site.file(),
        "a text that is longer than the head of a file of SQLite".repeat(9),
    )
    .unwrap();
    assert_eq!(Sqlite::open(&site.file()).err(), Some(LedgerError::Foreign));
}

#[test]
fn a_ledger_of_a_later_version_is_refused() {
    let site = Site::sqlite();
    drop(site.open());
    Connection::open(site.file()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(Sqlite::open(&site.file()).err(), Some(LedgerError::Newer));
}

#[test]
fn one_process_has_the_file_at_a_time() {
    let site = Site::sqlite();
    let store = site.open();
    assert!(matches!(Sqlite::open(&site.file()), Err(LedgerError::Locked(_))));
    assert!(Sqlite::read(&site.file()).is_ok(), "a reader beside it");
    drop(store);
    assert!(Sqlite::open(&site.file()).is_ok());
}

#[test]
fn what_is_answered_is_on_the_disk() {
    let site = Site::sqlite();
    let store = Sqlite::open(&site.file()).unwrap();
    let pragma = |name| store.db().pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    assert_eq!(pragma("synchronous"), Ok(2), "FULL");
}

#[test]
fn old_accounts_are_deleted() {
    let site = Site::sqlite();
    let mut store = site.open();
    take(&mut *store, order(1, 1, 0, 0, 0, 1));
    take(&mut *store, order(1, 1, 1, 0, 0, 1));
    let key = |day| (NAME.to_owned(), Period::Day.window(NOW) + day);
    let mut kept = |days: u64| {
        store.prune(NOW + days * 86_400 + 1).unwrap();
        store.accounts(&[key(0), key(1)]).unwrap().iter().map(Option::is_some).collect::<Vec<_>>()
    };
    assert_eq!(kept(35), [true, true]);
    assert_eq!(kept(36), [false, true]);
    assert_eq!(kept(37), [false, false]);
}

// === a Redis ===

#[test]
fn accounts_in_a_redis_expire_some_time_after_their_windows() {
    let site = Site::redis();
    let mut store = site.open();
    let mut connection = connection(site.redis.as_ref().unwrap());
    let now = crate::clock::now_secs();
    let window = Period::Day.window(now);
    let total = "tenant/acme/requests/total";
    let of = |name: &str, window| posted(name, Order { window, ..order(1, 1, 0, 0, 0, 1) });
    assert!(store.take(&[of(NAME, window), of(total, 0)], now).iter().all(Result::is_ok));
    let mut ttl = |key: String| redis::cmd("TTL").arg(key).query::<i64>(&mut connection).unwrap();
    let end = Period::Day.end_secs(window).unwrap();
    let expected = i64::try_from(end + 35 * 86_400 - now).unwrap();
    let found = ttl(format!("vkey:ledger:{{{NAME}}}:{window}"));
    assert!((expected - 5..=expected).contains(&found), "{found} {expected}");
    for part in ["version", "windows"] {
        let found = ttl(format!("vkey:ledger:{{{NAME}}}:{part}"));
        assert!(found > expected, "{part}: they outlive every account");
    }
    for part in ["0", "version", "windows"] {
        assert_eq!(ttl(format!("vkey:ledger:{{{total}}}:{part}")), -1, "{part}");
    }
}

#[test]
fn servers_on_one_redis_share_what_is_scarce() {
    let site = Site::redis();
    let (mut one, mut other) = (site.open(), site.open());
    assert_eq!(one.exchange(&["a".to_owned()]), Ok(vec!["a".to_owned()]));
    assert_eq!(other.exchange(&[]), Ok(vec!["a".to_owned()]));
    thread::sleep(crate::ledger::scarcity::SCARCE_FOR + std::time::Duration::from_millis(100));
    assert_eq!(other.exchange(&[]), Ok(Vec::new()));
}

#[test]
fn a_redis_that_was_killed_has_what_it_confirmed_and_is_found_again() {
    let mut site = Site::redis();
    let mut store = site.open();
    let first = receipt(&mut *store, order(1, 1, 0, 0, 0, 2));
    site.redis.as_mut().unwrap().kill();
    let lost = store.take(&[posted(NAME, order(1, 2, 0, 2, 2, 2))], NOW);
    assert!(matches!(lost[0], Err(LedgerError::Unreachable(_))), "{lost:?}");
    site.redis.as_mut().unwrap().restart();
    assert_eq!(receipt(&mut *store, order(1, 1, 0, 0, 0, 2)), first);
    // The connection is there, and the other end is another process.
    site.redis.as_mut().unwrap().restart();
    assert_eq!(receipt(&mut *store, order(1, 2, 0, 2, 2, 2)).granted, 4);
}

#[test]
fn a_password_is_used_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let server = RedisServer::start(folder.path(), &["--requirepass", "hunter2hunter2"]);
    let port = server.port();
    assert!(Redis::open(&options(&format!("redis://:hunter2hunter2@127.0.0.1:{port}/0"))).is_ok());
    for url in [
        format!("redis://:hunter2wrong@127.0.0.1:{port}/0"),
        "redis://:hunter2wrong@127.0.0.1:1/0".to_owned(),
        "redis://:hunter2wrong@127.0.0.1:x/0".to_owned(),
        "redis://u:hunter2wrong@redis.example/0".to_owned(),
        "http://:hunter2wrong@127.0.0.1/0".to_owned(),
        "rediss://:hunter2wrong@127.0.0.1/0#insecure".to_owned(),
        "redis://127.0.0.1/hunter2wrong".to_owned(),
        format!("redis://127.0.0.1:{port}"),
    ] {
        let error = Redis::open(&options(&url)).err().unwrap();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn other_machines_need_encryption() {
    let open = |url: &str| Redis::open(&options(url)).err();
    assert_eq!(open("redis://redis.example:6379/0"), Some(LedgerError::Cleartext));
    assert_eq!(open("redis://192.0.2.1:6379/0"), Some(LedgerError::Cleartext));
    assert_ne!(open("redis://localhost:1/0"), Some(LedgerError::Cleartext));
    assert_ne!(open("redis://[::1]:1/0"), Some(LedgerError::Cleartext));
    let bad = RedisOptions { authorities: Some(b"none".to_vec()), ..options("rediss://[::1]:1/0") };
    assert_eq!(Redis::open(&bad).err(), Some(LedgerError::Authorities));
}
