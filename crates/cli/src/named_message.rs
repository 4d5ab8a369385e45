//! The message of MCP that the options of `vkey explain` name.

use std::fmt;

use vkey::body::Declared;
use vkey::body::json::{Limits, Unreadable};
use vkey::body::mcp::{Message, MessageReader, Mirrors, Wanted};
use vkey::json::Json;

use super::error::Failure;
use super::exit::Exit;

/// Why the options name no message that a server gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedError {
    /// The method needs a name.
    Unnamed,
    /// The method has no name.
    NamesNothing,
    /// The gate reads no such message.
    Unreadable(Unreadable),
}

/// Deep enough for the message that is made here.
const LIMITS: Limits = Limits { max_depth: 8, max_open_keys: 64 };

/// The message with a method, which names one thing or nothing. Its arguments are not known.
///
/// # Errors
///
/// [`NamedError`] if the gate reads no such message.
pub(super) fn named_message(method: &str, name: Option<&str>) -> Result<Message, NamedError> {
    let message = read(method, name).map_err(|unreadable| match (unreadable, name) {
        (Unreadable::NothingNamed, None) => NamedError::Unnamed,
        (unreadable, _) => NamedError::Unreadable(unreadable),
    })?;
    if name.is_some() && message.object.is_none() {
        return Err(NamedError::NamesNothing);
    }
    // A subscription without a resource is read, and refused by this.
    Mirrors::default().check(&message).map_err(|_| NamedError::Unnamed)?;
    Ok(message)
}

fn read(method: &str, name: Option<&str>) -> Result<Message, Unreadable> {
    let is_notification = method.starts_with("notifications/");
    let members = [
        Some(("jsonrpc", "2.0".into())),
        (!is_notification).then(|| ("id", 1.into())),
        Some(("method", method.into())),
        name.map(|name| ("params", params(name))),
    ];
    let members = members.into_iter().flatten().map(|(name, value)| (name.to_owned(), value));
    let mut declared = Declared::default();
    declared.add(b"content-type", b"application/json");
    let mut reader = MessageReader::new(Wanted::default(), declared, LIMITS)?;
    reader.feed(Json::Object(members.collect()).to_string().as_bytes())?;
    reader.finish()
}

/// The name wherever a method may have it. The reader takes it from where its method has it.
fn params(name: &str) -> Json {
    // A completion is for a prompt or for a resource, and only the URI of the latter has a colon.
    let ref_type = if name.contains(':') { "ref/resource" } else { "ref/prompt" };
    Json::object([
        ("name", name.into()),
        ("uri", name.into()),
        ("taskId", name.into()),
        (
            "ref",
            Json::object([("type", ref_type.into()), ("name", name.into()), ("uri", name.into())]),
        ),
        (
            "notifications",
            Json::object([("resourceSubscriptions", Json::Array(vec![name.into()]))]),
        ),
    ])
}

impl Failure for NamedError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl fmt::Display for NamedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => f.write_str(
                "--mcp-method: this method needs a name; add --mcp-name, or pass the message with --body",
            ),
            Self::NamesNothing => {
                f.write_str("--mcp-name: this --mcp-method takes no name; leave it out")
            }
            Self::Unreadable(cause) => write!(f, "--mcp-method: {}", cause.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use vkey::body::mcp::ObjectKind::{Prompt, Resource, Task, Tool};

    use super::*;

    #[test]
    fn the_method_says_what_the_name_is() {
        for (method, name, kind) in [
            ("tools/call", "add", Tool),
            ("prompts/get", "hello", Prompt),
            ("resources/read", "file:///a", Resource),
            ("resources/subscribe", "file:///a", Resource),
            ("subscriptions/listen", "file:///a", Resource),
            ("completion/complete", "file:///{a}", Resource),
            ("completion/complete", "hello", Prompt),
            ("tasks/get", "1", Task),
        ] {
            let message = named_message(method, Some(name)).unwrap();
            assert_eq!(message.object, Some((kind, [name.into()].into())), "{method}");
        }
        for method in ["tools/list", "initialize", "ping", "notifications/cancelled", "a"] {
            assert_eq!(named_message(method, None).unwrap().object, None, "{method}");
            assert_eq!(named_message(method, Some("a")), Err(NamedError::NamesNothing));
        }
    }

    #[test]
    fn what_must_be_named_is_asked_for() {
        for method in [
            "tools/call",
            "prompts/get",
            "resources/read",
            "resources/subscribe",
            "resources/unsubscribe",
            "completion/complete",
            "tasks/get",
        ] {
            assert_eq!(named_message(method, None), Err(NamedError::Unnamed), "{method}");
        }
        assert!(matches!(named_message("", None), Err(NamedError::Unreadable(_))));
        assert!(matches!(named_message("tools/call", Some("")), Err(NamedError::Unreadable(_))));
    }
}
