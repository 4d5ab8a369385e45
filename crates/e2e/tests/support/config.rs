//! The shipped `envoy.yaml`, moved out of the way of other tests: free ports, files of its own.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{TempDir, root};

/// Where the variants of `envoy.yaml` and the SDS files look for certificates.
const TLS_FOLDER: &str = "target/tls";

/// The shipped file as it is.
pub(crate) fn shipped() -> Value {
    parse(&text())
}

/// The shipped file with variants enabled that read their files from that folder.
pub(crate) fn variant(names: &[String], folder: &Path) -> Value {
    parse(&variant_text(names, folder))
}

/// The text of `variant`.
pub(crate) fn variant_text(names: &[String], folder: &Path) -> String {
    let mut text = text();
    for name in names {
        let marker = format!("\n#{name} ");
        assert!(text.contains(&marker), "envoy.yaml has no variant {name}");
        text = text.replace(&marker, "\n");
    }
    in_folder(&text, folder)
}

/// The SDS files of the variants, as they ship, into a folder where the other files are.
pub(crate) fn write_sds(folder: &Path) {
    let shipped = fs::read_dir(root().join("filters/vkey/deploy/envoy")).expect("SDS files");
    for file in shipped {
        let file = file.expect("an entry").path();
        let text = fs::read_to_string(&file).expect("an SDS file");
        let to = folder.join(file.file_name().expect("a name"));
        fs::write(to, in_folder(&text, folder)).expect("the directory is ours");
    }
}

fn in_folder(text: &str, folder: &Path) -> String {
    text.replace(TLS_FOLDER, folder.to_str().expect("a path in UTF-8"))
}

fn text() -> String {
    fs::read_to_string(root().join("envoy.yaml")).expect("envoy.yaml")
}

fn parse(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("envoy.yaml is YAML")
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
    // Tests that are about the gate of a cluster bring their own; see `upstream_gate`.
    // The stand-in for a provider runs with `make run` alone; tests bring their own.
    remove_named(config, "/static_resources/clusters", "provider");
    let routes =
        &mut connection_manager(config, "gate")["route_config"]["virtual_hosts"][0]["routes"];
    let routes = routes.as_array_mut().expect("a list of routes");
    routes.retain(|route| route["route"]["cluster"] != "provider");
    let cluster = named(config, "/static_resources/clusters", "echo");
    let gate = cluster.as_object_mut().and_then(|c| c.remove("typed_extension_protocol_options"));
    gate.expect("the cluster has a gate");
    let logger = &mut connection_manager(config, "gate")["access_log"][0];
    logger["typed_config"]["path"] = json!(access_log);
    wasm(config)["vm_config"]["code"]["local"]["filename"] = json!(module);
}

fn remove_named(config: &mut Value, list: &str, name: &str) {
    let items = config.pointer_mut(list).and_then(Value::as_array_mut).expect("a list");
    items.retain(|item| item["name"] != name);
}

/// The member of that name of a list, as `/static_resources/clusters`.
pub(crate) fn named<'a>(config: &'a mut Value, list: &str, name: &str) -> &'a mut Value {
    let items = config.pointer_mut(list).and_then(Value::as_array_mut).expect("a list");
    items.iter_mut().find(|item| item["name"] == name).expect("a member of that name")
}
