//! `make bench-store`: how fast audit lines of a file come into the store, what questions to it take, and whether memory
//! grows with it.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark has a clock, prints, and ends when something is wrong"
)]

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vkey::audit::{
    AnchorContext, AuditKey, AuditRecord, Chain, Line, Mask, Outcome, TokenSource, Tokens,
};
use vkey::body::TokenUsage;
use vkey::decision::{Decision, DenyReason};
use vkey::key::keyring::Secret;
use vkey_server::collect::{Follower, LineReader, inlet};
use vkey_server::store::{By, Filter, Reader, Retention, Status, Store, StoreError, UsageFilter};

/// The records, unless `RECORDS` says another number.
const RECORDS: u64 = 1_000_000;

/// The records after which memory is measured first, as a part of all.
const WARM: u64 = 5;

/// The keys that are used. Each calls one model and one tool.
const KEYS: u64 = 2000;

/// The workers of the proxy: each has a chain.
const WORKERS: usize = 4;

const ANCHOR_EVERY: u64 = 1000;

/// When the first record was written, Unix microseconds, and how far they are apart.
const BEGIN: u64 = 1_790_000_000_000_000;
const STEP: u64 = 20_000;

/// How often each question is asked. The median counts.
const ROUNDS: usize = 5;

/// The targets.
const MIN_PER_SEC: f64 = 20_000.0;
const MAX_QUESTION: Duration = Duration::from_millis(100);
const MAX_GROWTH: f64 = 1.1;

fn main() {
    let records = number("RECORDS").unwrap_or(RECORDS);
    let folder = tempfile::tempdir().unwrap();
    let (log, path) = (folder.path().join("audit.log"), folder.path().join("store"));
    let bytes = write_log(&log, records);
    println!("{records} records in {WORKERS} chains, {} bytes each", bytes / records);
    let mut is_good = ingest(&log, &path, records);
    let size = fs::metadata(&path).unwrap().len();
    println!("the store has {} bytes per record", size / records);
    is_good &= ask(&path, records);
    if number("MAX_RECORDS").is_none() {
        fs::remove_file(&log).unwrap();
    }
    let is_strict = number("STRICT").is_some();
    assert!(is_good || !is_strict, "a target is missed");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn key() -> AuditKey {
    AuditKey::new(&Secret::parse("Some-audit-secret-1-of-benches").unwrap())
}

// === the log ===

/// Writes a log as the workers of a proxy do. Returns its bytes.
fn write_log(path: &Path, records: u64) -> u64 {
    let mut log = BufWriter::new(File::create(path).unwrap());
    let chain = |worker: usize| Chain::new(key(), &[&[u8::try_from(worker).unwrap()]]);
    let mut chains: Vec<Chain> = (0..WORKERS).map(chain).collect();
    let mut random = 1;
    for number in 0..records {
        let count = chains.len() as u64;
        let chain = chains.get_mut(usize::try_from(next(&mut random) % count).unwrap()).unwrap();
        log.write_all(line(number, &mut random, chain).as_bytes()).unwrap();
        log.write_all(b"\n").unwrap();
        if chain.len().is_multiple_of(ANCHOR_EVERY) {
            let host_members = r#","host":"gateway-1""#;
            let ts_micros = BEGIN + number * STEP;
            let at = AnchorContext { ts_micros, host_members, plan: "p1", is_end: false };
            log.write_all(chain.anchor(&at).as_bytes()).unwrap();
            log.write_all(b"\n").unwrap();
        }
    }
    log.into_inner().unwrap().metadata().unwrap().len()
}

/// A number that looks random: xorshift64*.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
}

fn line(number: u64, random: &mut u64, chain: &mut Chain) -> String {
    const REASONS: [DenyReason; 5] = [
        DenyReason::Path,
        DenyReason::Model,
        DenyReason::KeyExpired,
        DenyReason::Method,
        DenyReason::Rate,
    ];
    let mut pick = |count: u64| next(random) % count;
    let is_denied = pick(10) == 0;
    let reason = REASONS.get(usize::try_from(pick(5)).unwrap()).copied().unwrap();
    let key = pick(KEYS);
    let is_rare = number.is_multiple_of(400_000);
    let usage = TokenUsage { input: 900, output: 120, total: 1020, ..TokenUsage::default() };
    let is_model = pick(2) == 0;
    let record = AuditRecord {
        ts_micros: BEGIN + number * STEP,
        host: Some("gateway-1".into()),
        req: Some(format!("7d3c2b1a-0000-4000-8000-{:012x}", number ^ 0x5bd1_e995).into()),
        decision: Some(if is_denied { Decision::Deny(reason) } else { Decision::Allow }),
        kid: Some("main".into()),
        jti: Some(format!("key-{key:08}").into()),
        tenant: Some(format!("tenant-{}", key % 20).into()),
        sub: Some(if key.is_multiple_of(100) {
            "admin".into()
        } else {
            format!("user-{key}").into()
        }),
        tier: Some("standard".into()),
        caveats: Some(2),
        src: Some("203.0.113.7".into()),
        method: Some("POST".into()),
        authority: Some("api.example.com".into()),
        path: Some(match is_rare {
            true => "/v1/rare".into(),
            false => format!("/v1/resource-{}/chat/completions", pick(200)).into(),
        }),
        query_keys: vec!["stream".into()],
        model: is_model.then(|| format!("model-{}", key % 12).into()),
        mcp: (!is_model).then(|| format!("tools/call tool-{} main 2025-06-18", key % 50).into()),
        tokens: is_model.then_some(Tokens { usage, source: TokenSource::Usage }),
        cost: is_model.then_some(1500),
        tls_verdict: Some("ok".into()),
        tls_policy: Some("0123456789abcdef".repeat(4).into()),
        anomaly: (pick(1000) == 0).then_some("new_source".into()),
        is_local: false,
        plan: Some("p1".into()),
        link: None,
    };
    let mut text = record.write(&Mask::default());
    chain.link(&mut text, record.amounts());
    let outcome = Outcome {
        start_micros: Some(record.ts_micros),
        peer: Some("203.0.113.7".into()),
        status: Some(if is_denied { 403 } else { 200 }),
        bytes_in: Some(2048),
        bytes_out: Some(4096),
        duration_ns: Some(250_000_000),
        upstream: Some("198.51.100.9:443".into()),
        flags: None,
    };
    Line::splice(&text, &outcome, &Mask::default())
}

// === ingest ===

fn ingest(log: &Path, path: &Path, records: u64) -> bool {
    let max_records = number("MAX_RECORDS").unwrap_or(u64::MAX);
    let store = Store::open(path, Retention { max_records, max_age_secs: None }).unwrap();
    let (to, writer) = inlet(store);
    let reader = LineReader::new(vec![key()], None);
    let follower = Follower::new(log.to_owned(), Vec::new(), reader, to);
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let stopped = Arc::clone(&stop);
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    let source = named("follower").spawn(move || follower.run(&stopped).unwrap()).unwrap();
    let sink = named("writer").spawn(move || writer.run(&AtomicBool::new(false)).unwrap()).unwrap();
    let asked = Reader::open(path).unwrap();
    let mut warm = None;
    let elapsed = loop {
        thread::sleep(Duration::from_millis(20));
        let taken = counter(&asked, "records").unwrap();
        if taken >= records / WARM {
            warm.get_or_insert_with(resident_kib);
        }
        if taken >= records {
            break begun.elapsed();
        }
    };
    let used = cpu_of_threads();
    let (warm, full) = (warm.unwrap_or_default(), resident_kib());
    stop.store(true, Ordering::Relaxed);
    source.join().unwrap();
    sink.join().unwrap();
    assert_eq!(counter(&asked, "doubled").unwrap(), 0);
    assert_eq!(asked.findings(1).unwrap(), [], "all of it verifies");
    let chains = asked.chains().unwrap();
    assert_eq!(chains.iter().map(|chain| chain.verified).sum::<u64>(), records);
    let rate = records as f64 / elapsed.as_secs_f64();
    for (name, nanos) in used {
        println!("{:8.1} µs of CPU per record: thread {name}", nanos as f64 / 1e3 / records as f64);
    }
    let growth = full as f64 / warm as f64;
    println!("taken in {:.1} s: {rate:.0} records/s", elapsed.as_secs_f64());
    println!("memory: {warm} KiB after a fifth of them, {full} KiB after all: {growth:.2} x");
    judge("records per second", rate >= MIN_PER_SEC) & judge("memory is flat", growth <= MAX_GROWTH)
}

fn counter(reader: &Reader, name: &str) -> Result<u64, StoreError> {
    let counters = reader.counters()?;
    Ok(counters.iter().find(|(found, _)| found == name).map_or(0, |(_, count)| *count))
}

/// The memory of this process that is not a file's.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The CPU time of the threads of the collector so far, in nanoseconds.
fn cpu_of_threads() -> Vec<(String, u64)> {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let used = threads.filter_map(|thread| {
        let name = fs::read_to_string(thread.join("comm")).ok()?.trim().to_owned();
        let used = fs::read_to_string(thread.join("schedstat")).ok()?;
        Some((name, used.split(' ').next()?.parse().ok()?))
    });
    used.filter(|(name, _)| name == "follower" || name == "writer").collect()
}

fn judge(target: &str, is_met: bool) -> bool {
    println!("{}: {target}", if is_met { "met" } else { "MISSED" });
    is_met
}

// === questions ===

fn ask(path: &Path, records: u64) -> bool {
    let text = |text: &str| Some(text.to_owned());
    let filter = Filter { limit: 50, ..Filter::default() };
    let middle = BEGIN + records / 2 * STEP;
    let range = (Some(middle), Some(middle + records / 10 * STEP));
    let questions = [
        ("the latest 50", filter.clone()),
        ("status=failed&limit=50", Filter { status: Some(Status::Failed), ..filter.clone() }),
        ("status=success&limit=50", Filter { status: Some(Status::Success), ..filter.clone() }),
        ("user=admin&limit=100", Filter { user: text("admin"), limit: 100, ..filter.clone() }),
        (
            "tenant, reason and a tenth of the time",
            Filter {
                tenant: text("tenant-7"),
                reason: text("path"),
                from_micros: range.0,
                to_micros: range.1,
                ..filter.clone()
            },
        ),
        ("a rare path", Filter { path: text("/v1/rare"), ..filter.clone() }),
        ("paths by their beginning", Filter { path: text("/v1/resource-1*"), ..filter.clone() }),
        ("a rare path by its beginning", Filter { path: text("/v1/ra*"), ..filter.clone() }),
        ("a path that there is not", Filter { path: text("/none"), ..filter.clone() }),
        ("a method that there is not", Filter { method: text("DELETE"), ..filter.clone() }),
        ("a code that there is not", Filter { code: Some(503), ..filter.clone() }),
        (
            "a user and a tenant that is not its own",
            Filter { user: text("user-17"), tenant: text("tenant-3"), ..filter.clone() },
        ),
        (
            "a tenant and a reason that are common, and a rare path",
            Filter {
                tenant: text("tenant-0"),
                reason: text("model"),
                path: text("/v1/rare"),
                ..filter.clone()
            },
        ),
        (
            "a tenant and a model, which never fail together with a code",
            Filter {
                tenant: text("tenant-3"),
                model: text("model-3"),
                status: Some(Status::Failed),
                code: Some(200),
                ..filter.clone()
            },
        ),
        ("anomalies", Filter { anomalies: true, ..filter.clone() }),
        (
            "anomalies of a tenant",
            Filter { anomalies: true, tenant: text("tenant-5"), ..filter.clone() },
        ),
    ];
    let mut is_good = true;
    for (name, filter) in &questions {
        let mut found = 0;
        let took = median(|| {
            let reader = Reader::open(path).unwrap();
            found = reader.records(filter).unwrap().records.len();
        });
        is_good &= report(name, took, found);
    }
    let usage = UsageFilter { limit: 50, ..UsageFilter::default() };
    for (name, by) in By::ALL {
        let mut found = 0;
        let took = median(|| {
            let reader = Reader::open(path).unwrap();
            found = reader.usage(by, &usage).unwrap().len();
        });
        is_good &= report(&format!("usage by {name}"), took, found);
    }
    is_good
}

fn median(mut ask: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            ask();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times.get(ROUNDS / 2).copied().unwrap_or_default()
}

fn report(name: &str, took: Duration, found: usize) -> bool {
    let is_met = took <= MAX_QUESTION;
    let mark = if is_met { "" } else { "  MISSED" };
    println!("{:8.2} ms  {found:4} rows  {name}{mark}", took.as_secs_f64() * 1e3);
    is_met
}
