//! Local replies: the responses that the gate sends itself.

use std::borrow::Cow;

use crate::alerts::failures::FailureRules;
use crate::decision::{DenyClass, DenyReason};
use crate::json::decimal::push_decimal;
use crate::limits::allowance::{Allowance, RateLimitFields};
use crate::limits::ledger::{Exceeded, Exhausted};
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
    /// Replaces the reason's own message if that would be misleading.
    pub message: Option<&'static str>,
    /// Appended to the message: which limit, and when it has room again.
    pub explanation: Option<String>,
    /// Seconds until a retry makes sense, perhaps with another key.
    pub retry_after_secs: Option<u64>,
    /// Milliseconds until the same request has room; `None` if it never has.
    pub wait_ms: Option<u64>,
    /// The `ratelimit` header fields, for all limits.
    pub fields: Option<RateLimitFields>,
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
            message: None,
        }
    }

    /// For a request for which a limit has no room. If the limit never has room again, only another key can
    /// help, so the client should wait for `expires_in_secs`.
    pub fn exceeded(
        exceeded: &Exceeded,
        allowances: &[Allowance],
        now_ns: u64,
        expires_in_secs: u64,
    ) -> Self {
        let retry_after_secs = exceeded.until_ns.map(|until_ns| secs_until(until_ns, now_ns));
        let exhausted = match exceeded.exhausted {
            Exhausted::ChildLimits => {
                "all places for the limits of such keys are in use".to_owned()
            }
            Exhausted::Limit(name) => {
                let limit = allowances.iter().find(|allowance| allowance.name == name);
                let of = limit.map(|allowance| format!(" of {}", allowance.limit));
                format!("limit {name}{}", of.unwrap_or_default())
            }
        };
        let reset = match retry_after_secs {
            Some(secs) => format!("free again in {secs} s"),
            None => "which does not reset".to_owned(),
        };
        Self {
            explanation: Some(format!("{exhausted}, {reset}")),
            retry_after_secs: Some(
                retry_after_secs.unwrap_or(expires_in_secs).min(MAX_RETRY_AFTER_SECS),
            ),
            wait_ms: exceeded.until_ns.map(|until_ns| millis_until(until_ns, now_ns)),
            fields: RateLimitFields::new(allowances),
            message: None,
        }
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

fn digits(number: u64) -> Cow<'static, str> {
    let mut text = String::new();
    push_decimal(&mut text, number);
    text.into()
}

/// The reply to a denied request; no other function makes one. A 401 is the same for every reason (RFC
/// 6750, section 3.1), so that it does not reveal which check a forged key failed.
///
/// Only a refusal by a limit uses the details in `refusal`: `Retry-After` (RFC 9110, section 10.2.3),
/// `retry-after-ms`, the fields of draft-ietf-httpapi-ratelimit-headers, and the limit in words.
/// `x-should-retry: false` tells client libraries that waiting does not help, or not within a minute.
///
/// The gRPC statuses are canonical codes (`google.rpc.Code`).
pub fn reply(reason: DenyReason, refusal: Refusal) -> Reply {
    let (status, grpc_status, error_type) = match reason.class() {
        DenyClass::Unauthenticated => return unauthenticated(),
        DenyClass::Forbidden => (403, 7, "permission_error"),
        DenyClass::BadRequest => (400, 3, "invalid_request_error"),
        DenyClass::Limited => (429, 8, "rate_limit_error"),
        DenyClass::Upstream => (502, 14, "api_error"),
        DenyClass::Unavailable => (503, 14, "api_error"),
    };
    let message = refusal.message.unwrap_or(reason.message());
    let is_limited = reason.class() == DenyClass::Limited;
    let refusal = if is_limited { refusal } else { Refusal::default() };
    let soon = refusal.wait_ms.filter(|wait_ms| *wait_ms <= MAX_WAIT_MS);
    let is_final = soon.is_none() && reason.class() != DenyClass::Unavailable;
    let in_ms = soon.filter(|wait_ms| *wait_ms < MAX_WAIT_MS);
    let [policy, state] = match refusal.fields {
        Some(RateLimitFields { policy, state }) => [Some(policy.into()), Some(state.into())],
        None => [None, None],
    };
    let (no_retry, no) = NO_RETRY;
    let details = [
        (no_retry, is_final.then_some(no.into())),
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
    let explanation = refusal.explanation.map(|text| format!(": {text}")).unwrap_or_default();
    let body = [
        r#"{"error":{"message":""#,
        message,
        &explanation,
        r#"","type":""#,
        error_type,
        r#"","code":""#,
        reason.code(),
        r#""}}"#,
    ];
    Reply {
        status,
        grpc_status: Some(grpc_status),
        headers,
        body: body.concat().into(),
        details: reason.details().into(),
    }
}

/// The reply to every request without a valid key.
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
        details: "vkey_invalid_token".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Json;

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
