//! The seal of a gate on Envoy Gateway: a SecurityPolicy whose rule in CEL allows what the module has allowed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::document::{at, get, items, text, walk};
use super::super::plugins::Part;
use super::super::tls;
use super::{GATEWAY, Sealing};

/// The API group of routes and gateways.
pub(super) const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// The filter state, as CEL spells it.
const STATE: &str = "filter_state['wasm.vkey.decision']";

const ALLOWED: &str = "filter_state['wasm.vkey.decision'] == b'allow'";

/// What a policy is attached to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    kind: String,
    name: String,
    /// The listener of a Gateway.
    section: Option<String>,
}

/// The seal of an EnvoyExtensionPolicy or an EnvoyPatchPolicy.
pub(super) fn of_policy(parts: &[Part<'_>], part: &Part<'_>) -> Sealing {
    let spec = get(part.value, "spec").unwrap_or(&Value::Null);
    let is_patch = part.spec(GATEWAY, "EnvoyPatchPolicy").is_some();
    if is_patch && has_seal(spec) {
        return Sealing::default();
    }
    let own = targets(spec);
    let policies =
        parts.iter().filter_map(|other| Some((other, other.spec(GATEWAY, "SecurityPolicy")?)));
    let policies =
        Vec::from_iter(policies.filter(|(other, _)| other.namespace() == part.namespace()));
    let mut reasons = BTreeSet::new();
    let (mut seals, mut others) = (Vec::new(), Vec::new());
    for (other, policy) in &policies {
        match flaw(policy) {
            None => seals.push((other, targets(policy))),
            Some(flaw) => {
                let is_attached = targets(policy).iter().any(|target| own.contains(target));
                if is_attached || names_state(policy) {
                    reasons.insert(format!("{other}: {flaw}"));
                }
                others.push((other, policy));
            }
        }
    }
    let selectors = items(spec, "targetSelectors");
    let covers_selectors = selectors.iter().all(|selector| {
        let has = |(_, policy): &(&Part<'_>, &Value)| {
            flaw(policy).is_none() && items(policy, "targetSelectors").contains(selector)
        };
        policies.iter().any(has)
    });
    let is_sealed = |target: &Target| seals.iter().any(|(_, sealed)| target.is_in(sealed));
    if !own.iter().all(is_sealed) || !covers_selectors || own.is_empty() && selectors.is_empty() {
        reasons.extend(seals.iter().map(|(seal, _)| {
            format!("{seal}: its targetRefs and targetSelectors lack one of those of {part}")
        }));
        return Sealing::missing(match reasons.is_empty() {
            true => format!(
                "no SecurityPolicy in the file and the namespace has a rule with action: Allow and cel: {ALLOWED}, so that \
                 every request passes if the module is not there"
            ),
            false => Vec::from_iter(reasons).join("; "),
        });
    }
    let replaced = others.iter().find(|(_, policy)| replaces(policy, &own, part, parts));
    let fault = replaced.map(|(other, _)| {
        format!(
            "{other} replaces it for its own targets; add the rule there too, or set its mergeType"
        )
    });
    Sealing { fault, note: None }
}

/// Why a SecurityPolicy allows requests that the module has not allowed, or refuses all.
fn flaw(policy: &Value) -> Option<String> {
    let Some(authorization) = get(policy, "authorization") else {
        return Some(format!(
            "spec.authorization: expected a rule with action: Allow and cel: {ALLOWED}"
        ));
    };
    if text(authorization, "defaultAction").is_some_and(|action| action != "Deny") {
        let text = "spec.authorization.defaultAction: expected Deny: any other lets requests pass without the module";
        return Some(text.to_owned());
    }
    let rules = items(authorization, "rules").iter().enumerate();
    let mut allowing = rules.filter(|(_, rule)| text(rule, "action") != Some("Deny")).peekable();
    if allowing.peek().is_none() {
        return Some(format!(
            "spec.authorization.rules: expected action: Allow and cel: {ALLOWED}"
        ));
    }
    allowing.find_map(|(index, rule)| {
        let cel = text(rule, "cel").map(normalized).unwrap_or_default();
        let place = format!("spec.authorization.rules[{index}]");
        if is_sealed(&cel) {
            None
        } else if cel.contains(&normalized(&format!("{STATE} == 'allow'"))) {
            Some(format!(
                "{place}.cel: the filter state is bytes, and equals no string, so that every request is refused; write {ALLOWED}"
            ))
        } else {
            Some(format!("{place} allows what the module has not allowed; expected cel: {ALLOWED}"))
        }
    })
}

/// Whether an expression only holds for what the module has allowed. It has one spelling, alone or joined by `&&` with
/// others, none of which is a comment or spans it.
fn is_sealed(cel: &str) -> bool {
    let is_and = !["||", "?", "//"].iter().any(|sign| cel.contains(sign));
    let is_whole = |part: &str| part.matches('(').count() == part.matches(')').count();
    let mut parts = cel.split("&&");
    is_and && parts.clone().all(is_whole) && parts.any(|part| part == normalized(ALLOWED))
}

/// An expression without spaces, and with one kind of quotes.
fn normalized(cel: &str) -> String {
    let characters = cel.chars().filter(|c| !c.is_whitespace());
    characters.map(|c| if c == '"' { '\'' } else { c }).collect()
}

/// Whether a policy mentions the filter state.
fn names_state(policy: &Value) -> bool {
    let rules = get(policy, "authorization").map_or(&[][..], |rules| items(rules, "rules"));
    rules.iter().any(|rule| text(rule, "cel").is_some_and(|cel| cel.contains(tls::SEAL)))
}

/// Whether a value has a seal, as a filter of Envoy.
fn has_seal(spec: &Value) -> bool {
    let mut has_seal = false;
    walk(spec, &mut |object| has_seal |= tls::is_seal(object));
    has_seal
}

/// Whether a policy without a seal takes the place of one for these targets.
fn replaces(policy: &Value, own: &BTreeSet<Target>, part: &Part<'_>, parts: &[Part<'_>]) -> bool {
    // Merged rules can take the place of the seal's.
    let merges = get(policy, "mergeType").is_some() && get(policy, "authorization").is_none();
    targets(policy).iter().any(|target| {
        let is_listener = || {
            target.section.is_some() && own.contains(&Target { section: None, ..target.clone() })
        };
        let is_gateway = own.iter().any(|own| own.kind == "Gateway");
        let is_route = target.kind.ends_with("Route") && is_gateway && !merges;
        is_listener() || is_route && leads_to(target, own, part, parts)
    })
}

/// Whether a route may be of one of the gateways. One that is not in the file may be.
fn leads_to(route: &Target, own: &BTreeSet<Target>, part: &Part<'_>, parts: &[Part<'_>]) -> bool {
    let is_route = |other: &&Part<'_>| {
        other.spec(GATEWAY_API, &route.kind).is_some()
            && other.name() == route.name
            && other.namespace() == part.namespace()
    };
    let Some(found) = parts.iter().find(is_route) else { return true };
    let parents = at(found.value, &["spec"]).map_or(&[][..], |spec| items(spec, "parentRefs"));
    let is_own = |parent: &Value| own.iter().any(|own| text(parent, "name") == Some(&own.name));
    parents.iter().any(is_own)
}

fn targets(spec: &Value) -> BTreeSet<Target> {
    let word = |target, name| text(target, name).map(str::to_owned);
    let target = |target| Target {
        kind: word(target, "kind").unwrap_or_default(),
        name: word(target, "name").unwrap_or_default(),
        section: word(target, "sectionName"),
    };
    items(spec, "targetRefs").iter().chain(get(spec, "targetRef")).map(target).collect()
}

impl Target {
    /// Whether it, or the whole of which it is a part, is among others.
    fn is_in(&self, others: &BTreeSet<Self>) -> bool {
        others.contains(self) || others.contains(&Self { section: None, ..self.clone() })
    }
}
