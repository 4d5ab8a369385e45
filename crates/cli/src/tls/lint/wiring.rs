//! Checks what the module needs around it: its variables, the access log that prints its audit lines, the labels of
//! its metrics, and the module itself where there is a seal.

use std::collections::BTreeSet;

use serde_json::Value;

use vkey::audit::ACCESS_LOG_FORMAT;
use vkey::host::FilterState;

use super::super::document::{at, get, items, text, walk};
use super::finding::{Element, Finding, InFile, LintRule, Note};
use super::managers::Manager;
use super::plugin::{self, Extensions};
use super::proxy_config::ProxyConfig;
use super::source::Input;
use super::{managers, seal, upstream_gate};

/// The labels of the module's metrics, which Envoy takes out of their names.
const LABELS: [&str; 12] = [
    "anomaly", "class", "decision", "digest", "format", "kind", "limit", "reason", "ring",
    "tenant", "upstream", "verdict",
];

/// The start of the names of the module's metrics.
const METRICS: &str = "vkey_";

/// What the module of a listener lacks.
pub(super) fn findings(manager: &Manager<'_>) -> impl Iterator<Item = Finding> {
    [variables(manager), audit_lines(manager), audit_format(manager)].into_iter().flatten()
}

/// The configuration of a listener's module names variables that do not reach it.
fn variables(manager: &Manager<'_>) -> Option<Finding> {
    let element = Element::Listener(manager.listener.to_owned());
    missing_variables(manager.plugin, &manager.front.variables(), element)
}

/// The configuration of a cluster's gate names variables that do not reach it.
pub(super) fn of_cluster<'a>(
    cluster: &'a Value,
    proxy_config: &ProxyConfig<'a>,
) -> Option<Finding> {
    let extensions = &proxy_config.extensions;
    let gate = upstream_gate::gate(cluster, extensions)?;
    let name = text(cluster, "name").unwrap_or_default().to_owned();
    let element = Element::Cluster { name, host: Element::UNKNOWN_HOST.to_owned() };
    missing_variables(
        extensions.plugin(gate)?,
        &plugin::variables(&extensions.gate(gate)?),
        element,
    )
}

/// Variables that a module's configuration names and that do not reach it. Then it refuses every request.
fn missing_variables(
    plugin: &Value,
    named: &BTreeSet<String>,
    element: Element,
) -> Option<Finding> {
    let environment = at(plugin, &["vm_config", "environment_variables"]);
    let shared = environment.map_or(&[][..], |given| items(given, "host_env_keys"));
    let set = environment.and_then(|given| get(given, "key_values")).and_then(Value::as_object);
    let set = set.into_iter().flat_map(serde_json::Map::keys).map(String::as_str);
    let given: BTreeSet<&str> = shared.iter().filter_map(Value::as_str).chain(set).collect();
    let missing = Vec::from_iter(named.iter().map(String::as_str).filter(|n| !given.contains(n)));
    if missing.is_empty() {
        return None;
    }
    let names = missing.join(", ");
    Some(Finding {
        element,
        rule: LintRule::VariableMissing,
        reason: format!(
            "the module does not see {names}, which its configuration names, and so refuses every request"
        ),
        fix: format!(
            "in the vm_config of the module, and of the gates of the clusters, write \
             environment_variables: {{host_env_keys: [{names}]}}, and set the variable for Envoy"
        ),
    })
}

/// Audit lines go to the access log, and it does not print them.
fn audit_lines(manager: &Manager<'_>) -> Option<Finding> {
    let state = FilterState::Audit.shown_key();
    if !manager.front.uses_access_log()
        || items(manager.config, "access_log").iter().any(|logger| mentions(logger, state))
        || reads_format(manager)
    {
        return None;
    }
    Some(Finding {
        element: Element::Listener(manager.listener.to_owned()),
        rule: LintRule::AuditLineLost,
        reason: format!(
            "audit.sink is access_log, and no access log prints the filter state {state}: audit lines are lost"
        ),
        fix: format!(
            "in the HTTP connection manager write an access_log with this log_format.text_format_source.inline_string, \
             and a line end after it: {ACCESS_LOG_FORMAT}"
        ),
    })
}

/// An access log prints the record, but not as the beginning of an audit line. The record is a part of a JSON object.
fn audit_format(manager: &Manager<'_>) -> Option<Finding> {
    let state = FilterState::Audit.shown_key();
    let (start, _) = ACCESS_LOG_FORMAT.split_once(state)?;
    let start = [start, state, ":PLAIN)%\""].concat();
    let is_valid = |format: &str| format.starts_with(&start) && format.trim_end().ends_with('}');
    let loggers = items(manager.config, "access_log");
    let is_invalid = |logger: &Value| {
        texts(logger).iter().any(|(name, text)| {
            let is_whole =
                !matches!(*name, "inline_string" | "inlineString") || text.ends_with('\n');
            text.contains(state) && !(is_valid(text) && is_whole)
        })
    };
    let invalid = manager.front.uses_access_log() && loggers.iter().any(is_invalid);
    invalid.then(|| Finding {
        element: Element::Listener(manager.listener.to_owned()),
        rule: LintRule::AuditLineInvalid,
        reason: format!(
            "an access log prints the filter state {state} in a format that makes no audit lines: the record is the \
             beginning of a JSON object, which the format completes"
        ),
        fix: format!(
            "write this log_format.text_format_source.inline_string, and a line end after it: {ACCESS_LOG_FORMAT}"
        ),
    })
}

/// The texts in a logger, each with the name of its member.
fn texts(logger: &Value) -> Vec<(&str, &str)> {
    let mut texts = Vec::new();
    walk(logger, &mut |object| {
        let members = object.as_object().into_iter().flatten();
        texts.extend(members.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))));
    });
    texts
}

/// A note about an access log whose format is in a file, if audit lines go there and no other access log prints them.
pub(super) fn unread_format(manager: &Manager<'_>) -> Option<Note> {
    let state = FilterState::Audit.shown_key();
    let is_printed = mentions(get(manager.config, "access_log")?, state);
    let is_unread = manager.front.uses_access_log() && !is_printed && reads_format(manager);
    is_unread.then(|| Note {
        place: manager.listener.to_owned(),
        text: format!(
            "the format of its access log is in a file, so it is not known whether it prints the filter state {state}"
        ),
    })
}

/// Whether an access log has its format from a file.
fn reads_format(manager: &Manager<'_>) -> bool {
    let mut reads = false;
    for logger in items(manager.config, "access_log") {
        walk(logger, &mut |object| {
            reads |= at(object, &["text_format_source", "filename"]).is_some();
        });
    }
    reads
}

fn mentions(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => text.contains(word),
        Value::Array(items) => items.iter().any(|item| mentions(item, word)),
        Value::Object(members) => members.values().any(|member| mentions(member, word)),
        _ => false,
    }
}

/// Listeners with a seal and no module that could satisfy it.
pub(super) fn without_module<'a>(
    inputs: &'a [Input],
    extensions: &Extensions<'a>,
) -> Vec<InFile<Finding>> {
    let mut findings = Vec::new();
    managers::visit(inputs, &mut |file, config, listener| {
        let filters = items(config, "http_filters");
        let is_sealed = filters.iter().any(|filter| seal::is_seal(filter, extensions));
        if is_sealed && !filters.iter().any(|filter| may_be_module(filter, extensions)) {
            let finding = Finding {
                element: Element::Listener(listener.to_owned()),
                rule: LintRule::ModuleMissing,
                reason: "the seal refuses every request, because no filter runs the module"
                    .to_owned(),
                fix: "write an envoy.filters.http.wasm with the module and its configuration before the seal"
                    .to_owned(),
            };
            findings.push(InFile::new(file, finding));
        }
    });
    findings
}

/// Whether a filter may run the module: what discovery delivers need not be in the input.
pub(super) fn may_be_module<'a>(filter: &'a Value, extensions: &Extensions<'a>) -> bool {
    get(filter, "config_discovery").is_some()
        || extensions.filter(filter).is_none_or(|(kind, _)| kind.ends_with(".Wasm"))
}

/// A note about a bootstrap whose metrics of the module keep their labels in their names.
pub(super) fn labels(inputs: &[Input], listener: &str) -> Option<Note> {
    let (mut is_bootstrap, mut tagged) = (false, BTreeSet::new());
    for document in inputs.iter().flat_map(|input| &input.documents) {
        walk(document, &mut |object| {
            is_bootstrap |= get(object, "static_resources").is_some();
            let tags = get(object, "stats_config").map_or(&[][..], |c| items(c, "stats_tags"));
            let own = tags
                .iter()
                .filter(|tag| text(tag, "regex").is_some_and(|regex| regex.contains(METRICS)));
            tagged.extend(own.filter_map(|tag| text(tag, "tag_name")));
        });
    }
    let missing = Vec::from_iter(LABELS.into_iter().filter(|label| !tagged.contains(label)));
    (is_bootstrap && !missing.is_empty()).then(|| Note {
        place: listener.to_owned(),
        text: format!(
            "stats_config.stats_tags has no rule for {}: these labels of the module's metrics stay in the names",
            missing.join(", ")
        ),
    })
}
