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

/// The host says that more of a request has come.
fn grow(sent: &Sent<'_>) {
    sent.host.memory.show(Property::RequestTotalSize.path(), 501_u64.to_le_bytes());
}

/// Makes a number of ticks, for all requests of a worker that are watched.
fn tick(worker: &Worker, times: u32, requests: &mut [&mut Sent<'_>]) {
    let hosts: Vec<_> = requests.iter().map(|sent| sent.host.memory.tick_millis.get()).collect();
    assert!(hosts.iter().any(|millis| *millis > 0), "nothing is watched");
    let requests = RefCell::new(requests);
    for _ in 0..times {
        let host = worker.host(&[]);
        worker.gate.tick(&host, 1, |context| {
            let mut requests = requests.borrow_mut();
            let sent = requests.iter_mut().find(|sent| sent.context == context).unwrap();
            worker.gate.on_tick(&sent.host, &mut sent.exchange)
        });
    }
}

fn is_held(sent: &Sent<'_>) -> bool {
    matches!(sent.exchange, Exchange::Held(_))
}

#[test]
fn a_host_that_keeps_bodies_back_is_found_out() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send_to(sized(&worker, 500));
    assert!(is_held(&sent));
    tick(&worker, 100, &mut [&mut sent]);
    assert!(is_held(&sent), "the client may not have sent any");
    grow(&sent);
    tick(&worker, 19, &mut [&mut sent]);
    assert!(is_held(&sent), "a filter before this one may delay it");
    tick(&worker, 1, &mut [&mut sent]);
    let (status, body) = sent.reply();
    assert!(status == 400 && body.contains("allow_on_headers_stop_iteration: true"), "{body}");
    assert!(body.contains("no filter before it"), "{body}");
    let says = |level| sent.host.memory.log.borrow().iter().filter(|(l, _)| *l == level).count();
    assert_eq!(says(Level::Error), 1);
    assert_eq!(text(&sent.end(), "reason"), "body_unreadable");
    // The next one is refused at once, until one is watched again.
    let sent = worker.send_to(sized(&worker, 500));
    assert_eq!(sent.reason(), Some(DenyReason::BodyUnreadable));
    let host = sized(&worker, 500);
    host.memory.now_ns.set(Some(11_000_000_000));
    let mut sent = worker.send_to(host);
    assert!(is_held(&sent));
    assert_eq!(sent.body(&[GOOD]), Action::Continue);
    // By now the host has proven itself.
    let host = sized(&worker, 500);
    host.memory.now_ns.set(Some(12_000_000_000));
    let sent = worker.send_to(host);
    assert!(is_held(&sent));
    assert!(!sent.host.take_calls().contains(&"set_tick_period"));
}

/// A filter before this one waits for a service, or for the rest of the body.
#[test]
fn a_body_that_is_delayed_is_waited_for() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send_to(sized(&worker, 500));
    grow(&sent);
    tick(&worker, 19, &mut [&mut sent]);
    assert_eq!(sent.body(&[GOOD]), Action::Continue);
}

/// Each is given its own time, and one that comes later does not put off the ticks.
#[test]
fn all_requests_that_are_held_before_the_proof_are_watched() {
    let worker = Worker::new(CONFIG);
    let mut first = worker.send_to(sized(&worker, 500));
    grow(&first);
    tick(&worker, 10, &mut [&mut first]);
    let mut second = worker.send_as(8, sized(&worker, 500));
    assert!(!second.host.take_calls().contains(&"set_tick_period"));
    grow(&second);
    tick(&worker, 10, &mut [&mut first, &mut second]);
    assert_eq!((first.reason(), is_held(&second)), (Some(DenyReason::BodyUnreadable), true));
    tick(&worker, 10, &mut [&mut first, &mut second]);
    assert_eq!(second.reason(), Some(DenyReason::BodyUnreadable));
}

/// The body of one proves the host for all, also after it was taken for one that keeps bodies back.
#[test]
fn a_body_that_comes_late_ends_the_suspicion() {
    let worker = Worker::new(CONFIG);
    let mut first = worker.send_to(sized(&worker, 500));
    let mut second = worker.send_as(8, sized(&worker, 500));
    grow(&first);
    tick(&worker, 20, &mut [&mut first, &mut second]);
    assert_eq!(first.reason(), Some(DenyReason::BodyUnreadable));
    assert_eq!(worker.send(&[]).reason(), Some(DenyReason::BodyUnreadable));
    assert_eq!(second.body(&[GOOD]), Action::Continue);
    assert!(is_held(&worker.send(&[])));
}

/// A client that leaves before its body looks like a host that has stopped to call back.
#[test]
fn a_proof_is_not_forgotten() {
    let worker = Worker::new(CONFIG);
    let mut sent = worker.send_to(sized(&worker, 500));
    assert_eq!(sent.body(&[GOOD]), Action::Continue);
    let mut leaving = worker.send_to(sized(&worker, 500));
    grow(&leaving);
    leaving.end();
    let sent = worker.send_to(sized(&worker, 500));
    assert!(is_held(&sent));
    assert!(!sent.host.take_calls().contains(&"set_tick_period"));
}

#[test]
fn a_request_that_has_ended_is_not_watched() {
    let worker = Worker::new(CONFIG);
    let sent = worker.send_to(sized(&worker, 500));
    assert_ne!(sent.host.memory.tick_millis.get(), 0);
    sent.host.memory.gone.borrow_mut().push(7);
    worker.gate.tick(&sent.host, 1, |_| panic!("it is gone"));
    assert_eq!(sent.host.memory.tick_millis.get(), 0);
}
