//! Listeners without the module whose requests reach the gate of a cluster.

use super::listeners::{edited, notes, rules};

const CLUSTERS: &str = "  clusters:\n";
const NOTE: &str = "plain: the listener does not have the module, so the gate of the cluster gated, which has no TLS, \
    refuses its requests (502, upstream_plaintext); give it a cluster of its own, or the module";

/// A listener without the module, with these filters before the router.
fn listener(filters: &str, cluster: &str) -> String {
    format!(
        r#"  - name: plain
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: plain
          http_filters:{filters}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            name: plain
            virtual_hosts:
            - {{name: all, domains: [echo.example], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}
{CLUSTERS}"#
    )
}

fn with(listener: &str, cluster: &str) -> Vec<String> {
    let config = edited(&[(CLUSTERS, listener), ("    type: STATIC\n", cluster)]);
    assert_eq!(rules(&config), [""; 0]);
    notes(&config).into_iter().filter(|note| note.starts_with("plain: ")).collect()
}

#[test]
fn a_listener_whose_requests_the_gate_refuses_is_noted() {
    let kept = "    type: STATIC\n";
    assert_eq!(with(&listener("", "gated"), kept), [NOTE]);
    let cors = "\n          - name: envoy.filters.http.cors\n            typed_config: {\"@type\": \
                type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}";
    assert_eq!(with(&listener(cors, "gated"), kept), [NOTE]);
    let aggregate = "    type: STATIC\n  - name: both\n    cluster_type: {name: aggregate, typed_config: {\"@type\": \
                     type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [gated]}}\n";
    let behind = edited(&[(CLUSTERS, &listener("", "both"))]);
    let whole = behind.replace("  clusters:\n", &format!("  clusters:\n{}", &aggregate[17..]));
    assert!(notes(&whole).contains(&NOTE.to_owned()), "{:?}", notes(&whole));
}

#[test]
fn nothing_is_noted_of_other_clusters_and_of_filters_that_may_be_the_module() {
    let kept = "    type: STATIC\n";
    let own = "  - {name: own, type: STATIC, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: \
               {path: /run/own.sock}}}}]}]}}\n";
    assert_eq!(with(&(listener("", "own") + own), kept), [""; 0]);
    let tls = "    type: STATIC\n    transport_socket: {name: tls, typed_config: {\"@type\": \
               type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}}\n";
    assert_eq!(with(&listener("", "gated"), tls), [""; 0]);
    // The seal lets nothing through.
    let seal = "\n          - {name: seal, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, \
                rules: {action: ALLOW, policies: {a: {permissions: [{any: true}], principals: [{filter_state: \
                {key: wasm.vkey.decision, string_match: {exact: allow}}}]}}}}}";
    let config = edited(&[(CLUSTERS, &listener(seal, "gated"))]);
    assert_eq!(rules(&config), ["module_missing"]);
    assert!(!notes(&config).contains(&NOTE.to_owned()), "{:?}", notes(&config));
    let discovered = "\n          - {name: vkey, config_discovery: {config_source: {ads: {}}, type_urls: \
                      [type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm]}}";
    let config = edited(&[(CLUSTERS, &listener(discovered, "gated"))]);
    assert!(!notes(&config).contains(&NOTE.to_owned()), "{:?}", notes(&config));
}
