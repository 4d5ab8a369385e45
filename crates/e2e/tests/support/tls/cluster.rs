//! The clusters of Envoy that lead to a test's upstreams, and the routes to them.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::super::config;
use super::{Authority, LeafFiles, Upstream};

const TLS_TRANSPORT: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const CODEC: &str =
    "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";

/// A cluster with one upstream. `install` or `install_for` puts it into a configuration.
#[derive(Clone)]
pub(crate) struct Cluster {
    name: String,
    value: Value,
    tls: Option<Value>,
    http2: bool,
    gate: Option<Value>,
    max_requests: Option<u32>,
}

impl Cluster {
    /// A cluster that speaks plain text.
    pub(crate) fn plain(name: &str, upstream: &Upstream) -> Self {
        Self::plain_at(name, upstream.address())
    }

    /// The same for an upstream of another kind.
    pub(crate) fn plain_at(name: &str, address: SocketAddr) -> Self {
        let value = json!({
            "name": name, "type": "STATIC", "connect_timeout": "10s",
            "load_assignment": {
                "cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint(address)]}],
            },
        });
        Self {
            name: name.to_owned(),
            value,
            tls: None,
            http2: false,
            gate: None,
            max_requests: None,
        }
    }

    /// A cluster that speaks TLS and verifies the chain against that authority, but no name: that
    /// takes `san`.
    pub(crate) fn tls(name: &str, upstream: &Upstream, authority: &Authority) -> Self {
        let ca = json!({"trusted_ca": {"inline_string": authority.pem()}});
        Self::unverified(name, upstream)
            .context(|context| context["common_tls_context"]["validation_context"] = ca)
    }

    /// A cluster that speaks TLS 1.2 or 1.3 with whomever (left alone, Envoy's clients go no higher
    /// than 1.2). It resumes no session unless `context` sets `max_session_keys`.
    pub(crate) fn unverified(name: &str, upstream: &Upstream) -> Self {
        let mut cluster = Self::plain(name, upstream);
        cluster.tls = Some(json!({
            "@type": TLS_TRANSPORT, "common_tls_context": {}, "max_session_keys": 0,
        }));
        cluster.versions("TLSv1_2", "TLSv1_3")
    }

    /// The versions, as Envoy calls them: TLSv1_0 to TLSv1_3.
    pub(crate) fn versions(self, least: &str, most: &str) -> Self {
        let (least, most) = (json!(least), json!(most));
        self.context(|context| {
            let params = &mut context["common_tls_context"]["tls_params"];
            params["tls_minimum_protocol_version"] = least;
            params["tls_maximum_protocol_version"] = most;
        })
    }

    pub(crate) fn cipher_suites(self, suites: &[&str]) -> Self {
        let suites = json!(suites);
        let at = |context: &mut Value| {
            context["common_tls_context"]["tls_params"]["cipher_suites"] = suites;
        };
        self.context(at)
    }

    /// The name that the client asks for.
    pub(crate) fn sni(self, name: &str) -> Self {
        let name = json!(name);
        self.context(|context| context["sni"] = name)
    }

    /// The DNS name that the certificate must have.
    pub(crate) fn san(self, name: &str) -> Self {
        let san = json!([{"san_type": "DNS", "matcher": {"exact": name}}]);
        self.context(|context| {
            let validation = &mut context["common_tls_context"]["validation_context"];
            validation["match_typed_subject_alt_names"] = san;
        })
    }

    /// Envoy's own check of the certificate's SHA-256.
    pub(crate) fn pins(self, digests: &[String]) -> Self {
        let digests = json!(digests);
        self.context(|context| {
            let validation = &mut context["common_tls_context"]["validation_context"];
            validation["verify_certificate_hash"] = digests;
        })
    }

    /// The proxy's own certificate.
    pub(crate) fn client_certificate(self, files: &LeafFiles) -> Self {
        let certificates = json!([{
            "certificate_chain": {"filename": files.certificate},
            "private_key": {"filename": files.key},
        }]);
        self.context(|context| context["common_tls_context"]["tls_certificates"] = certificates)
    }

    /// Any change of the `UpstreamTlsContext`.
    pub(crate) fn context(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(self.tls.as_mut().expect("a cluster that speaks TLS"));
        self
    }

    pub(crate) fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// The stamp of the policy with that digest for those hosts.
    pub(crate) fn stamp(self, policy: &str, hosts: &[&str]) -> Self {
        let stamp = json!({"filter_metadata": {"vkey": {"policy": policy, "hosts": hosts}}});
        self.edit(|cluster| cluster["metadata"] = stamp)
    }

    /// The gate as an upstream filter: the module and the VM of the downstream filter.
    pub(crate) fn gate(self) -> Self {
        self.gate_with(json!({}))
    }

    /// The gate with a configuration, apart from its role.
    pub(crate) fn gate_with(mut self, mut configuration: Value) -> Self {
        configuration["role"] = json!("upstream_tls");
        self.gate = Some(configuration);
        self
    }

    /// One more upstream among which requests are spread.
    pub(crate) fn endpoint(self, upstream: &Upstream) -> Self {
        let endpoint = endpoint(upstream.address());
        self.edit(|cluster| {
            let endpoints = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
            endpoints.as_array_mut().expect("a list of endpoints").push(endpoint);
        })
    }

    /// How many requests go over one connection.
    pub(crate) fn max_requests(mut self, count: u32) -> Self {
        self.max_requests = Some(count);
        self
    }

    /// Any change of the cluster, apart from the parts that the other methods make.
    pub(crate) fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.value);
        self
    }

    /// Adds the cluster and sends every request to it, the echo's among them.
    pub(crate) fn install(self, config: &mut Value) {
        let name = self.name.clone();
        self.add(config);
        let hosts = &mut config::connection_manager(config, "gate")["route_config"];
        hosts["virtual_hosts"][0]["routes"][0]["route"]["cluster"] = json!(name);
    }

    /// Adds the cluster and sends the requests for that host to it.
    pub(crate) fn install_for(self, config: &mut Value, host: &str) {
        let name = self.name.clone();
        self.add(config);
        let hosts = &mut config::connection_manager(config, "gate")["route_config"];
        let hosts = hosts["virtual_hosts"].as_array_mut().expect("a list of hosts");
        let mut copy = hosts[0].clone();
        copy["name"] = json!(host);
        copy["domains"] = json!([host, format!("{host}:*")]);
        copy["routes"][0]["route"]["cluster"] = json!(name);
        hosts.push(copy);
    }

    /// Adds the cluster without a route to it.
    pub(crate) fn add(self, config: &mut Value) {
        let cluster = self.build(config);
        let clusters = config.pointer_mut("/static_resources/clusters");
        clusters.and_then(Value::as_array_mut).expect("a list of clusters").push(cluster);
    }

    fn build(mut self, config: &mut Value) -> Value {
        let version = if self.http2 { "http2_protocol_options" } else { "http_protocol_options" };
        let mut options = json!({
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": {version: {}},
        });
        if let Some(count) = self.max_requests {
            options["common_http_protocol_options"] = json!({"max_requests_per_connection": count});
        }
        if let Some(gate) = self.gate.take() {
            let vm = config::wasm(config)["vm_config"].clone();
            options["http_filters"] = upstream_filters(&gate, vm);
        }
        self.value["typed_extension_protocol_options"] = json!({HTTP_OPTIONS: options});
        if let Some(mut context) = self.tls.take() {
            if self.http2 {
                context["common_tls_context"]["alpn_protocols"] = json!(["h2"]);
            }
            self.value["transport_socket"] =
                json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
        }
        self.value
    }
}

fn endpoint(address: SocketAddr) -> Value {
    json!({"endpoint": {"address": {"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port(),
    }}}})
}

/// The filters of a cluster with the gate.
fn upstream_filters(gate: &Value, vm: Value) -> Value {
    let configuration = json!({
        "@type": "type.googleapis.com/google.protobuf.StringValue", "value": gate.to_string(),
    });
    let gate = json!({
        "name": "vkey.upstream_tls", "failure_policy": "FAIL_RELOAD", "vm_config": vm,
        "configuration": configuration,
    });
    json!([
        {"name": "vkey.upstream_tls", "typed_config": {"@type": WASM, "config": gate}},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": {"@type": CODEC}},
    ])
}
