//! Serves the page over a store with 100 000 records, some of them hostile: `page FOLDER [RECORDS]`.
//!
//! It prints the address, and ends with its standard input. Keys of the ring `main` with the secret of this file and
//! the tier `operator` may see the page.

#![allow(clippy::print_stdout, reason = "the address is what a test waits for")]
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "what is written here is data of tests"
)]

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use vkey::audit::{
    AnchorContext, AuditKey, AuditRecord, Chain, Line, Mask, Outcome, TokenSource, Tokens,
};
use vkey::body::TokenUsage;
use vkey::config::{Config, Plan};
use vkey::decision::{Decision, DenyReason};
use vkey::engine::Engine;
use vkey::key::keyring::Secret;
use vkey_server::alerts::Thresholds;
use vkey_server::client::{Client, ClientOptions};
use vkey_server::collect::LineReader;
use vkey_server::gate::Gate;
use vkey_server::server::{self, Options, Stopper};
use vkey_server::store::{Batch, Item, Retention, Store};
use vkey_server::web::Engines;

const SECRET: &str = "q8#Zr!2vLw$9xTn@4bKdHm7%eYc3";
const CONFIG: &str = r#"{"keyring": [{"name": "main", "secret": "${VKEY_MAIN_SECRET}"}],
    "tiers": {"default": {}, "operator": {"usage_of_others": true}}}"#;

const RECORDS: u64 = 100_000;
const DAYS: u64 = 30;
const MICROS_PER_DAY: u64 = 86_400_000_000;

/// How many records are written in one transaction.
const BATCH: usize = 5_000;

const RETENTION: Retention = Retention { max_records: 1_000_000, max_age_secs: None };

const TENANTS: [&str; 6] = ["acme", "globex", "initech", "umbrella", "hooli", "stark"];
const MODELS: [(&str, u64); 5] = [
    ("gpt-4o", 10),
    ("gpt-4o-mini", 1),
    ("claude-sonnet-4-5", 9),
    ("gemini-2.5-flash", 1),
    ("text-embedding-3-small", 0),
];
const TOOLS: [&str; 4] = ["search", "read_file", "sql_query", "create_ticket"];
const REASONS: [DenyReason; 9] = [
    DenyReason::Quota,
    DenyReason::Quota,
    DenyReason::Rate,
    DenyReason::KeyExpired,
    DenyReason::KeyMissing,
    DenyReason::Model,
    DenyReason::Path,
    DenyReason::TenantQuota,
    DenyReason::UpstreamName,
];
const HOSTILE: [&str; 5] = [
    "<script>document.title='owned'</script>",
    "\"><img src=x onerror=alert(1)>",
    "a\u{202e}gnp.exe\u{200b}",
    "'; DROP TABLE records; --",
    "=cmd|' /C calc'!A0",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: page FOLDER [RECORDS]")?;
    let records = arguments.next().map_or(Ok(RECORDS), |text| text.parse())?;
    let path = Path::new(&folder).join("audit.db");
    fill(&path, records)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}", listener.local_addr()?);
    let options = Options {
        store: path,
        retention: RETENTION,
        reader: LineReader::new(Vec::new(), None),
        follow: Vec::new(),
        reads_stdin: false,
        access_log_service: None,
        thresholds: Thresholds::default(),
        receiver: None,
        gates: vec![gate(&stub_gate()?)?, gate("http://127.0.0.1:1/.vkey/usage")?],
        ledger: None,
        listener,
        tls: None,
        has_client_certificates: false,
        report_ledger: Box::new(|_| {}),
        report: Box::new(|_| {}),
    };
    let stopper = Stopper::default();
    thread::spawn({
        let stopper = stopper.clone();
        move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            stopper.stop();
        }
    });
    Ok(server::run(options, Engines { trail: engine()?, ledger: None }, &stopper)?)
}

fn gate(url: &str) -> Result<Arc<Gate>, Box<dyn Error>> {
    Ok(Arc::new(Gate::new(Client::new(url, ClientOptions::default())?)))
}

/// A server that says the same of each key. Returns the URL of its usage endpoint.
fn stub_gate() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/.vkey/usage", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(url)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    const USAGE: &str = r#"{"limits":[
        {"name":"key_quota_day","limit":1000,"used":941,"remaining":59,"reset_secs":4711},
        {"name":"tier_cost_month","limit":25000000,"used":1500000,"remaining":23500000,"reset_secs":86400},
        {"name":"<b>total</b>","limit":null,"used":18446744073709551615,"remaining":null,"reset_secs":null}]}"#;
    let lines = BufReader::new(stream.try_clone()?).lines();
    for line in lines {
        if line?.is_empty() {
            let len = USAGE.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n{USAGE}")?;
        }
    }
    Ok(())
}

fn engine() -> Result<Engine, Box<dyn Error>> {
    let config = Config::parse(CONFIG.as_bytes()).map_err(|error| error.to_string())?;
    let plan = config.compile(|_| Some(SECRET.to_owned())).and_then(Plan::ready);
    Ok(Engine::new(plan.map_err(|error| error.to_string())?))
}

/// Writes records of the last days, with chains of which one lacks records.
fn fill(path: &Path, records: u64) -> Result<(), Box<dyn Error>> {
    #[expect(clippy::disallowed_methods, reason = "an example is an edge")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now_micros = u64::try_from(now.as_micros())?;
    let mut store = Store::open(path, RETENTION)?;
    let secret =
        Secret::parse("Audit-secret-of-the-example-1").map_err(|error| format!("{error:?}"))?;
    let key = AuditKey::new(&secret);
    let reader = LineReader::new(Vec::new(), None);
    let mut chains: Vec<_> = (0..4_u8).map(|id| Chain::new(key.clone(), &[&[id]])).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut items = Vec::new();
    for number in 0..records {
        let age = MICROS_PER_DAY * DAYS * (records - number) / records;
        let chain = random.below(chains.len() as u64) as usize;
        let Some(chain) = chains.get_mut(chain) else { continue };
        let line = line(&mut random, number, now_micros - age, chain);
        if !(40_000..40_003).contains(&number) {
            items.push(reader.read(&line));
        }
        if chain.len().is_multiple_of(1000) {
            items.push(reader.read(&anchor(chain, now_micros - age)));
        }
        if items.len() >= BATCH {
            let batch = Batch { items: std::mem::take(&mut items), position: None };
            store.push(&[batch])?;
        }
    }
    items.push(Item::Finding("changed", format!("line 17: {}", HOSTILE[0])));
    store.push(&[Batch { items, position: None }])?;
    Ok(())
}

fn anchor(chain: &Chain, ts_micros: u64) -> String {
    let host_members = r#","host":"gateway-1""#;
    chain.anchor(&AnchorContext { ts_micros, host_members, plan: "9395d4c0f759", is_end: false })
}

/// An audit line, the next of a chain.
fn line(random: &mut Random, number: u64, ts_micros: u64, chain: &mut Chain) -> String {
    let decision = match random.below(100) {
        0..6 => Decision::Deny(REASONS[random.skewed(REASONS.len())]),
        6..7 => Decision::Preflight,
        _ => Decision::Allow,
    };
    let mut record = AuditRecord {
        ts_micros,
        host: text("gateway-1"),
        req: Some(format!("{:08x}-0000-4000-8000-{number:012x}", random.below(1 << 32)).into()),
        decision: Some(decision),
        src: text("10.1.2.3"),
        method: text("POST"),
        authority: text("api.example.com"),
        tls_policy: text("4d5f0b3c"),
        anomaly: (number % 9_001 == 9_000).then(|| "rate".into()),
        plan: text("9395d4c0f759/3"),
        ..AuditRecord::default()
    };
    if decision.reason().is_none_or(|reason| !reason.is_failed_authentication()) {
        add_key(&mut record, random);
    }
    add_purpose(&mut record, random);
    record.tls_verdict = verdict(&record, random).map(Into::into);
    if number % 5_000 == 4_999 {
        let hostile = HOSTILE[(number / 5_000) as usize % HOSTILE.len()];
        record.tenant = text(hostile);
        record.model = text(hostile);
        record.path = Some(format!("/{hostile}/{}", "x".repeat(900)).into());
    }
    let outcome = Outcome {
        start_micros: Some(ts_micros),
        status: Some(status(decision.reason(), random)),
        bytes_in: Some(random.below(20_000)),
        bytes_out: Some(random.below(20_000)),
        duration_ns: Some(40_000_000 + random.below(3_000_000_000)),
        upstream: text("192.0.2.7:443"),
        ..Outcome::default()
    };
    let mut written = record.write(&Mask::default());
    chain.link(&mut written, record.amounts());
    Line::splice(&written, &outcome, &Mask::default())
}

fn text(text: &'static str) -> Option<Cow<'static, str>> {
    Some(text.into())
}

fn add_key(record: &mut AuditRecord<'_>, random: &mut Random) {
    let tenant = TENANTS[random.skewed(TENANTS.len())];
    let key = random.skewed(12);
    record.kid = text("main");
    record.jti = Some(format!("k_{tenant}{key:02}").into());
    record.tenant = text(tenant);
    record.sub = Some(format!("agent-{key}").into());
    record.tier = text("default");
    record.caveats = Some(key as u64 % 3);
}

/// Makes it a call of a tool, or a request for a model with its tokens.
fn add_purpose(record: &mut AuditRecord<'_>, random: &mut Random) {
    if random.below(5) == 0 {
        let tool = TOOLS[random.skewed(TOOLS.len())];
        record.path = text("/mcp/main");
        record.mcp = Some(format!("tools/call {tool} main 2025-06-18").into());
        return;
    }
    record.path = text("/v1/chat/completions");
    if record.decision == Some(Decision::Allow) {
        let (model, price) = MODELS[random.skewed(MODELS.len())];
        let (input, output) = (random.below(4_000) + 20, random.below(900));
        let usage = TokenUsage { input, output, total: input + output, ..TokenUsage::default() };
        record.model = text(model);
        record.tokens = Some(Tokens { usage, source: TokenSource::Usage });
        record.cost = Some((input + output * 4) * price / 4);
    }
}

fn verdict(record: &AuditRecord<'_>, random: &mut Random) -> Option<&'static str> {
    match record.decision {
        Some(Decision::Deny(DenyReason::UpstreamName)) => Some("upstream_name"),
        Some(Decision::Allow) if record.mcp.is_some() => Some("unlisted"),
        Some(Decision::Allow) if random.below(400) == 0 => Some("skip"),
        Some(Decision::Allow) => Some("verified"),
        _ => None,
    }
}

fn status(reason: Option<DenyReason>, random: &mut Random) -> u64 {
    match reason {
        None if random.below(60) == 0 => 503,
        None => 200,
        Some(reason) if reason.is_failed_authentication() => 401,
        Some(DenyReason::UpstreamName) => 502,
        Some(DenyReason::Model | DenyReason::Path) => 403,
        Some(_) => 429,
    }
}

/// Numbers that are the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An index of which lower ones are more frequent.
    fn skewed(&mut self, length: usize) -> usize {
        let length = length as u64;
        (self.below(length) * self.below(length + 1) / length) as usize
    }
}
