//! The HTTP request that a message is treated as.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use vkey::body::mcp::{Message, MessageKind};
use vkey::host::{HeaderList, MemoryHost, Property};

/// The first revision in which headers repeat what a message says. Revisions are dates, so that later ones are greater
/// as texts (MCP 2026-07-28, "Streamable HTTP").
const FIRST_MODERN: &str = "2026-07-28";

/// The session that a response of the client belongs to. Over HTTP the server names it; on standard input and output
/// there is one.
const SESSION: (&str, &str) = ("mcp-session-id", "stdio");

/// The HTTP request that a message is treated as, without its body.
pub(super) struct Head {
    /// The headers of every message.
    pub(super) headers: HeaderList,
    /// The client's address.
    pub(super) source: String,
}

/// A message of the client, as the module is to see it.
#[derive(Clone, Copy, Default)]
pub(super) struct Shown<'a> {
    /// Its bytes; `None` if they are too many to hold.
    pub(super) body: Option<&'a [u8]>,
    /// What it says, if it can be read.
    pub(super) message: Option<&'a Message>,
    /// The revision of the session, once it is known.
    pub(super) revision: Option<&'a str>,
}

/// Whether the headers of a message of this revision repeat what it says.
pub(super) fn is_modern(revision: &str) -> bool {
    revision >= FIRST_MODERN
}

/// The revision that a message says itself.
pub(super) fn own_revision(message: &Message) -> Option<&str> {
    message.revision.as_deref().filter(|_| message.has_meta_revision)
}

impl Head {
    /// Translates a message into a request, with the headers that a client sends over HTTP.
    pub(super) fn show(&self, host: &MemoryHost, shown: Shown<'_>) {
        let mut headers = self.headers.clone();
        let mut add = |name: &str, value: &str| headers.push((name.into(), value.into()));
        match shown.body {
            Some(body) => {
                add("content-length", &body.len().to_string());
                host.request_body.push(body);
            }
            // No bound allows so much.
            None => add("content-length", &u64::MAX.to_string()),
        }
        // Before 2026-07-28, only messages after the first request know the revision (MCP, "Protocol Version Header").
        let revision = shown.message.and_then(own_revision).or(shown.revision);
        if let Some(revision) = revision {
            add("mcp-protocol-version", revision);
        }
        if let Some(message) = shown.message {
            if message.kind == MessageKind::Response {
                let (name, value) = SESSION;
                add(name, value);
            } else if revision.is_some_and(is_modern) {
                mirror(message, add);
            }
        }
        host.headers.replace(Some(headers));
        host.show(Property::SourceAddress.path(), self.source.as_bytes());
    }
}

/// Adds the headers that repeat the method and the name.
fn mirror(message: &Message, mut add: impl FnMut(&str, &str)) {
    add("mcp-method", &message.method);
    if let Some((_, names)) = &message.object
        && let [name] = &**names
    {
        // In base64 every name is a header.
        add("mcp-name", &format!("=?base64?{}?=", STANDARD.encode(&**name)));
    }
}
