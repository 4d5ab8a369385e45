//! A request as it shows itself, and how the engine evaluates it.

use std::borrow::Cow;
use std::cell::{LazyCell, OnceCell};
use std::net::IpAddr;
use std::rc::Rc;

use crate::access::cidr::{address_text, parse_address};
use crate::access::{
    Access, AmbiguousPath, CanonicalPath, MAX_PATH_BYTES, Mcp, McpCall, Models, exact_host,
    query_keys, without_query,
};
use crate::audit::{self, AuditRecord, MASK_VALUE, Tags, mcp_member, starts_key};
use crate::body::Dialect;
use crate::body::mcp::{Era, Fault, Message, MessageKind, MethodClass, Mirrors};
use crate::body::request::{RequestFacts, Target};
use crate::decision::{Decision, DenyReason};
use crate::engine::{Engine, Identity, KnownKey, McpTarget, Question, Reading};
use crate::headers::RequestHead;
use crate::json::push_quoted;
use crate::limits::sessions::SessionId;
use crate::reply::{Refusal, Rpc};
use crate::time::secs;

use super::content::Content;
use super::step::Step;

/// The most names of a query in an audit line, and the longest of each, in bytes.
const MAX_QUERY_KEYS: usize = 32;
const MAX_QUERY_KEY_BYTES: usize = 64;

/// The longest texts of a client in an audit line, in bytes.
const MAX_METHOD_BYTES: usize = 32;
const MAX_AUTHORITY_BYTES: usize = 255;
const MAX_AMBIGUOUS_PATH_BYTES: usize = 1024;

/// The longest name of a model that a response names, in an audit line, in bytes.
const MAX_MODEL_BYTES: usize = 128;

/// The longest path that is recognised as one of an AI service for the words of a refusal, in bytes. A refusal must be cheap
/// for any path.
const MAX_AI_PATH_BYTES: usize = 1024;

/// The longest request id in an audit line, in bytes: shorter than any key, so that no key fits.
const MAX_REQUEST_ID_BYTES: usize = 64;

const NANOS_PER_MICRO: u64 = 1_000;

/// What a request said of itself, kept for its audit line. It is boxed, because it passes from phase to phase.
#[derive(Debug)]
pub struct Seen {
    at_ns: u64,
    body_bytes: u64,
    request_id: Option<String>,
    /// The address of the connection's other end.
    peer: Option<IpAddr>,
    source: Option<IpAddr>,
    method: Option<Cow<'static, str>>,
    authority: Option<String>,
    /// The authority contains a part of a key.
    authority_is_hidden: bool,
    path: Option<String>,
    query_keys: Vec<String>,
    /// The MCP call, as in an audit line.
    mcp: Option<String>,
    /// What a refusal has to say, if the request is for an MCP server.
    rpc: Option<Box<Rpc>>,
    /// The rules that its message of MCP follows, if it has one.
    era: Option<Era>,
    /// The model that is refused, or the first that the request names, and how many more it names, as in an audit line.
    model: Option<String>,
    /// The model that is refused, in JSON without quotes.
    refused_model: Option<String>,
    /// The id of the plan that was in force.
    plan: Option<Rc<str>>,
}

/// Whether the headers of a message of MCP say the same as its body, and the rules that it follows.
type Mirrored = Result<Era, Fault>;

/// What an earlier look at a request has seen.
pub struct Earlier {
    /// What the request said of itself.
    pub seen: Box<Seen>,
    /// Whether its headers are the same now, byte for byte.
    pub has_same_headers: bool,
}

/// What a request shows of itself before anything is decided.
pub struct Request<'a> {
    /// Its headers.
    pub head: &'a RequestHead<'a>,
    /// Asks the host for the address of the connection's other end. That costs as much as deciding, so it is done only
    /// if something depends on it.
    pub peer: &'a dyn Fn() -> Option<IpAddr>,
    /// Whether the module writes the whole audit line, which shows that address.
    pub writes_line: bool,
    /// Unix nanoseconds.
    pub now_ns: u64,
    /// What the body says, if it was read.
    pub body: Option<&'a Content>,
}

/// The evaluation of a request, before it is counted.
#[derive(Debug)]
pub enum Evaluation {
    /// A key was verified.
    Known {
        /// The key, valid or not.
        key: Rc<KnownKey>,
        /// What to do next, as far as the body does not decide it.
        step: Step,
        /// What of the body a decision depends on that the headers allow.
        reading: Reading,
    },
    /// The request needs no key and is forwarded.
    Keyless(Keyless),
    /// The request asks whether the gate is ready.
    Readiness,
    /// No key was verified.
    Stranger {
        /// Why not.
        reason: DenyReason,
        /// Whether that is counted for the source of the request.
        is_counted: bool,
    },
}

/// The addresses of a request, asked for once, if something depends on them.
struct Addresses<'a> {
    request: &'a Request<'a>,
    trusted_hops: u64,
    known: OnceCell<KnownAddresses>,
}

/// Those of the connection's other end and of the client, as far as they are known.
#[derive(Clone, Copy, Default)]
struct KnownAddresses {
    peer: Option<IpAddr>,
    source: Option<IpAddr>,
}

/// A message of MCP, with all that decides on it besides its key.
struct Judged<'a> {
    message: &'a Message,
    /// The server.
    target: Option<McpTarget>,
    mirrored: Mirrored,
    /// The revision that the headers say.
    said_revision: Option<&'a str>,
}

/// Why a forwarded request needs no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyless {
    /// It is the preflight of a browser.
    Preflight,
    /// The configuration makes it public.
    Public,
}

impl Evaluation {
    fn of(
        engine: &mut Engine,
        request: &Request<'_>,
        path: Result<CanonicalPath<'_>, AmbiguousPath>,
        addresses: &Addresses<'_>,
        message: Option<&Judged<'_>>,
        allows_headers: bool,
        client_cert: impl FnOnce() -> Option<String>,
    ) -> Self {
        let now_secs = secs(request.now_ns);
        if let Ok(path) = &path {
            let access = || access(request.head, path.clone(), addresses.source(), None, now_secs);
            if engine.asks_for_readiness(request.head, path) {
                return Self::Readiness;
            }
            if engine.is_public(request.head, access) {
                return Self::Keyless(Keyless::Public);
            }
        }
        let (key, validity) = match engine.identify_sender(request.head, now_secs) {
            Identity::Known { key, validity } => (key, validity),
            Identity::Stranger(DenyReason::KeyMissing)
                if path.is_ok() && engine.allows_preflight(request.head, || addresses.source()) =>
            {
                return Self::Keyless(Keyless::Preflight);
            }
            Identity::Stranger(reason) => {
                let is_counted = engine.counts_failure(reason, now_secs);
                return Self::Stranger { reason, is_counted };
            }
        };
        let (shown_cert, reading) = (OnceCell::new(), OnceCell::new());
        let engine = &*engine;
        let access = LazyCell::new(|| {
            let path = path.or_else(|ambiguous| match key.keeps_escaped_slashes() {
                true => read_path(request.head, CanonicalPath::parse_keeping_slashes),
                false => Err(ambiguous),
            })?;
            let cert = key.needs_client_cert().then(client_cert).flatten();
            let cert = shown_cert.get_or_init(|| cert).as_deref();
            let (models, mcp) = match (request.body, message) {
                (Some(Content::Ai(facts)), _) => (Models::of(facts), Mcp::None),
                (_, Some(message)) => (Models::None, message.call().map_or(Mcp::None, Mcp::Call)),
                _ => {
                    let reading = reading.get_or_init(|| engine.reading(&key, request.head, &path));
                    (reading.models(), reading.mcp())
                }
            };
            let access = access(request.head, path, addresses.source(), cert, now_secs);
            Ok(Access { models, mcp, ..access })
        });
        let question = Question { key: &key, validity, head: request.head, allows_headers, access };
        let step = Step::of(engine, &question);
        drop(question);
        let reading = reading.into_inner().unwrap_or_default();
        let checked = match message {
            Some(Judged { message, mirrored, .. }) => {
                engine.check_message(request.head, message, *mirrored)
            }
            None => {
                let facts = request.body.and_then(Content::facts);
                engine.check_body(&key, &reading, facts)
            }
        };
        let step = step.and(engine, checked);
        Self::Known { key, step, reading }
    }
}

impl<'a> Addresses<'a> {
    fn new(engine: &Engine, request: &'a Request<'a>) -> Self {
        let trusted_hops = engine.settings().client.trusted_hops;
        Self { request, trusted_hops, known: OnceCell::new() }
    }

    /// The address of the client: the peer address, or an entry of `x-forwarded-for` if the plan trusts the proxies that
    /// wrote it. `None` if it is unknown: there are fewer entries than trusted proxies, or the entry is not an address.
    fn source(&self) -> Option<IpAddr> {
        self.get().source
    }

    fn get(&self) -> KnownAddresses {
        *self.known.get_or_init(|| match usize::try_from(self.trusted_hops).unwrap_or(usize::MAX) {
            0 => {
                let peer = (self.request.peer)();
                KnownAddresses { peer, source: peer }
            }
            hops => {
                let source = self.request.head.forwarded_for(hops).and_then(parse_address);
                KnownAddresses { peer: None, source }
            }
        })
    }

    /// The addresses, if they were asked for or no host call is needed.
    fn known(&self) -> KnownAddresses {
        if self.trusted_hops > 0 {
            self.get()
        } else {
            self.known.get().copied().unwrap_or_default()
        }
    }
}

impl<'a> Judged<'a> {
    fn new(
        engine: &Engine,
        head: &RequestHead<'a>,
        path: &Result<CanonicalPath<'_>, AmbiguousPath>,
        message: &'a Message,
    ) -> Self {
        let target = match path {
            Ok(path) => engine.mcp_server(path),
            Err(_) => {
                let path = read_path(head, CanonicalPath::parse_keeping_slashes).ok();
                path.and_then(|path| engine.mcp_server(&path))
            }
        };
        let mirrors = Mirrors::read(head.fields());
        let (mirrored, said_revision) = (mirrors.check(message), mirrors.revision());
        Self { message, target, mirrored, said_revision }
    }

    /// The call; `None` if the path is that of no server.
    fn call(&self) -> Option<McpCall<'_>> {
        self.target.as_ref().map(|target| target.call(self.message))
    }

    /// The call, as in an audit line. A response has none.
    fn shown_call(&self) -> Option<String> {
        let call = self.call().filter(|_| self.message.kind != MessageKind::Response)?;
        Some(mcp_member(&call, self.message.revision.as_deref().or(self.said_revision)))
    }
}

impl Keyless {
    /// The decision on such a request.
    pub fn decision(self) -> Decision {
        match self {
            Self::Preflight => Decision::Preflight,
            Self::Public => Decision::Public,
        }
    }
}

impl Seen {
    /// A request that is not evaluated.
    pub fn new(head: &RequestHead<'_>, peer: Option<IpAddr>, now_ns: u64) -> Box<Self> {
        let peer_again = || peer;
        let request = Request { head, peer: &peer_again, writes_line: true, now_ns, body: None };
        let mut seen = Self::at(&canonical_path(head), &request);
        seen.set_addresses(KnownAddresses { peer, source: peer });
        seen
    }

    /// What the headers say.
    fn at(path: &Result<CanonicalPath<'_>, AmbiguousPath>, request: &Request<'_>) -> Box<Self> {
        let head = request.head;
        let keys = query_keys(head.target.unwrap_or_default()).take(MAX_QUERY_KEYS);
        let tags = Tags::new(head.tags());
        let is_hidden = |text: &str| tags.are_shown_by(text.as_bytes());
        let shown = |text: String| masked(&tags, text);
        let authority = head.authority.map(|authority| text(authority, MAX_AUTHORITY_BYTES));
        Box::new(Self {
            at_ns: request.now_ns,
            body_bytes: 0,
            request_id: head.request_id.and_then(|id| match is_uuid(id) {
                true => Some(text(id, id.len())),
                false => request_id(id).map(shown),
            }),
            peer: None,
            source: None,
            method: head.method.map(|method| match usual_method(method) {
                Some(usual) => Cow::Borrowed(usual),
                None => Cow::Owned(shown(text(method, MAX_METHOD_BYTES))),
            }),
            authority_is_hidden: authority.as_deref().is_some_and(is_hidden),
            authority,
            path: head.target.map(|target| match path {
                Ok(canonical) => shown(canonical.as_str().to_owned()),
                // A path that a tier may allow is shown whole.
                Err(_) if read_path(head, CanonicalPath::parse_keeping_slashes).is_ok() => {
                    shown(text(without_query(target), MAX_PATH_BYTES))
                }
                Err(_) => shown(text(without_query(target), MAX_AMBIGUOUS_PATH_BYTES)),
            }),
            query_keys: keys.map(|key| shown(text(key, MAX_QUERY_KEY_BYTES))).collect(),
            mcp: None,
            rpc: None,
            era: None,
            model: None,
            refused_model: None,
            plan: None,
        })
    }

    /// The same request with its body. `mcp`: the call of its message of MCP, as in an audit line.
    fn with_body(mut self: Box<Self>, request: &Request<'_>, mcp: Option<String>) -> Box<Self> {
        let tags = Tags::new(request.head.tags());
        let facts = request.body.and_then(Content::facts);
        let model = facts.and_then(|facts| Some(counted(facts.model()?, facts)));
        [self.mcp, self.model] = [mcp, model].map(|text| text.map(|text| masked(&tags, text)));
        self.refused_model = None;
        self
    }

    /// Decides, apart from counting. `earlier`: what an earlier look has seen. `client_cert` is asked for the digest of the
    /// client's certificate only if a restriction depends on it.
    pub fn evaluate(
        engine: &mut Engine,
        request: &Request<'_>,
        earlier: Option<Earlier>,
        client_cert: impl FnOnce() -> Option<String>,
    ) -> (Box<Self>, Evaluation) {
        let path = canonical_path(request.head);
        let message = request.body.and_then(Content::message);
        let message = message.map(|message| Judged::new(engine, request.head, &path, message));
        let mcp = message.as_ref().and_then(Judged::shown_call);
        // No request is held that an earlier stage than that of the path refuses.
        let allows_headers = earlier.as_ref().is_some_and(|earlier| earlier.has_same_headers);
        let seen = match earlier {
            Some(Earlier { seen, has_same_headers: true }) => seen,
            earlier => {
                let mut seen = Self::at(&path, request);
                if let Some(Earlier { seen: earlier, .. }) = earlier {
                    seen.follow(&earlier);
                }
                seen
            }
        };
        let mut seen = seen.with_body(request, mcp);
        seen.plan = Some(Rc::clone(engine.plan_id()));
        let addresses = Addresses::new(engine, request);
        let mirrored = message.as_ref().map(|message| message.mirrored);
        let evaluation = Evaluation::of(
            engine,
            request,
            path,
            &addresses,
            message.as_ref(),
            allows_headers,
            client_cert,
        );
        seen.rpc = rpc(engine, request, mirrored, &evaluation);
        seen.era = mirrored.and_then(Result::ok);
        if let Evaluation::Known { step: Step::Decide { model: Some(index), .. }, .. } = &evaluation
            && let Some(facts) = request.body.and_then(Content::facts)
        {
            seen.refuse_model(request.head, facts, *index);
        }
        let needs_addresses = match &evaluation {
            Evaluation::Known { .. } | Evaluation::Keyless(_) => true,
            Evaluation::Readiness => request.writes_line,
            Evaluation::Stranger { is_counted, .. } => request.writes_line || *is_counted,
        };
        seen.set_addresses(if needs_addresses { addresses.get() } else { addresses.known() });
        (seen, evaluation)
    }

    /// Records which model of the request is refused, by its index.
    #[cold]
    pub fn refuse_model(&mut self, head: &RequestHead<'_>, facts: &RequestFacts, index: usize) {
        let Some(name) = facts.models.get(index) else { return };
        let is_hidden = Tags::new(head.tags()).are_shown_by(name.as_bytes()) || starts_key(name);
        let shown = if is_hidden { MASK_VALUE } else { name };
        self.model = Some(counted(shown, facts));
        let mut quoted = String::new();
        push_quoted(&mut quoted, shown);
        self.refused_model = quoted.get(1..quoted.len().saturating_sub(1)).map(str::to_owned);
    }

    /// The model that is refused, in JSON without quotes.
    pub fn refused_model(&self) -> Option<&str> {
        self.refused_model.as_deref()
    }

    fn set_addresses(&mut self, KnownAddresses { peer, source }: KnownAddresses) {
        self.peer = peer;
        self.source = source;
    }

    /// The address of the client, as far as it is known.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// The address of the connection's other end, if it was asked for and is known.
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The id of the request, if it may be shown.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref().filter(|id| *id != MASK_VALUE && !starts_key(id))
    }

    /// The authority that the client wrote.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The MCP session with this id at the endpoint of the request.
    pub fn session(&self, id: &[u8]) -> Option<SessionId> {
        SessionId::parse(id, self.authority.as_deref()?, self.path.as_deref()?)
    }

    /// Bytes of the body received from the client.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// When the request came, Unix nanoseconds.
    pub fn at_ns(&self) -> u64 {
        self.at_ns
    }

    /// The canonical path, or the path as the client wrote it.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Takes over what an earlier look at the same request has recorded.
    fn follow(&mut self, earlier: &Self) {
        self.at_ns = earlier.at_ns;
        self.body_bytes = earlier.body_bytes;
    }

    /// Records how much of the body the host holds in all.
    pub(super) fn hold_body(&mut self, bytes: u64) {
        self.body_bytes = self.body_bytes.max(bytes);
    }

    /// Records how much more of the body has passed.
    pub(super) fn pass_body(&mut self, bytes: u64) {
        self.body_bytes = self.body_bytes.saturating_add(bytes);
    }

    /// How a refusal is worded for its client.
    #[cold]
    pub fn refusal(&self) -> Refusal {
        let rpc = self.rpc.clone();
        let dialect = if rpc.is_some() { Dialect::JsonRpc } else { self.dialect() };
        Refusal { dialect, rpc, ..Refusal::default() }
    }

    /// What kind of method its MCP call has.
    pub fn method_class(&self) -> Option<MethodClass> {
        let call = self.mcp.as_deref()?;
        Some(MethodClass::of(call.split(' ').next().unwrap_or_default()))
    }

    /// The rules that its message of MCP follows.
    pub fn era(&self) -> Option<Era> {
        self.era
    }

    /// Whether the request is for an MCP server.
    pub fn is_message(&self) -> bool {
        self.rpc.is_some()
    }

    /// Records that the body of a message is not JSON (JSON-RPC 2.0, section 5.1).
    pub fn set_parse_error(&mut self) {
        if let Some(rpc) = &mut self.rpc {
            rpc.fault = Some((400, -32700));
        }
    }

    /// The dialect in which its client reads errors.
    fn dialect(&self) -> Dialect {
        let path = self.path.as_deref().filter(|path| path.len() <= MAX_AI_PATH_BYTES);
        let target = self
            .method
            .as_deref()
            .zip(path)
            .and_then(|(method, path)| Target::parse(method, path.as_bytes()).ok());
        target.map(|target| target.format.dialect()).unwrap_or_default()
    }

    /// The model that the request names, and the one that the response names instead, as in an audit line.
    pub fn model(&self, served: Option<&str>) -> Option<Cow<'_, str>> {
        let asked = self.model.as_deref();
        match served {
            None => asked.map(Cow::Borrowed),
            Some(served) => {
                let served = served.get(..MAX_MODEL_BYTES).unwrap_or(served);
                Some(Cow::Owned([asked.unwrap_or_default(), "\u{2192}", served].concat()))
            }
        }
    }

    /// How the request ended, as far as the request shows it.
    pub fn outcome(&self, now_ns: Option<u64>) -> audit::Outcome<'_> {
        audit::Outcome {
            start_micros: Some(self.at_ns / NANOS_PER_MICRO),
            peer: self.peer.map(|peer| Cow::Owned(address_text(peer))),
            bytes_in: Some(self.body_bytes),
            duration_ns: now_ns.map(|now_ns| now_ns.saturating_sub(self.at_ns)),
            ..audit::Outcome::default()
        }
    }

    /// The audit record of a request that was never decided.
    #[inline(never)] // once, with a decision and without
    pub fn record(&self) -> AuditRecord<'_> {
        AuditRecord {
            ts_micros: self.at_ns / NANOS_PER_MICRO,
            req: self.request_id.as_deref().map(Cow::Borrowed),
            src: self.source.map(|source| Cow::Owned(address_text(source))),
            method: self.method.as_deref().map(Cow::Borrowed),
            authority: self.authority.as_deref().map(|authority| {
                Cow::Borrowed(if self.authority_is_hidden { MASK_VALUE } else { authority })
            }),
            path: self.path.as_deref().map(Cow::Borrowed),
            query_keys: self.query_keys.iter().map(|key| Cow::Borrowed(key.as_str())).collect(),
            mcp: self.mcp.as_deref().map(Cow::Borrowed),
            plan: self.plan.as_deref().map(Cow::Borrowed),
            ..AuditRecord::default()
        }
    }
}

/// A text, unless it contains a part of a key.
fn masked(tags: &Tags<'_>, text: String) -> String {
    if tags.are_shown_by(text.as_bytes()) { MASK_VALUE.to_owned() } else { text }
}

/// A request without a path, or with two of a pseudo header, is ambiguous as a whole.
fn canonical_path<'a>(head: &RequestHead<'a>) -> Result<CanonicalPath<'a>, AmbiguousPath> {
    read_path(head, CanonicalPath::parse)
}

fn read_path<'a>(
    head: &RequestHead<'a>,
    read: fn(&'a [u8]) -> Result<CanonicalPath<'a>, AmbiguousPath>,
) -> Result<CanonicalPath<'a>, AmbiguousPath> {
    read(head.target.filter(|_| !head.doubled).unwrap_or_default())
}

/// A model of a request, and how many more it names.
fn counted(model: &str, facts: &RequestFacts) -> String {
    match facts.models.len().saturating_sub(1) {
        0 => model.to_owned(),
        more => format!("{model} +{more}"),
    }
}

/// What a refusal of a request has to say, if the request is for an MCP server.
#[inline(never)]
fn rpc(
    engine: &Engine,
    request: &Request<'_>,
    mirrored: Option<Mirrored>,
    evaluation: &Evaluation,
) -> Option<Box<Rpc>> {
    let by_status = engine.settings().mcp.refuses_by_status;
    if let Some(Content::Mcp(message)) = request.body {
        let fault = mirrored.and_then(Result::err).and_then(Fault::status_and_code);
        let is_silent = message.kind != MessageKind::Request;
        return Some(Box::new(Rpc { id: message.id.clone(), is_silent, fault, by_status }));
    }
    let Evaluation::Known { reading: Reading::Mcp(target), .. } = evaluation else { return None };
    let fault = target.purpose.err().and_then(Fault::status_and_code);
    Some(Box::new(Rpc { fault, by_status, ..Rpc::default() }))
}

fn access<'a>(
    head: &RequestHead<'a>,
    path: CanonicalPath<'a>,
    source: Option<IpAddr>,
    client_cert: Option<&'a str>,
    now_secs: u64,
) -> Access<'a> {
    Access {
        now_secs,
        method: head.method.and_then(|method| std::str::from_utf8(method).ok()).unwrap_or_default(),
        host: head.authority.and_then(exact_host),
        path,
        source,
        client_cert,
        models: Models::None,
        mcp: Mcp::None,
    }
}

/// The methods of RFC 9110 and RFC 5789, which need no copy and hold no key.
fn usual_method(method: &[u8]) -> Option<&'static str> {
    match method {
        b"GET" => Some("GET"),
        b"POST" => Some("POST"),
        b"OPTIONS" => Some("OPTIONS"),
        b"DELETE" => Some("DELETE"),
        b"PUT" => Some("PUT"),
        b"HEAD" => Some("HEAD"),
        b"PATCH" => Some("PATCH"),
        _ => None,
    }
}

/// Bytes of a client as text, each byte one character (ISO 8859-1), so that every byte shows.
fn text(bytes: &[u8], max_bytes: usize) -> String {
    let bytes = bytes.get(..max_bytes).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => text.to_owned(),
        _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Whether a text is a UUID (RFC 9562, section 4), as proxies make them. It contains no tag, so parts of one are not
/// searched for: the chance that it has as many characters of a tag as are hidden is about 1 in 10^9.
fn is_uuid(text: &[u8]) -> bool {
    let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match byte {
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => !is_dash(at),
            b'-' => is_dash(at),
            _ => false,
        })
}

fn request_id(id: &[u8]) -> Option<String> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:".contains(byte);
    (id.len() <= MAX_REQUEST_ID_BYTES && id.iter().all(allowed)).then(|| text(id, id.len()))
}
