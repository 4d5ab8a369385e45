//! The result of a line of `vkey run`.

use std::fmt;

use vkey::decision::{Decision, DenyReason};
use vkey::host::HeaderList;
use vkey::host::Level;
use vkey::json::push_quoted;
use vkey::json::{Json, Object};
use vkey::reply::Reply;
use vkey_vm::Closed;

use super::super::embedded::{decision_in, take_audit_line};
use super::super::exit::Exit;
use super::super::text::ascii;
use super::request::RequestLine;

/// Replaces a provider credential.
const REDACTED: &str = "***REDACTED***";

/// The prefix of headers whose values are not secret.
const IDENTITY_PREFIX: &[u8] = b"x-vkey-";

/// The status of the host's own response if the module sent no reply.
pub(super) const UNAVAILABLE: u16 = 503;

/// The result of a line.
pub(super) struct LineResult {
    /// The line of output.
    pub(super) text: String,
    /// The module's log.
    pub(super) log: Vec<(Level, String)>,
    pub(super) outcome: Outcome,
}

/// The outcome of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    Denied,
    /// The module failed.
    Failed,
    /// The line is not a valid request.
    Unreadable,
}

/// The number of lines with each outcome.
#[derive(Default)]
pub(super) struct Summary {
    allowed: u64,
    denied: u64,
    failed: u64,
    unreadable: u64,
}

// === impl Verdict ===

impl LineResult {
    /// The result of a request that the module handled.
    pub(super) fn new(number: u64, request: &RequestLine, ended: &Closed, forwarded: bool) -> Self {
        let host = &ended.host;
        let line = take_audit_line(host);
        let decision = line.as_deref().and_then(decision_in);
        let goes_on = forwarded && !ended.withheld;
        let mut text = String::new();
        let mut object = open(&mut text, number, request.id.as_ref());
        object.text("decision", Some(decision.map_or("deny", Decision::word)));
        let reason = decision.and_then(Decision::reason);
        object.text("reason", reason.map(DenyReason::code));
        object.number("status", host.status.get());
        let sent = forwarded.then(|| host.sent_headers());
        write_edits(&mut object, request.headers(), sent.as_ref().unwrap_or(request.headers()));
        let answer = host.response_headers.borrow();
        let own = |(name, value): &(&String, &String)| goes_on && !request.is_sent(name, value);
        let answer = answer.iter().filter(own).map(|(name, value)| (&**name, &**value));
        push_pairs(object.member("answer"), answer);
        if forwarded {
            write_change(&mut object, "body", &request.sent_body(), &host.request_body.passed());
        }
        if goes_on {
            let shown = host.response_body.passed();
            write_change(&mut object, "answer_body", &request.response_body(), &shown);
        }
        write_reply(&mut object, host.reply.borrow().as_ref());
        object.member("audit").push_str(line.as_deref().unwrap_or("null"));
        object.close();
        let outcome = if goes_on { Outcome::Allowed } else { Outcome::Denied };
        // A reply with counts, or that the gate is ready, is not a denial.
        let shown = matches!(decision, Some(Decision::Allow | Decision::Public));
        let outcome = if shown { Outcome::Allowed } else { outcome };
        Self { text, log: host.log.take(), outcome }
    }

    /// The result of a request on which the module failed: the host denies it.
    pub(super) fn failed(number: u64, request: &RequestLine, problem: &str) -> Self {
        let mut text = String::new();
        let mut object = open(&mut text, number, request.id.as_ref());
        object.text("decision", Some("deny"));
        object.text("reason", None);
        object.number("status", Some(UNAVAILABLE.into()));
        object.text("error", Some(problem));
        object.close();
        Self { text, log: Vec::new(), outcome: Outcome::Failed }
    }

    /// The result of a line that is not a valid request.
    pub(super) fn unreadable(number: u64, id: Option<&Json>, problem: &str) -> Self {
        let mut text = String::new();
        let mut object = open(&mut text, number, id);
        object.text("error", Some(problem));
        object.close();
        Self { text, log: Vec::new(), outcome: Outcome::Unreadable }
    }
}

fn open<'a>(text: &'a mut String, number: u64, id: Option<&Json>) -> Object<'a> {
    let mut object = Object::open(text);
    object.number("line", Some(number));
    if let Some(id) = id {
        object.member("id").push_str(&ascii(id));
    }
    object
}

/// Writes the changes to the request headers.
fn write_edits(object: &mut Object<'_>, before: &HeaderList, after: &[(Vec<u8>, Vec<u8>)]) {
    let added = after.iter().filter(|header| !before.contains(header));
    let added: Vec<_> =
        added.map(|(name, value)| (lossy(name), visible_value(name, value))).collect();
    push_pairs(object.member("add"), added.iter().map(|(name, value)| (&**name, &**value)));
    let removed = before.iter().filter(|header| !after.contains(header));
    let mut names: Vec<_> = removed.map(|(name, _)| lossy(name)).collect();
    names.dedup();
    push_list(object.member("remove"), names.iter(), |text, name| push_quoted(text, name));
}

/// Writes the change to a body, if there is one: where it is, how many bytes it replaces, and by what.
fn write_change(object: &mut Object<'_>, name: &'static str, before: &[u8], after: &[u8]) {
    if before == after {
        return;
    }
    let same = |(one, other): &(&u8, &u8)| one == other;
    let start = before.iter().zip(after).take_while(same).count();
    let (old, new) = (before.split_at(start).1, after.split_at(start).1);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let (old, new) = (old.len() - end, new.len() - end);
    let number = |number: usize| u64::try_from(number).ok();
    let mut change = Object::open(object.member(name));
    change.number("at", number(start));
    change.number("removed", number(old));
    change.text("added", Some(&lossy(after.get(start..start + new).unwrap_or_default())));
    change.close();
}

fn write_reply(object: &mut Object<'_>, reply: Option<&Reply>) {
    let text = object.member("reply");
    let Some(reply) = reply else {
        return text.push_str("null");
    };
    let mut object = Object::open(text);
    let headers = reply.headers.iter().map(|(name, value)| (&**name, &**value));
    push_pairs(object.member("headers"), headers);
    object.text("body", Some(&reply.body));
    object.close();
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The value of a header that the module adds. Unless the header identifies the caller, it may be a provider
/// credential, and is hidden.
fn visible_value(name: &[u8], value: &[u8]) -> String {
    if name.starts_with(IDENTITY_PREFIX) { lossy(value) } else { REDACTED.to_owned() }
}

/// Appends a list of names and values.
fn push_pairs<'a>(text: &mut String, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    push_list(text, pairs, |text, (name, value)| {
        push_list(text, [name, value].into_iter(), push_quoted);
    });
}

fn push_list<T>(text: &mut String, items: impl Iterator<Item = T>, push: impl Fn(&mut String, T)) {
    let mut separator = '[';
    for item in items {
        text.push(separator);
        separator = ',';
        push(text, item);
    }
    text.push_str(if separator == '[' { "[]" } else { "]" });
}

// === impl Summary ===

impl Summary {
    /// Counts a result.
    pub(super) fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Allowed => &mut self.allowed,
            Outcome::Denied => &mut self.denied,
            Outcome::Failed => &mut self.failed,
            Outcome::Unreadable => &mut self.unreadable,
        };
        *count += 1;
    }

    /// The exit code: a denial is a successful evaluation.
    pub(super) fn exit(&self) -> Exit {
        if self.failed + self.unreadable == 0 { Exit::Success } else { Exit::Refused }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allowed, denied, failed, unreadable } = self;
        let requests = allowed + denied + failed;
        write!(f, "{requests} requests, {allowed} allowed, {denied} denied")?;
        if *failed > 0 {
            write!(f, ", {failed} that the module has failed over")?;
        }
        if *unreadable > 0 {
            write!(f, "; {unreadable} lines that are no request")?;
        }
        Ok(())
    }
}
