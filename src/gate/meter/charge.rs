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
    /// What a request is charged for what its last attempt used. `is_sent`: a byte of that may have been sent.
    pub(super) fn of(used: &Used, prices: &Prices, is_sent: bool) -> Self {
        match &used.metered {
            None if is_sent => Self::reserved(used),
            None => Self::nothing(used),
            Some(metered) => match metered.settle {
                Settle::Refund | Settle::Free => Self::nothing(used),
                Settle::Usage | Settle::AtLeast | Settle::Keep => {
                    Self::known(used, metered, prices)
                }
            },
        }
    }

    /// The same, with the reservation for each earlier attempt, of which no response is seen.
    #[must_use]
    pub(super) fn with_earlier(mut self, used: &Used, attempts: u64) -> Self {
        let settle = used.metered.as_ref().map(|metered| metered.settle);
        if attempts == 0 || settle == Some(Settle::Free) {
            return self;
        }
        let earlier = used.reserved_tokens.saturating_mul(attempts);
        let usage = self.usage();
        let total = usage.total.saturating_add(earlier);
        let source = match self.tokens.source {
            TokenSource::Usage => TokenSource::Partial,
            TokenSource::Nothing => TokenSource::Reserved,
            source => source,
        };
        self.tokens = Tokens { usage: TokenUsage { total, ..usage }, source };
        let reserved = used.reserved_micro_usd.unwrap_or(0).saturating_mul(attempts);
        self.micro_usd = self.micro_usd.map(|cost| cost.saturating_add(reserved));
        self
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
        let settle = match metered.settle {
            // More may be used later, which nothing will report.
            Settle::Usage if used.facts.deferred => Settle::AtLeast,
            settle => settle,
        };
        let total = settle.charge(used.reserved_tokens, known.total);
        let cost = cost(used, metered, prices);
        let reserved = used.reserved_micro_usd.unwrap_or(0);
        let source = match settle {
            Settle::Usage => TokenSource::Usage,
            Settle::AtLeast => TokenSource::Partial,
            _ if known.total > used.reserved_tokens => TokenSource::Estimate,
            _ => TokenSource::Reserved,
        };
        // Of a reservation that is charged as it is, nothing is known.
        let counts = if source == TokenSource::Reserved { TokenUsage::default() } else { known };
        Self {
            tokens: Tokens { usage: TokenUsage { total, ..counts }, source },
            // The prices that the reservation was made at may be gone.
            micro_usd: cost.map(|cost| settle.charge(reserved, cost)).or(used.reserved_micro_usd),
            is_missing: settle == Settle::Keep && used.end == End::Complete && !used.facts.deferred,
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
    let served = Served {
        usage: &metered.known_own(used.facts.input_tokens),
        model: metered.model.as_deref(),
        service_tier: metered.service_tier.as_deref(),
        extra: &metered.extra,
    };
    prices.cost(&served, &used.facts.models)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Declared;
    use crate::body::json::Limits;
    use crate::body::request::{RequestFacts, RequestReader, Target};
    use crate::body::response::{Meter, ResponseHead};
    use crate::json::{Integers, Json};

    const PRICES: &str = r#"{"m": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "10"},
        "small": {"input_usd_per_mtok": "0.5", "output_usd_per_mtok": "1"}}"#;

    fn prices() -> Prices {
        Prices::read(&Json::parse(PRICES.as_bytes()).unwrap().root(Integers::Whole)).unwrap()
    }

    fn facts() -> RequestFacts {
        let target = Target::parse("POST", b"/v1/chat/completions").unwrap();
        let declared = Declared::read([(b"content-type" as _, b"application/json" as _)]);
        let limits = Limits { max_depth: 64, max_open_keys: 64 };
        let mut reader = RequestReader::new(target, declared, limits).unwrap();
        reader.feed(br#"{"model": "m", "max_tokens": 50, "messages": []}"#).unwrap();
        reader.finish().unwrap()
    }

    /// What is charged for a response. 100 tokens and 900 micro-USD are reserved.
    fn charged(status: u16, body: &str, end: End, prices: &Prices) -> (Amounts, Option<u64>) {
        let charge = charge(facts(), status, body, end, prices);
        (charge.amounts(), charge.micro_usd())
    }

    fn charge(facts: RequestFacts, status: u16, body: &str, end: End, prices: &Prices) -> Charge {
        let head = ResponseHead { status, ..ResponseHead::default() };
        let mut meter = Meter::new(facts.format, &head);
        meter.feed(body.as_bytes());
        let metered = Some(meter.finish(end));
        let (reserved_tokens, reserved_micro_usd) = (100, Some(900));
        let used = Used { facts, reserved_tokens, reserved_micro_usd, metered, end };
        Charge::of(&used, prices, true)
    }

    fn reply(model: &str) -> String {
        let usage = r#"{"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}"#;
        format!(r#"{{"model": "{model}", "choices": [], "usage": {usage}}}"#)
    }

    #[track_caller]
    fn check(charged: (Amounts, Option<u64>), tokens: u64, cost_micro_usd: u64) {
        assert_eq!(charged, (Amounts { tokens, cost_micro_usd }, Some(cost_micro_usd)));
    }

    #[test]
    fn a_response_costs_what_the_model_costs_that_served_it() {
        let of = |model| charged(200, &reply(model), End::Complete, &prices());
        check(of("m"), 24, 60);
        check(of("small"), 24, 14);
        // Without a price, as the one that was asked for.
        check(of("other"), 24, 60);
    }

    #[test]
    fn what_is_not_known_costs_what_was_reserved() {
        check(charged(200, "{}", End::Complete, &prices()), 100, 900);
        let cut = reply("m").split_off(30);
        check(charged(200, &cut, End::ClientLeft, &prices()), 100, 900);
        check(charged(429, "{}", End::Complete, &prices()), 0, 0);
    }

    /// The configuration has changed in between.
    #[test]
    fn what_has_no_price_any_more_costs_what_was_reserved() {
        check(charged(200, &reply("m"), End::Complete, &Prices::default()), 24, 900);
    }

    /// The response comes before the result, or the client asked for that and the server did otherwise.
    #[test]
    fn a_deferred_request_costs_what_is_reported_and_at_least_what_was_reserved() {
        let of = |body: &str| {
            let mut facts = facts();
            facts.deferred = true;
            let charge = charge(facts, 200, body, End::Complete, &prices());
            assert!(!charge.is_missing, "{body}");
            (charge.amounts(), charge.tokens.source)
        };
        let amounts = |tokens, cost_micro_usd| Amounts { tokens, cost_micro_usd };
        let large = reply("m").replace(": 4,", ": 400,").replace(": 24}", ": 420}");
        assert_eq!(of(&large), (amounts(420, 4020), TokenSource::Partial));
        assert_eq!(of(&reply("m")), (amounts(100, 900), TokenSource::Partial));
        assert_eq!(of("{}"), (amounts(100, 900), TokenSource::Reserved));
    }
}
