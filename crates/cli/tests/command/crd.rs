//! The schemas of Kubernetes' kinds.

use std::fs;

use serde_json::{Value, json};

use crate::harness::root;

/// What is wrong with an object by the schema of its kind, one line each. `file` is that of the CRD.
pub(crate) fn faults(file: &str, object: &Value) -> Vec<String> {
    let path = root().join("testdata/crds").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let crd: Value = serde_saphyr::from_str(&text).expect("the CRD is YAML");
    let versions = crd["spec"]["versions"].as_array().expect("a list");
    let version = object["apiVersion"].as_str().expect("a version").rsplit('/').next();
    let version = versions.iter().find(|v| v["name"].as_str() == version).expect("a known version");
    let mut schema = version["schema"]["openAPIV3Schema"].clone();
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"const": crd["spec"]["names"]["kind"]});
    schema["properties"]["metadata"] = json!({"type": "object", "required": ["name"]});
    schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
    close(&mut schema);
    schema["properties"]["metadata"]["additionalProperties"] = json!(true);
    let validator = jsonschema::validator_for(&schema).expect("the CRD holds a schema");
    let errors = validator.iter_errors(object);
    errors.map(|error| format!("{}: {error}", error.instance_path())).collect()
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
