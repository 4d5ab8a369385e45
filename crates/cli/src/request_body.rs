//! The body of the request that `vkey explain` evaluates, read as the gate reads it.

use std::borrow::Cow;

use vkey::body::Declared;
use vkey::body::request::{RequestFacts, RequestReader, Target};
use vkey::config::Settings;
use vkey::decision::DenyReason;
use vkey::engine::NOT_ON_NGINX;
use vkey::host::Dialect;
use vkey::json::Json;

/// The type that a body is declared as unless a header says otherwise.
const JSON: &[u8] = b"application/json";

const CONTENT_TYPE: &[u8] = b"content-type";

/// A header: its name in lower case, and its value.
pub(super) type Header = (Vec<u8>, Vec<u8>);

/// A body, and what the headers declare of it.
pub(super) struct RequestBody {
    bytes: Vec<u8>,
    declared: Declared,
}

impl RequestBody {
    /// A body of a request with these headers; `None` is no body.
    pub(super) fn new(bytes: Option<Vec<u8>>, headers: &[Header]) -> Self {
        let mut declared = Declared::default();
        headers.iter().for_each(|(name, value)| declared.add(name, value));
        if bytes.is_some() && !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            declared.add(CONTENT_TYPE, JSON);
        }
        Self { bytes: bytes.unwrap_or_default(), declared }
    }

    /// Whether there is one.
    pub(super) fn is_present(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// What it asks for, if the gate can read it.
    ///
    /// # Errors
    ///
    /// Why the gate refuses a request whose body it must read.
    pub(super) fn read(
        &self,
        target: Target,
        settings: &Settings,
    ) -> Result<RequestFacts, (DenyReason, Cow<'static, str>)> {
        if settings.dialect == Dialect::Nginx {
            return Err((DenyReason::BodyUnreadable, NOT_ON_NGINX.into()));
        }
        let max_bytes = settings.body.max_bytes;
        if u64::try_from(self.bytes.len()).is_ok_and(|bytes| bytes > max_bytes) {
            let (reason, bound) = (DenyReason::BodyTooLarge, settings.body.size_bound());
            return Err((reason, with_detail(reason.message(), Some(bound))));
        }
        self.facts(target, settings).map_err(|message| (DenyReason::BodyUnreadable, message))
    }

    /// What it asks for, whoever reads it.
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
        let mut reader = RequestReader::new(target, self.declared, limits)
            .map_err(|cause| Cow::from(cause.message()))?;
        reader
            .feed(&self.bytes)
            .map_err(|cause| with_detail(cause.message(), cause.detail(limits, reader.member())))?;
        reader.finish().map_err(|cause| cause.message().into())
    }
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
