//! What the method, the path and the query of a request say about its body.

use crate::body::Format;
use crate::body::cut::{cut, cut_last};

use super::ambiguous::AmbiguousTarget;
use super::escapes::decode;
use super::models::{MAX_NAME_BYTES, NameList};
use super::query::{self, Parameter};

/// What the request line says: the format of the body, the models in path and query, and whether the path asks for a
/// stream. Any other path is [`Format::Other`], and so is every method but POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The format.
    pub format: Format,
    /// The model that the path names.
    pub model: Option<Box<str>>,
    /// The models that the query names. Some servers prefer them to those of the body.
    pub(super) query_models: NameList,
    /// Whether the path asks for a stream.
    pub(super) streams: bool,
    /// Whether the request may make models run that nothing names, whatever its body says.
    pub(super) is_open_ended: bool,
    /// Whether the path is one of a known AI service, in a format of which nothing is read.
    pub is_uncounted: bool,
}

/// The ends of paths, and the formats of their bodies. The first one that fits counts.
static SUFFIXES: [(&str, Format); 22] = [
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
static GOOGLE: [(&str, Format, bool); 5] = [
    ("generateContent", Format::GeminiGenerate, false),
    ("streamGenerateContent", Format::GeminiGenerate, true),
    ("countTokens", Format::GeminiCount, false),
    ("embedContent", Format::GeminiEmbed, false),
    ("batchEmbedContents", Format::GeminiEmbed, false),
];

/// The same of Anthropic's models at Vertex.
static ANTHROPIC: [(&str, Format, bool); 2] = [
    ("rawPredict", Format::AnthropicMessages, false),
    ("streamRawPredict", Format::AnthropicMessages, true),
];

/// The last segments of Bedrock's paths, `/model/<model>/<operation>`.
static BEDROCK: [(&str, Format, bool); 5] = [
    ("converse", Format::BedrockConverse, false),
    ("converse-stream", Format::BedrockConverse, true),
    ("invoke", Format::BedrockInvoke, false),
    ("invoke-with-response-stream", Format::BedrockInvoke, true),
    ("count-tokens", Format::BedrockCount, false),
];

/// The marker of a name in a path: Azure's, and an old one of OpenAI's.
const NAME_MARKERS: [&[u8]; 2] = [b"deployments", b"engines"];

/// What Google's methods are of, e.g. `…/models/<model>:<method>`, also those in which nothing is counted.
const GOOGLE_KINDS: [&[u8]; 5] =
    [b"models", b"tunedModels", b"endpoints", b"reasoningEngines", b"locations"];

/// The last segments of other paths whose requests may use tokens: Bedrock's asynchronous calls and its batches, and
/// Google's batches of calls.
const UNCOUNTED: [&[u8]; 3] = [b"async-invoke", b"model-invocation-job", b"batch"];

// === impl Target ===

impl Target {
    /// Reads a method and a request target (`:path`, with its query). The path is in canonical form: what
    /// [`crate::access::CanonicalPath`] refuses is not refused here again. Escapes in the name of a model are resolved,
    /// that of a slash too.
    ///
    /// # Errors
    ///
    /// [`AmbiguousTarget`] if the name of a model is empty, longer than [`MAX_NAME_BYTES`], not UTF-8, or has an invalid
    /// escape or a control character; if servers differ in which part of the path it is; if the query names too many
    /// models; and if it has a parameter of Google's that changes the request or the form of the response.
    pub fn parse(method: &str, target: &[u8]) -> Result<Self, AmbiguousTarget> {
        let (path, query) = cut(target, b'?');
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut target = Self::other();
        if method == "POST" {
            let read = target.read_suffix(path)? || target.read_google(path)?;
            if read || target.read_bedrock(path)? {
                target.read_query(query)?;
                target.open_ended_if_known();
            } else {
                target.is_uncounted = is_uncounted(path);
            }
        } else {
            query::check_method(query)?;
            target.is_open_ended = !matches!(method, "GET" | "HEAD" | "OPTIONS");
        }
        Ok(target)
    }

    /// The ends of all paths that are recognised, with the formats of their requests.
    pub fn path_ends() -> Vec<(String, Format)> {
        let suffixes = SUFFIXES.iter().map(|(end, format)| ((*end).to_owned(), *format));
        let methods = GOOGLE.iter().chain(&ANTHROPIC);
        let methods = methods.map(|(name, format, _)| ([":", name].concat(), *format));
        let operations = BEDROCK.iter().map(|(name, format, _)| (["/", name].concat(), *format));
        suffixes.chain(methods).chain(operations).collect()
    }

    fn other() -> Self {
        Self {
            format: Format::Other,
            model: None,
            query_models: NameList::default(),
            streams: false,
            is_open_ended: true,
            is_uncounted: false,
        }
    }

    /// An agent or a file names the models, or a stored prompt or a router that Bedrock knows by an ARN.
    fn open_ended_if_known(&mut self) {
        let is_prompt = |name: &[u8]| name.windows(6).any(|window| window == b"prompt");
        self.is_open_ended = matches!(self.format, Format::MistralAgents | Format::OpenAiBatches)
            || self
                .model
                .as_deref()
                .is_some_and(|name| name.starts_with("arn:") && is_prompt(name.as_bytes()));
    }

    fn read_suffix(&mut self, path: &[u8]) -> Result<bool, AmbiguousTarget> {
        let mut is_misspelt = false;
        for (suffix, format) in &SUFFIXES {
            let Some(prefix) = path.strip_suffix(suffix.as_bytes()) else {
                let end = path.get(path.len().wrapping_sub(suffix.len())..);
                is_misspelt |= end.is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()));
                continue;
            };
            // A server that ignores the case of paths reads another format than one that does not.
            if is_misspelt {
                return Err(AmbiguousTarget::Model);
            }
            match deployment(prefix) {
                Deployment::None => {}
                Deployment::Named(name) => self.model = Some(decoded_name("", name, b'+')?),
                Deployment::Unclear => return Err(AmbiguousTarget::Model),
            }
            self.format = *format;
            return Ok(true);
        }
        Ok(false)
    }

    fn read_google(&mut self, path: &[u8]) -> Result<bool, AmbiguousTarget> {
        let (path, last) = cut_last(path, b'/');
        let (path, kind) = cut_last(path, b'/');
        let (path, publisher) = cut_last(path, b'/');
        let Some((name, method)) = cut_at_colon(last) else { return Ok(false) };
        let prefix = match kind {
            b"models" => "",
            b"tunedModels" => "tunedModels/",
            b"endpoints" => "endpoints/",
            _ => return Ok(false),
        };
        let is_anthropic = publisher == b"anthropic" && cut_last(path, b'/').1 == b"publishers";
        let methods = if is_anthropic { &ANTHROPIC[..] } else { &GOOGLE };
        if !self.read_operation(methods, method) {
            return Ok(false);
        }
        if is_anthropic && name == b"count-tokens" {
            self.format = Format::AnthropicCountTokens;
        } else {
            self.model = Some(decoded_name(prefix, name, b'+')?);
        }
        Ok(true)
    }

    fn read_bedrock(&mut self, path: &[u8]) -> Result<bool, AmbiguousTarget> {
        let (path, operation) = cut_last(path, b'/');
        let (path, name) = cut_last(path, b'/');
        if cut_last(path, b'/').1 != b"model" || !self.read_operation(&BEDROCK, operation) {
            return Ok(false);
        }
        self.model = Some(decoded_name("", name, b'+')?);
        Ok(true)
    }

    fn read_operation(&mut self, known: &[(&str, Format, bool)], name: &[u8]) -> bool {
        let known = known.iter().find(|(known, ..)| known.as_bytes() == name);
        if let Some((_, format, streams)) = known {
            (self.format, self.streams) = (*format, *streams);
        }
        known.is_some()
    }

    fn read_query(&mut self, query: &[u8]) -> Result<(), AmbiguousTarget> {
        for part in query::parts(query) {
            match Parameter::read(part) {
                Parameter::Harmless => {}
                Parameter::Model(value) => {
                    let name = decoded_name("", value, b' ')?;
                    self.query_models.add(&name).map_err(|_| AmbiguousTarget::Model)?;
                }
                Parameter::Method | Parameter::Form => return Err(AmbiguousTarget::Parameter),
            }
        }
        Ok(())
    }
}

/// Whether a path names a deployment.
enum Deployment<'a> {
    None,
    Named(&'a [u8]),
    /// Servers differ in what they take for the name.
    Unclear,
}

/// The name after a marker, if a path has one: it must be the last segment. Azure ignores the case of markers.
fn deployment(prefix: &[u8]) -> Deployment<'_> {
    let (mut rest, mut index, mut markers, mut last_marker) = (prefix, 0, 0, 0);
    while !rest.is_empty() {
        let (before, segment) = cut_last(rest, b'/');
        if is_one_of(segment, &NAME_MARKERS) {
            (markers, last_marker) = (markers + 1, index);
        }
        (rest, index) = (before, index + 1);
    }
    match (markers, last_marker) {
        (0, _) => Deployment::None,
        (1, 1) => Deployment::Named(cut_last(prefix, b'/').1),
        _ => Deployment::Unclear,
    }
}

/// Whether a path that is in no known format is one of an AI service. Some ignore the case of paths.
fn is_uncounted(path: &[u8]) -> bool {
    let (before, last) = cut_last(path, b'/');
    let (before, name) = cut_last(before, b'/');
    let is_google = cut_at_colon(last).is_some() && is_one_of(name, &GOOGLE_KINDS);
    let begins_with = |known: &[u8]| {
        last.get(..known.len()).is_some_and(|first| first.eq_ignore_ascii_case(known))
    };
    let is_bedrock = is_one_of(cut_last(before, b'/').1, &[b"model"])
        && (begins_with(b"invoke") || begins_with(b"converse"));
    let is_ollama = is_one_of(name, &[b"api"]) && is_one_of(last, &[b"embed"]);
    is_google || is_bedrock || is_ollama || is_one_of(last, &UNCOUNTED)
}

/// Whether a segment is one of these, in any case.
#[inline(never)]
fn is_one_of(segment: &[u8], known: &[&[u8]]) -> bool {
    known.iter().any(|known| segment.eq_ignore_ascii_case(known))
}

/// Cuts a segment at its last colon, which may be escaped.
fn cut_at_colon(segment: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, method) = cut_last(segment, b':');
    if name.len() + method.len() < segment.len() {
        return Some((name, method));
    }
    let (name, method) = cut_last(segment, b'%');
    let method = method.strip_prefix(b"3A").or_else(|| method.strip_prefix(b"3a"))?;
    Some((name, method))
}

/// The name of a model after a prefix. `plus`: what a plus sign stands for, which is a space in queries.
fn decoded_name(prefix: &str, text: &[u8], plus: u8) -> Result<Box<str>, AmbiguousTarget> {
    let mut name = prefix.to_owned().into_bytes();
    let is_valid = decode(text, plus, &mut name) && !name.iter().any(u8::is_ascii_control);
    if !is_valid || text.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(AmbiguousTarget::Model);
    }
    String::from_utf8(name).map(String::into_boxed_str).map_err(|_| AmbiguousTarget::Model)
}

#[cfg(test)]
mod tests;
