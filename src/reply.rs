//! Local replies: the responses that the gate sends itself.

use std::borrow::Cow;

use crate::alerts::failures::FailureRules;
use crate::body::Dialect;
use crate::decision::{DenyClass, DenyReason};
use crate::json::decimal::push_decimal;
use crate::limits::allowance::{Allowance, RateLimitFields};
use crate::limits::quota::Unit;
use crate::limits::tally::{Exceeded, Exhausted};
use crate::limits::{Amounts, Kind};
use crate::time::{millis_until, secs_until};

/// A local reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The status for a gRPC caller (`google.rpc.Code`); `None` if the host chooses it.
    pub grpc_status: Option<u8>,
    /// Headers besides the status.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The body: JSON.
    pub body: Cow<'static, str>,
    /// The name of the reply in the proxy's own logs (Envoy: response code details): `vkey_` and a word, no
    /// spaces.
    pub details: Cow<'static, str>,
}

/// Details of a refused request, most about its limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// How the client expects errors to be worded.
    pub dialect: Dialect,
    /// What a caller of JSON-RPC needs besides.
    pub rpc: Option<Box<Rpc>>,
    /// Replaces the reason's own message if that would be misleading.
    pub message: Option<&'static str>,
    /// Appended to the message, in JSON without quotes: which limit, and when it has room again, or which model.
    pub explanation: Option<String>,
    /// Seconds until a retry makes sense, perhaps with another key.
    pub retry_after_secs: Option<u64>,
    /// Milliseconds until the same request has room; `None` if it never has.
    pub wait_ms: Option<u64>,
    /// The `ratelimit` header fields, for all limits.
    pub fields: Option<RateLimitFields>,
}

/// What a refusal has to say to a caller of JSON-RPC (2.0, section 5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rpc {
    /// The id of the request, as it was sent; `None` if it is not known, or the message is no request.
    pub id: Option<Box<[u8]>>,
    /// Whether the message is a notification or a response, which nothing answers.
    pub is_silent: bool,
    /// The HTTP status and the code of an error of the protocol.
    pub fault: Option<(u16, i32)>,
    /// Whether the HTTP status is that of the refusal even if the id is known.
    pub by_status: bool,
}

/// What is left of the limits (draft-ietf-httpapi-ratelimit-headers-10).
pub const RATE_LIMIT: &str = "ratelimit";

/// The longest wait after which a client library may retry by itself. Anthropic's library sleeps for as
/// long as `Retry-After` says, even weeks, unless `x-should-retry` is false.
const MAX_WAIT_MS: u64 = 60_000;

/// The highest `Retry-After`: 366 days, the longest time in which a rate recovers.
const MAX_RETRY_AFTER_SECS: u64 = 366 * 86_400;

/// The headers of every reply, with room for more.
fn json_headers(more: usize) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
    let mut headers = Vec::with_capacity(more.saturating_add(2));
    headers.push(("content-type".into(), "application/json".into()));
    headers.push(("cache-control".into(), "no-store".into()));
    headers
}

impl Refusal {
    /// For a source that stays blocked for `secs` more seconds.
    pub fn blocked(rules: &FailureRules, secs: u64) -> Self {
        let FailureRules { threshold, window_secs, .. } = *rules;
        Self {
            explanation: Some(format!("free again in {secs} s")),
            retry_after_secs: Some(secs),
            // Waiting does not help: the key stays invalid.
            wait_ms: None,
            fields: Some(RateLimitFields::blocked(threshold, window_secs, secs)),
            ..Self::default()
        }
    }

    /// For a request for which a limit has no room. `reserved`: the amounts that it was to reserve. If the limit never has
    /// room again, only another key can help, so the client should wait for `expires_in_secs`. If the request alone is
    /// larger than the limit, no wait helps.
    pub fn exceeded(
        exceeded: &Exceeded,
        reserved: &Amounts,
        allowances: &[Allowance],
        now_ns: u64,
        expires_in_secs: u64,
    ) -> Self {
        let retry_after_secs = exceeded.until_ns.map(|until_ns| secs_until(until_ns, now_ns));
        let reset = match retry_after_secs {
            Some(secs) => format!("free again in {secs} s"),
            None => "which does not reset".to_owned(),
        };
        let mut is_too_large = false;
        let explanation = match exceeded.exhausted {
            Exhausted::ChildLimits => {
                format!("all places for the limits of such keys are in use, {reset}")
            }
            Exhausted::Limit(name) => {
                match allowances.iter().find(|allowance| allowance.name == name) {
                    Some(limit) => {
                        let reservation = reservation(limit, reserved);
                        is_too_large = reservation.is_some_and(|(amount, _)| amount > limit.limit);
                        explanation(limit, reservation, &reset)
                    }
                    None => format!("limit {name}, {reset}"),
                }
            }
        };
        let retry_after_secs =
            retry_after_secs.unwrap_or(expires_in_secs).min(MAX_RETRY_AFTER_SECS);
        Self {
            message: is_too_large.then_some(TOO_LARGE),
            explanation: Some(explanation),
            retry_after_secs: Some(retry_after_secs).filter(|_| !is_too_large),
            wait_ms: exceeded.until_ns.map(|until_ns| millis_until(until_ns, now_ns)),
            fields: RateLimitFields::new(allowances),
            ..Self::default()
        }
    }
}

/// The message for a request that a quota never admits.
pub const TOO_LARGE: &str = "the request alone is larger than a quota, and is never admitted";

/// What a request reserves of a limit, and in which unit; `None` for a limit of requests.
fn reservation(limit: &Allowance, reserved: &Amounts) -> Option<(u64, &'static str)> {
    match limit.name.kind {
        Kind::Rate | Kind::Quota(Unit::Requests, _) => None,
        Kind::Quota(Unit::Tokens, _) => Some((reserved.tokens, "tokens")),
        Kind::Quota(Unit::CostMicroUsd, _) => Some((reserved.cost_micro_usd, "micro-USD")),
    }
}

/// A limit that has no room for a request that makes this reservation, in words. `reset`: when it has.
fn explanation(limit: &Allowance, reservation: Option<(u64, &str)>, reset: &str) -> String {
    let (name, total, left) = (limit.name, limit.limit, limit.remaining());
    let Some((amount, unit)) = reservation else {
        return format!("limit {name} of {total}, {reset}");
    };
    let reserves = format!("the request reserves {amount} {unit}");
    match amount > total {
        true => format!(
            "{reserves}, more than limit {name} of {total} allows; send less, or ask for less output"
        ),
        false => format!("{reserves}, limit {name} has {left} of {total} left, {reset}"),
    }
}

impl Reply {
    /// A reply that is not a refusal, e.g. the usage of a key. `details`: see [`Reply::details`].
    pub fn ok(body: impl Into<Cow<'static, str>>, details: &'static str) -> Self {
        Self {
            status: 200,
            grpc_status: None,
            headers: json_headers(1),
            body: body.into(),
            details: details.into(),
        }
    }

    /// The same reply with the id of the request, by which a client's report leads to the audit line.
    #[must_use]
    pub fn with_request_id(mut self, id: Option<&str>) -> Self {
        self.headers.extend(id.map(|id| (REQUEST_ID.into(), id.to_owned().into())));
        self
    }
}

/// The header that names a request to all proxies and servers on its way.
pub const REQUEST_ID: &str = "x-request-id";

/// RFC 6750, section 3.
const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";

/// The body of every 401.
const INVALID_TOKEN_BODY: &str = concat!(
    r#"{"error":{"message":"a valid virtual key is required","#,
    r#""type":"authentication_error","code":"invalid_token"}}"#
);

const NO_RETRY: (&str, &str) = ("x-should-retry", "false");

/// "Invalid Request" (JSON-RPC 2.0, section 5.1).
const INVALID_REQUEST: i32 = -32600;

/// The headers of a message differ from its body (MCP 2026-07-28, "Streamable HTTP").
const HEADER_MISMATCH: i32 = -32020;

/// The details of every 401.
const INVALID_TOKEN_DETAILS: &str = "vkey_invalid_token";

fn digits(number: u64) -> Cow<'static, str> {
    let mut text = String::new();
    push_decimal(&mut text, number);
    text.into()
}

/// The reply to a denied request; no other function makes one. A 401 is the same for every reason (RFC
/// 6750, section 3.1), so that it does not reveal which check a forged key failed.
///
/// Only a refusal by a limit uses what `refusal` has of limits: `Retry-After` (RFC 9110, section 10.2.3),
/// `retry-after-ms`, and the fields of draft-ietf-httpapi-ratelimit-headers.
/// `x-should-retry: false` tells client libraries that waiting does not help, or not within a minute.
pub fn reply(reason: DenyReason, mut refusal: Refusal) -> Reply {
    if reason.class() == DenyClass::Unauthenticated && refusal.dialect == Dialect::default() {
        return unauthenticated();
    }
    let Refusal { dialect, message, .. } = refusal;
    let is_limited = reason.class() == DenyClass::Limited;
    let rpc = refusal.rpc.take();
    if !is_limited {
        (refusal.retry_after_secs, refusal.wait_ms, refusal.fields) = (None, None, None);
    }
    if reason.class() == DenyClass::Unauthenticated {
        refusal.explanation = None;
    }
    let mut error = Error::new(reason, message, refusal.explanation, dialect);
    let soon = refusal.wait_ms.filter(|wait_ms| *wait_ms <= MAX_WAIT_MS);
    let is_final = soon.is_none() && reason.class() != DenyClass::Unavailable;
    let in_ms = soon.filter(|wait_ms| *wait_ms < MAX_WAIT_MS);
    if dialect == Dialect::JsonRpc {
        let rpc = rpc.map(|rpc| *rpc).unwrap_or_default();
        error.rpc = Some(RpcError::new(rpc, &error, soon));
    }
    let [policy, state] = match refusal.fields {
        Some(RateLimitFields { policy, state }) => [Some(policy.into()), Some(state.into())],
        None => [None, None],
    };
    let (no_retry, no) = NO_RETRY;
    let details = [
        ("www-authenticate", (error.words.status == 401).then_some(INVALID_TOKEN.into())),
        (no_retry, is_final.then_some(no.into())),
        ("x-amzn-errortype", (dialect == Dialect::Bedrock).then_some(error.words.bedrock.into())),
        ("retry-after", refusal.retry_after_secs.map(digits)),
        ("retry-after-ms", in_ms.map(digits)),
        ("ratelimit-policy", policy),
        (RATE_LIMIT, state),
    ];
    // The id of the request comes too.
    let mut headers = json_headers(details.len().saturating_add(1));
    for (name, value) in details {
        if let Some(value) = value {
            headers.push((name.into(), value));
        }
    }
    Reply {
        status: error.rpc.as_ref().map_or(error.words.status, |rpc| rpc.status),
        grpc_status: error.rpc.is_none().then_some(error.words.grpc),
        headers,
        body: error.body().into(),
        details: error.details.into(),
    }
}

/// The usual reply to a request without a valid key, which is made of texts that are known in advance: a flood of
/// strangers gets it.
fn unauthenticated() -> Reply {
    // The id of the request comes too.
    let mut headers = json_headers(3);
    let (no_retry, no) = NO_RETRY;
    headers.push(("www-authenticate".into(), INVALID_TOKEN.into()));
    headers.push((no_retry.into(), no.into()));
    Reply {
        status: 401,
        grpc_status: Some(16),
        headers,
        body: INVALID_TOKEN_BODY.into(),
        details: INVALID_TOKEN_DETAILS.into(),
    }
}

/// What a class of refusals is called in each dialect.
struct Words {
    status: u16,
    /// A canonical code (`google.rpc.Code`).
    grpc: u8,
    /// In the dialects of OpenAI and Anthropic.
    kind: &'static str,
    /// The name of the canonical code, in the dialect of Gemini.
    gemini: &'static str,
    /// The exception, in the dialect of Bedrock.
    bedrock: &'static str,
}

impl Words {
    fn of(reason: DenyReason) -> Self {
        let (status, grpc, kind, gemini, bedrock) = match reason.class() {
            DenyClass::Unauthenticated => {
                (401, 16, "authentication_error", "UNAUTHENTICATED", "UnrecognizedClientException")
            }
            DenyClass::Forbidden => {
                (403, 7, "permission_error", "PERMISSION_DENIED", "AccessDeniedException")
            }
            DenyClass::BadRequest => {
                (400, 3, "invalid_request_error", "INVALID_ARGUMENT", "ValidationException")
            }
            DenyClass::Limited => {
                (429, 8, "rate_limit_error", "RESOURCE_EXHAUSTED", "ThrottlingException")
            }
            DenyClass::Upstream => {
                (502, 14, "api_error", "UNAVAILABLE", "ServiceUnavailableException")
            }
            DenyClass::Unavailable => {
                (503, 14, "overloaded_error", "UNAVAILABLE", "ServiceUnavailableException")
            }
        };
        let status = if reason == DenyReason::BodyTooLarge { 413 } else { status };
        Self { status, grpc, kind, gemini, bedrock }
    }
}

/// An error of JSON-RPC.
struct RpcError {
    /// The HTTP status.
    status: u16,
    code: i32,
    id: Option<Box<[u8]>>,
    is_silent: bool,
    retry_after_ms: Option<u64>,
}

impl RpcError {
    /// Official clients of MCP hand an error with status 200 to their caller. With another one, some lose the session
    /// or the code, so only what concerns the connection has another one: a missing key, and what is no message.
    fn new(rpc: Rpc, error: &Error, retry_after_ms: Option<u64>) -> Self {
        let is_of_transport =
            matches!(error.reason.class(), DenyClass::Unauthenticated | DenyClass::BadRequest);
        let status = match rpc.fault {
            Some((status, _)) => status,
            None if rpc.id.is_none() || rpc.is_silent || rpc.by_status || is_of_transport => {
                error.words.status
            }
            None => 200,
        };
        let code = rpc.fault.map_or_else(|| error.rpc_code(), |(_, code)| code);
        Self { status, code, id: rpc.id, is_silent: rpc.is_silent, retry_after_ms }
    }

    /// The body; empty where nobody reads one.
    fn body(&self, message: [&str; 3], reason: &str) -> String {
        if self.is_silent {
            return String::new();
        }
        let id = self.id.as_deref().and_then(|id| str::from_utf8(id).ok()).unwrap_or("null");
        let [message, colon, more] = message;
        let minus = if self.code < 0 { "-" } else { "" };
        let code = digits(self.code.unsigned_abs().into());
        let wait = self.retry_after_ms.map(digits);
        let wait = wait.as_deref().map_or(["", ""], |wait| [r#","retry_after_ms":"#, wait]);
        [
            r#"{"jsonrpc":"2.0","id":"#,
            id,
            r#","error":{"code":"#,
            minus,
            &code,
            r#","message":""#,
            message,
            colon,
            more,
            r#"","data":{"reason":""#,
            reason,
            "\"",
            wait[0],
            wait[1],
            "}}}",
        ]
        .concat()
    }
}

/// A refusal in words.
struct Error {
    /// What it is for a caller of JSON-RPC.
    rpc: Option<RpcError>,
    words: Words,
    dialect: Dialect,
    reason: DenyReason,
    code: &'static str,
    details: &'static str,
    message: &'static str,
    explanation: Option<String>,
}

impl Error {
    fn new(
        reason: DenyReason,
        message: Option<&'static str>,
        explanation: Option<String>,
        dialect: Dialect,
    ) -> Self {
        let words = Words::of(reason);
        let (message, code, details) = match words.status {
            401 => ("a valid virtual key is required", "invalid_token", INVALID_TOKEN_DETAILS),
            _ => (message.unwrap_or(reason.message()), reason.code(), reason.details()),
        };
        Self { rpc: None, words, dialect, reason, code, details, message, explanation }
    }

    /// The body. Where a dialect has no member for the code, the message starts with it.
    fn body(&self) -> String {
        let Self { code, message, .. } = *self;
        let Words { status, kind, gemini, .. } = self.words;
        let (colon, more) = match &self.explanation {
            Some(explanation) => (": ", explanation.as_str()),
            None => ("", ""),
        };
        match self.dialect {
            Dialect::OpenAi => [
                r#"{"error":{"message":""#,
                message,
                colon,
                more,
                r#"","type":""#,
                self.openai_kind(),
                r#"","code":""#,
                code,
                r#""}}"#,
            ]
            .concat(),
            Dialect::Anthropic => [
                r#"{"type":"error","error":{"type":""#,
                kind,
                r#"","message":""#,
                code,
                ": ",
                message,
                colon,
                more,
                r#""}}"#,
            ]
            .concat(),
            Dialect::Gemini => [
                r#"{"error":{"code":"#,
                &digits(status.into()),
                r#","message":""#,
                message,
                colon,
                more,
                r#"","status":""#,
                gemini,
                r#"","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":""#,
                code,
                r#"","domain":"vkey"}]}}"#,
            ]
            .concat(),
            Dialect::Bedrock | Dialect::Cohere => {
                [r#"{"message":""#, code, ": ", message, colon, more, r#""}"#].concat()
            }
            Dialect::Ollama => {
                [r#"{"error":""#, code, ": ", message, colon, more, r#""}"#].concat()
            }
            Dialect::JsonRpc => match &self.rpc {
                Some(rpc) => rpc.body([message, colon, more], code),
                None => String::new(),
            },
        }
    }

    /// The code of an error of JSON-RPC: the HTTP status, which the specification leaves free, or one that it defines.
    fn rpc_code(&self) -> i32 {
        match self.reason {
            DenyReason::HeaderMismatch => HEADER_MISMATCH,
            DenyReason::BodyTooLarge => self.words.status.into(),
            reason if reason.class() == DenyClass::BadRequest => INVALID_REQUEST,
            _ => self.words.status.into(),
        }
    }

    /// OpenAI calls an exhausted quota by another name than a rate.
    fn openai_kind(&self) -> &'static str {
        match self.reason {
            DenyReason::Quota | DenyReason::TenantQuota | DenyReason::ChildQuota => {
                "insufficient_quota"
            }
            _ => self.words.kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Format;
    use crate::json::Json;
    use crate::limits::allowance::Window;
    use crate::limits::quota::Period;
    use crate::limits::{LimitName, Origin};
    use crate::time::NANOS_PER_SEC;

    #[test]
    fn every_401_is_the_same() {
        let of_class = |r: &&DenyReason| r.class() == DenyClass::Unauthenticated;
        let mut replies = DenyReason::ALL.iter().filter(of_class).map(|reason| {
            let Reply { status, headers, body, .. } = reply(*reason, Refusal::default());
            (status, headers, body)
        });
        let first = replies.next().unwrap();
        assert_eq!(first.0, 401);
        assert!(replies.all(|other| other == first));
    }

    #[test]
    fn other_classes_name_the_reason() {
        for reason in DenyReason::ALL.iter().filter(|r| r.class() != DenyClass::Unauthenticated) {
            let reply = reply(*reason, Refusal::default());
            assert_eq!(reply.details, ["vkey_", reason.code()].concat());
            let body = Json::parse(reply.body.as_bytes()).unwrap();
            let code = body.get("error").and_then(|error| error.get("code"));
            assert_eq!(code.and_then(Json::as_str), Some(reason.code()));
        }
    }

    /// Every dialect names the reason where its clients look, and only a 401 hides it.
    #[test]
    fn each_dialect_has_the_form_that_its_clients_parse() {
        let in_dialect = |dialect, reason| {
            let explanation = Some("limit tier_requests_day of 5".to_owned());
            let reply = reply(reason, Refusal { dialect, explanation, ..Refusal::default() });
            let kind = reply.headers.iter().find(|(name, _)| name == "x-amzn-errortype");
            (reply.body.into_owned(), kind.map(|(_, kind)| kind.to_string()))
        };
        let quota = |dialect| in_dialect(dialect, DenyReason::Quota);
        let text = "the key's quota is used up: limit tier_requests_day of 5";
        let body = format!(
            r#"{{"error":{{"message":"{text}","type":"insufficient_quota","code":"quota"}}}}"#
        );
        assert_eq!(quota(Dialect::OpenAi), (body, None));
        let body = format!(
            r#"{{"type":"error","error":{{"type":"rate_limit_error","message":"quota: {text}"}}}}"#
        );
        assert_eq!(quota(Dialect::Anthropic), (body, None));
        let (body, _) = quota(Dialect::Gemini);
        let error = Json::parse(body.as_bytes()).unwrap().get("error").unwrap().clone();
        assert_eq!(error.get("status").and_then(Json::as_str), Some("RESOURCE_EXHAUSTED"));
        assert_eq!(error.get("message").and_then(Json::as_str), Some(text));
        assert!(body.contains(r#""code":429"#) && body.contains(r#""reason":"quota""#), "{body}");
        let body = format!(r#"{{"message":"quota: {text}"}}"#);
        assert_eq!(quota(Dialect::Bedrock), (body.clone(), Some("ThrottlingException".to_owned())));
        assert_eq!(quota(Dialect::Cohere), (body, None));
        assert_eq!(quota(Dialect::Ollama).0, format!(r#"{{"error":"quota: {text}"}}"#));
    }

    #[test]
    fn every_reply_is_json_in_every_dialect() {
        for format in Format::ALL {
            for reason in DenyReason::ALL {
                let refusal = Refusal { dialect: format.dialect(), ..Refusal::default() };
                let reply = reply(*reason, refusal);
                assert!(Json::parse(reply.body.as_bytes()).is_ok(), "{}", reply.body);
                let shows = reply.body.contains(reason.code());
                assert_eq!(shows, reply.status != 401, "{}", reply.body);
            }
        }
    }

    #[test]
    fn a_body_that_is_too_large_has_its_own_status() {
        assert_eq!(reply(DenyReason::BodyTooLarge, Refusal::default()).status, 413);
        assert_eq!(reply(DenyReason::BodyUnreadable, Refusal::default()).status, 400);
    }

    #[test]
    fn a_refusal_says_what_the_request_reserves() {
        let explain = |unit, limit, used, amount, until_ns| {
            let name = LimitName { origin: Origin::Tier, kind: Kind::Quota(unit, Period::Day) };
            let exhausted = Exhausted::Limit(name);
            let exceeded = Exceeded { reason: DenyReason::Quota, exhausted, until_ns };
            let reserved = Amounts { tokens: amount, cost_micro_usd: amount };
            let window = Window::Calendar(Period::Day, 0);
            let allowance = Allowance { name, limit, used, reset_secs: None, window };
            let refusal = Refusal::exceeded(&exceeded, &reserved, &[allowance], 0, 86_400);
            let Refusal { message, explanation, retry_after_secs, wait_ms, fields, .. } = refusal;
            assert_eq!(message.is_some(), amount > limit, "a request that never fits is told so");
            assert_eq!(fields.is_some(), unit == Unit::Requests);
            assert_eq!(wait_ms.is_some(), until_ns.is_some());
            (explanation.unwrap(), retry_after_secs)
        };
        let minute = Some(60 * NANOS_PER_SEC);
        for (explained, secs, expected) in [
            (
                explain(Unit::Requests, 9, 9, 1, minute),
                Some(60),
                "limit tier_requests_day of 9, free again in 60 s",
            ),
            (
                explain(Unit::Tokens, 1_000, 700, 301, minute),
                Some(60),
                "the request reserves 301 tokens, limit tier_tokens_day has 300 of 1000 left, free again in 60 s",
            ),
            (
                explain(Unit::CostMicroUsd, 1_000, 1_200, 1_000, None),
                Some(86_400),
                "the request reserves 1000 micro-USD, limit tier_cost_day has 0 of 1000 left, which does not reset",
            ),
            (
                explain(Unit::Tokens, 1_000, 0, 1_001, None),
                None,
                "the request reserves 1001 tokens, more than limit tier_tokens_day of 1000 allows; send less, or ask for less output",
            ),
        ] {
            assert_eq!(explained, (expected.to_owned(), secs));
        }
    }

    /// For every reason: whether waiting helps, and the gRPC status.
    #[test]
    fn a_client_is_told_whether_to_retry() {
        let advice = |reason: DenyReason, wait_ms| {
            let refusal = Refusal { retry_after_secs: Some(7), wait_ms, ..Refusal::default() };
            let Reply { headers, grpc_status, .. } = reply(reason, refusal);
            let value = |name: &str| {
                headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.to_string())
            };
            (value("x-should-retry"), value("retry-after-ms"), grpc_status.unwrap())
        };
        let no = || Some("false".to_owned());
        for reason in DenyReason::ALL {
            let (expected, grpc) = match reason.class() {
                DenyClass::Unauthenticated => (no(), 16),
                DenyClass::Forbidden => (no(), 7),
                DenyClass::BadRequest => (no(), 3),
                DenyClass::Limited => (no(), 8),
                DenyClass::Upstream => (no(), 14),
                DenyClass::Unavailable => (None, 14),
            };
            assert_eq!(advice(*reason, None), (expected.clone(), None, grpc), "{reason}");
            // A key that expires while it is counted is refused like any other expired key.
            if reason.class() != DenyClass::Limited {
                assert_eq!(advice(*reason, Some(1)), (expected, None, grpc), "{reason}");
            }
        }
        for (wait_ms, expected) in [
            (1, (None, Some("1".to_owned()), 8)),
            (59_999, (None, Some("59999".to_owned()), 8)),
            (60_000, (None, None, 8)),
            (60_001, (no(), None, 8)),
            (u64::MAX, (no(), None, 8)),
        ] {
            assert_eq!(advice(DenyReason::Quota, Some(wait_ms)), expected, "{wait_ms}");
        }
    }
}
