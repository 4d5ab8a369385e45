//! Route configurations: virtual hosts, their routes, and the clusters that requests go to.

use serde_json::Value;

use super::super::document::{get, items, walk};

/// A route configuration.
pub(super) struct Table<'a> {
    /// The configuration itself.
    pub(super) config: &'a Value,
    /// Its virtual hosts.
    pub(super) hosts: Vec<Host<'a>>,
}

/// A virtual host.
pub(super) struct Host<'a> {
    /// Its configuration.
    pub(super) config: &'a Value,
    /// Its routes, those in its tree of matchers included.
    pub(super) routes: Vec<&'a Value>,
}

impl<'a> Table<'a> {
    /// Reads an object as a route configuration; `None` where it is something else.
    pub(super) fn new(config: &'a Value) -> Option<Self> {
        get(config, "virtual_hosts")?;
        let hosts = items(config, "virtual_hosts").iter().map(Host::new);
        Some(Self { config, hosts: hosts.collect() })
    }
}

impl<'a> Host<'a> {
    fn new(config: &'a Value) -> Self {
        let mut routes = Vec::from_iter(items(config, "routes"));
        if let Some(matcher) = get(config, "matcher") {
            let is_route = |object: &Value| get(object, "match").is_some();
            walk(matcher, &mut |object| routes.extend(Some(object).filter(|o| is_route(o))));
        }
        Self { config, routes }
    }

    /// The domains that choose the virtual host.
    pub(super) fn domains(&self) -> &'a [Value] {
        items(self.config, "domains")
    }
}

/// The parts of an action with weighted clusters.
pub(super) fn weighted(action: &Value) -> &[Value] {
    get(action, "weighted_clusters").map_or(&[], |weighted| items(weighted, "clusters"))
}
