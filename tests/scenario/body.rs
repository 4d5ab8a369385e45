//! Bodies of requests and responses, in the parts in which they come.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vkey::host::HeaderList;
use vkey::json::{Invalid, Json, Node};

use super::text::Meaning;

/// A body as a file states it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Body(Vec<Json>);

impl Body {
    /// A text, an object that is sent as JSON, `{"base64": …}`, or a list of these: the parts.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let parts = match node.value() {
            Json::Array(parts) => parts.clone(),
            part => vec![part.clone()],
        };
        let is_part = |part: &Json| match part {
            Json::String(_) => true,
            Json::Object(_) => encoded(part).is_none_or(|text| STANDARD.decode(text).is_ok()),
            _ => false,
        };
        match parts.iter().all(is_part) {
            true => Ok(Self(parts)),
            false => Err(node.expected("texts, objects or base64")),
        }
    }

    /// The parts.
    pub(crate) fn parts(&self, meaning: &Meaning<'_>) -> Vec<Vec<u8>> {
        let bytes = |part: &Json| match (encoded(part), part) {
            (Some(text), _) => STANDARD.decode(text).expect("read before"),
            (None, Json::String(text)) => meaning.fill(text).into_bytes(),
            (None, other) => meaning.fill_json(other).to_string().into_bytes(),
        };
        self.0.iter().map(bytes).collect()
    }

    /// All of it.
    pub(crate) fn bytes(&self, meaning: &Meaning<'_>) -> Vec<u8> {
        self.parts(meaning).concat()
    }
}

/// How a body is cut, in place of the parts of the file.
pub(crate) type Recut = fn(&[u8]) -> Vec<Vec<u8>>;

/// Every byte by itself.
pub(crate) fn bytewise(body: &[u8]) -> Vec<Vec<u8>> {
    body.iter().map(|byte| vec![*byte]).collect()
}

/// In three parts, at places that depend on the body.
pub(crate) fn anywhere(body: &[u8]) -> Vec<Vec<u8>> {
    let mix = |seed: usize, byte: &u8| seed.wrapping_mul(31).wrapping_add(usize::from(*byte));
    let one = body.iter().fold(7, mix) % (body.len() + 1);
    let other = body.iter().rev().fold(11, mix) % (body.len() + 1);
    let (first, last) = (one.min(other), one.max(other));
    vec![body[..first].to_vec(), body[first..last].to_vec(), body[last..].to_vec()]
}

fn encoded(part: &Json) -> Option<&str> {
    match part {
        Json::Object(members) if members.len() == 1 => part.get("base64")?.as_str(),
        _ => None,
    }
}

/// Declares a body as clients do: as JSON, and with its length. `chunked`: without it.
pub(super) fn declare(headers: &mut HeaderList, body: &[Vec<u8>], chunked: bool) {
    let mut add = |name: &str, value: String| {
        let is_named =
            |(found, _): &(Vec<u8>, Vec<u8>)| found.eq_ignore_ascii_case(name.as_bytes());
        if !headers.iter().any(is_named) {
            headers.push((name.into(), value.into()));
        }
    };
    add("content-type", "application/json".to_owned());
    if !chunked {
        let length: usize = body.iter().map(Vec::len).sum();
        add("content-length", length.to_string());
    }
    // One that a scenario leaves out is written as an empty value.
    headers.retain(|(name, value)| name != b"content-type" || !value.is_empty());
}
