//! The Istio objects say what `envoy.yaml` says, in a form that Istio's own schema accepts.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "in a helper of tests a panic is the report, and what is skipped is said"
)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const SHIPPED: &str = "filters/vkey/deploy/istio/wasmplugin.yaml";
const BUILT: &str = "target/istio/wasmplugin.yaml";
const CRD: &str = "../shared/crds/wasmplugins.extensions.istio.io.yaml";

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
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

/// The CRD's schema, where the CRD is at hand.
fn schema() -> Option<Value> {
    if !path(CRD).is_file() {
        println!("skipped: the check against the CRD, for want of {CRD}");
        return None;
    }
    let crd = documents(CRD).remove(0);
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    // What every Kubernetes object has beside the schema of its kind.
    schema["properties"]["apiVersion"] = json!({"const": "extensions.istio.io/v1alpha1"});
    schema["properties"]["kind"] = json!({"const": "WasmPlugin"});
    schema["properties"]["metadata"] = json!({"type": "object", "required": ["name"]});
    schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
    close(&mut schema);
    schema["properties"]["metadata"]["additionalProperties"] = json!(true);
    Some(schema)
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
    let Some(schema) = schema() else { return };
    for file in files() {
        assert_eq!(faults(&schema, &object(file, "WasmPlugin")), Vec::<String>::new(), "{file}");
    }
}

#[test]
fn the_same_check_refuses_a_broken_copy() {
    let Some(schema) = schema() else { return };
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

#[test]
fn envoy_and_istio_have_the_same_policy() {
    let envoy = envoy();
    let wasm = http_filter(&envoy, "envoy.filters.http.wasm");
    let text = wasm["typed_config"]["config"]["configuration"]["value"].as_str().unwrap();
    let policy: Value = serde_json::from_str(text).expect("the plugin configuration is JSON");
    let seal = http_filter(&envoy, "envoy.filters.http.rbac");
    for file in files() {
        assert_eq!(object(file, "WasmPlugin")["spec"]["pluginConfig"], policy, "{file}");
        let patches = object(file, "EnvoyFilter")["spec"]["configPatches"].clone();
        assert_eq!(patches[0]["patch"]["value"]["typed_config"], seal["typed_config"], "{file}");
    }
}

#[test]
fn the_seal_stands_before_the_router_and_the_manager_is_as_strict() {
    let envoy = envoy();
    let shipped = manager(&envoy);
    for file in files() {
        let patches = object(file, "EnvoyFilter")["spec"]["configPatches"].clone();
        let seal = &patches[0];
        assert_eq!(seal["applyTo"], "HTTP_FILTER", "{file}");
        assert_eq!(seal["patch"]["operation"], "INSERT_BEFORE", "{file}");
        let behind = &seal["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"];
        assert_eq!(behind, "envoy.filters.http.router", "{file}");
        let merged = patches[1]["patch"]["value"]["typed_config"].as_object().unwrap();
        for (name, value) in
            merged.iter().filter(|(name, _)| *name != "common_http_protocol_options")
        {
            assert_eq!(shipped[name], *value, "{file}: {name}");
        }
        let underscores = "/common_http_protocol_options/headers_with_underscores_action";
        let merged = Value::Object(merged.clone());
        assert_eq!(merged.pointer(underscores), shipped.pointer(underscores), "{file}");
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
