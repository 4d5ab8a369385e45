//! Clusters whose endpoints select their transport socket.

use serde_json::{Value, json};

use super::{lint_text, rules};

const CONTEXT: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

fn tls() -> Value {
    let name = json!({"san_type": "DNS", "matcher": {"exact": "api.openai.com"}});
    let validation = json!({
        "trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"},
        "match_typed_subject_alt_names": [name],
    });
    let common = json!({"validation_context": validation});
    let context = json!({"@type": CONTEXT, "sni": "api.openai.com", "common_tls_context": common});
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

/// As Envoy Gateway writes it.
fn placeholder() -> Value {
    let context = json!({"@type": CONTEXT, "common_tls_context": {}});
    json!({"name": "dummy.transport_socket", "typed_config": context})
}

fn metadata(labels: &Value) -> Value {
    json!({"filter_metadata": {"envoy.transport_socket_match": labels}})
}

fn endpoint(labels: Option<&Value>) -> Value {
    let address = json!({"socket_address": {"address": "api.openai.com", "port_value": 443}});
    let mut item = json!({"endpoint": {"address": address}});
    if let Some(labels) = labels {
        item["metadata"] = metadata(labels);
    }
    item
}

fn branch(criteria: &Value) -> Value {
    json!({"name": "b", "match": criteria, "transport_socket": tls()})
}

/// A cluster with a useless default socket, or none.
fn cluster(branches: &[Value], localities: &Value, default: Option<Value>) -> Value {
    let mut cluster = json!({
        "name": "a",
        "type": "STRICT_DNS",
        "transport_socket_matches": branches,
        "load_assignment": {"cluster_name": "a", "endpoints": localities},
    });
    if let Some(default) = default {
        cluster["transport_socket"] = default;
    }
    cluster
}

/// What is found about the sockets, and the notes.
fn judge(cluster: &Value) -> (Vec<String>, Value) {
    let (_, report) = lint_text(cluster.to_string(), &[]);
    let about_others = ["gate_missing", "stamp_missing"];
    let found = rules(&report).into_iter().filter(|rule| !about_others.contains(rule));
    (found.map(str::to_owned).collect(), report["notes"].clone())
}

#[test]
fn a_default_that_no_endpoint_can_use_is_not_judged() {
    let labels = json!({"name": "openai/tls/0"});
    let branches = [branch(&labels)];
    let localities = json!([{"lb_endpoints": [endpoint(Some(&labels))]}]);
    for default in [Some(placeholder()), None] {
        let cluster = cluster(&branches, &localities, default);
        assert_eq!(judge(&cluster), (vec![], json!([])), "{cluster}");
    }
    // The branch itself is judged.
    let mut bad = branch(&labels);
    bad["transport_socket"] = placeholder();
    let bad = cluster(&[bad], &localities, Some(placeholder()));
    assert_eq!(judge(&bad).0, ["ca_missing", "sni_missing"]);
}

#[test]
fn a_default_that_one_endpoint_uses_is_judged() {
    let labels = json!({"name": "a", "more": 1});
    let branches = [branch(&labels)];
    for other in [
        None,
        Some(json!({})),
        Some(json!({"name": "a"})),
        Some(json!({"name": "b", "more": 1})),
        Some(json!({"name": "a", "more": "1"})),
    ] {
        let items = [endpoint(Some(&labels)), endpoint(other.as_ref())];
        let cluster = cluster(&branches, &json!([{"lb_endpoints": items}]), Some(placeholder()));
        assert_eq!(judge(&cluster).0, ["ca_missing", "sni_missing"], "{other:?}");
    }
    let more = endpoint(Some(&json!({"name": "a", "more": 1.0, "x": true})));
    let cluster = cluster(&branches, &json!([{"lb_endpoints": [more]}]), None);
    assert!(judge(&cluster).0.is_empty());
}

#[test]
fn the_metadata_of_a_locality_selects_a_socket_too() {
    let labels = json!({"name": "a"});
    let localities = |own: Option<&Value>| json!([{"metadata": metadata(&labels), "lb_endpoints": [endpoint(own)]}]);
    let judged = |own| judge(&cluster(&[branch(&labels)], &localities(own), None)).0;
    assert!(judged(None).is_empty());
    assert!(judged(Some(&json!({"name": "other"}))).is_empty());
}

#[test]
fn endpoints_that_are_not_in_the_input_leave_the_default_open() {
    let labels = json!({"name": "a"});
    let mut cluster = cluster(&[branch(&labels)], &json!([]), Some(placeholder()));
    let members = cluster.as_object_mut().expect("an object");
    members.remove("load_assignment");
    members.insert("type".to_owned(), json!("EDS"));
    let (found, notes) = judge(&cluster);
    assert!(found.is_empty(), "{found:?}");
    let text = notes[0]["text"].as_str().expect("a note");
    assert!(text.ends_with("whether one uses the default transport_socket, which is not checked"));
    // With a branch for all endpoints there is nothing to leave open.
    cluster["transport_socket_matches"] = json!([branch(&json!({}))]);
    let text = judge(&cluster).1[0]["text"].as_str().expect("a note").to_owned();
    assert!(!text.contains("default"), "{text}");
}

#[test]
fn endpoints_of_the_discovery_service_select_sockets() {
    let labels = json!({"name": "a"});
    let dump = |item: Value| {
        let mut eds = cluster(&[branch(&labels)], &json!([]), None);
        let members = eds.as_object_mut().expect("an object");
        members.remove("load_assignment");
        members.insert("type".to_owned(), json!("EDS"));
        let assignment = json!({
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "a",
            "endpoints": [{"lb_endpoints": [item]}],
        });
        json!({"configs": [
            {"dynamic_active_clusters": [{"cluster": eds}]},
            {"dynamic_endpoint_configs": [{"endpoint_config": assignment}]},
        ]})
    };
    assert_eq!(judge(&dump(endpoint(Some(&labels)))), (vec![], json!([])));
    assert_eq!(judge(&dump(endpoint(None))).0, ["plaintext"]);
}

/// A cluster without endpoints, or with those of the connections, has only the default to be judged by.
#[test]
fn without_endpoints_the_default_is_judged() {
    let branches = [branch(&json!({"name": "a"}))];
    let mut cluster = cluster(&branches, &json!([]), None);
    assert_eq!(judge(&cluster).0, ["plaintext", "endpoints_missing"]);
    cluster["type"] = json!("ORIGINAL_DST");
    assert_eq!(judge(&cluster).0, ["plaintext"]);
}

#[test]
fn numbers_in_yaml_are_compared_by_their_spelling() {
    let config = |wanted: &str, given: &str| {
        let [wanted, given] = [wanted, given].map(|number| json!({ "version": number }));
        let endpoints = json!([{"lb_endpoints": [endpoint(Some(&given))]}]);
        let cluster = cluster(&[branch(&wanted)], &endpoints, None);
        let config = json!({"static_resources": {"clusters": [cluster]}}).to_string();
        let quoted = |number: &str| format!("\"version\":{number:?}");
        let bare = |text: String, number: &str| {
            text.replace(&quoted(number), &format!("\"version\": {number}"))
        };
        let text = bare(config, "1.1");
        bare(text, "1.10")
    };
    let is_plain = |text: String| rules(&lint_text(text, &[]).1).contains(&"plaintext");
    for (wanted, given, differ) in
        [("1.10", "1.1", true), ("1.1", "1.10", true), ("1.1", "1.1", false)]
    {
        assert_eq!(is_plain(format!("# YAML\n{}", config(wanted, given))), differ, "{wanted}");
        // JSON has numbers, which are equal.
        assert!(!is_plain(config(wanted, given)), "{wanted}");
    }
}
