//! A listener that does not show the module the bodies of held requests.

use serde_json::{Value, json};

use super::gateway::{Plan, assert_refused};
use crate::support::origin::{Origin, write_response};
use crate::support::{config, each_envoy};

const GOOD: &str = r#"{"model": "small-1", "max_tokens": 10, "messages": []}"#;

fn without_flag(config: &mut Value) {
    let wasm = config::wasm(config).as_object_mut().unwrap();
    assert!(wasm.remove("allow_on_headers_stop_iteration").is_some());
}

#[test]
fn a_request_that_must_be_held_is_refused_with_the_name_of_the_flag() {
    each_envoy(|binary| {
        let gateway = Plan::new(binary, "unheld", json!({})).edit(without_flag).start();
        for _ in 0..3 {
            let answer = gateway.ask(GOOD);
            assert_refused(&answer, 400, "body_unreadable");
            let text = answer.text();
            assert!(text.contains("allow_on_headers_stop_iteration: true"), "{text}");
        }
        let line = gateway.line(3);
        assert_eq!((&line["reason"], &line["jti"]), (&json!("body_unreadable"), &json!("reader")));
        assert_eq!((gateway.origin.connections(), gateway.used()), (0, 0));
        let says = |line: &&str| line.contains("allow_on_headers_stop_iteration");
        assert_eq!(gateway.envoy.proxy_log().lines().filter(says).count(), 1);
    });
}

/// A slow client is not mistaken for a listener without the flag.
#[test]
fn a_client_that_is_slow_is_waited_for() {
    each_envoy(|binary| {
        let gateway = Plan::new(binary, "slow", json!({})).start();
        let mut connection = gateway.connect();
        let head = gateway.request().header("content-length", GOOD.len().to_string()).encode();
        connection.send_raw(&head).unwrap();
        // The module looks at it some times.
        let ticks = || gateway.envoy.stat("http.gate.downstream_rq_active");
        crate::support::wait_for(
            || (ticks() == Some(1)).then_some(()),
            || "it never came".to_owned(),
        );
        let started = std::time::Instant::now();
        while started.elapsed() < std::time::Duration::from_millis(200) {
            assert_eq!(ticks(), Some(1));
        }
        connection.send_raw(GOOD.as_bytes()).unwrap();
        assert_eq!(connection.read_response().unwrap().status, 200);
    });
}

/// A filter before the module that waits for a service, as ext_proc does.
const DELAY: &str = r#"
    function envoy_on_request(handle)
      for _ in handle:bodyChunks() do
        handle:httpCall("slow", {[":method"] = "GET", [":path"] = "/", [":authority"] = "slow"}, "", 5000)
      end
    end
"#;

#[test]
fn a_filter_before_the_module_may_delay_bodies() {
    each_envoy(|binary| {
        let slow = Origin::start(|_, stream| {
            std::thread::sleep(std::time::Duration::from_millis(500));
            write_response(stream, 200, &[], b"")
        });
        let port = slow.address.port();
        let plan = Plan::new(binary, "delayed", json!({})).edit(move |config| {
            let cluster = config::named(config, "/static_resources/clusters", "echo");
            let mut cluster = cluster.clone();
            cluster["name"] = json!("slow");
            cluster["load_assignment"]["cluster_name"] = json!("slow");
            cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
                json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
            config["static_resources"]["clusters"].as_array_mut().unwrap().push(cluster);
            let filter = json!({"name": "delay", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": DELAY},
            }});
            config::http_filters(config).insert(0, filter);
        });
        let gateway = plan.start();
        for _ in 0..2 {
            assert_eq!(gateway.ask(GOOD).status, 200);
            assert_eq!(gateway.received().body, GOOD.as_bytes());
        }
        assert!(!slow.take().is_empty());
    });
}

/// In shadow mode, and for the audit alone, nothing is refused because its body is not shown.
#[test]
fn a_request_goes_on_unread_if_nothing_that_is_enforced_depends_on_its_body() {
    each_envoy(|binary| {
        let audit = json!({"tiers": {"default": {}}, "llm": {"audit_tokens": true}});
        for plugin in [json!({"mode": "shadow"}), audit] {
            let gateway = Plan::new(binary, "unread", plugin).edit(without_flag).start();
            for _ in 0..2 {
                assert_eq!(gateway.ask(GOOD).status, 200);
                assert_eq!(gateway.received().body, GOOD.as_bytes());
            }
        }
    });
}

#[test]
fn a_request_that_need_not_be_held_passes() {
    each_envoy(|binary| {
        let plugin = json!({"tiers": {"default": {}}});
        let gateway = Plan::new(binary, "free", plugin).edit(without_flag).start();
        assert_eq!(gateway.ask("not JSON").status, 200);
        assert_eq!(gateway.received().body, b"not JSON");
    });
}
