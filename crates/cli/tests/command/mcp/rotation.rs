//! The file for audit lines, while others rename it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;

use serde_json::json;

use crate::harness::{Gate, text};

use super::session::{Session, audit_lines, make_pipe, wait_until};

fn lines(path: &str) -> usize {
    audit_lines(&fs::read_to_string(path).unwrap_or_default()).len()
}

fn echo(session: &mut Session, id: u64) {
    session.request(id, "echo", &json!({}));
    assert_eq!(session.answer()["id"], id);
}

#[test]
fn audit_lines_follow_the_name_of_their_file() {
    let gate = Gate::new();
    let at = |name: &str| text(gate.dir.file(name));
    let (audit, old) = (at("audit"), at("audit.1"));
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--audit", &audit]);
    echo(&mut session, 1);
    fs::rename(&audit, &old).expect("ours");
    echo(&mut session, 2);
    assert_eq!((lines(&old), lines(&audit)), (1, 1));
    let mode = fs::metadata(&audit).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::remove_file(&audit).expect("ours");
    echo(&mut session, 3);
    assert_eq!((lines(&old), lines(&audit)), (1, 1));
    // Another one has its name already, as where whoever rotates makes it.
    fs::rename(&audit, &old).expect("ours");
    fs::write(&audit, "").expect("ours");
    echo(&mut session, 4);
    // Emptied where it is.
    fs::write(&audit, "").expect("ours");
    echo(&mut session, 5);
    assert_eq!((lines(&old), lines(&audit)), (1, 1));
    session.finish().ended(0);
}

#[test]
fn sighup_opens_the_file_anew_and_ends_nothing() {
    let gate = Gate::new();
    let at = |name: &str| text(gate.dir.file(name));
    let audit = at("audit");
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--audit", &audit]);
    echo(&mut session, 1);
    fs::rename(&audit, at("audit.1")).expect("ours");
    session.signal("HUP");
    wait_until("the file is there", || fs::metadata(&audit).is_ok());
    echo(&mut session, 2);
    assert_eq!(lines(&audit), 1);
    session.finish().ended(0);
}

/// Nobody reads the pipe that the name leads to now.
#[test]
fn opening_a_file_does_not_delay_signals() {
    let gate = Gate::new();
    let audit = text(gate.dir.file("audit"));
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--audit", &audit]);
    echo(&mut session, 1);
    fs::remove_file(&audit).expect("ours");
    make_pipe(&audit);
    session.signal("HUP");
    session.signal("TERM");
    assert_eq!(session.wait().status.signal(), Some(15));
}

#[test]
fn a_session_waits_for_the_reader_of_a_pipe_and_not_for_ever() {
    let gate = Gate::new();
    let pipe = text(gate.dir.file("pipe"));
    make_pipe(&pipe);
    let key = gate.mint(&[]);
    let unread = Session::start(&gate, &key, &["--audit", &pipe, "--timeout", "200ms"]);
    unread.wait().ended(3).says("nobody has read the audit lines for 200ms");
    let mut session = Session::start(&gate, &key, &["--audit", &pipe]);
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).expect("text"));
    echo(&mut session, 1);
    session.finish().ended(0);
    assert_eq!(reader.join().expect("text").lines().count(), 1);
}

/// There was no room for all of it.
#[test]
fn audit_lines_start_on_a_new_line_after_a_cut_one() {
    let gate = Gate::new();
    for (before, expected) in
        [("", ""), ("whole\n", "whole\n"), ("{\"vkey\":\"2\",\"ts", "{\"vkey\":\"2\",\"ts\n")]
    {
        let audit = gate.file("audit", before);
        let mut session = Session::start(&gate, &gate.mint(&[]), &["--audit", &audit]);
        echo(&mut session, 1);
        session.finish().ended(0);
        let text = fs::read_to_string(&audit).expect("text");
        let added = text.strip_prefix(expected).expect(&text);
        assert!(added.starts_with("{\"vkey\":\"2\",") && added.lines().count() == 1, "{text}");
    }
}

/// The file that may not grow is one that is full.
#[test]
fn a_file_size_limit_does_not_end_the_session() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    echo(&mut session, 1);
    session.signal("XFSZ");
    echo(&mut session, 2);
    session.finish().ended(0);
}

#[test]
fn sighup_does_not_end_a_session_without_a_file() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    echo(&mut session, 1);
    session.signal("HUP");
    echo(&mut session, 2);
    assert_eq!(session.finish().ended(0).audit().len(), 2);
}

#[test]
fn a_link_in_the_place_of_the_file_ends_the_session() {
    let gate = Gate::new();
    let at = |name: &str| text(gate.dir.file(name));
    let (audit, target) = (at("audit"), gate.file("target", "kept\n"));
    for by_signal in [false, true] {
        let mut session = Session::start(&gate, &gate.mint(&[]), &["--audit", &audit]);
        echo(&mut session, 1);
        fs::remove_file(&audit).expect("ours");
        symlink(&target, &audit).expect("a link");
        if by_signal {
            session.signal("HUP");
        } else {
            session.request(2, "echo", &json!({}));
            let error = session.refused(2, 503);
            assert_eq!(error["error"]["data"]["code"], "gate_failed", "{error}");
        }
        session.wait().ended(3).says("--audit is a link");
        assert_eq!(fs::read_to_string(&target).expect("a file"), "kept\n");
        fs::remove_file(&audit).expect("ours");
    }
}
