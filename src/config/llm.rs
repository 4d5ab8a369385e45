//! Reads `llm` and `body`: how AI requests are recognised, read and priced.

use crate::access::restriction::{Slashes, name_globs, path_globs, refuse_dead_paths};
use crate::body::Format;
use crate::body::json::Limits;
use crate::glob::Globs;
use crate::json::{Invalid, Node};
use crate::limits::price::{Prices, tokens};

/// How AI requests are recognised, read and priced.
#[derive(Clone, Debug)]
pub struct LlmSettings {
    /// The paths of AI requests, besides those of `routes`.
    pub paths: Globs,
    /// Paths of AI requests with rules of their own.
    pub routes: Box<[LlmRoute]>,
    /// The tokens of output to reserve for a request that names no bound, if the prices of its models do not say it.
    /// At least 1.
    pub default_reserve_tokens: u64,
    /// The paths of requests that use no model: neither their model nor their tokens are asked for.
    pub unmetered: Globs,
    /// The URLs of MCP servers that a provider may call for a key with a restriction of MCP calls.
    pub hosted_mcp: Globs,
    /// What models cost.
    pub prices: Prices,
    /// Whether the tokens of keys without limits of tokens are counted too, for audit lines and metrics.
    pub audit_tokens: bool,
}

/// Paths of AI requests with rules of their own.
#[derive(Clone, Debug)]
pub struct LlmRoute {
    /// The paths.
    pub paths: Globs,
    /// The rules.
    pub rules: LlmRules,
}

/// Rules for AI requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LlmRules {
    /// Whether streams are made to report their usage; `None` if that depends on the upstream.
    pub inject_usage: Option<bool>,
    /// The wire formats that are recognised.
    pub formats: Formats,
}

/// A set of wire formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats(u32);

/// How much of a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodySettings {
    /// The longest request body that is held, in bytes.
    pub max_bytes: u64,
    /// The most objects and lists inside each other.
    pub max_depth: u16,
    /// The most members that the objects around any place of a body have together.
    pub max_open_keys: u32,
    /// The longest list response of MCP that is held, in bytes.
    pub max_list_bytes: u64,
}

/// The paths of OpenAI, Anthropic, Gemini, Vertex, Azure and Bedrock, and of servers with their interfaces.
const DEFAULT_PATHS: [&str; 8] = [
    "/v1/**", "/v1beta/**", "/v1beta1/**", "/v1alpha/**", "/openai/**", "/anthropic/**",
    "/model/**", "/batch/**",
];

/// Lists of models. Not what is below them: Gemini has `/v1/models/…:generateContent`.
const DEFAULT_UNMETERED: [&str; 2] = ["/v1/models", "/v1beta/models"];

/// The tokens of output to reserve, unless configured.
const DEFAULT_RESERVE_TOKENS: u64 = 1024;

const MEMBERS: [&str; 8] = [
    "paths",
    "routes",
    "default_reserve_tokens",
    "reserve_input",
    "unmetered",
    "hosted_mcp",
    "prices",
    "audit_tokens",
];

const ANY_HOST: &str = "expected the host and a / before the first *, as in https://mcp.example/*: otherwise it matches \
    hosts of others";

// === impl LlmSettings ===

impl LlmSettings {
    /// Reads `llm`. `slashes`: those in the paths of some keys.
    pub(super) fn read(node: &Node<'_>, slashes: Slashes) -> Result<Self, Invalid> {
        let members = node.members(&MEMBERS)?;
        let default = Self::default();
        let paths = |node: &Node<'_>| paths(node, slashes);
        members.read("reserve_input", |node| node.choice(&[("bytes/4", ())]))?;
        Ok(Self {
            paths: members.read("paths", paths)?.unwrap_or(default.paths),
            routes: members
                .read("routes", |list| list.list(|item| LlmRoute::read(item, slashes)))?
                .unwrap_or_default(),
            default_reserve_tokens: members
                .read("default_reserve_tokens", tokens)?
                .unwrap_or(default.default_reserve_tokens),
            unmetered: members.read("unmetered", paths)?.unwrap_or(default.unmetered),
            hosted_mcp: members.read("hosted_mcp", urls)?.unwrap_or(default.hosted_mcp),
            prices: members.read("prices", Prices::read)?.unwrap_or_default(),
            audit_tokens: members.read("audit_tokens", Node::bool)?.unwrap_or(false),
        })
    }

    /// The rules for AI requests of a path in canonical form: those of the first route with that path. `None` if it is
    /// not a path of AI requests.
    pub fn rules(&self, path: &str) -> Option<LlmRules> {
        let route = self.routes.iter().find(|route| route.paths.matches(path));
        let by_default = || self.paths.matches(path).then(LlmRules::default);
        route.map(|route| route.rules).or_else(by_default)
    }

    /// The tokens of output to reserve for a request that names these models, and no bound.
    pub fn reserve_tokens(&self, models: &[Box<str>]) -> u64 {
        self.prices.reserve_tokens(models, self.default_reserve_tokens)
    }
}

impl Default for LlmSettings {
    fn default() -> Self {
        Self {
            paths: Globs::paths(&DEFAULT_PATHS),
            routes: Box::default(),
            default_reserve_tokens: DEFAULT_RESERVE_TOKENS,
            unmetered: Globs::paths(&DEFAULT_UNMETERED),
            hosted_mcp: Globs::names(&[]),
            prices: Prices::default(),
            audit_tokens: false,
        }
    }
}

// === impl BodySettings ===

impl BodySettings {
    /// The bounds of a JSON document.
    pub fn limits(&self) -> Limits {
        Limits { max_depth: self.max_depth, max_open_keys: self.max_open_keys }
    }

    /// The bound of a body, for the caller of a request that exceeds it.
    pub fn size_bound(&self) -> String {
        format!("at most {} bytes (body.max_bytes)", self.max_bytes)
    }
}

// === impl LlmRoute ===

impl LlmRoute {
    fn read(node: &Node<'_>, slashes: Slashes) -> Result<Self, Invalid> {
        let members = node.members(&["paths", "inject_usage", "formats"])?;
        let list = members.require("paths")?;
        if list.items()?.len() == 0 {
            return Err(list.expected("at least one glob"));
        }
        let rules = LlmRules {
            inject_usage: members.read("inject_usage", Node::bool)?,
            formats: members.read("formats", Formats::read)?.unwrap_or_default(),
        };
        Ok(Self { paths: paths(&list, slashes)?, rules })
    }
}

// === impl Formats ===

impl Formats {
    /// Whether it contains a format.
    pub fn contains(self, format: Format) -> bool {
        self.0 & Self::bit(format) != 0
    }

    /// Reads a list of globs over the names of formats.
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let mut formats = 0;
        for item in node.items()? {
            let glob = Globs::names(&[item.string()?]);
            let matched = Format::ALL.iter().filter(|format| glob.matches(format.name()));
            match matched.fold(0, |bits, format| bits | Self::bit(*format)) {
                0 => return Err(item.expected("a wire format, e.g. openai.chat or ollama.*")),
                bits => formats |= bits,
            }
        }
        if formats == 0 {
            Err(node.expected("at least one wire format"))
        } else {
            Ok(Self(formats))
        }
    }

    fn bit(format: Format) -> u32 {
        1_u32.wrapping_shl(format as u32)
    }
}

/// All formats.
impl Default for Formats {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

// === impl BodySettings ===

impl BodySettings {
    /// Reads `body`.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members =
            node.members(&["max_bytes", "max_depth", "max_open_keys", "max_list_bytes"])?;
        let default = Self::default();
        let bytes = |node: &Node<'_>| match node.integer()? {
            bytes @ 1_024..=1_073_741_824 => Ok(bytes),
            _ => Err(node.expected("1024 to 1073741824")),
        };
        Ok(Self {
            max_bytes: members.read("max_bytes", bytes)?.unwrap_or(default.max_bytes),
            max_depth: members.read("max_depth", depth)?.unwrap_or(default.max_depth),
            max_open_keys: members.read("max_open_keys", keys)?.unwrap_or(default.max_open_keys),
            max_list_bytes: members
                .read("max_list_bytes", bytes)?
                .unwrap_or(default.max_list_bytes),
        })
    }
}

impl Default for BodySettings {
    fn default() -> Self {
        Self {
            max_bytes: 8_388_608,
            max_depth: 128,
            max_open_keys: 16_384,
            max_list_bytes: 1_000_000,
        }
    }
}

fn depth(node: &Node<'_>) -> Result<u16, Invalid> {
    let depth = u16::try_from(node.integer()?).ok().filter(|depth| (16..=1024).contains(depth));
    depth.ok_or_else(|| node.expected("16 to 1024"))
}

fn keys(node: &Node<'_>) -> Result<u32, Invalid> {
    let keys = u32::try_from(node.integer()?).ok().filter(|keys| (256..=65_536).contains(keys));
    keys.ok_or_else(|| node.expected("256 to 65536"))
}

/// Reads globs over canonical paths, each of which can match one.
pub(super) fn paths(node: &Node<'_>, slashes: Slashes) -> Result<Globs, Invalid> {
    refuse_dead_paths(node, slashes)?;
    path_globs(node)
}

/// Reads globs over URLs, each of which is for one host.
fn urls(node: &Node<'_>) -> Result<Globs, Invalid> {
    for item in node.items()? {
        let text = item.string()?;
        if text.is_empty() {
            return Err(item.expected("a URL, or the name of a connector"));
        }
        let fixed = text.split_once('*').map(|(fixed, _)| fixed);
        let url = fixed.map(|fixed| fixed.split_once("://").map_or("", |(_, rest)| rest));
        if url.is_some_and(|rest| rest.find('/').is_none_or(|at| at == 0)) {
            return Err(item.unusable(ANY_HOST));
        }
    }
    name_globs(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[track_caller]
    fn settings(members: &str) -> (LlmSettings, BodySettings) {
        let ring = r#""keyring": [{"name": "main", "secret": "${S}"}]"#;
        let config = Config::parse(format!("{{{ring}{members}}}").as_bytes()).unwrap();
        (config.settings().llm.clone(), config.settings().body)
    }

    #[test]
    fn everything_has_a_default() {
        for members in ["", r#", "llm": {}, "body": {}"#] {
            let (llm, body) = settings(members);
            assert_eq!(llm.rules("/v1/chat/completions"), Some(LlmRules::default()));
            assert_eq!(llm.rules("/v1beta/models/m:generateContent"), Some(LlmRules::default()));
            for path in ["/openai/threads/t/runs", "/v1beta1/x", "/model/m/x", "/batch/a/v1"] {
                assert_eq!(llm.rules(path), Some(LlmRules::default()), "{path}");
            }
            assert_eq!((llm.rules("/v1"), llm.rules("/mcp")), (None, None));
            assert!(llm.unmetered.matches("/v1/models") && llm.unmetered.matches("/v1beta/models"));
            // It uses tokens.
            assert!(!llm.unmetered.matches("/v1/models/m:generateContent"));
            assert!(!llm.hosted_mcp.matches("") && !llm.hosted_mcp.matches("https://mcp.example/"));
            assert_eq!((llm.default_reserve_tokens, llm.audit_tokens), (1024, false));
            assert!(llm.prices.is_empty());
            let BodySettings { max_bytes, max_depth, max_open_keys, max_list_bytes } = body;
            assert_eq!((max_bytes, max_list_bytes), (8_388_608, 1_000_000));
            assert_eq!((max_depth, max_open_keys), (128, 16_384));
        }
    }

    #[test]
    fn the_first_route_of_a_path_has_its_rules() {
        let (llm, _) = settings(
            r#", "llm": {"paths": ["/v1/**"], "routes": [
                {"paths": ["/v1/mistral/**", "/mistral/**"], "inject_usage": false},
                {"paths": ["/ollama/**", "/v1/mistral/x"], "inject_usage": true, "formats": ["ollama.*", "openai.chat"]}]}"#,
        );
        let injects = |path: &str| llm.rules(path).map(|rules| rules.inject_usage);
        for path in ["/v1/mistral/x", "/mistral/v1/chat/completions"] {
            assert_eq!(injects(path), Some(Some(false)), "{path}");
        }
        assert_eq!(injects("/ollama/api/chat"), Some(Some(true)));
        assert_eq!((injects("/v1/messages"), injects("/v1beta/x")), (Some(None), None));
        let formats = llm.rules("/ollama/api/chat").unwrap().formats;
        let read = Format::ALL.iter().filter(|format| formats.contains(**format));
        let expected = [Format::OpenAiChat, Format::OllamaChat, Format::OllamaGenerate];
        assert_eq!(Vec::from_iter(read.copied()), expected);
    }

    #[test]
    fn each_format_has_a_bit_of_its_own() {
        let bits = Format::ALL.iter().map(|format| Formats::bit(*format));
        let all = bits.fold(0, |all, bit| if all & bit == 0 { all | bit } else { 0 });
        assert_eq!(usize::try_from(all.count_ones()).unwrap(), Format::ALL.len());
    }

    #[test]
    fn an_mcp_server_is_at_one_host() {
        let (llm, _) = settings(
            r#", "llm": {"hosted_mcp": ["https://mcp.example/*", "https://one.example/sse", "connector_x"]}"#,
        );
        for (url, is_known) in [
            ("https://mcp.example/", true),
            ("https://mcp.example/a/b?c", true),
            ("https://one.example/sse", true),
            ("connector_x", true),
            ("https://mcp.example.evil.example/", false),
            ("https://one.example/sse2", false),
        ] {
            assert_eq!(llm.hosted_mcp.matches(url), is_known, "{url}");
        }
        for glob in
            ["", "*", "https://*", "https://*.example/", "https://a.example*", "https:///*", "a/*"]
        {
            let text = format!(
                r#"{{"keyring": [{{"name": "m", "secret": "${{S}}"}}], "llm": {{"hosted_mcp": ["{glob}"]}}}}"#
            );
            let refused = Config::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.starts_with("llm.hosted_mcp[0]: expected "), "{glob}: {refused}");
        }
    }
}
