//! Locations among the routes.

use serde_json::Value;

use super::super::document::{get, text};

/// A location among the routes: the names of the enclosing elements.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'a> {
    configuration: Option<&'a str>,
    host: Option<&'a str>,
    route: Option<&'a str>,
    own: Kind,
}

/// The element at the location.
#[derive(Clone, Copy, Default)]
enum Kind {
    #[default]
    Configuration,
    Host,
    Route,
    Part,
}

impl<'a> Place<'a> {
    /// The location of an object inside this one.
    pub(super) fn within(self, object: &'a Value) -> Self {
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

    /// The location as a phrase.
    pub(super) fn in_words(&self) -> String {
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
