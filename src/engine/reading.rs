//! What of the body of a request a decision depends on.

use crate::access::{CanonicalPath, Models};
use crate::body::Format;
use crate::body::request::{RequestFacts, Target};
use crate::decision::{Decision, DenyReason, Mode};
use crate::headers::RequestHead;
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
    /// The path is one of AI services, and of no format in which tokens are counted. A key with a limit of tokens or cost
    /// may not use it.
    Uncounted,
    /// Servers could read the model in the path differently.
    Ambiguous,
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

const UNCOUNTED: &str = "the key's tokens are limited, and those of this path cannot be counted; if it uses none, the \
    operator of the gateway lists it in llm.unmetered";

const NO_PRICE: &str = "the key's cost is limited, and a model of the request has no price";

/// Why no request whose body must be read is forwarded on nginx.
pub const NOT_ON_NGINX: &str =
    "the gateway must read the body, and on nginx it cannot do so before the request is sent";

/// Methods whose requests name no model and use no tokens.
const WITHOUT_BODY: [&[u8]; 5] = [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"];

impl Reading {
    /// The models of the request, as far as they are known before its body is read.
    pub fn models(&self) -> Models<'static> {
        match self {
            Self::Nothing | Self::Uncounted | Self::Ambiguous => Models::None,
            Self::Exempt => Models::Exempt,
            Self::Body(_) => Models::Unread,
        }
    }
}

impl Reserve {
    /// As the ledger takes it.
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
        let llm = &self.settings().llm;
        if !key.depends_on_bodies() && !llm.audit_tokens {
            return Reading::Nothing;
        }
        self.read_target(key, head, path)
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
            Reading::Ambiguous if key.depends_on_bodies() => {
                return Err((DenyReason::PathAmbiguous, None));
            }
            Reading::Nothing | Reading::Exempt | Reading::Ambiguous | Reading::Body(_) => {}
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
            return Err((DenyReason::Model, Some(NO_PRICE)));
        }
        Ok(Some(Reserve { tokens: input.saturating_add(output), micro_usd }))
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
        let Ok(target) = Target::parse(method_text, head.target.unwrap_or_default()) else {
            return Reading::Ambiguous;
        };
        let rules = llm.rules(path.resource());
        let is_known = target.format != Format::Other
            && rules.is_none_or(|rules| rules.formats.contains(target.format));
        if is_known {
            return Reading::Body(Box::new(target));
        }
        let may_use_tokens = key.measured().any() && !WITHOUT_BODY.contains(&method);
        match may_use_tokens && (rules.is_some() || self.is_misspelt(head, path)) {
            true => Reading::Uncounted,
            false => Reading::Nothing,
        }
    }

    /// Whether a server that ignores the case of paths, or of methods, could take a request for one of an AI service.
    #[cold]
    fn is_misspelt(&self, head: &RequestHead<'_>, path: &CanonicalPath<'_>) -> bool {
        let target = head.target.unwrap_or_default().to_ascii_lowercase();
        let format = Target::parse("POST", &target).map_or(Format::Other, |target| target.format);
        format != Format::Other
            || self.settings().llm.rules(&path.resource().to_ascii_lowercase()).is_some()
    }
}
