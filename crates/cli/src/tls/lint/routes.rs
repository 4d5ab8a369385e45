//! Route configurations: virtual hosts, their routes, and the clusters that they lead to.

use std::fmt;

use serde_json::Value;

use super::super::document::{get, items, text, walk};
use super::place::Place;

/// A route configuration.
pub(super) struct Table<'a> {
    /// The configuration.
    pub(super) config: &'a Value,
    /// The input that contains it.
    pub(super) file: usize,
    /// Its location.
    pub(super) place: Place<'a>,
    /// Its virtual hosts.
    pub(super) hosts: Vec<Host<'a>>,
}

/// A virtual host.
pub(super) struct Host<'a> {
    /// Its configuration.
    pub(super) config: &'a Value,
    /// Its location.
    pub(super) place: Place<'a>,
    /// Its routes, including those in its matcher tree.
    pub(super) routes: Vec<Route<'a>>,
}

/// A route.
pub(super) struct Route<'a> {
    /// Its configuration.
    pub(super) config: &'a Value,
    /// Its location.
    pub(super) place: Place<'a>,
}

/// Where a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// The cluster of this name.
    Cluster(&'a str),
    /// The cluster that this request header names.
    Header(&'a str),
    /// The cluster that an extension chooses.
    Extension,
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "the cluster {name}"),
            Self::Header(header) => write!(f, "the cluster that the header {header} names"),
            Self::Extension => f.write_str("a cluster that an extension chooses"),
        }
    }
}

impl<'a> Table<'a> {
    /// Parses an object as a route configuration; `None` if it is something else.
    pub(super) fn new(config: &'a Value, file: usize) -> Option<Self> {
        get(config, "virtual_hosts")?;
        let place = Place::default().within(config);
        let hosts = items(config, "virtual_hosts").iter().map(|host| Host::new(host, place));
        Some(Self { config, file, place, hosts: hosts.collect() })
    }

    /// The name that listeners refer to.
    pub(super) fn name(&self) -> Option<&'a str> {
        text(self.config, "name")
    }

    /// Every route.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Route<'a>> {
        self.hosts.iter().flat_map(|host| &host.routes)
    }
}

impl<'a> Host<'a> {
    fn new(config: &'a Value, around: Place<'a>) -> Self {
        let place = around.within(config);
        let mut routes = Vec::from_iter(items(config, "routes"));
        if let Some(matcher) = get(config, "matcher") {
            let is_route = |object: &Value| get(object, "match").is_some();
            walk(matcher, &mut |object| routes.extend(Some(object).filter(|o| is_route(o))));
        }
        let routes = routes.into_iter().map(|config| Route { config, place: place.within(config) });
        Self { config, place, routes: routes.collect() }
    }

    /// The domains of the virtual host.
    pub(super) fn domains(&self) -> &'a [Value] {
        items(self.config, "domains")
    }
}

impl<'a> Route<'a> {
    /// The action of a route that forwards to a cluster.
    pub(super) fn action(&self) -> Option<&'a Value> {
        get(self.config, "route")
    }

    /// Where requests are sent, without mirrors.
    pub(super) fn targets(&self) -> Vec<Target<'a>> {
        let Some(action) = self.action() else { return Vec::new() };
        let plugins = ["cluster_specifier_plugin", "inline_cluster_specifier_plugin"];
        let plugins = plugins.iter().filter(|member| get(action, member).is_some());
        let parts = weighted(action).iter().filter_map(|part| {
            let name = text(part, "name").map(Target::Cluster);
            name.or_else(|| text(part, "cluster_header").map(Target::Header))
        });
        target(action).into_iter().chain(parts).chain(plugins.map(|_| Target::Extension)).collect()
    }
}

/// The parts of an action with weighted clusters.
pub(super) fn weighted(action: &Value) -> &[Value] {
    get(action, "weighted_clusters").map_or(&[], |weighted| items(weighted, "clusters"))
}

/// Where mirrored requests are sent by the policies of this object.
pub(super) fn mirrors(object: &Value) -> impl Iterator<Item = Target<'_>> {
    items(object, "request_mirror_policies").iter().filter_map(target)
}

fn target(object: &Value) -> Option<Target<'_>> {
    let cluster = text(object, "cluster").map(Target::Cluster);
    cluster.or_else(|| text(object, "cluster_header").map(Target::Header))
}
