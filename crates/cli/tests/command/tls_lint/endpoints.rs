//! Clusters whose endpoints cannot be read, or are somewhere else.

use serde_json::{Value, json};

use super::{lint_text, notes, plain, rules};

/// The rules that a cluster violates, and the reason of the first finding.
fn found(cluster: &Value) -> (Vec<String>, String) {
    let (_, report) = lint_text(cluster.to_string(), &[]);
    let reason = report["findings"][0]["reason"].as_str().unwrap_or_default().to_owned();
    (rules(&report).into_iter().map(str::to_owned).collect(), reason)
}

/// A cluster for a host that no rule covers, in which a member has another name.
fn renamed(pointer: &str, from: &str, to: &str) -> Value {
    let mut cluster = plain("a", "echo", &json!({}));
    let holder = cluster.pointer_mut(pointer).expect(pointer).as_object_mut().expect("an object");
    let value = holder.remove(from).expect(from);
    holder.insert(to.to_owned(), value);
    cluster
}

#[test]
fn a_misspelt_member_on_the_way_to_the_endpoints_is_named() {
    let locality = "/load_assignment/endpoints/0";
    let item = &format!("{locality}/lb_endpoints/0");
    let address = &format!("{item}/endpoint/address");
    for (pointer, from, to) in [
        ("", "load_assignment", "load_asignment"),
        ("", "load_assignment", "loadAssignement"),
        ("/load_assignment", "endpoints", "endpoint"),
        (locality, "lb_endpoints", "lb_endpoint"),
        (locality, "lb_endpoints", "lbEndpoint"),
        (item, "endpoint", "endpoints"),
        (&format!("{item}/endpoint"), "address", "adress"),
        (address, "socket_address", "socket_adress"),
        (&format!("{address}/socket_address"), "address", "addres"),
    ] {
        let (rules, reason) = found(&renamed(pointer, from, to));
        assert_eq!(rules, ["endpoints_missing"], "{to}");
        assert!(reason.starts_with(&format!("{to} is not a member of Envoy's API")), "{reason}");
    }
    assert!(found(&plain("a", "echo", &json!({}))).0.is_empty());
}

/// One endpoint that is read says nothing about the host of another one that is not.
#[test]
fn one_misspelt_member_among_good_ones_is_named() {
    let mut cluster = plain("a", "echo", &json!({}));
    let localities = cluster["load_assignment"]["endpoints"].as_array_mut().expect("a list");
    let items = localities[0]["lb_endpoints"].clone();
    localities.push(json!({"lb_endpoint": items}));
    assert_eq!(found(&cluster).0, ["endpoints_missing"]);
}

/// A cluster of version 2 of the API is for the hosts that it names there, too.
#[test]
fn endpoints_of_version_2_are_named_and_judged() {
    let of = |host: &str| {
        let address = json!({"socket_address": {"address": host, "port_value": 443}});
        json!({"name": "a", "type": "LOGICAL_DNS", "hosts": [address], "tls_context": {}})
    };
    let (rules, reason) = found(&of("echo"));
    assert_eq!(rules, ["endpoints_missing"]);
    assert!(reason.contains("hosts, which is no longer part of Envoy's API"), "{reason}");
    let expected = ["gate_missing", "tls_context_obsolete", "endpoints_missing", "stamp_missing"];
    assert_eq!(found(&of("api.openai.com")).0, expected);
}

#[test]
fn a_cluster_that_should_contain_endpoints_and_does_not_is_named() {
    for kind in [json!("STATIC"), json!("STRICT_DNS"), json!("LOGICAL_DNS"), json!(0), json!(1)] {
        let empty = json!({"cluster_name": "a", "endpoints": [{"lb_endpoints": []}]});
        for assignment in [Value::Null, json!({"cluster_name": "a"}), empty] {
            let cluster = json!({"name": "a", "type": kind, "load_assignment": assignment});
            assert_eq!(found(&cluster).0, ["endpoints_missing"], "{cluster}");
        }
    }
    let dns = "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster";
    let cluster_type = json!({"name": "envoy.cluster.dns", "typed_config": {"@type": dns}});
    assert_eq!(found(&json!({"name": "a", "cluster_type": cluster_type})).0, ["endpoints_missing"]);
    let untyped = json!({"name": "a", "connect_timeout": "1s"});
    assert_eq!(found(&untyped).0, ["endpoints_missing"]);
    // The host is known from elsewhere.
    let named = json!({"name": "outbound|443||api.openai.com", "type": "STATIC"});
    let (_, report) = lint_text(named.to_string(), &[]);
    let findings = report["findings"].as_array().expect("a list");
    let missing = findings.iter().find(|finding| finding["rule"] == "endpoints_missing");
    assert_eq!(missing.expect("found")["host"], "api.openai.com");
}

#[test]
fn a_cluster_that_needs_no_endpoints_of_its_own_is_not_named() {
    let of_type = |kind: &str| {
        let kind = format!("type.googleapis.com/envoy.extensions.clusters.{kind}.v3.ClusterConfig");
        json!({"name": "a", "cluster_type": {"name": "x", "typed_config": {"@type": kind}}})
    };
    let address = |address: Value| {
        let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
        json!({"name": "a", "type": "STATIC", "load_assignment": {"endpoints": endpoints}})
    };
    let endpoint = json!({"address": {"socket_address": {"address": "echo", "port_value": 80}}});
    let by_name = json!({
        "named_endpoints": {"one": endpoint},
        "endpoints": [{"lb_endpoints": [{"endpoint_name": "one"}]}],
    });
    for cluster in [
        json!({"name": "a", "type": "ORIGINAL_DST"}),
        json!({"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "10s"}),
        of_type("dynamic_forward_proxy"),
        of_type("redis"),
        address(json!({"pipe": {"path": "/run/a.sock"}})),
        address(json!({"envoy_internal_address": {"server_listener_name": "b"}})),
        json!({"name": "a", "type": "STATIC", "load_assignment": by_name}),
    ] {
        assert!(found(&cluster).0.is_empty(), "{cluster}");
    }
}

#[test]
fn endpoints_that_are_not_in_the_input_are_a_note() {
    let unknown = "its endpoints are not in the input: which hosts they name is not known";
    let eds = json!({"name": "a", "type": "EDS", "eds_cluster_config": {"service_name": "b"}});
    assert_eq!(notes(&eds), [unknown]);
    let assignment = |name: &str, endpoints: Value| {
        json!({
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": name,
            "endpoints": endpoints,
        })
    };
    let with = |assignment: Value| {
        let resource = json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": "a", "type": "EDS", "eds_cluster_config": {"service_name": "b"}});
        notes(&json!({"resources": [resource, assignment]}))
    };
    let items = json!([{"lb_endpoints": [{"endpoint": {"hostname": "echo"}}]}]);
    assert!(with(assignment("b", items.clone())).is_empty());
    assert!(with(assignment("b", json!([]))).is_empty());
    assert_eq!(with(assignment("c", items)), [unknown]);
    let elsewhere = json!([{"leds_cluster_locality_config": {"leds_collection_name": "x"}}]);
    assert_eq!(with(assignment("b", elsewhere)), [unknown]);
}
