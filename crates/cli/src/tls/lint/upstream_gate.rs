//! Checks the parts that take effect at run time: a cluster's stamp, and the gate among its filters.

use serde_json::Value;

use vkey::upstream_tls::{Stamp, UpstreamPattern};

use super::super::document::{at, is_choice, is_true, items, text};
use super::context::ClusterContext;
use super::finding::{Finding, LintRule};
use super::hosts::stamp_hosts;
use super::plugin::{Extensions, GATE_ROLE};
use super::proxy_config::ProxyConfig;
use super::socket::http_options;

/// The filter that must be a cluster's last.
const CODEC: &str = "envoy.filters.http.upstream_codec";

/// Where the filters of a cluster are.
const OPTIONS: &str =
    "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]";

const NO_GATE: &str = "no HTTP filter of the cluster judges the connection before a request leaves";

/// Checks stamp and gate against the policy.
pub(super) fn check(cx: &ClusterContext<'_, '_>, findings: &mut Vec<Finding>) {
    findings.extend(stamp(cx));
    let gate = defects(cx.cluster, cx.proxy_config);
    findings
        .extend(gate.into_iter().map(|Defect { rule, reason, fix }| cx.finding(rule, reason, fix)));
}

fn stamp(cx: &ClusterContext<'_, '_>) -> Option<Finding> {
    let stamp = at(cx.cluster, &["metadata", "filter_metadata", Stamp::NAMESPACE]);
    let policy = stamp.and_then(|stamp| text(stamp, Stamp::POLICY));
    let fix = "render the cluster with `vkey tls render`, once it satisfies the policy";
    let hosts = stamp.map_or(&[][..], |stamp| items(stamp, Stamp::HOSTS));
    if hosts.len() > Stamp::MAX_HOSTS {
        let most = Stamp::MAX_HOSTS;
        let reason =
            format!("a stamp for more than {most} hosts is void; this is for {}", hosts.len());
        let fix = format!("let each cluster be for {most} hosts or fewer, and {fix}");
        return Some(cx.finding(LintRule::StampMissing, reason, fix));
    }
    let Some(policy) = policy.filter(|_| are_hosts(hosts)) else {
        let reason = "metadata.filter_metadata.vkey does not say which policy and which hosts the \
                      cluster was rendered for";
        return Some(cx.finding(LintRule::StampMissing, reason, fix));
    };
    if policy != cx.digest {
        let reason = format!("the stamp is of the policy {policy}, in force is {}", cx.digest);
        return Some(cx.finding(LintRule::StampStale, reason, fix));
    }
    cx.stamp_misses().map(|named| {
        let hosts = Vec::from_iter(stamp_hosts(cx.cluster)).join(", ");
        let reason = format!("the stamp is for {hosts}, the cluster also for {}", named.name);
        cx.finding_for(named, LintRule::StampOtherHosts, reason, fix.to_owned())
    })
}

/// Whether the list is not empty, and each host has the policy's spelling.
fn are_hosts(hosts: &[Value]) -> bool {
    let is_host = |host: &Value| host.as_str().and_then(UpstreamPattern::parse).is_some();
    !hosts.is_empty() && hosts.iter().all(is_host)
}

/// A defect of an upstream gate.
pub(super) struct Defect {
    rule: LintRule,
    reason: String,
    fix: String,
}

impl Defect {
    /// The defect, in words that follow a mention of the gate.
    pub(super) fn in_short(&self) -> &str {
        if self.reason == NO_GATE { "there is none" } else { &self.reason }
    }

    /// The defect, in words that follow the cluster's name.
    pub(super) fn of_which(&self) -> String {
        if self.reason == NO_GATE {
            "which has no gate".to_owned()
        } else {
            format!("whose gate does not hold: {}", self.reason)
        }
    }
}

/// Checks the gate among a cluster's filters. If there are several, only the last one matters, because what
/// passes it leaves.
pub(super) fn defects<'a>(cluster: &'a Value, proxy_config: &ProxyConfig<'a>) -> Vec<Defect> {
    let filters = filters(cluster);
    let Some(position) = position(filters, &proxy_config.extensions) else {
        return vec![missing()];
    };
    let (before, behind) = filters.split_at(position.saturating_add(1));
    let Some(gate) = before.last() else { return vec![missing()] };
    let extensions = &proxy_config.extensions;
    let found = [
        switched_off(gate, proxy_config),
        fail_open(gate, extensions),
        not_last(behind, extensions),
    ];
    found.into_iter().flatten().collect()
}

/// The names of the credentials that an upstream gate holds.
pub(super) fn credentials<'a>(cluster: &'a Value, proxy_config: &ProxyConfig<'a>) -> Vec<String> {
    let Some(gate) = configuration(cluster, proxy_config) else { return Vec::new() };
    let names =
        items(&gate, "credentials").iter().filter_map(|credential| text(credential, "name"));
    names.map(str::to_owned).collect()
}

/// The module's configuration in an upstream gate.
pub(super) fn configuration<'a>(
    cluster: &'a Value,
    proxy_config: &ProxyConfig<'a>,
) -> Option<Value> {
    let extensions = &proxy_config.extensions;
    extensions.gate(gate(cluster, extensions)?)
}

/// The filter that is the gate of a cluster.
pub(super) fn gate<'a>(cluster: &'a Value, extensions: &Extensions<'a>) -> Option<&'a Value> {
    let filters = filters(cluster);
    filters.get(position(filters, extensions)?)
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
    Defect { rule: LintRule::GateMissing, reason: NO_GATE.to_owned(), fix }
}

fn switched_off(gate: &Value, proxy_config: &ProxyConfig<'_>) -> Option<Defect> {
    let name = text(gate, "name")?;
    let place = proxy_config.overrides.switched_off(name)?.in_words();
    let reason = format!("the gate is switched off in {place}: what goes there leaves unjudged");
    let fix = format!("in {place} remove {name} from typed_per_filter_config");
    Some(Defect { rule: LintRule::GateMissing, reason, fix })
}

fn fail_open<'a>(gate: &'a Value, extensions: &Extensions<'a>) -> Option<Defect> {
    let plugin = extensions.plugin(gate)?;
    let is_open = is_choice(plugin, "failure_policy", "FAIL_OPEN", 3)
        || is_true(plugin, "fail_open")
        || is_true(gate, "is_optional");
    is_open.then(|| Defect {
        rule: LintRule::GateFailOpen,
        reason: "requests pass unjudged when the gate fails".to_owned(),
        fix: format!(
            "write failure_policy: FAIL_RELOAD, and neither fail_open nor is_optional, in \
             {OPTIONS}.http_filters"
        ),
    })
}

/// A filter after the gate may change whom a request is for. A disabled one counts too, because a route may
/// enable it.
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
    Some(Defect { rule: LintRule::GateNotLast, reason, fix })
}

fn is_codec<'a>(filter: &'a Value, extensions: &Extensions<'a>) -> bool {
    match extensions.filter(filter) {
        Some((kind, _)) => kind.ends_with(".UpstreamCodec"),
        None => text(filter, "name") == Some(CODEC),
    }
}
