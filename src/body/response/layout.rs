//! Where the responses of each family of formats say what is read of them.
//!
//! What a caller may write into a response, e.g. `metadata` of OpenAI, is in no table: it could name another model.

use super::counts::{Caches, Count};
use crate::body::Format;
use crate::body::json::{Names, Spot};

/// What is read of the responses of a family of formats.
#[derive(Debug)]
pub(super) struct Layout {
    /// The members of a document.
    pub(super) root: &'static Names,
    /// The members of the object inside of a document that [`HOLDER`] stands for.
    pub(super) holder: &'static Names,
    /// Whether the counts of the input contain the caches.
    pub(super) caches: Caches,
    /// Whether a stream is complete only after [`END`], because it reports counts earlier.
    pub(super) must_end: bool,
    /// Whether each line is a document, and a prompt that was in a cache is not counted: Ollama.
    pub(super) is_lines: bool,
}

/// An object that has what is otherwise in the document itself.
pub(super) const HOLDER: Spot = Spot(2);
/// An object with counts, and objects of its details.
pub(super) const USAGE: Spot = Spot(3);
/// As `USAGE`, at the end of a stream.
pub(super) const FINAL_USAGE: Spot = Spot(4);
/// An object with counts that are not in the others, or an array of them.
pub(super) const ENTRY: Spot = Spot(5);
/// The time for which the input that an `ENTRY` counts was written to a cache.
pub(super) const TTL: Spot = Spot(6);
/// The model that served.
pub(super) const MODEL: Spot = Spot(7);
/// The service tier that served, or an object with it.
pub(super) const TIER: Spot = Spot(8);
/// The speed that served.
pub(super) const SPEED: Spot = Spot(9);
/// The type of an event, or of an `ENTRY`.
pub(super) const TYPE: Spot = Spot(10);
/// An error, if it is not null.
pub(super) const ERROR: Spot = Spot(11);
/// The end of a stream, if it is not null or false.
pub(super) const END: Spot = Spot(12);
/// What was generated.
pub(super) const CONTENT: Spot = Spot(13);
/// Objects with what was generated, and with the reason why it ends or why there is none.
pub(super) const CANDIDATES: Spot = Spot(14);
/// A list of what was generated, in the document itself.
pub(super) const CHOICES: Spot = Spot(15);
/// As `USAGE`, in the document itself.
pub(super) const OWN_USAGE: Spot = Spot(16);

/// The spot of the first count.
const FIRST_COUNT: u8 = 17;

/// The members of the object at a spot.
pub(super) fn names(layout: &Layout, at: Spot) -> &'static Names {
    match at {
        Spot::ROOT => layout.root,
        HOLDER => layout.holder,
        USAGE | OWN_USAGE | FINAL_USAGE | ENTRY => &USAGE_NAMES,
        CONTENT | CHOICES => &CONTENT_NAMES,
        CANDIDATES => &CANDIDATE_NAMES,
        TIER => &TIER_NAMES,
        _ => &NO_NAMES,
    }
}

/// The count at a spot.
pub(super) fn count(at: Spot) -> Option<Count> {
    Count::ALL.get(usize::from(at.0.checked_sub(FIRST_COUNT)?)).copied()
}

/// The layout of a format.
pub(super) fn layout(format: Format) -> &'static Layout {
    match format {
        Format::OpenAiChat
        | Format::OpenAiCompletions
        | Format::OpenAiResponses
        | Format::OpenAiEmbeddings
        | Format::OpenAiImages
        | Format::OpenAiAudio
        | Format::OpenAiBatches
        | Format::MistralAgents
        | Format::MistralFim => &OPENAI,
        Format::AnthropicMessages | Format::AnthropicBatches | Format::BedrockInvoke => &ANTHROPIC,
        Format::BedrockConverse => &CONVERSE,
        Format::GeminiGenerate | Format::GeminiEmbed => &GEMINI,
        Format::CohereChat | Format::CohereEmbed | Format::CohereRerank => &COHERE,
        Format::OllamaChat | Format::OllamaGenerate => &OLLAMA,
        Format::OpenAiInputTokens
        | Format::AnthropicCountTokens
        | Format::GeminiCount
        | Format::BedrockCount
        | Format::Other => &NOTHING,
    }
}

const fn spot(count: Count) -> Spot {
    Spot(FIRST_COUNT + count as u8)
}

const INPUT: Spot = spot(Count::Input);
const CACHED: Spot = spot(Count::Cached);
const WRITE: Spot = spot(Count::Write);
const OUTPUT: Spot = spot(Count::Output);
const TOTAL: Spot = spot(Count::Total);

static NO_NAMES: Names = Names::new(&[], Spot::IGNORED);

/// The counts of all families: no member of one means another thing in another.
static USAGE_NAMES: Names = Names::new(
    &[
        ("prompt_tokens", INPUT),
        ("completion_tokens", OUTPUT),
        ("total_tokens", TOTAL),
        ("input_tokens", INPUT),
        ("output_tokens", OUTPUT),
        ("cached_tokens", CACHED),
        ("cache_write_tokens", WRITE),
        ("reasoning_tokens", spot(Count::Reasoning)),
        ("prompt_tokens_details", USAGE),
        ("completion_tokens_details", USAGE),
        ("input_tokens_details", USAGE),
        ("output_tokens_details", USAGE),
        ("image_gen", ENTRY),
        // Anthropic.
        ("cache_read_input_tokens", CACHED),
        ("cache_creation_input_tokens", WRITE),
        ("cache_creation", USAGE),
        ("ephemeral_5m_input_tokens", spot(Count::ShortWrite)),
        ("ephemeral_1h_input_tokens", spot(Count::LongWrite)),
        ("thinking_tokens", spot(Count::Reasoning)),
        ("iterations", ENTRY),
        ("type", TYPE),
        ("model", MODEL),
        ("service_tier", TIER),
        ("speed", SPEED),
        // Bedrock.
        ("inputTokens", INPUT),
        ("outputTokens", OUTPUT),
        ("totalTokens", TOTAL),
        ("cacheReadInputTokens", CACHED),
        ("cacheWriteInputTokens", WRITE),
        ("cacheDetails", ENTRY),
        ("ttl", TTL),
        ("inputTokenCount", INPUT),
        ("outputTokenCount", OUTPUT),
        // Gemini.
        ("promptTokenCount", INPUT),
        ("toolUsePromptTokenCount", spot(Count::ToolInput)),
        ("cachedContentTokenCount", CACHED),
        ("candidatesTokenCount", OUTPUT),
        ("thoughtsTokenCount", spot(Count::Thoughts)),
        ("totalTokenCount", TOTAL),
        ("trafficType", TIER),
        ("serviceTier", TIER),
        // Cohere.
        ("billed_units", USAGE),
        ("tokens", USAGE),
    ],
    Spot::IGNORED,
);

/// Texts are what was generated, except for those that say what kind of text it is, and files.
static CONTENT_NAMES: Names = Names::new(
    &[
        ("type", Spot::IGNORED),
        ("role", Spot::IGNORED),
        ("id", Spot::IGNORED),
        ("data", Spot::IGNORED),
    ],
    CONTENT,
);

static CANDIDATE_NAMES: Names =
    Names::new(&[("content", CONTENT), ("finishReason", END), ("blockReason", END)], Spot::IGNORED);

/// Bedrock's service tier is an object.
static TIER_NAMES: Names = Names::new(&[("type", TIER)], Spot::IGNORED);

/// A layout of which nothing is read.
static NOTHING: Layout = Layout {
    root: &NO_NAMES,
    holder: &NO_NAMES,
    caches: Caches::Inside,
    must_end: false,
    is_lines: false,
};

static OPENAI: Layout = Layout {
    root: &Names::new(
        &[
            ("usage", OWN_USAGE),
            ("model", MODEL),
            ("choices", CHOICES),
            ("delta", CONTENT),
            ("output", CONTENT),
            ("response", HOLDER),
            ("x_groq", HOLDER),
            ("service_tier", TIER),
            ("type", TYPE),
            ("error", ERROR),
            ("tool_usage", USAGE),
            ("svg_usage", ENTRY),
        ],
        Spot::IGNORED,
    ),
    holder: &Names::new(
        &[("usage", USAGE), ("model", MODEL), ("service_tier", TIER), ("tool_usage", USAGE)],
        Spot::IGNORED,
    ),
    caches: Caches::Inside,
    must_end: false,
    is_lines: false,
};

const APART: Layout = Layout {
    root: &Names::new(
        &[
            ("usage", USAGE),
            ("model", MODEL),
            ("message", HOLDER),
            ("metadata", HOLDER),
            ("type", TYPE),
            ("error", ERROR),
            ("delta", CONTENT),
            ("content", CONTENT),
            ("content_block", CONTENT),
            ("output", CONTENT),
            ("amazon-bedrock-invocationMetrics", FINAL_USAGE),
            ("metrics", FINAL_USAGE),
            ("serviceTier", TIER),
        ],
        Spot::IGNORED,
    ),
    holder: &Names::new(&[("usage", USAGE), ("model", MODEL)], Spot::IGNORED),
    caches: Caches::Apart,
    must_end: false,
    is_lines: false,
};

/// Anthropic, and what Bedrock returns as it comes from a model.
static ANTHROPIC: Layout = Layout { must_end: true, ..APART };

static CONVERSE: Layout = APART;

static GEMINI: Layout = Layout {
    root: &Names::new(
        &[
            ("usageMetadata", USAGE),
            ("modelVersion", MODEL),
            ("candidates", CANDIDATES),
            ("promptFeedback", CANDIDATES),
            ("error", ERROR),
        ],
        Spot::IGNORED,
    ),
    holder: &NO_NAMES,
    caches: Caches::Inside,
    must_end: true,
    is_lines: false,
};

static COHERE: Layout = Layout {
    root: &Names::new(
        &[
            ("usage", USAGE),
            ("meta", USAGE),
            ("delta", HOLDER),
            ("message", CONTENT),
            ("error", ERROR),
        ],
        Spot::IGNORED,
    ),
    holder: &Names::new(&[("usage", USAGE), ("message", CONTENT), ("error", ERROR)], Spot::IGNORED),
    caches: Caches::Inside,
    must_end: false,
    is_lines: false,
};

static OLLAMA: Layout = Layout {
    root: &Names::new(
        &[
            ("model", MODEL),
            ("message", CONTENT),
            ("response", CONTENT),
            ("prompt_eval_count", INPUT),
            ("eval_count", OUTPUT),
            ("done", END),
            ("error", ERROR),
        ],
        Spot::IGNORED,
    ),
    holder: &NO_NAMES,
    caches: Caches::Inside,
    must_end: true,
    is_lines: true,
};
