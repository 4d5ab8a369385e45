//! The module, and the open requests of a session.

mod answers;
mod state;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vkey::body::json::Limits;
use vkey::body::mcp::Message;
use vkey::config::BodySettings;
use vkey_vm::{Response, UpstreamResponse};

use super::super::embedded::EmbeddedHost;
use super::super::error::Error;
use super::head::{Head, Shown};
use super::id::Id;
use super::message::{CONTENT_TYPE, Content, member};
use super::scan::Scan;
use super::sink::{LogBatch, Sink};
use super::{activity::Activity, lock};
use state::{OpenRequest, State};

/// The most requests that wait for a response, the most cancelled ones that are remembered, and the most open
/// requests of the server.
const MAX_OPEN: usize = 1024;

/// A message of the client.
pub(super) struct Received<'a> {
    /// The message without its line end; `None` if it is too long.
    pub(super) body: Option<&'a [u8]>,
    /// What the message is.
    pub(super) content: Content,
    /// What it says, if it can be read.
    pub(super) message: Option<Message>,
    /// The ids in a message that cannot be read.
    pub(super) scan: Scan,
}

/// The verdict on a message of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The message is forwarded to the server.
    Forward,
    /// The message is refused; a sender that waits for a response gets an error.
    Refuse(Refused),
}

/// The errors for a refused message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// For the client, if the message is a request or is invalid.
    pub(super) client: Option<Vec<u8>>,
    /// For the server, if the message was to answer its request.
    pub(super) server: Option<Vec<u8>>,
}

/// The verdict on a response of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResponseVerdict {
    /// It is forwarded to the client.
    Pass,
    /// It is too late, or nobody has asked for it.
    Late,
    /// The client gets this line instead: the module withholds it, or a part of a list in it.
    Instead(Vec<u8>),
}

/// The module, and the open requests of a session.
pub(super) struct Session {
    host: EmbeddedHost,
    head: Head,
    sink: Arc<Sink>,
    activity: Arc<Activity>,
    /// The bounds of a message.
    limits: Limits,
    state: Mutex<State>,
}

/// Which timeout a request has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The time without any sign of the server about it.
    Timeout,
    /// The time until the response.
    MaxTime,
}

// === impl Gate ===

impl Session {
    pub(super) fn new(
        host: EmbeddedHost,
        head: Head,
        sink: Arc<Sink>,
        activity: Arc<Activity>,
    ) -> Result<Self, Error> {
        let mut worker = host.worker()?;
        sink.show(&LogBatch { log: worker.take_log(), ..LogBatch::default() });
        let (open, given_up, server_requests) = Default::default();
        let state = State {
            worker,
            open,
            given_up,
            server_requests,
            first: None,
            version: None,
            modern: None,
            refusal: None,
        };
        let limits = host.engine().map(|engine| engine.settings().body.limits());
        let limits = limits.unwrap_or_else(|| BodySettings::default().limits());
        Ok(Self { host, head, sink, activity, limits, state: Mutex::new(state) })
    }

    /// The bounds of a message, which are those of the module.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Evaluates a message of the client as the request that it would be over HTTP.
    ///
    /// # Errors
    ///
    /// [`Error`] if the clock cannot be read.
    pub(super) fn evaluate(&self, message: &Received<'_>) -> Result<Verdict, Error> {
        let host = self.host.request()?;
        let (verdict, batch) = {
            let mut state = lock(&self.state);
            if state.take_response_in_call(&message.content) {
                return Ok(Verdict::Forward);
            }
            let shown = Shown {
                body: message.body,
                message: message.message.as_ref(),
                revision: state.revision(&message.content),
            };
            self.head.show(&host, shown);
            let mut batch = LogBatch::default();
            let verdict = state.evaluate(message, host, &self.activity, &mut batch);
            batch.log.splice(0..0, state.worker.take_log());
            (verdict, batch)
        };
        self.sink.show(&batch);
        Ok(verdict)
    }

    /// Ends the request that a response of the server belongs to, if there is one.
    pub(super) fn response(&self, id: &Id, line: &[u8]) -> Result<ResponseVerdict, Error> {
        let now_ns = self.host.clock.now_ns()?;
        let (name, value) = CONTENT_TYPE;
        let upstream = UpstreamResponse {
            headers: vec![(name.to_owned(), value.to_owned())],
            body: vec![line.to_vec()],
            cut: None,
        };
        let response = Response {
            status: Some(200),
            upstream: Some(upstream),
            is_local: true,
            now_ns,
            ..Response::default()
        };
        let (verdict, batch) = {
            let mut state = lock(&self.state);
            let id = &state.requested(id);
            if state.first.take_if(|first| first == id).is_some() {
                state.version = version(line);
            }
            let mut batch = LogBatch::default();
            (state.response(id, line, &response, &mut batch), batch)
        };
        self.sink.show(&batch);
        Ok(verdict)
    }

    /// Records a request of the server, before the client can respond to it.
    pub(super) fn record_server_request(&self, id: Id) {
        let now = self.activity.now();
        let server_requests = &mut lock(&self.state).server_requests;
        let oldest =
            server_requests.iter().min_by_key(|(_, asked)| **asked).map(|(id, _)| id.clone());
        if let Some(oldest) = oldest.filter(|_| server_requests.len() >= MAX_OPEN) {
            server_requests.remove(&oldest);
        }
        server_requests.insert(id, now);
    }

    /// Records progress that the server reported for the request with this token.
    pub(super) fn progress(&self, token: &Id) {
        let now = self.activity.server_now();
        let mut state = lock(&self.state);
        let has = |request: &OpenRequest, token: &Id| request.token.as_ref() == Some(token);
        let token = token.known(|token| state.open.values().any(|request| has(request, token)));
        let of_token = state.open.values_mut().filter(|request| has(request, &token));
        of_token.for_each(|request| request.heard = now);
    }

    /// The ids of open requests.
    pub(super) fn open(&self) -> Vec<Id> {
        lock(&self.state).open.keys().cloned().collect()
    }

    /// The open requests about which the server has sent nothing for `timeout`, and those that have been open
    /// for `max_time`.
    pub(super) fn overdue(&self, timeout: Duration, max_time: Duration) -> Vec<(Id, Overdue)> {
        let (now, server_now) = (self.activity.now(), self.activity.server_now());
        let overdue = |request: &OpenRequest| {
            if now.saturating_sub(request.since) >= max_time {
                return Some(Overdue::MaxTime);
            }
            let silent = server_now.saturating_sub(request.heard) >= timeout;
            silent.then_some(Overdue::Timeout)
        };
        let state = lock(&self.state);
        let found = state.open.iter().filter_map(|(id, request)| Some((id, overdue(request)?)));
        found.map(|(id, overdue)| (id.clone(), overdue)).collect()
    }

    /// Ends a request without the server, with a status or none; `false` if it is not open. A later response
    /// of the server is too late.
    pub(super) fn end(&self, id: &Id, status: Option<u16>) -> Result<bool, Error> {
        let now_ns = self.host.clock.now_ns()?;
        let response = Response { status, now_ns, ..Response::default() };
        let mut batch = LogBatch::default();
        let ended = lock(&self.state).give_up(id, &response, &mut batch);
        self.sink.show(&batch);
        Ok(ended)
    }
}

/// The protocol version in the response to `initialize`, if it can be a header value.
fn version(line: &[u8]) -> Option<String> {
    const MAX_BYTES: usize = 64;
    let version = member(line, &["result", "protocolVersion"])?;
    let version = version.as_str()?;
    let fits = version.len() <= MAX_BYTES && version.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| version.to_owned())
}
