//! `vkey run`: requests in, results out, by the module itself.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Done, Gate, NOW, Vkey, attenuate, one_line};

/// Two busy cores reply to a line in milliseconds; a minute without a reply is a failure.
const DEADLINE: Duration = Duration::from_secs(60);

const PROVIDER: &str = "sk-provider-5f1c0e3a9b7d4682";

fn run(gate: &Gate, args: &[&str]) -> Vkey {
    let fixed = ["run", "--now", NOW];
    let args = if args.contains(&"--now") { args.to_vec() } else { [&fixed[1..], args].concat() };
    gate.vkey(&[&["run"], &*args].concat()).env("PROVIDER", PROVIDER)
}

fn lines(requests: &[Value]) -> String {
    requests.iter().map(|request| format!("{request}\n")).collect()
}

fn results(done: &Done) -> Vec<Value> {
    done.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// What each request comes to.
fn decisions(gate: &Gate, args: &[&str], requests: &[Value]) -> Vec<(String, Value)> {
    let done = run(gate, args).stdin(lines(requests)).ok();
    let decision = |result: Value| {
        (result["decision"].as_str().expect("a word").to_owned(), result["reason"].clone())
    };
    results(&done).into_iter().map(decision).collect()
}

fn allow() -> (String, Value) {
    ("allow".to_owned(), Value::Null)
}

fn deny(reason: &str) -> (String, Value) {
    ("deny".to_owned(), json!(reason))
}

fn limited(quota: u64) -> Gate {
    Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {"quotas": [{"requests": quota, "per": "day"}]}},
    }))
}

#[test]
fn a_result_says_all_that_the_module_did() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {"only": {"methods": ["GET"]}}},
        "forward": {"credentials_in_front": true,
                    "credentials": [{"hosts": ["api.openai.com"], "header": "authorization",
                                     "value": "Bearer ${PROVIDER}"}]},
    }));
    let key = gate.mint(&["--sub", "ci", "--jti", "k_1"]);
    let requests = [
        json!({"id": ["any", 1], "key": key, "path": "/v1/models?b=1", "authority": "api.openai.com",
               "source": "192.0.2.7:4000", "headers": [["X-HTTP-Method-Override", "PUT"], ["x-other", "1"]],
               "status": 201, "bytes_out": 17}),
        json!({"key": key, "path": "/admin", "method": "DELETE"}),
        json!({"path": "/v1/models"}),
        json!({"key": key, "path": "/v1/models", "headers": [["X-Vkey-Sub", "forged"]]}),
        json!({"key": key, "path": "/.vkey/usage"}),
    ];
    let done = run(&gate, &[]).stdin(lines(&requests)).ok();
    let [allowed, denied, missing, forged, usage] = &results(&done)[..] else {
        panic!("{}", done.out)
    };
    assert_eq!(
        (&allowed["line"], &allowed["id"], &allowed["decision"], &allowed["status"]),
        (&json!(1), &json!(["any", 1]), &json!("allow"), &json!(201))
    );
    let hidden = "***REDACTED***";
    let added = json!([
        ["x-vkey-key", "k_1"],
        ["x-vkey-tenant", "acme"],
        ["x-vkey-sub", "ci"],
        ["authorization", hidden]
    ]);
    assert_eq!(sorted(&allowed["add"]), sorted(&added));
    assert_eq!(
        sorted(&allowed["remove"]),
        sorted(&json!(["authorization", "x-http-method-override"]))
    );
    assert_eq!((&allowed["answer"], &allowed["reply"]), (&json!([]), &Value::Null));
    let audit = &allowed["audit"];
    assert_eq!(
        (&audit["jti"], &audit["sub"], &audit["src"]),
        (&json!("k_1"), &json!("ci"), &json!("192.0.2.7"))
    );
    assert_eq!((&audit["path"], &audit["bytes_out"]), (&json!("/v1/models"), &json!(17)));

    assert_eq!((&denied["decision"], &denied["reason"]), (&json!("deny"), &json!("method")));
    assert_eq!((&denied["status"], &denied["audit"]["status"]), (&json!(403), &json!(403)));
    assert_eq!((&denied["add"], &denied["remove"]), (&json!([]), &json!([])));
    let body: Value = serde_json::from_str(denied["reply"]["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "method");

    assert_eq!((&missing["reason"], &missing["status"]), (&json!("key_missing"), &json!(401)));
    let challenge = json!(["www-authenticate", "Bearer error=\"invalid_token\""]);
    assert!(missing["reply"]["headers"].as_array().unwrap().contains(&challenge));

    assert_eq!((&forged["reason"], &forged["status"]), (&json!("header_mismatch"), &json!(400)));

    assert_eq!((&usage["decision"], &usage["status"]), (&json!("allow"), &json!(200)));
    let counts: Value = serde_json::from_str(usage["reply"]["body"].as_str().unwrap()).unwrap();
    assert_eq!((&counts["seen"], &counts["allowed"]), (&json!(3), &json!(1)));
    assert!(done.err.contains("ready in ") && done.err.contains("5 requests, 2 allowed, 3 denied"));
}

/// A gate on which the body of a request decides.
fn reading() -> Gate {
    Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {
            "only": {"models": ["small*"]},
            "quotas": [{"tokens": 100, "per": "total"}],
        }},
    }))
}

#[test]
fn a_body_decides_in_whatever_parts_it_comes() {
    let gate = reading();
    let key = gate.mint(&[]);
    let ask = |body: Value| {
        json!({"key": key, "path": "/v1/chat/completions", "method": "POST",
               "headers": [["content-type", "application/json"]], "body": body,
               "response": {"body": "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}"}})
    };
    let good = r#"{"model": "small-1", "max_tokens": 9}"#;
    let encoded = json!({"key": key, "path": "/v1/chat/completions", "method": "POST",
        "headers": [["content-type", "application/json"]], "body_b64": STANDARD.encode(good)});
    let requests = [
        ask(json!(good)),
        ask(json!(["{\"model\": \"sma", "ll-1\", \"max_tokens\": 9}"])),
        encoded,
        ask(json!(r#"{"model": "large", "max_tokens": 9}"#)),
        ask(json!(["{\"model\":", ",}"])),
        ask(json!(r#"{"model": "small-1", "max_tokens": 900}"#)),
    ];
    let expected =
        [allow(), allow(), allow(), deny("model"), deny("body_unreadable"), deny("quota")];
    assert_eq!(decisions(&gate, &[], &requests), expected);
    let twice = json!({"path": "/", "body": "a", "body_b64": "YQ=="});
    let wrong = [twice, json!({"path": "/", "body": 1}), json!({"path": "/", "body_b64": "a"})];
    let done = run(&gate, &[]).stdin(lines(&wrong)).run();
    for result in results(&done) {
        assert!(result["error"].as_str().unwrap().contains("body"), "{result}");
    }
}

#[test]
fn a_result_shows_the_changes_to_bodies_and_what_was_used() {
    let gate = reading();
    let key = gate.mint(&[]);
    let event = "data: {\"choices\":[{}]}\n\n";
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}\n\n";
    let ask = |response: Value| {
        json!({"key": key, "path": "/v1/chat/completions", "method": "POST",
               "headers": [["content-type", "application/json"]],
               "body": "{\"model\": \"small-1\", \"max_tokens\": 8, \"stream\": true}", "response": response})
    };
    let headers = json!([["content-type", "text/event-stream"]]);
    let requests = [
        ask(json!({"headers": headers, "body": [event, usage]})),
        ask(json!({"headers": headers, "body": event, "cut": "client"})),
    ];
    let done = run(&gate, &[]).stdin(lines(&requests)).ok();
    let [whole, cut] = &results(&done)[..] else { panic!("{}", done.out) };
    // The quote before it is the same as the one after it.
    let added = "stream_options\":{\"include_usage\":true},\"";
    assert_eq!(whole["body"], json!({"at": 2, "removed": 0, "added": added}));
    let removed = json!({"at": event.len(), "removed": usage.len(), "added": ""});
    assert_eq!(whole["answer_body"], removed);
    let tokens = |result: &Value| {
        let tokens = &result["audit"]["tokens"];
        (tokens["total"].clone(), tokens["src"].clone())
    };
    assert_eq!(tokens(whole), (json!(7), json!("usage")));
    assert_eq!(tokens(cut), (json!(10), json!("reserved")));
    assert_eq!(cut.get("answer_body"), None);
}

fn sorted(list: &Value) -> Vec<String> {
    let mut items: Vec<String> =
        list.as_array().expect("a list").iter().map(Value::to_string).collect();
    items.sort();
    items
}

#[test]
fn with_a_clock_that_is_held_the_same_lines_give_the_same_bytes() {
    let gate = limited(3);
    let key = gate.mint(&[]);
    let requests = lines(&vec![json!({"key": key, "path": "/v1"}); 5]);
    let once = |host: &str| run(&gate, &["--host", host]).stdin(&requests).ok().out;
    let first = once("envoy");
    assert_eq!(first, once("envoy"));
    // nginx shows a host header and a scheme besides.
    let on_nginx = once("nginx");
    assert_eq!(on_nginx, once("nginx"));
    assert_eq!(first, on_nginx);
}

#[test]
fn limits_and_expiry_follow_the_clock() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {"rate": {"requests": 1, "per": "10s", "burst": 2}}},
    }));
    let key = gate.mint(&[]);
    let now: u64 = NOW.parse().unwrap();
    let at = |secs: u64| json!({"key": key, "path": "/", "now": now + secs});
    let requests = [at(0), at(0), at(0), at(9), at(10), at(10), at(3599), at(3600)];
    let rate = || deny("rate");
    let expected =
        [allow(), allow(), rate(), rate(), allow(), rate(), allow(), deny("key_expired")];
    assert_eq!(decisions(&gate, &[], &requests), expected);
    let written = json!({"key": key, "path": "/", "now": "2036-01-01T00:00:00Z"});
    assert_eq!(decisions(&gate, &[], &[written]), [deny("key_expired")]);
}

#[test]
fn workers_count_together_and_answer_in_order() {
    let gate = limited(100);
    let key = gate.mint(&[]);
    let requests: Vec<Value> =
        (0..400).map(|n| json!({"id": n, "key": key, "path": "/v1"})).collect();
    let done = run(&gate, &["--workers", "4"]).stdin(lines(&requests)).ok();
    let results = results(&done);
    let ids: Vec<u64> = results.iter().map(|result| result["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..400).collect::<Vec<_>>());
    let allowed = results.iter().filter(|result| result["decision"] == "allow").count();
    assert_eq!(allowed, 100, "exactly, over all workers");
    let limited = results.iter().filter(|result| result["reason"] == "quota").count();
    assert_eq!(limited, 300);
}

/// Whatever the configuration says of the host, and whatever the host is: never above the limit, and nothing
/// where the two do not agree.
#[test]
fn no_configuration_lets_in_more_than_there_is_room_for() {
    const ROOM: usize = 20;
    let limit = json!({"default": {"quotas": [{"requests": ROOM, "per": "total"}]}});
    let keyring = json!([{"name": "main", "secret": "${MAIN}"}]);
    for told in ["auto", "envoy", "nginx", "bare"] {
        let gate = Gate::with(&json!({"keyring": keyring, "tiers": limit, "host": told}));
        let keys: Vec<String> = (0..8).map(|_| gate.mint(&[])).collect();
        // Each worker meets each key at once with the others: the first writes are those that get lost.
        let requests: Vec<Value> =
            (0..8 * 30).map(|n| json!({"id": n % 8, "key": keys[n % 8], "path": "/v1"})).collect();
        for host in ["envoy", "nginx", "bare"] {
            let done = run(&gate, &["--workers", "4", "--host", host]).stdin(lines(&requests)).ok();
            let results = results(&done);
            let allowed = |key: usize| {
                let of_key = results.iter().filter(|result| result["id"] == key);
                of_key.filter(|result| result["decision"] == "allow").count()
            };
            let agrees = host != "bare" && (told == "auto" || told == host);
            let expected = if agrees { ROOM } else { 0 };
            for key in 0..8 {
                assert_eq!(allowed(key), expected, "host {host}, told {told}");
            }
            let not_ready = results.iter().all(|result| result["reason"] == "not_ready");
            assert_eq!(not_ready, !agrees, "host {host}, told {told}");
        }
    }
}

#[test]
fn a_ring_without_its_secret_denies_its_own_keys() {
    let gate = Gate::with(&json!({"keyring": [
        {"name": "main", "secret": "${MAIN}"},
        {"name": "old", "secret": "${OLD}"},
    ]}));
    let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW, "--ring", "old"];
    let old = one_line(&gate.vkey(&mint).env("OLD", &gate.secret).ok());
    let request =
        |key: &str| json!({"method": "GET", "path": "/v1", "headers": [["x-api-key", key]]});
    let requests = [request(&old), request(&gate.mint(&[]))];
    assert_eq!(decisions(&gate, &[], &requests), [deny("not_ready"), allow()]);
    let done = run(&gate, &[]).ok();
    let says = "ring old: environment variable OLD is not set or empty";
    assert!(done.err.contains(says), "{}", done.err);
    let none = run(&gate, &[]).env("MAIN", "");
    none.refused(3, "ring main: environment variable MAIN is not set or empty");
}

#[test]
fn without_shared_data_limited_requests_are_denied() {
    let key_of = |gate: &Gate| gate.mint(&[]);
    let gate = limited(3);
    let request = json!({"key": key_of(&gate), "path": "/v1"});
    assert_eq!(decisions(&gate, &["--host", "bare"], &[request]), [deny("not_ready")]);
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}], "host": "bare",
        "tiers": {"limited": {"quotas": [{"requests": 3, "per": "day"}]}},
    }));
    let free = json!({"key": key_of(&gate), "path": "/v1"});
    let limited = json!({"key": gate.mint(&["--tier", "limited"]), "path": "/v1"});
    let expected = [allow(), deny("not_ready")];
    assert_eq!(decisions(&gate, &["--host", "bare"], &[free, limited]), expected);
}

#[test]
fn a_body_is_shown_and_other_sources_of_keys_are_used() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "key_sources": [{"header": "x-team-key", "scheme": "Key"}],
    }));
    let key = gate.mint(&[]);
    let narrow = attenuate(&key, r#"{"sources": ["10.0.0.0/8"]}"#);
    let requests = [
        json!({"key": key, "path": "/", "method": "POST", "body": "{\"model\": \"é\"}"}),
        json!({"headers": [["X-Team-Key", format!("Key {key}")]], "path": "/"}),
        json!({"headers": [["authorization", format!("Bearer {key}")]], "path": "/"}),
        json!({"key": narrow, "path": "/", "source": "10.1.2.3"}),
        json!({"key": narrow, "path": "/"}),
        json!({"key": narrow, "path": "/", "properties": {"source.address": "10.1.2.3:1"}}),
    ];
    let missing = || deny("key_missing");
    let expected = [allow(), allow(), missing(), allow(), deny("source"), allow()];
    assert_eq!(decisions(&gate, &[], &requests), expected);
    let done = run(&gate, &[]).stdin(lines(&requests[..1])).ok();
    let bytes = results(&done)[0]["audit"]["bytes_in"].as_u64().unwrap();
    let empty = json!({"key": key, "path": "/", "method": "POST"});
    let done = run(&gate, &[]).stdin(lines(&[empty])).ok();
    assert_eq!(bytes - results(&done)[0]["audit"]["bytes_in"].as_u64().unwrap(), 15);
}

#[test]
fn an_invalid_line_is_reported_and_affects_no_other() {
    let gate = limited(3);
    let key = gate.mint(&[]);
    let good = json!({"key": key, "path": "/v1"}).to_string();
    for (line, says) in [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ("{}", "path: missing"),
        (r#"{"path": 1}"#, "path: expected a string"),
        (r#"{"path": "/", "path": "/"}"#, "named twice"),
        (r#"{"path": "/", "pth": "/"}"#, "pth: unknown member"),
        (r#"{"path": "/", "now": "soon"}"#, "now: expected a time"),
        (r#"{"path": "/", "now": -1}"#, "now: expected"),
        (r#"{"path": "/", "source": "here"}"#, "source: expected an address"),
        (r#"{"path": "/", "client_cert": "abc"}"#, "client_cert: expected a SHA-256"),
        (r#"{"path": "/", "headers": {"a": "b"}}"#, "headers: expected"),
        (r#"{"path": "/", "headers": [["a"]]}"#, "headers[0]: expected a name and a value"),
        (r#"{"path": "/", "headers": [[":path", "/x"]]}"#, "headers[0]: expected the name"),
        (r#"{"path": "/", "headers": [["a", "b\r\nc: d"]]}"#, "headers[0]: expected a value"),
        (r#"{"path": "/", "status": 99}"#, "status: expected an HTTP status"),
        (r#"{"path": "/", "properties": {"a": 1}}"#, "properties.a: expected a string"),
    ] {
        let done = run(&gate, &[]).stdin(format!("{line}\n\n{good}")).run();
        assert_eq!(done.code, 1, "{line}: {}", done.err);
        let [bad, good] = &results(&done)[..] else { panic!("{line}: {}", done.out) };
        let error = bad["error"].as_str().expect("an error");
        assert!(error.contains(says), "{line}: {error}");
        assert_eq!((&bad["line"], bad.get("decision")), (&json!(1), None), "{line}");
        assert_eq!((&good["line"], &good["decision"]), (&json!(3), &json!("allow")), "{line}");
        assert!(done.err.contains("1 lines that are no request"), "{}", done.err);
    }
}

#[test]
fn lines_may_be_long_broken_and_unfinished() {
    let gate = limited(9);
    let key = gate.mint(&[]);
    let good = json!({"key": key, "path": "/v1"}).to_string();
    let long = json!({"key": key, "path": "/v1", "body": "x".repeat(3_000_000)}).to_string();
    let text = [
        long.as_bytes(),
        b"\n",
        good.as_bytes(),
        b"\r\n",
        b"\xff\xfe\n",
        &good.as_bytes()[..40],
        b"\xc3\n",
        b"\0\n",
        b"   \n",
        good.as_bytes(),
    ]
    .concat();
    let done = run(&gate, &["--workers", "3"]).stdin(&text).run();
    let found: Vec<_> =
        results(&done).iter().map(|r| (r["line"].clone(), r["decision"].clone())).collect();
    let allow = || json!("allow");
    let expected = [
        (1, Value::Null),
        (2, allow()),
        (3, Value::Null),
        (4, Value::Null),
        (5, Value::Null),
        (7, allow()),
    ];
    assert_eq!(found, expected.map(|(line, decision)| (json!(line), decision)));
    assert_eq!(results(&done)[0]["error"], "longer than 1048576 bytes");
    let longer = run(&gate, &["--max-line-bytes", "4000000"]).stdin(&text).run();
    assert_eq!(results(&longer)[0]["decision"], "allow");
    assert_eq!(run(&gate, &[]).ok().out, "", "no lines, no results");
}

// === streams that stay open ===

/// A run that is talked with; it does not outlive the test.
struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Session {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the command starts");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { stdin: child.stdin.take(), child, lines }
    }

    fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("it reads");
    }

    fn hear(&self) -> Value {
        let line =
            self.lines.recv_timeout(DEADLINE).expect("a result while standard input is open");
        serde_json::from_str(&line).expect(&line)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn a_result_comes_at_once_not_at_the_end() {
    let gate = limited(9);
    let request = json!({"key": gate.mint(&[]), "path": "/v1"}).to_string();
    for workers in ["1", "3"] {
        let mut session = Session::start(run(&gate, &["--workers", workers]).command());
        for number in 1..=4 {
            let (start, rest) = request.split_at(number);
            session.say(start);
            session.say(&format!("{rest}\n"));
            assert_eq!(session.hear()["line"], json!(number));
        }
        session.say(&request);
        session.stdin = None;
        assert_eq!(session.hear()["line"], json!(5), "a last line without an end");
        assert!(session.lines.recv_timeout(DEADLINE).is_err(), "and then the end");
    }
}

#[test]
fn a_reader_that_stops_ends_the_run() {
    let gate = limited(9);
    let request = json!({"key": gate.mint(&[]), "path": "/v1"}).to_string() + "\n";
    let mut child = run(&gate, &[]).command().spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // Lines without an end, until nobody takes them.
    let writer = thread::spawn(move || while stdin.write_all(request.as_bytes()).is_ok() {});
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("a result");
    drop(stdout);
    let mut err = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{err}");
    writer.join().expect("it ends too");
    assert!(!err.contains("panicked") && !err.contains("pipe"), "{err}");
}

#[test]
fn a_slow_reader_holds_the_writer_back() {
    const LINES: u64 = 8000;
    const READ: u64 = 400;
    let gate = limited(9);
    let request = json!({"key": gate.mint(&[]), "path": "/v1"}).to_string() + "\n";
    let mut child = run(&gate, &["--workers", "2"]).command().spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    let writer = thread::spawn(move || {
        for _ in 0..LINES {
            stdin.write_all(request.as_bytes()).expect("it reads");
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut results = BufReader::with_capacity(4096, child.stdout.take().expect("a pipe")).lines();
    for _ in 0..READ {
        results.next().expect("a result").expect("text");
        // Not waiting for anything: a reader that takes its time.
        thread::sleep(Duration::from_millis(5));
    }
    // What fits into two pipes and a few places.
    let ahead = written.load(Ordering::Relaxed) - READ;
    assert!(ahead < 2000, "{ahead} lines were taken that nobody wants yet");
    assert_eq!(results.count() as u64, LINES - READ, "nothing is lost");
    writer.join().expect("all written");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

/// The most memory that a process has had, in KiB.
fn peak_kib(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// `VKEY_RUN_LINES` asks for more: `make stdio` for a million.
#[test]
#[allow(clippy::disallowed_methods, reason = "make says how many")]
fn memory_does_not_grow_with_the_lines() {
    let many =
        std::env::var("VKEY_RUN_LINES").map_or(40_000, |text| text.parse().expect("a number"));
    let gate = limited(1000);
    let request =
        json!({"key": gate.mint(&[]), "path": "/v1", "body": "x".repeat(500)}).to_string();
    let mut session = Session::start(run(&gate, &["--workers", "2"]).command());
    let mut stdin = session.stdin.take().expect("open");
    let warm = many / 8;
    let (sender, proceed) = channel();
    let writer = thread::spawn(move || {
        for number in 0..many {
            if number == warm {
                proceed.recv().expect("the test goes on");
            }
            writeln!(stdin, "{request}").expect("it reads");
        }
        stdin
    });
    let hear = |count: u64| {
        for _ in 0..count {
            session.lines.recv_timeout(DEADLINE).expect("a result");
        }
    };
    hear(warm);
    let before = peak_kib(&session.child);
    sender.send(()).expect("the writer waits");
    hear(many - warm);
    // Still open, so that there is a process to look at.
    let stdin = writer.join().expect("all written");
    let after = peak_kib(&session.child);
    drop(stdin);
    println!("{many} lines: {before} KiB after {warm}, {after} KiB after all");
    assert!(after < before + 2048, "{before} KiB grew to {after} KiB");
}

// === what does not start ===

#[test]
fn setup_errors_are_reported_before_a_line_is_read() {
    let gate = Gate::new();
    gate.vkey(&["run"]).refused(3, "environment variable PROVIDER is not set");
    let upstream = gate.file("upstream.json", r#"{"role": "upstream_tls"}"#);
    let broken = gate.file("broken.json", r#"{"keyring": []}"#);
    let of = |config: &str| Vkey::new(&["run", "--config", config]);
    of(&upstream).refused(1, "the configuration is for an upstream gate");
    of(&broken).refused(1, "invalid configuration: keyring");
    of("/nonexistent").refused(3, "--config cannot be read");
    of("-").refused(2, "two inputs cannot both be read from standard input");
    for (option, value) in [
        ("--workers", "0"),
        ("--workers", "65"),
        ("--workers", "x"),
        ("--deadline", "0s"),
        ("--deadline", "2h"),
        ("--host", "apache"),
        ("--max-line-bytes", "0"),
        ("--now", "2555-01-01T00:00:00Z"),
        ("--now", "soon"),
        ("--log-level", "loud"),
    ] {
        run(&gate, &[option, value]).refused(2, option);
    }
}

/// Comparing each name with all before it would take the module longer than it may take here.
#[test]
fn a_configuration_may_name_a_hundred_thousand_tenants_and_revoked_keys() {
    const MANY: usize = 100_000;
    let limited = json!({"rate": {"requests": 1, "per": "1h"}});
    let names = (0..MANY).map(|n| format!("t-{n}")).chain(["acme".to_owned()]);
    let tenants = names.map(|name| (name, limited.clone()));
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tenants": serde_json::Map::from_iter(tenants),
        "unlisted_tenants": "deny",
        "revoked": {"version": 1, "keys": Vec::from_iter((0..MANY).map(|n| format!("k_{n}")))},
    }));
    let [good, revoked] = ["k_x", "k_99999"].map(|jti| gate.mint(&["--jti", jti, "--force"]));
    let requests = [&good, &good, &revoked].map(|key| json!({"key": key, "path": "/v1"}));
    assert_eq!(
        decisions(&gate, &["--deadline", "20s"], &requests),
        [allow(), deny("tenant_rate"), deny("key_revoked")]
    );
}

#[test]
fn the_modules_log_goes_to_standard_error() {
    let gate = limited(9);
    let request = lines(&[json!({"key": gate.mint(&[]), "path": "/v1"})]);
    let log = |level: &str| run(&gate, &["--log-level", level]).stdin(&request).ok().err;
    assert!(log("info").contains("vkey: info: plan "));
    assert!(!log("warn").contains(" is in force"));
    // No request goes to a cluster here.
    assert!(["trace", "warn", "error"].iter().all(|level| !log(level).contains("no cluster has")));
    assert!(!log("trace").contains("\"decision\""), "audit lines are in the results");
}
