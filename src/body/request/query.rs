//! Parameters of a query that decide something.

use super::ambiguous::AmbiguousTarget;
use super::escapes::decode;
use crate::body::cut::cut;

/// What a part of a query says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter<'a> {
    /// Nothing that matters.
    Harmless,
    /// The name of a model, with its escapes.
    Model(&'a [u8]),
    /// Another method, other headers or another body.
    Method,
    /// What of the response comes, and in which form.
    Form,
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Model,
    /// The form of the response.
    Alt,
    Form,
    Method,
    Harmless,
}

/// The names that mean something, and those of Google's services with a dollar sign that change nothing (Google Cloud:
/// "System parameters"). Each of Google's is known with a dollar sign before it and without. `enum-encoding` is a part of
/// `alt`: numbers in place of names, e.g. of the service tier.
static KNOWN: [(&[u8], Kind); 15] = [
    (b"model", Kind::Model),
    (b"alt", Kind::Alt),
    (b"fields", Kind::Form),
    (b"callback", Kind::Form),
    (b"ct", Kind::Form),
    (b"enum-encoding", Kind::Form),
    (b"outputdefaults", Kind::Form),
    (b"httpmethod", Kind::Method),
    (b"httpheaders", Kind::Method),
    (b"req", Kind::Method),
    (b".xgafv", Kind::Harmless),
    (b"prettyprint", Kind::Harmless),
    (b"apiversion", Kind::Harmless),
    (b"userproject", Kind::Harmless),
    (b"quotauser", Kind::Harmless),
];

/// Forms of a response that are read.
const READ: [&[u8]; 2] = [b"json", b"sse"];

// === impl Parameter ===

impl<'a> Parameter<'a> {
    /// Reads a part of a query. Names are compared without regard to case, as some servers do.
    pub(super) fn read(part: &'a [u8]) -> Self {
        let (name, value) = cut(part, b'=');
        let mut known = Vec::new();
        if !decode(name, b' ', &mut known) {
            return Self::Harmless;
        }
        let name = known.trim_ascii();
        let (name, has_dollar) = match name.strip_prefix(b"$") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let known = KNOWN.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        match (known.map(|(_, kind)| *kind), has_dollar) {
            (Some(Kind::Model), false) if !value.is_empty() => Self::Model(value),
            (Some(Kind::Alt), _) if !is_read(value) => Self::Form,
            (Some(Kind::Method), _) => Self::Method,
            (Some(Kind::Form), _) | (None, true) => Self::Form,
            _ => Self::Harmless,
        }
    }
}

/// The parts of a query. Some servers separate them by semicolons too.
pub(super) fn parts(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query.split(|byte| matches!(byte, b'&' | b';'))
}

/// Checks that a query does not turn a request without a body into another.
///
/// # Errors
///
/// [`AmbiguousTarget::Parameter`] if it may.
pub(super) fn check_method(query: &[u8]) -> Result<(), AmbiguousTarget> {
    match parts(query).any(|part| Parameter::read(part) == Parameter::Method) {
        true => Err(AmbiguousTarget::Parameter),
        false => Ok(()),
    }
}

/// Whether a response in that form is read.
fn is_read(value: &[u8]) -> bool {
    let mut form = Vec::new();
    decode(value, b' ', &mut form) && READ.contains(&&*form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_form_of_a_response_is_found_in_every_spelling() {
        for part in [
            "fields=candidates",
            "$fields=a",
            "%24fields=a",
            "f%69elds=a",
            "FIELDS=a",
            "+fields=a",
            "callback=f",
            "$ct=a",
            "ct=a",
            "alt=proto",
            "alt=media",
            "alt",
            "alt=JSON",
            "alt=json%3Benum-encoding%3Dint",
            "enum-encoding=int",
            "alt=%zz",
            "%24alt=proto",
            "$outputDefaults=true",
            "$unknown=1",
        ] {
            assert_eq!(Parameter::read(part.as_bytes()), Parameter::Form, "{part}");
        }
        for part in ["$httpMethod=POST", "$req=%7B%7D", "%24httpHeaders=a", "httpmethod=POST"] {
            assert_eq!(Parameter::read(part.as_bytes()), Parameter::Method, "{part}");
        }
    }

    #[test]
    fn what_libraries_send_is_harmless() {
        for part in [
            "",
            "alt=sse",
            "$alt=json",
            "prettyPrint=false",
            "$prettyPrint=false",
            "$.xgafv=2",
            "api-version=2024-10-21",
            "beta=true",
            "key=k",
            "fieldset=a",
            "%=1",
            "model=",
        ] {
            assert_eq!(Parameter::read(part.as_bytes()), Parameter::Harmless, "{part}");
        }
    }
}
