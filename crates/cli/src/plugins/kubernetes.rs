//! Plugins in objects of Kubernetes: those of Istio and of Envoy Gateway.

use serde_json::Value;
use zeroize::Zeroizing;

use super::super::document::{self, DocumentError, at, get, is_of_proxy, items, text};
use super::part::Owner;
use super::{Environment, Holding, KEYRING, Place, Plugin, envoy, flags, message};

/// Adds the plugins of an object, or of a list of objects. Returns whether it is one.
pub(super) fn find<'a>(value: &'a Value, place: &mut Place<'a>, found: &mut Vec<Plugin>) -> bool {
    let Some(owner) = Owner::of(value) else { return false };
    let name = at(value, &["metadata", "name"]).and_then(Value::as_str);
    let earlier = found.len();
    place.owned(name, |place| match &*owner.kind {
        "WasmPlugin" => {
            let Some(spec) = get(value, "spec") else { return };
            let read = |place: &mut Place<'a>| {
                let mut plugin = istio("WasmPlugin", spec, place);
                flags::add_phase(&mut plugin.flags, spec, place);
                plugin
            };
            found.push(place.member("spec", read));
        }
        "TrafficExtension" => {
            let Some(spec) = get(value, "spec") else { return };
            let Some(wasm) = get(spec, "wasm") else { return };
            let read = |place: &mut Place<'a>| {
                let read = |place: &mut Place<'a>| istio("TrafficExtension", wasm, place);
                let mut plugin = place.member("wasm", read);
                flags::add_phase(&mut plugin.flags, spec, place);
                plugin
            };
            found.push(place.member("spec", read));
        }
        "EnvoyExtensionPolicy" => {
            place.member("spec", |place| envoy_gateway(value, place, found));
        }
        _ if owner.is_list() => listed(value, place, found),
        _ => envoy::find(value, place, found),
    });
    if !owner.is_list() {
        for plugin in found.iter_mut().skip(earlier) {
            plugin.root = place.to_string();
            plugin.owner = Some(owner.clone());
        }
    }
    true
}

/// Replaces the texts in a ConfigMap that configure Envoy by what they say. The error has the path of a text that cannot
/// be parsed and has a configuration of the module.
pub(super) fn unfold(value: &mut Value) -> Result<(), (String, DocumentError)> {
    let Some(owner) = Owner::of(value) else { return Ok(()) };
    if owner.is_list() {
        let items = value.get_mut("items").and_then(Value::as_array_mut);
        return items.into_iter().flatten().try_for_each(unfold);
    }
    let data = value.get_mut("data").and_then(Value::as_object_mut);
    for (name, member) in data.filter(|_| owner.is("", "ConfigMap")).into_iter().flatten() {
        let Value::String(text) = &*member else { continue };
        match document::parse_all(text.as_bytes()) {
            Ok(documents) if documents.iter().any(is_of_proxy) => *member = Value::Array(documents),
            Err(error) if text.contains(KEYRING) => {
                return Err((format!("{owner}: data.{name}"), error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn listed<'a>(list: &'a Value, place: &mut Place<'a>, found: &mut Vec<Plugin>) {
    place.member("items", |place| {
        for (index, item) in items(list, "items").iter().enumerate() {
            place.item(index, |place| find(item, place, found));
        }
    });
}

/// The plugin of Istio. It becomes a `Struct`, and variables have the value of the proxy or their own.
fn istio(kind: &'static str, wasm: &Value, place: &mut Place<'_>) -> Plugin {
    let mut environment = Environment::new("vmConfig.env, with valueFrom: HOST");
    let listed = get(wasm, "vmConfig").map_or(&[][..], |vm| items(vm, "env"));
    for variable in listed {
        let Some(name) = text(variable, "name").map(str::to_owned) else { continue };
        match text(variable, "valueFrom") {
            Some("HOST") => _ = environment.inherited.insert(name),
            _ => {
                let value = text(variable, "value").unwrap_or_default().to_owned();
                environment.literal.insert(name, Zeroizing::new(value));
            }
        }
    }
    let names = place.owners().chain(text(wasm, "pluginName")).map(str::to_owned);
    Plugin {
        names: names.collect(),
        flags: flags::of_istio(wasm, place),
        place: place.member("pluginConfig", |place| place.to_string()),
        text: get(wasm, "pluginConfig").map(message::of_struct).unwrap_or_default(),
        environment: Some(environment),
        holding: Holding::ByNo(kind),
        code: text(wasm, "url").map(str::to_owned),
        ..Plugin::default()
    }
}

/// The plugins of Envoy Gateway. Their configuration is handed over as JSON.
fn envoy_gateway<'a>(policy: &'a Value, place: &mut Place<'a>, found: &mut Vec<Plugin>) {
    let list = get(policy, "spec").map_or(&[][..], |spec| items(spec, "wasm"));
    for (index, wasm) in list.iter().enumerate() {
        let mut environment = Environment::new("env.hostKeys");
        let keys = get(wasm, "env").map_or(&[][..], |env| items(env, "hostKeys"));
        environment.inherited = keys.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let read = |place: &mut Place<'a>| {
            let flags = flags::of_envoy_gateway(wasm, place);
            (place.member("config", |place| place.to_string()), flags)
        };
        let (place_of_config, flags) =
            place.member("wasm", |place| place.item(index, |place| read(place)));
        let names = place.owners().chain(text(wasm, "name")).map(str::to_owned);
        let configuration = get(wasm, "config").map(|config| config.to_string().into_bytes());
        let code = get(wasm, "code");
        let code = code.and_then(|code| get(code, "image").or_else(|| get(code, "http")));
        found.push(Plugin {
            names: names.collect(),
            place: place_of_config,
            flags,
            text: Zeroizing::new(configuration.unwrap_or_default()),
            environment: Some(environment),
            holding: Holding::ByNo("EnvoyExtensionPolicy"),
            code: code.and_then(|code| text(code, "url")).map(str::to_owned),
            ..Plugin::default()
        });
    }
}
