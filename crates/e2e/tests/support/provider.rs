//! A provider of models that replays: a test says what it sends for each request, piece by piece.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A test may open a thousand connections, and a thread does little.
const STACK_BYTES: usize = 256 * 1024;
const MAX_HEADERS: usize = 128;

/// A request as the provider received it. Header names are lower case.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What the provider sends.
pub(crate) struct Replay {
    status: u16,
    headers: Vec<(String, String)>,
    steps: Vec<Step>,
    trailers: String,
    end: End,
}

enum Step {
    Send(Vec<u8>),
    Wait(Arc<Latch>),
}

/// How a response ends after its last step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    /// The connection is closed in the middle of the body.
    Reset,
    /// Nothing more comes until the other side closes the connection.
    Silence,
}

/// Holds those who wait until it is opened.
#[derive(Default)]
pub(crate) struct Latch {
    is_open: Mutex<bool>,
    opened: Condvar,
}

/// A running provider. Dropping it ends it.
pub(crate) struct Provider {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<dyn Fn(&Received) -> Replay + Send + Sync>,
    received: Mutex<Vec<Received>>,
    is_ended: AtomicBool,
}

impl Received {
    /// The value of the first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Replay {
    pub(crate) fn new(status: u16) -> Self {
        let (headers, steps, trailers) = Default::default();
        Self { status, headers, steps, trailers, end: End::Complete }
    }

    /// A JSON response in one piece.
    pub(crate) fn json(body: impl ToString) -> Self {
        let body = body.to_string();
        Self::new(200)
            .header("content-type", "application/json")
            .header("content-length", &body.len().to_string())
            .piece(body)
    }

    /// Server-sent events.
    pub(crate) fn events() -> Self {
        Self::new(200).header("content-type", "text/event-stream")
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A piece of the body, sent at once. Without a `content-length` each is one chunk.
    pub(crate) fn piece(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.steps.push(Step::Send(bytes.into()));
        self
    }

    /// A trailer, which ends a body in chunks.
    pub(crate) fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Nothing further is sent before the latch is open.
    pub(crate) fn wait(mut self, latch: &Arc<Latch>) -> Self {
        self.steps.push(Step::Wait(Arc::clone(latch)));
        self
    }

    /// After the last piece the connection is closed, though the body has not ended.
    pub(crate) fn reset(mut self) -> Self {
        self.end = End::Reset;
        self
    }

    /// After the last piece nothing comes until the other side closes the connection.
    pub(crate) fn silence(mut self) -> Self {
        self.end = End::Silence;
        self
    }

    fn is_chunked(&self) -> bool {
        !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    }
}

impl Latch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Lets everybody pass, now and later.
    pub(crate) fn open(&self) {
        *lock(&self.is_open) = true;
        self.opened.notify_all();
    }

    pub(crate) fn wait(&self) {
        let mut is_open = lock(&self.is_open);
        while !*is_open {
            is_open = self.opened.wait(is_open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Provider {
    /// Starts a provider that sends what `handler` says.
    pub(crate) fn start(handler: impl Fn(&Received) -> Replay + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            received: Mutex::default(),
            is_ended: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if of_thread.is_ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&of_thread);
                let serve = thread::Builder::new().stack_size(STACK_BYTES);
                serve.spawn(move || _ = shared.serve(stream)).expect("a thread");
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, in the order in which they were complete.
    pub(crate) fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// How many requests were complete so far.
    pub(crate) fn received_len(&self) -> usize {
        lock(&self.shared.received).len()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.shared.is_ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut unread = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut unread)? {
            let replay = (self.handler)(&request);
            lock(&self.received).push(request);
            send(&mut stream, &replay)?;
            match replay.end {
                End::Complete => {}
                End::Reset => return stream.shutdown(Shutdown::Both),
                End::Silence => {
                    while stream.read(&mut [0; 1024])? > 0 {}
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn send(stream: &mut TcpStream, replay: &Replay) -> io::Result<()> {
    let is_chunked = replay.is_chunked();
    let mut head = format!("HTTP/1.1 {} Replayed\r\n", replay.status);
    for (name, value) in &replay.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(if is_chunked { "transfer-encoding: chunked\r\n\r\n" } else { "\r\n" });
    stream.write_all(head.as_bytes())?;
    for step in &replay.steps {
        match step {
            Step::Wait(latch) => latch.wait(),
            Step::Send(bytes) if bytes.is_empty() => {}
            Step::Send(bytes) if is_chunked => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(bytes);
                chunk.extend_from_slice(b"\r\n");
                stream.write_all(&chunk)?;
            }
            Step::Send(bytes) => stream.write_all(bytes)?,
        }
    }
    match replay.end {
        End::Complete if is_chunked => {
            stream.write_all(format!("0\r\n{}\r\n", replay.trailers).as_bytes())
        }
        End::Complete | End::Reset | End::Silence => Ok(()),
    }
}

/// The next request of a connection; `None` if the other side has closed it.
fn read_request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Option<Received>> {
    let (mut request, length) = loop {
        if let Some(head) = parse_head(unread)? {
            break head;
        }
        if read_some(stream, unread)? == 0 {
            return Ok(None);
        }
    };
    unread.drain(..length);
    request.body = if request.header("transfer-encoding") == Some("chunked") {
        read_chunks(stream, unread)?
    } else {
        let length = request.header("content-length").map_or(Ok(0), str::parse);
        take(stream, unread, length.map_err(invalid)?)?
    };
    Ok(Some(request))
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(Received, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(invalid)? else {
        return Ok(None);
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = head.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value)));
    let request = Received {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: Vec::new(),
    };
    Ok(Some((request, length)))
}

fn read_chunks(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        match httparse::parse_chunk_size(unread).map_err(|_| invalid("chunk size"))? {
            httparse::Status::Partial => {
                need_more(stream, unread)?;
            }
            httparse::Status::Complete((line, 0)) => {
                unread.drain(..line);
                read_trailers(stream, unread)?;
                return Ok(body);
            }
            httparse::Status::Complete((line, size)) => {
                unread.drain(..line);
                body.extend(take(stream, unread, usize::try_from(size).map_err(invalid)?)?);
                take(stream, unread, 2)?;
            }
        }
    }
}

/// Skips trailers up to the empty line.
fn read_trailers(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<()> {
    loop {
        match unread.windows(2).position(|pair| pair == b"\r\n") {
            Some(length) => {
                unread.drain(..length + 2);
                if length == 0 {
                    return Ok(());
                }
            }
            None => need_more(stream, unread)?,
        }
    }
}

fn take(stream: &mut TcpStream, unread: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while unread.len() < length {
        need_more(stream, unread)?;
    }
    Ok(unread.drain(..length).collect())
}

fn need_more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<()> {
    match read_some(stream, unread)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn read_some(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 64 * 1024];
    let count = stream.read(&mut chunk)?;
    unread.extend_from_slice(&chunk[..count]);
    Ok(count)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
