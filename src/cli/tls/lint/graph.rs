//! Clusters that consist of others.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::document::{at, items, text, typed};

/// Which cluster consists of which others, by name, at any depth.
#[derive(Default)]
pub(super) struct Graph<'a> {
    parts: BTreeMap<&'a str, Vec<&'a str>>,
}

/// How many clusters may still be looked at, so that no configuration takes more than a known time.
pub(super) struct Budget(usize);

/// The budget is spent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spent(());

impl<'a> Graph<'a> {
    /// Reads what clusters consist of.
    pub(super) fn new(clusters: &[&'a Value]) -> Self {
        let mut graph = Self::default();
        for cluster in clusters {
            let Some(name) = text(cluster, "name") else { continue };
            for part in parts(cluster) {
                graph.parts.entry(name).or_default().push(part);
            }
        }
        graph
    }

    /// All clusters that requests to these end up at or pass through, these included.
    pub(super) fn reached(
        &self,
        from: impl IntoIterator<Item = &'a str>,
        budget: &mut Budget,
    ) -> Result<BTreeSet<&'a str>, Spent> {
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
}

impl Budget {
    /// Several times what the largest configuration that is read can hold.
    pub(super) const MAX: usize = 10_000_000;

    /// A budget of so many looks.
    pub(super) fn new(looks: usize) -> Self {
        Self(looks)
    }

    fn spend(&mut self) -> Result<(), Spent> {
        self.0 = self.0.checked_sub(1).ok_or(Spent(()))?;
        Ok(())
    }
}

/// The clusters that a cluster consists of.
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
