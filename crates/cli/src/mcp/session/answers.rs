//! What the senders of refused messages are told.

use std::borrow::Cow;

use vkey::decision::DenyReason;
use vkey::reply::{Refusal, Reply};

use super::super::id::Id;
use super::super::message::Content;
use super::super::refusal::{self, BAD_REQUEST, INVALID_REQUEST, PARSE_ERROR, UNAVAILABLE};
use super::state::State;
use super::{Received, Refused};

impl State {
    /// The errors for a message that the module denied; there is no reply and no reason if the module failed.
    pub(super) fn refused(
        &mut self,
        message: &Received<'_>,
        reply: Option<&Reply>,
        reason: Option<DenyReason>,
    ) -> Refused {
        let client = match (&message.content, reply) {
            (Content::Request(id, _), reply) => Some(refusal_of(id, reply)),
            (Content::InvalidJson(_) | Content::InvalidMessage(_), Some(reply)) => {
                let id = self.certain_id(message);
                let own = message.body.and_then(|_| refusal::from_unread(id, reply));
                own.or_else(|| self.invalid_message(message))
            }
            _ => self.invalid_message(message),
        };
        // The module answers no response, but the server waits for it.
        let words = reason.map(|reason| vkey::reply::reply(reason, Refusal::default()));
        Refused { client, server: self.error_for_server(message, words.as_ref()) }
    }

    /// The error for an invalid message. Its sender finds it by the id, if that is known and no other request
    /// waits under it.
    pub(super) fn invalid_message(&self, message: &Received<'_>) -> Option<Vec<u8>> {
        let (code, problem) = problem(&message.content)?;
        Some(refusal::error(self.certain_id(message), code, &problem))
    }

    fn certain_id<'m>(&self, message: &'m Received<'_>) -> Option<&'m Id> {
        message.scan.request().filter(|id| !self.is_taken(id))
    }

    /// The error for the server's request that the client answered with a refused message.
    pub(super) fn error_for_server(
        &mut self,
        message: &Received<'_>,
        reply: Option<&Reply>,
    ) -> Option<Vec<u8>> {
        let id = match &message.content {
            Content::Response(Some(id)) => id,
            Content::InvalidJson(_) | Content::InvalidMessage(_) => message.scan.answered()?,
            _ => return None,
        };
        let id = &self.server_request(id);
        self.server_requests.remove(id)?;
        Some(match problem(&message.content) {
            Some((_, problem)) => refusal::of_host(id, BAD_REQUEST, "answer_unreadable", &problem),
            None => refusal_of(id, reply),
        })
    }
}

/// The error for what the module denied.
fn refusal_of(id: &Id, reply: Option<&Reply>) -> Vec<u8> {
    match reply {
        Some(reply) => refusal::from_reply(id, reply),
        None => refusal::of_host(id, UNAVAILABLE, "not_ready", "the gate has failed; try again"),
    }
}

/// What is wrong with an invalid message.
fn problem(content: &Content) -> Option<(i64, String)> {
    let (code, problem) = match content {
        Content::InvalidJson(problem) => (PARSE_ERROR, Cow::Borrowed(*problem)),
        Content::InvalidMessage(problem) => (INVALID_REQUEST, Cow::Borrowed(&**problem)),
        _ => return None,
    };
    Some((code, format!("not a message: {problem}")))
}
