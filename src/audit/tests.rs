//! Tests of writing and reading audit lines.

use super::*;

fn record() -> AuditRecord<'static> {
    AuditRecord {
        ts_micros: 1_790_000_000_123_456,
        host: Some("gateway-1".into()),
        decision: Some(Decision::Deny(DenyReason::Path)),
        sub: Some("Zo\u{eb} \"\u{1f511}\"\n\u{7f}".into()),
        caveats: Some(2),
        path: Some("/v1/x".into()),
        query_keys: vec!["a".into(), "\u{0}".into()],
        status: Some(403),
        ..AuditRecord::default()
    }
}

#[test]
fn a_line_is_one_line_of_ascii_and_reads_back() {
    for decision in [
        None,
        Some(Decision::Allow),
        Some(Decision::Deny(DenyReason::KeyMissing)),
        Some(Decision::Shadow(DenyReason::Host)),
    ] {
        let record = AuditRecord { decision, ..record() };
        let line = record.write(&Mask::default());
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        assert_eq!(AuditRecord::parse(&line).unwrap(), record);
    }
}

#[test]
fn members_keep_their_order() {
    let line = record().write(&Mask::default());
    let Json::Object(members) = Json::parse(line.as_bytes()).unwrap() else { panic!() };
    assert!(members.iter().map(|(name, _)| name.as_str()).eq(MEMBERS));
    assert!(line.starts_with(r#"{"v":1,"ts":"2026-09-21T14:13:20.123456Z","host":"#), "{line}");
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
        upstream: all("leak"),
        ..record()
    };
    let line = record.write(&Mask::new(Mask::MASKABLE.into(), None));
    assert!(!line.contains("leak"), "{line}");
    assert_eq!(line.matches(MASK_VALUE).count(), Mask::MASKABLE.len());
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
fn times_past_the_calendar_do_not_panic() {
    assert!(rfc3339(u64::MAX).starts_with("1970-"));
}

#[test]
fn lines_of_other_versions_are_refused() {
    let line = record().write(&Mask::default()).replace("\"v\":1", "\"v\":2");
    assert_eq!(AuditRecord::parse(&line).unwrap_err().to_string(), "v: expected version 1");
}

/// Writes a line that is too long, cut to `max_bytes`.
fn within(record: AuditRecord<'static>, mask: &Mask, max_bytes: usize) -> String {
    assert!(record.write(mask).len() > max_bytes);
    let line = record.write_within(mask, max_bytes);
    assert!(line.len() <= max_bytes, "{}: {line}", line.len());
    line
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
            assert_eq!(AuditRecord::parse(&line).unwrap().status, Some(403));
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
            let line = within(record, &Mask::default(), 1_536);
            assert!(line.contains(&format!(r#""path":"{MASK_VALUE}""#)), "{line}");
        }
    }
}
