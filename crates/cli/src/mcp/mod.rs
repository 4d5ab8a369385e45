//! `vkey mcp`: a gate between an MCP client and an MCP server on standard input and output (MCP, "stdio").
//! The module evaluates each message of the client as the request that it would be over HTTP.
//!
//! [`message`] parses a line, [`session`] evaluates it, [`relay`] forwards it over the [`stdio_proxy`], and
//! [`shutdown`] ends the server. No lock is held while waiting for a stream, except that of the stream itself;
//! a [`writer`] writes to streams that may have no reader.

mod activity;
mod child;
mod error;
mod head;
mod id;
mod key_check;
mod key_refusal;
mod line_ends;
mod message;
mod names;
mod path_refusal;
mod refusal;
mod relay;
mod route;
mod scan;
mod session;
mod setup;
mod shutdown;
mod sink;
mod stdio_proxy;
mod writer;

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdout};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU,
    SIGXFSZ,
};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use zeroize::Zeroizing;

use vkey::config::RingConfig;
use vkey_vm::BuiltIn;

use super::embedded::{EmbeddedHost, HostArgs, LogLevel};
use super::error::Error;
use super::exit::Exit;
use super::input::{KeyArgs, Place};
use super::output::Output;
use super::ring_secret::{RingEnvironment, SecretFileArgs};
use super::time;
use activity::Activity;
use child::Server;
use error::McpError;
use head::Head;
use key_check::KeyCheck;
use relay::Bounds;
use session::Session;
use setup::SetupArgs;
use shutdown::{FINAL_WRITE_LIMIT, Shutdown};
use sink::Sink;
use stdio_proxy::{Event, StdioProxy};

#[derive(clap::Args)]
#[command(mut_arg("key_file", |arg| arg.help("Read the key from a file")))]
#[command(mut_arg("config", |arg| arg.required(false).required_unless_present("setup")))]
pub(super) struct Args {
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    setup: SetupArgs,
    #[command(flatten)]
    secret: SecretFileArgs,
    /// The path that the module sees
    #[arg(long, value_name = "PATH", default_value = "/mcp", value_parser = path)]
    path: String,
    /// The authority that the module sees
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    authority: String,
    /// The client address that the module sees
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    source: IpAddr,
    /// Append audit lines to this file, which may be renamed; by default they go to standard error
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// How long a request may wait without a response or a progress report of the server
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = duration)]
    timeout: Duration,
    /// How long a request may wait for its response, even if the server reports progress
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    max_time: Duration,
    /// How long the server may take to end by itself when its input has ended and no request is open, and again after
    /// SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    grace: Duration,
    /// The longest message in bytes, in either direction
    #[arg(long, value_name = "N", default_value = "16777216", value_parser = clap::value_parser!(u32).range(1..))]
    max_bytes: u32,
    /// The lowest level of the module's log that goes to standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Warn)]
    log_level: LogLevel,
    /// The server's command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs `vkey mcp`.
pub(super) fn run(args: &Args, modules: BuiltIn, out: &mut Output) -> Result<Exit, Error> {
    if let Some(folder) = args.setup.folder() {
        return args.setup.run(folder, &args.command, out);
    }
    let place = args.key.place();
    let on_stdin = |place: Option<&Place>| matches!(place, Some(Place::Stdin));
    if on_stdin(Some(&place)) || args.secret.is_stdin() || args.host.reads_stdin() {
        return Err(McpError::StdinTaken.into());
    }
    let key = args.key.read(out)?;
    let (mut plugin, mut config) = args.host.read_config()?;
    if let Some((text, routed)) = route::add(&plugin.text, &config, &args.path) {
        (plugin.text, config) = (text, routed);
    }
    let environment = |rings: &[RingConfig]| RingEnvironment::read(rings, &args.secret);
    let host = args.host.load(modules, (plugin, config), environment)?;
    let head = args.head(&host, &key);
    let key_variable = match place {
        Place::Variable(_, name) => Some(name),
        _ => None,
    };
    let hidden = host.ring_variables.iter().cloned().chain(key_variable).collect();
    let sink = Sink::open(args.audit.as_deref(), args.timeout, args.log_level.into())?;
    let sink = Arc::new(sink);
    let checked = args.key_check(&key).run(&host, &head, &sink);
    let done = checked.and_then(|()| args.hold_session(host, head, hidden, &sink));
    let done = done.and_then(|exit| Ok(sink.settle(FINAL_WRITE_LIMIT).map(|()| exit)?));
    let exit = done.unwrap_or_else(|error| {
        // Not printed like other errors, which could block: standard error may have no reader.
        sink.note(&error);
        error.exit()
    });
    sink.flush(FINAL_WRITE_LIMIT);
    Ok(exit)
}

impl Args {
    fn key_check<'a>(&'a self, key: &'a str) -> KeyCheck<'a> {
        KeyCheck { key, path: &self.path, authority: &self.authority, source: self.source }
    }

    /// The parts of a request that all messages share (MCP, "Streamable HTTP": "Sending Messages to the
    /// Server").
    fn head(&self, host: &EmbeddedHost, key: &Zeroizing<String>) -> Head {
        let fixed = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", &self.authority),
            (":path", &self.path),
            message::CONTENT_TYPE,
            ("accept", "application/json, text/event-stream"),
        ];
        let headers = fixed.into_iter().map(|(name, value)| (name.into(), value.into()));
        let headers = headers.chain([host.key_header(key)]).collect();
        Head { headers, source: self.source.to_string() }
    }

    /// Starts the server, and waits for its end. The `hidden` variables are removed from its environment.
    fn hold_session(
        &self,
        host: EmbeddedHost,
        head: Head,
        hidden: Vec<String>,
        sink: &Arc<Sink>,
    ) -> Result<Exit, Error> {
        let activity = Arc::new(Activity::start());
        let session = Session::new(host, head, Arc::clone(sink), Arc::clone(&activity))?;
        let protocol = || Output::protocol().map_err(McpError::System);
        let (client, client_end) = (Mutex::new(protocol()?), protocol()?);
        let (events, inbox) = channel();
        // Before the server starts, so that no signal leaves it behind.
        listen_for_signals(events.clone(), Arc::clone(sink)).map_err(McpError::System)?;
        let mut server =
            Server::start(&self.command, hidden.into_iter()).map_err(McpError::Spawn)?;
        let (input, output, errors) =
            server.pipes().ok_or_else(|| McpError::Spawn(io::ErrorKind::Other.into()))?;
        let (sink, server_input) = (Arc::clone(sink), Mutex::new(Some(input)));
        let proxy = StdioProxy {
            session,
            sink,
            activity,
            events,
            client,
            client_end,
            server: server_input,
        };
        let proxy = Arc::new(proxy);
        self.start(&proxy, &server, output, errors).map_err(McpError::System)?;
        Shutdown::new(proxy, server, inbox, (self.grace, self.timeout)).run()
    }

    /// Starts the threads of a session.
    fn start(
        &self,
        proxy: &Arc<StdioProxy>,
        server: &Server,
        output: ChildStdout,
        errors: ChildStderr,
    ) -> io::Result<()> {
        let max_bytes = usize::try_from(self.max_bytes).unwrap_or(usize::MAX);
        let bounds = Bounds { timeout: self.timeout, max_time: self.max_time };
        let pid = server.pid().ok_or(io::ErrorKind::Other)?;
        spawn(proxy, move |proxy| relay::from_server(proxy, output, max_bytes))?;
        spawn(proxy, move |proxy| relay::from_server_stderr(proxy, errors))?;
        spawn(proxy, move |proxy| {
            child::await_end(pid);
            proxy.report(Event::ServerEnded);
        })?;
        spawn(proxy, move |proxy| relay::watch(proxy, bounds))?;
        spawn(proxy, move |proxy| relay::from_client(proxy, max_bytes))
    }
}

fn spawn(
    proxy: &Arc<StdioProxy>,
    work: impl FnOnce(&StdioProxy) + Send + 'static,
) -> io::Result<()> {
    let proxy = Arc::clone(proxy);
    thread::Builder::new().spawn(move || work(&proxy)).map(drop)
}

/// The usual signals that end a process, and two that do not end a session: SIGHUP, because a client that
/// hangs up closes its streams, and SIGXFSZ, after which writes to the file fail like on a full disk.
const SIGNALS: [i32; 11] = [
    SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ, SIGVTALRM,
    SIGPROF,
];

/// Reports termination signals from now on, and reopens the audit file on SIGHUP. After the session there is
/// nobody to report to, and no server.
fn listen_for_signals(events: Sender<Event>, sink: Arc<Sink>) -> io::Result<()> {
    let mut signals = Signals::new(SIGNALS)?;
    let hang_up = reopener(events.clone(), sink)?;
    let report = move || {
        for signal in signals.forever() {
            match signal {
                // A request that already waits has not been started.
                SIGHUP => _ = hang_up.try_send(()),
                SIGXFSZ => {}
                signal if events.send(Event::Signal(signal)).is_err() => {
                    _ = emulate_default_handler(signal);
                }
                _ => {}
            }
        }
    };
    thread::Builder::new().spawn(report).map(drop)
}

/// Reopens the audit file on request. Opening may block if the file is a pipe without a reader, so it has its
/// own thread.
fn reopener(events: Sender<Event>, sink: Arc<Sink>) -> io::Result<SyncSender<()>> {
    let (sender, receiver) = sync_channel(1);
    let reopen = move || {
        let failures = receiver.iter().filter_map(|()| sink.reopen().err());
        failures.for_each(|failure| _ = events.send(Event::Failed(failure.into())));
    };
    thread::Builder::new().spawn(reopen)?;
    Ok(sender)
}

/// Locks a mutex, even if another thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(text: &str) -> Result<String, &'static str> {
    let path = Some(text).filter(|text| text.starts_with('/'));
    path.map(str::to_owned).ok_or("expected a path, e.g. /mcp")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    const MOST: Duration = Duration::from_secs(86_400);
    let duration = time::parse_wait(text);
    let duration = duration.filter(|duration| !duration.is_zero() && *duration <= MOST);
    duration.ok_or("expected a duration up to 1d, e.g. 500ms or 5m")
}
