//! Requests under limits of the whole cluster.

use super::*;
use crate::audit::{Line, Mask, Outcome};
use crate::decision::Decision;
use crate::exchange::Decided;
use crate::host::FilterState;

const NO_ROOM: &str = "request_rate_limited";
const NO_ANSWER: &str = "rate_limiter_error";

/// The response that a request gets.
struct Ended {
    host: MemoryHost,
    reply: Option<Reply>,
    decision: Option<Decision>,
}

impl Ended {
    fn reply(&self) -> (u16, Option<&str>) {
        let reply = self.reply.as_ref().expect("a reply");
        let wait = reply.headers.iter().find(|(name, _)| name == "retry-after");
        (reply.status, wait.map(|(_, value)| value.as_ref()))
    }

    fn state(&self, state: FilterState) -> Option<String> {
        self.host.filter_state.borrow().get(state.key()).cloned()
    }
}

/// A proxy whose key has two requests a day.
struct Proxy {
    gate: Gate,
    store: MemoryStore,
}

impl Proxy {
    fn new(more: &str) -> Self {
        let quota = r#""tiers": {"default": {"quotas": [{"requests": 2, "per": "day"}]}}"#;
        let ring = r#""keyring": [{"name": "main", "secret": "${S}"}]"#;
        let config = format!("{{{ring}, {quota}, {more}}}");
        let config = Config::parse(config.as_bytes()).unwrap();
        let plan = config.compile(|_| Some(SECRET.to_owned())).unwrap();
        let policy = include_bytes!("../../../filters/vkey/upstream-tls.json");
        let gate = Gate::open(plan, Policy::parse(policy).unwrap());
        Self { gate, store: MemoryStore::new(Rules::Envoy) }
    }

    fn limited() -> Self {
        Self::new(r#""limits": {"cluster": true}"#)
    }

    /// A request whose response has these details and this header.
    fn send(&self, details: &str, reset: Option<&str>) -> Ended {
        let shown = host(Some(&token()));
        let host = MemoryHost::new(self.store.clone());
        host.headers.replace(shown.headers.take());
        let mut exchange = Exchange::default();
        self.gate.on_request_headers(&host, &mut exchange, Opening::default());
        if exchange.is_forwarded() {
            host.show(Property::ResponseCodeDetails.path(), details);
            let reset = reset.map(|secs| ("x-ratelimit-reset".to_owned(), secs.to_owned()));
            host.response_headers.borrow_mut().extend(reset);
            self.gate.on_response_headers(&host, &mut exchange);
        }
        self.gate.on_log(&host, &mut exchange);
        let line = host.log.borrow().iter().rev().find_map(|(_, line)| Line::parse(line).ok());
        let decision = line.and_then(|line| line.record?.decision);
        let reply = host.reply.take();
        Ended { host, reply, decision }
    }
}

#[test]
fn filters_behind_the_seal_learn_whose_request_it_is_if_they_limit() {
    for (proxy, key, tenant) in
        [(Proxy::limited(), Some("k"), Some("acme")), (Proxy::new(r#""limits": {}"#), None, None)]
    {
        let ended = proxy.send("via_upstream", None);
        assert_eq!(ended.state(FilterState::Key).as_deref(), key);
        assert_eq!(ended.state(FilterState::Tenant).as_deref(), tenant);
        assert_eq!(ended.state(FilterState::Tokens), None, "no tokens are counted");
    }
}

#[test]
fn what_the_cluster_refuses_is_refused_here_and_charged_to_nobody() {
    let proxy = Proxy::limited();
    for (details, reason, status) in
        [(NO_ROOM, DenyReason::ClusterRate, 429), (NO_ANSWER, DenyReason::ClusterUnknown, 503)]
    {
        for _ in 0..5 {
            let ended = proxy.send(details, Some("17"));
            assert_eq!(ended.decision, Some(Decision::Deny(reason)));
            let wait = (status == 429).then_some("17");
            assert_eq!(ended.reply(), (status, wait), "{details}");
            assert!(!ended.host.response_headers.borrow().contains_key(RATE_LIMIT));
        }
    }
    let allowed = |ended: Ended| ended.decision == Some(Decision::Allow);
    assert!(allowed(proxy.send("via_upstream", None)) && allowed(proxy.send("", None)));
    let third = proxy.send("via_upstream", None);
    assert_eq!(third.decision, Some(Decision::Deny(DenyReason::Quota)));
    assert_eq!(third.state(FilterState::Key), None, "nothing asks for a refused request");
}

/// Where access loggers print the record, it is set as soon as nothing can be added.
#[test]
fn the_record_waits_for_what_the_cluster_says() {
    let proxy = Proxy::new(r#""limits": {"cluster": true}, "audit": {"sink": "access_log"}"#);
    // The first request to a place is followed to its end in any case.
    proxy.send("via_upstream", None);
    let refused = proxy.send(NO_ROOM, None);
    let record = refused.state(FilterState::Audit).unwrap();
    let line = Line::parse(&Line::splice(&record, &Outcome::default(), &Mask::default())).unwrap();
    let decision = line.record.and_then(|record| record.decision);
    assert_eq!(decision, Some(Decision::Deny(DenyReason::ClusterRate)));
    let metrics = proxy.store.metrics();
    let counted = |text: &str| metrics.iter().any(|(name, _)| name.contains(text));
    assert!(counted("decision.deny.reason.cluster_rate"), "{metrics:?}");
}

#[test]
fn without_a_known_end_of_the_limit_a_client_waits_for_a_second() {
    for reset in [None, Some("0"), Some("soon"), Some("-1"), Some("99999999999999999999")] {
        let ended = Proxy::limited().send(NO_ROOM, reset);
        assert_eq!(ended.reply(), (429, Some("1")), "{reset:?}");
    }
}

/// Only a later retry has room, so client libraries that obey `Retry-After` must not sleep for hours.
#[test]
fn a_long_wait_is_not_for_client_libraries() {
    let no_retry = |secs: &str| {
        let ended = Proxy::limited().send(NO_ROOM, Some(secs));
        let headers = ended.reply.unwrap().headers;
        headers.iter().any(|(name, _)| name == "x-should-retry")
    };
    assert!(!no_retry("60") && no_retry("61"));
}

#[test]
fn such_details_mean_nothing_to_a_gate_without_such_limits() {
    let proxy = Proxy::new(r#""limits": {"cluster": false}"#);
    for details in [NO_ROOM, NO_ANSWER] {
        let ended = proxy.send(details, None);
        assert!(ended.reply.is_none() && ended.decision == Some(Decision::Allow), "{details}");
    }
}

/// A limit that nobody can ask for must not open.
#[test]
fn a_host_without_filter_states_forwards_nothing() {
    let proxy = Proxy::limited();
    let host = host(Some(&token()));
    host.lacks_filter_state.set(true);
    let mut exchange = Exchange::default();
    let action = proxy.gate.on_request_headers(&host, &mut exchange, Opening::default());
    assert_eq!(action, Action::Pause);
    let decision = exchange.decided().map(Decided::decision);
    assert_eq!(decision, Some(Decision::Deny(DenyReason::NotReady)));
}
