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
    pub(super) words: Words,
    /// The first model without a price, as an index into those of the request, if it is refused for that.
    pub(super) unpriced: Option<usize>,
    /// What the request reserves, if its tokens are counted.
    pub(super) reserve: Option<Reserve>,
}

/// What explains a refusal to a person.
#[derive(Default)]
pub(super) struct Words {
    /// The message, if it differs from that of the reason.
    pub(super) message: Option<&'static str>,
    /// What follows it, in JSON without quotes.
    pub(super) detail: Option<String>,
}

/// What a refused request reserved, as its audit line says it.
pub(super) fn reserved_usage(reserve: &Reserve) -> Usage {
    let usage = TokenUsage { total: reserve.tokens, ..TokenUsage::default() };
    let tokens = Some(Tokens { usage, source: TokenSource::Nothing });
    Usage { served: None, tokens, micro_usd: reserve.micro_usd.map(|_| 0) }
}
