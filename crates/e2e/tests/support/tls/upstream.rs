//! An upstream that counts what reaches it: over TLS, or in plain text.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;

use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use vkey::digest::sha256_hex;

use super::super::wait_for;
use super::counted::Counted;
use super::old::Old;
use super::{Authority, Leaf, http1, http2, provider};

/// A connection's thread does little; a test may open a thousand of them.
const STACK_BYTES: usize = 256 * 1024;
const SESSIONS: usize = 256;

/// How an upstream serves: start with `plain`, `tls` or `tls11`, end with `start`.
pub(crate) struct Serve {
    transport: Transport,
    versions: Vec<&'static SupportedProtocolVersion>,
    clients: Option<(Arc<rustls::RootCertStore>, bool)>,
    resumption: bool,
    connection: Behaviour,
    failures: u64,
}

enum Transport {
    Plain,
    Tls(Leaf),
    Tls11(Leaf),
}

#[derive(Clone, Copy, Default)]
struct Behaviour {
    http2: bool,
    silent: bool,
    hold: bool,
}

impl Serve {
    /// HTTP in plain text.
    pub(crate) fn plain() -> Self {
        Self::over(Transport::Plain)
    }

    /// HTTP over TLS 1.2 or 1.3, as the client wants.
    pub(crate) fn tls(leaf: &Leaf) -> Self {
        Self::over(Transport::Tls(leaf.clone()))
    }

    /// HTTP/1.1 over TLS 1.1 and nothing newer; of the other settings it knows `failures`.
    pub(crate) fn tls11(leaf: &Leaf) -> Self {
        Self::over(Transport::Tls11(leaf.clone()))
    }

    fn over(transport: Transport) -> Self {
        Self {
            transport,
            versions: rustls::ALL_VERSIONS.to_vec(),
            clients: None,
            resumption: false,
            connection: Behaviour::default(),
            failures: 0,
        }
    }

    pub(crate) fn only_tls12(mut self) -> Self {
        self.versions = vec![&rustls::version::TLS12];
        self
    }

    pub(crate) fn only_tls13(mut self) -> Self {
        self.versions = vec![&rustls::version::TLS13];
        self
    }

    /// A client must have a certificate of that authority.
    pub(crate) fn requires_client(mut self, authority: &Authority) -> Self {
        self.clients = Some((authority.roots(), true));
        self
    }

    /// A client may have a certificate of that authority.
    pub(crate) fn accepts_client(mut self, authority: &Authority) -> Self {
        self.clients = Some((authority.roots(), false));
        self
    }

    /// Lets clients resume sessions. Without it every connection shows the current certificate;
    /// with it a client that resumes knows the certificate of the session's first connection.
    pub(crate) fn resumption(mut self) -> Self {
        self.resumption = true;
        self
    }

    pub(crate) fn http2(mut self) -> Self {
        self.connection.http2 = true;
        self
    }

    /// Accepts connections and says nothing, not even in a handshake.
    pub(crate) fn silent(mut self) -> Self {
        self.connection.silent = true;
        self
    }

    /// Reads requests and never answers.
    pub(crate) fn hold(mut self) -> Self {
        self.connection.hold = true;
        self
    }

    /// Answers 503 to the first requests.
    pub(crate) fn failures(mut self, count: u64) -> Self {
        self.failures = count;
        self
    }

    /// Serves on a free port of 127.0.0.1 until the upstream is dropped.
    pub(crate) fn start(self) -> Upstream {
        let shared = Arc::new(Shared::default());
        shared.failures.store(self.failures, Ordering::SeqCst);
        if let Transport::Tls11(leaf) = &self.transport {
            let (old, address) = Old::start(leaf, self.failures, Arc::clone(&shared));
            return Upstream { address, shared, current: None, _old: Some(old) };
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let current = match &self.transport {
            Transport::Tls(leaf) => Some(Arc::new(Current(RwLock::new(leaf.certified())))),
            _ => None,
        };
        let config = current.clone().map(|current| Arc::new(self.config(current)));
        let (behaviour, its) = (self.connection, Arc::clone(&shared));
        thread::spawn(move || accept(&listener, config.as_ref(), behaviour, &its));
        Upstream { address, shared, current, _old: None }
    }

    fn config(&self, current: Arc<Current>) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&self.versions)
            .expect("the provider has them");
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some((roots, required)) => {
                let roots = Arc::clone(roots);
                let clients = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let clients = if *required { clients } else { clients.allow_unauthenticated() };
                builder.with_client_cert_verifier(clients.build().expect("a verifier"))
            }
        };
        let mut config = builder.with_cert_resolver(current);
        let protocol = if self.connection.http2 { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        if self.resumption {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config
    }
}

/// The certificate that the next handshake shows.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// What has reached an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// TCP connections.
    pub(crate) accepted: u64,
    /// Handshakes that both sides have finished; 0 in plain text.
    pub(crate) handshakes: u64,
    /// Bytes of application data: what came in after the handshake, decrypted.
    pub(crate) bytes: u64,
    /// Requests answered, whatever the status.
    pub(crate) requests: u64,
}

/// A running upstream; dropping it ends its connections.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    current: Option<Arc<Current>>,
    _old: Option<Old>,
}

impl Upstream {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has been counted so far; more may be on its way.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Waits until all that clients have sent is counted. Only for clients that have closed their
    /// connections, as an Envoy that has been stopped: with others this waits until it gives up.
    pub(crate) fn final_counts(&self) -> Counts {
        // Connections are accepted in order: what was opened before this one has been accepted
        // once this one has.
        let before = self.shared.peers().len();
        let marker = TcpStream::connect(self.address).expect("the listener accepts");
        let port = marker.local_addr().expect("an address").port();
        let seen = || self.shared.peers()[before..].contains(&port).then_some(());
        wait_for(seen, || "the upstream accepts nothing".to_owned());
        drop(marker);
        self.shared.markers.fetch_add(1, Ordering::SeqCst);
        let ended = || (self.shared.active.load(Ordering::SeqCst) == 0).then_some(());
        wait_for(ended, || format!("connections stay open: {:?}", self.counts()));
        self.counts()
    }

    /// Every byte that came, after the handshakes. Not of an upstream over TLS 1.1.
    pub(crate) fn received(&self) -> String {
        String::from_utf8_lossy(&lock(&self.shared.kept)).into_owned()
    }

    /// The heads of the requests, as they came; HTTP/2 gives empty ones.
    pub(crate) fn heads(&self) -> Vec<String> {
        lock(&self.shared.heads).clone()
    }

    /// The SHA-256 of the client's certificate for each handshake, where there was one.
    pub(crate) fn clients(&self) -> Vec<Option<String>> {
        lock(&self.shared.clients).clone()
    }

    /// Shows another certificate from the next handshake on.
    pub(crate) fn swap(&self, leaf: &Leaf) {
        let current = self.current.as_ref().expect("an upstream over TLS 1.2 or 1.3");
        *current.0.write().unwrap_or_else(PoisonError::into_inner) = leaf.certified();
    }

    /// Answers 503 to the next requests.
    pub(crate) fn fail_next(&self, count: u64) {
        assert!(self._old.is_none(), "the upstream over TLS 1.1 is told at its start");
        self.shared.failures.store(count, Ordering::SeqCst);
    }

    /// Closes all connections that are open now. Envoy notices a little later: before the next
    /// request wait until its `cluster.<name>.upstream_cx_active` is 0.
    pub(crate) fn close_connections(&self) {
        self.shared.close();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener; where that fails, it is gone already.
        let _ = TcpStream::connect(self.address);
        self.shared.close();
    }
}

/// What the threads of an upstream write down.
#[derive(Default)]
pub(super) struct Shared {
    handshakes: AtomicU64,
    bytes: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    active: AtomicU64,
    markers: AtomicU64,
    ended: AtomicBool,
    peers: Mutex<Vec<u16>>,
    open: Mutex<BTreeMap<u16, TcpStream>>,
    heads: Mutex<Vec<String>>,
    kept: Mutex<Vec<u8>>,
    clients: Mutex<Vec<Option<String>>>,
}

impl Shared {
    pub(super) fn accepted(&self, port: u16) {
        self.active.fetch_add(1, Ordering::SeqCst);
        self.peers().push(port);
    }

    pub(super) fn closed(&self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn handshake(&self, client: Option<String>) {
        self.handshakes.fetch_add(1, Ordering::SeqCst);
        lock(&self.clients).push(client);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(super) fn keep(&self, bytes: &[u8]) {
        lock(&self.kept).extend_from_slice(bytes);
    }

    /// Counts a request and says the status of its answer.
    pub(super) fn answer(&self, head: &str) -> u16 {
        self.requests.fetch_add(1, Ordering::SeqCst);
        lock(&self.heads).push(head.to_owned());
        let one_less = |left: u64| left.checked_sub(1);
        let failed = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        if failed.is_ok() { 503 } else { 200 }
    }

    fn counts(&self) -> Counts {
        let accepted = u64::try_from(self.peers().len()).expect("a number");
        Counts {
            accepted: accepted.saturating_sub(self.markers.load(Ordering::SeqCst)),
            handshakes: self.handshakes.load(Ordering::SeqCst),
            bytes: self.bytes.load(Ordering::SeqCst),
            requests: self.requests.load(Ordering::SeqCst),
        }
    }

    fn peers(&self) -> MutexGuard<'_, Vec<u16>> {
        lock(&self.peers)
    }

    fn close(&self) {
        for stream in lock(&self.open).values() {
            // What is closed already is what is wanted.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(
    listener: &TcpListener,
    config: Option<&Arc<ServerConfig>>,
    behaviour: Behaviour,
    shared: &Arc<Shared>,
) {
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(peer) = stream.peer_addr() else { continue };
        shared.accepted(peer.port());
        lock(&shared.open).insert(peer.port(), stream.try_clone().expect("a descriptor"));
        let (config, its) = (config.cloned(), Arc::clone(shared));
        let run = move || {
            // A connection that fails is one that the client has closed or refused.
            let _ = connection(stream, config, behaviour, &its);
            lock(&its.open).remove(&peer.port());
            its.closed();
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn(run).expect("a thread");
    }
}

fn connection(
    mut stream: TcpStream,
    config: Option<Arc<ServerConfig>>,
    behaviour: Behaviour,
    shared: &Shared,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if behaviour.silent {
        io::copy(&mut stream, &mut io::sink())?;
        return Ok(());
    }
    let Some(config) = config else {
        return serve(Counted { stream, shared }, behaviour, shared);
    };
    let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    let client = session.peer_certificates().and_then(<[_]>::first);
    shared.handshake(client.map(|certificate| sha256_hex(certificate)));
    serve(Counted { stream: StreamOwned::new(session, stream), shared }, behaviour, shared)
}

fn serve(mut stream: impl Read + Write, behaviour: Behaviour, shared: &Shared) -> io::Result<()> {
    if behaviour.hold {
        io::copy(&mut stream, &mut io::sink())?;
        return Ok(());
    }
    if behaviour.http2 { http2::serve(stream, shared) } else { http1::serve(stream, shared) }
}
