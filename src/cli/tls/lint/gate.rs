//! What shows at run time: the stamp of a cluster and the gate among its filters; and the seal of a
//! listener.

use serde_json::Value;

use crate::upstream_tls::{Stamp, UpstreamPattern};

use super::super::document::{at, get, is_choice, is_true, items, text, typed, walk};
use super::finding::{Finding, Note, Rule};
use super::hosts::stamp_hosts;
use super::judge::Case;
use super::scene::Scene;
use super::socket::http_options;

/// The role of the module that judges upstreams.
const ROLE: &str = "upstream_tls";

/// The filter state that an allowed request carries.
const SEAL: &str = "wasm.vkey.decision";

/// The filter that ends the filters of a cluster.
const CODEC: &str = "envoy.filters.http.upstream_codec";

/// Where the filters of a cluster stand.
const OPTIONS: &str =
    "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]";

const NO_GATE: &str = "no HTTP filter of the cluster judges the connection before a request leaves";

/// Holds stamp and gate against the policy.
pub(super) fn judge(case: &Case<'_, '_>, findings: &mut Vec<Finding>) {
    findings.extend(stamp(case));
    let gate = defects(case.cluster, case.scene);
    findings.extend(
        gate.into_iter().map(|Defect { rule, reason, fix }| case.finding(rule, reason, fix)),
    );
}

fn stamp(case: &Case<'_, '_>) -> Option<Finding> {
    let stamp = at(case.cluster, &["metadata", "filter_metadata", Stamp::NAMESPACE]);
    let policy = stamp.and_then(|stamp| text(stamp, Stamp::POLICY));
    let fix = "render the cluster with `vkey tls render`, once it satisfies the policy";
    let hosts = stamp.map_or(&[][..], |stamp| items(stamp, Stamp::HOSTS));
    if hosts.len() > Stamp::MAX_HOSTS {
        let most = Stamp::MAX_HOSTS;
        let reason =
            format!("a stamp for more than {most} hosts is void; this is for {}", hosts.len());
        let fix = format!("let each cluster be for {most} hosts or fewer, and {fix}");
        return Some(case.finding(Rule::StampMissing, reason, fix));
    }
    let Some(policy) = policy.filter(|_| are_hosts(hosts)) else {
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

/// Whether there are hosts, each spelled as a policy spells it.
fn are_hosts(hosts: &[Value]) -> bool {
    let is_host = |host: &Value| host.as_str().and_then(UpstreamPattern::parse).is_some();
    !hosts.is_empty() && hosts.iter().all(is_host)
}

/// What is wrong with the gate of a cluster.
pub(super) struct Defect {
    rule: Rule,
    reason: String,
    fix: String,
}

impl Defect {
    /// What is wrong, in words that follow others about the gate.
    pub(super) fn in_short(&self) -> &str {
        if self.reason == NO_GATE { "there is none" } else { &self.reason }
    }
}

/// Looks for the gate among the filters of a cluster. Of several the last one counts: what passes it
/// leaves.
pub(super) fn defects(cluster: &Value, scene: &Scene<'_>) -> Vec<Defect> {
    let filters = http_options(cluster).map_or(&[][..], |o| items(o, "http_filters"));
    let is_on = |filter: &Value| !is_true(filter, "disabled");
    let is_gate = |filter: &Value| is_on(filter) && plugin(filter).is_some_and(is_gate);
    let Some(position) = filters.iter().rposition(is_gate) else {
        return vec![missing()];
    };
    let (before, behind) = filters.split_at(position.saturating_add(1));
    let Some(gate) = before.last() else { return vec![missing()] };
    let found = [switched_off(gate, scene), fail_open(gate), not_last(behind)];
    found.into_iter().flatten().collect()
}

fn missing() -> Defect {
    let fix = format!(
        "write the module with the configuration {{\"role\": \"{ROLE}\"}} into \
         {OPTIONS}.http_filters, before {CODEC}"
    );
    Defect { rule: Rule::GateMissing, reason: NO_GATE.to_owned(), fix }
}

fn switched_off(gate: &Value, scene: &Scene<'_>) -> Option<Defect> {
    let name = text(gate, "name")?;
    let place = scene.overrides.switched_off(name)?;
    let reason = format!("the gate is switched off in {place}: what goes there leaves unjudged");
    let fix = format!("in {place} remove {name} from typed_per_filter_config");
    Some(Defect { rule: Rule::GateMissing, reason, fix })
}

fn fail_open(gate: &Value) -> Option<Defect> {
    let plugin = plugin(gate)?;
    let is_open = is_choice(plugin, "failure_policy", "FAIL_OPEN", 3)
        || is_true(plugin, "fail_open")
        || is_true(gate, "is_optional");
    is_open.then(|| Defect {
        rule: Rule::GateFailOpen,
        reason: "requests pass unjudged when the gate fails".to_owned(),
        fix: format!(
            "write failure_policy: FAIL_RELOAD, and neither fail_open nor is_optional, in \
             {OPTIONS}.http_filters"
        ),
    })
}

/// A filter behind the gate may change whom a request is for. One that is disabled counts too: a route
/// may switch it on.
fn not_last(behind: &[Value]) -> Option<Defect> {
    let reason = match behind {
        [codec] if is_codec(codec) => return None,
        [] => format!("{CODEC} does not stand behind the gate"),
        [filter, ..] => {
            let name = text(filter, "name").unwrap_or("without a name");
            format!("the filter {name} can change the request after the gate has judged it")
        }
    };
    let fix = format!("in {OPTIONS}.http_filters write the gate directly before {CODEC}, the last");
    Some(Defect { rule: Rule::GateNotLast, reason, fix })
}

fn is_codec(filter: &Value) -> bool {
    match get(filter, "typed_config").map(typed) {
        Some((kind, _)) => kind.ends_with(".UpstreamCodec"),
        None => text(filter, "name") == Some(CODEC),
    }
}

/// The plugin's configuration in a filter that runs a module.
fn plugin(filter: &Value) -> Option<&Value> {
    let (kind, wasm) = typed(get(filter, "typed_config")?);
    if kind.ends_with(".Wasm") { get(wasm, "config") } else { None }
}

fn is_gate(plugin: &Value) -> bool {
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
