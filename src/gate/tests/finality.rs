//! When the record of a request is final, and what its end costs then.

use super::recorded::RecordedHost;
use super::*;
use crate::audit::{AuditRecord, Line, Mask, Outcome};
use crate::config::RoleConfig;
use crate::decision::Decision;
use crate::host::FilterState;

const CONFIG: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}], "audit": {"sink": "access_log"},
    "tiers": {"default": {"rate": {"requests": 100, "per": "1s"}}}}"#;

/// A proxy with one worker.
struct Proxy {
    gate: Gate,
    store: MemoryStore,
}

impl Proxy {
    fn new(store: MemoryStore) -> Self {
        Self::under(CONFIG, store)
    }

    fn under(config: &str, store: MemoryStore) -> Self {
        let config = Config::parse(config.as_bytes()).unwrap();
        let plan = config.compile(|_| Some(SECRET.to_owned())).unwrap();
        let gate = Gate::open(plan, policy());
        Self { gate, store }
    }

    fn envoy() -> Self {
        Self::new(MemoryStore::new(Rules::Envoy))
    }

    /// A host that shows a request for an authority and a path.
    fn host(&self, authority: &str, path: &str, key: Option<&str>) -> RecordedHost {
        let memory = MemoryHost::new(self.store.clone());
        let headers = [(":method", "POST"), (":path", path), (":authority", authority)];
        let headers = headers.into_iter().chain(key.map(|key| ("x-api-key", key)));
        let headers = headers.map(|(name, value)| (name.into(), value.into())).collect();
        memory.headers.replace(Some(headers));
        memory.trailers.replace(Some(Vec::new()));
        RecordedHost::new(memory)
    }

    /// Shows a request with a good key, and returns it after its headers.
    fn send(&self, authority: &str) -> (RecordedHost, Exchange) {
        let (host, mut exchange) =
            (self.host(authority, "/v1/chat", Some(&token())), Exchange::default());
        assert_eq!(
            self.gate.on_request_headers(&host, &mut exchange, Opening::default()),
            Action::Continue
        );
        (host, exchange)
    }

    /// Sends a request that is followed, so that the next one like it is not.
    fn warm_up(&self, authority: &str) {
        let (host, mut exchange) = self.send(authority);
        assert_eq!(record(&host), None);
        self.gate.on_response_headers(&host, &mut exchange);
        self.gate.on_log(&host, &mut exchange);
        assert!(record(&host).is_some());
    }

    fn count(&self, decision: &str) -> u64 {
        let prefix = format!("vkey_requests_total.decision.{decision}.");
        let metrics = self.store.metrics();
        metrics.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(_, value)| value).sum()
    }
}

fn policy() -> Policy {
    Policy::parse(include_bytes!("../../../filters/vkey/upstream-tls.json")).unwrap()
}

/// The record that the access loggers have.
fn record(host: &RecordedHost) -> Option<AuditRecord<'static>> {
    let states = host.memory.filter_state.borrow();
    let record = states.get(FilterState::Audit.key())?;
    Line::parse(&Line::splice(record, &Outcome::default(), &Mask::default())).unwrap().record
}

fn decision(host: &RecordedHost) -> Option<Decision> {
    record(host)?.decision
}

#[test]
fn the_end_of_a_final_request_makes_no_host_call_but_the_fields_for_the_client() {
    let proxy = Proxy::envoy();
    proxy.warm_up("upstream.example");
    for _ in 0..3 {
        let (host, mut exchange) = proxy.send("upstream.example");
        assert_eq!(decision(&host), Some(Decision::Allow));
        host.take_calls();
        proxy.gate.on_response_headers(&host, &mut exchange);
        let calls = host.take_calls();
        assert!(!calls.is_empty() && calls.iter().all(|call| *call == "set_response_header"));
        assert_eq!(calls.len(), host.memory.response_headers.borrow().len());
        proxy.gate.on_log(&host, &mut exchange);
        assert_eq!(host.take_calls(), [""; 0]);
    }
    assert_eq!(proxy.count("allow"), 4);
}

#[test]
fn a_refusal_is_final_at_once() {
    let proxy = Proxy::envoy();
    for (key, reason) in [(None, DenyReason::KeyMissing), (Some("vk1.x"), DenyReason::KeyMalformed)]
    {
        let (host, mut exchange) =
            (proxy.host("upstream.example", "/v1", key), Exchange::default());
        proxy.gate.on_request_headers(&host, &mut exchange, Opening::default());
        assert_eq!(decision(&host), Some(Decision::Deny(reason)));
        host.take_calls();
        proxy.gate.on_response_headers(&host, &mut exchange);
        proxy.gate.on_log(&host, &mut exchange);
        assert_eq!(host.take_calls(), [""; 0]);
    }
    assert_eq!(proxy.count("deny"), 2);
}

/// A known host has a verdict, so its record waits for it, however often it is sent to.
#[test]
fn a_request_that_awaits_a_verdict_is_final_at_its_end() {
    let proxy = Proxy::envoy();
    for _ in 0..3 {
        let (host, mut exchange) = proxy.send("api.openai.com");
        assert_eq!(record(&host), None);
        proxy.gate.on_log(&host, &mut exchange);
        assert_eq!(decision(&host), Some(Decision::Allow));
    }
    assert_eq!(proxy.count("allow"), 3);
}

#[test]
fn with_an_upstream_gate_every_request_awaits_its_verdict() {
    let proxy = Proxy::envoy();
    proxy.warm_up("upstream.example");
    let gate = MemoryHost::new(proxy.store.clone());
    let RoleConfig::UpstreamTls(config) =
        RoleConfig::parse(br#"{"role": "upstream_tls"}"#).unwrap()
    else {
        panic!()
    };
    UpstreamGate::new(policy(), &config, |_| None, &gate);
    assert_eq!(proxy.store.metric("vkey_upstream_gates"), Some(1));
    let (host, mut exchange) = proxy.send("upstream.example");
    assert_eq!(record(&host), None);
    host.memory.show(Property::UpstreamLocalAddress.path(), "192.0.2.1:4711");
    let verdict = "unlisted 192.0.2.1:4711";
    host.memory.show(Property::FilterState(FilterState::Upstream).path(), verdict);
    proxy.gate.on_response_headers(&host, &mut exchange);
    proxy.gate.on_log(&host, &mut exchange);
    assert_eq!(record(&host).unwrap().tls_verdict.as_deref(), Some("unlisted"));
    // Once it is known, it is not asked for.
    let (host, _) = proxy.send("upstream.example");
    assert!(!host.take_calls().contains(&"metric"));
}

/// A gate in a VM whose metrics are others is known from shared data, or from its verdict, when a request is followed.
#[test]
fn a_gate_that_no_metric_shows_is_found_when_a_request_is_followed() {
    let proxy = Proxy::envoy();
    proxy.warm_up("upstream.example");
    let (host, _) = proxy.send("upstream.example");
    assert!(record(&host).is_some());
    let (host, mut exchange) = proxy.send("other.example");
    host.memory
        .show(Property::FilterState(FilterState::Upstream).path(), "upstream_plaintext unsent");
    proxy.gate.on_response_headers(&host, &mut exchange);
    let (host, _) = proxy.send("upstream.example");
    assert_eq!(record(&host), None);
}

/// The route has rewritten the authority to a known host.
#[test]
fn a_followed_request_is_checked_at_its_end() {
    let proxy = Proxy::envoy();
    let (host, mut exchange) = proxy.send("upstream.example");
    host.memory.headers.borrow_mut().iter_mut().flatten().for_each(|(name, value)| {
        if name == b":authority" {
            *value = b"api.openai.com".to_vec();
        }
    });
    host.memory.show(Property::UpstreamAddress.path(), "192.0.2.80:80");
    host.memory.show(Property::UpstreamLocalAddress.path(), "192.0.2.1:4711");
    host.memory.show(Property::ResponseCodeDetails.path(), "via_upstream");
    proxy.gate.on_response_headers(&host, &mut exchange);
    proxy.gate.on_log(&host, &mut exchange);
    let record = record(&host).unwrap();
    assert_eq!(record.tls_verdict.as_deref(), Some("upstream_plaintext"));
}

#[test]
fn a_request_that_nobody_saw_is_counted_and_sets_nothing() {
    let proxy = Proxy::envoy();
    let (host, mut exchange) = (proxy.host("upstream.example", "/", None), Exchange::default());
    proxy.gate.on_log(&host, &mut exchange);
    assert_eq!(host.take_calls(), ["define_metric", "increment_metric"]);
    assert_eq!((record(&host), proxy.count("unseen")), (None, 1));
}

/// The body of a preflight refuses it, and the gate of a cluster a request that may have a credential.
#[test]
fn a_request_that_may_still_be_refused_is_not_final() {
    let with = |members: &str| {
        let config = CONFIG.replacen('{', &format!("{{{members}, "), 1);
        Proxy::under(&config, MemoryStore::new(Rules::Envoy))
    };
    let proxy = with(r#""preflight": "pass""#);
    for _ in 0..2 {
        let host = proxy.host("upstream.example", "/v1/chat", None);
        let preflight = [
            (":method", "OPTIONS"),
            (":path", "/v1/chat"),
            (":authority", "upstream.example"),
            ("origin", "https://app.example"),
            ("access-control-request-method", "POST"),
        ];
        let preflight = preflight.map(|(name, value)| (name.into(), value.into()));
        host.memory.headers.replace(Some(preflight.into()));
        let mut exchange = Exchange::default();
        assert_eq!(
            proxy.gate.on_request_headers(&host, &mut exchange, Opening::default()),
            Action::Continue
        );
        assert_eq!(record(&host), None);
        proxy.gate.on_request_body(&host, &mut exchange, 1, false);
        assert_eq!(decision(&host), Some(Decision::Deny(DenyReason::KeyMissing)));
    }
    let proxy =
        with(r#""forward": {"credentials": [{"name": "a", "hosts": ["upstream.example"]}]}"#);
    proxy.warm_up("upstream.example");
    let (host, _) = proxy.send("upstream.example");
    assert_eq!(record(&host), None);
}

/// The module cannot clean the trailers, so the rest of the request is refused.
#[test]
fn the_record_of_a_request_that_is_refused_later_is_set_again() {
    let proxy = Proxy::envoy();
    proxy.warm_up("upstream.example");
    let (host, mut exchange) = proxy.send("upstream.example");
    assert_eq!(decision(&host), Some(Decision::Allow));
    host.memory.trailers.replace(None);
    assert_eq!(proxy.gate.on_request_trailers(&host, &mut exchange), Action::Pause);
    assert_eq!(decision(&host), Some(Decision::Deny(DenyReason::NotReady)));
    host.take_calls();
    proxy.gate.on_log(&host, &mut exchange);
    assert_eq!(host.take_calls(), [""; 0]);
    assert_eq!((proxy.count("allow"), proxy.count("deny")), (2, 0));
}

#[test]
fn a_line_that_the_access_loggers_cannot_get_is_in_the_log() {
    let proxy = Proxy::envoy();
    for key in [Some(token()), None] {
        let mut host = proxy.host("upstream.example", "/v1/chat", key.as_deref());
        host.lacks_filter_state = true;
        let mut exchange = Exchange::default();
        proxy.gate.on_request_headers(&host, &mut exchange, Opening::default());
        proxy.gate.on_log(&host, &mut exchange);
        let log = host.memory.log.take();
        let lines = log.iter().filter(|(_, line)| Line::parse(line).is_ok());
        assert_eq!(lines.count(), 1, "{log:?}");
    }
    // The host is known by now, so the request that nobody saw has its line there too.
    let (host, mut exchange) = (proxy.host("upstream.example", "/", None), Exchange::default());
    proxy.gate.on_log(&host, &mut exchange);
    assert_eq!(host.memory.log.borrow().len(), 1);
    assert_eq!((proxy.count("allow"), proxy.count("deny"), proxy.count("unseen")), (1, 1, 1));
}

/// A host without shared data shows nothing early enough.
#[test]
fn nothing_is_final_early_on_a_host_without_shared_data() {
    let proxy = Proxy::new(MemoryStore::new(Rules::Bare));
    let host = proxy.host("upstream.example", "/v1", None);
    let mut exchange = Exchange::default();
    proxy.gate.on_request_headers(&host, &mut exchange, Opening::default());
    assert!(record(&host).is_some(), "a refusal is final everywhere");
}

/// Where the access loggers cannot get the record, nobody else prints the address.
#[test]
fn a_line_in_place_of_a_record_has_the_address() {
    let proxy = Proxy::envoy();
    let peer = || {
        let mut host = proxy.host("upstream.example", "/v1/chat", None);
        host.lacks_filter_state = true;
        host.memory.show(Property::SourceAddress.path(), "192.0.2.9:1234");
        let mut exchange = Exchange::default();
        proxy.gate.on_request_headers(&host, &mut exchange, Opening::default());
        proxy.gate.on_log(&host, &mut exchange);
        let log = host.memory.log.take();
        let line = log.iter().find_map(|(_, line)| Line::parse(line).ok()).unwrap();
        line.outcome.peer.map(String::from)
    };
    // The first request shows that the host has no filter state.
    assert_eq!([peer(), peer()], [None, Some("192.0.2.9".to_owned())]);
}
