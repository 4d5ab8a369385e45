//! One worker, and a request under way.

use crate::decision::DenyReason;
use crate::json::Json;
use crate::record::Name;

use super::super::recorded::RecordedHost;
use super::super::*;

/// A key may use small models, and 1000 tokens.
pub(super) const CONFIG: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}],
    "body": {"max_bytes": 100000}, "llm": {"default_reserve_tokens": 100},
    "tiers": {"default": {"only": {"models": ["small*"]}, "quotas": [{"tokens": 1000, "per": "total"}]}}}"#;

/// A key may use small models, and nobody counts its tokens.
pub(super) const MODELS: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}],
    "tiers": {"default": {"only": {"models": ["small*"]}}}}"#;

pub(super) const GOOD: &str = r#"{"model": "small-1", "max_tokens": 38, "messages": []}"#;
pub(super) const OTHER: &str = r#"{"model": "large-1", "max_tokens": 38, "messages": []}"#;
pub(super) const STREAM: &str =
    r#"{"model": "small-1", "max_tokens": 38, "stream": true, "messages": []}"#;
pub(super) const USED_7: &str = r#"{"model": "small-1", "choices": [],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}"#;

/// One worker.
pub(super) struct Worker {
    pub(super) gate: Gate,
    pub(super) store: MemoryStore,
}

/// A request under way.
pub(super) struct Sent<'a> {
    pub(super) worker: &'a Worker,
    pub(super) context: u32,
    pub(super) host: RecordedHost,
    pub(super) exchange: Exchange,
    pub(super) headers: Action,
}

impl Worker {
    pub(super) fn new(config: &str) -> Self {
        let config = Config::parse(config.as_bytes()).unwrap();
        let plan = config.compile(|_| Some(SECRET.to_owned())).unwrap();
        let policy = include_bytes!("../../../../filters/vkey/upstream-tls.json");
        let gate = Gate::open(plan, Policy::parse(policy).unwrap());
        Self { gate, store: MemoryStore::new(Rules::Envoy) }
    }

    pub(super) fn host(&self, headers: &[(&str, &str)]) -> RecordedHost {
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
    pub(super) fn send(&self, headers: &[(&str, &str)]) -> Sent<'_> {
        self.send_to(self.host(headers))
    }

    pub(super) fn send_to(&self, host: RecordedHost) -> Sent<'_> {
        self.send_as(7, host)
    }

    pub(super) fn send_as(&self, context: u32, host: RecordedHost) -> Sent<'_> {
        let mut exchange = Exchange::default();
        let opening = Opening { context, is_whole: false };
        let headers = self.gate.on_request_headers(&host, &mut exchange, opening);
        Sent { worker: self, context, host, exchange, headers }
    }

    /// Sends a request whose body decides on it.
    pub(super) fn ask(&self, body: &str) -> Sent<'_> {
        let mut sent = self.send(&[]);
        assert_eq!(sent.headers, Action::Pause);
        assert!(matches!(sent.exchange, Exchange::Held(_)));
        sent.body(&[body]);
        sent
    }

    /// The tokens that the key has used, its open reservations included.
    pub(super) fn used(&self) -> u64 {
        self.limit("tokens_total")
    }

    /// How many requests of the key were denied because the gate was not ready.
    pub(super) fn denied(&self) -> u64 {
        let usage = self.usage();
        let denied = usage.get("denied").and_then(|denied| denied.get("unavailable"));
        denied.unwrap_or_else(|| panic!("{usage}")).to_string().parse().unwrap()
    }

    pub(super) fn usage(&self) -> Json {
        let headers = [(":method", "GET"), (":path", "/.vkey/usage"), ("content-type", "")];
        let sent = self.send(&headers);
        let reply = sent.host.memory.reply.borrow();
        Json::parse(reply.as_ref().unwrap().body.as_bytes()).unwrap()
    }

    pub(super) fn limit(&self, name: &str) -> u64 {
        let usage = self.usage();
        let Some(Json::Array(limits)) = usage.get("limits") else { panic!("{usage}") };
        let of = |limit: &&Json| {
            limit.get("name").and_then(Json::as_str).is_some_and(|found| found.ends_with(name))
        };
        let used = limits.iter().find(of).and_then(|limit| limit.get("used"));
        used.unwrap_or_else(|| panic!("{usage}")).to_string().parse().unwrap()
    }

    pub(super) fn cell(&self) -> bool {
        use crate::host::SharedData as _;
        let name: Name = crate::limits::cell::key_name("acme", "k");
        self.store.shared_data(name.as_str()).unwrap().is_some()
    }
}

impl Sent<'_> {
    /// Passes a body in parts; the last one ends it. Returns what was done with the last.
    pub(super) fn body(&mut self, parts: &[&str]) -> Action {
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
    pub(super) fn arrive(&mut self, ends: bool) -> Option<Action> {
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

    pub(super) fn sent_body(&self) -> String {
        String::from_utf8(self.host.memory.request_body.passed()).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        use crate::host::Host as _;
        self.host.memory.request_header(name.as_bytes()).map(|v| String::from_utf8(v).unwrap())
    }

    /// Passes a response of the upstream.
    pub(super) fn respond(&mut self, status: u64, content_type: &str, parts: &[&str]) -> String {
        self.respond_headers(status, content_type);
        self.respond_body(parts);
        String::from_utf8(self.host.memory.response_body.passed()).unwrap()
    }

    pub(super) fn respond_headers(&mut self, status: u64, content_type: &str) {
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

    pub(super) fn respond_body(&mut self, parts: &[&str]) {
        for part in parts {
            self.host.memory.response_body.push(*part);
        }
        while let Some(arrived) = self.host.memory.response_body.arrive() {
            self.respond_part(arrived.bytes, arrived.is_last);
        }
    }

    pub(super) fn respond_part(&mut self, bytes: usize, is_last: bool) {
        let bytes = u64::try_from(bytes).unwrap();
        let gate = &self.worker.gate;
        let action = gate.on_response_body(&self.host, &mut self.exchange, bytes, is_last);
        assert_eq!(action, Action::Continue);
        self.host.memory.response_body.pass();
    }

    pub(super) fn end(&mut self) -> Json {
        self.worker.gate.on_log(&self.host, &mut self.exchange);
        let log = self.host.memory.log.borrow();
        let lines = log.iter().filter(|(_, line)| line.starts_with("{\"vkey\""));
        let [(_, line)] = lines.collect::<Vec<_>>()[..] else { panic!("{log:?}") };
        Json::parse(line.as_bytes()).unwrap()
    }

    pub(super) fn reply(&self) -> (u16, String) {
        let reply = self.host.memory.reply.borrow();
        let reply = reply.as_ref().expect("a reply");
        (reply.status, reply.body.to_string())
    }

    pub(super) fn reason(&self) -> Option<DenyReason> {
        self.exchange.decided().and_then(|decided| decided.decision().reason())
    }
}

pub(super) fn text<'a>(line: &'a Json, name: &str) -> &'a str {
    line.get(name).and_then(Json::as_str).unwrap_or_else(|| panic!("{name}: {line}"))
}

pub(super) fn tokens(line: &Json) -> (String, String) {
    let tokens = line.get("tokens").unwrap();
    (tokens.get("total").unwrap().to_string(), text(tokens, "src").to_owned())
}
