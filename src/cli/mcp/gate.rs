//! The gate of a session: the module, and the requests that are open in it.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::audit::{Mask, Record};
use crate::decision::{Decision, DenyReason, Reply};
use crate::host::{HeaderList, MemoryHost, Property};
use crate::vm::{Answer, ContextId, Ended, Failure, Opened, Worker};

use super::super::embedded::{EmbeddedHost, take_audit_line};
use super::super::error::Error;
use super::message::{Content, Id, member, progress_token};
use super::refusal::{self, BAD_REQUEST, NO_JSON, NO_MESSAGE, TOO_LARGE, UNAVAILABLE};
use super::scan::Scan;
use super::sink::{Said, Sink};
use super::{lock, pulse::Pulse};

/// The most requests that wait for their answers, the most that are remembered when they were given up, and
/// the most questions of the server.
const MAX_OPEN: usize = 1024;

/// A message of the client, as it is judged.
pub(super) struct Received<'a> {
    /// The message without its line end; none of one that is too long.
    pub(super) body: Option<&'a [u8]>,
    /// What it is.
    pub(super) content: Content,
    /// The ids that can be told of one that cannot be read.
    pub(super) scan: Scan,
}

/// What becomes of a message of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on to the server.
    Forward,
    /// It does not; whoever waits for an answer is answered with a line.
    Refuse(Refused),
}

/// The answers to a message that is refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// To the client, of a request, and of what is no message.
    pub(super) client: Option<Vec<u8>>,
    /// To the server, of the answer to its question.
    pub(super) server: Option<Vec<u8>>,
}

/// What becomes of an answer of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// It goes on to the client.
    Pass,
    /// It comes too late.
    Late,
    /// The module keeps it back; the client is answered with a line in its place.
    Withheld(Vec<u8>),
}

/// The request that a message is: all but its body.
pub(super) struct Head {
    /// The headers that every message has.
    pub(super) headers: HeaderList,
    /// The client's address.
    pub(super) source: String,
}

/// The module, and what is open in it.
pub(super) struct Gate {
    host: EmbeddedHost,
    head: Head,
    sink: Arc<Sink>,
    pulse: Arc<Pulse>,
    state: Mutex<State>,
}

struct State {
    worker: Worker,
    open: BTreeMap<Id, OpenRequest>,
    /// Requests that were cancelled, or answered in the server's place; its answers come too late.
    given_up: VecDeque<Id>,
    /// The server's own requests that the client has not answered, and when they came.
    questions: BTreeMap<Id, Duration>,
    /// The request that begins the session.
    first: Option<Id>,
    /// The version of the protocol that the server has answered it with.
    version: Option<String>,
}

/// A request that waits for the server's answer.
struct OpenRequest {
    /// Where it is open in the module; the VM may have failed since.
    context: Option<ContextId>,
    since: Duration,
    /// When the server was last heard of it, by its clock.
    heard: Duration,
    /// By what the server names it when it tells of its progress.
    token: Option<Id>,
}

/// What a request has waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A word of the server about it.
    Word,
    /// Its answer, whatever the server has said.
    Answer,
}

/// What becomes of a message that the module lets in.
enum Entrance {
    /// It goes on. The status is what it has at once where nothing is waited for.
    Open(u16),
    /// It does not.
    Closed(u16, DenyReason, Option<Vec<u8>>),
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(
        host: EmbeddedHost,
        head: Head,
        sink: Arc<Sink>,
        pulse: Arc<Pulse>,
    ) -> Result<Self, Error> {
        let mut worker = host.worker()?;
        sink.show(&Said { log: worker.take_log(), ..Said::default() });
        let (open, given_up, questions) = Default::default();
        let state = State { worker, open, given_up, questions, first: None, version: None };
        Ok(Self { host, head, sink, pulse, state: Mutex::new(state) })
    }

    /// Judges a message of the client as the request that it would be over HTTP.
    ///
    /// # Errors
    ///
    /// [`Error`] when there is no time.
    pub(super) fn judge(&self, message: &Received<'_>) -> Result<Verdict, Error> {
        let host = self.host.request()?;
        let (verdict, said) = {
            let mut state = lock(&self.state);
            if state.take_answer_in_call(&message.content) {
                return Ok(Verdict::Forward);
            }
            self.show(message, &host, state.version.as_deref());
            let mut said = Said::default();
            let verdict = state.judge(message, host, &self.pulse, &mut said);
            said.log.splice(0..0, state.worker.take_log());
            (verdict, said)
        };
        self.sink.show(&said);
        Ok(verdict)
    }

    /// Ends the request that an answer of the server is for, if it is for one.
    pub(super) fn answer(&self, id: &Id, line: &[u8]) -> Result<Passage, Error> {
        let bytes = Some(u64::try_from(line.len()).unwrap_or(u64::MAX));
        let answer = Answer { status: Some(200), bytes, now_ns: self.host.clock.now_ns()? };
        let (passage, said) = {
            let mut state = lock(&self.state);
            if state.first.take_if(|first| first == id).is_some() {
                state.version = version(line);
            }
            let mut said = Said::default();
            (state.answer(id, &answer, &mut said), said)
        };
        self.sink.show(&said);
        Ok(passage)
    }

    /// Takes down a question of the server, before the client can answer it.
    pub(super) fn ask(&self, id: Id) {
        let now = self.pulse.now();
        let questions = &mut lock(&self.state).questions;
        let oldest = questions.iter().min_by_key(|(_, asked)| **asked).map(|(id, _)| id.clone());
        if let Some(oldest) = oldest.filter(|_| questions.len() >= MAX_OPEN) {
            questions.remove(&oldest);
        }
        questions.insert(id, now);
    }

    /// Takes down that the server has told of the progress of the request with that token.
    pub(super) fn progress(&self, token: &Id) {
        let now = self.pulse.server_now();
        let mut state = lock(&self.state);
        let of_token = |request: &&mut OpenRequest| request.token.as_ref() == Some(token);
        state.open.values_mut().filter(of_token).for_each(|request| request.heard = now);
    }

    /// The open requests.
    pub(super) fn open(&self) -> Vec<Id> {
        lock(&self.state).open.keys().cloned().collect()
    }

    /// The open requests that the server has said nothing of for `timeout`, and those that are open for
    /// `max_time`.
    pub(super) fn overdue(&self, timeout: Duration, max_time: Duration) -> Vec<(Id, Overdue)> {
        let (now, server_now) = (self.pulse.now(), self.pulse.server_now());
        let overdue = |request: &OpenRequest| {
            if now.saturating_sub(request.since) >= max_time {
                return Some(Overdue::Answer);
            }
            let silent = server_now.saturating_sub(request.heard) >= timeout;
            silent.then_some(Overdue::Word)
        };
        let state = lock(&self.state);
        let found = state.open.iter().filter_map(|(id, request)| Some((id, overdue(request)?)));
        found.map(|(id, overdue)| (id.clone(), overdue)).collect()
    }

    /// Ends a request in the server's place, with a status or none; `false` when it is not open. What the
    /// server says to it later comes too late.
    pub(super) fn end(&self, id: &Id, status: Option<u16>) -> Result<bool, Error> {
        let answer = Answer { status, bytes: None, now_ns: self.host.clock.now_ns()? };
        let mut said = Said::default();
        let ended = lock(&self.state).give_up(id, &answer, &mut said);
        self.sink.show(&said);
        Ok(ended)
    }

    /// Makes a request of a message.
    fn show(&self, message: &Received<'_>, host: &MemoryHost, version: Option<&str>) {
        let mut headers = self.head.headers.clone();
        let mut add = |name: &str, value: &str| headers.push((name.into(), value.into()));
        if let Some(body) = message.body {
            add("content-length", &body.len().to_string());
            host.body.replace(body.to_vec());
        }
        // Only what follows the first request knows the version (MCP, "Protocol Version Header").
        if let Some(version) = version {
            add("mcp-protocol-version", version);
        }
        host.headers.replace(Some(headers));
        host.show(Property::SourceAddress.path(), self.head.source.as_bytes());
    }
}

/// The version in the answer to the request that begins a session, if it can stand in a header.
fn version(line: &[u8]) -> Option<String> {
    const MAX_BYTES: usize = 64;
    let version = member(line, &["result", "protocolVersion"])?;
    let version = version.as_str()?;
    let fits = version.len() <= MAX_BYTES && version.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| version.to_owned())
}

// === impl State ===

impl State {
    /// Whether a message answers a question that the server has asked while a request was open that still is.
    /// Such an answer is a part of that request, which is judged and counted already.
    fn take_answer_in_call(&mut self, content: &Content) -> bool {
        let Content::Response(Some(id)) = content else {
            return false;
        };
        let asked = self.questions.get(id).copied();
        let was_open = |asked| self.open.values().any(|request| request.since <= asked);
        let in_call = asked.is_some_and(was_open);
        if in_call {
            self.questions.remove(id);
        }
        in_call
    }

    fn judge(
        &mut self,
        message: &Received<'_>,
        host: MemoryHost,
        pulse: &Pulse,
        said: &mut Said,
    ) -> Verdict {
        let now_ns = host.now_ns.get().unwrap_or(0);
        let context = match self.worker.open(host) {
            Err(failure) => {
                self.forget(&failure, said);
                return Verdict::Refuse(self.refused(message, None));
            }
            Ok(Opened::Held(context)) => return self.refuse(context, message, now_ns, said),
            Ok(Opened::Forwarded(context)) => context,
        };
        // It may be long, and nobody looks at it again.
        if let Some(host) = self.worker.host(context) {
            host.body.take();
        }
        match self.admit(message) {
            Entrance::Open(status) => {
                self.enter(context, message, status, pulse, now_ns, said);
                Verdict::Forward
            }
            Entrance::Closed(status, reason, client) => {
                let answer = Answer { status: Some(status), bytes: None, now_ns };
                let mut own = Said::default();
                self.close(Some(context), &answer, &mut own);
                own.audit.iter_mut().for_each(|line| *line = denied(line, reason));
                said.append(own);
                let server = self.answer_for_server(message, None);
                Verdict::Refuse(Refused { client, server })
            }
        }
    }

    /// What becomes of a message that the module lets in.
    fn admit(&self, message: &Received<'_>) -> Entrance {
        let unreadable = DenyReason::BodyUnreadable;
        match &message.content {
            Content::NoJson(_) | Content::NoMessage(_) => {
                let status = if message.body.is_some() { BAD_REQUEST } else { TOO_LARGE };
                Entrance::Closed(status, unreadable, self.no_message(message))
            }
            Content::Request(id, _) if self.is_taken(id) => {
                let problem = "a request with this id is open, or was given up without an answer of the server";
                let line = refusal::error(Some(id), NO_MESSAGE, problem);
                Entrance::Closed(BAD_REQUEST, unreadable, Some(line))
            }
            Content::Request(id, _) if self.open.len() >= MAX_OPEN => {
                let problem = format!("{MAX_OPEN} requests wait for the server already; try later");
                let line = refusal::of_host(id, UNAVAILABLE, "too_many_requests", &problem);
                Entrance::Closed(UNAVAILABLE, DenyReason::NotReady, Some(line))
            }
            Content::Request(..) => Entrance::Open(200),
            Content::Notification | Content::Cancelled(_) | Content::Response(_) => {
                Entrance::Open(202)
            }
        }
    }

    /// Lets a message in: a request is open from now on, everything else is over.
    fn enter(
        &mut self,
        context: ContextId,
        message: &Received<'_>,
        status: u16,
        pulse: &Pulse,
        now_ns: u64,
        said: &mut Said,
    ) {
        if let Content::Request(id, first) = &message.content {
            self.first = self.first.take().or_else(|| first.then(|| id.clone()));
            let token = message.body.and_then(progress_token);
            let (since, heard) = (pulse.now(), pulse.server_now());
            let request = OpenRequest { context: Some(context), since, heard, token };
            self.open.insert(id.clone(), request);
            return;
        }
        let answer = Answer { status: Some(status), bytes: None, now_ns };
        self.close(Some(context), &answer, said);
        match &message.content {
            Content::Cancelled(id) => {
                self.give_up(id, &Answer { status: None, ..answer }, said);
            }
            Content::Response(Some(id)) => _ = self.questions.remove(id),
            _ => {}
        }
    }

    /// The module has refused a message, and says why.
    fn refuse(
        &mut self,
        context: ContextId,
        message: &Received<'_>,
        now_ns: u64,
        said: &mut Said,
    ) -> Verdict {
        let reply = self.worker.host(context).and_then(|host| host.reply.borrow().clone());
        let bytes = reply.as_ref().and_then(|reply| u64::try_from(reply.body.len()).ok());
        self.close(Some(context), &Answer { status: None, bytes, now_ns }, said);
        Verdict::Refuse(self.refused(message, reply.as_ref()))
    }

    /// The answers to a message that the module refuses, with a reply unless it has failed.
    fn refused(&mut self, message: &Received<'_>, reply: Option<&Reply>) -> Refused {
        let client = match &message.content {
            Content::Request(id, _) => Some(refusal_of(id, reply)),
            _ => self.no_message(message),
        };
        Refused { client, server: self.answer_for_server(message, reply) }
    }

    /// The answer to what is no message. Whoever has sent it finds it by the id, where that can be told and
    /// is not that of a request that waits for another answer.
    fn no_message(&self, message: &Received<'_>) -> Option<Vec<u8>> {
        let (code, problem) = problem(&message.content)?;
        let id = message.scan.request().filter(|id| !self.is_taken(id));
        Some(refusal::error(id, code, &problem))
    }

    /// The answer to the question of the server that the client has answered with what is refused.
    fn answer_for_server(
        &mut self,
        message: &Received<'_>,
        reply: Option<&Reply>,
    ) -> Option<Vec<u8>> {
        let id = match &message.content {
            Content::Response(Some(id)) => id,
            Content::NoJson(_) | Content::NoMessage(_) => message.scan.answered()?,
            _ => return None,
        };
        self.questions.remove(id)?;
        Some(match problem(&message.content) {
            Some((_, problem)) => refusal::of_host(id, BAD_REQUEST, "answer_unreadable", &problem),
            None => refusal_of(id, reply),
        })
    }

    /// Whether a request of that id waits for an answer, or for one that will be dropped.
    fn is_taken(&self, id: &Id) -> bool {
        self.open.contains_key(id) || self.given_up.contains(id)
    }

    fn answer(&mut self, id: &Id, answer: &Answer, said: &mut Said) -> Passage {
        if let Some(late) = self.given_up.iter().position(|given_up| given_up == id) {
            self.given_up.remove(late);
            return Passage::Late;
        }
        let Some(request) = self.open.remove(id) else {
            return Passage::Pass;
        };
        let ended = self.close(request.context, answer, said);
        match ended.filter(|ended| ended.withheld) {
            None => Passage::Pass,
            Some(ended) => Passage::Withheld(match &*ended.host.reply.borrow() {
                Some(reply) => refusal::from_reply(id, reply),
                None => {
                    refusal::of_host(id, UNAVAILABLE, "withheld", "the gate keeps the answer back")
                }
            }),
        }
    }

    fn give_up(&mut self, id: &Id, answer: &Answer, said: &mut Said) -> bool {
        let Some(request) = self.open.remove(id) else {
            return false;
        };
        self.close(request.context, answer, said);
        if self.given_up.len() >= MAX_OPEN {
            self.given_up.pop_front();
        }
        self.given_up.push_back(id.clone());
        true
    }

    /// Ends a request in the module, and takes what it says of it.
    fn close(
        &mut self,
        context: Option<ContextId>,
        answer: &Answer,
        said: &mut Said,
    ) -> Option<Ended> {
        match self.worker.close(context?, answer) {
            Ok(ended) => {
                let ended = ended?;
                said.audit.extend(take_audit_line(&ended.host));
                said.log.append(&mut ended.host.log.take());
                Some(ended)
            }
            Err(failure) => {
                self.forget(&failure, said);
                None
            }
        }
    }

    /// The VM is no more: whatever is open has no audit line.
    fn forget(&mut self, failure: &Failure, said: &mut Said) {
        for request in self.open.values_mut() {
            request.context = None;
        }
        let open = self.open.len();
        said.log.append(&mut self.worker.take_log());
        said.notes.push(format!(
            "{failure}; this message and {open} requests that are open have no audit lines"
        ));
    }
}

/// The error of what the module refuses.
fn refusal_of(id: &Id, reply: Option<&Reply>) -> Vec<u8> {
    match reply {
        Some(reply) => refusal::from_reply(id, reply),
        None => refusal::of_host(id, UNAVAILABLE, "not_ready", "the gate has failed; try again"),
    }
}

/// What is wrong with what is no message.
fn problem(content: &Content) -> Option<(i64, String)> {
    let (code, problem) = match content {
        Content::NoJson(problem) => (NO_JSON, Cow::Borrowed(*problem)),
        Content::NoMessage(problem) => (NO_MESSAGE, Cow::Borrowed(&**problem)),
        _ => return None,
    };
    Some((code, format!("no message: {problem}")))
}

/// The audit line of a message that the module has let in and the command refuses.
fn denied(line: &str, reason: DenyReason) -> String {
    // What the module has masked stays so.
    Record::parse(line).map_or_else(
        |_| line.to_owned(),
        |record| {
            Record { decision: Some(Decision::Deny(reason)), ..record }.write(&Mask::default())
        },
    )
}
