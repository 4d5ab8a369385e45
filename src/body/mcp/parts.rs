//! What stands at the places of a message.

use crate::body::json::{Names, Reader, Span, Spot, Text, Unreadable, Value};

use super::finder::Finder;
use super::message::{Message, MessageKind, Objects};
use super::places::{
    ARGUMENTS, ERROR, ID, JSONRPC, META, META_REVISION, METHOD, NAME, NOTIFICATIONS, PARAMS,
    REF_NAME, REF_TYPE, REF_URI, RESULT, REVISION, SUBSCRIPTION, SUBSCRIPTIONS, TASK, TEXTS, URI,
    names,
};
use super::{Arguments, MAX_ID_BYTES, MAX_OBJECTS, ObjectKind, Wanted};

/// What was found in a message so far. What only some methods need is checked when the method is known.
#[derive(Debug)]
pub(super) struct Parts {
    /// The texts, or why one cannot be used. `None`: it is absent.
    texts: [Option<Result<Box<str>, Unreadable>>; TEXTS],
    /// The bytes of the id.
    pub(super) id: Option<Span>,
    has_params: bool,
    /// The number of results and errors.
    outcomes: u8,
    subscriptions: Vec<Box<str>>,
    /// Why the subscriptions cannot be read.
    subscriptions_error: Option<Unreadable>,
    finder: Finder,
}

// === impl Parts ===

impl Parts {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            texts: [const { None }; TEXTS],
            id: None,
            has_params: false,
            outcomes: 0,
            subscriptions: Vec::new(),
            subscriptions_error: None,
            finder: Finder::new(wanted),
        }
    }

    /// The whole message, with an id.
    pub(super) fn into_message(mut self, id: Option<Box<[u8]>>) -> Result<Message, Unreadable> {
        if self.take(JSONRPC)?.as_deref() != Some("2.0") {
            return Err(Unreadable::NotRpc);
        }
        let method = self.take(METHOD)?;
        let kind = self.kind(method.as_deref())?;
        let method = method.unwrap_or_default();
        let object = match kind {
            MessageKind::Request => self.objects(&method)?,
            MessageKind::Notification | MessageKind::Response => None,
        };
        let declared = self.take(META_REVISION)?;
        let has_meta_revision = declared.is_some();
        let revision = match declared {
            None if *method == *"initialize" => self.take(REVISION)?,
            declared => declared,
        };
        let arguments = match &*method {
            "tools/call" => self.finder.finish()?,
            _ => Arguments::default(),
        };
        Ok(Message { kind, method, id, object, revision, has_meta_revision, arguments })
    }

    /// A notification and a request differ by the id (JSON-RPC 2.0, section 4.1), but some servers run requests
    /// without one. MCP names all notifications alike, so a method that does not fit is refused.
    fn kind(&self, method: Option<&str>) -> Result<MessageKind, Unreadable> {
        let is_notification = method.map(|method| method.starts_with("notifications/"));
        match (is_notification, self.id.is_some(), self.outcomes) {
            (Some(false), true, 0) if method != Some("") => Ok(MessageKind::Request),
            (Some(true), false, 0) => Ok(MessageKind::Notification),
            (None, true, 1) if !self.has_params => Ok(MessageKind::Response),
            _ => Err(Unreadable::NotRpc),
        }
    }

    /// What a request names.
    fn objects(&mut self, method: &str) -> Result<Option<Objects>, Unreadable> {
        let (kind, at) = match method {
            "tools/call" => (ObjectKind::Tool, NAME),
            "prompts/get" => (ObjectKind::Prompt, NAME),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                (ObjectKind::Resource, URI)
            }
            "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => {
                (ObjectKind::Task, TASK)
            }
            "completion/complete" => match self.take(REF_TYPE)?.as_deref() {
                Some("ref/prompt") => (ObjectKind::Prompt, REF_NAME),
                Some("ref/resource") => (ObjectKind::Resource, REF_URI),
                _ => return Err(Unreadable::NothingNamed),
            },
            "subscriptions/listen" => return self.subscriptions(),
            _ => return Ok(None),
        };
        match self.take(at)? {
            Some(name) if !name.is_empty() => Ok(Some((kind, [name].into()))),
            None if method.ends_with("subscribe") => Ok(None),
            _ => Err(Unreadable::NothingNamed),
        }
    }

    /// The resources that a client wants to listen to.
    fn subscriptions(&mut self) -> Result<Option<Objects>, Unreadable> {
        let names = std::mem::take(&mut self.subscriptions);
        match self.subscriptions_error {
            Some(error) => Err(error),
            None if names.is_empty() => Ok(None),
            None => Ok(Some((ObjectKind::Resource, names.into()))),
        }
    }

    fn subscribe(&mut self, value: Value<'_>) -> Result<(), Unreadable> {
        let Value::Text(text) = value else { return Err(Unreadable::WrongType) };
        let uri = text.exact()?;
        if uri.is_empty() {
            return Err(Unreadable::NothingNamed);
        }
        if self.subscriptions.len() >= MAX_OBJECTS {
            return Err(Unreadable::TooManyArguments);
        }
        self.subscriptions.push(uri.into());
        Ok(())
    }

    fn text(&mut self, at: Spot) -> Option<&mut Option<Result<Box<str>, Unreadable>>> {
        self.texts.get_mut(usize::from(at.0.checked_sub(JSONRPC.0)?))
    }

    fn take(&mut self, at: Spot) -> Result<Option<Box<str>>, Unreadable> {
        self.text(at).and_then(Option::take).transpose()
    }

    fn set_id(&mut self, value: Value<'_>, span: Span) -> Result<(), Unreadable> {
        match value {
            Value::Text(text) => drop(text.exact()?),
            Value::Number(text) if text.iter().all(|byte| matches!(byte, b'-' | b'0'..=b'9')) => {}
            _ => return Err(Unreadable::NotRpc),
        }
        if span.end - span.start > MAX_ID_BYTES as u64 {
            return Err(Unreadable::TooLong);
        }
        self.id = Some(span);
        Ok(())
    }
}

impl Reader for Parts {
    fn names(&self, at: Spot) -> &'static Names {
        names(at)
    }

    fn member(&mut self, at: Spot, name: &Text<'_>) -> Option<Spot> {
        let place = at.0.checked_sub(ARGUMENTS.0)?;
        Some(spot(self.finder.member(place, name)))
    }

    fn items(&self, at: Spot) -> Spot {
        match (at, at.0.checked_sub(ARGUMENTS.0)) {
            (SUBSCRIPTIONS, _) => SUBSCRIPTION,
            (_, Some(place)) => spot(self.finder.elements(place)),
            _ => Spot::IGNORED,
        }
    }

    fn value(&mut self, at: Spot, value: Value<'_>, span: Span) -> Result<(), Unreadable> {
        let is_object = matches!(value, Value::OpenObject | Value::CloseObject);
        let is_array = matches!(value, Value::OpenArray | Value::CloseArray);
        let is_absent = value == Value::Null;
        match at {
            Spot::ROOT if is_array => return Err(Unreadable::Batch),
            Spot::ROOT if !is_object => return Err(Unreadable::WrongType),
            ID => return self.set_id(value, span),
            PARAMS | META if !is_object && !is_absent => return Err(Unreadable::WrongType),
            PARAMS => self.has_params = true,
            RESULT | ERROR if !matches!(value, Value::CloseObject | Value::CloseArray) => {
                self.outcomes += 1;
            }
            NOTIFICATIONS if !is_object && !is_absent => {
                self.subscriptions_error = Some(Unreadable::WrongType);
            }
            SUBSCRIPTIONS if !is_array && !is_absent => {
                self.subscriptions_error = Some(Unreadable::WrongType);
            }
            SUBSCRIPTION if self.subscriptions_error.is_none() => {
                self.subscriptions_error = self.subscribe(value).err();
            }
            _ => {
                if let Some(place) = at.0.checked_sub(ARGUMENTS.0) {
                    self.finder.value(place, value);
                } else if let Some(text) = self.text(at) {
                    *text = Some(match value {
                        Value::Text(text) => text.exact().map(Box::from),
                        _ => Err(Unreadable::WrongType),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The spot of a place in arguments.
fn spot(place: Option<u8>) -> Spot {
    let spot = place.and_then(|place| ARGUMENTS.0.checked_add(place));
    spot.map_or(Spot::IGNORED, Spot)
}
