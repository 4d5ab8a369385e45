//! What a line of the stdio transport is: a JSON-RPC 2.0 message of MCP, or none.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::error::Category;

use vkey::json::Json;

use super::halves::{REPLACEMENT, without_halves};
use super::id::Id;
use super::names::{OF_MESSAGE, OF_PARAMS, resembled};

/// What a client's line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It wants an answer; whether it begins the session.
    Request(Id, bool),
    /// It wants none.
    Notification,
    /// It wants none, and no answer to an earlier request either.
    Cancelled(Id),
    /// It answers a request of the server, by its id, if it has one.
    Response(Option<Id>),
    /// It is no JSON.
    NoJson(&'static str),
    /// It is JSON, but no message.
    NoMessage(Cow<'static, str>),
}

/// Why a JSON object is no message of a client.
const TWICE: &str = "a member is named twice";
const LOOKALIKE: &str = "a member differs from a reserved one only in case";
const SURROGATE: &str = "half a surrogate pair stands where the message is told by it";

/// What a server's line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerLine {
    /// The answer to a request of the client.
    Answer(Id),
    /// A request of the server's own.
    Question(Id),
    /// Progress of the client's request that has this token.
    Progress(Id),
    /// Another message of the server's own.
    Other,
    /// Readers can differ about what it is. Some may take it for the answer to a request.
    Ambiguous(Option<Id>),
}

/// The members that make out a message.
#[derive(Default)]
struct Shape {
    version: Option<Json>,
    id: Option<Json>,
    method: Option<Json>,
    /// How many of `result` and `error` there are; of a server, those that are more than `null`.
    outcomes: u8,
    /// A reserved member is there twice, or in another case.
    ambiguous: bool,
}

// === impl Content ===

impl Content {
    /// Reads a client's line without its line end. Every member of every object must be there once, and
    /// the reserved ones in their own case, so that all who read the message later read the same.
    pub(super) fn read(line: &[u8]) -> Self {
        if std::str::from_utf8(line).is_err() {
            return Self::NoJson("not UTF-8 text");
        }
        // Some servers end a line there, and could be made to see a message within a message.
        if line.contains(&b'\r') {
            return Self::NoMessage("a carriage return within the message".into());
        }
        let whole = without_halves(line);
        let strict = match whole {
            Cow::Borrowed(_) => Strictness::Strict,
            Cow::Owned(_) => Strictness::StrictWithHalves,
        };
        match Shape::read(&whole, strict) {
            Ok(shape) => {
                shape.content(line).unwrap_or_else(|problem| Self::NoMessage(problem.into()))
            }
            Err(error) if error.classify() != Category::Data => {
                Self::NoJson("no JSON on one line, or nested too deeply")
            }
            Err(_) if line.first() == Some(&b'[') => {
                Self::NoMessage("a list: batches of messages are not taken".into())
            }
            Err(error) => Self::NoMessage(problem(&error).into()),
        }
    }
}

fn problem(error: &serde_json::Error) -> &'static str {
    let text = error.to_string();
    let known = [TWICE, LOOKALIKE, SURROGATE].into_iter().find(|known| text.starts_with(known));
    known.unwrap_or("no object")
}

impl Shape {
    fn read(line: &[u8], strictness: Strictness) -> serde_json::Result<Self> {
        let mut from = serde_json::Deserializer::from_slice(line);
        let shape = from.deserialize_map(ShapeVisitor { strictness })?;
        from.end()?;
        Ok(shape)
    }

    fn content(self, line: &[u8]) -> Result<Content, &'static str> {
        if self.version.as_ref().and_then(Json::as_str) != Some("2.0") {
            return Err("jsonrpc is not \"2.0\"");
        }
        let Some(method) = self.method else {
            return match (self.outcomes, self.id) {
                (1, Some(id @ (Json::String(_) | Json::Number(_) | Json::Null))) => {
                    Ok(Content::Response(Id::new(&id)))
                }
                _ => Err("neither a method nor one result or error with an id"),
            };
        };
        let method = method.as_str().ok_or("the method is no text")?;
        if self.outcomes > 0 {
            return Err("both a method and a result or error");
        }
        match self.id {
            Some(id) => {
                let id = Id::new(&id).ok_or("the id is neither a short text nor a number")?;
                Ok(Content::Request(id, method == "initialize"))
            }
            None if method == "notifications/cancelled" => {
                let id = member(line, &["params", "requestId"]);
                let id = id.as_ref().and_then(Id::new);
                Ok(id.map_or(Content::Notification, Content::Cancelled))
            }
            None => Ok(Content::Notification),
        }
    }
}

impl ServerLine {
    /// Reads a server's line.
    ///
    /// # Errors
    ///
    /// When the line is no JSON object.
    pub(super) fn read(line: &[u8]) -> serde_json::Result<Self> {
        let shape = Shape::read(line, Strictness::Lenient)?;
        let id = shape.id.as_ref().and_then(Id::new);
        // Some write all members of all messages.
        let method = shape.method.as_ref().filter(|method| **method != Json::Null);
        Ok(match (id, method) {
            (id, None) if shape.ambiguous => Self::Ambiguous(id),
            (id, Some(_)) if shape.outcomes > 0 => Self::Ambiguous(id),
            _ if shape.ambiguous => Self::Ambiguous(None),
            (Some(id), None) => Self::Answer(id),
            (Some(id), Some(_)) => Self::Question(id),
            (None, Some(method)) if method.as_str() == Some("notifications/progress") => {
                let token = member(line, &["params", "progressToken"]);
                token.as_ref().and_then(Id::new).map_or(Self::Other, Self::Progress)
            }
            (None, _) => Self::Other,
        })
    }
}

/// The token by which the server names a request when it reports progress (MCP, "Progress").
pub(super) fn progress_token(line: &[u8]) -> Option<Id> {
    member(line, &["params", "_meta", "progressToken"]).as_ref().and_then(Id::new)
}

/// The text or number at a place of a JSON object.
pub(super) fn member(line: &[u8], path: &[&str]) -> Option<Json> {
    let mut from = serde_json::Deserializer::from_slice(line);
    At(path).deserialize(&mut from).ok().flatten()
}

// === visitors ===

/// How a message is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// The values are not checked.
    Lenient,
    /// Every member is there once.
    Strict,
    /// The same, of a line in which [`REPLACEMENT`] stands for halves of surrogate pairs: it decides nothing.
    StrictWithHalves,
}

/// Reads the members of a message.
struct ShapeVisitor {
    strictness: Strictness,
}

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let (mut shape, mut names) = (Shape::default(), HashSet::new());
        while let Some(name) = map.next_key::<String>()? {
            let lookalike = resembled(&name, &OF_MESSAGE);
            if self.is_strict() && lookalike.is_some() {
                return Err(A::Error::custom(LOOKALIKE));
            }
            self.refuse_half(&name)?;
            let known = lookalike.unwrap_or(&name);
            let is_reserved = OF_MESSAGE.contains(&known);
            shape.ambiguous |= lookalike.is_some() || is_reserved && names.contains(known);
            self.read_member(known, &mut shape, &mut map)?;
            let is_new = !(self.is_strict() || is_reserved) || names.insert(known.to_owned());
            if self.is_strict() && !is_new {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(shape)
    }
}

impl ShapeVisitor {
    fn is_strict(&self) -> bool {
        self.strictness != Strictness::Lenient
    }

    fn refuse_half<E: serde::de::Error>(&self, text: &str) -> Result<(), E> {
        let may_be_half = self.strictness == Strictness::StrictWithHalves;
        if may_be_half && text.contains(REPLACEMENT) { Err(E::custom(SURROGATE)) } else { Ok(()) }
    }

    fn read_member<'de, A: MapAccess<'de>>(
        &self,
        name: &str,
        shape: &mut Shape,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let place = match name {
            "jsonrpc" => Some(&mut shape.version),
            "id" => Some(&mut shape.id),
            "method" => Some(&mut shape.method),
            "result" | "error" => {
                let counts = self.is_strict() || map.next_value::<Option<IgnoredAny>>()?.is_some();
                shape.outcomes = shape.outcomes.saturating_add(u8::from(counts));
                if !self.is_strict() {
                    return Ok(());
                }
                None
            }
            _ => None,
        };
        match (place, name) {
            (Some(place), _) => {
                let value = map.next_value_seed(Value::ANY)?;
                self.refuse_half(value.as_str().unwrap_or_default())?;
                *place = Some(value);
            }
            (None, _) if !self.is_strict() => drop(map.next_value::<IgnoredAny>()?),
            (None, "params") => {
                let halves = self.strictness == Strictness::StrictWithHalves;
                drop(map.next_value_seed(Value { reserved: &OF_PARAMS, halves })?);
            }
            (None, _) => drop(map.next_value_seed(Value::ANY)?),
        }
        Ok(())
    }
}

/// Reads any value strictly, and keeps it where it is neither a list nor an object.
#[derive(Clone, Copy)]
struct Value {
    /// What no member may differ from only in case. Objects inside have names of their own.
    reserved: &'static [&'static str],
    /// [`REPLACEMENT`] may stand for half a surrogate pair: not in the names of members, nor in texts of those
    /// that are reserved.
    halves: bool,
}

impl Value {
    const ANY: Self = Self { reserved: &[], halves: false };
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
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

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        while seq.next_element_seed(Self::ANY)?.is_some() {}
        Ok(Json::Array(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if resembled(&name, self.reserved).is_some() {
                return Err(A::Error::custom(LOOKALIKE));
            }
            let is_reserved = self.reserved.contains(&name.as_str());
            let half_in = |text: &str| self.halves && text.contains(REPLACEMENT);
            let in_name = half_in(&name);
            if !names.insert(name) {
                return Err(A::Error::custom(TWICE));
            }
            let value = map.next_value_seed(Self::ANY)?;
            if in_name || is_reserved && value.as_str().is_some_and(half_in) {
                return Err(A::Error::custom(SURROGATE));
            }
        }
        Ok(Json::Object(Vec::new()))
    }
}

/// Reads the text or number at a place, and passes over everything else.
struct At<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<Json>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            Value::ANY.deserialize(from).map(Some)
        } else {
            from.deserialize_map(self)
        }
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<Json>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, next) = (None, self.0.split_first());
        while let Some(name) = map.next_key::<String>()? {
            match next {
                Some((first, rest)) if *first == name => found = map.next_value_seed(At(rest))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
