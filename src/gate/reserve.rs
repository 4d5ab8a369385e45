//! What a request reserves of limits of tokens and cost.

use crate::audit::{TokenSource, Tokens};
use crate::body::TokenUsage;
use crate::decision::Decision;
use crate::engine::Reserve;
use crate::exchange::Usage;

/// A decision, after what the request costs.
pub(super) struct Priced {
    pub(super) decision: Decision,
    /// What explains a refusal to a person.
    pub(super) message: Option<&'static str>,
    /// What the request reserves, if its tokens are counted.
    pub(super) reserve: Option<Reserve>,
}

/// What a refused request reserved, as its audit line says it.
pub(super) fn reserved_usage(reserve: &Reserve) -> Usage {
    let usage = TokenUsage { total: reserve.tokens, ..TokenUsage::default() };
    let tokens = Some(Tokens { usage, source: TokenSource::Nothing });
    Usage { served: None, tokens, micro_usd: reserve.micro_usd.map(|_| 0) }
}
