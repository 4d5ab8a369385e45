//! The memory of the built module with many keys.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(unsafe_code)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use vkey::host::{Action, MemoryHost, MemoryStore, Rules};
use vkey::key::keyring::{Ring, RingState, Rotation, Secret};
use vkey::key::mac::SigningKey;
use vkey::key::token::{Kid, Unverified, mint};
use vkey_vm::{Limits, Module, Precompiled, Vm};

const SECRET: &str = "Memory-1-of-a-worker-is-bounded";

const NOW_SECS: u64 = 1_790_000_000;

const KEYS: usize = 100_000;

/// More keys of all sizes than are remembered.
const ODD_KEYS: usize = 60_000;

/// The most memory of a worker.
const MAX_BYTES: usize = 64 << 20;

/// A remembered key, its place in the tables and its members of an audit record included.
const MAX_BYTES_PER_KEY: usize = 550;

/// The module, compiled by `make module`, with a configuration of limits for keys and tenants.
struct Worker {
    vm: Vm,
    store: MemoryStore,
    kid: Kid,
    signing_key: SigningKey,
}

impl Worker {
    fn start() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/vkey.cwasm");
        let code = fs::read(path).expect("run `make module`");
        // SAFETY: only `precompile` writes this file.
        let precompiled = unsafe { Precompiled::new(Vec::leak(code)) };
        let limits = Limits { deadline: Duration::from_secs(60), memory_bytes: MAX_BYTES };
        let module = Module::load(precompiled, limits).expect("run `make module`");
        let store = MemoryStore::new(Rules::Envoy);
        let env = [("S".to_owned(), SECRET.to_owned())];
        let mut vm = Vm::start(&module, MemoryHost::new(store.clone()), &env).unwrap();
        let config = br#"{
            "keyring": [{"name": "main", "secret": "${S}",
                         "rotation": {"interval": "168h", "max_age": "30d"}}],
            "tiers": {"default": {"rate": {"requests": 1000, "per": "1m"},
                                  "quotas": [{"requests": 100000, "per": "day"}]}},
            "tenants": {"tenant-0": {"quotas": [{"requests": 1000000, "per": "day"}]}}
        }"#;
        assert!(vm.configure(config).unwrap());
        let secret = Secret::parse(SECRET).unwrap();
        let rotation = Rotation::new(7 * 86_400, 30 * 86_400, true).ok();
        let ring = Ring::new("main", &secret, RingState::Active, rotation).unwrap();
        let kid = ring.kid_at(NOW_SECS).unwrap();
        Self { vm, store, signing_key: ring.signing_key(&kid).unwrap(), kid }
    }

    /// A key like those of `make bench`, with another `sub`.
    fn key(&self, number: usize, sub: &str) -> String {
        let exp = NOW_SECS + 7_200;
        let claims = format!(
            r#"{{"exp":{exp},"iat":{NOW_SECS},"jti":"k_{number:016x}","sub":"{sub}","tenant":"tenant-{}"}}"#,
            number % 100
        );
        mint(&self.signing_key, &self.kid, claims.as_bytes())
    }

    /// A key of any size.
    fn odd_key(&self, number: usize) -> String {
        let mut key = self.key(number, &"a".repeat(1 + number * 31 % 128));
        for caveat in 0..number * 7 % 5 {
            let paths = format!(r#"["/v1/**","/{}"]"#, "b".repeat(number * 13 % 300));
            let caveat = format!(r#"{{"paths":{paths},"exp":{}}}"#, NOW_SECS + 60 + caveat as u64);
            let unverified = Unverified::parse(key.as_bytes()).unwrap();
            key = unverified.attenuate(caveat.as_bytes()).unwrap();
        }
        key
    }

    fn send(&mut self, key: &str) {
        let host = MemoryHost::new(self.store.clone());
        host.now_ns.set(Some(NOW_SECS * 1_000_000_000));
        let header = |name: &str, value: &str| (name.into(), value.into());
        host.headers.replace(Some(vec![
            header(":method", "GET"),
            header(":path", "/v1/models"),
            header(":authority", "gw.example"),
            header("authorization", &format!("Bearer {key}")),
        ]));
        let id = self.vm.open(host).unwrap();
        let action = self.vm.on_request_headers(id, true).unwrap();
        assert!(action == Action::Continue, "{:?}", self.vm.host(id).unwrap().log);
        self.vm.on_log(id).unwrap();
        self.vm.close(id).unwrap();
    }
}

#[test]
fn a_hundred_thousand_keys_fit_into_64_mib() {
    let mut worker = Worker::start();
    worker.send(&worker.key(0, "bench"));
    let before = worker.vm.memory_bytes();
    for number in 1..=KEYS {
        worker.send(&worker.key(number, "bench"));
    }
    let after = worker.vm.memory_bytes();
    let per_key = (after - before) / KEYS;
    println!("{before} bytes with one key, {after} with {KEYS}: {per_key} bytes per key");
    assert!(per_key > 200, "{per_key} bytes per key: not all are remembered");
    assert!(per_key <= MAX_BYTES_PER_KEY, "{per_key} bytes per key");
    assert!(after <= MAX_BYTES, "{after} bytes");
}

/// The limit of the worker's memory would make the module fail.
#[test]
fn keys_of_any_size_never_take_more() {
    let mut worker = Worker::start();
    for number in 0..ODD_KEYS {
        worker.send(&worker.odd_key(number));
    }
    let full = worker.vm.memory_bytes();
    println!("{full} bytes with keys of any size");
    assert!(full > MAX_BYTES / 2, "{full} bytes: the keys are not remembered");
}
