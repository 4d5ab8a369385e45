//! A small HTTP/1.1 client. It sends any bytes as they are, so that a test can say what no library
//! would.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any answer of a local proxy takes, also on a machine that builds at the same time.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_HEADERS: usize = 128;

/// A request as it will stand on the wire: only `host` and `content-length` are added, if absent.
#[derive(Clone)]
pub(crate) struct Request {
    method: String,
    path: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, path: impl AsRef<[u8]>) -> Self {
        Self {
            method: method.to_owned(),
            path: path.as_ref().to_vec(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// `authorization: Bearer <key>`.
    pub(crate) fn bearer(self, key: &str) -> Self {
        self.header("authorization", format!("Bearer {key}"))
    }

    pub(crate) fn path(mut self, path: impl AsRef<[u8]>) -> Self {
        self.path = path.as_ref().to_vec();
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(256 + self.body.len());
        wire.extend_from_slice(self.method.as_bytes());
        wire.push(b' ');
        wire.extend_from_slice(&self.path);
        wire.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in &self.headers {
            push_header(&mut wire, name, value);
        }
        if !self.has("host") {
            push_header(&mut wire, "host", b"gate.test");
        }
        let sized = self.has("content-length") || self.has("transfer-encoding");
        if !sized && !self.body.is_empty() {
            push_header(&mut wire, "content-length", self.body.len().to_string().as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(&self.body);
        wire
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(have, _)| have.eq_ignore_ascii_case(name))
    }
}

fn push_header(wire: &mut Vec<u8>, name: &str, value: &[u8]) {
    wire.extend_from_slice(name.as_bytes());
    wire.extend_from_slice(b": ");
    wire.extend_from_slice(value);
    wire.extend_from_slice(b"\r\n");
}

/// What came back. Header names are lower case.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// The lines of the trailers.
    pub(crate) trailers: Vec<String>,
}

impl Response {
    /// The value of a header that stands at most once.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut values = self.headers.iter().filter(|(have, _)| have == name);
        let first = values.next().map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        assert!(values.next().is_none(), "more than one {name} in {self:?}");
        first
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the whole answer when it is not.
    pub(crate) fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "status {}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", value.escape_ascii())?;
        }
        write!(f, "\n{}", self.text())
    }
}

/// A TCP connection that gives up on an answer that does not come.
pub(super) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    Ok(stream)
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection, kept alive between requests. Dropping it before the answer aborts the request.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
    head_sent: bool,
    trailers: Vec<String>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("the listener accepts")
    }

    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(connect(address)?))
    }

    /// A connection that something else has opened, as one that speaks TLS.
    pub(super) fn over(stream: impl Read + Write + Send + 'static) -> Self {
        let (unread, trailers) = Default::default();
        Self { stream: Box::new(stream), unread, head_sent: false, trailers }
    }

    /// Sends the request and reads its answer; panics when the connection fails instead.
    pub(crate) fn send(&mut self, request: &Request) -> Response {
        self.try_send(request).expect("an answer")
    }

    pub(crate) fn try_send(&mut self, request: &Request) -> io::Result<Response> {
        self.head_sent = request.method == "HEAD";
        self.send_raw(&request.encode())?;
        self.read_response()
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits until at least one more byte has come, for a test that then drops the connection.
    pub(crate) fn read_some(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.unread.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// The bytes that come next, as they stand on the wire.
    pub(crate) fn read_bytes(&mut self) -> io::Result<Vec<u8>> {
        match self.read_some()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(std::mem::take(&mut self.unread)),
        }
    }

    /// Reads one final answer; interim ones (1xx) are passed over. The end of the connection is
    /// `UnexpectedEof`.
    pub(crate) fn read_response(&mut self) -> io::Result<Response> {
        self.read_stepwise(&mut || {})
    }

    /// The same. `step` is called after the head, and after each chunk of a body in chunks.
    pub(crate) fn read_stepwise(&mut self, step: &mut dyn FnMut()) -> io::Result<Response> {
        loop {
            let mut response = self.read_head()?;
            if (100..200).contains(&response.status) {
                continue;
            }
            step();
            response.body = self.read_body(&response, step)?;
            response.trailers = std::mem::take(&mut self.trailers);
            return Ok(response);
        }
    }

    fn read_head(&mut self) -> io::Result<Response> {
        loop {
            if let Some((response, length)) = parse_head(&self.unread)? {
                self.unread.drain(..length);
                return Ok(response);
            }
            self.need_more()?;
        }
    }

    fn read_body(&mut self, response: &Response, step: &mut dyn FnMut()) -> io::Result<Vec<u8>> {
        if std::mem::take(&mut self.head_sent) || matches!(response.status, 204 | 304) {
            return Ok(Vec::new());
        }
        if response.header("transfer-encoding").as_deref() == Some("chunked") {
            return self.read_chunks(step);
        }
        match response.header("content-length") {
            Some(length) => self.take(length.parse().map_err(invalid)?),
            None => self.read_to_end(),
        }
    }

    fn read_chunks(&mut self, step: &mut dyn FnMut()) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match httparse::parse_chunk_size(&self.unread).map_err(|_| invalid("chunk size"))? {
                httparse::Status::Partial => self.need_more()?,
                httparse::Status::Complete((line, size)) => {
                    self.unread.drain(..line);
                    let size = usize::try_from(size).map_err(invalid)?;
                    if size == 0 {
                        self.read_trailers()?;
                        return Ok(body);
                    }
                    body.extend(self.take(size)?);
                    self.take(2)?; // the line end behind the chunk
                    step();
                }
            }
        }
    }

    /// Reads up to the empty line. Envoy sends trailers only if its configuration says so.
    fn read_trailers(&mut self) -> io::Result<()> {
        loop {
            let Some(length) = self.unread.windows(2).position(|pair| pair == b"\r\n") else {
                self.need_more()?;
                continue;
            };
            let line = self.take(length)?;
            self.take(2)?;
            if line.is_empty() {
                return Ok(());
            }
            self.trailers.push(String::from_utf8_lossy(&line).into_owned());
        }
    }

    fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.read_some()? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.need_more()?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn need_more(&mut self) -> io::Result<()> {
        match self.read_some()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(Response, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(invalid)? else {
        return Ok(None);
    };
    let headers = head.headers.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.to_vec()));
    let response = Response {
        status: head.code.ok_or_else(|| invalid("no status"))?,
        headers: headers.collect(),
        body: Vec::new(),
        trailers: Vec::new(),
    };
    Ok(Some((response, length)))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
