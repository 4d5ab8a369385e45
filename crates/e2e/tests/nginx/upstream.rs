//! An upstream that keeps every byte that reaches it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A connection whose other end is silent is left after this time, so that no thread outlives a test
/// for long.
const SILENCE: Duration = Duration::from_secs(60);

/// One request as it came.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// Writes the answer to a request.
type Answer = dyn Fn(&mut TcpStream) -> io::Result<()> + Send + Sync;

pub(crate) struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    connections: AtomicUsize,
    ended: AtomicBool,
    received: Mutex<Vec<Received>>,
    answer: Box<Answer>,
}

impl Received {
    /// The request line.
    pub(crate) fn line(&self) -> &[u8] {
        self.head.split(|byte| *byte == b'\r').next().expect("a first part")
    }

    /// What stands between method and version.
    pub(crate) fn target(&self) -> &[u8] {
        let line = self.line();
        let start = line.iter().position(|byte| *byte == b' ').expect("a method") + 1;
        line[start..].strip_suffix(b" HTTP/1.1").expect("HTTP/1.1")
    }

    /// Names in lower case and values, in order.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let text = String::from_utf8_lossy(&self.head).into_owned();
        let lines = text.lines().skip(1).filter(|line| !line.is_empty());
        let pairs = lines.map(|line| line.split_once(": ").unwrap_or((line, "")));
        pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let found = self.headers().into_iter().filter(|(have, _)| have == name);
        found.map(|(_, value)| value).collect()
    }

    /// Whether these bytes stand anywhere in the request.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        [&self.head, &self.body].iter().any(|part| part.windows(bytes.len()).any(|at| at == bytes))
    }
}

impl Recorder {
    /// Answers every request 200.
    pub(crate) fn start() -> Self {
        Self::answering(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n")
        })
    }

    /// Answers every request as `answer` writes it.
    pub(crate) fn answering(
        answer: impl Fn(&mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            connections: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            received: Mutex::new(Vec::new()),
            answer: Box::new(answer),
        });
        let ours = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ours.ended.load(Ordering::SeqCst) {
                    break;
                }
                ours.connections.fetch_add(1, Ordering::SeqCst);
                let (stream, ours) = (stream.expect("a connection"), Arc::clone(&ours));
                // A connection that fails is nginx's to report.
                thread::spawn(move || ours.serve(stream));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The requests so far; one is here before its answer is sent.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().expect("no thread panics").clone()
    }

    /// The only request since the last call.
    pub(crate) fn take_one(&self) -> Received {
        let mut received = self.shared.received.lock().expect("no thread panics");
        assert_eq!(received.len(), 1, "requests");
        received.remove(0)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; where that fails there is none.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
        let mut unread = Vec::new();
        while let Some(head) = take_head(&mut stream, &mut unread)? {
            let mut received = Received { head, body: Vec::new() };
            let length = received.header("content-length").first().map_or("0", |v| v).to_owned();
            let length: usize = length.parse().map_err(io::Error::other)?;
            while unread.len() < length {
                more(&mut stream, &mut unread)?;
            }
            received.body = unread.drain(..length).collect();
            self.received.lock().expect("no thread panics").push(received);
            (self.answer)(&mut stream)?;
        }
        Ok(())
    }
}

/// A request's head; nothing at the end of the connection.
fn take_head(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(at) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(unread.drain(..at + 4).collect()));
        }
        if more(stream, unread)? == 0 {
            return Ok(None);
        }
    }
}

fn more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 16 * 1024];
    let count = stream.read(&mut chunk)?;
    unread.extend_from_slice(&chunk[..count]);
    Ok(count)
}
