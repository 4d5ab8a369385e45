//! What the headers say about a message.

use super::*;

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
const MODERN: (&str, &str) = ("mcp-protocol-version", "2026-07-28");
const LEGACY: (&str, &str) = ("mcp-protocol-version", "2025-11-25");
const CALL: (&str, &str) = ("mcp-method", "tools/call");

fn mirrors<'a>(headers: &[(&'a str, &'a str)]) -> Mirrors<'a> {
    Mirrors::read(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

fn check(headers: &[(&str, &str)], body: &str) -> Result<Era, Fault> {
    mirrors(headers).check(&read(body).unwrap())
}

/// Whether a header may name a tool so.
fn is_name(header: &str, name: &str) -> bool {
    let name = serde_json::to_string(name).unwrap();
    let body = request("tools/call", &format!(r#""name":{name},{META}"#));
    check(&[MODERN, CALL, ("mcp-name", header)], &body).is_ok()
}

#[test]
fn a_modern_request_is_repeated_by_its_headers() {
    let call = request("tools/call", &format!(r#""name":"a",{META}"#));
    let list = request("tools/list", META);
    let name = ("mcp-name", "a");
    let mismatch = Err(Fault::HeaderMismatch);
    for (headers, body, expected) in [
        (&[MODERN, CALL, name][..], &call, Ok(Era::Modern)),
        (&[CALL, name], &call, mismatch),
        (&[MODERN, name], &call, mismatch),
        (&[MODERN, CALL], &call, mismatch),
        (&[LEGACY, CALL, name], &call, mismatch),
        (&[("mcp-protocol-version", "2026-07-29"), CALL, name], &call, mismatch),
        (&[MODERN, CALL, ("mcp-name", "b")], &call, mismatch),
        (&[MODERN, CALL, ("mcp-name", "")], &call, mismatch),
        (&[MODERN, ("mcp-method", "Tools/call"), name], &call, mismatch),
        (&[MODERN, MODERN, CALL, name], &call, mismatch),
        (&[MODERN, CALL, CALL, name], &call, mismatch),
        (&[MODERN, CALL, name, name], &call, mismatch),
        (&[MODERN, ("mcp-method", "tools/list")], &list, Ok(Era::Modern)),
        (&[MODERN, ("mcp-method", "tools/list"), name], &list, mismatch),
    ] {
        assert_eq!(check(headers, body), expected, "{headers:?} {body}");
    }
}

#[test]
fn a_legacy_message_needs_no_headers_but_they_do_not_lie() {
    let call = request("tools/call", r#""name":"a""#);
    let name = ("mcp-name", "a");
    for headers in [&[][..], &[LEGACY], &[LEGACY, CALL], &[name], &[("mcp-protocol-version", "")]] {
        assert_eq!(check(headers, &call), Ok(Era::Legacy), "{headers:?}");
    }
    for headers in [
        &[LEGACY, ("mcp-method", "tools/list")][..],
        &[("mcp-name", "b")],
        &[LEGACY, LEGACY],
        &[name, name],
        &[CALL, CALL],
    ] {
        assert_eq!(check(headers, &call), Err(Fault::HeaderMismatch), "{headers:?}");
    }
    // The revision that a client asks for is not the one that it speaks.
    let initialize = request("initialize", r#""protocolVersion":"2026-07-28""#);
    assert_eq!(check(&[], &initialize), Ok(Era::Legacy));
    assert_eq!(check(&[LEGACY], &initialize), Ok(Era::Legacy));
    let old = META.replace("2026-07-28", "2025-06-18");
    assert_eq!(check(&[LEGACY], &request("ping", &old)), Err(Fault::HeaderMismatch));
}

#[test]
fn the_first_fault_is_named() {
    let headers = |method| [MODERN, ("mcp-method", method)];
    let subscribe = request("resources/subscribe", META);
    let unsubscribe = request("resources/unsubscribe", "");
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let not_found = Err(Fault::MethodNotFound);
    assert_eq!(check(&headers("resources/subscribe"), &subscribe), not_found);
    assert_eq!(check(&headers("resources/x"), &subscribe), Err(Fault::HeaderMismatch));
    assert_eq!(check(&headers("resources/unsubscribe"), &unsubscribe), Err(Fault::InvalidParams));
    assert_eq!(check(&[], &unsubscribe), not_found);
    assert_eq!(
        check(&headers("ping"), &request("ping", r#""_meta":{}"#)),
        Err(Fault::InvalidParams)
    );
    assert_eq!(check(&headers("tools/list"), &request("ping", "")), Err(Fault::HeaderMismatch));
    let unreadable = Err(Fault::Unreadable(Unreadable::NotRpc));
    assert_eq!(check(&[MODERN], response), unreadable);
    assert_eq!(check(&[MODERN, MODERN], response), unreadable);
    assert_eq!(check(&[LEGACY], response), Ok(Era::Legacy));
    assert_eq!(check(&[("mcp-method", "")], response), Err(Fault::HeaderMismatch));
    assert_eq!(check(&[("mcp-name", "")], response), Err(Fault::HeaderMismatch));
}

#[test]
fn a_modern_notification_needs_the_revision_only() {
    let plain = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    let claims = r#"{"jsonrpc":"2.0","method":"notifications/x","params":{META}}"#;
    let claims = claims.replace("META", META);
    assert_eq!(check(&[MODERN], plain), Ok(Era::Modern));
    assert_eq!(check(&[MODERN, ("mcp-method", "notifications/x")], plain), Ok(Era::Modern));
    assert_eq!(check(&[MODERN, CALL], plain), Err(Fault::HeaderMismatch));
    assert_eq!(check(&[MODERN], &claims), Ok(Era::Modern));
    assert_eq!(check(&[], &claims), Err(Fault::HeaderMismatch));
}

#[test]
fn a_name_that_a_header_has_is_the_only_one() {
    let headers = |method, name| [MODERN, ("mcp-method", method), ("mcp-name", name)];
    let listen = |list: &str| {
        let list = format!(r#""notifications":{{"resourceSubscriptions":{list}}},{META}"#);
        check(&headers("subscriptions/listen", "a"), &request("subscriptions/listen", &list))
    };
    assert_eq!(listen(r#"["a"]"#), Ok(Era::Modern));
    assert_eq!(listen(r#"["a","b"]"#), Err(Fault::HeaderMismatch));
    assert_eq!(listen("[]"), Err(Fault::HeaderMismatch));
    let task = request("tasks/get", &format!(r#""taskId":"a",{META}"#));
    assert_eq!(check(&headers("tasks/get", "b"), &task), Err(Fault::HeaderMismatch));
    assert_eq!(check(&[MODERN, ("mcp-method", "tasks/get")], &task), Ok(Era::Modern));
}

#[test]
fn a_name_in_base64_has_one_spelling() {
    for (header, name) in [
        ("a b", "a b"),
        (" \ta ", "a"),
        ("=?base64?IGE=?=", " a"),
        ("=?base64?YQ==?=", "a"),
        ("=?base64?YWJj?=", "abc"),
        ("=?base64?YQ==", "=?base64?YQ=="),
        ("=?Base64?YQ==?=", "=?Base64?YQ==?="),
    ] {
        assert!(is_name(header, name), "{header}");
    }
    for (header, name) in [
        ("=?base64?YQ==?=", "=?base64?YQ==?="),
        ("=?Base64?YQ==?=", "a"),
        ("=?base64?YQ==?= x", "a"),
        ("=?base64?YQ=?=", "a"),
        ("=?base64?YQ?=", "a"),
        ("=?base64?YR==?=", "a"),
        ("=?base64?YWF=?=", "aa"),
        ("=?base64?YQ==\t?=", "a"),
        ("=?base64?_w==?=", "\u{ff}"),
        ("=?base64?/w==?=", "\u{fffd}"),
        ("=?base64??=", "a"),
    ] {
        assert!(!is_name(header, name), "{header}");
    }
}

#[test]
fn every_last_character_of_base64_is_canonical_or_not() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let alphabet = (b'0'..=b'z').filter(u8::is_ascii_alphanumeric).chain(*b"+/").map(char::from);
    for last in alphabet {
        for encoded in [format!("Y{last}=="), format!("YW{last}=")] {
            // This decoder accepts canonical base64 only.
            let decoded =
                STANDARD.decode(&encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let lossy = decoded.clone().unwrap_or_else(|| "a".into());
            let header = format!("=?base64?{encoded}?=");
            assert_eq!(is_name(&header, &lossy), decoded.is_some(), "{encoded}");
        }
    }
}

#[test]
fn the_http_method_says_what_a_request_does() {
    let purpose = |method: &str, headers: &[(&str, &str)]| Purpose::of(method, || mirrors(headers));
    assert_eq!(purpose("POST", &[MODERN]), Ok(Purpose::Message));
    assert_eq!(purpose("POST", &[]), Ok(Purpose::Message));
    assert_eq!(purpose("GET", &[]), Ok(Purpose::Stream));
    assert_eq!(purpose("GET", &[LEGACY]), Ok(Purpose::Stream));
    assert_eq!(purpose("DELETE", &[LEGACY]), Ok(Purpose::Close));
    for method in ["GET", "DELETE"] {
        assert_eq!(purpose(method, &[MODERN]), Err(Fault::HttpMethod));
        assert_eq!(purpose(method, &[MODERN, LEGACY]), Err(Fault::HeaderMismatch));
    }
    for method in ["PUT", "PATCH", "HEAD", "OPTIONS", "post", "get", ""] {
        assert_eq!(purpose(method, &[]), Err(Fault::HttpMethod), "{method}");
    }
}
