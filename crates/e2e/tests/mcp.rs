//! `vkey mcp` between a client and a server of other authors: the package `mcp` and
//! `@modelcontextprotocol/server-everything`.

#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]
#![allow(clippy::disallowed_methods, reason = "the command judges keys by the real clock")]

#[path = "mcp/clients.rs"]
mod clients;
mod support;

use std::borrow::Cow;
use std::fs;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use vkey::audit::{AuditRecord, Line};
use vkey::decision::{Decision, DenyReason};

use support::{TempDir, artefact, root, vkey, wait_for};

/// The variable that the configuration names.
const SECRET: &str = "VKEY_MAIN_SECRET";

/// The variable that the key is in.
const KEY: &str = "VKEY_TEST_KEY";

const JTI: &str = "k_conversation";

/// How long the client waits, once it has closed the pipe, before it kills what it started.
const CLIENTS_PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn a_good_key_changes_nothing_in_a_conversation() {
    let gate = Gate::new("good");
    let talk = gate.talk(&gate.key(now_secs(), "1h"), "conversation", &[], &[]);
    let saw = &talk.saw;
    assert_eq!(saw["server"], "mcp-servers/everything");
    assert_eq!(saw["echo"], "Echo: a text, «quoted» — \"so\" \\ and \u{2028} so");
    assert_eq!(saw["sum"], "The sum of 2 and 40 is 42.");
    assert_eq!(
        saw["progress"],
        json!([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0], [5.0, 5.0]])
    );
    assert_eq!(
        (&saw["cancelled"], &saw["after_cancel"]),
        (&json!(true), &json!("Echo: still here"))
    );
    // The server asked the client in the middle of a call, and was answered.
    assert!(saw["sampled"].as_str().unwrap().contains("who is there?"), "{saw}");
    assert_eq!(saw["failure"]["code"], -32602);
    for (list, member) in [("tools", "get-sum"), ("prompts", "simple-prompt")] {
        assert!(saw[list].as_array().unwrap().contains(&json!(member)), "{saw}");
    }
    talk.assert_all_allowed();
    let calls = Vec::from_iter(
        talk.audit.iter().filter_map(|record| record.record.as_ref()?.mcp.as_deref()),
    );
    assert!(calls.iter().any(|call| call.starts_with("tools/call echo stdio 20")), "{calls:?}");
    talk.assert_left_in_time();
    let environment = saw["environment"].as_array().unwrap();
    for hidden in [KEY, SECRET] {
        assert!(!environment.contains(&json!(hidden)), "the server is given {hidden}");
    }
}

#[test]
fn a_key_that_expires_refuses_what_comes_after() {
    let gate = Gate::new("expires");
    let (now, lifetime) = (now_secs(), 15);
    let key = gate.key(now, &format!("{lifetime}s"));
    let until = (now + lifetime).to_string();
    let talk = gate.talk(&key, "expires", &["--until", &until], &[]);
    let saw = &talk.saw;
    assert!(saw["answered"].as_u64() > Some(0), "{saw}");
    assert_refusal(&saw["refusal"]);
    assert_eq!(saw["more"], json!([saw["refusal"], saw["refusal"]]));
    assert_eq!(saw["alive"], true);
    let lines: Vec<&[u8]> = talk.sent.split_inclusive(|byte| *byte == b'\n').collect();
    let (allowed, refused) = lines.split_at(lines.len() - 3);
    assert!(
        talk.received == allowed.concat(),
        "the server saw what it should not, or missed a message"
    );
    let (before, after) = talk.audit.split_at(allowed.len());
    before.iter().for_each(assert_allowed);
    assert_eq!(after.len(), refused.len(), "{after:?}");
    after.iter().for_each(assert_denied);
    talk.assert_left_in_time();
}

#[test]
fn ten_megabytes_pass_both_ways() {
    let gate = Gate::new("large");
    let key = gate.key(now_secs(), "1h");
    let talk = gate.talk(&key, "large", &[], &["--max-bytes", "16777216"]);
    assert_eq!((&talk.saw["bytes"], &talk.saw["same"]), (&json!(10_000_000), &json!(true)));
    talk.assert_all_allowed();
    talk.assert_left_in_time();
}

/// As many requests as the conversation costs, and none for what the client answers in the call.
#[test]
fn an_answer_in_a_call_needs_no_room_under_a_limit() {
    let gate = Gate::with("limited", &json!([{"requests": 4, "per": "total"}]));
    let talk = gate.talk(&gate.key(now_secs(), "1h"), "limited", &[], &[]);
    let saw = &talk.saw;
    assert!(saw["sampled"].as_str().unwrap().contains("who is there?"), "{saw}");
    assert_eq!(saw["refusal"]["data"]["reason"], "quota", "{saw}");
    let [first, second] = ["initialize", "notifications/initialized"];
    let methods = json!([first, second, "tools/list", "tools/call", null, "ping"]);
    assert_eq!(json!(talk.methods()), methods);
    let (allowed, refused) = talk.audit.split_at(4);
    allowed.iter().for_each(assert_allowed);
    assert_eq!(refused.len(), 1, "{refused:?}");
    talk.assert_left_in_time();
}

/// The server goes on for ten minutes unless it is killed: no pipe that closes makes it notice.
#[test]
fn a_client_that_leaves_in_the_middle_of_a_call_leaves_nothing_behind() {
    let gate = Gate::new("abandoned");
    let talk = gate.talk(&gate.key(now_secs(), "1h"), "abandoned", &[], &[]);
    assert_eq!(talk.saw["abandoned"], true);
}

/// A gate's configuration in a folder of its own, with the secret that it names.
struct Gate {
    dir: TempDir,
    secret: String,
}

/// What a conversation left behind.
struct Talk {
    saw: Value,
    audit: Vec<Line<'static>>,
    /// What the client wrote, and what of it the server read.
    sent: Vec<u8>,
    received: Vec<u8>,
}

// === impl Gate ===

impl Gate {
    fn new(label: &str) -> Self {
        Self::with(label, &json!([{"requests": 100_000, "per": "day"}]))
    }

    fn with(label: &str, quotas: &Value) -> Self {
        let dir = TempDir::new(&format!("mcp-{label}"));
        let config = json!({
            "keyring": [{"name": "main", "secret": format!("${{{SECRET}}}")}],
            "clock_skew": "0s",
            "tiers": {"default": {
                "only": {"methods": ["POST"], "paths": ["/mcp"]},
                "rate": {"requests": 1000, "per": "1s", "burst": 1000},
                "quotas": quotas,
            }},
            "tenants": {"acme": {}},
            "unlisted_tenants": "deny",
            "body": {"max_bytes": 16_777_216},
        });
        fs::write(dir.file("config.json"), config.to_string()).expect("the directory is ours");
        let secret = line(Command::new(vkey()).args(["secret", "new"]).output());
        Self { dir, secret }
    }

    /// A key that was minted then.
    fn key(&self, minted_secs: u64, lifetime: &str) -> String {
        let now = minted_secs.to_string();
        let mut mint = Command::new(vkey());
        mint.args([
            "mint", "--tenant", "acme", "--jti", JTI, "--lifetime", lifetime, "--now", &now,
        ]);
        mint.arg("--config").arg(self.dir.file("config.json"));
        line(mint.env(SECRET, &self.secret).output())
    }

    /// Lets the client go through a scenario with the server behind `vkey mcp`.
    fn talk(&self, key: &str, scenario: &str, client: &[&str], options: &[&str]) -> Talk {
        let mut command = Command::new(artefact("VKEY_TEST_MCP_CLIENT"));
        command
            .arg("-B")
            .arg(root().join("crates/e2e/tests/mcp/client.py"))
            .arg(scenario)
            .args(client);
        command.arg("--sent").arg(self.dir.file("sent")).arg("--");
        command.arg(vkey()).args(["mcp", "--key-env", KEY]).args(options);
        command.arg("--config").arg(self.dir.file("config.json"));
        command.arg("--audit").arg(self.dir.file("audit")).arg("--");
        command.arg("node").arg(root().join("crates/e2e/tests/mcp/recorded.mjs"));
        command.arg(self.dir.file("received")).arg(artefact("VKEY_TEST_MCP_SERVER"));
        let path = std::env::var_os("PATH").expect("a search path");
        command.env_clear().env("PATH", path).env(SECRET, &self.secret).env(KEY, key);
        // Files, because a pipe stays open for as long as a process that was left behind has it.
        let file = |name| fs::File::create(self.dir.file(name)).expect("the directory is ours");
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let status = command.status().expect("the client starts");
        self.assert_nothing_is_left();
        self.read(status, key)
    }

    fn read(&self, status: ExitStatus, key: &str) -> Talk {
        let text = |name| fs::read_to_string(self.dir.file(name)).expect(name);
        let err = text("stderr");
        assert!(status.success(), "{status}: {err}");
        let audit = text("audit");
        for hidden in [key, key.rsplit('.').next().unwrap(), &self.secret] {
            assert!(!err.contains(hidden) && !audit.contains(hidden), "a secret is shown");
        }
        let saw: Value = serde_json::from_str(&text("stdout")).expect("what the client saw");
        assert_eq!(saw["garbage"], json!([]), "standard output is the protocol's alone");
        Talk {
            saw,
            audit: audit.lines().map(|line| Line::parse(line).expect(line)).collect(),
            sent: fs::read(self.dir.file("sent")).expect("a copy of what was sent"),
            // There is none where the server was stopped before it had started.
            received: fs::read(self.dir.file("received")).unwrap_or_default(),
        }
    }

    /// Every process of a conversation has the name of this folder in its command line.
    fn assert_nothing_is_left(&self) {
        let running = || {
            let folders = fs::read_dir("/proc").expect("processes").flatten();
            let lines = folders.filter_map(|folder| fs::read(folder.path().join("cmdline")).ok());
            let texts = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
            texts.filter(|text| text.contains(self.dir.unique())).collect::<Vec<String>>()
        };
        wait_for(|| running().is_empty().then_some(()), || format!("left: {:#?}", running()));
    }
}

// === impl Talk ===

impl Talk {
    /// The method of each message that the client sent; null is an answer.
    fn methods(&self) -> Vec<Value> {
        self.messages().iter().map(|message| message["method"].clone()).collect()
    }

    fn messages(&self) -> &[Value] {
        self.saw["sent"].as_array().expect("a list")
    }

    /// One line for each message that is no answer in a call, and every byte of it at the server.
    fn assert_all_allowed(&self) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        // But for what some servers take for the end of a line.
        let sent = text(&self.sent).replace('\u{2028}', r"\u2028");
        assert!(text(&self.received) == sent, "not what the client sent");
        let messages = self.messages();
        let own = messages.iter().filter(|message| !message["method"].is_null()).count();
        assert_eq!(self.audit.len(), own, "{messages:?}");
        self.audit.iter().for_each(assert_allowed);
        let is_request =
            |message: &&Value| !message["method"].is_null() && !message["id"].is_null();
        let with = |status| self.audit.iter().filter(|line| line.outcome.status == status).count();
        let cancels = |message: &&Value| message["method"] == "notifications/cancelled";
        let cancelled = messages.iter().filter(cancels).count();
        assert_eq!(with(None), cancelled, "what is cancelled has no answer");
        assert_eq!(with(Some(200)) + cancelled, messages.iter().filter(is_request).count());
    }

    /// The command ended because its client had left, not because its client killed it.
    fn assert_left_in_time(&self) {
        let seconds = self.saw["closing_seconds"].as_f64().expect("seconds");
        assert!(seconds < CLIENTS_PATIENCE.as_secs_f64(), "{seconds} s");
    }
}

fn assert_allowed(line: &Line<'_>) {
    let record = line.record.as_ref().expect("a record");
    assert_eq!(record.decision, Some(Decision::Allow), "{record:?}");
    assert_eq!(record.jti, Some(Cow::Borrowed(JTI)), "{record:?}");
    assert!(matches!(line.outcome.status, None | Some(200 | 202)), "{line:?}");
    assert_mcp(record);
}

fn assert_denied(line: &Line<'_>) {
    let record = line.record.as_ref().expect("a record");
    assert_eq!(record.decision, Some(Decision::Deny(DenyReason::KeyExpired)), "{record:?}");
    assert_eq!(line.outcome.status, Some(401), "{line:?}");
    assert_mcp(record);
}

fn assert_mcp(record: &AuditRecord<'_>) {
    let asked = (record.method.as_deref(), record.path.as_deref());
    assert_eq!(asked, (Some("POST"), Some("/mcp")), "{record:?}");
}

/// The gate's reply, under its HTTP status, which no code of JSON-RPC, MCP or a client of it is.
fn assert_refusal(error: &Value) {
    assert_eq!(error["code"], 401, "{error}");
    assert_eq!(error["message"], "a valid virtual key is required");
    let data = json!({"status": 401, "type": "authentication_error", "code": "invalid_token"});
    assert_eq!(error["data"], data);
}

/// The one line that a command prints.
fn line(output: std::io::Result<Output>) -> String {
    let output = output.expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}
