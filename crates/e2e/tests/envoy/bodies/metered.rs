//! What is reserved, settled, injected and removed.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::json;

use super::gateway::{Gateway, Plan, USED_7};
use crate::support::origin::{Received, write_chunk, write_chunks, write_head, write_response};
use crate::support::{config, each_envoy, wait_for};

const GOOD: &str = r#"{"model": "small-1", "max_tokens": 98, "messages": []}"#;
const STREAM: &str = r#"{"model": "small-1", "max_tokens": 98, "stream": true, "messages": []}"#;
const INCLUDED: &str = "{\"stream_options\":{\"include_usage\":true},\"model\": \"small-1\", \
    \"max_tokens\": 98, \"stream\": true, \"messages\": []}";

/// What both reserve: 2 of the input, and 98 of the output.
const RESERVED: u64 = 100;

const EVENT: &[u8] = b"data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const USAGE: &[u8] =
    b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\
    \"total_tokens\":7}}\n\n";
const DONE: &[u8] = b"data: [DONE]\n\n";
const EVENTS: [(&str, &str); 1] = [("content-type", "text/event-stream")];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[test]
fn what_a_response_used_replaces_what_was_reserved() {
    each_envoy(|binary| {
        let gateway = Plan::new(binary, "settle", json!({})).start();
        let answer = gateway.ask(GOOD);
        assert_eq!((answer.status, answer.text()), (200, USED_7.to_owned()));
        let received = gateway.received();
        assert_eq!(received.header("accept-encoding").as_deref(), Some("identity"));
        let line = gateway.line(1);
        assert_eq!(
            (&line["tokens"]["total"], &line["tokens"]["src"]),
            (&json!(7), &json!("usage"))
        );
        assert_eq!(gateway.used(), 7);
        let stats = gateway.envoy.admin_get("/stats/prometheus?filter=vkey_tokens").text();
        assert!(stats.contains("kind=\"output\""), "{stats}");
    });
}

/// The length of a body that has grown is right: what is left over would be the next request.
#[test]
fn a_stream_reports_its_usage_and_the_client_does_not_see_it() {
    each_envoy(|binary| {
        let parts = |usage: &'static [u8], at: usize| [EVENT, &usage[..at], &usage[at..], DONE];
        let number = Mutex::new(0);
        let gateway = Plan::new(binary, "streams", json!({})).start_before(move |_, stream| {
            let mut number = number.lock().unwrap();
            *number += 9;
            write_chunks(stream, 200, &EVENTS, &parts(USAGE, *number))
        });
        let mut connection = gateway.connect();
        for sent in 1..=5 {
            let request = gateway.request().header("accept-encoding", "gzip").header("te", "gzip");
            let answer = connection.send(&request.body(STREAM));
            assert_eq!(answer.body, [EVENT, DONE].concat());
            assert_eq!(gateway.used(), 7 * sent);
        }
        let requests = gateway.origin.take();
        assert_eq!(requests.len(), 5);
        for received in requests {
            assert_eq!(String::from_utf8_lossy(&received.body), INCLUDED);
            assert_eq!(received.header("content-length"), Some(INCLUDED.len().to_string()));
            assert_eq!(received.header("te"), None);
        }
        // The proxy has kept the connection.
        assert_eq!(gateway.origin.connections(), 1);
    });
}

#[test]
fn a_stream_whose_length_is_known_loses_it() {
    each_envoy(|binary| {
        let gateway = Plan::new(binary, "length", json!({})).start_before(|_, stream| {
            write_response(stream, 200, &EVENTS, &[EVENT, USAGE, DONE].concat())
        });
        let answer = gateway.ask(STREAM);
        assert_eq!(answer.body, [EVENT, DONE].concat());
        assert_eq!(answer.header("content-length"), None);
    });
}

/// What is far behind in a body is changed without the module having all of it.
#[test]
fn a_long_body_is_changed_where_it_must_be() {
    each_envoy(|binary| {
        let quotas = json!([{"tokens": 10_000_000, "per": "total"}]);
        let plugin = json!({"tiers": {"default": {"quotas": quotas}}});
        let gateway = Plan::new(binary, "long", plugin).start();
        let long = "x".repeat(3_000_000);
        let body = |value: bool| {
            format!(
                r#"{{"model": "small-1", "user": "{long}", "stream": true, "stream_options": {{"include_usage": {value}}}, "max_tokens": 1}}"#
            )
        };
        assert_eq!(gateway.ask(body(false)).status, 200);
        let received = gateway.received();
        assert!(received.body == body(true).into_bytes(), "{} bytes", received.body.len());
    });
}

/// An upstream that waits with the rest of its response until it is told to go on.
struct Waiting {
    go_on: Sender<()>,
    gateway: Gateway,
}

fn waiting(plan: Plan, first: &'static [u8]) -> Waiting {
    let (go_on, wait): (Sender<()>, Receiver<()>) = channel();
    let wait = Mutex::new(wait);
    let gateway = plan.start_before(move |_, stream: &mut TcpStream| {
        write_head(stream, 200, &EVENTS)?;
        stream.write_all(b"transfer-encoding: chunked\r\n\r\n")?;
        write_chunk(stream, first)?;
        // The other end has gone if it is never told to.
        _ = wait.lock().unwrap().recv();
        Err(io::ErrorKind::BrokenPipe.into())
    });
    Waiting { go_on, gateway }
}

#[test]
fn a_client_that_leaves_pays_what_was_reserved() {
    each_envoy(|binary| {
        let waiting = waiting(Plan::new(binary, "left", json!({})), EVENT);
        let gateway = &waiting.gateway;
        let mut connection = gateway.connect();
        connection.send_raw(&gateway.request().body(STREAM).encode()).unwrap();
        // Nothing of the response is held back but an event that may be the usage.
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("Hi") {
            seen.extend(connection.read_bytes().unwrap());
        }
        assert_eq!(gateway.used(), RESERVED);
        drop(connection);
        let line = gateway.line(2);
        assert_eq!(
            (&line["decision"], &line["tokens"]["total"]),
            (&json!("allow"), &json!(RESERVED))
        );
        assert_eq!(gateway.used(), RESERVED);
        drop(waiting.go_on);
    });
}

#[test]
fn an_upstream_that_breaks_off_keeps_what_was_reserved() {
    each_envoy(|binary| {
        let waiting = waiting(Plan::new(binary, "broken", json!({})), EVENT);
        let gateway = &waiting.gateway;
        let mut connection = gateway.connect();
        connection.send_raw(&gateway.request().body(STREAM).encode()).unwrap();
        assert!(connection.read_some().unwrap() > 0);
        waiting.go_on.send(()).unwrap();
        assert!(connection.read_response().is_err());
        let line = gateway.line(1);
        assert_eq!(line["tokens"]["total"], json!(RESERVED), "{line}");
        assert_eq!(gateway.used(), RESERVED);
    });
}

#[test]
fn what_the_upstream_refuses_costs_nothing() {
    each_envoy(|binary| {
        let respond = |received: &Received, stream: &mut TcpStream| {
            let status = if received.body.is_empty() { 500 } else { 429 };
            write_response(stream, status, &JSON, br#"{"error": {"message": "no"}}"#)
        };
        let gateway = Plan::new(binary, "no", json!({})).start_before(respond);
        assert_eq!(gateway.ask(GOOD).status, 429);
        assert_eq!(gateway.line(1)["tokens"]["src"], "none");
        assert_eq!(gateway.used(), 0);
    });
}

#[test]
fn what_was_never_sent_costs_nothing() {
    each_envoy(|binary| {
        let gateway = Plan::new(binary, "unsent", json!({})).start_without_upstream();
        assert_eq!(gateway.ask(GOOD).status, 503);
        let line = gateway.line(1);
        assert_eq!((&line["decision"], &line["tokens"]["src"]), (&json!("allow"), &json!("none")));
        assert_eq!(gateway.used(), 0);
    });
}

#[test]
fn what_was_sent_and_never_answered_is_paid_for() {
    each_envoy(|binary| {
        let plan = Plan::new(binary, "timeout", json!({})).edit(|config| {
            let routes = &mut config::connection_manager(config, "gate")["route_config"];
            routes["virtual_hosts"][0]["routes"][0]["route"]["timeout"] = json!("0.2s");
        });
        let (_go_on, wait): (Sender<()>, Receiver<()>) = channel();
        let wait = Mutex::new(wait);
        let gateway = plan.start_before(move |_, _| {
            _ = wait.lock().unwrap().recv();
            Ok(())
        });
        assert_eq!(gateway.ask(GOOD).status, 504);
        let line = gateway.line(1);
        assert_eq!(line["tokens"]["src"], json!("reserved"), "{line}");
        assert_eq!(gateway.used(), RESERVED);
    });
}

/// The upstream has three requests that it did not answer, and may have served.
#[test]
fn attempts_that_the_proxy_gave_up_are_paid_for() {
    each_envoy(|binary| {
        let plan = Plan::new(binary, "attempts", json!({})).edit(|config| {
            let routes = &mut config::connection_manager(config, "gate")["route_config"];
            routes["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"] = json!({
                "retry_on": "5xx",
                "num_retries": 3,
                "per_try_timeout": "0.3s",
                "retry_back_off": {"base_interval": "0.001s"},
            });
        });
        let (_go_on, wait): (Sender<()>, Receiver<()>) = channel();
        let (wait, number) = (Mutex::new(wait), AtomicU64::new(0));
        let gateway = plan.start_before(move |_, stream| {
            if number.fetch_add(1, Ordering::SeqCst) < 3 {
                _ = wait.lock().unwrap().recv();
                return Ok(());
            }
            write_response(stream, 200, &JSON, USED_7.as_bytes())
        });
        assert_eq!(gateway.ask(GOOD).status, 200);
        assert_eq!(gateway.origin.take().len(), 4);
        let line = gateway.line(1);
        let expected = json!(3 * RESERVED + 7);
        assert_eq!(
            (&line["tokens"]["total"], &line["tokens"]["src"]),
            (&expected, &json!("partial"))
        );
        assert_eq!(gateway.used(), 3 * RESERVED + 7);
    });
}

/// The module is not called for trailers of responses: nothing could be added to the body by then. So an event without
/// its end, which clients discard, is lost.
#[test]
fn a_stream_that_trailers_end_is_settled() {
    each_envoy(|binary| {
        let plan = Plan::new(binary, "trailers-end", json!({})).edit(|config| {
            let manager = config::connection_manager(config, "gate");
            manager["http_protocol_options"]["enable_trailers"] = json!(true);
            let cluster = config::named(config, "/static_resources/clusters", "echo");
            cluster["http_protocol_options"] = json!({"enable_trailers": true});
        });
        let gateway = plan.start_before(|received, stream| {
            write_head(stream, 200, &EVENTS)?;
            stream.write_all(b"transfer-encoding: chunked\r\n\r\n")?;
            let tail: &[u8] = if received.header("x-tail").is_some() { b"data: {" } else { b"" };
            [EVENT, USAGE, DONE, tail].iter().try_for_each(|part| write_chunk(stream, part))?;
            stream.write_all(b"0\r\nx-checksum: abc\r\n\r\n")
        });
        assert_eq!(gateway.ask(STREAM).body, [EVENT, DONE].concat());
        let line = gateway.line(1);
        let expected = (&json!(7), &json!("usage"));
        assert_eq!((&line["tokens"]["total"], &line["tokens"]["src"]), expected);
        assert_eq!(gateway.used(), 7);
        let request = gateway.request().header("x-tail", "1").body(STREAM);
        assert_eq!(gateway.envoy.send(&request).body, [EVENT, DONE].concat());
    });
}

#[test]
fn digests_of_bodies_that_change_are_removed() {
    each_envoy(|binary| {
        let digests = [("content-digest", "sha-256=:AAAA:"), ("digest", "SHA-256=AAAA")];
        let gateway = Plan::new(binary, "digests", json!({})).start_before(move |_, stream| {
            let headers = [EVENTS.as_slice(), &digests, &[("etag", "\"1\"")]].concat();
            write_chunks(stream, 200, &headers, &[EVENT, USAGE, DONE])
        });
        let request =
            digests.iter().fold(gateway.request(), |r, (name, value)| r.header(name, value));
        let answer = gateway.envoy.send(&request.body(STREAM));
        assert_eq!(answer.body, [EVENT, DONE].concat());
        let received = gateway.received();
        for name in ["content-digest", "digest", "etag"] {
            assert_eq!((received.header(name), answer.header(name)), (None, None), "{name}");
        }
    });
}

/// The quota has room for a hundred reservations, whichever worker decides.
#[test]
fn a_quota_of_tokens_is_exact_over_all_workers() {
    let first = crate::support::envoys().remove(0);
    let (_go_on, wait): (Sender<()>, Receiver<()>) = channel();
    let wait = Mutex::new(wait);
    let plan = Plan::new(&first, "exact", json!({})).workers(4);
    let gateway = plan.start_before(move |_, _| {
        _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let mut connections: Vec<_> = (0..130).map(|_| gateway.connect()).collect();
    let request = gateway.request().body(GOOD).encode();
    for connection in &mut connections {
        connection.send_raw(&request).unwrap();
    }
    wait_for(
        || (gateway.envoy.access_log().len() == 30).then_some(()),
        || format!("{} lines", gateway.envoy.access_log().len()),
    );
    assert_eq!(gateway.used(), 100 * RESERVED);
}
