//! The server: collectors, the writer of the store, and the API, as one process.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::alerts::{Receiver, Sender, Thresholds};
use crate::client::ClientError;
use crate::collect::{self, FileError, Follower, Inlet, LineReader, Writer, inlet, read_pipe};
use crate::gate::Gate;
use crate::ledger::{self, Ledger, LedgerError};
use crate::store::{Retention, Store, StoreError};
use crate::web::{self, Door, Engines, door};

/// How long open connections may go on when the server ends.
const GRACE: Duration = Duration::from_secs(3);

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections of a server. More are closed at once, so that files can still be opened.
const MAX_CONNECTIONS: usize = 512;

/// The most of them from one address, so that one client cannot take all.
const MAX_CONNECTIONS_OF_ONE: usize = 128;

/// The threads that handle connections.
const WORKERS: usize = 2;

/// Says why an alert was not delivered.
pub type Report = Box<dyn Fn(&ClientError) + Send>;

/// What a server does.
pub struct Options {
    /// The store.
    pub store: PathBuf,
    /// How much of it is kept.
    pub retention: Retention,
    /// How lines are read.
    pub reader: LineReader,
    /// The files that are followed.
    pub follow: Vec<PathBuf>,
    /// Whether standard input is read.
    pub reads_stdin: bool,
    /// Where Envoy's access log service is served.
    pub access_log_service: Option<TcpListener>,
    /// When something is an alert.
    pub thresholds: Thresholds,
    /// Who gets the alerts.
    pub receiver: Option<Receiver>,
    /// The gates that say what is left of limits.
    pub gates: Vec<Arc<Gate>>,
    /// Where the ledger of budgets is kept; `None` without one.
    pub ledger: Option<ledger::Place>,
    /// Where the API is served.
    pub listener: TcpListener,
    /// TLS of the API and of the access log service.
    pub tls: Option<ServerConfig>,
    /// Whether TLS accepts only clients with a certificate.
    pub has_client_certificates: bool,
    /// Says that the ledger fails.
    pub report_ledger: ledger::Report,
    /// Says why an alert was not delivered.
    pub report: Report,
}

/// Why a server ended.
#[derive(Debug)]
pub enum ServerError {
    /// The store cannot be used.
    Store(StoreError),
    /// A file cannot be followed.
    File(FileError),
    /// Standard input cannot be read.
    Stdin(io::Error),
    /// The ledger cannot be used.
    Ledger(LedgerError),
    /// The system has no more threads, or a socket fails.
    System(io::Error),
}

/// Ends a server, from any thread.
#[derive(Clone, Default)]
pub struct Stopper {
    shared: Arc<Stop>,
}

#[derive(Default)]
struct Stop {
    is_stopping: Arc<AtomicBool>,
    /// The servers of HTTP that end with it.
    handles: Mutex<Vec<Handle<SocketAddr>>>,
    /// The first error.
    error: Mutex<Option<ServerError>>,
}

/// Collects and serves until it is stopped or an error ends it. What was read is written then.
///
/// # Errors
///
/// The first [`ServerError`].
pub fn run(mut options: Options, engines: Engines, stopper: &Stopper) -> Result<(), ServerError> {
    let ledger = open_ledger(&mut options)?;
    let store = Store::open(&options.store, options.retention).map_err(ServerError::Store)?;
    let (door, doorkeeper) = door(engines);
    let collectors = Collectors::start(&mut options, store, stopper)?;
    let http = start_http(options, door, ledger, &collectors.to, stopper)?;
    // Ends when the servers of HTTP have ended.
    doorkeeper.run();
    let _ = http.join();
    collectors.end();
    stopper.result()
}

fn open_ledger(options: &mut Options) -> Result<Option<Ledger>, ServerError> {
    let Some(place) = &options.ledger else { return Ok(None) };
    let report = std::mem::replace(&mut options.report_ledger, Box::new(|_| {}));
    Ledger::open(place, report).map(Some).map_err(ServerError::Ledger)
}

/// Serves HTTP on threads of its own.
fn start_http(
    options: Options,
    door: Door,
    ledger: Option<Ledger>,
    to: &Inlet,
    stopper: &Stopper,
) -> Result<JoinHandle<()>, ServerError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(ServerError::System)?;
    let servers = servers(options, door, ledger, to, stopper);
    let stopper = stopper.clone();
    start("http", move || {
        runtime.block_on(async {
            let watched = |server| tokio::spawn(watch(server, stopper.clone()));
            let servers: Vec<_> = servers.into_iter().map(watched).collect();
            for server in servers {
                let _ = server.await;
            }
        });
        // Questions to the store that go on are not waited for.
        runtime.shutdown_background();
    })
}

/// A server of HTTP, until it is stopped.
type Serving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Ends all servers if one ends.
async fn watch(server: Serving, stopper: Stopper) {
    match server.await {
        Ok(()) => stopper.stop(),
        Err(error) => stopper.fail(ServerError::System(error)),
    }
}

/// The API, and the access log service.
fn servers(
    options: Options,
    door: Door,
    ledger: Option<Ledger>,
    to: &Inlet,
    stopper: &Stopper,
) -> Vec<Serving> {
    let only_chained = !options.follow.is_empty() || options.reads_stdin;
    let Options { listener, access_log_service, tls, store, reader, gates, .. } = options;
    let has_client_certificates = options.has_client_certificates;
    let is_ending = Arc::clone(&stopper.shared.is_stopping);
    let is_encrypted = tls.is_some();
    let settings = web::Settings {
        store,
        door,
        gates,
        ledger,
        is_encrypted,
        has_client_certificates,
        is_ending,
    };
    let mut servers: Vec<Serving> = Vec::new();
    if let Some(listener) = access_log_service {
        let routes = collect::access_log_service(to.clone(), reader, only_chained);
        servers.push(Box::pin(listen(listener, tls.clone(), routes, stopper.handle())));
    }
    servers.push(Box::pin(listen(listener, tls, web::router(settings), stopper.handle())));
    servers
}

/// Serves HTTP/1.1 and HTTP/2, with TLS or without, until the handle ends it.
async fn listen(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    routes: Router,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    match tls {
        None => {
            let server = axum_server::from_tcp(listener)?.handle(handle).map(Limited::new);
            let mut server = server.first_request_timeout(HEAD_TIMEOUT);
            server.http_builder().http1().header_read_timeout(HEAD_TIMEOUT);
            server.serve(routes).await
        }
        Some(config) => {
            let config = RustlsConfig::from_config(Arc::new(config));
            let server = axum_server::from_tcp_rustls(listener, config)?.handle(handle);
            let server = server.map(Limited::new);
            let mut server = server.first_request_timeout(HEAD_TIMEOUT);
            server.http_builder().http1().header_read_timeout(HEAD_TIMEOUT);
            server.serve(routes).await
        }
    }
}

/// Accepts connections up to a number, and up to a smaller one from each address.
#[derive(Clone)]
struct Limited<A> {
    inner: A,
    sources: Arc<Mutex<Sources>>,
}

/// The open connections of each source.
type Sources = HashMap<IpAddr, usize>;

/// A connection that counts until it is closed.
struct Counted {
    sources: Arc<Mutex<Sources>>,
    source: IpAddr,
}

/// The service of a connection.
#[derive(Clone)]
struct OfConnection<S> {
    inner: S,
    _counted: Arc<Counted>,
}

impl<A> Limited<A> {
    fn new(inner: A) -> Self {
        Self { inner, sources: Arc::default() }
    }
}

impl<A, S> Accept<TcpStream, S> for Limited<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = OfConnection<A::Service>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(A::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let counted = stream.peer_addr().and_then(|peer| {
            let source = peer.ip().to_canonical();
            Counted::new(&self.sources, source).ok_or(io::ErrorKind::ResourceBusy.into())
        });
        let counted = match counted {
            Ok(counted) => Arc::new(counted),
            Err(error) => return Box::pin(async { Err(error) }),
        };
        let accepted = self.inner.accept(stream, service);
        Box::pin(async {
            let (stream, inner) = accepted.await?;
            Ok((stream, OfConnection { inner, _counted: counted }))
        })
    }
}

impl<R, S: Service<R>> Service<R> for OfConnection<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}

impl Counted {
    /// Counts a connection; `None` if there are too many.
    fn new(sources: &Arc<Mutex<Sources>>, source: IpAddr) -> Option<Self> {
        let mut open = sources.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let of_source = open.get(&source).copied().unwrap_or(0);
        if all >= MAX_CONNECTIONS || of_source >= MAX_CONNECTIONS_OF_ONE {
            return None;
        }
        open.insert(source, of_source + 1);
        drop(open);
        Some(Self { sources: Arc::clone(sources), source })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

/// The threads that read and write.
struct Collectors {
    readers: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
    /// The writer goes on, and holds the store, also if nothing is collected.
    to: Inlet,
    is_closing: Arc<AtomicBool>,
}

// === impl Collectors ===

impl Collectors {
    fn start(
        options: &mut Options,
        mut store: Store,
        stopper: &Stopper,
    ) -> Result<Self, ServerError> {
        store.set_thresholds(options.thresholds);
        let mut positions = Vec::new();
        // However a path is written, it is one file.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        options.follow = options.follow.iter().map(absolute).collect();
        options.follow.sort();
        options.follow.dedup();
        for path in &options.follow {
            let known = store.positions(&path.to_string_lossy()).map_err(ServerError::Store)?;
            positions.push((path.clone(), known));
        }
        let (to, writer) = inlet(store);
        let is_closing = Arc::new(AtomicBool::new(false));
        let writer = start_writer(writer, &is_closing, stopper)?;
        let mut readers = Vec::new();
        for (path, known) in positions {
            let follower = Follower::new(path, known, options.reader.clone(), to.clone());
            let follower = follower.beside(&options.follow);
            readers.push(start_follower(follower, stopper)?);
        }
        if options.reads_stdin {
            start_stdin(options.reader.clone(), to.clone(), stopper)?;
        }
        if let Some(receiver) = options.receiver.take() {
            let sender = Sender::new(&options.store, receiver, &to).map_err(ServerError::Store)?;
            let report = std::mem::replace(&mut options.report, Box::new(|_| {}));
            start_sender(sender, report, stopper)?;
        }
        Ok(Self { readers, writer, to, is_closing })
    }

    /// Waits until what was read is written. Standard input may be blocked in a read, and the receiver of alerts may be
    /// slow: they are not waited for.
    fn end(self) {
        for reader in self.readers {
            let _ = reader.join();
        }
        self.is_closing.store(true, Ordering::Relaxed);
        let _ = self.writer.join();
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServerError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(ServerError::System)
}

fn start_writer(
    writer: Writer,
    is_closing: &Arc<AtomicBool>,
    stopper: &Stopper,
) -> Result<JoinHandle<()>, ServerError> {
    let (is_closing, stopper) = (Arc::clone(is_closing), stopper.clone());
    start("writer", move || {
        if let Err(error) = writer.run(&is_closing) {
            stopper.fail(ServerError::Store(error));
        }
    })
}

fn start_follower(follower: Follower, stopper: &Stopper) -> Result<JoinHandle<()>, ServerError> {
    let stopper = stopper.clone();
    start("follower", move || {
        if let Err(error) = follower.run(&stopper.shared.is_stopping) {
            stopper.fail(ServerError::File(error));
        }
    })
}

fn start_stdin(reader: LineReader, to: Inlet, stopper: &Stopper) -> Result<(), ServerError> {
    let stopper = stopper.clone();
    start("stdin", move || {
        if let Err(error) = read_pipe(io::stdin(), &reader, &to) {
            stopper.fail(ServerError::Stdin(error));
        }
    })
    .map(drop)
}

/// Delivers alerts. What cannot be delivered is tried again, by the next process at the latest.
fn start_sender(sender: Sender, report: Report, stopper: &Stopper) -> Result<(), ServerError> {
    let stopper = stopper.clone();
    start("alerts", move || {
        if let Err(error) = sender.run(&stopper.shared.is_stopping, report) {
            stopper.fail(ServerError::Store(error));
        }
    })
    .map(drop)
}

// === impl Stopper ===

impl Stopper {
    /// Ends the server: no new requests, and what was read is written.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        for handle in self.handles().iter() {
            handle.graceful_shutdown(Some(GRACE));
        }
    }

    /// Ends the server with an error. Only the first is reported.
    fn fail(&self, error: ServerError) {
        let mut first = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        drop(first);
        self.stop();
    }

    /// The handle of a server of HTTP that ends with this one.
    fn handle(&self) -> Handle<SocketAddr> {
        let handle = Handle::new();
        self.handles().push(handle.clone());
        if self.shared.is_stopping.load(Ordering::Relaxed) {
            handle.graceful_shutdown(Some(GRACE));
        }
        handle
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, Vec<Handle<SocketAddr>>> {
        self.shared.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn result(&self) -> Result<(), ServerError> {
        let mut error = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.take().map_or(Ok(()), Err)
    }
}

// === impl ServerError ===

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
            Self::Stdin(error) => write!(f, "standard input cannot be read: {error}"),
            Self::Ledger(error) => error.fmt(f),
            Self::System(error) => write!(f, "the server cannot go on: {error}"),
        }
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_a_part_of_the_connections_and_gives_them_back() {
        let sources = Arc::default();
        let of = |number: u8| IpAddr::from([192, 0, 2, number]);
        let mut open: Vec<Counted> =
            std::iter::from_fn(|| Counted::new(&sources, of(1))).take(MAX_CONNECTIONS).collect();
        assert_eq!(open.len(), MAX_CONNECTIONS_OF_ONE);
        assert!(Counted::new(&sources, of(2)).is_some(), "another address is not kept out");
        for number in 2..=4 {
            open.extend(std::iter::from_fn(|| Counted::new(&sources, of(number))));
        }
        assert_eq!(open.len(), MAX_CONNECTIONS);
        assert!(Counted::new(&sources, of(9)).is_none(), "all are taken");
        drop(open);
        assert!(sources.lock().unwrap().is_empty());
        assert!(Counted::new(&sources, of(1)).is_some());
    }
}
