//! The ways out: whoever ends first, no process is left behind.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::Gate;

use super::session::{Session, await_gone, command, command_for};

/// A session, and the processes of its server.
fn with_family(gate: &Gate, options: &[&str]) -> (Session, Vec<u64>) {
    let mut session = Session::start(gate, &gate.mint(&[]), options);
    session.request("family", "family", &json!({}));
    let answer = session.answer();
    let pids = answer["result"].as_array().expect("a list").iter().map(Value::as_u64);
    (session, pids.map(|pid| pid.expect("a number")).collect())
}

#[test]
fn a_server_that_has_gone_is_told_of() {
    let gate = Gate::new();
    for (code, exit) in [(5, 1), (0, 1)] {
        let (mut session, pids) = with_family(&gate, &["--grace", "200ms"]);
        session.request(1, "hold", &json!({}));
        session.request(2, "exit", &json!({"code": code}));
        for id in 1..=2 {
            session.refused(id, 502);
        }
        let left = session.wait();
        left.ended(exit).says(&format!("exit status: {code}"));
        assert_eq!(left.audit().iter().filter(|line| line["status"] == 502).count(), 2);
        pids.into_iter().for_each(await_gone);
    }
}

#[test]
fn a_server_may_fail_after_the_client_is_done() {
    let gate = Gate::new();
    let script =
        "while read -r line; do :; done; echo '{\"jsonrpc\":\"2.0\",\"method\":\"bye\"}'; exit $1";
    for (code, exit) in [("0", 0), ("7", 1)] {
        let vkey = command_for(&gate, &gate.mint(&[]), &[], &["sh", "-c", script, "sh", code]);
        let mut session = Session::spawn(&gate, &vkey);
        session.pump();
        let left = session.finish();
        left.ended(exit);
        assert_eq!(left.out, b"{\"jsonrpc\":\"2.0\",\"method\":\"bye\"}\n");
    }
}

#[test]
fn a_server_that_will_not_end_is_killed() {
    let gate = Gate::new();
    let (mut session, pids) = with_family(&gate, &["--grace", "200ms"]);
    session.request(1, "stubborn", &json!({}));
    session.answer();
    session.finish().ended(0).says("was ended");
    pids.into_iter().for_each(await_gone);
}

#[test]
fn a_signal_ends_the_server_too() {
    let gate = Gate::new();
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let (mut session, pids) = with_family(&gate, &[]);
        session.request(1, "stubborn", &json!({}));
        session.answer();
        session.request(2, "hold", &json!({}));
        let pid = session.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(sent.success());
        let left = session.wait();
        assert_eq!(left.status.signal(), Some(number), "{}", left.err);
        // The request that was open has its line.
        assert_eq!(left.audit().len(), 3, "{}", left.err);
        pids.into_iter().for_each(await_gone);
    }
}

#[test]
fn a_signal_ends_a_session_whose_client_reads_nothing() {
    let gate = Gate::new();
    let vkey = command(&gate, &gate.mint(&[]), &[]);
    let mut session = Session::spawn(&gate, &vkey);
    session.await_server();
    session.request(1, "fill", &json!({"bytes": 1 << 20}));
    session.await_full_pipe();
    let pid = session.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().expect("kill").success());
    let status = session.child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(15));
}

#[test]
fn a_client_that_has_gone_ends_the_session() {
    let gate = Gate::new();
    let vkey = command(&gate, &gate.mint(&[]), &["--grace", "200ms"]);
    let mut session = Session::spawn(&gate, &vkey);
    // Standard input stays open.
    drop(session.child.stdout.take());
    let left = session.wait();
    left.ended(0);
}

#[test]
fn a_slow_client_loses_nothing() {
    let gate = Gate::new();
    let vkey = command(&gate, &gate.mint(&[]), &["--timeout", "1s"]);
    let mut session = Session::spawn(&gate, &vkey);
    session.await_server();
    // More than all pipes hold, while nobody reads: the silence is not the server's.
    for id in 1..=4 {
        session.request(id, "fill", &json!({"bytes": 1 << 20}));
    }
    // Twice as long as a request may wait.
    std::thread::sleep(std::time::Duration::from_secs(2));
    session.pump();
    for id in 1..=4 {
        let answer = session.answer();
        assert_eq!(
            (&answer["id"], answer["result"].as_str().map(str::len)),
            (&json!(id), Some(1 << 20))
        );
    }
    session.finish().ended(0);
}
