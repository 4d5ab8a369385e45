//! The authorities of requests to clusters.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;

use super::super::document::{get, is_true, items, text};
use super::graph::{Budget, BudgetExhausted, Graph};
use super::routes::{Host, Route, Table, weighted};

/// The authorities of requests, by cluster name, as far as routes determine them.
#[derive(Default)]
pub(super) struct Authorities<'a>(BTreeMap<&'a str, Vec<Sent<'a>>>);

/// An authority that a route sends. Many routes share the domains of their virtual host.
#[derive(Clone, Copy)]
enum Sent<'a> {
    /// The authority of the client, which is one of these domains.
    Domains(&'a [Value]),
    /// The authority that a route sets.
    Literal(&'a str),
}

/// The clusters that routes send to, by authority, in the order of the routes.
#[derive(Default)]
struct Senders<'a> {
    clusters: Vec<(Sent<'a>, Vec<&'a str>)>,
    positions: BTreeMap<(usize, &'a str), usize>,
}

impl<'a> Authorities<'a> {
    /// Reads the routes. Requests to an aggregate cluster go to its parts.
    pub(super) fn new(
        tables: &[Table<'a>],
        graph: &Graph<'a>,
        budget: &mut Budget,
    ) -> Result<Self, BudgetExhausted> {
        let mut senders = Senders::default();
        for table in tables {
            for host in &table.hosts {
                let actions = host.routes.iter().filter_map(Route::action);
                actions.for_each(|action| senders.add_action(action, host, table));
            }
        }
        let mut authorities = Self::default();
        for (sent, clusters) in senders.clusters {
            for cluster in graph.reached(clusters, budget)? {
                authorities.0.entry(cluster).or_default().push(sent);
            }
        }
        Ok(authorities)
    }

    /// The authorities of requests to a cluster.
    pub(super) fn of(&self, cluster: &Value) -> impl Iterator<Item = &'a str> {
        let sent = text(cluster, "name").and_then(|name| self.0.get(name));
        let sent = sent.into_iter().flatten().copied();
        sent.flat_map(|sent| {
            let (domains, literal) = match sent {
                Sent::Domains(domains) => (domains, None),
                Sent::Literal(literal) => (&[][..], Some(literal)),
            };
            domains.iter().filter_map(Value::as_str).chain(literal)
        })
    }
}

impl<'a> Senders<'a> {
    fn add_action(&mut self, action: &'a Value, host: &Host<'a>, table: &Table<'a>) {
        let sent = sent(action, host);
        for part in weighted(action) {
            let own = text(part, "host_rewrite_literal").map(Sent::Literal);
            self.add(text(part, "name"), own.or(sent));
        }
        self.add(text(action, "cluster"), sent);
        // The policies nearest to the route apply.
        let holders = [action, host.config, table.config];
        let policies = holders.map(|holder| items(holder, "request_mirror_policies"));
        let policies = policies.into_iter().find(|policies| !policies.is_empty());
        for policy in policies.unwrap_or_default() {
            let own = text(policy, "host_rewrite_literal").map(Sent::Literal);
            // Otherwise a mirrored request has another authority, with the suffix `-shadow`.
            let is_same = is_true(policy, "disable_shadow_host_suffix_append");
            self.add(text(policy, "cluster"), own.or(sent.filter(|_| is_same)));
        }
    }

    fn add(&mut self, cluster: Option<&'a str>, sent: Option<Sent<'a>>) {
        let Some((cluster, sent)) = cluster.zip(sent) else { return };
        let key = match sent {
            Sent::Domains(domains) => (domains.as_ptr().addr(), ""),
            Sent::Literal(literal) => (0, literal),
        };
        let position = match self.positions.entry(key) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.clusters.push((sent, Vec::new()));
                *new.insert(self.clusters.len().saturating_sub(1))
            }
        };
        if let Some((_, clusters)) = self.clusters.get_mut(position) {
            clusters.push(cluster);
        }
    }
}

/// The authority that an action sends; `None` if it depends on the request.
fn sent<'a>(action: &'a Value, host: &Host<'a>) -> Option<Sent<'a>> {
    let rewritten =
        ["auto_host_rewrite", "host_rewrite", "host_rewrite_header", "host_rewrite_path_regex"];
    let is_set = |value: &Value| !matches!(value, Value::Bool(false));
    let is_rewritten = rewritten.iter().any(|name| get(action, name).is_some_and(is_set));
    match text(action, "host_rewrite_literal") {
        Some(literal) => Some(Sent::Literal(literal)),
        None => (!is_rewritten).then(|| Sent::Domains(host.domains())),
    }
}
