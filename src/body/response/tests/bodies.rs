use super::*;

/// envoyproxy/ai-gateway#2218: JSON as `text/event-stream`. So the declared type means nothing.
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

/// A model writes the arguments of a tool, so a client that writes the prompt controls them.
#[test]
fn no_value_hides_the_usage_that_follows() {
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let deep_objects = format!("{}1{}", "{\"a\":".repeat(2000), "}".repeat(2000));
    let long = "9".repeat(4000);
    for value in [&deep, &deep_objects, &long, "NaN", "[-Infinity]", "\"\u{1}\u{0}\""] {
        let choices = CHUNK.strip_prefix('{').and_then(|chunk| chunk.strip_suffix('}')).unwrap();
        let counts = USAGE.strip_prefix('{').unwrap();
        let body = format!(r#"{{"x":{value},{choices},"output":{{"x":{value}}},{counts}"#);
        let metered = read(Format::OpenAiChat, &body);
        assert_eq!((usage(&metered), metered.settle), ((9, 12, 21), Settle::Usage), "{body}");
    }
}

/// What breaks off the reading of a response is no way to use more than is paid for.
#[test]
fn what_is_not_readable_counts_as_generated() {
    let body = format!(r#"{{"choices":"{}" "usage":{{"total_tokens":5000}}}}"#, "x".repeat(4000));
    let metered = read(Format::OpenAiChat, &body);
    assert_eq!(metered.usage, None);
    assert!(metered.known(7).total >= 1007, "{metered:?}");
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
    body.chunks(7).for_each(|piece| _ = meter.feed(piece));
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
