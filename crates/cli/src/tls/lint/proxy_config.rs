//! The parts of Envoy configurations that the checks need.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::document::{NOT_IN_FORCE, at, get, items, text, typed};
use super::authorities::Authorities;
use super::endpoints::{Discovery, Endpoint, endpoints, is_partial};
use super::finding::{Finding, InFile};
use super::graph::{Budget, Graph};
use super::invalid::InvalidConfig;
use super::managers::{Manager, Routing, managers};
use super::overrides::Overrides;
use super::plugin::Extensions;
use super::refused;
use super::routes::Table;
use super::source::Input;
use super::spelling::misspelt;
use super::unread::{Unread, unread};

/// The parts of Envoy configurations that the checks need.
pub(super) struct ProxyConfig<'a> {
    /// The clusters.
    pub(super) clusters: Vec<InFile<&'a Value>>,
    /// Which of them consist of others.
    pub(super) graph: Graph<'a>,
    /// The route configurations.
    pub(super) tables: Vec<Table<'a>>,
    /// The listeners with the module.
    pub(super) managers: Vec<Manager<'a>>,
    /// The listeners whose module may come by discovery, and was not read.
    pub(super) unread: Vec<Unread<'a>>,
    /// Filters whose configuration the module refuses.
    pub(super) refused: Vec<InFile<Finding>>,
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

impl<'a> ProxyConfig<'a> {
    /// Collects the parts of configurations.
    pub(super) fn new(inputs: &'a [Input]) -> Result<Self, InvalidConfig> {
        let mut clusters = Vec::new();
        let mut unknown = Vec::new();
        for (file, input) in inputs.iter().enumerate() {
            let listed = Vec::from_iter(input.documents.iter().filter_map(listed_clusters));
            // One of several may be empty.
            let is_empty = input.documents.is_empty() && inputs.len() > 1;
            unknown.extend((listed.is_empty() && !is_empty).then_some(file));
            clusters.extend(listed.into_iter().flatten().map(|item| InFile { file, item }));
        }
        let mut proxy_config = Self {
            graph: Graph::new(clusters.iter().map(|cluster| cluster.item)),
            clusters,
            tables: Vec::new(),
            managers: Vec::new(),
            unread: Vec::new(),
            refused: Vec::new(),
            overrides: Overrides::new(inputs.iter().flat_map(|input| &input.documents)),
            extensions: Extensions::default(),
            authorities: Authorities::default(),
            scopes: Routing::default(),
            assignments: BTreeMap::new(),
            secrets: BTreeMap::new(),
        };
        let mut is_known = vec![false; inputs.len()];
        for ((file, input), is_known) in inputs.iter().enumerate().zip(&mut is_known) {
            input
                .documents
                .iter()
                .for_each(|document| *is_known |= proxy_config.read(document, file));
        }
        proxy_config.managers = managers(inputs, &proxy_config.extensions);
        proxy_config.unread = unread(inputs, &proxy_config.extensions);
        proxy_config.refused =
            refused::findings(inputs, &proxy_config.clusters, &proxy_config.extensions);
        let has_manager = |file| {
            proxy_config.managers.iter().any(|manager| manager.file == file)
                || proxy_config.refused.iter().any(|refused| refused.file == file)
        };
        unknown
            .retain(|file| !has_manager(*file) && !is_known.get(*file).is_some_and(|known| *known));
        if let Some(file) = unknown.first() {
            return Err(InvalidConfig::NotEnvoy(*file));
        }
        let has_module = !(proxy_config.managers.is_empty()
            && proxy_config.refused.is_empty()
            && proxy_config.unread.is_empty());
        if !has_module && proxy_config.clusters.is_empty() {
            return Err(InvalidConfig::Empty);
        }
        proxy_config.authorities =
            Authorities::new(&proxy_config.tables, &proxy_config.graph, &mut Budget::default())?;
        Ok(proxy_config)
    }

    /// The endpoints of a cluster.
    pub(super) fn endpoints(&self, cluster: &'a Value) -> Vec<Endpoint<'a>> {
        self.assignments(cluster).flat_map(endpoints).collect()
    }

    /// The lists of endpoints of a cluster (`ClusterLoadAssignment`).
    pub(super) fn assignments(&self, cluster: &'a Value) -> impl Iterator<Item = &'a Value> {
        let own = get(cluster, "load_assignment");
        let service = at(cluster, &["eds_cluster_config", "service_name"]).and_then(Value::as_str);
        let names = [text(cluster, "name"), service];
        let apart = names.into_iter().flatten().filter_map(|name| self.assignments.get(name));
        own.into_iter().chain(apart.flatten().copied())
    }

    /// Whether a cluster has endpoints that are not in the input.
    pub(super) fn lacks_endpoints(&self, cluster: &'a Value) -> bool {
        let is_separate = Discovery::of(cluster) == Discovery::Separate;
        let mut assignments = self.assignments(cluster).peekable();
        is_separate && assignments.peek().is_none() || assignments.any(is_partial)
    }

    /// The secret that an `SdsSecretConfig` names, if the configuration contains it.
    pub(super) fn secret(&self, config: &Value) -> Option<&'a Value> {
        self.secrets.get(text(config, "name")?).copied()
    }

    /// Reads a value. Returns whether any part of it is of a configuration.
    fn read(&mut self, value: &'a Value, file: usize) -> bool {
        match value {
            Value::Array(items) => {
                items.iter().fold(false, |any, item| any | self.read(item, file))
            }
            Value::Object(members) => {
                let is_part = self.add(value, file);
                let in_force = |name: &str| !NOT_IN_FORCE.contains(&name);
                let members = members.iter().filter(|(name, _)| in_force(name));
                members.fold(is_part, |any, (_, member)| any | self.read(member, file))
            }
            _ => false,
        }
    }

    fn add(&mut self, object: &'a Value, file: usize) -> bool {
        let (kind, _) = typed(object);
        if let Some(name) = text(object, "cluster_name").filter(|_| is_assignment(kind)) {
            self.assignments.entry(name).or_default().push(object);
        }
        let is_secret = ["validation_context", "tls_certificate"];
        let is_secret = is_secret.iter().any(|member| get(object, member).is_some());
        if let Some(name) = text(object, "name").filter(|_| is_secret) {
            self.secrets.insert(name, object);
        }
        self.tables.extend(Table::new(object, file));
        self.scopes.add_scope(object);
        self.extensions.add(object);
        let chains = ["filter_chains", "default_filter_chain", "virtual_hosts"];
        let has = |members: &[&str]| members.iter().any(|member| get(object, member).is_some());
        kind.contains("envoy.") || has(&chains) || is_secret
    }
}

/// The clusters of a bootstrap, a dump, a discovery response or a list, or a single cluster.
fn listed_clusters(document: &Value) -> Option<Vec<&Value>> {
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
        return Some(resources.map_or_else(Vec::new, whole_list));
    }
    if get(document, "clusters").is_some() || get(document, "listeners").is_some() {
        return Some(whole_list(document));
    }
    cluster(document).map(|cluster| vec![cluster])
}

/// The member `clusters`. If it is not a list of clusters, nothing is taken: a part would look like the whole.
fn whole_list(holder: &Value) -> Vec<&Value> {
    let clusters = items(holder, "clusters");
    let are_clusters = clusters.iter().all(Value::is_object);
    clusters.iter().filter(|_| are_clusters).collect()
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
        "hosts",
    ];
    let has_any = || {
        members.iter().any(|member| get(content, member).is_some())
            || misspelt(content, "load_assignment").is_some()
    };
    let is_cluster = kind.ends_with(".Cluster") || kind.is_empty() && has_any();
    (is_cluster && text(content, "name").is_some()).then_some(content)
}

/// Whether this is the type of the endpoints of a dump or a discovery response. Those inside a cluster are
/// read with it.
fn is_assignment(kind: &str) -> bool {
    kind.ends_with(".ClusterLoadAssignment")
}
