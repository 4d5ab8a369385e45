//! Every edit of a trail shows.

use proptest::prelude::*;
use vkey::audit::{AnchorContext, Line, Mask, Outcome};
use vkey::audit::{Chain as Writer, Tokens};
use vkey::decision::{Decision, DenyReason};
use vkey::key::keyring::Secret;

use super::*;

fn key(text: &str) -> AuditKey {
    AuditKey::new(&Secret::parse(text).unwrap())
}

fn keys() -> Vec<AuditKey> {
    vec![key("Old-audit-secret-1-of-tests"), key("New-audit-secret-2-of-tests")]
}

/// The lines of a chain, with an anchor after every fourth record and, if it is closed, one at the end.
fn chain(seed: &str, records: u64, is_closed: bool) -> Vec<String> {
    let mut writer = Writer::new(keys()[usize::from(seed == "b")].clone(), &[seed.as_bytes()]);
    let mut lines = Vec::new();
    let anchor = |writer: &Writer, is_end| {
        let host_members = r#","host":"gateway-1""#;
        writer.anchor(&AnchorContext { ts_micros: 9_000_000, host_members, plan: "p", is_end })
    };
    for number in 0..records {
        let denied = number % 3 == 0;
        let decision = if denied { Decision::Deny(DenyReason::Path) } else { Decision::Allow };
        let record = AuditRecord {
            ts_micros: 1_000_000 + number,
            decision: Some(decision),
            path: Some(format!("/v1/{number}").into()),
            tokens: None::<Tokens>,
            ..AuditRecord::default()
        };
        let mut text = record.write(&Mask::default());
        writer.link(&mut text, record.amounts());
        lines.push(Line::splice(&text, &Outcome::default(), &Mask::default()));
        if writer.len().is_multiple_of(4) {
            lines.push(anchor(&writer, false));
        }
    }
    if is_closed {
        lines.push(anchor(&writer, true));
    }
    lines
}

fn verify(logs: &[&[String]]) -> Report {
    let mut trail = Trail::new(keys());
    for (number, log) in logs.iter().enumerate() {
        trail.begin_log();
        let name = Rc::from(format!("log{number}"));
        for (line, text) in (1..).zip(*log) {
            trail.push(Place::new(&name, line), text);
        }
    }
    trail.finish()
}

/// What is found, in words, without the ids of chains.
fn found(logs: &[&[String]]) -> Vec<String> {
    let report = verify(logs);
    let ids = Vec::from_iter(report.chains.iter().map(|chain| format!(" of chain {}", chain.id)));
    let text = |finding: &Finding| {
        ids.iter().fold(finding.to_string(), |text, id| text.replace(id.as_str(), ""))
    };
    report.findings.iter().map(text).collect()
}

#[test]
fn whole_chains_verify_in_whatever_order_their_logs_come() {
    let (a, b) = (chain("a", 10, true), chain("b", 7, false));
    let mixed: Vec<String> = a.iter().zip(&b).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    let rest = &a[b.len()..];
    for logs in [[&*mixed, rest], [rest, &*mixed]] {
        let report = verify(&logs);
        assert_eq!(report.findings, []);
        assert_eq!((report.verified, report.anchors, report.chains.len()), (17, 4, 2));
        let by_len = |records| report.chains.iter().find(|chain| chain.records == records).unwrap();
        assert!(by_len(10).is_closed);
        assert!(!by_len(7).is_closed, "records after the last one cannot be missed");
        assert_eq!((by_len(7).anchored, by_len(7).totals.deny), (Some(4), 3));
        assert_eq!(by_len(10).times, Some((1_000_000, 1_000_009)));
        assert_eq!(by_len(10).host.as_deref(), Some("gateway-1"));
    }
}

#[test]
fn each_kind_of_edit_is_named() {
    let whole = chain("a", 6, true);
    let edited = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut lines = whole.clone();
        edit(&mut lines);
        found(&[&lines])
    };
    assert_eq!(edited(&|_| ()), [""; 0]);
    assert_eq!(edited(&|lines| drop(lines.remove(2))), ["record 2 is missing"]);
    assert_eq!(edited(&|lines| drop(lines.drain(..2))), ["records 0 to 1 are missing"]);
    assert_eq!(
        edited(&|lines| lines.insert(3, lines[1].clone())),
        ["log0:4: record 1 is there already"]
    );
    assert_eq!(edited(&|lines| lines.swap(1, 2)), ["log0:3: record 1 stands after a later record"]);
    let changed =
        "the MAC does not match: the line was changed, or the audit secret is another one";
    assert_eq!(
        edited(&|lines| lines[1] = lines[1].replace("/v1/1", "/v1/2")),
        [format!("log0:2: {changed}"), "record 1 is missing".to_owned()]
    );
    assert_eq!(
        edited(&|lines| lines[4] = lines[4].replace(r#""records":4"#, r#""records":5"#)),
        [format!("log0:5: {changed}")]
    );
    // Line 8 is the last anchor.
    assert_eq!(
        edited(&|lines| drop(lines.drain(5..7))),
        ["log0:6: the anchor counts records 4 to 5, missing at the end"]
    );
    let cut = edited(&|lines| lines.truncate(3));
    assert_eq!(cut, [""; 0], "what nothing counts cannot be missed");
    let unreadable = edited(&|lines| lines[0].truncate(40));
    assert!(unreadable[0].starts_with("log0:1: no audit line can be read: "), "{unreadable:?}");
    assert_eq!(unreadable[1], "record 0 is missing");
}

/// The end of a chain is where its last record is, not where an anchor once said.
#[test]
fn a_chain_that_goes_on_after_its_end_is_open() {
    let (four, five) = (chain("a", 4, true), chain("a", 5, false));
    let goes_on = [&four[..], &five[5..]].concat();
    let report = verify(&[&goes_on]);
    assert_eq!((report.findings, report.verified), (vec![], 5));
    assert!(!report.chains[0].is_closed);
    assert!(verify(&[&four]).chains[0].is_closed);
}

#[test]
fn lines_that_others_read_as_records_are_not_passed_over() {
    let whole = chain("a", 2, true);
    for forged in [
        whole[0].replacen('{', "{ ", 1),
        whole[0].replacen(r#"{"vkey":"#, r#"{"vkey": "#, 1),
        [&*whole[0], &whole[1]].concat(),
        whole[0].replacen(r#"","start""#, r#"","mac":"x","start""#, 1),
    ] {
        let lines = [whole.clone(), vec![forged.clone()]].concat();
        let kinds = verify(&[&lines]).findings;
        assert!(
            matches!(&*kinds, [Finding::Changed(_) | Finding::Unreadable(..)]),
            "{forged} {kinds:?}"
        );
    }
}

/// Such records need the secret, and a gate does not write them.
#[test]
fn records_of_two_chains_with_one_id_do_not_follow_each_other() {
    let (a, mut other) = (chain("a", 3, false), Vec::new());
    let mut writer = Writer::new(keys()[0].clone(), &[b"a"]);
    for _ in 0..4 {
        let record = AuditRecord { decision: Some(Decision::Public), ..AuditRecord::default() };
        let mut text = record.write(&Mask::default());
        writer.link(&mut text, record.amounts());
        other.push(Line::splice(&text, &Outcome::default(), &Mask::default()));
    }
    other.push(writer.anchor(&AnchorContext {
        ts_micros: 0,
        host_members: r#","host":null"#,
        plan: "",
        is_end: true,
    }));
    let lines = [&a[..], &other[3..]].concat();
    assert_eq!(
        found(&[&lines]),
        [
            "log0:4: record 3 does not follow the record before it",
            "log0:5: the anchor does not agree with records 0 to 3",
        ]
    );
}

#[test]
fn lines_without_a_place_in_a_chain_are_counted() {
    let record = AuditRecord { decision: Some(Decision::Allow), ..AuditRecord::default() };
    let unchained = Line { record: Some(record), ..Line::default() }.write(&Mask::default());
    let unseen = Line::default().write(&Mask::default());
    let report = verify(&[&[unchained, unseen]]);
    assert_eq!((report.unchained, report.unseen, report.is_empty()), (1, 1, true));
    let mut trail = Trail::new(vec![key("Other-audit-secret-3-of-tests")]);
    trail.push(Place::new(&"log".into(), 1), &chain("a", 1, false)[0]);
    assert!(matches!(&*trail.finish().findings, [Finding::Changed(_)]));
}

#[test]
fn the_memory_for_findings_is_bounded() {
    let lines = vec![r#"{"vkey":"2""#.to_owned(); MAX_FINDINGS + 5];
    let report = verify(&[&lines]);
    assert_eq!((report.findings.len(), report.more_findings), (MAX_FINDINGS, 5));
}

proptest! {
    /// Any edit of a closed trail shows, wherever it is made.
    #[test]
    fn any_edit_of_a_closed_trail_is_found(
        at in 0_usize..1000,
        other in 0_usize..1000,
        byte in 0_usize..4000,
        edit in 0..5,
    ) {
        let mut lines = chain("a", 9, true);
        let records = Vec::from_iter((0..lines.len()).filter(|at| lines[*at].contains("chain")));
        let (at, other) = (records[at % records.len()], records[other % records.len()]);
        match edit {
            0 => drop(lines.remove(at)),
            1 => lines.insert(other, lines[at].clone()),
            2 => {
                prop_assume!(at != other);
                lines.swap(at, other);
            }
            3 => {
                let record = lines[at].find(r#","start":"#).unwrap();
                let byte = 10 + byte % (record - 11);
                let replaced = if lines[at].as_bytes()[byte] == b'0' { "1" } else { "0" };
                lines[at].replace_range(byte..=byte, replaced);
            }
            _ => drop(lines.drain(..=at)),
        }
        prop_assert!(!verify(&[&lines]).is_good(), "{lines:#?}");
    }
}
