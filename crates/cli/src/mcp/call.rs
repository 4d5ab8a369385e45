//! What the module is told of a message, until it reads bodies itself.

use vkey::access::McpCall;
use vkey::audit::mcp_member;
use vkey::body::mcp::ObjectKind;
use vkey::host::{MemoryHost, Property};

use super::message::{Content, member};

/// Stands for a message that is not a call: a response, or a line that cannot be read.
const NO_CALL: &str = "-";

/// Shows the module the call that a message is, by a property of the host, which no client can set. `version` is
/// that of the session.
pub(super) fn show(host: &MemoryHost, message: Option<(&Content, &[u8])>, version: Option<&str>) {
    let call = message.and_then(|(content, body)| call(content, body, version));
    host.show(Property::McpCall.path(), call.as_deref().unwrap_or(NO_CALL));
}

fn call(content: &Content, body: &[u8], version: Option<&str>) -> Option<String> {
    let (Content::Request(..) | Content::Notification | Content::Cancelled(_)) = content else {
        return None;
    };
    let method = member(body, &["method"])?;
    let method = method.as_str()?;
    // Of the methods of MCP, these name what they are about (MCP 2025-06-18, "Server Features").
    let (kind, name) = match method {
        "tools/call" => (ObjectKind::Tool, member(body, &["params", "name"])),
        "prompts/get" => (ObjectKind::Prompt, member(body, &["params", "name"])),
        method => {
            let is_resource = method.starts_with("resources/");
            let uri = is_resource.then(|| member(body, &["params", "uri"])).flatten();
            (ObjectKind::Resource, uri)
        }
    };
    let names = Vec::from_iter(name.as_ref().and_then(|name| name.as_str()).map(Box::from));
    let call = McpCall { method, object: Some((kind, &names)), ..McpCall::default() };
    Some(mcp_member(&call, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Option<String> {
        call(&Content::read(line.as_bytes()), line.as_bytes(), Some("2025-06-18"))
    }

    #[test]
    fn a_message_is_described_by_its_method_and_what_it_names() {
        for (line, expected) in [
            (
                r#""id":1,"method":"tools/call","params":{"name":"a b","arguments":{"name":"c"}}"#,
                "tools/call a%20b - 2025-06-18",
            ),
            (
                r#""id":1,"method":"prompts/get","params":{"name":"p","uri":"u"}"#,
                "prompts/get p - 2025-06-18",
            ),
            (
                r#""method":"resources/read","id":"\u0061","params":{"uri":"file:///a?b"}"#,
                "resources/read file:///a - 2025-06-18",
            ),
            (r#""id":1,"method":"tools/call","params":{"name":7}"#, "tools/call - - 2025-06-18"),
            (r#""id":1,"method":"tools/list","params":{"name":"x"}"#, "tools/list - - 2025-06-18"),
            (
                r#""method":"notifications/cancelled","params":{"requestId":1}"#,
                "notifications/cancelled - - 2025-06-18",
            ),
            (r#""method":"notifications/initialized""#, "notifications/initialized - - 2025-06-18"),
        ] {
            let line = format!(r#"{{"jsonrpc":"2.0",{line}}}"#);
            assert_eq!(shown(&line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn other_messages_are_not_described() {
        for line in [
            r#"{"jsonrpc":"2.0","id":1,"result":{"method":"tools/call"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","Method":"ping"}"#,
            r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call"}]"#,
            "tools/call",
        ] {
            assert_eq!(shown(line), None, "{line}");
        }
    }
}
