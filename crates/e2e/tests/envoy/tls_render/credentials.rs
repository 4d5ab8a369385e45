//! Rendered clusters with provider credentials, and the front as the comments describe it.

use std::path::Path;

use serde_json::{Value, json};

use super::{render_by, without_type};
use crate::gateways::{Gateway, KNOWN, Plan, UNLISTED};
use crate::support::tls::{Authority, Serve, Upstream};
use crate::support::{TempDir, artefact, config, each_envoy};

/// A rendered file, and what its comments say of the rest of the configuration.
struct Rendered {
    clusters: Vec<Value>,
    /// The routes to the clusters, in their order.
    routes: Vec<Value>,
    /// What the plugin configuration of the front needs.
    front: Value,
    /// The variables of the front's VM.
    variables: Value,
}

impl Rendered {
    /// Renders the upstreams, whose files are in `dir`.
    fn new(upstreams: Value) -> Self {
        let wasm = json!({"file": artefact("VKEY_TEST_WASM"), "environment": ["VKEY_MAIN_SECRET"]});
        let text = render_by("envoy", &[], &json!({"upstreams": upstreams, "wasm": wasm}));
        // What stands in comments is YAML too.
        let comments = |start: &str| -> Vec<Value> {
            let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
            let lines = lines.map(str::trim_start).filter(|line| line.starts_with(start));
            lines.map(|line| serde_saphyr::from_str(line).unwrap()).collect()
        };
        let routes = comments("Routes: ").into_iter().map(|mut route| route["Routes"].take());
        let document: Value = serde_saphyr::from_str(&text).unwrap();
        let clusters = document["resources"].as_array().unwrap().iter().cloned();
        Self {
            clusters: clusters.map(without_type).collect(),
            routes: routes.collect(),
            front: comments("{\"forward\"").remove(0),
            variables: comments("environment_variables: ").remove(0)["environment_variables"]
                .take(),
        }
    }

    /// Takes the clusters over, each for the requests that name its host, and the variables.
    fn install(&self, config: &mut Value, hosts: &[&str]) {
        config::wasm(config)["vm_config"]["environment_variables"] = self.variables.clone();
        let virtual_hosts =
            &mut config::connection_manager(config, "gate")["route_config"]["virtual_hosts"];
        let virtual_hosts = virtual_hosts.as_array_mut().unwrap();
        for (host, route) in hosts.iter().zip(&self.routes) {
            let mut own = virtual_hosts[0].clone();
            own["name"] = json!(host);
            own["domains"] = json!([host]);
            own["routes"][0]["route"] = route.clone();
            virtual_hosts.push(own);
        }
        let clusters = config.pointer_mut("/static_resources/clusters").unwrap();
        clusters.as_array_mut().unwrap().extend(self.clusters.iter().cloned());
    }
}

/// Upstreams that prove to be their hosts: two with a credential, and one without.
struct Providers {
    _dir: TempDir,
    _upstreams: [Upstream; 3],
    list: Value,
}

const PLAIN: &str = "plain.example";
const HOSTS: [&str; 3] = [KNOWN, UNLISTED, PLAIN];
const OPENAI: &str = "authorization: Bearer a-provider-key";
const PARTNER: &str = "x-partner-key: a-partner-key";

impl Providers {
    fn new() -> Self {
        let dir = TempDir::new("render_credentials");
        let authority = Authority::new("render");
        let trust = json!({"file": authority.write(dir.path(), "ca.pem")});
        let upstreams = HOSTS.map(|host| Serve::tls(&authority.server(&[host])).start());
        let names = ["openai", "partner", "plain"];
        let entries = names.iter().zip(HOSTS).zip(&upstreams).map(|((name, host), upstream)| {
            json!({"name": name, "host": host, "address": "127.0.0.1",
                   "port": upstream.address().port(), "trust": trust})
        });
        let mut list: Value = entries.collect();
        list[0]["credential"] = json!({"header": "authorization", "value": "Bearer ${OPENAI}"});
        list[1]["credential"] =
            json!({"name": "partner-key", "header": "x-partner-key", "value": "${PARTNER}"});
        Self { _dir: dir, _upstreams: upstreams, list }
    }

    /// A gateway with the rendered clusters, and a front that is configured like this.
    fn gateway(&self, binary: &Path, label: &str, front: fn(Value) -> Value) -> Gateway {
        let rendered = Rendered::new(self.list.clone());
        let plan = Plan::new(binary, label, front(rendered.front.clone()));
        let plan = plan.options(|options| {
            options.env("OPENAI", "a-provider-key").env("PARTNER", "a-partner-key")
        });
        plan.edit(move |config| rendered.install(config, &HOSTS)).start()
    }
}

/// Which of the two credentials an upstream was sent.
fn arrived(gateway: &Gateway, host: &str) -> (bool, bool) {
    let text = gateway.passes(host).text();
    (text.contains(OPENAI), text.contains(PARTNER))
}

#[test]
fn rendered_gates_attach_their_credentials() {
    each_envoy(|binary| {
        let providers = Providers::new();
        let gateway = providers.gateway(binary, "granted", |front| front);
        for _ in 0..2 {
            assert_eq!(arrived(&gateway, KNOWN), (true, false));
            assert_eq!(arrived(&gateway, UNLISTED), (false, true));
            assert_eq!(arrived(&gateway, PLAIN), (false, false));
        }
        drop(gateway);
        let gateway = providers.gateway(binary, "ungranted", |_| json!({}));
        assert_eq!(HOSTS.map(|host| arrived(&gateway, host)), [(false, false); 3]);
    });
}

#[test]
fn a_route_to_another_upstream_takes_no_credential_along() {
    each_envoy(|binary| {
        let mut providers = Providers::new();
        providers.list.as_array_mut().unwrap().rotate_left(1);
        // Now the route for the known host leads to the partner's cluster, and so on.
        let gateway = providers.gateway(binary, "rotated", |front| front);
        assert_eq!(arrived(&gateway, KNOWN), (false, true));
        assert_eq!(arrived(&gateway, UNLISTED), (false, false));
        assert_eq!(arrived(&gateway, PLAIN), (true, false));
    });
}
