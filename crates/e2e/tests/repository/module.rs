//! The built module as a file: what it asks of a host, what it offers, how large it is.

use std::collections::BTreeSet;

use crate::targets::MAX_MODULE_BYTES;

use wasmparser::{Parser, Payload};

/// The host calls of `filters/vkey/src/hostcalls.rs`. A host that lacks an import refuses the module, so
/// each one more is a host less.
pub(crate) const HOST_CALLS: [&str; 22] = [
    "proxy_add_header_map_value",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_get_buffer_bytes",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_get_metric",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_record_metric",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_send_local_response",
    "proxy_set_buffer_bytes",
    "proxy_set_effective_context",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
];

/// What the standard library needs to read the environment and to say why it aborts, and the randomness of the ids of
/// audit chains.
const WASI: [&str; 5] = ["environ_get", "environ_sizes_get", "fd_write", "proc_exit", "random_get"];

/// Every export is called for every request, where it is a callback of requests.
pub(crate) const EXPORTS: [&str; 17] = [
    "_initialize",
    "memory",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_http_call_response",
    "proxy_on_log",
    "proxy_on_memory_allocate",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_body",
    "proxy_on_response_headers",
    "proxy_on_response_trailers",
    "proxy_on_tick",
    "proxy_on_vm_start",
];

/// What nginx calls whether it is there or not. On Envoy it would cost every request a call.
const NGINX_EXPORTS: [&str; 1] = ["proxy_on_done"];

fn module() -> Vec<u8> {
    built("VKEY_TEST_WASM")
}

fn nginx_module() -> Vec<u8> {
    built("VKEY_TEST_WASM_NGINX")
}

fn built(variable: &str) -> Vec<u8> {
    let path = std::env::var_os(variable);
    let path = path.unwrap_or_else(|| panic!("{variable} is not set: run `make test`"));
    std::fs::read(path).expect("the module is built")
}

fn imports(module: &[u8]) -> BTreeSet<String> {
    let mut imports = BTreeSet::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ImportSection(section) = payload.unwrap() {
            for import in section.into_imports() {
                let import = import.unwrap();
                imports.insert(format!("{}.{}", import.module, import.name));
            }
        }
    }
    imports
}

fn exports(module: &[u8]) -> BTreeSet<String> {
    let mut exports = BTreeSet::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(section) = payload.unwrap() {
            exports.extend(section.into_iter().map(|export| export.unwrap().name.to_owned()));
        }
    }
    exports
}

#[test]
fn it_imports_no_more_than_it_uses() {
    let host_calls = HOST_CALLS.map(|name| format!("env.{name}"));
    let wasi = WASI.map(|name| format!("wasi_snapshot_preview1.{name}"));
    let expected: BTreeSet<_> = host_calls.into_iter().chain(wasi).collect();
    assert_eq!(imports(&module()), expected);
    // nginx shows no metric.
    let mut on_nginx = expected;
    assert!(on_nginx.remove("env.proxy_get_metric"));
    // The module makes no calls there.
    assert!(on_nginx.remove("env.proxy_http_call"));
    assert_eq!(imports(&nginx_module()), on_nginx);
}

#[test]
fn it_exports_no_more_than_it_needs() {
    let expected: BTreeSet<_> = EXPORTS.map(str::to_owned).into();
    assert_eq!(exports(&module()), expected);
    let mut on_nginx = &expected | &NGINX_EXPORTS.map(str::to_owned).into();
    assert!(on_nginx.remove("proxy_on_http_call_response"));
    assert_eq!(exports(&nginx_module()), on_nginx);
}

#[test]
fn it_is_small_and_valid() {
    for module in [module(), nginx_module()] {
        wasmparser::validate(&module).unwrap();
        let bytes = u32::try_from(module.len()).unwrap();
        assert!(bytes <= MAX_MODULE_BYTES, "{bytes} bytes");
    }
}
