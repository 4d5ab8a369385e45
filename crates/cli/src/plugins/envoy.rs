//! Plugins in the configuration of Envoy: a bootstrap, a discovery response, a filter, or a dump.

use std::collections::BTreeMap;

use serde_json::Value;
use zeroize::Zeroizing;

use super::super::document::{NOT_IN_FORCE, at, get, is_true, items, text, typed};
use super::{Discovered, Environment, Holding, Place, Plugin, Vm, flags, message};

/// The member that lists the variables.
const VARIABLES: &str = "vm_config.environment_variables.host_env_keys";

/// Members that only named things have: listeners, clusters, extensions.
const NAMED: [&str; 7] = [
    "filter_chains",
    "default_filter_chain",
    "api_listener",
    "load_assignment",
    "typed_extension_protocol_options",
    "config_discovery",
    "typed_config",
];

/// Members that only listeners have.
const LISTENER_MEMBERS: [&str; 3] = ["filter_chains", "default_filter_chain", "api_listener"];

/// How much of a body a listener holds if it does not say.
const DEFAULT_BUFFER_BYTES: u64 = 1_048_576;

/// Adds the plugins in a value, outer ones first.
pub(super) fn find<'a>(value: &'a Value, place: &mut Place<'a>, found: &mut Vec<Plugin>) {
    match value {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| place.item(index, |place| find(item, place, found)));
        }
        Value::Object(members) => {
            let (kind, wasm) = typed(value);
            if let Some(plugin) = get(wasm, "config").filter(|_| is_filter(kind)) {
                return found.push(read(plugin, place));
            }
            let earlier = found.len();
            place.owned(owner(value), |place| {
                let in_force =
                    members.iter().filter(|(name, _)| !NOT_IN_FORCE.contains(&name.as_str()));
                in_force.for_each(|(name, member)| {
                    place.member(name, |place| find(member, place, found));
                });
            });
            if is_listener(value) {
                let buffer_bytes = buffer_bytes(value);
                let inside = found.iter_mut().skip(earlier);
                inside.for_each(|plugin| plugin.buffer_bytes = buffer_bytes);
            }
            if kind.ends_with(".TypedExtensionConfig") {
                let name = text(value, "name").map(str::to_owned);
                found
                    .iter_mut()
                    .skip(earlier)
                    .for_each(|plugin| plugin.vm.filter.clone_from(&name));
            }
        }
        _ => {}
    }
}

/// Whether a type is that of HTTP filters that run a Wasm module. Network filters run modules too.
pub(crate) fn is_filter(kind: &str) -> bool {
    kind.contains(".filters.http.wasm.") && kind.ends_with(".Wasm")
}

fn is_listener(value: &Value) -> bool {
    LISTENER_MEMBERS.iter().any(|member| get(value, member).is_some())
}

/// How much of a body a listener holds; `None` if there is no bound.
fn buffer_bytes(listener: &Value) -> Option<u64> {
    let bytes = get(listener, "per_connection_buffer_limit_bytes").map(|bytes| match bytes {
        Value::String(digits) => digits.parse().ok(),
        bytes => bytes.as_u64(),
    });
    bytes.unwrap_or(Some(DEFAULT_BUFFER_BYTES)).filter(|bytes| *bytes > 0)
}

/// The name of a listener, a cluster or a filter.
fn owner(value: &Value) -> Option<&str> {
    let is_named = NAMED.iter().any(|member| get(value, member).is_some());
    text(value, "name").filter(|_| is_named)
}

/// A plugin at a place.
pub(super) fn read(plugin: &Value, place: &Place<'_>) -> Plugin {
    let names = place.owners().chain(text(plugin, "name")).map(str::to_owned);
    // What is no text only serves to recognize the module.
    let (text, expected) = match message::configuration(plugin) {
        Ok(text) => (text, None),
        Err(expected) => (message::content(plugin), Some(expected)),
    };
    Plugin {
        place: format!("{place}.config.configuration"),
        names: names.collect(),
        text,
        environment: Some(environment(plugin)),
        vm: vm(plugin),
        holding: match is_true(plugin, "allow_on_headers_stop_iteration") {
            true => Holding::Held,
            false => Holding::NotSet,
        },
        buffer_bytes: None,
        flags: flags::of_envoy(plugin, place),
        code: code(plugin).map(str::to_owned),
        expected,
        ..Plugin::default()
    }
}

/// Where the code comes from: a file or a URL.
fn code(plugin: &Value) -> Option<&str> {
    let code = at(plugin, &["vm_config", "code"])?;
    let local = at(code, &["local", "filename"]);
    local.or_else(|| at(code, &["remote", "http_uri", "uri"]))?.as_str()
}

fn vm(plugin: &Value) -> Vm {
    let module = at(plugin, &["vm_config", "code", "local"]);
    let module = module.and_then(|local| text(local, "filename"));
    let id = get(plugin, "vm_config").and_then(|vm| text(vm, "vm_id"));
    Vm { module: module.map(str::to_owned), id: id.map(str::to_owned), filter: None }
}

/// The Wasm filter that discovery delivers, if this object is one.
pub(crate) fn discovered(object: &Value) -> Option<Discovered> {
    let discovery = get(object, "config_discovery")?;
    let mut types = items(discovery, "type_urls").iter().filter_map(Value::as_str);
    if !types.any(|kind| kind.ends_with(".Wasm")) {
        return None;
    }
    let source = get(discovery, "config_source")?;
    let path = at(source, &["path_config_source", "path"]).or_else(|| get(source, "path"));
    Some(Discovered {
        filter: text(object, "name")?.to_owned(),
        path: path.and_then(Value::as_str).map(str::to_owned),
    })
}

fn environment(plugin: &Value) -> Environment {
    let mut environment = Environment::new(VARIABLES);
    if let Some(variables) = at(plugin, &["vm_config", "environment_variables"]) {
        let inherited = items(variables, "host_env_keys").iter().filter_map(Value::as_str);
        environment.inherited = inherited.map(str::to_owned).collect();
        environment.literal = literals(get(variables, "key_values"));
    }
    environment
}

fn literals(values: Option<&Value>) -> BTreeMap<String, Zeroizing<String>> {
    let members = values.and_then(Value::as_object).into_iter().flatten();
    let text = |(name, value): (&String, &Value)| {
        Some((name.clone(), Zeroizing::new(value.as_str()?.to_owned())))
    };
    members.filter_map(text).collect()
}
