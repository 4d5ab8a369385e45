//! Reads a message, and finds what has to be changed in it.

use std::ops::Range;

use super::edit::Edit;
use super::head::Asked;
use super::items::Items;
use super::spots::{self, CACHE_SCOPE, ID, Part, RESULT, VERSIONS};
use crate::body::json::{Names, Reader, Span, Spot, Unreadable, Value};
use crate::body::mcp::ObjectKind;

/// Whether the caller may use the object of this kind and name.
pub(super) type Allows<'a> = &'a dyn Fn(ObjectKind, &str) -> bool;

/// What a message has said so far.
#[derive(Debug)]
pub(super) struct Reading {
    asked: Asked,
    is_modern: bool,
    /// What has to be changed, in the order of the ranges.
    pub(super) edits: Vec<Edit>,
    /// The number of items that were removed from all messages.
    pub(super) removed: u32,
    /// Whether the message has a list.
    pub(super) is_list: bool,
    pub(super) id: Option<Box<[u8]>>,
    items: Items,
    /// Whether the caller may use the item that is being read.
    is_allowed: bool,
    has_versions: bool,
    /// The value of `cacheScope`, if it is not `"private"`, or nothing if it is.
    scope: Option<Option<Range<usize>>>,
}

/// A reading, with the decision on each item.
pub(super) struct Judge<'a> {
    pub(super) reading: &'a mut Reading,
    pub(super) allows: Allows<'a>,
}

const PRIVATE: &str = "\"private\"";
const PRIVATE_MEMBER: &str = ",\"cacheScope\":\"private\"";

// === impl Reading ===

impl Reading {
    pub(super) fn new(asked: Asked, is_modern: bool) -> Self {
        Self {
            asked,
            is_modern,
            edits: Vec::new(),
            removed: 0,
            is_list: false,
            id: None,
            items: Items::default(),
            is_allowed: false,
            has_versions: false,
            scope: None,
        }
    }

    /// Begins another message.
    pub(super) fn reset(&mut self) {
        let removed = self.removed;
        *self = Self { removed, ..Self::new(self.asked, self.is_modern) };
    }

    /// A value that is in no list.
    fn member(
        &mut self,
        at: Spot,
        value: Value<'_>,
        range: Range<usize>,
    ) -> Result<(), Unreadable> {
        match (at, value) {
            // No revision has results of another type, and only an old one has batches.
            (Spot::ROOT | RESULT, Value::OpenArray) => return Err(Unreadable::WrongType),
            (RESULT, Value::CloseObject) => self.end_result(range.end),
            (ID, _) => self.id = id(value, range.len()),
            (VERSIONS, _) => self.has_versions = true,
            (CACHE_SCOPE, Value::Text(text)) if text.bytes == b"private" => self.scope = Some(None),
            // Of an object or array, the range at its end is the last.
            (CACHE_SCOPE, _) => self.scope = Some(Some(range)),
            _ => {}
        }
        Ok(())
    }

    /// A list, or another value in its place.
    fn list(&mut self, value: Value<'_>, span: Range<usize>) -> Result<(), Unreadable> {
        match value {
            Value::OpenArray => {
                self.is_list = true;
                self.items = Items::begin(span.start.saturating_add(1));
            }
            Value::CloseArray => self.items.end(&mut self.edits),
            // Some readers may take the members of an object for the items of a list.
            Value::OpenObject if self.asked == Asked::List => return Err(Unreadable::WrongType),
            _ => {}
        }
        Ok(())
    }

    /// An item of a list. One whose name is not readable goes too.
    fn item(&mut self, value: Value<'_>, span: Range<usize>) {
        let is_allowed = std::mem::take(&mut self.is_allowed);
        match value {
            Value::OpenObject | Value::OpenArray => {}
            Value::CloseObject if is_allowed => {
                self.items.keep(span.start, span.end, &mut self.edits);
            }
            _ => {
                self.items.remove(span.end);
                self.removed = self.removed.saturating_add(1);
            }
        }
    }

    /// Ends the result. What depends on the key must not be shared by a cache.
    fn end_result(&mut self, end: usize) {
        let is_discovery = self.asked == Asked::Discover && self.has_versions;
        if !self.is_modern || !(self.is_list || is_discovery) {
            return;
        }
        let edit = match self.scope.take() {
            Some(None) => return,
            Some(Some(range)) => Edit { range, text: PRIVATE },
            None => {
                let at = end.saturating_sub(1);
                Edit { range: at..at, text: PRIVATE_MEMBER }
            }
        };
        let start = edit.range.start;
        let after = self.edits.iter().rev().take_while(|other| other.range.start > start).count();
        self.edits.insert(self.edits.len().saturating_sub(after), edit);
    }
}

// === impl Judge ===

impl Reader for Judge<'_> {
    fn names(&self, at: Spot) -> &'static Names {
        spots::names(at)
    }

    fn items(&self, at: Spot) -> Spot {
        spots::items(at)
    }

    fn value(&mut self, at: Spot, value: Value<'_>, span: Span) -> Result<(), Unreadable> {
        let range = place(span.start)..place(span.end);
        let reading = &mut *self.reading;
        match (spots::part(at), value) {
            (Some(Part::List), _) => return reading.list(value, range),
            (Some(Part::Item), _) => reading.item(value, range),
            (Some(Part::Name(kind)), Value::Text(text)) => {
                let name = text.exact().ok();
                reading.is_allowed = name.is_some_and(|name| (self.allows)(kind, name));
            }
            _ => return reading.member(at, value, range),
        }
        Ok(())
    }
}

/// The bytes of an id that takes `len` bytes.
fn id(value: Value<'_>, len: usize) -> Option<Box<[u8]>> {
    match value {
        Value::Number(text) => Some(text.into()),
        // A text that takes as many bytes as it has, and its quotes, has no escapes.
        Value::Text(text) if !text.is_cut && text.bytes.len().saturating_add(2) == len => {
            Some([b"\"", text.bytes, b"\""].concat().into())
        }
        _ => None,
    }
}

/// An offset in what is held, or far behind its end.
fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
