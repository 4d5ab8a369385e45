//! What the headers say about the body.

use crate::body::json::Unreadable;

use super::cut::cut;

/// Parameters of a media type that say that it is UTF-8, or nothing.
const UTF_8: [&[u8]; 3] = [b"charset=utf-8", b"charset=\"utf-8\"", b""];

/// What the `content-type` and `content-encoding` fields of a request declare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The number of `content-type` fields.
    types: usize,
    is_json: bool,
    is_encoded: bool,
}

impl Declared {
    /// What these headers declare, their names in lower case.
    pub fn read<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut declared = Self::default();
        headers.into_iter().for_each(|(name, value)| declared.add(name, value));
        declared
    }

    /// Adds a header, its name in lower case. Others than the two are ignored.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"content-type" => {
                self.types += 1;
                self.is_json = is_json(value);
            }
            b"content-encoding" => {
                self.is_encoded |= !is(value, b"identity");
            }
            _ => {}
        }
    }

    /// Whether the body is JSON in UTF-8 as it stands.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Encoded`] or [`Unreadable::UndeclaredType`].
    pub fn check(self) -> Result<(), Unreadable> {
        if self.is_encoded {
            Err(Unreadable::Encoded)
        } else if self.types != 1 || !self.is_json {
            Err(Unreadable::UndeclaredType)
        } else {
            Ok(())
        }
    }
}

/// Whether a media type is `application/json`, with no parameter but the charset UTF-8 (RFC 9110, section 8.3.1).
fn is_json(value: &[u8]) -> bool {
    let (media_type, mut parameters) = cut(value, b';');
    let mut is_json = is(media_type, b"application/json");
    while !parameters.is_empty() {
        let (parameter, others) = cut(parameters, b';');
        is_json &= UTF_8.iter().any(|known| is(parameter, known));
        parameters = others;
    }
    is_json
}

/// Whether a text is the other one, in any case, with white space around it or not.
#[inline(never)]
fn is(text: &[u8], known: &[u8]) -> bool {
    text.trim_ascii().eq_ignore_ascii_case(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)]) -> Result<(), Unreadable> {
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Declared::read(headers).check()
    }

    #[test]
    fn json_in_utf_8_is_declared_once_and_in_any_case() {
        for value in [
            "application/json",
            " Application/JSON ; Charset=\"UTF-8\"",
            "application/json;charset=utf-8;",
        ] {
            assert_eq!(check(&[("content-type", value)]), Ok(()), "{value}");
        }
        for value in [
            "",
            "json",
            "text/json",
            "application/json5",
            "application/vnd.api+json",
            "application/json, application/json",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=utf-16",
            "application/json; profile=a",
            "application/json; charset",
        ] {
            let declared = check(&[("content-type", value)]);
            assert_eq!(declared, Err(Unreadable::UndeclaredType), "{value}");
        }
        let twice = [("content-type", "application/json"); 2];
        assert_eq!(check(&twice), Err(Unreadable::UndeclaredType));
        assert_eq!(check(&[("accept", "application/json")]), Err(Unreadable::UndeclaredType));
    }

    #[test]
    fn an_encoding_is_named_as_the_cause() {
        let check =
            |value| check(&[("content-type", "application/json"), ("content-encoding", value)]);
        assert_eq!(check("Identity"), Ok(()));
        for value in ["gzip", "zstd", "", "identity, gzip", "gzip, identity"] {
            assert_eq!(check(value), Err(Unreadable::Encoded), "{value}");
        }
    }
}
