//! Checks where provider credentials are held, and how often a request uses them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::document::{get, is_true};
use super::finding::{Element, Finding, LintRule, Note};
use super::graph::{Budget, BudgetExhausted, Graph};
use super::managers::Manager;
use super::routes::{Host, Route, Table};
use super::upstream_gates::{Gap, UpstreamGates};

/// A listener whose module holds the values of credentials.
pub(super) fn finding(manager: &Manager<'_>) -> Option<Finding> {
    manager.front.holds_credentials().then(|| Finding {
        element: Element::Listener(manager.listener.to_owned()),
        rule: LintRule::CredentialsInFront,
        reason:
            "the module holds provider credentials in front of the routes: it attaches them by \
                 the host that the client names, and whatever the route leads to gets them"
                .to_owned(),
        fix: "move each to the gate of the clusters that are for its hosts, {\"role\": \
              \"upstream_tls\", \"credentials\": [{\"name\": NAME, \"hosts\": [HOST], \
              \"header\": HEADER, \"value\": VALUE}]}, and write {\"forward\": {\"credentials\": \
              [{\"name\": NAME}]}} here"
            .to_owned(),
    })
}

/// Credentials that a listener grants, but no gate that its routes lead to holds. Reports nothing if some of
/// these clusters are not in the input.
pub(super) fn unheld<'a>(
    manager: &Manager<'a>,
    tables: &[&Table<'a>],
    gates: &UpstreamGates<'a>,
    graph: &Graph<'a>,
    budget: &mut Budget,
) -> Result<Vec<Note>, BudgetExhausted> {
    let mut unheld = Vec::from_iter(manager.front.credential_names());
    let routes = tables.iter().flat_map(|table| table.routes());
    let targets = Vec::from_iter(routes.flat_map(Route::targets));
    let is_absent = |target| matches!(gates.gap(target), Some(Gap::Absent(_)));
    if unheld.is_empty() || targets.is_empty() || targets.iter().copied().any(is_absent) {
        return Ok(Vec::new());
    }
    let reached = gates.reached(&targets, graph, budget)?;
    let held = reached.iter().flat_map(|cluster| gates.credentials(cluster));
    let held: BTreeSet<&str> = held.collect();
    unheld.retain(|name| !held.contains(name));
    let note = |name| Note {
        place: manager.listener.to_owned(),
        text: format!(
            "forward.credentials names {name}, and no gate of a cluster that the routes lead to holds \
             it: requests go on without it"
        ),
    };
    Ok(unheld.into_iter().map(note).collect())
}

/// Routes whose retries select the cluster again (`refresh_cluster_on_retry`, Envoy 1.40): the attempts of a
/// request share one header map, so the next cluster gets the credential that the last gate attached.
pub(super) fn retried_elsewhere<'a>(
    table: &Table<'a>,
    gates: &UpstreamGates<'a>,
    graph: &Graph<'a>,
    budget: &mut Budget,
) -> Result<Vec<Finding>, BudgetExhausted> {
    let mut findings = Vec::new();
    for host in &table.hosts {
        for route in host.routes.iter().filter(|route| is_retried_elsewhere(host, route)) {
            let reached = gates.reached(&route.targets(), graph, budget)?;
            let held = reached.iter().flat_map(|cluster| gates.credentials(cluster));
            let names = Vec::from_iter(held);
            if !names.is_empty() {
                findings.push(Finding {
                    element: Element::Route(route.place.in_words()),
                    rule: LintRule::CredentialRetryElsewhere,
                    reason: format!(
                        "a retry chooses the cluster anew and takes along the credential ({}) that \
                         the gate of the last cluster has attached",
                        names.join(", ")
                    ),
                    fix: "remove refresh_cluster_on_retry from the retry_policy".to_owned(),
                });
            }
        }
    }
    Ok(findings)
}

fn is_retried_elsewhere(host: &Host<'_>, route: &Route<'_>) -> bool {
    let policy = nearest(host, route, "retry_policy");
    policy.is_some_and(|policy| get(policy, "refresh_cluster_on_retry").is_some())
}

/// The policy nearest to the route applies.
fn nearest<'a>(host: &Host<'a>, route: &Route<'a>, member: &str) -> Option<&'a Value> {
    let own = route.action().and_then(|action| get(action, member));
    own.or_else(|| get(host.config, member))
}

/// Routes on which one request may become several, each with a credential.
pub(super) fn hedged<'a>(
    table: &Table<'a>,
    gates: &UpstreamGates<'a>,
    graph: &Graph<'a>,
    budget: &mut Budget,
) -> Result<Vec<Note>, BudgetExhausted> {
    let mut notes = Vec::new();
    for host in &table.hosts {
        for route in host.routes.iter().filter(|route| is_hedged(host, route)) {
            for cluster in gates.reached(&route.targets(), graph, budget)? {
                let names = Vec::from_iter(gates.credentials(cluster));
                if !names.is_empty() {
                    let text = format!(
                        "{} has a hedge_policy: one request can become several, each with the \
                         credential ({}) and each billed by the provider",
                        route.place.in_words(),
                        names.join(", ")
                    );
                    notes.push(Note { place: cluster.to_owned(), text });
                }
            }
        }
    }
    Ok(notes)
}

fn is_hedged(host: &Host<'_>, route: &Route<'_>) -> bool {
    nearest(host, route, "hedge_policy").is_some_and(|policy| {
        is_true(policy, "hedge_on_per_try_timeout")
            || ["initial_requests", "additional_request_chance"]
                .iter()
                .any(|member| get(policy, member).is_some())
    })
}
