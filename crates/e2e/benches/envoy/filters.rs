//! The filters that are compared, each as an operator would configure it.

use std::path::Path;

use serde_json::{Value, json};

use crate::calls::{Message, Server};
use crate::keys::{self, ISSUER, Issuer};
use crate::provider::{self, Provider};
use crate::streams::Streams;
use crate::support::tls::Cluster;
use crate::support::{artefact, config};

/// So much that nothing meets it: what is measured is the counting.
const PLENTY: u64 = 1_000_000_000;

/// How many tenants have limits; keys of the scaling cases are spread over them.
pub(crate) const TENANTS: usize = 16;

/// The tier whose keys are over their limit after one request.
pub(crate) const NARROW_TIER: &str = "narrow";

/// The tier whose keys have a quota of tokens too.
pub(crate) const METERED_TIER: &str = "metered";

/// The tier whose keys may call some tools, and ask for one path besides.
pub(crate) const CALLER_TIER: &str = "caller";

/// The line that Envoy's access log prints: the record of the audit filter state, then what the proxy knows.
const AUDIT_LINE: &str = concat!(
    r#"{"vkey":"%FILTER_STATE(wasm.vkey.audit:PLAIN)%","start":"%START_TIME%","#,
    r#""peer":"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%","status":%RESPONSE_CODE%,"#,
    r#""bytes_in":%BYTES_RECEIVED%,"bytes_out":%BYTES_SENT%,"#,
    r#""duration_ns":"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%","#,
    r#""upstream":"%UPSTREAM_HOST%","flags":"%RESPONSE_FLAGS%"}"#,
    "\n"
);

/// What stands between the connection and the answer of one listener.
#[derive(Clone, Default)]
pub(crate) struct Chain {
    pub(crate) filters: Vec<Value>,
    pub(crate) access_log: Option<Value>,
    /// Filters' own configuration for paths under `/limited`.
    pub(crate) limited: Option<Value>,
    /// Where requests go, if the listener does not answer by itself: a cluster called like it.
    pub(crate) cluster: Option<Cluster>,
    /// The host that the route there sets, if any.
    pub(crate) host: Option<&'static str>,
}

/// How much of the gate is on, each with all that stands before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gate {
    Verify,
    Rules,
    Limits,
    Audit,
    Everything,
}

// === impl Chain ===

impl Chain {
    /// No filter.
    pub(crate) fn bare() -> Self {
        Self::default()
    }

    /// The module that does nothing.
    pub(crate) fn noop(listener: &str) -> Self {
        let mut wasm = shipped_wasm();
        wasm["config"]["configuration"]["value"] = json!("");
        Self::of([module(wasm, &artefact("VKEY_BENCH_NOOP"), listener)])
    }

    /// The module that makes only the calls that the job needs, sealed and logged as the gate.
    pub(crate) fn floor(listener: &str) -> Self {
        let mut wasm = shipped_wasm();
        wasm["config"]["configuration"]["value"] = json!("");
        let mut chain = Self::of([module(wasm, &artefact("VKEY_BENCH_FLOOR"), listener)]);
        chain.access_log = Some(audit_log());
        chain.filters.push(shipped_filter("envoy.filters.http.rbac"));
        chain
    }

    /// No filter, in front of a provider.
    pub(crate) fn direct(provider: &Provider, listener: &str) -> Self {
        Self::bare().to(provider.cluster(listener), Some(provider::HOST))
    }

    /// The gate with everything on, in front of a provider whose cluster attaches a credential.
    pub(crate) fn gated(provider: &Provider, listener: &str) -> Self {
        let mut plugin = plugin(Gate::Everything);
        plugin["forward"]["credentials"] = json!([{"name": provider::CREDENTIAL}]);
        let cluster = provider.gated_cluster(listener);
        Self::gate_with(Gate::Everything, &plugin, listener).to(cluster, Some(provider::HOST))
    }

    /// No filter, in front of a provider that streams.
    pub(crate) fn stream(streams: &Streams, listener: &str) -> Self {
        Self::bare().to(streams.cluster(listener), None)
    }

    /// The gate with everything on, in front of a provider that streams. What keys of [`METERED_TIER`] use is charged.
    pub(crate) fn metered(streams: &Streams, listener: &str) -> Self {
        let mut plugin = plugin(Gate::Everything);
        let mut tier = plugin["tiers"]["default"].clone();
        let quotas = tier["quotas"].as_array_mut().expect("the quotas of envoy.yaml");
        quotas.push(json!({"tokens": PLENTY, "per": "total"}));
        plugin["tiers"][METERED_TIER] = tier;
        Self::gate_with(Gate::Everything, &plugin, listener).to(streams.cluster(listener), None)
    }

    /// No filter, in front of an MCP server.
    pub(crate) fn server(server: &Server, listener: &str) -> Self {
        Self::bare().to(server.cluster(listener), None)
    }

    /// The gate with everything on, in front of an MCP server. What keys of [`CALLER_TIER`] may call, the body decides.
    pub(crate) fn calls(server: &Server, listener: &str) -> Self {
        let mut plugin = plugin(Gate::Everything);
        let mut tier = plugin["tiers"]["default"].clone();
        let tool = json!({"name": "search_*", "args": [{"at": "/limit", "max": 100}]});
        tier["only"]["any_of"] =
            json!([{"mcp": {"tools": [tool]}}, {"paths": [Message::PLAIN_PATH]}]);
        plugin["tiers"][CALLER_TIER] = tier;
        plugin["mcp"] = json!({"routes": [{"path": "/v1/mcp/{server}"}], "refuse_with": "http"});
        Self::gate_with(Gate::Everything, &plugin, listener).to(server.cluster(listener), None)
    }

    /// The gate. Each listener has a VM and counts of its own.
    pub(crate) fn gate(gate: Gate, listener: &str) -> Self {
        Self::gate_with(gate, &plugin(gate), listener)
    }

    /// The gate with everything on, whose audit records form a chain.
    pub(crate) fn chained(listener: &str) -> Self {
        let mut plugin = plugin(Gate::Everything);
        plugin["audit"]["secret"] = plugin["keyring"][0]["secret"].clone();
        Self::gate_with(Gate::Everything, &plugin, listener)
    }

    fn gate_with(gate: Gate, plugin: &Value, listener: &str) -> Self {
        let mut wasm = shipped_wasm();
        wasm["config"]["configuration"]["value"] = json!(plugin.to_string());
        let mut chain = Self::of([module(wasm, &artefact("VKEY_TEST_WASM"), listener)]);
        if gate >= Gate::Audit {
            chain.access_log = Some(audit_log());
        }
        if gate >= Gate::Everything {
            chain.filters.push(shipped_filter("envoy.filters.http.rbac"));
        }
        chain
    }

    /// Envoy's verification of JWTs, with the results of the latest kept or not.
    pub(crate) fn jwt(issuer: &Issuer, cached: bool) -> Self {
        Self::of([jwt_authn(&provider(issuer, cached))])
    }

    /// Envoy's comparison of keys with a list.
    pub(crate) fn api_key(key: &str) -> Self {
        Self::of([filter(
            "api_key_auth",
            "api_key_auth.v3.ApiKeyAuth",
            json!({
                "credentials": [{"key": key, "client": "acme"}],
                "key_sources": [{"header": "authorization"}],
            }),
        )])
    }

    /// Envoy's rate limit of one worker's process, without a service.
    pub(crate) fn local_ratelimit() -> Self {
        let mut chain = Self::of([local_ratelimit(PLENTY)]);
        chain.limited = Some(json!({
            "envoy.filters.http.local_ratelimit": local_ratelimit(1)["typed_config"],
        }));
        chain
    }

    /// A script that compares the key with the one it knows and takes it out.
    pub(crate) fn lua(key: &str) -> Self {
        let script = format!(
            r#"
            local keys = {{["Bearer {key}"] = "acme"}}
            function envoy_on_request(handle)
              local headers = handle:headers()
              local credential = headers:get("authorization")
              if credential == nil or keys[credential] == nil then
                handle:respond({{[":status"] = "401"}}, "no such key")
                return
              end
              headers:remove("authorization")
            end
            "#
        );
        let source = json!({"default_source_code": {"inline_string": script}});
        Self::of([filter("lua", "lua.v3.Lua", source)])
    }

    /// Envoy's own filters for a token, a rate and a line in the log.
    pub(crate) fn native(issuer: &Issuer, cached: bool) -> Self {
        let mut chain = Self::local_ratelimit();
        chain.filters.insert(0, jwt_authn(&provider(issuer, cached)));
        chain.access_log = Some(json_log());
        chain
    }

    /// The same with rules for methods and paths, and with headers that say who asks.
    pub(crate) fn native_with_rules(issuer: &Issuer) -> Self {
        let mut chain = Self::native(issuer, false);
        let mut provider = provider(issuer, false);
        provider["claim_to_headers"] = json!([
            {"header_name": "x-jti", "claim_name": "jti"},
            {"header_name": "x-tenant", "claim_name": "tenant"},
            {"header_name": "x-sub", "claim_name": "sub"},
        ]);
        let method = |method: &str| json!({"header": {"name": ":method", "string_match": {"exact": method}}});
        let rules = json!({"action": "ALLOW", "policies": {"opened": {
            "permissions": [{"and_rules": {"rules": [
                {"or_rules": {"rules": [method("GET"), method("POST")]}},
                {"url_path": {"path": {"prefix": "/v1/"}}},
            ]}}],
            "principals": [{"any": true}],
        }}});
        let rbac = filter("rbac", "rbac.v3.RBAC", json!({"rules": rules}));
        if let Some(first) = chain.filters.first_mut() {
            *first = jwt_authn(&provider);
        }
        chain.filters.insert(1, rbac);
        chain
    }

    /// What the first filter, a module, is configured with.
    pub(crate) fn wasm(&self) -> Option<&Value> {
        self.filters.first()?["typed_config"].get("config")
    }

    /// The same, in front of a cluster.
    fn to(self, cluster: Cluster, host: Option<&'static str>) -> Self {
        Self { cluster: Some(cluster), host, ..self }
    }

    fn of(filters: impl Into<Vec<Value>>) -> Self {
        Self { filters: filters.into(), ..Self::default() }
    }
}

// === the gate ===

/// The plugin configuration of `envoy.yaml`, or as much of it as is on. Its limits are as many as
/// there, for the tier and for tenants, and never met.
fn plugin(gate: Gate) -> Value {
    let mut shipped = config::shipped();
    let text = config::plugin(&mut shipped).as_str().map(str::to_owned).unwrap_or_default();
    let mut plugin: Value = serde_json::from_str(&text).expect("envoy.yaml has a configuration");
    let tier = &mut plugin["tiers"]["default"];
    let only = tier["only"].clone();
    plenty(tier);
    let mut tenant = plugin["tenants"]["acme"].take();
    plenty(&mut tenant);
    let tenants: serde_json::Map<_, _> =
        (0..TENANTS).map(|n| (tenant_name(n), tenant.clone())).collect();
    plugin["tenants"] = json!(tenants);
    plugin["tiers"][NARROW_TIER] = json!({"rate": {"requests": 1, "per": "366d"}});
    if gate == Gate::Everything {
        return plugin;
    }
    let mut part = json!({
        "keyring": plugin["keyring"],
        "forward": {"identity_headers": false},
        // Nothing shows a line of this level.
        "audit": {"sink": "log", "level": "trace"},
    });
    match gate {
        Gate::Verify => {}
        Gate::Rules => part["tiers"] = json!({"default": {"only": only}}),
        _ => {
            part["tiers"] = plugin["tiers"].take();
            part["tenants"] = plugin["tenants"].take();
        }
    }
    if gate >= Gate::Audit {
        part["audit"] = plugin["audit"].take();
    }
    part
}

/// The name of one of the tenants that have limits.
pub(crate) fn tenant_name(number: usize) -> String {
    format!("tenant-{:02}", number % TENANTS)
}

/// Raises the limits of a tier or a tenant.
fn plenty(limits: &mut Value) {
    limits["rate"]["requests"] = json!(PLENTY);
    limits["rate"]["burst"] = json!(PLENTY);
    for quota in limits["quotas"].as_array_mut().into_iter().flatten() {
        quota["requests"] = json!(PLENTY);
    }
}

/// The Wasm filter's typed configuration in `envoy.yaml`.
fn shipped_wasm() -> Value {
    shipped_filter("envoy.filters.http.wasm")["typed_config"].take()
}

fn shipped_filter(name: &str) -> Value {
    let mut shipped = config::shipped();
    let mut filters = config::http_filters(&mut shipped).drain(..);
    filters.find(|filter| filter["name"] == name).expect("a filter of envoy.yaml")
}

fn module(mut wasm: Value, path: &Path, listener: &str) -> Value {
    wasm["config"]["name"] = json!(listener);
    wasm["config"]["vm_config"]["vm_id"] = json!(listener);
    wasm["config"]["vm_config"]["code"]["local"]["filename"] = json!(path);
    wasm["config"]["vm_config"]["environment_variables"]["host_env_keys"] =
        json!([keys::VARIABLE, provider::VARIABLE]);
    json!({"name": "envoy.filters.http.wasm", "typed_config": wasm})
}

/// The access log of `envoy.yaml`, with the line in two halves and without a file.
fn audit_log() -> Value {
    let mut shipped = config::shipped();
    let mut log = config::connection_manager(&mut shipped, "gate")["access_log"][0].take();
    log["typed_config"]["path"] = json!("/dev/null");
    log["typed_config"]["log_format"]["text_format_source"]["inline_string"] = json!(AUDIT_LINE);
    log
}

// === Envoy's own ===

fn filter(name: &str, message: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{message}"));
    json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
}

fn provider(issuer: &Issuer, cached: bool) -> Value {
    let mut provider = json!({
        "issuer": ISSUER,
        "local_jwks": {"inline_string": issuer.jwks()},
    });
    if cached {
        provider["jwt_cache_config"] = json!({"jwt_cache_size": 1000});
    }
    provider
}

fn jwt_authn(provider: &Value) -> Value {
    filter(
        "jwt_authn",
        "jwt_authn.v3.JwtAuthentication",
        json!({
            "providers": {"bench": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}],
        }),
    )
}

fn local_ratelimit(tokens: u64) -> Value {
    let always = |key: &str| {
        json!({
            "runtime_key": key, "default_value": {"numerator": 100, "denominator": "HUNDRED"},
        })
    };
    filter(
        "local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        json!({
            "stat_prefix": "bench",
            "token_bucket": {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "3600s"},
            "filter_enabled": always("bench_enabled"),
            "filter_enforced": always("bench_enforced"),
        }),
    )
}

fn json_log() -> Value {
    json!({"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "/dev/null",
        "log_format": {"json_format": {
            "start_time": "%START_TIME%",
            "request_id": "%REQ(X-REQUEST-ID)%",
            "method": "%REQ(:METHOD)%",
            "authority": "%REQ(:AUTHORITY)%",
            "path": "%REQ(:PATH)%",
            "protocol": "%PROTOCOL%",
            "status": "%RESPONSE_CODE%",
            "flags": "%RESPONSE_FLAGS%",
            "bytes_received": "%BYTES_RECEIVED%",
            "bytes_sent": "%BYTES_SENT%",
            "duration": "%DURATION%",
            "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
            "user_agent": "%REQ(USER-AGENT)%",
            "upstream": "%UPSTREAM_HOST%",
        }},
    }})
}
