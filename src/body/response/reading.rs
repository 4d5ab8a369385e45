//! What is read of the documents of a response.

use super::counts::{Count, Counts};
use super::layout::{self, Layout};
use super::metered::ModelUsage;
use crate::body::TokenUsage;
use crate::body::json::{Names, Reader, Span, Spot, Text, Unreadable, Value};
use crate::body::tokens::whole_number;

/// What the documents of a response have said so far: counts and a few names, nothing of what was generated.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) layout: &'static Layout,
    pub(super) counts: Counts,
    /// Tokens that are not in these counts.
    pub(super) extra: Vec<ModelUsage>,
    /// The model that served.
    pub(super) model: Option<Box<str>>,
    tier: Option<Box<str>>,
    speed: Option<Box<str>>,
    /// The length of what was generated.
    pub(super) content_bytes: u64,
    /// Whether a stream has come so far that its counts are those of the whole response.
    pub(super) has_ended: bool,
    /// Whether a stream has said that nothing follows.
    pub(super) is_final: bool,
    /// Whether a document reported an error and no counts, or there were too many models.
    pub(super) is_broken: bool,
    /// Whether the object that is a document is open.
    pub(super) is_open: bool,
    /// How many such objects there were.
    pub(super) documents: u32,
    /// Whether they are in an array.
    pub(super) is_list: bool,
    /// What the document shows so far.
    pub(super) signs: Signs,
    /// Whether the document has reported counts.
    pub(super) has_counts: bool,
    has_error: bool,
    entry: Option<Entry>,
    /// The number of lists of entries so far.
    list: u32,
}

/// What of the members of a document shows whether it reports the usage of a stream of OpenAI and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs {
    has_choices: bool,
    has_usage: bool,
    /// Whether it is another document.
    pub(super) is_other: bool,
}

/// One entry of a list of counts.
#[derive(Clone, Debug, Default)]
struct Entry {
    counts: Counts,
    model: Option<Box<str>>,
    kind: Kind,
}

/// What an event or an entry is, by its type; an entry of a cache by its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// An event that means nothing, or an entry that is not in the counts of the response itself.
    #[default]
    Other,
    /// An event after which a stream is complete.
    End,
    /// An event after which nothing follows.
    Final,
    /// An error.
    Error,
    /// An entry that is in the counts of the response itself.
    Part,
    /// The same, of the model that served instead of the one that was asked for.
    Fallback,
    /// What was written to a cache for an hour.
    LongWrite,
    /// What was written to a cache for less.
    ShortWrite,
}

static KINDS: [(&str, Kind); 9] = [
    ("message_delta", Kind::End),
    ("message_stop", Kind::Final),
    ("response.completed", Kind::Final),
    ("response.incomplete", Kind::Final),
    ("response.failed", Kind::Final),
    ("error", Kind::Error),
    ("message", Kind::Part),
    ("fallback_message", Kind::Fallback),
    ("1h", Kind::LongWrite),
];

/// More models than that are not told apart.
const MAX_EXTRA_MODELS: usize = 8;

// === impl Reading ===

impl Reading {
    /// Reads documents of a layout.
    pub(super) fn new(layout: &'static Layout) -> Self {
        Self {
            layout,
            counts: Counts::default(),
            extra: Vec::new(),
            model: None,
            tier: None,
            speed: None,
            content_bytes: 0,
            has_ended: false,
            is_final: false,
            is_broken: false,
            is_open: false,
            documents: 0,
            is_list: false,
            signs: Signs::default(),
            has_counts: false,
            has_error: false,
            entry: None,
            list: 0,
        }
    }

    /// The service tier that served; a speed other than the usual one counts as a tier.
    pub(super) fn service_tier(&mut self) -> Option<Box<str>> {
        self.speed.take().or(self.tier.take())
    }

    /// What was reported; `None` if too little was. A prompt that was in a cache of Ollama is not counted, but elsewhere
    /// a response without input has reported nonsense.
    pub(super) fn usage(&self) -> Option<TokenUsage> {
        let known = self.known();
        let has_input = self.own().input > 0 || self.counts.get(Count::Total) > 0;
        (has_input || self.layout.is_lines && known.total > 0).then_some(known)
    }

    /// All tokens so far.
    pub(super) fn known(&self) -> TokenUsage {
        self.extra.iter().fold(self.own(), |sum, extra| sum.plus(&extra.usage))
    }

    /// The tokens so far, without those of `extra`.
    pub(super) fn own(&self) -> TokenUsage {
        self.counts.usage(self.layout.caches)
    }

    /// Reads a count from the value of a header field.
    pub(super) fn field(&mut self, count: Count, value: Option<&[u8]>) {
        if let Some(number) = value.and_then(whole_number) {
            self.counts.raise(count, number);
        }
    }

    /// Reads the tier of Bedrock from the value of a header field. What the body says is a tier of the model's provider.
    pub(super) fn tier_field(&mut self, value: Option<&[u8]>) {
        let tier = value.and_then(|value| std::str::from_utf8(value.trim_ascii()).ok());
        self.speed = tier.filter(|tier| !matches!(*tier, "" | "default")).map(Into::into);
    }

    /// Ends a document, whole or not. Returns whether it is whole.
    pub(super) fn end_document(&mut self) -> bool {
        self.entry = None;
        self.signs = Signs::default();
        self.has_counts = false;
        !std::mem::take(&mut self.is_open)
    }

    /// A document begins: its lists of entries repeat those before.
    fn begin(&mut self) {
        self.is_open = true;
        self.documents = self.documents.saturating_add(1);
        self.has_counts = false;
        self.has_error = false;
        self.list = self.list.wrapping_add(1);
    }

    fn end(&mut self) {
        self.is_open = false;
        // An error with counts, e.g. of a response that has failed late, reports all that there is.
        self.is_broken |= self.has_error && !self.has_counts;
    }

    fn raise(&mut self, count: Count, number: u64) {
        let counts = self.entry.as_mut().map_or(&mut self.counts, |entry| &mut entry.counts);
        counts.raise(count, number);
        self.has_counts = true;
    }

    fn text(&mut self, at: Spot, text: Text<'_>) {
        if matches!(at, layout::CONTENT | layout::CHOICES) {
            self.content_bytes = self.content_bytes.saturating_add(text.len);
            return;
        }
        // Each event of a stream names the model again.
        if at == layout::MODEL && self.entry.is_none() && self.model.is_some() {
            return;
        }
        let Some(text) = text.exact().ok().filter(|text| !text.is_empty()) else { return };
        self.presence(at);
        let place = match (at, &mut self.entry) {
            (layout::MODEL, Some(entry)) => &mut entry.model,
            (layout::MODEL, None) => &mut self.model,
            (layout::TIER, _) => &mut self.tier,
            (layout::SPEED, _) if text != "standard" => &mut self.speed,
            (layout::TYPE | layout::TTL, _) => return self.kind(at, text),
            _ => return,
        };
        // Without allocating if it is the same.
        if place.as_deref() != Some(text) {
            *place = Some(text.into());
        }
    }

    /// The type of an event or entry, or the time of an entry.
    fn kind(&mut self, at: Spot, text: &str) {
        let known = KINDS.iter().find(|(known, _)| *known == text);
        let kind = known.map(|(_, kind)| *kind).unwrap_or_default();
        match (&mut self.entry, kind) {
            (Some(entry), Kind::Other) if at == layout::TTL => entry.kind = Kind::ShortWrite,
            (Some(entry), _) => entry.kind = kind,
            (None, Kind::End) => self.has_ended = true,
            (None, Kind::Final) => self.is_final = true,
            (None, Kind::Error) => self.has_error = true,
            _ => {}
        }
    }

    /// A value at a spot where it matters that there is one.
    fn presence(&mut self, at: Spot) {
        match at {
            layout::END => self.has_ended = true,
            layout::FINAL_USAGE => {
                self.has_ended = true;
                self.is_final = true;
            }
            layout::ERROR => self.has_error = true,
            _ => {}
        }
    }

    fn end_entry(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        let written = entry.counts.get(Count::Input);
        match entry.kind {
            Kind::Part => {}
            Kind::Fallback if entry.model.is_some() => self.model = entry.model,
            Kind::Fallback => {}
            Kind::LongWrite => self.counts.raise(Count::LongWrite, written),
            Kind::ShortWrite => self.counts.raise(Count::ShortWrite, written),
            _ => self.add(entry),
        }
    }

    /// Adds what an entry of a list counts.
    fn add(&mut self, entry: Entry) {
        let usage = entry.counts.usage(self.layout.caches);
        if usage.total == 0 {
            return;
        }
        let mut at = self.extra.iter().position(|extra| extra.model == entry.model);
        if at.is_none() && self.extra.len() < MAX_EXTRA_MODELS {
            at = Some(self.extra.len());
            self.extra.push(ModelUsage::new(entry.model));
        }
        self.is_broken |= at.is_none();
        if let Some(extra) = self.extra.get_mut(at.unwrap_or_default()) {
            extra.add(&usage, self.list);
        }
    }
}

// === impl Signs ===

impl Signs {
    /// Whether the document, once it is whole, has an empty list `choices` and an object `usage`.
    pub(super) fn are_of_usage(self) -> bool {
        self.has_choices && self.has_usage && !self.is_other
    }

    fn see(&mut self, at: Spot, value: Value<'_>) {
        match (at, value) {
            (Spot::ROOT, Value::OpenObject | Value::CloseObject)
            | (layout::CHOICES, Value::CloseArray)
            | (layout::OWN_USAGE, Value::CloseObject) => {}
            (layout::CHOICES, Value::OpenArray) if !self.has_choices => self.has_choices = true,
            (layout::OWN_USAGE, Value::OpenObject) => self.has_usage = true,
            _ => self.is_other = true,
        }
    }
}

impl Reader for Reading {
    fn names(&self, at: Spot) -> &'static Names {
        layout::names(self.layout, at)
    }

    fn items(&self, at: Spot) -> Spot {
        at
    }

    fn value(&mut self, at: Spot, value: Value<'_>, _: Span) -> Result<(), Unreadable> {
        if matches!(at, Spot::ROOT | layout::CHOICES | layout::OWN_USAGE) {
            self.signs.see(at, value);
        }
        match (at, value) {
            (Spot::ROOT, Value::OpenObject) => self.begin(),
            (Spot::ROOT, Value::CloseObject) => self.end(),
            (Spot::ROOT, Value::OpenArray) => self.is_list = true,
            (layout::ENTRY, Value::OpenArray) => self.list = self.list.wrapping_add(1),
            (layout::ENTRY, Value::OpenObject) => {
                self.entry.get_or_insert_default();
            }
            (layout::ENTRY, Value::CloseObject) => self.end_entry(),
            (_, Value::Bool(true) | Value::OpenObject) => self.presence(at),
            (_, Value::Text(text)) => self.text(at, text),
            (_, Value::Number(text)) => {
                if let Some((count, number)) = layout::count(at).zip(whole_number(text)) {
                    self.raise(count, number);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
