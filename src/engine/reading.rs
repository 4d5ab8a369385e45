//! What of the body of a request a decision depends on.

use crate::access::{CanonicalPath, Models};
use crate::body::Format;
use crate::body::request::{AmbiguousTarget, RequestFacts, Target};
use crate::decision::DenyReason;
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
    /// What the path or the query asks for is not known for certain.
    Ambiguous(AmbiguousTarget),
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
            Self::Nothing | Self::Uncounted | Self::Ambiguous(_) => Models::None,
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
            Reading::Ambiguous(target) => {
                return Err((DenyReason::PathAmbiguous, Some(target.message())));
            }
            Reading::Nothing | Reading::Exempt | Reading::Body(_) => {}
        }
        let servers = facts.map(|facts| &*facts.hosted_mcp).unwrap_or_default();
        let checked = key.check_hosted_mcp(servers, &self.settings().llm.hosted_mcp);
        checked.map_err(|reason| (reason, None))
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
        let llm = &self.settings().llm;
        let measured = key.measured();
        if !measured.any() && !llm.audit_tokens {
            return Ok(None);
        }
        let output = facts.reserve_output(llm.reserve_tokens(&facts.models));
        let input = facts.input_tokens;
        let micro_usd = llm.prices.reservation(&facts.models, input, output);
        let micro_usd = micro_usd.filter(|_| !facts.open_ended);
        if micro_usd.is_none() && measured.cost {
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
        let target = match Target::parse(method_text, head.target.unwrap_or_default()) {
            Ok(target) => target,
            Err(ambiguous) => return Reading::Ambiguous(ambiguous),
        };
        let rules = llm.rules(path.resource());
        let is_known = target.format != Format::Other
            && rules.is_none_or(|rules| rules.formats.contains(target.format));
        if is_known {
            return Reading::Body(Box::new(target));
        }
        let may_use_tokens = key.measured().any() && !WITHOUT_BODY.contains(&method);
        let is_ai = target.is_uncounted || rules.is_some();
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
