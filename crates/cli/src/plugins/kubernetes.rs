//! Plugins in objects of Kubernetes: those of Istio and of Envoy Gateway.

use serde_json::Value;
use zeroize::Zeroizing;

use super::super::document::{at, get, items, text};
use super::{Environment, Holding, Place, Plugin, Vm, envoy, message};

/// Adds the plugins of an object, or of a list of objects. Returns whether it is one.
pub(super) fn find<'a>(value: &'a Value, place: &mut Place<'a>, found: &mut Vec<Plugin>) -> bool {
    let Some(kind) = text(value, "kind").filter(|_| text(value, "apiVersion").is_some()) else {
        return false;
    };
    let name = at(value, &["metadata", "name"]).and_then(Value::as_str);
    place.owned(name, |place| match kind {
        "WasmPlugin" => {
            let spec = get(value, "spec");
            found.extend(place.member("spec", |place| istio("WasmPlugin", spec, place)));
        }
        "TrafficExtension" => {
            let wasm = at(value, &["spec", "wasm"]);
            let read = |place: &mut Place<'a>| {
                place.member("wasm", |place| istio("TrafficExtension", wasm, place))
            };
            found.extend(place.member("spec", read));
        }
        "EnvoyExtensionPolicy" => {
            place.member("spec", |place| envoy_gateway(value, place, found));
        }
        _ if kind.ends_with("List") => listed(value, place, found),
        _ => envoy::find(value, place, found),
    });
    true
}

fn listed<'a>(list: &'a Value, place: &mut Place<'a>, found: &mut Vec<Plugin>) {
    place.member("items", |place| {
        for (index, item) in items(list, "items").iter().enumerate() {
            place.item(index, |place| find(item, place, found));
        }
    });
}

/// The plugin of Istio. It becomes a `Struct`, and variables have the value of the proxy or their own.
fn istio(kind: &'static str, wasm: Option<&Value>, place: &mut Place<'_>) -> Option<Plugin> {
    let wasm = wasm?;
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
    Some(Plugin {
        names: names.collect(),
        place: place.member("pluginConfig", |place| place.to_string()),
        text: get(wasm, "pluginConfig").map(message::of_struct).unwrap_or_default(),
        environment: Some(environment),
        vm: Vm::default(),
        holding: Holding::ByNo(kind),
        buffer_bytes: None,
        code: text(wasm, "url").map(str::to_owned),
        expected: None,
    })
}

/// The plugins of Envoy Gateway. Their configuration is handed over as JSON.
fn envoy_gateway<'a>(policy: &'a Value, place: &mut Place<'a>, found: &mut Vec<Plugin>) {
    let list = get(policy, "spec").map_or(&[][..], |spec| items(spec, "wasm"));
    for (index, wasm) in list.iter().enumerate() {
        let mut environment = Environment::new("env.hostKeys");
        let keys = get(wasm, "env").map_or(&[][..], |env| items(env, "hostKeys"));
        environment.inherited = keys.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let path = |place: &mut Place<'a>| {
            place.item(index, |place| place.member("config", |place| place.to_string()))
        };
        let names = place.owners().chain(text(wasm, "name")).map(str::to_owned);
        let configuration = get(wasm, "config").map(|config| config.to_string().into_bytes());
        let code = get(wasm, "code");
        let code = code.and_then(|code| get(code, "image").or_else(|| get(code, "http")));
        found.push(Plugin {
            names: names.collect(),
            place: place.member("wasm", path),
            text: Zeroizing::new(configuration.unwrap_or_default()),
            environment: Some(environment),
            vm: Vm::default(),
            holding: Holding::ByNo("EnvoyExtensionPolicy"),
            buffer_bytes: None,
            code: code.and_then(|code| text(code, "url")).map(str::to_owned),
            expected: None,
        });
    }
}
