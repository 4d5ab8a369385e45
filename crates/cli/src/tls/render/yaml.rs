//! Writes readable YAML with comments. Untrusted text is always read as a string, by every reader: YAML 1.1
//! and 1.2, Envoy and Kubernetes.

use std::fmt::Write as _;

use vkey::json::Json;

/// The widest flow-style value on one line.
const MAX_FLOW_CHARS: usize = 72;

/// Words that some readers do not read as strings.
const WORDS: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan"];

/// A value, possibly with comments.
#[derive(Clone, Debug)]
pub(super) enum Yaml {
    Bool(bool),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
    /// A value with comment lines above it.
    Noted(String, Box<Yaml>),
    Number(String),
    Text(String),
}

// === impl Yaml ===

impl Yaml {
    /// A map of these members.
    pub(super) fn map<const N: usize>(members: [(&str, Yaml); N]) -> Self {
        Self::Map(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A list of these items.
    pub(super) fn list<const N: usize>(items: [Yaml; N]) -> Self {
        Self::List(items.into())
    }

    /// The map with one more member, if there is one.
    pub(super) fn and(self, name: &str, value: Option<impl Into<Yaml>>) -> Self {
        match (self, value) {
            (Self::Map(mut members), Some(value)) => {
                members.push((name.to_owned(), value.into()));
                Self::Map(members)
            }
            (map, _) => map,
        }
    }

    /// The value with comment lines above it.
    pub(super) fn noted(self, note: impl Into<String>) -> Self {
        let note = note.into();
        if note.is_empty() { self } else { Self::Noted(note, Box::new(self)) }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::List(items) => items.is_empty(),
            Self::Map(members) => members.is_empty(),
            _ => false,
        }
    }

    /// The value on one line, if no part of it has comments.
    pub(super) fn flow(&self) -> Option<String> {
        let inner: Option<Vec<String>> = match self {
            Self::Bool(value) => return Some(value.to_string()),
            Self::Number(digits) => return Some(digits.clone()),
            Self::Text(text) => return Some(scalar(text)),
            Self::Noted(..) => return None,
            Self::List(items) => items.iter().map(Self::flow).collect(),
            Self::Map(members) => {
                let member = |(name, value): &(String, Yaml)| {
                    value.flow().map(|value| format!("{}: {value}", scalar(name)))
                };
                members.iter().map(member).collect()
            }
        };
        let inner = inner?.join(", ");
        let list = matches!(self, Self::List(_));
        Some(if list { format!("[{inner}]") } else { format!("{{{inner}}}") })
    }
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Yaml {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u16> for Yaml {
    fn from(number: u16) -> Self {
        Self::Number(number.to_string())
    }
}

impl From<Vec<Yaml>> for Yaml {
    fn from(items: Vec<Yaml>) -> Self {
        Self::List(items)
    }
}

impl From<&Json> for Yaml {
    fn from(json: &Json) -> Self {
        match json {
            Json::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Json::Bool(value) => Self::Bool(*value),
            Json::Null => Self::Number("null".to_owned()),
            Json::Number(number) => Self::Number(number.to_string()),
            Json::Object(members) => {
                let member = |(name, value): &(String, Json)| (name.clone(), Self::from(value));
                Self::Map(members.iter().map(member).collect())
            }
            Json::String(text) => Self::Text(text.clone()),
        }
    }
}

/// The documents, one after the other.
pub(super) fn text(documents: &[Yaml]) -> String {
    let mut text = String::new();
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        block(&mut text, 0, document);
    }
    text
}

/// A value at the beginning of a line.
fn block(text: &mut String, indent: usize, value: &Yaml) {
    match value {
        Yaml::Noted(note, value) => {
            comment(text, indent, note);
            block(text, indent, value);
        }
        Yaml::Map(members) if !members.is_empty() => {
            for (name, value) in members {
                let value = comment_first(text, indent, value);
                _ = write!(text, "{:indent$}{}:", "", scalar(name));
                // The items of a list are written below its name, not to the right of it.
                let list = matches!(value, Yaml::List(_));
                let deeper = if list { indent } else { indent + 2 };
                rest(text, deeper, value);
            }
        }
        Yaml::List(items) if !items.is_empty() => {
            for item in items {
                let item = comment_first(text, indent, item);
                _ = write!(text, "{:indent$}-", "");
                inside_item(text, indent + 2, item);
            }
        }
        value => _ = writeln!(text, "{:indent$}{}", "", value.flow().unwrap_or_default()),
    }
}

/// The value of a name: on the same line if it is short.
fn rest(text: &mut String, indent: usize, value: &Yaml) {
    match value.flow() {
        Some(flow) if fits(value, &flow) => _ = writeln!(text, " {flow}"),
        _ => {
            text.push('\n');
            block(text, indent, value);
        }
    }
}

/// An item after its dash.
fn inside_item(text: &mut String, indent: usize, item: &Yaml) {
    match item.flow() {
        Some(flow) if fits(item, &flow) => _ = writeln!(text, " {flow}"),
        _ => {
            let mut inner = String::new();
            block(&mut inner, indent, item);
            // The first line begins after the dash.
            let first = inner.strip_prefix(&" ".repeat(indent)).unwrap_or(&inner);
            text.push(' ');
            text.push_str(first);
        }
    }
}

fn fits(value: &Yaml, flow: &str) -> bool {
    let scalar = !matches!(value, Yaml::Map(_) | Yaml::List(_));
    scalar || value.is_empty() || flow.len() <= MAX_FLOW_CHARS
}

/// Writes the comments of a value, and returns the value.
fn comment_first<'a>(text: &mut String, indent: usize, value: &'a Yaml) -> &'a Yaml {
    match value {
        Yaml::Noted(note, value) => {
            comment(text, indent, note);
            comment_first(text, indent, value)
        }
        value => value,
    }
}

fn comment(text: &mut String, indent: usize, note: &str) {
    for line in note.split('\n') {
        let line: String = line.chars().map(|c| if is_plain(c) { c } else { '?' }).collect();
        _ = writeln!(text, "{:indent$}{}", "", format!("# {line}").trim_end());
    }
}

fn is_plain(c: char) -> bool {
    (' '..='~').contains(&c)
}

/// A plain or quoted string.
fn scalar(text: &str) -> String {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/');
    let reserved = WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if starts && !reserved && text.bytes().all(word) {
        return text.to_owned();
    }
    if text.contains(['"', '\\']) && text.chars().all(|c| is_plain(c) && c != '\'') {
        return format!("'{text}'");
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            '\n' => write!(quoted, "\\n"),
            c if is_plain(c) => write!(quoted, "{c}"),
            c if c <= '\u{ffff}' => write!(quoted, "\\u{:04x}", u32::from(c)),
            c => write!(quoted, "\\U{:08x}", u32::from(c)),
        };
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_yaml() -> impl Strategy<Value = Yaml> {
        let text = prop_oneof![
            any::<String>(),
            "[a-z:# \\-\"'{}\\[\\],&*!|>%@`\n\t]{0,12}",
            proptest::sample::select(
                ["no", "1e3", "~", "-", "", "0x1", "1:30", "on", "<<", "=", "---", "NaN"]
                    .as_slice()
            )
            .prop_map(str::to_owned),
        ];
        let leaf = prop_oneof![
            text.clone().prop_map(Yaml::Text),
            any::<bool>().prop_map(Yaml::Bool),
            any::<u16>().prop_map(Yaml::from),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            let noted = (any::<String>(), inner.clone());
            let entries = proptest::collection::btree_map(text.clone(), inner.clone(), 0..5);
            prop_oneof![
                proptest::collection::vec(inner, 0..5).prop_map(Yaml::List),
                entries.prop_map(|members| Yaml::Map(members.into_iter().collect())),
                noted.prop_map(|(note, value)| value.noted(note)),
            ]
        })
    }

    fn plain(value: &Yaml) -> serde_json::Value {
        match value {
            Yaml::Bool(value) => (*value).into(),
            Yaml::List(items) => items.iter().map(plain).collect(),
            Yaml::Map(members) => members.iter().map(|(n, v)| (n.clone(), plain(v))).collect(),
            Yaml::Noted(_, value) => plain(value),
            Yaml::Number(digits) => digits.parse::<u64>().unwrap().into(),
            Yaml::Text(text) => text.as_str().into(),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_whatever_it_holds(value in any_yaml()) {
            let written = text(std::slice::from_ref(&value));
            prop_assert!(written.is_ascii());
            let read: serde_json::Value = serde_saphyr::from_str(&written).unwrap();
            prop_assert_eq!(read, plain(&value), "{}", written);
        }
    }

    #[test]
    fn it_reads_as_people_write_it() {
        let inner = Yaml::map([("b", "x".into()), ("c", Yaml::list(["1".into(), "y".into()]))]);
        let long = Yaml::map([("text", "z".repeat(80).into()), ("list", Yaml::list([]))]);
        let item = Yaml::map([("first", long.clone()), ("second", true.into())]).noted("of\nitem");
        let value = Yaml::map([("a", inner.noted("of a")), ("list", Yaml::list([item]))]);
        let expected = format!(
            "# of a\na: {{b: x, c: [\"1\", \"y\"]}}\nlist:\n# of\n# item\n- first:\n    text: {}\n    \
             list: []\n  second: true\n",
            "z".repeat(80)
        );
        assert_eq!(text(&[value]), expected);
    }
}
