//! JSON-RPC errors for the client.

use vkey::json::Json;
use vkey::reply::Reply;

use super::id::Id;

/// The line is not JSON (JSON-RPC 2.0, section 5.1).
pub(super) const PARSE_ERROR: i64 = -32700;

/// The line is not a valid message (same section).
pub(super) const INVALID_REQUEST: i64 = -32600;

/// The message is not acceptable.
pub(super) const BAD_REQUEST: u16 = 400;

/// The message is too long.
pub(super) const TOO_LARGE: u16 = 413;

/// The server has ended, or its response cannot be forwarded.
pub(super) const BAD_GATEWAY: u16 = 502;

/// The gate cannot decide.
pub(super) const UNAVAILABLE: u16 = 503;

/// The code and message for a gate that failed.
pub(super) const GATE_FAILED: &str = "gate_failed";
pub(super) const FAILED: &str = "the gate has failed and ends; its standard error has the cause";

/// The server has not responded in time.
pub(super) const GATEWAY_TIMEOUT: u16 = 504;

/// An error without data. It has no id if that of the line is unknown.
pub(super) fn error(id: Option<&Id>, code: i64, message: &str) -> Vec<u8> {
    line(id, code, message, None)
}

/// The error for a request that the command itself replies to, like a proxy.
pub(super) fn of_host(id: &Id, status: u16, code: &str, message: &str) -> Vec<u8> {
    let data = [
        ("status", Json::from(u64::from(status))),
        ("type", "api_error".into()),
        ("code", code.into()),
    ];
    line(Some(id), status.into(), message, Some(Json::object(data)))
}

/// The error for a request that gets no regular response because the gate ends.
pub(super) fn of_failure(id: &Id) -> Vec<u8> {
    of_host(id, UNAVAILABLE, GATE_FAILED, FAILED)
}

/// The gate's reply to a request, as a JSON-RPC error. The code is the HTTP status: -32768 to -32000 belong
/// to JSON-RPC, MCP and its SDKs (JSON-RPC 2.0, section 5.1; MCP 2026-07-28, "Error Codes").
pub(super) fn from_reply(id: &Id, reply: &Reply) -> Vec<u8> {
    let body = Json::parse(reply.body.as_bytes()).unwrap_or(Json::Null);
    if is_response(&body, id) {
        return whole_line(&reply.body);
    }
    if let Some(line) = with_id(Some(id), &body) {
        return line;
    }
    let error = body.get("error");
    let text = |name| error.and_then(|error| error.get(name)).filter(|v| v.as_str().is_some());
    let message = text("message").and_then(Json::as_str);
    let mut data = vec![("status".to_owned(), Json::from(u64::from(reply.status)))];
    for name in ["type", "code"] {
        data.extend(text(name).map(|value| (name.to_owned(), value.clone())));
    }
    let retry = reply.headers.iter().find(|(name, _)| name == "retry-after");
    let retry = retry.and_then(|(_, secs)| secs.parse::<u64>().ok());
    data.extend(retry.map(|secs| ("retry_after".to_owned(), secs.into())));
    let message = message.unwrap_or("the gate refuses this request");
    line(Some(id), reply.status.into(), message, Some(Json::Object(data)))
}

/// The gate's reply to a message that cannot be read, with the id that it certainly has; `None` if the reply is no
/// JSON-RPC error.
pub(super) fn from_unread(id: Option<&Id>, reply: &Reply) -> Option<Vec<u8>> {
    let body = Json::parse(reply.body.as_bytes()).ok()?;
    with_id(id, &body)
}

/// What the client gets in place of a list: the rest of it, or the gate's error, to which the id is added if the gate
/// could not read it.
pub(super) fn of_list(id: &Id, mut passed: Vec<u8>) -> Vec<u8> {
    let body = Json::parse(&passed).ok();
    body.and_then(|body| with_id(Some(id), &body)).unwrap_or_else(|| {
        passed.push(b'\n');
        passed
    })
}

/// A JSON-RPC error that has no id, with this one; `None` if it is none.
fn with_id(id: Option<&Id>, body: &Json) -> Option<Vec<u8>> {
    body.get("jsonrpc")?;
    body.get("id").filter(|id| **id == Json::Null)?;
    let error = body.get("error")?;
    let id = id.map_or_else(|| "null".to_owned(), Id::to_string);
    Some(whole_line(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)))
}

/// Whether a reply is already the JSON-RPC error of that request.
fn is_response(body: &Json, id: &Id) -> bool {
    let version = body.get("jsonrpc").and_then(Json::as_str);
    let is_error = matches!(body.get("error"), Some(Json::Object(_)));
    version == Some("2.0") && is_error && body.get("id").and_then(Id::new).as_ref() == Some(id)
}

fn line(id: Option<&Id>, code: i64, message: &str, data: Option<Json>) -> Vec<u8> {
    let id = id.map_or_else(|| "null".to_owned(), Id::to_string);
    let data = data.map(|data| format!(",\"data\":{data}")).unwrap_or_default();
    let message = Json::from(message);
    whole_line(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}{data}}}}}"#
    ))
}

fn whole_line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vkey::decision::DenyReason;
    use vkey::reply::{Refusal, reply};

    fn id() -> Id {
        Id::new(&Json::from("a\"\n")).unwrap()
    }

    #[test]
    fn a_reply_becomes_an_error_with_the_id() {
        let refusal = Refusal { retry_after_secs: Some(7), ..Refusal::default() };
        let text = String::from_utf8(from_reply(&id(), &reply(DenyReason::Rate, refusal))).unwrap();
        let expected = concat!(
            r#"{"jsonrpc":"2.0","id":"a\"\n","error":{"code":429,"#,
            r#""message":"the key's rate is used up","#,
            r#""data":{"status":429,"type":"rate_limit_error","code":"rate","retry_after":7}}}"#,
            "\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_reply_that_is_a_json_rpc_error_is_forwarded_unchanged() {
        let mut reply = reply(DenyReason::McpCall, Refusal::default());
        let answer = r#"{"jsonrpc":"2.0","id":"a\"\n","error":{"code":5,"message":"no"}}"#;
        reply.body = answer.to_owned().into();
        assert_eq!(from_reply(&id(), &reply), format!("{answer}\n").into_bytes());
        let other = Id::new(&Json::from(1)).unwrap();
        let text = String::from_utf8(from_reply(&other, &reply)).unwrap();
        assert!(text.starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"code":403,"#), "{text}");
        reply.body = "no JSON".into();
        let text = String::from_utf8(from_reply(&id(), &reply)).unwrap();
        assert!(text.contains(r#""data":{"status":403}"#), "{text}");
        // The gate refuses what is too large before it has read the id.
        reply.body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":5,"message":"no"}}"#.into();
        assert_eq!(from_reply(&id(), &reply), format!("{answer}\n").into_bytes());
    }
}
