//! The open requests of a session, and the verdicts on its messages.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use vkey::audit::{AuditRecord, Line, Mask};
use vkey::decision::{Decision, DenyReason};
use vkey::host::MemoryHost;
use vkey_vm::{Closed, ContextId, Failure, Opened, Response, Worker};

use super::super::super::embedded::{decision_in, take_audit_line};
use super::super::activity::Activity;
use super::super::head::{is_modern, own_revision};
use super::super::id::Id;
use super::super::key_refusal::KeyRefusal;
use super::super::message::{Content, progress_token};
use super::super::refusal::{self, BAD_REQUEST, INVALID_REQUEST, TOO_LARGE, UNAVAILABLE};
use super::super::sink::LogBatch;
use super::{MAX_OPEN, Received, Refused, ResponseVerdict, Verdict};

/// The module and its open requests.
pub(super) struct State {
    pub(super) worker: Worker,
    pub(super) open: BTreeMap<Id, OpenRequest>,
    /// Requests that were cancelled, or ended without the server; its responses are too late.
    pub(super) given_up: VecDeque<Id>,
    /// The server's requests that the client has not responded to, and when they came.
    pub(super) server_requests: BTreeMap<Id, Duration>,
    /// The request that starts the session.
    pub(super) first: Option<Id>,
    /// The protocol version in the server's response to it.
    pub(super) version: Option<String>,
    /// The revision of the last request that said its own, which the notifications after it do not say.
    pub(super) modern: Option<String>,
    /// Why the key of the last message was refused.
    pub(super) refusal: Option<KeyRefusal>,
}

/// A request that waits for the server's response.
pub(super) struct OpenRequest {
    /// Its context in the module; the VM may have failed since.
    pub(super) context: Option<ContextId>,
    pub(super) since: Duration,
    /// When the server last sent something about it, by the server's clock.
    pub(super) heard: Duration,
    /// The token by which the server reports its progress.
    pub(super) token: Option<Id>,
}

/// What to do with a message that the module allows.
enum Admission {
    /// It is forwarded. It ends at once with this status if no response follows.
    Open(u16),
    /// It is refused.
    Closed(u16, DenyReason, Option<Vec<u8>>),
}

// === impl State ===

impl State {
    /// The revision that a message is of, if it does not say so itself.
    pub(super) fn revision(&self, content: &Content) -> Option<&str> {
        let modern = match content {
            Content::Notification | Content::Cancelled(_) => self.modern.as_deref(),
            _ => None,
        };
        modern.or(self.version.as_deref())
    }

    /// Whether a message responds to a request that the server sent during a request that is still open. Such
    /// a response is a part of that request, which has been evaluated and counted.
    pub(super) fn take_response_in_call(&mut self, content: &Content) -> bool {
        let Content::Response(Some(id)) = content else {
            return false;
        };
        let id = &self.server_request(id);
        let asked = self.server_requests.get(id).copied();
        let was_open = |asked| self.open.values().any(|request| request.since <= asked);
        let in_call = asked.is_some_and(was_open);
        if in_call {
            self.server_requests.remove(id);
        }
        in_call
    }

    pub(super) fn evaluate(
        &mut self,
        message: &Received<'_>,
        host: MemoryHost,
        activity: &Activity,
        batch: &mut LogBatch,
    ) -> Verdict {
        let now_ns = host.now_ns.get().unwrap_or(0);
        let context = match self.worker.open(host) {
            Err(failure) => {
                self.forget(&failure, batch);
                return Verdict::Refuse(self.refused(message, None, None));
            }
            Ok(Opened::Held(context)) => return self.refuse(context, message, now_ns, batch),
            Ok(Opened::Forwarded(context)) => context,
        };
        self.refusal = None;
        // It may be long, and is not needed any more.
        if let Some(host) = self.worker.host(context) {
            host.request_body.clear();
        }
        match self.admit(message) {
            Admission::Open(status) => {
                self.enter(context, message, status, activity, now_ns, batch);
                Verdict::Forward
            }
            Admission::Closed(status, reason, client) => {
                let response = Response { status: Some(status), now_ns, ..Response::default() };
                let mut own = LogBatch::default();
                self.close(Some(context), &response, &mut own);
                own.audit.iter_mut().for_each(|line| *line = denied(line, reason));
                batch.append(own);
                let server = self.error_for_server(message, None);
                Verdict::Refuse(Refused { client, server })
            }
        }
    }

    /// Decides about a message that the module allows.
    fn admit(&self, message: &Received<'_>) -> Admission {
        let unreadable = DenyReason::BodyUnreadable;
        match &message.content {
            Content::InvalidJson(_) | Content::InvalidMessage(_) => {
                let status = if message.body.is_some() { BAD_REQUEST } else { TOO_LARGE };
                Admission::Closed(status, unreadable, self.invalid_message(message))
            }
            Content::Request(id, _) if self.is_taken(id) => {
                let problem = "a request with this id is open, or was given up without a response of the server";
                let line = refusal::error(Some(id), INVALID_REQUEST, problem);
                Admission::Closed(BAD_REQUEST, unreadable, Some(line))
            }
            Content::Request(id, _) if self.open.len() >= MAX_OPEN => {
                let problem = format!("{MAX_OPEN} requests are already open; try again later");
                let line = refusal::of_host(id, UNAVAILABLE, "too_many_requests", &problem);
                Admission::Closed(UNAVAILABLE, DenyReason::NotReady, Some(line))
            }
            Content::Request(..) => Admission::Open(200),
            Content::Notification | Content::Cancelled(_) | Content::Response(_) => {
                Admission::Open(202)
            }
        }
    }

    /// Lets a message pass: a request is open from now on, everything else is finished.
    fn enter(
        &mut self,
        context: ContextId,
        message: &Received<'_>,
        status: u16,
        activity: &Activity,
        now_ns: u64,
        batch: &mut LogBatch,
    ) {
        if let Content::Request(id, first) = &message.content {
            self.first = self.first.take().or_else(|| first.then(|| id.clone()));
            let own = message.message.as_ref().and_then(own_revision);
            self.modern = own.filter(|own| is_modern(own)).map(str::to_owned);
            let token = message.body.and_then(progress_token);
            let (since, heard) = (activity.now(), activity.server_now());
            let request = OpenRequest { context: Some(context), since, heard, token };
            self.open.insert(id.clone(), request);
            return;
        }
        let response = Response { status: Some(status), now_ns, ..Response::default() };
        self.close(Some(context), &response, batch);
        match &message.content {
            Content::Cancelled(id) => {
                self.give_up(id, &Response { status: None, ..response }, batch);
            }
            Content::Response(Some(id)) => {
                _ = self.server_requests.remove(&self.server_request(id));
            }
            _ => {}
        }
    }

    /// Handles a message that the module denied.
    fn refuse(
        &mut self,
        context: ContextId,
        message: &Received<'_>,
        now_ns: u64,
        batch: &mut LogBatch,
    ) -> Verdict {
        let reply = self.worker.host(context).and_then(|host| host.reply.borrow().clone());
        let bytes = reply.as_ref().and_then(|reply| u64::try_from(reply.body.len()).ok());
        let mut own = LogBatch::default();
        self.close(Some(context), &Response { bytes, now_ns, ..Response::default() }, &mut own);
        self.note_refusal(&mut own);
        let reason = own.audit.iter().find_map(|line| match decision_in(line) {
            Some(Decision::Deny(reason)) => Some(reason),
            _ => None,
        });
        batch.append(own);
        let refused = self.refused(message, reply.as_ref(), reason);
        Verdict::Refuse(refused)
    }

    /// Notes why the key is refused, if the last message was not refused for the same reason.
    fn note_refusal(&mut self, batch: &mut LogBatch) {
        let refusal = batch.audit.iter().find_map(|line| KeyRefusal::in_line(line));
        let news = refusal.filter(|_| refusal != self.refusal);
        batch.notes.extend(news.map(|refusal| refusal.to_string()));
        self.refusal = refusal;
    }

    /// The client's request that an id from the server belongs to.
    pub(super) fn requested(&self, id: &Id) -> Id {
        id.known(|id| self.is_taken(id))
    }

    /// The server's request that an id from the client belongs to.
    pub(super) fn server_request(&self, id: &Id) -> Id {
        id.known(|id| self.server_requests.contains_key(id))
    }

    /// Whether a request with this id waits for a response, or for one that will be dropped.
    pub(super) fn is_taken(&self, id: &Id) -> bool {
        self.open.contains_key(id) || self.given_up.contains(id)
    }

    pub(super) fn response(
        &mut self,
        id: &Id,
        line: &[u8],
        response: &Response,
        batch: &mut LogBatch,
    ) -> ResponseVerdict {
        if let Some(late) = self.given_up.iter().position(|given_up| given_up == id) {
            self.given_up.remove(late);
            return ResponseVerdict::Late;
        }
        let Some(request) = self.open.remove(id) else {
            // Nobody has asked for it, so that nothing has judged it.
            return ResponseVerdict::Late;
        };
        let withheld = || {
            let why = "the gate withholds the response";
            ResponseVerdict::Instead(refusal::of_host(id, UNAVAILABLE, "withheld", why))
        };
        let Some(ended) = self.close(request.context, response, batch) else {
            return withheld();
        };
        if ended.withheld {
            let reply = ended.host.reply.borrow();
            return reply.as_ref().map_or_else(withheld, |reply| {
                ResponseVerdict::Instead(refusal::from_reply(id, reply))
            });
        }
        match ended.host.response_body.passed() {
            passed if passed == line => ResponseVerdict::Pass,
            passed if passed.is_empty() => withheld(),
            passed => ResponseVerdict::Instead(refusal::of_list(id, passed)),
        }
    }

    pub(super) fn give_up(&mut self, id: &Id, response: &Response, batch: &mut LogBatch) -> bool {
        let Some(request) = self.open.remove(id) else {
            return false;
        };
        self.close(request.context, response, batch);
        if self.given_up.len() >= MAX_OPEN {
            self.given_up.pop_front();
        }
        self.given_up.push_back(id.clone());
        true
    }

    /// Ends a request in the module, and collects its log and audit line.
    fn close(
        &mut self,
        context: Option<ContextId>,
        response: &Response,
        batch: &mut LogBatch,
    ) -> Option<Closed> {
        match self.worker.close(context?, response) {
            Ok(ended) => {
                let ended = ended?;
                batch.audit.extend(take_audit_line(&ended.host));
                batch.log.append(&mut ended.host.log.take());
                Some(ended)
            }
            Err(failure) => {
                self.forget(&failure, batch);
                None
            }
        }
    }

    /// The VM has failed: open requests get no audit line.
    fn forget(&mut self, failure: &Failure, batch: &mut LogBatch) {
        for request in self.open.values_mut() {
            request.context = None;
        }
        let open = self.open.len();
        batch.log.append(&mut self.worker.take_log());
        batch
            .notes
            .push(format!("{failure}; this message and {open} open requests have no audit lines"));
    }
}

/// The audit line of a message that the module allowed and the command refuses.
fn denied(line: &str, reason: DenyReason) -> String {
    // Keep what the module has masked.
    let Ok(Line { record: Some(record), outcome }) = Line::parse(line) else {
        return line.to_owned();
    };
    let record = AuditRecord { decision: Some(Decision::Deny(reason)), ..record };
    Line { record: Some(record), outcome }.write(&Mask::default())
}
