//! A client of `vkey mcp` with the scripted server. Nothing here waits without a deadline.
#![allow(clippy::disallowed_methods, reason = "a deadline on a real process needs a real clock")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Gate, NOW, Vkey, text};

/// Far longer than anything here takes, on a machine that does much else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/mcp/server.py");

/// A running `vkey mcp`.
pub(crate) struct Session {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
    err: Option<JoinHandle<String>>,
    record: PathBuf,
}

/// What a session has left behind.
pub(crate) struct Left {
    pub(crate) status: ExitStatus,
    /// What was written to standard output since it was last looked at.
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
    /// All that the server has read.
    pub(crate) record: Vec<u8>,
}

/// The command with a key and options, in front of the scripted server.
pub(crate) fn command(gate: &Gate, key: &str, options: &[&str]) -> Vkey {
    let record = text(gate.dir.file("record"));
    command_for(gate, key, options, &["python3", SERVER, &record])
}

/// The same in front of any server.
pub(crate) fn command_for(gate: &Gate, key: &str, options: &[&str], server: &[&str]) -> Vkey {
    let config = text(gate.dir.file("config.json"));
    let fixed = ["mcp", "--config", &config, "--key-env", "KEY", "--now", NOW];
    let path = std::env::var_os("PATH").expect("a path").into_string().expect("text");
    let vkey = Vkey::new(&[&fixed, options, &["--"], server].concat());
    let vkey = vkey.env("MAIN", &gate.secret).env("KEY", key).env("PROVIDER", "provided");
    vkey.env("PATH", &path).env("OWN", "mine")
}

impl Session {
    pub(crate) fn start(gate: &Gate, key: &str, options: &[&str]) -> Self {
        let mut session = Self::spawn(gate, &command(gate, key, options));
        session.pump();
        session
    }

    /// A session whose standard output nobody reads yet.
    pub(crate) fn spawn(gate: &Gate, vkey: &Vkey) -> Self {
        let mut session = Self::unread(gate, vkey);
        let mut err = session.child.stderr.take().expect("a pipe");
        session.err = Some(thread::spawn(move || {
            let mut bytes = Vec::new();
            err.read_to_end(&mut bytes).expect("it can be read");
            String::from_utf8(bytes).expect("text")
        }));
        session
    }

    /// A session of which nobody reads anything yet.
    pub(crate) fn unread(gate: &Gate, vkey: &Vkey) -> Self {
        let mut child = vkey.command().spawn().expect("the command starts");
        let (stdin, lines) = (child.stdin.take(), channel().1);
        Self { child, stdin, lines, err: None, record: gate.dir.file("record") }
    }

    /// Reads standard output from now on.
    pub(crate) fn pump(&mut self) {
        let mut out = BufReader::new(self.child.stdout.take().expect("a pipe"));
        let (sender, receiver) = channel();
        self.lines = receiver;
        thread::spawn(move || {
            let mut line = Vec::new();
            while out.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(bytes.as_ref()).expect("it reads");
    }

    pub(crate) fn request(&mut self, id: impl Into<Value>, method: &str, params: &Value) {
        let id: Value = id.into();
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(format!("{line}\n"));
    }

    /// Waits until the server reads, which may take longer than a request may wait.
    #[track_caller]
    pub(crate) fn await_server(&mut self) {
        self.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
        let end = Instant::now() + DEADLINE;
        while fs::read(&self.record).unwrap_or_default().is_empty() {
            assert!(Instant::now() < end, "the server does not start");
            sleep(Duration::from_millis(5));
        }
    }

    /// Waits until something is in standard output's pipe, which then is as good as full: what is
    /// behind it is longer than any pipe.
    #[track_caller]
    pub(crate) fn await_full_pipe(&mut self) {
        let mut out = self.child.stdout.take().expect("a pipe");
        out.read_exact(&mut [0]).expect("a byte");
        self.child.stdout = Some(out);
    }

    #[track_caller]
    pub(crate) fn line(&mut self) -> Vec<u8> {
        self.lines.recv_timeout(DEADLINE).expect("a line in time")
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Value {
        let line = self.line();
        serde_json::from_slice(&line)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&line)))
    }

    /// The next answer, or none if the command ends without one.
    #[track_caller]
    pub(crate) fn answer_if_any(&mut self) -> Option<Value> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(serde_json::from_slice(&line).expect("JSON")),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("neither a line nor the end in time"),
        }
    }

    /// The next answer is an error of that id and code.
    #[track_caller]
    pub(crate) fn refused(&mut self, id: impl Into<Value>, code: i64) -> Value {
        let (answer, id): (_, Value) = (self.answer(), id.into());
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &id), "{answer}");
        assert_eq!(answer["error"]["code"], json!(code), "{answer}");
        assert!(answer["error"]["message"].is_string() && answer.get("result").is_none());
        answer
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(sent.success(), "{name}");
    }

    /// Closes standard input.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }

    /// Closes standard input and waits for the end.
    pub(crate) fn finish(mut self) -> Left {
        self.close();
        self.wait()
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Left {
        let end = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            assert!(Instant::now() < end, "it does not end");
            sleep(Duration::from_millis(5));
        };
        let mut out = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => out.extend(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("somebody holds standard output"),
            }
        }
        let err =
            self.err.take().map(|err| err.join().expect("it can be read")).unwrap_or_default();
        assert!(!err.contains("panicked"), "{err}");
        Left { status, out, err, record: fs::read(&self.record).unwrap_or_default() }
    }
}

impl Drop for Session {
    /// A test that fails leaves no server behind either.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let end = Instant::now() + Duration::from_secs(5);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
                sleep(Duration::from_millis(5));
            }
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Left {
    /// The audit lines on standard error.
    pub(crate) fn audit(&self) -> Vec<Value> {
        audit_lines(&self.err)
    }

    #[track_caller]
    pub(crate) fn ended(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, what: &str) -> &Self {
        assert!(self.err.contains(what), "{} lacks {what}", self.err);
        self
    }
}

pub(crate) fn audit_lines(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| line.starts_with("{\"vkey\":"));
    lines.map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Makes a pipe that has a name.
pub(crate) fn make_pipe(path: &str) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until a process is no more, or waits to be reaped by somebody else.
#[track_caller]
pub(crate) fn await_gone(pid: u64) {
    let end = Instant::now() + DEADLINE;
    let alive = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    while alive() {
        assert!(Instant::now() < end, "process {pid} is left behind");
        sleep(Duration::from_millis(5));
    }
}
