//! What shows at run time: the stamp of a cluster and the gate among its filters; and the seal of a
//! listener.

use serde_json::Value;

use crate::upstream_tls::{Stamp, UpstreamPattern};

use super::super::document::{at, get, is_choice, is_true, items, text, typed, walk};
use super::finding::{Finding, Note, Rule};
use super::hosts::stamp_hosts;
use super::judge::Case;
use super::socket::http_options;

/// The role of the module that judges upstreams.
const ROLE: &str = "upstream_tls";

/// The filter state that an allowed request carries.
const SEAL: &str = "wasm.vkey.decision";

/// Holds stamp and gate against the policy.
pub(super) fn judge(case: &Case<'_, '_>, findings: &mut Vec<Finding>) {
    findings.extend(stamp(case));
    findings.extend(gate(case));
}

fn stamp(case: &Case<'_, '_>) -> Option<Finding> {
    let stamp = at(case.cluster, &["metadata", "filter_metadata", Stamp::NAMESPACE]);
    let policy = stamp.and_then(|stamp| text(stamp, Stamp::POLICY));
    let fix = "render the cluster with `vkey tls render`, once it satisfies the policy";
    let Some(policy) = policy.filter(|_| has_hosts(case.cluster)) else {
        let reason = "metadata.filter_metadata.vkey does not say which policy and which hosts the \
                      cluster was rendered for";
        return Some(case.finding(Rule::StampMissing, reason, fix));
    };
    if policy != case.digest {
        let reason = format!("the stamp is of the policy {policy}, in force is {}", case.digest);
        return Some(case.finding(Rule::StampStale, reason, fix));
    }
    case.stamp_misses().map(|named| {
        let hosts = Vec::from_iter(stamp_hosts(case.cluster)).join(", ");
        let reason = format!("the stamp is for {hosts}, the cluster also for {}", named.name);
        case.finding_for(named, Rule::StampOtherHosts, reason, fix.to_owned())
    })
}

/// Whether the stamp has hosts, each spelled as a policy spells it.
fn has_hosts(cluster: &Value) -> bool {
    let mut hosts = stamp_hosts(cluster).peekable();
    hosts.peek().is_some() && hosts.all(|host| UpstreamPattern::parse(host).is_some())
}

fn gate(case: &Case<'_, '_>) -> Option<Finding> {
    let filters = http_options(case.cluster).map_or(&[][..], |o| items(o, "http_filters"));
    let on = filters.iter().filter(|filter| !is_true(filter, "disabled"));
    let mut gate = on.filter_map(|filter| Some((filter, plugin(filter)?)));
    let gate = gate.find(|(_, plugin)| is_gate(plugin));
    let options = "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3\
                   .HttpProtocolOptions\"]";
    let Some((filter, plugin)) = gate else {
        let reason = "no HTTP filter of the cluster judges the connection before a request leaves";
        let fix = format!(
            "write the module with the configuration {{\"role\": \"{ROLE}\"}} into \
             {options}.http_filters, before envoy.filters.http.upstream_codec"
        );
        return Some(case.finding(Rule::GateMissing, reason, fix));
    };
    let is_open = is_choice(plugin, "failure_policy", "FAIL_OPEN", 3)
        || is_true(plugin, "fail_open")
        || is_true(filter, "is_optional");
    is_open.then(|| {
        let reason = "requests pass unjudged when the gate fails";
        let fix = format!(
            "write failure_policy: FAIL_RELOAD, and neither fail_open nor is_optional, in \
             {options}.http_filters"
        );
        case.finding(Rule::GateFailOpen, reason, fix)
    })
}

/// The plugin's configuration in a filter that runs a module.
fn plugin(filter: &Value) -> Option<&Value> {
    let (kind, wasm) = typed(get(filter, "typed_config")?);
    if kind.ends_with(".Wasm") { get(wasm, "config") } else { None }
}

fn is_gate(plugin: &&Value) -> bool {
    let configuration = configuration(plugin);
    configuration.is_some_and(|configuration| text(&configuration, "role") == Some(ROLE))
}

/// What a plugin is configured with: JSON in a string, or an object.
fn configuration(plugin: &Value) -> Option<Value> {
    let configuration = get(plugin, "configuration")?;
    let (_, content) = typed(configuration);
    match get(content, "value") {
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        Some(object) => Some(object.clone()),
        None => Some(content.clone()),
    }
}

/// Listeners where nothing refuses what the module has not allowed.
pub(super) fn seal_notes(document: &Value) -> Vec<Note> {
    let mut notes = Vec::new();
    walk(document, &mut |manager| {
        let filters = items(manager, "http_filters");
        let is_module = |filter: &Value| {
            let configuration = plugin(filter).and_then(configuration);
            configuration.is_some_and(|object| object.get("keyring").is_some())
        };
        let Some(module) = filters.iter().position(is_module) else { return };
        let is_sealed = filters.iter().skip(module).any(refuses_unsealed);
        let place = text(manager, "stat_prefix").unwrap_or("-").to_owned();
        let note = Note {
            place,
            text: format!(
                "no RBAC filter behind the module refuses requests without the filter state {SEAL}"
            ),
        };
        if !is_sealed && !notes.contains(&note) {
            notes.push(note);
        }
    });
    notes
}

fn refuses_unsealed(filter: &Value) -> bool {
    let Some(config) = get(filter, "typed_config") else { return false };
    let mut found = false;
    walk(config, &mut |object| found |= text(object, "key") == Some(SEAL));
    typed(config).0.ends_with(".RBAC") && found
}
