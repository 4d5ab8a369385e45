//! What is reserved, and what is charged in the end.

use crate::decision::DenyReason;
use crate::host::FilterState;

use super::super::*;
use super::worker::*;

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
    let cases: [(&str, Act, u64, &str); 9] = [
        (
            "an error that trailers end",
            |sent| {
                sent.respond_headers(500, "text/plain");
                sent.host.memory.response_body.push("no");
                sent.host.memory.response_body.arrive();
                sent.respond_part(2, false);
            },
            0,
            "none",
        ),
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

/// The proxy gave up attempts that it had sent, and no response of them came to the module.
#[test]
fn each_attempt_of_the_proxy_before_the_last_costs_what_was_reserved() {
    let attempts = |count: u64, act: fn(&mut Sent<'_>)| {
        let worker = Worker::new(CONFIG);
        let mut sent = worker.ask(GOOD);
        sent.host.memory.show(Property::UpstreamAttempt.path(), count.to_le_bytes());
        act(&mut sent);
        let line = sent.end();
        assert_eq!(tokens(&line).0, worker.used().max(40).to_string(), "{line}");
        (worker.used(), tokens(&line).1)
    };
    let answered = |sent: &mut Sent<'_>| {
        sent.respond(200, "application/json", &[USED_7]);
    };
    let refused = |sent: &mut Sent<'_>| {
        sent.respond(429, "application/json", &["{}"]);
    };
    let unanswered = |sent: &mut Sent<'_>| {
        sent.host.memory.show(Property::UpstreamLocalAddress.path(), "192.0.2.1:4711");
    };
    assert_eq!(attempts(2, answered), (47, "partial".into()));
    assert_eq!(attempts(4, answered), (127, "partial".into()));
    assert_eq!(attempts(2, refused), (40, "reserved".into()));
    assert_eq!(attempts(4, unanswered), (160, "reserved".into()));
    // The last one found no connection.
    assert_eq!(attempts(2, |_| {}), (40, "reserved".into()));
    assert_eq!(attempts(1, |_| {}), (0, "none".into()));
}

/// The upstream has responded before the request ended, whose trailers the host does not show.
#[test]
fn a_request_that_is_refused_after_it_was_settled_is_counted_and_not_refunded() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.ask(GOOD);
    sent.respond(200, "application/json", &[USED_7]);
    assert_eq!(worker.gate.on_request_trailers(&sent.host, &mut sent.exchange), Action::Pause);
    assert_eq!((sent.reason(), worker.used()), (Some(DenyReason::NotReady), 7));
    assert_eq!(tokens(&sent.end()), ("7".into(), "usage".into()));
    let other = worker.store.metric("vkey_tokens_total.kind.output.tenant.other");
    assert_eq!((worker.denied(), other), (1, Some(4)));
}

/// What was settled is not given back, even if a gate of a cluster says that nothing was sent.
#[test]
fn what_was_settled_is_not_refunded() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.ask(GOOD);
    sent.respond(200, "application/json", &[USED_7]);
    let place = Property::FilterState(FilterState::Upstream).path();
    sent.host.memory.show(place, "upstream_plaintext unsent");
    worker.gate.on_response_headers(&sent.host, &mut sent.exchange);
    assert_eq!((sent.reason(), worker.used()), (Some(DenyReason::UpstreamPlaintext), 7));
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
