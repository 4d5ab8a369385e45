//! Whether a stream reports its usage, and how to make it do so.

use crate::body::json::Span;

use super::facts::Injection;

/// What has been found of the options of a stream.
#[derive(Debug)]
pub(super) struct Options {
    change: Change,
    at: Span,
    /// Whether the client asks for the usage in another way.
    is_shown: bool,
}

/// How the body has to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Not at all.
    None,
    /// The member with the options is added.
    AddMember,
    /// The options take the place of `null`.
    Replace,
    /// The option is added to none.
    AddFirst,
    /// The option is added to others.
    Add,
    /// The option takes the place of `null` or `false`.
    Set,
}

// === impl Options ===

impl Options {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self { change: Change::None, at: Span { start: 0, end: 0 }, is_shown: false }
    }

    /// The document begins.
    pub(super) fn begin(&mut self, document: Span) {
        self.insert(Change::AddMember, document);
    }

    /// There are options.
    pub(super) fn open(&mut self, options: Span) {
        self.insert(Change::AddFirst, options);
    }

    /// The options are `null`.
    pub(super) fn null(&mut self, at: Span) {
        (self.change, self.at) = (Change::Replace, at);
    }

    /// The option is set, or it is not: `false` or `null`.
    pub(super) fn set(&mut self, is_set: bool, at: Span) {
        (self.change, self.at) = (if is_set { Change::None } else { Change::Set }, at);
    }

    /// The client asks for the usage in another way, or says that it does not.
    pub(super) fn show(&mut self, is_shown: bool) {
        self.is_shown = is_shown;
    }

    /// There is another option.
    pub(super) fn other(&mut self) {
        if self.change == Change::AddFirst {
            self.change = Change::Add;
        }
    }

    /// What makes the stream report its usage, unless it does.
    pub(super) fn injection(&self) -> Option<Injection> {
        let text = match self.change {
            Change::None => return None,
            Change::AddMember => r#""stream_options":{"include_usage":true},"#,
            Change::Replace => r#"{"include_usage":true}"#,
            Change::AddFirst => r#""include_usage":true"#,
            Change::Add => r#""include_usage":true,"#,
            Change::Set => "true",
        };
        Some(Injection { at: self.at.range(), text, strips: !self.is_shown })
    }

    /// After the brace of an object that opens.
    fn insert(&mut self, change: Change, object: Span) {
        let start = object.start + 1;
        (self.change, self.at) = (change, Span { start, end: start });
    }
}
