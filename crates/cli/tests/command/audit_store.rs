//! `vkey audit query`, `backup` and `restore`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vkey::audit::{Anchor, Totals};
use vkey_server::store::{Batch, Item, Place, Reader, Record, Retention, Store, TokenCounts};

use crate::harness::{Done, NOW, TempDir, Vkey, text};

const RETENTION: Retention = Retention { max_records: 1_000_000, max_age_secs: None };

/// What could break a statement, a table or a terminal.
const HOSTILE: [&str; 7] = [
    "' OR 1=1 --",
    "\"; DROP TABLE records; --",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "a\nb\r\tc",
    "\u{202e}\u{9b}2J\u{7f}é",
    "%_*?",
    "",
];

fn push(store: &Path, items: impl IntoIterator<Item = Item>) {
    let items = items.into_iter().collect();
    let mut store = Store::open(store, RETENTION).unwrap();
    store.push(&[Batch { items, position: None }]).unwrap();
}

/// A record of a request at `NOW` and some seconds later.
fn record(secs: u64) -> Record {
    Record {
        ts_micros: (NOW.parse::<u64>().unwrap() + secs) * 1_000_000,
        decision: "allow",
        tenant: Some("acme".to_owned()),
        key: Some("k_1".to_owned()),
        method: Some("GET".to_owned()),
        path: Some("/v1/models".to_owned()),
        code: Some(200),
        line: format!("{{\"vkey\":\"2\",\"n\":{secs}}}"),
        ..Record::default()
    }
}

fn item(record: Record) -> Item {
    Item::Record(Box::new(record))
}

/// A record of a chain.
fn linked(chain: &str, seq: u64) -> Item {
    let mac = |seq: u64| format!("m{seq}");
    let prev = seq.checked_sub(1).map(mac).unwrap_or_default();
    let link = Place { chain: chain.to_owned(), seq, prev, mac: mac(seq), host: None };
    item(Record { link: Some(link), ..record(seq) })
}

fn anchor(chain: &str, records: u64) -> Item {
    let anchor = Anchor {
        chain: chain.to_owned(),
        ts_micros: 0,
        host: None,
        records,
        last: format!("m{}", records - 1),
        totals: Totals::default(),
        plan: String::new(),
        is_end: false,
    };
    Item::Anchor(Box::new(anchor), String::new())
}

fn file(dir: &TempDir, name: &str) -> String {
    text(dir.file(name))
}

fn audit(args: &[&str]) -> Vkey {
    Vkey::new(&[&["audit"], args].concat())
}

fn query(store: &str, args: &[&str]) -> Done {
    audit(&[&["query", "--store", store], args].concat()).ok()
}

/// The audit lines of a store, the earliest first.
fn lines(store: &str) -> Vec<String> {
    let done = query(store, &["--lines", "--limit", "1000000"]);
    let mut lines: Vec<String> = done.out.lines().map(str::to_owned).collect();
    lines.reverse();
    lines
}

/// The files of a directory, without locks.
fn names(dir: &TempDir) -> Vec<String> {
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".lock"));
    names.sort();
    names
}

#[track_caller]
fn is_harmless(text: &str) {
    assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text:?}");
}

#[test]
fn records_are_a_table_and_the_latest_is_first() {
    let dir = TempDir::new("query");
    let store = file(&dir, "audit.db");
    let refused = Record {
        decision: "deny",
        reason: Some("key_missing"),
        is_failed: true,
        code: Some(401),
        tenant: None,
        key: None,
        ..record(1)
    };
    let unseen =
        Record { method: None, path: None, code: None, tenant: None, key: None, ..record(2) };
    push(Path::new(&store), [record(0), refused, unseen].map(item));
    let done = query(&store, &[]);
    let expected = "\
time                  status   code  tenant  key  method  path        reason
2026-09-21T14:13:22Z  success  -     -       -    -       -           -
2026-09-21T14:13:21Z  failed   401   -       -    GET     /v1/models  key_missing
2026-09-21T14:13:20Z  success  200   acme    k_1  GET     /v1/models  -
";
    assert_eq!((done.out.as_str(), done.err.as_str()), (expected, ""));
    assert_eq!(query(&store, &["--lines", "--status", "failed"]).out, "{\"vkey\":\"2\",\"n\":1}\n");
    let done = query(&store, &["--limit", "2"]);
    assert_eq!(done.out.lines().count(), 3);
    assert_eq!(done.err, "vkey: there are more records; --limit says how many are printed\n");
    assert_eq!(query(&store, &["--user", "bob"]).out, "no record matches\n");
    let done = query(&store, &["--user", "bob", "--lines"]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("", "vkey: no record matches\n"));
}

#[test]
fn every_option_narrows_the_question() {
    let dir = TempDir::new("query");
    let store = file(&dir, "audit.db");
    let some = |text: &str| Some(text.to_owned());
    let special = Record {
        decision: "deny",
        reason: Some("model"),
        is_failed: true,
        tenant: some("other"),
        key: some("k_2"),
        user: some("bob"),
        model: some("gpt-4o"),
        tool: some("search"),
        method: some("POST"),
        path: some("/v1/chat/completions"),
        code: Some(403),
        request_id: some("r-1"),
        anomaly: some("rate"),
        ..record(1)
    };
    push(Path::new(&store), [record(0), special, record(2)].map(item));
    for args in [
        &["--status", "failed"][..],
        &["--code", "403"],
        &["--tenant", "other"],
        &["--key", "k_2"],
        &["--user", "bob"],
        &["--reason", "model"],
        &["--model", "gpt-4o"],
        &["--tool", "search"],
        &["--method", "POST"],
        &["--path", "/v1/chat/completions"],
        &["--path", "/v1/chat*"],
        &["--request-id", "r-1"],
        &["--anomalies"],
        &["--from", "1790000001", "--to", "1790000002"],
        &["--from", "2026-09-21T16:13:21+02:00", "--to", "2026-09-21T14:13:22Z"],
        &["--tenant", "other", "--key", "k_2", "--code", "403", "--from", "36500d"],
    ] {
        assert_eq!(query(&store, &[args, &["--lines"]].concat()).out, "{\"vkey\":\"2\",\"n\":1}\n");
    }
    assert_eq!(query(&store, &["--status", "success", "--lines"]).out.lines().count(), 2);
    assert_eq!(query(&store, &["--to", "36500d"]).out, "no record matches\n");
    assert_eq!(query(&store, &["--from", "1s", "--to", "0"]).out, "no record matches\n");
}

#[test]
fn totals_are_by_any_of_seven() {
    let dir = TempDir::new("query");
    let store = file(&dir, "audit.db");
    let tokens = Some(TokenCounts { input: 10, output: 5, total: 15 });
    let other = Record { tenant: Some("other".to_owned()), ..record(86_400) };
    let paid = Record { tokens, cost: Some(7), ..record(0) };
    push(Path::new(&store), [record(0), paid, other].map(item));
    let expected = "\
tenant  requests  failed  refused  tokens_in  tokens_out  tokens  micro_usd
acme    2         0       0        10         5           15      7
other   1         0       0        0          0           0       0
";
    assert_eq!(query(&store, &["--usage-by", "tenant"]).out, expected);
    let days = |args: &[&str]| {
        let done = query(&store, &[&["--usage-by", "day"], args].concat());
        done.out.lines().skip(1).map(|line| line[..10].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(days(&[]), ["2026-09-21", "2026-09-22"]);
    assert_eq!(days(&["--to", "2026-09-22T00:00:00Z"]), ["2026-09-21"]);
    assert_eq!(days(&["--from", "2026-09-22T00:00:00Z"]), ["2026-09-22"]);
    assert_eq!(days(&["--tenant", "other", "--limit", "1"]), ["2026-09-22"]);
    for by in ["key", "model", "tool", "reason", "verdict"] {
        assert!(query(&store, &["--usage-by", by]).out.starts_with(by));
    }
    assert_eq!(query(&store, &["--usage-by", "key", "--model", "x"]).out, "no request matches\n");
    audit(&["query", "--store", &store, "--usage-by", "colour"]).refused(2, "--usage-by");
    audit(&["query", "--store", &store, "--usage-by", "key", "--code", "200"]).refused(2, "--code");
}

#[test]
fn hostile_records_and_questions_break_neither_the_statement_nor_the_terminal() {
    let dir = TempDir::new("query");
    let store = file(&dir, "audit.db");
    let huge = "x".repeat(200_000);
    let all = || HOSTILE.into_iter().chain([huge.as_str()]);
    let hostile = all().enumerate().map(|(number, value)| {
        let value = || Some(value.to_owned());
        Record {
            user: value(),
            model: value(),
            tool: value(),
            method: value(),
            path: value(),
            request_id: value(),
            line: format!("{{\"n\":{number},\"text\":\"{}\"}}", value().unwrap_or_default()),
            ..record(number as u64)
        }
    });
    push(Path::new(&store), hostile.map(item));
    let table = query(&store, &[]).out;
    is_harmless(&table);
    assert_eq!(table.lines().count(), 1 + all().count());
    assert!(table.lines().all(|line| line.len() < 2000), "long values are cut");
    is_harmless(&query(&store, &["--usage-by", "model"]).out);
    let lines = query(&store, &["--lines"]).out;
    is_harmless(&lines);
    assert_eq!(lines.lines().count(), all().count());
    for (number, value) in all().enumerate().filter(|(_, value)| !value.ends_with('*')) {
        // No argument of a process is that long.
        let value = value.get(..100_000).unwrap_or(value);
        for option in ["--user", "--model", "--tool", "--method", "--path", "--request-id"] {
            let done = query(&store, &["--lines", option, value]);
            let expected = if value.len() < 100_000 { 1 } else { 0 };
            assert_eq!(done.out.lines().count(), expected, "{option} {value:?}: {}", done.err);
            assert!(expected == 0 || done.out.starts_with(&format!("{{\"n\":{number},")));
        }
        assert_eq!(query(&store, &["--reason", value]).out, "no record matches\n");
    }
}

#[test]
fn more_records_than_a_page_are_printed_once_each() {
    let dir = TempDir::new("query");
    let store = file(&dir, "audit.db");
    // Many at one time, so that a page ends among them.
    push(
        Path::new(&store),
        (0..2500).map(|number| {
            let line = format!("{{\"n\":{number}}}");
            item(Record { line, ..record(number / 700) })
        }),
    );
    let expected: Vec<String> = (0..2500).map(|number| format!("{{\"n\":{number}}}")).collect();
    assert_eq!(lines(&store), expected);
    for (limit, notes) in [("2499", 1), ("2500", 0), ("18446744073709551615", 0)] {
        let done = query(&store, &["--limit", limit]);
        let expected = limit.parse().unwrap_or(0).min(2500);
        assert_eq!(done.out.lines().count(), 1 + expected, "{limit}");
        assert_eq!(done.err.lines().count(), notes, "{limit}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let dir = TempDir::new("query");
    let store = file(&dir, "audit.db");
    push(Path::new(&store), (0..5000).map(|number| item(record(number))));
    let query = audit(&["query", "--store", &store, "--limit", "5000"]);
    let mut child = query.command().stdin(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn what_is_no_store_is_refused_by_every_command() {
    let dir = TempDir::new("store");
    fs::write(dir.file("text"), "x".repeat(5000)).unwrap();
    fs::write(dir.file("empty"), "").unwrap();
    push(&dir.file("damaged"), (0..200).map(|number| item(record(number))));
    push(&dir.file("newer"), [item(record(0))]);
    push(&dir.file("good"), [item(record(0))]);
    let damaged = fs::read(dir.file("damaged")).unwrap();
    fs::write(dir.file("damaged"), &damaged[..8192]).unwrap();
    // The version of the schema is at byte 60 of the file (www.sqlite.org/fileformat.html).
    let mut newer = fs::read(dir.file("newer")).unwrap();
    newer[63] = 99;
    fs::write(dir.file("newer"), newer).unwrap();
    let before = names(&dir);
    let directory = text(dir.path().to_owned());
    let (good, new) = (file(&dir, "good"), file(&dir, "new"));
    for (name, code, says) in [
        ("text", 1, "the file is not a store of vkey"),
        ("empty", 1, "the file is not a store of vkey"),
        ("damaged", 1, "the store is damaged"),
        ("newer", 1, "the store was written by a later version of vkey"),
        ("missing-vk1.main-0.e30.AAAA", 3, "cannot be used: No such file or directory"),
        (directory.as_str(), 3, "cannot be used: is a directory"),
    ] {
        let bad = file(&dir, name);
        let runs = [
            audit(&["query", "--store", &bad]),
            audit(&["backup", "--store", &bad, &new]),
            audit(&["restore", &bad, "--store", &good]),
            audit(&["restore", &good, "--store", &new, "--copy", &bad]),
        ];
        for run in runs {
            let done = run.refused(code, says);
            is_harmless(&done.err);
            assert!(!done.err.contains("vk1."), "{}", done.err);
        }
        assert_eq!(names(&dir), before, "{name}");
    }
    audit(&["query"]).refused(2, "--store");
    audit(&["backup", "--store", &good]).refused(2, "<TO>");
    audit(&["restore", "--store", &good]).refused(2, "<FROM>");
    for (option, wrong) in [
        ("--limit", "0"),
        ("--limit", "18446744073709551616"),
        ("--code", "1000"),
        ("--from", "yesterday"),
        ("--to", "253402300800"),
        ("--status", "denied"),
        ("--tenant", "a b"),
    ] {
        audit(&["query", "--store", &good, option, wrong]).refused(2, option);
    }
}

#[test]
fn a_backup_is_a_private_file_that_replaces_nothing() {
    let dir = TempDir::new("backup");
    let [store, to] = ["audit.db", "backup.db"].map(|name| file(&dir, name));
    push(Path::new(&store), (0..3).map(|seq| linked("c", seq)));
    let done = audit(&["backup", "--store", &store, &to]).ok();
    assert_eq!(
        (done.out.as_str(), done.err.as_str()),
        ("", "vkey: the backup holds 3 records of 1 chain\n")
    );
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(lines(&to), lines(&store));
    for (to, says) in [
        (&to, "the new file is there already; a backup replaces nothing"),
        (&store, "the new file is there already"),
        (&file(&dir, "missing/b"), "the new file cannot be used: entity not found; check the path"),
    ] {
        audit(&["backup", "--store", &store, to]).refused(3, says);
    }
    assert_eq!(names(&dir), ["audit.db", "backup.db"]);
}

/// The command cannot write more than 64 KiB into a file, as on a full disk.
#[test]
fn a_disk_without_room_leaves_the_store_and_no_half_of_a_backup() {
    let dir = TempDir::new("backup");
    let [store, good, to] = ["audit.db", "good", "backup.db"].map(|name| file(&dir, name));
    push(Path::new(&store), (0..1000).map(|seq| linked("c", seq)));
    audit(&["backup", "--store", &store, &good]).ok();
    let before = lines(&store);
    for args in [["backup", "--store", &store, &to], ["restore", "--store", &store, &good]] {
        let mut shell = Command::new("sh");
        let script = r#"trap '' XFSZ; ulimit -f 128; exec "$0" audit "$@""#;
        shell.args(["-c", script, env!("CARGO_BIN_EXE_vkey")]).args(args);
        let output = shell.output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{err}");
        assert!(err.contains("the store reports: "), "{err}");
        assert_eq!(names(&dir), ["audit.db", "good"]);
    }
    assert_eq!(lines(&store), before);
}

#[test]
fn a_restore_says_which_copy_has_seen_an_anchor_for_more() {
    let dir = TempDir::new("restore");
    let [store, backup, other] = ["audit.db", "backup.db", "other.db"].map(|name| file(&dir, name));
    push(Path::new(&store), (0..3).map(|seq| linked("c", seq)));
    audit(&["backup", "--store", &store, &backup]).ok();
    push(Path::new(&store), [linked("c", 3), anchor("c", 4)]);
    push(Path::new(&other), [anchor("d\u{1b}", 2), linked("e", 0)]);
    let before = lines(&store);
    let done = audit(&["restore", &backup, "--store", &store, "--copy", &other]).run();
    let expected = format!(
        "vkey: nothing was restored: the backup is behind another copy\n\
         vkey: chain c: the store has seen an anchor for 4 records, and the backup lacks 1 of them; the first is record 3\n\
         vkey: chain \"d\\u001b\": {other} has seen an anchor for 2 records, and the backup lacks 2 of them; the first is \
         record 0\n"
    );
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (1, "", expected.as_str()));
    assert_eq!(lines(&store), before);
    assert_eq!(names(&dir), ["audit.db", "backup.db", "other.db"]);
    // Without the store, it is restored.
    fs::rename(&store, dir.file("moved")).unwrap();
    let done = audit(&["restore", &backup, "--store", &store]).ok();
    assert_eq!(done.err, "vkey: the store holds 3 records of 1 chain again\n");
    assert_eq!(lines(&store), before[..3]);
}

#[test]
fn a_restore_waits_for_no_collector() {
    let dir = TempDir::new("restore");
    let [store, backup] = ["audit.db", "backup.db"].map(|name| file(&dir, name));
    push(Path::new(&store), [linked("c", 0)]);
    audit(&["backup", "--store", &store, &backup]).ok();
    let args = ["restore", &backup, "--store", &store];
    let open = Store::open(Path::new(&store), RETENTION).unwrap();
    let says = "another `vkey serve` has the store: ";
    audit(&args).refused(3, says);
    drop(open);
    audit(&["restore", &store, "--store", &store]).refused(2, "are one file");
    fs::rename(&store, dir.file("moved")).unwrap();
    fs::write(dir.file("audit.db-wal"), "").unwrap();
    audit(&args).refused(3, "audit.db-wal is there, and belongs to another store");
    fs::write(&store, "damaged").unwrap();
    audit(&args)
        .refused(1, "the file is not a store of vkey; which anchors it has seen is not known");
    fs::remove_file(&store).unwrap();
    fs::remove_file(dir.file("audit.db-wal")).unwrap();
    audit(&args).ok();
}

/// The part of a store that a command is writing.
fn part(dir: &TempDir) -> Option<PathBuf> {
    names(dir).into_iter().find(|name| name.ends_with(".part")).map(|name| dir.file(&name))
}

#[test]
fn whoever_kills_a_command_finds_a_whole_store() {
    let dir = TempDir::new("restore");
    let [store, backup, to] = ["audit.db", "backup.db", "to.db"].map(|name| file(&dir, name));
    push(Path::new(&store), (0..3000).map(|seq| linked("c", seq)));
    audit(&["backup", "--store", &store, &backup]).ok();
    push(Path::new(&store), (3000..3100).map(|seq| linked("c", seq)));
    let (old, new) = (lines(&store), lines(&backup));
    for round in 0..6 {
        let args = match round % 2 {
            0 => ["backup", "--store", &store, &to],
            _ => ["restore", &backup, "--store", &store],
        };
        let mut child = audit(&args).command().spawn().unwrap();
        while part(&dir).is_none() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let found = lines(&store);
        assert!(found == old || found == new, "{} records", found.len());
        let is_whole = |path: &str| Reader::open(Path::new(path)).is_ok() && lines(path) == found;
        assert!(!Path::new(&to).exists() || is_whole(&to), "a backup is whole or not there");
        while let Some(part) = part(&dir) {
            assert!(part.to_string_lossy().contains(".db."));
            fs::remove_file(part).unwrap();
        }
        let _ = fs::remove_file(&to);
    }
    audit(&["restore", &backup, "--store", &store]).ok();
    assert_eq!(lines(&store), new);
}
