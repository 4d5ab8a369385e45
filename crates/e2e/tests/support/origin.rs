//! An upstream that keeps what reaches it, and responds as a test says.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A test may open a thousand connections, and a thread does little.
const STACK_BYTES: usize = 256 * 1024;

/// Headers or trailers, with names in lower case.
pub(crate) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request as it has reached the upstream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// Pseudo headers first.
    pub(crate) headers: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// Writes the response to a request; the connection is closed after an error.
type Respond = dyn Fn(&Received, &mut TcpStream) -> io::Result<()> + Send + Sync;

/// The upstream; its threads end with the connections and with the process.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: Vec<Received>,
}

impl Origin {
    pub(crate) fn start(
        respond: impl Fn(&Received, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Seen>>::default();
        let (shared, respond): (_, Arc<Respond>) = (Arc::clone(&seen), Arc::new(respond));
        thread::spawn(move || {
            for stream in listener.incoming() {
                lock(&shared).connections += 1;
                let (shared, respond) = (Arc::clone(&shared), Arc::clone(&respond));
                let thread = thread::Builder::new().stack_size(STACK_BYTES);
                // A connection that breaks is the proxy's to report.
                thread.spawn(move || serve(stream?, &shared, &*respond)).expect("a thread");
            }
        });
        Self { address, seen }
    }

    /// How many connections the proxy has opened.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.seen).connections
    }

    /// The requests so far, in the order in which they were complete.
    pub(crate) fn received(&self) -> Vec<Received> {
        lock(&self.seen).requests.clone()
    }

    /// How many requests were complete so far.
    pub(crate) fn received_len(&self) -> usize {
        lock(&self.seen).requests.len()
    }

    /// Takes the requests so far.
    pub(crate) fn take(&self) -> Vec<Received> {
        std::mem::take(&mut lock(&self.seen).requests)
    }
}

impl Received {
    /// The path and the query.
    pub(crate) fn target(&self) -> String {
        self.header(":path").expect("a request has one")
    }

    /// The value of the first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        value(&self.headers, name)
    }
}

/// Writes a response with a body of known length.
pub(crate) fn write_response(
    stream: &mut impl Write,
    status: u64,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    write_head(stream, status, headers)?;
    write!(stream, "content-length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)
}

/// Writes a response in chunks, each at once.
pub(crate) fn write_chunks(
    stream: &mut impl Write,
    status: u64,
    headers: &[(&str, &str)],
    parts: &[&[u8]],
) -> io::Result<()> {
    write_head(stream, status, headers)?;
    stream.write_all(b"transfer-encoding: chunked\r\n\r\n")?;
    parts.iter().try_for_each(|part| write_chunk(stream, part))?;
    stream.write_all(b"0\r\n\r\n")
}

pub(crate) fn write_chunk(stream: &mut impl Write, part: &[u8]) -> io::Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    stream.write_all(&chunk)
}

pub(crate) fn write_head(
    stream: &mut impl Write,
    status: u64,
    headers: &[(&str, &str)],
) -> io::Result<()> {
    write!(stream, "HTTP/1.1 {status} So\r\n")?;
    headers.iter().try_for_each(|(name, value)| write!(stream, "{name}: {value}\r\n"))
}

/// Answers requests until the proxy closes the connection.
fn serve(stream: TcpStream, seen: &Mutex<Seen>, respond: &Respond) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    while let Some(received) = read_request(&mut requests)? {
        lock(seen).requests.push(received.clone());
        respond(&received, &mut answers)?;
    }
    Ok(())
}

/// The next request; nothing where no more comes.
fn read_request(requests: &mut impl BufRead) -> io::Result<Option<Received>> {
    let first = read_line(requests)?;
    let mut words = first.split(|byte| *byte == b' ');
    let (Some(method), Some(path), Some(_)) = (words.next(), words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers =
        vec![(b":method".to_vec(), method.to_vec()), (b":path".to_vec(), path.to_vec())];
    for (name, value) in read_fields(requests)? {
        headers.push(if name == b"host" { (b":authority".to_vec(), value) } else { (name, value) });
    }
    let mut received = Received { headers, ..Received::default() };
    if received.header("transfer-encoding").as_deref() == Some("chunked") {
        read_chunks(requests, &mut received.body)?;
        received.trailers = read_fields(requests)?;
    } else {
        let length = received.header("content-length").and_then(|length| length.parse().ok());
        requests.take(length.unwrap_or(0)).read_to_end(&mut received.body)?;
    }
    Ok(Some(received))
}

fn read_fields(requests: &mut impl BufRead) -> io::Result<Fields> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(requests)?;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Ok(fields);
        };
        fields.push((line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_vec()));
    }
}

fn read_chunks(requests: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(requests)?;
        let size =
            std::str::from_utf8(&line).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        if size == 0 {
            return Ok(());
        }
        requests.take(size).read_to_end(body)?;
        read_line(requests)?;
    }
}

fn read_line(requests: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    requests.read_until(b'\n', &mut line)?;
    Ok(line.trim_ascii_end().to_vec())
}

fn value(fields: &Fields, name: &str) -> Option<String> {
    let (_, value) = fields.iter().find(|(found, _)| found == name.as_bytes())?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
