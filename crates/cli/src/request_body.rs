//! The body of the request that `vkey explain` evaluates, read as the gate reads it.

use std::borrow::Cow;

use vkey::body::Declared;
use vkey::body::json::Unreadable;
use vkey::body::mcp::Message;
use vkey::body::request::{RequestFacts, RequestReader, Target};
use vkey::config::Settings;
use vkey::decision::DenyReason;
use vkey::engine::{KnownKey, NOT_ON_NGINX};
use vkey::host::Dialect;
use vkey::json::Json;

/// The type that a body is declared as unless a header says otherwise.
const JSON: &[u8] = b"application/json";

const CONTENT_TYPE: &[u8] = b"content-type";

/// Why a request is refused, and the message for people.
pub(super) type Refusal = (DenyReason, Cow<'static, str>);

/// A header: its name in lower case, and its value.
pub(super) type Header = (Vec<u8>, Vec<u8>);

/// A body, and what the headers declare of it.
pub(super) struct RequestBody {
    /// `None`: it is not known.
    bytes: Option<Vec<u8>>,
    declared: Declared,
    /// The message of MCP that the options name, in place of a body.
    named: Option<Message>,
}

impl RequestBody {
    /// A body of a request with these headers; `None` is one that is not known. `named`: the message that it is.
    pub(super) fn new(bytes: Option<Vec<u8>>, headers: &[Header], named: Option<Message>) -> Self {
        let mut declared = Declared::default();
        headers.iter().for_each(|(name, value)| declared.add(name, value));
        if bytes.is_some() && !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            declared.add(CONTENT_TYPE, JSON);
        }
        Self { bytes, declared, named }
    }

    /// Whether it is known.
    pub(super) fn is_known(&self) -> bool {
        self.bytes.is_some()
    }

    /// Whether it has bytes.
    pub(super) fn is_present(&self) -> bool {
        !self.bytes().is_empty()
    }

    /// The message that the options name.
    pub(super) fn named(&self) -> Option<&Message> {
        self.named.as_ref()
    }

    /// What it asks for, if the gate can read it. [`RequestBody::check`] comes first.
    ///
    /// # Errors
    ///
    /// Why the gate refuses a request whose body it must read.
    pub(super) fn read(
        &self,
        target: Target,
        settings: &Settings,
    ) -> Result<RequestFacts, Refusal> {
        self.facts(target, settings).map_err(unreadable)
    }

    /// The message that it is, if the gate can read it. [`RequestBody::check`] comes first.
    ///
    /// # Errors
    ///
    /// As [`RequestBody::read`].
    pub(super) fn read_message(
        &self,
        key: &KnownKey,
        settings: &Settings,
    ) -> Result<Message, Refusal> {
        self.message(key, settings).map_err(unreadable)
    }

    /// Whether the gate can hold the request and all of its body.
    ///
    /// # Errors
    ///
    /// Why it refuses the request.
    pub(super) fn check(&self, settings: &Settings) -> Result<(), Refusal> {
        if settings.dialect == Dialect::Nginx {
            return Err((DenyReason::BodyUnreadable, NOT_ON_NGINX.into()));
        }
        match u64::try_from(self.bytes().len()) {
            Ok(bytes) if bytes <= settings.body.max_bytes => Ok(()),
            _ => {
                let (reason, bound) = (DenyReason::BodyTooLarge, settings.body.size_bound());
                Err((reason, with_detail(reason.message(), Some(bound))))
            }
        }
    }

    /// What it asks for, whether the gate reads it or not.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    pub(super) fn facts(
        &self,
        target: Target,
        settings: &Settings,
    ) -> Result<RequestFacts, Cow<'static, str>> {
        let limits = settings.body.limits();
        let message = |cause: Unreadable| Cow::from(cause.message());
        let mut reader = RequestReader::new(target, self.declared, limits).map_err(message)?;
        reader
            .feed(self.bytes())
            .map_err(|cause| with_detail(cause.message(), cause.detail(limits, reader.member())))?;
        reader.finish().map_err(message)
    }

    /// The message of MCP that it is.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    fn message(&self, key: &KnownKey, settings: &Settings) -> Result<Message, Cow<'static, str>> {
        let limits = settings.body.limits();
        let message = |cause: Unreadable| Cow::from(cause.message());
        let mut reader = key.message_reader(self.declared, limits).map_err(message)?;
        reader
            .feed(self.bytes())
            .map_err(|cause| with_detail(cause.message(), cause.detail(limits, None)))?;
        reader.finish().map_err(message)
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }
}

fn unreadable(message: Cow<'static, str>) -> Refusal {
    (DenyReason::BodyUnreadable, message)
}

/// A message and what follows it.
pub(super) fn with_detail(message: &'static str, detail: Option<String>) -> Cow<'static, str> {
    match detail {
        Some(detail) => [message, ": ", &detail].concat().into(),
        None => message.into(),
    }
}

/// The facts of a body, with what they reserve under these settings.
pub(super) fn describe_facts(facts: &RequestFacts, settings: &Settings) -> Json {
    let names =
        |names: &[Box<str>]| Json::Array(names.iter().map(|name| (&**name).into()).collect());
    let number = |number: Option<u64>| number.map_or(Json::Null, Json::from);
    let llm = &settings.llm;
    let output = facts.reserve_output(llm.reserve_tokens(&facts.models));
    let micro_usd = llm.prices.reservation(&facts.models, facts.input_tokens, output);
    Json::object([
        ("format", facts.format.name().into()),
        ("models", names(&facts.models)),
        ("open_ended", Json::Bool(facts.open_ended)),
        ("stream", Json::Bool(facts.stream)),
        ("max_output", number(facts.max_output)),
        ("candidates", facts.candidates.into()),
        ("input_tokens", facts.input_tokens.into()),
        ("reserve_tokens", facts.input_tokens.saturating_add(output).into()),
        ("reserve_micro_usd", number(micro_usd.filter(|_| !facts.open_ended))),
        ("hosted_mcp", names(&facts.hosted_mcp)),
        ("deferred", Json::Bool(facts.deferred)),
    ])
}
