//! Configurations that change while the proxy runs.

use std::fs;
use std::sync::mpsc::channel;

use serde_json::{Value, json};

use crate::keys::{Minter, complete, options};
use crate::load::usage;
use crate::support::{Connection, Envoy, Options, Request, TempDir, config, wait_for};

/// The gate's listener in a file that Envoy watches.
pub(crate) struct Listener {
    dir: TempDir,
    /// A configuration that has this listener only.
    config: Value,
    version: u32,
}

impl Listener {
    /// Starts an Envoy that reads the gate from a file, with a plugin configuration.
    pub(crate) fn start(options: Options, plugin: Value) -> (Envoy, Self) {
        let (sender, receiver) = channel();
        let dir = TempDir::new("lds");
        let envoy = Envoy::start(options.edit(move |config| {
            let mut listener = Self::take_out(config, dir);
            listener.publish(plugin);
            sender.send(listener).unwrap();
        }));
        (envoy, receiver.recv().unwrap())
    }

    /// Moves the gate out of the static configuration.
    fn take_out(config: &mut Value, dir: TempDir) -> Self {
        let listeners = config["static_resources"]["listeners"].as_array_mut().unwrap();
        let gate = listeners.iter().position(|listener| listener["name"] == "gate").unwrap();
        let mut listener = listeners.remove(gate);
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        let file = json!({"path": dir.file("lds.json")});
        config["dynamic_resources"] =
            json!({"lds_config": {"path_config_source": file, "resource_api_version": "V3"}});
        Self { dir, config: json!({"static_resources": {"listeners": [listener]}}), version: 0 }
    }

    /// Changes what is published next; `config` has the ways into it.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        edit(&mut self.config);
    }

    /// Publishes a plugin configuration, completed.
    pub(crate) fn publish(&mut self, plugin: Value) {
        self.publish_text(&complete(plugin));
    }

    /// Publishes a text in the place of one. Envoy notices files that are moved into place.
    fn publish_text(&mut self, plugin: &str) {
        *config::plugin(&mut self.config) = json!(plugin);
        self.version += 1;
        let listener = &self.config["static_resources"]["listeners"][0];
        let response = json!({"version_info": self.version.to_string(), "resources": [listener]});
        let next = self.dir.file("lds.next");
        fs::write(&next, response.to_string()).unwrap();
        fs::rename(&next, self.dir.file("lds.json")).unwrap();
    }
}

/// The value of a stat; 0 where there is none of that name.
pub(crate) fn stat(envoy: &Envoy, name: &str) -> u64 {
    let text = envoy.admin_get(&format!("/stats?filter={name}$")).text();
    text.trim().rsplit(' ').next().unwrap().parse().unwrap_or(0)
}

fn plugin(path: &str) -> Value {
    json!({"tiers": {"default": {"only": {"paths": [path]}}}})
}

#[test]
fn a_bad_update_changes_nothing_and_a_good_one_keeps_the_counts() {
    let main = Minter::new("main", None);
    let (envoy, mut listener) =
        Listener::start(options("updates", &main, json!({})), plugin("/v1/**"));
    let key = main.key("k1", json!({}));
    let status = |path: &str| {
        Connection::open(envoy.gate()).send(&Request::new("GET", path).bearer(&key)).status
    };
    assert_eq!((status("/v1/a"), status("/v2/a")), (200, 403));

    listener.publish_text(r#"{"keyring": [], "unknown": 1}"#);
    wait_for(
        || (stat(&envoy, "listener_manager.lds.update_rejected") == 1).then_some(()),
        || envoy.proxy_log(),
    );
    assert_eq!((status("/v1/a"), status("/v2/a")), (200, 403));

    listener.publish(plugin("/v2/**"));
    wait_for(|| (status("/v2/a") == 200).then_some(()), || envoy.proxy_log());
    assert_eq!(status("/v1/a"), 403);
    let usage = usage(&mut Connection::open(envoy.gate()), &key, "");
    assert!(usage["allowed"].as_u64() >= Some(3), "{usage}");
    let requests = usage["seen"].as_u64().unwrap();
    let lines = envoy.wait_for_access_log(usize::try_from(requests + 1).unwrap());
    assert_eq!(lines.len(), usize::try_from(requests + 1).unwrap());
}
