//! `vkey audit verify`.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use vkey::audit::{AnchorContext, AuditKey, AuditRecord, Chain, Line, Mask, Outcome};
use vkey::decision::Decision;
use vkey::key::keyring::Secret;

use crate::harness::{TempDir, Vkey, text};

const SECRET: &str = "Audited-1-by-the-command-2";

/// The lines of a chain of four records, and the anchor that closes it.
fn trail(secret: &str) -> Vec<String> {
    let mut chain = Chain::new(AuditKey::new(&Secret::parse(secret).unwrap()), &[b"seed"]);
    let mut lines: Vec<String> = (0..4)
        .map(|number| {
            let record = AuditRecord {
                ts_micros: 1_790_000_000_000_000 + number,
                host: Some("gateway-1".into()),
                decision: Some(Decision::Allow),
                ..AuditRecord::default()
            };
            let mut text = record.write(&Mask::default());
            chain.link(&mut text, record.amounts());
            Line::splice(&text, &Outcome::default(), &Mask::default())
        })
        .collect();
    let host_members = r#","host":"gateway-1""#;
    lines.push(chain.anchor(&AnchorContext {
        ts_micros: 0,
        host_members,
        plan: "p",
        is_end: true,
    }));
    lines
}

fn verify(log: &str, more: &[&str]) -> Vkey {
    Vkey::new(&[&["audit", "verify", log], more].concat()).env("VKEY_AUDIT_SECRET", SECRET)
}

fn file(dir: &TempDir, name: &str, lines: &[String]) -> String {
    let path = dir.file(name);
    std::fs::write(&path, lines.join("\n")).unwrap();
    text(path)
}

fn chain_id() -> String {
    let line = Line::parse(&trail(SECRET)[0]).unwrap();
    line.record.unwrap().link.unwrap().chain.into_owned()
}

#[test]
fn a_whole_trail_verifies_in_one_log_or_in_several() {
    let (dir, lines) = (TempDir::new("audit"), trail(SECRET));
    let (one, first, rest) = (
        file(&dir, "one", &lines),
        file(&dir, "first", &lines[..2]),
        file(&dir, "rest", &lines[2..]),
    );
    let expected = format!(
        "chain {} of gateway-1: records 0 to 3, 2026-09-21T14:13:20Z to 2026-09-21T14:13:20Z; \
         closed by an anchor\nverified 4 records and 1 anchor\n",
        chain_id()
    );
    assert_eq!(verify(&one, &[]).ok().out, expected);
    assert_eq!(verify(&rest, &[&first]).ok().out, expected);
    assert_eq!(verify("-", &[]).stdin(lines.join("\n")).ok().out, expected);
    let open = verify(&first, &[]).ok().out;
    assert!(open.contains("open: whether later records are missing cannot be known; no anchor"));
}

#[test]
fn what_is_wrong_is_named_and_is_a_failure() {
    let (dir, mut lines) = (TempDir::new("audit"), trail(SECRET));
    lines.remove(1);
    lines.push(lines[0].clone());
    let log = file(&dir, "log", &lines);
    let done = verify(&log, &[]).run();
    assert_eq!(done.code, 1);
    let id = chain_id();
    assert!(done.out.contains(&format!("log:5: record 0 of chain {id} is there already\n")));
    assert!(done.out.contains(&format!("record 1 of chain {id} is missing\n")), "{}", done.out);
    let done = verify(&log, &["--json"]).run();
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done.code, &report["verified"]), (1, &json!(4)));
    let chain = &report["chains"][0];
    assert_eq!((&chain["records"], &chain["allow"]), (&json!(4), &json!(3)), "one is missing");
    let kinds = report["findings"].as_array().unwrap().iter().map(|finding| &finding["kind"]);
    assert!(kinds.eq(["doubled", "missing"].map(Value::from).iter()), "{report:#}");
    assert_eq!(
        (&report["findings"][0]["line"], &report["findings"][1]["first"]),
        (&json!(5), &json!(1))
    );
}

#[test]
fn earlier_secrets_are_tried_too() {
    let other = "Earlier-1-than-the-other-2";
    let (dir, lines) = (TempDir::new("audit"), [trail(SECRET), trail(other)].concat());
    let log = file(&dir, "log", &lines);
    let key_file = file(&dir, "secret", &[other.to_owned()]);
    assert_eq!(verify(&log, &[]).run().code, 1);
    let both = ["--secret-env", "VKEY_AUDIT_SECRET", "--secret-file", &key_file];
    assert!(verify(&log, &both).ok().out.contains("verified 8 records and 2 anchors"));
    let only = verify(&log, &["--secret-file", &key_file]).run();
    assert_eq!(only.code, 1, "--secret-file takes the place of the variable");
}

#[test]
fn a_log_without_a_chain_is_undecided() {
    let (dir, record) = (TempDir::new("audit"), AuditRecord::default());
    let unchained = Line { record: Some(record), ..Line::default() }.write(&Mask::default());
    let unseen = Line::default().write(&Mask::default());
    let long = "x".repeat(2 << 20);
    let log = file(&dir, "log", &[unchained, unseen, long, "GET /v1 200".to_owned()]);
    let done = verify(&log, &[]).run();
    assert_eq!((done.code, &*done.out), (4, "verified 0 records and 0 anchors\n"));
    for note in [
        "1 record without a place in a chain",
        "1 line of requests that no gate saw",
        "1 line skipped: longer than 1 MiB",
        "is audit.secret set in the gate?",
    ] {
        assert!(done.err.contains(note), "{}", done.err);
    }
}

#[test]
fn bad_input_has_a_clear_error() {
    let dir = TempDir::new("audit");
    let log = file(&dir, "log", &trail(SECRET));
    verify(&text(dir.file("none")), &[]).refused(3, "log 1 cannot be read: No such file");
    verify(&log, &[&text(dir.file("."))]).refused(3, "log 2 cannot be read: Is a directory");
    let gzip = dir.file("gzip");
    std::fs::write(&gzip, b"\x1f\x8b garbage").unwrap();
    verify(&text(gzip), &[]).refused(3, "log 1 cannot be read: ");
    let unset = Vkey::new(&["audit", "verify", &log]);
    unset.refused(3, "environment variable VKEY_AUDIT_SECRET is not set; export it");
    let short = Vkey::new(&["audit", "verify", &log]).env("VKEY_AUDIT_SECRET", "short");
    short.refused(1, "the secret is too short");
    verify("-", &["--secret-file", "-"]).refused(2, "two inputs cannot both be read");
    Vkey::new(&["audit", "verify"]).refused(2, "<FILE>");
}

/// Neither the name of a log nor the text of a line can control the terminal.
#[test]
fn nothing_that_is_printed_controls_the_terminal() {
    let dir = TempDir::new("audit");
    let lines = ["{\"vkey\":\"2\",\"\u{1b}[2J\":1}".to_owned()];
    let log = file(&dir, "l\u{1b}[2Jg", &lines);
    for more in [&[][..], &["--json"]] {
        let done = verify(&log, more).run();
        assert_eq!(done.code, 1);
        assert!(done.out.bytes().all(|byte| byte == b'\n' || byte >= b' '), "{:?}", done.out);
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let dir = TempDir::new("audit");
    let log = file(&dir, "log", &trail(SECRET));
    let mut child = verify("-", &[&log]).command();
    let mut child: std::process::Child = child.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
