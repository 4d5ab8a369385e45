//! What shows at run time: the stamp of a cluster, and the gate among its filters.

use serde_json::Value;

use vkey::upstream_tls::{Stamp, UpstreamPattern};

use super::super::document::{at, is_choice, is_true, items, text};
use super::context::Case;
use super::finding::{Finding, Rule};
use super::hosts::stamp_hosts;
use super::plugin::{Extensions, GATE_ROLE};
use super::proxy_config::Scene;
use super::socket::http_options;

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

    /// What is wrong, in words that follow the name of the cluster.
    pub(super) fn of_which(&self) -> String {
        if self.reason == NO_GATE {
            "which has no gate".to_owned()
        } else {
            format!("whose gate does not hold: {}", self.reason)
        }
    }
}

/// Looks for the gate among the filters of a cluster. Of several the last one counts: what passes it
/// leaves.
pub(super) fn defects<'a>(cluster: &'a Value, scene: &Scene<'a>) -> Vec<Defect> {
    let filters = filters(cluster);
    let Some(position) = position(filters, &scene.extensions) else {
        return vec![missing()];
    };
    let (before, behind) = filters.split_at(position.saturating_add(1));
    let Some(gate) = before.last() else { return vec![missing()] };
    let extensions = &scene.extensions;
    let found =
        [switched_off(gate, scene), fail_open(gate, extensions), not_last(behind, extensions)];
    found.into_iter().flatten().collect()
}

/// The names of the credentials that the gate of a cluster holds.
pub(super) fn credentials<'a>(cluster: &'a Value, scene: &Scene<'a>) -> Vec<String> {
    let filters = filters(cluster);
    let gate = position(filters, &scene.extensions).and_then(|position| filters.get(position));
    let Some(gate) = gate.and_then(|gate| scene.extensions.gate(gate)) else { return Vec::new() };
    let names =
        items(&gate, "credentials").iter().filter_map(|credential| text(credential, "name"));
    names.map(str::to_owned).collect()
}

fn filters(cluster: &Value) -> &[Value] {
    http_options(cluster).map_or(&[], |options| items(options, "http_filters"))
}

fn position<'a>(filters: &'a [Value], extensions: &Extensions<'a>) -> Option<usize> {
    let is_on = |filter: &Value| !is_true(filter, "disabled");
    filters.iter().rposition(|filter| is_on(filter) && extensions.gate(filter).is_some())
}

fn missing() -> Defect {
    let fix = format!(
        "write the module with the configuration {{\"role\": \"{GATE_ROLE}\"}} into \
         {OPTIONS}.http_filters, before {CODEC}"
    );
    Defect { rule: Rule::GateMissing, reason: NO_GATE.to_owned(), fix }
}

fn switched_off(gate: &Value, scene: &Scene<'_>) -> Option<Defect> {
    let name = text(gate, "name")?;
    let place = scene.overrides.switched_off(name)?.in_words();
    let reason = format!("the gate is switched off in {place}: what goes there leaves unjudged");
    let fix = format!("in {place} remove {name} from typed_per_filter_config");
    Some(Defect { rule: Rule::GateMissing, reason, fix })
}

fn fail_open<'a>(gate: &'a Value, extensions: &Extensions<'a>) -> Option<Defect> {
    let plugin = extensions.plugin(gate)?;
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
fn not_last<'a>(behind: &'a [Value], extensions: &Extensions<'a>) -> Option<Defect> {
    let reason = match behind {
        [codec] if is_codec(codec, extensions) => return None,
        [] => format!("{CODEC} does not stand behind the gate"),
        [filter, ..] => {
            let name = text(filter, "name").unwrap_or("without a name");
            format!("the filter {name} can change the request after the gate has judged it")
        }
    };
    let fix = format!("in {OPTIONS}.http_filters write the gate directly before {CODEC}, the last");
    Some(Defect { rule: Rule::GateNotLast, reason, fix })
}

fn is_codec<'a>(filter: &'a Value, extensions: &Extensions<'a>) -> bool {
    match extensions.filter(filter) {
        Some((kind, _)) => kind.ends_with(".UpstreamCodec"),
        None => text(filter, "name") == Some(CODEC),
    }
}
