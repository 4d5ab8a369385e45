//! What the body of a request adds to its decision and to its edits.

use crate::access::CanonicalPath;
use crate::body::Declared;
use crate::body::json::Limits;
use crate::body::request::{Injection, RequestReader, Target};
use crate::decision::{Decision, DenyReason};
use crate::engine::{KnownKey, Reserve};
use crate::exchange::{Asked, Held, Metering, ReadBody};
use crate::host::{Host, HostError};

use super::holding::Unread;
use super::request::{Next, RequestGate};
use super::reserve::Priced;
use super::splice::splice;

/// An upstream that refuses a member that it does not know.
const REFUSES_STREAM_OPTIONS: &[u8] = b"api.mistral.ai";

impl<H: Host> RequestGate<'_, H> {
    /// Holds a request until its body has been read, or refuses it at once.
    pub(super) fn hold(&self, asked: Asked, target: Target) -> Next {
        match self.reader(target) {
            Ok(reader) => Next::Hold(Box::new(Held::new(asked, reader))),
            Err((reason, message)) => {
                let Asked { seen, key, .. } = asked;
                self.count_and_forward(seen, &key, Decision::Deny(reason), message)
            }
        }
    }

    /// The reader of the body, if it can be read.
    fn reader(&self, target: Target) -> Result<RequestReader, Unread> {
        let settings = &self.engine.settings().body;
        if let Some(message) = self.holding.refusal(self.host, self.now_ns) {
            return Err((DenyReason::BodyUnreadable, Some(message)));
        }
        if self.head.content_length().is_some_and(|bytes| bytes > settings.max_bytes) {
            return Err((DenyReason::BodyTooLarge, None));
        }
        let declared = Declared::read(self.head.fields());
        let limits =
            Limits { max_depth: settings.max_depth, max_open_keys: settings.max_open_keys };
        RequestReader::new(target, declared, limits)
            .map_err(|unreadable| (DenyReason::BodyUnreadable, Some(unreadable.message())))
    }

    /// Refuses a request whose cost is limited and not known.
    pub(super) fn priced(
        &self,
        key: &KnownKey,
        decision: Decision,
        message: Option<&'static str>,
    ) -> Priced {
        let reserve = self.body.map(|body| self.engine.reserve(key, &body.facts));
        match reserve.transpose().map(Option::flatten) {
            Ok(reserve) => {
                let reserve = reserve.filter(|_| decision.forwards());
                Priced { decision, message, reserve }
            }
            Err((reason, message)) if decision == Decision::Allow => {
                let decision = Decision::refused(reason, self.engine.settings().mode);
                Priced { decision, message, reserve: None }
            }
            Err(_) => Priced { decision, message, reserve: None },
        }
    }

    /// The metering of a request with this body, which is forwarded.
    pub(super) fn metering(&self, reserve: &Reserve) -> Option<Box<Metering>> {
        let body = self.body?;
        let strips = self.injection(body).is_some_and(|injection| injection.strips);
        let Reserve { tokens, micro_usd } = *reserve;
        Some(Box::new(Metering::new(body.facts.clone(), tokens, micro_usd, strips)))
    }

    /// Edits a request so that its response can be read: it is not encoded, and a stream reports its usage.
    pub(super) fn edit_for_metering(&self) -> Result<(), HostError> {
        let Some(body) = self.body else {
            return Ok(());
        };
        self.host.set_request_header("accept-encoding", "identity")?;
        if self.head.has(b"te") {
            self.host.remove_request_header(b"te")?;
        }
        match self.injection(body) {
            Some(injection) => self.inject(body, injection),
            None => Ok(()),
        }
    }

    /// Writes into the body what makes a stream report its usage.
    fn inject(&self, body: &ReadBody, injection: &Injection) -> Result<(), HostError> {
        let Injection { at, text, .. } = injection;
        let place = |offset: u64| usize::try_from(offset).map_err(|_| HostError::BAD_ARGUMENT);
        let range = place(at.start)?..place(at.end)?;
        splice(self.host, place(body.bytes)?, range, text.as_bytes())?;
        if self.head.content_length().is_none() {
            return Ok(());
        }
        let added = u64::try_from(text.len()).unwrap_or(0);
        let removed = at.end.saturating_sub(at.start);
        let bytes = body.bytes.saturating_add(added).saturating_sub(removed);
        self.host.set_request_header("content-length", &bytes.to_string())
    }

    /// The change of the body, unless the route forbids it.
    fn injection<'b>(&self, body: &'b ReadBody) -> Option<&'b Injection> {
        let injection = body.facts.inject.as_ref()?;
        let path = CanonicalPath::parse(self.head.target.unwrap_or_default()).ok();
        let rules = path.and_then(|path| self.engine.settings().llm.rules(path.resource()));
        let is_wanted = rules
            .and_then(|rules| rules.inject_usage)
            .unwrap_or(self.head.authority != Some(REFUSES_STREAM_OPTIONS));
        is_wanted.then_some(injection)
    }
}
