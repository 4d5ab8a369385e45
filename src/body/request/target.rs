//! What the method, the path and the query of a request say about its body.

use crate::body::Format;
use crate::body::cut::{cut, cut_last};

use super::models::{MAX_NAME_BYTES, NameList};

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
}

/// Servers could read the model in a path or query differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousTarget(());

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
        let (path, query) = cut(target, b'?');
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut target = Self::other();
        if method == "POST" {
            let read = target.read_suffix(path)? || target.read_google(path)?;
            if read || target.read_bedrock(path)? {
                target.read_query(query)?;
                target.open_ended_if_known();
            }
        } else {
            target.is_open_ended = !matches!(method, "GET" | "HEAD" | "OPTIONS");
        }
        Ok(target)
    }

    fn other() -> Self {
        Self {
            format: Format::Other,
            model: None,
            query_models: NameList::default(),
            streams: false,
            is_open_ended: true,
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
        for (suffix, format) in &SUFFIXES {
            let Some(prefix) = path.strip_suffix(suffix.as_bytes()) else { continue };
            match deployment(prefix) {
                Deployment::None => {}
                Deployment::Named(name) => self.model = Some(decoded_name("", name, b'+')?),
                Deployment::Unclear => return Ok(false),
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

    /// Reads the values of `model` in a query. Some servers separate its parts by semicolons too, and some compare names
    /// without regard to case.
    fn read_query(&mut self, query: &[u8]) -> Result<(), AmbiguousTarget> {
        for part in query.split(|byte| matches!(byte, b'&' | b';')) {
            let (name, value) = cut(part, b'=');
            let mut known = Vec::new();
            let is_valid = decode(name, b' ', &mut known);
            if is_valid && known.eq_ignore_ascii_case(b"model") && !value.is_empty() {
                let name = decoded_name("", value, b' ')?;
                self.query_models.add(&name).map_err(|_| AmbiguousTarget(()))?;
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

/// The name after a marker, if a path has one: it must be the last segment.
fn deployment(prefix: &[u8]) -> Deployment<'_> {
    let (mut rest, mut index, mut markers, mut last_marker) = (prefix, 0, 0, 0);
    while !rest.is_empty() {
        let (before, segment) = cut_last(rest, b'/');
        if NAME_MARKERS.contains(&segment) {
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
        return Err(AmbiguousTarget(()));
    }
    String::from_utf8(name).map(String::into_boxed_str).map_err(|_| AmbiguousTarget(()))
}

/// Appends a text with its escapes resolved (RFC 3986, section 2.1). Returns whether all of them are valid.
fn decode(text: &[u8], plus: u8, decoded: &mut Vec<u8>) -> bool {
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(match (byte, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest = after;
                digit(*high) << 4 | digit(*low)
            }
            (b'%', _) => return false,
            (b'+', _) => plus,
            (byte, _) => *byte,
        });
    }
    true
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> u8 {
    if byte.is_ascii_digit() { byte - b'0' } else { (byte | 0x20) - b'a' + 10 }
}

#[cfg(test)]
mod tests;
