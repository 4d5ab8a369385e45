//! Measures how many orders a ledger takes each second, by how many proxies order at the same time: in a file of SQLite,
//! and in a Redis of this machine that writes to its disk before it confirms (`appendfsync always`).

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints its results, and a panic is the report"
)]

#[path = "../tests/support/redis_server.rs"]
#[allow(dead_code, reason = "the measurement uses a part of it")]
mod redis_server;

use std::time::{Duration, Instant};

use vkey::ledger::AccountName;
use vkey::limits::lease::{Order, Wanted};
use vkey_server::ledger::{Ledger, Place, Posted, RedisOptions};

use redis_server::RedisServer;

/// How long each case is measured.
const TIME: Duration = Duration::from_secs(3);

/// The proxies that order at the same time, and the orders of each request.
const CASES: [(u64, u64); 4] = [(1, 1), (16, 1), (64, 1), (16, 32)];

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start(folder.path(), &[]);
    let url = redis.url().into();
    let options = RedisOptions { url, authorities: None, allow_cleartext: false };
    let places = [
        ("SQLite", Place::File(folder.path().join("ledger.db"))),
        ("Redis", Place::Redis(options)),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    println!("store   proxies  orders/request  orders/s");
    for (name, place) in &places {
        let ledger = Ledger::open(place, Box::new(|error| println!("{error}"))).unwrap();
        for (case, (proxies, orders)) in (0..).zip(CASES) {
            let begin = Instant::now();
            let tasks = (0..proxies).map(|proxy| {
                let id = (case << 32) + proxy;
                runtime.spawn(order_until(ledger.clone(), begin + TIME, id, orders))
            });
            let tasks: Vec<_> = tasks.collect();
            let taken: u64 = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).sum();
            let rate = u128::from(taken) * 1000 / begin.elapsed().as_millis();
            println!("{name:<7} {proxies:>7}  {orders:>14}  {rate:>8}");
        }
    }
}

/// One proxy, with a lease of each of its accounts, of which it shares some with others. Returns how many orders it made.
async fn order_until(ledger: Ledger, end: Instant, proxy: u64, orders: u64) -> u64 {
    let mut taken = 0;
    for number in 1.. {
        if Instant::now() >= end {
            break;
        }
        let posted = (0..orders).map(|index| {
            let account = format!("key/acme/k{}/requests/total", (proxy + index) % 100);
            let account = AccountName::parse(&account).unwrap();
            let (lease, wanted) = (proxy + 1, Wanted { need: 1, want: 1 });
            let used = u64::from(number) - 1;
            let limit = u64::MAX >> 1;
            let order = Order { lease, number, window: 0, limit, granted: used, used, wanted };
            Posted { account, order }
        });
        let receipts = ledger.take(posted.collect()).await.unwrap();
        taken += u64::try_from(receipts.receipts.len()).unwrap();
    }
    taken
}
