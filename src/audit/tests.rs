//! Tests of writing and reading audit lines.

use super::*;
use crate::body::TokenUsage;
use crate::decision::DenyReason;
use crate::json::Json;
use crate::key::keyring::Secret;

fn record() -> AuditRecord<'static> {
    AuditRecord {
        ts_micros: 1_790_000_000_123_456,
        host: Some("gateway-1".into()),
        decision: Some(Decision::Deny(DenyReason::Path)),
        sub: Some("Zo\u{eb} \"\u{1f511}\"\n\u{7f}".into()),
        caveats: Some(2),
        path: Some("/v1/x".into()),
        query_keys: vec!["a".into(), "\u{0}".into()],
        ..AuditRecord::default()
    }
}

fn outcome() -> Outcome<'static> {
    Outcome {
        start_micros: Some(1_790_000_000_123_000),
        peer: Some("192.0.2.1".into()),
        status: Some(403),
        bytes_in: Some(10),
        bytes_out: Some(0),
        duration_ns: Some(u64::MAX),
        ..Outcome::default()
    }
}

fn line_of(record: AuditRecord<'static>) -> Line<'static> {
    Line { record: Some(record), outcome: outcome() }
}

/// What Envoy prints for a record, or for an absent one.
fn printed(record: Option<&str>) -> String {
    [
        ("%FILTER_STATE(wasm.vkey.audit:PLAIN)%", record.unwrap_or("-")),
        ("%START_TIME%", "2026-09-21T14:13:20.123Z"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "192.0.2.1"),
        ("%RESPONSE_CODE%", "403"),
        ("%BYTES_RECEIVED%", "10"),
        ("%BYTES_SENT%", "0"),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%", "18446744073709551615"),
        ("%UPSTREAM_HOST%", "-"),
        ("%RESPONSE_FLAGS%", "-"),
    ]
    .into_iter()
    .fold(ACCESS_LOG_FORMAT.to_owned(), |line, (operator, value)| line.replace(operator, value))
}

#[test]
fn a_line_is_one_line_of_ascii_and_reads_back_whoever_wrote_it() {
    for decision in [
        None,
        Some(Decision::Allow),
        Some(Decision::Preflight),
        Some(Decision::Public),
        Some(Decision::Deny(DenyReason::KeyMissing)),
        Some(Decision::Shadow(DenyReason::Host)),
    ] {
        let line = line_of(AuditRecord { decision, plan: Some("p/0".into()), ..record() });
        let half = line.record.as_ref().unwrap().write(&Mask::default());
        for text in [line.write(&Mask::default()), printed(Some(&half))] {
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
            assert_eq!(Line::parse(&text).unwrap(), line, "{text}");
        }
        assert_eq!(
            Line::splice(&half, &line.outcome, &Mask::default()),
            line.write(&Mask::default())
        );
    }
}

#[test]
fn members_keep_their_order() {
    let half = record().write(&Mask::default());
    assert!(half.starts_with(r#"2","ts":"2026-09-21T14:13:20.123456Z","host":"#), "{half}");
    assert!(half.ends_with(r#","plan":""#), "{half}");
    let of_ledger = AuditRecord { is_local: true, ..record() };
    let mut linked = of_ledger.write(&Mask::default());
    chain().link(&mut linked, record().amounts());
    let optional = ["budget", "chain", "seq", "prev", "mac"];
    for (half, is_linked) in [(half, false), (linked, true)] {
        let spliced = Line::splice(&half, &outcome(), &Mask::default());
        for text in [printed(Some(&half)), spliced] {
            let Json::Object(members) = Json::parse(text.as_bytes()).unwrap() else { panic!() };
            let expected = MEMBERS.iter().filter(|name| is_linked || !optional.contains(name));
            assert!(members.iter().map(|(name, _)| name).eq(expected), "{text}");
        }
    }
}

#[test]
fn a_request_that_nobody_saw_has_a_line_without_a_record() {
    let line = Line { record: None, outcome: outcome() };
    assert_eq!(Line::parse(&printed(None)).unwrap(), line);
    assert_eq!(Line::parse(&line.write(&Mask::default())).unwrap(), line);
}

#[test]
fn what_the_proxy_does_not_know_is_absent() {
    let text = r#"{"vkey":"-","start":"-","peer":"-","status":0,"bytes_in":"-","bytes_out":null,
        "duration_ns":"-","upstream":null,"flags":"-"}"#;
    assert_eq!(Line::parse(text).unwrap(), Line::default());
    assert_eq!(Line::parse(r#"{"vkey":"-"}"#).unwrap(), Line::default());
}

#[test]
fn every_maskable_member_can_be_masked() {
    let all = |text: &'static str| Some(text.into());
    let record = AuditRecord {
        req: all("leak"),
        host: all("leak"),
        kid: all("leak"),
        jti: all("leak"),
        tenant: all("leak"),
        sub: all("leak"),
        tier: all("leak"),
        src: all("leak"),
        method: all("leak"),
        authority: all("leak"),
        path: all("leak"),
        query_keys: vec!["leak".into()],
        model: all("leak"),
        mcp: all("leak"),
        ..record()
    };
    let outcome = Outcome { peer: all("leak"), upstream: all("leak"), ..outcome() };
    let mask = Mask::new(Mask::MASKABLE.into(), None);
    let line = Line { record: Some(record.clone()), outcome }.write(&mask);
    assert!(!line.contains("leak"), "{line}");
    assert_eq!(line.matches(MASK_VALUE).count(), Mask::MASKABLE.len());
    let half = record.write(&mask);
    let of_record = Mask::MASKABLE.len() - Mask::OF_OUTCOME.len();
    assert_eq!(half.matches(MASK_VALUE).count(), of_record, "{half}");
}

#[test]
fn texts_that_look_like_keys_are_masked() {
    let key = "/v1/vk1.main-0.abc.def".into();
    let jwt = "eyJhbGciOiJIUzI1NiJ9".into();
    let record = AuditRecord { path: Some(key), query_keys: vec![jwt], ..record() };
    let line = record.write(&Mask::default());
    assert_eq!(line.matches(MASK_VALUE).count(), 2, "{line}");
}

#[test]
fn lines_of_other_versions_are_refused() {
    let expected = "vkey: expected version 2, or - where there is no record";
    let line = line_of(record()).write(&Mask::default());
    let line = line.replace("\"vkey\":\"2\"", "\"vkey\":\"3\"");
    assert_eq!(Line::parse(&line).unwrap_err().to_string(), expected);
    assert!(Line::parse(r#"{"v":1,"ts":"2026-09-21T14:13:20.123456Z"}"#).is_err());
}

/// Writes a line that is too long, cut to `max_bytes`.
fn within(record: AuditRecord<'static>, mask: &Mask, max_bytes: usize) -> String {
    let line = line_of(record);
    assert!(line.write(mask).len() > max_bytes);
    let text = line.within(mask, max_bytes).write(mask);
    assert!(text.len() <= max_bytes, "{}: {text}", text.len());
    text
}

#[test]
fn a_line_is_shortened_for_any_client_text() {
    let long = |text: &str| Some(Cow::Owned(text.repeat(8_000 / text.len())));
    for text in ["/a", "\"", "\u{7f}", "\u{eb}", "\u{1f511}"] {
        for record in [
            AuditRecord { path: long(text), ..record() },
            AuditRecord { authority: long(text), ..record() },
            AuditRecord { req: long(text), ..record() },
            AuditRecord { method: long(text), ..record() },
            AuditRecord { sub: long(text), ..record() },
            AuditRecord { query_keys: vec![text.repeat(64).into(); 32], ..record() },
        ] {
            let line = within(record, &Mask::default(), 1_024);
            assert!(line.contains(r"\u2026"), "{line}");
            assert_eq!(Line::parse(&line).unwrap().outcome.status, Some(403));
        }
    }
}

#[test]
fn the_beginning_of_a_key_is_found_at_any_position() {
    for (before, after) in (0..17).flat_map(|before| (0..9).map(move |after| (before, after))) {
        let text = |key: &str| ["~".repeat(before).as_str(), key, &"~".repeat(after)].concat();
        for key in ["vk1.", "vk1%", "eyJ"] {
            assert!(starts_key(&text(key)), "{key} after {before}");
        }
        for other in ["vk1", "k1.", "vk2.", "yJ", "eyj", "VK1.", "5f0c2a57-4f0e-4f6c-9c5b"] {
            assert!(!starts_key(&text(other)), "{other} after {before}");
        }
    }
}

#[test]
fn a_masked_text_stays_masked_when_the_line_is_shortened() {
    let sub = Some(Cow::Owned("\u{1f511}".repeat(128)));
    for key in ["vk1.main-0.", "vk1%2E", "eyJhbGciOi", "eyJ"] {
        for path in
            [["/a".repeat(3_000).as_str(), key].concat(), [key, &"/a".repeat(3_000)].concat()]
        {
            let record = AuditRecord { path: Some(path.into()), sub: sub.clone(), ..record() };
            let line = within(record, &Mask::default(), 1_700);
            assert!(line.contains(&format!(r#""path":"{MASK_VALUE}""#)), "{line}");
        }
    }
}

fn audit_key() -> AuditKey {
    AuditKey::new(&Secret::parse("Audit-1-of-the-unit-tests").unwrap())
}

fn chain() -> Chain {
    Chain::new(audit_key(), &[b"seed"])
}

/// The lines of a chain of three records, as an access log prints them.
fn trail() -> [String; 3] {
    let mut chain = chain();
    [1, 2, 3].map(|number: u64| {
        let record = AuditRecord { caveats: Some(number), ..record() };
        let mut text = record.write(&Mask::default());
        chain.link(&mut text, record.amounts());
        printed(Some(&text))
    })
}

#[test]
fn each_record_contains_the_mac_of_the_one_before_it() {
    let lines = trail();
    let links =
        lines.each_ref().map(|line| Line::parse(line).unwrap().record.unwrap().link.unwrap());
    assert_eq!(links.each_ref().map(|link| link.seq), [0, 1, 2]);
    assert_eq!(links[0].prev, "");
    assert_eq!((&links[1].prev, &links[2].prev), (&links[0].mac, &links[1].mac));
    for (line, link) in lines.iter().zip(&links) {
        assert_eq!((link.chain.len(), link.mac.len()), (16, 43), "{line}");
        assert_eq!(audit_key().verifies(line), Some(true), "{line}");
    }
    let other = AuditKey::new(&Secret::parse("Other-1-of-the-unit-tests").unwrap());
    assert_eq!(other.verifies(&lines[0]), Some(false));
    assert_eq!(audit_key().verifies(r#"{"vkey":"-"}"#), None);
}

#[test]
fn no_byte_of_a_record_can_be_changed() {
    let line = &trail()[1];
    let record = line.find(r#","start":"#).unwrap();
    for at in r#"{"vkey":""#.len()..record - 1 {
        let mut bytes = line.clone().into_bytes();
        bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_ne!(audit_key().verifies(&changed), Some(true), "{changed}");
    }
    let outcome = line.replace(r#""status":403"#, r#""status":200"#);
    assert_eq!(audit_key().verifies(&outcome), Some(true), "the proxy vouches for the outcome");
}

#[test]
fn an_anchor_says_what_its_chain_has_come_to() {
    let mut chain = chain();
    let usage = TokenUsage { total: 70, ..TokenUsage::default() };
    for (decision, source, cost) in [
        (Decision::Allow, TokenSource::Usage, Some(5)),
        (Decision::Deny(DenyReason::Path), TokenSource::Nothing, Some(90)),
        (Decision::Public, TokenSource::Usage, None),
    ] {
        let tokens = Some(Tokens { usage, source });
        let record = AuditRecord { decision: Some(decision), tokens, cost, ..record() };
        chain.link(&mut record.write(&Mask::default()), record.amounts());
    }
    let host = AuditRecord { host: Some("gateway-1".into()), ..AuditRecord::default() };
    let host_members = &host.host_members(&Mask::default());
    let at = AnchorContext { ts_micros: 0, host_members, plan: "p/0", is_end: true };
    let line = chain.anchor(&at);
    assert_eq!(audit_key().verifies(&line), Some(true), "{line}");
    let Ok(Entry::Anchor(anchor)) = Entry::parse(&line) else { panic!("{line}") };
    assert_eq!(
        (anchor.host.as_deref(), anchor.records, anchor.is_end),
        (Some("gateway-1"), 3, true)
    );
    assert_eq!((anchor.totals, anchor.last.len()), (chain.totals(), 43));
    let (_, members) = line.split_once(r#","host""#).unwrap();
    let (members, _) = members.split_once(r#","mac""#).unwrap();
    let (records, rest) = members.split_once(r#","last":""#).unwrap();
    assert_eq!(records, r#":"gateway-1","records":3"#);
    assert_eq!(
        rest.get(43..),
        Some(concat!(
            r#"","allow":1,"deny":1,"preflight":0,"public":1,"shadow":0,"tokens":140,"cost":5,"#,
            r#""plan":"p/0","end":true"#
        ))
    );
}

#[test]
fn a_place_in_a_chain_is_whole_or_absent() {
    let line = &trail()[0];
    assert!(Line::parse(line).is_ok());
    for (from, to) in [(r#","prev":"""#, ""), (r#","seq":0"#, ""), (r#""seq":0"#, r#""seq":"0""#)] {
        assert!(Line::parse(&line.replace(from, to)).is_err(), "{from}");
    }
}
