//! Memory in the proxy: what a good key takes, and that all other keys take none.

use std::ops::Range;

use serde_json::{Value, json};
use vkey::digest::sha256_hex;

use crate::keys::{Minter, options};
use crate::load::{WORKERS, connect, number, send_in_step, usage};
use crate::metrics::series;
use crate::support::{Connection, Envoy, Request, config};

const KEYS: usize = 100_000;

/// Enough for what grows with use and then stays, as caches, pools and compiled code.
const WARM_UP: usize = 10_000;

/// What the proxy's memory may go up and down by: ten bytes per key. It does so by some 0.1 MB.
const NOISE_BYTES: u64 = 1_000_000;

/// The most that a key may take, its record with the host's own about it.
const MAX_BYTES_PER_KEY: u64 = 400;

/// A proxy that has nothing to do but to judge keys. Each has a rate and a quota.
fn start(label: &str, minter: &Minter) -> Envoy {
    let tier = json!({
        "rate": {"requests": 100, "per": "1h"}, "quotas": [{"requests": 1_000, "per": "day"}],
    });
    // A threshold that is never reached: a source that is blocked would not be refused with 401.
    let failures = json!({"threshold": 1_000_000});
    let plugin = json!({"tiers": {"default": tier}, "auth_failures": failures});
    let options = options(label, minter, plugin).edit(|config| {
        let manager = config::connection_manager(config, "gate");
        let answered = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200}});
        manager["route_config"]["virtual_hosts"][0]["routes"] = json!([answered]);
    });
    Envoy::start(options.concurrency(WORKERS))
}

/// Bytes that Envoy has allocated and not freed. Shared data is among them, the memory inside of
/// its Wasm VMs is not.
fn allocated_bytes(envoy: &Envoy) -> u64 {
    let memory = envoy.admin_get("/memory").json();
    memory["allocated"].as_str().unwrap().parse().unwrap()
}

/// Sends one request for each key.
fn send(connections: &mut [Connection], keys: impl Iterator<Item = String>, status: u16) {
    let requests = keys.map(|key| Request::new("GET", "/v1/models").bearer(&key).encode());
    let statuses = send_in_step(connections, requests);
    assert!(statuses.iter().all(|answered| *answered == status));
}

/// Keys with ids of their own, of the usual length.
fn fresh_keys(minter: &Minter, prefix: char, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| minter.key(&format!("{prefix}_{number:016x}"), json!({})))
}

#[test]
fn a_key_takes_at_most_400_bytes() {
    let main = Minter::new("main", None);
    let envoy = start("bytes", &main);
    let mut connections = connect(&envoy);
    send(&mut connections, fresh_keys(&main, 'w', WARM_UP), 200);
    let before = allocated_bytes(&envoy);
    send(&mut connections, fresh_keys(&main, 'k', KEYS), 200);
    let bytes_per_key = (allocated_bytes(&envoy) - before) / number(KEYS);
    println!("bytes per key: {bytes_per_key}");
    assert!(bytes_per_key <= MAX_BYTES_PER_KEY);
    assert!(bytes_per_key > 100, "that is less than a cell: something else was measured");
}

/// Makes keys that are good for nothing, each another, from what strangers have: the form of a key,
/// the name of a ring, the id of somebody's key, secrets of their own.
struct Stranger {
    main: Minter,
    none: Minter,
}

impl Stranger {
    fn new() -> Self {
        let main = Minter::new("main", None);
        Self { none: main.beside("none", None), main }
    }

    fn keys(&self, range: Range<usize>) -> impl Iterator<Item = String> {
        range.map(|number| {
            let random = sha256_hex(format!("{} {number}", self.main.secret).as_bytes());
            match number % 5 {
                0 => random,
                1 => format!("vk1.main-0.{random}.{}", &random[..43]),
                2 => self.none.key(&random, json!({})),
                3 => self.main.key(&random, json!({"tenant": &random[..20]})),
                _ => self.main.key("victim", json!({"sub": random})),
            }
        })
    }
}

fn auth_failures(envoy: &Envoy) -> Vec<(String, u64)> {
    let failures = series(envoy, "vkey_requests_total").into_iter();
    let failures = failures.filter(|series| series.labels["reason"].starts_with("key_"));
    failures.map(|series| (series.labels["reason"].clone(), series.value)).collect()
}

/// No cell, and nothing else: a metric made known to the host anew for each request would show too.
#[test]
fn invalid_keys_take_no_memory() {
    let (main, stranger) = (Minter::new("main", None), Stranger::new());
    let envoy = start("invalid", &main);
    let mut connections = connect(&envoy);
    let victim = main.key("victim", json!({}));
    let counts = |usage: Value| (usage["seen"].clone(), usage["limits"][1]["used"].clone());
    send(&mut connections, [victim.clone()].into_iter(), 200);
    send(&mut connections, stranger.keys(0..WARM_UP), 401);
    let before = allocated_bytes(&envoy);
    send(&mut connections, stranger.keys(WARM_UP..WARM_UP + KEYS), 401);
    let after = allocated_bytes(&envoy);
    println!("{before} bytes before {KEYS} invalid keys, {after} after them");
    assert!(after.abs_diff(before) <= NOISE_BYTES, "{before} bytes, then {after}");

    let failures = auth_failures(&envoy);
    let reasons: Vec<_> = failures.iter().map(|(reason, _)| &**reason).collect();
    assert_eq!(reasons, ["key_malformed", "key_signature", "key_unknown"]);
    assert_eq!(failures.iter().map(|(_, count)| count).sum::<u64>(), number(WARM_UP + KEYS));
    let mut connection = connections.pop().unwrap();
    assert_eq!(counts(usage(&mut connection, &victim, "")), (json!(1), json!(1)));

    // A tenth as many good ones show.
    send(&mut connections, fresh_keys(&main, 'k', KEYS / 10), 200);
    let grown = allocated_bytes(&envoy) - after;
    assert!(grown > NOISE_BYTES, "{grown} bytes for {} good keys", KEYS / 10);
}
