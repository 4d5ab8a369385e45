//! What common clients send, through the filters of an Envoy.

use serde_json::json;
use vkey::decision::{Decision, DenyReason};

use crate::http2;
use crate::keys::{Minter, options, records};
use crate::support::{Envoy, Options, Request, Response, config};

const PAGE: &str = "https://app.example";

/// Places Envoy's cors filter, for pages of one origin.
fn with_cors(options: Options, place: fn(usize) -> usize) -> Options {
    options.edit(move |config| {
        let policy = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [{"exact": PAGE}],
            "allow_methods": "GET, POST",
            "allow_headers": "authorization, content-type",
            "expose_headers": "ratelimit, ratelimit-policy, retry-after",
        });
        let manager = config::connection_manager(config, "gate");
        let host = &mut manager["route_config"]["virtual_hosts"][0];
        host["typed_per_filter_config"] = json!({"envoy.filters.http.cors": policy});
        let filters = config::http_filters(config);
        let cors = json!({
            "name": "envoy.filters.http.cors",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"},
        });
        filters.insert(place(filters.len()), cors);
    })
}

/// Behind the module and its seal, in front of the router.
fn behind(filters: usize) -> usize {
    filters - 1
}

fn in_front(_: usize) -> usize {
    0
}

fn preflight(envoy: &Envoy) -> Response {
    let asks = Request::new("OPTIONS", "/v1/models").header("origin", PAGE);
    let asks = asks.header("access-control-request-method", "POST");
    envoy.send(&asks.header("access-control-request-headers", "authorization"))
}

fn allowed_origin(answer: &Response) -> Option<String> {
    answer.header("access-control-allow-origin")
}

#[test]
fn a_cors_filter_behind_the_module_answers_preflights_where_they_pass() {
    let main = Minter::new("main", None);
    let plugin = json!({
        "preflight": "pass",
        "tiers": {"default": {"quotas": [{"requests": 1, "per": "total"}]}},
        "auth_failures": {"threshold": 1, "block_for": "1h"},
    });
    let envoy = Envoy::start(with_cors(options("preflight", &main, plugin), behind));
    for _ in 0..3 {
        let answer = preflight(&envoy);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(allowed_origin(&answer).as_deref(), Some(PAGE), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-methods").as_deref(), Some("GET, POST"));
    }
    let key = main.key("k1", json!({}));
    let get = || envoy.send(&Request::new("GET", "/v1/models").header("origin", PAGE).bearer(&key));
    let answer = get();
    assert_eq!((answer.status, allowed_origin(&answer).as_deref()), (200, Some(PAGE)));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("ratelimit-policy") && answer.header("ratelimit").is_some());
    // What the module refuses, a filter behind it never sees.
    let refused = get();
    assert_eq!((refused.status, allowed_origin(&refused)), (429, None), "{refused:?}");
    let decisions = records(&envoy, 5).into_iter().map(|record| record.decision);
    let preflight = Some(Decision::Preflight);
    let quota = Some(Decision::Deny(DenyReason::Quota));
    assert!(decisions.eq([preflight, preflight, preflight, Some(Decision::Allow), quota]));
}

#[test]
fn a_cors_filter_behind_the_module_answers_no_preflight_that_is_refused() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(with_cors(options("no-preflight", &main, json!({})), behind));
    let answer = preflight(&envoy);
    assert_eq!((answer.status, allowed_origin(&answer)), (401, None), "{answer:?}");
}

#[test]
fn without_a_cors_filter_a_preflight_reaches_the_upstream_without_a_credential() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("echoed-preflight", &main, json!({"preflight": "pass"})));
    let asks = Request::new("OPTIONS", "/v1/models").header("origin", PAGE);
    let asks = asks.header("access-control-request-method", "POST");
    assert_eq!(envoy.send(&asks.clone().header("cookie", "session=1")).status, 401);
    let answer = envoy.send(&asks.header("authorization", "Basic dXNlcjpwdw=="));
    assert_eq!(answer.status, 200, "{answer:?}");
    let arrived = answer.text();
    assert!(arrived.contains("origin: https://app.example"), "{arrived}");
    assert!(!arrived.contains("authorization") && !arrived.contains("x-vkey-"), "{arrived}");
}

/// HTTP/2 needs no header to send a body.
#[test]
fn a_preflight_with_a_body_does_not_reach_the_upstream_whole() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("preflight-body", &main, json!({"preflight": "pass"})));
    let fields = [
        (":method", "OPTIONS"),
        (":scheme", "http"),
        (":authority", "gate.test"),
        (":path", "/v1/models"),
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
    ];
    let send = |body| http2::send_with(envoy.gate(), &fields, body).unwrap();
    assert_eq!(send(None).status, Some(200));
    assert_eq!(send(Some(b"".as_slice())).status, Some(200));
    let answer = send(Some(b"delete everything".as_slice()));
    let body = String::from_utf8_lossy(&answer.body);
    assert!(body.contains(r#""code":"invalid_token""#), "{body}");
    let decisions = records(&envoy, 3).into_iter().map(|record| record.decision);
    let preflight = Some(Decision::Preflight);
    assert!(decisions.eq([preflight, preflight, Some(Decision::Deny(DenyReason::KeyMissing))]));
}

#[test]
fn a_cors_filter_in_front_needs_no_setting_and_serves_refusals_too() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(with_cors(options("cors-in-front", &main, json!({})), in_front));
    let answer = preflight(&envoy);
    assert_eq!((answer.status, allowed_origin(&answer).as_deref()), (200, Some(PAGE)));
    let refused = envoy.send(&Request::new("GET", "/v1/models").header("origin", PAGE));
    assert_eq!((refused.status, allowed_origin(&refused).as_deref()), (401, Some(PAGE)));
}

/// As coding agents do that are logged in with an account of their own.
#[test]
fn a_credential_of_the_clients_own_goes_or_stays_as_configured() {
    let main = Minter::new("main", None);
    let key = main.key("k1", json!({}));
    for (rule, goes_on) in [("drop", false), ("forward", true)] {
        let plugin = json!({"foreign_credentials": rule});
        let envoy = Envoy::start(options(&format!("own-{rule}"), &main, plugin));
        let bearer = format!("Bearer {key}");
        for (own, own_value, header, value) in [
            ("x-api-key", "sk-ant-own", "authorization", bearer.as_str()),
            ("authorization", "Bearer sk-ant-oat01-own", "x-api-key", key.as_str()),
        ] {
            let request = Request::new("POST", "/v1/messages").header(own, own_value);
            let answer = envoy.send(&request.header(header, value));
            assert_eq!(answer.status, 200, "{answer:?}");
            let arrived = answer.text();
            assert!(!arrived.contains(&key), "{arrived}");
            assert_eq!(arrived.contains(own_value), goes_on, "{arrived}");
        }
    }
}

/// Ids of Hugging Face models and AWS resource names hold slashes, and stand in one segment.
#[test]
fn an_escaped_slash_reaches_the_upstream_as_it_came_where_the_tier_keeps_it() {
    let main = Minter::new("main", None);
    let plugin = json!({"tiers": {"models": {"escaped_slashes": "keep"}}});
    let options = options("slashes", &main, plugin).edit(|config| {
        let manager = config::connection_manager(config, "gate");
        manager["path_with_escaped_slashes_action"] = json!("KEEP_UNCHANGED");
    });
    let envoy = Envoy::start(options);
    let only = json!({"paths": ["/models/*"]});
    let keeping = main.key("k1", json!({"tier": "models", "only": only}));
    let other = main.key("k2", json!({"only": only}));
    let send = |path: &str, key: &str| envoy.send(&Request::new("GET", path).bearer(key));
    let answer = send("/models/meta%2fllama", &keeping);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text().contains("GET /models/meta%2fllama"), "{answer:?}");
    assert_eq!(send("/models/meta%2f..%2f..%2fadmin", &keeping).status, 400);
    assert_eq!(send("/models/meta/llama", &keeping).status, 403);
    assert_eq!(send("/models/meta%2fllama", &other).status, 400);
    let lines = records(&envoy, 4);
    assert_eq!(lines[0].path.as_deref(), Some("/models/meta%2fllama"));
}

#[test]
fn a_key_in_a_list_of_subprotocols_is_taken_out_of_it() {
    let main = Minter::new("main", None);
    let source =
        json!({"header": "sec-websocket-protocol", "item_prefix": "openai-insecure-api-key."});
    let envoy = Envoy::start(options("list", &main, json!({"key_sources": [source]})));
    let key = main.key("k1", json!({}));
    let send = |list: &[String]| {
        let request = Request::new("GET", "/v1/realtime");
        let request = list
            .iter()
            .fold(request, |request, line| request.header("sec-websocket-protocol", line));
        envoy.send(&request)
    };
    let item = format!("openai-insecure-api-key.{key}");
    for (list, left) in [
        (
            vec![format!("realtime, {item}, openai-beta.realtime-v1")],
            Some("realtime, openai-beta.realtime-v1"),
        ),
        (vec!["realtime".to_owned(), format!("{item}, other")], Some("realtime, other")),
        (vec![format!("{item}, other"), "realtime".to_owned()], Some("other, realtime")),
        (vec![item.clone()], None),
    ] {
        let answer = send(&list);
        assert_eq!(answer.status, 200, "{answer:?}");
        let arrived = answer.text();
        let lines = arrived.lines();
        let lines = lines.filter_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(lines.collect::<Vec<_>>(), Vec::from_iter(left), "{arrived}");
        assert!(!arrived.contains(&key), "{arrived}");
    }
    assert_eq!(send(&["realtime".to_owned()]).status, 401);
}
