//! The Istio objects say what `envoy.yaml` says, in a form that Istio's own schema accepts.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::root;

const SHIPPED: &str = "filters/vkey/deploy/istio/wasmplugin.yaml";
const BUILT: &str = "target/istio/wasmplugin.yaml";
const CRD: &str = "testdata/crds/wasmplugins.extensions.istio.io.yaml";

fn path(relative: &str) -> PathBuf {
    root().join(relative)
}

fn documents(relative: &str) -> Vec<Value> {
    let text = fs::read_to_string(path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{relative}: {e}"))
}

fn object(relative: &str, kind: &str) -> Value {
    let mut found = documents(relative).into_iter().filter(|object| object["kind"] == kind);
    found.next().unwrap_or_else(|| panic!("{relative} holds no {kind}"))
}

/// The shipped file, and the one with the checksum where it has been written.
fn files() -> Vec<&'static str> {
    if path(BUILT).is_file() {
        return vec![SHIPPED, BUILT];
    }
    println!("skipped: {BUILT} (`make istio` writes it)");
    vec![SHIPPED]
}

/// The CRD's schema.
fn schema() -> Value {
    let crd = documents(CRD).remove(0);
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    // What every Kubernetes object has beside the schema of its kind.
    schema["properties"]["apiVersion"] = json!({"const": "extensions.istio.io/v1alpha1"});
    schema["properties"]["kind"] = json!({"const": "WasmPlugin"});
    schema["properties"]["metadata"] = json!({"type": "object", "required": ["name"]});
    schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
    close(&mut schema);
    schema["properties"]["metadata"]["additionalProperties"] = json!(true);
    schema
}

/// An API server may drop unknown members in silence; a typing mistake must not get that far.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let free = members.contains_key("x-kubernetes-preserve-unknown-fields");
            if members.get("properties").is_some_and(Value::is_object) && !free {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// What is wrong with a WasmPlugin, one line each.
fn faults(schema: &Value, plugin: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).expect("the CRD holds a schema");
    let errors = validator.iter_errors(plugin);
    let mut faults: Vec<_> =
        errors.map(|error| format!("{}: {error}", error.instance_path())).collect();
    // The CRD says these two as CEL rules.
    let spec = &plugin["spec"];
    let targets = ["selector", "targetRef", "targetRefs"];
    if targets.iter().filter(|name| spec.get(name).is_some()).count() > 1 {
        faults.push("/spec: only one of targetRefs or selector can be set".to_owned());
    }
    let variables = spec["vmConfig"]["env"].as_array().into_iter().flatten();
    for variable in variables.filter(|v| v["valueFrom"] == "HOST" && v.get("value").is_some()) {
        faults.push(format!("/spec/vmConfig/env: {} has a value and a source", variable["name"]));
    }
    faults
}

#[test]
fn the_crd_accepts_the_wasm_plugin() {
    let schema = schema();
    for file in files() {
        assert_eq!(faults(&schema, &object(file, "WasmPlugin")), Vec::<String>::new(), "{file}");
    }
}

#[test]
fn the_same_check_refuses_a_broken_copy() {
    let schema = schema();
    // Where the fault shows, the object that is changed, its member and the member's new value.
    let env = "/spec/vmConfig/env";
    let first = "/spec/vmConfig/env/0";
    let source = "/spec/vmConfig/env/0/valueFrom";
    let breaks = [
        ("/spec/failStrategy", "/spec", "failStrategy", json!("FAIL_CLOSED")),
        ("/spec/phase", "/spec", "phase", json!("AUTH")),
        ("/spec", "/spec", "failstrategy", json!("FAIL_CLOSE")),
        ("/spec/sha256", "/spec", "sha256", json!("ABCDEF")),
        (source, first, "valueFrom", json!("SECRET")),
        (env, first, "value", json!("a literal secret")),
        ("/spec", "/spec", "targetRefs", json!([{"kind": "Gateway", "name": "gw"}])),
        ("/kind", "", "kind", json!("WasmPlugins")),
    ];
    for (place, object_at, member, value) in breaks {
        let mut broken = object(SHIPPED, "WasmPlugin");
        broken.pointer_mut(object_at).unwrap()[member] = value;
        let found = faults(&schema, &broken);
        assert_eq!(found.len(), 1, "{place}: {found:?}");
        assert!(found[0].starts_with(&format!("{place}: ")), "{place}: {found:?}");
    }
}

#[test]
fn the_plugin_runs_first_and_fails_closed() {
    for file in files() {
        let spec = &object(file, "WasmPlugin")["spec"];
        assert_eq!(spec["phase"], "AUTHN", "{file}");
        assert_eq!(spec["failStrategy"], "FAIL_CLOSE", "{file}");
        let environment = json!([{"name": "VKEY_MAIN_SECRET", "valueFrom": "HOST"}]);
        assert_eq!(spec["vmConfig"]["env"], environment, "{file}");
        assert_ne!(spec["url"].as_str().unwrap().split_once(':').unwrap().0, "file", "{file}");
    }
}

#[test]
fn the_checksum_is_that_of_the_built_module() {
    assert_eq!(object(SHIPPED, "WasmPlugin")["spec"]["sha256"], "");
    let Some(module) = std::env::var_os("VKEY_TEST_WASM") else {
        println!("skipped: the checksum, for want of VKEY_TEST_WASM (`make test` sets it)");
        return;
    };
    let digest = Sha256::digest(fs::read(module).expect("the built module"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(object(BUILT, "WasmPlugin")["spec"]["sha256"], digest);
}

/// The one patch of a file that applies to this, by this operation.
fn patch(file: &str, applies_to: &str, operation: &str) -> Value {
    let filter = object(file, "EnvoyFilter");
    let mut patches =
        filter["spec"]["configPatches"].as_array().unwrap().iter().filter(|patch| {
            patch["applyTo"] == applies_to && patch["patch"]["operation"] == operation
        });
    let patch = patches.next().unwrap_or_else(|| panic!("{file}: {operation} {applies_to}"));
    assert_eq!(patches.next(), None, "{file}: {operation} {applies_to}");
    patch.clone()
}

/// The configuration that a patch brings.
fn typed_config(patch: &Value) -> &Value {
    &patch["patch"]["value"]["typed_config"]
}

#[test]
fn envoy_and_istio_have_the_same_policy() {
    let envoy = envoy();
    let wasm = http_filter(&envoy, "envoy.filters.http.wasm");
    let text = wasm["typed_config"]["config"]["configuration"]["value"].as_str().unwrap();
    let policy: Value = serde_json::from_str(text).expect("the plugin configuration is JSON");
    let seal = http_filter(&envoy, "envoy.filters.http.rbac");
    for file in files() {
        assert_eq!(object(file, "WasmPlugin")["spec"]["pluginConfig"], policy, "{file}");
        let patch = patch(file, "HTTP_FILTER", "INSERT_BEFORE");
        assert_eq!(*typed_config(&patch), seal["typed_config"], "{file}");
    }
}

#[test]
fn the_patches_are_for_the_gateway_of_the_plugin_and_its_router() {
    for file in files() {
        let plugin = object(file, "WasmPlugin");
        let filter = object(file, "EnvoyFilter");
        let labels = &plugin["spec"]["selector"]["matchLabels"];
        assert_eq!(filter["spec"]["workloadSelector"]["labels"], *labels, "{file}");
        assert_eq!(filter["metadata"]["namespace"], plugin["metadata"]["namespace"], "{file}");
        let patches = filter["spec"]["configPatches"].as_array().unwrap();
        assert_eq!(patches.len(), 3, "{file}");
        for patch in patches {
            let mut manager = json!({"name": "envoy.filters.network.http_connection_manager"});
            if patch["applyTo"] == "HTTP_FILTER" {
                manager["subFilter"] = json!({"name": "envoy.filters.http.router"});
            }
            let listener = json!({"filterChain": {"filter": manager}});
            assert_eq!(
                patch["match"],
                json!({"context": "GATEWAY", "listener": listener}),
                "{file}"
            );
        }
    }
}

/// What Istio or its user decides for each listener.
const OWN: [&str; 3] = ["stat_prefix", "http_filters", "route_config"];

/// The members that a connection manager has in `envoy.yaml` and in the patch differently.
fn differences(shipped: &Value, merged: &Value) -> Vec<String> {
    let [shipped, merged] = [shipped, merged].map(|manager| manager.as_object().unwrap());
    let names: BTreeSet<&String> = shipped.keys().chain(merged.keys()).collect();
    let names = names.into_iter().filter(|name| !OWN.contains(&name.as_str()));
    names.filter(|name| shipped.get(*name) != merged.get(*name)).cloned().collect()
}

#[test]
fn the_connection_manager_is_as_strict() {
    let envoy = envoy();
    let shipped = manager(&envoy);
    for file in files() {
        let patch = patch(file, "NETWORK_FILTER", "MERGE");
        let merged = typed_config(&patch);
        assert_eq!(differences(shipped, merged), Vec::<String>::new(), "{file}");
        // An option that is missing in either shows.
        for name in merged.as_object().unwrap().keys() {
            for place in 0..2 {
                let mut both = [shipped.clone(), merged.clone()];
                both[place].as_object_mut().unwrap().remove(name);
                assert_eq!(differences(&both[0], &both[1]), [name.as_str()], "{file}");
            }
        }
    }
}

#[test]
fn every_cluster_has_the_gate_in_the_vm_of_the_plugin() {
    let envoy = envoy();
    let options = "/static_resources/clusters/0/typed_extension_protocol_options";
    let options =
        &envoy.pointer(options).unwrap()["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    let router = &http_filter(&envoy, "envoy.filters.http.router")["typed_config"];
    for file in files() {
        let patch = patch(file, "HTTP_FILTER", "MERGE");
        let mut merged = typed_config(&patch).clone();
        let mut filters = merged.as_object_mut().unwrap().remove("upstream_http_filters").unwrap();
        assert_eq!(merged, *router, "{file}");
        let mut shipped = options["http_filters"].clone();
        let [vm, shipped_vm] = [&mut filters, &mut shipped]
            .map(|filters| filters[0]["typed_config"]["config"]["vm_config"].take());
        assert_eq!(filters, shipped, "{file}");
        let variables = &object(file, "WasmPlugin")["spec"]["vmConfig"]["env"];
        let variables = variables.as_array().unwrap().iter().map(|variable| &variable["name"]);
        let variables: Vec<&Value> = variables.collect();
        assert_eq!(vm["environment_variables"], json!({"host_env_keys": variables}), "{file}");
        assert_eq!(vm["environment_variables"], shipped_vm["environment_variables"], "{file}");
        assert_eq!(vm["runtime"], shipped_vm["runtime"], "{file}");
        assert_eq!(vm.get("vm_id"), None, "{file}: Istio gives a WasmPlugin none");
    }
}

fn envoy() -> Value {
    documents("envoy.yaml").remove(0)
}

fn manager(envoy: &Value) -> &Value {
    let gate = &envoy["static_resources"]["listeners"][0];
    assert_eq!(gate["name"], "gate");
    &gate["filter_chains"][0]["filters"][0]["typed_config"]
}

fn http_filter<'a>(envoy: &'a Value, name: &str) -> &'a Value {
    let filters = manager(envoy)["http_filters"].as_array().expect("a list of filters");
    filters.iter().find(|filter| filter["name"] == name).expect("a filter of that name")
}
