//! The built module on a real Envoy, behind the shipped `envoy.yaml`.

#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "in a test a panic is the report, and JSON literals read better without a sign"
)]
#![allow(clippy::disallowed_methods, reason = "keys are minted by the clock that Envoy sees")]

#[allow(dead_code, reason = "the tests on nginx use the rest")]
#[path = "../nginx/http2.rs"]
mod http2;
#[allow(dead_code, reason = "other machines use the rest")]
#[path = "../../../../tests/scenario/mod.rs"]
mod scenario;
#[path = "../support/mod.rs"]
mod support;

mod add_to_envoy;
mod agreement;
mod alerts;
mod audit;
mod audit_als;
mod audit_chain;
mod audit_finality;
mod audit_lines;
mod audit_serve;
mod bodies;
mod budgets;
mod certificates;
mod client_libraries;
mod clients;
mod closed;
mod counts;
mod credentials;
mod credentials_in_front;
mod damaged;
mod delivery;
mod fields;
mod gateways;
mod hostile;
mod identity;
mod istio;
mod keys;
mod lifetimes;
mod limits;
mod llm;
mod load;
mod mcp;
mod mcp_sessions;
mod memory;
mod metrics;
mod plaintext;
mod proxy_logs;
mod readiness;
mod reasons;
mod recipes;
mod refunds;
mod rotation;
mod route_changes;
mod scenarios;
mod secrets;
mod tls_lint;
mod tls_render;
mod updates;
mod upstream_certificates;
mod upstream_cost;
mod upstream_evasions;
mod upstream_gate;
mod upstream_latency;
mod upstream_load;
mod upstream_policy;
mod upstream_response;
mod upstream_retries;
mod upstream_shipped;
mod upstream_stamp;
mod upstreams;
mod views;
