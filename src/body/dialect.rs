//! The dialects of errors: what the client libraries of each provider parse.

use super::Format;

/// How a service words an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `{"error":{"message","type","code"}}`, which most clients parse, Anthropic's too.
    #[default]
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`.
    Anthropic,
    /// `{"error":{"code","message","status","details"}}` (Google's `google.rpc.Status`).
    Gemini,
    /// `{"message"}`, and the type in the header `x-amzn-errortype`.
    Bedrock,
    /// `{"message"}`.
    Cohere,
    /// `{"error"}`, a text.
    Ollama,
    /// `{"jsonrpc","id","error":{"code","message","data"}}`: MCP.
    JsonRpc,
}

impl Format {
    /// The dialect of its errors.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::AnthropicMessages | Self::AnthropicCountTokens | Self::AnthropicBatches => {
                Dialect::Anthropic
            }
            Self::GeminiGenerate | Self::GeminiCount | Self::GeminiEmbed => Dialect::Gemini,
            Self::BedrockConverse | Self::BedrockInvoke | Self::BedrockCount => Dialect::Bedrock,
            Self::CohereChat | Self::CohereEmbed | Self::CohereRerank => Dialect::Cohere,
            Self::OllamaChat | Self::OllamaGenerate => Dialect::Ollama,
            Self::OpenAiChat
            | Self::OpenAiCompletions
            | Self::OpenAiResponses
            | Self::OpenAiInputTokens
            | Self::OpenAiEmbeddings
            | Self::OpenAiImages
            | Self::OpenAiAudio
            | Self::OpenAiBatches
            | Self::MistralAgents
            | Self::MistralFim
            | Self::Other => Dialect::OpenAi,
        }
    }
}
