//! What gates will refuse about a key that is about to be written.

use std::ops::Range;

use crate::access::restriction::Restriction;
use crate::json::{Integers, Json};
use crate::key::claims::Claims;

use super::names::Names;

/// Findings about a key.
#[derive(Default)]
pub struct Review {
    /// Why every request with the key is refused, each with what to do.
    pub refusals: Vec<String>,
    /// What never holds, although the key may be used.
    pub warnings: Vec<String>,
    /// The gate that the key is for has no prices.
    pub is_unpriced: bool,
    /// It takes no request for an MCP call.
    pub is_without_mcp: bool,
}

impl Review {
    /// Adds a reason for which every request with the key is refused.
    pub fn refuse(&mut self, reason: impl Into<String>) {
        self.refusals.push(reason.into());
    }

    /// Adds a warning.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Reviews the restriction of an option. `valid`: the life of the key, Unix seconds.
    pub fn restriction(&mut self, option: &str, json: &Json, valid: &Range<u64>) {
        let root = json.root(Integers::Digits);
        let Ok(restriction) = Restriction::read(&root) else { return };
        if restriction.limits().measured().cost && self.is_unpriced {
            self.warn(format!("{option}: {UNPRICED}"));
        }
        if !holds_within(&restriction, valid) {
            self.refuse(format!("{option} {OUTLIVED}"));
        }
        if restriction.pairs_models_with_mcp() {
            self.warn(format!("{option}: {PAIRED}"));
        }
        if self.is_without_mcp {
            self.mcp(option, &restriction);
        }
    }

    /// Reviews caveats, each as the one that narrows a key with earlier restrictions.
    pub fn narrowings(&mut self, names: &Names, caveats: &[Json], earlier: &[Restriction]) {
        for (index, caveat) in caveats.iter().enumerate() {
            self.narrowing(&names.nth_caveat(index), caveat, earlier);
        }
    }

    /// Reviews a restriction that narrows a key with earlier ones.
    pub fn narrowing(&mut self, option: &str, json: &Json, earlier: &[Restriction]) {
        let root = json.root(Integers::Digits);
        let Ok(restriction) = Restriction::read(&root) else { return };
        if restriction == Restriction::default() {
            self.warn(format!("{option} {NOTHING}"));
        }
        let has = |is_such: fn(&Restriction) -> bool| earlier.iter().any(is_such);
        let (models, mcp) = (restriction.needs_models(), restriction.needs_mcp_call());
        if models && !mcp && has(Restriction::restricts_mcp) && !has(Restriction::needs_models) {
            self.warn(format!("{option} {NO_CALLS}"));
        } else if mcp
            && !models
            && has(Restriction::restricts_models)
            && !has(Restriction::needs_mcp_call)
        {
            self.warn(format!("{option} {NO_MODELS}"));
        }
    }

    /// Warns of a restriction that a gate without `mcp` never finds to hold.
    fn mcp(&mut self, option: &str, restriction: &Restriction) {
        if let Some(warning) = without_mcp(restriction) {
            self.warn(format!("{option}: {warning}"));
        }
    }

    /// The rest of the life of a key that is narrowed, Unix seconds; `None` if it has expired, which is a reason to refuse.
    pub fn life(&mut self, claims: &Claims, now_secs: u64) -> Option<Range<u64>> {
        if claims.exp <= now_secs {
            self.refuse("the key has expired; mint another");
            return None;
        }
        Some(now_secs.max(claims.iat).max(claims.nbf.unwrap_or(0))..claims.exp)
    }

    /// Reviews caveats, each and all together.
    pub fn caveats(&mut self, names: &Names, caveats: &[Json], valid: &Range<u64>) {
        let refusals = self.refusals.len();
        for (index, caveat) in caveats.iter().enumerate() {
            self.restriction(&names.nth_caveat(index), caveat, valid);
        }
        let together = caveats.iter().fold(valid.clone(), |window, caveat| within(caveat, window));
        if self.refusals.len() == refusals && together.is_empty() && !valid.is_empty() {
            self.refuse(format!("the caveats of {} {APART}", names.caveat));
        }
    }
}

/// What is wrong with a restriction that a gate without `mcp` never finds to hold, or an alternative of it.
pub fn without_mcp(restriction: &Restriction) -> Option<String> {
    if restriction.needs_mcp_call() {
        Some(format!("{WITHOUT_MCP}: every request is refused; {ADD_MCP}"))
    } else if restriction.alternatives().iter().any(Restriction::needs_mcp_call) {
        Some(format!("{WITHOUT_MCP}, alternatives of any_of among them; {ADD_MCP}"))
    } else {
        None
    }
}

/// What to do about a restriction of models and MCP calls.
pub const PAIRED: &str = "models and mcp in one restriction never hold together: models holds for no MCP call, \
    and mcp for nothing else; use any_of: [{\"models\": …}, {\"mcp\": …}]";

const WITHOUT_MCP: &str = "the configuration has no mcp, so restrictions of mcp never hold";

const ADD_MCP: &str = "name the paths of MCP servers in mcp.routes (vkey mcp adds its own path)";

/// What is wrong with a caveat without members.
pub const NOTHING: &str = "restricts nothing: the key may do all that it could before";

const NO_CALLS: &str = "allows AI requests only, so the key can make no MCP call any more; to keep those that it may make, \
    add --tools '*', or use any_of: [{\"models\": …}, {\"mcp\": {}}]";

const NO_MODELS: &str = "allows MCP calls only, so the key can use no model any more; to keep those that it may use, \
    add --models '*', or use any_of: [{\"models\": [\"*\"]}, {\"mcp\": …}]";

const UNPRICED: &str = "the configuration has no prices, so a quota of cost_usd refuses every request that names a \
    model; add llm.prices";

const OUTLIVED: &str = "never allows a request while the key is valid: every request is refused; change its nbf \
    or exp";

const APART: &str =
    "never hold at the same time: every request is refused; change their nbf or exp";

/// The restriction in claims, if it can be read.
pub fn only_of(claims: &Claims) -> Option<Restriction> {
    Restriction::read(&claims.only.as_ref()?.root(Integers::Digits)).ok()
}

/// The part of a window in which a restriction holds, without regard to its alternatives.
fn within(json: &Json, window: Range<u64>) -> Range<u64> {
    match Restriction::read(&json.root(Integers::Digits)) {
        Ok(restriction) => window_of(&restriction, &window),
        Err(_) => window,
    }
}

fn window_of(restriction: &Restriction, valid: &Range<u64>) -> Range<u64> {
    let start = restriction.nbf_secs().map_or(valid.start, |nbf| nbf.max(valid.start));
    let end = restriction.exp_secs().map_or(valid.end, |exp| exp.min(valid.end));
    start..end
}

fn holds_within(restriction: &Restriction, valid: &Range<u64>) -> bool {
    let window = window_of(restriction, valid);
    let alternatives = restriction.alternatives();
    let holds = |alternative: &Restriction| holds_within(alternative, &window);
    !window.is_empty() && (alternatives.is_empty() || alternatives.iter().any(holds))
}
