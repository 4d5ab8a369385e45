//! Which clusters have a gate: their own, or those of all their parts.

use std::collections::{BTreeMap, BTreeSet};

use super::super::document::text;
use super::finding::InFile;
use super::graph::{Budget, BudgetExhausted, Graph, parts};
use super::proxy_config::ProxyConfig;
use super::routes::Target;
use super::upstream_gate::{self, Defect};

/// The upstream gates, by cluster name.
pub(super) struct UpstreamGates<'a> {
    /// The defects of the gate of a cluster that connects to endpoints.
    defects: BTreeMap<&'a str, Defect>,
    /// The credentials that the gate of a cluster holds.
    credentials: BTreeMap<&'a str, BTreeSet<String>>,
    /// Clusters from which one with a defect is reached, each with that one.
    ungated: BTreeMap<&'a str, &'a str>,
    /// Clusters from which one that is not in the input is reached, each with that one.
    absent: BTreeMap<&'a str, &'a str>,
    /// All clusters in the input.
    present: BTreeSet<&'a str>,
}

/// Why requests may leave without a gate.
#[derive(Clone, Copy)]
pub(super) enum Gap<'s, 'a> {
    /// The cluster is not in the input, so its gate is unknown.
    Absent(&'a str),
    /// The gate of the cluster is missing, or has a defect.
    Defect(&'a str, &'s Defect),
}

impl<'a> UpstreamGates<'a> {
    /// Checks the gate of each cluster.
    pub(super) fn new(proxy_config: &ProxyConfig<'a>) -> Result<Self, BudgetExhausted> {
        let mut defects = BTreeMap::new();
        let mut credentials: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        let mut present = BTreeSet::new();
        for InFile { item: cluster, .. } in &proxy_config.clusters {
            let Some(name) = text(cluster, "name") else { continue };
            present.insert(name);
            if !parts(cluster).is_empty() {
                continue;
            }
            if let Some(defect) = upstream_gate::defects(cluster, proxy_config).into_iter().next() {
                defects.entry(name).or_insert(defect);
            }
            credentials
                .entry(name)
                .or_default()
                .extend(upstream_gate::credentials(cluster, proxy_config));
        }
        let graph = &proxy_config.graph;
        let missing = graph.parts().filter(|part| !present.contains(part));
        let absent = graph.reaching(missing, &mut Budget::default())?;
        let ungated = graph.reaching(defects.keys().copied(), &mut Budget::default())?;
        Ok(Self { defects, credentials, ungated, absent, present })
    }

    /// Why requests to a target may leave without a gate.
    pub(super) fn gap(&self, target: Target<'a>) -> Option<Gap<'_, 'a>> {
        let Target::Cluster(name) = target else {
            // It may be any cluster.
            return self.defects.iter().next().map(|(name, defect)| Gap::Defect(name, defect));
        };
        let ungated = self.ungated.get(name).and_then(|leaf| self.defects.get_key_value(leaf));
        let absent = if self.present.contains(name) { self.absent.get(name) } else { Some(&name) };
        let defect = ungated.map(|(leaf, defect)| Gap::Defect(leaf, defect));
        defect.or_else(|| absent.map(|name| Gap::Absent(name)))
    }

    /// The clusters of the input that connect to endpoints on the way to a target.
    pub(super) fn reached(
        &self,
        targets: &[Target<'a>],
        graph: &Graph<'a>,
        budget: &mut Budget,
    ) -> Result<BTreeSet<&'a str>, BudgetExhausted> {
        let mut names = Vec::new();
        for target in targets {
            match target {
                Target::Cluster(name) => names.push(*name),
                Target::Header(_) | Target::Extension => names.extend(&self.present),
            }
        }
        graph.reached(names, budget)
    }

    /// The credentials that the gate of a cluster holds.
    pub(super) fn credentials(&self, cluster: &str) -> impl Iterator<Item = &str> {
        self.credentials.get(cluster).into_iter().flatten().map(String::as_str)
    }
}
