//! What the body of a request adds to its decision and to its edits.

use std::rc::Rc;

use crate::access::CanonicalPath;
use crate::body::Declared;
use crate::body::json::{Limits, Unreadable};
use crate::body::mcp::Era;
use crate::body::mcp::lists::Asked as AskedFor;
use crate::body::request::{Injection, RequestFacts, RequestReader, Target};
use crate::decision::{Decision, DenyReason, Mode};
use crate::engine::{KnownKey, Reserve};
use crate::exchange::{
    Asked, BodyReader, Content, Filtering, Forwarded, Held, Metering, ReadBody, Viewer,
};
use crate::host::{Host, HostError};
use crate::time::secs;

use super::client_cert;

use super::holding::Unread;
use super::request::{Next, RequestGate};
use super::reserve::{Priced, Words, reserved_usage};
use super::splice::splice;

/// An upstream that refuses a member that it does not know.
const REFUSES_STREAM_OPTIONS: &[u8] = b"api.mistral.ai";

/// Headers that are about the bytes of a body, and wrong once it has changed (RFC 9530, RFC 3230, RFC 1864).
pub(super) const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

impl<H: Host> RequestGate<'_, H> {
    /// Holds a request until its body has been read. If it cannot be read, the request is refused, or goes on without
    /// being counted if nothing that is enforced depends on its body.
    fn hold(
        &self,
        asked: Asked,
        decision: Decision,
        reader: impl FnOnce(Declared, Limits) -> Result<BodyReader, Unreadable>,
    ) -> Next {
        match self.unread.map_or_else(|| self.reader(reader), Err) {
            Ok(reader) => Next::Hold(Box::new(Held::new(asked, reader))),
            Err(unread) => self.conclude_unread(asked, decision, unread),
        }
    }

    /// Holds an AI request.
    pub(super) fn hold_ai(&self, asked: Asked, decision: Decision, target: Target) -> Next {
        self.hold(asked, decision, |declared, limits| {
            RequestReader::new(target, declared, limits).map(Box::new).map(BodyReader::Ai)
        })
    }

    /// Holds a message of MCP.
    pub(super) fn hold_message(&self, asked: Asked, decision: Decision) -> Next {
        let key = Rc::clone(&asked.key);
        self.hold(asked, decision, |declared, limits| {
            key.message_reader(declared, limits).map(Box::new).map(BodyReader::Mcp)
        })
    }

    #[cold]
    fn conclude_unread(
        &self,
        Asked { seen, key, .. }: Asked,
        decision: Decision,
        unread: Unread,
    ) -> Next {
        let reason = unread.reason();
        let decision = match reason {
            DenyReason::NotReady => Decision::Deny(reason),
            _ if seen.is_message() && decision.forwards() => {
                Decision::refused(reason, self.engine.settings().mode)
            }
            _ if seen.is_message() => decision,
            _ => self.engine.decide_unread(&key, decision, reason),
        };
        let mut seen = seen;
        if unread.is_not_json() {
            seen.set_parse_error();
        }
        // A refusal for anything else has other words.
        let words = match decision.reason() == Some(reason) && !decision.forwards() {
            true => Words {
                message: unread.message(),
                detail: unread.detail(&self.engine.settings().body),
            },
            false => Words::default(),
        };
        let mut next = self.count_and_forward(seen, &key, decision, words);
        if let Next::Forward(request, _) = &mut next
            && self.engine.counts_tokens(&key)
        {
            request.set_usage(reserved_usage(&Reserve { tokens: 0, micro_usd: None }));
        }
        next
    }

    /// The reader of the body, if it can be read.
    fn reader(
        &self,
        reader: impl FnOnce(Declared, Limits) -> Result<BodyReader, Unreadable>,
    ) -> Result<BodyReader, Unread> {
        let settings = &self.engine.settings().body;
        if let Some(message) = self.holding.refusal(self.host, self.now_ns) {
            return Err(Unread::NotHeld(message));
        }
        if self.head.content_length().is_some_and(|bytes| bytes > settings.max_bytes) {
            return Err(Unread::TooLarge);
        }
        reader(Declared::read(self.head.fields()), settings.limits())
            .map_err(|unreadable| Unread::Unreadable(unreadable, None))
    }

    /// What the body of an AI request asks for, if it was read.
    pub(super) fn facts(&self) -> Option<&RequestFacts> {
        self.body.and_then(|body| body.content.facts())
    }

    /// Refuses a request whose cost is limited and not known.
    pub(super) fn priced(&self, key: &KnownKey, decision: Decision, words: Words) -> Priced {
        let reserve = self.facts().map(|facts| self.engine.reserve(key, facts));
        match reserve.transpose().map(Option::flatten) {
            Ok(reserve) => {
                let reserve = reserve.filter(|_| decision.forwards());
                Priced { decision, words, reserve, unpriced: None }
            }
            Err((reason, message)) if decision == Decision::Allow => {
                let decision = Decision::refused(reason, self.engine.settings().mode);
                let unpriced = self.facts().and_then(|facts| self.engine.unpriced(facts));
                let words = Words { message, detail: None };
                Priced { decision, words, reserve: None, unpriced }
            }
            Err(_) => Priced { decision, words, reserve: None, unpriced: None },
        }
    }

    /// The metering of a request with this body, which is forwarded.
    pub(super) fn metering(&self, reserve: &Reserve) -> Option<Box<Metering>> {
        let facts = self.facts()?;
        let strips = self.injection(facts).is_some_and(|injection| injection.strips);
        let Reserve { tokens, micro_usd } = *reserve;
        Some(Box::new(Metering::new(facts.clone(), tokens, micro_usd, strips)))
    }

    /// What the client sees of the lists in the response to an allowed request, if its key does not see all of them.
    pub(super) fn filtering(
        &self,
        request: &Forwarded,
        key: &Rc<KnownKey>,
    ) -> Option<Box<Filtering>> {
        let decided = request.decided();
        if !key.restricts_mcp()
            || !decided.seen().is_message()
            || decided.decision() != Decision::Allow
            || self.engine.settings().mode == Mode::Shadow
        {
            return None;
        }
        let message = self.body.and_then(|body| body.content.message());
        let (asked, is_modern) = match message {
            Some(message) => {
                (AskedFor::by(&message.method), decided.seen().era() == Some(Era::Modern))
            }
            None if self.head.method == Some(b"GET") => (AskedFor::Stream, false),
            None => return None,
        };
        let viewer = Viewer {
            key: Rc::clone(key),
            now_secs: secs(self.now_ns),
            authority: self.head.authority.unwrap_or_default().into(),
            path: self.head.target.unwrap_or_default().into(),
            source: decided.seen().source(),
            client_cert: key.needs_client_cert().then(|| client_cert(self.host)).flatten(),
        };
        Some(Box::new(Filtering::new(asked, is_modern, viewer)))
    }

    /// Edits a request so that its response can be read: it is whole and not encoded, and a stream reports its usage.
    pub(super) fn edit_for_reading(&self) -> Result<(), HostError> {
        self.host.set_request_header("accept-encoding", "identity")?;
        // Part of a response cannot be judged, and Google's services would leave out members for the last one.
        for (name, _) in self.head.fields() {
            let is_named = |known: &&[u8]| name.eq_ignore_ascii_case(known);
            if [&b"te"[..], b"range", b"x-goog-fieldmask"].iter().any(is_named) {
                self.host.remove_request_header(name)?;
            }
        }
        let Some(ReadBody { content: Content::Ai(facts), bytes }) = self.body else {
            return Ok(());
        };
        match self.injection(facts) {
            Some(injection) => self.inject(*bytes, injection),
            None => Ok(()),
        }
    }

    /// Writes into the body what makes a stream report its usage.
    fn inject(&self, bytes: u64, injection: &Injection) -> Result<(), HostError> {
        let Injection { at, text, .. } = injection;
        let place = |offset: u64| usize::try_from(offset).map_err(|_| HostError::BAD_ARGUMENT);
        let range = place(at.start)?..place(at.end)?;
        splice(self.host, place(bytes)?, range, text.as_bytes())?;
        let mut digests = DIGESTS.into_iter().filter(|name| self.head.has(name.as_bytes()));
        digests.try_for_each(|name| self.host.remove_request_header(name.as_bytes()))?;
        if self.head.content_length().is_none() {
            return Ok(());
        }
        let added = u64::try_from(text.len()).unwrap_or(0);
        let removed = at.end.saturating_sub(at.start);
        let bytes = bytes.saturating_add(added).saturating_sub(removed);
        self.host.set_request_header("content-length", &bytes.to_string())
    }

    /// The change of the body, unless the route forbids it.
    fn injection<'b>(&self, facts: &'b RequestFacts) -> Option<&'b Injection> {
        let injection = facts.inject.as_ref()?;
        let path = CanonicalPath::parse(self.head.target.unwrap_or_default()).ok();
        let rules = path.and_then(|path| self.engine.settings().llm.rules(path.resource()));
        let is_wanted = rules
            .and_then(|rules| rules.inject_usage)
            .unwrap_or(self.head.authority != Some(REFUSES_STREAM_OPTIONS));
        is_wanted.then_some(injection)
    }
}
