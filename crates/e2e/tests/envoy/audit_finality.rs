//! When the record of a request is final, on a real Envoy: a record that waits for the end has a verdict.

use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;

use serde_json::{Value, json};

use crate::keys::{Minter, options, records};
use crate::support::{Envoy, Request, TempDir, config, each_envoy, wait_for};
use crate::updates::stat;

/// The gate of the shipped cluster, and the options of the cluster that hold it.
fn shipped_gate() -> Value {
    let mut shipped = config::shipped();
    config::named(&mut shipped, "/static_resources/clusters", "echo")["typed_extension_protocol_options"].take()
}

/// The same options, for this module.
fn gate_for(module: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut options = shipped_gate();
    let pointer = "/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/http_filters/0/typed_config\
                   /config/vm_config";
    let vm = options.pointer_mut(pointer).expect("the VM of the gate");
    *vm = module.clone();
    change(vm);
    options
}

/// The verdicts in the audit lines of as many requests to one place.
fn verdicts(envoy: &Envoy, count: usize) -> Vec<Option<String>> {
    let records = records(envoy, count);
    records.into_iter().map(|record| record.tls_verdict.map(Into::into)).collect()
}

fn send(envoy: &Envoy, key: &str) {
    assert_eq!(envoy.send(&Request::new("GET", "/v1/models").bearer(key)).status, 200);
}

fn unlisted() -> Option<String> {
    Some("unlisted".to_owned())
}

#[test]
fn without_a_gate_only_the_first_request_to_a_place_is_followed() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let envoy = Envoy::start(options("final", &main, json!({})).on(binary));
        let key = main.key("k1", json!({}));
        (0..3).for_each(|_| send(&envoy, &key));
        assert_eq!(stat(&envoy, "vkey_requests_total.decision.allow.reason.none.tenant.other"), 3);
        assert_eq!(verdicts(&envoy, 3), [unlisted(), None, None]);
    });
}

/// A gate in a VM of its own has other metrics on Envoy before 1.39. Shared data shows it.
#[test]
fn with_a_gate_in_any_vm_every_record_has_its_verdict() {
    each_envoy(|binary| {
        for other_vm in [false, true] {
            let main = Minter::new("main", None);
            let options = options("gated", &main, json!({})).on(binary).edit(move |config| {
                let module = config::wasm(config)["vm_config"].clone();
                let gate = gate_for(&module, |vm| {
                    if other_vm {
                        vm["environment_variables"]["key_values"] = json!({"OTHER": "vm"});
                    }
                });
                config::named(config, "/static_resources/clusters", "echo")
                    ["typed_extension_protocol_options"] = gate;
            });
            let envoy = Envoy::start(options);
            let key = main.key("k1", json!({}));
            (0..3).for_each(|_| send(&envoy, &key));
            assert_eq!(verdicts(&envoy, 3), [unlisted(), unlisted(), unlisted()], "{other_vm}");
        }
    });
}

/// A cluster in a file that Envoy watches.
fn publish(dir: &Path, version: u32, cluster: &Value) {
    let response = json!({"version_info": version.to_string(), "resources": [cluster]});
    fs::write(dir.join("next"), response.to_string()).unwrap();
    fs::rename(dir.join("next"), dir.join("cds.json")).unwrap();
}

/// The gate comes with a cluster that is delivered after the listener: its gauge is the listener's too.
#[test]
fn a_gate_that_is_delivered_later_is_known_at_once() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let dir = TempDir::new("cds");
        let folder = dir.file("cds.json").parent().unwrap().to_owned();
        let (sender, receiver) = channel();
        let published = folder.clone();
        let options = options("later", &main, json!({})).on(binary).edit(move |config| {
            let module = config::wasm(config)["vm_config"].clone();
            let mut cluster =
                config["static_resources"]["clusters"].as_array_mut().unwrap().remove(0);
            cluster["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
            let file = json!({"path": published.join("cds.json")});
            // The route is for a cluster that comes later.
            config::connection_manager(config, "gate")["route_config"]["validate_clusters"] =
                json!(false);
            config["dynamic_resources"] =
                json!({"cds_config": {"path_config_source": file, "resource_api_version": "V3"}});
            publish(&published, 1, &cluster);
            cluster["typed_extension_protocol_options"] = gate_for(&module, |_| ());
            sender.send(cluster).unwrap();
        });
        let envoy = Envoy::start(options);
        let gated = receiver.recv().unwrap();
        let key = main.key("k1", json!({}));
        (0..2).for_each(|_| send(&envoy, &key));
        publish(&folder, 2, &gated);
        wait_for(
            || (stat(&envoy, "cluster_manager.cluster_modified") > 0).then_some(()),
            || envoy.admin_get("/stats?filter=cluster_manager").text(),
        );
        (0..2).for_each(|_| send(&envoy, &key));
        assert_eq!(verdicts(&envoy, 4), [unlisted(), None, unlisted(), unlisted()]);
    });
}
