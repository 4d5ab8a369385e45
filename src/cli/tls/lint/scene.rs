//! What an Envoy configuration holds: clusters, and what elsewhere in it is about them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::document::{at, get, is_true, items, text, typed, walk};
use super::overrides::Overrides;

/// How often clusters that consist of others may consist of such.
const MAX_AGGREGATES: usize = 8;

/// The clusters of a configuration, and what else matters to them.
pub(super) struct Scene<'a> {
    /// The clusters.
    pub(super) clusters: Vec<&'a Value>,
    /// The filters that routes switch off.
    pub(super) overrides: Overrides<'a>,
    /// Endpoints that stand apart from their cluster, by its name.
    assignments: BTreeMap<&'a str, Vec<&'a Value>>,
    /// The authorities that requests to a cluster are sent with, by its name.
    authorities: BTreeMap<&'a str, Vec<Sent<'a>>>,
    /// Secrets, by name.
    secrets: BTreeMap<&'a str, &'a Value>,
}

/// What requests are sent with. Many routes share the domains of their virtual host.
#[derive(Clone, Copy)]
enum Sent<'a> {
    /// The authority that the client sends, one of these.
    Domains(&'a [Value]),
    /// What a route writes in its place.
    Literal(&'a str),
    /// What only the request says.
    Unknown,
}

impl<'a> Scene<'a> {
    /// Looks through a configuration; `None` where it is none of Envoy's.
    pub(super) fn new(document: &'a Value) -> Option<Self> {
        let mut scene = Self {
            clusters: clusters(document)?,
            overrides: Overrides::new(document),
            assignments: BTreeMap::new(),
            authorities: BTreeMap::new(),
            secrets: BTreeMap::new(),
        };
        walk(document, &mut |object| {
            scene.add_assignment(object);
            scene.add_routes(object);
            scene.add_secrets(object);
        });
        for _ in 0..MAX_AGGREGATES {
            scene.pass_on();
        }
        Some(scene)
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

    /// The authorities that requests to a cluster are sent with, as far as routes say.
    pub(super) fn authorities(&self, cluster: &Value) -> impl Iterator<Item = &'a str> {
        let sent = text(cluster, "name").and_then(|name| self.authorities.get(name));
        let sent = sent.into_iter().flatten().copied();
        sent.flat_map(|sent| {
            let (domains, literal) = match sent {
                Sent::Domains(domains) => (domains, None),
                Sent::Literal(literal) => (&[][..], Some(literal)),
                Sent::Unknown => (&[][..], None),
            };
            domains.iter().filter_map(Value::as_str).chain(literal)
        })
    }

    /// The secret that a `SdsSecretConfig` names, if the configuration holds it.
    pub(super) fn secret(&self, config: &Value) -> Option<&'a Value> {
        self.secrets.get(text(config, "name")?).copied()
    }

    fn add_assignment(&mut self, object: &'a Value) {
        let (kind, _) = typed(object);
        if let Some(name) = text(object, "cluster_name").filter(|_| is_assignment(kind, object)) {
            self.assignments.entry(name).or_default().push(object);
        }
    }

    fn add_secrets(&mut self, object: &'a Value) {
        let is_secret = ["validation_context", "tls_certificate"];
        let is_secret = is_secret.iter().any(|member| get(object, member).is_some());
        if let Some(name) = text(object, "name").filter(|_| is_secret) {
            self.secrets.insert(name, object);
        }
    }

    fn add_routes(&mut self, object: &'a Value) {
        for host in items(object, "virtual_hosts") {
            let domains = items(host, "domains");
            walk(host, &mut |inner| {
                if let Some(action) = get(inner, "route") {
                    self.add_action(action, domains);
                }
            });
        }
    }

    fn add_action(&mut self, action: &'a Value, domains: &'a [Value]) {
        let rewritten = ["auto_host_rewrite", "host_rewrite_header", "host_rewrite_path_regex"];
        let rewritten = rewritten.iter().any(|name| get(action, name).is_some_and(is_set));
        let sent = match text(action, "host_rewrite_literal") {
            Some(literal) => Sent::Literal(literal),
            None if rewritten => Sent::Unknown,
            None => Sent::Domains(domains),
        };
        let weighted = get(action, "weighted_clusters");
        for part in weighted.map_or(&[][..], |weighted| items(weighted, "clusters")) {
            let own = text(part, "host_rewrite_literal").map(Sent::Literal);
            self.add_sent(text(part, "name"), own.unwrap_or(sent));
        }
        self.add_sent(text(action, "cluster"), sent);
        // Otherwise a shadow request is for a host of its own, with `-shadow` at its end.
        let mirrors = items(action, "request_mirror_policies").iter();
        let same = mirrors.filter(|mirror| is_true(mirror, "disable_shadow_host_suffix_append"));
        same.for_each(|mirror| self.add_sent(text(mirror, "cluster"), sent));
    }

    fn add_sent(&mut self, cluster: Option<&'a str>, sent: Sent<'a>) {
        let Some(cluster) = cluster else { return };
        let earlier = self.authorities.entry(cluster).or_default();
        let is_same = match (earlier.last(), sent) {
            (Some(Sent::Domains(earlier)), Sent::Domains(domains)) => {
                std::ptr::eq(*earlier, domains)
            }
            _ => matches!(sent, Sent::Unknown),
        };
        if !is_same {
            earlier.push(sent);
        }
    }

    /// Requests to a cluster that consists of others go to those.
    fn pass_on(&mut self) {
        for cluster in self.clusters.clone() {
            let own = text(cluster, "name").and_then(|name| self.authorities.get(name));
            let Some(own) = own.cloned() else { continue };
            for part in parts(cluster).iter().filter_map(Value::as_str) {
                own.iter().for_each(|sent| self.add_sent(Some(part), *sent));
            }
        }
    }
}

/// The clusters that a cluster consists of.
pub(super) fn parts(cluster: &Value) -> &[Value] {
    let config = at(cluster, &["cluster_type", "typed_config"]).map(typed);
    match config {
        Some((kind, config)) if kind.contains(".aggregate.") => items(config, "clusters"),
        _ => &[],
    }
}

fn is_set(value: &Value) -> bool {
    !matches!(value, Value::Bool(false))
}

/// Endpoints of a dump, or of a discovery answer; those within a cluster are found there.
fn is_assignment(kind: &str, object: &Value) -> bool {
    kind.ends_with(".ClusterLoadAssignment") && get(object, "endpoints").is_some()
}

/// The clusters of a bootstrap, a dump, a discovery answer, a list, or the one cluster.
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
        // Of what is no list of clusters nothing is taken: a part would look like the whole.
        let are_clusters = clusters.iter().all(Value::is_object);
        return Some(clusters.iter().filter(|_| are_clusters).collect());
    }
    cluster(document).map(|cluster| vec![cluster])
}

/// The clusters in one section of a dump; with `?resource=` each section is one cluster.
fn dumped(section: &Value) -> Vec<&Value> {
    let lists = ["static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"];
    let listed = lists.iter().flat_map(|list| items(section, list));
    listed.chain([section]).filter_map(|item| get(item, "cluster").and_then(cluster)).collect()
}

/// A cluster, perhaps in a wrapper of the discovery service.
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
