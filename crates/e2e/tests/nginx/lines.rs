//! The lines of nginx's error log that are audit lines.

use serde::Deserialize as _;
use serde_json::{Deserializer, Value};

/// How an audit line begins, and nothing else does.
const START: &str = "{\"vkey\":";

/// An audit line, and the process that wrote it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) worker: u32,
    pub(crate) audit: Value,
}

impl Line {
    /// Reads `2026/11/28 22:29:27 [info] 17620#17620: *1 [wasm] {"vkey":"2",…} …, client: …`; nothing where
    /// the line is none of ours. One that is cut is an error.
    fn read(line: &str) -> Option<Self> {
        let (before, _) = line.split_once(START)?;
        let worker = before.split_whitespace().nth(3)?.split('#').next()?.parse().ok()?;
        let mut rest = Deserializer::from_str(&line[before.len()..]);
        let audit = Value::deserialize(&mut rest);
        Some(Self { worker, audit: audit.unwrap_or_else(|error| panic!("{error}: {line}")) })
    }
}

/// The audit lines of a log.
pub(crate) fn audit_lines(log: &str) -> Vec<Line> {
    log.lines().filter_map(Line::read).collect()
}

#[test]
fn an_audit_line_is_read_out_of_what_nginx_adds() {
    let suffix = r#" while logging request, client: 127.0.0.1, request: "GET /?a={} HTTP/1.1""#;
    let line = |audit: &str| format!("2026/11/28 22:29:27 [info] 17#17: *1 [wasm] {audit}{suffix}");
    let log = format!(
        "2026/11/28 22:29:27 [notice] 16#16: start worker process 17\n{}\n",
        line(r#"{"vkey":"2","path":"/}"}"#)
    );
    let lines = audit_lines(&log);
    assert_eq!((lines.len(), lines[0].worker), (1, 17));
    assert_eq!(lines[0].audit["path"], "/}");
    let cut = std::panic::catch_unwind(|| audit_lines(&line(r#"{"vkey":"2","path":"/"#)));
    assert!(cut.is_err());
}
