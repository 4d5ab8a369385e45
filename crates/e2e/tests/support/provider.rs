//! A provider of models that replays: a test says what it sends for each request, piece by piece.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::origin::{Origin, Received, write_chunk, write_head};

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

/// A running provider.
pub(crate) struct Provider {
    origin: Origin,
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

    fn send(&self, stream: &mut TcpStream) -> io::Result<()> {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        write_head(stream, self.status.into(), &headers)?;
        let is_chunked = self.is_chunked();
        let end = if is_chunked { "transfer-encoding: chunked\r\n\r\n" } else { "\r\n" };
        stream.write_all(end.as_bytes())?;
        for step in &self.steps {
            match step {
                Step::Wait(latch) => latch.wait(),
                Step::Send(piece) if is_chunked => write_chunk(stream, piece)?,
                Step::Send(piece) => stream.write_all(piece)?,
            }
        }
        match self.end {
            End::Complete if is_chunked => write!(stream, "0\r\n{}\r\n", self.trailers),
            End::Complete => Ok(()),
            End::Reset => stream.shutdown(Shutdown::Both),
            End::Silence => {
                while stream.read(&mut [0; 1024])? > 0 {}
                Ok(())
            }
        }
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
        Self { origin: Origin::start(move |request, stream| handler(request).send(stream)) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.origin.address
    }

    /// The requests so far, in the order in which they were complete.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.origin.received()
    }

    /// How many requests were complete so far.
    pub(crate) fn received_len(&self) -> usize {
        self.origin.received_len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
