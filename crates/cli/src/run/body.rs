//! Bodies in a line of `vkey run`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vkey::json::{Invalid, Json, Members, Node};
use vkey_vm::UpstreamResponse;

use super::fields::{header, owned};

/// The members of a response.
const MEMBERS: [&str; 4] = ["headers", "body", "body_b64", "cut"];

/// Reads a body: a text, or a list of the parts in which it comes. `body_b64` is the same in base64.
///
/// # Errors
///
/// [`Invalid`] if it is neither, or if both are there.
pub(super) fn body(members: &Members<'_>) -> Result<Vec<Vec<u8>>, Invalid> {
    let text = members.read("body", |node| parts(node, |part| Ok(owned(part)?.into_bytes())))?;
    let encoded = members.read("body_b64", |node| parts(node, decoded))?;
    match (text, encoded, members.get("body_b64")) {
        (Some(_), Some(_), Some(node)) => Err(node.unusable("body is there too; keep one")),
        (text, encoded, _) => Ok(text.or(encoded).unwrap_or_default()),
    }
}

/// Reads the response of an upstream.
///
/// # Errors
///
/// [`Invalid`] names the member and the expected value.
pub(super) fn response(node: &Node<'_>) -> Result<UpstreamResponse, Invalid> {
    let members = node.members(&MEMBERS)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let headers = members.read("headers", |node| node.list(header))?.unwrap_or_default();
    let headers = headers.into_iter().map(|(name, value)| (text(name), text(value)));
    Ok(UpstreamResponse {
        headers: headers.collect(),
        body: body(&members)?,
        cut: members.read("cut", cut)?,
    })
}

/// Why a response is cut, as Envoy names it.
fn cut(node: &Node<'_>) -> Result<String, Invalid> {
    let details = node.choice(&[
        ("client", "downstream_remote_disconnect"),
        ("upstream", "upstream_reset_after_response_started{connection_termination}"),
    ])?;
    Ok(details.to_owned())
}

fn parts(
    node: &Node<'_>,
    read: impl Fn(&Node<'_>) -> Result<Vec<u8>, Invalid>,
) -> Result<Vec<Vec<u8>>, Invalid> {
    match node.value() {
        Json::Array(_) => Ok(node.list(read)?.into()),
        _ => Ok(vec![read(node)?]),
    }
}

fn decoded(node: &Node<'_>) -> Result<Vec<u8>, Invalid> {
    STANDARD.decode(node.string()?).map_err(|_| node.expected("base64 with padding"))
}
