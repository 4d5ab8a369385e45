//! The gate of a session: the module, and the requests that are open in it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::host::{HeaderList, MemoryHost, Property};
use crate::vm::{Answer, ContextId, Ended, Failure, Opened, Worker};

use super::super::embedded::{EmbeddedHost, take_audit_line};
use super::super::error::Error;
use super::message::{Content, Id, member};
use super::refusal::{self, NO_JSON, NO_MESSAGE, UNAVAILABLE};
use super::sink::{Said, Sink};
use super::{lock, pulse::Pulse};

/// The most requests that wait for their answers, and the most that are remembered when they were given
/// up.
const MAX_OPEN: usize = 1024;

/// A message of the client, as it is judged.
pub(super) struct Received<'a> {
    /// The message without its line end; none of one that is too long.
    pub(super) body: Option<&'a [u8]>,
    /// What it is.
    pub(super) content: Content,
}

/// What becomes of a message of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on to the server.
    Forward,
    /// It does not; the client is answered with a line, where it waits for one.
    Refuse(Option<Vec<u8>>),
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
        let (open, given_up) = (BTreeMap::new(), VecDeque::new());
        let state = State { worker, open, given_up, first: None, version: None };
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
            self.show(message, &host, state.version.as_deref());
            let mut said = Said::default();
            let verdict = state.judge(message, host, self.pulse.now(), &mut said);
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

    /// The open requests that `choose` tells from the time since when they are.
    pub(super) fn open(&self, choose: impl Fn(Duration) -> bool) -> Vec<Id> {
        let state = lock(&self.state);
        let chosen = state.open.iter().filter(|(_, request)| choose(request.since));
        chosen.map(|(id, _)| id.clone()).collect()
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
    fn judge(
        &mut self,
        message: &Received<'_>,
        host: MemoryHost,
        now: Duration,
        said: &mut Said,
    ) -> Verdict {
        let now_ns = host.now_ns.get().unwrap_or(0);
        let opened = match self.worker.open(host) {
            Err(failure) => return self.lost(&failure, &message.content, said),
            Ok(opened) => opened,
        };
        let context = match opened {
            Opened::Held(context) => return self.refuse(context, &message.content, now_ns, said),
            Opened::Forwarded(context) => context,
        };
        // It may be long, and nobody looks at it again.
        if let Some(host) = self.worker.host(context) {
            host.body.take();
        }
        let (status, verdict) = self.admit(message);
        if let (Content::Request(id, first), Verdict::Forward) = (&message.content, &verdict) {
            self.first = self.first.take().or_else(|| first.then(|| id.clone()));
            self.open.insert(id.clone(), OpenRequest { context: Some(context), since: now });
            return verdict;
        }
        let answer = Answer { status: Some(status), bytes: None, now_ns };
        self.close(Some(context), &answer, said);
        if let Content::Cancelled(id) = &message.content {
            self.give_up(id, &Answer { status: None, ..answer }, said);
        }
        verdict
    }

    /// What becomes of a message that the module lets in, and the status that it has.
    fn admit(&self, message: &Received<'_>) -> (u16, Verdict) {
        let refuse = |line| Verdict::Refuse(Some(line));
        match &message.content {
            content @ (Content::NoJson(_) | Content::NoMessage(_)) => {
                let status = if message.body.is_some() { 400 } else { 413 };
                (status, Verdict::Refuse(unreadable(content)))
            }
            Content::Request(id, _) if self.open.contains_key(id) || self.given_up.contains(id) => {
                let problem = "a request with this id is open, or was given up without an answer of the server";
                (400, refuse(refusal::error(Some(id), NO_MESSAGE, problem)))
            }
            Content::Request(id, _) if self.open.len() >= MAX_OPEN => {
                let problem = format!("{MAX_OPEN} requests wait for the server already; try later");
                (503, refuse(refusal::of_host(id, UNAVAILABLE, "too_many_requests", &problem)))
            }
            Content::Request(..) => (200, Verdict::Forward),
            Content::Notification | Content::Cancelled(_) | Content::Response => {
                (202, Verdict::Forward)
            }
        }
    }

    /// The module has refused a message, and says why.
    fn refuse(
        &mut self,
        context: ContextId,
        content: &Content,
        now_ns: u64,
        said: &mut Said,
    ) -> Verdict {
        let reply = self.worker.host(context).and_then(|host| host.reply.borrow().clone());
        let bytes = reply.as_ref().and_then(|reply| u64::try_from(reply.body.len()).ok());
        self.close(Some(context), &Answer { status: None, bytes, now_ns }, said);
        Verdict::Refuse(match (content, &reply) {
            (Content::Request(id, _), Some(reply)) => Some(refusal::from_reply(id, reply)),
            (Content::Request(id, _), None) => {
                Some(refusal::of_host(id, UNAVAILABLE, "held", "the gate does not decide"))
            }
            (content, _) => unreadable(content),
        })
    }

    /// The module has failed over a message.
    fn lost(&mut self, failure: &Failure, content: &Content, said: &mut Said) -> Verdict {
        self.forget(failure, said);
        Verdict::Refuse(match content {
            Content::Request(id, _) => Some(refusal::of_host(
                id,
                UNAVAILABLE,
                "not_ready",
                "the gate has failed; try again",
            )),
            content => unreadable(content),
        })
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

/// The answer to what is no message.
fn unreadable(content: &Content) -> Option<Vec<u8>> {
    let (code, problem) = match content {
        Content::NoJson(problem) => (NO_JSON, *problem),
        Content::NoMessage(problem) => (NO_MESSAGE, &**problem),
        _ => return None,
    };
    Some(refusal::error(None, code, &format!("no message: {problem}")))
}
