//! Messages for MCP servers: `vkey explain --body` and `vkey run` decide alike on each of the vectors.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use vkey::host::Rules;
use vkey_vm::{Limits, Module};

use super::gates::Gate;
use super::keys::DrawnKey;
use super::requests::Request;
use super::restrictions::{START_SECS, USUAL_HOST, USUAL_SOURCE};
use super::{ExplainSide, MODULES, decision_of_run, run_side};

const VECTORS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors/mcp/requests.json");

/// Calls that the vectors lack: arguments that meet conditions and that do not.
const CALLS: [&str; 3] = [
    r#"{"name":"get_weather","arguments":{"city":"Riga"}}"#,
    r#"{"name":"get_weather","arguments":{"city":"Oslo"}}"#,
    r#"{"name":"get_weather","arguments":{"city":"Riga","force":true}}"#,
];

#[test]
fn explain_and_run_agree_about_messages() {
    let requests = requests();
    let mut decisions = BTreeMap::<String, usize>::new();
    for gate in gates() {
        let module = Module::load(MODULES.of(Rules::Envoy), Limits::default());
        let (mut explains, mut runs) =
            (ExplainSide::new(&gate), run_side(&gate, module.expect("run `make test`: a module")));
        for key in keys() {
            for (name, request) in &requests {
                let request = with_key(request, &key);
                let explained = explains.decide(&key, &request);
                let (ran, line) = decision_of_run(&mut runs, &request);
                let context = format!("{name}, {}, {}: {line}", gate.config, key.claims);
                assert_eq!(explained, ran, "{context}");
                *decisions.entry(explained.to_string()).or_default() += 1;
            }
        }
    }
    for decision in [
        "allow",
        "deny body_too_large",
        "deny body_unreadable",
        "deny header_mismatch",
        "deny mcp_call",
        "deny method",
        "deny model",
        "shadow mcp_call",
        "shadow model",
    ] {
        assert!(decisions.contains_key(decision), "{decision}: {decisions:?}");
    }
}

fn gates() -> Vec<Gate> {
    let mcp = |more: Value| {
        let mut mcp = json!({"routes": [{"path": "/mcp", "server": "main"}]});
        mcp.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        mcp
    };
    [
        json!({"mcp": mcp(json!({}))}),
        json!({"mcp": mcp(json!({"legacy": false})), "body": {"max_bytes": 1024}}),
        json!({"mcp": mcp(json!({"verify": "headers"}))}),
        json!({"mcp": mcp(json!({})), "mode": "shadow"}),
    ]
    .into_iter()
    .map(gate)
    .collect()
}

fn gate(mut config: Value) -> Gate {
    config["keyring"] = json!([{"name": "main", "secret": "${RING_MAIN}"}]);
    Gate {
        config,
        rules: "envoy",
        rings: Vec::new(),
        clock_skew_secs: 5,
        usage_path: "/.vkey/usage",
        trusted_hops: 0,
    }
}

fn keys() -> Vec<DrawnKey> {
    let args = json!([{"at": "/city", "in": ["Riga"]}]);
    let entry = json!({"name": "get_*", "args": args, "only_args": ["city"]});
    let tools = json!({"mcp": {"tools": ["get_*"]}});
    [
        json!({}),
        json!({"mcp": {"tools": [entry]}}),
        json!({"mcp": {"methods": ["tools/*"]}}),
        json!({"mcp": {"servers": ["other"]}}),
        json!({"mcp": {"resources": ["file:///*"], "prompts": ["*"]}}),
        json!({"any_of": [{"models": ["m"]}, tools]}),
        json!({"models": ["m"]}),
        json!({"methods": ["GET"]}),
        tools,
    ]
    .iter()
    .map(DrawnKey::with_only)
    .collect()
}

/// The requests of the vectors without their key, each with its name.
fn requests() -> Vec<(String, Request)> {
    let vectors = fs::read(VECTORS).expect("the vectors");
    let vectors: Value = serde_json::from_slice(&vectors).expect("JSON");
    let long = format!(r#"{{"name":"get_weather","arguments":{{"city":"{}"}}}}"#, "a".repeat(1024));
    let calls = CALLS.into_iter().chain([&*long]).map(|params| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let headers = json!({"content-type": "application/json"});
        json!({"name": params, "http": "POST", "headers": headers, "body": body})
    });
    let calls: Vec<Value> = calls.collect();
    let all = vectors["cases"].as_array().expect("a list").iter().chain(&calls);
    // Explain takes a body without a type for JSON.
    let is_typed =
        |case: &&Value| case["http"] != "POST" || case["headers"]["content-type"].is_string();
    let requests: Vec<_> = all.filter(is_typed).map(request).collect();
    assert!(requests.len() > 90, "{} requests", requests.len());
    requests
}

fn request(case: &Value) -> (String, Request) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let body = match (&case["body"], &case["body_b64"]) {
        (Value::String(body), _) => Some(body.clone().into_bytes()),
        (_, Value::String(body)) => Some(STANDARD.decode(body).expect("base64")),
        _ => None,
    };
    let method = text(&case["http"]);
    let headers = case["headers"].as_object().expect("an object");
    // A header may be there several times.
    let values = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let all = headers
        .iter()
        .flat_map(|(name, value)| values(value).into_iter().map(move |value| (name, value)));
    let headers: Vec<[String; 2]> = all.map(|(name, value)| [name.clone(), text(&value)]).collect();
    let mut args = vec![
        format!("--method={method}"),
        "--path=/mcp".to_owned(),
        format!("--host={USUAL_HOST}"),
        format!("--source={USUAL_SOURCE}"),
    ];
    args.extend(headers.iter().map(|[name, value]| format!("--header={name}: {value}")));
    let mut line = json!({
        "method": method, "path": "/mcp", "authority": USUAL_HOST, "source": USUAL_SOURCE,
        "headers": headers, "now": START_SECS,
    });
    if let Some(body) = &body {
        line["body_b64"] = json!(STANDARD.encode(body));
    }
    let request = Request { args, now_secs: START_SECS, body, line: line.to_string() };
    (text(&case["name"]), request)
}

fn with_key(request: &Request, key: &DrawnKey) -> Request {
    let mut line: Value = serde_json::from_str(&request.line).expect("JSON");
    line["key"] = json!(key.text);
    let Request { args, body, now_secs, .. } = request;
    Request { args: args.clone(), now_secs: *now_secs, body: body.clone(), line: line.to_string() }
}
