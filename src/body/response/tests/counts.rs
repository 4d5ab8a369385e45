use super::*;

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

#[test]
fn the_service_tiers_of_bedrock_and_of_google_are_read() {
    let usage = r#""usage":{"inputTokens":3,"outputTokens":5}"#;
    let counts = r#""promptTokenCount":3,"candidatesTokenCount":5"#;
    for (format, body, tier) in [
        (
            Format::BedrockConverse,
            format!(
                r#"{{{usage},"metrics":{{"latencyMs":1}},"serviceTier":{{"type":"priority"}}}}"#
            ),
            "priority",
        ),
        (
            Format::GeminiGenerate,
            format!(r#"{{"usageMetadata":{{{counts},"trafficType":"ON_DEMAND_PRIORITY"}}}}"#),
            "ON_DEMAND_PRIORITY",
        ),
        (
            Format::GeminiGenerate,
            format!(r#"{{"usageMetadata":{{{counts},"serviceTier":"flex"}}}}"#),
            "flex",
        ),
    ] {
        let metered = read(format, &body);
        assert_eq!(metered.service_tier.as_deref(), Some(tier), "{body}");
    }
}

#[test]
fn the_header_with_the_tier_of_bedrock_counts_more_than_that_of_the_model() {
    let body = br#"{"usage":{"input_tokens":3,"output_tokens":5,"service_tier":"standard"}}"#;
    let tiers: [(Option<&[u8]>, &str); 3] =
        [(Some(b"priority"), "priority"), (Some(b"default"), "standard"), (None, "standard")];
    for (bedrock_tier, expected) in tiers {
        let head = ResponseHead { bedrock_tier, ..OK };
        let mut meter = Meter::new(Format::BedrockInvoke, &head);
        _ = meter.feed(body);
        let metered = meter.finish(End::Complete);
        assert_eq!(metered.service_tier.as_deref(), Some(expected));
    }
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
