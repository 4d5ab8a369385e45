//! `vkey serve`: a collector of its own for each test, on a free port.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use vkey::audit::{AuditKey, AuditRecord, Chain, Line, Mask, Outcome, TokenSource, Tokens};
use vkey::body::TokenUsage;
use vkey::decision::{Decision, DenyReason};
use vkey::key::keyring::Secret;

use crate::harness::{Gate, Vkey, one_line, text};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The time of the first record, Unix microseconds.
const BEGIN: u64 = 1_790_000_000_000_000;

/// The members of records that are texts of clients or keys.
const TEXTS: [&str; 8] = ["tenant", "key", "user", "model", "tool", "method", "path", "request_id"];

/// A configuration whose operators may see the trail, and a folder with the store and the logs.
struct Site {
    gate: Gate,
}

/// A collector that runs.
struct Collector {
    child: Child,
    address: String,
}

/// What it answered.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

// === impl Site ===

impl Site {
    fn new() -> Self {
        Self {
            gate: Gate::with(&json!({
                "keyring": [{"name": "main", "secret": "${MAIN}", "state": "active"}],
                "tiers": {"operator": {"only": {"paths": []}, "usage_of_others": true}},
                "audit": {"secret": "${MAIN}"},
            })),
        }
    }

    /// A key, minted now.
    fn mint(&self, args: &[&str]) -> String {
        let fixed = ["mint", "--tenant", "ops", "--lifetime", "1h"];
        one_line(&self.gate.vkey(&[&fixed, args].concat()).ok())
    }

    fn operator(&self) -> String {
        self.mint(&["--tier", "operator", "--aud", "vkey-serve"])
    }

    fn log(&self) -> std::path::PathBuf {
        self.gate.dir.file("audit.log")
    }

    fn command(&self, args: &[&str]) -> Vkey {
        let store = text(self.gate.dir.file("store.db"));
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--store", &store];
        self.gate.vkey(&[&fixed, args].concat())
    }

    fn serve(&self, args: &[&str]) -> Collector {
        Collector::start(&self.command(args))
    }

    /// A collector that follows the log.
    fn following(&self, args: &[&str]) -> Collector {
        self.serve(&[&["--follow", &text(self.log())], args].concat())
    }

    fn chain(&self, seed: &str) -> Chain {
        Chain::new(AuditKey::new(&Secret::parse(&self.gate.secret).unwrap()), &[seed.as_bytes()])
    }

    fn append(&self, lines: &[String]) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.log()).unwrap();
        file.write_all(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes())
            .unwrap();
    }
}

// === impl Collector ===

impl Collector {
    fn start(command: &Vkey) -> Self {
        let mut child = command.command().spawn().expect("the command starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).unwrap();
        let url = line.trim().rsplit("//").next().unwrap();
        let Some(address) = url.strip_suffix('/') else { panic!("{line}") };
        Self { child, address: address.to_owned() }
    }

    fn get(&self, key: &str, target: &str) -> Answer {
        self.request(&format!("GET {target} HTTP/1.1\r\nauthorization: Bearer {key}\r\n"), "")
    }

    fn request(&self, head: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let len = body.len();
        let rest = format!("host: localhost\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n");
        stream.write_all(format!("{head}{rest}{body}").as_bytes()).unwrap();
        Answer::read(stream)
    }

    fn json(&self, key: &str, target: &str) -> Value {
        let answer = self.get(key, target);
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Waits until the totals have this number of requests.
    fn wait_for(&self, key: &str, requests: u64) {
        wait_until("all requests", || {
            requests_of(&self.json(key, "/api/usage?by=day")) == requests
        });
    }

    /// Ends it as a supervisor does. Returns its exit code.
    fn end(mut self) -> i32 {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap().code().expect("an exit code, not a signal")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Answer {
    fn read(mut stream: impl Read) -> Self {
        let mut bytes = Vec::new();
        // A server with TLS may end without a closing alert.
        _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect(&text);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test gives up after a while")]
fn wait_until(what: &str, is_there: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_there() {
        assert!(begin.elapsed() < DEADLINE, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::disallowed_methods, reason = "alerts are about requests of now")]
fn now_micros() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

fn requests_of(usage: &Value) -> u64 {
    let rows = usage["rows"].as_array().unwrap();
    rows.iter().map(|row| row["requests"].as_u64().unwrap()).sum()
}

fn record(number: u64) -> AuditRecord<'static> {
    AuditRecord {
        ts_micros: BEGIN + number * 1000,
        host: Some("gateway-1".into()),
        req: Some(format!("request-{number}").into()),
        decision: Some(Decision::Allow),
        jti: Some(format!("k_{}", number % 7).into()),
        tenant: Some("acme".into()),
        sub: Some(if number.is_multiple_of(5) { "admin" } else { "app" }.into()),
        path: Some("/v1/models".into()),
        method: Some("GET".into()),
        ..AuditRecord::default()
    }
}

fn line(chain: &mut Chain, record: &AuditRecord<'_>, status: u64) -> String {
    let mut text = record.write(&Mask::default());
    chain.link(&mut text, record.amounts());
    let outcome = Outcome { status: Some(status), ..Outcome::default() };
    Line::splice(&text, &outcome, &Mask::default())
}

fn lines(chain: &mut Chain, numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| line(chain, &record(number), 200)).collect()
}

#[test]
fn failed_requests_and_those_of_a_user_are_asked_for_in_these_words() {
    let site = Site::new();
    let mut chain = site.chain("a");
    let mut log = lines(&mut chain, 0..300);
    for number in 300..360 {
        let reason = DenyReason::KeyExpired;
        let denied = AuditRecord { decision: Some(Decision::Deny(reason)), ..record(number) };
        log.push(line(&mut chain, &denied, 401));
    }
    log.push(line(&mut chain, &record(360), 503));
    site.append(&log);
    let (collector, key) = (site.following(&[]), site.operator());
    collector.wait_for(&key, 361);
    let failed = collector.json(&key, "/api/audit/logs?status=failed&limit=50");
    let records = failed["records"].as_array().unwrap();
    assert_eq!(records.len(), 50);
    assert_eq!((&records[0]["code"], &records[0]["decision"]), (&json!(503), &json!("allow")));
    assert_eq!((&records[1]["code"], &records[1]["reason"]), (&json!(401), &json!("key_expired")));
    assert!(records.iter().all(|record| record["status"] == "failed"));
    let next = failed["next"].as_str().unwrap();
    let rest =
        collector.json(&key, &format!("/api/audit/logs?status=failed&limit=50&cursor={next}"));
    assert_eq!((rest["records"].as_array().unwrap().len(), &rest["next"]), (11, &Value::Null));
    let admin = collector.json(&key, "/api/audit/logs?user=admin&limit=100");
    let records = admin["records"].as_array().unwrap();
    assert!(records.iter().all(|record| record["user"] == "admin"));
    assert_eq!(records.len(), 73, "every fifth of 361");
    assert_eq!(records[0]["line"], log[360], "the line is kept as it is");
    let chain = collector.json(&key, "/api/chain");
    assert_eq!((&chain["intact"], &chain["chains"][0]["verified"]), (&json!(true), &json!(361)));
    assert_eq!(collector.end(), 0);
}

#[test]
fn totals_are_grouped_and_filtered() {
    let site = Site::new();
    let mut chain = site.chain("a");
    let usage = TokenUsage { input: 10, output: 5, total: 15, ..TokenUsage::default() };
    let tokens = Some(Tokens { usage, source: TokenSource::Usage });
    let mut log = Vec::new();
    for number in 0..20_u64 {
        let model =
            Some(if number.is_multiple_of(4) { "gpt-4o +1" } else { "o3\u{2192}o3-2026" }.into());
        let record = AuditRecord { model, tokens, cost: Some(7), ..record(number) };
        log.push(line(&mut chain, &record, 200));
    }
    site.append(&log);
    let (collector, key) = (site.following(&[]), site.operator());
    collector.wait_for(&key, 20);
    let models = collector.json(&key, "/api/usage?by=model");
    let row = |name, requests: u64| {
        json!({"name": name, "requests": requests, "failed": 0, "refused": 0, "tokens_in": requests * 10,
               "tokens_out": requests * 5, "tokens": requests * 15, "cost_micro_usd": requests * 7})
    };
    assert_eq!(models, json!({"by": "model", "rows": [row("o3", 15), row("gpt-4o", 5)]}));
    let key_rows = collector.json(&key, "/api/usage?by=key&model=gpt-4o&tenant=acme");
    assert_eq!(requests_of(&key_rows), 5);
    let csv = collector.get(&key, "/api/usage?by=model&format=csv").body;
    let expected = "name,requests,failed,refused,tokens_in,tokens_out,tokens,cost_micro_usd\r\n\
        o3,15,0,0,150,75,225,105\r\ngpt-4o,5,0,0,50,25,75,35\r\n";
    assert_eq!(csv.replace('"', ""), expected);
    assert!(csv.starts_with("\"name\",\"requests\","), "each cell is quoted: {csv}");
    let none = collector.json(&key, "/api/usage?by=day&to=2020-01-01");
    assert_eq!(none["rows"], json!([]));
}

#[test]
fn only_keys_that_may_see_the_usage_of_others_with_the_audience_of_the_server_get_in() {
    let site = Site::new();
    let collector = site.serve(&[]);
    let operator = site.operator();
    let status = |key: &str| collector.get(key, "/api/chain").status;
    assert_eq!(status(&operator), 200);
    assert_eq!(status(&site.mint(&["--aud", "vkey-serve"])), 403, "another tier");
    assert_eq!(status(&site.mint(&["--tier", "operator"])), 401, "no audience");
    assert_eq!(status(&site.mint(&["--tier", "operator", "--aud", "gw"])), 401);
    let expired = site.mint(&["--tier", "operator", "--aud", "vkey-serve", "--now", "1790000000"]);
    assert_eq!(status(&expired), 401);
    let narrowed = |caveat: &str| {
        one_line(&Vkey::new(&["attenuate", "--caveat", caveat]).stdin(&operator).ok())
    };
    let usage = narrowed(r#"{"paths":["/api/usage"]}"#);
    assert_eq!(collector.get(&usage, "/api/usage?by=day").status, 200);
    assert_eq!(collector.get(&usage, "/api/chain").status, 403, "a caveat about paths counts");
    assert_eq!(status(&narrowed(r#"{"sources":["10.0.0.0/8"]}"#)), 403);
    assert_eq!(status(&operator.replace("vk1.", "vk1.x")), 401);
    let none = collector.request("GET /api/chain HTTP/1.1\r\n", "");
    assert_eq!(none.status, 401);
    assert!(none.head.contains("www-authenticate: Bearer"), "{}", none.head);
    let page = collector.request("GET / HTTP/1.1\r\n", "");
    assert_eq!(page.status, 303, "a browser is sent to the form");
    for open in ["/login", "/healthz", "/openapi.json", "/style.css"] {
        let answer = collector.request(&format!("GET {open} HTTP/1.1\r\n"), "");
        assert_eq!(answer.status, 200, "{open}");
        assert!(answer.head.contains("default-src 'none'"), "{open}");
        assert!(!answer.head.contains("unsafe-inline"), "{open}");
    }
}

#[test]
fn a_source_of_invalid_keys_is_told_to_wait_and_valid_keys_are_not() {
    let site = Site::new();
    let (collector, key) = (site.serve(&[]), site.operator());
    let statuses: Vec<u16> = (0..12).map(|_| collector.get("vk1.x", "/api/chain").status).collect();
    assert_eq!(statuses, [[401; 10].as_slice(), &[429; 2]].concat());
    let answer = collector.get("vk1.x", "/api/chain");
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    assert_eq!(collector.get(&key, "/api/chain").status, 200);
    let login = collector.request(
        "POST /login HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\n",
        "key=vk1.x",
    );
    assert_eq!(login.status, 429);
    let page = |key: &str| {
        let head = format!("GET /logs HTTP/1.1\r\nauthorization: Bearer {key}\r\n");
        collector.request(&head, "").status
    };
    assert_eq!((page("vk1.x"), page(&key)), (429, 200));
}

#[test]
fn invalid_keys_for_pages_count_too() {
    let site = Site::new();
    let (collector, key) = (site.serve(&[]), site.operator());
    let pages: Vec<u16> = (0..11).map(|_| collector.get("vk1.x", "/logs").status).collect();
    assert_eq!(pages, [[303; 10].as_slice(), &[429]].concat());
    assert_eq!(collector.request("GET /logs HTTP/1.1\r\n", "").status, 303, "without a key");
    assert_eq!(collector.get("vk1.x", "/api/chain").status, 429);
    assert_eq!(collector.get(&key, "/logs").status, 200);
}

/// A client with very many connections takes a part of them only, and keeps nobody else out.
#[test]
fn the_number_of_connections_is_bounded() {
    let site = Site::new();
    let (collector, key) = (site.serve(&[]), site.operator());
    let head = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let ask = |stream: &mut TcpStream| {
        let mut answer = [0; 12];
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.read_exact(&mut answer));
        sent.is_ok_and(|()| answer.ends_with(b"200"))
    };
    let mut open: Vec<TcpStream> =
        (0..600).map(|_| TcpStream::connect(&collector.address).unwrap()).collect();
    let answered = open.iter_mut().map(ask).filter(|is_answered| *is_answered).count();
    assert!((120..=128).contains(&answered), "{answered}");
    drop(open);
    wait_until("an answer", || {
        let mut stream = TcpStream::connect(&collector.address).unwrap();
        ask(&mut stream)
    });
    assert_eq!(collector.get(&key, "/api/chain").status, 200);
}

#[test]
fn a_browser_signs_in_and_out() {
    let site = Site::new();
    let (collector, key) = (site.serve(&[]), site.operator());
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let login =
        collector.request(&format!("POST /login HTTP/1.1\r\n{form}"), &format!("key={key}"));
    assert_eq!(login.status, 303);
    for path in ["/login", "/logout"] {
        let site = "sec-fetch-site: cross-site\r\n";
        let head = format!("POST {path} HTTP/1.1\r\n{form}{site}");
        assert_eq!(collector.request(&head, &format!("key={key}")).status, 403, "{path}");
    }
    let cookie = login.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains(&key[10..]), "the cookie has no part of the key");
    let pair = cookie.split(';').next().unwrap();
    let get = |path: &str| {
        collector.request(&format!("GET {path} HTTP/1.1\r\ncookie: a=b; {pair}\r\n"), "").status
    };
    assert_eq!((get("/"), get("/api/chain")), (200, 200));
    let out = collector.request(&format!("POST /logout HTTP/1.1\r\ncookie: {pair}\r\n"), "");
    assert_eq!((out.status, get("/"), get("/api/chain")), (303, 303, 401));
}

/// Texts that would mean something to SQL, HTML, spreadsheets or terminals.
fn hostile() -> Vec<String> {
    let parts = [
        "'",
        "\"",
        "' OR 1=1 --",
        "'; DROP TABLE records; --",
        "%",
        "_",
        "*",
        "\\",
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "&lt;",
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r\nset-cookie: a=b",
        "\u{1b}[2J",
        "\u{202e}abc",
        "\0",
        "\u{7f}",
        "{{7*7}}",
        "${MAIN}",
        "../../etc/passwd",
        "\u{fffd}",
        "\u{1f511}",
        "a,b;c",
        "NULL",
        "0",
        "1e309",
    ];
    let mut texts = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        texts.push((*part).to_owned());
        texts.push(format!("{part}{}", parts[(number * 7 + 3) % parts.len()]));
        texts.push(part.repeat(400));
        texts.push(format!("x{part}y"));
        texts.push(part.to_uppercase() + "z");
    }
    texts.sort();
    texts.dedup();
    texts
}

#[test]
fn hostile_records_and_questions_are_only_texts() {
    let site = Site::new();
    let mut chain = site.chain("a");
    let texts = hostile();
    let mut log = Vec::new();
    for (number, text) in (0..).zip(&texts) {
        let text = || Some(text.as_str().into());
        let record = AuditRecord {
            jti: text(),
            tenant: text(),
            sub: text(),
            model: text(),
            mcp: Some(format!("tools/call t{number} - -").into()),
            method: text(),
            path: text(),
            ..record(number)
        };
        log.push(line(&mut chain, &record, 200));
    }
    site.append(&log);
    let (collector, key) = (site.following(&[]), site.operator());
    let total = u64::try_from(texts.len()).unwrap();
    collector.wait_for(&key, total);
    // What the store has of each text, as a reader of the lines sees it.
    let all = collector.json(&key, "/api/audit/logs?limit=1000");
    let records = all["records"].as_array().unwrap();
    assert_eq!(records.len(), texts.len());
    let mut asked = 0;
    for (name, member) in [("user", "sub"), ("tenant", "tenant"), ("path", "path")] {
        for record in records {
            let line: Value = serde_json::from_str(record["line"].as_str().unwrap()).unwrap();
            let value = line[member].as_str().unwrap();
            assert_eq!(record[name], value);
            if value.is_empty() || (name == "path" && value.ends_with('*')) || value.len() > 2000 {
                continue;
            }
            let query: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let found = collector.json(&key, &format!("/api/audit/logs?limit=1000&{name}={query}"));
            let found: BTreeSet<&str> = found["records"]
                .as_array()
                .unwrap()
                .iter()
                .map(|record| record[name].as_str().unwrap())
                .collect();
            assert_eq!(found, BTreeSet::from([value]), "{name}");
            asked += 1;
        }
    }
    assert!(asked >= 300, "{asked}");
    let csv = collector.get(&key, "/api/audit/logs?limit=1000&format=csv").body;
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let mut rows = 0;
    for row in reader.records() {
        rows += 1;
        for cell in &row.unwrap() {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell:?}");
        }
    }
    assert_eq!(rows, texts.len());
    // Questions that cannot be meant name the parameter, whatever its name is.
    for text in texts.iter().filter(|text| text.len() < 1000) {
        let name: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = collector.get(&key, &format!("/api/audit/logs?{name}=1"));
        assert_eq!(answer.status, 400, "{text:?}");
        let _: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(!answer.head.contains("a=b"));
    }
    assert_eq!(requests_of(&collector.json(&key, "/api/usage?by=tenant")), total);
    for page in ["/", "/logs?limit=1000", "/chain"] {
        let body = collector.get(&key, page).body;
        assert!(!body.contains("<script>alert") && !body.contains("<img src=x"), "{page}");
        assert!(
            !body.contains('\u{1b}') && !body.contains('\0') && !body.contains('\u{202e}'),
            "{page}"
        );
    }
    for name in TEXTS {
        let answer = collector.get(&key, &format!("/api/audit/logs?{name}={}", "a".repeat(5000)));
        assert_eq!(answer.status, 400, "{name}");
    }
}

#[test]
fn a_collector_that_is_killed_loses_and_doubles_nothing_through_rotation() {
    let site = Site::new();
    let key = site.operator();
    let mut chain = site.chain("a");
    let mut other = site.chain("b");
    let mut written = 0;
    fs::write(site.log(), "").unwrap();
    for round in 0..10 {
        let collector = site.following(&[]);
        for part in 0..5 {
            let mut log = lines(&mut chain, written..written + 200);
            log.extend(lines(&mut other, written + 200..written + 400));
            written += 400;
            // The last line is cut, and goes on in the next part.
            site.append(&log);
            if written == 400 {
                // A file that is renamed before the first look is an old one, which is not read.
                collector.wait_for(&key, written);
            }
            if part == 2 {
                let old = site.gate.dir.file(&format!("audit.log.{round}"));
                fs::rename(site.log(), old).unwrap();
            }
        }
        if round % 2 == 0 {
            collector.wait_for(&key, written);
        }
        drop(collector);
    }
    let collector = site.following(&[]);
    collector.wait_for(&key, written);
    let chains = collector.json(&key, "/api/chain");
    assert_eq!(chains["intact"], true, "{chains}");
    let verified = chains["chains"].as_array().unwrap().iter().map(|chain| &chain["verified"]);
    assert_eq!(verified.collect::<Vec<_>>(), [&json!(written / 2), &json!(written / 2)]);
}

#[test]
fn a_line_that_was_changed_is_a_finding_and_no_record() {
    let site = Site::new();
    let mut log = lines(&mut site.chain("a"), 0..4);
    log[1] = log[1].replace("/v1/models", "/v1/modelz");
    log.push("{\"vkey\":\"2\",\"cut".to_owned());
    site.append(&log);
    let (collector, key) = (site.following(&[]), site.operator());
    collector.wait_for(&key, 3);
    let chain = collector.json(&key, "/api/chain");
    assert_eq!((&chain["intact"], &chain["chains"][0]["gaps"]), (&json!(false), &json!([[1, 1]])));
    let kinds = chain["findings"].as_array().unwrap().iter().map(|finding| &finding["kind"]);
    assert_eq!(kinds.collect::<Vec<_>>(), ["unreadable", "changed"]);
}

#[test]
fn standard_input_is_collected_and_masked_on_top() {
    let site = Site::new();
    let command = site.command(&["--follow", "-", "--mask", "sub", "--mask", "path"]);
    let mut collector = Collector::start(&command);
    let log = lines(&mut site.chain("a"), 0..3);
    let mut stdin = collector.child.stdin.take().unwrap();
    stdin.write_all((log.join("\n") + "\n").as_bytes()).unwrap();
    let key = site.operator();
    collector.wait_for(&key, 3);
    let answer = collector.get(&key, "/api/audit/logs").body;
    assert!(!answer.contains("/v1/models") && !answer.contains("admin"), "{answer}");
    assert!(answer.contains("***REDACTED***"));
    let chain = collector.json(&key, "/api/chain");
    assert_eq!(chain["chains"][0]["verified"], 3, "verified before it was masked");
    assert_eq!(collector.end(), 0, "although the pipe is open");
}

#[test]
fn a_pipe_that_never_ends_does_not_keep_the_collector_from_ending() {
    let site = Site::new();
    let mut collector = Collector::start(&site.command(&["--follow", "-"]));
    let mut stdin = collector.child.stdin.take().unwrap();
    let unseen =
        "{\"vkey\":\"-\",\"start\":\"2026-11-30T08:00:00.000Z\",\"status\":404}\n".repeat(100);
    let writing = std::thread::spawn(move || while stdin.write_all(unseen.as_bytes()).is_ok() {});
    let key = site.operator();
    wait_until("some requests", || requests_of(&collector.json(&key, "/api/usage?by=day")) >= 100);
    assert_eq!(collector.end(), 0);
    writing.join().unwrap();
}

#[test]
fn amounts_of_any_size_are_kept_and_added() {
    let site = Site::new();
    let mut chain = site.chain("a");
    let usage = TokenUsage { input: 1, total: u64::MAX - 1, ..TokenUsage::default() };
    let tokens = Some(Tokens { usage, source: TokenSource::Usage });
    let huge = |number| AuditRecord { tokens, cost: Some(u64::MAX), ..record(number) };
    let log: Vec<_> = (0..30).map(|number| line(&mut chain, &huge(number), 200)).collect();
    site.append(&log);
    let (collector, key) = (site.following(&[]), site.operator());
    collector.wait_for(&key, 30);
    assert_eq!(collector.json(&key, "/api/chain")["intact"], true);
    let usage = collector.json(&key, "/api/usage?by=tenant");
    assert!(usage["rows"][0]["tokens"].as_u64().unwrap() >= 1 << 61, "{usage}");
    assert_eq!(usage["rows"][0]["tokens_in"], 30);
    assert_eq!(collector.get(&key, "/").status, 200);
}

#[test]
fn the_oldest_records_make_room_and_the_totals_stay() {
    let site = Site::new();
    site.append(&lines(&mut site.chain("a"), 0..1000));
    let (collector, key) = (site.following(&["--max-records", "100"]), site.operator());
    collector.wait_for(&key, 1000);
    let kept = || {
        let found = collector.json(&key, "/api/audit/logs?limit=1000");
        found["records"].as_array().unwrap().len()
    };
    wait_until("pruned records", || kept() <= 101);
    let latest = collector.json(&key, "/api/audit/logs?limit=1");
    assert_eq!(latest["records"][0]["request_id"], "request-999");
    assert_eq!(requests_of(&collector.json(&key, "/api/usage?by=day")), 1000);
}

#[test]
fn clients_connect_with_tls_and_a_certificate_where_that_is_asked_for() {
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

    let site = Site::new();
    let authority = KeyPair::generate().unwrap();
    let params = CertificateParams::new(Vec::new()).unwrap();
    let mut params = params;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, authority).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &authority).unwrap();
    let cert = site.gate.file("cert.pem", leaf.pem());
    let key = site.gate.file("key.pem", leaf_key.serialize_pem());
    let ca = site.gate.file("ca.pem", authority.pem());
    let collector = site.serve(&["--cert", &cert, "--key", &key, "--client-ca", &ca]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let client = |is_known: bool| {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone());
        let config = if is_known {
            let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
            let key = PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into());
            config.with_client_auth_cert(chain, key).unwrap()
        } else {
            config.with_no_client_auth()
        };
        let name = ServerName::try_from("localhost").unwrap();
        let connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(&collector.address).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let head = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut bytes = Vec::new();
        _ = stream.write_all(head.as_bytes());
        _ = stream.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    };
    let answer = client(true);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("strict-transport-security: "), "{answer}");
    assert_eq!(client(false), "", "no certificate");
}

#[test]
fn alerts_are_shown_and_counted_and_reach_a_receiver_once() {
    let site = Site::new();
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/alerts", receiver.local_addr().unwrap());
    let (to, posted) = std::sync::mpsc::channel();
    let taking = std::thread::spawn(move || {
        for (number, stream) in receiver.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let read = stream.read(&mut bytes).unwrap();
                request.extend_from_slice(&bytes[..read]);
            }
            let status = if number == 0 { "500 Busy" } else { "204 Taken" };
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .unwrap();
            to.send(String::from_utf8(request).unwrap()).unwrap();
            if number == 1 {
                return;
            }
        }
    });
    let now = now_micros();
    let mut chain = site.chain("a");
    let denied = |number: u64| AuditRecord {
        ts_micros: now + number,
        decision: Some(Decision::Deny(DenyReason::KeySignature)),
        ..record(number)
    };
    let log: Vec<_> = (0..5).map(|number| line(&mut chain, &denied(number), 401)).collect();
    site.append(&log);
    let token = site.gate.file("token", "token-of-the-receiver\n");
    let args = [
        "--alert-url", &url, "--alert-threshold", "authentication=5", "--alert-token-file", &token,
    ];
    let (collector, key) = (site.following(&args), site.operator());
    for _ in 0..2 {
        let request = posted.recv_timeout(DEADLINE).unwrap();
        assert!(request.starts_with("POST /alerts HTTP/1.1\r\n"), "{request}");
        assert!(
            request
                .to_ascii_lowercase()
                .contains("authorization: bearer token-of-the-receiver\r\n")
        );
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let alert: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&alert["kind"], &alert["count"]), (&json!("authentication"), &json!(5)));
    }
    taking.join().unwrap();
    wait_until("a delivery", || {
        !collector.json(&key, "/api/alerts")["alerts"][0]["delivered_time"].is_null()
    });
    let alerts = collector.json(&key, "/api/alerts");
    assert_eq!(alerts["alerts"].as_array().unwrap().len(), 1, "one cause, one alert");
    let metrics = collector.get(&key, "/metrics").body;
    for sample in [
        "vkey_audit_records_total 5",
        "vkey_audit_refused_total 5",
        "vkey_audit_requests_total{reason=\"key_signature\"} 5",
        "vkey_audit_alerts_total{kind=\"authentication\"} 1",
        "vkey_audit_alerts_delivered_total 1",
        "vkey_audit_alert_deliveries_failed_total 1",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{sample}:\n{metrics}");
    }
    assert_eq!(collector.get("vk1.x", "/metrics").status, 401);
    assert_eq!(collector.end(), 0);
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let site = Site::new();
    let garbage = site.gate.file("garbage", "no certificate");
    site.command(&["--mask", "decision"]).refused(2, "expected one of host, req");
    site.command(&["--max-records", "0"]).refused(2, "--max-records");
    site.command(&["--cert", &garbage]).refused(2, "--key");
    site.command(&["--cert", &garbage, "--key", &garbage]).refused(1, "--cert has no certificate");
    site.command(&["--cert", "/nowhere", "--key", &garbage]).refused(3, "--cert");
    site.command(&["--follow", "-", "--audit-secret-file", "-"]).refused(2, "standard input");
    site.command(&["--als", "0.0.0.0:0"]).refused(2, "--client-ca");
    site.command(&["--alert-url", "http://192.0.2.1/"]).refused(2, "--alert-url");
    site.command(&["--alert-url", "nonsense"]).refused(2, "--alert-url");
    site.command(&["--alert-threshold", "window=1y"]).refused(2, "--alert-threshold");
    site.command(&["--alert-token-env", "UNSET"]).refused(2, "--alert-url");
    let key = site.gate.file("gate-key", site.operator());
    site.command(&["--gate", "https://gw.example"]).refused(2, "--gate-key-env");
    site.command(&["--gate-key-file", &key]).refused(2, "--gate");
    let gate = |url: &str, key: &str| site.command(&["--gate", url, "--gate-key-file", key]);
    gate("http://192.0.2.1/", &key).refused(2, "--gate: http exposes");
    gate("https://gw.example/?a", &key).refused(2, "--gate");
    gate("https://gw.example/", "/nowhere").refused(3, "--gate-key-file");
    gate("https://gw.example/", &garbage).refused(1, "key");
    site.command(&["--audit-secret-env", "UNSET"]).refused(3, "--audit-secret-env is not set");
    let listen = |address: &str| {
        let store = text(site.gate.dir.file("other.db"));
        site.gate.vkey(&["serve", "--listen", address, "--store", &store])
    };
    listen("0.0.0.0:0").refused(2, "--allow-http");
    let collector = site.serve(&[]);
    listen(&collector.address).refused(3, "choose another address");
    let second = site.command(&[]).run();
    assert_eq!(second.code, 3);
    assert!(second.err.contains("another `vkey serve` has the store"), "{}", second.err);
    let store = |path: &Path| {
        let path = text(path.to_owned());
        site.gate.vkey(&["serve", "--listen", "127.0.0.1:0", "--store", &path]).run()
    };
    let path = site.gate.file("store", "x".repeat(10_000));
    let rights =
        || std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    let before = rights();
    let garbage = store(Path::new(&path));
    assert_eq!(rights(), before, "a file that is no store is left alone");
    assert_eq!(garbage.code, 1, "{}", garbage.err);
    assert_eq!(store(Path::new("/nowhere/store.db")).code, 3);
    let folder = text(site.gate.dir.file(""));
    drop(collector);
    let done = site.command(&["--follow", &folder]).run();
    assert_eq!(done.code, 3, "{}", done.err);
    assert!(done.err.contains("cannot be followed"), "{}", done.err);
}

#[test]
fn the_description_of_the_api_has_all_parameters_and_members() {
    let site = Site::new();
    site.append(&lines(&mut site.chain("a"), 0..3));
    let (collector, key) = (site.following(&[]), site.operator());
    collector.wait_for(&key, 3);
    let description = collector.json(&key, "/openapi.json");
    for (path, query) in [
        ("/api/audit/logs", ""),
        ("/api/usage", "?by=day"),
        ("/api/chain", ""),
        ("/api/alerts", ""),
    ] {
        let operation = &description["paths"][path]["get"];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        let whole = json!({"$ref": schema["$ref"], "components": description["components"]});
        let validator = jsonschema::validator_for(&whole).unwrap();
        let answer = collector.json(&key, &format!("{path}{query}"));
        let errors: Vec<_> = validator.iter_errors(&answer).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{path}: {errors:?}");
        let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect();
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let known: BTreeSet<String> =
            members(&description["components"]["schemas"][name]["properties"]);
        assert_eq!(members(&answer), known, "{path}");
        // Each parameter is known, and no other is.
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let body = collector.get(&key, &format!("{path}?{name}=")).body;
            assert!(!body.contains("there is no parameter"), "{path} {name}: {body}");
        }
        let body = collector.get(&key, &format!("{path}?other=")).body;
        assert!(body.contains("there is no parameter `other`"), "{path}: {body}");
    }
}
