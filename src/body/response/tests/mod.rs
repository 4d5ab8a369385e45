use super::*;
use crate::body::Format;

mod bodies;
mod counts;
mod ends;

const OK: ResponseHead<'static> = ResponseHead {
    status: 200,
    content_encoding: None,
    bedrock_counts: (None, None),
    bedrock_tier: None,
};

/// Reads a response of a format that is complete.
fn read(format: Format, body: &str) -> Metered {
    read_until(format, body, End::Complete)
}

fn read_until(format: Format, body: &str, end: End) -> Metered {
    let mut meter = Meter::new(format, &OK);
    meter.feed(body.as_bytes());
    let metered = meter.finish(end);
    let mut meter = Meter::new(format, &OK);
    body.as_bytes().chunks(1).for_each(|byte| _ = meter.feed(byte));
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
