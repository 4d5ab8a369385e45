//! Finds clusters whose endpoints cannot be read.

use serde_json::Value;

use super::super::document::{get, items, text};
use super::endpoints::{Discovery, Endpoint, is_partial};
use super::finding::{Element, Finding, LintRule};
use super::proxy_config::ProxyConfig;
use super::spelling::misspelt;

/// Istio's cluster for requests that it drops. It has no endpoints.
const SINK: &str = "BlackHoleCluster";

/// A cluster that should contain its endpoints, and does not, or not where Envoy reads them. `host` is one
/// that the cluster is known to be for.
pub(super) fn finding<'a>(
    cluster: &'a Value,
    host: &str,
    proxy_config: &ProxyConfig<'a>,
) -> Option<Finding> {
    let name = text(cluster, "name").unwrap_or_default();
    let (reason, fix) = obsolete(cluster)
        .or_else(|| misspelling(cluster, proxy_config))
        .or_else(|| absent(cluster, proxy_config).filter(|_| name != SINK))?;
    let element = Element::Cluster { name: name.to_owned(), host: host.to_owned() };
    Some(Finding { element, rule: LintRule::EndpointsMissing, reason, fix })
}

type Defect = (String, String);

/// Endpoints as in version 2 of the API.
fn obsolete(cluster: &Value) -> Option<Defect> {
    get(cluster, "hosts")?;
    let reason = "its endpoints are in hosts, which is no longer part of Envoy's API";
    Some((reason.to_owned(), "move them to load_assignment.endpoints".to_owned()))
}

fn misspelling<'a>(cluster: &'a Value, proxy_config: &ProxyConfig<'a>) -> Option<Defect> {
    let inline = (Discovery::of(cluster) == Discovery::Inline).then_some(cluster);
    let on_top = inline.and_then(|cluster| wrong(cluster, "load_assignment"));
    let mut assignments = proxy_config.assignments(cluster);
    let (wrong, wanted) = on_top.or_else(|| assignments.find_map(wrong_inside))?;
    let reason =
        format!("{wrong} is not a member of Envoy's API, so the endpoints in it are not read");
    Some((reason, format!("write {wanted} instead of {wrong}")))
}

/// A member that is written wrong, and how it is written right.
type Misspelt<'a> = (&'a str, &'static str);

fn wrong<'a>(message: &'a Value, wanted: &'static str) -> Option<Misspelt<'a>> {
    misspelt(message, wanted).map(|wrong| (wrong, wanted))
}

fn wrong_inside(assignment: &Value) -> Option<Misspelt<'_>> {
    let in_localities = || {
        items(assignment, "endpoints").iter().find_map(|locality| {
            let inner = || items(locality, "lb_endpoints").iter().find_map(wrong_in_item);
            wrong(locality, "lb_endpoints").or_else(inner)
        })
    };
    wrong(assignment, "endpoints").or_else(in_localities)
}

fn wrong_in_item(item: &Value) -> Option<Misspelt<'_>> {
    let Some(endpoint) = get(item, "endpoint") else { return wrong(item, "endpoint") };
    let Some(address) = get(endpoint, "address") else { return wrong(endpoint, "address") };
    match get(address, "socket_address") {
        Some(socket) => wrong(socket, "address"),
        None => wrong(address, "socket_address"),
    }
}

fn absent<'a>(cluster: &'a Value, proxy_config: &ProxyConfig<'a>) -> Option<Defect> {
    let is_complete = !proxy_config.assignments(cluster).any(is_partial);
    let has_any = || proxy_config.endpoints(cluster).iter().any(Endpoint::is_readable);
    if Discovery::of(cluster) != Discovery::Inline || !is_complete || has_any() {
        return None;
    }
    let kind = text(cluster, "type").unwrap_or("STATIC");
    let reason =
        format!("a cluster of the type {kind} has no endpoint: nothing says where it connects");
    let fix = "write the endpoints into load_assignment.endpoints, or remove the cluster";
    Some((reason, fix.to_owned()))
}
