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
    pub(super) extra: Vec<Extra>,
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
    has_counts: bool,
    has_error: bool,
    entry: Option<Entry>,
}

/// Tokens that are not in the counts of the response itself.
#[derive(Clone, Debug)]
pub(super) struct Extra {
    /// The model that used them, if it is named.
    pub(super) model: Option<Box<str>>,
    /// The largest sum of the entries of a list.
    pub(super) usage: TokenUsage,
    /// The sum of the entries of the list that is being read.
    sum: TokenUsage,
}

/// One entry of a list of counts.
#[derive(Clone, Debug, Default)]
struct Entry {
    counts: Counts,
    model: Option<Box<str>>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// Not in the counts of the response itself.
    #[default]
    Extra,
    /// In the counts of the response itself.
    Part,
    /// The same, of the model that served instead of the one that was asked for.
    Fallback,
    /// What was written to a cache for an hour.
    LongWrite,
    /// What was written to a cache for less.
    ShortWrite,
}

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
            has_counts: false,
            has_error: false,
            entry: None,
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
        if let Some(number) = value.and_then(|value| whole_number(value.trim_ascii())) {
            self.counts.raise(count, number);
        }
    }

    /// Ends a document, whole or not. Returns whether it is whole.
    pub(super) fn end_document(&mut self) -> bool {
        self.entry = None;
        !std::mem::take(&mut self.is_open)
    }

    /// A document begins: its lists of entries repeat those before.
    fn begin(&mut self) {
        self.is_open = true;
        self.documents = self.documents.saturating_add(1);
        self.has_counts = false;
        self.has_error = false;
        self.begin_list();
    }

    fn end(&mut self) {
        self.is_open = false;
        // An error with counts, e.g. of a response that has failed late, reports all that there is.
        self.is_broken |= self.has_error && !self.has_counts;
    }

    fn begin_list(&mut self) {
        self.extra.iter_mut().for_each(|extra| extra.sum = TokenUsage::default());
    }

    fn raise(&mut self, count: Count, number: u64) {
        let counts = self.entry.as_mut().map_or(&mut self.counts, |entry| &mut entry.counts);
        counts.raise(count, number);
        self.has_counts = true;
    }

    fn text(&mut self, at: Spot, text: Text<'_>) {
        if at == layout::CONTENT {
            self.content_bytes = self.content_bytes.saturating_add(text.len);
            return;
        }
        let Some(text) = text.exact().ok().filter(|text| !text.is_empty()) else { return };
        self.presence(at);
        match (at, &mut self.entry) {
            (layout::MODEL, Some(entry)) => entry.model = Some(text.into()),
            (layout::MODEL, None) if self.model.is_none() => self.model = Some(text.into()),
            (layout::TIER, _) => set(&mut self.tier, text),
            (layout::SPEED, _) if text != "standard" => set(&mut self.speed, text),
            (layout::TYPE | layout::TTL, Some(entry)) => entry.kind = Kind::of(at, text),
            (layout::TYPE, None) => self.event(text),
            _ => {}
        }
    }

    /// The type of an event.
    fn event(&mut self, kind: &str) {
        match kind {
            "message_delta" => self.has_ended = true,
            "message_stop" | "response.completed" | "response.incomplete" | "response.failed" => {
                self.is_final = true;
            }
            "error" => self.has_error = true,
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
            Kind::Extra => self.add(entry.model, &entry.counts.usage(self.layout.caches)),
            Kind::Part => {}
            Kind::Fallback => self.model = entry.model.or(self.model.take()),
            Kind::LongWrite => self.counts.raise(Count::LongWrite, written),
            Kind::ShortWrite => self.counts.raise(Count::ShortWrite, written),
        }
    }

    /// Adds what an entry of a list counts.
    fn add(&mut self, model: Option<Box<str>>, usage: &TokenUsage) {
        if usage.total == 0 {
            return;
        }
        if !self.extra.iter().any(|extra| extra.model == model) {
            if self.extra.len() < MAX_EXTRA_MODELS {
                let none = TokenUsage::default();
                self.extra.push(Extra { model: model.clone(), usage: none, sum: none });
            } else {
                self.is_broken = true;
            }
        }
        let at = self.extra.iter().position(|extra| extra.model == model);
        let last = self.extra.len().saturating_sub(1);
        if let Some(extra) = self.extra.get_mut(at.unwrap_or(last)) {
            extra.sum = extra.sum.plus(usage);
            extra.usage = extra.usage.max(&extra.sum);
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
        match (at, value) {
            (Spot::ROOT, Value::OpenObject) => self.begin(),
            (Spot::ROOT, Value::CloseObject) => self.end(),
            (Spot::ROOT, Value::OpenArray) => self.is_list = true,
            (layout::ENTRY, Value::OpenArray) => self.begin_list(),
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

// === impl Extra ===

impl From<Extra> for ModelUsage {
    fn from(extra: Extra) -> Self {
        Self { model: extra.model, usage: extra.usage }
    }
}

// === impl Kind ===

impl Kind {
    /// What an entry is, by its type or by its time in a cache.
    fn of(at: Spot, text: &str) -> Self {
        match (at, text) {
            (layout::TTL, "1h") => Self::LongWrite,
            (layout::TTL, _) => Self::ShortWrite,
            (_, "message") => Self::Part,
            (_, "fallback_message") => Self::Fallback,
            _ => Self::Extra,
        }
    }
}

/// Replaces a text, without allocating if it is the same.
fn set(text: &mut Option<Box<str>>, new: &str) {
    if text.as_deref() != Some(new) {
        *text = Some(new.into());
    }
}
