//! A listener of a real Envoy as a machine that holds a scenario's conversation.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use serde_json::{Value, json};
use vkey::audit::Outcome as AuditOutcome;
use vkey::host::MemoryStore;
use vkey::reply::Reply;

use super::backend::Backend;
use super::listeners::{Listeners, addresses, names_in};
use super::logs::Logs;
use super::unfit::Start;
use crate::keys::now_secs;
use crate::scenario::format::Outcome;
use crate::scenario::step::Trailers;
use crate::scenario::text::{from_bytes, shifted};
use crate::scenario::{Configured, Machine, Observed, Sent, is_closed};
use crate::support::origin::write_chunk;
use crate::support::{Connection, Envoy, Options, Request, Response, wait_for};

/// Headers that Envoy puts on every answer, or the backend.
const ON_EVERY_ANSWER: [(&str, &str); 5] = [
    ("connection", "the codec, where it closes the connection"),
    ("content-length", "the codec"),
    ("date", "the codec"),
    ("server", "the connection manager"),
    ("transfer-encoding", "the codec"),
];

/// How the module names its replies to the proxy's own logs.
const OF_MODULE: &str = "vkey_";

const STATES: [&str; 2] = ["vkey.audit", "vkey.decision"];

/// One Envoy for all scenarios, and what stands around it.
pub(crate) struct Site {
    envoy: Envoy,
    listeners: Listeners,
    logs: Logs,
    backend: Backend,
}

impl Site {
    /// Starts an Envoy with a module; without one it is that of `VKEY_TEST_WASM`.
    pub(crate) fn start(module: Option<&Path>) -> Arc<Self> {
        let backend = Backend::start();
        let port = backend.address.port();
        let (sender, receiver) = channel();
        // What is removed is gone when it has drained, and its VMs with it.
        let mut options = Options::new("scenarios").arguments(&["--drain-time-s", "1"]);
        if let Some(module) = module {
            options = options.module(module.to_owned());
        }
        let envoy = Envoy::start(options.edit(move |config| {
            let logger = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                /access_log/0/typed_config/path";
            let access_log = config.pointer(logger).and_then(Value::as_str).expect("a path");
            let access_log = format!("{access_log}.scenarios");
            let cluster = &mut config["static_resources"]["clusters"][0];
            cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
                json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
            let listeners = Listeners::new(config, &access_log);
            sender.send((listeners, access_log)).expect("this thread waits");
        }));
        let (listeners, access_log) = receiver.recv().expect("sent before Envoy started");
        envoy.admin_post("/logging?wasm=trace");
        let logs = Logs::new(access_log.into(), envoy.proxy_log_path());
        Arc::new(Self { envoy, listeners, logs, backend })
    }
}

impl Site {
    /// What Envoy's log says of a listener.
    fn story(&self, name: &str) -> String {
        let log = self.envoy.proxy_log();
        let lines = log.lines().filter(|line| names_in(line).any(|found| found == name));
        lines.map(|l| &l[..l.len().min(200)]).collect::<Vec<_>>().join("\n")
    }
}

/// A listener with a module of its own.
pub(crate) struct Gateway {
    site: Arc<Site>,
    name: String,
    /// Where it accepts; nothing before it is configured and where it was rejected.
    address: Option<SocketAddr>,
    start: Start,
    /// When it was configured, Unix seconds.
    since: u64,
}

impl Gateway {
    pub(crate) fn new(
        site: Arc<Site>,
        plugin: &[u8],
        env: &BTreeMap<String, String>,
        start: Start,
    ) -> Self {
        let name = site.listeners.add(plugin, env);
        Self { site, name, address: None, start, since: 0 }
    }

    /// Where the listener accepts, or nothing where Envoy does not take it.
    fn listening(&self) -> Option<SocketAddr> {
        let found = || {
            let status = self.site.envoy.admin_get("/listeners?format=json").json();
            let address = addresses(&status).get(&self.name).copied().map(Some);
            address.or_else(|| self.site.logs.is_rejected(&self.name).then_some(None))
        };
        wait_for(found, || {
            format!("neither listening nor rejected: {}", self.site.story(&self.name))
        })
    }

    /// Returns when the worker has the listener, and so a configured module. What does not begin with a
    /// PROXY header is turned away before the module hears of it.
    fn knock(address: SocketAddr) {
        let mut connection = Connection::open(address);
        // Envoy may have closed the connection before all of it is written.
        let _ = connection.send_raw(b"no PROXY header\r\n\r\n");
        while matches!(connection.read_some(), Ok(1..)) {}
    }

    fn ask(address: SocketAddr, sent: &Sent) -> Response {
        let source: SocketAddr =
            sent.source.as_deref().and_then(|text| text.parse().ok()).expect("an address");
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let to = if source.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
        let head = format!("PROXY {family} {} {to} {} 443\r\n", source.ip(), source.port());
        let mut connection = Connection::open(address);
        connection.send_raw(head.as_bytes()).expect("the listener reads");
        if sent.body.is_empty() {
            return connection.send(&request(sent));
        }
        for part in parts(sent, request(sent)) {
            // What is refused early is not read to its end.
            if connection.send_raw(&part).is_err() {
                break;
            }
        }
        connection.read_response().expect("an answer")
    }
}

fn request(sent: &Sent) -> Request {
    let pseudo = |wanted: &str| {
        let found = sent.headers.iter().find(|(name, _)| name == wanted.as_bytes());
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let mut request = Request::new(&from_bytes(&pseudo(":method")), pseudo(":path"));
    request = request.header("host", pseudo(":authority"));
    for (name, value) in sent.headers.iter().filter(|(name, _)| !name.starts_with(b":")) {
        request = request.header(&from_bytes(name), value);
    }
    // Envoy drops an upgrade without it.
    let has =
        |wanted: &[u8]| sent.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    if has(b"upgrade") && !has(b"connection") {
        request = request.header("connection", "upgrade");
    }
    let length = sent.ending.body.iter().sum::<u64>();
    request.body(vec![b'x'; usize::try_from(length).expect("a length")])
}

/// The bytes of a request with a body, in the parts in which they are written.
fn parts(sent: &Sent, request: Request) -> Vec<Vec<u8>> {
    let is_sized = sent.headers.iter().any(|(name, _)| name == b"content-length");
    if is_sized {
        return [vec![request.encode()], sent.body.clone()].concat();
    }
    let head = request.header("transfer-encoding", "chunked").encode();
    let chunk = |part: &Vec<u8>| {
        let mut chunk = Vec::new();
        write_chunk(&mut chunk, part).expect("memory");
        chunk
    };
    let mut end = b"0\r\n".to_vec();
    if let Trailers::Shown(trailers) = &sent.trailers {
        trailers.iter().for_each(|(name, value)| {
            end.extend(format!("{name}: {value}\r\n").into_bytes());
        });
    }
    end.extend(b"\r\n");
    [vec![head], sent.body.iter().map(chunk).collect(), vec![end]].concat()
}

impl Machine for Gateway {
    fn configure(&mut self, _worker: u64) -> Configured {
        self.address = self.listening();
        if let Some(address) = self.address {
            Self::knock(address);
        }
        self.since = now_secs();
        let log = self.site.logs.lines(&self.name);
        let outcome = match self.address {
            None => Outcome::Refused,
            Some(_) if is_closed(&log) => Outcome::Closed,
            Some(_) => Outcome::Open,
        };
        Configured { outcome, log }
    }

    fn start(&self, at: i64) -> Option<u64> {
        match self.start {
            Start::EachStep => Some(shifted(now_secs(), -at)),
            Start::FirstStep => Some(self.since),
            Start::Fixed => None,
        }
    }

    fn pins_clock(&self) -> bool {
        false
    }

    fn request(&mut self, _worker: u64, sent: &Sent) -> Observed {
        let Some(address) = self.address else {
            return Observed::default();
        };
        self.site.backend.expect(&self.name, sent);
        let response = Self::ask(address, sent);
        let end = wait_for(
            || self.site.logs.end(&self.name),
            || format!("no end of {response:?}: {}", self.site.story(&self.name)),
        );
        let requests = self.site.backend.take(&self.name);
        let by_module = end["details"].as_str().is_some_and(|text| text.contains(OF_MODULE));
        let forwarded = !requests.is_empty();
        let own = own_headers(&response, &sent.ending.headers);
        let reply = by_module.then(|| reply(&response, &own, &end));
        let received = requests.into_iter().next().unwrap_or_default();
        let told = |(name, value): &(String, String)| (name.clone(), value.clone());
        Observed {
            forwarded: Some(forwarded),
            withheld: forwarded && by_module,
            replies: u32::from(by_module),
            reply,
            response_headers: own.iter().filter(|_| !by_module).map(told).collect(),
            upstream_body: received.body,
            upstream: received.headers,
            response_body: if by_module { Vec::new() } else { response.body.clone() },
            filter_state: STATES.iter().filter_map(|key| state(&end, key)).collect(),
            outcome: AuditOutcome {
                status: Some(response.status.into()),
                ..AuditOutcome::default()
            },
            log: self.site.logs.lines(&self.name),
            // Envoy reports the end once, with one line.
            wrote_twice: self.site.logs.end(&self.name).is_some(),
        }
    }

    fn store(&self) -> Option<&MemoryStore> {
        None
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.site.listeners.remove(&self.name);
    }
}

fn state(end: &Value, key: &str) -> Option<(String, String)> {
    Some((key.to_owned(), end[key].as_str()?.to_owned()))
}

/// The headers that neither Envoy nor the backend put on an answer.
fn own_headers(
    response: &Response,
    of_backend: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let own = response.headers.iter().filter(|(name, _)| {
        let on_every = |(known, _): &(&str, &str)| known == name;
        !ON_EVERY_ANSWER.iter().any(on_every) && !of_backend.contains_key(name)
    });
    own.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned())).collect()
}

fn reply(response: &Response, own: &[(String, String)], end: &Value) -> Reply {
    let header = |(name, value): &(String, String)| (name.clone().into(), value.clone().into());
    Reply {
        status: response.status,
        grpc_status: None,
        headers: own.iter().map(header).collect(),
        body: response.text().into(),
        details: end["details"].as_str().unwrap_or_default().to_owned().into(),
    }
}
