//! What of the body of a request a decision depends on.

use crate::access::{CanonicalPath, Mcp, McpCall, Models, query_keys};
use crate::body::Format;
use crate::body::mcp::{Era, Fault, Message, MessageKind, Mirrors, Purpose};
use crate::body::request::{AmbiguousTarget, RequestFacts, Target};
use crate::config::{McpServer, Settings};
use crate::decision::{Decision, DenyReason, Mode};
use crate::headers::{RequestHead, SESSION};
use crate::limits::Amounts;

use super::{Engine, KnownKey};

/// What of the body of a request the decision on it depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// Nothing: the body is not touched. The request names no model.
    #[default]
    Nothing,
    /// Nothing, because the configuration says that the path uses no model.
    Exempt,
    /// All of it is to be read.
    Body(Box<Target>),
    /// The request may use tokens that cannot be counted: the path is one of AI services and of no format that is read, a
    /// file has the requests, or the connection is upgraded. A key with a limit of tokens or cost may not send it.
    Uncounted,
    /// What the path or the query asks for is not known for certain.
    Ambiguous(AmbiguousTarget),
    /// The request is for an MCP server.
    Mcp(Box<McpTarget>),
}

/// What the head of a request for an MCP server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpTarget {
    /// The server, if the configuration names it or the path does.
    pub server: Option<Box<str>>,
    /// What the request does by its HTTP method.
    pub purpose: Result<Purpose, Fault>,
}

/// What a request reserves of limits of tokens and cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Tokens of input and output.
    pub tokens: u64,
    /// Their cost; `None` if the models have no price, or not all of them are named.
    pub micro_usd: Option<u64>,
}

/// Why a path or a body refuses a request, with the message for a person if it differs from that of the reason.
pub type BodyRefusal = (DenyReason, Option<&'static str>);

const UNCOUNTED: &str = "the key's tokens or cost are limited, and the gate cannot count what such a request uses; if \
    that is nothing, its operator lists the path in llm.unmetered";

const NO_PRICE: &str = "the key's cost is limited, and this model has no price";

const UNKNOWN_PRICE: &str =
    "the key's cost is limited, and the request lets the server choose a model";

/// Why no request whose body must be read is forwarded on nginx.
pub const NOT_ON_NGINX: &str =
    "the gate must read the body, and on nginx it cannot do so before the request is sent";

/// A method of MCP that every restriction allows.
const ANY_METHOD: &str = "ping";

/// The revision is older than the gate accepts.
const LEGACY: &str = "the gate accepts revision 2026-07-28 of MCP and later ones only";

/// MCP does not use the HTTP method, or an upgrade.
const HTTP_METHOD: &str = "this revision of MCP uses neither the HTTP method nor an upgrade";

/// A response of a client belongs to no request that the server could have sent.
const NO_SESSION: &str = "a response needs the session in which the server asked for it";

const HEADER_MISMATCH: &str =
    "mcp-protocol-version, mcp-method or mcp-name is missing, repeated, or differs from the body";

const NO_REVISION: &str = "the request does not say its revision of MCP in params._meta";

const NO_URI: &str = "the request names no resource";

/// Methods whose requests name no model and use no tokens.
const WITHOUT_BODY: [&[u8]; 5] = [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"];

impl Default for McpTarget {
    fn default() -> Self {
        Self { server: None, purpose: Ok(Purpose::Message) }
    }
}

impl McpTarget {
    /// The call of a message for this server.
    pub fn call<'a>(&'a self, message: &'a Message) -> McpCall<'a> {
        let Message { method, object, arguments, .. } = message;
        let method = if message.kind == MessageKind::Response { ANY_METHOD } else { method };
        let object = object.as_ref().map(|(kind, names)| (*kind, &**names));
        McpCall { method, server: self.server.as_deref(), object, arguments: Some(arguments) }
    }

    /// The call of a request without a message: it opens a stream, or ends a session. Whoever may use the server at all
    /// may do so.
    pub fn any_call(&self) -> McpCall<'_> {
        McpCall { method: ANY_METHOD, server: self.server.as_deref(), ..McpCall::default() }
    }
}

impl Reading {
    /// The models of the request, as far as they are known before its body is read.
    pub fn models(&self) -> Models<'static> {
        match self {
            Self::Nothing | Self::Uncounted | Self::Mcp(_) => Models::None,
            Self::Exempt => Models::Exempt,
            // What is ambiguous is refused for that, and not because a key may not use a model that nobody knows.
            Self::Body(_) | Self::Ambiguous(_) => Models::Unread,
        }
    }

    /// The MCP call of the request, as far as it is known before its body is read.
    pub fn mcp(&self) -> Mcp<'_> {
        match self {
            Self::Nothing | Self::Exempt | Self::Body(_) | Self::Uncounted | Self::Ambiguous(_) => {
                Mcp::None
            }
            Self::Mcp(target) => match target.purpose {
                Ok(Purpose::Message) | Err(_) => Mcp::Unread,
                Ok(Purpose::Stream | Purpose::Close) => Mcp::Call(target.any_call()),
            },
        }
    }
}

impl Reserve {
    /// As the tally takes it.
    pub fn amounts(&self) -> Amounts {
        Amounts { tokens: self.tokens, cost_micro_usd: self.micro_usd.unwrap_or(0) }
    }
}

impl Engine {
    /// What of the body a decision on a request of this key depends on. It costs nothing for a key on which no body has
    /// a bearing.
    pub fn reading(
        &self,
        key: &KnownKey,
        head: &RequestHead<'_>,
        path: &CanonicalPath<'_>,
    ) -> Reading {
        let Settings { llm, mcp, .. } = self.settings();
        if !mcp.is_empty()
            && let Some(McpServer(server)) = mcp.server(path.resource())
        {
            return Self::mcp_target(head, server);
        }
        if !key.depends_on_bodies() && !llm.audit_tokens {
            return Reading::Nothing;
        }
        self.read_target(key, head, path)
    }

    #[inline(never)]
    fn mcp_target(head: &RequestHead<'_>, server: Option<&str>) -> Reading {
        let method = str::from_utf8(head.method.unwrap_or_default()).unwrap_or_default();
        let purpose = Purpose::of(method, || Mirrors::read(head.fields()));
        // Nobody reads what another protocol carries.
        let purpose = purpose.and_then(|purpose| match head.upgrades {
            true => Err(Fault::HttpMethod),
            false => Ok(purpose),
        });
        Reading::Mcp(Box::new(McpTarget { server: server.map(Box::from), purpose }))
    }

    /// The server that requests with a path are for; `None` if they are not messages of MCP.
    pub fn mcp_server(&self, path: &CanonicalPath<'_>) -> Option<McpTarget> {
        let McpServer(server) = self.settings().mcp.server(path.resource())?;
        Some(McpTarget { server: server.map(Box::from), purpose: Ok(Purpose::Message) })
    }

    /// The message of a request whose headers are trusted to say what its body says.
    pub fn said_by_headers(&self, head: &RequestHead<'_>) -> Option<Message> {
        let mcp = &self.settings().mcp;
        if !mcp.trusts_headers || head.method != Some(b"POST") {
            return None;
        }
        let path = CanonicalPath::parse(head.target.unwrap_or_default()).ok()?;
        mcp.server(path.resource())?;
        Mirrors::read(head.fields()).message()
    }

    /// Whether a request for an MCP server is accepted for what it does by its HTTP method.
    fn check_purpose(&self, purpose: Result<Purpose, Fault>) -> Result<(), BodyRefusal> {
        match purpose.map_err(refusal)? {
            Purpose::Stream | Purpose::Close if !self.settings().mcp.allows_legacy => {
                Err((DenyReason::McpCall, Some(LEGACY)))
            }
            Purpose::Message | Purpose::Stream | Purpose::Close => Ok(()),
        }
    }

    /// Whether a message of MCP is accepted, whose headers say what its body says: `checked`.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check_message(
        &self,
        head: &RequestHead<'_>,
        message: &Message,
        checked: Result<Era, Fault>,
    ) -> Result<(), BodyRefusal> {
        match (message.kind, checked.map_err(refusal)?) {
            (_, Era::Legacy) if !self.settings().mcp.allows_legacy => {
                Err((DenyReason::McpCall, Some(LEGACY)))
            }
            (MessageKind::Response, _) if !names_session(head) => {
                Err((DenyReason::McpCall, Some(NO_SESSION)))
            }
            _ => Ok(()),
        }
    }

    /// Whether the path and the body allow a request that its headers and its models allow. `facts`: what the body says,
    /// if it was read.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check_body(
        &self,
        key: &KnownKey,
        reading: &Reading,
        facts: Option<&RequestFacts>,
    ) -> Result<(), BodyRefusal> {
        match reading {
            Reading::Uncounted => return Err((DenyReason::Path, Some(UNCOUNTED))),
            Reading::Ambiguous(target) if key.depends_on_bodies() => {
                return Err((DenyReason::PathAmbiguous, Some(target.message())));
            }
            Reading::Mcp(target) => return self.check_purpose(target.purpose),
            Reading::Nothing | Reading::Exempt | Reading::Ambiguous(_) | Reading::Body(_) => {}
        }
        let servers = facts.map(|facts| &*facts.hosted_mcp).unwrap_or_default();
        let checked = key.check_hosted_mcp(servers, &self.settings().llm.hosted_mcp);
        checked.map_err(|reason| (reason, None))
    }

    /// The decision on a request of which the body should be read, and cannot be, for this reason. `decision`: what else
    /// is decided. The request is refused only if something that is enforced depends on its body.
    pub fn decide_unread(
        &self,
        key: &KnownKey,
        decision: Decision,
        reason: DenyReason,
    ) -> Decision {
        match self.settings().mode {
            // The body is for the audit alone.
            _ if !key.depends_on_bodies() => decision,
            Mode::Enforce => Decision::Deny(reason),
            Mode::Shadow if decision == Decision::Allow => Decision::Shadow(reason),
            Mode::Shadow => decision,
        }
    }

    /// Whether the tokens of the requests of a key are counted.
    pub fn counts_tokens(&self, key: &KnownKey) -> bool {
        key.measured().any() || self.settings().llm.audit_tokens
    }

    /// What a request with this body reserves; `None` if its tokens are not counted.
    ///
    /// # Errors
    ///
    /// [`DenyReason::Model`] if its cost is limited and not known.
    pub fn reserve(
        &self,
        key: &KnownKey,
        facts: &RequestFacts,
    ) -> Result<Option<Reserve>, BodyRefusal> {
        if !self.counts_tokens(key) {
            return Ok(None);
        }
        let llm = &self.settings().llm;
        let output = facts.reserve_output(llm.reserve_tokens(&facts.models));
        let input = facts.input_tokens;
        let micro_usd = llm.prices.reservation(&facts.models, input, output);
        let micro_usd = micro_usd.filter(|_| !facts.open_ended);
        if micro_usd.is_none() && key.measured().cost {
            let message = self.unpriced(facts).map_or(UNKNOWN_PRICE, |_| NO_PRICE);
            return Err((DenyReason::Model, Some(message)));
        }
        Ok(Some(Reserve { tokens: input.saturating_add(output), micro_usd }))
    }

    /// The first model of a request that has no price, as an index.
    pub fn unpriced(&self, facts: &RequestFacts) -> Option<usize> {
        let prices = &self.settings().llm.prices;
        facts.models.iter().position(|model| prices.of(model).is_none())
    }

    #[inline(never)]
    fn read_target(
        &self,
        key: &KnownKey,
        head: &RequestHead<'_>,
        path: &CanonicalPath<'_>,
    ) -> Reading {
        let llm = &self.settings().llm;
        if llm.unmetered.matches(path.resource()) {
            return Reading::Exempt;
        }
        let method = head.method.unwrap_or_default();
        let Ok(method_text) = std::str::from_utf8(method) else {
            return Reading::Nothing;
        };
        let target = match Target::parse(method_text, head.target.unwrap_or_default()) {
            Ok(target) => target,
            Err(ambiguous) => return Reading::Ambiguous(ambiguous),
        };
        let rules = llm.rules(path.resource());
        let is_known = target.format != Format::Other
            && rules.is_none_or(|rules| rules.formats.contains(target.format));
        let is_limited = key.measured().any();
        // A file has the requests of the batch.
        let is_uncounted = target.is_uncounted || target.format == Format::OpenAiBatches;
        if is_known && !(is_uncounted && is_limited) {
            return Reading::Body(Box::new(target));
        }
        let may_use_tokens = is_limited && (head.upgrades || !WITHOUT_BODY.contains(&method));
        // Whatever passes on an upgraded connection is not seen.
        let is_ai = is_uncounted || rules.is_some() || head.upgrades;
        match may_use_tokens && (is_ai || self.is_misspelt(head, path)) {
            true => Reading::Uncounted,
            false => Reading::Nothing,
        }
    }

    /// Whether a server that ignores the case of paths, or of methods, could take a request for one of an AI service.
    #[cold]
    fn is_misspelt(&self, head: &RequestHead<'_>, path: &CanonicalPath<'_>) -> bool {
        let target = head.target.unwrap_or_default().to_ascii_lowercase();
        Target::parse("POST", &target)
            .map_or(true, |target| target.format != Format::Other || target.is_uncounted)
            || self.settings().llm.rules(&path.resource().to_ascii_lowercase()).is_some()
    }
}

/// Whether a request names the session that it belongs to. Before 2025-03-26 the query does, as the official servers
/// spell it.
fn names_session(head: &RequestHead<'_>) -> bool {
    let mut keys = query_keys(head.target.unwrap_or_default());
    head.has(SESSION) || keys.any(|key| matches!(key, b"sessionId" | b"session_id"))
}

/// Why a request with a fault is refused.
fn refusal(fault: Fault) -> BodyRefusal {
    match fault {
        Fault::Unreadable(unreadable) => (DenyReason::BodyUnreadable, Some(unreadable.message())),
        Fault::HeaderMismatch => (DenyReason::HeaderMismatch, Some(HEADER_MISMATCH)),
        Fault::InvalidParams => (DenyReason::BodyUnreadable, Some(NO_REVISION)),
        Fault::MethodNotFound => (DenyReason::BodyUnreadable, Some(NO_URI)),
        Fault::HttpMethod => (DenyReason::Method, Some(HTTP_METHOD)),
    }
}
