//! Texts and headers in a line of `vkey run`.

use vkey::json::{Invalid, Node};

pub(super) fn owned(node: &Node<'_>) -> Result<String, Invalid> {
    node.string().map(str::to_owned)
}

/// A header name and value that a request can contain (RFC 9110, section 5). Proxies show names in lower
/// case.
pub(super) fn header(node: &Node<'_>) -> Result<(Vec<u8>, Vec<u8>), Invalid> {
    let parts = node.list(owned)?;
    let [name, value] = &*parts else {
        return Err(node.expected("a name and a value"));
    };
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(node.expected("the name of a header"));
    }
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(node.expected("a value without control characters"));
    }
    Ok((name.to_ascii_lowercase().into_bytes(), value.clone().into_bytes()))
}
