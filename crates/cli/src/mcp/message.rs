//! Parses a line of the stdio transport: a JSON-RPC 2.0 message of MCP, or an invalid one.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::error::Category;

use vkey::json::Json;

use super::id::Id;
use super::names::{OF_MESSAGE, OF_PARAMS, resembled};
use super::surrogates::{REPLACEMENT, replace_lone_surrogates};

/// What a line of the client is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A request, and whether it starts the session.
    Request(Id, bool),
    /// A notification.
    Notification,
    /// A notification that cancels an earlier request.
    Cancelled(Id),
    /// A response to a request of the server, with its id if it has one.
    Response(Option<Id>),
    /// Not JSON.
    InvalidJson(&'static str),
    /// JSON, but not a message.
    InvalidMessage(Cow<'static, str>),
}

/// Why a JSON object is not a message of a client.
const TWICE: &str = "a member is named twice";
const LOOKALIKE: &str = "a member differs from a reserved one only in case";
const SURROGATE: &str = "half a surrogate pair stands where the message is told by it";

/// What a line of the server is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerLine {
    /// The response to a request of the client.
    Response(Id),
    /// A request of the server.
    Request(Id),
    /// Progress of the client's request with this token.
    Progress(Id),
    /// Another message of the server.
    Other,
    /// Readers may differ about what it is, and some may take it for a response.
    Ambiguous(Option<Id>),
}

/// The members that determine what a message is.
#[derive(Default)]
struct Shape {
    version: Option<Json>,
    id: Option<Json>,
    method: Option<Json>,
    /// How many of `result` and `error` are present; of a server, those that are not `null`.
    outcomes: u8,
    /// A reserved member is repeated, or differs in case.
    ambiguous: bool,
}

// === impl Content ===

impl Content {
    /// Parses a client's line without its line end. Members must be unique in every object, and reserved ones
    /// must have their exact case, so that every later reader reads the same.
    pub(super) fn read(line: &[u8]) -> Self {
        if std::str::from_utf8(line).is_err() {
            return Self::InvalidJson("not UTF-8 text");
        }
        // Some servers end a line at a CR, and could see a message within a message.
        if line.contains(&b'\r') {
            return Self::InvalidMessage("a carriage return within the message".into());
        }
        let whole = replace_lone_surrogates(line);
        let strict = match whole {
            Cow::Borrowed(_) => Strictness::Strict,
            Cow::Owned(_) => Strictness::StrictWithHalves,
        };
        match Shape::read(&whole, strict) {
            Ok(shape) => {
                shape.content(line).unwrap_or_else(|problem| Self::InvalidMessage(problem.into()))
            }
            Err(error) if error.classify() != Category::Data => {
                Self::InvalidJson("no JSON on one line, or nested too deeply")
            }
            Err(_) if line.first() == Some(&b'[') => {
                Self::InvalidMessage("a list: batches of messages are not taken".into())
            }
            Err(error) => Self::InvalidMessage(problem(&error).into()),
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
    /// Parses a server's line.
    ///
    /// # Errors
    ///
    /// An error if the line is not a JSON object.
    pub(super) fn read(line: &[u8]) -> serde_json::Result<Self> {
        let shape = Shape::read(line, Strictness::Lenient)?;
        let id = shape.id.as_ref().and_then(Id::new);
        // Some servers write all members in every message.
        let method = shape.method.as_ref().filter(|method| **method != Json::Null);
        Ok(match (id, method) {
            (id, None) if shape.ambiguous => Self::Ambiguous(id),
            (id, Some(_)) if shape.outcomes > 0 => Self::Ambiguous(id),
            _ if shape.ambiguous => Self::Ambiguous(None),
            (Some(id), None) => Self::Response(id),
            (Some(id), Some(_)) => Self::Request(id),
            (None, Some(method)) if method.as_str() == Some("notifications/progress") => {
                let token = member(line, &["params", "progressToken"]);
                token.as_ref().and_then(Id::new).map_or(Self::Other, Self::Progress)
            }
            (None, _) => Self::Other,
        })
    }
}

/// The token that the server uses to report progress of a request (MCP, "Progress").
pub(super) fn progress_token(line: &[u8]) -> Option<Id> {
    member(line, &["params", "_meta", "progressToken"]).as_ref().and_then(Id::new)
}

/// The string or number at a path in a JSON object.
pub(super) fn member(line: &[u8], path: &[&str]) -> Option<Json> {
    let mut from = serde_json::Deserializer::from_slice(line);
    At(path).deserialize(&mut from).ok().flatten()
}

// === visitors ===

/// How strictly a message is parsed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// Values are not checked.
    Lenient,
    /// Members are unique.
    Strict,
    /// Like `Strict`, for a line in which [`REPLACEMENT`] stands for lone surrogates: it must not decide
    /// anything.
    StrictWithHalves,
}

/// Parses the members of a message.
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
                let lone_surrogates = self.strictness == Strictness::StrictWithHalves;
                drop(map.next_value_seed(Value { reserved: &OF_PARAMS, lone_surrogates })?);
            }
            (None, _) => drop(map.next_value_seed(Value::ANY)?),
        }
        Ok(())
    }
}

/// Parses any value strictly. Keeps it if it is neither a list nor an object.
#[derive(Clone, Copy)]
struct Value {
    /// The names that no member may resemble. Nested objects have names of their own.
    reserved: &'static [&'static str],
    /// Whether [`REPLACEMENT`] may stand for a lone surrogate. It may not in names of members, nor in
    /// reserved strings.
    lone_surrogates: bool,
}

impl Value {
    const ANY: Self = Self { reserved: &[], lone_surrogates: false };
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
            let half_in = |text: &str| self.lone_surrogates && text.contains(REPLACEMENT);
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

/// Parses the string or number at a path, and skips everything else.
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
