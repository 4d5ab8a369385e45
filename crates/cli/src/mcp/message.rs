//! Parses a line of the stdio transport: a JSON-RPC 2.0 message of MCP, or an invalid one. Those of the client are read
//! by the reader of the module, so that both read the same.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use vkey::body::Declared;
use vkey::body::json::{Limits, Unreadable};
use vkey::body::mcp::{Message, MessageKind, MessageReader, Wanted};
use vkey::json::Json;

use super::id::Id;
use super::names::{OF_MESSAGE, resembled};

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

/// What JSON messages are declared as over HTTP.
pub(super) const CONTENT_TYPE: (&str, &str) = ("content-type", "application/json");

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
    id: Option<Json>,
    method: Option<Json>,
    /// How many of `result` and `error` are present and not `null`.
    outcomes: u8,
    /// A reserved member is repeated, or differs in case.
    ambiguous: bool,
}

// === impl Content ===

impl Content {
    /// Parses a client's line without its line end. Returns the message too, if it is one.
    pub(super) fn read(line: &[u8], limits: Limits) -> (Self, Option<Message>) {
        // Some servers end a line at a CR, and could see a message within a message.
        if line.contains(&b'\r') {
            return (Self::InvalidMessage("a carriage return within the message".into()), None);
        }
        match read_message(line, limits) {
            Ok(message) => (Self::of(&message, line), Some(message)),
            Err(unreadable) => {
                let problem = unreadable.message();
                let content = match unreadable.is_not_json() {
                    true => Self::InvalidJson(problem),
                    false => Self::InvalidMessage(problem.into()),
                };
                (content, None)
            }
        }
    }

    fn of(message: &Message, line: &[u8]) -> Self {
        let id = message.id.as_deref().and_then(|id| Json::parse(id).ok());
        let id = id.as_ref().and_then(Id::new);
        match (message.kind, id) {
            (MessageKind::Request, Some(id)) => Self::Request(id, &*message.method == "initialize"),
            (MessageKind::Request, None) => Self::InvalidMessage("the id is too large".into()),
            (MessageKind::Response, id) => Self::Response(id),
            (MessageKind::Notification, _) if &*message.method == "notifications/cancelled" => {
                let id = member(line, &["params", "requestId"]);
                let id = id.as_ref().and_then(Id::new);
                id.map_or(Self::Notification, Self::Cancelled)
            }
            (MessageKind::Notification, _) => Self::Notification,
        }
    }
}

/// Reads a message like the module.
fn read_message(line: &[u8], limits: Limits) -> Result<Message, Unreadable> {
    let (name, value) = CONTENT_TYPE;
    let declared = Declared::read([(name.as_bytes(), value.as_bytes())]);
    let mut reader = MessageReader::new(Wanted::default(), declared, limits)?;
    reader.feed(line)?;
    reader.finish()
}

impl Shape {
    fn read(line: &[u8]) -> serde_json::Result<Self> {
        let mut from = serde_json::Deserializer::from_slice(line);
        let shape = from.deserialize_map(ShapeVisitor)?;
        from.end()?;
        Ok(shape)
    }
}

impl ServerLine {
    /// Parses a server's line.
    ///
    /// # Errors
    ///
    /// An error if the line is not a JSON object.
    pub(super) fn read(line: &[u8]) -> serde_json::Result<Self> {
        let shape = Shape::read(line)?;
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

/// Parses the members of a server's message.
struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let (mut shape, mut names) = (Shape::default(), HashSet::new());
        while let Some(name) = map.next_key::<String>()? {
            let lookalike = resembled(&name, &OF_MESSAGE);
            let known = lookalike.unwrap_or(&name);
            let is_reserved = OF_MESSAGE.contains(&known);
            shape.ambiguous |= lookalike.is_some();
            match known {
                "id" => shape.id = Some(map.next_value_seed(Value)?),
                "method" => shape.method = Some(map.next_value_seed(Value)?),
                "result" | "error" => {
                    let counts = map.next_value::<Option<IgnoredAny>>()?.is_some();
                    shape.outcomes = shape.outcomes.saturating_add(u8::from(counts));
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            shape.ambiguous |= is_reserved && !names.insert(known.to_owned());
        }
        Ok(shape)
    }
}

/// Parses any value. Keeps it if it is neither a list nor an object.
struct Value;

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
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Array(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Json::Object(Vec::new()))
    }
}

/// Parses the string or number at a path, and skips everything else.
struct At<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<Json>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            Value.deserialize(from).map(Some)
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
