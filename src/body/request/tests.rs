//! Tests of the reader of requests. The vectors have many more cases.

mod names;
mod refusals;

use super::*;
use crate::body::Declared;
use crate::body::json::{Limits, Unreadable};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const GEMINI: &str = "/v1beta/models/g:generateContent";

fn read(path: &str, body: &str) -> Result<RequestFacts, Unreadable> {
    let target = Target::parse("POST", path.as_bytes()).unwrap();
    let declared = Declared::read([(&b"content-type"[..], &b"application/json"[..])]);
    let mut reader = RequestReader::new(target, declared, Limits::default())?;
    reader.feed(body.as_bytes())?;
    reader.finish()
}

#[track_caller]
fn facts(path: &str, body: &str) -> RequestFacts {
    read(path, body).unwrap_or_else(|cause| panic!("{body}: {}", cause.message()))
}

/// The models that are named, and `…` if there may be others.
#[track_caller]
fn models(path: &str, body: &str) -> String {
    let facts = facts(path, body);
    let mut names: Vec<&str> = facts.models.iter().map(|name| &**name).collect();
    names.extend(facts.open_ended.then_some("…"));
    names.join(" ")
}

/// The bound, the candidates, and what is reserved if the default is 1000.
#[track_caller]
fn output(path: &str, body: &str) -> (Option<u64>, u64, u64) {
    let facts = facts(path, body);
    (facts.max_output, facts.candidates, facts.reserve_output(1000))
}

#[test]
fn the_largest_bound_counts_for_each_candidate() {
    const INVOKE: &str = "/model/b/invoke";
    const CONVERSE: &str = "/model/b/converse";
    for (path, body, expected) in [
        (CHAT, r#"{"max_tokens":0,"max_completion_tokens":9}"#, (Some(9), 1, 9)),
        (CHAT, r#"{"max_tokens":7,"max_completion_tokens":null,"n":2}"#, (Some(7), 2, 14)),
        (CHAT, r#"{"fallbacks":[{"model":"a","max_tokens":8}],"max_tokens":7}"#, (Some(8), 1, 8)),
        (CHAT, "{}", (None, 1, 1000)),
        (COMPLETIONS, r#"{"prompt":["a",[1,2],"b"],"n":2,"best_of":3}"#, (None, 9, 9000)),
        (COMPLETIONS, r#"{"prompt":[[1,2],[3]],"max_tokens":5}"#, (Some(5), 2, 10)),
        (COMPLETIONS, r#"{"prompt":[],"max_tokens":5}"#, (Some(5), 1, 5)),
        (RESPONSES, r#"{"max_output_tokens":5,"max_tokens":9}"#, (Some(5), 1, 5)),
        (MESSAGES, r#"{"max_tokens":0}"#, (Some(0), 1, 0)),
        ("/v1/messages/count_tokens", "{}", (None, 1, 0)),
        (
            "/v1/messages/batches",
            r#"{"requests":[{"params":{"max_tokens":5}},{"params":{}},{"params":{"max_tokens":0}}]}"#,
            (None, 3, 1005),
        ),
        (GEMINI, r#"{"generationConfig":{"maxOutputTokens":"64"}}"#, (Some(64), 1, 64)),
        (
            GEMINI,
            r#"{"generationConfig":{"maxOutputTokens":0,"candidateCount":2}}"#,
            (None, 2, 2000),
        ),
        ("/v1beta/models/g:embedContent", r#"{"generationConfig":{}}"#, (None, 1, 0)),
        (CONVERSE, r#"{"inferenceConfig":{"maxTokens":5}}"#, (Some(5), 1, 5)),
        (CONVERSE, r#"{"additionalModelRequestFields":{"max_tokens":9}}"#, (Some(9), 1, 9)),
        (INVOKE, r#"{"max_tokens_to_sample":5}"#, (Some(5), 1, 5)),
        (INVOKE, r#"{"inferenceConfig":{"max_new_tokens":5}}"#, (Some(5), 1, 5)),
        (INVOKE, r#"{"textGenerationConfig":{"maxTokenCount":5}}"#, (Some(5), 1, 5)),
        (INVOKE, r#"{"maxTokens":5,"numResults":2}"#, (Some(5), 2, 10)),
        (INVOKE, r#"{"max_tokens":0}"#, (None, 1, 1000)),
        ("/model/b/count-tokens", r#"{"input":{"converse":{}}}"#, (None, 1, 0)),
        ("/api/generate", r#"{"options":{"num_predict":-2}}"#, (None, 1, 1000)),
        ("/api/generate", r#"{"options":{"num_predict":5.0}}"#, (Some(5), 1, 5)),
        ("/v2/embed", r#"{"max_tokens":5}"#, (None, 1, 0)),
    ] {
        assert_eq!(output(path, body), expected, "{path} {body}");
    }
}

/// A request cannot make a reservation small by making it overflow.
#[test]
fn a_reservation_does_not_overflow() {
    const MOST: &str = "9007199254740992";
    let chat = facts(CHAT, &format!(r#"{{"max_tokens":{MOST},"n":{MOST}}}"#));
    assert_eq!((chat.candidates, chat.reserve_output(1)), (1 << 53, u64::MAX));
    let prompts = vec![r#""a""#; 4096].join(",");
    let prompts = facts(COMPLETIONS, &format!(r#"{{"prompt":[{prompts}],"best_of":{MOST}}}"#));
    assert_eq!((prompts.candidates, prompts.reserve_output(1)), (u64::MAX, u64::MAX));
    let request = format!(r#"{{"params":{{"max_tokens":{MOST}}}}}"#);
    let batch = format!(r#"{{"requests":[{}]}}"#, vec![request; 3000].join(","));
    assert_eq!(facts("/v1/messages/batches", &batch).reserve_output(1), u64::MAX);
}

#[test]
fn streams_and_deferred_responses_are_known() {
    let asked = |path: &str, body: &str| {
        let facts = facts(path, body);
        (facts.stream, facts.deferred)
    };
    for (path, body, expected) in [
        (CHAT, r#"{"stream":true}"#, (true, false)),
        (CHAT, r#"{"stream":false,"background":true}"#, (false, false)),
        (RESPONSES, r#"{"background":true,"stream":true}"#, (true, true)),
        (RESPONSES, r#"{"background":false}"#, (false, false)),
        ("/api/chat", "{}", (true, false)),
        ("/api/generate", r#"{"stream":false}"#, (false, false)),
        ("/model/b/converse-stream", "{}", (true, false)),
        ("/v1/batches", "{}", (false, true)),
        ("/v1/messages/batches", "{}", (false, true)),
        ("/v1/projects/p/publishers/anthropic/models/c:streamRawPredict", "{}", (true, false)),
        (
            "/v1/projects/p/publishers/anthropic/models/c:rawPredict",
            r#"{"stream":true}"#,
            (true, false),
        ),
    ] {
        assert_eq!(asked(path, body), expected, "{path} {body}");
    }
}

/// OpenRouter has a way of its own to ask for the usage.
#[test]
fn a_client_that_asks_for_the_usage_in_another_way_is_shown_it() {
    let strips = |usage: &str| {
        let body = format!(r#"{{"usage":{usage},"stream":true}}"#);
        facts(CHAT, &body).inject.map(|injection| injection.strips)
    };
    assert_eq!(strips(r#"{"include":true}"#), Some(false));
    for usage in
        ["null", "true", "{}", r#"{"include":false}"#, r#"{"include":null}"#, "[1]", "\"x\""]
    {
        assert_eq!(strips(usage), Some(true), "{usage}");
    }
    assert_eq!(strips(r#"{"include":"true","x":{"include":true}}"#), Some(true));
}

/// What the vectors do not have: the order of options, and formats that cannot be asked.
#[test]
fn only_the_change_that_is_needed_is_made() {
    let changed = |path: &str, body: &str| {
        facts(path, body).inject.map(|Injection { at, text, .. }| {
            let [start, end] = [at.start, at.end].map(|offset| usize::try_from(offset).unwrap());
            [body.split_at(start).0, text, body.split_at(end).1].concat()
        })
    };
    for (path, body, expected) in [
        (
            COMPLETIONS,
            r#"{"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#),
        ),
        (
            CHAT,
            r#"{"stream_options":{"x":{"y":[1]},"include_usage":false},"stream":true}"#,
            Some(r#"{"stream_options":{"x":{"y":[1]},"include_usage":true},"stream":true}"#),
        ),
        (
            CHAT,
            r#"{"stream_options":{"include_usage":null,"x":1},"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true,"x":1},"stream":true}"#),
        ),
        (
            CHAT,
            r#"{"stream":true,"stream_options":{ "x":null }}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true, "x":null }}"#),
        ),
        (
            CHAT,
            r#"{"stream":true,"stream_options":{ }}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true }}"#),
        ),
        (CHAT, r#"{"stream":true,"stream_options":{"x":1,"include_usage":true}}"#, None),
        (CHAT, r#"{"stream":false,"stream_options":null}"#, None),
        (RESPONSES, r#"{"stream":true}"#, None),
        ("/v1/fim/completions", r#"{"stream":true}"#, None),
        (MESSAGES, r#"{"stream":true}"#, None),
    ] {
        let changed = changed(path, body);
        assert_eq!(changed.as_deref(), expected, "{path} {body}");
        if let Some(changed) = changed {
            assert_eq!(facts(path, &changed).inject, None);
        }
    }
}

#[test]
fn the_input_is_estimated() {
    let tokens = |path: &str, body: &str| facts(path, body).input_tokens;
    assert_eq!(tokens(CHAT, r#"{"messages":[{"content":"four four four!!"}]}"#), 4);
    assert_eq!(tokens(COMPLETIONS, r#"{"prompt":[1,2,3]}"#), 3);
    assert_eq!(tokens(COMPLETIONS, r#"{"prompt":[[1,2],[3]]}"#), 3);
    assert_eq!(tokens("/v1/embeddings", r#"{"input":[[1,2],[3,4]],"dimensions":512}"#), 4);
    assert_eq!(tokens("/v1/threads/t/messages", "four four"), 0);
}

#[test]
fn a_body_of_another_format_is_not_read() {
    let target = Target::parse("POST", b"/v1/files").unwrap();
    let declared = Declared::read([(&b"content-type"[..], &b"multipart/form-data"[..])]);
    let mut reader = RequestReader::new(target, declared, Limits::default()).unwrap();
    assert_eq!(reader.feed(b"\xff{{"), Ok(()));
    let facts = reader.finish().unwrap();
    assert!(facts.open_ended && facts.models.is_empty());
}
