//! Responses of AI services, good and bad.

use vkey::body::response::{End, Meter, Metered, ResponseHead, Settle};
use vkey::body::{Format, TokenUsage};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// The bodies of the vectors: what a proxy sees most.
fn bodies() -> Vec<Vec<u8>> {
    let file =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/vectors/llm/answers.json"));
    let file: Value = serde_json::from_str(file).unwrap();
    let body = |case: &Value| match case.get("chunks") {
        Some(texts) => {
            let texts = texts.as_array().unwrap().iter();
            texts.flat_map(|text| text.as_str().unwrap().bytes()).collect()
        }
        None => {
            let texts = case["chunks_b64"].as_array().unwrap().iter();
            texts.flat_map(|text| STANDARD.decode(text.as_str().unwrap()).unwrap()).collect()
        }
    };
    file["cases"].as_array().unwrap().iter().map(body).collect()
}

/// Bytes that were changed in a few places, or are anything.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<Index>(), any::<u8>(), 0..4_u8);
    let changed = (select(bodies()), vec(change, 0..4)).prop_map(|(mut body, changes)| {
        for (at, byte, kind) in changes {
            let at = at.index(body.len() + 1);
            match kind {
                0 => body.insert(at, byte),
                1 if at < body.len() => drop(body.remove(at)),
                2 if at < body.len() => body[at] = byte,
                3 => body.truncate(at),
                _ => {}
            }
        }
        body
    });
    let pieces = select(
        &[
            "data:",
            "event: message_delta",
            "\n\n",
            "\r",
            "{",
            "}",
            "[",
            "]",
            "\"usage\":",
            ",",
            ":",
            "\"prompt_tokens\":",
            "7",
            "-1",
            "1e3",
            "\"iterations\":",
            "\"choices\":",
            "\0",
            "null",
        ][..],
    );
    let assembled = vec(pieces, 0..40).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![4 => changed, 1 => vec(any::<u8>(), 0..200), 2 => assembled]
}

fn end() -> impl Strategy<Value = End> {
    select(
        &[
            End::Complete,
            End::ClientLeft,
            End::UpstreamReset,
            End::LocalReply { before_send: true },
            End::LocalReply { before_send: false },
        ][..],
    )
}

fn format() -> impl Strategy<Value = Format> {
    select(Format::ALL)
}

/// A body in pieces.
fn cut<'a>(body: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    ends.push(body.len());
    ends.sort_unstable();
    let mut from = 0;
    ends.iter().map(|end| &body[std::mem::replace(&mut from, *end)..*end]).collect()
}

fn read(format: Format, status: u16, pieces: &[&[u8]], end: End) -> Metered {
    let mut meter = Meter::new(format, &ResponseHead { status, ..ResponseHead::default() });
    pieces.iter().for_each(|piece| _ = meter.feed(piece));
    meter.finish(end)
}

/// A number in a response, and the count that it is.
fn number() -> impl Strategy<Value = (String, u64)> {
    prop_oneof![
        4 => (0..5_000_u64).prop_map(|number| (number.to_string(), number)),
        1 => (0..5_000_u64).prop_map(|number| (format!("{number}.0"), number)),
        1 => (0..50_u64).prop_map(|number| (format!("{number}e2"), number * 100)),
        1 => (1..5_000_u64).prop_map(|number| (format!("-{number}"), 0)),
        1 => (0..5_000_u64).prop_map(|number| (format!("{number}.5"), 0)),
        1 => (10_u64.pow(9) + 1..).prop_map(|number| (number.to_string(), 0)),
    ]
}

/// The members of OpenAI's usage that are counts.
const MEMBERS: [&str; 5] = [
    "\"prompt_tokens\":",
    "\"completion_tokens\":",
    "\"total_tokens\":",
    "\"prompt_tokens_details\":{\"cached_tokens\":",
    "\"completion_tokens_details\":{\"reasoning_tokens\":",
];

/// The normal form of the largest counts.
fn normal(largest: [u64; 5]) -> TokenUsage {
    let [input, output, total, cached_input, reasoning] = largest;
    let (input, output) = (input.max(cached_input), output.max(reasoning));
    let total = total.max(input + output);
    TokenUsage { input, output, total, cached_input, reasoning, ..TokenUsage::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_response_is_read_in_one_way_however_it_is_cut(
        format in format(),
        body in body(),
        cuts in vec(any::<Index>(), 0..6),
        status in select(&[0_u16, 200, 429, 500][..]),
        end in end(),
    ) {
        let whole = read(format, status, &[&body], end);
        prop_assert_eq!(&read(format, status, &cut(&body, &cuts), end), &whole);
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        prop_assert_eq!(&read(format, status, &bytes, end), &whole);
    }

    #[test]
    fn only_a_refusal_or_a_request_that_was_not_sent_is_refunded(
        format in format(),
        body in body(),
        status in 0..700_u16,
        end in end(),
        reserved in 0..10_000_u64,
    ) {
        let metered = read(format, status, &[&body], end);
        let known = metered.known(0).total;
        let charge = metered.settle.charge(reserved, known);
        let is_unsent = end == End::LocalReply { before_send: true };
        match metered.settle {
            Settle::Usage => {
                prop_assert!(metered.is_complete && known > 0);
                prop_assert_eq!(Some(known), metered.usage.map(|usage| usage.total));
            }
            Settle::AtLeast | Settle::Keep => prop_assert!(charge >= reserved && charge >= known),
            Settle::Refund => {
                let is_refused = (400..600).contains(&status) && metered.usage.is_none();
                prop_assert!(is_unsent || is_refused && known == 0);
            }
            Settle::Free => prop_assert!(metered.usage.is_none()),
        }
    }

    #[test]
    fn a_part_of_a_count_is_never_larger_than_the_count(format in format(), body in body()) {
        let metered = read(format, 200, &[&body], End::Complete);
        let extra = metered.extra.iter().map(|extra| &extra.usage);
        for usage in metered.usage.iter().chain([&metered.own]).chain(extra) {
            prop_assert!(usage.cached_input + usage.cache_write <= usage.input, "{:?}", usage);
            prop_assert!(usage.cache_write_1h <= usage.cache_write, "{:?}", usage);
            prop_assert!(usage.reasoning <= usage.output, "{:?}", usage);
            prop_assert!(usage.input + usage.output <= usage.total, "{:?}", usage);
        }
    }

    #[test]
    fn the_largest_number_of_each_member_counts(
        reports in vec(vec((0..MEMBERS.len(), number()), 0..6), 1..6),
        as_events in any::<bool>(),
    ) {
        let mut largest = [0; MEMBERS.len()];
        let mut body = String::new();
        for report in &reports {
            let mut members = Vec::new();
            for (member, (text, count)) in report {
                let name = MEMBERS[*member];
                let close = if name.contains('{') { "}" } else { "" };
                members.push(format!("{name}{text}{close}"));
                largest[*member] = largest[*member].max(*count);
            }
            let usage = format!("\"usage\":{{{}}}", members.join(","));
            body += &match as_events {
                true => format!("data: {{{usage}}}\n\n"),
                false => format!("{}{usage}", if body.is_empty() { "{" } else { "," }),
            };
        }
        if !as_events {
            body.push('}');
        }
        let metered = read(Format::OpenAiChat, 200, &[body.as_bytes()], End::Complete);
        prop_assert_eq!(metered.own, normal(largest), "{}", body);
        let is_reported = normal(largest).input > 0 || largest[2] > 0;
        prop_assert_eq!(metered.usage, is_reported.then(|| normal(largest)));
    }

    #[test]
    fn no_cut_and_no_body_changes_what_is_stripped(
        body in body(),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let strip = |pieces: &[&[u8]]| {
            let head = ResponseHead::default();
            let mut meter = Meter::new(Format::OpenAiChat, &head).stripping();
            let mut passed = Vec::new();
            pieces.iter().for_each(|piece| passed.extend_from_slice(&meter.feed(piece)));
            passed.extend(meter.finish_stripping());
            passed
        };
        let whole = strip(&[&body]);
        prop_assert_eq!(&strip(&cut(&body, &cuts)), &whole);
        prop_assert_eq!(&strip(&body.chunks(1).collect::<Vec<_>>()), &whole);
        let has_usage = body.windows(7).any(|name| name == b"choices");
        prop_assert!(whole == body || has_usage && whole.len() < body.len());
    }
}
