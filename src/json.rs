//! Strict JSON: RFC 8259 text in which every member of an object occurs once.
//!
//! Claims, caveats, the configuration and audit lines are all read through [`Node`], which knows
//! where in the document it stands, so that each error names the member it is about.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A JSON value. Objects keep the order of their members and hold each name once.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// A list of values.
    Array(Vec<Json>),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// A number, integers kept exactly.
    Number(serde_json::Number),
    /// Members in the order of the text.
    Object(Vec<(String, Json)>),
    /// Text.
    String(String),
}

/// How a document may spell an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// Digits only. Keys are written by programs that know their integers.
    Digits,
    /// Any spelling of a whole number, `5.0` and `1e3` too: Istio delivers the configuration as a
    /// protobuf `Struct`, whose numbers are all doubles.
    Whole,
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    path: String,
    problem: Problem,
}

/// What is wrong with one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The value is of another type or outside its range; the text says what is expected.
    Expected(&'static str),
    /// A required member is absent.
    Missing,
    /// The text is not JSON, or names a member twice.
    Syntax(String),
    /// The member is not one of those the text lists.
    Unknown(String),
    /// The value cannot be used for the reason given; the reason never quotes the value.
    Unusable(String),
}

/// A value together with its place in the document.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    value: &'a Json,
    path: Path<'a>,
    integers: Integers,
}

/// The members of one object, none of them unknown.
pub struct Members<'a> {
    members: &'a [(String, Json)],
    parent: &'a Node<'a>,
}

#[derive(Clone, Copy)]
enum Path<'a> {
    Index(&'a Path<'a>, usize),
    Member(&'a Path<'a>, &'a str),
    Root,
}

// === impl Json ===

impl Json {
    /// Reads one document. Nesting is bounded (128 levels), so that no text can exhaust the stack.
    ///
    /// # Errors
    ///
    /// [`Problem::Syntax`] for anything but one JSON value, and for an object with a member twice,
    /// compared after its escapes are resolved.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        serde_json::from_slice(text).map_err(|error| Invalid {
            path: String::new(),
            problem: Problem::Syntax(error.to_string()),
        })
    }

    /// An object with the members given.
    pub fn object<const N: usize>(members: [(&str, Json); N]) -> Self {
        Self::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The root of a document, for reading.
    pub fn root(&self, integers: Integers) -> Node<'_> {
        Node { value: self, path: Path::Root, integers }
    }

    /// The member of an object, if this is one and has it.
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
        let mut members: Vec<(String, Json)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Json>()? {
            if find(&members, &name).is_some() {
                return Err(A::Error::custom("a member is named twice"));
            }
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}

// === impl Node ===

impl<'a> Node<'a> {
    /// The value that stands here.
    pub fn value(&self) -> &'a Json {
        self.value
    }

    /// The members of the object here, all of which must be among `known`.
    ///
    /// # Errors
    ///
    /// When this is not an object, or one of its members is not listed.
    pub fn members(&'a self, known: &[&str]) -> Result<Members<'a>, Invalid> {
        let members = self.object()?;
        for (name, _) in members {
            if !known.contains(&name.as_str()) {
                return Err(Invalid {
                    path: Path::Member(&self.path, name).to_string(),
                    problem: Problem::Unknown(known.join(", ")),
                });
            }
        }
        Ok(Members { members, parent: self })
    }

    /// The entries of the object here, whose names are data: tiers, tenants.
    ///
    /// # Errors
    ///
    /// When this is not an object.
    pub fn entries(&'a self) -> Result<impl Iterator<Item = (&'a str, Node<'a>)>, Invalid> {
        let entry = |(name, value): &'a (String, Json)| (name.as_str(), self.child(name, value));
        Ok(self.object()?.iter().map(entry))
    }

    /// The items of the list here.
    ///
    /// # Errors
    ///
    /// When this is not a list.
    pub fn items(&'a self) -> Result<impl ExactSizeIterator<Item = Node<'a>>, Invalid> {
        let Json::Array(items) = self.value else {
            return Err(self.expected("a list"));
        };
        Ok(items.iter().enumerate().map(|(index, value)| Node {
            value,
            path: Path::Index(&self.path, index),
            integers: self.integers,
        }))
    }

    /// Every item of the list here, read by `read`.
    ///
    /// # Errors
    ///
    /// When this is not a list, and whatever `read` finds.
    pub fn list<T>(
        &'a self,
        read: impl Fn(&Node<'_>) -> Result<T, Invalid>,
    ) -> Result<Box<[T]>, Invalid> {
        self.items()?.map(|item| read(&item)).collect()
    }

    /// The string here.
    ///
    /// # Errors
    ///
    /// When this is not a string.
    pub fn string(&self) -> Result<&'a str, Invalid> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// The truth value here.
    ///
    /// # Errors
    ///
    /// When this is neither `true` nor `false`.
    pub fn bool(&self) -> Result<bool, Invalid> {
        match self.value {
            Json::Bool(value) => Ok(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// The whole number here, from 0 to 2^53 (what every JSON reader keeps exactly).
    ///
    /// # Errors
    ///
    /// When this is not such a number, or not spelled as [`Integers`] asks.
    pub fn integer(&self) -> Result<u64, Invalid> {
        const MAX_EXACT: u64 = 1 << 53;
        let number = match self.value {
            Json::Number(number) => number,
            _ => return Err(self.expected("a whole number")),
        };
        let exact = match self.integers {
            Integers::Digits => number.as_u64(),
            Integers::Whole => number.as_u64().or_else(|| whole(number.as_f64()?)),
        };
        exact.filter(|n| *n <= MAX_EXACT).ok_or_else(|| self.expected("a whole number, 0 to 2^53"))
    }

    /// The one of `choices` that the string here names.
    ///
    /// # Errors
    ///
    /// When this is not a string, or names none of them.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Invalid> {
        let text = self.string()?;
        let named = choices.iter().find(|(name, _)| *name == text);
        named.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.unusable(format!("expected one of {}", names.join(", ")))
        })
    }

    /// The error that something else belongs here.
    pub fn expected(&self, what: &'static str) -> Invalid {
        Invalid { path: self.path.to_string(), problem: Problem::Expected(what) }
    }

    /// The error that the value here cannot be used. The reason must not quote the value: it may
    /// be a secret in the wrong place.
    pub fn unusable(&self, reason: impl fmt::Display) -> Invalid {
        Invalid { path: self.path.to_string(), problem: Problem::Unusable(reason.to_string()) }
    }

    fn object(&self) -> Result<&'a [(String, Json)], Invalid> {
        match self.value {
            Json::Object(members) => Ok(members),
            _ => Err(self.expected("an object")),
        }
    }

    fn child(&'a self, name: &'a str, value: &'a Json) -> Node<'a> {
        Node { value, path: Path::Member(&self.path, name), integers: self.integers }
    }
}

// === impl Members ===

impl<'a> Members<'a> {
    /// The member of that name, where present.
    pub fn get(&self, name: &'a str) -> Option<Node<'a>> {
        find(self.members, name).map(|value| self.parent.child(name, value))
    }

    /// The member of that name.
    ///
    /// # Errors
    ///
    /// [`Problem::Missing`] when it is absent.
    pub fn require(&self, name: &'a str) -> Result<Node<'a>, Invalid> {
        self.get(name).ok_or_else(|| Invalid {
            path: Path::Member(&self.parent.path, name).to_string(),
            problem: Problem::Missing,
        })
    }

    /// The member of that name read by `read`, where present.
    ///
    /// # Errors
    ///
    /// Whatever `read` finds.
    pub fn read<T>(
        &self,
        name: &'a str,
        read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
    ) -> Result<Option<T>, Invalid> {
        self.get(name).map(|node| read(&node)).transpose()
    }
}

// === impl Path ===

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Member(Self::Root, name) => write!(f, "{}", name.escape_debug()),
            Self::Member(parent, name) => write!(f, "{parent}.{}", name.escape_debug()),
        }
    }
}

// === impl Invalid ===

impl Invalid {
    /// The place of the offending member, as in `keyring[0].rotation`; empty for the whole document.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        match &self.problem {
            Problem::Expected(what) => write!(f, "expected {what}"),
            Problem::Missing => f.write_str("missing"),
            Problem::Syntax(error) => write!(f, "not valid JSON: {error}"),
            Problem::Unknown(known) => write!(f, "unknown member (known here: {known})"),
            Problem::Unusable(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Invalid {}

fn find<'a>(members: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
}

/// The integer that a double spells, where it spells one exactly.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be exact")]
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number))
        .then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Json::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_member_named_twice_is_refused_after_unescaping() {
        assert!(error(r#"{"a":1,"a":2}"#).contains("a member is named twice"));
        assert!(error(r#"{"a":1,"\u0061":2}"#).contains("a member is named twice"));
    }

    #[test]
    fn trailing_text_and_deep_nesting_are_refused() {
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
    fn whole_doubles_are_integers_only_where_asked() {
        let json = Json::parse(b"5.0").unwrap();
        assert_eq!(json.root(Integers::Whole).integer(), Ok(5));
        assert!(json.root(Integers::Digits).integer().is_err());
        for text in ["5.5", "-1", "-1.0", "1e300", "9007199254740993"] {
            let json = Json::parse(text.as_bytes()).unwrap();
            assert!(json.root(Integers::Whole).integer().is_err(), "{text}");
        }
    }
}
