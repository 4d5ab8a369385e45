//! What the method, the path and the query of a request say about its body.

use crate::body::Format;

use super::models::{MAX_MODELS, MAX_NAME_BYTES};

/// What the request line says: the format of the body, the models in path and query, and whether the path asks for a
/// stream. A path that is none of those known is [`Format::Other`], and so is every method but POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The format.
    pub format: Format,
    /// The model that the path names.
    pub model: Option<Box<str>>,
    /// The models that the query names. Some servers prefer them to those of the body.
    pub(super) query_models: Vec<Box<str>>,
    /// Whether the path asks for a stream.
    pub(super) streams: bool,
    /// Whether the request may make models run that nothing names, whatever its body says.
    pub(super) is_open_ended: bool,
}

/// Servers could read the model in a path or query differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousTarget(());

/// The ends of paths, and the formats of their bodies. The first one that fits counts.
const SUFFIXES: [(&str, Format); 22] = [
    ("/chat/completions", Format::OpenAiChat),
    ("/agents/completions", Format::MistralAgents),
    ("/fim/completions", Format::MistralFim),
    ("/completions", Format::OpenAiCompletions),
    ("/responses", Format::OpenAiResponses),
    ("/responses/compact", Format::OpenAiResponses),
    ("/responses/input_tokens", Format::OpenAiInputTokens),
    ("/embeddings", Format::OpenAiEmbeddings),
    ("/images/generations", Format::OpenAiImages),
    ("/images/edits", Format::OpenAiImages),
    ("/audio/speech", Format::OpenAiAudio),
    ("/audio/transcriptions", Format::OpenAiAudio),
    ("/audio/translations", Format::OpenAiAudio),
    ("/v1/messages", Format::AnthropicMessages),
    ("/v1/messages/count_tokens", Format::AnthropicCountTokens),
    ("/v1/messages/batches", Format::AnthropicBatches),
    ("/batches", Format::OpenAiBatches),
    ("/v2/chat", Format::CohereChat),
    ("/v2/embed", Format::CohereEmbed),
    ("/v2/rerank", Format::CohereRerank),
    ("/api/chat", Format::OllamaChat),
    ("/api/generate", Format::OllamaGenerate),
];

/// The methods of Google's paths, `…/models/<model>:<method>`; `true` asks for a stream.
const GOOGLE: [(&str, Format, bool); 5] = [
    ("generateContent", Format::GeminiGenerate, false),
    ("streamGenerateContent", Format::GeminiGenerate, true),
    ("countTokens", Format::GeminiCount, false),
    ("embedContent", Format::GeminiEmbed, false),
    ("batchEmbedContents", Format::GeminiEmbed, false),
];

/// The same of Anthropic's models at Vertex.
const ANTHROPIC: [(&str, Format, bool); 2] = [
    ("rawPredict", Format::AnthropicMessages, false),
    ("streamRawPredict", Format::AnthropicMessages, true),
];

/// The last segments of Bedrock's paths, `/model/<model>/<operation>`.
const BEDROCK: [(&str, Format, bool); 5] = [
    ("converse", Format::BedrockConverse, false),
    ("converse-stream", Format::BedrockConverse, true),
    ("invoke", Format::BedrockInvoke, false),
    ("invoke-with-response-stream", Format::BedrockInvoke, true),
    ("count-tokens", Format::BedrockCount, false),
];

// === impl Target ===

impl Target {
    /// Reads a method and a request target (`:path`, with its query). The path is in canonical form: what
    /// [`crate::access::CanonicalPath`] refuses is not refused here again. Escapes in the name of a model are resolved,
    /// that of a slash too.
    ///
    /// # Errors
    ///
    /// [`AmbiguousTarget`] if the name of a model is empty, longer than [`MAX_NAME_BYTES`], not UTF-8, or has an invalid
    /// escape or a control character; and if the query names too many.
    pub fn parse(method: &str, target: &[u8]) -> Result<Self, AmbiguousTarget> {
        let target = std::str::from_utf8(target).map_err(|_| AmbiguousTarget(()))?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_suffix('/').unwrap_or(path);
        if method != "POST" {
            return Ok(Self::other(!matches!(method, "GET" | "HEAD" | "OPTIONS")));
        }
        let known = [by_suffix, by_google_method, by_bedrock_operation].into_iter();
        let known = known.map(|read| read(path)).find(|read| *read != Ok(None));
        let Some(mut target) = known.transpose()?.flatten() else {
            return Ok(Self::other(true));
        };
        target.query_models = query_models(query)?;
        Ok(target)
    }

    fn other(is_open_ended: bool) -> Self {
        Self { is_open_ended, ..Self::new(Format::Other, None) }
    }

    fn new(format: Format, model: Option<Box<str>>) -> Self {
        // An agent or a file names the models, or a stored prompt or a router that Bedrock knows by an ARN.
        let is_arn = |name: &str| name.starts_with("arn:") && name.contains("prompt");
        let is_open_ended = matches!(format, Format::MistralAgents | Format::OpenAiBatches)
            || model.as_deref().is_some_and(is_arn);
        Self { format, model, query_models: Vec::new(), streams: false, is_open_ended }
    }
}

type Recognised = Result<Option<Target>, AmbiguousTarget>;

fn by_suffix(path: &str) -> Recognised {
    let suffix = SUFFIXES.iter().find_map(|(suffix, format)| {
        let prefix = path.strip_suffix(suffix)?;
        Some((prefix, *format))
    });
    let Some((prefix, format)) = suffix else { return Ok(None) };
    Ok(match deployment(prefix) {
        None => Some(Target::new(format, None)),
        Some(Some(name)) => Some(Target::new(format, Some(decoded_name(name)?))),
        // Servers differ in what they take for the name.
        Some(None) => None,
    })
}

/// The name after `deployments` (Azure) or `engines`, if a path has one of them: it must be the last segment.
fn deployment(prefix: &str) -> Option<Option<&str>> {
    let is_marker = |segment: &str| matches!(segment, "deployments" | "engines");
    let mut segments = prefix.split('/');
    segments.by_ref().find(|segment| is_marker(segment))?;
    let name = segments.next();
    Some(name.filter(|name| segments.next().is_none() && !is_marker(name)))
}

fn by_google_method(path: &str) -> Recognised {
    let mut segments = path.rsplit('/');
    let last = segments.next().unwrap_or_default();
    let (kind, publisher) = (segments.next(), segments.next());
    let Some((name, method)) = last.rsplit_once(':').or_else(|| split_at_escaped_colon(last))
    else {
        return Ok(None);
    };
    let publisher = publisher.filter(|_| segments.next() == Some("publishers"));
    let prefix = match kind {
        Some("models") => "",
        Some("tunedModels") => "tunedModels/",
        Some("endpoints") => "endpoints/",
        _ => return Ok(None),
    };
    let methods = if publisher == Some("anthropic") { &ANTHROPIC[..] } else { &GOOGLE };
    let Some((_, format, streams)) = methods.iter().find(|(known, ..)| *known == method) else {
        return Ok(None);
    };
    if *format == Format::AnthropicMessages && name == "count-tokens" {
        return Ok(Some(Target::new(Format::AnthropicCountTokens, None)));
    }
    let name = [prefix, &*decoded_name(name)?].concat().into();
    Ok(Some(Target { streams: *streams, ..Target::new(*format, Some(name)) }))
}

fn split_at_escaped_colon(segment: &str) -> Option<(&str, &str)> {
    segment.rsplit_once("%3A").or_else(|| segment.rsplit_once("%3a"))
}

fn by_bedrock_operation(path: &str) -> Recognised {
    let mut segments = path.rsplit('/');
    let (operation, name, kind) = (segments.next(), segments.next(), segments.next());
    let known = BEDROCK.iter().find(|(known, ..)| Some(*known) == operation);
    match (known, name, kind) {
        (Some((_, format, streams)), Some(name), Some("model")) => {
            let target = Target::new(*format, Some(decoded_name(name)?));
            Ok(Some(Target { streams: *streams, ..target }))
        }
        _ => Ok(None),
    }
}

/// The values of `model` in a query. Some servers separate its parts by semicolons too, and some compare names
/// without regard to case.
fn query_models(query: &str) -> Result<Vec<Box<str>>, AmbiguousTarget> {
    let mut models = Vec::new();
    for part in query.split(['&', ';']) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let is_model = decoded(name).is_some_and(|name| name.eq_ignore_ascii_case("model"));
        if !is_model || value.is_empty() {
            continue;
        }
        if models.len() == MAX_MODELS {
            return Err(AmbiguousTarget(()));
        }
        models.push(decoded_name(&value.replace('+', " "))?);
    }
    Ok(models)
}

fn decoded_name(text: &str) -> Result<Box<str>, AmbiguousTarget> {
    let is_name = |name: &String| {
        (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
    };
    decoded(text).filter(is_name).map(Box::from).ok_or(AmbiguousTarget(()))
}

/// Resolves escapes (RFC 3986, section 2.1); `None` if one is invalid or the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            byte => byte,
        };
        decoded.push(byte);
    }
    String::from_utf8(decoded).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests;
