//! The places in requests that decide something, of all formats: what a request says there, and what its members mean.
//!
//! A member that is not named here decides nothing. An object may only have one of the names that lead to the same place.

use crate::body::Format;
use crate::body::json::{Names, Spot};

/// What a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing, whatever its type.
    Nothing,
    /// Nothing itself: an object whose members may say something.
    Object,
    /// Nothing itself: a list whose items may say something.
    List,
    /// An object that leaves the choice of a model to the server, unless it names one.
    Choice,
    /// Such an object, which may be one of the requests of a batch.
    Message,
    /// An object that names an MCP server which the provider calls.
    Server,
    /// A tool, which may be such a choice or such a server.
    Tool,
    /// What kind of tool it is.
    ToolType,
    /// What kind of tool it is, in another tool.
    InnerToolType,
    /// A list of models; a text leaves the choice to the server.
    Models,
    /// A model, or an object that is a [`Meaning::Choice`].
    ModelOrChoice,
    /// A model.
    Model,
    /// The URL or the id of an MCP server.
    ServerName,
    /// The most output tokens for each candidate.
    Bound,
    /// How many candidates are generated.
    Count,
    /// A prompt, or a list of prompts or of tokens.
    Prompts,
    /// A prompt in a list, or a token.
    PromptItem,
    /// Any input; its numbers are tokens.
    Tokens,
    /// Whether a stream is asked for.
    Stream,
    /// The options of the stream.
    StreamOptions,
    /// Whether a stream reports its usage.
    IncludeUsage,
    /// Another option of the stream.
    OtherOption,
    /// Whether the client gets the usage in any case.
    UsageShown,
    /// Whether the response comes before the result.
    Deferred,
    /// Whatever it is, the server chooses models because of it.
    Open,
}

/// A place in requests.
pub(super) struct Place {
    /// What a value says there.
    pub(super) meaning: Meaning,
    /// The places of its members, if it is an object.
    pub(super) names: Names,
    /// The place of its items, if it is a list.
    pub(super) items: Spot,
}

/// Defines each place once: name, meaning, items and members. Each gets a spot of its own.
macro_rules! places {
    ($(
        $(#[$doc:meta])*
        $name:ident: $meaning:ident
            $(, items $items:ident)?
            $(, { $($member:literal $spot:ident,)* })? $(, others $others:ident)?;
    )*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "they number constants")]
        #[repr(u8)]
        enum Number { $($name,)* }

        const IGNORED: Spot = Spot::IGNORED;
        $($(#[$doc])* pub(super) const $name: Spot = Spot(Number::$name as u8 + FIRST);)*

        /// All places, from [`FIRST`] on.
        static PLACES: &[Place] = &[
            $(Place {
                meaning: Meaning::$meaning,
                names: Names::new(&[$($(($member, $spot),)*)?], places!(@or IGNORED $($others)?)),
                items: places!(@or IGNORED $($items)?),
            },)*
        ];
    };
    (@or $default:ident) => { $default };
    (@or $default:ident $given:ident) => { $given };
}

/// The first spot that is not one of the scanner's own.
const FIRST: u8 = Spot::ROOT.0 + 1;

/// Spots are below it.
pub(super) const MAX_SPOTS: usize = 128;

/// The place of nothing.
const NOWHERE: Place =
    Place { meaning: Meaning::Nothing, names: Names::new(&[], IGNORED), items: IGNORED };

places! {
    /// A request for text: OpenAI's chat and completions, Mistral, Cohere.
    TEXT: Choice, {
        "model" MODEL, "models" MODELS, "fallbacks" FALLBACKS, "moderation" MODERATION,
        "max_tokens" BOUND, "max_completion_tokens" OTHER_BOUND, "n" COUNT, "best_of" OTHER_COUNT,
        "prompt" PROMPTS, "stream" STREAM, "stream_options" STREAM_OPTIONS, "usage" USAGE,
        "tools" TOOLS,
        "mcp_servers" SERVERS, "preset" OPEN, "route" OTHER_OPEN,
        "context_window_fallbacks" CONTEXT_FALLBACKS, "content_policy_fallbacks" POLICY_FALLBACKS,
        "compound_custom" COMPOUND, "data_sources" DATA_SOURCES, "plugins" PLUGINS,
        "providerOptions" PROVIDER_OPTIONS, "draft_model" DRAFT_MODEL, "deferred" BACKGROUND,
    };
    /// The data of Azure's chat, and the model that looks it up.
    DATA_SOURCES: List, items DATA_SOURCE;
    DATA_SOURCE: Object, { "parameters" DATA_PARAMETERS, };
    DATA_PARAMETERS: Object, { "embedding_dependency" EMBEDDING, };
    EMBEDDING: Choice, { "deployment_name" EMBEDDING_MODEL, "model_id" EMBEDDING_MODEL, };
    EMBEDDING_MODEL: Model;
    /// OpenAI's responses.
    RESPONSES: Choice, {
        "model" MODEL, "models" MODELS, "fallbacks" FALLBACKS, "moderation" MODERATION,
        "input" INPUT, "max_output_tokens" BOUND, "stream" STREAM, "tools" TOOLS,
        "mcp_servers" SERVERS,
        "background" BACKGROUND, "prompt" STORED_PROMPT, "preset" OPEN, "route" OTHER_OPEN,
        "context_window_fallbacks" CONTEXT_FALLBACKS, "content_policy_fallbacks" POLICY_FALLBACKS,
        "plugins" PLUGINS, "providerOptions" PROVIDER_OPTIONS,
    };
    /// A text, or items, which may bring tools of their own: `additional_tools`, `tool_search_output`.
    INPUT: Tokens, items INPUT, { "tools" TOOLS, };
    /// A request for something else than text.
    OTHER_THAN_TEXT: Choice, {
        "model" MODEL, "models" MODELS, "fallbacks" FALLBACKS, "input" TOKENS, "n" COUNT,
        "stream" STREAM, "svg" SVG,
    };
    /// Anthropic's messages.
    MESSAGES: Message, {
        "model" MODEL, "models" MODELS, "fallbacks" FALLBACKS, "max_tokens" BOUND, "stream" STREAM,
        "tools" TOOLS, "mcp_servers" SERVERS, "plugins" PLUGINS, "preset" OPEN, "route" OTHER_OPEN,
        "messages" BLOCKS,
    };
    /// Messages and the blocks of their content, which may bring tools of their own: `tool_addition`.
    BLOCKS: Tokens, items BLOCKS, { "content" BLOCKS, "tool" ADDED_TOOL, };
    ADDED_TOOL: Tokens, { "definition" TOOL, };
    /// A batch of Anthropic's messages.
    BATCH: Object, { "requests" REQUESTS, };
    REQUESTS: List, items REQUEST;
    REQUEST: Object, { "params" MESSAGES, };
    /// Gemini. Every member has two spellings.
    GEMINI: Object, {
        "model" MODEL, "fallbacks" FALLBACKS, "tools" TOOLS, "requests" GEMINI_REQUESTS,
        "generateContentRequest" GEMINI_REQUEST, "generate_content_request" GEMINI_REQUEST,
        "generationConfig" GENERATION, "generation_config" GENERATION,
    };
    GEMINI_REQUESTS: List, items GEMINI_REQUEST;
    GEMINI_REQUEST: Object, {
        "model" MODEL, "tools" TOOLS, "generationConfig" GENERATION,
        "generation_config" GENERATION,
    };
    GENERATION: Object, {
        "maxOutputTokens" BOUND, "max_output_tokens" BOUND, "candidateCount" COUNT,
        "candidate_count" COUNT, "routingConfig" ROUTING, "routing_config" ROUTING,
        "modelSelectionConfig" OPEN, "model_selection_config" OPEN, "modelConfig" OTHER_OPEN,
        "model_config" OTHER_OPEN,
    };
    ROUTING: Object, {
        "manualMode" MANUAL_ROUTING, "manual_mode" MANUAL_ROUTING, "autoMode" OPEN,
        "auto_mode" OPEN,
    };
    MANUAL_ROUTING: Choice, {
        "modelName" ROUTED_MODEL, "model_name" ROUTED_MODEL,
    };
    /// Bedrock's converse.
    CONVERSE: Object, {
        "inferenceConfig" INFERENCE, "additionalModelRequestFields" INVOKE,
    };
    INFERENCE: Object, { "maxTokens" BOUND, "max_new_tokens" OTHER_BOUND, };
    /// Bedrock's invoke: the body of any family of models.
    INVOKE: Object, {
        "model" MODEL, "fallbacks" FALLBACKS, "tools" TOOLS, "mcp_servers" SERVERS,
        "max_tokens" INVOKE_BOUND, "max_tokens_to_sample" INVOKE_BOUND, "max_gen_len" INVOKE_BOUND,
        "max_completion_tokens" OTHER_BOUND, "maxTokens" OTHER_INVOKE_BOUND,
        "inferenceConfig" INFERENCE, "textGenerationConfig" TITAN, "n" COUNT,
        "num_generations" COUNT, "numResults" COUNT, "messages" BLOCKS,
    };
    TITAN: Object, { "maxTokenCount" BOUND, };
    /// Ollama.
    OLLAMA: Choice, {
        "model" MODEL, "fallbacks" FALLBACKS, "stream" STREAM, "options" OLLAMA_OPTIONS,
    };
    OLLAMA_OPTIONS: Object, { "num_predict" BOUND, };
    /// A request whose body decides nothing.
    NONE_OF_THESE: Object;

    MODEL: Model;
    MODELS: Models, items FALLBACK;
    FALLBACKS: Models, items FALLBACK;
    FALLBACK: ModelOrChoice, { "model" FALLBACK_MODEL, "max_tokens" BOUND, };
    FALLBACK_MODEL: Model;
    MODERATION: Choice, { "model" MODERATION_MODEL, };
    MODERATION_MODEL: Model;
    ROUTED_MODEL: Model;
    BOUND: Bound;
    OTHER_BOUND: Bound;
    INVOKE_BOUND: Bound;
    OTHER_INVOKE_BOUND: Bound;
    COUNT: Count;
    OTHER_COUNT: Count;
    PROMPTS: Prompts, items PROMPT;
    PROMPT: PromptItem, items TOKENS;
    TOKENS: Tokens, items TOKENS;
    CONTEXT_FALLBACKS: Open;
    POLICY_FALLBACKS: Open;
    STORED_PROMPT: Open;
    COMPOUND: Open;
    /// Plugins of routers, e.g. one that asks several models.
    PLUGINS: Open;
    /// Options of Vercel's router, e.g. further models.
    PROVIDER_OPTIONS: Open;
    /// The model that drafts what the other one checks.
    DRAFT_MODEL: Model;
    OPEN: Open;
    OTHER_OPEN: Open;
    STREAM: Stream;
    STREAM_OPTIONS: StreamOptions, { "include_usage" INCLUDE_USAGE, }, others OTHER_OPTION;
    INCLUDE_USAGE: IncludeUsage;
    OTHER_OPTION: OtherOption;
    /// OpenRouter's way to ask for the usage.
    USAGE: Nothing, { "include" USAGE_SHOWN, };
    USAGE_SHOWN: UsageShown;
    BACKGROUND: Deferred;
    TOOLS: List, items TOOL;
    /// A tool of any format.
    TOOL: Tool, {
        "type" TOOL_TYPE, "model" TOOL_MODEL, "svg" SVG, "server_url" TOOL_SERVER,
        "connector_id" TOOL_CONNECTOR, "tunnel_id" TOOL_TUNNEL, "mcpServers" SERVERS,
        "mcp_servers" SERVERS, "tools" INNER_TOOLS,
        "retrieval" RETRIEVAL,
    };
    /// Vertex's search in a corpus, and the model that ranks what it finds.
    RETRIEVAL: Object, { "vertexRagStore" RAG_STORE, "vertex_rag_store" RAG_STORE, };
    RAG_STORE: Object, { "ragRetrievalConfig" RAG, "rag_retrieval_config" RAG, };
    RAG: Object, { "ranking" RANKING, };
    RANKING: Object, {
        "llmRanker" RANKER, "llm_ranker" RANKER, "rankService" RANKER, "rank_service" RANKER,
    };
    RANKER: Choice, { "modelName" RANKER_MODEL, "model_name" RANKER_MODEL, };
    RANKER_MODEL: Model;
    /// The tools of a tool: one that runs a model or calls an MCP server is not expected there, and counts as one that
    /// names neither.
    INNER_TOOLS: List, items INNER_TOOL;
    INNER_TOOL: Object, {
        "type" INNER_TOOL_TYPE, "model" INNER_TOOL_MODEL, "server_url" INNER_TOOL_SERVER,
        "tools" INNER_TOOLS,
    };
    INNER_TOOL_TYPE: InnerToolType;
    INNER_TOOL_MODEL: Model;
    INNER_TOOL_SERVER: ServerName;
    TOOL_TYPE: ToolType;
    TOOL_MODEL: Model;
    SVG: Choice, { "model" SVG_MODEL, };
    SVG_MODEL: Model;
    TOOL_SERVER: ServerName;
    TOOL_CONNECTOR: ServerName;
    TOOL_TUNNEL: ServerName;
    SERVERS: List, items SERVER;
    SERVER: Server, {
        "url" SERVER_URL, "streamableHttpTransport" TRANSPORT,
        "streamable_http_transport" TRANSPORT,
    };
    SERVER_URL: ServerName;
    TRANSPORT: Server, { "url" TRANSPORT_URL, };
    TRANSPORT_URL: ServerName;
}

/// The place of a spot.
pub(super) fn place(at: Spot) -> &'static Place {
    usize::from(at.0).checked_sub(FIRST.into()).and_then(|at| PLACES.get(at)).unwrap_or(&NOWHERE)
}

/// The place of a document of a format.
pub(super) fn document(format: Format) -> Spot {
    match format {
        Format::OpenAiChat
        | Format::OpenAiCompletions
        | Format::MistralAgents
        | Format::MistralFim
        | Format::CohereChat => TEXT,
        Format::OpenAiResponses | Format::OpenAiInputTokens => RESPONSES,
        Format::OpenAiEmbeddings
        | Format::OpenAiImages
        | Format::OpenAiAudio
        | Format::OpenAiBatches
        | Format::CohereEmbed
        | Format::CohereRerank => OTHER_THAN_TEXT,
        Format::AnthropicMessages | Format::AnthropicCountTokens => MESSAGES,
        Format::AnthropicBatches => BATCH,
        Format::GeminiGenerate | Format::GeminiCount | Format::GeminiEmbed => GEMINI,
        Format::BedrockConverse => CONVERSE,
        Format::BedrockInvoke => INVOKE,
        Format::OllamaChat | Format::OllamaGenerate => OLLAMA,
        Format::BedrockCount | Format::Other => NONE_OF_THESE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_spot_that_can_be_seen() {
        assert!(PLACES.len() + usize::from(FIRST) <= MAX_SPOTS, "{}", PLACES.len());
        assert_eq!(place(TRANSPORT_URL).meaning, Meaning::ServerName);
        assert_eq!(place(TEXT).meaning, Meaning::Choice);
        assert_eq!(place(Spot(128)).meaning, Meaning::Nothing);
    }
}
