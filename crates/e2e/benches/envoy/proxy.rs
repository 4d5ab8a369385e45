//! Envoys with one listener for each chain of filters. It answers by itself, or sends the requests to a provider.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cases::Proxy;
use crate::filters::Chain;
use crate::keys::VARIABLE;
use crate::provider;
use crate::support::{DEADLINE, Envoy, Options, artefact, config};

/// For an Envoy that a tool makes slower, on a machine that has other work.
const SLOW_DEADLINE: Duration = Duration::from_secs(600);

/// Starts an Envoy on these cores. Nothing of it is left when this process ends, however it does.
///
/// # Errors
///
/// Envoy's log, when it does not serve.
pub(crate) fn start(plan: &Proxy, secret: &str) -> Result<Envoy, String> {
    start_under(&[], plan, secret)
}

/// The same with a command that becomes Envoy and may make it much slower, as valgrind.
pub(crate) fn start_under(tool: &[&str], plan: &Proxy, secret: &str) -> Result<Envoy, String> {
    let listeners = plan.listeners.clone();
    let mut command = vec!["setpriv", "--pdeathsig", "KILL", "taskset", "-c", plan.cpus];
    command.extend(tool);
    let options = Options::new("bench")
        .under(&command)
        .within(if tool.is_empty() { DEADLINE } else { SLOW_DEADLINE })
        .module(artefact("VKEY_TEST_WASM"))
        .env(VARIABLE, secret)
        .env(provider::VARIABLE, provider::SECRET)
        .concurrency(plan.workers)
        .log_level("warning")
        .edit(move |config| install(config, &listeners));
    Envoy::launch(options)
        .map_err(|refused| format!("Envoy went away instead of serving: {refused:#?}"))
}

/// In the place of the gate of `envoy.yaml`, listeners like it with other filters.
fn install(config: &mut Value, listeners: &[(&'static str, Chain)]) {
    let gate = config::named(config, "/static_resources/listeners", "gate").clone();
    let own: Vec<_> = listeners.iter().map(|(name, chain)| listener(&gate, name, chain)).collect();
    config["static_resources"]["clusters"] = json!([]);
    listeners.iter().for_each(|(_, chain)| add_cluster(config, chain));
    config["static_resources"]["listeners"] = json!(own);
}

/// The cluster of a chain. Its gate runs in the VM of the chain's module.
fn add_cluster(config: &mut Value, chain: &Chain) {
    let Some(cluster) = chain.cluster.clone() else { return };
    if let Some(wasm) = chain.wasm() {
        *config::wasm(config) = wasm.clone();
    }
    cluster.add(config);
}

fn listener(gate: &Value, name: &str, chain: &Chain) -> Value {
    let mut listener = gate.clone();
    listener["name"] = json!(name);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["stat_prefix"] = json!(name);
    manager["access_log"] = json!(chain.access_log.as_slice());
    let filters = manager["http_filters"].as_array_mut().expect("filters");
    let router = filters.pop().expect("a router");
    *filters = chain.filters.clone();
    filters.push(router);
    let mut limited = answering("/limited");
    if let Some(config) = &chain.limited {
        limited["typed_per_filter_config"] = config.clone();
    }
    let rest = match chain.cluster {
        Some(_) => forwarding(name, chain.host),
        None => answering("/"),
    };
    manager["route_config"]["virtual_hosts"][0]["routes"] = json!([limited, rest]);
    listener
}

/// The route of everything else to a provider, with the timeout of `envoy.yaml`.
fn forwarding(cluster: &str, host: Option<&str>) -> Value {
    let mut route = json!({"cluster": cluster, "timeout": "300s"});
    if let Some(host) = host {
        route["host_rewrite_literal"] = json!(host);
    }
    json!({"match": {"prefix": "/"}, "route": route})
}

/// A route that asks no upstream.
fn answering(prefix: &str) -> Value {
    let answer = json!({"status": 200, "body": {"inline_string": "ok\n"}});
    json!({"match": {"prefix": prefix}, "direct_response": answer})
}
