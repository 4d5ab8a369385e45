//! Audit lines of any content: nothing that a client, a key or a proxy wrote can end a member.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use vkey::audit::{TokenSource, Tokens};
use vkey::body::TokenUsage;

use super::*;

/// Any text, often one that would end a string, a member or a line.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r#"["\\{}\[\],:%/\n\r\t\x00\x7f a-z-]{0,30}"#,
        Just(r#"","decision":"allow","x":""#.to_owned()),
        Just("%RESPONSE_CODE%".to_owned()),
        Just("-".to_owned()),
    ]
}

fn record() -> impl Strategy<Value = AuditRecord<'static>> {
    let ts_micros = 0..253_402_300_800_000_000_u64;
    let number = || of(0..=1_u64 << 53);
    (ts_micros, vec(of(text()), 17), vec(text(), 0..4), vec(number(), 3)).prop_map(
        |(ts_micros, texts, query_keys, numbers)| {
            let mut texts = texts.into_iter().map(|text| text.map(Into::into));
            let mut text = || texts.next().flatten();
            AuditRecord {
                ts_micros,
                host: text(),
                req: text(),
                decision: Some(Decision::Deny(DenyReason::Path)),
                kid: text(),
                jti: text(),
                tenant: text(),
                sub: text(),
                tier: text(),
                caveats: numbers[0],
                src: text(),
                method: text(),
                authority: text(),
                path: text(),
                query_keys: query_keys.into_iter().map(Into::into).collect(),
                model: text(),
                mcp: text(),
                tokens: numbers[1].map(|total| Tokens {
                    usage: TokenUsage { input: total / 3, total, ..TokenUsage::default() },
                    source: TokenSource::Partial,
                }),
                cost: numbers[2],
                tls_verdict: text(),
                tls_policy: text(),
                anomaly: text(),
                is_local: ts_micros % 2 == 0,
                plan: text().filter(|plan: &std::borrow::Cow<'_, str>| !plan.is_empty()),
                link: None,
            }
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome<'static>> {
    (of(0..253_402_300_800_000_000_u64), vec(of(text()), 3), vec(of(1..=1_u64 << 53), 4)).prop_map(
        |(start_micros, texts, numbers)| {
            // A dash stands for what is absent.
            let mut texts = texts.into_iter().map(|text| text.filter(|text| text != "-"));
            let mut text = || texts.next().flatten().map(Into::into);
            Outcome {
                start_micros,
                peer: text(),
                status: numbers[0],
                bytes_in: numbers[1],
                bytes_out: numbers[2],
                duration_ns: numbers[3],
                upstream: text(),
                flags: text(),
            }
        },
    )
}

/// The line of Envoy's access log, in which only the record has text that others chose.
fn printed(record: &str) -> String {
    let (before, after) =
        ACCESS_LOG_FORMAT.split_once("%FILTER_STATE(wasm.vkey.audit:PLAIN)%").unwrap();
    let mut line = [before, record].concat();
    for (index, part) in after.split('%').enumerate() {
        line.push_str(if index % 2 == 0 { part } else { "7" });
    }
    line.replace(r#""start":"7""#, r#""start":"-""#)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_line_of_any_content_is_json_on_one_line_and_reads_back(
        record in record(),
        outcome in outcome(),
    ) {
        let mask = Mask::default();
        let half = record.write(&mask);
        let members = 33 + usize::from(record.is_local);
        let line = Line { record: Some(record), outcome };
        let whole = line.write(&mask);
        prop_assert_eq!(&whole, &Line::splice(&half, &line.outcome, &Mask::default()));
        for text in [&whole, &printed(&half)] {
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", text);
            let json: Value = serde_json::from_str(text).unwrap();
            prop_assert_eq!(json.as_object().unwrap().len(), members);
            prop_assert_eq!(&json["decision"], "deny");
            prop_assert_eq!(&json["vkey"], "2");
        }
        // What begins a key is replaced, and reads back as the replacement.
        let read = Line::parse(&whole).unwrap();
        prop_assert!(whole.contains("***REDACTED***") || read == line, "{:?}", line);
        prop_assert_eq!(Line::parse(&printed(&half)).unwrap().record, read.record);
    }

    #[test]
    fn a_shortened_line_is_json(record in record(), outcome in outcome(), max_bytes in 0..2_000_usize) {
        let line = Line { record: Some(record), outcome }.within(&Mask::default(), max_bytes).write(&Mask::default());
        Line::parse(&line).unwrap();
    }
}
