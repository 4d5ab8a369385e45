//! What has been found in a request so far.

use crate::body::Format;
use crate::body::json::{Span, Spot, Text, Unreadable, Value};

use super::facts::RequestFacts;
use super::models::{NameList, is_unclear_url, model_name};
use super::options::Options;
use super::output::Output;
use super::places::{MAX_SPOTS, MODEL, Meaning, Place, place};
use super::target::Target;
use crate::body::cut::cut_last;

/// What has been found.
#[derive(Debug)]
pub(super) struct Findings {
    target: Target,
    models: NameList,
    /// Whether the first of them is the one that is asked for.
    has_main: bool,
    servers: NameList,
    is_open_ended: bool,
    stream: Option<bool>,
    is_deferred: bool,
    output: Output,
    options: Options,
    tool: ToolKind,
    /// The input that is not text: tokens, each as a number.
    tokens: u64,
    /// The spots that had a value in the objects that are open.
    seen: Seen,
}

/// Which spots had a value.
#[derive(Debug)]
struct Seen([bool; MAX_SPOTS]);

/// What kind of tool is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ToolKind {
    /// One that neither runs a model nor calls an MCP server.
    Plain,
    /// One that runs a model.
    Model,
    /// One that calls an MCP server.
    Server,
}

/// Tools of routers that run no model.
const RUN_NO_MODEL: [&[u8]; 3] = [b"web_search", b"web_fetch", b"datetime"];

// === impl Findings ===

impl Findings {
    /// What a target says.
    pub(super) fn new(target: Target) -> Result<Self, Unreadable> {
        let mut models = NameList::default();
        target.model.iter().try_for_each(|name| models.add(name))?;
        Ok(Self {
            is_open_ended: target.is_open_ended,
            has_main: target.model.is_some(),
            is_deferred: matches!(target.format, Format::OpenAiBatches | Format::AnthropicBatches),
            output: Output::new(target.format),
            target,
            models,
            servers: NameList::default(),
            stream: None,
            options: Options::new(),
            tool: ToolKind::Plain,
            tokens: 0,
            seen: Seen([false; MAX_SPOTS]),
        })
    }

    pub(super) fn format(&self) -> Format {
        self.target.format
    }

    /// The document begins.
    pub(super) fn begin(&mut self, document: Span) {
        self.options.begin(document);
        if self.target.model.is_some() {
            self.seen.set(MODEL, true);
        }
    }

    /// Adds a value.
    pub(super) fn value(
        &mut self,
        at: Spot,
        value: Value<'_>,
        span: Span,
    ) -> Result<(), Unreadable> {
        let place = place(at);
        if !matches!(value, Value::Null) {
            self.seen.set(at, true);
        }
        match value {
            Value::Null => self.null(place.meaning, span),
            Value::Bool(value) => return self.boolean(place.meaning, value, span),
            Value::Number(text) => return self.number(place.meaning, text),
            Value::Text(text) if at == MODEL => return self.add_model(&text, true),
            Value::Text(text) => return self.text(place.meaning, &text),
            Value::OpenObject => return self.open(place, span),
            Value::CloseObject => return self.close(place),
            Value::OpenArray => return self.array(place.meaning),
            Value::CloseArray => {}
        }
        Ok(())
    }

    /// As if the member were absent.
    fn null(&mut self, meaning: Meaning, span: Span) {
        match meaning {
            Meaning::StreamOptions => self.options.null(span),
            Meaning::IncludeUsage => self.options.set(false, span),
            Meaning::OtherOption => self.options.other(),
            _ => {}
        }
    }

    fn boolean(&mut self, meaning: Meaning, value: bool, span: Span) -> Result<(), Unreadable> {
        match meaning {
            Meaning::Stream => self.stream = Some(value),
            Meaning::Deferred => self.is_deferred |= value,
            Meaning::IncludeUsage => self.options.set(value, span),
            Meaning::UsageShown => self.options.show(value),
            Meaning::Choice | Meaning::Open => self.is_open_ended |= value,
            _ => return self.any(meaning),
        }
        Ok(())
    }

    fn number(&mut self, meaning: Meaning, text: &[u8]) -> Result<(), Unreadable> {
        match meaning {
            Meaning::Bound => self.output.add_bound(text),
            Meaning::Count => self.output.add_count(text),
            Meaning::PromptItem | Meaning::Tokens => {
                self.tokens += 1;
                Ok(())
            }
            _ => self.any(meaning),
        }
    }

    fn text(&mut self, meaning: Meaning, text: &Text<'_>) -> Result<(), Unreadable> {
        match meaning {
            Meaning::Model | Meaning::ModelOrChoice => return self.add_model(text, false),
            Meaning::ServerName => return self.add_server(text.exact()?),
            Meaning::Bound => return self.output.add_bound_in_text(text.exact()?),
            Meaning::ToolType => self.tool = ToolKind::of(text.bytes),
            Meaning::InnerToolType => match ToolKind::of(text.bytes) {
                ToolKind::Plain => {}
                ToolKind::Model => self.is_open_ended = true,
                ToolKind::Server => return self.servers.add(""),
            },
            Meaning::Choice | Meaning::Models => self.is_open_ended = true,
            Meaning::PromptItem => self.output.add_prompt(),
            Meaning::Prompts | Meaning::Tool => {}
            _ => return self.any(meaning),
        }
        Ok(())
    }

    fn array(&mut self, meaning: Meaning) -> Result<(), Unreadable> {
        match meaning {
            Meaning::List | Meaning::Models | Meaning::Prompts => Ok(()),
            Meaning::PromptItem => {
                self.output.add_prompt();
                Ok(())
            }
            _ => self.any(meaning),
        }
    }

    fn open(&mut self, place: &Place, span: Span) -> Result<(), Unreadable> {
        // What other objects of the kind had does not count for this one.
        place.names.named.iter().for_each(|(_, member)| self.seen.set(*member, false));
        match place.meaning {
            Meaning::Object
            | Meaning::Choice
            | Meaning::ModelOrChoice
            | Meaning::Message
            | Meaning::Server => {}
            Meaning::Tool => self.tool = ToolKind::Plain,
            Meaning::StreamOptions => self.options.open(span),
            meaning => return self.any(meaning),
        }
        Ok(())
    }

    /// What may be of any type.
    fn any(&mut self, meaning: Meaning) -> Result<(), Unreadable> {
        match meaning {
            Meaning::Open => self.is_open_ended = true,
            Meaning::OtherOption => self.options.other(),
            Meaning::Nothing | Meaning::Tokens | Meaning::UsageShown => {}
            _ => return Err(Unreadable::WrongType),
        }
        Ok(())
    }

    fn close(&mut self, place: &Place) -> Result<(), Unreadable> {
        let has_model = self.has(place, Meaning::Model);
        let has_server = self.has(place, Meaning::ServerName) || self.has(place, Meaning::Server);
        let (needs_model, needs_server) = match place.meaning {
            Meaning::Choice | Meaning::ModelOrChoice | Meaning::Message => (true, false),
            Meaning::Server => (false, true),
            Meaning::Tool => (self.tool == ToolKind::Model, self.tool == ToolKind::Server),
            _ => (false, false),
        };
        self.is_open_ended |= needs_model && !has_model;
        if place.meaning == Meaning::Message {
            self.output.end_message();
        }
        if needs_server && !has_server { self.servers.add("") } else { Ok(()) }
    }

    /// Whether a member with a meaning has a value.
    fn has(&self, object: &Place, meaning: Meaning) -> bool {
        let mut members = object.names.named.iter();
        members.any(|(_, spot)| self.seen.has(*spot) && place(*spot).meaning == meaning)
    }

    /// One that may be another for the provider counts as one that is not named, too.
    fn add_server(&mut self, name: &str) -> Result<(), Unreadable> {
        if is_unclear_url(name) {
            self.servers.add("")?;
        }
        self.servers.add(name)
    }

    /// `is_main`: it is the model of the request, or of one of a batch, and not one that may run besides.
    fn add_model(&mut self, text: &Text<'_>, is_main: bool) -> Result<(), Unreadable> {
        let name = model_name(text)?;
        // Gemini knows its models by both names.
        let short = name.strip_prefix("models/").filter(|_| self.format().is_gemini());
        let name = short.unwrap_or(name);
        let is_first = is_main && !self.has_main;
        self.has_main |= is_main;
        if is_first { self.models.add_first(name) } else { self.models.add(name) }
    }

    /// What the whole body asks for. `text_tokens`: an estimate of the tokens of all its texts.
    pub(super) fn into_facts(mut self, text_tokens: u64) -> Result<RequestFacts, Unreadable> {
        self.models.append(&self.target.query_models)?;
        let is_open_ended = self.is_open_ended || self.models.has_unclear();
        let format = self.target.format;
        let streams_by_default = matches!(format, Format::OllamaChat | Format::OllamaGenerate);
        let stream = self.target.streams || self.stream.unwrap_or(streams_by_default);
        let is_asked = matches!(format, Format::OpenAiChat | Format::OpenAiCompletions) && stream;
        Ok(RequestFacts {
            format,
            models: self.models.into_boxed(),
            open_ended: is_open_ended,
            stream,
            max_output: self.output.bound(),
            candidates: self.output.candidates(),
            hosted_mcp: self.servers.into_boxed(),
            deferred: self.is_deferred,
            input_tokens: text_tokens.saturating_add(self.tokens),
            inject: self.options.injection().filter(|_| is_asked),
            output: self.output,
        })
    }
}

// === impl ToolKind ===

impl ToolKind {
    /// Of the type of a tool. Those of routers have the name of the router before a colon, and may run models.
    fn of(name: &[u8]) -> Self {
        let (router, own) = cut_last(name, b':');
        if own == b"mcp" {
            Self::Server
        } else if own == b"image_generation"
            || own.starts_with(b"advisor")
            || !router.is_empty() && !RUN_NO_MODEL.contains(&own)
        {
            Self::Model
        } else {
            Self::Plain
        }
    }
}

// === impl Seen ===

impl Seen {
    fn set(&mut self, spot: Spot, is_seen: bool) {
        if let Some(seen) = self.0.get_mut(usize::from(spot.0)) {
            *seen = is_seen;
        }
    }

    fn has(&self, spot: Spot) -> bool {
        self.0.get(usize::from(spot.0)).is_some_and(|seen| *seen)
    }
}
