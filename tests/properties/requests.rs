//! Bodies of requests to AI services, good and bad.

use std::collections::BTreeSet;

use vkey::body::Declared;
use vkey::body::json::{Limits, Unreadable};
use vkey::body::request::{RequestFacts, RequestReader, Target};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const CHAT: &str = "/v1/chat/completions";

const PATHS: [&str; 8] = [
    CHAT,
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/batches",
    "/v1beta/models/g:generateContent",
    "/model/b/invoke",
    "/api/chat",
    "/openai/deployments/d/completions?model=q",
];

/// Names of members that decide something somewhere, and others.
const NAMES: [&str; 28] = [
    "model",
    "models",
    "fallbacks",
    "moderation",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "prompt",
    "stream",
    "stream_options",
    "include_usage",
    "tools",
    "type",
    "svg",
    "server_url",
    "mcp_servers",
    "url",
    "requests",
    "params",
    "generationConfig",
    "generation_config",
    "candidateCount",
    "maxOutputTokens",
    "options",
    "num_predict",
    "messages",
    "content",
    "x",
];

/// Documents of any shape.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => select(&["a", "b", "c", "mcp", "image_generation", "https://a/"][..]).prop_map(Value::from),
        2 => (0..5_u64).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    let inner = leaf.prop_recursive(4, 40, 5, |inner| {
        let members = vec((select(&NAMES[..]), inner.clone()), 0..5);
        prop_oneof![vec(inner, 0..4).prop_map(Value::from), members.prop_map(object)]
    });
    vec((select(&NAMES[..]), inner), 0..6).prop_map(object)
}

fn object(members: Vec<(&str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Chats whose members have the types that they should have.
fn chat() -> impl Strategy<Value = Value> {
    let name = || select(&["a", "b", "c", "d"][..]);
    let names = || of(vec(name(), 0..3));
    let tool = prop_oneof![
        name().prop_map(|name| json!({"model": name})),
        name().prop_map(|name| json!({"svg": {"model": name}, "function": {"model": "ignored"}})),
        Just(json!({"type": "function", "function": {"name": "f", "parameters": {"model": "x"}}})),
    ];
    let fallback = prop_oneof![
        name().prop_map(Value::from),
        (name(), 1..9_u64).prop_map(|(name, n)| json!({"model": name, "max_tokens": n})),
    ];
    let options = prop_oneof![
        Just(Value::Null),
        of(of(any::<bool>()))
            .prop_map(|usage| usage.map_or(json!({}), |u| json!({"include_usage": u}))),
        any::<bool>().prop_map(|obfuscates| json!({"include_obfuscation": obfuscates})),
    ];
    (
        of(name()),
        names(),
        of(vec(fallback, 0..3)),
        of(name()),
        of(vec(tool, 0..3)),
        of(any::<bool>()),
        of(options),
    )
        .prop_map(|(model, models, fallbacks, moderation, tools, stream, options)| {
            let mut chat = present([
                ("model", json!(model)),
                ("models", json!(models)),
                ("fallbacks", json!(fallbacks)),
                ("moderation", moderation.map_or(Value::Null, |name| json!({"model": name}))),
                ("tools", json!(tools)),
                ("stream", json!(stream)),
            ]);
            if let Some(options) = options {
                chat["stream_options"] = options;
            }
            chat["messages"] = json!([{"role": "user", "content": "x", "model": "ignored"}]);
            chat
        })
}

fn read(path: &str, pieces: &[&[u8]]) -> Result<RequestFacts, Unreadable> {
    let target = Target::parse("POST", path.as_bytes()).unwrap();
    let declared = Declared::read([(&b"content-type"[..], &b"application/json"[..])]);
    let mut reader = RequestReader::new(target, declared, Limits::default())?;
    pieces.iter().try_for_each(|piece| reader.feed(piece))?;
    reader.finish()
}

/// Every model that a chat names, found in another way.
fn models_of(chat: &Value) -> BTreeSet<&str> {
    let list = |name: &str| chat[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let fallbacks = list("fallbacks").iter().map(|entry| entry.get("model").unwrap_or(entry));
    let tools = list("tools").iter().flat_map(|tool| [&tool["model"], &tool["svg"]["model"]]);
    let all = [&chat["model"], &chat["moderation"]["model"]].into_iter();
    all.chain(list("models")).chain(fallbacks).chain(tools).filter_map(Value::as_str).collect()
}

/// The body with its change, if it has one.
fn injected(body: &str, facts: &RequestFacts) -> Option<String> {
    let change = facts.inject.as_ref()?;
    let [start, end] = [change.at.start, change.at.end].map(|at| usize::try_from(at).unwrap());
    Some([&body[..start], change.text, &body[end..]].concat())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn how_a_request_is_cut_makes_no_difference(
        path in select(&PATHS[..]),
        body in prop_oneof![document().prop_map(|json| json.to_string().into_bytes()), anything()],
        change in of((any::<Index>(), any::<u8>())),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let mut body = body;
        if let Some((at, byte)) = change.filter(|_| !body.is_empty()) {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        ends.sort_unstable();
        let starts = std::iter::once(&0).chain(&ends);
        let last = [body.len()];
        let pieces = starts.zip(ends.iter().chain(&last)).map(|(start, end)| &body[*start..*end]);
        let whole = read(path, &[&body]);
        prop_assert_eq!(&read(path, &pieces.collect::<Vec<_>>()), &whole);
        prop_assert_eq!(&read(path, &body.chunks(1).collect::<Vec<_>>()), &whole);
    }

    #[test]
    fn no_model_of_a_chat_is_missed(chat in chat()) {
        let text = chat.to_string();
        let facts = read(CHAT, &[text.as_bytes()]).unwrap();
        let found: BTreeSet<&str> = facts.models.iter().map(|name| &**name).collect();
        prop_assert_eq!(found, models_of(&chat));
        prop_assert_eq!(facts.models.len(), models_of(&chat).len());
        if let Some(model) = chat["model"].as_str() {
            prop_assert_eq!(facts.model(), Some(model));
        }
        prop_assert_eq!(facts.open_ended, chat["model"].is_null());
        let stream = chat["stream"] == true;
        let asks = stream && chat["stream_options"]["include_usage"] != true;
        prop_assert_eq!((facts.stream, facts.inject.is_some()), (stream, asks));
    }

    /// With the change, the stream reports its usage, and the request is the same otherwise.
    #[test]
    fn a_change_only_asks_for_usage(chat in chat(), is_pretty in any::<bool>()) {
        let pretty = serde_json::to_string_pretty(&chat).unwrap();
        let text = if is_pretty { pretty } else { chat.to_string() };
        let facts = read(CHAT, &[text.as_bytes()]).unwrap();
        if let Some(changed) = injected(&text, &facts) {
            let again = read(CHAT, &[changed.as_bytes()]).unwrap();
            let mut same = facts;
            same.inject = None;
            prop_assert_eq!(&again, &same);
            let mut expected = chat;
            if !expected["stream_options"].is_object() {
                expected["stream_options"] = json!({});
            }
            expected["stream_options"]["include_usage"] = json!(true);
            let changed: Value = serde_json::from_str(&changed).unwrap();
            prop_assert_eq!(changed, expected);
        }
    }

    /// A request cannot get a smaller reservation by asking for more.
    #[test]
    fn more_output_reserves_more(bound in 1..u64::MAX >> 12, count in 1..u64::MAX >> 12, more in 0..9_u64) {
        let reserve = |bound: u64, count: u64| {
            let body = json!({"model": "a", "max_tokens": bound, "n": count}).to_string();
            read(CHAT, &[body.as_bytes()]).unwrap().reserve_output(1)
        };
        prop_assert!(reserve(bound, count) >= bound.max(count));
        prop_assert!(reserve(bound + more, count) >= reserve(bound, count));
        prop_assert!(reserve(bound, count + more) >= reserve(bound, count));
    }
}
