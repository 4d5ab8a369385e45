//! What is held until it has been read, and what of it reaches the upstream.

use serde_json::json;

use super::gateway::{Gateway, MAX_BYTES, Plan, assert_refused};
use crate::http2;
use crate::support::{config, each_envoy, wait_for};

const GOOD: &str = r#"{"model": "small-1", "max_tokens": 10, "messages": []}"#;
const OTHER: &str = r#"{"model": "large-1", "max_tokens": 10, "messages": []}"#;

/// Sends a request in chunks of a size, and trailers. Returns the status.
fn send_chunked(gateway: &Gateway, body: &str, size: usize, trailers: &str) -> u16 {
    let mut connection = gateway.connect();
    let head = gateway.request().header("transfer-encoding", "chunked").encode();
    connection.send_raw(&head).unwrap();
    for part in body.as_bytes().chunks(size) {
        let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
        // What is refused early is not read to its end.
        if connection.send_raw(&chunk).is_err() {
            break;
        }
    }
    _ = connection.send_raw(format!("0\r\n{trailers}\r\n").as_bytes());
    connection.read_response().unwrap().status
}

#[test]
fn nothing_of_a_refused_body_reaches_the_upstream() {
    each_envoy(|binary| {
        let gateway = Plan::new(binary, "refused", json!({})).start();
        assert_refused(&gateway.ask(OTHER), 403, "model");
        assert_refused(&gateway.ask("{\"model\": \"small-1\",}"), 400, "body_unreadable");
        assert_refused(&gateway.ask("{\"model\": \"small-1\""), 400, "body_unreadable");
        assert_refused(&gateway.ask(""), 400, "body_unreadable");
        for size in [1, 7, 1000] {
            assert_eq!(send_chunked(&gateway, OTHER, size, ""), 403);
            assert_eq!(send_chunked(&gateway, "[1,,2]", size, ""), 400);
        }
        let fields = gateway.fields();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = http2::send_with(gateway.address(), &fields, Some(OTHER.as_bytes())).unwrap();
        assert_eq!(answer.status, Some(403));
        assert_eq!(gateway.origin.connections(), 0);
        assert_eq!(gateway.used(), 0);
    });
}

#[test]
fn an_allowed_body_goes_on_as_it_came() {
    each_envoy(|binary| {
        let gateway = Plan::new(binary, "allowed", json!({})).start();
        let passed = |gateway: &Gateway| {
            let received = gateway.received();
            assert_eq!(String::from_utf8_lossy(&received.body), GOOD);
            assert_eq!(received.header("x-vkey-key").as_deref(), Some("reader"));
            received
        };
        assert_eq!(gateway.ask(GOOD).status, 200);
        passed(&gateway);
        for size in [1, 7, 1000] {
            assert_eq!(send_chunked(&gateway, GOOD, size, ""), 200);
            assert_eq!(passed(&gateway).header("content-length"), None);
        }
        let fields = gateway.fields();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (one, other) = GOOD.as_bytes().split_at(20);
        let answer = http2::send_parts(gateway.address(), &fields, &[one, other], &[]).unwrap();
        assert_eq!(answer.status, Some(200));
        passed(&gateway);
        // On one connection, one after the other.
        let mut connection = gateway.connect();
        for (body, status) in [(GOOD, 200), (OTHER, 403), (GOOD, 200)] {
            assert_eq!(connection.send(&gateway.request().body(body)).status, status);
        }
        assert_eq!(gateway.origin.take().len(), 2);
        assert_eq!(gateway.line(8)["model"], "small-1");
    });
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    each_envoy(|binary| {
        let gateway = Plan::new(binary, "continue", json!({})).start();
        for (body, status) in [(GOOD, 200), (OTHER, 403)] {
            let mut connection = gateway.connect();
            let request = gateway.request().header("expect", "100-continue");
            let head = request.header("content-length", body.len().to_string()).encode();
            connection.send_raw(&head).unwrap();
            // The interim response, without which the client would send nothing.
            assert!(connection.read_some().unwrap() > 0);
            connection.send_raw(body.as_bytes()).unwrap();
            assert_eq!(connection.read_response().unwrap().status, status);
        }
        assert_eq!(gateway.received().body, GOOD.as_bytes());
    });
}

#[test]
fn trailers_end_a_body_and_are_cleaned() {
    each_envoy(|binary| {
        let plan = Plan::new(binary, "trailers", json!({})).edit(|config| {
            let manager = config::connection_manager(config, "gate");
            manager["http_protocol_options"]["enable_trailers"] = json!(true);
            let cluster = config::named(config, "/static_resources/clusters", "echo");
            cluster["http_protocol_options"] = json!({"enable_trailers": true});
        });
        let gateway = plan.start();
        let trailers = "x-vkey-sub: root\r\nx-checksum: abc\r\n";
        assert_eq!(send_chunked(&gateway, GOOD, 9, trailers), 200);
        let expected = [(b"x-checksum".to_vec(), b"abc".to_vec())];
        let received = gateway.received();
        assert_eq!((received.body, received.trailers), (GOOD.into(), expected.to_vec()));
        assert_eq!(send_chunked(&gateway, OTHER, 9, trailers), 403);
        assert_eq!(send_chunked(&gateway, &GOOD[..30], 9, trailers), 400);
        let fields = gateway.fields();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let list = [("x-vkey-sub", "root"), ("x-checksum", "abc")];
        for (body, status) in [(GOOD, 200), (OTHER, 403)] {
            let parts = [body.as_bytes()];
            let answer = http2::send_parts(gateway.address(), &fields, &parts, &list).unwrap();
            assert_eq!(answer.status, Some(status));
        }
        let received = gateway.received();
        assert_eq!((received.body, received.trailers), (GOOD.into(), expected.to_vec()));
    });
}

#[test]
fn a_body_that_never_ends_is_ended_by_the_deadline_of_the_listener() {
    each_envoy(|binary| {
        let plan = Plan::new(binary, "deadline", json!({})).edit(|config| {
            config::connection_manager(config, "gate")["request_timeout"] = json!("1s");
        });
        let gateway = plan.start();
        let mut connection = gateway.connect();
        let head = gateway.request().header("content-length", "1000").encode();
        connection.send_raw(&[&head, &GOOD.as_bytes()[..20]].concat()).unwrap();
        assert_eq!(connection.read_response().unwrap().status, 408);
        let line = gateway.line(1);
        assert_eq!(
            (&line["decision"], &line["reason"]),
            (&json!("deny"), &json!("body_unreadable"))
        );
        assert_eq!((&line["status"], &line["jti"]), (&json!(408), &json!("reader")));
        assert_eq!(gateway.origin.connections(), 0);
    });
}

#[test]
fn a_client_that_leaves_is_recorded() {
    each_envoy(|binary| {
        let gateway = Plan::new(binary, "leaves", json!({})).start();
        let mut connection = gateway.connect();
        let head = gateway.request().header("content-length", "1000").encode();
        connection.send_raw(&[&head, &GOOD.as_bytes()[..20]].concat()).unwrap();
        gateway.envoy.wait_for_stat("http.gate.downstream_rq_active", 1);
        drop(connection);
        let line = gateway.line(1);
        assert_eq!((&line["reason"], &line["jti"]), (&json!("body_unreadable"), &json!("reader")));
        assert_eq!((gateway.origin.connections(), gateway.used()), (0, 0));
    });
}

#[test]
fn a_body_over_the_bound_is_refused() {
    each_envoy(|binary| {
        let plugin = json!({"body": {"max_bytes": MAX_BYTES}});
        let gateway = Plan::new(binary, "bound", plugin).start();
        let frame = r#"{"model": "small-1", "max_tokens": 1, "user": ""}"#;
        let body = |length: usize| {
            let rest = "x".repeat(length - frame.len());
            frame.replace("\"\"}", &format!("\"{rest}\"}}"))
        };
        assert_eq!(gateway.ask(body(MAX_BYTES)).status, 200);
        gateway.received();
        assert_refused(&gateway.ask(body(MAX_BYTES + 1)), 413, "body_too_large");
        assert_eq!(send_chunked(&gateway, &body(MAX_BYTES), 1000, ""), 200);
        gateway.received();
        assert_eq!(send_chunked(&gateway, &body(MAX_BYTES + 1), 1000, ""), 413);
        assert_eq!(gateway.origin.take().len(), 0);
        assert_eq!(gateway.line(4)["reason"], "body_too_large");
    });
}

/// The body is read for the audit alone, or its restrictions are only recorded: it passes, however it comes.
#[test]
fn a_body_that_cannot_be_read_passes_where_nothing_depends_on_it() {
    each_envoy(|binary| {
        let audit = json!({"tiers": {"default": {}}, "llm": {"audit_tokens": true}});
        for (mut plugin, decision) in [(json!({"mode": "shadow"}), "shadow"), (audit, "allow")] {
            plugin["body"] = json!({"max_bytes": MAX_BYTES});
            let gateway = Plan::new(binary, "unread", plugin).start();
            let long =
                format!(r#"{{"model": "small-1", "user": "{}"}}"#, "x".repeat(3 * MAX_BYTES));
            for body in ["{\"model\": \"small-1\",}, and more", "{", &long] {
                assert_eq!(gateway.ask(body).status, 200);
                assert_eq!(gateway.received().body, body.as_bytes());
                for size in [1, 1000] {
                    assert_eq!(send_chunked(&gateway, body, size, ""), 200);
                    assert_eq!(gateway.received().body, body.as_bytes());
                }
            }
            let line = gateway.line(9);
            assert_eq!(
                (&line["decision"], &line["tokens"]["src"]),
                (&json!(decision), &json!("none"))
            );
        }
    });
}

/// The listener holds less than the module would read.
#[test]
fn a_body_over_the_bound_of_the_listener_is_refused_by_it() {
    each_envoy(|binary| {
        let plan = Plan::new(binary, "listener", json!({})).edit(|config| {
            let gate = config::named(config, "/static_resources/listeners", "gate");
            gate["per_connection_buffer_limit_bytes"] = json!(16_384);
        });
        let gateway = plan.start();
        let long = format!(r#"{{"model": "small-1", "user": "{}"}}"#, "x".repeat(100_000));
        assert_eq!(send_chunked(&gateway, &long, 5000, ""), 413);
        let line = gateway.line(1);
        assert_eq!(
            (&line["decision"], &line["reason"]),
            (&json!("deny"), &json!("body_too_large"))
        );
        assert_eq!(gateway.origin.connections(), 0);
    });
}

/// The shipped listener holds what the module reads.
#[test]
fn bodies_as_large_as_they_may_be_take_no_more_memory_each() {
    each_envoy(|binary| {
        let plugin = json!({"tiers": {"default": {"only": {"models": ["small*"]}}}});
        let gateway = Plan::new(binary, "large", plugin).start();
        let frame = r#"{"model": "small-1", "user": ""}"#;
        let rest = "x".repeat((8 << 20) - frame.len());
        let body = frame.replace("\"\"}", &format!("\"{rest}\"}}"));
        let send = |count: usize| {
            for _ in 0..count {
                assert_eq!(gateway.ask(&body).status, 200);
                assert_eq!(gateway.received().body.len(), 8 << 20);
            }
        };
        send(4);
        let before = gateway.envoy.resident_bytes();
        send(12);
        let after = gateway.envoy.resident_bytes();
        assert!(after < before + (8 << 20), "{before} {after}");
    });
}

/// Only requests that are held are read: others pass as they come.
#[test]
fn a_body_that_does_not_decide_passes_as_it_comes() {
    each_envoy(|binary| {
        let plugin = json!({"tiers": {"default": {"rate": {"requests": 100, "per": "1s"}}}});
        let gateway = Plan::new(binary, "untouched", plugin).start();
        let mut connection = gateway.connect();
        let head = gateway.request().header("content-length", "9").encode();
        connection.send_raw(&[&head, b"not ".as_slice()].concat()).unwrap();
        // The upstream has a connection before the body is whole.
        wait_for(
            || (gateway.origin.connections() == 1).then_some(()),
            || "the request is held".to_owned(),
        );
        connection.send_raw(b"JSON!").unwrap();
        assert_eq!(connection.read_response().unwrap().status, 200);
        assert_eq!(gateway.received().body, b"not JSON!");
    });
}
