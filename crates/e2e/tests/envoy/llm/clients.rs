//! The client libraries of OpenAI, Anthropic and Google see through the gate what they see without it, and typed errors
//! where it refuses.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{in_front_of, pieces, replay, responses};
use crate::keys::Minter;
use crate::support::origin::Received;
use crate::support::{Envoy, Provider, Replay, artefact, each_envoy, root};

/// Every call of every client, and the response that the provider sends: a case of the vectors.
const CALLS: [(&str, &str, &str); 15] = [
    ("openai", "chat", "chat/json details"),
    ("openai", "chat_stream", "chat/sse"),
    ("openai", "chat_stream_usage", "chat/sse awkward pieces"),
    ("openai", "chat_stream_no_usage", "chat/sse CRLF"),
    ("openai", "tools_stream", "chat/sse tool arguments speak of usage"),
    ("openai", "responses", "responses/json"),
    ("openai", "responses_stream", "responses/sse completed in many pieces"),
    ("openai", "embeddings", "embeddings/json"),
    ("anthropic", "messages", "anthropic/json cache"),
    ("anthropic", "messages_stream", "anthropic/sse pieces of 13 bytes"),
    ("anthropic", "messages_helper", "anthropic/sse"),
    ("anthropic", "count_tokens", "anthropic/count_tokens"),
    ("google", "generate", "gemini/json thoughts apart"),
    ("google", "generate_stream", "gemini/sse cumulative"),
    ("google", "count_tokens", "gemini/json thoughts apart"),
];

/// What came of the cases: see the script.
fn ask(cases: &[Value]) -> Vec<Value> {
    let mut client = Command::new(artefact("VKEY_TEST_CLIENTS"))
        .arg("-B")
        .arg(root().join("crates/e2e/tests/clients/llm.py"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the clients start");
    let input = json!(cases).to_string();
    client.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = client.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).expect("what came of the cases")
}

/// A provider whose responses are chosen by the first segment of the path: the number of a call.
fn provider() -> Provider {
    let cases = responses();
    let named = move |name: &str| cases.iter().find(|case| case["name"] == name).unwrap().clone();
    let cases = CALLS.map(|(_, _, name)| named(name));
    Provider::start(move |request: &Received| {
        let target = request.target();
        let number = target.split('/').nth(1).unwrap();
        let case = &cases[number.parse::<usize>().unwrap()];
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        if body["stream"] == true && case["format"] == "openai.chat" {
            let wants_usage = body["stream_options"]["include_usage"] == true;
            return if wants_usage { replay(case) } else { without_usage(case) };
        }
        replay(case)
    })
}

/// The stream that OpenAI sends to whoever does not ask for the usage.
fn without_usage(case: &Value) -> Replay {
    let text = String::from_utf8(pieces(case).concat()).unwrap();
    let end = if text.contains("\r\n\r\n") { "\r\n\r\n" } else { "\n\n" };
    let events = text.split_inclusive(end).filter(|event| !event.contains(r#""choices":[]"#));
    Replay::events().piece(events.collect::<String>())
}

fn cases(address: &str, key: &str) -> Vec<Value> {
    let case = |(number, (client, call, _)): (usize, &(&str, &str, &str))| {
        let url = format!("http://{address}/{number}");
        json!({"client": client, "call": call, "url": url, "key": key})
    };
    CALLS.iter().enumerate().map(case).collect()
}

/// Streamed and not, with tools, with and without usage: every event is the one that the provider sent, for a key
/// whose models are restricted and whose tokens are counted.
#[test]
fn clients_see_what_they_see_without_the_gate() {
    let provider = provider();
    let direct = ask(&cases(&provider.address().to_string(), "none"));
    for (came, (client, call, _)) in direct.iter().zip(&CALLS) {
        assert!(came["result"].is_object() || came["result"].is_array(), "{client} {call} {came}");
    }
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let plugin = json!({
            "tiers": {"default": {
                "only": {"models": ["gpt-4o-mini", "text-*", "claude-*", "gemini-*"]},
                "quotas": [{"tokens": 1_000_000_000, "per": "day"}],
            }},
        });
        let envoy = Envoy::start(in_front_of(&provider, "llm-clients", &main, plugin).on(binary));
        let through = ask(&cases(&envoy.gate().to_string(), &main.key("good", json!({}))));
        for ((direct, through), (client, call, _)) in direct.iter().zip(&through).zip(&CALLS) {
            assert_eq!(through, direct, "{client} {call}");
        }
        let received = provider.received();
        let through = &received[received.len() - CALLS.len()..];
        assert!(
            through
                .iter()
                .all(|request| request.header("accept-encoding").as_deref() == Some("identity"))
        );
    });
}

/// A model that the key may not use, and a quota without room: each library raises its own error, with the reason, and
/// does not try again.
#[test]
fn clients_raise_typed_errors() {
    each_envoy(|binary| {
        let provider = provider();
        let main = Minter::new("main", None);
        let plugin = json!({
            "tiers": {"default": {}, "poor": {"quotas": [{"tokens": 10, "per": "day"}]}},
        });
        let envoy = Envoy::start(in_front_of(&provider, "llm-errors", &main, plugin).on(binary));
        let narrow = main.key("narrow", json!({"only": {"models": ["other-*"]}}));
        let poor = main.key("poor", json!({"tier": "poor"}));
        let calls = [
            ("openai", "chat_stream", 1),
            ("anthropic", "messages", 8),
            ("google", "generate", 12),
        ];
        let address = envoy.gate();
        let asked = |key: &String| {
            let case = |(client, call, number): &(&str, &str, usize)| json!({"client": client, "call": call, "url": format!("http://{address}/{number}"), "key": key});
            calls.iter().map(case).collect::<Vec<_>>()
        };
        let came = ask(&[asked(&narrow), asked(&poor)].concat());
        let error = |number: usize, name: &str| came[number]["error"][name].clone();
        assert_eq!([error(0, "class"), error(0, "code")], ["PermissionDeniedError", "model"]);
        assert_eq!(
            [error(1, "class"), error(1, "type")],
            ["PermissionDeniedError", "permission_error"]
        );
        assert_eq!([error(2, "class"), error(2, "status")], ["ClientError", "PERMISSION_DENIED"]);
        assert_eq!([error(3, "class"), error(3, "code")], ["RateLimitError", "quota"]);
        assert_eq!([error(4, "class"), error(4, "type")], ["RateLimitError", "rate_limit_error"]);
        assert_eq!([error(5, "class"), error(5, "status")], ["ClientError", "RESOURCE_EXHAUSTED"]);
        assert!(came.iter().all(|came| came["waits"] == json!([])), "{came:?}");
        assert_eq!(provider.received_len(), 0);
    });
}
