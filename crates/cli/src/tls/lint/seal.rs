//! The seal of a listener: the filter that rejects requests which the module has not allowed.

use serde_json::Value;
use vkey::host::FilterState;

use super::super::document::{at, get, is_choice, is_true, items, text, typed};
use super::finding::{Element, Finding, LintRule};
use super::managers::Manager;
use super::overrides::Overrides;
use super::plugin::Extensions;
use super::switched_off::PUBLIC;

/// The filter state of an allowed request.
pub(crate) const SEAL: &str = FilterState::Decision.shown_key();

/// Its value.
const ALLOWED: &str = "allow";

/// A listener without an effective seal. `overrides` are the settings on its routes.
pub(super) fn finding<'a>(
    manager: &Manager<'a>,
    overrides: &Overrides<'a>,
    extensions: &Extensions<'a>,
) -> Option<Finding> {
    let usual = gap(manager.behind, overrides, extensions);
    let upgraded = || {
        let gap = |(kind, filters)| Some((kind, gap(filters, overrides, extensions)?));
        let (kind, gap) = manager.upgrades().find_map(gap)?;
        Some(format!("in the filters of upgrades to {kind}: {gap}"))
    };
    Some(missing(manager.listener, usual.or_else(upgraded)?))
}

/// The finding for a listener.
pub(super) fn missing(listener: &str, reason: String) -> Finding {
    Finding {
        element: Element::Listener(listener.to_owned()),
        rule: LintRule::SealMissing,
        reason,
        fix: format!(
            "write an envoy.filters.http.rbac behind the module with rules: {{action: ALLOW, \
             policies: {{allowed-by-vkey: {{permissions: [{{any: true}}], principals: \
             [{{filter_state: {{key: {SEAL}, string_match: {{exact: {ALLOWED}}}}}}}]}}}}}}, and let \
             no route switch it off; {PUBLIC}"
        ),
    }
}

/// Why requests pass that the module has not allowed, if no filter after it is the seal.
pub(super) fn absent() -> String {
    format!("no RBAC filter behind the module refuses requests without the filter state {SEAL}")
}

/// How a request that the module has not allowed passes the filters.
fn gap<'a>(
    filters: &'a [Value],
    overrides: &Overrides<'a>,
    extensions: &Extensions<'a>,
) -> Option<String> {
    let seals = Vec::from_iter(filters.iter().filter(|filter| is_seal(filter, extensions)));
    let Some(seal) = seals.iter().find(|seal| !is_true(seal, "disabled")) else {
        return Some(match seals.first().and_then(|seal| text(seal, "name")) {
            Some(name) => format!("the seal {name} is disabled in the HTTP connection manager"),
            None => absent(),
        });
    };
    let name = text(seal, "name")?;
    if is_true(seal, "is_optional") {
        return Some(format!(
            "the seal {name} is optional: an Envoy that lacks RBAC leaves it out"
        ));
    }
    let place = lifted(name, overrides)?;
    Some(format!("the seal {name} is lifted in {place}"))
}

/// Where routes disable the seal of that name.
fn lifted(name: &str, overrides: &Overrides<'_>) -> Option<String> {
    let is_lifted = |kind: &str, setting: &Value| {
        kind.ends_with(".RBACPerRoute") && !get(setting, "rbac").is_some_and(refuses_unsealed)
    };
    overrides.find(name, is_lifted).map(|place| place.in_words())
}

/// Whether a filter refuses what the module has not allowed.
pub(super) fn is_seal<'a>(filter: &'a Value, extensions: &Extensions<'a>) -> bool {
    let config = extensions.filter(filter);
    config.is_some_and(|(kind, config)| kind.ends_with(".RBAC") && refuses_unsealed(config))
}

/// Whether every unsealed request is rejected.
fn refuses_unsealed(rbac: &Value) -> bool {
    let Some(rules) = get(rbac, "rules") else {
        return get(rbac, "matcher").is_some_and(|matcher| !allows_unsealed(matcher));
    };
    let policies = get(rules, "policies").and_then(Value::as_object);
    let mut policies = policies.into_iter().flat_map(serde_json::Map::values);
    if is_choice(rules, "action", "DENY", 1) {
        policies.any(denies_unsealed)
    } else if is_choice(rules, "action", "LOG", 2) {
        false
    } else {
        // One matching policy is enough.
        policies.all(|policy| all(items(policy, "principals"), is_sealed))
    }
}

/// Whether a matcher may allow an unsealed request. RBAC denies what no branch is for.
fn allows_unsealed(matcher: &Value) -> bool {
    let list = at(matcher, &["matcher_list"]).map_or(&[][..], |list| items(list, "matchers"));
    let by_list = list.iter().any(|branch| {
        !get(branch, "predicate").is_some_and(asks_for_seal) && is_open(get(branch, "on_match"))
    });
    let by_tree = get(matcher, "matcher_tree").is_some_and(tree_allows_unsealed);
    by_list || by_tree || is_open(get(matcher, "on_no_match"))
}

fn tree_allows_unsealed(tree: &Value) -> bool {
    let reads_seal = get(tree, "input").is_some_and(is_seal_input);
    let is_open_map = |name: &str, is_exact: bool| {
        let map = at(tree, &[name, "map"]).and_then(Value::as_object);
        map.into_iter().flatten().any(|(value, branch)| {
            !(reads_seal && is_exact && value == ALLOWED) && is_open(Some(branch))
        })
    };
    is_open_map("exact_match_map", true)
        || is_open_map("prefix_match_map", false)
        || get(tree, "custom_match").is_some()
}

/// Whether a branch may allow an unsealed request that reaches it.
fn is_open(branch: Option<&Value>) -> bool {
    let Some(branch) = branch else { return false };
    if let Some(matcher) = get(branch, "matcher") {
        return allows_unsealed(matcher);
    }
    let action = at(branch, &["action", "typed_config"]).map(|action| typed(action).1);
    !action.is_some_and(|action| is_choice(action, "action", "DENY", 1))
}

/// Whether a predicate only holds for sealed requests.
fn asks_for_seal(predicate: &Value) -> bool {
    let parts = |name: &str| get(predicate, name).map_or(&[][..], |list| items(list, "predicate"));
    let is_exact = |single: &Value| {
        get(single, "input").is_some_and(is_seal_input)
            && at(single, &["value_match", "exact"]).and_then(Value::as_str) == Some(ALLOWED)
    };
    get(predicate, "single_predicate").is_some_and(is_exact)
        || parts("and_matcher").iter().any(asks_for_seal)
        || all(parts("or_matcher"), asks_for_seal)
}

/// Whether an input is the filter state of allowed requests.
fn is_seal_input(input: &Value) -> bool {
    let input = get(input, "typed_config").map(typed);
    input.is_some_and(|(kind, input)| {
        kind.ends_with(".FilterStateInput") && text(input, "key") == Some(SEAL)
    })
}

fn denies_unsealed(policy: &Value) -> bool {
    let is_unsealed = |id: &Value| is_true(id, "any") || get(id, "not_id").is_some_and(is_allowed);
    let conditions = ["condition", "checked_condition"];
    items(policy, "permissions").iter().any(|permission| is_true(permission, "any"))
        && items(policy, "principals").iter().any(is_unsealed)
        && conditions.iter().all(|condition| get(policy, condition).is_none())
}

/// Whether the principal is limited to sealed requests.
fn is_sealed(id: &Value) -> bool {
    let any = at(id, &["and_ids"]).is_some_and(|ids| items(ids, "ids").iter().any(is_sealed));
    let every = get(id, "or_ids").is_some_and(|ids| all(items(ids, "ids"), is_sealed));
    is_allowed(id) || any || every
}

/// Whether the principal is every sealed request.
fn is_allowed(id: &Value) -> bool {
    let state = get(id, "filter_state").filter(|state| text(state, "key") == Some(SEAL));
    let exact = state.and_then(|state| at(state, &["string_match", "exact"]));
    exact.and_then(Value::as_str) == Some(ALLOWED)
}

/// Whether the list is not empty, and all items satisfy a condition.
fn all(items: &[Value], holds: fn(&Value) -> bool) -> bool {
    !items.is_empty() && items.iter().all(holds)
}
