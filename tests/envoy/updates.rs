//! Configurations that change while the proxy runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::keys::{Minter, VARIABLE, options};
use crate::support::{Connection, Envoy, Request, TempDir, config, wait_for};

/// The gate's listener in a file that Envoy watches.
struct Listener {
    file: PathBuf,
    listener: Value,
}

impl Listener {
    /// Moves the gate out of the static configuration.
    fn take_out(config: &mut Value, file: &Path) -> Self {
        let listeners = config["static_resources"]["listeners"].as_array_mut().unwrap();
        let gate = listeners.iter().position(|listener| listener["name"] == "gate").unwrap();
        let mut listener = listeners.remove(gate);
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        config["dynamic_resources"] = json!({"lds_config": {"path_config_source": {"path": file}, "resource_api_version": "V3"}});
        Self { file: file.to_owned(), listener }
    }

    /// Envoy notices files that are moved into place.
    fn publish(&self, version: u32, plugin: &str) {
        let mut config = json!({"static_resources": {"listeners": [self.listener]}});
        *config::plugin(&mut config) = json!(plugin);
        let listener = &config["static_resources"]["listeners"][0];
        let response = json!({"version_info": version.to_string(), "resources": [listener]});
        let next = self.file.with_extension("next");
        fs::write(&next, response.to_string()).unwrap();
        fs::rename(&next, &self.file).unwrap();
    }
}

fn plugin(paths: &Value) -> String {
    let ring = json!({"name": "main", "secret": format!("${{{VARIABLE}}}")});
    let tiers = json!({"default": {"only": {"paths": paths}}});
    json!({"keyring": [ring], "tiers": tiers, "audit": {"sink": "access_log"}}).to_string()
}

fn stat(envoy: &Envoy, name: &str) -> u64 {
    let text = envoy.admin_get(&format!("/stats?filter={name}$")).text();
    text.trim().rsplit(' ').next().unwrap().parse().unwrap_or(0)
}

#[test]
fn a_bad_update_changes_nothing_and_a_good_one_keeps_the_counts() {
    let main = Minter::new("main", None);
    let dir = TempDir::new("lds");
    let file = dir.file("lds.json");
    let (sender, receiver) = std::sync::mpsc::channel();
    let watched = file.clone();
    let options = options("updates", &main, json!({})).edit(move |config| {
        let listener = Listener::take_out(config, &watched);
        listener.publish(1, &plugin(&json!(["/v1/**"])));
        sender.send(listener).unwrap();
    });
    let envoy = Envoy::start(options);
    let listener = receiver.recv().unwrap();
    let key = main.key("k1", json!({}));
    let status = |path: &str| {
        Connection::open(envoy.gate()).send(&Request::new("GET", path).bearer(&key)).status
    };
    assert_eq!((status("/v1/a"), status("/v2/a")), (200, 403));

    listener.publish(2, r#"{"keyring": [], "unknown": 1}"#);
    wait_for(
        || (stat(&envoy, "listener_manager.lds.update_rejected") == 1).then_some(()),
        || envoy.proxy_log(),
    );
    assert_eq!((status("/v1/a"), status("/v2/a")), (200, 403));

    listener.publish(3, &plugin(&json!(["/v2/**"])));
    wait_for(|| (status("/v2/a") == 200).then_some(()), || envoy.proxy_log());
    assert_eq!(status("/v1/a"), 403);
    let usage = Connection::open(envoy.gate())
        .send(&Request::new("GET", "/.vkey/usage").bearer(&key))
        .json();
    assert!(usage["allowed"].as_u64() >= Some(3), "{usage}");
    let requests = usage["seen"].as_u64().unwrap();
    let lines = envoy.wait_for_access_log(usize::try_from(requests + 1).unwrap());
    assert_eq!(lines.len(), usize::try_from(requests + 1).unwrap());
}
