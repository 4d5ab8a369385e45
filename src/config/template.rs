//! `${VARIABLE}`: a reference to a secret in the environment, so that the configuration contains none.

use std::fmt;

use zeroize::Zeroizing;

use super::{NotReady, NotReadyCause};

/// The name of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable(String);

/// Text with at least one variable.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

/// Why a text is not a reference. The text may be a secret itself, so errors do not quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidTemplate {
    /// It contains no variable.
    Literal,
    /// `${` without a name and `}` after it.
    Variable,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Variable(Variable),
}

impl Variable {
    /// Parses exactly `${NAME}`.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        match Template::parse(text)?.0.as_slice() {
            [Part::Variable(variable)] => Ok(variable.clone()),
            _ => Err(InvalidTemplate::Literal),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// The value of the variable, which must be set.
    pub(super) fn value(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Zeroizing<String>, NotReady> {
        let value = environment(&self.0).filter(|value| !value.is_empty());
        value.map(Zeroizing::new).ok_or_else(|| self.not_ready(NotReadyCause::Unset))
    }

    pub(super) fn not_ready(&self, cause: NotReadyCause) -> NotReady {
        NotReady { part: None, variable: self.0.clone(), cause }
    }
}

impl Template {
    /// Parses text that contains `${NAME}` at least once.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or(InvalidTemplate::Variable)?;
            if !is_name(name) {
                return Err(InvalidTemplate::Variable);
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(Part::Variable(Variable(name.to_owned())));
            rest = after;
        }
        if parts.is_empty() {
            return Err(InvalidTemplate::Literal);
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Variable(variable) => Some(variable.name()),
        })
    }

    /// The header value, with the variables replaced by their values.
    pub(super) fn fill(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Zeroizing<String>, NotReady> {
        let mut filled = Zeroizing::new(String::new());
        for part in &self.0 {
            match part {
                Part::Literal(text) => filled.push_str(text),
                Part::Variable(variable) => {
                    let value = variable.value(&environment)?;
                    let allowed = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
                    // Leading and trailing spaces are not part of a header value (RFC 9110, section 5.5).
                    // Inside the value, such a space was most likely copied with the secret by mistake.
                    if value.trim_ascii().len() < value.len() || !value.bytes().all(allowed) {
                        return Err(variable.not_ready(NotReadyCause::HeaderValue));
                    }
                    filled.push_str(&value);
                }
            }
        }
        Ok(filled)
    }
}

impl fmt::Display for InvalidTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Literal => {
                "a secret does not belong in a configuration; name an environment variable, as \
                 ${VKEY_MAIN_SECRET}"
            }
            Self::Variable => "expected ${NAME} with a name of A-Z a-z 0-9 _",
        })
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(allowed) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_the_whole_text() {
        assert_eq!(Variable::parse("${A_1}").unwrap().name(), "A_1");
        for literal in ["", "secret", "x${A}", "${A}${B}"] {
            assert_eq!(Variable::parse(literal), Err(InvalidTemplate::Literal), "{literal}");
        }
        for wrong in ["${", "${}", "${1A}", "${A-B}", "${A"] {
            assert_eq!(Variable::parse(wrong), Err(InvalidTemplate::Variable), "{wrong}");
        }
    }

    #[test]
    fn a_template_is_filled() {
        let template = Template::parse("Bearer ${KEY}!").unwrap();
        let fill = |value: &'static str| template.fill(move |_| Some(value.to_owned()));
        assert_eq!(fill("k").unwrap().as_str(), "Bearer k!");
        assert!(fill("").is_err());
        for wrong in ["a\r\nb: c", " k", "k ", "k\n", "\u{feff}k", "k\u{a0}", "k\u{200b}"] {
            assert_eq!(
                fill(wrong).err().map(|not_ready| not_ready.to_string()).as_deref(),
                Some(
                    "environment variable KEY holds characters that a header cannot carry, or begins or ends \
                     with a space"
                ),
                "{wrong:?}"
            );
        }
        assert_eq!(fill("a b").unwrap().as_str(), "Bearer a b!");
    }
}
