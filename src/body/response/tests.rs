use super::*;
use crate::body::Format;

const OK: ResponseHead<'static> =
    ResponseHead { status: 200, content_encoding: None, bedrock_counts: (None, None) };

/// Reads a response of a format that is complete.
fn read(format: Format, body: &str) -> Metered {
    read_until(format, body, End::Complete)
}

fn read_until(format: Format, body: &str, end: End) -> Metered {
    let mut meter = Meter::new(format, &OK);
    meter.feed(body.as_bytes());
    let metered = meter.finish(end);
    let mut meter = Meter::new(format, &OK);
    body.as_bytes().chunks(1).for_each(|byte| meter.feed(byte));
    assert_eq!(meter.finish(end), metered, "in single bytes");
    metered
}

/// Events without names.
fn events(data: &[&str]) -> String {
    data.iter().map(|data| format!("data: {data}\n\n")).collect()
}

fn usage(metered: &Metered) -> (u64, u64, u64) {
    let usage = metered.usage.unwrap_or_default();
    (usage.input, usage.output, usage.total)
}

const CHUNK: &str = r#"{"model":"m","choices":[{"delta":{"content":"Hello"}}]}"#;
const USAGE: &str =
    r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}"#;
const START: &str = r#"{"type":"message_start","message":{"model":"claude","usage":{"input_tokens":20,"output_tokens":1}}}"#;
const TEXT: &str =
    r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"0123456789"}}"#;

// === what counts ===

/// envoyproxy/ai-gateway#2279: cumulative counts were added. apache/apisix#13662: so were totals.
#[test]
fn counts_of_several_events_are_not_added() {
    let chunk = |output: u32| {
        format!(
            r#"{{"choices":[{{}}],"usage":{{"prompt_tokens":9,"completion_tokens":{output},"total_tokens":{}}}}}"#,
            9 + output
        )
    };
    let body = events(&[&chunk(1), &chunk(7), &chunk(3), "[DONE]"]);
    let metered = read(Format::OpenAiChat, &body);
    assert_eq!((usage(&metered), metered.settle), ((9, 7, 16), Settle::Usage));
}

/// agentgateway#1089: the output vanished. envoyproxy/ai-gateway#1631: a later zero took the input back.
#[test]
fn what_a_later_event_leaves_out_stays() {
    for input in ["", r#""input_tokens":0,"#] {
        let delta = format!(r#"{{"type":"message_delta","usage":{{{input}"output_tokens":7}}}}"#);
        let metered = read(Format::AnthropicMessages, &events(&[START, TEXT, &delta]));
        assert_eq!((usage(&metered), metered.settle), ((20, 7, 27), Settle::Usage));
    }
}

/// BerriAI/litellm#10554: thoughts of Gemini were lost in streams.
#[test]
fn thoughts_beside_the_output_are_added_to_it() {
    let first = r#"{"usageMetadata":{"promptTokenCount":8,"thoughtsTokenCount":90}}"#;
    let last = r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":3}}"#;
    let metered = read(Format::GeminiGenerate, &events(&[first, last]));
    assert_eq!(usage(&metered), (8, 93, 101));
    assert_eq!(metered.usage.unwrap().reasoning, 90);
}

/// future-agi PR 1122: the tokens of a cache were dropped, most of the prompt.
#[test]
fn caches_are_part_of_the_input_and_an_hour_is_told_apart() {
    let body = r#"{"model":"claude","usage":{"input_tokens":3,"cache_read_input_tokens":700,
        "cache_creation":{"ephemeral_5m_input_tokens":40,"ephemeral_1h_input_tokens":60},"output_tokens":5}}"#;
    let used = read(Format::AnthropicMessages, body).usage.unwrap();
    assert_eq!((used.input, used.cached_input, used.cache_write), (803, 700, 100));
    assert_eq!((used.cache_write_1h, used.total), (60, 808));
    let body = r#"{"usage":{"inputTokens":3,"outputTokens":5,"cacheWriteInputTokens":100,
        "cacheDetails":[{"inputTokens":60,"ttl":"1h"},{"ttl":"5m","inputTokens":40}]}}"#;
    let used = read(Format::BedrockConverse, body).usage.unwrap();
    assert_eq!((used.input, used.cache_write, used.cache_write_1h), (103, 100, 60));
}

/// envoyproxy/ai-gateway PR 2184: only `response.completed` was read.
#[test]
fn every_last_event_of_responses_has_the_usage() {
    for kind in ["completed", "incomplete", "failed"] {
        let last = format!(
            r#"{{"type":"response.{kind}","response":{{"model":"m","usage":{{"input_tokens":30,"output_tokens":16,"total_tokens":46}},"error":{{"code":"x"}}}}}}"#
        );
        let metered = read(Format::OpenAiResponses, &events(&[&last]));
        assert_eq!((usage(&metered), metered.settle), ((30, 16, 46), Settle::Usage), "{kind}");
        assert_eq!(metered.model.as_deref(), Some("m"));
    }
}

#[test]
fn numbers_that_are_no_counts_are_ignored() {
    for number in ["-5", "1.5", "1e30", "4294967296", "null", "\"12\"", "[]", "{}"] {
        let body = format!(
            r#"{{"usage":{{"prompt_tokens":{number},"completion_tokens":3,"total_tokens":20}}}}"#
        );
        assert_eq!(usage(&read(Format::OpenAiChat, &body)), (0, 3, 20), "{number}");
        let body = format!(r#"{{"usage":{{"prompt_tokens":{number},"completion_tokens":3000}}}}"#);
        let metered = read(Format::OpenAiChat, &body);
        assert_eq!((metered.usage, metered.settle), (None, Settle::Keep), "{number}");
        assert_eq!(metered.settle.charge(1000, metered.known(10).total), 3010, "{number}");
    }
}

/// Otherwise a provider that always reports zeros would make everything free.
#[test]
fn a_usage_of_zero_is_none() {
    let body = r#"{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#;
    let metered = read(Format::OpenAiChat, body);
    assert_eq!((metered.usage, metered.settle), (None, Settle::Keep));
}

/// `prompt_eval_count` is absent then.
#[test]
fn ollama_may_leave_out_a_prompt_from_its_cache() {
    let body =
        "{\"model\":\"l\",\"done\":false}\n{\"model\":\"l\",\"done\":true,\"eval_count\":30}\n";
    let metered = read(Format::OllamaChat, body);
    assert_eq!((usage(&metered), metered.settle), ((0, 30, 30), Settle::Usage));
}

#[test]
fn a_caller_cannot_name_the_model_that_served() {
    let body = r#"{"metadata":{"model":"cheap","usage":"x","service_tier":"flex"},"model":"dear",
        "output":[{"model":"cheap"}],"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}}"#;
    let metered = read(Format::OpenAiResponses, body);
    assert_eq!(metered.model.as_deref(), Some("dear"));
    assert_eq!(metered.service_tier, None);
}

#[test]
fn the_service_tier_that_served_is_the_last_one_named() {
    let first = r#"{"response":{"service_tier":"auto"}}"#;
    let last = r#"{"response":{"service_tier":"priority"}}"#;
    let metered = read(Format::OpenAiResponses, &events(&[first, last]));
    assert_eq!(metered.service_tier.as_deref(), Some("priority"));
    let body = r#"{"usage":{"speed":"fast","service_tier":"standard","input_tokens":1}}"#;
    let metered = read(Format::AnthropicMessages, body);
    assert_eq!(metered.service_tier.as_deref(), Some("fast"));
}

// === tokens of other models ===

/// An event of Anthropic with entries beside the counts.
fn delta(iterations: &str) -> String {
    format!(
        r#"{{"type":"message_delta","usage":{{"output_tokens":7,"iterations":[{iterations}]}}}}"#
    )
}

#[test]
fn entries_beside_the_counts_are_added_at_their_own_model() {
    let first = r#"{"type":"advisor_message","model":"opus","input_tokens":5,"output_tokens":2}"#;
    let all = format!(
        r#"{first},{{"model":"opus","type":"advisor_message","input_tokens":6,"cache_read_input_tokens":4,"output_tokens":1}},{{"type":"message","input_tokens":20,"output_tokens":7}},{{"type":"new","input_tokens":100,"output_tokens":0}}"#
    );
    let body = events(&[START, &delta(first), &delta(&all)]);
    let metered = read(Format::AnthropicMessages, &body);
    assert_eq!(usage(&metered), (20 + 15 + 100, 7 + 3, 145));
    assert_eq!((metered.own.total, metered.model.as_deref()), (27, Some("claude")));
    let extra: Vec<_> =
        metered.extra.iter().map(|extra| (extra.model.as_deref(), extra.usage.total)).collect();
    assert_eq!(extra, [(Some("opus"), 18), (None, 100)]);
    assert_eq!(metered.known(999), metered.usage.unwrap());
}

#[test]
fn a_fallback_is_the_model_that_served() {
    let entry =
        r#"{"type":"fallback_message","model":"haiku","input_tokens":20,"output_tokens":7}"#;
    let metered = read(Format::AnthropicMessages, &events(&[START, &delta(entry)]));
    assert_eq!((usage(&metered), metered.model.as_deref()), ((20, 7, 27), Some("haiku")));
}

#[test]
fn more_models_than_are_told_apart_are_charged_at_least_the_reservation() {
    let entries: Vec<String> = (0..20)
        .map(|index| format!(r#"{{"model":"m{index}","input_tokens":1,"output_tokens":1}}"#))
        .collect();
    let metered = read(Format::AnthropicMessages, &events(&[START, &delta(&entries.join(","))]));
    assert_eq!((metered.extra.len(), metered.settle), (8, Settle::AtLeast));
    assert_eq!(metered.usage.unwrap().total, 27 + 40);
}

#[test]
fn images_and_drawings_are_counted_beside_the_response() {
    let body = r#"{"usage":{"input_tokens":3,"output_tokens":4},"svg_usage":{"model":"svg","input_tokens":10,"output_tokens":20}}"#;
    let metered = read(Format::OpenAiImages, body);
    assert_eq!((metered.own.total, usage(&metered)), (7, (13, 24, 37)));
    let body = r#"{"usage":{"input_tokens":3,"output_tokens":4},"tool_usage":{"image_gen":{"input_tokens":10,"output_tokens":20},"web_search":{"num_requests":1}}}"#;
    assert_eq!(usage(&read(Format::OpenAiResponses, body)), (13, 24, 37));
    let body = events(&[body, body]);
    assert_eq!(usage(&read(Format::OpenAiResponses, &body)), (13, 24, 37));
}

// === how it ends ===

/// BerriAI/litellm#13245 and others: responses that were broken off were recorded as zero.
#[test]
fn a_response_that_breaks_off_anywhere_costs_at_least_its_reservation() {
    let delta = r#"{"type":"message_delta","usage":{"output_tokens":70}}"#;
    let anthropic = events(&[START, TEXT, TEXT, delta]);
    let openai = events(&[CHUNK, CHUNK, USAGE]);
    for (format, body) in [(Format::AnthropicMessages, anthropic), (Format::OpenAiChat, openai)] {
        for len in 0..body.len() {
            for end in [End::ClientLeft, End::UpstreamReset] {
                let metered = read_until(format, &body[..len], end);
                assert!(!metered.is_complete, "{format:?} {len}");
                let known = metered.known(5);
                assert_eq!(metered.settle.charge(50, known.total), known.total.max(50));
            }
        }
    }
}

#[test]
fn a_client_that_closes_after_the_last_event_has_all_of_it() {
    let delta = r#"{"type":"message_delta","usage":{"output_tokens":7}}"#;
    let stop = r#"{"type":"message_stop"}"#;
    let completed = r#"{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":1}}}"#;
    for (format, body) in [
        (Format::OpenAiChat, events(&[CHUNK, USAGE, "[DONE]"])),
        (Format::AnthropicMessages, events(&[START, delta, stop])),
        (Format::OpenAiResponses, events(&[completed])),
        (Format::OpenAiChat, USAGE.to_owned()),
        (Format::OllamaChat, r#"{"done":true,"eval_count":3}"#.to_owned()),
    ] {
        for end in [End::Complete, End::ClientLeft, End::UpstreamReset] {
            let metered = read_until(format, &body, end);
            assert_eq!((metered.is_complete, metered.settle), (true, Settle::Usage), "{format:?}");
        }
    }
}

/// Half an event with counts is less than the whole one.
#[test]
fn an_error_in_a_stream_makes_its_counts_a_lower_bound() {
    let counted = r#"{"choices":[{}],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#;
    let metered = read(Format::OpenAiChat, &events(&[counted, r#"{"error":{"message":"x"}}"#]));
    assert_eq!((usage(&metered), metered.settle), ((9, 2, 11), Settle::AtLeast));
    // Gemini writes errors of a stream without `data:`.
    let counted = r#"{"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":2}}"#;
    let body = events(&[counted]) + "{\"error\": {\n\"code\": 503\n}}\n";
    let metered = read(Format::GeminiGenerate, &body);
    assert_eq!((usage(&metered), metered.settle), ((8, 2, 10), Settle::AtLeast));
    let metered = read(Format::GeminiGenerate, &format!("[{counted},{{\"error\":{{}}}}]"));
    assert_eq!(metered.settle, Settle::AtLeast);
    let blocked =
        r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":8}}"#;
    let metered = read(Format::GeminiGenerate, &events(&[blocked]));
    assert_eq!((usage(&metered), metered.settle), ((8, 0, 8), Settle::Usage));
    // An event that is not readable.
    let metered = read(Format::OpenAiChat, &events(&[USAGE, r#"{"usage":{"prompt_tokens":90,"#]));
    assert_eq!((usage(&metered), metered.settle), ((90, 12, 102), Settle::AtLeast));
}

#[test]
fn a_refusal_of_the_upstream_is_free_and_nothing_else() {
    let settle = |status, body: &str, end| {
        let mut meter = Meter::new(Format::AnthropicMessages, &ResponseHead { status, ..OK });
        meter.feed(body.as_bytes());
        meter.finish(end).settle
    };
    let error = r#"{"type":"error","error":{"type":"overloaded_error"}}"#;
    for status in [400, 429, 529, 599] {
        assert_eq!(settle(status, error, End::Complete), Settle::Refund);
        assert_eq!(settle(status, &events(&[error]), End::Complete), Settle::Refund);
        assert_eq!(settle(status, "<html>", End::Complete), Settle::Refund);
        assert_eq!(settle(status, "", End::ClientLeft), Settle::Keep);
        assert_eq!(settle(status, &events(&[START]), End::Complete), Settle::AtLeast);
    }
    for status in [0, 200, 204, 302, 600] {
        assert_eq!(settle(status, error, End::Complete), Settle::Keep, "{status}");
    }
    let local = |before_send| End::LocalReply { before_send };
    assert_eq!(settle(503, "no healthy upstream", local(true)), Settle::Refund);
    assert_eq!(settle(503, "reset", local(false)), Settle::Keep);
}

#[test]
fn an_encoded_response_is_not_read() {
    for (encoding, is_encoded) in
        [("gzip", true), ("br, gzip", true), ("", false), ("Identity", false)]
    {
        let head = ResponseHead { content_encoding: Some(encoding.as_bytes()), ..OK };
        let mut meter = Meter::new(Format::OpenAiChat, &head);
        meter.feed(USAGE.as_bytes());
        let metered = meter.finish(End::Complete);
        assert_eq!((metered.is_encoded, metered.usage.is_none()), (is_encoded, is_encoded));
        let settle = if is_encoded { Settle::Keep } else { Settle::Usage };
        assert_eq!(metered.settle, settle, "{encoding}");
        assert_eq!(settle.charge(50, metered.known(99).total), if is_encoded { 50 } else { 21 });
    }
    let head = ResponseHead {
        content_encoding: Some(b"gzip"),
        bedrock_counts: (Some(b"7"), Some(b"20")),
        ..OK
    };
    let metered = Meter::new(Format::BedrockInvoke, &head).finish(End::Complete);
    assert_eq!((usage(&metered), metered.settle), ((7, 20, 27), Settle::AtLeast));
}

// === what a body is ===

/// envoyproxy/ai-gateway#2218: JSON as `text/event-stream`. So the declared type is not asked for.
#[test]
fn the_first_byte_of_a_body_tells_what_it_is() {
    for body in [USAGE.to_owned(), format!("\u{feff} \r\n{USAGE}"), events(&[USAGE])] {
        assert_eq!(usage(&read(Format::OpenAiChat, &body)), (9, 12, 21), "{body}");
    }
    for body in ["\u{0}\u{0}\u{0}\u{18}ftyp", "ID3", "<html>", "\u{1f}\u{fffd}"] {
        assert_eq!(read(Format::OpenAiAudio, body).settle, Settle::Keep);
    }
}

/// agentgateway#2350: bounds of 2 MiB were met by real responses. Kuadrant: the second-to-last event was taken.
#[test]
fn the_usage_is_found_in_any_event_of_any_size() {
    let content = "x".repeat(3 << 20);
    let large = format!(r#"{{"choices":[{{"delta":{{"content":"{content}"}}}}]}}"#);
    for data in [[&large, USAGE, CHUNK], [USAGE, &large, CHUNK], [CHUNK, &large, USAGE]] {
        let mut meter = Meter::new(Format::OpenAiChat, &OK);
        meter.feed(events(&data).as_bytes());
        let metered = meter.finish(End::Complete);
        assert_eq!((usage(&metered), metered.settle), ((9, 12, 21), Settle::Usage));
    }
}

#[test]
fn a_long_chunk_of_bedrock_is_decoded_in_pieces() {
    let event = format!(
        r#"{{"delta":{{"text":"{}"}},"usage":{{"input_tokens":4,"output_tokens":5}}}}"#,
        "y".repeat(5000)
    );
    let payload = format!(r#"{{"p":"a","bytes":"{}"}}"#, base64(event.as_bytes()));
    let body = message("event", payload.as_bytes());
    let mut meter = Meter::new(Format::BedrockInvoke, &OK);
    body.chunks(7).for_each(|piece| meter.feed(piece));
    let metered = meter.finish(End::ClientLeft);
    assert_eq!((usage(&metered), metered.settle), ((4, 5, 9), Settle::AtLeast));
    assert_eq!(metered.streamed_tokens, 1250);
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_message_that_is_an_error_or_broken_takes_nothing_back() {
    let counted = message("event", br#"{"usage":{"inputTokens":4,"outputTokens":5}}"#);
    let error = message("exception", br#"{"message":"x"}"#);
    let mut broken = message("event", br#"{"usage":{"inputTokens":400,"outputTokens":5}}"#);
    let half = broken[..broken.len() - 1].to_vec();
    *broken.last_mut().unwrap() ^= 1;
    for (after, settle) in [
        (&Vec::new(), Settle::Usage),
        (&error, Settle::AtLeast),
        (&broken, Settle::AtLeast),
        (&half, Settle::AtLeast),
    ] {
        let mut meter = Meter::new(Format::BedrockConverse, &OK);
        meter.feed(&counted);
        meter.feed(after);
        let metered = meter.finish(End::Complete);
        assert_eq!((usage(&metered), metered.settle), ((4, 5, 9), settle));
    }
}

/// A message of Bedrock of a type.
fn message(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut headers = b"\x0d:message-type\x07\x00".to_vec();
    headers.push(u8::try_from(kind.len()).unwrap());
    headers.extend(kind.bytes());
    let word = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    let mut message = [word(16 + headers.len() + payload.len()), word(headers.len())].concat();
    let crc = |bytes: &[u8]| {
        let mut crc = crate::record::Crc32::default();
        crc.add(bytes);
        crc.value().to_be_bytes()
    };
    message.extend(crc(&message));
    message.extend([&headers, payload].concat());
    message.extend(crc(&message));
    message
}

// === estimates ===

/// BerriAI/litellm#12970: an estimate replaced what was reported.
#[test]
fn an_estimate_raises_what_is_known_and_never_replaces_it() {
    let complete = read(Format::OpenAiChat, &events(&[CHUNK, USAGE, "[DONE]"]));
    assert_eq!(complete.known(10_000), complete.usage.unwrap());
    let partial = read_until(Format::AnthropicMessages, &events(&[START, TEXT]), End::ClientLeft);
    assert_eq!(partial.streamed_tokens, 3);
    let known = partial.known(10_000);
    assert_eq!((known.input, known.output, known.total), (20, 3, 23));
    let missing = read_until(Format::OpenAiChat, &events(&[CHUNK, CHUNK]), End::ClientLeft);
    let known = missing.known(10_000);
    assert_eq!((known.input, known.output, known.total), (10_000, 3, 10_003));
}

#[test]
fn only_what_was_generated_is_estimated() {
    for (format, data) in [
        (
            Format::OpenAiChat,
            r#"{"id":"abcdefgh","model":"abcdefgh","choices":[{"delta":{"role":"assistant","content":"12345678"}}],"obfuscation":"abcd"}"#,
        ),
        (
            Format::OpenAiResponses,
            r#"{"type":"response.output_text.delta","item_id":"abcdefgh","delta":"12345678"}"#,
        ),
        (
            Format::AnthropicMessages,
            r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"12345678"}}"#,
        ),
        (
            Format::GeminiGenerate,
            r#"{"candidates":[{"content":{"parts":[{"text":"12345678"}],"role":"model"}}],"responseId":"abcdefgh"}"#,
        ),
        (
            Format::CohereChat,
            r#"{"type":"content-delta","delta":{"message":{"content":{"text":"12345678"}}}}"#,
        ),
    ] {
        let metered = read_until(format, &events(&[data]), End::ClientLeft);
        assert_eq!(metered.streamed_tokens, 2, "{format:?}");
    }
    let line =
        "{\"model\":\"abcdefgh\",\"message\":{\"role\":\"assistant\",\"content\":\"12345678\"}}\n";
    assert_eq!(read(Format::OllamaChat, line).streamed_tokens, 2);
}

#[test]
fn the_charge_is_never_below_what_is_known() {
    assert_eq!(Settle::Usage.charge(50, 7), 7);
    assert_eq!(Settle::Usage.charge(50, 70), 70);
    for settle in [Settle::AtLeast, Settle::Keep] {
        assert_eq!((settle.charge(50, 7), settle.charge(50, 70)), (50, 70));
    }
    for settle in [Settle::Refund, Settle::Free] {
        assert_eq!(settle.charge(50, 70), 0);
    }
}

#[test]
fn nothing_that_was_generated_is_shown() {
    let mut meter = Meter::new(Format::OpenAiChat, &OK);
    let mut stripper = Stripper::new();
    let body = r#"data: {"choices":[{"delta":{"content":"confidential"#;
    meter.feed(body.as_bytes());
    stripper.feed(br#"data: {"x":"confidential"#);
    assert!(!format!("{meter:?} {stripper:?}").contains("confidential"));
    assert!(!format!("{:?}", meter.finish(End::ClientLeft)).contains("confidential"));
}
