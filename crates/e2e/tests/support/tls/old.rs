//! An upstream over TLS 1.1, which rustls has never spoken: Python's, in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;

use super::super::{TempDir, root};
use super::Leaf;
use super::upstream::Shared;

/// The process; dropping it ends it.
pub(super) struct Old {
    child: Child,
    _dir: TempDir,
}

impl Old {
    /// Starts the process and returns where it listens.
    pub(super) fn start(leaf: &Leaf, failures: u64, shared: Arc<Shared>) -> (Self, SocketAddr) {
        let dir = TempDir::new("tls11");
        let files = leaf.write(dir.path(), "upstream");
        let mut child = Command::new("python3")
            .arg(root().join("crates/e2e/tests/support/tls/old.py"))
            .args([&files.certificate, &files.key])
            .arg(failures.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 can be run");
        let mut events = BufReader::new(child.stdout.take().expect("it is piped"));
        let old = Self { child, _dir: dir };
        let mut first = String::new();
        events.read_line(&mut first).expect("a line");
        let port = first.strip_prefix("listening ").map(|port| port.trim().parse());
        let port: u16 = port.expect("it listens").expect("a port");
        thread::spawn(move || follow(events, &shared));
        (old, SocketAddr::from(([127, 0, 0, 1], port)))
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        // Both fail only for a process that has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(events: BufReader<ChildStdout>, shared: &Shared) {
    for line in events.lines().map_while(Result::ok) {
        let (event, value) = line.split_once(' ').unwrap_or((&line, ""));
        match event {
            "accepted" => shared.accepted(value.parse().expect("a port")),
            "handshake" => shared.handshake(None),
            "bytes" => shared.received(value.parse().expect("a number")),
            "request" => {
                let head: String = serde_json::from_str(value).expect("JSON text");
                shared.answer(&head);
            }
            "closed" => shared.closed(),
            _ => panic!("what is {line:?}"),
        }
    }
}
