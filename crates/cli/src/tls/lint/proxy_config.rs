//! The parts of Envoy configurations that the checks need.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::document::{at, get, items, text, typed};
use super::authorities::Authorities;
use super::graph::{Budget, BudgetExhausted, Graph};
use super::managers::{Manager, NOT_IN_FORCE, Routing, managers};
use super::overrides::Overrides;
use super::plugin::Extensions;
use super::routes::Table;

/// The parts of Envoy configurations that the checks need.
pub(super) struct ProxyConfig<'a> {
    /// The clusters.
    pub(super) clusters: Vec<&'a Value>,
    /// Which of them consist of others.
    pub(super) graph: Graph<'a>,
    /// The route configurations.
    pub(super) tables: Vec<Table<'a>>,
    /// The listeners with the module.
    pub(super) managers: Vec<Manager<'a>>,
    /// Filter settings on routes.
    pub(super) overrides: Overrides<'a>,
    /// Filter configurations that are delivered separately.
    pub(super) extensions: Extensions<'a>,
    /// The authorities of requests to clusters.
    pub(super) authorities: Authorities<'a>,
    /// The route configurations of all scopes.
    pub(super) scopes: Routing<'a>,
    /// Endpoints that are delivered separately, by cluster name.
    assignments: BTreeMap<&'a str, Vec<&'a Value>>,
    /// Secrets, by name.
    secrets: BTreeMap<&'a str, &'a Value>,
}

/// Why a configuration cannot be checked.
pub(super) enum InvalidConfig {
    /// It is not an Envoy configuration.
    NotEnvoy,
    /// It has neither a cluster nor a listener with the module.
    Empty,
    /// It exceeds the limits of this command.
    TooMuch,
}

impl From<BudgetExhausted> for InvalidConfig {
    fn from(_: BudgetExhausted) -> Self {
        Self::TooMuch
    }
}

impl<'a> ProxyConfig<'a> {
    /// Collects the parts of configurations.
    pub(super) fn new(documents: &'a [Value]) -> Result<Self, InvalidConfig> {
        let listed = Vec::from_iter(documents.iter().map(clusters));
        let is_envoy = listed.iter().all(Option::is_some);
        let clusters = Vec::from_iter(listed.into_iter().flatten().flatten());
        let mut proxy_config = Self {
            graph: Graph::new(&clusters),
            clusters,
            tables: Vec::new(),
            managers: Vec::new(),
            overrides: Overrides::new(documents),
            extensions: Extensions::default(),
            authorities: Authorities::default(),
            scopes: Routing::default(),
            assignments: BTreeMap::new(),
            secrets: BTreeMap::new(),
        };
        documents.iter().for_each(|document| proxy_config.read(document));
        proxy_config.managers = managers(documents, &proxy_config.extensions);
        if proxy_config.managers.is_empty() && !is_envoy {
            return Err(InvalidConfig::NotEnvoy);
        }
        if proxy_config.managers.is_empty() && proxy_config.clusters.is_empty() {
            return Err(InvalidConfig::Empty);
        }
        proxy_config.authorities =
            Authorities::new(&proxy_config.tables, &proxy_config.graph, &mut Budget::default())?;
        Ok(proxy_config)
    }

    /// The endpoints of a cluster.
    pub(super) fn endpoints(&self, cluster: &'a Value) -> Vec<&'a Value> {
        let own = get(cluster, "load_assignment");
        let service = at(cluster, &["eds_cluster_config", "service_name"]).and_then(Value::as_str);
        let names = [text(cluster, "name"), service];
        let apart = names.into_iter().flatten().filter_map(|name| self.assignments.get(name));
        let localities = own.into_iter().chain(apart.flatten().copied());
        let localities = localities.flat_map(|assignment| items(assignment, "endpoints"));
        let endpoints = localities.flat_map(|locality| items(locality, "lb_endpoints"));
        endpoints.filter_map(|endpoint| get(endpoint, "endpoint")).collect()
    }

    /// The secret that an `SdsSecretConfig` names, if the configuration contains it.
    pub(super) fn secret(&self, config: &Value) -> Option<&'a Value> {
        self.secrets.get(text(config, "name")?).copied()
    }

    fn read(&mut self, value: &'a Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.read(item)),
            Value::Object(members) => {
                self.add(value);
                let in_force = |name: &str| !NOT_IN_FORCE.contains(&name);
                let members = members.iter().filter(|(name, _)| in_force(name));
                members.for_each(|(_, member)| self.read(member));
            }
            _ => {}
        }
    }

    fn add(&mut self, object: &'a Value) {
        let (kind, _) = typed(object);
        if let Some(name) = text(object, "cluster_name").filter(|_| is_assignment(kind, object)) {
            self.assignments.entry(name).or_default().push(object);
        }
        let is_secret = ["validation_context", "tls_certificate"];
        let is_secret = is_secret.iter().any(|member| get(object, member).is_some());
        if let Some(name) = text(object, "name").filter(|_| is_secret) {
            self.secrets.insert(name, object);
        }
        self.tables.extend(Table::new(object));
        self.scopes.add_scope(object);
        self.extensions.add(object);
    }
}

/// Endpoints of a dump or a discovery response. Those inside a cluster are read with it.
fn is_assignment(kind: &str, object: &Value) -> bool {
    kind.ends_with(".ClusterLoadAssignment") && get(object, "endpoints").is_some()
}

/// The clusters of a bootstrap, a dump, a discovery response or a list, or a single cluster.
fn clusters(document: &Value) -> Option<Vec<&Value>> {
    if let Some(list) = document.as_array() {
        let clusters = Vec::from_iter(list.iter().filter_map(cluster));
        return Some(clusters).filter(|clusters| !clusters.is_empty());
    }
    if get(document, "configs").is_some() {
        return Some(items(document, "configs").iter().flat_map(dumped).collect());
    }
    if get(document, "resources").is_some() {
        return Some(items(document, "resources").iter().filter_map(cluster).collect());
    }
    let bootstrap = ["static_resources", "dynamic_resources", "admin", "node"];
    if bootstrap.iter().any(|member| get(document, member).is_some()) {
        let resources = get(document, "static_resources");
        let clusters = resources.map_or(&[][..], |resources| items(resources, "clusters"));
        // If it is not a list of clusters, nothing is taken: a part would look like the whole.
        let are_clusters = clusters.iter().all(Value::is_object);
        return Some(clusters.iter().filter(|_| are_clusters).collect());
    }
    cluster(document).map(|cluster| vec![cluster])
}

/// The clusters in one section of a dump. With `?resource=`, each section is one cluster.
fn dumped(section: &Value) -> Vec<&Value> {
    let lists = ["static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"];
    let listed = lists.iter().flat_map(|list| items(section, list));
    listed.chain([section]).filter_map(|item| get(item, "cluster").and_then(cluster)).collect()
}

/// A cluster, possibly in a wrapper of the discovery service.
fn cluster(item: &Value) -> Option<&Value> {
    let (kind, content) = typed(item);
    if kind.ends_with(".discovery.v3.Resource") {
        return get(content, "resource").and_then(cluster);
    }
    let members = [
        "type",
        "cluster_type",
        "load_assignment",
        "transport_socket",
        "connect_timeout",
        "eds_cluster_config",
        "transport_socket_matches",
        "tls_context",
    ];
    let is_cluster = kind.ends_with(".Cluster")
        || kind.is_empty() && members.iter().any(|member| get(content, member).is_some());
    (is_cluster && text(content, "name").is_some()).then_some(content)
}
