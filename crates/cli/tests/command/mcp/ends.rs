//! The end of a session: no process remains, whichever side ends first.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::Gate;

use super::session::{DEADLINE, Session, await_gone, command, command_for};
use super::{all, statuses};

/// A session, and the processes of its server.
fn with_family(gate: &Gate, options: &[&str]) -> (Session, Vec<u64>) {
    let mut session = Session::start(gate, &gate.mint(&[]), options);
    session.request("family", "family", &json!({}));
    let answer = session.answer();
    let pids = answer["result"].as_array().expect("a list").iter().map(Value::as_u64);
    (session, pids.map(|pid| pid.expect("a number")).collect())
}

#[test]
fn the_end_of_the_server_is_reported() {
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
fn responses_that_come_after_the_end_of_input_are_delivered() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--grace", "100ms"]);
    for (id, seconds) in [(1, 2), (2, 1)] {
        session.request(id, "late", &json!({"seconds": seconds}));
    }
    session.close();
    for id in [2, 1] {
        let answer = session.answer();
        assert!(answer["id"] == id && answer["result"].is_object(), "{answer}");
    }
    let left = session.wait();
    assert_eq!(statuses(&left.ended(0).audit()), all("allow", &[200, 200]));
}

#[test]
fn requests_that_got_no_response_are_reported_after_the_end_of_input() {
    let gate = Gate::new();
    let read = "while read -r line; do :; done";
    let stays = format!("{read}; sleep 1000");
    for (script, code, says) in [
        (read, 502, "the server has ended: exit status: 0; requests without a response: 2"),
        (&stays, 504, "was terminated; requests without a response: 2"),
    ] {
        let options = ["--grace", "100ms", "--timeout", "1s"];
        let vkey = command_for(&gate, &gate.mint(&[]), &options, &["sh", "-c", script]);
        let mut session = Session::spawn(&gate, &vkey);
        session.pump();
        session.request(1, "echo", &json!({}));
        session.request(2, "echo", &json!({}));
        session.close();
        for id in 1..=2 {
            session.refused(id, code);
        }
        session.wait().ended(1).says(says);
    }
}

#[test]
fn a_server_that_will_not_end_is_killed() {
    let gate = Gate::new();
    let (mut session, pids) = with_family(&gate, &["--grace", "200ms"]);
    session.request(1, "stubborn", &json!({}));
    session.answer();
    session.finish().ended(0).says("was terminated");
    pids.into_iter().for_each(await_gone);
}

#[test]
fn a_signal_ends_the_server_too() {
    let gate = Gate::new();
    for (name, number) in [
        ("TERM", 15),
        ("INT", 2),
        ("ALRM", 14),
        ("QUIT", 3),
        ("USR1", 10),
        ("XCPU", 24),
        ("VTALRM", 26),
        ("PROF", 27),
    ] {
        let (mut session, pids) = with_family(&gate, &[]);
        session.request(1, "stubborn", &json!({}));
        session.answer();
        session.request(2, "hold", &json!({}));
        session.signal(name);
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
    session.signal("TERM");
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
fn a_client_that_stops_reading_loses_the_end_which_is_reported() {
    let gate = Gate::new();
    let vkey = command(&gate, &gate.mint(&[]), &["--grace", "200ms", "--timeout", "1s"]);
    let mut session = Session::spawn(&gate, &vkey);
    session.request(1, "hold", &json!({}));
    session.request(2, "fill", &json!({"bytes": 1 << 20}));
    session.await_full_pipe();
    session.close();
    let left = session.wait();
    left.ended(1).says("the client has not read everything that the server wrote");
    // The one that nobody answers any more has its line too.
    assert_eq!(left.audit().len(), 2, "{}", left.err);
}

#[test]
fn a_slow_client_loses_nothing() {
    let gate = Gate::new();
    // Long enough for a server on a machine that does much else.
    let vkey = command(&gate, &gate.mint(&[]), &["--timeout", "4s"]);
    let mut session = Session::spawn(&gate, &vkey);
    session.await_server();
    // More than all pipes hold, while nobody reads: the silence is not the server's.
    for id in 1..=4 {
        session.request(id, "fill", &json!({"bytes": 1 << 20}));
    }
    session.await_full_pipe();
    // Longer than a request may wait.
    std::thread::sleep(std::time::Duration::from_secs(5));
    session.pump();
    for id in 1..=4 {
        // The first byte of the first one is read.
        let line = if id == 1 { [b"{", &*session.line()].concat() } else { session.line() };
        let answer: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(
            (&answer["id"], answer["result"].as_str().map(str::len)),
            (&json!(id), Some(1 << 20))
        );
    }
    session.finish().ended(0);
}

#[test]
fn a_client_that_is_slow_to_read_the_end_loses_nothing() {
    let gate = Gate::new();
    let vkey = command(&gate, &gate.mint(&[]), &["--grace", "100ms"]);
    let mut session = Session::spawn(&gate, &vkey);
    for id in 1..=2 {
        session.request(id, "fill", &json!({"bytes": 1 << 20}));
    }
    session.await_full_pipe();
    session.close();
    // Far longer than the server may take to end.
    std::thread::sleep(std::time::Duration::from_secs(2));
    session.pump();
    let left = session.wait();
    left.ended(0);
    assert!(left.out.len() > 2 << 20 && left.out.ends_with(b"\"}\n"), "{}", left.out.len());
}

#[test]
fn nothing_goes_on_without_its_audit_line() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--audit", "/dev/full"]);
    session.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
    // Standard input stays open.
    let left = session.wait();
    left.ended(3).says("audit");
    assert!(left.record.is_empty(), "the server was told all the same");
}

#[test]
fn the_last_audit_lines_are_missed_too() {
    let gate = Gate::new();
    let mut session = Session::start(&gate, &gate.mint(&[]), &["--audit", "/dev/full"]);
    // Its line is written when the session ends.
    session.request(1, "hold", &json!({}));
    session.finish().ended(3).says("audit");
}

#[test]
fn a_session_ends_although_nobody_reads_standard_error() {
    let gate = Gate::new();
    let noisy = ["sh", "-c", "head -c 300000 /dev/zero >&2 & cat > /dev/null; exit 3"];
    let audit = gate.file("audit.log", "");
    // Far longer than it takes: the server ends by itself.
    let options = ["--grace", "30s", "--audit", &audit];
    let vkey = command_for(&gate, &gate.mint(&[]), &options, &noisy);
    let mut child = vkey.command().spawn().expect("the command starts");
    drop(child.stdin.take());
    let stderr = child.stderr.take();
    let (sender, receiver) = std::sync::mpsc::channel();
    let pid = child.id().to_string();
    std::thread::spawn(move || sender.send(child.wait().expect("it ends")));
    let status = receiver.recv_timeout(DEADLINE).ok();
    if status.is_none() {
        _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
    }
    drop(stderr);
    assert_eq!(status.and_then(|status| status.code()), Some(1));
}

/// As another user than root, who may read everything.
#[test]
#[cfg(target_os = "linux")]
fn processes_of_the_same_user_cannot_read_the_environment() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::fs::MetadataExt as _;

    let gate = Gate::new();
    let vkey = command_for(&gate, &gate.mint(&[]), &[], &["cat"]).command();
    let is_root = std::fs::metadata("/proc/self").expect("linux").uid() == 0;
    let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut words = as_nobody.iter().filter(|_| is_root).map(std::ffi::OsStr::new);
    let mut words: Vec<_> = words.by_ref().collect();
    words.push(vkey.get_program());
    words.extend(vkey.get_args());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.envs(vkey.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/ping\"}\n")
        .expect("it reads");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("text");
    let owner = std::fs::metadata(format!("/proc/{}/environ", child.id())).expect("it runs").uid();
    drop(stdin);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(line.contains("ping"), "the server answers: {line}");
    assert_eq!(owner, 0, "whoever has its user id can read it");
}
