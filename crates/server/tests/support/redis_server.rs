//! A Redis of a test's own, on a free port of this machine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take to start.
const DEADLINE: Duration = Duration::from_secs(20);

/// A Redis that writes what it confirms to its disk first. It ends with the value.
pub(crate) struct RedisServer {
    child: Option<Child>,
    folder: PathBuf,
    port: u16,
    options: Vec<String>,
}

// === impl RedisServer ===

impl RedisServer {
    /// Starts one with its files in a folder, and with further options.
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { child: None, folder: folder.to_owned(), port, options };
        server.restart();
        server
    }

    /// The URL of its first database.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, like a loss of power of its process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again with what it has written.
    #[expect(clippy::disallowed_methods, reason = "the deadline of a test")]
    pub(crate) fn restart(&mut self) {
        self.kill();
        let log = File::options().create(true).append(true).open(self.folder.join("redis.log"));
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"]);
        command.arg("--dir").arg(&self.folder).args(&self.options);
        command.stdin(Stdio::null()).stdout(log.unwrap()).stderr(Stdio::null());
        let child = command.spawn();
        self.child = Some(child.expect(
            "redis-server is needed: `tools/setup.sh redis` installs it, as `make test` does",
        ));
        let begin = Instant::now();
        while !self.is_ready() {
            assert!(begin.elapsed() < DEADLINE, "redis-server does not start: {:?}", self.folder);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it takes commands. Without a password it says that one is needed.
    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut reply = [0; 5];
        stream.write_all(b"PING\r\n").is_ok()
            && stream.read_exact(&mut reply).is_ok()
            && matches!(&reply, b"+PONG" | b"-NOAU")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}
