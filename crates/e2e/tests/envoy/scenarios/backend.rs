//! The upstream of all scenarios: a server that keeps what reached it and answers as it is told.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use vkey::host::HeaderList;

use crate::scenario::step::Ending;

/// The header by which a listener says whose request it sends on.
pub(crate) const OF: &str = "vkey-test-of";

/// Headers that Envoy adds to a request by itself.
const ADDED: [(&str, &str); 4] = [
    (OF, "the route says whose request it is"),
    ("x-forwarded-proto", "use_remote_address: the connection's scheme for an edge request"),
    ("x-envoy-external-address", "use_remote_address: the client's address for an edge request"),
    ("transfer-encoding", "the codec, where a body has no length"),
];

/// What reached the server, by the name of the listener.
type Seen = Arc<Mutex<BTreeMap<String, Exchange>>>;

#[derive(Default)]
struct Exchange {
    /// What the next request is answered with.
    status: u64,
    headers: BTreeMap<String, String>,
    requests: Vec<HeaderList>,
}

/// The server; its threads end with the connections and with the process.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    seen: Seen,
}

impl Backend {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Seen::default();
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                // A connection that breaks is the proxy's to report.
                thread::spawn(move || stream.and_then(|stream| serve(stream, &shared)));
            }
        });
        Self { address, seen }
    }

    /// Says what the next request of a listener is answered with.
    pub(crate) fn expect(&self, name: &str, ending: &Ending) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, headers) = (ending.status.unwrap_or(200), ending.headers.clone());
        seen.insert(name.to_owned(), Exchange { status, headers, requests: Vec::new() });
    }

    /// The requests of a listener since then, without what Envoy adds.
    pub(crate) fn take(&self, name: &str) -> Vec<HeaderList> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(name).unwrap_or_default().requests
    }
}

/// Answers requests until the proxy closes the connection.
fn serve(stream: TcpStream, seen: &Seen) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    while let Some(headers) = read_head(&mut requests)? {
        read_body(&mut requests, &headers)?;
        let name = value(&headers, OF).unwrap_or_default();
        let (status, own) = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let exchange = seen.entry(name).or_default();
            let added = |name: &[u8]| ADDED.iter().any(|(added, _)| added.as_bytes() == name);
            let own = headers.into_iter().filter(|(name, _)| !added(name));
            exchange.requests.push(own.collect());
            (exchange.status, exchange.headers.clone())
        };
        write!(answers, "HTTP/1.1 {status} So\r\n")?;
        for (name, value) in own {
            write!(answers, "{name}: {value}\r\n")?;
        }
        answers.write_all(b"content-length: 0\r\n\r\n")?;
    }
    Ok(())
}

/// The pseudo headers of a request and its headers; nothing where no more comes.
fn read_head(requests: &mut impl BufRead) -> io::Result<Option<HeaderList>> {
    let first = read_line(requests)?;
    let mut words = first.split(|byte| *byte == b' ');
    let (Some(method), Some(path), Some(_)) = (words.next(), words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers =
        vec![(b":method".to_vec(), method.to_vec()), (b":path".to_vec(), path.to_vec())];
    loop {
        let line = read_line(requests)?;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Ok(Some(headers));
        };
        let (name, value) = (line[..colon].to_vec(), line[colon + 1..].trim_ascii().to_vec());
        headers.push(if name == b"host" { (b":authority".to_vec(), value) } else { (name, value) });
    }
}

fn read_line(requests: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    requests.read_until(b'\n', &mut line)?;
    Ok(line.trim_ascii_end().to_vec())
}

fn read_body(requests: &mut impl BufRead, headers: &HeaderList) -> io::Result<()> {
    let length = value(headers, "content-length").and_then(|length| length.parse().ok());
    io::copy(&mut requests.take(length.unwrap_or(0)), &mut io::sink())?;
    Ok(())
}

fn value(headers: &HeaderList, name: &str) -> Option<String> {
    let (_, value) = headers.iter().find(|(found, _)| found == name.as_bytes())?;
    Some(String::from_utf8_lossy(value).into_owned())
}
