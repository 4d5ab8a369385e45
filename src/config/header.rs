//! Reads header names.

use crate::headers::is_identity;
use crate::json::{Invalid, Node};

/// Headers that can carry neither a key nor a credential: they frame the message, or belong to the module
/// or the proxy.
const RESERVED_HEADERS: [&str; 9] = [
    "connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade",
    "x-forwarded-for", "x-request-id",
];

/// Reads the name of a header that may carry a key or a credential, and returns it in lower case.
pub(super) fn header_name(node: &Node<'_>) -> Result<String, Invalid> {
    let name = token(node)?.to_ascii_lowercase();
    if RESERVED_HEADERS.contains(&name.as_str()) || is_identity(name.as_bytes()) {
        return Err(node.unusable("this header belongs to the proxy or to the module"));
    }
    Ok(name)
}

/// Reads a token (RFC 9110, section 5.6.2).
pub(super) fn token(node: &Node<'_>) -> Result<String, Invalid> {
    let text = node.string()?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !text.is_empty() && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(node.expected("a name without spaces, like that of a header"))
    }
}
