//! Filter settings on routes. A route that disables a filter also disables a cluster's filter for its
//! requests.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::document::{get, is_true, typed};
use super::place::Place;

/// Filter settings on routes, by the name of the filter.
#[derive(Default)]
pub(super) struct Overrides<'a> {
    settings: BTreeMap<&'a str, Vec<(Place<'a>, &'a Value)>>,
}

impl<'a> Overrides<'a> {
    /// Collects the settings in documents or route configurations.
    pub(super) fn new(documents: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut overrides = Self::default();
        documents.into_iter().for_each(|document| overrides.read(document, Place::default()));
        overrides
    }

    /// Where a filter is disabled.
    pub(super) fn switched_off(&self, filter: &str) -> Option<Place<'a>> {
        self.find(filter, |_, _| false)
    }

    /// Where a filter is disabled, or has a setting for which `is_off` is true. The setting is passed with
    /// its type.
    pub(super) fn find(
        &self,
        filter: &str,
        is_off: impl Fn(&'a str, &'a Value) -> bool,
    ) -> Option<Place<'a>> {
        let mut settings = self.settings.get(filter)?.iter();
        let off = settings.find(|(_, setting)| {
            let (kind, content) = typed(setting);
            // `envoy.config.route.v3.FilterConfig` wraps the filter's setting.
            let (kind, inner) = get(content, "config").map_or((kind, content), typed);
            is_true(content, "disabled") || is_off(kind, inner)
        });
        off.map(|(place, _)| *place)
    }

    fn read(&mut self, value: &'a Value, around: Place<'a>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.read(item, around)),
            Value::Object(members) => {
                let place = around.within(value);
                self.add(value, place);
                members.values().for_each(|member| self.read(member, place));
            }
            _ => {}
        }
    }

    fn add(&mut self, object: &'a Value, place: Place<'a>) {
        let filters = get(object, "typed_per_filter_config").and_then(Value::as_object);
        for (name, setting) in filters.into_iter().flatten() {
            self.settings.entry(name).or_default().push((place, setting));
        }
    }
}
