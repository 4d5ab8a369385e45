//! Requests whose bodies decide.

use super::recorded::RecordedHost;
use super::*;
use crate::decision::{Decision, DenyReason};
use crate::json::Json;
use crate::record::Name;

/// A key may use small models, and 1000 tokens.
const CONFIG: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}],
    "body": {"max_bytes": 100000}, "llm": {"default_reserve_tokens": 100},
    "tiers": {"default": {"only": {"models": ["small*"]}, "quotas": [{"tokens": 1000, "per": "total"}]}}}"#;

/// A key may use small models, and nobody counts its tokens.
const MODELS: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}],
    "tiers": {"default": {"only": {"models": ["small*"]}}}}"#;

const GOOD: &str = r#"{"model": "small-1", "max_tokens": 38, "messages": []}"#;
const OTHER: &str = r#"{"model": "large-1", "max_tokens": 38, "messages": []}"#;
const STREAM: &str = r#"{"model": "small-1", "max_tokens": 38, "stream": true, "messages": []}"#;
const USED_7: &str = r#"{"model": "small-1", "choices": [],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}"#;

/// One worker.
struct Worker {
    gate: Gate,
    store: MemoryStore,
}

/// A request under way.
struct Sent<'a> {
    worker: &'a Worker,
    host: RecordedHost,
    exchange: Exchange,
    headers: Action,
}

impl Worker {
    fn new(config: &str) -> Self {
        let config = Config::parse(config.as_bytes()).unwrap();
        let plan = config.compile(|_| Some(SECRET.to_owned())).unwrap();
        let policy = include_bytes!("../../../filters/vkey/upstream-tls.json");
        let gate = Gate::open(plan, Policy::parse(policy).unwrap());
        Self { gate, store: MemoryStore::new(Rules::Envoy) }
    }

    fn host(&self, headers: &[(&str, &str)]) -> RecordedHost {
        let memory = MemoryHost::new(self.store.clone());
        let token = token();
        let usual = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "upstream.example"),
            ("x-api-key", &token),
            ("content-type", "application/json"),
        ];
        let replaced = |name: &str| headers.iter().any(|(other, _)| *other == name);
        let usual = usual.into_iter().filter(|(name, _)| !replaced(name));
        let all = usual.chain(headers.iter().copied()).filter(|(_, value)| !value.is_empty());
        let all = all.map(|(name, value)| (name.into(), value.into()));
        memory.headers.replace(Some(all.collect()));
        RecordedHost::new(memory)
    }

    /// Shows the headers of a request.
    fn send(&self, headers: &[(&str, &str)]) -> Sent<'_> {
        self.send_to(self.host(headers))
    }

    fn send_to(&self, host: RecordedHost) -> Sent<'_> {
        let mut exchange = Exchange::default();
        let opening = Opening { context: 7, is_whole: false };
        let headers = self.gate.on_request_headers(&host, &mut exchange, opening);
        Sent { worker: self, host, exchange, headers }
    }

    /// Sends a request whose body decides on it.
    fn ask(&self, body: &str) -> Sent<'_> {
        let mut sent = self.send(&[]);
        assert_eq!(sent.headers, Action::Pause);
        assert!(matches!(sent.exchange, Exchange::Held(_)));
        sent.body(&[body]);
        sent
    }

    /// The tokens that the key has used, its open reservations included.
    fn used(&self) -> u64 {
        self.limit("tokens_total")
    }

    fn limit(&self, name: &str) -> u64 {
        let headers = [(":method", "GET"), (":path", "/.vkey/usage"), ("content-type", "")];
        let sent = self.send(&headers);
        let reply = sent.host.memory.reply.borrow();
        let usage = Json::parse(reply.as_ref().unwrap().body.as_bytes()).unwrap();
        let Some(Json::Array(limits)) = usage.get("limits") else { panic!("{usage}") };
        let of = |limit: &&Json| {
            limit.get("name").and_then(Json::as_str).is_some_and(|found| found.ends_with(name))
        };
        let used = limits.iter().find(of).and_then(|limit| limit.get("used"));
        used.unwrap_or_else(|| panic!("{usage}")).to_string().parse().unwrap()
    }

    fn cell(&self) -> bool {
        use crate::host::SharedData as _;
        let name: Name = crate::limits::cell::key_name("acme", "k");
        self.store.shared_data(name.as_str()).unwrap().is_some()
    }
}

impl Sent<'_> {
    /// Passes a body in parts; the last one ends it. Returns what was done with the last.
    fn body(&mut self, parts: &[&str]) -> Action {
        for part in parts {
            self.host.memory.request_body.push(*part);
        }
        let mut action = Action::Pause;
        while self.arrive(true) == Some(Action::Pause) {}
        if matches!(self.exchange, Exchange::Forwarded(..)) {
            action = Action::Continue;
        }
        action
    }

    /// Passes the next part of the body; `None` if there is none.
    fn arrive(&mut self, ends: bool) -> Option<Action> {
        let arrived = self.host.memory.request_body.arrive()?;
        let bytes = u64::try_from(arrived.bytes).unwrap();
        let is_last = ends && arrived.is_last;
        let gate = &self.worker.gate;
        let action = gate.on_request_body(&self.host, &mut self.exchange, bytes, is_last);
        if action == Action::Continue {
            self.host.memory.request_body.pass();
        }
        Some(action)
    }

    fn sent_body(&self) -> String {
        String::from_utf8(self.host.memory.request_body.passed()).unwrap()
    }

    fn header(&self, name: &str) -> Option<String> {
        use crate::host::Host as _;
        self.host.memory.request_header(name.as_bytes()).map(|v| String::from_utf8(v).unwrap())
    }

    /// Passes a response of the upstream.
    fn respond(&mut self, status: u64, content_type: &str, parts: &[&str]) -> String {
        self.respond_headers(status, content_type);
        self.respond_body(parts);
        String::from_utf8(self.host.memory.response_body.passed()).unwrap()
    }

    fn respond_headers(&mut self, status: u64, content_type: &str) {
        self.host.memory.status.set(Some(status));
        self.host.memory.show(Property::ResponseCodeDetails.path(), "via_upstream");
        self.host.memory.show(Property::UpstreamLocalAddress.path(), "192.0.2.1:4711");
        let mut headers = self.host.memory.response_headers.borrow_mut();
        headers.insert("content-type".into(), content_type.into());
        headers.insert("content-length".into(), "999".into());
        drop(headers);
        let action = self.worker.gate.on_response_headers(&self.host, &mut self.exchange);
        assert_eq!(action, Action::Continue);
    }

    fn respond_body(&mut self, parts: &[&str]) {
        for part in parts {
            self.host.memory.response_body.push(*part);
        }
        while let Some(arrived) = self.host.memory.response_body.arrive() {
            self.respond_part(arrived.bytes, arrived.is_last);
        }
    }

    fn respond_part(&mut self, bytes: usize, is_last: bool) {
        let bytes = u64::try_from(bytes).unwrap();
        let gate = &self.worker.gate;
        let action = gate.on_response_body(&self.host, &mut self.exchange, bytes, is_last);
        assert_eq!(action, Action::Continue);
        self.host.memory.response_body.pass();
    }

    fn end(&mut self) -> Json {
        self.worker.gate.on_log(&self.host, &mut self.exchange);
        let log = self.host.memory.log.borrow();
        let lines = log.iter().filter(|(_, line)| line.starts_with("{\"vkey\""));
        let [(_, line)] = lines.collect::<Vec<_>>()[..] else { panic!("{log:?}") };
        Json::parse(line.as_bytes()).unwrap()
    }

    fn reply(&self) -> (u16, String) {
        let reply = self.host.memory.reply.borrow();
        let reply = reply.as_ref().expect("a reply");
        (reply.status, reply.body.to_string())
    }

    fn reason(&self) -> Option<DenyReason> {
        self.exchange.decided().and_then(|decided| decided.decision().reason())
    }
}

fn text<'a>(line: &'a Json, name: &str) -> &'a str {
    line.get(name).and_then(Json::as_str).unwrap_or_else(|| panic!("{name}: {line}"))
}

fn tokens(line: &Json) -> (String, String) {
    let tokens = line.get("tokens").unwrap();
    (tokens.get("total").unwrap().to_string(), text(tokens, "src").to_owned())
}

// === the decision ===

#[test]
fn a_body_decides_wherever_it_is_cut() {
    let worker = Worker::new(CONFIG);
    for (body, reason) in [(GOOD, None), (OTHER, Some(DenyReason::Model))] {
        for cut in 0..=body.len() {
            let mut sent = worker.send(&[]);
            let (first, rest) = body.split_at(cut);
            let action = sent.body(&[first, rest]);
            assert_eq!(action == Action::Continue, reason.is_none(), "{body} {cut}");
            assert_eq!(sent.reason(), reason);
            assert_eq!(sent.sent_body(), if reason.is_none() { body } else { "" });
            let seal = sent.host.memory.filter_state.borrow().contains_key("vkey.decision");
            assert_eq!(seal, reason.is_none());
            sent.respond(500, "application/json", &["{}"]);
            let line = sent.end();
            assert_eq!(text(&line, "model"), if reason.is_none() { "small-1" } else { "large-1" });
        }
        let mut sent = worker.send(&[]);
        let bytes: Vec<&str> = body.split("").filter(|part| !part.is_empty()).collect();
        assert_eq!(sent.body(&bytes) == Action::Continue, reason.is_none(), "{body}");
        assert_eq!(sent.end().get("bytes_in").unwrap().to_string(), body.len().to_string());
    }
}

/// An unknown key, one that has expired or may not use the path, must not make a proxy hold a body.
#[test]
fn what_the_headers_refuse_is_not_held() {
    let limited = CONFIG.replace(r#""only": {"#, r#""only": {"paths": ["/v1/chat/**"], "#);
    let worker = Worker::new(&limited);
    for (headers, reason) in [
        ([("x-api-key", ""), ("a", "b")], DenyReason::KeyMissing),
        ([("x-api-key", "vk1.x"), ("a", "b")], DenyReason::KeyMalformed),
        ([(":path", "/v1/completions"), ("a", "b")], DenyReason::Path),
        ([(":path", "/v1/../chat/completions"), ("a", "b")], DenyReason::PathAmbiguous),
        ([("x-vkey-key", "root"), ("a", "b")], DenyReason::HeaderMismatch),
    ] {
        let sent = worker.send(&headers);
        assert_eq!((sent.headers, sent.reason()), (Action::Pause, Some(reason)), "{headers:?}");
    }
    assert_eq!(worker.send(&[]).reason(), None);
}

#[test]
fn a_body_that_cannot_be_read_is_refused_as_soon_as_that_is_known() {
    let worker = Worker::new(CONFIG);
    for (headers, says) in [
        (("content-type", "text/plain"), "application/json"),
        (("content-type", ""), "application/json"),
        (("content-encoding", "gzip"), "content-encoding"),
    ] {
        let sent = worker.send(&[headers]);
        assert_eq!(sent.reason(), Some(DenyReason::BodyUnreadable), "{headers:?}");
        let (status, body) = sent.reply();
        assert!(status == 400 && body.contains(says), "{headers:?}: {body}");
    }
    for (parts, says) in [
        (["{\"model\": \"small-1\",}", "\"never read\""], "RFC 8259"),
        (["\u{feff}{}", ""], "UTF-8"),
        (["{\"model\": \"small-1\", \"model\"", ": \"large-1\"}"], "twice"),
        (["{\"Model\": \"large-1\"", "}"], "case only"),
        (["{\"model\": \"small-1\"} ", "{}"], "goes on"),
        (["{\"model\": \"small-1\"", ""], "too early"),
        (["", ""], "empty"),
    ] {
        let mut sent = worker.send(&[]);
        sent.body(&parts);
        assert_eq!(sent.reason(), Some(DenyReason::BodyUnreadable), "{parts:?}");
        let (status, body) = sent.reply();
        assert!(status == 400 && body.contains(says), "{parts:?}: {body}");
        assert_eq!((sent.sent_body(), sent.host.memory.replies.get()), (String::new(), 1));
        assert_eq!(text(&sent.end(), "reason"), "body_unreadable");
    }
    // The first of these bodies was refused before its second part came.
    let mut sent = worker.send(&[]);
    sent.host.memory.request_body.push("{,");
    sent.host.memory.request_body.push("\"more\"");
    assert_eq!(sent.arrive(true), Some(Action::Pause));
    assert_eq!(sent.reason(), Some(DenyReason::BodyUnreadable));
    // What comes of a refused body is held.
    assert_eq!(sent.arrive(true), Some(Action::Pause));
    assert_eq!((worker.used(), sent.host.memory.replies.get()), (0, 1));
}

#[test]
fn a_body_that_is_too_large_is_refused_at_once() {
    let worker = Worker::new(CONFIG);
    let announced = worker.send(&[("content-length", "100001")]);
    assert_eq!(announced.reply().0, 413);
    let mut sent = worker.send(&[("content-length", "100000")]);
    let long = format!("{{\"model\": \"small-1\", \"user\": \"{}", "x".repeat(99_000));
    sent.host.memory.request_body.push(long);
    sent.host.memory.request_body.push("x".repeat(1000));
    sent.host.memory.request_body.push("\"}");
    assert_eq!((sent.arrive(true), sent.reason()), (Some(Action::Pause), None));
    assert_eq!(sent.arrive(true), Some(Action::Pause));
    assert_eq!(sent.reason(), Some(DenyReason::BodyTooLarge));
    assert_eq!((sent.reply().0, text(&sent.end(), "reason")), (413, "body_too_large"));
}

/// Only the bytes that are new are read, in parts.
#[test]
fn every_byte_is_read_once() {
    let worker = Worker::new(MODELS);
    let mut sent = worker.send(&[]);
    sent.host.take_calls();
    let start = "{\"model\": \"small-1\", \"max_tokens\": 1, \"user\": \"";
    let long = "x".repeat(90_000 - start.len());
    for part in [start, &long, "\"}"] {
        sent.host.memory.request_body.push(part);
    }
    while sent.arrive(true).is_some() {}
    let calls = sent.host.take_calls();
    assert_eq!(calls.iter().filter(|call| **call == "body").count(), 4, "{calls:?}");
    assert!(matches!(sent.exchange, Exchange::Forwarded(..)));
}

#[test]
fn a_host_that_contradicts_itself_gets_nothing() {
    let worker = Worker::new(CONFIG);
    for announced in [[9, 8], [9, 99]] {
        let mut sent = worker.send(&[]);
        sent.host.memory.request_body.push(GOOD.split_at(9).0);
        sent.host.memory.request_body.arrive();
        for bytes in announced {
            let gate = &worker.gate;
            let action = gate.on_request_body(&sent.host, &mut sent.exchange, bytes, false);
            assert_eq!(action, Action::Pause);
        }
        assert_eq!(sent.reason(), Some(DenyReason::NotReady), "{announced:?}");
    }
}

#[test]
fn trailers_end_a_body_and_are_cleaned() {
    let worker = Worker::new(CONFIG);
    for (body, passes) in [(GOOD, true), (OTHER, false), ("{", false)] {
        let mut sent = worker.send(&[]);
        let trailers = vec![(b"x-vkey-sub".to_vec(), b"root".to_vec()), (b"a".into(), b"b".into())];
        sent.host.memory.trailers.replace(Some(trailers));
        sent.host.memory.request_body.push(body);
        assert_eq!(sent.arrive(false), Some(Action::Pause));
        let action = worker.gate.on_request_trailers(&sent.host, &mut sent.exchange);
        assert_eq!(action == Action::Continue, passes, "{body}");
        let trailers = sent.host.memory.trailers.borrow().clone().unwrap();
        assert!(!passes || trailers == [(b"a".to_vec(), b"b".to_vec())]);
    }
    let mut sent = worker.send(&[]);
    sent.host.memory.request_body.push(GOOD);
    sent.arrive(false);
    assert_eq!(worker.gate.on_request_trailers(&sent.host, &mut sent.exchange), Action::Pause);
    assert_eq!(sent.reason(), Some(DenyReason::NotReady), "trailers that are not shown");
}

#[test]
fn a_request_without_a_body_is_decided_at_once() {
    let worker = Worker::new(CONFIG);
    let host = worker.host(&[]);
    let mut exchange = Exchange::default();
    let opening = Opening { context: 7, is_whole: true };
    assert_eq!(worker.gate.on_request_headers(&host, &mut exchange, opening), Action::Pause);
    let decision = exchange.decided().unwrap().decision();
    assert_eq!(decision, Decision::Deny(DenyReason::BodyUnreadable));
}

/// The client left, or the proxy refused the body: there is one line, and one count.
#[test]
fn a_request_whose_body_never_ends_is_recorded() {
    for (status, reason) in
        [(None, "body_unreadable"), (Some(408), "body_unreadable"), (Some(413), "body_too_large")]
    {
        let worker = Worker::new(CONFIG);
        let mut sent = worker.send(&[]);
        sent.host.memory.request_body.push(GOOD.split_at(9).0);
        sent.arrive(false);
        if let Some(status) = status {
            sent.respond_headers(status, "text/plain");
            sent.respond_body(&["no"]);
        }
        assert!(!worker.cell());
        let line = sent.end();
        assert_eq!((text(&line, "reason"), text(&line, "jti")), (reason, "k"));
        assert!(worker.cell());
        assert_eq!(sent.host.memory.replies.get(), 0);
    }
}

#[test]
fn a_key_that_ends_while_its_body_comes_is_refused() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send(&[]);
    sent.host.memory.now_ns.set(Some(1_900_000_000 * 1_000_000_000));
    sent.body(&[GOOD]);
    assert_eq!(sent.reply().0, 401);
    assert_eq!(sent.sent_body(), "");
    let line = sent.end();
    assert!(text(&line, "ts").starts_with("1970-"), "the time when the request came: {line}");
}

// === which requests are held ===

#[test]
fn a_request_that_no_body_decides_is_not_touched() {
    let worker = Worker::new(CONFIG);
    let models = |headers: &[(&str, &str)]| worker.send(headers).reason();
    assert_eq!(models(&[(":method", "GET")]), Some(DenyReason::Model));
    assert_eq!(models(&[(":path", "/other")]), Some(DenyReason::Model));
    assert_eq!(models(&[(":method", "GET"), (":path", "/v1/models")]), None);
    let limited = CONFIG.replace(r#""only": {"models": ["small*"]}, "#, "");
    let worker = Worker::new(&limited);
    let passes = |headers: &[(&str, &str)]| {
        let mut sent = worker.send(headers);
        assert!(matches!(sent.exchange, Exchange::Forwarded(..)), "{headers:?}");
        sent.host.take_calls();
        sent.body(&["not JSON"]);
        assert_eq!(sent.host.take_calls(), [""; 0]);
        assert_eq!(sent.sent_body(), "not JSON");
    };
    passes(&[(":method", "GET")]);
    passes(&[(":path", "/other")]);
    passes(&[(":path", "/v1/models")]);
    // Its tokens could not be counted.
    let unknown = worker.send(&[(":path", "/v1/other")]);
    assert_eq!(unknown.reason(), Some(DenyReason::Path));
    assert!(unknown.reply().1.contains("llm.unmetered"));
    assert_eq!(worker.used(), 0);
    // A format is known at any path.
    assert_eq!(worker.send(&[(":path", "/team/v1/messages")]).headers, Action::Pause);
}

/// A key on which no body has a bearing.
#[test]
fn a_request_that_nobody_asks_about_costs_no_host_call_for_its_bodies() {
    let config = r#"{"keyring": [{"name": "main", "secret": "${S}"}], "audit": {"sink": "access_log"},
        "tiers": {"default": {"rate": {"requests": 100, "per": "1s"}}}}"#;
    let worker = Worker::new(config);
    for _ in 0..2 {
        let mut sent = worker.send(&[("accept-encoding", "gzip")]);
        assert_eq!(sent.headers, Action::Continue);
        assert_eq!(sent.header("accept-encoding").as_deref(), Some("gzip"));
        sent.host.take_calls();
        sent.body(&["{", "}"]);
        assert_eq!(sent.host.take_calls(), [""; 0]);
        sent.respond_headers(200, "application/json");
        sent.host.take_calls();
        sent.respond_body(&[USED_7, "more"]);
        assert_eq!(sent.host.take_calls(), [""; 0]);
        sent.worker.gate.on_log(&sent.host, &mut sent.exchange);
    }
}

#[test]
fn nginx_cannot_hold() {
    let config = CONFIG.replacen('{', r#"{"host": "nginx", "#, 1);
    let mut worker = Worker::new(&config);
    worker.store = MemoryStore::new(Rules::Nginx);
    let host = worker.host(&[]).memory;
    let mut exchange = Exchange::default();
    let action = worker.gate.on_request_headers(&host, &mut exchange, Opening::default());
    assert_eq!(action, Action::Pause);
    let reply = host.reply.borrow();
    assert!(reply.as_ref().unwrap().body.contains("on nginx"), "{reply:?}");
}

// === hosts that do not call back ===

/// The module is told the size of a request that it may read or not.
fn sized(worker: &Worker, bytes: u64) -> RecordedHost {
    let host = worker.host(&[]);
    host.memory.show(Property::RequestTotalSize.path(), bytes.to_le_bytes());
    host
}

#[test]
fn a_host_that_keeps_bodies_back_is_found_out() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send_to(sized(&worker, 500));
    assert!(matches!(sent.exchange, Exchange::Held(_)));
    assert_ne!(sent.host.memory.tick_millis.get(), 0);
    let tick = |sent: &mut Sent<'_>| {
        let Sent { host, exchange, .. } = sent;
        let exchange = RefCell::new(exchange);
        worker.gate.tick(host, 1, |context| {
            assert_eq!(context, 7);
            worker.gate.on_tick(host, &mut exchange.borrow_mut())
        });
    };
    tick(&mut sent);
    assert!(matches!(sent.exchange, Exchange::Held(_)), "the client may not have sent any");
    sent.host.memory.show(Property::RequestTotalSize.path(), 501_u64.to_le_bytes());
    tick(&mut sent);
    let (status, body) = sent.reply();
    assert!(status == 400 && body.contains("allow_on_headers_stop_iteration: true"), "{body}");
    assert_eq!(sent.host.memory.tick_millis.get(), 0);
    let says = |level| sent.host.memory.log.borrow().iter().filter(|(l, _)| *l == level).count();
    assert_eq!(says(Level::Error), 1);
    assert_eq!(text(&sent.end(), "reason"), "body_unreadable");
    // The next one is refused at once, until one is watched again.
    let sent = worker.send_to(sized(&worker, 500));
    assert_eq!(sent.reason(), Some(DenyReason::BodyUnreadable));
    let host = sized(&worker, 500);
    host.memory.now_ns.set(Some(11_000_000_000));
    let mut sent = worker.send_to(host);
    assert!(matches!(sent.exchange, Exchange::Held(_)));
    assert_eq!(sent.body(&[GOOD]), Action::Continue);
    // By now the host has proven itself.
    sent.host.take_calls();
    let sent = worker.send_to(sized(&worker, 500));
    assert!(!sent.host.take_calls().contains(&"set_tick_period"));
}

/// It may have been reconfigured, or the client may have left: the next request is watched.
#[test]
fn a_held_request_that_ends_without_a_callback_raises_doubt() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send_to(sized(&worker, 500));
    assert_eq!(sent.body(&[GOOD]), Action::Continue);
    worker.send_to(sized(&worker, 500)).end();
    let sent = worker.send_to(sized(&worker, 500));
    assert!(sent.host.take_calls().contains(&"set_tick_period"));
}

#[test]
fn a_request_that_has_ended_is_not_watched() {
    let worker = Worker::new(CONFIG);
    let sent = worker.send_to(sized(&worker, 500));
    sent.host.memory.gone.borrow_mut().push(7);
    worker.gate.tick(&sent.host, 1, |_| panic!("it is gone"));
    assert_eq!(sent.host.memory.tick_millis.get(), 0);
}

// === reservation and settlement ===

#[test]
fn what_a_response_used_replaces_what_was_reserved() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.ask(GOOD);
    assert_eq!(worker.used(), 40);
    assert_eq!(sent.respond(200, "application/json", &[USED_7]), USED_7);
    assert_eq!(worker.used(), 7);
    let line = sent.end();
    assert_eq!((tokens(&line), worker.used()), (("7".into(), "usage".into()), 7));
    assert_eq!(worker.store.metric("vkey_tokens_total.kind.output.tenant.other"), Some(4));
}

/// How a request may end, and what it is charged of its reservation of 40.
#[test]
fn each_end_has_its_charge() {
    type Act = fn(&mut Sent<'_>);
    let cases: [(&str, Act, u64, &str); 8] = [
        ("no response", |_| {}, 0, "none"),
        (
            "no response, but it was sent",
            |sent| {
                sent.host.memory.show(Property::UpstreamLocalAddress.path(), "192.0.2.1:4711");
            },
            40,
            "reserved",
        ),
        (
            "an error of the upstream",
            |sent| {
                sent.respond(429, "application/json", &["{}"]);
            },
            0,
            "none",
        ),
        (
            "no usage",
            |sent| {
                sent.respond(200, "application/json", &["{}"]);
            },
            40,
            "reserved",
        ),
        (
            "the proxy's own reply, before it was sent",
            |sent| {
                sent.respond_headers(503, "text/plain");
            },
            0,
            "none",
        ),
        (
            "the proxy's own reply, after it was sent",
            |sent| {
                sent.respond_headers(504, "text/plain");
            },
            40,
            "reserved",
        ),
        (
            "a client that leaves",
            |sent| {
                sent.respond_headers(200, "application/json");
                let details = Property::ResponseCodeDetails.path();
                sent.host.memory.show(details, "downstream_remote_disconnect");
            },
            40,
            "reserved",
        ),
        (
            "trailers of the response",
            |sent| {
                sent.respond_headers(200, "application/json");
                sent.host.memory.response_body.push(USED_7);
                sent.host.memory.response_body.arrive();
                sent.respond_part(USED_7.len(), false);
            },
            7,
            "usage",
        ),
    ];
    for (name, act, charged, source) in cases {
        let worker = Worker::new(CONFIG);
        let mut sent = worker.ask(GOOD);
        if name.contains("own reply") {
            let local = |sent: &mut Sent<'_>| {
                let is_sent = name.contains("after");
                sent.host.memory.status.set(Some(503));
                sent.host.memory.show(Property::ResponseCodeDetails.path(), "upstream_timeout");
                if is_sent {
                    let place = Property::UpstreamLocalAddress.path();
                    sent.host.memory.show(place, "192.0.2.1:4711");
                }
                let gate = &sent.worker.gate;
                gate.on_response_headers(&sent.host, &mut sent.exchange);
                gate.on_response_body(&sent.host, &mut sent.exchange, 0, true);
            };
            local(&mut sent);
        } else {
            act(&mut sent);
        }
        let line = sent.end();
        assert_eq!(worker.used(), charged, "{name}: {line}");
        assert_eq!(tokens(&line).1, source, "{name}: {line}");
    }
}

/// Two responses reach the module if the proxy replies after the upstream: the second counts.
#[test]
fn a_second_response_takes_the_place_of_the_first() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.ask(GOOD);
    sent.respond_headers(200, "application/json");
    sent.host.memory.response_body.push("{\"usage\": {\"prompt_tokens\": 1,");
    sent.host.memory.response_body.arrive();
    sent.respond_part(30, false);
    sent.respond(200, "application/json", &[USED_7]);
    assert_eq!(worker.used(), 7);
    sent.end();
    assert_eq!(worker.used(), 7);
}

#[test]
fn a_quota_has_room_for_what_is_reserved_and_no_more() {
    let worker = Worker::new(CONFIG);
    let open: Vec<_> = (0..25).map(|_| worker.ask(GOOD)).collect();
    assert_eq!((open.len(), worker.used()), (25, 1000));
    let mut refused = worker.ask(GOOD);
    let (status, body) = refused.reply();
    assert!(status == 429 && body.contains("reserves 40 tokens"), "{body}");
    assert_eq!(tokens(&refused.end()), ("40".into(), "none".into()));
    assert_eq!(worker.used(), 1000);
}

#[test]
fn a_request_is_read_for_the_audit_alone() {
    let config =
        r#"{"keyring": [{"name": "main", "secret": "${S}"}], "llm": {"audit_tokens": true}}"#;
    let worker = Worker::new(config);
    let mut sent = worker.ask(OTHER);
    sent.respond(200, "application/json", &[USED_7]);
    let line = sent.end();
    assert_eq!(text(&line, "model"), "large-1\u{2192}small-1");
    assert_eq!(tokens(&line), ("7".into(), "usage".into()));
}

const PRICED: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}],
    "llm": {"prices": {"small-1": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "10"}}},
    "tiers": {"default": {"quotas": [{"cost_usd": "1", "per": "total"}]}}}"#;

#[test]
fn cost_is_reserved_and_settled_in_micro_usd() {
    let worker = Worker::new(PRICED);
    let mut sent = worker.ask(GOOD);
    assert_eq!(worker.limit("cost_total"), 382);
    sent.respond(200, "application/json", &[USED_7]);
    assert_eq!(worker.limit("cost_total"), 43);
    assert_eq!(sent.end().get("cost").unwrap().to_string(), "43");
    let refused = worker.ask(OTHER);
    assert_eq!(refused.reason(), Some(DenyReason::Model));
    assert!(refused.reply().1.contains("no price"));
}

/// A byte of it has left, so what it reserved stays charged.
#[test]
fn a_response_that_is_withheld_stays_charged() {
    let config = CONFIG.replacen('{', r#"{"upstream_tls": {"require_gate": false}, "#, 1);
    let worker = Worker::new(&config);
    let mut sent = worker.send(&[(":authority", "api.openai.com")]);
    sent.body(&[GOOD]);
    assert_eq!(sent.sent_body(), GOOD);
    sent.host.memory.show(Property::UpstreamLocalAddress.path(), "192.0.2.1:4711");
    sent.host.memory.show(Property::ResponseCodeDetails.path(), "via_upstream");
    worker.gate.on_response_headers(&sent.host, &mut sent.exchange);
    assert_eq!((sent.reply().0, worker.used()), (502, 40));
    // The reply's own body, and not that of the upstream.
    sent.respond_part(0, true);
    let line = sent.end();
    assert_eq!(text(&line, "reason"), "upstream_plaintext");
    assert_eq!((tokens(&line), worker.used()), (("40".into(), "reserved".into()), 40));
    assert_eq!(worker.store.metric("vkey_tokens_total.kind.other.tenant.other"), Some(40));
}

/// If the request cannot be made fit to go on, all that it reserved is given back.
#[test]
fn a_failing_edit_gives_everything_back() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send(&[]);
    sent.host.memory.failing_edits.set(Some(HostError::UNIMPLEMENTED));
    sent.body(&[GOOD]);
    assert_eq!((sent.reply().0, sent.sent_body()), (503, String::new()));
    sent.host.memory.failing_edits.set(None);
    assert_eq!(worker.used(), 0);
}

// === the edits ===

const INCLUDED: &str = "{\"stream_options\":{\"include_usage\":true},\"model\": \"small-1\", \
    \"max_tokens\": 38, \"stream\": true, \"messages\": []}";
const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\
    \"total_tokens\":7}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn a_stream_reports_its_usage_and_the_client_does_not_see_it() {
    for cut in 0..=USAGE.len() {
        let worker = Worker::new(CONFIG);
        let length = STREAM.len().to_string();
        let headers =
            [("content-length", &*length), ("accept-encoding", "gzip"), ("te", "trailers")];
        let mut sent = worker.send(&headers);
        sent.body(&[STREAM]);
        assert_eq!(sent.sent_body(), INCLUDED);
        let expected = Some(INCLUDED.len().to_string());
        assert_eq!(sent.header("content-length"), expected);
        assert_eq!(sent.header("accept-encoding").as_deref(), Some("identity"));
        assert_eq!(sent.header("te"), None);
        let (first, rest) = USAGE.split_at(cut);
        let shown = sent.respond(200, "text/event-stream", &[EVENT, first, rest, DONE]);
        assert_eq!(shown, [EVENT, DONE].concat(), "{cut}");
        assert!(!sent.host.memory.response_headers.borrow().contains_key("content-length"));
        assert_eq!(tokens(&sent.end()), ("7".into(), "usage".into()));
    }
}

#[test]
fn a_part_of_a_stream_is_written_only_if_it_changes() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.ask(STREAM);
    sent.host.take_calls();
    sent.respond(200, "text/event-stream", &[EVENT, EVENT, USAGE, DONE]);
    let writes = sent.host.take_calls().into_iter().filter(|call| *call == "set_body");
    assert_eq!(writes.count(), 1);
}

#[test]
fn a_client_that_asks_for_usage_gets_it() {
    let worker = Worker::new(CONFIG);
    let body = INCLUDED.replace("max_tokens\": 38", "max_tokens\": 39");
    let mut sent = worker.ask(&body);
    assert_eq!(sent.sent_body(), body);
    let shown = sent.respond(200, "text/event-stream", &[EVENT, USAGE, DONE]);
    assert_eq!(shown, [EVENT, USAGE, DONE].concat());
    assert!(sent.host.memory.response_headers.borrow().contains_key("content-length"));
    assert_eq!(worker.used(), 7);
}

#[test]
fn a_route_may_forbid_the_injection() {
    let routes = r#""llm": {"routes": [{"paths": ["/v1/**"], "inject_usage": false}], "#;
    let forbidden = Worker::new(&CONFIG.replace(r#""llm": {"#, routes));
    assert_eq!(forbidden.ask(STREAM).sent_body(), STREAM);
    let worker = Worker::new(CONFIG);
    let mut mistral = worker.send(&[(":authority", "api.mistral.ai")]);
    mistral.body(&[STREAM]);
    assert_eq!(mistral.sent_body(), STREAM);
}

/// Models alone do not need the response.
#[test]
fn a_request_whose_tokens_nobody_counts_is_not_edited() {
    let worker = Worker::new(MODELS);
    let mut sent = worker.send(&[("accept-encoding", "gzip"), ("content-length", "70")]);
    sent.body(&[STREAM]);
    assert_eq!((sent.sent_body(), sent.headers), (STREAM.to_owned(), Action::Pause));
    assert_eq!(sent.header("accept-encoding").as_deref(), Some("gzip"));
    let shown = sent.respond(200, "text/event-stream", &[EVENT, USAGE]);
    assert_eq!(shown, [EVENT, USAGE].concat());
    let line = sent.end();
    assert_eq!((text(&line, "model"), line.get("tokens")), ("small-1", Some(&Json::Null)));
}

#[test]
fn refusals_are_in_the_dialect_of_the_request() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send(&[(":path", "/v1/messages")]);
    sent.body(&[r#"{"model": "large", "max_tokens": 1}"#]);
    let (status, body) = sent.reply();
    assert!(status == 403 && body.starts_with(r#"{"type":"error""#), "{body}");
    let unknown = worker.send(&[(":path", "/v1/messages"), ("x-api-key", "")]);
    assert!(unknown.reply().1.starts_with(r#"{"type":"error""#));
    let unreadable = worker.send(&[(":path", "/v1/messages"), ("content-type", "")]);
    assert!(unreadable.reply().1.starts_with(r#"{"type":"error""#));
}

// === every order ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Headers,
    Part,
    Last,
    Trailers,
    Response,
    ResponsePart,
    ResponseLast,
    Log,
}

const STEPS: [Step; 8] = [
    Step::Headers,
    Step::Part,
    Step::Last,
    Step::Trailers,
    Step::Response,
    Step::ResponsePart,
    Step::ResponseLast,
    Step::Log,
];

/// Whatever a host does, nothing is sent but a body that was read to its end and allowed; every request has one line; and
/// a reservation is settled once.
#[test]
fn no_order_of_callbacks_sends_what_was_not_judged() {
    let after = |first: &[Step], length: usize| {
        (0..length).fold(vec![first.to_vec()], |shorter, _| {
            let longer = |order: Vec<Step>| STEPS.map(|step| [order.as_slice(), &[step]].concat());
            shorter.into_iter().flat_map(longer).collect()
        })
    };
    let whole = [Step::Headers, Step::Part, Step::Last];
    let orders = [after(&[], 4), after(&whole[..1], 3), after(&whole, 3)].concat();
    // A gate is expensive, and remembers nothing of a request but its counts.
    let worker = Worker::new(&CONFIG.replace("1000,", "1000000000,"));
    let mut used = worker.used();
    for order in orders {
        for parts in [GOOD, OTHER].map(|body| <[&str; 2]>::from(body.split_at(20))) {
            play(&worker, &order, parts);
            let before = std::mem::replace(&mut used, worker.used());
            // It is charged what it used, what it reserved while it is open, or nothing.
            assert!([0, 7, 40].contains(&(used - before)), "{order:?} {parts:?}");
        }
    }
}

/// Plays the callbacks of one request.
fn play(worker: &Worker, order: &[Step], parts: [&str; 2]) {
    let (gate, host) = (&worker.gate, worker.host(&[]));
    let mut exchange = Exchange::default();
    let (mut came, mut lines, mut coming) = (String::new(), 0, parts.into_iter());
    host.memory.trailers.replace(Some(Vec::new()));
    for step in order {
        let action = match step {
            Step::Headers => gate.on_request_headers(&host, &mut exchange, Opening::default()),
            Step::Part | Step::Last => {
                let part = coming.next().unwrap_or_default();
                came.push_str(part);
                host.memory.request_body.push(part);
                let bytes = host.memory.request_body.arrive().unwrap().bytes;
                let bytes = u64::try_from(bytes).unwrap();
                gate.on_request_body(&host, &mut exchange, bytes, *step == Step::Last)
            }
            Step::Trailers => gate.on_request_trailers(&host, &mut exchange),
            Step::Response => {
                host.memory.status.set(Some(200));
                gate.on_response_headers(&host, &mut exchange);
                Action::Pause
            }
            Step::ResponsePart | Step::ResponseLast => {
                host.memory.response_body.push(USED_7);
                let bytes = host.memory.response_body.arrive().unwrap().bytes;
                let bytes = u64::try_from(bytes).unwrap();
                let is_last = *step == Step::ResponseLast;
                gate.on_response_body(&host, &mut exchange, bytes, is_last);
                host.memory.response_body.pass();
                Action::Pause
            }
            Step::Log => {
                let was_done = matches!(exchange, Exchange::Done);
                gate.on_log(&host, &mut exchange);
                lines += usize::from(!was_done);
                Action::Pause
            }
        };
        if action == Action::Continue {
            host.memory.request_body.pass();
            let passed = host.memory.request_body.passed();
            let is_good = passed.is_empty() || came.starts_with(GOOD);
            assert!(is_good, "{order:?} {came}");
        }
    }
    let log = host.memory.log.borrow();
    let written = log.iter().filter(|(_, line)| line.starts_with("{\"vkey\"")).count();
    assert_eq!(written, lines, "{order:?}");
}
