//! The HTTP connection managers whose filter chains contain the module.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::document::{NOT_IN_FORCE, at, get, is_true, items, text, typed};
use super::plugin::{Extensions, Front};
use super::routes::Table;
use super::source::Input;

/// An HTTP connection manager with the module.
pub(super) struct Manager<'a> {
    /// Its configuration.
    pub(super) config: &'a Value,
    /// The listener's name; the statistics prefix if there is no listener.
    pub(super) listener: &'a str,
    /// The input that contains it.
    pub(super) file: usize,
    /// The plugin that runs the module.
    pub(super) plugin: &'a Value,
    /// The configuration of the module.
    pub(super) front: Front,
    /// The filters that are the module; at least one.
    pub(super) modules: Vec<&'a Value>,
    /// The filters after the module.
    pub(super) behind: &'a [Value],
}

/// The route configurations that a manager refers to.
#[derive(Clone, Default)]
pub(super) struct Routing<'a> {
    /// Inline route configurations.
    inline: Vec<&'a Value>,
    /// The names of the others.
    names: BTreeSet<&'a str>,
}

/// Finds all managers.
pub(super) fn managers<'a>(inputs: &'a [Input], extensions: &Extensions<'a>) -> Vec<Manager<'a>> {
    let mut managers = Vec::new();
    visit(inputs, &mut |file, config, listener| {
        managers.extend(Manager::new(config, file, listener, extensions));
    });
    managers
}

/// Calls `act` with each manager, with or without the module: its input, its configuration, and its listener's name, or
/// the statistics prefix if there is no listener.
pub(super) fn visit<'a>(inputs: &'a [Input], act: &mut impl FnMut(usize, &'a Value, &'a str)) {
    for (file, input) in inputs.iter().enumerate() {
        let mut in_file = |config, listener| act(file, config, listener);
        input.documents.iter().for_each(|document| find(document, None, &mut in_file));
    }
}

fn find<'a>(value: &'a Value, listener: Option<&'a str>, act: &mut impl FnMut(&'a Value, &'a str)) {
    let (kind, content) = typed(value);
    if kind.ends_with(".HttpConnectionManager") {
        let listener = listener.or_else(|| text(content, "stat_prefix"));
        return act(content, listener.unwrap_or("-"));
    }
    match value {
        Value::Array(items) => {
            items.iter().for_each(|item| find(item, listener, act));
        }
        Value::Object(members) => {
            let chains = ["filter_chains", "default_filter_chain", "api_listener"];
            let is_listener = chains.iter().any(|member| get(value, member).is_some());
            let listener = text(value, "name").filter(|_| is_listener).or(listener);
            let in_force = |name: &str| !NOT_IN_FORCE.contains(&name);
            let members = members.iter().filter(|(name, _)| in_force(name));
            members.for_each(|(_, member)| find(member, listener, act));
        }
        _ => {}
    }
}

impl<'a> Manager<'a> {
    fn new(
        config: &'a Value,
        file: usize,
        listener: &'a str,
        extensions: &Extensions<'a>,
    ) -> Option<Self> {
        let filters = items(config, "http_filters");
        let fronts = filters.iter().map(|filter| extensions.front(filter));
        let (position, front) =
            fronts.enumerate().find_map(|(position, front)| Some((position, front?)))?;
        let modules = filters.iter().filter(|filter| extensions.front(filter).is_some()).collect();
        let plugin = extensions.plugin(filters.get(position)?)?;
        let behind = filters.get(position.saturating_add(1)..).unwrap_or_default();
        Some(Self { config, listener, file, plugin, front, modules, behind })
    }

    /// Whether the module runs only where a route enables it.
    pub(super) fn is_disabled(&self) -> bool {
        self.modules.iter().all(|module| is_true(module, "disabled"))
    }

    /// The filter chains that replace the normal one for upgrades, with the upgrade type.
    pub(super) fn upgrades(&self) -> impl Iterator<Item = (&'a str, &'a [Value])> {
        // Disabled ones count too, because a route may enable them.
        let upgrades = items(self.config, "upgrade_configs").iter();
        let upgrades = upgrades.map(|upgrade| {
            (text(upgrade, "upgrade_type").unwrap_or("-"), items(upgrade, "filters"))
        });
        upgrades.filter(|(_, filters)| !filters.is_empty())
    }

    /// The headers that select a scope of routes.
    pub(super) fn scope_headers(&self) -> impl Iterator<Item = &'a str> {
        let builder = at(self.config, &["scoped_routes", "scope_key_builder"]);
        let fragments = builder.map_or(&[][..], |builder| items(builder, "fragments"));
        fragments
            .iter()
            .filter_map(|fragment| text(get(fragment, "header_value_extractor")?, "name"))
    }
}

impl<'a> Routing<'a> {
    /// The route configurations of a manager; `scopes` are those of all scopes.
    pub(super) fn of(manager: &'a Value, scopes: &Self) -> Self {
        let is_scoped = get(manager, "scoped_routes").is_some();
        let mut routing = if is_scoped { scopes.clone() } else { Self::default() };
        routing.inline.extend(get(manager, "route_config"));
        routing.names.extend(at(manager, &["rds", "route_config_name"]).and_then(Value::as_str));
        routing
    }

    /// Adds the route configurations of an object, if it is a scope.
    pub(super) fn add_scope(&mut self, object: &'a Value) {
        self.inline.extend(get(object, "route_configuration"));
        self.names.extend(text(object, "route_configuration_name"));
    }

    /// Whether a route configuration is among them.
    pub(super) fn includes(&self, table: &Table<'a>) -> bool {
        let is_inline = self.inline.iter().any(|config| std::ptr::eq(*config, table.config));
        is_inline || table.name().is_some_and(|name| self.names.contains(name))
    }

    /// The names that are not among `tables`.
    pub(super) fn missing(&self, tables: &[&Table<'a>]) -> impl Iterator<Item = &'a str> {
        let found: BTreeSet<&str> = tables.iter().filter_map(|table| table.name()).collect();
        self.names.iter().copied().filter(move |name| !found.contains(name))
    }
}
