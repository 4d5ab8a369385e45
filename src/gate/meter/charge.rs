//! What a request is charged in the end.

use crate::audit::{TokenSource, Tokens};
use crate::body::TokenUsage;
use crate::body::response::{End, Metered, Settle};
use crate::exchange::{Usage, Used};
use crate::limits::Amounts;
use crate::limits::price::{Prices, Served};

/// What a request is charged.
pub(super) struct Charge {
    tokens: Tokens,
    micro_usd: Option<u64>,
    /// Whether the response should have reported its usage, and did not.
    pub(super) is_missing: bool,
}

impl Charge {
    /// What a request is charged for what it used. `is_sent`: a byte of it may have been sent.
    pub(super) fn of(used: &Used, prices: &Prices, is_sent: bool) -> Self {
        match &used.metered {
            None if is_sent => Self::reserved(used),
            None => Self::nothing(used),
            Some(metered) => match metered.settle {
                Settle::Refund | Settle::Free => Self::nothing(used),
                // What is used later is not reported.
                _ if used.facts.deferred => Self::reserved(used),
                Settle::Usage | Settle::AtLeast | Settle::Keep => {
                    Self::known(used, metered, prices)
                }
            },
        }
    }

    /// The reservation is charged.
    fn reserved(used: &Used) -> Self {
        let usage = TokenUsage { total: used.reserved_tokens, ..TokenUsage::default() };
        let tokens = Tokens { usage, source: TokenSource::Reserved };
        Self { tokens, micro_usd: used.reserved_micro_usd, is_missing: false }
    }

    /// Nothing is charged.
    fn nothing(used: &Used) -> Self {
        let reserved = Self::reserved(used);
        let tokens = Tokens { source: TokenSource::Nothing, ..reserved.tokens };
        Self { tokens, micro_usd: reserved.micro_usd.map(|_| 0), is_missing: false }
    }

    /// What the response reports, or what is known of it, if that is more than the reservation.
    fn known(used: &Used, metered: &Metered, prices: &Prices) -> Self {
        let known = metered.known(used.facts.input_tokens);
        let total = metered.settle.charge(used.reserved_tokens, known.total);
        let cost = cost(used, metered, prices);
        let reserved = used.reserved_micro_usd.unwrap_or(0);
        let source = match metered.settle {
            Settle::Usage => TokenSource::Usage,
            Settle::AtLeast => TokenSource::Partial,
            _ if known.total > used.reserved_tokens => TokenSource::Estimate,
            _ => TokenSource::Reserved,
        };
        // Of a reservation that is charged as it is, nothing is known.
        let counts = if source == TokenSource::Reserved { TokenUsage::default() } else { known };
        Self {
            tokens: Tokens { usage: TokenUsage { total, ..counts }, source },
            micro_usd: cost.map(|cost| metered.settle.charge(reserved, cost)),
            is_missing: metered.settle == Settle::Keep && used.end == End::Complete,
        }
    }

    /// What replaces the reservation.
    pub(super) fn amounts(&self) -> Amounts {
        Amounts { tokens: self.usage().total, cost_micro_usd: self.micro_usd.unwrap_or(0) }
    }

    /// The tokens that are charged.
    pub(super) fn usage(&self) -> TokenUsage {
        match self.tokens.source {
            TokenSource::Nothing => TokenUsage::default(),
            _ => self.tokens.usage,
        }
    }

    /// The cost that is charged, micro-USD; `None` without a price.
    pub(super) fn micro_usd(&self) -> Option<u64> {
        self.micro_usd
    }

    /// What the audit line says.
    pub(super) fn into_usage(self, used: &Used) -> Usage {
        let served = used.metered.as_ref().and_then(|metered| metered.model.clone());
        let served = served.filter(|served| used.facts.model() != Some(served));
        Usage { served, tokens: Some(self.tokens), micro_usd: self.micro_usd }
    }
}

/// What is known to be used, at the prices of the models that served it, micro-USD. `None` without a price.
fn cost(used: &Used, metered: &Metered, prices: &Prices) -> Option<u64> {
    let asked = &used.facts.models;
    let usage = metered.known_own(used.facts.input_tokens);
    let model = metered.model.as_deref();
    let own = model.or_else(|| used.facts.model()).unwrap_or_default();
    let extra = metered.extra.iter().map(|extra| {
        let model = extra.model.clone().unwrap_or_else(|| own.into());
        (model, extra.usage)
    });
    let extra: Vec<_> = extra.collect();
    let service_tier = metered.service_tier.as_deref();
    prices.cost(&Served { usage: &usage, model, service_tier, extra: &extra }, asked)
}
