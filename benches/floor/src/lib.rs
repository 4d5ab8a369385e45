//! The yardstick of the benchmark: a module that makes only the host calls that the job of the gate needs.
//!
//! The job: verify a key at some time, count and limit it and its tenant exactly, replace it by an identity, seal the
//! request, write an audit line. This module makes the calls for that and computes nothing: every value that it writes
//! is a constant, as long as a real one. What it costs is what no gate on proxy-wasm can save. docs/performance.md has a
//! table that says what each call is for.
//!
//! It has no SDK, because the SDK does more than the calls. It exports the callbacks that the gate exports.

#![allow(unsafe_code)]
#![allow(missing_docs, reason = "the public functions are the callbacks of the ABI")]

use std::cell::UnsafeCell;
use std::ptr::null_mut;

mod abi {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_add_header_map_value(
            map: u32,
            name: *const u8,
            name_len: usize,
            value: *const u8,
            value_len: usize,
        ) -> u32;
        pub(super) fn proxy_define_metric(
            kind: u32,
            name: *const u8,
            name_len: usize,
            metric: *mut u32,
        ) -> u32;
        pub(super) fn proxy_get_current_time_nanoseconds(time_ns: *mut u64) -> u32;
        pub(super) fn proxy_get_header_map_pairs(
            map: u32,
            data: *mut *mut u8,
            len: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_property(
            path: *const u8,
            path_len: usize,
            data: *mut *mut u8,
            len: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_shared_data(
            name: *const u8,
            name_len: usize,
            data: *mut *mut u8,
            len: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub(super) fn proxy_increment_metric(metric: u32, by: i64) -> u32;
        pub(super) fn proxy_remove_header_map_value(
            map: u32,
            name: *const u8,
            name_len: usize,
        ) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_len: usize,
            value: *const u8,
            value_len: usize,
        ) -> u32;
        pub(super) fn proxy_set_property(
            path: *const u8,
            path_len: usize,
            value: *const u8,
            value_len: usize,
        ) -> u32;
        pub(super) fn proxy_set_shared_data(
            name: *const u8,
            name_len: usize,
            data: *const u8,
            data_len: usize,
            cas: u32,
        ) -> u32;
    }

    unsafe extern "C" {
        pub(super) fn __wasm_call_ctors();
    }
}

// Numbers of the ABI.
const OK: u32 = 0;
const CONTINUE: u32 = 0;
const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const COUNTER: u32 = 0;

const CLIENT_ADDRESS: &str = "source\0address";

const KEY_HEADER: &str = "authorization";
const IDENTITY: [(&str, &str); 3] =
    [("x-vkey-key", "k_0000000000000001"), ("x-vkey-tenant", "tenant-00"), ("x-vkey-sub", "bench")];

/// The cells of a key and of a tenant, with a rate, a quota and, for the key, what is known of its use: their names in
/// shared data and their sizes in bytes.
const KEY_CELL: (&str, usize) = ("vkey/k/tenant-00/k_0000000000000001", 181);
const TENANT_CELL: (&str, usize) = ("vkey/t/tenant-00", 121);

const SEAL: (&str, &str) = ("vkey.decision", "allow");
const AUDIT: &str = "vkey.audit";
/// A usual record, as the access log splices it.
const RECORD: &str = concat!(
    r#"2","ts":"2026-01-02T03:04:05.678901Z","host":"vkey-demo","#,
    r#""req":"0f0c7c5e-7a6c-4b0a-9d3e-1d2c3b4a5968","decision":"allow","reason":null,"kid":"main-2954","#,
    r#""jti":"k_0000000000000001","tenant":"tenant-00","sub":"bench","tier":"default","caveats":0,"#,
    r#""src":"127.0.0.1","method":"GET","authority":"127.0.0.1","path":"/v1/models","query_keys":[],"#,
    r#""model":null,"mcp":null,"tokens":null,"cost":null,"tls_verdict":null,"#,
    r#""tls_policy":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","#,
    r#""anomaly":null,"plan":"0123456789ab/0"#
);

const METRIC: &str = "vkey_requests_total.decision.allow.reason.none.tenant.tenant-00";

const LIMITS_HEADER: &str = "ratelimit";
const LIMITS: &str = concat!(
    r#""tier_rate";r=999999999;t=1, "tier_requests_day";r=999999999;t=43200, "#,
    r#""tenant_rate";r=999999999;t=1, "tenant_requests_month";r=999999999;t=1296000"#
);

/// Memory for what the host hands over. Each call uses all of it, since nothing is kept until the next one.
struct Memory(UnsafeCell<[u8; MEMORY_BYTES]>);

const MEMORY_BYTES: usize = 64 << 10;

// SAFETY: a module has one thread.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; MEMORY_BYTES]));

/// The metric's number.
struct Metric(UnsafeCell<u32>);

// SAFETY: a module has one thread.
unsafe impl Sync for Metric {}

static REQUESTS: Metric = Metric(UnsafeCell::new(0));

// === callbacks ===

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the host calls this once, before anything else.
    unsafe { abi::__wasm_call_ctors() };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    if size <= MEMORY_BYTES { MEMORY.0.get().cast() } else { null_mut() }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(_id: u32, _root_id: u32) {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root_id: u32, _len: usize) -> bool {
    true
}

/// Creates the cells and the metric.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_root_id: u32, _len: usize) -> bool {
    let bytes: *const u8 = MEMORY.0.get().cast();
    let created = [KEY_CELL, TENANT_CELL].map(|(name, len)| {
        // SAFETY: both slices are valid for their lengths, and the host copies them.
        unsafe { abi::proxy_set_shared_data(name.as_ptr(), name.len(), bytes, len, 0) }
    });
    // SAFETY: the name is valid for its length; the host writes one number to the place.
    let defined = unsafe {
        abi::proxy_define_metric(COUNTER, METRIC.as_ptr(), METRIC.len(), REQUESTS.0.get())
    };
    created == [OK; 2] && defined == OK
}

/// Makes the calls of a request. It is sealed last, and only if all calls succeeded.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(_id: u32, _count: usize, _end_of_stream: bool) -> u32 {
    let (mut now_ns, mut data, mut len) = (0, null_mut(), 0);
    // SAFETY: the names are valid for their lengths; the host writes to the places.
    let mut failed = unsafe {
        abi::proxy_get_current_time_nanoseconds(&raw mut now_ns)
            | abi::proxy_get_header_map_pairs(REQUEST_HEADERS, &raw mut data, &raw mut len)
            | abi::proxy_get_property(
                CLIENT_ADDRESS.as_ptr(),
                CLIENT_ADDRESS.len(),
                &raw mut data,
                &raw mut len,
            )
    };
    failed |= count(KEY_CELL.0) | count(TENANT_CELL.0);
    // SAFETY: the name is valid for its length, and the host does not keep it.
    failed |= unsafe {
        abi::proxy_remove_header_map_value(REQUEST_HEADERS, KEY_HEADER.as_ptr(), KEY_HEADER.len())
    };
    for (name, value) in IDENTITY {
        failed |= add(name, value);
    }
    failed |= set_filter_state(AUDIT, RECORD);
    if failed == OK {
        set_filter_state(SEAL.0, SEAL.1);
    }
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(_id: u32, _len: usize, _end_of_stream: bool) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(_id: u32, _count: usize) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(_id: u32, _count: usize, _end_of_stream: bool) -> u32 {
    // SAFETY: both slices are valid for their lengths, and the host copies them.
    unsafe {
        abi::proxy_replace_header_map_value(
            RESPONSE_HEADERS,
            LIMITS_HEADER.as_ptr(),
            LIMITS_HEADER.len(),
            LIMITS.as_ptr(),
            LIMITS.len(),
        )
    };
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(_id: u32, _count: usize) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(_id: u32, _len: usize, _end_of_stream: bool) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(_id: u32) {
    // SAFETY: two numbers; a module has one thread.
    unsafe { abi::proxy_increment_metric(*REQUESTS.0.get(), 1) };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(_id: u32) {}

// === host calls ===

/// Reads a cell and writes the same bytes back.
fn count(name: &str) -> u32 {
    let (mut data, mut len, mut cas) = (null_mut(), 0, 0);
    // SAFETY: the name is valid for its length; the host writes to the three places. It has filled `len` bytes at
    // `data`, and copies them.
    unsafe {
        abi::proxy_get_shared_data(
            name.as_ptr(),
            name.len(),
            &raw mut data,
            &raw mut len,
            &raw mut cas,
        ) | abi::proxy_set_shared_data(name.as_ptr(), name.len(), data, len, cas)
    }
}

fn add(name: &str, value: &str) -> u32 {
    // SAFETY: both slices are valid for their lengths, and the host copies them.
    unsafe {
        abi::proxy_add_header_map_value(
            REQUEST_HEADERS,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    }
}

fn set_filter_state(key: &str, value: &str) -> u32 {
    // SAFETY: both slices are valid for their lengths, and the host copies them.
    unsafe { abi::proxy_set_property(key.as_ptr(), key.len(), value.as_ptr(), value.len()) }
}
