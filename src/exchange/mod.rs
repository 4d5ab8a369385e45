//! The exchange: one request from its headers to its audit line, as a state machine without a host.
//!
//! `observe` → `judge` → (the host counts and limits) → `conclude` → `finish`. Callbacks may come out of order or
//! not at all, so each step stands on its own: an exchange that was never judged is unseen, and one
//! that was finished writes no second line.

mod course;
mod edits;

use std::borrow::Cow;
use std::cell::{LazyCell, OnceCell};
use std::net::IpAddr;
use std::rc::Rc;

pub use course::Course;
pub use edits::{ATTACHED, Edits};

use crate::access::cidr::address_text;
use crate::access::{
    Access, AmbiguousPath, CanonicalPath, MAX_PATH_BYTES, exact_host, query_keys, without_query,
};
use crate::alerts::anomaly::Anomaly;
use crate::audit::{MASK_VALUE, Mask, Record, Tags};
use crate::decision::{Decision, DenyReason};
use crate::engine::{Engine, Identity, Question};
use crate::headers::RequestHead;
use crate::key::Key;
use crate::key::claims::Claims;
use crate::limits::allowance::RateLimitFields;
use crate::limits::ledger::{Exceeded, Exhausted, Reservation};
use crate::limits::sessions::SessionId;
use crate::time::secs;
use crate::upstream_tls::{UpstreamHost, Verdict};

/// The most names of a query in an audit line, and the longest of each, in bytes.
const MAX_QUERY_KEYS: usize = 32;
const MAX_QUERY_KEY_BYTES: usize = 64;

/// The longest texts of a client in an audit line, in bytes.
const MAX_METHOD_BYTES: usize = 32;
const MAX_AUTHORITY_BYTES: usize = 255;
const MAX_AMBIGUOUS_PATH_BYTES: usize = 1024;

/// The longest request id in an audit line, in bytes: shorter than any key, so that no key fits.
const MAX_REQUEST_ID_BYTES: usize = 64;

const NANOS_PER_MICRO: u64 = 1_000;

/// One request on its way.
#[derive(Debug, Default)]
pub struct Exchange {
    seen: Option<Seen>,
    key: Option<Rc<Key>>,
    plan: Option<Rc<str>>,
    decision: Option<Decision>,
    exceeded: Option<Exceeded>,
    fields: Option<RateLimitFields>,
    anomaly: Option<Anomaly>,
    charged: Option<Charged>,
    may_open_session: bool,
    route: Option<Route>,
    verdict: Option<Verdict>,
    body_bytes: u64,
    forwarded: bool,
    answered: bool,
    finished: bool,
}

/// What a request that was let in was charged, so that it can be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// What it was counted as.
    pub decision: Decision,
    /// What was charged to the key.
    pub key: Option<Reservation>,
    /// What was charged to the tenant.
    pub tenant: Option<Reservation>,
}

impl Charged {
    /// Whether any limit was charged.
    pub fn is_charged(&self) -> bool {
        self.key.is_some() || self.tenant.is_some()
    }
}

/// What a request gets back that is refused after it was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refund {
    /// All of it: no byte of the request has left.
    Everything,
    /// Nothing: what was sent is paid for.
    Nothing,
}

/// What the route of a request was judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The host that the client names, where connections to it are judged.
    pub upstream: Option<UpstreamHost<'static>>,
    /// The name of the cluster, where the verdict depends on it.
    pub cluster: Option<String>,
    /// Whether the policy verifies the host.
    pub verified: bool,
    /// Whether the cluster has to carry the policy's stamp.
    pub needs_stamp: bool,
    /// Whether a provider's credential was attached in front of the route.
    pub in_front: bool,
}

/// What the request said of itself, kept for the audit line.
#[derive(Debug)]
struct Seen {
    at_ns: u64,
    head_bytes: u64,
    request_id: Option<String>,
    source: Option<IpAddr>,
    method: Option<String>,
    authority: Option<String>,
    /// The authority holds a part of a key.
    authority_is_hidden: bool,
    path: Option<String>,
    query_keys: Vec<String>,
}

/// What a request shows of itself before anything is decided.
pub struct Request<'a> {
    /// Its headers.
    pub head: &'a RequestHead<'a>,
    /// The address of the connection's other end.
    pub peer: Option<IpAddr>,
    /// Unix nanoseconds.
    pub now_ns: u64,
}

/// What the engine makes of a request, before it is counted.
#[derive(Debug)]
pub enum Judgement {
    /// A key was verified.
    Known {
        /// The key, good or not.
        key: Rc<Key>,
        /// What is to be done.
        course: Course,
    },
    /// The request needs no key: it is the preflight of a browser.
    Preflight,
    /// No key was verified.
    Stranger(DenyReason),
}

/// What a request came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome<'a> {
    /// The decision; `None` when the module never saw the request.
    pub decision: Option<Decision>,
    /// The tenant of the key, where one was verified.
    pub tenant: Option<&'a str>,
    /// The limit that had no room.
    pub exhausted: Option<Exhausted>,
    /// What is unusual about the use of the key.
    pub anomaly: Option<Anomaly>,
}

/// What is known when a request has ended.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// The status the client was answered with.
    pub status: Option<u64>,
    /// Bytes received from the client.
    pub bytes_in: Option<u64>,
    /// Bytes sent to the client.
    pub bytes_out: Option<u64>,
    /// The address of the upstream.
    pub upstream: Option<String>,
    /// Unix nanoseconds.
    pub now_ns: Option<u64>,
}

impl Exchange {
    /// Whether the request was seen already.
    pub fn is_observed(&self) -> bool {
        self.seen.is_some()
    }

    /// Records what the request says of itself, for the audit line.
    pub fn observe(&mut self, head: &RequestHead<'_>, source: Option<IpAddr>, now_ns: u64) {
        self.observe_at(&canonical_path(head), head, source, now_ns);
    }

    fn observe_at(
        &mut self,
        path: &Result<CanonicalPath<'_>, AmbiguousPath>,
        head: &RequestHead<'_>,
        source: Option<IpAddr>,
        now_ns: u64,
    ) {
        let keys = query_keys(head.target.unwrap_or_default()).take(MAX_QUERY_KEYS);
        let tags = Tags::new(head.tags());
        let is_hidden = |text: &str| tags.are_shown_by(text.as_bytes());
        let shown = |text: String| if is_hidden(&text) { MASK_VALUE.to_owned() } else { text };
        let authority = head.authority.map(|authority| text(authority, MAX_AUTHORITY_BYTES));
        self.seen = Some(Seen {
            at_ns: now_ns,
            head_bytes: head.total_bytes(),
            request_id: head.request_id.and_then(request_id).map(shown),
            source,
            method: head.method.map(|method| shown(text(method, MAX_METHOD_BYTES))),
            authority_is_hidden: authority.as_deref().is_some_and(is_hidden),
            authority,
            path: head.target.map(|target| match path {
                Ok(canonical) => shown(canonical.as_str().to_owned()),
                // What a tier lets pass is shown whole.
                Err(_) if read_path(head, CanonicalPath::parse_keeping_slashes).is_ok() => {
                    shown(text(without_query(target), MAX_PATH_BYTES))
                }
                Err(_) => shown(text(without_query(target), MAX_AMBIGUOUS_PATH_BYTES)),
            }),
            query_keys: keys.map(|key| shown(text(key, MAX_QUERY_KEY_BYTES))).collect(),
        });
    }

    /// Decides, apart from counting. `client_cert` is asked for the digest of the client's
    /// certificate only where a restriction depends on it.
    pub fn judge(
        &mut self,
        engine: &mut Engine,
        request: &Request<'_>,
        client_cert: impl FnOnce() -> Option<String>,
    ) -> Judgement {
        let source = engine.client_address(request.peer, &request.head.forwarded_for);
        let path = canonical_path(request.head);
        self.observe_at(&path, request.head, source, request.now_ns);
        self.plan = Some(Rc::clone(engine.plan_id()));
        let now_secs = secs(request.now_ns);
        let (key, validity) = match engine.identify_sender(request.head, now_secs) {
            Identity::Known { key, validity } => (key, validity),
            Identity::Stranger(DenyReason::KeyMissing)
                if path.is_ok() && engine.passes_preflight(request.head, source) =>
            {
                return Judgement::Preflight;
            }
            Identity::Stranger(reason) => return Judgement::Stranger(reason),
        };
        self.key = Some(Rc::clone(&key));
        let shown_cert = OnceCell::new();
        let access = LazyCell::new(|| {
            let path = path.or_else(|ambiguous| match engine.keeps_escaped_slashes(&key) {
                true => read_path(request.head, CanonicalPath::parse_keeping_slashes),
                false => Err(ambiguous),
            })?;
            let cert = engine.needs_client_cert(&key).then(client_cert).flatten();
            let cert = shown_cert.get_or_init(|| cert).as_deref();
            Ok(access(request.head, path, source, cert, now_secs))
        });
        let question = Question { key: &key, validity, head: request.head, access };
        let course = Course::of(engine, &question);
        drop(question);
        Judgement::Known { key, course }
    }

    /// Records that the request goes on, once nothing about it is left to do, what its client is to
    /// be told of its limits, and what it was charged. An allowed request need not go on: the usage of
    /// a key is answered here.
    pub fn forward(&mut self, fields: Option<RateLimitFields>, charged: Charged) {
        self.forwarded = true;
        self.fields = fields;
        self.charged = Some(charged);
    }

    /// Records how much of the body came. Hosts tell of what is new, and of all that they hold while
    /// the request is held.
    pub fn receive_body(&mut self, bytes: u64) {
        self.body_bytes = match self.forwarded {
            true => self.body_bytes.saturating_add(bytes),
            false => self.body_bytes.max(bytes),
        };
    }

    /// Bytes received from the client, headers included; `None` when it was never shown.
    pub fn received_bytes(&self) -> Option<u64> {
        self.seen.as_ref().map(|seen| seen.head_bytes.saturating_add(self.body_bytes))
    }

    /// Records that there is a response.
    pub fn answer(&mut self) {
        self.answered = true;
    }

    /// Whether there was an answer, from wherever it came.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// The authority that the client wrote.
    pub fn authority(&self) -> Option<&str> {
        self.seen.as_ref()?.authority.as_deref()
    }

    /// Records what the route was judged by.
    pub fn take_route(&mut self, route: Route) {
        self.route = Some(route);
    }

    /// What the route was judged by; `None` before it was.
    pub fn route(&self) -> Option<&Route> {
        self.route.as_ref()
    }

    /// Records how the connection to the upstream was judged.
    pub fn judge_upstream(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }

    /// How the connection to the upstream was judged.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// The key and what was charged to it, once: what is taken back is not taken back again. The client
    /// is told nothing of limits that it was not charged by.
    pub fn take_charged(&mut self) -> Option<(Rc<Key>, Charged)> {
        self.fields = None;
        self.key.clone().zip(self.charged.take())
    }

    /// The MCP session of that id at the endpoint that the request asks.
    pub fn session(&self, id: &[u8]) -> Option<SessionId> {
        let seen = self.seen.as_ref()?;
        SessionId::parse(id, seen.authority.as_deref()?, seen.path.as_deref()?)
    }

    /// Records that the response to the request may open an MCP session.
    pub fn await_session(&mut self) {
        self.may_open_session = true;
    }

    /// The key of a request that was charged and whose response may open an MCP session, once.
    pub fn take_opening(&mut self) -> Option<Rc<Key>> {
        let awaits = std::mem::take(&mut self.may_open_session);
        self.key.clone().filter(|_| awaits && self.charged.is_some())
    }

    /// Whether the request went on.
    pub fn is_forwarded(&self) -> bool {
        self.forwarded
    }

    /// Whether it went on as a preflight.
    pub fn is_preflight(&self) -> bool {
        self.forwarded && self.decision == Some(Decision::Preflight)
    }

    /// Records the limit that had no room, where there was one.
    pub fn exceed(&mut self, exceeded: Option<Exceeded>) {
        self.exceeded = exceeded;
    }

    /// Records what is unusual about the use of the key.
    pub fn mark(&mut self, anomaly: Option<Anomaly>) {
        self.anomaly = anomaly;
    }

    /// What the client is told of its limits with the answer of a request that went on.
    pub fn take_fields(&mut self) -> Option<RateLimitFields> {
        self.fields.take()
    }

    /// The address of the client, as far as it is known.
    pub fn source(&self) -> Option<IpAddr> {
        self.seen.as_ref()?.source
    }

    /// What the request came to, for the metrics.
    pub fn outcome(&self) -> Outcome<'_> {
        Outcome {
            decision: self.decision,
            tenant: self.key.as_ref().map(|key| key.claims().tenant.as_str()),
            exhausted: self.exceeded.map(|exceeded| exceeded.exhausted),
            anomaly: self.anomaly,
        }
    }

    /// Records the decision that is final.
    pub fn conclude(&mut self, decision: Decision) {
        // A host that shows a request twice has it denied for good by the second time.
        self.forwarded &= decision.forwards();
        self.decision = Some(decision);
    }

    /// The audit line, once.
    /// `host` is the proxy's node, `policy` the digest of the upstream-TLS policy; a line of more than
    /// `max_bytes` is shortened: see [`Record::write_within`].
    pub fn finish(
        &mut self,
        ending: &Ending,
        host: Option<&str>,
        policy: &str,
        mask: &Mask,
        max_bytes: Option<usize>,
    ) -> Option<String> {
        if std::mem::replace(&mut self.finished, true) {
            return None;
        }
        let tls_policy = Some(Cow::Borrowed(policy));
        let record = Record { tls_policy, ..self.record(ending, host) };
        Some(match max_bytes {
            Some(max_bytes) => record.write_within(mask, max_bytes),
            None => record.write(mask),
        })
    }

    fn record<'a>(&'a self, ending: &'a Ending, host: Option<&'a str>) -> Record<'a> {
        let of_request = self.seen.as_ref().map(Seen::record).unwrap_or_default();
        let started_ns = self.seen.as_ref().map(|seen| seen.at_ns);
        let claims = self.key.as_ref().map(|key| key.claims());
        let claim = |text: fn(&Claims) -> Option<&str>| claims.and_then(text).map(Cow::Borrowed);
        Record {
            host: host.map(Cow::Borrowed),
            decision: self.decision,
            kid: self.key.as_ref().map(|key| Cow::Borrowed(key.kid().as_str())),
            jti: claim(|claims| Some(&claims.jti)),
            tenant: claim(|claims| Some(&claims.tenant)),
            sub: claim(|claims| claims.sub.as_deref()),
            tier: claim(|claims| Some(claims.tier())),
            caveats: self.key.as_ref().and_then(|key| key.caveats_len().try_into().ok()),
            status: ending.status,
            bytes_in: ending.bytes_in,
            bytes_out: ending.bytes_out,
            duration_ns: ending
                .now_ns
                .zip(started_ns)
                .map(|(end, start)| end.saturating_sub(start)),
            upstream: ending.upstream.as_deref().map(Cow::Borrowed),
            tls_verdict: self.verdict.map(|verdict| Cow::Borrowed(verdict.word())),
            plan: self.plan.as_deref().map(Cow::Borrowed),
            anomaly: self.anomaly.map(|anomaly| Cow::Borrowed(anomaly.word())),
            ..of_request
        }
    }
}

impl Seen {
    fn record(&self) -> Record<'_> {
        Record {
            ts_micros: self.at_ns / NANOS_PER_MICRO,
            req: self.request_id.as_deref().map(Cow::Borrowed),
            src: self.source.map(|source| Cow::Owned(address_text(source))),
            method: self.method.as_deref().map(Cow::Borrowed),
            authority: self.authority.as_deref().map(|authority| {
                Cow::Borrowed(if self.authority_is_hidden { MASK_VALUE } else { authority })
            }),
            path: self.path.as_deref().map(Cow::Borrowed),
            query_keys: self.query_keys.iter().map(|key| Cow::Borrowed(key.as_str())).collect(),
            ..Record::default()
        }
    }
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
        model: None,
        mcp: None,
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

fn request_id(id: &[u8]) -> Option<String> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:".contains(byte);
    (id.len() <= MAX_REQUEST_ID_BYTES && id.iter().all(allowed)).then(|| text(id, id.len()))
}
