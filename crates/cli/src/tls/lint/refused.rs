//! Filters whose configuration the module refuses, so that all their requests are refused or pass without it.

use serde_json::Value;

use vkey::config::RoleConfig;

use super::super::super::plugins;
use super::super::document::{get, items, text};
use super::finding::{Element, Finding, InFile, LintRule};
use super::managers;
use super::plugin::Extensions;
use super::socket::http_options;
use super::source::Input;

/// The findings of listeners and clusters.
pub(super) fn findings<'a>(
    inputs: &'a [Input],
    clusters: &[InFile<&'a Value>],
    extensions: &Extensions<'a>,
) -> Vec<InFile<Finding>> {
    let mut findings = Vec::new();
    managers::visit(inputs, &mut |file, config, listener| {
        let upgrades = items(config, "upgrade_configs").iter();
        let filters = upgrades.flat_map(|upgrade| items(upgrade, "filters"));
        let filters = items(config, "http_filters").iter().chain(filters);
        let element = Element::Listener(listener.to_owned());
        let found = filters.filter_map(|filter| finding(filter, extensions, &element));
        findings.extend(found.map(|finding| InFile::new(file, finding)));
    });
    for InFile { file, item: cluster } in clusters {
        let filters = http_options(cluster).map_or(&[][..], |o| items(o, "http_filters"));
        let name = text(cluster, "name").unwrap_or_default().to_owned();
        let element = Element::Cluster { name, host: Element::UNKNOWN_HOST.to_owned() };
        let found = filters.iter().filter_map(|filter| finding(filter, extensions, &element));
        findings.extend(found.map(|finding| InFile::new(*file, finding)));
    }
    findings
}

fn finding<'a>(
    filter: &'a Value,
    extensions: &Extensions<'a>,
    element: &Element,
) -> Option<Finding> {
    let name = text(filter, "name").unwrap_or("without a name");
    let refusal = refusal(extensions.plugin(filter)?)?;
    Some(Finding {
        element: element.clone(),
        rule: LintRule::ConfigurationRefused,
        reason: format!("the module refuses its configuration in the filter {name}: {refusal}"),
        fix: "correct it, and check it with `vkey config check`".to_owned(),
    })
}

/// Why the module refuses the configuration of a plugin, if it is the module's. A message without a type, which Envoy refuses,
/// is taken as it is.
fn refusal(plugin: &Value) -> Option<String> {
    let configuration = get(plugin, "configuration")?;
    let (read, expected) = plugins::of_module(plugin)?;
    match expected.filter(|_| text(configuration, "@type").is_some()) {
        Some(expected) => Some(expected.to_owned()),
        None => Some(RoleConfig::parse(&read).err()?.to_string()),
    }
}
