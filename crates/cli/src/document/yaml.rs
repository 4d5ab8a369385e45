//! Parses YAML with the spelling of its plain scalars: their readers disagree about some.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

use super::{DocumentError, TOO_MUCH, UNQUOTED};

/// The most values in a YAML text, and the most that its aliases may add.
const MAX_NODES: usize = 1_000_000;
const MAX_ALIASED: usize = 100_000;

/// Members in which Envoy compares values as it has read them.
const COMPARED: [&str; 3] = ["match", "filter_metadata", "filterMetadata"];

/// The largest integer, positive or negative, that Envoy takes as a number (2^53 - 1).
const MAX_INTEGER: u64 = 9_007_199_254_740_991;

/// A value, and where its scalars are in the text.
enum Node {
    Array(Vec<Node>),
    Object(Vec<(Spanned<String>, Node)>),
    Scalar(Value, Option<Location>),
}

/// What the scalars of a text become.
#[derive(Clone, Copy)]
struct Reader<'a> {
    text: &'a str,
    /// Whether the document is an object of Kubernetes, which is read as YAML 1.1.
    is_kubernetes: bool,
    /// Whether a value is inside one of [`COMPARED`].
    is_compared: bool,
}

/// Parses all documents that are not empty.
pub(super) fn parse(text: &str) -> Result<Vec<Value>, DocumentError> {
    let budget = serde_saphyr::budget! {
        max_events: MAX_NODES,
        max_nodes: MAX_NODES,
        max_recorded_anchor_events: MAX_NODES,
    };
    let alias_limits = serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIASED };
    let options = serde_saphyr::options! {
        budget: budget,
        alias_limits: alias_limits,
        with_snippet: false,
    };
    let read = serde_saphyr::from_multiple_with_options::<Node>(text, options);
    let read = read.map_err(|error| yaml_error(&error))?;
    read.into_iter().map(|document| document.into_document(text)).collect()
}

fn yaml_error(error: &serde_saphyr::Error) -> DocumentError {
    use serde_saphyr::Error;
    let line = error.location().map(|location| location.line());
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error;
    }
    let what = match cause {
        Error::DuplicateMappingKey { .. } => "a name stands twice",
        Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::Budget { .. } => TOO_MUCH,
        _ => "not valid YAML",
    };
    DocumentError { reason: syntax(cause), ..DocumentError::new(what, line) }
}

/// The parser's message about the syntax. Those that quote the text, which all do it after a backquote, are cut.
fn syntax(error: &serde_saphyr::Error) -> Option<String> {
    use serde_saphyr::Error;
    match error {
        Error::UnknownAnchor { .. } => {
            Some("unknown anchor: an alias (*) must come after its anchor (&)".to_owned())
        }
        Error::ExternalMessage { msg, .. } => {
            let (unquoted, _) = msg.split_once('`').unwrap_or((msg, ""));
            Some(unquoted.trim_end_matches([' ', ':']).to_owned())
        }
        _ => None,
    }
}

// === impl Node ===

impl Node {
    fn into_document(self, text: &str) -> Result<Value, DocumentError> {
        let reader = Reader { text, is_kubernetes: self.is_kubernetes(), is_compared: false };
        reader.value(self)
    }

    /// Whether it is an object of Kubernetes.
    fn is_kubernetes(&self) -> bool {
        let Self::Object(members) = self else { return false };
        ["apiVersion", "kind"].iter().all(|name| members.iter().any(|(key, _)| key.value == *name))
    }

    fn located(Spanned { value, defined, .. }: Spanned<Self>) -> Self {
        match value {
            Self::Scalar(value, _) => Self::Scalar(value, Some(defined)),
            node => node,
        }
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn value(self, node: Node) -> Result<Value, DocumentError> {
        match node {
            Node::Array(items) => {
                let items: Result<_, _> = items.into_iter().map(|item| self.value(item)).collect();
                items.map(Value::Array)
            }
            Node::Object(members) => self.object(members),
            Node::Scalar(value, location) => self.scalar(value, location),
        }
    }

    fn object(self, members: Vec<(Spanned<String>, Node)>) -> Result<Value, DocumentError> {
        let mut object = Map::new();
        for (key, member) in members {
            let Spanned { value: name, defined, .. } = key;
            let is_plain = self.spelling(defined) == Some(&*name);
            if self.is_kubernetes && is_plain && is_misread_name(&name) {
                return Err(unquoted(defined));
            }
            let is_compared =
                self.is_compared || (!self.is_kubernetes && COMPARED.contains(&&*name));
            let value = Self { is_compared, ..self }.value(member)?;
            if object.insert(name, value).is_some() {
                let line = Some(defined.line());
                return Err(DocumentError::new("a name stands twice", line));
            }
        }
        Ok(Value::Object(object))
    }

    fn scalar(self, value: Value, location: Option<Location>) -> Result<Value, DocumentError> {
        let Some(location) = location.filter(|_| value.is_number()) else { return Ok(value) };
        match self.spelling(location) {
            Some(spelling) if self.is_kubernetes && is_octal(spelling) => Err(unquoted(location)),
            Some(spelling) if self.is_compared => Ok(compared(spelling)),
            _ => Ok(value),
        }
    }

    /// The source of a scalar.
    fn spelling(&self, location: Location) -> Option<&str> {
        let span = location.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
        self.text.get(Range { start, end }).map(str::trim)
    }
}

fn unquoted(location: Location) -> DocumentError {
    DocumentError::new(UNQUOTED, Some(location.line()))
}

/// A number as Envoy reads it: only integers are numbers, and all others keep their spelling.
fn compared(spelling: &str) -> Value {
    let scalar = spelling.rsplit(char::is_whitespace).next().unwrap_or(spelling);
    let (is_negative, digits) = match scalar.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, scalar.strip_prefix('+').unwrap_or(scalar)),
    };
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let integer = match hexadecimal {
        Some(digits) => u64::from_str_radix(digits, 16),
        None if is_octal(digits) => u64::from_str_radix(digits, 8),
        None => digits.parse(),
    };
    match integer.ok().filter(|integer| *integer <= MAX_INTEGER).and_then(|i| i64::try_from(i).ok())
    {
        Some(integer) => Value::from(if is_negative { -integer } else { integer }),
        None => Value::from(scalar),
    }
}

/// Whether a number without quotes is octal in YAML 1.1.
fn is_octal(spelling: &str) -> bool {
    let digits = spelling.strip_prefix(['-', '+']).unwrap_or(spelling);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a name without quotes is a boolean, null or a number of another spelling in YAML 1.1.
fn is_misread_name(name: &str) -> bool {
    const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"];
    let is_number = || {
        let digits = name.strip_prefix(['-', '+']).unwrap_or(name);
        let starts = digits.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
        let plain = name.parse::<u64>().is_ok_and(|number| number.to_string() == name);
        let number = digits.replace('_', "");
        let is_radix = ["0x", "0X", "0o", "0b"].iter().any(|radix| number.starts_with(radix));
        starts && !plain && (is_radix || number.parse::<f64>().is_ok())
    };
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(name)) || is_number()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value), None))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Number(value.into()), None))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Number(value.into()), None))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number), None))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Value::String(value.to_owned()), None))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null, None))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null, None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Node>>()? {
            items.push(Node::located(item));
        }
        Ok(Node::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<Spanned<String>, Spanned<Node>>()? {
            members.push((name, Node::located(value)));
        }
        Ok(Node::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        parse(text).unwrap().remove(0)
    }

    #[test]
    fn envoy_keeps_the_spelling_of_what_is_no_integer() {
        let text = "match: {a: 1.10, b: [1e1, {c: 0o17}], d: 017, e: -0x1F, f: +5, g: 08, h: 7, i: \"1\",\n  \
                    j: 9007199254740993, k: !!float 1.0, l: true, m: ä, n: 2.50}\nother: 1.10\n";
        assert_eq!(
            read(text),
            json!({"match": {"a": "1.10", "b": ["1e1", {"c": "0o17"}], "d": 15, "e": -31, "f": 5, "g": "08",
                             "h": 7, "i": "1", "j": "9007199254740993", "k": "1.0", "l": true, "m": "ä",
                             "n": "2.50"},
                   "other": 1.1})
        );
        let text = "a: &v 1.10\nä: {filter_metadata: {x: {b: *v, c:   2.0   # two\n  }}}";
        let filter_metadata = json!({"x": {"b": "1.10", "c": "2.0"}});
        assert_eq!(read(text), json!({"a": 1.1, "ä": {"filter_metadata": filter_metadata}}));
    }

    #[test]
    fn kubernetes_needs_quotes_where_yaml_1_1_reads_another_value() {
        let object = |rest: &str| format!("apiVersion: v1\nkind: X\nspec:\n  {rest}\n");
        for rest in [
            "no: 1", "{y: 1}", "0123: 1", "1.10: 1", "? 0x1F\n  : 1", "a: 017", "a: [-0123]",
            "Off: 1",
        ] {
            let error = parse(&object(rest)).unwrap_err().to_string();
            assert_eq!(error, format!("{UNQUOTED}, line 4"), "{rest}");
        }
        for rest in [
            "\"no\": 1", "'0123': 1", "12: 1", "a: 12", "a: \"017\"", "nothing: 0", "a: 0.5",
            "1.2.3: 1", "0: 0",
        ] {
            assert!(parse(&object(rest)).is_ok(), "{rest}");
        }
        assert_eq!(read("no: 017"), json!({"no": 17.0}));
        let member = |document: &Value| document["spec"]["match"]["a"].clone();
        assert_eq!(member(&read(&object("match: {a: 1.10}"))), json!(1.1));
    }
}
