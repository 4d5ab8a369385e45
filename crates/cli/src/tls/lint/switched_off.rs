//! Finds routes on which the module does not run.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::document::{get, is_true, text, typed};
use super::edge;
use super::finding::{Element, Finding, InFile, LintRule, Note};
use super::managers::Manager;
use super::place::Place;
use super::routes::{Table, weighted};

/// How to let requests pass without a key.
pub(super) const PUBLIC: &str = "to let requests pass without a key, name them in the module's \
                                 configuration: \"public\": [{\"methods\": [\"GET\"], \"paths\": \
                                 [\"/healthz\"]}]";

/// Whether the module runs for requests to one destination.
#[derive(Clone, Copy)]
enum State<'a> {
    On,
    /// A setting at this place disables the filter of this name.
    Off(Place<'a>, &'a str),
    /// The filter is disabled, and no setting enables it for the destination at this place.
    OffByDefault(Place<'a>),
}

/// The results for one listener.
#[derive(Default)]
pub(super) struct SwitchedOff {
    /// The findings.
    pub(super) findings: Vec<InFile<Finding>>,
    /// The notes, about the listener.
    pub(super) notes: Vec<Note>,
}

/// Checks the routes of a listener. `is_complete` is whether all its route configurations are in the input,
/// `is_sealed` whether the seal refuses what the module has not allowed.
pub(super) fn check(
    manager: &Manager<'_>,
    tables: &[&Table<'_>],
    is_complete: bool,
    is_sealed: bool,
) -> SwitchedOff {
    let effect = effect(manager, is_sealed);
    let mut result = SwitchedOff::default();
    result.findings.extend(optional(manager, &effect));
    let (mut on, mut by_default) = (0_usize, BTreeMap::new());
    for table in tables {
        for state in states(table, &manager.modules) {
            match state {
                State::On => on = on.saturating_add(1),
                State::Off(place, name) => {
                    result.findings.push(InFile::new(table.file, off(place, name, &effect)));
                }
                State::OffByDefault(place) => {
                    by_default.entry(place.in_words()).or_insert(());
                }
            }
        }
    }
    let places = Vec::from_iter(by_default.into_keys());
    result.add_disabled(manager, &places, on > 0, is_complete, &effect);
    result
}

impl SwitchedOff {
    /// Adds what is to say about filters that are disabled in the HTTP connection manager, with the places
    /// for which no route enables them.
    fn add_disabled(
        &mut self,
        manager: &Manager<'_>,
        places: &[String],
        is_on_somewhere: bool,
        is_complete: bool,
        effect: &str,
    ) {
        let note = |text: String| Note { place: manager.listener.to_owned(), text };
        if let Some(first) = places.first().filter(|_| is_on_somewhere) {
            let others = places.len().saturating_sub(1);
            let more = if others == 0 { String::new() } else { format!(", and in {others} more") };
            self.notes.push(note(format!(
                "the module runs only where a route enables it, and it does not in {first}{more}"
            )));
        } else if !is_on_somewhere && (!places.is_empty() || !is_complete) && manager.is_disabled()
        {
            if is_complete {
                self.findings.push(InFile::new(manager.file, disabled(manager, effect)));
            } else {
                let text = "the module is disabled, and whether a route enables it is not known";
                self.notes.push(note(text.to_owned()));
            }
        }
    }
}

/// What happens where the module is off.
fn effect(manager: &Manager<'_>, is_sealed: bool) -> String {
    let effect = if is_sealed {
        "the seal refuses every request there"
    } else if edge::keeps_identity(manager.config) {
        "requests pass there without a key, and an x-vkey-tenant that a client forges reaches the upstream"
    } else {
        "requests pass there without a key, and only early_header_mutation_extensions keep an \
         x-vkey-tenant that a client forges from the upstream"
    };
    effect.to_owned()
}

fn off(place: Place<'_>, name: &str, effect: &str) -> Finding {
    let place = place.in_words();
    Finding {
        element: Element::Route(place.clone()),
        rule: LintRule::ModuleSwitchedOff,
        reason: format!("the filter {name}, which is the module, is switched off: {effect}"),
        fix: format!("in {place} remove {name} from typed_per_filter_config; {PUBLIC}"),
    }
}

fn disabled(manager: &Manager<'_>, effect: &str) -> Finding {
    let name = manager.modules.first().and_then(|module| text(module, "name")).unwrap_or("-");
    Finding {
        element: Element::Listener(manager.listener.to_owned()),
        rule: LintRule::ModuleSwitchedOff,
        reason: format!(
            "the filter {name}, which is the module, is disabled, and no route enables it: {effect}"
        ),
        fix: format!("in the HTTP connection manager remove disabled from {name}; {PUBLIC}"),
    }
}

fn optional(manager: &Manager<'_>, effect: &str) -> Option<InFile<Finding>> {
    let is_optional = manager.modules.iter().all(|module| is_true(module, "is_optional"));
    let module = manager.modules.first().filter(|_| is_optional)?;
    let name = text(module, "name").unwrap_or("-");
    let finding = Finding {
        element: Element::Listener(manager.listener.to_owned()),
        rule: LintRule::ModuleSwitchedOff,
        reason: format!(
            "the filter {name}, which is the module, is optional: an Envoy that lacks Wasm leaves it out, and {effect}"
        ),
        fix: format!("in the HTTP connection manager remove is_optional from {name}"),
    };
    Some(InFile::new(manager.file, finding))
}

/// The state for each destination of a route configuration. Redirects and direct responses have none.
fn states<'a>(table: &Table<'a>, modules: &[&'a Value]) -> Vec<State<'a>> {
    let mut states = Vec::new();
    for host in &table.hosts {
        for route in &host.routes {
            let Some(action) = route.action() else { continue };
            let around = [
                (route.config, route.place),
                (host.config, host.place),
                (table.config, table.place),
            ];
            let parts = weighted(action).iter().map(|part| (part, route.place.within(part)));
            let parts = Vec::from_iter(parts.map(|part| [&[part][..], &around].concat()));
            let scopes = if parts.is_empty() { vec![around.to_vec()] } else { parts };
            states.extend(scopes.iter().map(|scopes| state(scopes, modules)));
        }
    }
    states
}

/// The state where these objects apply, the nearest first. One filter with the module is enough.
fn state<'a>(scopes: &[(&'a Value, Place<'a>)], modules: &[&'a Value]) -> State<'a> {
    let states = Vec::from_iter(modules.iter().map(|module| state_of(scopes, module)));
    let is_on = states.iter().any(|state| matches!(state, State::On));
    let off = states.into_iter().next().filter(|_| !is_on);
    off.unwrap_or(State::On)
}

/// The nearest setting of a filter counts, and any that does not disable it enables it.
fn state_of<'a>(scopes: &[(&'a Value, Place<'a>)], module: &'a Value) -> State<'a> {
    let name = text(module, "name").unwrap_or_default();
    let setting = |(object, place): &(&'a Value, Place<'a>)| {
        let setting = get(object, "typed_per_filter_config")?.get(name)?;
        Some((is_true(typed(setting).1, "disabled"), *place))
    };
    match scopes.iter().find_map(setting) {
        Some((true, place)) => State::Off(place, name),
        Some((false, _)) => State::On,
        None if is_true(module, "disabled") => {
            State::OffByDefault(scopes.first().map(|(_, place)| *place).unwrap_or_default())
        }
        None => State::On,
    }
}
