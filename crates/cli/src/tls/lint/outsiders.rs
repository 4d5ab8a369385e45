//! Listeners without the module whose requests reach an upstream gate.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::document::{items, text};
use super::finding::{InFile, Note};
use super::graph::{Budget, BudgetExhausted};
use super::managers::{self, Routing};
use super::proxy_config::ProxyConfig;
use super::routes::{Route, Target};
use super::socket::{Channel, branches};
use super::source::Input;
use super::{seal, upstream_gate, wiring};

/// A note for each listener without the module and each cluster without TLS whose gate refuses its requests: the gate
/// cannot know what they carry.
pub(super) fn notes<'a>(
    inputs: &'a [Input],
    proxy_config: &ProxyConfig<'a>,
) -> Result<Vec<InFile<Note>>, BudgetExhausted> {
    let refusing = refusing(proxy_config);
    let mut outside = Vec::new();
    if !refusing.is_empty() {
        managers::visit(inputs, &mut |file, config, listener| {
            if items(config, "http_filters").iter().all(|filter| lets_pass(filter, proxy_config)) {
                outside.push((file, config, listener));
            }
        });
    }
    let (mut notes, mut budget) = (Vec::new(), Budget::default());
    for (file, config, listener) in outside {
        let targets = targets(config, proxy_config);
        for cluster in proxy_config.graph.reached(targets, &mut budget)?.intersection(&refusing) {
            notes.push(InFile::new(file, note(listener, cluster)));
        }
    }
    Ok(notes)
}

/// Whether a filter is neither the module nor the seal, which refuses everything without the module.
fn lets_pass<'a>(filter: &'a Value, proxy_config: &ProxyConfig<'a>) -> bool {
    let extensions = &proxy_config.extensions;
    !wiring::may_be_module(filter, extensions) && !seal::is_seal(filter, extensions)
}

/// The clusters with a gate and without TLS.
fn refusing<'a>(proxy_config: &ProxyConfig<'a>) -> BTreeSet<&'a str> {
    let clusters = proxy_config.clusters.iter().map(|cluster| cluster.item);
    let refusing = clusters.filter(|cluster| {
        upstream_gate::gate(cluster, &proxy_config.extensions).is_some()
            && branches(cluster).iter().all(|branch| matches!(branch.channel, Channel::Plain(_)))
    });
    refusing.filter_map(|cluster| text(cluster, "name")).collect()
}

/// The clusters to which the routes of a manager lead by name.
fn targets<'a>(manager: &'a Value, proxy_config: &ProxyConfig<'a>) -> BTreeSet<&'a str> {
    let routing = Routing::of(manager, &proxy_config.scopes);
    let tables = proxy_config.tables.iter().filter(|table| routing.includes(table));
    let targets = tables.flat_map(|table| table.routes().flat_map(Route::targets));
    let by_name = targets.filter_map(|target| match target {
        Target::Cluster(name) => Some(name),
        Target::Header(_) | Target::Extension => None,
    });
    by_name.collect()
}

fn note(listener: &str, cluster: &str) -> Note {
    Note {
        place: listener.to_owned(),
        text: format!(
            "the listener does not have the module, so the gate of the cluster {cluster}, which has no TLS, refuses \
             its requests (502, upstream_plaintext); give it a cluster of its own, or the module"
        ),
    }
}
