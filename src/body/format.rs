//! The wire formats of AI services.

/// Defines each format once: variant, stable name, description.
macro_rules! formats {
    ($($variant:ident $name:literal $description:literal,)*) => {
        /// A wire format: of the request to an AI service, and of the response to it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Format {
            $(#[doc = $description] $variant,)*
        }

        impl Format {
            /// Every format.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable name, in configurations, metrics and test vectors.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

formats! {
    OpenAiChat "openai.chat" "`POST …/chat/completions`, of OpenAI, Azure, Mistral, Groq and others.",
    OpenAiCompletions "openai.completions" "`POST …/completions`.",
    OpenAiResponses "openai.responses" "`POST …/responses`.",
    OpenAiInputTokens "openai.input_tokens" "`POST …/responses/input_tokens`, a count.",
    OpenAiEmbeddings "openai.embeddings" "`POST …/embeddings`.",
    OpenAiImages "openai.images" "`POST …/images/generations`.",
    OpenAiAudio "openai.audio" "`POST …/audio/…`.",
    OpenAiBatches "openai.batches" "`POST …/batches`: the models are named in a file.",
    AnthropicMessages "anthropic.messages" "`POST …/messages`, also at Vertex and Azure.",
    AnthropicCountTokens "anthropic.count_tokens" "`POST …/messages/count_tokens`, a count.",
    AnthropicBatches "anthropic.batches" "`POST …/messages/batches`.",
    GeminiGenerate "gemini.generate" "`POST …:generateContent` and `…:streamGenerateContent`, of Gemini and Vertex.",
    GeminiCount "gemini.count" "`POST …:countTokens`, a count.",
    GeminiEmbed "gemini.embed" "`POST …:embedContent` and `…:batchEmbedContents`.",
    BedrockConverse "bedrock.converse" "`POST /model/…/converse` and `…/converse-stream`.",
    BedrockInvoke "bedrock.invoke" "`POST /model/…/invoke` and `…/invoke-with-response-stream`.",
    BedrockCount "bedrock.count" "`POST /model/…/count-tokens`, a count.",
    MistralAgents "mistral.agents" "`POST /v1/agents/completions`: an agent chooses the model.",
    MistralFim "mistral.fim" "`POST /v1/fim/completions`.",
    CohereChat "cohere.chat" "`POST /v2/chat`.",
    CohereEmbed "cohere.embed" "`POST /v2/embed`.",
    CohereRerank "cohere.rerank" "`POST /v2/rerank`.",
    OllamaChat "ollama.chat" "`POST /api/chat`.",
    OllamaGenerate "ollama.generate" "`POST /api/generate`.",
    Other "other" "None of them.",
}

impl Format {
    /// Whether the response generates tokens. The others count, or turn input into something else.
    pub fn generates(self) -> bool {
        !matches!(
            self,
            Self::OpenAiInputTokens
                | Self::OpenAiEmbeddings
                | Self::AnthropicCountTokens
                | Self::GeminiCount
                | Self::GeminiEmbed
                | Self::BedrockCount
                | Self::CohereEmbed
                | Self::CohereRerank
        )
    }

    /// Whether it is one of Anthropic's.
    pub fn is_anthropic(self) -> bool {
        matches!(
            self,
            Self::AnthropicMessages | Self::AnthropicCountTokens | Self::AnthropicBatches
        )
    }

    /// Whether it is one of Gemini's.
    pub fn is_gemini(self) -> bool {
        matches!(self, Self::GeminiGenerate | Self::GeminiCount | Self::GeminiEmbed)
    }
}
