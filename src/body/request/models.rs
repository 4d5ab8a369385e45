//! The names of models and of MCP servers that a request contains.

use crate::body::json::{Text, Unreadable};

/// A request may name at most that many models, and as many MCP servers.
pub const MAX_MODELS: usize = 64;

/// The name of a model has at most that many bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// Different names, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NameList(Vec<Box<str>>);

impl NameList {
    /// Adds a name, if it is not there.
    pub(super) fn add(&mut self, name: &str) -> Result<(), Unreadable> {
        if self.0.iter().any(|known| **known == *name) {
            return Ok(());
        }
        if self.0.len() == MAX_MODELS {
            return Err(Unreadable::TooManyModels);
        }
        self.0.push(name.into());
        Ok(())
    }

    /// Adds a name as the first of all.
    pub(super) fn add_first(&mut self, name: &str) -> Result<(), Unreadable> {
        self.add(name)?;
        let at = self.0.iter().position(|known| **known == *name).unwrap_or_default();
        // The others keep their order.
        (0..at).rev().for_each(|index| self.0.swap(index, index + 1));
        Ok(())
    }

    /// Adds the names of another list.
    pub(super) fn append(&mut self, others: &Self) -> Result<(), Unreadable> {
        others.0.iter().try_for_each(|name| self.add(name))
    }

    /// Whether some server could take one of the names for another model, or for several.
    pub(super) fn has_unclear(&self) -> bool {
        self.0.iter().any(|name| is_unclear(name, is_special_in_model))
    }

    pub(super) fn into_boxed(self) -> Box<[Box<str>]> {
        self.0.into()
    }
}

/// A text that is the name of a model.
pub(super) fn model_name<'a>(text: &Text<'a>) -> Result<&'a str, Unreadable> {
    match text.exact()? {
        "" => Err(Unreadable::EmptyModel),
        name if name.len() > MAX_NAME_BYTES => Err(Unreadable::TooLong),
        name => Ok(name),
    }
}

/// Whether a server that resolves it as a path could take a URL for another one.
pub(super) fn is_unclear_url(url: &str) -> bool {
    is_unclear(url, |byte| byte == b'\\')
}

/// Commas separate models for some servers. Others put the name into a path of their own.
fn is_special_in_model(byte: u8) -> bool {
    matches!(byte, b',' | b';' | b'?' | b'#' | b'%' | b'\\')
}

/// Whether a text has a control character, a special one, or a segment that stands for another (RFC 3986, section
/// 5.2.4).
fn is_unclear(text: &str, is_special: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().any(|byte| byte.is_ascii_control() || is_special(*byte))
        || bytes.split(|byte| matches!(byte, b'/' | b'?' | b'#')).any(is_dots)
}

/// Whether a segment is dots, escaped or not.
fn is_dots(segment: &[u8]) -> bool {
    let mut rest = segment;
    while let [b'.', after @ ..] | [b'%', b'2', b'e' | b'E', after @ ..] = rest {
        rest = after;
    }
    rest.is_empty() && !segment.is_empty()
}
