//! Clusters that consist of other clusters.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::document::{at, items, text, typed};

/// Which clusters consist of which others, by name, in both directions.
#[derive(Default)]
pub(super) struct Graph<'a> {
    parts: BTreeMap<&'a str, Vec<&'a str>>,
    wholes: BTreeMap<&'a str, Vec<&'a str>>,
}

/// How many clusters may still be visited. It bounds the time for any configuration.
pub(super) struct Budget(usize);

/// The budget is exhausted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BudgetExhausted(());

impl<'a> Graph<'a> {
    /// Reads the parts of clusters.
    pub(super) fn new(clusters: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut graph = Self::default();
        for cluster in clusters {
            let Some(name) = text(cluster, "name") else { continue };
            for part in parts(cluster) {
                graph.parts.entry(name).or_default().push(part);
                graph.wholes.entry(part).or_default().push(name);
            }
        }
        graph
    }

    /// All clusters that requests to these reach or pass through, these included.
    pub(super) fn reached(
        &self,
        from: impl IntoIterator<Item = &'a str>,
        budget: &mut Budget,
    ) -> Result<BTreeSet<&'a str>, BudgetExhausted> {
        let mut reached = BTreeSet::new();
        let mut open = Vec::from_iter(from);
        while let Some(name) = open.pop() {
            budget.spend()?;
            if reached.insert(name) {
                open.extend(self.parts.get(name).into_iter().flatten());
            }
        }
        Ok(reached)
    }

    /// The clusters from which one of `leaves` is reached, each with that leaf. Includes the leaves.
    pub(super) fn reaching(
        &self,
        leaves: impl IntoIterator<Item = &'a str>,
        budget: &mut Budget,
    ) -> Result<BTreeMap<&'a str, &'a str>, BudgetExhausted> {
        let mut reaching = BTreeMap::new();
        let mut open = Vec::from_iter(leaves.into_iter().map(|leaf| (leaf, leaf)));
        while let Some((name, leaf)) = open.pop() {
            budget.spend()?;
            if !reaching.contains_key(name) {
                reaching.insert(name, leaf);
                let wholes = self.wholes.get(name).into_iter().flatten();
                open.extend(wholes.map(|whole| (*whole, leaf)));
            }
        }
        Ok(reaching)
    }

    /// The clusters that are parts of others.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'a str> {
        self.wholes.keys().copied()
    }
}

impl Budget {
    /// Many times the clusters, and their parts, of the largest proxies.
    const MAX: usize = 2_000_000;

    fn spend(&mut self) -> Result<(), BudgetExhausted> {
        self.0 = self.0.checked_sub(1).ok_or(BudgetExhausted(()))?;
        Ok(())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self(Self::MAX)
    }
}

/// The parts of a cluster.
pub(super) fn parts(cluster: &Value) -> Vec<&str> {
    let config = at(cluster, &["cluster_type", "typed_config"]).map(typed);
    let Some((kind, config)) = config else { return Vec::new() };
    if kind.contains(".aggregate.") {
        items(config, "clusters").iter().filter_map(Value::as_str).collect()
    } else if kind.contains(".composite.") {
        items(config, "clusters").iter().filter_map(|entry| text(entry, "name")).collect()
    } else if kind.contains(".mcp_multicluster.") {
        let server = |server| at(server, &["mcp_cluster", "cluster"]).and_then(Value::as_str);
        items(config, "servers").iter().filter_map(server).collect()
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COUNT: usize = 10_000;

    fn aggregate(name: usize, parts: &[usize]) -> Value {
        let parts = Vec::from_iter(parts.iter().map(usize::to_string));
        let kind = "envoy.extensions.clusters.aggregate.v3.ClusterConfig";
        json!({"name": name.to_string(), "cluster_type": {"typed_config": {
            "@type": format!("type.googleapis.com/{kind}"), "clusters": parts}}})
    }

    /// How many visits it takes to find everything reachable from `from`, and everything that reaches `to`.
    fn looks(clusters: &[Value], from: &str, to: &str) -> [(usize, usize); 2] {
        let graph = Graph::new(clusters);
        let spent = |budget: &Budget| Budget::MAX - budget.0;
        let mut down = Budget::default();
        let reached = graph.reached([from], &mut down).unwrap();
        let mut up = Budget::default();
        let reaching = graph.reaching([to], &mut up).unwrap();
        [(reached.len(), spent(&down)), (reaching.len(), spent(&up))]
    }

    #[test]
    fn each_part_is_visited_once() {
        let chain = Vec::from_iter((0..COUNT).map(|n| aggregate(n, &[n + 1])));
        assert_eq!(looks(&chain, "0", "10000"), [(COUNT + 1, COUNT + 1); 2]);
        let circle = Vec::from_iter((0..COUNT).map(|n| aggregate(n, &[(n + 1) % COUNT])));
        assert_eq!(looks(&circle, "0", "0"), [(COUNT, COUNT + 1); 2]);
        let fan_in = Vec::from_iter((0..COUNT).map(|n| aggregate(n, &[COUNT])));
        assert_eq!(looks(&fan_in, "0", "10000"), [(2, 2), (COUNT + 1, COUNT + 1)]);
        let all = Vec::from_iter(0..100);
        let clique = Vec::from_iter(all.iter().map(|n| aggregate(*n, &all)));
        assert_eq!(looks(&clique, "0", "0"), [(100, 100 * 100 + 1); 2]);
    }

    #[test]
    fn a_budget_ends() {
        let chain = Vec::from_iter((0..10).map(|n| aggregate(n, &[n + 1])));
        let graph = Graph::new(&chain);
        assert_eq!(graph.reached(["0"], &mut Budget(10)).unwrap_err(), BudgetExhausted(()));
        assert_eq!(graph.reached(["0"], &mut Budget(11)).unwrap().len(), 11);
        assert_eq!(graph.reaching(["10"], &mut Budget(10)).unwrap_err(), BudgetExhausted(()));
    }
}
