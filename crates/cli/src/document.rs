//! Parses what configures a proxy, YAML or JSON, and accesses members of its protobuf messages.

mod yaml;

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The longest configuration or dump that is read: some thousand clusters.
pub(super) const MAX_DOCUMENT_BYTES: u64 = 32 * 1024 * 1024;

const TOO_MUCH: &str = "more than this command reads";

/// A name or a number in an object of Kubernetes has another value in YAML 1.1.
const UNQUOTED: &str = "kubectl reads a name or a number without quotes in another way; quote it";

/// Sections of a dump that are not in force.
pub(super) const NOT_IN_FORCE: [&str; 2] = ["draining_state", "error_state"];

/// Members by which a document is recognized as one that configures a proxy.
const PROXY_MEMBERS: [&str; 14] = [
    "@type",
    "admin",
    "apiVersion",
    "clusters",
    "configs",
    "dynamic_resources",
    "filter_chains",
    "listeners",
    "node",
    "resources",
    "static_resources",
    "typed_config",
    "typed_extension_protocol_options",
    "version_info",
];

/// The prefix of message types (`google.protobuf.Any`).
const TYPE_PREFIX: &str = "type.googleapis.com/";

/// Why a text cannot be parsed. It quotes nothing, because a configuration may contain private keys.
#[derive(Debug)]
pub(super) struct DocumentError {
    what: &'static str,
    /// What the parser says about the syntax.
    reason: Option<String>,
    line: Option<u64>,
}

/// Parses one document of YAML, which includes JSON. Rejects duplicate names: another reader may take the
/// other value.
pub(super) fn parse(text: &[u8]) -> Result<Value, DocumentError> {
    let mut documents = parse_all(text)?.into_iter();
    match (documents.next(), documents.next()) {
        (first, None) => Ok(first.unwrap_or_default()),
        _ => Err(DocumentError::new("more than one YAML document", None)),
    }
}

/// Parses all documents of YAML, or one of JSON. Leaves out those that are empty.
pub(super) fn parse_all(text: &[u8]) -> Result<Vec<Value>, DocumentError> {
    let text = str::from_utf8(text).map_err(|_| DocumentError::new("not UTF-8", None))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let looks_like_json = text.trim_start().starts_with(['{', '[']);
    let json = looks_like_json.then(|| serde_json::from_str::<Strict>(text));
    match json {
        Some(Ok(Strict(value))) => Ok(vec![value]),
        // YAML allows unquoted names in braces.
        Some(Err(error)) => yaml::parse(text).map_err(|_| json_error(&error)),
        None => yaml::parse(text),
    }
}

/// Whether a document configures a proxy, as an object of Kubernetes or of Envoy.
pub(super) fn is_of_proxy(document: &Value) -> bool {
    PROXY_MEMBERS.iter().any(|member| get(document, member).is_some())
}

fn json_error(error: &serde_json::Error) -> DocumentError {
    let what = if error.is_data() { "a name stands twice" } else { "not valid JSON" };
    DocumentError::new(what, u64::try_from(error.line()).ok())
}

impl DocumentError {
    /// The document has more content than this command reads.
    pub(super) fn too_much() -> Self {
        Self::new(TOO_MUCH, None)
    }

    fn new(what: &'static str, line: Option<u64>) -> Self {
        Self { what, reason: None, line }
    }

    /// Whether it could be parsed, but is not used.
    pub(super) fn is_parsed(&self) -> bool {
        matches!(self.what, TOO_MUCH | UNQUOTED)
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))?;
        self.line.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

/// A value without duplicate names.
struct Strict(Value);

struct StrictVisitor;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

// === members of messages ===

/// A member by its name in the API. The JSON form may use camel case, and `null` means absent.
pub(super) fn get<'a>(message: &'a Value, name: &str) -> Option<&'a Value> {
    let members = message.as_object()?;
    let found = members.get(name).or_else(|| members.get(&camel(name)));
    found.filter(|value| !value.is_null())
}

/// A nested member.
pub(super) fn at<'a>(message: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(message, |message, name| get(message, name))
}

/// A non-empty string: protobuf does not distinguish empty from absent.
pub(super) fn text<'a>(message: &'a Value, name: &str) -> Option<&'a str> {
    get(message, name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The items of a list; empty if it is absent.
pub(super) fn items<'a>(message: &'a Value, name: &str) -> &'a [Value] {
    get(message, name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a member is set to true.
pub(super) fn is_true(message: &Value, name: &str) -> bool {
    match get(message, name) {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text == "true",
        _ => false,
    }
}

/// Whether an enumeration has this value, by name or number.
pub(super) fn is_choice(message: &Value, name: &str, word: &str, number: u64) -> bool {
    match get(message, name) {
        Some(Value::String(text)) => text == word,
        Some(Value::Number(given)) => given.as_u64() == Some(number),
        _ => false,
    }
}

/// The type and content of an `Any`. A type that its writer did not know (`xds.type.v3.TypedStruct`) is
/// unwrapped.
pub(super) fn typed(any: &Value) -> (&str, &Value) {
    let kind = text(any, "@type").unwrap_or_default();
    let wrapped = text(any, "type_url").zip(get(any, "value"));
    let (kind, content) = match wrapped {
        Some(wrapped) if kind.ends_with(".TypedStruct") => wrapped,
        _ => (kind, any),
    };
    (kind.strip_prefix(TYPE_PREFIX).unwrap_or(kind), content)
}

/// Calls `visit` with each object of the document, outer ones first.
pub(super) fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        Value::Object(members) => {
            visit(value);
            members.values().for_each(|member| walk(member, visit));
        }
        _ => {}
    }
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
