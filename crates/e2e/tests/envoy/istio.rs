//! The shipped objects of Istio on a real Envoy. Istio itself does not run here: the tests translate the
//! objects the way its `pilot/pkg/networking/core` does.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use vkey::key::keyring::Rotation;

use crate::delivery::Extension;
use crate::gateways::{KNOWN, UNLISTED, digest, proven};
use crate::keys::{Minter, VARIABLE};
use crate::support::tls::{Authority, Cluster, Serve};
use crate::support::{Envoy, Options, Request, Response, artefact, config, each_envoy, root};
use crate::tls_render::merge;

/// The objects, by kind.
struct Objects {
    plugin: Value,
    patches: Vec<Value>,
}

impl Objects {
    fn shipped() -> Self {
        let file = root().join("filters/vkey/deploy/istio/wasmplugin.yaml");
        let text = fs::read_to_string(file).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        let patches = of_kind("EnvoyFilter")["spec"]["configPatches"].as_array().unwrap().clone();
        Self { plugin: of_kind("WasmPlugin")["spec"].clone(), patches }
    }

    /// Makes the gate's listener what Istio makes of a Gateway, the plugin and the patches.
    fn apply(&self, config: &mut Value) {
        let logger = config::connection_manager(config, "gate")["access_log"][0].clone();
        self.translate(config);
        for patch in self.patches.iter().filter(|patch| patch["applyTo"] == "HTTP_FILTER") {
            patch_filters(config::http_filters(config), &patch["patch"]);
        }
        let managers = self.patches.iter().filter(|patch| patch["applyTo"] == "NETWORK_FILTER");
        for patch in managers {
            let manager = config::connection_manager(config, "gate");
            merge(manager, &patch["patch"]["value"]["typed_config"]);
            manager["access_log"][0]["typed_config"]["path"] =
                logger["typed_config"]["path"].clone();
        }
    }

    /// What Istio writes by itself.
    fn translate(&self, config: &mut Value) {
        let manager = config::connection_manager(config, "gate");
        let kept = ["@type", "stat_prefix", "route_config", "http_filters"];
        manager.as_object_mut().unwrap().retain(|name, _| kept.contains(&name.as_str()));
        manager["use_remote_address"] = json!(true);
        manager["normalize_path"] = json!(true);
        manager["stream_idle_timeout"] = json!("0s");
        let filters = config::http_filters(config);
        filters.retain(|filter| filter["name"] != "envoy.filters.http.rbac");
        let router = filters.last_mut().unwrap();
        router["typed_config"].as_object_mut().unwrap().remove("suppress_envoy_headers");
        let wasm = config::wasm(config);
        wasm.as_object_mut().unwrap().remove("allow_on_headers_stop_iteration");
        wasm["failure_policy"] = json!("FAIL_CLOSED");
        let vm = wasm["vm_config"].as_object_mut().unwrap();
        vm.remove("vm_id");
        let env = self.plugin["vmConfig"]["env"].as_array().unwrap();
        let names: Vec<_> = env.iter().map(|variable| variable["name"].clone()).collect();
        vm["environment_variables"] = json!({"host_env_keys": names});
    }

    fn options(self, binary: &Path, label: &str, main: &Minter) -> Options {
        let options = Options::new(label).on(binary).env(VARIABLE, &main.secret);
        options.edit(move |config| self.apply(config))
    }

    /// A gateway with the shipped plugin, delivered by ECDS.
    fn gateway(binary: &Path, label: &str, cluster: Option<Cluster>) -> Gateway {
        let rotation = Rotation::new(168 * 3600, 30 * 24 * 3600, true).unwrap();
        let main = Minter::new("main", Some(rotation));
        let objects = Self::shipped();
        let plugin = objects.plugin["pluginConfig"].clone();
        let options = objects.options(binary, label, &main).edit(move |config| {
            if let Some(cluster) = cluster {
                cluster.install_for(config, KNOWN);
            }
        });
        let (envoy, extension) = Extension::start(options, plugin);
        Gateway { envoy, key: main.key("k1", json!({})), _extension: extension }
    }
}

/// As Istio patches the filters of a connection manager: insertions first.
fn patch_filters(filters: &mut Vec<Value>, patch: &Value) {
    let mut value = patch["value"].clone();
    let router = filters.len() - 1;
    if patch["operation"] == "INSERT_BEFORE" {
        return filters.insert(router, value);
    }
    let gate = "/typed_config/upstream_http_filters/0/typed_config/config/vm_config/code/local";
    value.pointer_mut(gate).unwrap()["filename"] = json!(artefact("VKEY_TEST_WASM"));
    merge(&mut filters[router], &value);
}

struct Gateway {
    envoy: Envoy,
    key: String,
    _extension: Extension,
}

impl Gateway {
    fn request(&self, host: &str) -> Request {
        Request::new("GET", "/v1/models").header("host", host).bearer(&self.key)
    }

    fn send(&self, host: &str) -> Response {
        self.envoy.send(&self.request(host))
    }
}

#[test]
fn the_gateway_sends_on_what_was_judged() {
    each_envoy(|binary| {
        let gateway = Objects::gateway(binary, "istio", None);
        let forged = gateway.request("LLM.corp.example.:8443").header("x-vkey-tenant", "forged");
        let answer = gateway.envoy.send(&forged.header("x-vkey-sub", "forged"));
        assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.envoy.proxy_log());
        let text = answer.text();
        assert!(text.contains("x-vkey-key: k1\n") && !text.contains("forged"), "{text}");
        assert!(!text.contains(":8443") && !text.contains("x-envoy-expected"), "{text}");
        let without = Request::new("GET", "/v1/models");
        assert_eq!(gateway.envoy.send(&without).status, 401);
        assert_eq!(gateway.envoy.send(&gateway.request(UNLISTED).header("a_b", "c")).status, 400);
        gateway.envoy.wait_for_access_log(3);
    });
}

#[test]
fn every_cluster_of_the_gateway_has_a_gate() {
    each_envoy(|binary| {
        let upstream = Serve::plain().start();
        let cluster = Cluster::plain("api", &upstream);
        let gateway = Objects::gateway(binary, "istio_gate", Some(cluster));
        let answer = gateway.send(KNOWN);
        assert_eq!(answer.status, 502, "{answer:?}\n{}", gateway.envoy.proxy_log());
        assert_eq!(answer.json()["error"]["code"], "upstream_plaintext");
        assert_eq!(upstream.final_counts().bytes, 0);
    });
}

#[test]
fn a_cluster_with_filters_of_its_own_runs_those() {
    each_envoy(|binary| {
        let authority = Authority::new("istio");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN);
        let gateway = Objects::gateway(binary, "istio_router", Some(cluster.clone()));
        assert_eq!(gateway.send(KNOWN).status, 200, "{}", gateway.envoy.proxy_log());
        drop(gateway);
        let own = cluster.gate_with(json!({"upstream_tls": {"require_stamp": true}}));
        let gateway = Objects::gateway(binary, "istio_own", Some(own.clone()));
        assert_eq!(gateway.send(KNOWN).json()["error"]["code"], "upstream_unproven");
        drop(gateway);
        let stamped = own.stamp(&digest(), &[KNOWN]);
        let gateway = Objects::gateway(binary, "istio_stamped", Some(stamped));
        assert_eq!(gateway.send(KNOWN).status, 200, "{}", gateway.envoy.proxy_log());
        drop(gateway);
        assert_eq!(upstream.final_counts().requests, 2);
    });
}

/// The agent of Istio may find no module, and istiod may drop an object that it cannot parse.
#[test]
fn without_the_plugin_the_seal_refuses() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let options = Objects::shipped().options(binary, "istio_seal", &main).edit(|config| {
            config::http_filters(config).remove(0);
        });
        let envoy = Envoy::start(options);
        let key = main.key("k1", json!({}));
        let answer = envoy.send(&Request::new("GET", "/v1/models").bearer(&key));
        assert_eq!((answer.status, answer.text().as_str()), (403, "RBAC: access denied"));
    });
}
