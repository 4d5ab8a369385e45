//! The file for audit lines, while others rename it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use serde_json::json;

use crate::harness::{Gate, text};

use super::session::{Session, audit_lines, wait_until};

fn lines(path: &str) -> usize {
    audit_lines(&fs::read_to_string(path).unwrap_or_default()).len()
}

fn echo(session: &mut Session, id: u64) {
    session.request(id, "echo", &json!({}));
    assert_eq!(session.answer()["id"], id);
}

fn hang_up(session: &Session) {
    let pid = session.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "HUP", &pid]).status().expect("kill").success());
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
    hang_up(&session);
    wait_until("the file is there", || fs::metadata(&audit).is_ok());
    echo(&mut session, 2);
    assert_eq!(lines(&audit), 1);
    session.finish().ended(0);
}

#[test]
fn sighup_ends_no_session_without_a_file_either() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &[]);
    echo(&mut session, 1);
    hang_up(&session);
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
            hang_up(&session);
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
