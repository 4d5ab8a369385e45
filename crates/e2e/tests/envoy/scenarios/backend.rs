//! The upstream of all scenarios: it keeps what reaches it and responds as it is told.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::scenario::Sent;
use crate::scenario::step::Cut;
use crate::support::origin::{Origin, Received, write_chunk, write_head, write_response};

/// The header by which a listener says whose request it sends on.
pub(crate) const OF: &str = "vkey-test-of";

/// Headers that Envoy adds to a request by itself.
const ADDED: [(&str, &str); 4] = [
    (OF, "the route says whose request it is"),
    ("x-forwarded-proto", "use_remote_address: the connection's scheme for an edge request"),
    ("x-envoy-external-address", "use_remote_address: the client's address for an edge request"),
    ("transfer-encoding", "the codec, where a body has no length"),
];

/// What reached the upstream, by the name of the listener.
type Seen = Arc<Mutex<BTreeMap<String, Exchange>>>;

#[derive(Clone, Default)]
struct Exchange {
    /// What the next request is answered with.
    status: u64,
    headers: BTreeMap<String, String>,
    body: Vec<Vec<u8>>,
    cut: Option<Cut>,
    requests: Vec<Received>,
}

/// The upstream.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    seen: Seen,
}

impl Backend {
    pub(crate) fn start() -> Self {
        let seen = Seen::default();
        let shared = Arc::clone(&seen);
        let origin = Origin::start(move |received, stream| respond(received, stream, &shared));
        Self { address: origin.address, seen }
    }

    /// Says what the next request of a listener is answered with.
    pub(crate) fn expect(&self, name: &str, sent: &Sent) {
        let exchange = Exchange {
            status: sent.ending.status.unwrap_or(200),
            headers: sent.ending.headers.clone(),
            body: sent.response.clone(),
            cut: sent.ending.cut,
            requests: Vec::new(),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(name.to_owned(), exchange);
    }

    /// The requests of a listener since then, without what Envoy adds.
    pub(crate) fn take(&self, name: &str) -> Vec<Received> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(name).unwrap_or_default().requests
    }
}

fn respond(received: &Received, stream: &mut TcpStream, seen: &Seen) -> io::Result<()> {
    let name = received.header(OF).unwrap_or_default();
    let exchange = {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let exchange = seen.entry(name).or_default();
        let mut received = received.clone();
        let is_added = |name: &[u8]| ADDED.iter().any(|(added, _)| added.as_bytes() == name);
        received.headers.retain(|(name, _)| !is_added(name));
        exchange.requests.push(received);
        exchange.clone()
    };
    let headers = exchange.headers.iter().map(|(name, value)| (&**name, &**value));
    let headers: Vec<_> = headers.collect();
    if exchange.cut != Some(Cut::Upstream) {
        return write_response(stream, exchange.status, &headers, &exchange.body.concat());
    }
    write_head(stream, exchange.status, &headers)?;
    io::Write::write_all(stream, b"transfer-encoding: chunked\r\n\r\n")?;
    exchange.body.iter().try_for_each(|part| write_chunk(stream, part))?;
    // What is left open is broken off.
    Err(io::ErrorKind::BrokenPipe.into())
}
