//! A listener for each scenario, in a file that Envoy watches.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::backend::OF;
use crate::support::{TempDir, config};

const PREFIX: &str = "scenario-";

/// Of the loopback network, as all that follow.
const FIRST_IP: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 0);

/// The listeners in the file.
pub(crate) struct Listeners {
    dir: TempDir,
    /// A configuration that has the gate only.
    gate: Value,
    published: Mutex<Published>,
}

#[derive(Default)]
struct Published {
    /// Counts both the listeners there ever were and the versions of the file.
    count: u32,
    listeners: BTreeMap<String, Value>,
}

impl Listeners {
    /// Takes the gate of a configuration as the pattern, and makes Envoy watch the file.
    pub(crate) fn new(config: &mut Value, access_log: &str) -> Self {
        let listeners = config["static_resources"]["listeners"].as_array().expect("a list");
        let gate = listeners.iter().find(|listener| listener["name"] == "gate").expect("a gate");
        let mut gate = json!({"static_resources": {"listeners": [gate]}});
        open_up(&mut gate, access_log);
        let dir = TempDir::new("scenarios-lds");
        let file = json!({"path": dir.file("lds.json")});
        config["dynamic_resources"] =
            json!({"lds_config": {"path_config_source": file, "resource_api_version": "V3"}});
        let listeners = Self { dir, gate, published: Mutex::default() };
        listeners.change(|_| ());
        listeners
    }

    /// Publishes one, with shared data of its own, and returns its name.
    pub(crate) fn add(&self, plugin: &[u8], env: &BTreeMap<String, String>) -> String {
        self.change(|published| {
            let name = format!("{PREFIX}{}", published.count);
            let mut listener = listener(self.gate.clone(), &name, plugin, env);
            // A new listener takes over the socket of one that is draining and has the same address; port 0
            // is the same.
            let ip = Ipv4Addr::from_bits(FIRST_IP.to_bits() + published.count);
            listener["address"]["socket_address"]["address"] = json!(ip.to_string());
            published.listeners.insert(name.clone(), listener);
            name
        })
    }

    /// Leaves one out of what is published next.
    pub(crate) fn remove(&self, name: &str) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.listeners.remove(name);
    }

    /// Envoy notices files that are moved into place.
    fn change<T>(&self, change: impl FnOnce(&mut Published) -> T) -> T {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.count += 1;
        let changed = change(&mut published);
        let listeners: Vec<&Value> = published.listeners.values().collect();
        let version = published.count.to_string();
        let response = json!({"version_info": version, "resources": listeners});
        let next = self.dir.file("lds.next");
        fs::write(&next, response.to_string()).expect("the directory is ours");
        fs::rename(&next, self.dir.file("lds.json")).expect("the directory is ours");
        changed
    }
}

/// The names of listeners in a text of Envoy's.
pub(crate) fn names_in(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| word.starts_with(PREFIX))
        .map(str::to_owned)
}

/// Where the listeners of a status of the admin interface accept.
pub(crate) fn addresses(status: &Value) -> BTreeMap<String, SocketAddr> {
    let address = |status: &Value| {
        let socket = &status["local_address"]["socket_address"];
        let port = u16::try_from(socket["port_value"].as_u64()?).expect("a port");
        let ip: IpAddr = socket["address"].as_str()?.parse().expect("an address");
        Some((status["name"].as_str()?.to_owned(), SocketAddr::new(ip, port)))
    };
    let statuses = status["listener_statuses"].as_array();
    statuses.into_iter().flatten().filter_map(address).collect()
}

/// Lets the module see a request as its client sent it: what the shipped gate refuses or rewrites
/// ahead of the module is no part of a scenario. The client's address comes from the PROXY protocol,
/// so that a request may come from anywhere.
fn open_up(gate: &mut Value, access_log: &str) {
    let listener = config::named(gate, "/static_resources/listeners", "gate");
    listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    listener["listener_filters"] = json!([{
        "name": "envoy.filters.listener.proxy_protocol",
        "typed_config": {"@type": format!("{LISTENER_FILTERS}.proxy_protocol.v3.ProxyProtocol")},
    }]);
    let manager = config::connection_manager(gate, "gate");
    manager["generate_request_id"] = json!(false);
    manager["skip_xff_append"] = json!(true);
    manager["normalize_path"] = json!(false);
    manager["merge_slashes"] = json!(false);
    manager["path_with_escaped_slashes_action"] = json!("KEEP_UNCHANGED");
    manager["max_request_headers_kb"] = json!(1024);
    manager["http_protocol_options"]["allow_custom_methods"] = json!(true);
    manager["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
    manager["common_http_protocol_options"] = json!({
        "headers_with_underscores_action": "ALLOW",
        "max_headers_count": 4096,
    });
    manager["access_log"][0]["typed_config"]["path"] = json!(access_log);
}

const LISTENER_FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.listener";

fn listener(mut gate: Value, name: &str, plugin: &[u8], env: &BTreeMap<String, String>) -> Value {
    let wasm = config::wasm(&mut gate);
    wasm["vm_config"]["vm_id"] = json!(name);
    wasm["vm_config"]["environment_variables"] = json!({"key_values": env});
    match str::from_utf8(plugin) {
        Ok("") => _ = wasm.as_object_mut().expect("an object").remove("configuration"),
        Ok(text) => wasm["configuration"]["value"] = json!(text),
        Err(_) => {
            wasm["configuration"] = json!({
                "@type": "type.googleapis.com/google.protobuf.BytesValue",
                "value": STANDARD.encode(plugin),
            });
        }
    }
    let manager = config::connection_manager(&mut gate, "gate");
    let state = |key| format!("%FILTER_STATE(wasm.{key}:PLAIN)%");
    manager["access_log"][0]["typed_config"]["log_format"] = json!({"json_format": {
        "listener": name,
        "details": "%RESPONSE_CODE_DETAILS%",
        "vkey.audit": state("vkey.audit"),
        "vkey.decision": state("vkey.decision"),
    }});
    manager["route_config"]["request_headers_to_add"] =
        json!([{"header": {"key": OF, "value": name}}]);
    let listener = config::named(&mut gate, "/static_resources/listeners", "gate");
    listener["name"] = json!(name);
    listener.take()
}
