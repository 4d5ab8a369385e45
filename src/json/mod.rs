//! Strict JSON: RFC 8259 text in which no object has two members of one name.
//!
//! Claims, caveats, the configuration and audit lines are all read through [`Node`], which knows its path
//! in the document, so that each error names the member it is about.

mod ascii;
pub(crate) mod decimal;
mod node;
mod object;
mod place;
mod quoted;

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

pub use ascii::{ascii, escape, pretty};
pub use node::{Integers, Invalid, Members, Node, Problem};
pub use object::Object;
pub use place::line;
pub use quoted::push_quoted;

/// A JSON value. Objects keep the order of their members and hold each name once.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// A list of values.
    Array(Vec<Json>),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// A number. Integers are exact.
    Number(serde_json::Number),
    /// Members in the order of the text.
    Object(Vec<(String, Json)>),
    /// Text.
    String(String),
}

// === impl Json ===

impl Json {
    /// Parses one document. Nesting is limited to 128 levels, so that no text can exhaust the stack.
    ///
    /// # Errors
    ///
    /// [`Problem::Syntax`] if the text is not exactly one JSON value, or if an object has two members of
    /// one name. Names are compared after unescaping.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        serde_json::from_slice(text).map_err(|error| Invalid::syntax(&error))
    }

    /// An object with these members.
    pub fn object<const N: usize>(members: [(&str, Json); N]) -> Self {
        Self::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// This value as the root of a document, for reading.
    pub fn root(&self, integers: Integers) -> Node<'_> {
        Node::root(self, integers)
    }

    /// The length of the compact text in bytes. A number that is not an integer counts as the longest
    /// possible one: formatting it would add more code to the module than all other JSON output.
    pub fn compact_bytes(&self) -> usize {
        let list = |items: usize| 2 + items.saturating_sub(1);
        match self {
            Self::Array(items) => {
                list(items.len()) + items.iter().map(Self::compact_bytes).sum::<usize>()
            }
            Self::Bool(value) => {
                if *value {
                    "true".len()
                } else {
                    "false".len()
                }
            }
            Self::Null => "null".len(),
            Self::Number(number) => number_bytes(number),
            Self::Object(members) => {
                let member =
                    |(name, value): &(String, Self)| quoted_bytes(name) + 1 + value.compact_bytes();
                list(members.len()) + members.iter().map(member).sum::<usize>()
            }
            Self::String(text) => quoted_bytes(text),
        }
    }

    /// The member of that name, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Self::Object(members) => find(members, name),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is a non-negative integer.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

impl fmt::Display for Json {
    /// Compact JSON text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Array(items) => serializer.collect_seq(items),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Null => serializer.serialize_unit(),
            Self::Number(number) => number.serialize(serializer),
            Self::Object(members) => serializer.collect_map(members.iter().map(|(n, v)| (n, v))),
            Self::String(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        serde_json::Number::from_f64(value)
            .map(Json::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = UniqueMembers::default();
        while let Some((name, value)) = map.next_entry::<String, Json>()? {
            if !members.push(name, value) {
                return Err(A::Error::custom("a member is named twice"));
            }
        }
        Ok(Json::Object(members.members))
    }
}

/// The members of an object that is being read.
#[derive(Default)]
struct UniqueMembers {
    members: Vec<(String, Json)>,
    /// The names of all members once there are `MAX_SCANNED` of them, empty before.
    names: BTreeSet<String>,
}

impl UniqueMembers {
    /// Below this number of members, a new name is compared with each of them, which needs no allocation.
    /// Claims and caveats have fewer.
    const MAX_SCANNED: usize = 16;

    /// Appends a member; `false` if the name exists already.
    fn push(&mut self, name: String, value: Json) -> bool {
        let is_new = if self.members.len() < Self::MAX_SCANNED {
            find(&self.members, &name).is_none()
        } else {
            if self.names.is_empty() {
                self.names.extend(self.members.iter().map(|(name, _)| name.clone()));
            }
            // A tree: no choice of names makes it slow, and it needs no randomness.
            self.names.insert(name.clone())
        };
        if is_new {
            self.members.push((name, value));
        }
        is_new
    }
}

fn find<'a>(members: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
}

fn number_bytes(number: &serde_json::Number) -> usize {
    const LONGEST: &str = "-2.2250738585072014e-308";
    match (number.as_u64(), number.as_i64()) {
        (Some(integer), _) => itoa::Buffer::new().format(integer).len(),
        (None, Some(integer)) => itoa::Buffer::new().format(integer).len(),
        (None, None) => LONGEST.len(),
    }
}

/// The length of a string with its quotes, in bytes, escaped as little as RFC 8259, section 7, allows.
fn quoted_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Json::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn duplicate_names_are_rejected_after_unescaping() {
        assert!(error(r#"{"a":1,"a":2}"#).contains("a member is named twice"));
        assert!(error(r#"{"a":1,"\u0061":2}"#).contains("a member is named twice"));
    }

    #[test]
    fn a_duplicate_name_is_found_among_any_number_of_members() {
        for len in [1, 2, 15, 16, 17, 18, 100] {
            let members = Vec::from_iter((0..len).map(|n| format!("\"m{n}\":0")));
            assert!(Json::parse(format!("{{{}}}", members.join(",")).as_bytes()).is_ok(), "{len}");
            for twice in 0..len {
                let text = format!("{{{},\n\"m{twice}\":1}}", members.join(","));
                let error = Json::parse(text.as_bytes()).unwrap_err();
                assert!(error.to_string().contains("a member is named twice"), "{len} {twice}");
                assert_eq!(line(text.as_bytes(), &error), 2);
            }
        }
    }

    /// Comparing each name with all earlier ones would take more than a minute.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a bound on real time needs a real clock")]
    fn many_members_are_read_quickly() {
        let started = std::time::Instant::now();
        let members = Vec::from_iter((0..100_000).map(|n| format!("\"m{n}\":0")));
        let members = members.join(",");
        assert!(Json::parse(format!("{{{members}}}").as_bytes()).is_ok());
        assert!(error(&format!("{{{members},\"m99999\":0}}")).contains("a member is named twice"));
        let took = started.elapsed();
        assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn trailing_text_and_deep_nesting_are_rejected() {
        assert!(error("{}{}").contains("trailing"));
        assert!(error(&"[".repeat(100_000)).contains("recursion limit"));
    }

    #[test]
    fn errors_name_the_member() {
        let json = Json::parse(br#"{"a":[{"b":true}]}"#).unwrap();
        let root = json.root(Integers::Digits);
        let root_members = root.members(&["a"]).unwrap();
        let list = root_members.require("a").unwrap();
        let item = list.items().unwrap().next().unwrap();
        assert_eq!(
            item.members(&["c"]).err().unwrap().to_string(),
            "a[0].b: unknown member (known here: c)"
        );
        let members = item.members(&["b", "c"]).unwrap();
        assert_eq!(members.require("c").err().unwrap().to_string(), "a[0].c: missing");
        assert_eq!(
            members.require("b").unwrap().string().unwrap_err().to_string(),
            "a[0].b: expected a string"
        );
    }

    #[test]
    fn the_length_of_compact_text_is_computed_without_writing_it() {
        let integers =
            r#"[0,18446744073709551615,-9223372036854775808,true,false,null,[],{},[[1]]]"#;
        let texts = r#"{"a\"\\\n\r\t\b\f\u0001\u001f\u007f\u00e9\ud83d\ude00":"","/":"\/"}"#;
        for text in [integers, texts] {
            let json = Json::parse(text.as_bytes()).unwrap();
            assert_eq!(json.compact_bytes(), json.to_string().len(), "{text}");
        }
        for double in
            ["0.5", "-0.0", "5e-324", "-1.7976931348623157e308", "-2.2250738585072014e-308"]
        {
            let json = Json::parse(double.as_bytes()).unwrap();
            assert!(json.to_string().len() <= json.compact_bytes(), "{double}");
        }
    }

    #[test]
    fn whole_doubles_are_integers_only_on_request() {
        let json = Json::parse(b"5.0").unwrap();
        assert_eq!(json.root(Integers::Whole).integer(), Ok(5));
        assert!(json.root(Integers::Digits).integer().is_err());
        for text in ["5.5", "-1", "-1.0", "1e300", "9007199254740993"] {
            let json = Json::parse(text.as_bytes()).unwrap();
            assert!(json.root(Integers::Whole).integer().is_err(), "{text}");
        }
    }
}
