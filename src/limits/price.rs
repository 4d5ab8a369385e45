//! What models cost, and what a request costs by that.
//!
//! Prices are whole micro-USD per million tokens, so a cost is exact until it is rounded up, once, to a whole micro-USD.

use std::iter::once;

use crate::body::TokenUsage;
use crate::body::response::ModelUsage;
use crate::glob::Globs;
use crate::json::{Invalid, Json, Members, Node};
use crate::limits::money::{MICROS, micros};

/// The most prices of a configuration. A request looks through them.
pub const MAX_PRICES: usize = 1_000;

/// The highest price in micro-USD: a million dollars.
const MAX_MICRO_USD: u64 = 1_000_000 * MICROS;

/// The highest factor of a service tier, in millionths.
const MAX_FACTOR: u64 = 1_000 * MICROS;

/// How many tokens there may be for each token of an estimate, which counts four bytes as one.
const TOKENS_PER_ESTIMATED: u64 = 4;

/// A micro-USD, in the unit of what is not rounded yet: tokens × micro-USD per million tokens × millionths.
const EXACT: u128 = MICROS as u128 * MICROS as u128;

/// The prices of a configuration. The price of a model is the first one with a glob that matches its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices {
    list: Box<[(Globs, Price)]>,
}

/// The price of some models.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    rates: Rates,
    /// By the tokens of the input, in ascending order.
    above: Box<[Step]>,
    request_micro_usd: u64,
    service_tiers: Box<[ServiceTier]>,
    reserve_tokens: Option<u64>,
}

/// The rates of requests with more tokens of input than this.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    input_tokens: u64,
    rates: Rates,
}

/// A service tier, and its factor in millionths.
#[derive(Clone, Debug, PartialEq)]
struct ServiceTier {
    name: Box<str>,
    factor: u64,
}

/// Micro-USD per million tokens.
#[derive(Clone, Debug, PartialEq)]
struct Rates {
    input: u64,
    cached_input: u64,
    cache_write: u64,
    cache_write_1h: u64,
    output: u64,
    reasoning: u64,
}

/// What a response reports that decides what it costs.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// The tokens that its model used.
    pub usage: &'a TokenUsage,
    /// The model that it names, if any.
    pub model: Option<&'a str>,
    /// The service tier that it names, if any.
    pub service_tier: Option<&'a str>,
    /// What further steps used for it, which `usage` does not contain.
    pub extra: &'a [ModelUsage],
}

// === impl Prices ===

impl Prices {
    /// Reads prices: an object whose members are named by globs over the names of models, or a list of objects, each
    /// with `models`, a list of globs. The list is for tools that do not keep the order of an object.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the member and what belongs there. A price that would never be used, because earlier ones are
    /// for all of its models, is an error.
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let mut list = Vec::new();
        let known = [&RATES as &[_], &MEMBERS].concat();
        if let Json::Array(_) = node.value() {
            let known = [&*known, &["models"]].concat();
            for item in node.items()? {
                let members = item.members(&known)?;
                let models = members.require("models")?;
                let models: Result<Vec<_>, _> = models.items()?.map(|glob| glob.string()).collect();
                add(&mut list, &item, &models?, &members)?;
            }
        } else {
            for (models, entry) in node.entries()? {
                add(&mut list, &entry, &[models], &entry.members(&known)?)?;
            }
        }
        Ok(Self { list: list.into() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether no model has a price.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The price of a model.
    pub fn of(&self, model: &str) -> Option<&Price> {
        self.list.iter().find(|(models, _)| models.matches(model)).map(|(_, price)| price)
    }

    /// The tokens of output to reserve for a request that names these models and no bound: the most of what their
    /// prices say, and `default` for a model of which none says it.
    pub fn reserve_tokens(&self, models: &[Box<str>], default: u64) -> u64 {
        let of = |model: &str| self.of(model)?.reserve_tokens;
        models.iter().map(|model| of(model).unwrap_or(default)).max().unwrap_or(default)
    }

    /// What a request that names these models may cost, in micro-USD: its tokens at the highest rates that can apply,
    /// of the model that costs most. `None` if one of the models has no price, or none is named.
    ///
    /// `input_tokens` is an estimate. There can be up to four times as many, so the rates of longer requests apply from
    /// a fourth of their length.
    pub fn reservation(
        &self,
        models: &[Box<str>],
        input_tokens: u64,
        output_tokens: u64,
    ) -> Option<u64> {
        let mut most = None;
        for model in models {
            most = most.max(Some(self.of(model)?.most(input_tokens, output_tokens)));
        }
        most.map(rounded_up)
    }

    /// What a response cost, in micro-USD, by the price of the model that it names. If that has no price, or no model is
    /// named: by the price of the model `asked` for that makes it dearest. `None` if none of these has a price.
    pub fn cost(&self, served: &Served<'_>, asked: &[Box<str>]) -> Option<u64> {
        let Served { usage, model, service_tier, extra } = *served;
        let of =
            |price: &Price| price.cost(usage, service_tier).saturating_add(price.per_request());
        let mut cost = self.dearest(model, asked, &of)?;
        for ModelUsage { model: other, usage, .. } in extra {
            let of = |price: &Price| price.cost(usage, service_tier);
            let model = other.as_deref().or(model);
            cost = cost.saturating_add(self.dearest(model, asked, &of)?);
        }
        Some(rounded_up(cost))
    }

    fn dearest(
        &self,
        served: Option<&str>,
        asked: &[Box<str>],
        cost: &dyn Fn(&Price) -> u128,
    ) -> Option<u128> {
        match served.and_then(|model| self.of(model)) {
            Some(price) => Some(cost(price)),
            None => asked.iter().filter_map(|model| self.of(model)).map(cost).max(),
        }
    }
}

/// The members of rates.
const RATES: [&str; 6] = [
    "input_usd_per_mtok",
    "cached_input_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "cache_write_1h_usd_per_mtok",
    "output_usd_per_mtok",
    "reasoning_usd_per_mtok",
];

/// The members that a price has besides.
const MEMBERS: [&str; 4] = ["request_usd", "above", "service_tiers", "reserve_tokens"];

const NEVER_USED: &str = "never used, because earlier prices are for all of these models: put it before them, and write \
    prices as a list where they go through Kubernetes, which sorts the names of an object";

/// Adds a price. `models`: the globs that it is for.
fn add(
    list: &mut Vec<(Globs, Price)>,
    node: &Node<'_>,
    models: &[&str],
    members: &Members<'_>,
) -> Result<(), Invalid> {
    if models.is_empty() || models.contains(&"") {
        return Err(
            node.unusable("expected at least one glob over the names of models, and no empty one")
        );
    }
    if list.len() >= MAX_PRICES {
        return Err(
            node.unusable("there are 1000 prices before it; use globs for models of one price")
        );
    }
    // If a glob matches the text of another one, its stars take whatever the stars of that one take.
    let is_known = |glob: &&str| list.iter().any(|(earlier, _)| earlier.matches(glob));
    if models.iter().all(is_known) {
        return Err(node.unusable(NEVER_USED));
    }
    list.push((Globs::names(models), Price::read(members)?));
    Ok(())
}

// === impl Price ===

impl Price {
    fn read(members: &Members<'_>) -> Result<Self, Invalid> {
        let rates = Rates::read(members, None)?;
        Ok(Self {
            above: members.read("above", |list| steps(list, &rates))?.unwrap_or_default(),
            request_micro_usd: members.read("request_usd", usd)?.unwrap_or(0),
            service_tiers: members.read("service_tiers", factors)?.unwrap_or_default(),
            reserve_tokens: members.read("reserve_tokens", tokens)?,
            rates,
        })
    }

    /// What these tokens cost.
    fn cost(&self, usage: &TokenUsage, service_tier: Option<&str>) -> u128 {
        let step = self.above.iter().rfind(|step| usage.input > step.input_tokens);
        let rates = step.map_or(&self.rates, |step| &step.rates);
        let named = self.service_tiers.iter().find(|tier| service_tier == Some(&*tier.name));
        let factor = named.map_or(MICROS, |tier| tier.factor);
        rates.cost(usage).saturating_mul(factor.into())
    }

    /// The most that a request may cost.
    fn most(&self, input_tokens: u64, output_tokens: u64) -> u128 {
        let longest = input_tokens.saturating_mul(TOKENS_PER_ESTIMATED);
        let steps = self.above.iter().filter(|step| step.input_tokens < longest);
        let rates = once(&self.rates).chain(steps.map(|step| &step.rates));
        let most = rates.map(|rates| rates.most(input_tokens, output_tokens)).max().unwrap_or(0);
        let factor = self.service_tiers.iter().map(|tier| tier.factor).fold(MICROS, u64::max);
        most.saturating_mul(factor.into()).saturating_add(self.per_request())
    }

    /// What a request costs besides its tokens.
    fn per_request(&self) -> u128 {
        u128::from(self.request_micro_usd).saturating_mul(EXACT)
    }
}

/// Reads the rates of longer requests.
fn steps(node: &Node<'_>, rates: &Rates) -> Result<Box<[Step]>, Invalid> {
    let mut steps: Vec<Step> = Vec::new();
    let known = [&RATES as &[_], &["input_tokens"]].concat();
    for item in node.items()? {
        let members = item.members(&known)?;
        let (least, before) =
            steps.last().map_or((0, rates), |step| (step.input_tokens, &step.rates));
        let above = members.require("input_tokens")?;
        let input_tokens = match above.integer()? {
            tokens if tokens > least => tokens,
            _ => return Err(above.expected("more tokens than in the step before, at least 1")),
        };
        let rates = Rates::read(&members, Some(before))?;
        steps.push(Step { input_tokens, rates });
    }
    Ok(steps.into())
}

/// Reads the factors of service tiers.
fn factors(node: &Node<'_>) -> Result<Box<[ServiceTier]>, Invalid> {
    let mut factors = Vec::new();
    for (name, entry) in node.entries()? {
        match micros(&entry)? {
            factor @ 0..=MAX_FACTOR => factors.push(ServiceTier { name: name.into(), factor }),
            _ => return Err(entry.expected("at most \"1000\"")),
        }
    }
    Ok(factors.into())
}

/// Reads a price in dollars.
fn usd(node: &Node<'_>) -> Result<u64, Invalid> {
    match micros(node)? {
        micro_usd @ 0..=MAX_MICRO_USD => Ok(micro_usd),
        _ => Err(node.expected("at most \"1000000\"")),
    }
}

/// Reads a number of tokens to reserve.
///
/// # Errors
///
/// [`Invalid`] if it is not an integer from 1 to 1000000000.
pub fn tokens(node: &Node<'_>) -> Result<u64, Invalid> {
    match node.integer()? {
        tokens @ 1..=1_000_000_000 => Ok(tokens),
        _ => Err(node.expected("1 to 1000000000")),
    }
}

// === impl Rates ===

impl Rates {
    /// Reads rates. What is absent costs as much as what is like it and not cheaper: tokens from a cache and written to
    /// it as other input, those written for an hour as others that are written, reasoning as other output. It is never
    /// cheaper than in the step `before`.
    fn read(members: &Members<'_>, before: Option<&Self>) -> Result<Self, Invalid> {
        let own = |name: &'static str, before: Option<u64>| match (members.get(name), before) {
            (None, Some(rate)) => Ok(rate),
            (None, None) => members.require(name).and_then(|node| usd(&node)),
            (Some(node), _) => usd(&node),
        };
        let like = |name: &'static str, other: u64, before: Option<u64>| {
            let rate = members.read(name, usd)?;
            Ok(rate.unwrap_or_else(|| other.max(before.unwrap_or(0))))
        };
        let [input, cached, write, write_1h, output, reasoning] = RATES;
        let input = own(input, before.map(|rates| rates.input))?;
        let output = own(output, before.map(|rates| rates.output))?;
        let cache_write = like(write, input, before.map(|rates| rates.cache_write))?;
        Ok(Self {
            cached_input: like(cached, input, before.map(|rates| rates.cached_input))?,
            cache_write_1h: like(write_1h, cache_write, before.map(|rates| rates.cache_write_1h))?,
            reasoning: like(reasoning, output, before.map(|rates| rates.reasoning))?,
            input,
            cache_write,
            output,
        })
    }

    /// What these tokens cost, in millionths of a micro-USD. What a total has above its parts costs as the dearest part.
    fn cost(&self, usage: &TokenUsage) -> u128 {
        let TokenUsage {
            input,
            cached_input,
            cache_write,
            cache_write_1h,
            output,
            reasoning,
            total,
        } = *usage;
        let written = cache_write.max(cache_write_1h);
        let known = input.saturating_add(output);
        let parts = [
            (input.saturating_sub(cached_input).saturating_sub(written), self.input),
            (cached_input, self.cached_input),
            (written - cache_write_1h, self.cache_write),
            (cache_write_1h, self.cache_write_1h),
            (output.saturating_sub(reasoning), self.output),
            (reasoning, self.reasoning),
            (total.saturating_sub(known), self.dearest_input().max(self.dearest_output())),
        ];
        parts.into_iter().map(product).fold(0, u128::saturating_add)
    }

    /// The most that these numbers of tokens cost, in millionths of a micro-USD.
    fn most(&self, input_tokens: u64, output_tokens: u64) -> u128 {
        let input = product((input_tokens, self.dearest_input()));
        input.saturating_add(product((output_tokens, self.dearest_output())))
    }

    fn dearest_input(&self) -> u64 {
        self.input.max(self.cached_input).max(self.cache_write).max(self.cache_write_1h)
    }

    fn dearest_output(&self) -> u64 {
        self.output.max(self.reasoning)
    }
}

fn product((tokens, rate): (u64, u64)) -> u128 {
    u128::from(tokens).saturating_mul(rate.into())
}

/// Micro-USD, rounded up once.
fn rounded_up(exact: u128) -> u64 {
    u64::try_from(exact.div_ceil(EXACT)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
