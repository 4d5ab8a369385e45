//! Which requests are held, and on which hosts.

use crate::decision::DenyReason;

use super::super::recorded::RecordedHost;

use super::super::*;
use super::worker::*;

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
    for path in ["/gcp/v1beta1/models/m:predict", "/aws/model/m/invoke-x", "/async-invoke"] {
        assert_eq!(worker.send(&[(":path", path)]).reason(), Some(DenyReason::Path), "{path}");
    }
    // It is not known which model runs, or in which form the response comes.
    for (method, path, message) in [
        ("POST", "/openai/deployments/a/x/chat/completions", "more than one way"),
        ("POST", "/team/deployments/a/engines/b/completions", "more than one way"),
        ("POST", "/v1beta/models/m:generateContent?fields=candidates", "the form of the response"),
        ("GET", "/v1beta/models/m:generateContent?$httpMethod=POST", "changes the method"),
    ] {
        let refused = worker.send(&[(":method", method), (":path", path)]);
        assert_eq!(refused.reason(), Some(DenyReason::PathAmbiguous), "{path}");
        assert!(refused.reply().1.contains(message), "{path}");
    }
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
    let host = sized(&worker, 500);
    host.memory.now_ns.set(Some(12_000_000_000));
    let sent = worker.send_to(host);
    assert!(matches!(sent.exchange, Exchange::Held(_)));
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
