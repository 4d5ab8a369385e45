//! What routes switch off: a filter of a cluster too is off for the requests of a route that says so.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::document::{get, is_true, text, typed};

/// The filters that some route switches off (`envoy.config.route.v3.FilterConfig`), by name.
#[derive(Default)]
pub(super) struct Overrides<'a> {
    switched_off: BTreeMap<&'a str, Place<'a>>,
}

/// A place among the routes: the parts of what it is in.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    configuration: Option<&'a str>,
    host: Option<&'a str>,
    route: Option<&'a str>,
    own: Kind,
}

/// What has its own settings of filters.
#[derive(Clone, Copy, Default)]
enum Kind {
    #[default]
    Configuration,
    Host,
    Route,
    Part,
}

impl<'a> Overrides<'a> {
    /// Looks through a configuration.
    pub(super) fn new(document: &'a Value) -> Self {
        let mut overrides = Self::default();
        overrides.read(document, Place::default());
        overrides
    }

    /// Where a filter is switched off, in words.
    pub(super) fn switched_off(&self, filter: &str) -> Option<String> {
        self.switched_off.get(filter).map(Place::in_words)
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
        for (name, config) in filters.into_iter().flatten() {
            if is_true(typed(config).1, "disabled") {
                self.switched_off.entry(name).or_insert(place);
            }
        }
    }
}

impl<'a> Place<'a> {
    /// The place of an object that stands in this one.
    fn within(self, object: &'a Value) -> Self {
        let name = Some(text(object, "name").unwrap_or("-"));
        let has = |member| get(object, member).is_some();
        if has("virtual_hosts") {
            Self { configuration: name, own: Kind::Configuration, ..Self::default() }
        } else if has("domains") {
            Self { host: name, route: None, own: Kind::Host, ..self }
        } else if has("match") {
            Self { route: name, own: Kind::Route, ..self }
        } else if matches!(self.own, Kind::Route) && has("typed_per_filter_config") {
            Self { own: Kind::Part, ..self }
        } else {
            self
        }
    }

    fn in_words(&self) -> String {
        let named = |kind: &str, name: Option<&str>| {
            name.map(
                |name| if name == "-" { format!("a {kind}") } else { format!("the {kind} {name}") },
            )
        };
        let part = matches!(self.own, Kind::Part).then(|| "a weighted cluster".to_owned());
        let places = [
            part,
            named("route", self.route),
            named("virtual host", self.host),
            named("route configuration", self.configuration),
        ];
        let places = Vec::from_iter(places.into_iter().flatten());
        if places.is_empty() { "a route".to_owned() } else { places.join(" of ") }
    }
}
