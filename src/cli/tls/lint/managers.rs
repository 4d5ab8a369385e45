//! The HTTP connection managers in whose chain of filters the module stands.

use serde_json::Value;

use super::super::document::{get, items, text, typed};
use super::plugin::Extensions;
use super::scene::NOT_IN_FORCE;

/// An HTTP connection manager with the module.
pub(super) struct Manager<'a> {
    /// The listener's name; that of its statistics where it stands in no listener.
    pub(super) listener: &'a str,
    /// The filters behind the module.
    pub(super) behind: &'a [Value],
}

/// Finds them all.
pub(super) fn managers<'a>(
    documents: &'a [Value],
    extensions: &Extensions<'a>,
) -> Vec<Manager<'a>> {
    let mut managers = Vec::new();
    documents.iter().for_each(|document| find(document, None, extensions, &mut managers));
    managers
}

fn find<'a>(
    value: &'a Value,
    listener: Option<&'a str>,
    extensions: &Extensions<'a>,
    managers: &mut Vec<Manager<'a>>,
) {
    let (kind, content) = typed(value);
    if kind.ends_with(".HttpConnectionManager") {
        return managers.extend(Manager::new(content, listener, extensions));
    }
    match value {
        Value::Array(items) => {
            items.iter().for_each(|item| find(item, listener, extensions, managers));
        }
        Value::Object(members) => {
            let chains = ["filter_chains", "default_filter_chain", "api_listener"];
            let is_listener = chains.iter().any(|member| get(value, member).is_some());
            let listener = text(value, "name").filter(|_| is_listener).or(listener);
            let in_force = |name: &str| !NOT_IN_FORCE.contains(&name);
            let members = members.iter().filter(|(name, _)| in_force(name));
            members.for_each(|(_, member)| find(member, listener, extensions, managers));
        }
        _ => {}
    }
}

impl<'a> Manager<'a> {
    fn new(
        config: &'a Value,
        listener: Option<&'a str>,
        extensions: &Extensions<'a>,
    ) -> Option<Self> {
        let filters = items(config, "http_filters");
        let position = filters.iter().position(|filter| extensions.is_front(filter))?;
        let listener = listener.or_else(|| text(config, "stat_prefix")).unwrap_or("-");
        let behind = filters.get(position.saturating_add(1)..).unwrap_or_default();
        Some(Self { listener, behind })
    }
}
