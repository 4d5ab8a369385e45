use super::*;

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
                let metered = read_until(format, body.split_at(len).0, end);
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
    let mut stripping = Meter::new(Format::OpenAiChat, &OK).stripping();
    let body = r#"data: {"choices":[{"delta":{"content":"confidential"#;
    meter.feed(body.as_bytes());
    stripping.feed(br#"data: {"x":"confidential"#);
    assert!(!format!("{meter:?} {stripping:?}").contains("confidential"));
    assert!(!format!("{:?}", meter.finish(End::ClientLeft)).contains("confidential"));
}
