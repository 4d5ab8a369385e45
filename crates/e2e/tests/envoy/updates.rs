//! Configurations that change while the proxy runs.

use std::fs;
use std::sync::mpsc::channel;

use serde_json::{Value, json};

use crate::keys::{Minter, complete, now_secs, options};
use crate::load::usage;
use crate::metrics::series;
use crate::support::{
    Connection, Envoy, Options, Request, TempDir, artefact, config, each_envoy, wait_for,
};

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

/// The counts of keys are in shared data, which a new module under the same `vm_id` finds.
#[test]
fn a_new_module_keeps_the_counts_and_says_since_when_they_count() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let (envoy, mut listener) =
            Listener::start(options("swap", &main, json!({})).on(binary), plugin("/v1/**"));
        let key = main.key("k1", json!({}));
        let ask = |path: &str| {
            Connection::open(envoy.gate()).send(&Request::new("GET", path).bearer(&key)).status
        };
        assert_eq!([0; 5].map(|_| ask("/v1/a")), [200; 5]);
        let counts = || usage(&mut Connection::open(envoy.gate()), &key, "");
        let before = counts();
        let since =
            |envoy: &Envoy| series(envoy, "vkey_counts_since_seconds").pop().map(|s| s.value);
        assert_eq!(before["since"].as_u64(), since(&envoy));
        assert!(since(&envoy).is_some_and(|since| now_secs().abs_diff(since) < 600));
        let started = stat(&envoy, "wasmcustom.vkey_started_total");
        assert!(started >= 2, "each worker and the main thread: {started}");

        let mut bytes = fs::read(artefact("VKEY_TEST_WASM")).unwrap();
        // A custom section of no meaning makes it another module (WebAssembly, section 5.5.3).
        bytes.extend_from_slice(b"\0\x03\x02v2");
        let copy = TempDir::new("other-module");
        fs::write(copy.file("vkey.wasm"), bytes).unwrap();
        listener.edit(|config| {
            config::wasm(config)["vm_config"]["code"]["local"]["filename"] =
                json!(copy.file("vkey.wasm"));
        });
        listener.publish(plugin("/v2/**"));
        wait_for(|| (ask("/v2/a") == 200).then_some(()), || envoy.proxy_log());
        let after = counts();
        assert_eq!(after["since"], before["since"]);
        assert_eq!(after["allowed"], 6, "the five of before, and one");
        assert_eq!(since(&envoy), after["since"].as_u64());
    });
}
