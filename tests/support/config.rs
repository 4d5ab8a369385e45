//! The shipped `envoy.yaml`, moved out of the way of other tests: free ports, files of its own.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{TempDir, root};

/// The shipped file as it is.
pub(crate) fn shipped() -> Value {
    let text = fs::read_to_string(root().join("envoy.yaml")).expect("envoy.yaml");
    serde_saphyr::from_str(&text).expect("envoy.yaml is YAML")
}

/// The HTTP connection manager of the listener called `gate` or `echo`.
pub(crate) fn connection_manager<'a>(config: &'a mut Value, listener: &str) -> &'a mut Value {
    let listener = named(config, "/static_resources/listeners", listener);
    &mut listener["filter_chains"][0]["filters"][0]["typed_config"]
}

/// The HTTP filters of the gate, in order.
pub(crate) fn http_filters(config: &mut Value) -> &mut Vec<Value> {
    let filters = &mut connection_manager(config, "gate")["http_filters"];
    filters.as_array_mut().expect("a list of filters")
}

/// The `config` of the gate's Wasm filter: name, failure policy, `vm_config`, configuration.
pub(crate) fn wasm(config: &mut Value) -> &mut Value {
    let filters = http_filters(config).iter_mut();
    let mut wasm = filters.filter(|filter| filter["name"] == "envoy.filters.http.wasm");
    &mut wasm.next().expect("a Wasm filter")["typed_config"]["config"]
}

/// The plugin configuration, as the text the module is given.
pub(crate) fn plugin(config: &mut Value) -> &mut Value {
    &mut wasm(config)["configuration"]["value"]
}

/// Lets the module see a variable of Envoy's environment.
pub(super) fn show_to_module(config: &mut Value, name: &str) {
    let variables = &mut wasm(config)["vm_config"]["environment_variables"]["host_env_keys"];
    let names = variables.as_array_mut().expect("a list of names");
    if !names.iter().any(|have| have == name) {
        names.push(json!(name));
    }
}

/// Takes whatever two running tests would fight over out of the configuration.
pub(super) fn isolate(config: &mut Value, module: &Path, access_log: &Path, dir: &TempDir) {
    config["admin"]["address"]["socket_address"]["port_value"] = json!(0);
    let gate = named(config, "/static_resources/listeners", "gate");
    gate["address"]["socket_address"]["port_value"] = json!(0);
    // An abstract socket needs no free port that a cluster would have to know beforehand, leaves
    // no file, and is not cut off at 107 bytes of a deep checkout's path.
    let socket = json!({"pipe": {"path": format!("@{}", dir.unique())}});
    named(config, "/static_resources/listeners", "echo")["address"] = socket.clone();
    let cluster = named(config, "/static_resources/clusters", "echo");
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = socket;
    let logger = &mut connection_manager(config, "gate")["access_log"][0];
    logger["typed_config"]["path"] = json!(access_log);
    wasm(config)["vm_config"]["code"]["local"]["filename"] = json!(module);
}

fn named<'a>(config: &'a mut Value, list: &str, name: &str) -> &'a mut Value {
    let items = config.pointer_mut(list).and_then(Value::as_array_mut).expect("a list");
    items.iter_mut().find(|item| item["name"] == name).expect("a member of that name")
}
