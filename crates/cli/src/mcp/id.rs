//! Request ids and progress tokens.

use std::fmt;

use vkey::json::Json;

/// The longest id, as JSON text. Ids are kept while requests are open.
pub(super) const MAX_ID_BYTES: usize = 1024;

/// A request id: its JSON text, normalized so that equal values have equal texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(String);

impl Id {
    /// The id for a JSON value, if it is a string or a number (MCP, "Requests").
    pub(super) fn new(value: &Json) -> Option<Self> {
        let text = match value {
            Json::String(_) => value.to_string(),
            Json::Number(number) => match number.as_f64().and_then(whole) {
                Some(integer) if number.is_f64() => integer.to_string(),
                // Readers differ about numbers this large.
                None if number.is_f64() && number.as_f64()?.fract() == 0.0 => return None,
                _ => value.to_string(),
            },
            _ => return None,
        };
        (text.len() <= MAX_ID_BYTES).then_some(Self(text))
    }

    /// The id that many readers confuse with this one: the number in a string, or the string of a number.
    /// MCP's own libraries look up `1` when they receive `"1"`.
    pub(super) fn twin(&self) -> Option<Self> {
        let is_integer = |text: &str| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            text.parse::<i64>().is_ok() && !digits.starts_with(['0', '+']) || text == "0"
        };
        match self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(text) => is_integer(text).then(|| Self(text.to_owned())),
            None => is_integer(&self.0).then(|| Self(format!("\"{}\"", self.0))),
        }
    }

    /// This id or its twin, whichever is known; this one if both are, or neither is.
    pub(super) fn known(&self, is_known: impl Fn(&Self) -> bool) -> Self {
        let twin = || self.twin().filter(|twin| is_known(twin));
        let other = if is_known(self) { None } else { twin() };
        other.unwrap_or_else(|| self.clone())
    }
}

/// The integer value of a number that every reader keeps exactly. Many write 1.0 as 1.
fn whole(number: f64) -> Option<i64> {
    const MOST: f64 = 9_007_199_254_740_992.0; // 2^53
    let is_whole = number.fract() == 0.0 && number.abs() <= MOST;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and in range")]
    is_whole.then_some(number as i64)
}

impl fmt::Display for Id {
    /// The id as JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(json: &str) -> Id {
        Id::new(&Json::parse(json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn ids_of_one_value_are_the_same() {
        assert_eq!(id("1.0"), id("1"));
        assert_eq!(id(r#""\u0061""#), id(r#""a""#));
        assert_ne!(id("1"), id(r#""1""#));
        assert_eq!(id("18446744073709551615").to_string(), "18446744073709551615");
        assert_eq!(id("-1.5").to_string(), "-1.5");
        assert_eq!(id(r#""a\"\\\n""#).to_string(), r#""a\"\\\n""#);
    }

    #[test]
    fn a_number_and_the_text_that_holds_it_are_twins() {
        for (number, text) in [("7", r#""7""#), ("-7", r#""-7""#), ("0", r#""0""#)] {
            assert_eq!((id(number).twin(), id(text).twin()), (Some(id(text)), Some(id(number))));
        }
        for text in ["", "-", "a", "07", "+7", "-0", "-07", "7.0", " 7", "99999999999999999999"] {
            assert_eq!(id(&format!("\"{text}\"")).twin(), None, "{text}");
        }
        assert_eq!(id("1.5").twin(), None);
        let among =
            |known: &[&str], json: &str| id(json).known(|id| known.contains(&&*id.to_string()));
        assert_eq!(among(&["7"], r#""7""#), id("7"));
        assert_eq!(among(&[r#""7""#], "7"), id(r#""7""#));
        for known in [&["7", r#""7""#][..], &["7"], &["8"]] {
            assert_eq!(among(known, "7"), id("7"));
        }
    }
}
