//! What `vkey config check` says about AI requests.

use vkey::config::Settings;
use vkey::glob::Globs;
use vkey::issuing::PAIRED;
use vkey::limits::quota::{Quota, Unit};
use vkey::limits::{Limit, Limits, Measured};

use super::limits::text;
use super::text::quoted;

/// Paths of requests that use tokens.
pub(super) const METERED: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/models/m:generateContent",
    "/v1/responses",
    "/v1beta/models/m:generateContent",
    "/v1beta/models/m:streamGenerateContent",
];

/// The lines of the summary.
pub(super) fn summary(settings: &Settings) -> impl Iterator<Item = String> {
    let prices = settings.llm.prices.len();
    let prices = (prices > 0).then(|| format!("prices       {prices}"));
    let audited = settings.llm.audit_tokens;
    let audited = audited.then(|| "tokens       those of all keys are counted".to_owned());
    prices.into_iter().chain(audited)
}

/// What most likely is a mistake, and what to do.
pub(super) fn notes(settings: &Settings) -> Vec<String> {
    let (llm, measured) = (&settings.llm, measured(settings));
    let mut notes = Vec::new();
    if measured.cost && llm.prices.is_empty() {
        notes.push(UNPRICED.to_owned());
    }
    if measured.any() && llm.routes.is_empty() && llm.paths == Globs::paths(&[]) {
        notes.push(NO_PATHS.to_owned());
    }
    for path in METERED.iter().filter(|path| llm.unmetered.matches(path)) {
        notes.push(format!(
            "llm.unmetered exempts {path}, whose requests use tokens: they are neither counted nor limited"
        ));
    }
    for (owner, quota) in quotas(settings) {
        if quota.unit == Unit::Tokens && quota.limit < llm.default_reserve_tokens {
            notes.push(format!(
                "{owner}: {} are less than a request without a bound on its output reserves ({}): it is always \
                 refused; lower llm.default_reserve_tokens, or raise the quota",
                text(&Limit::Quota(quota)),
                llm.default_reserve_tokens
            ));
        }
    }
    notes.extend(paired(settings).map(|owner| format!("{owner}: {PAIRED}")));
    notes
}

/// The tiers and tenants that restrict models and MCP calls together.
fn paired(settings: &Settings) -> impl Iterator<Item = String> {
    let tiers = settings.tiers.iter().map(|(name, tier)| ("tier", name, &tier.only));
    let tenants = settings.tenants.iter().map(|(name, tenant)| ("tenant", name, &tenant.only));
    let paired = tiers.chain(tenants).filter(|(.., only)| only.pairs_models_with_mcp());
    paired.map(|(kind, name, _)| format!("{kind} {}", quoted(name)))
}

const UNPRICED: &str = "there is a quota of cost_usd and no price, so that every request of its keys that names a model \
    is refused (model); add llm.prices";

const NO_PATHS: &str = "llm.paths is empty: requests in formats that are not recognised pass, and count for no quota \
    of tokens or cost_usd; remove it, so that the default holds, or name the paths of your services";

/// The limits of tiers and tenants, each with its owner.
fn limits(settings: &Settings) -> impl Iterator<Item = (String, &Limits)> {
    let owner = |kind: &str, name: &str| format!("{kind} {}", quoted(name));
    let tiers = settings.tiers.iter().map(move |(name, tier)| (owner("tier", name), &tier.limits));
    let tenants = settings.tenants.iter();
    tiers.chain(tenants.map(move |(name, tenant)| (owner("tenant", name), &tenant.limits)))
}

fn measured(settings: &Settings) -> Measured {
    limits(settings).map(|(_, limits)| limits.measured()).fold(Measured::default(), Measured::or)
}

fn quotas(settings: &Settings) -> impl Iterator<Item = (String, Quota)> {
    limits(settings).flat_map(|(owner, limits)| {
        limits.iter().filter_map(move |limit| match limit {
            Limit::Quota(quota) => Some((owner.clone(), quota)),
            Limit::Rate(_) => None,
        })
    })
}
