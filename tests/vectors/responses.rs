//! Responses of AI services, in the pieces of the file, in single bytes and cut at random.

use vkey::body::response::{End, Meter, Metered, ResponseHead, Settle};
use vkey::body::{Format, TokenUsage};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::pieces::pieces;
use super::*;

/// The pieces of a case, as its file has them.
fn given(case: &Value) -> Vec<Vec<u8>> {
    let text = |piece: &Value| piece.as_str().unwrap().as_bytes().to_vec();
    let bytes = |piece: &Value| STANDARD.decode(piece.as_str().unwrap()).unwrap();
    match case.get("chunks_b64") {
        Some(pieces) => pieces.as_array().unwrap().iter().map(bytes).collect(),
        None => case["chunks"].as_array().unwrap().iter().map(text).collect(),
    }
}

/// Checks a case in all ways to cut it.
pub(crate) fn each_way(case: &Value, check: impl Fn(&[&[u8]])) {
    let given = given(case);
    check(&given.iter().map(Vec::as_slice).collect::<Vec<_>>());
    pieces(&given.concat()).iter().for_each(|pieces| check(pieces));
}

fn format(case: &Value) -> Format {
    *Format::ALL.iter().find(|format| case["format"] == format.name()).unwrap()
}

fn end(case: &Value) -> End {
    match case["end"].as_str().unwrap_or("complete") {
        "complete" => End::Complete,
        "client_disconnect" => End::ClientLeft,
        "upstream_reset" => End::UpstreamReset,
        "local_reply_before_send" => End::LocalReply { before_send: true },
        "local_reply_after_send" => End::LocalReply { before_send: false },
        other => panic!("{other}"),
    }
}

fn meter(case: &Value, pieces: &[&[u8]]) -> Metered {
    let field = |name: &str| case["headers"][name].as_str().map(str::as_bytes);
    let head = ResponseHead {
        status: u16::try_from(case["status"].as_u64().unwrap()).unwrap(),
        content_encoding: field("content-encoding"),
        bedrock_counts: (
            field("x-amzn-bedrock-input-token-count"),
            field("x-amzn-bedrock-output-token-count"),
        ),
        bedrock_tier: None,
    };
    let mut meter = Meter::new(format(case), &head);
    pieces.iter().for_each(|piece| _ = meter.feed(piece));
    meter.finish(end(case))
}

/// The counts that the file names.
fn counts(usage: &TokenUsage) -> Value {
    serde_json::json!({
        "input": usage.input,
        "cached_input": usage.cached_input,
        "cache_write": usage.cache_write,
        "output": usage.output,
        "reasoning": usage.reasoning,
        "total": usage.total,
    })
}

fn settle(settle: Settle) -> &'static str {
    match settle {
        Settle::Usage => "usage",
        Settle::AtLeast => "at_least",
        Settle::Keep => "keep",
        Settle::Refund => "refund",
        Settle::Free => "free",
    }
}

fn check_response(case: &Value, pieces: &[&[u8]]) {
    let (name, expected) = (&case["name"], &case["expect"]);
    let metered = meter(case, pieces);
    let usage = metered.usage.as_ref().map_or_else(|| "missing".into(), counts);
    assert_eq!(usage, expected["usage"], "{name}");
    assert_eq!(settle(metered.settle), expected["settle"], "{name}");
    assert_eq!(metered.is_complete, expected["complete"], "{name}");
    // The file leaves out the model of a response without usage.
    if metered.usage.is_some() {
        assert_eq!(metered.model.as_deref(), expected["model"].as_str(), "{name}");
    }
}

#[test]
fn responses_of_ai_services() {
    let file = vectors!("llm/answers.json");
    for case in cases(&file["cases"], 79) {
        each_way(case, |pieces| check_response(case, pieces));
    }
}

#[test]
fn streams_without_the_usage_that_the_client_did_not_ask_for() {
    let file = vectors!("llm/include_usage.json");
    for case in cases(&file["strip_cases"], 5) {
        each_way(case, |pieces| {
            let head = ResponseHead::default();
            let mut meter = Meter::new(Format::OpenAiChat, &head).stripping();
            let passed = pieces.iter().map(|piece| meter.feed(piece).into_owned());
            let mut passed = passed.collect::<Vec<_>>().concat();
            passed.extend(meter.finish_stripping());
            let text = String::from_utf8(passed).unwrap();
            assert_eq!(text, case["expect"]["text"].as_str().unwrap(), "{}", case["name"]);
        });
    }
}
