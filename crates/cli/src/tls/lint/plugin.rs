//! The filters that run the module, and its configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use vkey::config::RoleConfig;

use super::super::super::plugins;
use super::super::document::{at, get, is_true, items, text, typed};

/// The role of the module as an upstream gate.
pub(super) const GATE_ROLE: &str = "upstream_tls";

/// The default key sources of a listener's gate.
const DEFAULT_KEY_SOURCES: [&str; 4] = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// Filter configurations that discovery delivers separately, by name.
#[derive(Default)]
pub(super) struct Extensions<'a>(BTreeMap<&'a str, &'a Value>);

/// The configuration of the module in a listener.
pub(super) struct Front(Value);

impl<'a> Extensions<'a> {
    /// Adds an object, if it is the configuration of an extension.
    pub(super) fn add(&mut self, object: &'a Value) {
        let (kind, content) = typed(object);
        if let Some(name) =
            text(content, "name").filter(|_| kind.ends_with(".TypedExtensionConfig"))
        {
            self.0.insert(name, content);
        }
    }

    /// The type and configuration of a filter, inline or discovered. A filter that a matcher may skip counts
    /// as if it ran.
    pub(super) fn filter(&self, filter: &'a Value) -> Option<(&'a str, &'a Value)> {
        let discovery = get(filter, "config_discovery");
        let discovered = discovery.and_then(|_| self.0.get(text(filter, "name")?));
        let config = get(filter, "typed_config")
            .or_else(|| discovered.and_then(|extension| get(extension, "typed_config")))
            .or_else(|| discovery.and_then(|discovery| get(discovery, "default_config")));
        let (kind, config) = typed(config?);
        match at(config, &["extension_config", "typed_config"]) {
            Some(inner) if kind.ends_with(".ExtensionWithMatcher") => Some(typed(inner)),
            _ => Some((kind, config)),
        }
    }

    /// The plugin of a filter that runs a Wasm module.
    pub(super) fn plugin(&self, filter: &'a Value) -> Option<&'a Value> {
        let (kind, wasm) = self.filter(filter)?;
        if plugins::is_filter(kind) { get(wasm, "config") } else { None }
    }

    /// The module's configuration in a filter of a listener.
    pub(super) fn front(&self, filter: &'a Value) -> Option<Front> {
        let configuration = configuration(self.plugin(filter)?)?;
        get(&configuration, "keyring").is_some().then_some(Front(configuration))
    }

    /// The module's configuration in a filter of a cluster.
    pub(super) fn gate(&self, filter: &'a Value) -> Option<Value> {
        let configuration = configuration(self.plugin(filter)?)?;
        (text(&configuration, "role") == Some(GATE_ROLE)).then_some(configuration)
    }
}

impl Front {
    /// The configuration as JSON.
    pub(super) fn to_text(&self) -> String {
        self.0.to_string()
    }

    /// The headers of key sources, in lower case.
    pub(super) fn key_sources(&self) -> Vec<String> {
        let sources = items(&self.0, "key_sources").iter().filter_map(|s| text(s, "header"));
        let sources = Vec::from_iter(sources.map(str::to_ascii_lowercase));
        if sources.is_empty() { DEFAULT_KEY_SOURCES.map(str::to_owned).to_vec() } else { sources }
    }

    /// Whether the client's address comes from `x-forwarded-for`.
    pub(super) fn trusts_hops(&self) -> bool {
        let hops = at(&self.0, &["client", "trusted_hops"]).and_then(Value::as_f64);
        hops.is_some_and(|hops| hops > 0.0)
    }

    /// Whether escaped slashes are kept for the keys of some tier.
    pub(super) fn keeps_escaped_slashes(&self) -> bool {
        let tiers = get(&self.0, "tiers").and_then(Value::as_object);
        let keeps = |tier: &Value| text(tier, "escaped_slashes") == Some("keep");
        tiers.is_some_and(|tiers| tiers.values().any(keeps))
    }

    /// Whether it holds the values of provider credentials.
    pub(super) fn holds_credentials(&self) -> bool {
        let is_in_front =
            get(&self.0, "forward").is_some_and(|f| is_true(f, "credentials_in_front"));
        is_in_front || self.credentials().iter().any(|c| get(c, "value").is_some())
    }

    /// Whether it counts on a filter that enforces limits of the whole cluster.
    pub(super) fn has_cluster_limits(&self) -> bool {
        get(&self.0, "limits").is_some_and(|limits| is_true(limits, "cluster"))
    }

    /// Whether audit lines are for the proxy's access log.
    pub(super) fn uses_access_log(&self) -> bool {
        at(&self.0, &["audit", "sink"]).and_then(Value::as_str) == Some("access_log")
    }

    /// The environment variables that the module reads; those that it names as `${NAME}` if the module refuses it.
    pub(super) fn variables(&self) -> BTreeSet<String> {
        match RoleConfig::parse(self.to_text().as_bytes()) {
            Ok(RoleConfig::Gate(config)) => config.variables().map(str::to_owned).collect(),
            Ok(RoleConfig::UpstreamTls(_)) | Err(_) => variables(&self.0),
        }
    }

    /// The names of the provider credentials that it grants.
    pub(super) fn credential_names(&self) -> impl Iterator<Item = &str> {
        self.credentials().iter().filter_map(|credential| text(credential, "name"))
    }

    fn credentials(&self) -> &[Value] {
        get(&self.0, "forward").map_or(&[], |forward| items(forward, "credentials"))
    }
}

/// The environment variables that a configuration names, as `${NAME}`.
pub(super) fn variables(configuration: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect_variables(configuration, &mut names);
    names
}

fn collect_variables(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let starts = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
            names.extend(starts.map(|(name, _)| name.to_owned()));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_variables(item, names)),
        Value::Object(members) => {
            members.values().for_each(|member| collect_variables(member, names));
        }
        _ => {}
    }
}

/// The configuration of a plugin, if the module could read it. A message without a type, which Envoy
/// refuses, is taken as it is.
fn configuration(plugin: &Value) -> Option<Value> {
    let message = get(plugin, "configuration")?;
    if text(message, "@type").is_none() {
        return Some(get(message, "value").unwrap_or(message).clone());
    }
    serde_json::from_slice(&plugins::configuration(plugin).ok()?).ok()
}
